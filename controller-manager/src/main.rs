//! `kube-controller-manager`: runs the controllers of the cluster.

use clap::Parser;
use controller_manager::{Flags, run};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "kube-controller-manager";

fn main() -> ExitCode {
    let flags = Flags::parse();
    client::observability::init(flags.v);
    client::component::main(NAME, |token| async move {
        let options = flags.client.options(NAME);
        let mut config = flags.into_config()?;
        let client = client::connect(&options).await?;
        if config.flags.use_service_account_credentials {
            config.anonymous = Some(client::connect_anonymous(&options).await?);
        }
        run(config, client, token).await
    })
}
