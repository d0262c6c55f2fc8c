//! What every backend promises, run against each of them. The first revision of a fresh store differs between them,
//! so everything here is relative to it.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use store::{Error, Event, Expect, KeyValue, Range, Revision, Store, WatchStream};
use support::{Backend, EmbeddedBackend, EtcdBackend};

/// Whatever has not happened by then will not happen.
const PATIENCE: Duration = Duration::from_secs(20);

macro_rules! store_suite {
    ($module:ident, $backend:ty) => {
        mod $module {
            use super::*;

            store_suite!(@tests $backend:
                writes_compare_and_swap
                deletes_compare_and_swap
                ranges_are_ordered_limited_and_counted
                ranges_read_the_past
                a_watch_has_no_gap_under_concurrent_writers
                a_watch_begins_where_it_is_told
                a_watch_tells_new_keys_from_changed_ones
                a_watch_keeps_to_its_prefix
                compacted_history_is_refused
                the_future_is_refused
                keys_with_a_time_to_live_go_away
                progress_is_reported_when_asked_for
                progress_is_reported_when_idle
                large_values_are_taken_and_larger_ones_refused
                everything_survives_a_restart
                random_operations_behave_as_the_model
            );
        }
    };
    (@tests $backend:ty: $($test:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let backend = <$backend as Backend>::new().await;
                let test = super::$test(backend);
                tokio::time::timeout(Duration::from_secs(120), test).await.expect("the test ends");
            }
        )*
    };
}

store_suite!(embedded, EmbeddedBackend);
store_suite!(etcd, EtcdBackend);

fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

async fn create(store: &impl Store, key: &str, value: &str) -> Revision {
    store.put(key, text(value), Expect::Absent, None).await.expect("created")
}

async fn update(store: &impl Store, key: &str, value: &str) -> Revision {
    let current = store.get(key).await.expect("read").0.expect("exists").modified;
    store.put(key, text(value), Expect::At(current), None).await.expect("updated")
}

async fn now(store: &impl Store) -> Revision {
    store.current_revision().await.expect("the current revision")
}

fn state(result: Result<(Option<KeyValue>, Revision), Error>) -> Option<(String, u64)> {
    let found = result.expect("read").0?;
    Some((String::from_utf8_lossy(&found.value).into_owned(), found.modified.0))
}

/// What a refused write reports to be there.
fn conflict<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<(String, u64)> {
    match result {
        Err(Error::Conflict { current, .. }) => {
            current.map(|kv| (String::from_utf8_lossy(&kv.value).into_owned(), kv.modified.0))
        }
        other => panic!("not a conflict: {other:?}"),
    }
}

async fn writes_compare_and_swap(mut backend: impl Backend) {
    let store = backend.open().await;
    let start = now(&store).await;
    assert!(conflict(store.put("/a", text("0"), Expect::At(Revision(1)), None).await).is_none());
    let first = create(&store, "/a", "1").await;
    assert_eq!(first, start.next(), "a refused write is no change");
    assert_eq!(conflict(store.put("/a", text("2"), Expect::Absent, None).await), Some(("1".into(), first.0)));
    let stale = Expect::At(Revision(first.0 - 1));
    assert_eq!(conflict(store.put("/a", text("2"), stale, None).await), Some(("1".into(), first.0)));
    let second = store.put("/a", text("2"), Expect::At(first), None).await.expect("update");
    assert_eq!(second, first.next());
    let (found, at) = store.get("/a").await.expect("read");
    let expected = KeyValue { key: "/a".into(), value: text("2"), created: first, modified: second };
    assert_eq!((found, at), (Some(expected), second));
    assert_eq!(now(&store).await, second);
    assert_eq!(store.get("/b").await.expect("read"), (None, second));
    assert_eq!(create(&store, "/b", "").await, second.next());
    assert_eq!(state(store.get("/b").await), Some((String::new(), second.0 + 1)), "empty is not absent");
}

