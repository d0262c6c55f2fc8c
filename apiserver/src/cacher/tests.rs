//! The cache as its users see it, over the embedded store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use store::embedded::Embedded;
use store::{Expect, Revision, Store};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::*;

/// A store, its caches, and a cached resource `things` (namespaced, with a node index).
struct Fixture {
    store: Arc<dyn Store>,
    cacher: Cacher,
    things: Arc<Resource>,
    _guard: DropGuard,
}

fn spec(prefix: &str) -> ResourceSpec {
    let fields = |value: &Value| {
        let node = value["spec"]["nodeName"].as_str().unwrap_or_default();
        vec![("spec.nodeName".to_owned(), node.to_owned())]
    };
    ResourceSpec {
        prefix: prefix.into(),
        namespaced: true,
        fields: Some(Arc::new(fields)),
        node_index: true,
        decode: None,
    }
}

async fn fixture_with(config: Config) -> Fixture {
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
    fixture_over(store, config).await
}

async fn fixture_over(store: Arc<dyn Store>, config: Config) -> Fixture {
    let token = CancellationToken::new();
    let cacher = Cacher::start(Arc::clone(&store), config, token.clone()).await.expect("start");
    let things = cacher.register(spec("/registry/things/"));
    cacher.ready().await.expect("ready");
    Fixture { store, cacher, things, _guard: token.drop_guard() }
}

async fn fixture() -> Fixture {
    fixture_with(Config::default()).await
}

fn body(app: &str, node: &str) -> Bytes {
    let value = json!({"metadata": {"labels": {"app": app}, "uid": "u"}, "spec": {"nodeName": node}});
    value.to_string().into()
}

impl Fixture {
    async fn create(&self, key: &str, app: &str, node: &str) -> Revision {
        let key = format!("/registry/things/{key}");
        self.store.put(&key, body(app, node), Expect::Absent, None).await.expect("created")
    }

    async fn update(&self, key: &str, app: &str, node: &str) -> Revision {
        let key = format!("/registry/things/{key}");
        let current = self.store.get(&key).await.expect("read").0.expect("exists").modified;
        self.store.put(&key, body(app, node), Expect::At(current), None).await.expect("updated")
    }

    async fn delete(&self, key: &str) -> Revision {
        self.store.delete(&format!("/registry/things/{key}"), None).await.expect("deleted").1
    }

    async fn watch(&self, start: WatchStart, filter: Filter) -> Watcher {
        self.things.watch(WatchOptions { start, filter, bookmarks: None }).await.expect("watch")
    }

    /// Everything that `watcher` has to say up to now.
    async fn drain(&self, watcher: &mut Watcher) -> Vec<String> {
        self.cacher.current().await.expect("current");
        std::iter::from_fn(|| watcher.try_next()).map(shown).collect()
    }

    async fn list(
        &self,
        at: ReadAt,
        filter: Filter,
        limit: usize,
        start: Option<&str>,
    ) -> Result<Page, Error> {
        self.things.list(ListOptions { at, filter, limit, start: start.map(str::to_owned) }).await
    }
}

/// An event as text; the object's own resourceVersion must be that of the event.
fn shown(event: Result<WatchEvent, Error>) -> String {
    match event {
        Ok(WatchEvent::Bookmark { initial_events_end: true, revision }) => format!("END@{revision}"),
        Ok(WatchEvent::Bookmark { revision, .. }) => format!("BOOKMARK@{revision}"),
        Ok(event) => {
            let object = event.object().expect("an object");
            let value = object.value().expect("JSON");
            assert_eq!(value["metadata"]["resourceVersion"], event.revision().to_string());
            let app = value["metadata"]["labels"]["app"].as_str().expect("label");
            let kind = event.kind().expect("a kind").as_str();
            format!("{kind} {} {app}@{}", object.key(), event.revision())
        }
        Err(error) => format!("ERROR {error}"),
    }
}

fn keys(page: &Page) -> Vec<&str> {
    page.items.iter().map(|object| object.key()).collect()
}

fn namespace(namespace: &str) -> Filter {
    Filter { namespace: Some(namespace.into()), ..Filter::default() }
}

fn app(app: &'static str) -> Filter {
    Filter { matches: Some(Arc::new(move |object| object.label("app") == Some(app))), ..Filter::default() }
}

fn node(node: &str) -> Filter {
    Filter { node_name: Some(node.into()), ..Filter::default() }
}

