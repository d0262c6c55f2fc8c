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
        let mut options = flags.client.options("kube-scheduler");
        let config = flags.into_config()?;
        if options.kubeconfig.is_none() {
            options.kubeconfig = config.kubeconfig();
        }
        let client = client::connect(&options).await?;
        scheduler::run(config, client, token).await
    })
}