async fn deletes_compare_and_swap(mut backend: impl Backend) {
    let store = backend.open().await;
    assert!(conflict(store.delete("/a", None).await).is_none());
    let first = create(&store, "/a", "1").await;
    let second = update(&store, "/a", "2").await;
    assert_eq!(conflict(store.delete("/a", Some(first)).await), Some(("2".into(), second.0)));
    let (last, at) = store.delete("/a", Some(second)).await.expect("deleted");
    assert_eq!((last.value, last.created, last.modified), (text("2"), first, second));
    assert_eq!(at, second.next());
    assert!(state(store.get("/a").await).is_none());
    assert!(conflict(store.delete("/a", Some(second)).await).is_none());
    let again = create(&store, "/a", "3").await;
    assert_eq!(again, at.next(), "created anew after the delete");
    assert_eq!(store.get("/a").await.expect("read").0.map(|kv| kv.created), Some(again));
    let (_, gone) = store.delete("/a", None).await.expect("deleted");
    assert_eq!(gone, again.next());
}

async fn ranges_are_ordered_limited_and_counted(mut backend: impl Backend) {
    let store = backend.open().await;
    for key in ["/r/b/2", "/r/a/1", "/r/b/1", "/r/b-c/1", "/r/b0", "/s"] {
        create(&store, key, key).await;
    }
    let at = now(&store).await;
    for (prefix, limit, keys, count) in [
        ("/r/b/", 0, "/r/b/1 /r/b/2", 2),
        ("/r/", 0, "/r/a/1 /r/b-c/1 /r/b/1 /r/b/2 /r/b0", 5),
        ("/r/", 2, "/r/a/1 /r/b-c/1", 5),
        ("/r/", 5, "/r/a/1 /r/b-c/1 /r/b/1 /r/b/2 /r/b0", 5),
        ("/r/", 9, "/r/a/1 /r/b-c/1 /r/b/1 /r/b/2 /r/b0", 5),
        ("/x/", 0, "", 0),
    ] {
        let found = store.range(Range { limit, ..Range::prefix(prefix) }).await.expect("range");
        let found_keys: Vec<_> = found.items.iter().map(|item| item.key.as_str()).collect();
        assert_eq!((found_keys.join(" ").as_str(), found.count, found.revision), (keys, count, at));
        assert!(found.items.iter().all(|item| item.value == item.key));
    }
    let rest = Range { start: "/r/b/1\0".into(), ..Range::prefix("/r/") };
    let rest = store.range(rest).await.expect("range");
    assert_eq!((rest.items[0].key.as_str(), rest.count), ("/r/b/2", 2));
    let nothing = Range { start: "/z".into(), end: "/a".into(), ..Range::default() };
    let nothing = store.range(nothing).await.expect("range");
    assert_eq!((nothing.items.len(), nothing.count, nothing.revision), (0, 0, at));

    // More than any page that a backend may read at a time.
    let all: Vec<_> = (0..2500).map(|n| format!("/many/{n:04}")).collect();
    futures::stream::iter(&all).for_each_concurrent(64, async |key| _ = create(&store, key, "x").await).await;
    for (limit, wanted) in [(0, 2500), (2100, 2100), (1000, 1000)] {
        let found = store.range(Range { limit, ..Range::prefix("/many/") }).await.expect("range");
        assert_eq!((found.items.len(), found.count), (wanted, 2500));
        assert!(found.items.iter().zip(&all).all(|(item, key)| item.key == *key));
    }
}

