//! The `kube-proxy` binary.

use std::process::ExitCode;

use clap::Parser;
use client::component;
use proxy::Flags;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = Flags::parse();
    component::main("kube-proxy", |token| async move {
        let connection = flags.client.options("kube-proxy");
        client::observability::init(flags.verbosity);
        let cleanup = flags.cleanup;
        let config = flags.into_config()?;
        if cleanup {
            return proxy::kernel::cleanup().await;
        }
        let client = client::connect(&connection).await?;
        proxy::run(config, client, token).await
    })
}
