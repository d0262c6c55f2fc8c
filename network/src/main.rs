//! The `pod-network` binary.

use std::process::ExitCode;

use clap::Parser;
use client::component;
use network::Flags;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    component::main("pod-network", |token| async move {
        client::observability::init(flags.verbosity);
        if flags.cleanup {
            return network::apply::cleanup().await;
        }
        let client = client::connect(&flags.client.options("pod-network")).await?;
        network::run(flags.into_config()?, client, token).await
    })
}
