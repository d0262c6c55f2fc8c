//! Being told by the kernel when something in a directory changes.

use std::path::Path;
use std::sync::Arc;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// Notifies `changed` of changes in `directory` that are `wanted`, as long as the answer lives. That somebody looks, as
/// whoever is notified will, is no change.
///
/// # Errors
/// The kernel has no watch to give, or there is no such directory.
pub fn watch(
    directory: &Path,
    changed: Arc<Notify>,
    wanted: impl Fn(&Event) -> bool + Send + 'static,
) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // An error may mean that changes were missed.
        if event.map_or(true, |event| !event.kind.is_access() && wanted(&event)) {
            changed.notify_one();
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// As [`watch`], of all changes; `None`, and a word in the log, where that cannot be done.
pub fn watch_all(directory: &Path, changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    watch(directory, changed, |_| true)
        .inspect_err(|error| {
            let path = directory.display();
            tracing::warn!(%path, %error, "directory is not watched, only looked at now and then");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn looking_is_no_change() {
        let directory = crate::volumes::testing::Scratch::new();
        let (file, last) = (directory.path().join("a"), directory.path().join("last"));
        std::fs::write(&file, "1").expect("written");
        let (seen, changed) = (Arc::new(parking_lot::Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let events = Arc::clone(&seen);
        let end = last.clone();
        let _watcher = watch(directory.path(), Arc::clone(&changed), move |event| {
            events.lock().extend(event.paths.clone());
            event.paths.contains(&end)
        })
        .expect("watched");
        for _ in 0..3 {
            assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 1);
            assert_eq!(std::fs::read_to_string(&file).expect("a file"), "1");
        }
        // Events come in order: once this one is here, all before it would be.
        std::fs::write(&last, "2").expect("written");
        changed.notified().await;
        assert!(seen.lock().iter().all(|path| *path == last), "{:?}", seen.lock());
    }
}
