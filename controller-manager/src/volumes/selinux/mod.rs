//! Says of pods that use the same volume when their SELinux labels, or the ways these are put on the volume, do not go
//! together: on one node, only one of them could use it. Of use where nodes run SELinux; off unless it is asked for.
//! As upstream's pkg/controller/volume/selinuxwarning.
//!
//! All pods are looked at, wherever they run or wait. A volume that is not known yet is no error here: the claim or
//! the volume that it waits for wakes its pods.

mod conflicts;
mod plan;

use super::claims::{self, pods_by_claim, pods_of};
use crate::common::{meta, pods};
use crate::context::{Context, with};
use client::controller::Action;
use client::{Event, EventRecorder, EventType, Informer, ObjectKey, WorkQueue};
use conflicts::{Conflict, Conflicts};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::api::storage::v1::CSIDriver;
use parking_lot::Mutex;
use plan::Source;
use std::sync::Arc;

const NAME: &str = "selinux-warning-controller";

struct Controller {
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CSIDriver>,
    recorder: EventRecorder,
    conflicts: Mutex<Conflicts>,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let controller = Arc::new(Controller {
        pods: pods_by_claim(cx),
        claims: cx.informer(),
        volumes: cx.informer(),
        drivers: cx.informer(),
        recorder: cx.recorder("selinux_warning"),
        conflicts: Mutex::default(),
    });
    let queue = WorkQueue::new("selinux_warning");
    controller.subscribe(&queue);
    let waiting = controller.clone();
    let synced = async move {
        waiting.pods.synced().await;
        waiting.claims.synced().await;
        waiting.volumes.synced().await;
        waiting.drivers.synced().await;
    };
    let reconcile = |controller: Arc<Controller>, key| async move {
        controller.reconcile(&key);
        Ok(Action::Done)
    };
    cx.work(NAME, queue, 1, synced, with(&controller, reconcile));
}

impl Controller {
    fn subscribe(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>) {
        let keys = queue.clone();
        self.pods.subscribe(move |event| match event {
            // What matters here of a pod does not change, but that it ends.
            Event::Updated { old, new } if pods::is_terminal(old) == pods::is_terminal(new) => {}
            _ => keys.add(meta::key(&event.object().metadata)),
        });
        let (keys, users) = (queue.clone(), self.pods.clone());
        let wake = move |claim: &ObjectKey| {
            pods_of(&users, claim).iter().for_each(|pod| keys.add(meta::key(&pod.metadata)));
        };
        let wake_by_claim = wake.clone();
        self.claims.subscribe(move |event| match event {
            Event::Updated { old, new } if claims::volume_name(old) == claims::volume_name(new) => {}
            Event::Added(claim) | Event::Updated { new: claim, .. } => {
                wake_by_claim(&meta::key(&claim.metadata));
            }
            Event::Deleted(_) => {}
        });
        self.volumes.subscribe(move |event| {
            let (old, new) = match event {
                Event::Added(new) => (None, new),
                Event::Updated { old, new } => (claims::claim_ref(old), new),
                Event::Deleted(_) => return,
            };
            let Some(claim) = claims::claim_ref(new).filter(|claim| !claims::uid_of(claim).is_empty()) else {
                return;
            };
            if old.is_none_or(|old| claims::uid_of(old) != claims::uid_of(claim)) {
                wake(&claims::key_of(claim));
            }
        });
        let (keys, controller) = (queue.clone(), Arc::downgrade(self));
        self.drivers.subscribe(move |event| {
            let mounts = |driver: &CSIDriver| driver.spec.se_linux_mount.unwrap_or(false);
            let differs = match event {
                Event::Added(_) => true,
                Event::Updated { old, new } => mounts(old) != mounts(new),
                Event::Deleted(driver) => mounts(driver),
            };
            if let Some(controller) = controller.upgrade().filter(|_| differs) {
                let name = meta::name(&event.object().metadata);
                controller.conflicts.lock().users_of_driver(name).into_iter().for_each(|key| keys.add(key));
            }
        });
    }

    fn reconcile(&self, key: &ObjectKey) {
        let Some(pod) = self.pods.store().get(key).filter(|pod| !pods::is_terminal(pod)) else {
            return self.conflicts.lock().forget(key);
        };
        let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
        for (name, options) in plan::mounted(&pod) {
            let Some(volume) = volumes.iter().find(|volume| volume.name == name) else { continue };
            let Some(source) = self.source(&pod, volume) else { continue };
            match plan::usage(&pod, &source, &options) {
                Ok(usage) => {
                    let found = self.conflicts.lock().add(&source, key, usage);
                    found.iter().for_each(|conflict| self.say(conflict));
                }
                Err(plan::SeveralLabels) => {
                    let message = format!(
                        "Volume {name:?} is mounted twice with different SELinux labels inside this pod"
                    );
                    self.recorder.object_event(&*pod, EventType::Warning, "MultipleSELinuxLabels", message);
                }
            }
        }
    }

    /// What a volume of a pod is, if pods can share it and SELinux matters for it.
    fn source(&self, pod: &Pod, volume: &Volume) -> Option<Source> {
        let mounts = |driver: &str| {
            let driver = self.drivers.store().get(&ObjectKey::new("", driver));
            driver.is_some_and(|driver| driver.spec.se_linux_mount.unwrap_or(false))
        };
        let Some(claim) = claims::claim_name(pod, volume) else { return plan::inline(volume) };
        let claim =
            self.claims.store().get(&ObjectKey::new(meta::namespace(&pod.metadata), claim.as_str()))?;
        let volume = self.volumes.store().get(&ObjectKey::new("", claims::volume_name(&claim)))?;
        let given = claims::claim_ref(&volume)?;
        (claims::uid_of(given) == meta::uid(&claim.metadata)).then_some(())?;
        plan::source(&volume, mounts)
    }

    fn say(&self, conflict: &Conflict) {
        if let Some(pod) = self.pods.store().get(&conflict.pod) {
            let (reason, message) = (conflict.property.reason(), conflict.message());
            self.recorder.object_event(&*pod, EventType::Normal, reason, message);
        }
    }
}
