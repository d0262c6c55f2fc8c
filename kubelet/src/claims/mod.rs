//! Claims for devices of drivers (upstream's DRA manager, KEP-4381): prepared before a pod's sandbox is made, taken back
//! when the last pod that uses them has ended.
//!
//! What is about to be prepared is written down before a driver is called (`cache`), so that nothing stays prepared that
//! nobody remembers. Drivers register like other plugins (`driver`, `drivers`); one task takes back what pods left
//! behind.

mod cache;
mod connection;
mod driver;
mod drivers;
mod health;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::{Api, Client, Tasks};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus, ResourceHealth, ResourceStatus};
use k8s_openapi::api::resource::v1::ResourceClaim;
use parking_lot::Mutex;
use tokio::time::Instant;

pub use cache::Device;

use crate::devices::HealthChanged;
use crate::types;
use cache::{Claim, Claims as Cache};
use driver::{Driver, Named};
use drivers::Drivers;
use health::{Health, Id};

/// How often claims of pods that are gone are looked for.
const RECONCILE: Duration = Duration::from_secs(60);

/// The claims of this node; clones share them.
#[derive(Clone)]
pub struct Claims {
    inner: Arc<Inner>,
}

struct Inner {
    client: Option<Client>,
    node_name: String,
    path: PathBuf,
    tasks: Tasks,
    cache: Mutex<Cache>,
    drivers: Mutex<Drivers>,
    health: Mutex<Health>,
    on_health: OnceLock<HealthChanged>,
    /// One pod at a time: claims may be shared.
    turn: tokio::sync::Mutex<()>,
}

/// A claim that a container uses, for those who ask.
#[derive(Clone, Debug, PartialEq)]
pub struct Used {
    /// Name of the claim.
    pub name: String,
    /// Namespace of the claim.
    pub namespace: String,
    /// Its devices, with their drivers.
    pub devices: Vec<(String, Device)>,
}

/// A claim to prepare, with what is known of it.
struct Wanted {
    claim: Claim,
    drivers: Vec<Driver>,
}

