//! Processes that a test started, and nothing else's.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// A process with its log; it is ended when this is dropped.
pub struct Process {
    name: String,
    words: Vec<String>,
    environment: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts `words`, with output going to a file of that name in `logs`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(name: &str, words: Vec<String>, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let mut process = Self { name: name.to_owned(), words, environment: vec![], log, child: None };
        process.start_again()?;
        Ok(process)
    }

    /// Starts it once more with the same words.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.words[0]);
        command
            .envs(self.environment.iter().cloned())
            .args(&self.words[1..])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("start {}", self.name))?);
        Ok(())
    }

    /// Stops it, and starts it once more with these words after its own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart_with(&mut self, more: &[&str]) -> Result<()> {
        self.stop();
        let own = self.words.clone();
        self.words.extend(more.iter().map(|word| (*word).to_owned()));
        let started = self.start_again();
        self.words = own;
        started
    }

    /// Stops it, and starts it once more with these variables beside those of this process.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn restart_in(&mut self, environment: &[(&str, String)]) -> Result<()> {
        self.stop();
        self.environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let started = self.start_again();
        self.environment.clear();
        started
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        self.child.as_ref().and_then(|c| i32::try_from(c.id()).ok()).and_then(Pid::from_raw)
    }

    /// Kills it without warning.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, and kills it if it does not.
    pub fn stop(&mut self) {
        let Some(pid) = self.pid() else { return };
        let Some(mut child) = self.child.take() else { return };
        // Errors say that it has ended already.
        let _ = kill_process(pid, Signal::TERM);
        let began = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if began.elapsed() > STOP_PATIENCE {
                let _ = child.kill();
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// The end of its log, for failure messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        format!("--- {}\n{}\n", self.name, lines[lines.len().saturating_sub(25)..].join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
