//! `kube-apiserver`

use std::process::ExitCode;

use apiserver::flags::Flags;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = match Flags::try_parse_args(std::env::args_os()) {
        Ok(flags) => flags,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            eprintln!("kube-apiserver: {}", text.lines().next().unwrap_or_default());
            return ExitCode::from(client::component::BAD_CONFIGURATION);
        }
        Err(help) => {
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    client::observability::init(flags.verbosity);
    client::component::main("kube-apiserver", |token| async move {
        let config =
            flags.into_config().map_err(|error| client::component::BadConfiguration(format!("{error:#}")))?;
        apiserver::run(config, token).await
    })
}
