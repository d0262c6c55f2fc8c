//! Volumes of pods.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource,
    EphemeralVolumeSource, KeyToPath, ObjectFieldSelector, ProjectedVolumeSource, ResourceFieldSelector,
    SecretVolumeSource, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::field::{Error, ErrorList, Path, Report, quote};
use crate::format;

use super::claim::{claim_template, is_volume_name};
use super::golang;
use super::meta::label_selector;
use super::pod::Fault;
use super::rules::{amount, check, dns_label, list, text, to_value};
use super::source;
use super::workload::show_selector;

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// The volumes that containers may use, by name.
pub(crate) type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// All volumes; those without fault are returned by name.
pub(crate) fn volumes<'a>(
    volumes: &'a [Volume],
    pod: Option<&ObjectMeta>,
    faults: &[Fault],
    path: &Path,
) -> (Volumes<'a>, ErrorList) {
    let mut errors = ErrorList::new();
    let mut good = Volumes::new();
    let pod_name = pod.map(|m| text(&m.name)).unwrap_or_default();
    let made: BTreeSet<String> = volumes
        .iter()
        .filter(|v| v.ephemeral.is_some() && !pod_name.is_empty())
        .map(|v| format!("{pod_name}-{}", v.name))
        .collect();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let mut found = volume_source(volume, pod, faults, &path);
        if volume.name.is_empty() {
            found.required(&path.child("name"), "");
        } else {
            found.extend(dns_label(&volume.name, &path.child("name")));
        }
        if good.contains_key(volume.name.as_str()) {
            found.duplicate(&path.child("name"), volume.name.as_str());
        }
        if found.is_empty() {
            good.insert(&volume.name, volume);
        }
        errors.extend(found);
        if let Some(claim) = volume.persistent_volume_claim.as_ref().filter(|c| made.contains(&c.claim_name))
        {
            let detail = "must not reference a PVC that gets created for an ephemeral volume";
            let path = path.child("persistentVolumeClaim").child("claimName");
            errors.invalid(&path, claim.claim_name.as_str(), detail);
        }
    }
    (good, errors)
}

/// Collects the sources of one volume: the second and later ones are too many.
pub(crate) struct Sources<'p> {
    path: &'p Path,
    count: usize,
    pub(crate) errors: ErrorList,
}

