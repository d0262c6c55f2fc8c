//! What only this backend promises: reopening, expiry across a reopen, damage that is noticed, bounded history.
//! (What all backends promise is in `tests/contract.rs`, sudden death in `tests/crash.rs`.)

use std::io::{Read, Seek, SeekFrom, Write};

use futures::StreamExt;

use super::*;
use crate::Event;

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn create(store: &Embedded, key: &str, text: &str) -> Revision {
    store.put(key, value(text), Expect::Absent, None).await.expect("created")
}

#[tokio::test]
async fn reopening_restores_state_and_revision() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Embedded::open(dir.path()).await.expect("open");
    let a = create(&store, "/a", "1").await;
    create(&store, "/b", "2").await;
    store.put("/a", value("3"), Expect::At(a), None).await.expect("update");
    let (_, last) = store.delete("/b", None).await.expect("delete");
    store.shut_down().await;

    let store = Embedded::open(dir.path()).await.expect("reopen");
    assert_eq!(store.current_revision().await.expect("revision"), last);
    let all = store.range(Range::prefix("/")).await.expect("range");
    assert_eq!(all.revision, last);
    let expected = KeyValue { key: "/a".into(), value: value("3"), created: a, modified: Revision(a.0 + 2) };
    assert_eq!(all.items, [expected]);
    assert_eq!(create(&store, "/c", "4").await, last.next());
    assert!(matches!(store.watch("/", Revision(1)).await.map(drop), Err(Error::Compacted { .. })));
}

#[tokio::test]
async fn a_second_opener_is_refused() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Embedded::open(dir.path()).await.expect("open");
    assert!(matches!(Embedded::open(dir.path()).await.map(drop), Err(Error::Unavailable { .. })));
    store.clone().shut_down().await;
    assert!(matches!(
        store.put("/a", value("1"), Expect::Absent, None).await,
        Err(Error::Unavailable { .. })
    ));
    Embedded::open(dir.path()).await.expect("free again");
}

#[tokio::test]
async fn expiry_survives_a_reopen() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Embedded::open(dir.path()).await.expect("open");
    let ttl = Some(Duration::from_millis(300));
    store.put("/gone", value("1"), Expect::Absent, ttl).await.expect("put");
    let kept = store.put("/kept", value("1"), Expect::Absent, ttl).await.expect("put");
    store.put("/kept", value("2"), Expect::At(kept), None).await.expect("made permanent");
    let revision = store.current_revision().await.expect("revision");
    store.shut_down().await;

    let store = Embedded::open(dir.path()).await.expect("reopen");
    let mut watch = store.watch("/", revision.next()).await.expect("watch");
    let mut batch = watch.next().await.expect("an event").expect("no error");
    while matches!(batch[..], [Event::Progress { .. }]) {
        batch = watch.next().await.expect("an event").expect("no error");
    }
    assert!(matches!(&batch[..], [Event::Delete { key, .. }] if key == "/gone"), "{batch:?}");
    assert!(store.get("/kept").await.expect("get").0.is_some());
}

/// Changes the first place in the file that holds `marker`.
fn rot(path: &std::path::Path, marker: &[u8], at: usize) -> bool {
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("open file");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("read file");
    let mut found = false;
    for start in 0..bytes.len().saturating_sub(marker.len()) {
        if bytes[start..].starts_with(marker) {
            found = true;
            file.seek(SeekFrom::Start((start + at) as u64)).expect("seek");
            file.write_all(&[bytes[start + at] ^ 0x10]).expect("write");
        }
    }
    found
}