#[tokio::test]
async fn a_read_sees_every_acknowledged_write() {
    let f = fixture().await;
    for n in 0..200 {
        let revision = f.create(&format!("a/{n}"), "x", "").await;
        let (object, at) = f.things.get(ReadAt::Latest, "a", &n.to_string()).await.expect("get");
        assert_eq!(object.expect("cached").revision, revision);
        assert_eq!(at, revision);
    }
    f.delete("a/7").await;
    assert!(f.things.get(ReadAt::Latest, "a", "7").await.expect("get").0.is_none());
    assert_eq!(f.list(ReadAt::Latest, Filter::default(), 0, None).await.expect("list").items.len(), 199);
}

#[tokio::test]
async fn a_read_sees_writes_beyond_the_cached_prefixes() {
    let f = fixture().await;
    f.create("a/1", "x", "").await;
    let elsewhere =
        f.store.put("/other/key", Bytes::from_static(b"x"), Expect::Absent, None).await.expect("put");
    let page = f.list(ReadAt::Latest, Filter::default(), 0, None).await.expect("list");
    assert_eq!((keys(&page), page.revision), (vec!["a/1"], elsewhere));
}

#[tokio::test]
async fn lists_are_in_store_order_and_filtered() {
    let f = fixture().await;
    for (key, app, node) in [("a/2", "x", "n1"), ("a-b/1", "y", "n2"), ("a/1", "y", "n1"), ("b/1", "x", "n2")]
    {
        f.create(key, app, node).await;
    }
    let list = async |filter| {
        let page = f.list(ReadAt::Latest, filter, 0, None).await.expect("list");
        keys(&page).join(" ")
    };
    assert_eq!(list(Filter::default()).await, "a-b/1 a/1 a/2 b/1");
    assert_eq!(list(namespace("a")).await, "a/1 a/2");
    assert_eq!(list(namespace("none")).await, "");
    assert_eq!(list(app("x")).await, "a/2 b/1");
    assert_eq!(list(node("n2")).await, "a-b/1 b/1");
    assert_eq!(list(Filter { namespace: Some("b".into()), ..node("n2") }).await, "b/1");
    assert_eq!(list(Filter { name: Some("1".into()), ..namespace("a") }).await, "a/1");
    assert_eq!(list(Filter { name: Some("1".into()), ..Filter::default() }).await, "a-b/1 a/1 b/1");
    f.update("a/1", "y", "n2").await;
    assert_eq!(list(node("n1")).await, "a/2");
    assert_eq!(list(node("n2")).await, "a-b/1 a/1 b/1");
    f.delete("a/1").await;
    assert_eq!(list(node("n2")).await, "a-b/1 b/1");
}

#[tokio::test]
async fn pages_show_one_revision() {
    let f = fixture().await;
    for n in 0..10 {
        f.create(&format!("a/{n}"), "old", "").await;
    }
    let first = f.list(ReadAt::Latest, Filter::default(), 4, None).await.expect("list");
    assert_eq!((keys(&first), first.remaining), (vec!["a/0", "a/1", "a/2", "a/3"], Some(6)));
    f.delete("a/5").await;
    f.update("a/6", "new", "").await;
    f.create("a/55", "new", "").await;
    let at = ReadAt::Exact(first.revision);
    let second = f.list(at, Filter::default(), 4, first.next.as_deref()).await.expect("list");
    assert_eq!((keys(&second), second.remaining), (vec!["a/4", "a/5", "a/6", "a/7"], Some(2)));
    assert!(second.items.iter().all(|object| object.label("app") == Some("old")));
    let third = f.list(at, Filter::default(), 4, second.next.as_deref()).await.expect("list");
    assert_eq!((keys(&third), &third.next, third.remaining), (vec!["a/8", "a/9"], &None, Some(0)));
    assert_eq!(third.revision, first.revision);
}