impl<'p> Sources<'p> {
    pub(crate) fn new(path: &'p Path) -> Self {
        Self { path, count: 0, errors: ErrorList::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// A source that may stand beside others.
    pub(crate) fn any(&mut self, check: impl FnOnce(&Path) -> ErrorList, at: &str) {
        self.count += 1;
        self.errors.extend(check(&self.path.child(at)));
    }

    /// A source by the name it is refused under, checked at `at` (upstream's two are not always the same).
    pub(crate) fn take<T>(
        &mut self,
        source: Option<&T>,
        refused: &str,
        at: &str,
        check: impl FnOnce(&T, &Path) -> ErrorList,
    ) {
        let Some(source) = source else { return };
        if self.count > 0 {
            self.errors.forbidden(&self.path.child(refused), "may not specify more than 1 volume type");
        } else {
            self.count += 1;
            self.errors.extend(check(source, &self.path.child(at)));
        }
    }
}

fn volume_source(volume: &Volume, pod: Option<&ObjectMeta>, faults: &[Fault], path: &Path) -> ErrorList {
    let pod_name = pod.map(|m| text(&m.name)).unwrap_or_default();
    let mut all = Sources::new(path);
    all.take(volume.empty_dir.as_ref(), "emptyDir", "emptyDir", |source, path| {
        let mut errors = ErrorList::new();
        if source.size_limit.as_ref().is_some_and(|l| amount(l).sign() < 0) {
            errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
        }
        errors
    });
    all.take(volume.host_path.as_ref(), "hostPath", "hostPath", source::host_path);
    all.take(volume.git_repo.as_ref(), "gitRepo", "gitRepo", source::git_repo);
    let disk = volume.gce_persistent_disk.as_ref();
    all.take(disk, "gcePersistentDisk", "persistentDisk", source::gce_disk);
    let store = volume.aws_elastic_block_store.as_ref();
    all.take(store, "awsElasticBlockStore", "awsElasticBlockStore", source::aws_store);
    all.take(volume.secret.as_ref(), "secret", "secret", secret);
    all.take(volume.nfs.as_ref(), "nfs", "nfs", source::nfs);
    all.take(volume.iscsi.as_ref(), "iscsi", "iscsi", source::iscsi);
    if let Some(iscsi) = volume.iscsi.as_ref().filter(|i| i.initiator_name.is_some())
        && format!("{}:{}", volume.name, iscsi.target_portal).len() > 64
    {
        all.errors.invalid(&path.child("name"), volume.name.as_str(), source::ISCSI_TOO_LONG);
    }
    all.take(volume.glusterfs.as_ref(), "glusterfs", "glusterfs", |g, path| {
        source::glusterfs(&g.endpoints, &g.path, path)
    });
    all.take(volume.flocker.as_ref(), "flocker", "flocker", source::flocker);
    let claim = volume.persistent_volume_claim.as_ref();
    all.take(claim, "persistentVolumeClaim", "persistentVolumeClaim", |claim, path| {
        source::required(path, &[("claimName", &claim.claim_name)])
    });
    all.take(volume.rbd.as_ref(), "rbd", "rbd", |rbd, path| source::rbd(&rbd.monitors, &rbd.image, path));
    all.take(volume.cinder.as_ref(), "cinder", "cinder", source::cinder);
    all.take(volume.cephfs.as_ref(), "cephFS", "cephfs", |c, path| source::ceph(&c.monitors, path));
    all.take(volume.quobyte.as_ref(), "quobyte", "quobyte", source::quobyte);
    all.take(volume.downward_api.as_ref(), "downwarAPI", "downwardAPI", downward_api);
    all.take(volume.fc.as_ref(), "fc", "fc", source::fc);
    all.take(volume.flex_volume.as_ref(), "flexVolume", "flexVolume", |f, path| {
        source::flex(&f.driver, f.options.as_ref(), path)
    });
    all.take(volume.config_map.as_ref(), "configMap", "configMap", config_map);
    all.take(volume.azure_file.as_ref(), "azureFile", "azureFile", |file, path| {
        source::required(path, &[("secretName", &file.secret_name), ("shareName", &file.share_name)])
    });
    all.take(volume.vsphere_volume.as_ref(), "vsphereVolume", "vsphereVolume", |v, path| {
        source::required(path, &[("volumePath", &v.volume_path)])
    });
    let photon = volume.photon_persistent_disk.as_ref();
    all.take(photon, "photonPersistentDisk", "photonPersistentDisk", |p, path| {
        source::required(path, &[("pdID", &p.pd_id)])
    });
    all.take(volume.portworx_volume.as_ref(), "portworxVolume", "portworxVolume", |p, path| {
        source::required(path, &[("volumeID", &p.volume_id)])
    });
    all.take(volume.azure_disk.as_ref(), "azureDisk", "azureDisk", source::azure_disk);
    all.take(volume.storageos.as_ref(), "storageos", "storageos", source::storage_os);
    all.take(volume.projected.as_ref(), "projected", "projected", |p, path| {
        projected(p, faults.contains(&Fault::TokenPaths), path)
    });
    all.take(volume.scale_io.as_ref(), "scaleIO", "scaleIO", |s, path| {
        let name = s.volume_name.clone().unwrap_or_default();
        source::required(path, &[("gateway", &s.gateway), ("system", &s.system), ("volumeName", &name)])
    });
    all.take(volume.csi.as_ref(), "csi", "csi", source::csi);
    let before = all.count();
    all.take(volume.ephemeral.as_ref(), "ephemeral", "ephemeral", ephemeral);
    if volume.ephemeral.is_some() && before == 0 && !pod_name.is_empty() && !volume.name.is_empty() {
        let name = format!("{pod_name}-{}", volume.name);
        for message in is_volume_name(&name, false) {
            let detail = format!("PVC name {}: {message}", quote(&name));
            all.errors.invalid(&path.child("name"), volume.name.as_str(), detail);
        }
    }
    all.take(volume.image.as_ref(), "image", "image", |image, path| {
        let mut errors = ErrorList::new();
        if pod.is_some() && text(&image.reference).is_empty() {
            errors.required(&path.child("reference"), "");
        }
        errors.extend(super::container::pull_policy(text(&image.pull_policy), &path.child("pullPolicy")));
        errors
    });
    if all.count() == 0 {
        all.errors.required(path, "must specify a volume type");
    }
    all.errors
}

fn ephemeral(source: &EphemeralVolumeSource, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match &source.volume_claim_template {
        None => errors.required(&path.child("volumeClaimTemplate"), ""),
        Some(template) => errors.extend(claim_template(template, &path.child("volumeClaimTemplate"))),
    }
    errors
}

fn mode(value: Option<i32>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(value) = value.filter(|v| !(0..=0o777).contains(v)) {
        errors.invalid(path, value, MODE);
    }
    errors
}

fn secret(source: &SecretVolumeSource, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(&source.secret_name).is_empty() {
        errors.required(&path.child("secretName"), "");
    }
    errors.extend(mode(source.default_mode, &path.child("defaultMode")));
    errors.extend(items(list(&source.items), path));
    errors
}

fn config_map(source: &ConfigMapVolumeSource, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if source.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    errors.extend(mode(source.default_mode, &path.child("defaultMode")));
    errors.extend(items(list(&source.items), path));
    errors
}

fn items(items: &[KeyToPath], path: &Path) -> ErrorList {
    items.iter().enumerate().flat_map(|(i, item)| key_to_path(item, &path.child("items").index(i))).collect()
}

fn key_to_path(item: &KeyToPath, path: &Path) -> ErrorList {
    let mut errors = source::required(path, &[("key", &item.key), ("path", &item.path)]);
    errors.extend(local_path(&item.path, &path.child("path")));
    errors.extend(mode(item.mode, &path.child("mode")));
    errors
}

/// A relative path that stays below its start.
pub(crate) fn descending_path(value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if value.starts_with('/') {
        errors.invalid(path, value, "must be a relative path");
    }
    errors.extend(no_backsteps(value, path));
    errors
}

pub(crate) fn no_backsteps(value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if value.split('/').any(|part| part == "..") {
        errors.invalid(path, value, "must not contain '..'");
    }
    errors
}

/// As [`descending_path`], and not beginning with two dots, which the kubelet keeps for itself.
pub(crate) fn local_path(value: &str, path: &Path) -> ErrorList {
    let mut errors = descending_path(value, path);
    if value.starts_with("..") && !value.starts_with("../") {
        errors.invalid(path, value, "must not start with '..'");
    }
    errors
}

fn downward_api(source: &DownwardAPIVolumeSource, path: &Path) -> ErrorList {
    let mut errors = mode(source.default_mode, &path.child("defaultMode"));
    for file in list(&source.items) {
        errors.extend(downward_file(file, path));
    }
    errors
}

const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path) -> ErrorList {
    let mut errors = source::required(path, &[("path", &file.path)]);
    errors.extend(local_path(&file.path, &path.child("path")));
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            errors.extend(field_selector(field, &FILE_FIELDS, &path.child("fieldRef")));
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path, "resource", detail);
            }
        }
        (None, Some(resource)) => {
            errors.extend(resource_selector(resource, &path.child("resourceFieldRef"), true));
        }
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    errors.extend(mode(file.mode, &path.child("mode")));
    errors
}

