//! The kubelet's process.

use std::process::ExitCode;

use clap::Parser;
use kubelet::Flags;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    client::observability::init(flags.verbosity);
    client::component::main("kubelet", |token| kubelet::credentials::run(flags, token))
}
