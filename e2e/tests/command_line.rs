//! The binaries as commands: help, wrong words, and what they need and do not find.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use e2e::cluster::{binaries, repository};

const BINARIES: [&str; 9] = [
    "coxswain",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "pod-network",
    "cluster-dns",
    "kubectl",
];

/// A command that must end by itself.
fn run(binary: &str, words: &[&str]) -> Output {
    const PATIENCE: Duration = Duration::from_secs(60);
    let program = binaries().expect("a folder").join(binary);
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{binary} does not start: {error}"));
    // What it says is read while it runs: a pipe holds only so much.
    let (mut out, mut err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let (stdout, stderr) =
        (std::thread::spawn(move || whole(&mut out)), std::thread::spawn(move || whole(&mut err)));
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().expect("it is ours");
            panic!("{binary} {words:?} goes on");
        }
        std::thread::park_timeout(Duration::from_millis(10));
    };
    Output { status, stdout: stdout.join().expect("its output"), stderr: stderr.join().expect("its output") }
}

fn whole(pipe: &mut impl Read) -> Vec<u8> {
    let mut text = Vec::new();
    pipe.read_to_end(&mut text).expect("a pipe");
    text
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

#[test]
fn each_says_what_it_takes() {
    for binary in BINARIES {
        let output = run(binary, &["--help"]);
        let help = text(&output.stdout);
        assert!(output.status.success() && help.contains("Usage:"), "{binary}: {help:?}");
    }
}

#[test]
fn what_the_readme_tells_to_type_is_in_the_help() {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("README.md");
    let mut seen = 0;
    for line in readme.lines().filter_map(|line| line.strip_prefix("    ")) {
        let mut words = line.split_whitespace();
        let Some(binary) = words.next().filter(|word| BINARIES.contains(word) && *word != "kubectl") else {
            continue;
        };
        let verbs: Vec<_> = line.split_whitespace().skip(1).take_while(|w| !w.starts_with('-')).collect();
        let help = text(&run(binary, &[&verbs[..], &["--help"]].concat()).stdout);
        for flag in words.filter_map(|word| word.split('=').next()).filter(|word| word.starts_with("--")) {
            assert!(help.contains(flag), "{binary} {verbs:?} --help does not say {flag}");
            seen += 1;
        }
    }
    assert!(seen > 5, "the README shows how to start the parts: {seen} flags");
}

#[test]
fn a_wrong_flag_is_named() {
    for binary in BINARIES {
        let output = run(binary, &["--no-such-flag=1"]);
        let error = text(&output.stderr);
        assert!(!output.status.success(), "{binary} takes --no-such-flag");
        assert!(error.contains("no-such-flag"), "{binary}: {error:?}");
    }
}

#[test]
fn an_unreachable_etcd_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = format!("--data-dir={}", folder.path().display());
    let certs = format!("--cert-dir={}", folder.path().display());
    let words =
        ["--etcd-servers=http://127.0.0.1:1", "--service-cluster-ip-range=10.96.0.0/16", &data, &certs];
    let output = run("kube-apiserver", &words);
    let error = text(&output.stderr);
    assert!(!output.status.success(), "it runs without its store");
    let last = error.lines().last().unwrap_or_default();
    assert!(last.contains("etcd") && last.contains("http://127.0.0.1:1"), "{error:?}");
}
