//! The cache over a store whose watch breaks, whose history is gone, or which has gone back in time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use store::embedded::Embedded;
use store::{Expect, KeyValue, Range, RangeResult, Revision, Store, WatchStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

/// A store whose watches can be held back and broken, and whose data can be exchanged.
struct Faulty {
    inner: Mutex<Embedded>,
    /// Counts the breaks; watches that began before the last one end.
    breaks: watch::Sender<u64>,
    /// While true, new watches are refused: nothing comes through.
    down: watch::Sender<bool>,
}

impl Faulty {
    fn new() -> Arc<Self> {
        let inner = Mutex::new(Embedded::in_memory());
        Arc::new(Self { inner, breaks: watch::Sender::new(0), down: watch::Sender::new(false) })
    }

    fn inner(&self) -> Embedded {
        self.inner.lock().clone()
    }

    /// Ends the watches and refuses new ones.
    fn cut(&self) {
        self.down.send_replace(true);
        self.breaks.send_modify(|n| *n += 1);
    }

    fn mend(&self) {
        self.down.send_replace(false);
    }
}

#[async_trait::async_trait]
impl Store for Faulty {
    async fn get(&self, key: &str) -> Result<(Option<KeyValue>, Revision), store::Error> {
        self.inner().get(key).await
    }

    async fn range(&self, range: Range) -> Result<RangeResult, store::Error> {
        self.inner().range(range).await
    }

    async fn put(
        &self,
        key: &str,
        value: Bytes,
        expect: Expect,
        ttl: Option<Duration>,
    ) -> Result<Revision, store::Error> {
        self.inner().put(key, value, expect, ttl).await
    }

    async fn delete(
        &self,
        key: &str,
        expect: Option<Revision>,
    ) -> Result<(KeyValue, Revision), store::Error> {
        self.inner().delete(key, expect).await
    }

    async fn watch(&self, prefix: &str, from: Revision) -> Result<WatchStream, store::Error> {
        let mut breaks = self.breaks.subscribe();
        if *self.down.borrow() {
            return Err(store::Error::Unavailable { reason: "down".into() });
        }
        let stream = self.inner().watch(prefix, from).await?;
        let broken = async move {
            // The sender outlives the watches of this test.
            let _ = breaks.changed().await;
        };
        Ok(stream.take_until(Box::pin(broken)).boxed())
    }

    async fn request_progress(&self) -> Result<(), store::Error> {
        self.inner().request_progress().await
    }

    async fn current_revision(&self) -> Result<Revision, store::Error> {
        self.inner().current_revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), store::Error> {
        self.inner().compact(revision).await
    }

    async fn size(&self) -> Result<u64, store::Error> {
        self.inner().size().await
    }
}

struct Fixture {
    store: Arc<Faulty>,
    cacher: Cacher,
    things: Arc<Resource>,
    _guard: DropGuard,
}

async fn fixture() -> Fixture {
    let store = Faulty::new();
    let token = CancellationToken::new();
    let config = Config { wait: Duration::from_secs(20), ..Config::default() };
    let cacher = Cacher::start(Arc::clone(&store) as _, config, token.clone()).await.expect("start");
    let things = cacher.register(ResourceSpec {
        prefix: "/registry/things/".into(),
        namespaced: false,
        fields: None,
        node_index: false,
        decode: None,
    });
    cacher.ready().await.expect("ready");
    Fixture { store, cacher, things, _guard: token.drop_guard() }
}

fn body(uid: &str) -> Bytes {
    format!(r#"{{"metadata":{{"uid":"{uid}"}}}}"#).into()
}

impl Fixture {
    async fn create(&self, name: &str, uid: &str) -> Revision {
        let key = format!("/registry/things/{name}");
        self.store.put(&key, body(uid), Expect::Absent, None).await.expect("created")
    }

    async fn update(&self, name: &str) -> Revision {
        let key = format!("/registry/things/{name}");
        let current = self.store.get(&key).await.expect("read").0.expect("exists");
        self.store.put(&key, current.value, Expect::At(current.modified), None).await.expect("updated")
    }

    async fn delete(&self, name: &str) -> Revision {
        self.store.delete(&format!("/registry/things/{name}"), None).await.expect("deleted").1
    }

    async fn watch(&self, after: Revision) -> Watcher {
        let start = WatchStart::After(after);
        let options = WatchOptions { start, filter: Filter::default(), bookmarks: None };
        self.things.watch(options).await.expect("watch")
    }

    async fn listed(&self) -> BTreeMap<String, u64> {
        let options = ListOptions { at: ReadAt::Latest, filter: Filter::default(), limit: 0, start: None };
        let page = self.things.list(options).await.expect("list");
        page.items.iter().map(|object| (object.key().to_owned(), object.revision.0)).collect()
    }

    /// What `watcher` has to say once the cache is up to date.
    async fn drain(&self, watcher: &mut Watcher) -> Vec<String> {
        self.listed().await;
        let show = |event: Result<WatchEvent, Error>| match event {
            Ok(event) => {
                let object = event.object().expect("a change");
                format!(
                    "{} {} {}@{}",
                    event.kind().expect("kind").as_str(),
                    object.name(),
                    object.uid(),
                    event.revision()
                )
            }
            Err(error) => format!("ERROR {error}"),
        };
        std::iter::from_fn(|| watcher.try_next()).map(show).collect()
    }
}

#[tokio::test]
async fn a_broken_watch_resumes_without_a_gap() {
    let f = fixture().await;
    let mut watch = f.watch(Revision(0)).await;
    f.create("a", "1").await;
    f.cacher.current().await.expect("current");
    f.store.cut();
    f.create("b", "1").await;
    f.update("a").await;
    f.delete("b").await;
    f.store.mend();
    assert_eq!(f.drain(&mut watch).await, ["ADDED a 1@1", "ADDED b 1@2", "MODIFIED a 1@3", "DELETED b 1@4"]);
}

#[tokio::test]
async fn missed_changes_are_told_by_comparison() {
    let f = fixture().await;
    for name in ["kept", "changed", "deleted", "replaced"] {
        f.create(name, "1").await;
    }
    let seen = f.cacher.current().await.expect("current");
    let mut watch = f.watch(seen).await;
    f.store.cut();
    f.update("changed").await;
    f.delete("deleted").await;
    f.delete("replaced").await;
    f.create("replaced", "2").await;
    f.create("fleeting", "1").await;
    f.delete("fleeting").await;
    let last = f.create("new", "1").await;
    f.store.compact(last).await.expect("compact");
    f.store.mend();
    assert_eq!(
        f.drain(&mut watch).await,
        [
            "MODIFIED changed 1@5",
            "DELETED replaced 1@8",
            "ADDED replaced 2@8",
            "ADDED new 1@11",
            "DELETED deleted 1@11",
        ]
    );
    let listed = f.listed().await;
    let wanted = [("changed", 5), ("kept", 1), ("new", 11), ("replaced", 8)];
    assert_eq!(listed, wanted.map(|(name, revision)| (name.to_owned(), revision)).into());
    // Later changes come as ever, and watches from before the gap still reconstruct the state.
    f.update("kept").await;
    assert_eq!(f.drain(&mut watch).await, ["MODIFIED kept 1@12"]);
    let mut resumed = f.watch(seen).await;
    assert_eq!(f.drain(&mut resumed).await.len(), 6);
    // States inside of the gap are not known.
    let at = ReadAt::Exact(Revision(6));
    let options = ListOptions { at, filter: Filter::default(), limit: 0, start: None };
    assert!(matches!(f.things.list(options).await, Err(Error::Expired { .. })));
}

#[tokio::test]
async fn a_store_that_went_back_cuts_everybody_off() {
    let f = fixture().await;
    for name in ["a", "b", "c"] {
        f.create(name, "1").await;
    }
    let seen = f.cacher.current().await.expect("current");
    let mut watch = f.watch(seen).await;
    let backup = Embedded::in_memory();
    backup.put("/registry/things/a", body("1"), Expect::Absent, None).await.expect("put");
    f.store.cut();
    *f.store.inner.lock() = backup;
    f.store.mend();
    let end = watch.next().await.expect("an error");
    assert!(matches!(end, Err(Error::Expired { .. })), "{end:?}");
    assert!(watch.next().await.is_none());
    assert_eq!(f.listed().await, [("a".to_owned(), 1)].into());
    assert_eq!(f.create("d", "1").await, Revision(2));
    assert_eq!(f.listed().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn breaks_and_compactions_under_load_lose_nothing() {
    let f = Arc::new(fixture().await);
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let f = Arc::clone(&f);
            tokio::spawn(async move {
                for n in 0..300 {
                    let name = format!("w{writer}-{}", n % 11);
                    match f.store.get(&format!("/registry/things/{name}")).await.expect("read").0 {
                        None => _ = f.create(&name, &n.to_string()).await,
                        Some(_) if n % 4 == 0 => _ = f.delete(&name).await,
                        Some(_) => _ = f.update(&name).await,
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    let mut watch = f.watch(Revision(0)).await;
    let reader = tokio::spawn(async move {
        let mut state: BTreeMap<String, u64> = BTreeMap::new();
        let mut last = Revision(0);
        loop {
            let event = watch.next().await.expect("open").expect("no error");
            let object = event.object().expect("a change");
            if object.name() == "end" {
                return state;
            }
            assert!(event.revision() >= last);
            last = event.revision();
            let key = object.key().to_owned();
            let old = match event.kind() {
                Some(Kind::Deleted) => state.remove(&key),
                _ => state.insert(key, object.revision.0),
            };
            assert_eq!(old.is_none(), event.kind() == Some(Kind::Added), "{event:?}");
        }
    });
    for n in 0..12 {
        f.store.cut();
        let reached = f.store.current_revision().await.expect("revision");
        if n % 3 == 0 {
            // May be refused, when another compaction was later.
            let _ = f.store.compact(reached).await;
        }
        f.store.mend();
        f.cacher.wait_for(reached).await.expect("mended");
    }
    for writer in writers {
        writer.await.expect("writer");
    }
    let wanted = f.listed().await;
    f.create("end", "1").await;
    assert_eq!(reader.await.expect("reader"), wanted);
}
