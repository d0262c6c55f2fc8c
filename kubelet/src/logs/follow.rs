//! Waiting for a log to grow or to be replaced.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
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
        let (notify, watched) = (changed.clone(), path.to_owned());
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let concerns = event.is_ok_and(|event| {
                event.paths.iter().any(|path: &PathBuf| path.file_name() == watched.file_name())
            });
            if concerns {
                notify.notify_one();
            }
        })?;
        watcher.watch(path.parent().unwrap_or(Path::new("/")), RecursiveMode::NonRecursive)?;
        Ok(Self { changed, _watcher: watcher })
    }

    /// Waits for a change, or for `limit`; whether there was one.
    pub async fn changed(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.changed.notified()).await.is_ok()
    }
}
