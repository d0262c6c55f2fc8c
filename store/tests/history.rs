//! Histories of concurrent clients, recorded and then checked for linearizability.
//!
//! Every acknowledged write says at which revision it took effect, and every read as of which it was made. That
//! gives the only possible order; what is left to check is that reads and refusals agree with it, that it agrees
//! with real time (what had been answered before another operation began comes before it), and that a watch tells
//! the same story.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use store::{Error, Event, Expect, KeyValue, Range, Revision, Store};
use support::{Backend, EmbeddedBackend, EtcdBackend};

const CLIENTS: u64 = 6;
const OPERATIONS: usize = 120;
const PREFIX: &str = "/history/";

/// A key's value and the revision that wrote it.
type State = Option<(u64, u64)>;

/// What a client learned from one operation.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    /// The key was written (a value) or deleted (none) at this revision.
    Wrote { key: String, value: Option<u64>, at: u64 },
    /// The key was in this state as of this revision.
    Read { key: String, state: State, at: u64 },
    /// All keys, as of this revision.
    Listed { keys: BTreeMap<String, (u64, u64)>, at: u64 },
    /// A write was refused because the key was in this state.
    Refused { key: String, state: State },
}

/// An operation and when it was under way.
#[derive(Clone, Debug)]
struct Record {
    began: Instant,
    ended: Instant,
    answer: Answer,
}

impl Record {
    fn revision(&self) -> Option<u64> {
        match self.answer {
            Answer::Wrote { at, .. } | Answer::Read { at, .. } | Answer::Listed { at, .. } => Some(at),
            Answer::Refused { .. } => None,
        }
    }

    fn write(&self) -> Option<u64> {
        if let Answer::Wrote { at, .. } = self.answer { Some(at) } else { None }
    }
}

/// Every state of every key, in order.
struct Story {
    /// For each key the revisions at which it changed, and what it was from then on.
    changes: BTreeMap<String, BTreeMap<u64, Option<u64>>>,
}

impl Story {
    fn of(history: &[Record]) -> Result<Self, String> {
        let mut changes: BTreeMap<String, BTreeMap<u64, Option<u64>>> = BTreeMap::new();
        let mut seen = BTreeMap::new();
        for record in history {
            let Answer::Wrote { key, value, at } = &record.answer else { continue };
            if let Some(other) = seen.insert(*at, key) {
                return Err(format!("revision {at} wrote both {key} and {other}"));
            }
            changes.entry(key.clone()).or_default().insert(*at, *value);
        }
        Ok(Self { changes })
    }

    fn state(&self, key: &str, at: u64) -> State {
        let (revision, value) = self.changes.get(key)?.range(..=at).next_back()?;
        Some(((*value)?, *revision))
    }

    fn all(&self, at: u64) -> BTreeMap<String, (u64, u64)> {
        self.changes.keys().filter_map(|key| Some((key.clone(), self.state(key, at)?))).collect()
    }

    /// The revisions from which on, and before which, a key was in a state; several if it was absent several times.
    fn spans(&self, key: &str, state: State) -> Vec<(u64, u64)> {
        let empty = BTreeMap::new();
        let changes = self.changes.get(key).unwrap_or(&empty);
        let begins = std::iter::once((0, None)).chain(changes.iter().map(|(at, value)| (*at, *value)));
        let ends = changes.keys().copied().chain([u64::MAX]);
        let is = |at: u64, value: Option<u64>| value.map(|value| (value, at)) == state;
        begins.zip(ends).filter(|((at, value), _)| is(*at, *value)).map(|((at, _), end)| (at, end)).collect()
    }
}

/// Why a history cannot be that of one store that does one thing after the other.
fn check(history: &[Record]) -> Result<(), String> {
    let story = Story::of(history)?;
    for record in history {
        let agrees = match &record.answer {
            Answer::Wrote { .. } => true,
            Answer::Read { key, state, at } => story.state(key, *at) == *state,
            Answer::Listed { keys, at } => story.all(*at) == *keys,
            Answer::Refused { key, state } => {
                // Some moment of the refused operation, and one at which the key was in that state, must be the same.
                let earliest = latest_answered_before(history, record.began);
                let latest = first_write_begun_after(history, record.ended);
                story
                    .spans(key, *state)
                    .iter()
                    .any(|(begin, end)| (*begin).max(earliest) < (*end).min(latest))
            }
        };
        if !agrees {
            return Err(format!("{:?} contradicts the writes", record.answer));
        }
        if let Some(at) = record.revision() {
            let before = latest_answered_before(history, record.began);
            let late = if record.write().is_some() { at <= before } else { at < before };
            if late {
                return Err(format!("{:?} comes after revision {before} was answered", record.answer));
            }
        }
    }
    Ok(())
}

