//! What pods keep on the node's disk, and which keep more than they may (upstream's `localStorageEviction`).

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::iter::Sum;
use std::ops::Add;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Volume};
use proto::cri;

use crate::containers::labels;
use crate::layout::Layout;
use crate::{quantity, types};

const RESOURCE: &str = "ephemeral-storage";
/// What a block of a file counts, whatever the file system.
const BLOCK: u64 = 512;

/// Bytes and files on a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Bytes.
    pub bytes: u64,
    /// Files, directories and links.
    pub inodes: u64,
}

impl Add for Use {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            inodes: self.inodes.saturating_add(other.inodes),
        }
    }
}

impl Sum for Use {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// What one pod keeps on the node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// In volumes that go with it, by name.
    pub volumes: BTreeMap<String, Use>,
    /// In what containers have written into their own file systems, by container.
    pub layers: BTreeMap<String, Use>,
    /// In logs, by container.
    pub logs: BTreeMap<String, Use>,
    /// In its file of hosts.
    pub hosts: Use,
}

/// Writable layers by pod and container.
pub type Layers = BTreeMap<String, BTreeMap<String, Use>>;

impl Kept {
    /// Looks at a pod's directories. What goes away meanwhile counts nothing.
    #[must_use]
    pub fn measure(pod: &Pod, layout: &Layout, layers: &Layers) -> Self {
        let uid = types::uid(pod);
        let volumes = types::spec(pod).volumes.iter().flatten().filter_map(|volume| {
            let plugin = plugin_on_disk(volume)?;
            Some((volume.name.clone(), of_tree(&layout.pod_volume_dir(uid, plugin, &volume.name))))
        });
        let logs = layout.pod_log_dir(types::namespace(pod), types::name(pod), uid);
        let logs = fs::read_dir(logs).into_iter().flatten().flatten();
        Self {
            volumes: volumes.collect(),
            layers: layers.get(uid).cloned().unwrap_or_default(),
            logs: logs
                .filter_map(|entry| Some((entry.file_name().into_string().ok()?, of_tree(&entry.path()))))
                .collect(),
            hosts: of_tree(&layout.pod_etc_hosts(uid)),
        }
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> Use {
        let parts = [&self.volumes, &self.layers, &self.logs];
        self.hosts + parts.into_iter().flat_map(BTreeMap::values).copied().sum()
    }

    /// What of it is one container's; what it has written itself only if that lies on the node's own disk.
    fn of_container(&self, name: &str, images_apart: bool) -> u64 {
        let bytes = |of: &BTreeMap<String, Use>| of.get(name).map_or(0, |used| used.bytes);
        bytes(&self.logs).saturating_add(if images_apart { 0 } else { bytes(&self.layers) })
    }
}

/// The plugin of a volume that goes with its pod and lies on the node's disk.
fn plugin_on_disk(volume: &Volume) -> Option<&'static str> {
    let on_disk = |medium: &Option<String>| medium.as_deref().unwrap_or_default().is_empty();
    match &volume.empty_dir {
        Some(source) if on_disk(&source.medium) => Some("kubernetes.io~empty-dir"),
        Some(_) => None,
        None => volume.config_map.is_some().then_some("kubernetes.io~configmap"),
    }
}

/// What containers have written into their own file systems, as the runtime tells it.
#[must_use]
pub fn layers(stats: &[cri::ContainerStats]) -> Layers {
    let value = |value: &Option<cri::UInt64Value>| value.as_ref().map_or(0, |value| value.value);
    let mut found = Layers::new();
    for one in stats {
        let (Some(attributes), Some(layer)) = (&one.attributes, &one.writable_layer) else { continue };
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let used = Use { bytes: value(&layer.used_bytes), inodes: value(&layer.inodes_used) };
        let of_pod = found.entry(label(labels::POD_UID)).or_default();
        let sum = of_pod.entry(label(labels::CONTAINER_NAME)).or_default();
        *sum = *sum + used;
    }
    found
}

/// Whether anything limits what a pod may keep on disk.
#[must_use]
pub fn is_limited(pod: &Pod) -> bool {
    let sized = |volume: &Volume| volume.empty_dir.as_ref().is_some_and(|source| source.size_limit.is_some());
    types::spec(pod).volumes.iter().flatten().any(sized)
        || api::pod::effective_limits(pod).contains_key(RESOURCE)
}

/// What a pod keeps more of than it may, by the name metrics have for it and in upstream's words.
#[must_use]
pub fn excess(pod: &Pod, kept: &Kept, images_apart: bool) -> Option<(&'static str, String)> {
    let spec = types::spec(pod);
    let more_than = |bytes: u64, limit: i64| limit > 0 && i128::from(bytes) > i128::from(limit);
    for volume in spec.volumes.iter().flatten() {
        let Some(limit) = volume.empty_dir.as_ref().and_then(|source| source.size_limit.as_ref()) else {
            continue;
        };
        if kept.volumes.get(&volume.name).is_some_and(|used| more_than(used.bytes, quantity::value(limit))) {
            let (name, limit) = (&volume.name, &limit.0);
            let message = format!("Usage of EmptyDir volume {name:?} exceeds the limit {limit:?}. ");
            return Some(("emptydirfs.limit", message));
        }
    }
    if let Some(limit) = api::pod::effective_limits(pod).get(RESOURCE)
        && more_than(kept.total().bytes, limit.value())
    {
        let message =
            format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. ");
        return Some(("ephemeralpodfs.limit", message));
    }
    spec.containers.iter().find_map(|container| {
        let limit = container.resources.as_ref()?.limits.as_ref()?.get(RESOURCE)?;
        let (name, text) = (&container.name, &limit.0);
        more_than(kept.of_container(name, images_apart), quantity::value(limit)).then(|| {
            let message = format!("Container {name} exceeded its local ephemeral storage limit {text:?}. ");
            ("ephemeralcontainerfs.limit", message)
        })
    })
}

