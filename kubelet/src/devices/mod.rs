//! Devices of this node, which plugins bring and containers get (upstream's device manager, device plugin API v1beta1).
//!
//! A plugin registers, then tells of its devices for as long as it lives: one task per plugin listens (`server`,
//! `plugin`). Who gets what is decided over a `state` (`choose`, pure), asked of the plugin, and written down before the
//! pod runs (`checkpoint`), so that a restart of the kubelet takes nothing away and gives nothing twice. Whoever
//! allocates does it for one container at a time.

mod checkpoint;
mod choose;
mod hints;
mod options;
mod plugin;
mod pods;
mod server;
mod state;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use client::Tasks;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodStatus, ResourceHealth, ResourceStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use options::DeviceOptions;
pub(crate) use server::is_extended;
pub use state::Capacity;

use crate::checkpoint::Behind;
use crate::topology::{Hint, Hints};
use crate::{quantity, types};
use choose::{Choice, Request, choose};
use plugin::Plugin;
use state::State;

/// Told the UID of a pod one of whose devices became well or ill.
pub type HealthChanged = Box<dyn Fn(&str) + Send + Sync>;

/// What devices are made with.
pub struct Deps {
    /// Directory of the plugins' sockets and of the file of what was given.
    pub directory: PathBuf,
    /// NUMA nodes of the machine.
    pub numa: Vec<usize>,
    /// Told when what the node has changes.
    pub poke: Arc<Notify>,
    /// Who listens to plugins.
    pub tasks: Tasks,
}

/// The devices of this node; clones share them.
#[derive(Clone)]
pub struct Devices {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    behind: Behind,
    numa: Vec<usize>,
    poke: Arc<Notify>,
    tasks: Tasks,
    generations: AtomicU64,
    state: Mutex<State>,
    on_health: OnceLock<HealthChanged>,
    /// There was a file of what was given.
    known: bool,
}

/// Identifiers of devices by the NUMA node they are near to, -1 for none.
pub type ByNuma = BTreeMap<i64, Vec<String>>;

impl Devices {
    /// Devices as the file in the directory knows them.
    #[must_use]
    pub fn new(deps: Deps) -> Self {
        let Deps { directory, numa, poke, tasks } = deps;
        let read = checkpoint::read(&directory.join(checkpoint::FILE));
        let known = !matches!(read, Ok(None));
        let state = match read {
            Ok(Some((pods, registered))) => State::restored(pods, registered, Instant::now()),
            Ok(None) => State::default(),
            Err(error) => {
                let error = ::client::chain(&error);
                tracing::error!(error, "cannot read which devices were given, they may be given twice");
                State::default()
            }
        };
        let inner = Inner {
            directory,
            behind: Behind::default(),
            numa,
            poke,
            tasks,
            generations: AtomicU64::new(0),
            state: Mutex::new(state),
            on_health: OnceLock::new(),
            known,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Nothing was ever given on this node: what its object in the API says of devices is of another life.
    #[must_use]
    pub fn is_new_node(&self) -> bool {
        !self.inner.known
    }

    /// Lets somebody know of pods one of whose devices became well or ill.
    pub fn on_health(&self, changed: HealthChanged) {
        // A second call finds the first in place, and that is as good.
        drop(self.inner.on_health.set(changed));
    }

    /// Takes in the plugin behind `socket`, in the place of any that had the resource before.
    pub(crate) async fn connect(&self, name: &str, socket: &Path) -> Result<(), String> {
        let generation = self.inner.generations.fetch_add(1, Ordering::Relaxed);
        let plugin = Plugin::connect(socket, generation).await?;
        self.inner.state.lock().connected(name, plugin.clone());
        tracing::info!(resource = name, "device plugin connected");
        let (this, name) = (self.clone(), name.to_owned());
        self.inner.tasks.spawn("device-plugin", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = this.listen(&name, plugin) => {}
            }
        });
        Ok(())
    }

    /// The plugin behind a resource took its leave.
    pub(crate) fn disconnect(&self, name: &str) {
        let generation =
            self.inner.state.lock().resources.get(name).and_then(|r| Some(r.plugin.as_ref()?.generation));
        if let Some(generation) = generation {
            self.disconnected(name, generation);
        }
    }

    fn disconnected(&self, name: &str, generation: u64) {
        if self.inner.state.lock().disconnected(name, generation, Instant::now()) {
            tracing::warn!(resource = name, "device plugin is gone");
            self.inner.poke.notify_one();
        }
    }