fn latest_answered_before(history: &[Record], moment: Instant) -> u64 {
    history.iter().filter(|r| r.ended < moment).filter_map(Record::revision).max().unwrap_or_default()
}

fn first_write_begun_after(history: &[Record], moment: Instant) -> u64 {
    history.iter().filter(|r| r.began > moment).filter_map(Record::write).min().unwrap_or(u64::MAX)
}

fn number(kv: &KeyValue) -> u64 {
    std::str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok()).expect("a number")
}

fn state(kv: Option<&KeyValue>) -> State {
    kv.map(|kv| (number(kv), kv.modified.0))
}

/// One client: what it does next depends on chance and on what it saw last.
async fn client(store: Arc<impl Store>, seed: u64) -> Vec<Record> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut known: BTreeMap<String, State> = BTreeMap::new();
    let mut history = vec![];
    for n in 0..OPERATIONS {
        let key = format!("{PREFIX}{}", random.random_range(0..4));
        let value = seed * 1_000_000 + n as u64;
        let last = known.get(&key).copied().flatten();
        let began = Instant::now();
        let answer = match random.random_range(0..10) {
            0..=4 => {
                let expect = last.map_or(Expect::Absent, |(_, at)| Expect::At(Revision(at)));
                let done = store.put(&key, Bytes::from(value.to_string()), expect, None).await;
                written(&key, Some(value), done)
            }
            5 => {
                let done = store.delete(&key, last.map(|(_, at)| Revision(at))).await;
                written(&key, None, done.map(|(_, at)| at))
            }
            6..=8 => {
                let (found, at) = store.get(&key).await.expect("read");
                Answer::Read { key: key.clone(), state: state(found.as_ref()), at: at.0 }
            }
            _ => {
                let found = store.range(Range::prefix(PREFIX)).await.expect("range");
                let keys = found.items.iter().map(|kv| (kv.key.clone(), (number(kv), kv.modified.0)));
                Answer::Listed { keys: keys.collect(), at: found.revision.0 }
            }
        };
        history.push(Record { began, ended: Instant::now(), answer: answer.clone() });
        match answer {
            Answer::Wrote { key, value, at } => _ = known.insert(key, value.map(|value| (value, at))),
            Answer::Read { key, state, .. } | Answer::Refused { key, state } => _ = known.insert(key, state),
            Answer::Listed { .. } => {}
        }
    }
    history
}

fn written(key: &str, value: Option<u64>, done: Result<Revision, Error>) -> Answer {
    match done {
        Ok(at) => Answer::Wrote { key: key.to_owned(), value, at: at.0 },
        Err(Error::Conflict { current, .. }) => {
            Answer::Refused { key: key.to_owned(), state: state(current.as_ref()) }
        }
        Err(error) => panic!("{error}"),
    }
}

/// Lists, watches from there, and rebuilds each state; the last one is returned when `end` has been seen.
async fn observer(store: Arc<impl Store>, end: tokio::sync::oneshot::Receiver<u64>) -> Vec<Record> {
    let listed = store.range(Range::prefix(PREFIX)).await.expect("range");
    let mut keys: BTreeMap<_, _> =
        listed.items.iter().map(|kv| (kv.key.clone(), (number(kv), kv.modified.0))).collect();
    let (mut at, began) = (listed.revision.0, Instant::now());
    let mut watch = store.watch(PREFIX, listed.revision.next()).await.expect("watch");
    let mut seen = vec![Answer::Listed { keys: keys.clone(), at }];
    tokio::pin!(end);
    let mut last = u64::MAX;
    while at < last {
        let batch = tokio::select! {
            batch = watch.next() => batch.expect("the watch goes on").expect("events"),
            revision = &mut end, if last == u64::MAX => { last = revision.expect("an end"); continue }
        };
        for event in batch {
            match &event {
                Event::Put(current) => {
                    _ = keys.insert(current.key.clone(), (number(current), current.modified.0));
                }
                Event::Delete { key, .. } => _ = keys.remove(key),
                Event::Progress { .. } => {}
            }
            at = event.revision().0;
            seen.push(Answer::Listed { keys: keys.clone(), at });
        }
    }
    // A watch may be behind, so it claims nothing about real time: it began when it began, and has not ended.
    let later = Instant::now() + Duration::from_secs(3600);
    seen.into_iter().map(|answer| Record { began, ended: later, answer }).collect()
}