/// What lies below a path on the same disk. A file with several names counts once.
fn of_tree(root: &Path) -> Use {
    let Ok(top) = fs::symlink_metadata(root) else { return Use::default() };
    let (disk, mut seen) = (top.dev(), HashSet::new());
    let mut used = Use { bytes: top.blocks() * BLOCK, inodes: 1 };
    let mut left = if top.is_dir() { vec![root.to_owned()] } else { vec![] };
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            if found.dev() != disk || (found.nlink() > 1 && !found.is_dir() && !seen.insert(found.ino())) {
                continue;
            }
            used = used + Use { bytes: found.blocks() * BLOCK, inodes: 1 };
            if found.is_dir() {
                left.push(entry.path());
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    const MI: u64 = 1 << 20;

    fn pod(spec: &str) -> Pod {
        serde_saphyr::from_str(&format!("metadata: {{name: p, namespace: n, uid: u}}\nspec: {{{spec}}}"))
            .expect("valid")
    }

    fn some(bytes: u64) -> BTreeMap<String, Use> {
        BTreeMap::from([("a".to_owned(), Use { bytes, inodes: 1 })])
    }

    #[test]
    fn who_keeps_more_than_it_may_is_told() {
        let none = BTreeMap::new;
        let limited = |limit: &str| {
            format!("containers: [{{name: a, resources: {{limits: {{ephemeral-storage: {limit}}}}}}}]")
        };
        let volume = |limit: &str| {
            format!("containers: [{{name: a}}], volumes: [{{name: a, emptyDir: {{sizeLimit: {limit}}}}}]")
        };
        let kept = |volumes, layers, logs| Kept { volumes, layers, logs, hosts: Use::default() };
        let pod_limit = |limit: &str| {
            Some(format!("Pod ephemeral local storage usage exceeds the total limit of containers {limit}. "))
        };
        for (spec, kept, apart, expected) in [
            (
                volume("1Mi"),
                kept(some(MI + 1), none(), none()),
                false,
                Some("Usage of EmptyDir volume \"a\" exceeds the limit \"1Mi\". ".to_owned()),
            ),
            (volume("1Mi"), kept(some(MI), none(), none()), false, None),
            (volume("0"), kept(some(MI), none(), none()), false, None),
            (limited("2Mi"), kept(some(MI), some(MI), none()), false, None),
            (limited("2Mi"), kept(some(MI), some(MI), some(1)), false, pod_limit("2Mi")),
            (limited("2Mi"), kept(none(), some(3 * MI), none()), true, pod_limit("2Mi")),
            ("containers: [{name: a}]".to_owned(), kept(some(MI), some(MI), some(MI)), false, None),
            (
                "containers: [{name: a, resources: {limits: {ephemeral-storage: 1Mi}}}, \
                 {name: b, resources: {limits: {ephemeral-storage: 8Mi}}}]"
                    .to_owned(),
                kept(none(), some(MI), some(1)),
                false,
                Some("Container a exceeded its local ephemeral storage limit \"1Mi\". ".to_owned()),
            ),
            (
                "containers: [{name: a, resources: {limits: {ephemeral-storage: 1Mi}}}, \
                 {name: b, resources: {limits: {ephemeral-storage: 8Mi}}}]"
                    .to_owned(),
                kept(none(), some(MI), some(1)),
                true,
                None,
            ),
        ] {
            let pod = pod(&spec);
            assert_eq!(excess(&pod, &kept, apart).map(|(_, message)| message), expected, "{spec} {kept:?}");
            assert_eq!(is_limited(&pod), spec.contains("imit"), "{spec}");
        }
    }

    #[test]
    fn what_lies_on_the_disk_is_measured() {
        let scratch = Scratch::new();
        let layout = Layout::new(scratch.path(), scratch.path().join("logs"), scratch.path().join("links"));
        let write = |path: std::path::PathBuf, bytes: usize| {
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, vec![b'x'; bytes]).expect("written");
        };
        let volume = layout.pod_volume_dir("u", "kubernetes.io~empty-dir", "a");
        write(volume.join("deep/file"), 64 << 10);
        fs::hard_link(volume.join("deep/file"), volume.join("again")).expect("linked");
        write(layout.pod_volume_dir("u", "kubernetes.io~empty-dir", "m").join("file"), 64 << 10);
        write(layout.container_log("n", "p", "u", "c", 0), 4 << 10);
        let pod = pod("containers: [{name: c}], \
                       volumes: [{name: a, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}]");
        let stats = |name: &str, bytes| cri::ContainerStats {
            attributes: Some(cri::ContainerAttributes {
                labels: std::collections::HashMap::from([
                    (labels::POD_UID.to_owned(), "u".to_owned()),
                    (labels::CONTAINER_NAME.to_owned(), name.to_owned()),
                ]),
                ..Default::default()
            }),
            writable_layer: Some(cri::FilesystemUsage {
                used_bytes: Some(cri::UInt64Value { value: bytes }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let layers = layers(&[stats("c", 7), stats("c", 5)]);
        let kept = Kept::measure(&pod, &layout, &layers);
        let volume = kept.volumes["a"];
        assert!((64 << 10..100 << 10).contains(&volume.bytes), "{volume:?}");
        assert_eq!(volume.inodes, 3, "two directories and a file");
        assert_eq!(kept.volumes.len(), 1, "memory is no disk");
        assert_eq!(kept.layers["c"].bytes, 12);
        assert!(kept.logs["c"].bytes >= 4 << 10);
        assert_eq!(kept.total().bytes, volume.bytes + 12 + kept.logs["c"].bytes);
    }
}