async fn ranges_read_the_past(mut backend: impl Backend) {
    let store = backend.open().await;
    let one = create(&store, "/p/a", "1").await;
    let two = create(&store, "/p/b", "1").await;
    let three = update(&store, "/p/a", "2").await;
    let four = store.delete("/p/b", None).await.expect("deleted").1;
    let five = create(&store, "/p/b", "2").await;
    for (at, limit, wanted, count) in [
        (one, 0, "a=1", 1),
        (two, 0, "a=1 b=1", 2),
        (two, 1, "a=1", 2),
        (three, 0, "a=2 b=1", 2),
        (four, 0, "a=2", 1),
        (five, 0, "a=2 b=2", 2),
    ] {
        let range = Range { revision: Some(at), limit, ..Range::prefix("/p/") };
        let found = store.range(range).await.expect("range");
        let pairs: Vec<_> = found
            .items
            .iter()
            .map(|item| format!("{}={}", &item.key[3..], String::from_utf8_lossy(&item.value)))
            .collect();
        assert_eq!((pairs.join(" ").as_str(), found.count, found.revision), (wanted, count, at));
    }
}

/// The changes of a watch, one by one; progress is checked and left out.
struct Changes {
    stream: WatchStream,
    waiting: std::collections::VecDeque<Event>,
    last: Revision,
}

impl Changes {
    async fn open(store: &impl Store, prefix: &str, from: Revision) -> Self {
        let stream = store.watch(prefix, from).await.expect("watch");
        Self { stream, waiting: Default::default(), last: Revision(from.0 - 1) }
    }

    async fn item(&mut self) -> Result<Event, Error> {
        loop {
            match self.waiting.pop_front() {
                Some(Event::Progress { revision }) => {
                    assert!(revision >= self.last, "progress does not go back");
                    self.last = revision;
                }
                Some(event) => {
                    assert!(event.revision() > self.last, "{event:?} comes after revision {}", self.last);
                    self.last = event.revision();
                    return Ok(event);
                }
                None => {
                    let batch = tokio::time::timeout(PATIENCE, self.stream.next()).await;
                    let batch = batch.expect("something happens").expect("the watch goes on")?;
                    assert!(!batch.is_empty());
                    self.waiting.extend(batch);
                }
            }
        }
    }

    async fn next(&mut self) -> Event {
        self.item().await.expect("an event")
    }

    /// The next event as text: `+key=value` of a new key, `~key=value` of a changed one, `-key`.
    async fn shown(&mut self) -> String {
        let value = |kv: &KeyValue| String::from_utf8_lossy(&kv.value).into_owned();
        match self.next().await {
            Event::Put(current) if current.created == current.modified => {
                format!("+{}={}", current.key, value(&current))
            }
            Event::Put(current) => {
                assert!(current.created < current.modified);
                format!("~{}={}", current.key, value(&current))
            }
            Event::Delete { key, .. } => format!("-{key}"),
            Event::Progress { .. } => unreachable!("left out"),
        }
    }
}

async fn a_watch_has_no_gap_under_concurrent_writers(mut backend: impl Backend) {
    const WRITERS: usize = 4;
    const WRITES: usize = 150;
    let store = Arc::new(backend.open().await);
    let start = now(&*store).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                for n in 0..WRITES {
                    let key = format!("/w/{writer}/{}", n % 7);
                    match store.get(&key).await.expect("read").0 {
                        None => _ = create(&*store, &key, "x").await,
                        Some(_) if n % 3 == 0 => drop(store.delete(&key, None).await.expect("deleted")),
                        Some(_) => _ = update(&*store, &key, "y").await,
                    }
                }
            })
        })
        .collect();
    let end = start.0 + (WRITERS * WRITES) as u64;
    let mut watches = Vec::new();
    for n in 0..4 {
        let store = Arc::clone(&store);
        // Some begin in the past, one before anything has happened.
        let from = Revision(start.0 + 1 + n * 20);
        watches.push(tokio::spawn(async move {
            let mut changes = Changes::open(&*store, "/w/", from).await;
            for revision in from.0..=end {
                assert_eq!(changes.next().await.revision(), Revision(revision));
            }
        }));
    }
    for task in writers.into_iter().chain(watches) {
        task.await.expect("no task fails");
    }
    assert_eq!(now(&*store).await, Revision(end));
}

