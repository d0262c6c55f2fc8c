//! Volumes that have grown at their driver, and now on this node: when they are mounted, and while pods use them.

use client::kube::api::{Patch, PatchParams};
use client::{Api, Client, EventType};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::{CapacityRange, NodeExpandVolumeRequest, VolumeCapability};
use serde_json::Value;
use tonic::Code;

use super::disk::{self, VolumeData};
use super::growth::{self, Growth, Known, Step, Written, decide};
use super::secrets::credentials;
use super::wanted::Wanted;
use super::{Csi, Source};
use crate::volumes::claim_of;
use crate::{quantity, types};

const SUCCEEDED: &str = "FileSystemResizeSuccessful";
const REFUSED: &str = "FileSystemResizeFailed";
const FAILED: &str = "VolumeResizeFailed";

/// A driver did not let a volume grow.
enum Failure {
    /// It may do so another time; nothing is known of it.
    ForNow(String),
    /// It cannot let volumes grow on nodes.
    Unsupported(String),
    /// Not while the volume is used.
    InUse(String),
    /// Not to this size.
    Infeasible(String),
    /// It said no.
    Refused(String),
}

impl Failure {
    fn text(&self) -> &str {
        match self {
            Self::ForNow(text)
            | Self::Unsupported(text)
            | Self::InUse(text)
            | Self::Infeasible(text)
            | Self::Refused(text) => text,
        }
    }
}

impl Csi {
    /// Lets a volume that was just published to a pod grow, if it has to. The text of a failure is upstream's; with it
    /// the pod does not start. The caller has the volume's turn.
    pub(super) async fn grow_at_mount(
        &self,
        client: &Client,
        wanted: &Wanted<'_>,
        data: &VolumeData,
    ) -> Result<(), String> {
        let (Source::Persistent(volume, _), Some(claim)) = (wanted.source, wanted.claim) else {
            return Ok(());
        };
        let known = self.known(data, claim);
        self.grow(client, wanted, (claim, volume), data, known).await.map(drop)
    }

    /// Lets the volumes of a running pod grow that have to.
    pub async fn grow_mounted(&self, pod: &Pod) {
        let Some(client) = self.inner.deps.client.clone() else { return };
        let (layout, uid) = (&self.inner.deps.layout, types::uid(pod));
        for name in disk::names(&disk::pod_dir(layout, uid)) {
            let own = disk::volume_dir(layout, uid, &name);
            let Ok(Some(data)) = VolumeData::read(&own) else { continue };
            if data.ephemeral {
                continue;
            }
            let turn = self.turn(&data.unique_name());
            let held = turn.lock().await;
            // It may have been taken down meanwhile.
            if VolumeData::read(&own).is_ok_and(|data| data.is_some())
                && let Err(error) = self.grow_one(&client, pod, &data).await
            {
                tracing::warn!(object = %client::ObjectKey::of(pod), volume = name, error, "volume could not grow, will retry");
                let message =
                    format!("NodeExpandVolume.NodeExpandVolume failed for volume {name:?} : {error}");
                self.event(EventType::Warning, FAILED, &message, pod, None);
            }
            drop(held);
            drop(turn);
            self.drop_turn(&data.unique_name());
        }
    }

