//! Logs on disk, read in all ways.

use super::*;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::volumes::testing::Scratch;

const LOG: &str = "2026-01-02T03:04:05.1Z stdout F one\n2026-01-02T03:04:06.123456789Z stderr F two\n2026-01-02T03:04:07Z stdout P th\n2026-01-02T03:04:07.5Z stdout F ree\nrubbish\n2026-01-02T03:04:08.000000001+02:00 stdout F four\n";

#[test]
fn lines_are_taken_apart() {
    for (line, want) in [
        (
            "2026-01-02T03:04:05.1Z stdout F a b\n",
            Some(("stdout", false, "a b\n", "2026-01-02T03:04:05.100000000Z")),
        ),
        ("2026-01-02T03:04:05Z stderr P x\n", Some(("stderr", true, "x", "2026-01-02T03:04:05.000000000Z"))),
        (
            "2026-01-02T03:04:05.000000001+02:00 stdout F:x \n",
            Some(("stdout", false, "\n", "2026-01-02T03:04:05.000000001+02:00")),
        ),
        ("yesterday stdout F a\n", None),
        ("2026-01-02T03:04:05Z stdin F a\n", None),
        ("2026-01-02T03:04:05Z stdout\n", None),
        ("", None),
    ] {
        let got = parse(line.as_bytes()).map(|l| {
            let stream = if l.stream == Stream::Stdout { "stdout" } else { "stderr" };
            (stream, l.partial, std::str::from_utf8(l.content).unwrap().to_owned(), l.fixed_time())
        });
        assert_eq!(got, want.map(|(s, p, c, t)| (s, p, c.to_owned(), t.to_owned())), "{line:?}");
    }
}

async fn collect(options: Options) -> String {
    let scratch = Scratch::new();
    let path = scratch.path().join("0.log");
    std::fs::write(&path, LOG).unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
    read(&path, &options, &sender, || async { false }).await.unwrap();
    drop(sender);
    let mut all = Vec::new();
    while let Some(bytes) = receiver.recv().await {
        all.extend_from_slice(&bytes.unwrap());
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn options_choose_what_is_shown() {
    let none = Options::default();
    for (options, want) in [
        (none.clone(), "one\ntwo\nthree\nfour\n"),
        (Options { stream: Some(Stream::Stderr), ..none.clone() }, "two\n"),
        (Options { tail: Some(1), ..none.clone() }, "four\n"),
        (Options { tail: Some(0), ..none.clone() }, ""),
        (Options { tail: Some(99), ..none.clone() }, "one\ntwo\nthree\nfour\n"),
        (Options { limit: Some(6), ..none.clone() }, "one\ntw"),
        (Options { limit: Some(0), ..none.clone() }, ""),
        (Options { since: Some("2026-01-02T03:04:06Z".parse().unwrap()), ..none.clone() }, "two\nthree\n"),
        (
            Options { timestamps: true, tail: Some(4), ..none.clone() },
            "2026-01-02T03:04:07.000000000Z three\n2026-01-02T03:04:08.000000001+02:00 four\n",
        ),
    ] {
        assert_eq!(collect(options.clone()).await, want, "{options:?}");
    }
}

#[tokio::test]
async fn tail_by_blocks_finds_the_same_as_counting() {
    let scratch = Scratch::new();
    let path = scratch.path().join("long");
    let lines: Vec<String> = (0..3000).map(|n| format!("{n} {}", "x".repeat(n % 17))).collect();
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let mut file = tokio::fs::File::open(&path).await.unwrap();
    for count in [1, 2, 10, 500, 2999, 3000, 5000] {
        let start = tail_start(&mut file, count).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap()[start as usize..].to_owned();
        assert_eq!(text.lines().count() as u64, count.min(3000), "{count}");
    }
}

#[tokio::test]
async fn last_words_are_decoded_and_cut() {
    let scratch = Scratch::new();
    let path = scratch.path().join("0.log");
    std::fs::write(&path, LOG).unwrap();
    assert_eq!(tail(&path, 80, 2048).await.unwrap(), "one\ntwo\nthree\nfour\n");
    assert_eq!(tail(&path, 80, 6).await.unwrap(), "\nfour\n");
}

#[tokio::test]
async fn following_sees_growth_and_rotation_and_ends_with_the_container() {
    let scratch = Scratch::new();
    let path = scratch.path().join("0.log");
    std::fs::write(&path, "2026-01-02T03:04:05Z stdout F a\n").unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let running = Arc::new(AtomicBool::new(true));
    let (flag, log) = (running.clone(), path.clone());
    let reader = tokio::spawn(async move {
        let options = Options { follow: true, ..Options::default() };
        read(&log, &options, &sender, || async { flag.load(Ordering::SeqCst) }).await
    });
    let mut next = async || String::from_utf8(receiver.recv().await.unwrap().unwrap().to_vec()).unwrap();
    assert_eq!(next().await, "a\n");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"2026-01-02T03:04:06Z stdout F b").unwrap();
    file.write_all(b"c\n").unwrap();
    assert_eq!(next().await, "bc\n");
    std::fs::rename(&path, scratch.path().join("0.log.1")).unwrap();
    std::fs::write(&path, "2026-01-02T03:04:07Z stdout F d\n").unwrap();
    assert_eq!(next().await, "d\n");
    running.store(false, Ordering::SeqCst);
    reader.await.unwrap().unwrap();
    assert!(receiver.recv().await.is_none());
}

#[test]
fn rotated_logs_are_compressed_and_the_oldest_removed() {
    let scratch = Scratch::new();
    let at = |name: &str| scratch.path().join(name);
    for name in [
        "0.log",
        "0.log.20260101-000000",
        "0.log.20260102-000000",
        "0.log.20260103-000000",
        "0.log.20260103-000000.tmp",
        "1.log.20250101-000000",
    ] {
        std::fs::write(at(name), name).unwrap();
    }
    rotate::tidy(&at("0.log"), 2).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["0.log", "0.log.20260102-000000.gz", "0.log.20260103-000000.gz", "1.log.20250101-000000"]
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(at("0.log.20260102-000000.gz")).unwrap())
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "0.log.20260102-000000");
}