#[tokio::test]
async fn past_states_come_from_the_history_or_the_store() {
    // So short a history that most states must be read from the store.
    for history_min in [1000, 3] {
        let config = Config { history_min, history_max: 3, ..Config::default() };
        let f = fixture_with(config).await;
        let mut states = BTreeMap::new();
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        for n in 0..30_u64 {
            let key = format!("a/{}", n * 7 % 5);
            let revision = match n % 3 {
                _ if !model.contains_key(&key) => f.create(&key, "x", "").await,
                0 => f.delete(&key).await,
                _ => f.update(&key, "y", "").await,
            };
            if n % 3 == 0 && model.contains_key(&key) {
                model.remove(&key);
            } else {
                model.insert(key, revision.0);
            }
            states.insert(revision, model.clone());
        }
        for (revision, model) in states {
            let page = f.list(ReadAt::Exact(revision), Filter::default(), 0, None).await.expect("list");
            let found: BTreeMap<_, _> =
                page.items.iter().map(|object| (object.key().to_owned(), object.revision.0)).collect();
            assert_eq!((found, page.revision), (model, revision));
        }
        f.store.compact(f.cacher.seen()).await.expect("compact");
        let expired = f.list(ReadAt::Exact(Revision(4)), Filter::default(), 0, None).await;
        assert_eq!(matches!(expired, Err(Error::Expired { .. })), history_min == 3, "{expired:?}");
    }
}

#[tokio::test]
async fn states_before_a_compaction_are_gone_even_if_they_are_cached() {
    let f = fixture().await;
    let first = f.create("a/0", "x", "").await;
    let second = f.create("a/1", "x", "").await;
    f.create("a/2", "x", "").await;
    let at = |revision| f.list(ReadAt::Exact(revision), Filter::default(), 1, None);
    let page = at(second).await.expect("cached");
    assert_eq!((page.items.len(), page.remaining), (1, Some(1)));
    f.cacher.compact(second).await.expect("compacted");
    assert!(matches!(at(first).await, Err(Error::Expired { .. })));
    assert!(at(second).await.is_ok(), "what was compacted to can be read");
}

#[tokio::test]
async fn a_revision_that_never_comes_is_refused() {
    let f = fixture_with(Config { wait: Duration::from_millis(20), ..Config::default() }).await;
    let refused = f.list(ReadAt::AtLeast(Revision(1000)), Filter::default(), 0, None).await;
    let Err(error) = refused else { panic!("answered") };
    assert_eq!(error.to_string(), "Too large resource version: 1000, current: 0");
}

#[tokio::test]
async fn a_watch_shows_what_changes() {
    let f = fixture().await;
    f.create("a/0", "x", "").await;
    let page = f.list(ReadAt::Latest, Filter::default(), 0, None).await.expect("list");
    f.create("a/1", "x", "").await;
    let mut watch = f.watch(WatchStart::After(page.revision), Filter::default()).await;
    f.update("a/1", "y", "").await;
    f.delete("a/0").await;
    assert_eq!(f.drain(&mut watch).await, ["ADDED a/1 x@2", "MODIFIED a/1 y@3", "DELETED a/0 x@4"]);
    drop(watch);
    assert_eq!(f.things.watcher_count(), 0);
}

#[tokio::test]
async fn what_enters_or_leaves_a_selector_is_added_or_deleted() {
    let f = fixture().await;
    f.create("a/1", "x", "n1").await;
    let mut by_app = f.watch(WatchStart::After(Revision(1)), app("x")).await;
    let mut by_node = f.watch(WatchStart::After(Revision(1)), node("n1")).await;
    let mut by_other = f.watch(WatchStart::After(Revision(1)), node("n2")).await;
    f.update("a/1", "y", "n1").await;
    f.update("a/1", "z", "n2").await;
    f.update("a/1", "x", "n2").await;
    f.delete("a/1").await;
    assert_eq!(f.drain(&mut by_app).await, ["DELETED a/1 x@2", "ADDED a/1 x@4", "DELETED a/1 x@5"]);
    assert_eq!(f.drain(&mut by_node).await, ["MODIFIED a/1 y@2", "DELETED a/1 y@3"]);
    assert_eq!(f.drain(&mut by_other).await, ["ADDED a/1 z@3", "MODIFIED a/1 x@4", "DELETED a/1 x@5"]);
}

#[tokio::test]
async fn an_event_looks_only_at_watchers_it_may_concern() {
    let f = fixture().await;
    let looked = Arc::new(AtomicUsize::new(0));
    let counting = |filter: Filter| {
        let looked = Arc::clone(&looked);
        let matches: Arc<MatchFn> = Arc::new(move |_| {
            looked.fetch_add(1, Ordering::Relaxed);
            true
        });
        Filter { matches: Some(matches), ..filter }
    };
    let mut watchers = Vec::new();
    for n in 0..50 {
        let name = Some(n.to_string());
        for filter in
            [namespace(&format!("ns{n}")), node(&format!("n{n}")), Filter { name, ..namespace("a") }]
        {
            watchers.push(f.watch(WatchStart::Now(ReadAt::Any), counting(filter)).await);
        }
    }
    f.create("a/7", "x", "n3").await;
    f.cacher.current().await.expect("current");
    assert_eq!(looked.load(Ordering::Relaxed), 2, "the watcher of a/7 and that of n3");
}

