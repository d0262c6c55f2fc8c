//! Setting up one volume. Every step may be repeated.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, NFSVolumeSource, PersistentVolume, PersistentVolumeClaim, Pod, Volume,
};
use tracing::info;

use super::payload::{Sources, is_projected};
use super::{
    Deps, MountInfo, Reason, atomic_writer, claims, fs_group, host_path, is_empty_dir, mounts, ownership,
};
use crate::csi::{Source, Wanted};
use crate::{qos, quantity};

const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The provisioner of directories, which cannot make any on this node itself.
const LOCAL_PATH: &str = "coxswain.io/local-path";
const EMPTY_DIR: &str = "kubernetes.io~empty-dir";

/// Makes `volume` ready to be mounted into containers.
pub async fn set_up(deps: &Deps, pod: &Pod, volume: &Volume) -> Result<MountInfo, Reason> {
    if is_projected(volume) {
        return projected(deps, pod, volume).await;
    }
    if let Some(source) = &volume.host_path {
        let path = PathBuf::from(&source.path);
        host_path::check(&path, source.type_.as_deref().unwrap_or_default()).map_err(Reason::Text)?;
        return Ok(MountInfo { host_path: path, read_only: false, block: false });
    }
    if is_empty_dir(volume) {
        return empty_dir(deps, pod, volume).await;
    }
    if let Some(source) = &volume.nfs {
        return nfs(deps, pod, &volume.name, source, &[]).await;
    }
    if let Some(source) = &volume.csi {
        let read_only = source.read_only == Some(true);
        return deps.csi.set_up(wanted(pod, Source::Inline(&volume.name, source), None, read_only)).await;
    }
    if let Some((claim, read_only)) = claims::claim_of(pod, volume) {
        let Some(client) = &deps.client else {
            return Err(Reason::Text(format!("couldn't get PVC {claim}, no kubeClient defined")));
        };
        let found = claims::bound_volume(client, pod, &claim).await?;
        return persistent(deps, pod, &volume.name, &found, read_only).await;
    }
    Err(Reason::Text(format!("no volume plugin matched for volume {:?}", volume.name)))
}

/// Writes the current contents of a volume that is set up already.
pub async fn refresh(deps: &Deps, pod: &Pod, volume: &Volume) -> Result<(), Reason> {
    projected(deps, pod, volume).await.map(drop)
}

fn dir_of(deps: &Deps, pod: &Pod, plugin: &str, volume: &str) -> PathBuf {
    deps.layout.pod_volume_dir(pod.metadata.uid.as_deref().unwrap_or_default(), plugin, volume)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Reason> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)??)
}

async fn projected(deps: &Deps, pod: &Pod, volume: &Volume) -> Result<MountInfo, Reason> {
    let sources = Sources { pod, node: (deps.node)(), objects: &deps.objects };
    let payload = sources.payload(volume).await?;
    // ConfigMaps are no secrets and lie on disk; the others lie in memory.
    let (plugin, in_memory) = if volume.config_map.is_some() {
        ("kubernetes.io~configmap", false)
    } else if volume.secret.is_some() {
        ("kubernetes.io~secret", true)
    } else if volume.downward_api.is_some() {
        ("kubernetes.io~downward-api", true)
    } else {
        ("kubernetes.io~projected", true)
    };
    let dir = dir_of(deps, pod, plugin, &volume.name);
    let size = memory_size(deps, pod, None);
    let group = fs_group(pod);
    let target = dir.clone();
    let written = blocking(move || {
        make_scratch(&target, in_memory, size)?;
        atomic_writer::write(&target, &payload, |new| match group {
            Some(group) => {
                ownership::set(new, group, true, false).and_then(|()| ownership::set_root(&target, group))
            }
            None => Ok(()),
        })
    })
    .await?;
    if written {
        info!(object = %client::ObjectKey::of(pod), volume = volume.name, "volume contents written");
    }
    Ok(MountInfo { host_path: dir, read_only: true, block: false })
}

/// A directory anybody may write to, in memory if asked for.
fn make_scratch(dir: &Path, in_memory: bool, size: Option<i64>) -> io::Result<()> {
    if in_memory {
        fs::create_dir_all(dir)?;
        return if mounts::is_mount_point(dir)? { Ok(()) } else { mounts::tmpfs(dir, size) };
    }
    if dir.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777))
}

async fn empty_dir(deps: &Deps, pod: &Pod, volume: &Volume) -> Result<MountInfo, Reason> {
    let default = EmptyDirVolumeSource::default();
    let source = volume.empty_dir.as_ref().unwrap_or(&default);
    let in_memory = match source.medium.as_deref() {
        None | Some("") => false,
        Some("Memory") => true,
        Some(other) => return Err(Reason::Text(format!("unknown storage medium {other:?}"))),
    };
    let limit = source.size_limit.as_ref().map(quantity::value).filter(|limit| *limit > 0);
    let size = if in_memory { memory_size(deps, pod, limit) } else { None };
    let dir = dir_of(deps, pod, EMPTY_DIR, &volume.name);
    let ready = deps.layout.pod_plugins_dir(pod.metadata.uid.as_deref().unwrap_or_default());
    let ready = ready.join(EMPTY_DIR).join(&volume.name).join("ready");
    let group = fs_group(pod);
    let target = dir.clone();
    blocking(move || {
        if ready.exists() && target.is_dir() && (!in_memory || mounts::is_mount_point(&target)?) {
            return Ok(());
        }
        make_scratch(&target, in_memory, size)?;
        if let Some(group) = group {
            ownership::set(&target, group, false, false)?;
        }
        fs::create_dir_all(ready.parent().unwrap_or(Path::new("/")))?;
        fs::write(ready, "")
    })
    .await?;
    Ok(MountInfo { host_path: dir, read_only: false, block: false })
}

