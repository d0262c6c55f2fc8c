//! Keeps logs from growing without end.
//!
//! A log over its size is renamed with the time, the runtime is told to open a new one, older ones are compressed and
//! the oldest removed. As upstream's container log manager.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use proto::cri;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::runtime::Runtime;

const COMPRESSED: &str = ".gz";
const TEMPORARY: &str = ".tmp";

/// Rotates the logs of all running containers.
pub struct LogRotator {
    runtime: Runtime,
    max_size: u64,
    max_files: usize,
    interval: Duration,
}

impl LogRotator {
    /// Rotates logs of `max_size` bytes, keeping `max_files` of each, the current one included.
    #[must_use]
    pub fn new(runtime: Runtime, max_size: u64, max_files: usize, interval: Duration) -> Self {
        Self { runtime, max_size, max_files: max_files.max(2), interval }
    }

    /// Looks after the logs until cancelled.
    pub async fn run(self, token: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.rotate_all().await {
                warn!(error = client::chain(&error), "could not list containers to rotate their logs");
            }
        }
    }

    async fn rotate_all(&self) -> Result<(), crate::runtime::Error> {
        let running = cri::ContainerStateValue { state: cri::ContainerState::ContainerRunning as i32 };
        let filter = cri::ContainerFilter { state: Some(running), ..cri::ContainerFilter::default() };
        for container in self.runtime.list_containers(Some(filter)).await? {
            // It may have ended since it was listed.
            let Ok(status) = self.runtime.container_status(&container.id).await else { continue };
            if status.log_path.is_empty() {
                continue;
            }
            if let Err(error) = self.rotate(&container.id, Path::new(&status.log_path)).await {
                warn!(
                    container = container.id,
                    log = status.log_path,
                    error = client::chain(&error),
                    "could not rotate a log"
                );
            }
        }
        Ok(())
    }

    async fn rotate(&self, id: &str, log: &Path) -> Result<(), Error> {
        match tokio::fs::metadata(log).await {
            Ok(metadata) if metadata.len() < self.max_size => return Ok(()),
            Ok(_) => {}
            // The runtime lost its log, by a reopening that failed: it makes a new one.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(self.runtime.reopen_container_log(id).await?);
            }
            Err(error) => return Err(error.into()),
        }
        let (path, keep) = (log.to_owned(), self.max_files - 2);
        tokio::task::spawn_blocking(move || tidy(&path, keep)).await.map_err(io::Error::other)??;
        let rotated =
            PathBuf::from(format!("{}.{}", log.display(), Timestamp::now().strftime("%Y%m%d-%H%M%S")));
        tokio::fs::rename(log, &rotated).await?;
        if let Err(error) = self.runtime.reopen_container_log(id).await {
            // Otherwise the next attempt would find no log to rotate.
            tokio::fs::rename(&rotated, log).await?;
            return Err(error.into());
        }
        info!(container = id, log = %log.display(), "log rotated");
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("rotate files")]
    Io(#[from] io::Error),
    #[error("reopen")]
    Runtime(#[from] crate::runtime::Error),
}

/// Removes leftovers and all but the newest `keep` rotated logs, and compresses those.
pub(super) fn tidy(log: &Path, keep: usize) -> io::Result<()> {
    let mut rotated = Vec::new();
    for path in rotated_logs(log)? {
        let name = path.to_string_lossy().into_owned();
        let original = name.strip_suffix(COMPRESSED);
        if name.ends_with(TEMPORARY) {
            std::fs::remove_file(&path)?;
        } else if original.is_some_and(|original| Path::new(original).exists()) {
            // Compressing was interrupted before the original was removed.
            std::fs::remove_file(original.unwrap_or_default())?;
            rotated.push(path);
        } else {
            rotated.push(path);
        }
    }
    rotated.retain(|path| path.exists());
    rotated.sort();
    let excess = rotated.len().saturating_sub(keep);
    for path in rotated.drain(..excess) {
        std::fs::remove_file(path)?;
    }
    rotated
        .iter()
        .filter(|path| path.extension().is_none_or(|extension| extension != "gz"))
        .try_for_each(|path| compress(path))
}

fn rotated_logs(log: &Path) -> io::Result<Vec<PathBuf>> {
    let prefix = format!("{}.", log.file_name().unwrap_or_default().to_string_lossy());
    let entries = std::fs::read_dir(log.parent().unwrap_or(Path::new("/")))?;
    let paths = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    Ok(paths.map(|entry| entry.path()).collect())
}

fn compress(path: &Path) -> io::Result<()> {
    let temporary = PathBuf::from(format!("{}{TEMPORARY}", path.display()));
    let mut source = std::fs::File::open(path)?;
    let mut encoder =
        flate2::write::GzEncoder::new(std::fs::File::create(&temporary)?, flate2::Compression::default());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::rename(&temporary, format!("{}{COMPRESSED}", path.display()))?;
    std::fs::remove_file(path)
}
