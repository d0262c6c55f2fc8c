//! Which volumes pods use, and with which SELinux labels. Pure.

use super::super::attach;
use super::super::in_tree;
use crate::common::meta;
use k8s_openapi::api::core::v1::{
    Container, PersistentVolume, Pod, SELinuxOptions, SecurityContext, Volume, VolumeMount,
};
use std::collections::{BTreeMap, BTreeSet};

/// The label is put on the files one by one.
const RECURSIVE: &str = "Recursive";
/// The label is an option of the mount.
const MOUNT_OPTION: &str = "MountOption";

/// A volume that several pods may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Tells it from all others.
    pub name: String,
    /// The driver that has it; empty for none.
    pub driver: String,
    /// Whether it can be mounted with a label.
    pub mounts_labelled: bool,
}

/// How a pod uses a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The label that the volume is mounted with: user, role, type and level; empty for none.
    pub label: String,
    /// How the label is put on the volume.
    pub policy: String,
}

/// Containers of one pod want different labels on one volume.
#[derive(Debug, PartialEq, Eq)]
pub struct SeveralLabels;

/// What a volume is; `mounts` says whether a CSI driver mounts with labels.
pub fn source(volume: &PersistentVolume, mounts: impl Fn(&str) -> bool) -> Option<Source> {
    if let Some((driver, _)) = attach::csi(volume) {
        let name = attach::unique_name(volume)?;
        return Some(Source { name, driver: driver.to_owned(), mounts_labelled: mounts(driver) });
    }
    if let Some(driver) = in_tree::plugin_of(volume).and_then(in_tree::driver_for) {
        // Where the plugin looks for its disk is not worth knowing here: two volumes with one disk are a mistake.
        let name = format!("kubernetes.io/csi/{driver}^{}", meta::name(&volume.metadata));
        return Some(Source { name, driver: driver.to_owned(), mounts_labelled: mounts(driver) });
    }
    let spec = volume.spec.as_ref()?;
    let iscsi = spec.iscsi.as_ref().map(|disk| iscsi(&disk.target_portal, &disk.iqn, disk.lun));
    let fc =
        || spec.fc.as_ref().map(|disk| fibre(disk.target_wwns.as_deref(), disk.lun, disk.wwids.as_deref()));
    iscsi.or_else(fc)
}

/// What a volume is that a pod names itself.
pub fn inline(volume: &Volume) -> Option<Source> {
    let iscsi = volume.iscsi.as_ref().map(|disk| iscsi(&disk.target_portal, &disk.iqn, disk.lun));
    let fc =
        || volume.fc.as_ref().map(|disk| fibre(disk.target_wwns.as_deref(), disk.lun, disk.wwids.as_deref()));
    iscsi.or_else(fc)
}

fn iscsi(portal: &str, iqn: &str, lun: i32) -> Source {
    let name = format!("kubernetes.io/iscsi/{portal}:{iqn}:{lun}");
    Source { name, driver: String::new(), mounts_labelled: true }
}

fn fibre(targets: Option<&[String]>, lun: Option<i32>, wwids: Option<&[String]>) -> Source {
    let list = |all: &[String]| format!("[{}]", all.join(" "));
    let name = match (targets, lun) {
        (Some(targets), Some(lun)) if !targets.is_empty() => format!("{}:{lun}", list(targets)),
        _ => list(wwids.unwrap_or_default()),
    };
    Source { name: format!("kubernetes.io/fc/{name}"), driver: String::new(), mounts_labelled: true }
}

/// The volumes that containers of a pod mount, each with the options of those that have some.
pub fn mounted(pod: &Pod) -> BTreeMap<String, Vec<SELinuxOptions>> {
    let mut mounted: BTreeMap<String, Vec<SELinuxOptions>> = BTreeMap::new();
    let Some(spec) = &pod.spec else { return mounted };
    let of_pod = spec.security_context.as_ref().and_then(|context| context.se_linux_options.as_ref());
    let mut add = |mounts: Option<&[VolumeMount]>, context: Option<&SecurityContext>| {
        let options = context.and_then(|context| context.se_linux_options.as_ref()).or(of_pod);
        for mount in mounts.unwrap_or_default() {
            mounted.entry(mount.name.clone()).or_default().extend(options.cloned());
        }
    };
    let inits = spec.init_containers.as_deref().unwrap_or_default();
    inits.iter().chain(&spec.containers).for_each(|container: &Container| {
        add(container.volume_mounts.as_deref(), container.security_context.as_ref());
    });
    for container in spec.ephemeral_containers.as_deref().unwrap_or_default() {
        add(container.volume_mounts.as_deref(), container.security_context.as_ref());
    }
    mounted
}

/// The options as a label. What they leave out the nodes would fill in, which nobody here knows about.
fn label(options: &SELinuxOptions) -> String {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let parts = [&options.user, &options.role, &options.type_, &options.level].map(part);
    if parts.iter().all(String::is_empty) { String::new() } else { parts.join(":") }
}

/// How a pod uses a volume that containers with these options mount.
///
/// # Errors
/// They want different labels.
pub fn usage(pod: &Pod, source: &Source, options: &[SELinuxOptions]) -> Result<Usage, SeveralLabels> {
    let labels: BTreeSet<_> = options.iter().map(label).collect();
    if labels.len() > 1 {
        return Err(SeveralLabels);
    }
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let policy =
        context.and_then(|context| context.se_linux_change_policy.as_deref()).unwrap_or(MOUNT_OPTION);
    let label = labels.into_iter().next().unwrap_or_default();
    if policy == RECURSIVE || !source.mounts_labelled || label.is_empty() {
        return Ok(Usage { label: String::new(), policy: RECURSIVE.to_owned() });
    }
    Ok(Usage { label, policy: policy.to_owned() })
}