async fn a_watch_begins_where_it_is_told(mut backend: impl Backend) {
    let store = backend.open().await;
    let first = create(&store, "/b/1", "x").await;
    create(&store, "/b/2", "x").await;
    let mut from_past = Changes::open(&store, "/b/", first).await;
    let mut from_now = Changes::open(&store, "/b/", now(&store).await.next()).await;
    let mut from_later = Changes::open(&store, "/b/", Revision(now(&store).await.0 + 2)).await;
    create(&store, "/b/3", "x").await;
    create(&store, "/b/4", "x").await;
    assert_eq!(from_past.shown().await, "+/b/1=x");
    assert_eq!(from_past.shown().await, "+/b/2=x");
    assert_eq!(from_past.shown().await, "+/b/3=x");
    assert_eq!(from_now.shown().await, "+/b/3=x");
    assert_eq!(from_later.shown().await, "+/b/4=x");
}

async fn a_watch_tells_new_keys_from_changed_ones(mut backend: impl Backend) {
    let store = backend.open().await;
    let from = now(&store).await.next();
    create(&store, "/v", "1").await;
    update(&store, "/v", "2").await;
    store.delete("/v", None).await.expect("deleted");
    create(&store, "/v", "3").await;
    let mut changes = Changes::open(&store, "/v", from).await;
    for wanted in ["+/v=1", "~/v=2", "-/v", "+/v=3"] {
        assert_eq!(changes.shown().await, wanted);
    }
    let mut live = Changes::open(&store, "/v", now(&store).await.next()).await;
    update(&store, "/v", "4").await;
    store.delete("/v", None).await.expect("deleted");
    for wanted in ["~/v=4", "-/v"] {
        assert_eq!(live.shown().await, wanted);
    }
}

async fn a_watch_keeps_to_its_prefix(mut backend: impl Backend) {
    let store = backend.open().await;
    let from = now(&store).await.next();
    for key in ["/k/a", "/k", "/k/", "/k0", "/k/\u{e4}", "/j/z", "/k/z"] {
        create(&store, key, "x").await;
    }
    let mut changes = Changes::open(&store, "/k/", from).await;
    for wanted in ["+/k/a=x", "+/k/=x", "+/k/\u{e4}=x", "+/k/z=x"] {
        assert_eq!(changes.shown().await, wanted);
    }
}

async fn compacted_history_is_refused(mut backend: impl Backend) {
    let store = backend.open().await;
    let first = create(&store, "/c/a", "1").await;
    create(&store, "/c/b", "1").await;
    let mut running = Changes::open(&store, "/c/", first).await;
    assert_eq!(running.shown().await, "+/c/a=1");
    let third = update(&store, "/c/a", "2").await;
    store.delete("/c/b", None).await.expect("deleted");
    let fifth = update(&store, "/c/a", "3").await;
    store.compact(third).await.expect("compacted");
    store.compact(third).await.expect("compacting again changes nothing");

    let at = |revision| Range { revision: Some(revision), ..Range::prefix("/c/") };
    let refused = store.range(at(first)).await;
    assert!(
        matches!(refused, Err(Error::Compacted { requested, oldest }) if requested == first && oldest == third),
        "{refused:?}"
    );
    let kept = store.range(at(third)).await.expect("the oldest revision");
    assert_eq!(kept.items.len(), 2);
    assert_eq!(store.range(at(fifth)).await.expect("range").items.len(), 1);

    let refused = match store.watch("/c/", first).await {
        Ok(mut stream) => loop {
            match tokio::time::timeout(PATIENCE, stream.next()).await.expect("an answer") {
                Some(Ok(batch)) => {
                    assert!(batch.iter().all(|e| matches!(e, Event::Progress { .. })), "{batch:?}")
                }
                Some(Err(error)) => {
                    assert!(stream.next().await.is_none(), "the stream ends after an error");
                    break error;
                }
                None => panic!("the watch ends without an error"),
            }
        },
        Err(error) => error,
    };
    assert!(
        matches!(refused, Error::Compacted { requested, oldest } if requested == first && oldest == third),
        "{refused:?}"
    );
    let mut kept = Changes::open(&store, "/c/", third).await;
    assert!(kept.shown().await.starts_with("~/c/a=2"));
    assert_eq!(kept.shown().await, "-/c/b");
    // A watch that was running before goes on, or says that it cannot.
    match running.item().await {
        Ok(event) => assert_eq!(event.revision(), first.next()),
        Err(error) => assert!(matches!(error, Error::Compacted { .. }), "{error}"),
    }
}

