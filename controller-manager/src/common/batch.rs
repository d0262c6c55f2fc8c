//! Slow start: creations begin with one call and double while they succeed, so that a quota that says no is asked
//! a few times and not a thousand times.

use futures::future::join_all;
use std::future::Future;

/// What came of a batch of calls.
#[derive(Debug)]
pub struct Outcome<E> {
    /// How many calls succeeded.
    pub succeeded: usize,
    /// How many calls were not made, because earlier ones failed.
    pub skipped: usize,
    /// The first failure.
    pub error: Option<E>,
}

/// Calls `call` for each item: one first, then twice as many at once after each batch that went well.
pub async fn slow_start<T, E, Fut>(items: Vec<T>, call: impl Fn(T) -> Fut) -> Outcome<E>
where
    Fut: Future<Output = Result<(), E>>,
{
    let mut outcome = Outcome { succeeded: 0, skipped: 0, error: None };
    let mut items = items.into_iter();
    let mut size = 1;
    loop {
        let batch: Vec<_> = items.by_ref().take(size).map(&call).collect();
        if batch.is_empty() {
            return outcome;
        }
        for result in join_all(batch).await {
            match result {
                Ok(()) => outcome.succeeded += 1,
                Err(error) => outcome.error = outcome.error.or(Some(error)),
            }
        }
        if outcome.error.is_some() {
            outcome.skipped = items.len();
            return outcome;
        }
        size *= 2;
    }
}

/// Calls `call` for each item at once; the first failure is returned after all calls have ended.
pub async fn all_at_once<T, E, Fut>(
    items: impl IntoIterator<Item = T>,
    call: impl Fn(T) -> Fut,
) -> Result<(), E>
where
    Fut: Future<Output = Result<(), E>>,
{
    join_all(items.into_iter().map(call)).await.into_iter().find(Result::is_err).unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn failing_batch_ends_the_series() {
        // (calls, index of the first failing call, calls made)
        for (count, fails_at, made) in [
            (0, usize::MAX, 0),
            (10, usize::MAX, 10),
            (10, 0, 1),
            (10, 1, 3),
            (10, 2, 3),
            (10, 3, 7),
            (10, 9, 10),
        ] {
            let calls = AtomicUsize::new(0);
            let outcome = slow_start((0..count).collect(), |index| {
                calls.fetch_add(1, Ordering::SeqCst);
                async move { if index >= fails_at { Err("no") } else { Ok(()) } }
            })
            .await;
            assert_eq!(calls.load(Ordering::SeqCst), made, "{count} calls failing at {fails_at}");
            assert_eq!(outcome.skipped, count - made);
            assert_eq!(outcome.succeeded, made.min(fails_at));
        }
    }
}
