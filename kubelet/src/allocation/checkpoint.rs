//! The file of a record: upstream's checkpoint, so that either kubelet may follow the other on a node.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};

use super::PodResources;

/// A record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The disk refused.
    #[error("checkpoint file")]
    Io(#[from] io::Error),
    /// It is no checkpoint.
    #[error("checkpoint format")]
    Format(#[from] serde_json::Error),
    /// It was written halfway, or by another hand.
    #[error("checkpoint is corrupted")]
    Corrupt,
}

#[derive(Serialize, Deserialize)]
struct File {
    data: String,
    checksum: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Data {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    entries: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(default)]
    container_resources: Option<BTreeMap<String, ResourceRequirements>>,
    #[serde(default)]
    pod_level_resources: Option<ResourceRequirements>,
}

/// FNV-1a, 32 bits, over the text with its type before it.
fn checksum(data: &str) -> u64 {
    let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let bytes = b"(string)".iter().chain(data.as_bytes());
    u64::from(bytes.fold(0x811c_9dc5, fold))
}

/// What the file holds; nothing when there is none.
pub(super) fn read(path: &Path) -> Result<HashMap<String, PodResources>, Error> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error.into()),
    };
    let file: File = serde_json::from_slice(&text)?;
    if file.checksum != checksum(&file.data) {
        return Err(Error::Corrupt);
    }
    let data: Data = serde_json::from_str(&file.data)?;
    let pods = data.entries.into_iter().map(|(uid, entry)| {
        let containers = entry.container_resources.unwrap_or_default();
        (uid, PodResources { containers, pod: entry.pod_level_resources })
    });
    Ok(pods.collect())
}

/// Replaces the file as a whole. It is not forced to disk: with the machine, everything it tells of has ended too.
pub(super) fn write(path: &Path, pods: &HashMap<String, PodResources>) -> Result<(), Error> {
    let entries = pods.iter().map(|(uid, kept)| {
        let entry = Entry {
            container_resources: Some(kept.containers.clone()),
            pod_level_resources: kept.pod.clone(),
        };
        (uid.clone(), entry)
    });
    let data = serde_json::to_string(&Data { entries: entries.collect() })?;
    let text = serde_json::to_vec(&File { checksum: checksum(&data), data })?;
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    Ok(std::fs::rename(new, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_files_are_read() {
        let path = std::env::temp_dir().join(format!("checkpoint-{}", uuid::Uuid::new_v4()));
        let text = r#"{"data":"{\"entries\":{\"pod1\":{\"ContainerResources\":{\"container1\":{\"requests\":{\"cpu\":\"1Ki\",\"memory\":\"1Ki\"}}}}}}","checksum":1178570812}"#;
        std::fs::write(&path, text).expect("write");
        let pods = read(&path).expect("a checkpoint");
        assert_eq!(
            pods["pod1"].containers["container1"].requests.as_ref().map(|r| r["cpu"].0.as_str()),
            Some("1Ki")
        );
        std::fs::write(&path, text.replace("container1", "container2")).expect("write");
        assert!(matches!(read(&path), Err(Error::Corrupt)));
        write(&path, &pods).expect("written");
        assert_eq!(read(&path).expect("own"), pods);
        std::fs::remove_file(path).expect("remove");
    }
}
