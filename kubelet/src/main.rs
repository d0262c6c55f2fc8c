//! The kubelet's process.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = kubelet::flags::Flags::parse();
    client::observability::init(flags.verbosity);
    client::component::main("kubelet", |token| async move {
        let options = flags.connect_options();
        let config =
            flags.into_config().map_err(|error| client::component::BadConfiguration(format!("{error:#}")))?;
        let client = match options {
            Some(options) => Some(client::connect(&options).await?),
            None => None,
        };
        kubelet::run(config, client, token).await
    })
}
