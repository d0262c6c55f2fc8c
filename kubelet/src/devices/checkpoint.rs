//! The file of what was given, `kubelet_internal_checkpoint`, in upstream's form.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use proto::device_plugin::ContainerAllocateResponse;
use serde::{Deserialize, Serialize};

use super::pods::{Allocation, PodDevices};
use crate::checkpoint::{self, Error, go_list, go_map};

/// Name of the file.
pub(super) const FILE: &str = "kubelet_internal_checkpoint";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct File {
    data: Data,
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: Option<BTreeMap<String, Option<Vec<String>>>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    #[serde(rename = "PodUID")]
    pod_uid: String,
    container_name: String,
    resource_name: String,
    #[serde(rename = "DeviceIDs")]
    device_ids: Option<BTreeMap<i64, Vec<String>>>,
    alloc_resp: Option<String>,
}

impl Data {
    /// As Go's deep printer shows it.
    fn shown(&self) -> String {
        let entries = self.pod_device_entries.as_ref().map(|all| all.iter().map(Entry::shown).collect());
        let registered = self.registered_devices.as_ref().map_or_else(
            || "<nil>".to_owned(),
            |all| go_map(all.iter().map(|(resource, ids)| (resource.clone(), go_list(ids.clone())))),
        );
        format!(
            "(checkpoint.checkpointData){{PodDeviceEntries:([]checkpoint.PodDevicesEntry){} \
             RegisteredDevices:(map[string][]string){registered}}}",
            go_list(entries)
        )
    }
}

impl Entry {
    fn shown(&self) -> String {
        let ids = self.device_ids.as_ref().map_or_else(
            || "<nil>".to_owned(),
            |ids| go_map(ids.iter().map(|(node, ids)| (node.to_string(), go_list(Some(ids.clone()))))),
        );
        let bytes = self.alloc_resp.as_ref().and_then(|text| STANDARD.decode(text).ok());
        let bytes = go_list(bytes.map(|bytes| bytes.iter().map(u8::to_string).collect()));
        format!(
            "{{PodUID:(string){} ContainerName:(string){} ResourceName:(string){} \
             DeviceIDs:(checkpoint.DevicesPerNUMA){ids} AllocResp:([]uint8){bytes}}}",
            self.pod_uid, self.container_name, self.resource_name
        )
    }
}

/// What was given, and the resources that had a plugin; `None` when there is no file.
pub(super) fn read(path: &Path) -> Result<Option<(PodDevices, Vec<String>)>, Error> {
    let Some(file) = checkpoint::read::<File>(path)? else { return Ok(None) };
    if file.checksum != checkpoint::checksum(&file.data.shown()) {
        return Err(Error::Corrupt);
    }
    let mut pods = PodDevices::default();
    for entry in file.data.pod_device_entries.into_iter().flatten() {
        let bytes = STANDARD.decode(entry.alloc_resp.unwrap_or_default());
        let bytes = bytes.map_err(|error| Error::Nonsense(error.to_string()))?;
        let response = ContainerAllocateResponse::decode(bytes.as_slice());
        let response = response.map_err(|error| Error::Nonsense(error.to_string()))?;
        let allocation = Allocation { ids: entry.device_ids.unwrap_or_default(), response };
        pods.insert(&entry.pod_uid, &entry.container_name, &entry.resource_name, allocation);
    }
    let registered = file.data.registered_devices.into_iter().flatten().map(|(resource, _)| resource);
    Ok(Some((pods, registered.collect())))
}

/// Writes what was given, and the healthy devices of each resource.
pub(super) fn write(
    path: &Path,
    pods: &PodDevices,
    registered: BTreeMap<String, Vec<String>>,
) -> Result<(), Error> {
    let mut entries = Vec::new();
    for (uid, containers) in &pods.0 {
        for (container, resources) in containers {
            entries.extend(resources.iter().map(|(resource, allocation)| Entry {
                pod_uid: uid.clone(),
                container_name: container.clone(),
                resource_name: resource.clone(),
                device_ids: Some(allocation.ids.clone()),
                alloc_resp: Some(STANDARD.encode(allocation.response.encode_to_vec())),
            }));
        }
    }
    let registered = registered.into_iter().map(|(resource, ids)| (resource, Some(ids)));
    let data = Data {
        pod_device_entries: (!entries.is_empty()).then_some(entries),
        registered_devices: Some(registered.collect()),
    };
    checkpoint::write(path, &File { checksum: checkpoint::checksum(&data.shown()), data })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response() -> ContainerAllocateResponse {
        ContainerAllocateResponse {
            envs: [("KEY".to_owned(), "value".to_owned())].into(),
            ..ContainerAllocateResponse::default()
        }
    }

    #[test]
    fn what_was_given_is_read_again() {
        let path = std::env::temp_dir().join(format!("devices-{}", uuid::Uuid::new_v4()));
        assert!(read(&path).expect("none").is_none());
        let mut pods = PodDevices::default();
        let ids = BTreeMap::from([(-1, vec!["d1".to_owned()]), (1, vec!["d2".to_owned(), "d3".to_owned()])]);
        pods.insert("u", "c", "example.com/dongle", Allocation { ids, response: response() });
        write(&path, &pods, BTreeMap::from([("example.com/other".to_owned(), vec![])])).expect("written");
        let (again, registered) = read(&path).expect("readable").expect("there");
        assert_eq!((again, registered), (pods, vec!["example.com/other".to_owned()]));
        let text = std::fs::read_to_string(&path).expect("text");
        assert!(
            text.starts_with(r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u","ContainerName":"c","#),
            "{text}"
        );
        std::fs::write(&path, text.replace("d3", "d4")).expect("write");
        assert!(matches!(read(&path), Err(Error::Corrupt)));
        std::fs::remove_file(path).expect("remove");
    }

    #[test]
    fn values_are_shown_as_go_shows_them() {
        let data = Data {
            pod_device_entries: Some(vec![Entry {
                pod_uid: "u".into(),
                container_name: "c".into(),
                resource_name: "r".into(),
                device_ids: Some(BTreeMap::from([(0, vec!["a".into(), "b".into()])])),
                alloc_resp: Some(STANDARD.encode([1, 255])),
            }]),
            registered_devices: Some(BTreeMap::from([("r".into(), Some(vec![]))])),
        };
        assert_eq!(
            data.shown(),
            "(checkpoint.checkpointData){PodDeviceEntries:([]checkpoint.PodDevicesEntry)[{PodUID:(string)u \
             ContainerName:(string)c ResourceName:(string)r DeviceIDs:(checkpoint.DevicesPerNUMA)map[0:[a b]] \
             AllocResp:([]uint8)[1 255]}] RegisteredDevices:(map[string][]string)map[r:[]]}"
        );
    }
}
