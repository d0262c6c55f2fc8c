//! Calls that are made again when they fail for a moment (upstream `apiserver/pkg/util/webhook`).

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use serde_json::Value;

use super::{CallError, Client};

/// When a call is made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How long it is waited before the second call.
    pub first: Duration,
    /// Whether after any failure; else after those only that may be over in a moment.
    pub always: bool,
}

impl Retry {
    /// For decisions that a request waits for.
    pub const MOMENTARY: Self = Self { first: Duration::from_millis(500), always: false };
}

/// By how much longer it is waited before each further call ...
const FACTOR: f64 = 1.5;
/// ... by which part of it that differs ...
const JITTER: f64 = 0.2;
/// ... and how many calls there are.
const CALLS: u32 = 5;

impl Client {
    /// Posts a body as often as it takes, but not for ever. `told` hears of each call what came of it, and how long
    /// that took.
    ///
    /// # Errors
    /// As the last call did.
    pub async fn post_again(
        &self,
        body: Bytes,
        told: impl Fn(Result<(), &CallError>, Duration) + Send,
    ) -> Result<Value, CallError> {
        let call = || async {
            let begin = tokio::time::Instant::now();
            let outcome = self.post(body.clone(), None).await;
            told(outcome.as_ref().map(|_| ()), begin.elapsed());
            outcome
        };
        again(Retry::MOMENTARY, call).await
    }

    /// Posts a body to whose answer nobody listens, as often as it takes, but not for ever.
    ///
    /// # Errors
    /// As the last call did.
    pub async fn deliver(&self, body: Bytes, retry: Retry) -> Result<(), CallError> {
        again(retry, || self.post_unheard(body.clone())).await
    }
}

async fn again<T, F>(retry: Retry, call: impl Fn() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut wait = retry.first;
    for _ in 1..CALLS {
        match call().await {
            Err(error) if error.again || retry.always => {
                tracing::debug!(%error, "a webhook failed, will call it again");
            }
            outcome => return outcome,
        }
        let longer = rand::rng().random_range(0.0..JITTER);
        tokio::time::sleep(wait.mul_f64(1.0 + longer)).await;
        wait = wait.mul_f64(FACTOR);
    }
    call().await
}

/// Whether the other end closed the connection while it was used.
pub(super) fn is_reset(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if kind == Some(std::io::ErrorKind::ConnectionReset) {
            return true;
        }
        source = error.source();
    }
    false
}
