//! What the volumes of claims hold, for the summary and for metrics.
//!
//! A file system that does not answer (a server that is gone) is left out, and not asked again before it has answered.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde::Serialize;

use super::Server;
use super::stats::Filesystem;
use crate::node_status::machine::{FileSystem, file_system};
use crate::types;
use crate::volumes::claim_of;

const PATIENCE: Duration = Duration::from_secs(2);

/// Which claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClaimReference {
    /// Name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
}

/// One volume of a pod.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStats {
    /// What it holds.
    #[serde(flatten)]
    pub filesystem: Filesystem,
    /// Its name in the pod.
    pub name: String,
    /// The claim it is bound to.
    pub pvc_ref: ClaimReference,
}

/// File systems that are being looked at.
pub type Looks = Arc<Mutex<HashSet<PathBuf>>>;

/// The volumes of claims that a pod has mounted.
pub async fn of_pod(server: &Server, pod: &Pod) -> Vec<VolumeStats> {
    let mut found = Vec::new();
    for volume in types::spec(pod).volumes.iter().flatten() {
        let Some((claim, _)) = claim_of(pod, volume) else { continue };
        let Some(path) = server.deps.volumes.path(types::uid(pod), &volume.name) else { continue };
        let Some(seen) = look(&server.looks, path).await else { continue };
        found.push(VolumeStats {
            filesystem: shown(&seen, Timestamp::now()),
            name: volume.name.clone(),
            pvc_ref: ClaimReference { name: claim, namespace: types::namespace(pod).to_owned() },
        });
    }
    found
}

/// `None` for a device, and for what does not answer in time.
async fn look(looks: &Looks, path: PathBuf) -> Option<FileSystem> {
    if !looks.lock().insert(path.clone()) {
        return None;
    }
    let looks = looks.clone();
    let work = tokio::task::spawn_blocking(move || {
        let seen = if path.is_dir() { file_system(&path).ok() } else { None };
        looks.lock().remove(&path);
        seen
    });
    tokio::time::timeout(PATIENCE, work).await.ok()?.ok()?
}

fn shown(seen: &FileSystem, now: Timestamp) -> Filesystem {
    Filesystem {
        time: now.to_string(),
        available_bytes: Some(seen.available),
        capacity_bytes: Some(seen.capacity),
        used_bytes: seen.capacity.saturating_sub(seen.available),
        inodes_free: Some(seen.inodes_free),
        inodes: Some(seen.inodes),
        inodes_used: seen.inodes.saturating_sub(seen.inodes_free),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn only_directories_are_looked_at_and_one_at_a_time() {
        let looks = Looks::default();
        let dir = std::env::temp_dir();
        let seen = look(&looks, dir.clone()).await.expect("a file system");
        assert!(seen.capacity > 0 && looks.lock().is_empty());
        assert!(look(&looks, PathBuf::from("/dev/null")).await.is_none());
        looks.lock().insert(dir.clone());
        assert!(look(&looks, dir).await.is_none(), "the last look has not ended");
    }

    #[test]
    fn statistics_name_their_claim() {
        let seen = FileSystem { capacity: 10, available: 4, inodes: 7, inodes_free: 5 };
        let stats = VolumeStats {
            filesystem: shown(&seen, Timestamp::UNIX_EPOCH),
            name: "v".to_owned(),
            pvc_ref: ClaimReference { name: "c".to_owned(), namespace: "ns".to_owned() },
        };
        let value = serde_json::to_value(&stats).expect("JSON");
        assert_eq!(value["usedBytes"], json!(6));
        assert_eq!(value["inodesUsed"], json!(2));
        assert_eq!(value["pvcRef"], json!({"name": "c", "namespace": "ns"}));
    }
}
