//! Binds claims to volumes, and decides what becomes of volumes whose claims are gone.
//! As upstream's pkg/controller/volume/persistentvolume.
//!
//! Claims and volumes have a queue each, and one lock: every decision sees what the ones before it wrote, because
//! it waits until the caches show that. Upstream looks at everything again every fifteen seconds; here a claim is
//! looked at when something changes that it may have waited for: a volume that suits it, its class, a volume that
//! it names. Making volumes is left to provisioners; the claim carries the name of the one that is asked.
//! Of volumes that are to be deleted here, there are only directories of this machine below `/tmp`, as upstream
//! has it for tests; all others belong to a provisioner.

mod plan;
mod recycle;
mod steps;
#[cfg(test)]
mod tests;

use super::claims::{self, class_of_claim, class_of_volume, pods_by_claim, pods_of};
use super::in_tree::{self, Deleter};
use super::matching::best_match;
use crate::common::errors::IgnoreGone;
use crate::common::{errors, meta, pods};
use crate::context::{Context, enqueue_all, with};
use anyhow::Context as _;
use client::controller::Action;
use client::kube::api::{DeleteParams, PostParams};
use client::{Api, Client, Event, EventRecorder, EventType, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;
use steps::{Next, Plan, Step};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

const NAME: &str = "persistentvolume-binder-controller";
/// Volumes that are free, by class, and volumes that are kept, by claim.
const CANDIDATES: &str = "bindable";
/// Claims that name no volume, by class.
const UNBOUND: &str = "unbound";
/// Claims by the volume they name.
const BY_VOLUME: &str = "volume name";

/// The last versions of volumes and of claims that the controller wrote.
#[derive(Default)]
struct Wrote {
    volumes: u64,
    claims: u64,
}

#[derive(Clone)]
struct Binder(Arc<Shared>);

struct Shared {
    client: Client,
    recorder: EventRecorder,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    pods: Informer<Pod>,
    claim_queue: WorkQueue<ObjectKey>,
    provisions: bool,
    period: Duration,
    wrote: Mutex<Wrote>,
    token: CancellationToken,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (claims, volumes) = (cx.informer::<PersistentVolumeClaim>(), cx.informer::<PersistentVolume>());
    claims.add_index(UNBOUND, |claim| {
        let unbound = claims::volume_name(claim).is_empty();
        unbound.then(|| class_of_claim(claim).to_owned()).into_iter().collect()
    });
    claims.add_index(BY_VOLUME, |claim| vec![claims::volume_name(claim).to_owned()]);
    volumes.add_index(CANDIDATES, |volume| {
        vec![match claims::claim_ref(volume) {
            Some(claim) => format!("claim {}", claims::key_of(claim)),
            None => format!("class {}", class_of_volume(volume)),
        }]
    });
    let (claim_queue, volume_queue) = (WorkQueue::new("claims"), WorkQueue::new("volumes"));
    let binder = Binder(Arc::new(Shared {
        client: cx.client.clone(),
        recorder: cx.recorder("persistentvolume-controller"),
        claims,
        volumes,
        classes: cx.informer(),
        pods: pods_by_claim(cx),
        claim_queue: claim_queue.clone(),
        provisions: cx.config.flags.enable_dynamic_provisioning,
        period: cx.config.flags.pvclaimbinder_sync_period,
        wrote: Mutex::default(),
        token: cx.tasks.token(),
    }));
    binder.subscribe(&claim_queue, &volume_queue);
    let of_claims = with(&binder, |binder, key| async move { binder.claim(key).await });
    let of_volumes = with(&binder, |binder, key| async move { binder.volume(key).await });
    cx.work(NAME, claim_queue, 1, binder.clone().synced(), of_claims);
    cx.work(NAME, volume_queue, 1, binder.synced(), of_volumes);
}

impl Binder {
    async fn synced(self) {
        self.0.claims.synced().await;
        self.0.volumes.synced().await;
        self.0.classes.synced().await;
        self.0.pods.synced().await;
    }

    fn subscribe(&self, claim_queue: &WorkQueue<ObjectKey>, volume_queue: &WorkQueue<ObjectKey>) {
        let shared = &self.0;
        enqueue_all(&shared.claims, claim_queue);
        let keys = volume_queue.clone();
        shared.claims.subscribe(move |event| {
            let name = claims::volume_name(event.object());
            if matches!(event, Event::Deleted(_)) && !name.is_empty() {
                keys.add(ObjectKey::new("", name));
            }
        });
        enqueue_all(&shared.volumes, volume_queue);
        let (keys, claims) = (claim_queue.clone(), shared.claims.clone());
        shared.volumes.subscribe(move |event| {
            waiting_for_volume(event, &claims).into_iter().for_each(|key| keys.add(key));
        });
        let (keys, claims) = (claim_queue.clone(), shared.claims.clone());
        shared.classes.subscribe(move |event| {
            let class = event.object();
            let mut waiting = claims.store().indexed(UNBOUND, meta::name(&class.metadata));
            if claims::is_default(class) {
                waiting.extend(claims.store().indexed(UNBOUND, ""));
            }
            waiting.iter().for_each(|claim| keys.add(meta::key(&claim.metadata)));
        });
        let (keys, claims, later) = (claim_queue.clone(), shared.claims.clone(), shared.period);
        let volumes = volume_queue.clone();
        shared.pods.subscribe(move |event| {
            let pod = event.object();
            if let Some(volume) = recycle::volume_of(pod) {
                volumes.add(ObjectKey::new("", volume));
            }
            if matches!(event, Event::Added(_)) && pods::node_name(pod).is_empty() {
                let of_pod = claims::claims_of(pod).into_iter();
                let keys_of = of_pod.map(|name| ObjectKey::new(meta::namespace(&pod.metadata), name));
                keys_of.filter(|key| waits(&claims, key)).for_each(|key| keys.add_after(key, later));
            }
        });
    }

    async fn claim(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let mut wrote = self.0.wrote.lock().await;
        if !self.caught_up(&wrote).await {
            return Ok(Action::Done);
        }
        let Some(claim) = self.0.claims.store().get(&key) else { return Ok(Action::Done) };
        let plan = plan::claim(&claim, self);
        let about = (None, Some(claim.as_ref().clone()));
        self.carry_out(plan, about, &mut wrote).await?;
        Ok(Action::Done)
    }

    async fn volume(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let mut wrote = self.0.wrote.lock().await;
        if !self.caught_up(&wrote).await {
            return Ok(Action::Done);
        }
        let Some(volume) = self.0.volumes.store().get(&key) else { return Ok(Action::Done) };
        let claim = self.claim_of(&volume).await?;
        let plan = plan::volume(&volume, claim.as_ref());
        let about = (Some(volume.as_ref().clone()), claim);
        match self.carry_out(plan, about, &mut wrote).await? {
            (Next::Reclaim, Some(volume)) => self.reclaim(volume, &mut wrote).await,
            (Next::Claim(claim), _) => {
                self.0.claim_queue.add(claim);
                Ok(Action::Done)
            }
            _ => Ok(Action::Done),
        }
    }

    /// Waits until the caches show what was written; false when the controller is to stop.
    async fn caught_up(&self, wrote: &Wrote) -> bool {
        let caches = async {
            self.0.volumes.store().wait_for_version(wrote.volumes).await;
            self.0.claims.store().wait_for_version(wrote.claims).await;
        };
        tokio::select! {
            biased;
            () = self.0.token.cancelled() => false,
            () = caches => true,
        }
    }

    /// The claim that a volume is bound to, if it exists. Before a claim counts as gone it is read live.
    async fn claim_of(&self, volume: &PersistentVolume) -> anyhow::Result<Option<PersistentVolumeClaim>> {
        let Some(reference) = claims::claim_ref(volume) else { return Ok(None) };
        let key = claims::key_of(reference);
        let same = |claim: &PersistentVolumeClaim| meta::uid(&claim.metadata) == claims::uid_of(reference);
        match self.0.claims.store().get(&key) {
            Some(claim) if same(&claim) => return Ok(Some(claim.as_ref().clone())),
            None if matches!(claims::volume_phase(volume), "Released" | "Failed") => return Ok(None),
            _ => {}
        }
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.0.client.clone(), &key.namespace);
        Ok(api.get(&key.name).await.ignore_not_found()?.filter(same))
    }

    /// Writes what the plan says, each time with what the server answered last. Returns the volume as it is then.
    async fn carry_out(
        &self,
        plan: Plan,
        about: (Option<PersistentVolume>, Option<PersistentVolumeClaim>),
        wrote: &mut Wrote,
    ) -> anyhow::Result<(Next, Option<PersistentVolume>)> {
        let (mut volume, mut claim) = about;
        for step in plan.steps {
            self.write(step, &mut volume, &mut claim, wrote).await?;
        }
        if let Next::Fail(why) = plan.next {
            anyhow::bail!(why);
        }
        Ok((plan.next, volume))
    }

    async fn write(
        &self,
        step: Step,
        volume: &mut Option<PersistentVolume>,
        claim: &mut Option<PersistentVolumeClaim>,
        wrote: &mut Wrote,
    ) -> anyhow::Result<()> {
        let params = PostParams::default();
        match step {
            Step::Volume(wanted) => {
                let wanted = after(*wanted, volume.as_ref().map(|last| &last.metadata), volume_meta);
                let api: Api<PersistentVolume> = Api::all(self.0.client.clone());
                *volume = Some(api.replace(meta::name(&wanted.metadata), &params, &wanted).await?);
            }
            Step::VolumeStatus(wanted) => {
                let wanted = after(*wanted, volume.as_ref().map(|last| &last.metadata), volume_meta);
                let api: Api<PersistentVolume> = Api::all(self.0.client.clone());
                *volume = Some(api.replace_status(meta::name(&wanted.metadata), &params, &wanted).await?);
            }
            Step::Claim(wanted) => {
                let wanted = after(*wanted, claim.as_ref().map(|last| &last.metadata), claim_meta);
                let api = self.claims_in(meta::namespace(&wanted.metadata));
                *claim = Some(api.replace(meta::name(&wanted.metadata), &params, &wanted).await?);
            }
            Step::ClaimStatus(wanted) => {
                let wanted = after(*wanted, claim.as_ref().map(|last| &last.metadata), claim_meta);
                let api = self.claims_in(meta::namespace(&wanted.metadata));
                *claim = Some(api.replace_status(meta::name(&wanted.metadata), &params, &wanted).await?);
            }
            Step::ClaimEvent(kind, reason, message) => {
                if let Some(claim) = claim {
                    self.0.recorder.object_event(claim, kind, reason, message);
                }
            }
            Step::VolumeEvent(kind, reason, message) => {
                if let Some(volume) = volume {
                    self.0.recorder.object_event(volume, kind, reason, message);
                }
            }
        }
        let version = |meta: Option<&ObjectMeta>| meta.map_or(0, meta::resource_version);
        wrote.volumes = wrote.volumes.max(version(volume.as_ref().map(|volume| &volume.metadata)));
        wrote.claims = wrote.claims.max(version(claim.as_ref().map(|claim| &claim.metadata)));
        Ok(())
    }

    fn claims_in(&self, namespace: &str) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.0.client.clone(), namespace)
    }

    /// Does with a volume whose claim is gone as its policy says.
    async fn reclaim(&self, volume: PersistentVolume, wrote: &mut Wrote) -> anyhow::Result<Action> {
        if meta::annotation(&volume.metadata, claims::MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) {
            return Ok(Action::Done);
        }
        match claims::reclaim_policy(&volume) {
            "Retain" => Ok(Action::Done),
            "Recycle" => self.recycle(volume, wrote).await,
            "Delete" => self.delete(volume, wrote).await,
            _ => {
                let message = "Volume has unrecognized PersistentVolumeReclaimPolicy";
                self.fail(volume, "VolumeUnknownReclaimPolicy", message, wrote).await
            }
        }
    }

    async fn fail(
        &self,
        volume: PersistentVolume,
        reason: &'static str,
        message: &str,
        wrote: &mut Wrote,
    ) -> anyhow::Result<Action> {
        let mut steps = Vec::new();
        steps::fail_volume(volume.clone(), reason, message, &mut steps);
        self.carry_out(Plan::of(steps), (Some(volume), None), wrote).await?;
        Ok(Action::Done)
    }

    async fn delete(&self, volume: PersistentVolume, wrote: &mut Wrote) -> anyhow::Result<Action> {
        let path = match in_tree::deleter(&volume) {
            Deleter::External => return Ok(Action::Done),
            Deleter::Missing(why) => return self.fail(volume, "VolumeFailedDelete", &why, wrote).await,
            Deleter::HostPath(path) => path,
        };
        if let Err(why) = remove_directory(&path).await {
            return self.fail(volume, "VolumeFailedDelete", &why, wrote).await;
        }
        let name = meta::name(&volume.metadata).to_owned();
        if let Some(freed) = steps::without_finalizer(&volume) {
            let plan = Plan::of(vec![Step::Volume(Box::new(freed))]);
            self.carry_out(plan, (Some(volume.clone()), None), wrote).await?;
        }
        let api: Api<PersistentVolume> = Api::all(self.0.client.clone());
        api.delete(&name, &DeleteParams::default()).await.ignore_not_found()?;
        Ok(Action::Done)
    }

    async fn recycle(&self, volume: PersistentVolume, wrote: &mut Wrote) -> anyhow::Result<Action> {
        let claim = claims::claim_ref(&volume).map(claims::key_of).unwrap_or_default();
        let users = pods_of(&self.0.pods, &claim);
        let users: Vec<_> = users.iter().filter(|pod| !claims::is_terminated(pod)).collect();
        if !users.is_empty() && self.0.claims.store().get(&claim).is_none() {
            let names: Vec<_> = users.iter().map(|pod| meta::key(&pod.metadata).to_string()).collect();
            let message = format!("Volume is used by pods: {}", names.join(","));
            self.0.recorder.object_event(&volume, EventType::Normal, "VolumeFailedRecycle", message);
            return Ok(Action::RequeueAfter(self.0.period));
        }
        let name = recycle::pod_name(meta::name(&volume.metadata));
        let pod = self.0.pods.store().get(&ObjectKey::new(recycle::NAMESPACE, name.as_str()));
        let api: Api<Pod> = Api::namespaced(self.0.client.clone(), recycle::NAMESPACE);
        let remove = async || api.delete(&name, &DeleteParams::default()).await.ignore_not_found();
        match recycle::progress(&volume, pod.as_deref()) {
            None => {
                let message = "No recycler plugin found for the volume!";
                return self.fail(volume, "VolumeFailedRecycle", message, wrote).await;
            }
            Some(recycle::Progress::Wait) => {}
            Some(recycle::Progress::Clear) => drop(remove().await?),
            Some(recycle::Progress::Start(pod)) => match api.create(&PostParams::default(), &pod).await {
                // The cache does not show it yet.
                Err(error) if errors::is_already_exists(&error) => {}
                outcome => drop(outcome.context("create the pod that empties the volume")?),
            },
            Some(recycle::Progress::Failed(why)) => {
                remove().await?;
                return self.fail(volume, "VolumeFailedRecycle", &why, wrote).await;
            }
            Some(recycle::Progress::Emptied) => {
                remove().await?;
                self.0.recorder.object_event(&volume, EventType::Normal, "VolumeRecycled", "Volume recycled");
                let mut steps = Vec::new();
                steps::unbind(volume.clone(), &mut steps);
                self.carry_out(Plan::of(steps), (Some(volume), None), wrote).await?;
            }
        }
        Ok(Action::Done)
    }
}