    /// Hears of a plugin's devices until it ends or another took its place.
    async fn listen(&self, name: &str, plugin: Plugin) {
        match plugin.lists().await {
            Err(error) => {
                tracing::error!(resource = name, %error, "device plugin does not tell of its devices")
            }
            Ok(mut lists) => loop {
                match lists.message().await {
                    Ok(Some(list)) if self.is_current(name, plugin.generation) => {
                        self.update(name, list.devices)
                    }
                    Ok(Some(_)) => return,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(resource = name, %error, "device plugin ended");
                        break;
                    }
                }
            },
        }
        self.disconnected(name, plugin.generation);
    }

    fn is_current(&self, name: &str, generation: u64) -> bool {
        let state = self.inner.state.lock();
        let plugin = state.resources.get(name).and_then(|r| r.plugin.as_ref());
        plugin.is_some_and(|p| p.generation == generation)
    }

    fn update(&self, name: &str, devices: Vec<proto::device_plugin::Device>) {
        let mut state = self.inner.state.lock();
        let changed = state.update(name, devices);
        self.keep(&state);
        drop(state);
        if let Some(told) = self.inner.on_health.get() {
            changed.iter().for_each(|uid| told(uid));
        }
        self.inner.poke.notify_one();
    }

    /// Writes down what was given. Under the lock, so that the file never goes back in time.
    fn keep(&self, state: &State) {
        let registered =
            state.resources.iter().map(|(name, r)| (name.clone(), r.healthy.iter().cloned().collect()));
        let path = self.inner.directory.join(checkpoint::FILE);
        let written = checkpoint::write(&path, &state.pods, registered.collect());
        self.inner.behind.note(written, &path, "which devices were given");
    }

    /// How many devices the node has.
    #[must_use]
    pub fn capacity(&self) -> Capacity {
        let mut state = self.inner.state.lock();
        let (capacity, expired) = state.capacity(Instant::now());
        if expired {
            self.keep(&state);
        }
        capacity
    }

    /// Whether a resource is one of plugins.
    #[must_use]
    pub fn is_ours(&self, name: &str) -> bool {
        self.inner.state.lock().is_ours(name)
    }

    /// From which NUMA nodes the devices of a container could come.
    #[must_use]
    pub fn hints(&self, pod: &Pod, container: &Container) -> Hints {
        self.inner.state.lock().container_hints(types::uid(pod), container, &self.inner.numa)
    }

    /// From which NUMA nodes the devices of all containers of a pod could come.
    #[must_use]
    pub fn pod_hints(&self, pod: &Pod) -> Hints {
        self.inner.state.lock().pod_hints(types::uid(pod), pod, &self.inner.numa)
    }

    /// Gives a container the devices it asks for; the text of a failure is upstream's. Init containers come first.
    pub async fn allocate(&self, pod: &Pod, container: &Container, affinity: Hint) -> Result<(), String> {
        let uid = types::uid(pod);
        let mut given = false;
        for (resource, required) in hints::requests(container) {
            if is_claimed(pod, &container.name, &resource) || !self.is_ours(&resource) {
                continue;
            }
            let request =
                Request { uid, container: &container.name, resource: &resource, required, affinity };
            given |= self.allocate_resource(request).await?;
        }
        let mut state = self.inner.state.lock();
        let init = types::init_containers(types::spec(pod)).iter().find(|c| c.name == container.name);
        state.settled(uid, &container.name, init.is_some_and(|c| !types::is_restartable_init(c)));
        if given {
            self.keep(&state);
        }
        Ok(())
    }

    /// Whether something was given.
    async fn allocate_resource(&self, request: Request<'_>) -> Result<bool, String> {
        let (choice, plugin) = {
            let state = self.inner.state.lock();
            let resource = state.resources.get(request.resource);
            let plugin = resource.filter(|r| r.stopped.is_none()).and_then(|r| r.plugin.clone());
            (choose(&state, request)?, plugin)
        };
        let gone = || format!("endpoint {} has been stopped", request.resource);
        let chosen = match choice {
            Choice::Keep => return Ok(false),
            Choice::Take(chosen) => chosen,
            Choice::Ask(ask) => {
                let plugin = plugin.as_ref().ok_or_else(gone)?;
                let preferred = plugin.preferred(&ask.available, &ask.chosen, ask.required).await?;
                ask.finish(&preferred)?
            }
        };
        let plugin = plugin.ok_or_else(gone)?;
        let started = Instant::now();
        let response = plugin.allocate(&chosen).await;
        metrics::histogram!(
            "kubelet_device_plugin_alloc_duration_seconds", "resource_name" => request.resource.to_owned()
        )
        .record(started.elapsed());
        let owner = (request.uid, request.container);
        self.inner.state.lock().give(owner, request.resource, &chosen, response?);
        Ok(true)
    }

    /// What a container needs to use its devices; their plugins are told that it starts, where they ask to be.
    pub async fn container_options(&self, pod: &Pod, container: &Container) -> Result<DeviceOptions, String> {
        let uid = types::uid(pod);
        for (resource, _) in hints::requests(container).filter(|(name, n)| *n > 0 && self.is_ours(name)) {
            let (plugin, devices) = {
                let state = self.inner.state.lock();
                let found = state.resources.get(&resource).ok_or_else(|| {
                    format!("endpoint not found in cache for a registered resource: {resource}")
                })?;
                (found.plugin.clone(), state.pods.devices(uid, &container.name, &resource))
            };
            let Some(plugin) = plugin.filter(|p| p.options.pre_start_required) else { continue };
            let devices = devices.ok_or_else(|| {
                format!(
                    "no devices found allocated in local cache for pod {uid}, container {}, resource {resource}",
                    container.name
                )
            })?;
            plugin.pre_start(&devices).await?;
        }
        let state = self.inner.state.lock();
        Ok(state.pods.container(uid, &container.name).map(DeviceOptions::of).unwrap_or_default())
    }

    /// Whether a container that asks for devices was given none: what was known of it was lost.
    #[must_use]
    pub fn lacks(&self, pod: &Pod, container: &Container) -> bool {
        let state = self.inner.state.lock();
        let lacks = |name: &str| state.pods.devices(types::uid(pod), &container.name, name).is_none();
        let mut asked = hints::requests(container)
            .filter(|(name, wanted)| *wanted > 0 && !is_claimed(pod, &container.name, name));
        asked.any(|(name, _)| state.is_ours(&name) && lacks(&name))
    }

    /// Takes back the devices of pods that are not kept.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        let mut state = self.inner.state.lock();
        if state.retain(keep) || self.inner.behind.is() {
            self.keep(&state);
        }
    }

    /// The node with at least what was given already, for a pod that has devices: they may have left it since.
    #[must_use]
    pub fn raised(&self, pod: &Pod, node: &Node) -> Option<Node> {
        let state = self.inner.state.lock();
        state.pods.0.get(types::uid(pod))?;
        let mut raised = node.clone();
        let allocatable = raised.status.get_or_insert_default().allocatable.get_or_insert_default();
        for (resource, devices) in state.pods.in_use() {
            let given = i64::try_from(devices.len()).unwrap_or(i64::MAX);
            let has = allocatable.get(&resource).map_or(-1, quantity::value);
            if has < given {
                allocatable.insert(resource, Quantity(given.to_string()));
            }
        }
        Some(raised)
    }

    /// Writes into a pod's status how the devices of its containers are.
    pub fn update_status(&self, pod: &Pod, status: &mut PodStatus) {
        let state = self.inner.state.lock();
        for container in status.container_statuses.iter_mut().flatten() {
            for (resource, devices) in state.health(types::uid(pod), &container.name) {
                let word = |well| if well { "Healthy" } else { "Unhealthy" };
                let resources = devices.into_iter().map(|(id, well)| ResourceHealth {
                    resource_id: id,
                    health: Some(word(well).to_owned()),
                    ..ResourceHealth::default()
                });
                let told = ResourceStatus { name: resource, resources: Some(resources.collect()) };
                let all = container.allocated_resources_status.get_or_insert_default();
                all.retain(|other| other.name != told.name);
                all.push(told);
            }
        }
    }

    /// The devices of a container, by resource.
    #[must_use]
    pub fn of_container(&self, uid: &str, container: &str) -> BTreeMap<String, ByNuma> {
        let state = self.inner.state.lock();
        let all = state.pods.container(uid, container).into_iter().flatten();
        all.map(|(resource, allocation)| (resource.clone(), allocation.ids.clone())).collect()
    }

    /// All devices that work, by resource, each with its NUMA nodes.
    #[must_use]
    pub fn allocatable(&self) -> BTreeMap<String, BTreeMap<String, Vec<i64>>> {
        let state = self.inner.state.lock();
        let healthy = |r: &state::Resource| {
            let well = r.devices.iter().filter(|(id, _)| r.healthy.contains(*id));
            well.map(|(id, device)| (id.clone(), device.numa.clone())).collect()
        };
        state.resources.iter().map(|(name, resource)| (name.clone(), healthy(resource))).collect()
    }

    /// UIDs of pods that have devices.
    #[must_use]
    pub fn holders(&self) -> BTreeSet<String> {
        self.inner.state.lock().pods.0.keys().cloned().collect()
    }
}

/// Whether a driver of dynamic resources serves this request, not a plugin.
fn is_claimed(pod: &Pod, container: &str, resource: &str) -> bool {
    let claim = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    claim.is_some_and(|c| {
        c.request_mappings.iter().any(|m| m.container_name == container && m.resource_name == resource)
    })
}
