//! Static pods: manifests in a directory, run without anybody's asking, and mirrored in the API.

pub mod manifest;
pub mod mirror;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Notify, watch};

pub use manifest::read_manifest;

/// Editors and `mv` write in several steps; all that happens within this time is one change.
const SETTLE: Duration = Duration::from_millis(100);

/// Follows the manifests in `directory`; the receiver always holds the whole set.
pub async fn follow(
    directory: PathBuf,
    node_name: String,
    recheck: Duration,
    tasks: &Tasks,
) -> watch::Receiver<Vec<Arc<Pod>>> {
    let (sender, receiver) = watch::channel(read_all(&directory, &node_name, &[]).await);
    tasks.spawn("manifests", move |token| async move {
        let changed = Arc::new(Notify::new());
        let _watcher = crate::watching::watch_all(&directory, changed.clone());
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = changed.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(recheck) => {}
            }
            let known = sender.borrow().clone();
            let now = read_all(&directory, &node_name, &known).await;
            sender.send_if_modified(|held| {
                let differ = *held != now;
                if differ {
                    held.clone_from(&now);
                }
                differ
            });
        }
    });
    receiver
}

/// All pods of a directory. A manifest that cannot be read is left out; a pod seen before keeps when it was seen.
async fn read_all(directory: &Path, node_name: &str, known: &[Arc<Pod>]) -> Vec<Arc<Pod>> {
    let mut files = Vec::new();
    match tokio::fs::read_dir(directory).await {
        Ok(mut entries) => {
            while let Ok(Some(entry)) = entries.next_entry().await {
                files.push(entry.path());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::error!(path = %directory.display(), %error, "unable to read the manifests"),
    }
    files.sort();
    let mut pods: Vec<Arc<Pod>> = Vec::new();
    for file in files {
        let hidden = file.file_name().is_none_or(|n| n.to_string_lossy().starts_with('.'));
        if hidden || !tokio::fs::metadata(&file).await.is_ok_and(|m| m.is_file()) {
            continue;
        }
        let text = match tokio::fs::read_to_string(&file).await {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(path = %file.display(), %error, "can't process manifest file");
                continue;
            }
        };
        match read_manifest(&text, &file, node_name) {
            Ok(pod) => {
                let same = known.iter().find(|k| k.metadata.uid == pod.metadata.uid);
                pods.push(same.cloned().unwrap_or_else(|| Arc::new(pod)));
            }
            Err(error) => tracing::error!(path = %file.display(), %error, "can't process manifest file"),
        }
    }
    pods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn manifests_are_followed() {
        let directory = std::env::temp_dir().join(format!("manifests-{}", uuid::Uuid::new_v4()));
        tokio::fs::create_dir_all(&directory).await.expect("create");
        let manifest = |image: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: a, image: {image}}}]}}\n"
            )
        };
        tokio::fs::write(directory.join("web.yaml"), manifest("one")).await.expect("write");
        tokio::fs::write(directory.join(".hidden"), "x").await.expect("write");
        tokio::fs::write(directory.join("broken.yaml"), "kind: Pod\nmetadata: [").await.expect("write");
        let tasks = Tasks::new();
        let mut pods = follow(directory.clone(), "n1".into(), Duration::from_secs(1), &tasks).await;
        let first = pods.borrow_and_update().clone();
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].metadata.name.as_deref(), Some("web-n1"));
        tokio::fs::write(directory.join("web.yaml"), manifest("two")).await.expect("write");
        pods.changed().await.expect("followed");
        let second = pods.borrow_and_update().clone();
        assert_ne!(first[0].metadata.uid, second[0].metadata.uid);
        tasks.shut_down().await.expect("no failure");
        tokio::fs::remove_dir_all(&directory).await.expect("remove");
    }
}
