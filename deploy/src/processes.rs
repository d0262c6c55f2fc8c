//! The processes of this machine, as `/proc` shows them: to find those that belong to a cluster.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

const POLL: Duration = Duration::from_millis(20);

/// All processes there are.
pub fn all() -> impl Iterator<Item = Pid> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// What a file of the process says; nothing if the process has ended.
#[must_use]
pub fn read(pid: Pid, file: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{}/{file}", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The words of its command line.
#[must_use]
pub fn words(pid: Pid) -> Vec<String> {
    read(pid, "cmdline").split_terminator('\0').map(str::to_owned).collect()
}

/// The fields of its `stat` after the name: its state, its parent and so on.
#[must_use]
pub fn stat(pid: Pid) -> Vec<String> {
    let stat = read(pid, "stat");
    stat.rsplit(')').next().unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// User and system time of it so far, in seconds.
#[must_use]
pub fn cpu_seconds(pid: Pid) -> f64 {
    let fields = stat(pid);
    let time = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or_default();
    (time(11) + time(12)) / rustix::param::clock_ticks_per_second() as f64
}

/// Its parent.
#[must_use]
pub fn parent(pid: Pid) -> Option<Pid> {
    Pid::from_raw(stat(pid).get(1)?.parse().ok()?)
}

/// Its children.
#[must_use]
pub fn children(pid: Pid) -> Vec<Pid> {
    all().filter(|other| parent(*other) == Some(pid)).collect()
}

/// Those that run `program` and were told of `path`.
#[must_use]
pub fn told_of(program: &str, path: &Path) -> Vec<Pid> {
    let path = path.to_string_lossy();
    let matches = |pid: &Pid| {
        let words = words(*pid);
        let runs = words.first().and_then(|word| Path::new(word).file_name()).is_some_and(|n| n == program);
        runs && words.iter().any(|word| *word == path)
    };
    all().filter(matches).collect()
}

/// Signals what `find` finds until it finds nothing more.
///
/// # Errors
/// Something is still there after `patience`.
pub async fn end(find: impl Fn() -> Vec<Pid>, signal: Signal, patience: Duration) -> Result<()> {
    let began = Instant::now();
    loop {
        let found = find();
        if found.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < patience, "processes do not end: {found:?}");
        for pid in found {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn processes_are_found_by_what_they_were_told_and_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("told");
        let mut sleeper = std::process::Command::new("sh");
        sleeper.args(["-c", "read line", "sh"]).arg(&path).stdin(std::process::Stdio::piped());
        let mut child = sleeper.spawn().expect("sh runs");
        let own = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
        let this = Pid::from_raw(i32::try_from(std::process::id()).expect("a pid"));
        assert_eq!(parent(own), this);
        assert!(this.is_some_and(|this| children(this).contains(&own)));
        assert_eq!(told_of("sh", &path), [own]);
        assert!(told_of("bash", &path).is_empty() && told_of("sh", folder.path()).is_empty());
        let reaper = std::thread::spawn(move || child.wait());
        end(|| told_of("sh", &path), Signal::KILL, Duration::from_secs(30)).await.expect("it ends");
        assert!(!reaper.join().expect("a thread").expect("a child").success());
    }
}
