//! The `cluster-dns` binary.

use std::process::ExitCode;

use clap::Parser;
use client::component;
use dns::Flags;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    component::main("cluster-dns", |token| async move {
        client::observability::init(flags.verbosity);
        let client = client::connect(&flags.client.options("cluster-dns")).await?;
        dns::run(flags.into_config()?, client, token).await
    })
}
