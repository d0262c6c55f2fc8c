//! Making a driver's volume usable for a pod, and taking it down again. Every step may be repeated.

use std::io;
use std::path::{Path, PathBuf};

use client::{Api, Client};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::CSIDriver;
use proto::csi::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::{NodePublishVolumeRequest, NodeStageVolumeRequest, VolumeCapability};

use super::attach::{PublishContext, is_required};
use super::disk::{self, VolumeData};
use super::driver::DriverClient;
use super::secrets::{credentials, tokens};
use super::wanted::Wanted;
use super::{Csi, PLUGIN, Source, text};
use crate::types;
use crate::volumes::{MountInfo, Reason, mounts, ownership};

/// What the calls for one volume have in common.
struct Plan<'a> {
    wanted: Wanted<'a>,
    data: VolumeData,
    driver: DriverClient,
    object: Option<CSIDriver>,
    context: PublishContext,
    block: bool,
}

impl Csi {
    /// Whether a volume of the pod has to be published again and again: its driver wants that.
    pub async fn republishes(&self, driver: &str) -> bool {
        let Some(client) = &self.inner.deps.client else { return false };
        let found = Api::<CSIDriver>::all(client.clone()).get_opt(driver).await;
        found.is_ok_and(|d| d.is_some_and(|d| d.spec.requires_republish == Some(true)))
    }

    /// Makes a volume usable for a pod.
    pub async fn set_up(&self, wanted: Wanted<'_>) -> Result<MountInfo, Reason> {
        let deps = &self.inner.deps;
        let Some(client) = &deps.client else {
            return Err(text("mounter.SetUpAt failed", "no kubeClient defined"));
        };
        let objects: Api<CSIDriver> = Api::all(client.clone());
        let object = objects
            .get_opt(wanted.driver())
            .await
            .map_err(|e| text("failed to get CSIDriver", client::chain(&e)))?;
        let ephemeral = matches!(wanted.source, Source::Inline(..));
        check_lifecycle(object.as_ref(), wanted.driver(), ephemeral)?;
        let attached = !ephemeral && is_required(object.as_ref());
        let data = wanted.data(&deps.node_name, attached);
        let uid = types::uid(wanted.pod);
        let context = if attached {
            self.attached(client, uid, (&data.driver, &data.handle)).await?
        } else {
            PublishContext::new()
        };
        let driver =
            self.driver(&data.driver).map_err(|e| text("mounter.SetUpAt failed to get CSI client", e))?;
        let block = wanted.is_block();
        let plan = Plan { wanted, data, driver, object, context, block };
        let volume = plan.data.unique_name();
        let turn = self.turn(&volume);
        let held = turn.lock().await;
        let result = self.make(client, &plan).await;
        drop(held);
        drop(turn);
        self.drop_turn(&volume);
        result
    }

    async fn make(&self, client: &Client, plan: &Plan<'_>) -> Result<MountInfo, Reason> {
        let (layout, uid) = (&self.inner.deps.layout, types::uid(plan.wanted.pod));
        let own = disk::volume_dir(layout, uid, &plan.data.name);
        // First of all what says that there is something to take down.
        plan.data.write(&own)?;
        let staged = self.stage(client, plan).await?;
        let target =
            if plan.block { disk::block_publish(layout, &plan.data.name, uid) } else { own.join("mount") };
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let wanted = plan.wanted;
        let mut secrets = credentials(client, wanted.secrets().1).await?;
        let mut attributes = wanted.attributes();
        if plan.object.as_ref().and_then(|o| o.spec.pod_info_on_mount) == Some(true) {
            attributes.extend(pod_info(wanted.pod, plan.data.ephemeral));
        }
        let (tokens, in_secrets) = tokens(client, plan.object.as_ref(), wanted.pod).await?;
        if in_secrets {
            secrets.extend(tokens)
        } else {
            attributes.extend(tokens)
        }
        let request = NodePublishVolumeRequest {
            volume_id: plan.data.handle.clone(),
            publish_context: plan.context.clone(),
            staging_target_path: staged.map(|path| path.display().to_string()).unwrap_or_default(),
            target_path: target.display().to_string(),
            volume_capability: Some(plan.capability()),
            readonly: wanted.read_only,
            secrets,
            volume_context: attributes,
        };
        plan.driver.publish(request).await.map_err(|e| Reason::Text(e.to_string()))?;
        plan.give_to_group(&target).await?;
        self.grow_at_mount(client, &wanted, &plan.data).await.map_err(|error| {
            Reason::Text(format!(
                "MountVolume.Setup failed while expanding volume {:?} : {error}",
                plan.data.name
            ))
        })?;
        Ok(MountInfo { host_path: target, read_only: wanted.read_only, block: plan.block })
    }

