//! Volumes of pods: making them, keeping their contents current, and taking them away.
//!
//! Every volume has a directory in `pods/UID/volumes/PLUGIN/NAME`, as upstream lays them out, so that everything can be
//! taken down from the disk alone after a restart. One task refreshes contents: at once when a ConfigMap or Secret
//! changes, and every minute for tokens. Work on one pod is done one at a time.

pub mod atomic_writer;
mod claims;
mod complaints;
mod container;
mod host_path;
pub mod mounts;
pub(crate) mod ownership;
pub mod payload;
mod setup;
mod subpath;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, EventRecorder, EventType, Tasks};
use k8s_openapi::api::core::v1::{Node, Pod, Volume};
use parking_lot::Mutex;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;

pub use claims::claim_of;
use complaints::Complaints;
pub use container::{container_devices, container_mounts};

use crate::csi::Csi;
use crate::layout::Layout;
use crate::objects::{self, Change, Objects, references};

const REFRESH: Duration = Duration::from_secs(60);

/// Why one volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// In upstream's words.
    #[error("{0}")]
    Text(String),
    /// Something has to come first, and nothing is wrong as yet.
    #[error("{0}")]
    NotYet(String),
    /// A ConfigMap, Secret or token is missing.
    #[error(transparent)]
    Object(#[from] objects::Error),
    /// The node refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Why a pod's volumes are not ready.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One volume could not be set up; others may be missing as well.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {reason}")]
    SetUp {
        /// Its name in the pod.
        volume: String,
        /// Why.
        reason: Reason,
    },
    /// A container cannot mount what it names.
    #[error("{0}")]
    Container(String),
    /// A driver could not take a volume down.
    #[error("{0}")]
    Driver(String),
    /// Something is left of a pod's volumes.
    #[error("take down {}", .path.display())]
    TearDown {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// One volume, ready to be mounted into containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Where it is on the node.
    pub host_path: PathBuf,
    /// Whether no container may write to it.
    pub read_only: bool,
    /// Whether it is a device.
    pub block: bool,
}

/// What the volumes need of the rest.
pub struct Deps {
    /// The API, for claims.
    pub client: Option<Client>,
    /// ConfigMaps, Secrets, tokens.
    pub objects: Arc<Objects>,
    /// Where things lie on disk.
    pub layout: Layout,
    /// For events.
    pub recorder: Option<EventRecorder>,
    /// Volumes of drivers.
    pub csi: Csi,
    /// The node as last seen, for limits that default to its resources.
    pub node: Arc<dyn Fn() -> Option<Arc<Node>> + Send + Sync>,
}

/// What is known of one pod; the lock lets one at a time work on its volumes.
type Slot = Arc<tokio::sync::Mutex<Held>>;

#[derive(Default)]
struct Held {
    /// The pod as last seen; none once its volumes are taken down.
    pod: Option<Arc<Pod>>,
    /// Volumes that are set up. Those with contents made here are kept current; the others stay as they are.
    ready: HashMap<String, MountInfo>,
    complaints: Complaints,
}

/// The volumes of this node's pods.
pub struct VolumeManager {
    deps: Deps,
    pods: Mutex<HashMap<String, Slot>>,
}

impl VolumeManager {
    /// No pods yet.
    #[must_use]
    pub fn new(deps: Deps) -> Arc<Self> {
        Arc::new(Self { deps, pods: Mutex::default() })
    }

    fn slot(&self, uid: &str) -> Slot {
        self.pods.lock().entry(uid.to_owned()).or_default().clone()
    }

    /// Sets up (or brings up to date) every volume that a container of `pod` mounts.
    pub async fn mount_pod(&self, pod: &Pod) -> Result<HashMap<String, MountInfo>, Error> {
        let slot = self.slot(pod.metadata.uid.as_deref().unwrap_or_default());
        let mut held = slot.lock().await;
        held.pod = Some(Arc::new(pod.clone()));
        self.mount_all(pod, &mut held).await
    }

    async fn mount_all(&self, pod: &Pod, held: &mut Held) -> Result<HashMap<String, MountInfo>, Error> {
        let used = used_volumes(pod);
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut ready = HashMap::new();
        let mut failed = None;
        for volume in volumes.filter(|volume| used.contains(volume.name.as_str()) && volume.image.is_none()) {
            if let Some(info) = held.ready.get(&volume.name)
                && self.stays(volume).await
            {
                ready.insert(volume.name.clone(), info.clone());
                continue;
            }
            match setup::set_up(&self.deps, pod, volume).await {
                Ok(info) => {
                    ready.insert(volume.name.clone(), info.clone());
                    held.ready.insert(volume.name.clone(), info);
                    held.complaints.settle(&volume.name);
                }
                Err(reason) => {
                    let error = Error::SetUp { volume: volume.name.clone(), reason };
                    let message = error.to_string();
                    let wrong = !matches!(&error, Error::SetUp { reason: Reason::NotYet(_), .. });
                    if wrong && held.complaints.is_due(&volume.name, &message, Instant::now()) {
                        self.warn(pod, "FailedMount", &message);
                    }
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(ready), Err)
    }

    /// Whether a volume that is set up needs nothing more.
    async fn stays(&self, volume: &Volume) -> bool {
        let claimed = volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some();
        match &volume.csi {
            Some(source) => !self.deps.csi.republishes(&source.driver).await,
            None => claimed,
        }
    }

    fn warn(&self, pod: &Pod, reason: &str, message: &str) {
        if let Some(recorder) = &self.deps.recorder {
            recorder.object_event(pod, EventType::Warning, reason, message);
        }
    }

    /// Takes down everything of a pod's volumes that is on disk.
    pub async fn unmount_pod(&self, uid: &str) -> Result<(), Error> {
        let slot = self.slot(uid);
        let mut held = slot.lock().await;
        *held = Held::default();
        self.deps.csi.tear_down(uid).await.map_err(Error::Driver)?;
        let (layout, uid_owned) = (self.deps.layout.clone(), uid.to_owned());
        let done = tokio::task::spawn_blocking(move || tear_down(&layout, &uid_owned)).await;
        done.unwrap_or_else(|error| {
            Err(Error::TearDown {
                path: self.deps.layout.pod_dir(uid),
                source: io::Error::other(error.to_string()),
            })
        })?;
        self.pods.lock().remove(uid);
        Ok(())
    }

    /// Whether something of the pod's volumes is left.
    pub async fn pod_volumes_exist(&self, uid: &str) -> bool {
        let has_entries = |dir: &Path| {
            std::fs::read_dir(dir).is_ok_and(|mut plugins| {
                plugins.any(|plugin| {
                    plugin.is_ok_and(|plugin| {
                        std::fs::read_dir(plugin.path()).is_ok_and(|mut v| v.next().is_some())
                    })
                })
            })
        };
        let layout = &self.deps.layout;
        has_entries(&layout.pod_volumes_dir(uid))
            || mounts::below(&layout.pod_dir(uid)).is_ok_and(|mounts| !mounts.is_empty())
    }

    /// Starts the tasks that keep contents current and let volumes grow.
    pub fn run(self: Arc<Self>, tasks: &Tasks) {
        let this = self.clone();
        tasks.spawn("volume-growth", move |token| async move {
            loop {
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(REFRESH) => {}
                }
                tokio::select! {
                    () = token.cancelled() => return,
                    () = this.grow() => {}
                }
            }
        });
        let mut changes = self.deps.objects.changes();
        tasks.spawn("volume-refresh", move |token| async move {
            let mut minute = tokio::time::interval(REFRESH);
            minute.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                let change = tokio::select! {
                    biased;
                    () = token.cancelled() => return,
                    change = changes.recv() => match change {
                        Ok(change) => Some(change),
                        Err(RecvError::Lagged(_)) => None,
                        Err(RecvError::Closed) => return,
                    },
                    _ = minute.tick() => None,
                };
                tokio::select! {
                    () = token.cancelled() => return,
                    () = self.refresh(change.as_ref()) => {}
                }
            }
        });
    }

    /// Lets drivers' volumes grow that pods use. A driver that takes long holds up nothing else but these.
    async fn grow(&self) {
        let slots: Vec<_> = self.pods.lock().values().cloned().collect();
        for slot in slots {
            let pod = {
                let held = slot.lock().await;
                held.pod.clone().filter(|_| !held.ready.is_empty())
            };
            if let Some(pod) = pod {
                self.deps.csi.grow_mounted(&pod).await;
            }
        }
    }

    /// Brings up to date the pods that `change` concerns, or all.
    async fn refresh(&self, change: Option<&Change>) {
        let slots: Vec<_> = self.pods.lock().values().cloned().collect();
        for slot in slots {
            let held = slot.lock().await;
            let Some(pod) = held.pod.as_ref().filter(|pod| change.is_none_or(|change| concerns(pod, change)))
            else {
                continue;
            };
            for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
                if payload::is_projected(volume)
                    && held.ready.contains_key(&volume.name)
                    && let Err(error) = setup::refresh(&self.deps, pod, volume).await
                {
                    warn!(object = %client::ObjectKey::of(&**pod), volume = volume.name, %error, "could not refresh a volume, will retry");
                }
            }
        }
    }
}