async fn the_future_is_refused(mut backend: impl Backend) {
    let store = backend.open().await;
    let current = create(&store, "/f", "1").await;
    let range = Range { revision: Some(Revision(current.0 + 5)), ..Range::prefix("/f") };
    let refused = store.range(range).await;
    assert!(
        matches!(refused, Err(Error::Future { requested, current: known })
            if requested.0 == current.0 + 5 && known == current),
        "{refused:?}"
    );
}

async fn keys_with_a_time_to_live_go_away(mut backend: impl Backend) {
    let store = backend.open().await;
    let ttl = Some(Duration::from_secs(1));
    let from = now(&store).await.next();
    let first = store.put("/t/a", text("1"), Expect::Absent, ttl).await.expect("put");
    let kept = store.put("/t/kept", text("1"), Expect::Absent, ttl).await.expect("put");
    store.put("/t/kept", text("2"), Expect::At(kept), None).await.expect("made permanent");
    let second = store.put("/t/b", text("1"), Expect::Absent, ttl).await.expect("put");
    let mut changes = Changes::open(&store, "/t/", from).await;
    for wanted in ["+/t/a=1", "+/t/kept=1", "~/t/kept=2", "+/t/b=1"] {
        assert_eq!(changes.shown().await, wanted);
    }
    assert!(second > first);
    // Keys of one time to live may go at one revision, so they are taken from the stream as they come.
    let mut gone = Vec::new();
    while gone.len() < 2 {
        for event in tokio::time::timeout(PATIENCE, changes.stream.next())
            .await
            .expect("expiry")
            .expect("open")
            .expect("ok")
        {
            if let Event::Delete { key, .. } = event {
                gone.push(key);
            }
        }
    }
    gone.sort();
    assert_eq!(gone, ["/t/a", "/t/b"]);
    assert!(state(store.get("/t/a").await).is_none());
    assert!(state(store.get("/t/kept").await).is_some());
    create(&store, "/t/a", "again").await;
}

