//! The `kube-scheduler` binary.

use std::process::ExitCode;

use clap::Parser;
use client::component;
use scheduler::Flags;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    component::main("kube-scheduler", |token| async move {
        client::observability::init(flags.verbosity);
        let client = client::connect(&flags.client.options("kube-scheduler")).await?;
        scheduler::run(flags.into_config()?, client, token).await
    })
}