#[tokio::test]
async fn initial_objects_come_first_and_end_with_a_bookmark() {
    let f = fixture().await;
    f.create("b/1", "x", "n1").await;
    f.create("a/1", "y", "n1").await;
    f.create("a/2", "x", "n2").await;
    let everything = Filter::default();
    let mut watch_list = f.watch(WatchStart::InitialWithBookmark(ReadAt::Latest), everything.clone()).await;
    let mut legacy = f.watch(WatchStart::Initial(ReadAt::Any), namespace("a")).await;
    let mut on_node = f.watch(WatchStart::InitialWithBookmark(ReadAt::Any), node("n1")).await;
    let mut now = f.watch(WatchStart::Now(ReadAt::Latest), everything).await;
    f.delete("a/1").await;
    assert_eq!(
        f.drain(&mut watch_list).await,
        ["ADDED a/1 y@2", "ADDED a/2 x@3", "ADDED b/1 x@1", "END@3", "DELETED a/1 y@4"]
    );
    assert_eq!(f.drain(&mut legacy).await, ["ADDED a/1 y@2", "ADDED a/2 x@3", "DELETED a/1 y@4"]);
    assert_eq!(f.drain(&mut on_node).await, ["ADDED a/1 y@2", "ADDED b/1 x@1", "END@3", "DELETED a/1 y@4"]);
    assert_eq!(f.drain(&mut now).await, ["DELETED a/1 y@4"]);
}

#[tokio::test]
async fn bookmarks_tell_how_far_a_watch_is() {
    let f = fixture().await;
    let mut watch = f.watch(WatchStart::Now(ReadAt::Any), namespace("b")).await;
    f.create("a/1", "x", "").await;
    f.cacher.current().await.expect("current");
    assert_eq!(shown(Ok(watch.bookmark().expect("nothing is waiting"))), "BOOKMARK@1");
    f.create("b/1", "x", "").await;
    f.cacher.current().await.expect("current");
    assert!(watch.bookmark().is_none(), "an event is waiting");
    assert_eq!(f.drain(&mut watch).await, ["ADDED b/1 x@2"]);

    let options = WatchOptions {
        start: WatchStart::Now(ReadAt::Any),
        filter: namespace("c"),
        bookmarks: Some(Duration::from_millis(5)),
    };
    let mut timed = f.things.watch(options).await.expect("watch");
    assert_eq!(timed.next().await.map(shown).expect("a bookmark"), "BOOKMARK@2");
}

#[tokio::test]
async fn a_slow_watcher_loses_nothing_while_the_history_lasts() {
    let f = fixture_with(Config { watch_buffer: 4, ..Config::default() }).await;
    let mut watch = f.watch(WatchStart::Now(ReadAt::Any), namespace("a")).await;
    let mut wanted = Vec::new();
    for n in 0..100 {
        let revision = f.create(&format!("a/{n:03}"), "x", "").await;
        wanted.push(format!("ADDED a/{n:03} x@{revision}"));
        f.create(&format!("b/{n:03}"), "x", "").await;
    }
    assert_eq!(f.drain(&mut watch).await, wanted);
    f.delete("a/000").await;
    assert_eq!(watch.next().await.map(shown).expect("an event"), "DELETED a/000 x@201");
}

#[tokio::test]
async fn a_watcher_that_lags_beyond_the_history_gets_one_error() {
    let config = Config { watch_buffer: 4, history_min: 10, history_max: 10, ..Config::default() };
    let f = fixture_with(config).await;
    let mut watch = f.watch(WatchStart::Now(ReadAt::Any), Filter::default()).await;
    for n in 0..100 {
        f.create(&format!("a/{n:03}"), "x", "").await;
    }
    let seen = f.drain(&mut watch).await;
    assert_eq!(seen[..4], ["ADDED a/000 x@1", "ADDED a/001 x@2", "ADDED a/002 x@3", "ADDED a/003 x@4"]);
    assert_eq!(seen[4..], ["ERROR too old resource version: 3 (90)"]);
    assert!(watch.next().await.is_none());
    let after =
        WatchOptions { start: WatchStart::After(Revision(50)), filter: Filter::default(), bookmarks: None };
    assert!(matches!(f.things.watch(after).await, Err(Error::Expired { .. })));
}