fn volume_meta(volume: &mut PersistentVolume) -> &mut ObjectMeta {
    &mut volume.metadata
}

fn claim_meta(claim: &mut PersistentVolumeClaim) -> &mut ObjectMeta {
    &mut claim.metadata
}

/// The object with the version that the last write of it made.
fn after<K>(mut object: K, last: Option<&ObjectMeta>, meta_of: fn(&mut K) -> &mut ObjectMeta) -> K {
    if let Some(last) = last.filter(|last| last.uid == meta_of(&mut object).uid) {
        let meta = meta_of(&mut object);
        meta.resource_version.clone_from(&last.resource_version);
        meta.managed_fields.clone_from(&last.managed_fields);
    }
    object
}

/// The claims that a change of a volume may matter to: those that name it, the one it is kept for, and those
/// without a volume that it suits.
fn waiting_for_volume(
    event: &Event<PersistentVolume>,
    claims: &Informer<PersistentVolumeClaim>,
) -> Vec<ObjectKey> {
    let volume = event.object();
    let mut waiting = claims.store().indexed(BY_VOLUME, meta::name(&volume.metadata));
    if let Some(reference) = claims::claim_ref(volume) {
        waiting.extend(claims.store().get(&claims::key_of(reference)));
    } else if !matches!(event, Event::Deleted(_)) {
        let suits = |claim: &Arc<PersistentVolumeClaim>| {
            best_match(claim, vec![volume.clone()], false).is_ok_and(|best| best.is_some())
        };
        let unbound = claims.store().indexed(UNBOUND, class_of_volume(volume));
        waiting.extend(unbound.into_iter().filter(suits));
    }
    waiting.iter().map(|claim| meta::key(&claim.metadata)).collect()
}

