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
        client::observability::init(flags.verbosity);
        let (cleanup, init_only) = (flags.cleanup, flags.init_only);
        let (config, connection) = flags.resolve()?;
        if cleanup {
            return proxy::kernel::cleanup().await;
        }
        if init_only {
            proxy::sysctl::prepare(&config);
            return Ok(());
        }
        proxy::sysctl::protect(&config);
        let client = client::connect(&connection).await?;
        proxy::run(config, client, token).await
    })
}