    /// Stages a volume where its driver does that; answers where.
    async fn stage(&self, client: &Client, plan: &Plan<'_>) -> Result<Option<PathBuf>, Reason> {
        if plan.data.ephemeral || !plan.driver.stages() {
            return Ok(None);
        }
        let path = self.staging(&plan.data, plan.block);
        std::fs::create_dir_all(&path)?;
        if let (false, Some(parent)) = (plan.block, path.parent()) {
            plan.data.write(parent)?;
        }
        let request = NodeStageVolumeRequest {
            volume_id: plan.data.handle.clone(),
            publish_context: plan.context.clone(),
            staging_target_path: path.display().to_string(),
            volume_capability: Some(plan.capability()),
            secrets: credentials(client, plan.wanted.secrets().0).await?,
            volume_context: plan.wanted.attributes(),
        };
        plan.driver.stage(request).await.map_err(|e| Reason::Text(e.to_string()))?;
        Ok(Some(path))
    }

    pub(super) fn staging(&self, data: &VolumeData, block: bool) -> PathBuf {
        let layout = &self.inner.deps.layout;
        if block {
            disk::block_staging(layout, &data.name)
        } else {
            disk::staging(layout, &data.driver, &data.handle)
        }
    }

    /// Takes down all volumes of drivers that a pod used, from what is on disk.
    pub async fn tear_down(&self, uid: &str) -> Result<(), String> {
        self.await_no_more(uid);
        let layout = &self.inner.deps.layout;
        let directory = disk::pod_dir(layout, uid);
        for name in disk::names(&directory) {
            let own = disk::volume_dir(layout, uid, &name);
            let data = VolumeData::read(&own).map_err(|e| format!("{}: {e}", own.display()))?;
            let Some(data) = data else { continue };
            let volume = data.unique_name();
            let turn = self.turn(&volume);
            let held = turn.lock().await;
            let result = self.unmake(uid, &own, &data).await;
            drop(held);
            drop(turn);
            self.drop_turn(&volume);
            result?;
            if data.attachment.is_some() {
                // It may be detached now.
                self.inner.deps.poke.notify_one();
            }
        }
        Ok(())
    }

    /// What is written beside the volume goes last: until then, all of this is done again.
    async fn unmake(&self, uid: &str, own: &Path, data: &VolumeData) -> Result<(), String> {
        let layout = &self.inner.deps.layout;
        let driver = self
            .driver(&data.driver)
            .map_err(|e| format!("{PLUGIN}: Unmounter.TearDownAt failed to get CSI client: {e}"))?;
        let block_target = disk::block_publish(layout, &data.name, uid);
        let block = block_target.symlink_metadata().is_ok();
        let target = if block { block_target } else { own.join("mount") };
        let failed =
            |error: &dyn std::fmt::Display| format!("{PLUGIN}: Unmounter.TearDownAt failed: {error}");
        driver.unpublish(&data.handle, target.display().to_string()).await.map_err(|e| failed(&e))?;
        clear(&target).map_err(|e| failed(&e))?;
        let shared = disk::used(layout)
            .iter()
            .any(|(other, d)| other != uid && d.driver == data.driver && d.handle == data.handle);
        if !data.ephemeral && !shared {
            self.unstage(&driver, data, block).await?;
            self.inner.known.lock().remove(&data.unique_name());
        }
        disk::remove_data(own).map_err(|e| failed(&e))
    }

    async fn unstage(&self, driver: &DriverClient, data: &VolumeData, block: bool) -> Result<(), String> {
        let path = self.staging(data, block);
        if !path.exists() {
            return Ok(());
        }
        let failed =
            |error: &dyn std::fmt::Display| format!("{PLUGIN}: attacher.UnmountDevice failed: {error}");
        if driver.stages() {
            driver.unstage(&data.handle, path.display().to_string()).await.map_err(|e| failed(&e))?;
        }
        clear(&path).map_err(|e| failed(&e))?;
        match path.parent().filter(|_| !block) {
            Some(parent) => disk::remove_data(parent).map_err(|e| failed(&e)),
            None => Ok(()),
        }
    }
}

/// Removes what a driver should have removed; never what is still mounted.
fn clear(target: &Path) -> io::Result<()> {
    match target.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) if mounts::is_mount_point(target)? => {
            Err(io::Error::other(format!("{} is still mounted", target.display())))
        }
        Ok(found) if found.is_dir() => disk::remove_empty(target),
        Ok(_) => std::fs::remove_file(target),
    }
}

