//! Says of claims that want to grow who has to see to it. As upstream's pkg/controller/volume/expand: no plugin that
//! is left in Kubernetes itself can grow a volume, so it is always a driver outside.

use super::claims::{PRE_RESIZE_CAPACITY, claim_phase, claim_ref, requested, storage, uid_of, volume_name};
use super::in_tree;
use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::Context;
use client::controller::Action;
use client::kube::api::{Patch, PatchParams};
use client::{Api, Event, EventType, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde_json::json;

const RESIZER: &str = "volume.kubernetes.io/storage-resizer";

/// What to do about a claim.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    /// A driver took over from this plugin and has to be named on the claim.
    Migrated(&'static str, &'static str),
    External,
}

fn plan(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Result<Plan, String> {
    let bound = claim_ref(volume).is_some_and(|reference| uid_of(reference) == meta::uid(&claim.metadata));
    if !bound {
        let key = meta::key(&claim.metadata);
        return Err(format!("persistent Volume is not bound to PVC being updated : {key}"));
    }
    let held = storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref())).unwrap_or_default();
    let resized = meta::annotation(&volume.metadata, PRE_RESIZE_CAPACITY).is_some();
    if requested(claim) <= held && !resized {
        return Ok(Plan::Nothing);
    }
    let migrated = in_tree::plugin_of(volume).and_then(|plugin| Some((plugin, in_tree::driver_for(plugin)?)));
    Ok(migrated.map_or(Plan::External, |(plugin, driver)| Plan::Migrated(plugin, driver)))
}

fn wants_or_has_more(old: &PersistentVolumeClaim, new: &PersistentVolumeClaim) -> bool {
    let held = |claim: &PersistentVolumeClaim| {
        storage(claim.status.as_ref().and_then(|status| status.capacity.as_ref())).unwrap_or_default()
    };
    requested(new) > requested(old) || held(new) > held(old)
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let claims = cx.informer::<PersistentVolumeClaim>();
    let queue = WorkQueue::new("volume_expand");
    let keys = queue.clone();
    claims.subscribe(move |event| {
        let concerns = match event {
            Event::Added(_) | Event::Deleted(_) => true,
            Event::Updated { old, new } => wants_or_has_more(old, new),
        };
        let claim = event.object();
        if concerns && claim_phase(claim) == "Bound" {
            keys.add(meta::key(&claim.metadata));
        }
    });
    let volumes = cx.informer::<PersistentVolume>();
    let (client, recorder) = (cx.client.clone(), cx.recorder("volume_expand"));
    let both = (claims.clone(), volumes.clone());
    let synced = async move {
        both.0.synced().await;
        both.1.synced().await;
    };
    cx.work("persistentvolume-expander-controller", queue, 10, synced, move |key| {
        let (client, claims, volumes, recorder) =
            (client.clone(), claims.clone(), volumes.clone(), recorder.clone());
        async move {
            let Some(claim) = claims.store().get(&key) else { return Ok(Action::Done) };
            let name = volume_name(&claim);
            let volume = volumes.store().get(&ObjectKey::new("", name));
            let volume = volume.ok_or_else(|| anyhow::anyhow!("failed to get PV \"{name}\""))?;
            let say = |message: String| {
                recorder.object_event(&*claim, EventType::Normal, "ExternalExpanding", message);
            };
            match plan(&claim, &volume).map_err(anyhow::Error::msg)? {
                Plan::Nothing => {}
                Plan::External => say("waiting for an external controller to expand this PVC".to_owned()),
                Plan::Migrated(plugin, driver) => {
                    say(format!(
                        "CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc"
                    ));
                    if meta::annotation(&claim.metadata, RESIZER) != Some(driver) {
                        let api: Api<PersistentVolumeClaim> = Api::namespaced(client, &key.namespace);
                        let patch = json!({ "metadata": { "uid": claim.metadata.uid, "annotations": { RESIZER: driver } } });
                        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
                        api.patch_status(&key.name, &params, &patch).await.ignore_not_found()?;
                    }
                }
            }
            Ok(Action::Done)
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn claim(uid: &str, asked: &str, held: &str) -> PersistentVolumeClaim {
        serde_json::from_value(json!({
            "metadata": { "name": "c", "namespace": "ns", "uid": uid },
            "spec": { "volumeName": "v", "resources": { "requests": { "storage": asked } } },
            "status": { "phase": "Bound", "capacity": { "storage": held } },
        }))
        .unwrap()
    }

    fn volume(source: Value, resized: bool) -> PersistentVolume {
        let mut volume = json!({ "metadata": { "name": "v" }, "spec": source });
        volume["spec"]["claimRef"] = json!({ "namespace": "ns", "name": "c", "uid": "u" });
        if resized {
            volume["metadata"]["annotations"] = json!({ PRE_RESIZE_CAPACITY: "1Gi" });
        }
        serde_json::from_value(volume).unwrap()
    }

    #[test]
    fn who_grows_a_volume() {
        let csi = || json!({ "csi": { "driver": "d", "volumeHandle": "h" } });
        let disk = || json!({ "gcePersistentDisk": { "pdName": "d" } });
        let migrated = Plan::Migrated("kubernetes.io/gce-pd", "pd.csi.storage.gke.io");
        for (claim, volume, expected) in [
            (claim("u", "1Gi", "1Gi"), volume(csi(), false), Ok(Plan::Nothing)),
            (claim("u", "1Gi", "2Gi"), volume(csi(), false), Ok(Plan::Nothing)),
            (claim("u", "2Gi", "1Gi"), volume(csi(), false), Ok(Plan::External)),
            (claim("u", "2Gi", "2Gi"), volume(csi(), true), Ok(Plan::External)),
            (claim("u", "2Gi", "1Gi"), volume(disk(), false), Ok(migrated)),
            (
                claim("x", "2Gi", "1Gi"),
                volume(csi(), false),
                Err("persistent Volume is not bound to PVC being updated : ns/c".to_owned()),
            ),
        ] {
            assert_eq!(plan(&claim, &volume), expected);
        }
    }

    #[test]
    fn only_growth_is_looked_at() {
        let (small, big) = (claim("u", "1Gi", "1Gi"), claim("u", "2Gi", "1Gi"));
        let grown = claim("u", "2Gi", "2Gi");
        assert!(wants_or_has_more(&small, &big) && wants_or_has_more(&big, &grown));
        assert!(!wants_or_has_more(&small, &small) && !wants_or_has_more(&big, &small));
    }
}