async fn progress_is_reported_when_asked_for(mut backend: impl Backend) {
    let store = backend.open().await;
    let mut stream = store.watch("/p/", now(&store).await.next()).await.expect("watch");
    let elsewhere = create(&store, "/elsewhere", "x").await;
    let reached = async {
        loop {
            let asked = tokio::time::timeout(Duration::from_millis(100), stream.next());
            match asked.await {
                Ok(batch) => {
                    let batch = batch.expect("open").expect("no error");
                    assert!(batch.iter().all(|event| matches!(event, Event::Progress { .. })), "{batch:?}");
                    if batch.iter().any(|event| event.revision() >= elsewhere) {
                        return batch.last().map(Event::revision);
                    }
                }
                Err(_) => store.request_progress().await.expect("asked"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, reached).await.expect("progress"), Some(elsewhere));
    create(&store, "/p/a", "x").await;
    loop {
        let batch = stream.next().await.expect("open").expect("no error");
        match &batch[..] {
            [Event::Progress { revision }] => assert_eq!(*revision, elsewhere),
            [Event::Put(current)] => break assert_eq!(current.modified, elsewhere.next()),
            other => panic!("{other:?}"),
        }
    }
}

async fn progress_is_reported_when_idle(mut backend: impl Backend) {
    let store = backend.open().await;
    let current = create(&store, "/i/a", "x").await;
    let mut stream = store.watch("/i/", current.next()).await.expect("watch");
    let batch = tokio::time::timeout(PATIENCE, stream.next()).await.expect("progress");
    assert_eq!(batch.expect("open").expect("no error"), [Event::Progress { revision: current }]);
}

async fn large_values_are_taken_and_larger_ones_refused(mut backend: impl Backend) {
    let store = backend.open().await;
    let large = Bytes::from(vec![b'x'; 1_500_000]);
    let from = now(&store).await.next();
    for n in 0..6 {
        store.put(&format!("/l/{n}"), large.clone(), Expect::Absent, None).await.expect("taken");
    }
    assert_eq!(store.get("/l/0").await.expect("read").0.map(|kv| kv.value.len()), Some(large.len()));
    let all = store.range(Range::prefix("/l/")).await.expect("range");
    assert!(all.items.len() == 6 && all.items.iter().all(|item| item.value == large));
    let mut changes = Changes::open(&store, "/l/", from).await;
    for _ in 0..6 {
        assert!(matches!(changes.next().await, Event::Put(current) if current.value == large));
    }
    let refused = store.put("/l/x", Bytes::from(vec![b'x'; 3_000_000]), Expect::Absent, None).await;
    assert!(matches!(refused, Err(Error::TooLarge { size: 3_000_000, .. })), "{refused:?}");
    assert!(state(store.get("/l/x").await).is_none());
    // A store may know its size as of its last commit to disk only.
    let grown = async {
        while store.size().await.expect("size") <= 6 * 1_500_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, grown).await.expect("the size covers what was put");
}

async fn everything_survives_a_restart(mut backend: impl Backend) {
    let store = backend.open().await;
    let created = create(&store, "/d/a", "1").await;
    let modified = update(&store, "/d/a", "2").await;
    create(&store, "/d/b", "1").await;
    let last = store.delete("/d/b", None).await.expect("deleted").1;
    backend.close(store).await;
    let store = backend.open().await;
    assert_eq!(now(&store).await, last);
    let found = store.range(Range::prefix("/d/")).await.expect("range");
    let expected = KeyValue { key: "/d/a".into(), value: text("2"), created, modified };
    assert_eq!((found.items, found.revision), (vec![expected], last));
    let mut changes = Changes::open(&store, "/d/", last.next()).await;
    assert_eq!(create(&store, "/d/c", "1").await, last.next());
    assert_eq!(changes.shown().await, "+/d/c=1");
}

/// An operation on a few keys, so that they often meet.
#[derive(Clone, Debug)]
enum Operation {
    Create(u8, u8),
    Update(u8, u8),
    Delete(u8),
    /// An update with a revision that is off by so much.
    Stale(u8, u8),
    Read(u8, u8, u8),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let key = 0..6_u8;
    let operation = prop_oneof![
        3 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Operation::Create(key, value)),
        3 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Operation::Update(key, value)),
        2 => key.clone().prop_map(Operation::Delete),
        1 => (key.clone(), 1..4_u8).prop_map(|(key, off)| Operation::Stale(key, off)),
        2 => (key.clone(), key, 0..10_u8).prop_map(|(from, to, back)| Operation::Read(from, to, back)),
    ];
    proptest::collection::vec(operation, 1..60)
}

type Model = BTreeMap<String, (u8, u64)>;

async fn random_operations_behave_as_the_model(mut backend: impl Backend) {
    let store = backend.open().await;
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..Default::default() });
    let handle = tokio::runtime::Handle::current();
    let store = &store;
    tokio::task::block_in_place(|| {
        runner
            .run(&operations(), |script| {
                handle.block_on(run_script(store, script)).map_err(TestCaseError::fail)
            })
            .unwrap_or_else(|error| panic!("{error}"));
    });
}

