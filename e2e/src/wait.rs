//! Waiting for a condition that has a name and a value.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(100);

/// How long anything in a test may take before it counts as failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Asks again and again until the answer is `Ok(Some(_))`; the failure names what was waited for and says what the
/// last answer was.
///
/// # Errors
/// It did not come about in time.
pub async fn until<T, F, Fut>(what: &str, ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    until_within(PATIENCE, what, ask).await
}

/// The same with another patience.
///
/// # Errors
/// It did not come about in time.
pub async fn until_within<T, F, Fut>(patience: Duration, what: &str, mut ask: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let began = Instant::now();
    let mut last = String::from("not yet");
    while began.elapsed() < patience {
        match ask().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = format!("{error:#}"),
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("waited {patience:?} for: {what}; last: {last}")
}