/// Size of a filesystem in memory: the least of what the node has, what the pod may use, and what the volume asks for.
fn memory_size(deps: &Deps, pod: &Pod, limit: Option<i64>) -> Option<i64> {
    let node = (deps.node)();
    let allocatable = node
        .as_ref()
        .and_then(|node| node.status.as_ref()?.allocatable.as_ref()?.get("memory").map(quantity::value));
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let all_limited = containers.into_iter().all(|container| {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        qos::amount(limits, "memory").is_some()
    });
    let of_pod = qos::pod_limits(pod).get("memory").map(|milli| milli / 1000).filter(|_| all_limited);
    [allocatable, of_pod, limit].into_iter().flatten().filter(|size| *size > 0).min()
}

async fn persistent(
    deps: &Deps,
    pod: &Pod,
    volume: &str,
    (claim, found): &(PersistentVolumeClaim, PersistentVolume),
    read_only: bool,
) -> Result<MountInfo, Reason> {
    let Some(spec) = &found.spec else {
        return Err(Reason::Text("the persistent volume has no spec".to_owned()));
    };
    let block = spec.volume_mode.as_deref() == Some("Block");
    if let Some(source) = &spec.host_path {
        let path = PathBuf::from(&source.path);
        let annotations = found.metadata.annotations.as_ref();
        if annotations.and_then(|all| all.get(PROVISIONED_BY)).is_some_and(|by| by == LOCAL_PATH) {
            host_path::make_claimed(&path)?;
        }
        host_path::check(&path, source.type_.as_deref().unwrap_or_default()).map_err(Reason::Text)?;
        return Ok(MountInfo { host_path: path, read_only, block });
    }
    if let Some(source) = &spec.local {
        return local(deps, pod, volume, PathBuf::from(&source.path), read_only, block).await;
    }
    if let Some(source) = &spec.nfs {
        let source = NFSVolumeSource {
            path: source.path.clone(),
            server: source.server.clone(),
            read_only: Some(read_only || source.read_only == Some(true)),
        };
        return nfs(deps, pod, volume, &source, spec.mount_options.as_deref().unwrap_or_default()).await;
    }
    if let Some(source) = &spec.csi {
        let source = Source::Persistent(found, source);
        return deps.csi.set_up(wanted(pod, source, Some(claim), read_only)).await;
    }
    Err(Reason::Text("no volume plugin matched the persistent volume".to_owned()))
}

fn wanted<'a>(
    pod: &'a Pod,
    source: Source<'a>,
    claim: Option<&'a PersistentVolumeClaim>,
    read_only: bool,
) -> Wanted<'a> {
    Wanted { pod, source, claim, read_only, group: fs_group(pod), on_root_mismatch: on_root_mismatch(pod) }
}

async fn local(
    deps: &Deps,
    pod: &Pod,
    volume: &str,
    path: PathBuf,
    read_only: bool,
    block: bool,
) -> Result<MountInfo, Reason> {
    if !path.exists() {
        return Err(Reason::Text(format!("path {:?} does not exist", path.display().to_string())));
    }
    if block {
        return Ok(MountInfo { host_path: path, read_only, block });
    }
    let dir = dir_of(deps, pod, "kubernetes.io~local-volume", volume);
    let (target, group) = (dir.clone(), fs_group(pod));
    let lazily = on_root_mismatch(pod);
    blocking(move || {
        fs::create_dir_all(&target)?;
        if mounts::is_mount_point(&target)? {
            return Ok(());
        }
        mounts::bind(&path, &target)?;
        match group {
            Some(group) if !read_only => ownership::set(&target, group, false, lazily),
            _ => Ok(()),
        }
    })
    .await?;
    Ok(MountInfo { host_path: dir, read_only, block: false })
}

fn on_root_mismatch(pod: &Pod) -> bool {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    context.and_then(|context| context.fs_group_change_policy.as_deref()) == Some("OnRootMismatch")
}

async fn nfs(
    deps: &Deps,
    pod: &Pod,
    volume: &str,
    source: &NFSVolumeSource,
    options: &[String],
) -> Result<MountInfo, Reason> {
    let dir = dir_of(deps, pod, "kubernetes.io~nfs", volume);
    fs::create_dir_all(&dir)?;
    let read_only = source.read_only == Some(true);
    if !mounts::is_mount_point(&dir)? {
        let mut command = tokio::process::Command::new("mount");
        command.args(["-t", "nfs"]).kill_on_drop(true);
        let mut all = options.to_vec();
        if read_only {
            all.push("ro".to_owned());
        }
        if !all.is_empty() {
            command.args(["-o", &all.join(",")]);
        }
        let output = command.arg(format!("{}:{}", source.server, source.path)).arg(&dir).output().await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(Reason::Text(format!("mount failed: {}\nOutput: {}", output.status, said.trim())));
        }
    }
    Ok(MountInfo { host_path: dir, read_only, block: false })
}