/// Whether two labels cannot be those of one volume. Of user, role and type one that is left out may become that of the
/// other; the level never does.
pub fn labels_conflict(one: &str, other: &str) -> bool {
    let parts = |label: &str| -> [String; 4] {
        let mut parts = label.splitn(4, ':').map(str::to_owned);
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    };
    let (one, other) = (parts(one), parts(other));
    let differ = |at: usize| one[at] != other[at];
    differ(3) || (0..3).any(|at| differ(at) && !one[at].is_empty() && !other[at].is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(context: Value, containers: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": "p" }, "spec": { "securityContext": context, "containers": containers },
        }))
        .expect("a pod")
    }

    fn container(name: &str, level: Option<&str>) -> Value {
        let context = level.map(|level| json!({ "seLinuxOptions": { "level": level } }));
        json!({ "name": name, "securityContext": context,
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }] })
    }

    /// `label policy`, or `several`.
    fn used(pod: &Pod, mounts_labelled: bool) -> String {
        let source = Source { name: "v".into(), driver: String::new(), mounts_labelled };
        match usage(pod, &source, &mounted(pod)["data"]) {
            Ok(usage) => format!("{} {}", usage.label, usage.policy),
            Err(SeveralLabels) => "several".to_owned(),
        }
    }

    #[test]
    fn labels_are_those_of_the_containers_or_else_of_the_pod() {
        let plain = json!([container("a", None)]);
        let of_pod = json!({ "seLinuxOptions": { "level": "s0:c1", "type": "t" } });
        for (context, containers, mounts, expected) in [
            (json!({}), plain.clone(), true, " Recursive"),
            (of_pod.clone(), plain.clone(), true, "::t:s0:c1 MountOption"),
            (of_pod.clone(), plain.clone(), false, " Recursive"),
            (of_pod.clone(), json!([container("a", Some("s0:c2"))]), true, ":::s0:c2 MountOption"),
            (of_pod, json!([container("a", Some("s0:c2")), container("b", None)]), true, "several"),
            (json!({}), json!([container("a", Some("s0")), container("b", None)]), true, ":::s0 MountOption"),
            (json!({ "seLinuxOptions": {} }), plain.clone(), true, " Recursive"),
            (
                json!({ "seLinuxOptions": { "level": "s0" }, "seLinuxChangePolicy": "Recursive" }),
                plain,
                true,
                " Recursive",
            ),
        ] {
            assert_eq!(used(&pod(context.clone(), containers), mounts), expected, "{context}");
        }
    }

    #[test]
    fn volumes_are_told_apart() {
        let volume = |spec: Value| -> PersistentVolume {
            serde_json::from_value(json!({ "metadata": { "name": "pv" }, "spec": spec })).expect("a volume")
        };
        let iscsi = json!({ "iscsi": { "targetPortal": "1.2.3.4:1", "iqn": "iqn.a", "lun": 0 } });
        for (spec, expected) in [
            (json!({ "csi": { "driver": "d", "volumeHandle": "h" } }), Some("kubernetes.io/csi/d^h true")),
            (json!({ "csi": { "driver": "e", "volumeHandle": "h" } }), Some("kubernetes.io/csi/e^h false")),
            (
                json!({ "gcePersistentDisk": { "pdName": "x" } }),
                Some("kubernetes.io/csi/pd.csi.storage.gke.io^pv false"),
            ),
            (iscsi, Some("kubernetes.io/iscsi/1.2.3.4:1:iqn.a:0 true")),
            (json!({ "fc": { "targetWWNs": ["a", "b"], "lun": 2 } }), Some("kubernetes.io/fc/[a b]:2 true")),
            (json!({ "fc": { "wwids": ["w"] } }), Some("kubernetes.io/fc/[w] true")),
            (json!({ "nfs": { "server": "s", "path": "/" } }), None),
        ] {
            let found = source(&volume(spec.clone()), |driver| driver == "d");
            let found = found.map(|source| format!("{} {}", source.name, source.mounts_labelled));
            assert_eq!(found.as_deref(), expected, "{spec}");
        }
    }

    /// From upstream's TestSELinuxLabelTranslator_Conflicts.
    #[test]
    fn labels_conflict_where_no_node_could_make_them_the_same() {
        for (one, other, expected) in [
            ("", "", false),
            ("", ":::", false),
            ("u:r:t:s0:c1,c2", "u:r:t:s0:c1,c2", false),
            ("u:r:t:s0:c1,c2", ":::s0:c1,c2", false),
            ("u:r:t:s0:c1,c2", "::t:s0:c1,c2", false),
            ("u:r:t:s0:c1,c2", "u::x:s0:c1,c2", true),
            ("u:r:t:s0:c1,c2", ":::s0:c98,c99", true),
            ("u:r:t:s0:c1,c2", "", true),
            (":::s0:c1,c2", "", true),
            ("u:r:t:", "", false),
            ("u:r:t:", "v:r:t:", true),
        ] {
            assert_eq!(labels_conflict(one, other), expected, "{one} {other}");
            assert_eq!(labels_conflict(other, one), expected, "{other} {one}");
        }
    }
}
