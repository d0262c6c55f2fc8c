//! The kinds of storage behind a volume, of pods and of persistent volumes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{
    AWSElasticBlockStoreVolumeSource, AzureDiskVolumeSource, CSIVolumeSource, CinderVolumeSource,
    FCVolumeSource, FlockerVolumeSource, GCEPersistentDiskVolumeSource, GitRepoVolumeSource,
    HostPathVolumeSource, ISCSIVolumeSource, NFSVolumeSource, QuobyteVolumeSource, StorageOSVolumeSource,
};
use regex::Regex;

use crate::field::{ErrorList, Path, Report};
use crate::format;

use super::rules::{dns_label, list, text};
use super::volume::{descending_path, no_backsteps};

pub(crate) const ISCSI_TOO_LONG: &str = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";

/// Fields that must not be empty.
pub(crate) fn required(path: &Path, fields: &[(&str, &str)]) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in fields.iter().copied() {
        if value.is_empty() {
            errors.required(&path.child(key), "");
        }
    }
    errors
}

pub(crate) fn host_path(source: &HostPathVolumeSource, path: &Path) -> ErrorList {
    if source.path.is_empty() {
        return required(path, &[("path", "")]);
    }
    let mut errors = no_backsteps(&source.path, &path.child("path"));
    if let Some(kind) = &source.type_ {
        let known = [
            "",
            "BlockDevice",
            "CharDevice",
            "Directory",
            "DirectoryOrCreate",
            "File",
            "FileOrCreate",
            "Socket",
        ];
        errors.one_of(&path.child("type"), kind, &known);
    }
    errors
}

pub(crate) fn git_repo(source: &GitRepoVolumeSource, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("repository", &source.repository)]);
    errors.extend(descending_path(text(&source.directory), &path.child("directory")));
    errors
}

fn partition(value: Option<i32>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(value) = value.filter(|v| !(0..=255).contains(v)) {
        errors.invalid(&path.child("partition"), value, format::range(1, 255));
    }
    errors
}

pub(crate) fn gce_disk(source: &GCEPersistentDiskVolumeSource, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("pdName", &source.pd_name)]);
    errors.extend(partition(source.partition, path));
    errors
}

pub(crate) fn aws_store(source: &AWSElasticBlockStoreVolumeSource, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("volumeID", &source.volume_id)]);
    errors.extend(partition(source.partition, path));
    errors
}

pub(crate) fn nfs(source: &NFSVolumeSource, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("server", &source.server), ("path", &source.path)]);
    if !source.path.starts_with('/') {
        errors.invalid(&path.child("path"), source.path.as_str(), "must be an absolute path");
    }
    errors
}

/// What the two kinds of iSCSI volumes have in common.
pub(crate) struct Iscsi<'a> {
    pub(crate) portal: &'a str,
    pub(crate) iqn: &'a str,
    pub(crate) lun: i32,
    pub(crate) chap: bool,
    pub(crate) secret: bool,
    pub(crate) initiator: Option<&'a str>,
    /// The message for names of no known format, which the two kinds word differently.
    pub(crate) unknown: &'a str,
}

pub(crate) fn iscsi(source: &ISCSIVolumeSource, path: &Path) -> ErrorList {
    iscsi_common(
        &Iscsi {
            portal: &source.target_portal,
            iqn: &source.iqn,
            lun: source.lun,
            chap: source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true),
            secret: source.secret_ref.is_some(),
            initiator: source.initiator_name.as_deref(),
            unknown: "must be valid format starting with iqn, eui, or naa",
        },
        path,
    )
}

pub(crate) fn iscsi_common(source: &Iscsi<'_>, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("targetPortal", source.portal), ("iqn", source.iqn)]);
    if !source.iqn.is_empty() {
        iscsi_name(source.iqn, source.unknown, &path.child("iqn"), &mut errors);
    }
    if !(0..=255).contains(&source.lun) {
        errors.invalid(&path.child("lun"), source.lun, format::range(0, 255));
    }
    if source.chap && !source.secret {
        errors.required(&path.child("secretRef"), "");
    }
    if let Some(initiator) = source.initiator {
        iscsi_name(initiator, source.unknown, &path.child("initiatorname"), &mut errors);
    }
    errors
}

static IQN: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$").ok());

fn iscsi_name(name: &str, unknown: &str, path: &Path, errors: &mut ErrorList) {
    let coded = |rest: &str, length: usize| {
        let mut chars = rest.chars();
        chars.next().is_some()
            && rest.chars().count() == length + 1
            && chars.all(|c| c.is_ascii_alphanumeric())
    };
    let good = match name.get(..3) {
        Some("iqn") => IQN.as_ref().is_some_and(|regex| regex.is_match(name)),
        Some("eui") => coded(&name[3..], 16),
        Some("naa") => coded(&name[3..], 32),
        _ => return errors.invalid(path, name, unknown),
    };
    if !good {
        errors.invalid(path, name, "must be valid format");
    }
}

pub(crate) fn glusterfs(endpoints: &str, volume: &str, path: &Path) -> ErrorList {
    required(path, &[("endpoints", endpoints), ("path", volume)])
}