/// Whether a claim exists and has no volume.
fn waits(claims: &Informer<PersistentVolumeClaim>, key: &ObjectKey) -> bool {
    claims.store().get(key).is_some_and(|claim| claims::volume_name(&claim).is_empty())
}

/// Removes a directory of this machine, if it is one that volumes for tests may have.
async fn remove_directory(path: &str) -> Result<(), String> {
    let plain =
        Path::new(path).components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !plain || !Path::new(path).starts_with("/tmp") || Path::new(path).components().count() < 3 {
        return Err(format!("host_path deleter only supports /tmp/.+ but received provided {path}"));
    }
    match tokio::fs::remove_dir_all(path).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    }
}

impl plan::View for Binder {
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.0.volumes.store().get(&ObjectKey::new("", name))
    }

    fn candidates(&self, claim: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
        let store = self.0.volumes.store();
        let mut volumes = store.indexed(CANDIDATES, &format!("claim {}", meta::key(&claim.metadata)));
        volumes.extend(store.indexed(CANDIDATES, &format!("class {}", class_of_claim(claim))));
        volumes
    }

    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.0.classes.store().get(&ObjectKey::new("", name))
    }

    fn default_class(&self) -> Option<Arc<StorageClass>> {
        claims::default_class(self.0.classes.store().list())
    }

    fn unscheduled_pods(&self, claim: &PersistentVolumeClaim) -> Vec<String> {
        let pods = pods_of(&self.0.pods, &meta::key(&claim.metadata));
        let waiting =
            pods.iter().filter(|pod| !claims::is_terminated(pod) && pods::node_name(pod).is_empty());
        waiting.map(|pod| meta::name(&pod.metadata).to_owned()).collect()
    }

    fn provisions(&self) -> bool {
        self.0.provisions
    }
}