/// A field of the pod that may be passed on to its containers.
pub(crate) fn field_selector(field: &ObjectFieldSelector, known: &[&str], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(&field.api_version).is_empty() {
        errors.required(&path.child("apiVersion"), "");
        return errors;
    }
    if field.field_path.is_empty() {
        errors.required(&path.child("fieldPath"), "");
        return errors;
    }
    let at = path.child("fieldPath");
    let label = match downward_label(text(&field.api_version), &field.field_path) {
        Ok(label) => label,
        Err(why) => {
            errors.invalid(&at, field.field_path.as_str(), format!("error converting fieldPath: {why}"));
            return errors;
        }
    };
    let subscript = label.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            errors.messages(path, &key, format::label_key(&key));
        }
        Some(("metadata.labels", key)) => errors.messages(path, key, format::label_key(key)),
        Some((other, _)) => errors.invalid(path, other, "does not support subscript"),
        None if !known.contains(&label.as_str()) => errors.not_supported(&at, label.as_str(), known),
        None => {}
    }
    errors
}

/// As upstream's ConvertDownwardAPIFieldLabel.
fn downward_label(version: &str, label: &str) -> Result<String, String> {
    if version != "v1" {
        return Err(format!("unsupported pod version: {version}"));
    }
    if let Some((path, _)) = label.strip_suffix("']").and_then(|rest| rest.split_once("['")) {
        return match path {
            "metadata.annotations" | "metadata.labels" => Ok(label.to_owned()),
            _ => Err(format!("field label does not support subscript: {label}")),
        };
    }
    let known = [
        "metadata.annotations",
        "metadata.labels",
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "spec.schedulerName",
        "status.phase",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    match label {
        "spec.host" => Ok("spec.nodeName".to_owned()),
        _ if known.contains(&label) => Ok(label.to_owned()),
        _ => Err(format!("field label not supported: {label}")),
    }
}

const RESOURCE_FIELDS: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// A resource of a container that may be passed on to containers.
pub(crate) fn resource_selector(field: &ResourceFieldSelector, path: &Path, volume: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let name = field.resource.as_str();
    let huge = name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-");
    if volume && text(&field.container_name).is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if name.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCE_FIELDS.contains(&name) && !huge {
        errors.not_supported(&path.child("resource"), name, &RESOURCE_FIELDS);
    }
    let divisor = field.divisor.as_ref().map(amount).unwrap_or_default();
    if divisor.is_zero() {
        return errors;
    }
    let sizes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let (allowed, what): (&[&str], &str) = match name.split_once('.').map(|(_, resource)| resource) {
        Some("cpu") => (&["1m", "1"], "cpu"),
        Some("memory") => (&sizes, "memory"),
        Some("ephemeral-storage") => (&sizes, "local ephemeral storage"),
        _ if huge => (&sizes, "hugepages"),
        _ => return errors,
    };
    if !allowed.contains(&divisor.to_string().as_str()) {
        let values = if what == "cpu" { "1m and 1".to_owned() } else { sizes.join(", ") };
        let detail = format!("only divisor's values {values} are supported with the {what} resource");
        errors.invalid(&path.child("divisor"), name, detail);
    }
    errors
}

fn projected(source: &ProjectedVolumeSource, any_token_path: bool, path: &Path) -> ErrorList {
    let mut errors = mode(source.default_mode, &path.child("defaultMode"));
    let mut paths = BTreeSet::<String>::new();
    for (i, projection) in list(&source.sources).iter().enumerate() {
        let at = path.child("sources").index(i);
        let mut count = 0;
        let mut claim_path = |errors: &mut ErrorList, own: &str, shown: &str| {
            if !own.is_empty() && !paths.insert(own.to_owned()) {
                errors.invalid(path, shown, "conflicting duplicate paths");
            }
        };
        if let Some(secret) = &projection.secret {
            count += 1;
            keyed(&secret.name, list(&secret.items), &at.child("secret"), &mut errors, &mut claim_path);
        }
        if let Some(map) = &projection.config_map {
            count += 1;
            keyed(&map.name, list(&map.items), &at.child("configMap"), &mut errors, &mut claim_path);
        }
        if let Some(downward) = &projection.downward_api {
            count += 1;
            for file in list(&downward.items) {
                errors.extend(downward_file(file, &at.child("downwardAPI")));
                claim_path(&mut errors, &file.path, &file.path);
            }
        }
        if let Some(token) = &projection.service_account_token {
            count += 1;
            let seconds = token.expiration_seconds.unwrap_or(3600);
            let seconds_path = at.child("serviceAccountToken").child("expirationSeconds");
            if seconds < 600 {
                errors.invalid(&seconds_path, seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds > 1 << 32 {
                errors.invalid(&seconds_path, seconds, "may not specify a duration larger than 2^32 seconds");
            }
            if token.path.is_empty() {
                errors.required(&path.child("path"), "");
            } else if !any_token_path {
                errors.extend(local_path(&token.path, &path.child("path")));
            }
        }
        if let Some(bundle) = &projection.cluster_trust_bundle {
            count += 1;
            let at = at.child("clusterTrustBundle");
            trust_bundle(bundle, &at, &mut errors);
            if bundle.path.is_empty() {
                errors.required(&at.child("path"), "");
            }
            errors.extend(local_path(&bundle.path, &at.child("path")));
            claim_path(&mut errors, &bundle.path, &bundle.path);
        }
        if let Some(certificate) = &projection.pod_certificate {
            count += 1;
            pod_certificate(certificate, &at.child("podCertificate"), &mut errors, &mut claim_path);
        }
        if count > 1 {
            errors.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
    errors
}

fn keyed(
    name: &str,
    items: &[KeyToPath],
    path: &Path,
    errors: &mut ErrorList,
    claim_path: &mut dyn FnMut(&mut ErrorList, &str, &str),
) {
    errors.extend(source::required(path, &[("name", name)]));
    for (i, item) in items.iter().enumerate() {
        errors.extend(key_to_path(item, &path.child("items").index(i)));
        claim_path(errors, &item.path, name);
    }
}

fn trust_bundle(bundle: &ClusterTrustBundleProjection, path: &Path, errors: &mut ErrorList) {
    let at = path.child("labelSelector");
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            let shown = golang::show("core.ClusterTrustBundleProjection", &to_value(bundle));
            let detail = "only one of name and signerName may be used";
            errors.push(Error::invalid_shown(path, shown, detail));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.required(&path.child("name"), "must be a valid object name");
            }
            for message in bundle_name(name) {
                let detail = format!("not a valid clustertrustbundlename: {message}");
                errors.invalid(&path.child("name"), name.as_str(), detail);
            }
            if let Some(selector) = &bundle.label_selector {
                let shown = show_selector(Some(selector));
                let detail = "labelSelector must be unset if name is specified";
                errors.push(Error::invalid_shown(&at, shown, detail));
            }
        }
        (None, Some(signer)) => {
            let at_signer = path.child("signerName");
            if signer.is_empty() {
                errors.required(&at_signer, "must be a valid signer name");
            }
            errors.extend(super::certificates::signer_name(signer, &at_signer));
            errors.extend(label_selector(bundle.label_selector.as_ref(), false, &at));
        }
        (None, None) => errors.required(path, "either name or signerName must be specified"),
    }
}

/// Bundles of a signer are named after it: `example.com:signer:name`.
fn bundle_name(name: &str) -> Vec<String> {
    format::dns1123_subdomain(name.rsplit_once(':').map_or(name, |(_, own)| own))
}

fn pod_certificate(
    source: &k8s_openapi::api::core::v1::PodCertificateProjection,
    path: &Path,
    errors: &mut ErrorList,
    claim_path: &mut dyn FnMut(&mut ErrorList, &str, &str),
) {
    errors.extend(super::certificates::signer_name(&source.signer_name, &path.child("signerName")));
    if let Some(annotations) = &source.user_annotations {
        user_annotations(annotations, &path.child("userAnnotations"), errors);
    }
    let kinds = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
    errors.one_of(&path.child("keyType"), &source.key_type, &kinds);
    if let Some(seconds) = source.max_expiration_seconds {
        let at = path.child("maxExpirationSeconds");
        let signer = source.signer_name.split('/').next().unwrap_or_default();
        let own = signer == "kubernetes.io" || signer.ends_with(".kubernetes.io");
        let max = if own { 86400 } else { 7_862_400 };
        if seconds < 3600 {
            errors.invalid(&at, seconds, "if provided, maxExpirationSeconds must be >= 3600");
        }
        if seconds > max {
            errors.invalid(&at, seconds, format!("if provided, maxExpirationSeconds must be <= {max}"));
        }
    }
    let files = [
        ("credentialBundlePath", text(&source.credential_bundle_path)),
        ("keyPath", text(&source.key_path)),
        ("certificateChainPath", text(&source.certificate_chain_path)),
    ];
    for (key, file) in files.iter().filter(|(_, file)| !file.is_empty()) {
        errors.extend(local_path(file, &path.child(key)));
        claim_path(errors, file, file);
    }
    if files.iter().all(|(_, file)| file.is_empty()) {
        let detail = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.required(path, detail);
    }
}

/// What the signer of a certificate is told.
fn user_annotations(annotations: &BTreeMap<String, String>, path: &Path, errors: &mut ErrorList) {
    for key in annotations.keys().map(|key| key.to_lowercase()) {
        let messages = format::label_key(&key);
        if key.is_empty() {
            errors.required(path, "");
        } else if !messages.is_empty() {
            errors.messages(path, &key, messages);
        } else if !key.contains('/') {
            let detail = "must be a domain-prefixed key (such as \"acme.io/foo\")";
            errors.invalid(path, key, detail);
        }
    }
    let size: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > 256 << 10 {
        errors.too_long(path, 256 << 10);
    }
}

/// Names of objects that pods refer to.
pub(crate) fn object_name(name: &str, path: &Path) -> ErrorList {
    check(path, name, format::dns1123_subdomain(name))
}