async fn run(mut backend: impl Backend) {
    for round in 0..3 {
        let store = Arc::new(backend.open().await);
        let (ended, end) = tokio::sync::oneshot::channel();
        let observer = tokio::spawn(observer(store.clone(), end));
        let clients: Vec<_> =
            (0..CLIENTS).map(|n| tokio::spawn(client(store.clone(), 100 * round + n + 1))).collect();
        let mut history = vec![];
        for client in clients {
            history.extend(client.await.expect("no client fails"));
        }
        let last = history.iter().filter_map(Record::write).max().unwrap_or_default();
        ended.send(last).expect("the observer goes on");
        history.extend(observer.await.expect("the observer"));
        for key in 0..4 {
            // The next round begins with nothing.
            let _ = store.delete(&format!("{PREFIX}{key}"), None).await;
        }
        backend.close(Arc::into_inner(store).expect("the last one")).await;
        let refused = history.iter().filter(|r| matches!(r.answer, Answer::Refused { .. })).count();
        assert!(refused > 10, "clients met only {refused} times");
        if let Err(why) = check(&history) {
            panic!("round {round}: {why}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_is_linearizable() {
    run(EmbeddedBackend::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_linearizable() {
    run(EtcdBackend::new().await).await;
}

/// The checker itself: histories that no such store can have.
mod checker {
    use super::*;

    fn history(answers: Vec<(u64, u64, Answer)>) -> Vec<Record> {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let record = |(began, ended, answer)| Record { began: at(began), ended: at(ended), answer };
        answers.into_iter().map(record).collect()
    }

    fn wrote(value: u64, at: u64) -> Answer {
        Answer::Wrote { key: "k".into(), value: Some(value), at }
    }

    fn read(state: State, at: u64) -> Answer {
        Answer::Read { key: "k".into(), state, at }
    }

    fn refused(state: State) -> Answer {
        Answer::Refused { key: "k".into(), state }
    }

    #[test]
    fn accepts_what_can_be() {
        let good = [
            vec![(0, 1, wrote(1, 5)), (2, 3, read(Some((1, 5)), 5))],
            // While a write is under way, both states can be seen.
            vec![(0, 9, wrote(1, 5)), (2, 3, read(None, 4)), (4, 5, read(Some((1, 5)), 5))],
            vec![(0, 1, wrote(1, 5)), (2, 9, wrote(2, 6)), (3, 4, refused(Some((2, 6))))],
            vec![(0, 1, wrote(1, 5)), (2, 9, wrote(2, 6)), (3, 4, refused(Some((1, 5))))],
        ];
        for case in good {
            assert_eq!(check(&history(case.clone())), Ok(()), "{case:?}");
        }
    }

    #[test]
    fn refuses_what_cannot_be() {
        let bad = [
            // A read that is behind an answered write.
            vec![(0, 1, wrote(1, 5)), (2, 3, read(None, 4))],
            // A read of what was never written, and of what had been overwritten.
            vec![(0, 1, wrote(1, 5)), (2, 3, read(Some((2, 5)), 5))],
            vec![(0, 1, wrote(1, 5)), (2, 3, wrote(2, 6)), (4, 5, read(Some((1, 5)), 6))],
            // Reads that go back.
            vec![(0, 9, wrote(1, 5)), (1, 2, read(Some((1, 5)), 5)), (3, 4, read(None, 4))],
            // Two writes at one revision; a later write with an earlier one.
            vec![(0, 1, wrote(1, 5)), (0, 1, wrote(2, 5))],
            vec![(0, 1, wrote(1, 6)), (2, 3, wrote(2, 5))],
            // Refusals by a state long gone, and by one still to come.
            vec![(0, 1, wrote(1, 5)), (2, 3, wrote(2, 6)), (4, 5, refused(Some((1, 5))))],
            vec![(0, 1, refused(Some((1, 5)))), (2, 3, wrote(1, 5))],
            // A list that misses a key.
            vec![(0, 1, wrote(1, 5)), (2, 3, Answer::Listed { keys: BTreeMap::new(), at: 5 })],
        ];
        for case in bad {
            assert!(check(&history(case.clone())).is_err(), "{case:?}");
        }
    }
}
