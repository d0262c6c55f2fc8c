//! Answers that are kept for a while (upstream's `LRUExpireCache` and token cache): bounded, and asked for once however
//! many want them at the same time.

use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::Instant;

struct Entry<V> {
    value: Arc<OnceCell<V>>,
    /// When it is forgotten; not before it is there.
    until: Option<Instant>,
}

/// Values by key, each for a time of its own.
pub struct TtlCache<K, V> {
    most: usize,
    entries: Mutex<IndexMap<K, Entry<V>>>,
}

impl<K: Hash + Eq + Clone, V: Clone> TtlCache<K, V> {
    /// Keeps at most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, entries: Mutex::default() }
    }

    /// The value, if it is there.
    pub fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock();
        let entry =
            entries.get(key).filter(|entry| entry.until.is_some_and(|until| Instant::now() < until))?;
        entry.value.get().cloned()
    }

    /// The value, or the one that `make` makes, with the time for which it is kept; nothing is kept of an error.
    ///
    /// # Errors
    /// As `make` does.
    pub async fn get_or_make<E, F>(&self, key: K, make: impl FnOnce() -> F) -> Result<V, E>
    where
        F: Future<Output = Result<(V, Duration), E>>,
    {
        let cell = self.cell(&key);
        let mut kept = None;
        let made = cell.get_or_try_init(|| async {
            let (value, ttl) = make().await?;
            kept = Some(ttl);
            Ok(value)
        });
        let outcome = made.await.cloned();
        let mut entries = self.entries.lock();
        let ours = entries.get_mut(&key).filter(|entry| Arc::ptr_eq(&entry.value, &cell));
        match (ours, kept, &outcome) {
            (Some(entry), Some(ttl), Ok(_)) if !ttl.is_zero() => entry.until = Some(Instant::now() + ttl),
            // Others may be about to make it.
            (Some(_), Some(_), Ok(_)) | (Some(_), None, Err(_)) => {
                entries.swap_remove(&key);
            }
            _ => {}
        }
        outcome
    }

    /// Where the value is or will be.
    fn cell(&self, key: &K) -> Arc<OnceCell<V>> {
        let now = Instant::now();
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(key)
            && entry.until.is_none_or(|until| now < until)
        {
            return Arc::clone(&entry.value);
        }
        if entries.len() >= self.most {
            entries.retain(|_, entry| entry.until.is_none_or(|until| now < until));
        }
        if entries.len() >= self.most {
            entries.swap_remove_index(0);
        }
        let value = Arc::new(OnceCell::new());
        entries.insert(key.clone(), Entry { value: Arc::clone(&value), until: None });
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn ask(
        cache: &TtlCache<u32, u32>,
        key: u32,
        answer: Result<u32, ()>,
        ttl: Duration,
    ) -> Result<u32, ()> {
        cache.get_or_make(key, || async move { answer.map(|value| (value, ttl)) }).await
    }

    #[tokio::test(start_paused = true)]
    async fn values_are_kept_for_their_time() {
        let cache = TtlCache::new(10);
        assert_eq!(ask(&cache, 1, Ok(5), SECOND).await, Ok(5));
        assert_eq!(ask(&cache, 1, Ok(6), SECOND).await, Ok(5));
        assert_eq!(cache.get(&1), Some(5));
        tokio::time::advance(SECOND).await;
        assert_eq!(cache.get(&1), None);
        assert_eq!(ask(&cache, 1, Ok(6), SECOND).await, Ok(6));
        assert_eq!(ask(&cache, 2, Ok(1), Duration::ZERO).await, Ok(1));
        assert_eq!(ask(&cache, 2, Ok(2), Duration::ZERO).await, Ok(2), "not kept at all");
        assert_eq!(ask(&cache, 3, Err(()), SECOND).await, Err(()));
        assert_eq!(ask(&cache, 3, Ok(3), SECOND).await, Ok(3), "errors are not kept");
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_too_many() {
        let cache = TtlCache::new(3);
        for key in 0..10 {
            assert_eq!(ask(&cache, key, Ok(key), SECOND).await, Ok(key));
            assert!(cache.entries.lock().len() <= 3);
        }
        tokio::time::advance(SECOND).await;
        assert_eq!(ask(&cache, 100, Ok(1), SECOND).await, Ok(1));
        assert_eq!(cache.entries.lock().len(), 1, "what is old goes first");
    }

    #[tokio::test(start_paused = true)]
    async fn many_wait_for_one_answer() {
        let (cache, asked) = (TtlCache::new(10), AtomicU32::new(0));
        let one = || {
            cache.get_or_make(1, || async {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(SECOND).await;
                Ok::<_, ()>((7, SECOND))
            })
        };
        let answers = futures::future::join_all((0..20).map(|_| one())).await;
        assert!(answers.iter().all(|answer| *answer == Ok(7)));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
