//! Which objects have come to what is waited for, and when, as a watch tells.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use client::{Event, Object, ObjectKey, Selection, SharedInformerFactory};
use tokio::sync::watch;

/// How long nothing may happen before the wait counts as failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Objects that meet a condition, with when they first did.
#[derive(Clone, Debug)]
pub struct Tally {
    state: Arc<Mutex<State>>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that meet the condition now.
    met: HashMap<ObjectKey, Instant>,
}

impl State {
    fn see(&mut self, key: ObjectKey, meets: bool, now: Instant) -> usize {
        if meets {
            self.met.entry(key).or_insert(now);
        } else {
            self.met.remove(&key);
        }
        self.met.len()
    }
}

impl Tally {
    /// Begins to count objects of `namespace`, or of all.
    pub async fn begin<K: Object>(
        informers: &SharedInformerFactory,
        namespace: Option<&str>,
        meets: impl Fn(&K) -> bool + Send + Sync + 'static,
    ) -> Self {
        let selection = Selection { namespace: namespace.map(str::to_owned), ..Selection::default() };
        let informer = informers.informer_selected::<K>(selection);
        informer.synced().await;
        let tally = Self { state: Arc::default(), count: watch::Sender::new(0) };
        let told = tally.clone();
        informer.subscribe(move |event| {
            let meets = !matches!(event, Event::Deleted(_)) && meets(event.object());
            let mut state = told.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let count = state.see(ObjectKey::of(&**event.object()), meets, Instant::now());
            told.count.send_if_modified(|seen| std::mem::replace(seen, count) != count);
        });
        tally
    }

    /// Waits until the number of objects that meet the condition is good.
    ///
    /// # Errors
    /// For two minutes nothing changed.
    pub async fn wait(&self, what: &str, is_good: impl Fn(usize) -> bool) -> Result<()> {
        let mut count = self.count.subscribe();
        loop {
            let now = *count.borrow_and_update();
            if is_good(now) {
                return Ok(());
            }
            // The sender lives as long as `self`.
            if tokio::time::timeout(PATIENCE, count.changed()).await.is_err() {
                bail!("waiting for {what}: for {PATIENCE:?} it has been {now}");
            }
        }
    }

    /// Waits until so many objects meet the condition.
    ///
    /// # Errors
    /// For two minutes nothing changed.
    pub async fn wait_for(&self, what: &str, wanted: usize) -> Result<()> {
        self.wait(&format!("{wanted} {what}"), |count| count >= wanted).await
    }

    /// Waits until no object meets the condition.
    ///
    /// # Errors
    /// For two minutes nothing changed.
    pub async fn wait_for_none(&self, what: &str) -> Result<()> {
        self.wait(&format!("no {what}"), |count| count == 0).await
    }

    /// How long each object took since it was begun; those that nobody began are left out.
    #[must_use]
    pub fn since(&self, begun: &HashMap<String, Instant>) -> Vec<Duration> {
        let state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let took = |(key, met): (&ObjectKey, &Instant)| Some(met.duration_since(*begun.get(&key.name)?));
        state.met.iter().filter_map(took).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_counts_once_and_from_when_it_first_did() {
        let (mut state, now) = (State::default(), Instant::now());
        let key = |name: &str| ObjectKey::new("ns", name);
        let second = Duration::from_secs(1);
        assert_eq!(state.see(key("a"), false, now), 0);
        assert_eq!(state.see(key("a"), true, now), 1);
        assert_eq!(state.see(key("a"), true, now + second), 1);
        assert_eq!(state.see(key("b"), true, now + 3 * second), 2);
        let tally = Tally { state: Arc::new(Mutex::new(state)), count: watch::Sender::new(2) };
        let begun = HashMap::from([("a".to_owned(), now), ("b".to_owned(), now + second)]);
        let mut took = tally.since(&begun);
        took.sort();
        assert_eq!(took, [Duration::ZERO, 2 * second]);
        let mut state = tally.state.lock().expect("no panic");
        assert_eq!(state.see(key("b"), false, now), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_when_it_is_good_or_nothing_happens() {
        let tally = Tally { state: Arc::default(), count: watch::Sender::new(3) };
        tally.wait_for("things", 3).await.expect("there are three");
        let error = tally.wait_for_none("things").await.expect_err("there are three");
        assert!(error.to_string().contains("no things") && error.to_string().contains('3'), "{error}");
    }
}