    async fn grow_one(&self, client: &Client, pod: &Pod, data: &VolumeData) -> Result<(), String> {
        let asked = |error: client::kube::Error| client::chain(&error);
        let volumes: Api<PersistentVolume> = Api::all(client.clone());
        let Some(volume) = volumes.get_opt(&data.name).await.map_err(asked)? else { return Ok(()) };
        let spec = volume.spec.as_ref();
        let (Some(csi), Some(held)) =
            (spec.and_then(|s| s.csi.as_ref()), spec.and_then(|s| s.claim_ref.as_ref()))
        else {
            return Ok(());
        };
        let name = held.name.clone().unwrap_or_default();
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), types::namespace(pod));
        let Some(claim) = claims.get_opt(&name).await.map_err(asked)? else { return Ok(()) };
        if claim.metadata.uid != held.uid {
            return Ok(());
        }
        let mut uses = types::spec(pod).volumes.iter().flatten().filter_map(|volume| claim_of(pod, volume));
        if uses.all(|(used, read_only)| used != name || read_only) {
            // Upstream does not let it grow for those who only read.
            return Ok(());
        }
        let wanted = Wanted {
            pod,
            source: Source::Persistent(&volume, csi),
            claim: Some(&claim),
            read_only: false,
            group: None,
            on_root_mismatch: false,
        };
        let known = self.known(data, &claim);
        self.grow(client, &wanted, (&claim, &volume), data, known).await
    }

    /// What is known of a volume; the size it had when it was first seen here is that of its claim.
    fn known(&self, data: &VolumeData, claim: &PersistentVolumeClaim) -> Known {
        let seen = || Known { size: growth::capacity(claim), ..Known::default() };
        *self.inner.known.lock().entry(data.unique_name()).or_insert_with(seen)
    }

    fn learn(&self, data: &VolumeData, change: impl FnOnce(&mut Known)) {
        self.inner.known.lock().entry(data.unique_name()).and_modify(change);
    }

    async fn grow(
        &self,
        client: &Client,
        wanted: &Wanted<'_>,
        (claim, volume): (&PersistentVolumeClaim, &PersistentVolume),
        data: &VolumeData,
        known: Known,
    ) -> Result<(), String> {
        let growth = match decide(claim, volume, known) {
            Step::Nothing => return Ok(()),
            Step::Counts(size) => {
                self.learn(data, |known| known.size = size);
                return Ok(());
            }
            Step::Grow(growth) => growth,
        };
        if wanted.read_only {
            let message =
                message("MountVolume.NodeExpandVolume failed", data, "requested read-only file system");
            self.event(EventType::Warning, REFUSED, &message, wanted.pod, Some(claim));
            return Ok(());
        }
        let mut claim = claim.clone();
        if growth.written == Written::Steps {
            let begun = patch(client, &claim, growth::begun(&claim)).await;
            claim = begun.map_err(|error| format!("failed to mark node expansion in progress: {error}"))?;
        }
        match self.tell(client, wanted, data, &growth).await {
            Ok(()) => self.grown(client, wanted, &claim, data, &growth).await,
            Err(failure) => self.not_grown(client, &claim, data, &growth, failure).await,
        }
    }

    async fn grown(
        &self,
        client: &Client,
        wanted: &Wanted<'_>,
        claim: &PersistentVolumeClaim,
        data: &VolumeData,
        growth: &Growth,
    ) -> Result<(), String> {
        let message = message("MountVolume.NodeExpandVolume succeeded", data, &self.inner.deps.node_name);
        self.event(EventType::Normal, SUCCEEDED, &message, wanted.pod, Some(claim));
        if growth.written != Written::Nothing {
            let ended = patch(client, claim, growth::ended(claim, &growth.size, growth.written)).await;
            ended
                .map_err(|error| format!("mountVolume.NodeExpandVolume update pvc status failed: {error}"))?;
        }
        let size = quantity::value(&growth.size);
        self.learn(data, |known| *known = Known { size, ..Known::default() });
        Ok(())
    }

    /// Writes down how it failed. What only means that the volume stays as it is does not keep the pod from starting.
    async fn not_grown(
        &self,
        client: &Client,
        claim: &PersistentVolumeClaim,
        data: &VolumeData,
        growth: &Growth,
        failure: Failure,
    ) -> Result<(), String> {
        let size = quantity::value(&growth.size);
        if matches!(failure, Failure::Unsupported(_)) && growth.written != Written::Steps {
            // Nothing is left to be done here.
            self.learn(data, |known| known.size = size);
            return Ok(());
        }
        if growth.written == Written::Steps && !matches!(failure, Failure::ForNow(_)) {
            self.learn(data, |known| known.failed = true);
            let infeasible = growth.hopeless || matches!(failure, Failure::Infeasible(_));
            let change = growth::failed(infeasible, failure.text(), jiff::Timestamp::now());
            if let Err(error) = patch(client, claim, change).await {
                tracing::warn!(
                    volume = data.name,
                    error,
                    "that a volume could not grow was not written down"
                );
            }
        }
        if let Failure::InUse(error) = &failure {
            tracing::warn!(volume = data.name, error, "volume cannot grow while it is used");
            self.learn(data, |known| known.in_use = true);
            return Ok(());
        }
        Err(failure.text().to_owned())
    }

    /// Tells the driver.
    async fn tell(
        &self,
        client: &Client,
        wanted: &Wanted<'_>,
        data: &VolumeData,
        growth: &Growth,
    ) -> Result<(), Failure> {
        let driver = self.driver(&data.driver).map_err(Failure::ForNow)?;
        if !driver.expands() {
            let text = format!("NodeExpand is not supported by the CSI driver {}", data.driver);
            return Err(Failure::Unsupported(text));
        }
        let (layout, uid, block) = (&self.inner.deps.layout, types::uid(wanted.pod), wanted.is_block());
        let path = if block {
            disk::block_publish(layout, &data.name, uid)
        } else {
            disk::volume_dir(layout, uid, &data.name).join("mount")
        };
        let staging = driver.stages().then(|| self.staging(data, block).display().to_string());
        let secrets = credentials(client, wanted.expand_secret()).await;
        let secrets =
            secrets.map_err(|e| Failure::Refused(format!("expander.NodeExpand failed to get {e}")))?;
        let access_type = if block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume {
                fs_type: wanted.fs_type().to_owned(),
                mount_flags: wanted.options(),
                ..MountVolume::default()
            })
        };
        let mode = driver.access_mode(wanted.mode()) as i32;
        let request = NodeExpandVolumeRequest {
            volume_id: data.handle.clone(),
            volume_path: path.display().to_string(),
            capacity_range: Some(CapacityRange {
                required_bytes: quantity::value(&growth.size),
                limit_bytes: 0,
            }),
            staging_target_path: staging.unwrap_or_default(),
            volume_capability: Some(VolumeCapability {
                access_mode: Some(AccessMode { mode }),
                access_type: Some(access_type),
            }),
            secrets,
        };
        driver.expand(request).await.map_err(|error| {
            let text = |how: &str| format!("Expander.NodeExpand failed to expand the volume{how} {error}");
            match error.0.code() {
                Code::FailedPrecondition => Failure::InUse(text(" :")),
                Code::InvalidArgument | Code::OutOfRange | Code::NotFound => Failure::Infeasible(text("")),
                _ => Failure::Refused(text(" :")),
            }
        })
    }

    fn event(
        &self,
        kind: EventType,
        reason: &str,
        message: &str,
        pod: &Pod,
        claim: Option<&PersistentVolumeClaim>,
    ) {
        let Some(recorder) = &self.inner.deps.recorder else { return };
        recorder.object_event(pod, kind, reason, message);
        if let Some(claim) = claim {
            recorder.object_event(claim, kind, reason, message);
        }
    }
}

fn message(what: &str, data: &VolumeData, more: &str) -> String {
    format!("{what} for volume {:?} {more}", data.name)
}

async fn patch(
    client: &Client,
    claim: &PersistentVolumeClaim,
    change: Value,
) -> Result<PersistentVolumeClaim, String> {
    let (namespace, name) = (claim.metadata.namespace.as_deref(), claim.metadata.name.as_deref());
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace.unwrap_or_default());
    let name = name.unwrap_or_default();
    let patched = claims.patch_status(name, &PatchParams::default(), &Patch::Strategic(change)).await;
    patched.map_err(|error| format!("patchPVCStatus failed to patch PVC {name:?}: {}", client::chain(&error)))
}
