//! The file of a record: upstream's checkpoint, so that either kubelet may follow the other on a node.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde::{Deserialize, Serialize};

use super::PodResources;
use crate::checkpoint::{self, Error};

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

/// What the file holds; nothing when there is none.
pub(super) fn read(path: &Path) -> Result<HashMap<String, PodResources>, Error> {
    let Some(file) = checkpoint::read::<File>(path)? else { return Ok(HashMap::new()) };
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

fn checksum(data: &str) -> u64 {
    checkpoint::checksum(&format!("(string){data}"))
}

/// Replaces the file as a whole.
pub(super) fn write(path: &Path, pods: &HashMap<String, PodResources>) -> Result<(), Error> {
    let entries = pods.iter().map(|(uid, kept)| {
        let entry = Entry {
            container_resources: Some(kept.containers.clone()),
            pod_level_resources: kept.pod.clone(),
        };
        (uid.clone(), entry)
    });
    let data = serde_json::to_string(&Data { entries: entries.collect() })?;
    checkpoint::write(path, &File { checksum: checksum(&data), data })
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