pub(crate) fn flocker(source: &FlockerVolumeSource, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (name, uuid) = (text(&source.dataset_name), text(&source.dataset_uuid));
    if name.is_empty() && uuid.is_empty() {
        errors.required(path, "one of datasetName and datasetUUID is required");
    }
    if !name.is_empty() && !uuid.is_empty() {
        errors.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
    }
    if name.contains('/') {
        errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
    }
    errors
}

pub(crate) fn rbd(monitors: &[String], image: &str, path: &Path) -> ErrorList {
    let mut errors = ceph(monitors, path);
    errors.extend(required(path, &[("image", image)]));
    errors
}

pub(crate) fn ceph(monitors: &[String], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if monitors.is_empty() {
        errors.required(&path.child("monitors"), "");
    }
    errors
}

pub(crate) fn cinder(source: &CinderVolumeSource, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("volumeID", &source.volume_id)]);
    if let Some(secret) = &source.secret_ref {
        errors.extend(required(&path.child("secretRef"), &[("name", &secret.name)]));
    }
    errors
}

pub(crate) fn quobyte(source: &QuobyteVolumeSource, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let detail = "must be a host:port pair or multiple pairs separated by commas";
    if source.registry.is_empty() {
        errors.required(&path.child("registry"), detail);
    } else if text(&source.tenant).len() >= 65 {
        errors.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for pair in source.registry.split(',') {
            let good = pair.rsplit_once(':').is_some_and(|(host, _)| {
                !host.contains(':') || (host.starts_with('[') && host.ends_with(']'))
            });
            if !good {
                errors.invalid(&path.child("registry"), source.registry.as_str(), detail);
            }
        }
    }
    errors.extend(required(path, &[("volume", &source.volume)]));
    errors
}

pub(crate) fn fc(source: &FCVolumeSource, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (targets, ids) = (list(&source.target_wwns), list(&source.wwids));
    if targets.is_empty() && ids.is_empty() {
        errors.required(&path.child("targetWWNs"), "must specify either targetWWNs or wwids, but not both");
    }
    if !targets.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.invalid(&path.child("targetWWNs"), targets.to_vec(), detail);
    }
    if !targets.is_empty() {
        match source.lun {
            None => errors.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) if !(0..=255).contains(&lun) => {
                errors.invalid(&path.child("lun"), lun, format::range(0, 255));
            }
            Some(_) => {}
        }
    }
    errors
}

pub(crate) fn flex(driver: &str, options: Option<&BTreeMap<String, String>>, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("driver", driver)]);
    for key in options.into_iter().flatten().map(|(key, _)| key) {
        let domain = key.split_once('/').map_or(key.as_str(), |(domain, _)| domain);
        let normalized = format!(".{}", domain.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&path.child("options").key(key), key.as_str(), detail);
        }
    }
    errors
}

pub(crate) fn azure_disk(source: &AzureDiskVolumeSource, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("diskName", &source.disk_name), ("diskURI", &source.disk_uri)]);
    if let Some(mode) = &source.caching_mode {
        errors.one_of(&path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = source.kind.as_deref() else { return errors };
    errors.one_of(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let uri = source.disk_uri.as_str();
    let managed =
        "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
    let blob = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
    if kind == "Managed" && !uri.starts_with("/subscriptions/") {
        errors.not_supported(&path.child("diskURI"), uri, &[managed]);
    }
    if kind != "Managed" && !uri.starts_with("https://") {
        errors.not_supported(&path.child("diskURI"), uri, &[blob]);
    }
    errors
}

pub(crate) fn storage_os(source: &StorageOSVolumeSource, path: &Path) -> ErrorList {
    let mut errors = storage_os_names(text(&source.volume_name), text(&source.volume_namespace), path);
    if let Some(secret) = &source.secret_ref {
        errors.extend(required(&path.child("secretRef"), &[("name", &secret.name)]));
    }
    errors
}

pub(crate) fn storage_os_names(name: &str, namespace: &str, path: &Path) -> ErrorList {
    let mut errors = required(path, &[("volumeName", name)]);
    if !name.is_empty() {
        errors.extend(dns_label(name, &path.child("volumeName")));
    }
    if !namespace.is_empty() {
        errors.extend(dns_label(namespace, &path.child("volumeNamespace")));
    }
    errors
}

/// The name of a CSI driver.
pub(crate) fn csi_driver(name: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if name.is_empty() {
        errors.required(path, "");
        return errors;
    }
    if name.len() > 63 {
        errors.too_long(path, 63);
    }
    errors.messages(path, name, format::dns1123_subdomain(&name.to_lowercase()));
    errors
}

pub(crate) fn csi(source: &CSIVolumeSource, path: &Path) -> ErrorList {
    let mut errors = csi_driver(&source.driver, &path.child("driver"));
    if let Some(secret) = &source.node_publish_secret_ref {
        errors.extend(required(&path.child("nodePublishSecretRef"), &[("name", &secret.name)]));
        if !secret.name.is_empty() {
            errors.messages(&path.child("name"), &secret.name, format::dns1123_subdomain(&secret.name));
        }
    }
    errors
}