#[tokio::test]
async fn another_resource_does_not_age_the_history() {
    let config = Config { history_min: 4, history_max: 4, ..Config::default() };
    let f = fixture_with(config).await;
    let idle = f.cacher.register(spec("/registry/idle/"));
    f.cacher.ready().await.expect("ready");
    let start = f.cacher.seen();
    for n in 0..50 {
        f.create(&format!("a/{n}"), "x", "").await;
    }
    f.cacher.current().await.expect("current");
    let options =
        |after| WatchOptions { start: WatchStart::After(after), filter: Filter::default(), bookmarks: None };
    assert!(f.things.watch(options(start)).await.is_err());
    assert!(idle.watch(options(start)).await.is_ok());
}

#[tokio::test]
async fn frames_are_rendered_once_per_form_and_kind() {
    let f = fixture().await;
    f.create("a/1", "x", "").await;
    let mut watchers = Vec::new();
    for filter in [Filter::default(), namespace("a"), app("y")] {
        watchers.push(f.watch(WatchStart::After(Revision(1)), filter).await);
    }
    f.update("a/1", "y", "").await;
    let rendered = AtomicUsize::new(0);
    let mut frames = Vec::new();
    for watch in &mut watchers {
        let event = watch.next().await.expect("an event").expect("no error");
        let render = |kind: Kind, object: &CachedObject| {
            rendered.fetch_add(1, Ordering::Relaxed);
            Bytes::from(format!("{} {}", kind.as_str(), object.key()))
        };
        frames.push(event.frame(Form(3), render).expect("a frame"));
    }
    assert_eq!(frames, ["MODIFIED a/1", "MODIFIED a/1", "ADDED a/1"]);
    assert_eq!(rendered.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_resource_can_come_and_go() {
    let f = fixture().await;
    f.store.put("/registry/g/late/a/1", body("x", ""), Expect::Absent, None).await.expect("put");
    let late = f.cacher.register(spec("/registry/g/late/"));
    let listed = |page: Page| page.items.iter().map(|object| object.key().to_owned()).collect::<Vec<_>>();
    let all = ListOptions { at: ReadAt::Latest, filter: Filter::default(), limit: 0, start: None };
    assert_eq!(listed(late.list(all.clone()).await.expect("list")), ["a/1"]);
    let options =
        WatchOptions { start: WatchStart::Now(ReadAt::Any), filter: Filter::default(), bookmarks: None };
    let mut watch = late.watch(options).await.expect("watch");
    f.cacher.unregister("/registry/g/late/");
    assert!(matches!(watch.next().await, Some(Err(Error::Expired { .. }))));
    assert!(watch.next().await.is_none());
    assert!(matches!(late.list(all).await, Err(Error::NotReady)));
    assert!(f.cacher.resource("/registry/g/late/").is_none());
}

#[tokio::test]
async fn keys_of_no_object_are_left_out() {
    let f = fixture().await;
    f.create("a/1", "x", "").await;
    let key = "/registry/things/no-namespace";
    f.store.put(key, Bytes::from_static(b"{\"metadata\":{}}"), Expect::Absent, None).await.expect("put");
    f.create("a/3", "x", "").await;
    let page = f.list(ReadAt::Latest, Filter::default(), 0, None).await.expect("list");
    assert_eq!(keys(&page), ["a/1", "a/3"]);
}

/// Replays a list and the events after it.
async fn replay(things: Arc<Resource>, filter: Filter, until: Revision) -> BTreeMap<String, u64> {
    let all = ListOptions { at: ReadAt::Any, filter: filter.clone(), limit: 0, start: None };
    let page = things.list(all).await.expect("list");
    let mut state: BTreeMap<String, u64> =
        page.items.iter().map(|object| (object.key().to_owned(), object.revision.0)).collect();
    let start = WatchStart::After(page.revision);
    let options = WatchOptions { start, filter, bookmarks: Some(Duration::from_millis(2)) };
    let mut watch = things.watch(options).await.expect("watch");
    let mut last = page.revision;
    while last < until {
        let event = watch.next().await.expect("open").expect("no error");
        match (event.kind(), event.object()) {
            (Some(kind), Some(object)) => {
                assert!(event.revision() > last, "events come once and in order");
                let key = object.key().to_owned();
                let old = match kind {
                    Kind::Deleted => state.remove(&key),
                    _ => state.insert(key, object.revision.0),
                };
                assert_eq!(old.is_none(), kind == Kind::Added, "{kind:?} {object:?}");
            }
            _ => assert!(event.revision() >= last),
        }
        last = event.revision();
    }
    state
}

#[tokio::test]
async fn reads_of_what_cannot_be_read_fail_until_it_is_written_anew() {
    let f = fixture().await;
    f.create("a/good", "x", "").await;
    f.create("b/bad", "x", "").await;
    let mut watcher = f.watch(WatchStart::Now(ReadAt::Latest), Filter::default()).await;
    let key = "/registry/things/b/bad";
    let current = f.store.get(key).await.expect("read").0.expect("there").modified;
    f.store.put(key, Bytes::from_static(b"k8s:enc:"), Expect::At(current), None).await.expect("written");
    let damaged = |error: Option<Error>| {
        assert!(matches!(&error, Some(Error::Malformed { key: of, .. }) if of == key), "{error:?}");
    };
    for again in [false, true] {
        damaged(f.things.get(ReadAt::Latest, "b", "bad").await.err());
        damaged(f.list(ReadAt::Any, Filter::default(), 0, None).await.err());
        damaged(f.list(ReadAt::Latest, namespace("b"), 1, None).await.err());
        let start = WatchStart::Initial(ReadAt::Latest);
        let options = WatchOptions { start, filter: Filter::default(), bookmarks: None };
        damaged(f.things.watch(options).await.err());
        let others = f.list(ReadAt::Latest, namespace("a"), 0, None).await.expect("not in the way of others");
        assert_eq!(others.items.len(), 1);
        f.things.get(ReadAt::Latest, "a", "good").await.expect("nor of this").0.expect("there");
        if !again {
            // A load finds the same.
            let load = f.things.begin_load();
            f.things.load(load).await;
        }
    }
    assert!(f.drain(&mut watcher).await.is_empty(), "it is not told as a delete");
    f.update("b/bad", "y", "").await;
    f.things.get(ReadAt::Latest, "b", "bad").await.expect("mended").0.expect("there");
    assert_eq!(f.list(ReadAt::Latest, Filter::default(), 0, None).await.expect("whole").items.len(), 2);
    assert_eq!(f.drain(&mut watcher).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn lists_and_watches_agree_under_concurrent_writers() {
    const WRITERS: u64 = 4;
    const WRITES: u64 = 400;
    let f = Arc::new(fixture_with(Config { watch_buffer: 8, ..Config::default() }).await);
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let f = Arc::clone(&f);
            tokio::spawn(async move {
                let mut live = std::collections::BTreeSet::new();
                for n in 0..WRITES {
                    let key = format!("ns{writer}/{}", n * 31 % 17);
                    let (app, node) = (["x", "y"][n as usize % 2], ["n1", "n2", ""][n as usize % 3]);
                    if live.insert(key.clone()) {
                        f.create(&key, app, node).await;
                    } else if n % 5 == 0 {
                        live.remove(&key);
                        f.delete(&key).await;
                    } else {
                        f.update(&key, app, node).await;
                    }
                }
            })
        })
        .collect();
    let until = Revision(WRITERS * WRITES);
    let mut readers = Vec::new();
    for n in 0..12 {
        let filter = [Filter::default(), app("x"), node("n1"), namespace("ns2")][n % 4].clone();
        let things = Arc::clone(&f.things);
        readers.push((filter.clone(), tokio::spawn(replay(things, filter, until))));
        f.cacher.wait_for(Revision(n as u64 * 20)).await.expect("the writers get on");
    }
    for writer in writers {
        writer.await.expect("writer");
    }
    for (filter, reader) in readers {
        let replayed = reader.await.expect("reader");
        let page = f.list(ReadAt::Latest, filter.clone(), 0, None).await.expect("list");
        let listed: BTreeMap<_, _> =
            page.items.iter().map(|object| (object.key().to_owned(), object.revision.0)).collect();
        assert_eq!(replayed, listed, "{filter:?}");
    }
}
