//! Where volumes of drivers lie on disk, and what is written beside them; both as upstream's.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::layout::Layout;

const DATA_FILE: &str = "vol_data.json";
const ESCAPED: &str = "kubernetes.io~csi";

/// What is known of a volume that a pod uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeData {
    /// The driver.
    pub driver: String,
    /// The volume, as the driver knows it.
    pub handle: String,
    /// Name of the persistent volume, or of the pod's own.
    pub name: String,
    /// Node it is used on.
    pub node: String,
    /// Object that tells of its attachment; none where nothing is attached.
    pub attachment: Option<String>,
    /// It is the pod's own and ends with it.
    pub ephemeral: bool,
}

impl VolumeData {
    /// The volume as the node's status names it.
    pub fn unique_name(&self) -> String {
        unique_name(&self.driver, &self.handle)
    }

    fn to_map(&self) -> BTreeMap<&str, &str> {
        let lifecycle = if self.ephemeral { "Ephemeral" } else { "Persistent" };
        let mut map = BTreeMap::from([
            ("driverName", self.driver.as_str()),
            ("volumeHandle", self.handle.as_str()),
            ("specVolID", self.name.as_str()),
            ("nodeName", self.node.as_str()),
            ("volumeLifecycleMode", lifecycle),
        ]);
        map.extend(self.attachment.as_deref().map(|id| ("attachmentID", id)));
        map
    }

    fn of_map(map: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| map.get(key).cloned().unwrap_or_default();
        Self {
            driver: text("driverName"),
            handle: text("volumeHandle"),
            name: text("specVolID"),
            node: text("nodeName"),
            attachment: map.get("attachmentID").cloned(),
            ephemeral: text("volumeLifecycleMode") == "Ephemeral",
        }
    }

    /// Writes it beside a volume, whole or not at all.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        let new = directory.join(format!("{DATA_FILE}.new"));
        fs::write(&new, serde_json::to_vec(&self.to_map())?)?;
        fs::rename(new, directory.join(DATA_FILE))
    }

    /// What is written beside a volume, if anything is.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        match fs::read(directory.join(DATA_FILE)) {
            Ok(text) => Ok(Some(Self::of_map(&serde_json::from_slice(&text)?))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A volume as the node's status names it.
pub fn unique_name(driver: &str, handle: &str) -> String {
    format!("{}/{driver}^{handle}", super::PLUGIN)
}

fn hex(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part.as_bytes()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Name of the object that tells of a volume's attachment to a node.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    format!("csi-{}", hex(&[handle, driver, node]))
}

/// The handle of a volume that is a pod's own.
pub fn ephemeral_handle(pod_uid: &str, volume: &str) -> String {
    format!("csi-{}", hex(&[pod_uid, volume]))
}

/// All volumes of drivers that a pod uses.
pub fn pod_dir(layout: &Layout, uid: &str) -> PathBuf {
    layout.pod_volumes_dir(uid).join(ESCAPED)
}

/// One of them; what the pod gets is `mount` in it.
pub fn volume_dir(layout: &Layout, uid: &str, name: &str) -> PathBuf {
    layout.pod_volume_dir(uid, ESCAPED, name)
}

/// Where a volume is staged; what is written beside it is one up.
pub fn staging(layout: &Layout, driver: &str, handle: &str) -> PathBuf {
    let plugin = layout.root().join("plugins").join(super::PLUGIN);
    plugin.join(driver).join(hex(&[handle])).join("globalmount")
}

/// Where a volume that is a device is staged.
pub fn block_staging(layout: &Layout, name: &str) -> PathBuf {
    block_devices(layout).join("staging").join(name)
}

/// Where a volume that is a device is published to a pod.
pub fn block_publish(layout: &Layout, name: &str, uid: &str) -> PathBuf {
    block_devices(layout).join("publish").join(name).join(uid)
}

fn block_devices(layout: &Layout) -> PathBuf {
    layout.root().join("plugins").join(super::PLUGIN).join("volumeDevices")
}

/// Directories directly below `directory`, by name.
pub fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// All volumes of drivers that pods of this node use, with the UID of the pod.
pub fn used(layout: &Layout) -> Vec<(String, VolumeData)> {
    let mut found = Vec::new();
    for uid in names(&layout.pods_dir()) {
        for name in names(&pod_dir(layout, &uid)) {
            let data = VolumeData::read(&volume_dir(layout, &uid, &name)).ok().flatten();
            found.extend(data.map(|data| (uid.clone(), data)));
        }
    }
    found
}

/// Removes an empty directory, if it is there.
pub fn remove_empty(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what is written beside a volume, and the directory that held both.
pub fn remove_data(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(DATA_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove_empty(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        assert_eq!(
            attachment_name("vol", "driver", "node"),
            format!("csi-{}", hex(&["voldrivernode"])),
            "the parts run into one another"
        );
        let layout = Layout::new("/k", "/l", "/c");
        assert_eq!(unique_name("d", "h"), "kubernetes.io/csi/d^h");
        assert_eq!(volume_dir(&layout, "u", "pv"), Path::new("/k/pods/u/volumes/kubernetes.io~csi/pv"));
        let staged = staging(&layout, "d", "h").display().to_string();
        assert!(
            staged.starts_with("/k/plugins/kubernetes.io/csi/d/aaa9402664f1a41f40ebbc52c9993eb6"),
            "{staged}"
        );
        assert!(staged.ends_with("/globalmount"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = std::env::temp_dir().join(format!("csi-{}", uuid::Uuid::new_v4()));
        assert_eq!(VolumeData::read(&dir).expect("nothing"), None);
        let data = VolumeData {
            driver: "d".into(),
            handle: "h".into(),
            name: "pv".into(),
            node: "n".into(),
            attachment: Some("csi-1".into()),
            ephemeral: false,
        };
        data.write(&dir).expect("written");
        assert_eq!(VolumeData::read(&dir).expect("read"), Some(data));
        remove_data(&dir).expect("removed");
        assert!(!dir.exists());
        remove_data(&dir).expect("as good");
    }
}
