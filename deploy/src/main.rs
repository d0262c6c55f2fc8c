//! The `coxswain` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    deploy::cli::main()
}