/// Runs a script in a prefix of its own, and compares each answer, each past state, and the watch at the end.
async fn run_script(store: &impl Store, script: Vec<Operation>) -> Result<(), String> {
    let start = now(store).await;
    let prefix = format!("/model/{start}/");
    let key = |n: u8| format!("{prefix}{n}");
    let mut model = Model::new();
    // The model's state at every revision since the start.
    let mut states = vec![Model::new()];
    let mut changes = Changes::open(store, &prefix, start.next()).await;
    let check = |holds: bool, what: String| if holds { Ok(()) } else { Err(what) };
    for operation in script {
        let next = start.0 + states.len() as u64;
        match &operation {
            Operation::Create(n, value) => {
                let done = store.put(&key(*n), Bytes::from(vec![*value]), Expect::Absent, None).await;
                if let Some((_, at)) = model.get(&key(*n)) {
                    let refused = conflict(done).map(|(_, at)| at);
                    check(refused == Some(*at), format!("{operation:?}: {refused:?}"))?;
                    continue;
                }
                check(matches!(done, Ok(at) if at.0 == next), format!("{operation:?}: {done:?}"))?;
                model.insert(key(*n), (*value, next));
            }
            Operation::Update(n, value) => {
                let expect = Expect::At(Revision(model.get(&key(*n)).map_or(start.0, |(_, at)| *at)));
                let done = store.put(&key(*n), Bytes::from(vec![*value]), expect, None).await;
                if !model.contains_key(&key(*n)) {
                    check(conflict(done).is_none(), format!("{operation:?}"))?;
                    continue;
                }
                check(matches!(done, Ok(at) if at.0 == next), format!("{operation:?}: {done:?}"))?;
                model.insert(key(*n), (*value, next));
            }
            Operation::Stale(n, off) => {
                let at = model.get(&key(*n)).map(|(_, at)| *at);
                let stale = Revision(at.unwrap_or(start.0).saturating_sub(u64::from(*off)).max(1));
                let done = store.put(&key(*n), text("stale"), Expect::At(stale), None).await;
                check(conflict(done).map(|(_, at)| at) == at, format!("{operation:?}"))?;
                continue;
            }
            Operation::Delete(n) => {
                let done = store.delete(&key(*n), None).await;
                let Some((_, at)) = model.remove(&key(*n)) else {
                    check(conflict(done).is_none(), format!("{operation:?}"))?;
                    continue;
                };
                let good = matches!(&done, Ok((last, gone)) if last.modified.0 == at && gone.0 == next);
                check(good, format!("{operation:?}: {done:?}"))?;
            }
            Operation::Read(from, to, back) => {
                let index = states.len() - 1 - usize::from(*back).min(states.len() - 1);
                let revision = Some(Revision(start.0 + index as u64));
                let range = Range { start: key(*from), end: key(*to), limit: 0, revision };
                let found = store.range(range).await.map_err(|error| error.to_string())?;
                let found: Vec<_> =
                    found.items.into_iter().map(|kv| (kv.key, (kv.value[0], kv.modified.0))).collect();
                let wanted: Vec<_> = states[index]
                    .iter()
                    .filter(|(k, _)| **k >= key(*from) && **k < key(*to))
                    .map(|(k, v)| (k.clone(), *v))
                    .collect();
                check(found == wanted, format!("{operation:?}: {found:?}, not {wanted:?}"))?;
                continue;
            }
        }
        states.push(model.clone());
    }
    // The events of the watch lead through all the states.
    let mut replayed = Model::new();
    for (index, wanted) in states.iter().enumerate().skip(1) {
        match changes.next().await {
            Event::Put(current) => {
                let before = replayed.insert(current.key, (current.value[0], current.modified.0));
                let is_new = current.created == current.modified;
                check(before.is_none() == is_new, format!("creation of {index}"))?;
            }
            Event::Delete { key, .. } => {
                check(replayed.remove(&key).is_some(), format!("delete {index} of what is not there"))?;
            }
            Event::Progress { .. } => unreachable!("left out"),
        }
        check(replayed == *wanted, format!("state {index} of the watch: {replayed:?}, not {wanted:?}"))?;
    }
    Ok(())
}