impl Claims {
    /// Claims as the file in the directory knows them.
    pub fn open(
        client: Option<Client>,
        node_name: String,
        directory: &Path,
        tasks: &Tasks,
    ) -> Result<Self, String> {
        let path = directory.join(cache::FILE);
        let known = cache::read(&path).map_err(|error| {
            let error = client::chain(&error);
            format!("could not initialize checkpoint manager, please drain node and remove DRA state file, err: {error}")
        })?;
        let inner = Inner {
            client,
            node_name,
            path,
            tasks: tasks.clone(),
            cache: Mutex::new(known),
            drivers: Mutex::default(),
            health: Mutex::default(),
            on_health: OnceLock::new(),
            turn: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Lets somebody know of pods one of whose devices became well or ill.
    pub fn on_health(&self, changed: HealthChanged) {
        // A second call finds the first in place, and that is as good.
        drop(self.inner.on_health.set(changed));
    }

    /// Starts taking back what pods that are not active left behind.
    pub fn run(&self, active: impl Fn(&str) -> bool + Send + Sync + 'static, tasks: &Tasks) {
        let this = self.clone();
        // No driver is there yet, and some may not come back: those that do publish their devices anew.
        tasks.spawn("devices-of-before", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = this.wipe(None) => {}
            }
        });
        let this = self.clone();
        tasks.spawn("claims", |token| async move {
            loop {
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(RECONCILE) => {}
                }
                tokio::select! {
                    () = token.cancelled() => return,
                    () = this.reconcile(&active) => {}
                }
            }
        });
    }

    /// Takes back what pods that are not active left behind.
    pub(crate) async fn reconcile(&self, active: &(impl Fn(&str) -> bool + Sync)) {
        let mut left: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
        for claim in self.inner.cache.lock().values() {
            for uid in claim.pods.iter().filter(|uid| !active(uid)) {
                let pod = left.entry((uid.clone(), claim.namespace.clone())).or_default();
                pod.push(claim.name.clone());
            }
        }
        for ((uid, namespace), names) in left {
            if let Err(error) = self.take_back(&uid, &namespace, &names).await {
                tracing::warn!(uid, error, "claims of a pod that is gone are still prepared, will retry");
            }
        }
    }

    /// Tells of the pods that have one of these devices.
    fn tell(&self, driver: &str, changed: &[Id]) {
        let Some(on_health) = self.inner.on_health.get() else { return };
        let has = |claim: &Claim| {
            let devices = claim.drivers.get(driver).and_then(|state| state.devices.as_ref());
            let is = |device: &Device, id: &Id| (&device.pool_name, &device.device_name) == (&id.0, &id.1);
            devices.into_iter().flatten().any(|device| changed.iter().any(|id| is(device, id)))
        };
        let cache = self.inner.cache.lock();
        let pods: BTreeSet<String> =
            cache.values().filter(|claim| has(claim)).flat_map(|claim| claim.pods.clone()).collect();
        drop(cache);
        pods.iter().for_each(|uid| on_health(uid));
    }

    /// Writes into a pod's status how the devices of its containers' claims are.
    pub fn update_status(&self, pod: &Pod, status: &mut PodStatus) {
        for container in status.container_statuses.iter_mut().flatten() {
            let own = types::spec(pod).containers.iter().find(|own| own.name == container.name);
            let claims = own.and_then(|own| own.resources.as_ref()).and_then(|r| r.claims.as_ref());
            for claim in claims.into_iter().flatten() {
                let Ok(Some((name, _))) = name(pod, &claim.name) else { continue };
                let request = claim.request.as_deref().unwrap_or_default();
                let resources = self.resources(types::namespace(pod), &name, request);
                if resources.is_empty() {
                    continue;
                }
                let slash = if request.is_empty() { "" } else { "/" };
                let name = format!("claim:{}{slash}{request}", claim.name);
                let told = ResourceStatus { name, resources: Some(resources) };
                let all = container.allocated_resources_status.get_or_insert_default();
                all.retain(|other| other.name != told.name);
                all.push(told);
            }
        }
    }

    /// How the devices of a claim are that are for a request.
    fn resources(&self, namespace: &str, claim: &str, request: &str) -> Vec<ResourceHealth> {
        let (cache, known) = (self.inner.cache.lock(), self.inner.health.lock());
        // A choice within a request counts as the request.
        let request = request.split('/').next().unwrap_or_default();
        let Some(claim) = cache.get(&(namespace.to_owned(), claim.to_owned())) else { return Vec::new() };
        let mut resources: Vec<ResourceHealth> = Vec::new();
        for (driver, device) in claim.devices(request) {
            let cdi = device.cdi_device_ids.iter().flatten().next().cloned();
            let id = cdi.unwrap_or_else(|| format!("{driver}/{}/{}", device.pool_name, device.device_name));
            if resources.iter().all(|other| other.resource_id != id) {
                let (state, message) = known.of(driver, device, Instant::now());
                let health = Some(state.word().to_owned());
                resources.push(ResourceHealth { resource_id: id, health, message });
            }
        }
        resources
    }

    /// Prepares the claims of a pod. Repeatable; the text of a failure is upstream's.
    pub async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        let started = Instant::now();
        let prepared = self.try_prepare(pod).await;
        record("PrepareResources", started, prepared.is_err());
        prepared.map_err(|error| format!("prepare dynamic resources: {error}"))
    }

    async fn try_prepare(&self, pod: &Pod) -> Result<(), String> {
        if !uses_claims(pod) {
            return Ok(());
        }
        let _turn = self.inner.turn.lock().await;
        // Looked at as a whole first: what cannot be used leaves no trace that somebody had to clear away.
        let mut wanted = Vec::new();
        for (name, own) in names(pod)? {
            wanted.push(self.wanted(pod, &name, own).await?);
        }
        let mut batches: BTreeMap<String, (Driver, Vec<Named>)> = BTreeMap::new();
        for Wanted { claim, drivers } in wanted {
            let named = named(&claim);
            if self.note(pod, claim)? {
                continue;
            }
            for driver in drivers {
                batches
                    .entry(driver.name.clone())
                    .or_insert_with(|| (driver, Vec::new()))
                    .1
                    .push(named.clone());
            }
        }
        for (driver, claims) in batches.values() {
            self.call_prepare(driver, claims).await?;
        }
        let mut cache = self.inner.cache.lock();
        for claim in batches.values().flat_map(|(_, claims)| claims) {
            if let Some(known) = cache.get_mut(&(claim.namespace.clone(), claim.name.clone())) {
                known.prepared = true;
            }
        }
        self.keep(&cache)
    }

    /// A claim of the pod, if the pod may use it and its drivers are there.
    async fn wanted(&self, pod: &Pod, name: &str, own: bool) -> Result<Wanted, String> {
        let client =
            self.inner.client.clone().ok_or_else(|| format!("fetch ResourceClaim {name}: no API"))?;
        let namespace = types::namespace(pod);
        let claims: Api<ResourceClaim> = Api::namespaced(client, namespace);
        let claim = claims.get(name).await;
        let claim =
            claim.map_err(|error| format!("fetch ResourceClaim {name}: {}", client::chain(&error)))?;
        let uid = types::uid(pod);
        let owners = claim.metadata.owner_references.iter().flatten();
        if own && !owners.clone().any(|owner| owner.controller == Some(true) && owner.uid == uid) {
            return Err(format!(
                "ResourceClaim {namespace}/{name} was not created for Pod {namespace}/{} (Pod is not owner)",
                types::name(pod)
            ));
        }
        let mut users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
        if !users.any(|user| user.uid == uid) {
            return Err(format!(
                "pod {} ({uid}) is not allowed to use ResourceClaim {name} ({})",
                types::name(pod),
                claim.metadata.uid.as_deref().unwrap_or_default()
            ));
        }
        let claim = Claim::of(&claim).map_err(|error| format!("ResourceClaim {name}: {error}"))?;
        let drivers = claim.drivers.keys().map(|driver| self.driver(driver)).collect::<Result<_, _>>()?;
        Ok(Wanted { claim, drivers })
    }

    /// Writes down that a pod uses a claim. Whether the claim is prepared already.
    fn note(&self, pod: &Pod, claim: Claim) -> Result<bool, String> {
        let mut cache = self.inner.cache.lock();
        let key = (claim.namespace.clone(), claim.name.clone());
        let known = cache.entry(key).or_insert_with(|| claim.clone());
        if known.uid != claim.uid {
            return Err(format!(
                "old ResourceClaim with same name {} and different UID {} still exists (previous pod force-deleted?!)",
                claim.name, known.uid
            ));
        }
        known.pods.insert(types::uid(pod).to_owned());
        let prepared = known.prepared;
        self.keep(&cache)?;
        Ok(prepared)
    }

    async fn call_prepare(&self, driver: &Driver, claims: &[Named]) -> Result<(), String> {
        let answer =
            driver.prepare(claims).await.map_err(|error| format!("NodePrepareResources: {error}"))?;
        let missing = claims.len().saturating_sub(answer.len());
        for (uid, result) in answer {
            let asked = claims.iter().find(|claim| claim.uid == uid);
            let asked = asked
                .ok_or_else(|| format!("NodePrepareResources returned result for unknown claim UID {uid}"))?;
            let devices = result.map_err(|error| {
                format!("NodePrepareResources failed for ResourceClaim {}: {error}", asked.name)
            })?;
            let mut cache = self.inner.cache.lock();
            let known = cache.get_mut(&(asked.namespace.clone(), asked.name.clone()));
            let state = known.and_then(|claim| claim.drivers.get_mut(&driver.name));
            // Prepared again after a restart, the devices are told again.
            state.ok_or("internal error: claim is forgotten")?.devices = Some(devices);
        }
        if missing > 0 {
            return Err(format!("NodePrepareResources skipped {missing} ResourceClaims"));
        }
        Ok(())
    }

    /// Takes the claims of a pod back that no other pod uses. Repeatable; the text of a failure is upstream's.
    pub async fn unprepare(&self, pod: &Pod) -> Result<(), String> {
        let names: Vec<String> = {
            let cache = self.inner.cache.lock();
            let held = cache.values().filter(|claim| claim.pods.contains(types::uid(pod)));
            held.map(|claim| claim.name.clone()).collect()
        };
        if names.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let taken = self.take_back(types::uid(pod), types::namespace(pod), &names).await;
        record("UnprepareResources", started, taken.is_err());
        taken.map_err(|error| format!("unprepare dynamic resources: {error}"))
    }

    async fn take_back(&self, uid: &str, namespace: &str, names: &[String]) -> Result<(), String> {
        let _turn = self.inner.turn.lock().await;
        let mut batches: BTreeMap<String, Vec<Named>> = BTreeMap::new();
        let mut last = BTreeSet::new();
        {
            let mut cache = self.inner.cache.lock();
            for name in names {
                let key = (namespace.to_owned(), name.clone());
                let Some(claim) = cache.get_mut(&key) else { continue };
                if claim.pods.len() > 1 {
                    // Written down below; until then, asking again does no harm.
                    claim.pods.remove(uid);
                    continue;
                }
                last.insert(key);
                for driver in claim.drivers.keys() {
                    batches.entry(driver.clone()).or_default().push(named(claim));
                }
            }
        }
        for (driver, claims) in &batches {
            let answer = self.driver(driver)?.unprepare(claims).await;
            let answer = answer.map_err(|error| format!("NodeUnprepareResources: {error}"))?;
            for (uid, result) in &answer {
                let asked = claims.iter().find(|claim| claim.uid == *uid).ok_or_else(|| {
                    format!("NodeUnprepareResources returned result for unknown claim UID {uid}")
                })?;
                if let Err(error) = result {
                    let name = &asked.name;
                    return Err(format!("NodeUnprepareResources failed for ResourceClaim {name}: {error}"));
                }
            }
            let missing = claims.len().saturating_sub(answer.len());
            if missing > 0 {
                return Err(format!("NodeUnprepareResources skipped {missing} ResourceClaims"));
            }
        }
        let mut cache = self.inner.cache.lock();
        cache.retain(|key, _| !last.contains(key));
        self.keep(&cache)
    }

    fn keep(&self, cache: &Cache) -> Result<(), String> {
        cache::write(&self.inner.path, cache)
            .map_err(|error| format!("checkpoint ResourceClaim state: {}", client::chain(&error)))
    }

    /// The qualified CDI names of a container's devices; the text of a failure is upstream's.
    pub fn cdi_devices(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, String> {
        let namespace = types::namespace(pod);
        let cache = self.inner.cache.lock();
        let mut found = Vec::new();
        for (name, request) in requests(pod, container)? {
            let claim = cache.get(&(namespace.to_owned(), name.clone())).ok_or_else(|| {
                format!(
                    "internal error: unable to get claim info for ResourceClaim {name} in namespace {namespace}"
                )
            })?;
            for (_, device) in claim.devices(&request) {
                found.extend(device.cdi_device_ids.iter().flatten().cloned());
            }
        }
        Ok(found)
    }

    /// The claims that a container uses.
    #[must_use]
    pub fn of_container(&self, pod: &Pod, container: &Container) -> Vec<Used> {
        let cache = self.inner.cache.lock();
        let names: BTreeSet<String> =
            requests(pod, container).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
        let claims =
            names.into_iter().filter_map(|name| cache.get(&(types::namespace(pod).to_owned(), name)));
        let used = claims.map(|claim| Used {
            name: claim.name.clone(),
            namespace: claim.namespace.clone(),
            devices: claim.devices("").map(|(driver, device)| (driver.to_owned(), device.clone())).collect(),
        });
        used.collect()
    }
}

