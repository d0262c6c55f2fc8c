//! Volume plugins that were part of Kubernetes itself: which there still are, and which drivers took over.

use k8s_openapi::api::core::v1::PersistentVolume;

/// The plugin that keeps data in a directory of the node.
pub const HOST_PATH: &str = "kubernetes.io/host-path";

const MIGRATED: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
];

/// The CSI driver that took over from a plugin.
pub fn driver_for(plugin: &str) -> Option<&'static str> {
    MIGRATED.iter().find(|(old, _)| *old == plugin).map(|(_, driver)| *driver)
}

/// The plugin that a volume was made for, among those that a driver took over from.
pub fn plugin_of(volume: &PersistentVolume) -> Option<&'static str> {
    let spec = volume.spec.as_ref()?;
    let plugins = [
        (spec.aws_elastic_block_store.is_some(), "kubernetes.io/aws-ebs"),
        (spec.azure_disk.is_some(), "kubernetes.io/azure-disk"),
        (spec.azure_file.is_some(), "kubernetes.io/azure-file"),
        (spec.cinder.is_some(), "kubernetes.io/cinder"),
        (spec.gce_persistent_disk.is_some(), "kubernetes.io/gce-pd"),
        (spec.portworx_volume.is_some(), "kubernetes.io/portworx-volume"),
        (spec.vsphere_volume.is_some(), "kubernetes.io/vsphere-volume"),
    ];
    plugins.into_iter().find(|(has, _)| *has).map(|(_, plugin)| plugin)
}

/// Whether the name is one that only plugins of Kubernetes itself may have.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with("kubernetes.io/")
}

/// Who empties or removes a volume that no claim holds any more.
#[derive(Debug, PartialEq, Eq)]
pub enum Deleter {
    /// Somebody else: a provisioner outside.
    External,
    /// The directory of this machine is removed.
    HostPath(String),
    /// Nobody; why.
    Missing(String),
}

/// Finds who deletes a volume that was released. As upstream's findDeletablePlugin.
pub fn deleter(volume: &PersistentVolume) -> Deleter {
    use super::claims::{MIGRATED_TO, PROVISIONED_BY};
    use crate::common::meta;
    let spec = volume.spec.as_ref();
    let path = spec.and_then(|spec| spec.host_path.as_ref()).map(|source| source.path.clone());
    match meta::annotation(&volume.metadata, PROVISIONED_BY).filter(|name| !name.is_empty()) {
        Some(HOST_PATH) => return Deleter::HostPath(path.unwrap_or_default()),
        Some("kubernetes.io/nfs" | "kubernetes.io/fc" | "kubernetes.io/iscsi" | "kubernetes.io/csi") => {
            return Deleter::Missing("no deletable volume plugin matched".to_owned());
        }
        Some(name) if is_reserved(name) => {
            return Deleter::Missing(format!("no volume plugin matched name: {name}"));
        }
        Some(_) => return Deleter::External,
        None => {}
    }
    let is_csi = spec.is_some_and(|spec| spec.csi.is_some());
    if is_csi || meta::annotation(&volume.metadata, MIGRATED_TO).is_some() {
        return Deleter::External;
    }
    if let Some(path) = path {
        return Deleter::HostPath(path);
    }
    let known = spec.is_some_and(|spec| spec.nfs.is_some() || spec.fc.is_some() || spec.iscsi.is_some());
    let why = if known { "no deletable volume plugin matched" } else { "no volume plugin matched" };
    let name = meta::name(&volume.metadata);
    Deleter::Missing(format!("error getting deleter volume plugin for volume \"{name}\": {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn deleters() {
        let missing = |text: &str| Deleter::Missing(text.to_owned());
        for (annotations, source, expected) in [
            (json!({}), json!({ "hostPath": { "path": "/tmp/a" } }), Deleter::HostPath("/tmp/a".into())),
            (
                json!({ "pv.kubernetes.io/provisioned-by": HOST_PATH }),
                json!({ "hostPath": { "path": "/tmp/a" } }),
                Deleter::HostPath("/tmp/a".into()),
            ),
            (json!({ "pv.kubernetes.io/provisioned-by": "example.com/x" }), json!({}), Deleter::External),
            (
                json!({ "pv.kubernetes.io/provisioned-by": "kubernetes.io/gone" }),
                json!({}),
                missing("no volume plugin matched name: kubernetes.io/gone"),
            ),
            (json!({}), json!({ "csi": { "driver": "d", "volumeHandle": "h" } }), Deleter::External),
            (
                json!({}),
                json!({ "nfs": { "server": "s", "path": "/" } }),
                missing(
                    "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched",
                ),
            ),
            (
                json!({}),
                json!({ "local": { "path": "/mnt" } }),
                missing("error getting deleter volume plugin for volume \"v\": no volume plugin matched"),
            ),
        ] {
            let volume: Value =
                json!({ "metadata": { "name": "v", "annotations": annotations }, "spec": source });
            assert_eq!(deleter(&serde_json::from_value(volume).unwrap()), expected);
        }
    }
}
