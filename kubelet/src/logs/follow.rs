//! Waiting for a log to grow or to be replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

/// Follows the directory of a log, so that a new file of its name is noticed as well.
pub struct Follower {
    changed: Arc<Notify>,
    /// Ends the watch when dropped.
    _watcher: notify::RecommendedWatcher,
}

impl Follower {
    /// Starts to watch `path`.
    pub fn new(path: &Path) -> notify::Result<Self> {
        let changed = Arc::new(Notify::new());
        let watched = path.to_owned();
        let concerns = move |event: &notify::Event| {
            event.paths.iter().any(|path: &PathBuf| path.file_name() == watched.file_name())
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let watcher = crate::watching::watch(directory, changed.clone(), concerns)?;
        Ok(Self { changed, _watcher: watcher })
    }

    /// Waits for a change, or for `limit`; whether there was one.
    pub async fn changed(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.changed.notified()).await.is_ok()
    }
}