fn named(claim: &Claim) -> Named {
    Named { namespace: claim.namespace.clone(), uid: claim.uid.clone(), name: claim.name.clone() }
}

fn record(operation: &'static str, started: Instant, failed: bool) {
    let labels = [("operation_name", operation.to_owned()), ("is_error", failed.to_string())];
    metrics::histogram!("kubelet_dra_operations_duration_seconds", &labels).record(started.elapsed());
}

fn extended(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::PodExtendedResourceClaimStatus> {
    pod.status.as_ref()?.extended_resource_claim_status.as_ref()
}

fn uses_claims(pod: &Pod) -> bool {
    types::spec(pod).resource_claims.as_ref().is_some_and(|claims| !claims.is_empty())
        || extended(pod).is_some()
}

/// The name of one of the pod's claims, and whether it was made for the pod; `None` where none is needed.
fn name(pod: &Pod, claim: &str) -> Result<Option<(String, bool)>, String> {
    let mut all = types::spec(pod).resource_claims.iter().flatten();
    let Some(found) = all.find(|own| own.name == claim) else { return Ok(None) };
    let about = format!("pod \"{}/{}\"", types::namespace(pod), types::name(pod));
    if let Some(name) = &found.resource_claim_name {
        return Ok(Some((name.clone(), false)));
    }
    if found.resource_claim_template_name.is_none() {
        return Err(format!("{about}, spec.resourceClaim {claim:?}: none of the supported fields are set"));
    }
    let mut made = pod.status.iter().flat_map(|s| s.resource_claim_statuses.iter().flatten());
    let made = made.find(|status| status.name == claim);
    let made = made.ok_or_else(|| format!("{about}: ResourceClaim not created yet"))?;
    Ok(made.resource_claim_name.clone().map(|name| (name, true)))
}

/// The names of all claims of the pod, and whether each was made for it.
fn names(pod: &Pod) -> Result<Vec<(String, bool)>, String> {
    let mut found = Vec::new();
    for claim in types::spec(pod).resource_claims.iter().flatten() {
        found.extend(name(pod, &claim.name)?);
    }
    found.extend(extended(pod).map(|claim| (claim.resource_claim_name.clone(), false)));
    Ok(found)
}

/// What a container asks of which claims: the claim's name, and the request, empty for all of it.
fn requests(pod: &Pod, container: &Container) -> Result<Vec<(String, String)>, String> {
    let resources = container.resources.as_ref();
    let mut found = Vec::new();
    for own in resources.iter().flat_map(|r| r.claims.iter().flatten()) {
        if let Some((name, _)) = name(pod, &own.name)? {
            found.push((name, own.request.clone().unwrap_or_default()));
        }
    }
    let asked = resources.and_then(|r| r.requests.as_ref());
    if let (Some(claim), Some(asked)) = (extended(pod), asked) {
        let own = claim.request_mappings.iter().filter(|mapping| {
            mapping.container_name == container.name && asked.contains_key(&mapping.resource_name)
        });
        found.extend(own.map(|mapping| (claim.resource_claim_name.clone(), mapping.request_name.clone())));
    }
    Ok(found)
}