#[tokio::test]
async fn rot_in_a_value_is_damage() {
    let dir = tempfile::tempdir().expect("temp dir");
    let store = Embedded::open(dir.path()).await.expect("open");
    create(&store, "/a", "a value that can be found").await;
    store.shut_down().await;
    assert!(rot(&dir.path().join("store.redb"), b"value that can be", 3));
    let opened = Embedded::open(dir.path()).await.map(drop);
    assert!(matches!(opened, Err(Error::Damaged { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_file_cut_short_is_damage() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("store.redb");
    let store = Embedded::open(dir.path()).await.expect("open");
    for n in 0..200 {
        create(&store, &format!("/{n}"), &"x".repeat(3000)).await;
    }
    store.shut_down().await;
    let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open file");
    let length = file.metadata().expect("metadata").len();
    file.set_len(length / 3).expect("cut");
    drop(file);
    let opened = Embedded::open(dir.path()).await.map(drop);
    assert!(matches!(opened, Err(Error::Damaged { .. })), "{opened:?}");
}

/// Journals that are full after a few changes.
fn short_journals() -> Config {
    Config { journal_bytes: 1000, ..Config::default() }
}

#[tokio::test]
async fn what_went_through_many_journals_is_there_again() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut expected = std::collections::BTreeMap::new();
    for round in 0..3 {
        let store = Embedded::open_with(dir.path(), short_journals()).await.expect("open");
        for n in 0..200 {
            let (key, text) = (format!("/{}", n * 7 % 40), format!("{round} {n}"));
            match store.get(&key).await.expect("read").0 {
                Some(_) if n % 3 == 0 => {
                    store.delete(&key, None).await.expect("deleted");
                    expected.remove(&key);
                }
                found => {
                    let expect = found.map_or(Expect::Absent, |kv| Expect::At(kv.modified));
                    store.put(&key, value(&text), expect, None).await.expect("written");
                    expected.insert(key, value(&text));
                }
            }
        }
        let last = store.current_revision().await.expect("revision");
        store.shut_down().await;
        let store = Embedded::open_with(dir.path(), short_journals()).await.expect("reopen");
        let all = store.range(Range::prefix("/")).await.expect("range");
        assert_eq!(all.revision, last);
        let found = all.items.into_iter().map(|kv| (kv.key, kv.value)).collect();
        assert_eq!(expected, found, "round {round}");
        store.shut_down().await;
    }
}

#[tokio::test]
async fn a_journal_that_is_missing_is_damage() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (mut durable, _) = durable::Durable::open(dir.path(), 1 << 20).expect("open");
    let change = |n: u64| memory::Change {
        key: format!("/{n}"),
        revision: Revision(n),
        created: Revision(n),
        value: Some(value("text")),
        expires: None,
    };
    durable.commit(&[change(2), change(3)]).expect("written");
    drop(durable);
    // As if the file of records had been put back from an old copy: the journals go on where something else ended.
    let [records, first, _] = durable::files(dir.path());
    std::fs::remove_file(&records).expect("removed");
    let mut journal = journal::Journal::open(&first).expect("open");
    journal.append(&[change(4)]).expect("written");
    let opened = Embedded::open(dir.path()).await.map(drop);
    assert!(matches!(opened, Err(Error::Damaged { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_watch_that_is_too_slow_ends() {
    let store = Embedded::in_memory_with(Config { watch_buffer: 4, ..Config::default() });
    let mut watch = store.watch("/", Revision(1)).await.expect("watch");
    for n in 0..50 {
        create(&store, &format!("/{n}"), "x").await;
    }
    for n in 1..=4 {
        let batch = watch.next().await.expect("open").expect("no error");
        assert_eq!(batch.last().map(Event::revision), Some(Revision(n)));
    }
    let end = watch.next().await.expect("an error");
    assert!(matches!(end, Err(Error::Compacted { requested: Revision(5), .. })), "{end:?}");
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn the_history_is_bounded_by_count_and_bytes() {
    for (config, oldest) in [
        (Config { max_events: 10, ..Config::default() }, 91),
        (Config { max_event_bytes: 20, ..Config::default() }, 96),
        (Config { max_event_bytes: 0, ..Config::default() }, 100),
    ] {
        let store = Embedded::in_memory_with(config);
        let mut last = create(&store, "/a", "four").await;
        for _ in 1..100 {
            last = store.put("/a", value("four"), Expect::At(last), None).await.expect("update");
        }
        let refused = store.watch("/", Revision(oldest - 1)).await.map(drop);
        assert!(
            matches!(refused, Err(Error::Compacted { oldest: o, .. }) if o == Revision(oldest)),
            "{refused:?}"
        );
        let past = |at| Range { revision: Some(Revision(at)), ..Range::prefix("/") };
        assert!(matches!(store.range(past(oldest - 1)).await, Err(Error::Compacted { .. })));
        assert_eq!(store.range(past(oldest)).await.expect("kept").count, 1);
        store.watch("/", Revision(oldest)).await.map(drop).expect("kept");
    }
}

#[tokio::test]
async fn concurrent_writers_each_win_once() {
    let store = Embedded::in_memory();
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.put("/one", value(&n.to_string()), Expect::Absent, None).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.expect("task") {
            Ok(revision) => {
                assert_eq!(revision, Revision(1));
                won += 1;
            }
            Err(Error::Conflict { current: Some(current), .. }) => assert_eq!(current.modified, Revision(1)),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(won, 1);
}