impl Plan<'_> {
    fn capability(&self) -> VolumeCapability {
        let wanted = self.wanted;
        let group = wanted.group.filter(|_| self.driver.sets_group());
        let access_type = if self.block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume {
                fs_type: wanted.fs_type().to_owned(),
                mount_flags: wanted.options(),
                volume_mount_group: group.map(|g| g.to_string()).unwrap_or_default(),
            })
        };
        let mode = self.driver.access_mode(wanted.mode()) as i32;
        VolumeCapability { access_mode: Some(AccessMode { mode }), access_type: Some(access_type) }
    }

    async fn give_to_group(&self, target: &Path) -> Result<(), Reason> {
        let wanted = self.wanted;
        let policy = self.object.as_ref().and_then(|o| o.spec.fs_group_policy.as_deref());
        let Some(group) =
            wanted.group.filter(|_| !self.block && !wanted.read_only && !self.driver.sets_group())
        else {
            return Ok(());
        };
        if !kubelet_sets_group(policy, wanted.fs_type(), wanted.modes(), self.data.ephemeral) {
            return Ok(());
        }
        let (target, lazily, handle) = (target.to_owned(), wanted.on_root_mismatch, self.data.handle.clone());
        let set = tokio::task::spawn_blocking(move || ownership::set(&target, group, false, lazily)).await;
        let set = set.map_err(io::Error::other).flatten();
        set.map_err(|error| Reason::Text(format!("applyFSGroup failed for vol {handle}: {error}")))
    }
}

/// Whether the group is set here, by the driver's policy; without one, where a file system is one node's alone.
fn kubelet_sets_group(policy: Option<&str>, fs_type: &str, modes: &[String], ephemeral: bool) -> bool {
    match policy {
        Some("None") => false,
        Some("File") => true,
        _ => {
            let alone = modes.iter().any(|m| matches!(m.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"));
            !fs_type.is_empty() && (ephemeral || alone)
        }
    }
}

fn check_lifecycle(object: Option<&CSIDriver>, driver: &str, ephemeral: bool) -> Result<(), Reason> {
    let mode = if ephemeral { "Ephemeral" } else { "Persistent" };
    let modes = object.and_then(|o| o.spec.volume_lifecycle_modes.clone()).filter(|m| !m.is_empty());
    let supported = match modes {
        Some(modes) => modes.iter().any(|m| m == mode),
        None => !ephemeral,
    };
    match (supported, object) {
        (true, _) => Ok(()),
        (false, None) => Err(Reason::Text(format!(
            "volume mode {mode:?} not supported by driver {driver} (no CSIDriver object)"
        ))),
        (false, Some(_)) => Err(Reason::Text(format!(
            "volume mode {mode:?} not supported by driver {driver} (only supports others)"
        ))),
    }
}

fn pod_info(pod: &Pod, ephemeral: bool) -> [(String, String); 5] {
    let account = types::spec(pod).service_account_name.clone().unwrap_or_default();
    [
        ("pod.name", types::name(pod).to_owned()),
        ("pod.namespace", types::namespace(pod).to_owned()),
        ("pod.uid", types::uid(pod).to_owned()),
        ("serviceAccount.name", account),
        ("ephemeral", ephemeral.to_string()),
    ]
    .map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_set_where_the_policy_says() {
        let modes = |modes: &[&str]| modes.iter().map(|m| (*m).to_owned()).collect::<Vec<_>>();
        let cases = [
            (Some("None"), "ext4", modes(&["ReadWriteOnce"]), false, false),
            (Some("File"), "", modes(&["ReadWriteMany"]), false, true),
            (None, "ext4", modes(&["ReadWriteOnce"]), false, true),
            (Some("ReadWriteOnceWithFSType"), "ext4", modes(&["ReadWriteOncePod"]), false, true),
            (None, "ext4", modes(&["ReadWriteMany"]), false, false),
            (None, "", modes(&["ReadWriteOnce"]), false, false),
            (None, "ext4", modes(&[]), false, false),
            (None, "ext4", modes(&[]), true, true),
        ];
        for (policy, fs_type, modes, ephemeral, expected) in cases {
            assert_eq!(
                kubelet_sets_group(policy, fs_type, &modes, ephemeral),
                expected,
                "{policy:?} {fs_type} {modes:?}"
            );
        }
    }

    #[test]
    fn lifecycles_are_checked() {
        let driver = |modes: &str| -> CSIDriver {
            serde_saphyr::from_str(&format!("metadata: {{}}\nspec: {{volumeLifecycleModes: {modes}}}"))
                .expect("valid")
        };
        let cases = [
            (None, false, true),
            (None, true, false),
            (Some(driver("[]")), false, true),
            (Some(driver("[]")), true, false),
            (Some(driver("[Ephemeral]")), true, true),
            (Some(driver("[Ephemeral]")), false, false),
            (Some(driver("[Persistent, Ephemeral]")), true, true),
        ];
        for (object, ephemeral, good) in cases {
            assert_eq!(
                check_lifecycle(object.as_ref(), "d", ephemeral).is_ok(),
                good,
                "{object:?} {ephemeral}"
            );
        }
    }
}
