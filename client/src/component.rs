//! What the `main` of every component does: runtime, signals, exit codes.

use std::future::Future;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// Exit code of a component whose configuration is wrong.
pub const BAD_CONFIGURATION: u8 = 64;

/// A configuration that cannot be used; a component's `main` exits with [`BAD_CONFIGURATION`] for it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadConfiguration(pub String);

/// Runs a component to its end: SIGTERM and SIGINT cancel the token. Exits 0 after a stop in good order, 64 for a
/// [`BadConfiguration`], 1 for any other error; the error goes to standard error as one line.
pub fn main<F, Fut>(name: &'static str, run: F) -> ExitCode
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    crate::connect::install_crypto_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(name, &error.into()),
    };
    let outcome = runtime.block_on(async {
        let token = CancellationToken::new();
        let signals = watch_signals(token.clone());
        tokio::pin!(signals);
        let work = run(token);
        tokio::pin!(work);
        tokio::select! {
            outcome = &mut work => outcome,
            Err(error) = &mut signals => Err(error.into()),
            never = crate::observability::upkeep() => match never {},
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(name, &error),
    }
}

fn fail(name: &str, error: &anyhow::Error) -> ExitCode {
    eprintln!("{name}: {error:#}");
    if error.is::<BadConfiguration>() { ExitCode::from(BAD_CONFIGURATION) } else { ExitCode::FAILURE }
}

/// Cancels `token` at the first signal; ends the process at the second. Only ends by an error.
async fn watch_signals(token: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
        if token.is_cancelled() {
            std::process::exit(1);
        }
        info!("signal received, stopping");
        token.cancel();
    }
}
