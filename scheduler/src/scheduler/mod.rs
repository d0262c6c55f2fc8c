//! The scheduler at work: informers feed the cache and the queue, one task decides, and what was decided is carried
//! out beside it.

mod attempts;
mod bind;
mod evict;
mod handlers;
mod refuse;
#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use client::component::BadConfiguration;
use client::k8s_openapi::api::core::v1::Pod;
use client::k8s_openapi::api::policy::v1::PodDisruptionBudget;
use client::serving::{self, Health};
use client::{Client, EventRecorder, Informer, ObjectKey, SharedInformerFactory, Tasks};
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::bind::Binding;
use crate::cache::Cache;
use crate::config::{KubeSchedulerConfiguration, profile};
use crate::extender::{Extender, HttpExtender};
use crate::flags::Config;
use crate::listers::Listers;
use crate::plugins::dynamic_resources::Devices;
use crate::plugins::registry::Parts;
use crate::preemption::Preempting;
use crate::profiles::Profiles;
use crate::queue::Queue;
use crate::volumes::Volumes;

/// How many binds may be on their way at once.
const BINDS: usize = 256;
/// How many other writes.
const WRITES: usize = 64;

/// Runs until `token` is cancelled.
///
/// # Errors
/// The serving address cannot be bound, or leadership was lost.
pub async fn run(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let tasks = Tasks::child_of(&token);
    if let Some(address) = config.serving {
        let health = match &config.election {
            Some(election) => Health::new().with("leaderElection", election.check()),
            None => Health::new(),
        };
        tasks.spawn_critical("serving", |token| serving::serve(address, health, token));
    }
    tasks.spawn_critical("scheduler", |token| async move {
        match config.election.clone() {
            None => lead(config, client, token).await,
            Some(election) => {
                election
                    .run(client, token, |right| async move {
                        if let Err(error) = lead(config, right.client, right.token).await {
                            warn!(error = %format!("{error:#}"), "scheduling ended");
                        }
                    })
                    .await?;
                Ok(())
            }
        }
    });
    Ok(tasks.wait().await?)
}

/// Schedules while we lead.
async fn lead(config: Config, client: Client, token: CancellationToken) -> anyhow::Result<()> {
    let tasks = Tasks::child_of(&token);
    let factory = SharedInformerFactory::new(client.clone(), &tasks);
    let shared = Arc::new(Shared::new(&config.configuration, client, &factory, &tasks).await?);
    handlers::watch(&factory, &shared);
    if factory.wait_for_sync(&token).await {
        info!("scheduling");
        attempts::schedule_all(&shared, &tasks, &token).await;
    }
    Ok(tasks.shut_down().await?)
}

struct State {
    cache: Cache,
    queue: Queue,
}

struct Shared {
    profiles: Arc<Profiles>,
    percentage_of_nodes_to_score: i32,
    /// How many threads may look for a node at once.
    parallelism: usize,
    state: Mutex<State>,
    /// Something may have become ready to be tried.
    changed: Notify,
    client: Client,
    recorders: HashMap<String, EventRecorder>,
    pods: Informer<Pod>,
    budgets: Informer<PodDisruptionBudget>,
    volumes: Volumes,
    devices: Devices,
    extenders: Vec<Arc<dyn Extender>>,
    preempting: Arc<Preempting>,
    /// Pods between the choice of their node and their binding, by UID.
    binding: Mutex<HashMap<String, Arc<Binding>>>,
    binds: Arc<Semaphore>,
    writes: Arc<Semaphore>,
}

impl Shared {
    async fn new(
        configuration: &KubeSchedulerConfiguration,
        client: Client,
        factory: &SharedInformerFactory,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let pods: Informer<Pod> = factory.informer();
        let seen = pods.clone();
        let preempting = Arc::new(Preempting::new(move |key| seen.store().get(key)));
        let (volumes, devices) = (Volumes::new(factory), Devices::new(factory));
        let parts = Parts {
            listers: Listers::new(factory),
            volumes: volumes.clone(),
            devices: devices.clone(),
            preempting: preempting.clone(),
            ignored_resources: configuration.ignored_resources(),
        };
        let frameworks: Result<Vec<_>, _> =
            configuration.profiles.iter().map(|p| profile::build(p, &parts)).collect();
        let mut extenders: Vec<Arc<dyn Extender>> = Vec::new();
        for extender in &configuration.extenders {
            let extender = HttpExtender::new(extender.clone()).await.map_err(BadConfiguration)?;
            extenders.push(Arc::new(extender));
        }
        // The extender that must be asked is asked before those that need not be.
        extenders.sort_by_key(|extender| extender.is_ignorable());
        let profiles = Arc::new(Profiles::new(frameworks.map_err(BadConfiguration)?, !extenders.is_empty()));
        let recorders = profiles.all().map(|framework| {
            let name = &framework.scheduler_name;
            (name.clone(), EventRecorder::new(client.clone(), name, "", tasks))
        });
        Ok(Self {
            percentage_of_nodes_to_score: configuration.percentage_of_nodes_to_score.unwrap_or(0),
            parallelism: configuration.parallelism.and_then(|n| usize::try_from(n).ok()).unwrap_or(16),
            state: Mutex::new(State {
                cache: Cache::default(),
                queue: Queue::new(profiles.clone(), configuration.waits()),
            }),
            changed: Notify::new(),
            recorders: recorders.collect(),
            profiles,
            pods,
            budgets: factory.informer(),
            volumes,
            devices,
            extenders,
            preempting,
            binding: Mutex::default(),
            binds: Arc::new(Semaphore::new(BINDS)),
            writes: Arc::new(Semaphore::new(WRITES)),
            client,
        })
    }

    /// The recorder in the name that a pod's scheduler goes by.
    fn recorder(&self, pod: &Pod) -> Option<&EventRecorder> {
        self.recorders.get(crate::profiles::wanted(pod))
    }

    /// The pod as last seen, if it is still the same.
    fn newest(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let seen = self.pods.store().get(&ObjectKey::of(pod))?;
        (seen.metadata.uid == pod.metadata.uid).then_some(seen)
    }
}

fn pod_name(pod: &Pod) -> String {
    ObjectKey::of(pod).to_string()
}
