//! Sudden death: whatever was acknowledged before a kill is there after it.
//!
//! The test runs itself as a child process that writes and reports each acknowledgement, kills it at some moment,
//! opens the store that it left, and compares.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use store::embedded::{Config, Embedded};
use store::{Expect, Range, Store};

const DIR: &str = "STORE_CRASH_DIR";
const WRITERS: u64 = 8;

/// Step `n` of a writer on its key: create, change, change, delete, and again.
async fn step(store: &Embedded, key: &str, n: u64) {
    let value = Bytes::from(format!("{n} {}", "x".repeat((n % 700) as usize)));
    let done = match (n % 4, store.get(key).await.expect("read").0) {
        (3, _) => store.delete(key, None).await.map(drop),
        (0, None) => store.put(key, value, Expect::Absent, None).await.map(drop),
        (_, Some(current)) => store.put(key, value, Expect::At(current.modified), None).await.map(drop),
        (_, None) => panic!("{key} is not there at step {n}"),
    };
    done.expect("written");
}

/// Opens the store with journals so short that a kill may come at any step of taking them over.
async fn open(dir: &Path) -> Embedded {
    let config = Config { journal_bytes: 10_000, ..Config::default() };
    Embedded::open_with(dir, config).await.expect("open")
}

/// The step that a key's state is the result of; `None`: it is deleted, or was never there.
fn step_of(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.split(' ').next()?.parse().ok()
}

#[test]
#[ignore = "the child process of the test below"]
fn child() {
    let dir = std::env::var(DIR).expect("run by the test below");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let store = open(Path::new(&dir)).await;
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let store = store.clone();
            writers.push(tokio::spawn(async move {
                let key = format!("/crash/{writer}");
                let found = store.get(&key).await.expect("read").0;
                // After a delete it is not known which step it was: all that counts is that a create comes next.
                let first = found.and_then(|kv| step_of(&kv.value)).map_or(0, |n| n + 1);
                for n in first.. {
                    step(&store, &key, n).await;
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ack {writer} {n}").and_then(|()| out.flush()).expect("report");
                }
            }));
        }
        for writer in writers {
            writer.await.expect("writer");
        }
    });
}

#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::tempdir().expect("temp dir");
    let mut last_revision = 0;
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the child");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        // A last line that the kill cut off is no acknowledgement.
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).expect("read");
            line.strip_suffix('\n').map(str::to_owned)
        };
        let mut acknowledged: HashMap<u64, u64> = HashMap::new();
        let mut record = |line: &str| {
            let mut words = line.split(' ');
            if words.next() == Some("ack") {
                let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
                if let (Some(writer), Some(n)) = (number(), number()) {
                    acknowledged.insert(writer, n);
                    return true;
                }
            }
            false
        };
        // Some rounds are short, some long enough to see many commits.
        let enough = 40 + round * 137;
        let mut count = 0;
        while count < enough {
            count += u64::from(record(&line().expect("the child goes on")));
        }
        child.kill().expect("kill");
        while let Some(line) = line() {
            record(&line);
        }
        child.wait().expect("the child ends");

        let store = open(dir.path()).await;
        let found = store.range(Range::prefix("/crash/")).await.expect("range");
        for (writer, acknowledged) in acknowledged {
            let key = format!("/crash/{writer}");
            let state = found.items.iter().find(|item| item.key == key);
            let state = state.map(|item| step_of(&item.value).expect("a step"));
            // The next step may have been written without its acknowledgement being heard.
            let held = |n: u64| if n % 4 == 3 { None } else { Some(n) };
            assert!(
                state == held(acknowledged) || state == held(acknowledged + 1),
                "round {round}: {key} is {state:?} after step {acknowledged}"
            );
        }
        assert!(found.revision.0 > last_revision, "the revision does not go back");
        last_revision = found.revision.0;
        store.shut_down().await;
    }
}