fn concerns(pod: &Pod, change: &Change) -> bool {
    if pod.metadata.namespace.as_deref() != Some(&change.namespace) {
        return false;
    }
    let references = references(pod);
    let names = if change.kind == "secret" { &references.secrets } else { &references.config_maps };
    names.contains(&change.name)
}

/// Names of the volumes that some container mounts.
fn used_volumes(pod: &Pod) -> HashSet<&str> {
    let Some(spec) = &pod.spec else { return HashSet::new() };
    let mut used = HashSet::new();
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        used.extend(container.volume_mounts.iter().flatten().map(|mount| mount.name.as_str()));
        used.extend(container.volume_devices.iter().flatten().map(|device| device.name.as_str()));
    }
    for container in spec.ephemeral_containers.iter().flatten() {
        used.extend(container.volume_mounts.iter().flatten().map(|mount| mount.name.as_str()));
    }
    used
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let context = pod.spec.as_ref()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

fn is_empty_dir(volume: &Volume) -> bool {
    volume.empty_dir.is_some()
}

/// Undoes every mount of the pod, then removes what the kubelet itself made. Nothing is removed through a mount.
fn tear_down(layout: &Layout, uid: &str) -> Result<(), Error> {
    let pod_dir = layout.pod_dir(uid);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::TearDown { path, source }
    };
    for target in mounts::below(&pod_dir).map_err(failed(&pod_dir))? {
        mounts::unmount(&target).map_err(failed(&target))?;
    }
    if let Some(left) = mounts::below(&pod_dir).map_err(failed(&pod_dir))?.into_iter().next() {
        return Err(Error::TearDown { path: left, source: io::Error::other("still mounted") });
    }
    for dir in [layout.pod_volumes_dir(uid), layout.pod_volume_subpaths_dir(uid), layout.pod_plugins_dir(uid)]
    {
        match std::fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&dir)(error)),
            _ => {}
        }
    }
    Ok(())
}
