//! The `kubectl` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl::cli::main()
}
