//! Puts a kubelet together and runs it: validate, build, start, drain.
//!
//! Order matters: statuses and the node's registration first, then the runtime watch, then pods, and clearing up only
//! when every pod that should be here has been heard of.

mod prerequisites;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use client::{Client, EventRecorder, Selection, SharedInformerFactory, Tasks};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use parking_lot::RwLock;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::agent::environment::{Environment, NodeCell};
use crate::agent::volumes::{NodeVolumes, PodVolumes};
use crate::agent::{Agent, NetworkFault, Parts};
use crate::allocation::{self, Conditions, Record};
use crate::certificates::{self, ServingConfig};
use crate::cgroups::{self, Cgroups};
use crate::claims::Claims;
use crate::config::KubeletConfiguration;
use crate::containers::resources::LimitSettings;
use crate::csi::{self, Csi};
use crate::devices::{self, Devices};
use crate::dns::DnsSettings;
use crate::events::{EventSink, Events};
use crate::eviction::{Eviction, image_policy, threshold};
use crate::facts::{NodeFacts, Sources};
use crate::flags::Config;
use crate::images::Images;
use crate::images::providers::Providers;
use crate::layout::Layout;
use crate::logs::LogRotator;
use crate::node_status::machine::{Machine, machine, node_addresses};
use crate::node_status::{NodeReporter, Pressure, Registration, initial_node, lease};
use crate::objects::Objects;
use crate::placement::Placement;
use crate::pleg::Pleg;
use crate::plugins::Handlers;
use crate::pod_resources::PodResources;
use crate::pod_workers::{Intervals, PodWorkers};
use crate::pods::PodRegistry;
use crate::probes::{self, ProbeManager};
use crate::quantity;
use crate::runtime::Runtime;
use crate::server::{self, ServerDeps};
use crate::shutdown::{Logind, Shutdown, ShuttingDown, Times};
use crate::static_pods::mirror::Mirrors;
use crate::status::StatusManager;
use crate::sync::PodRuntime;
use crate::sync::backoff::Backoff;
use crate::sync::reasons::WaitingReasons;
use crate::sync::runner::Inner as RuntimeParts;
use crate::volumes::{self, VolumeManager};

pub use prerequisites::threshold_bytes;
use prerequisites::{adjust_oom_score, check_swap, connect_runtime, make_cgroups, make_placement, reserved};

/// Events that go nowhere but the log: there is no API.
struct LogEvents;

impl EventSink for LogEvents {
    fn record(
        &self,
        about: &k8s_openapi::api::core::v1::ObjectReference,
        _: client::EventType,
        reason: &str,
        message: String,
    ) {
        tracing::info!(object = about.name.as_deref().unwrap_or_default(), reason, message, "event");
    }
}

/// Runs a kubelet until `token` is cancelled. Without a client it runs static pods only.
///
/// Pods keep running when it ends.
pub async fn run(
    config: Config,
    client: impl Into<Option<Client>>,
    token: CancellationToken,
) -> anyhow::Result<()> {
    let client = client.into();
    let tasks = Tasks::child_of(&token);
    let kubelet = Kubelet::build(config, client, &tasks).await?;
    kubelet.start(&tasks).await?;
    tokio::select! {
        () = token.cancelled() => {}
        ended = tasks.wait() => ended.context("kubelet")?,
    }
    tasks.shut_down().await.context("kubelet")
}

/// All parts, before anything runs.
struct Kubelet {
    config: Config,
    client: Option<Client>,
    settings: Arc<KubeletConfiguration>,
    machine: Machine,
    layout: Layout,
    runtime: Runtime,
    cgroups: Cgroups,
    events: Events,
    recorder: Option<EventRecorder>,
    factory: Option<SharedInformerFactory>,
    objects: Arc<Objects>,
    status: StatusManager,
    pods: PodRegistry,
    allocated: Record,
    pleg: Pleg,
    network: NetworkFault,
    pressure: Arc<RwLock<Pressure>>,
    poke: Arc<Notify>,
    addresses: Vec<std::net::IpAddr>,
    node: NodeCell,
    csi: Csi,
    placement: Placement,
    claims: Claims,
    shutting_down: ShuttingDown,
}

impl Kubelet {
    async fn build(config: Config, client: Option<Client>, tasks: &Tasks) -> anyhow::Result<Self> {
        let settings = Arc::new(config.kubelet.clone());
        let machine = machine();
        check_swap(&settings, &machine)?;
        adjust_oom_score(settings.oom_score_adj);
        let layout = Layout::new(&config.root_dir, &settings.pod_logs_dir, &config.container_logs_dir);
        for dir in [layout.root().to_owned(), layout.pods_dir(), layout.pod_logs_dir().to_owned()] {
            std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        }
        let runtime = connect_runtime(&settings, &tasks.token()).await.context("failed to run Kubelet")?;
        let (node, poke) = (NodeCell::default(), Arc::new(Notify::new()));
        let make_devices = |numa| {
            Devices::new(devices::Deps {
                directory: layout.device_plugins_dir(),
                numa,
                poke: poke.clone(),
                tasks: tasks.clone(),
            })
        };
        let placement = make_placement(&settings, &machine, layout.root(), make_devices)
            .context("failed to start the container manager")?;
        let claims = Claims::open(client.clone(), config.node_name.clone(), layout.root(), tasks)
            .map_err(anyhow::Error::msg)
            .context("failed to start the container manager")?;
        let cgroups = make_cgroups(&settings, &machine, placement.cpus())?;
        let recorder =
            client.as_ref().map(|c| EventRecorder::new(c.clone(), "kubelet", &config.node_name, tasks));
        let events = recorder.clone().map_or_else(|| Events::new(LogEvents), Events::new);
        let factory = client.as_ref().map(|c| SharedInformerFactory::new(c.clone(), tasks));
        let objects = Objects::new(client.clone(), factory.as_ref(), tasks);
        let addresses = node_addresses(&config.node_ips, &config.node_name, &config.hostname)
            .map_err(anyhow::Error::msg)?;
        let seen = node.clone();
        let csi = Csi::new(csi::Deps {
            client: client.clone(),
            node_name: config.node_name.clone(),
            layout: layout.clone(),
            node: Arc::new(move || seen.read().clone()),
            poke: poke.clone(),
            recorder: recorder.clone(),
        });
        Ok(Self {
            status: StatusManager::new(client.clone()),
            pods: PodRegistry::default(),
            allocated: Record::open(layout.root().join(allocation::ALLOCATED_FILE)),
            pleg: Pleg::new(runtime.clone()),
            network: Arc::new(RwLock::new(Some(
                "container runtime status check may not have completed yet".to_owned(),
            ))),
            pressure: Arc::default(),
            poke,
            config,
            client,
            settings,
            machine,
            layout,
            runtime,
            cgroups,
            events,
            recorder,
            factory,
            objects,
            addresses,
            node,
            csi,
            placement,
            claims,
            shutting_down: ShuttingDown::default(),
        })
    }

    async fn start(self, tasks: &Tasks) -> anyhow::Result<()> {
        let facts = self.facts();
        facts.check().await;
        self.events.about(
            &crate::events::node_reference(&self.config.node_name),
            client::EventType::Normal,
            "Starting",
            "Starting kubelet.",
        );
        let node = self.report_node(&facts, tasks);
        self.status.run(tasks);
        self.placement.devices().serve(tasks).context("device plugins")?;
        self.take_in_plugins(tasks);
        let environment = self.environment(tasks);
        let probes = ProbeManager::new(probes::Deps {
            exec: Arc::new(self.runtime.clone()),
            status: Arc::new(self.status.clone()),
            events: self.events.clone(),
            tasks: tasks.clone(),
        });
        let agent = self.agent(environment.clone(), probes.clone()).await?;
        let intervals = Intervals { resync: self.settings.sync_frequency.0, ..Intervals::default() };
        let workers = agent.start_workers(intervals, tasks);
        self.follow_node(node, &environment, tasks);
        agent.report_slow_starts();
        let wake = workers.clone();
        probes.subscribe(move |update| wake.wake(&update.pod_uid));
        let wake = workers.clone();
        self.placement.devices().on_health(Box::new(move |uid| wake.wake(uid)));
        let wake = workers.clone();
        self.claims.on_health(Box::new(move |uid| wake.wake(uid)));
        self.evict(&workers, tasks)?;
        let wake = workers.clone();
        self.pleg.run(tasks, move |uid| wake.wake(uid));
        let wake = workers.clone();
        facts.run(tasks, move || wake_all(&wake));
        self.serve(environment.volumes.clone(), tasks)?;
        let holds = agent.holds();
        self.claims.run(move |uid| holds(uid), tasks);
        self.end_with_node(&agent, tasks);
        agent.run_cpu_sets(self.settings.cpu_manager_reconcile_period.0, tasks);
        let told = PodResources {
            pods: self.pods.clone(),
            placement: self.placement.clone(),
            claims: self.claims.clone(),
            is_active: agent.holds(),
        };
        told.serve(&self.layout.pod_resources_dir(), tasks).context("pod resources")?;
        self.take_in_pods(agent, tasks).await;
        Ok(())
    }

    fn registration(&self) -> Registration {
        Registration {
            name: self.config.node_name.clone(),
            hostname: self.config.hostname.clone(),
            labels: self.config.node_labels.clone(),
            taints: self.settings.register_with_taints.clone(),
            provider_id: self.settings.provider_id.clone(),
            controller_attaches: self.settings.enable_controller_attach_detach,
        }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts::new(Sources {
            runtime: self.runtime.clone(),
            pleg: self.pleg.clone(),
            machine: self.machine.clone(),
            config: self.settings.clone(),
            reserved: reserved(&self.settings, &self.machine, self.layout.root()),
            root_dir: self.layout.root().to_owned(),
            hostname: self.config.hostname.clone(),
            addresses: self.addresses.clone(),
            port: self.settings.port,
            network: self.network.clone(),
            poke: self.poke.clone(),
            pressure: self.pressure.clone(),
            csi: self.csi.clone(),
            devices: self.placement.devices().clone(),
            shutting_down: self.shutting_down.clone(),
        })
    }

    /// Takes in drivers of volumes and device plugins, and tells the API that there may be some.
    fn take_in_plugins(&self, tasks: &Tasks) {
        if self.client.is_none() {
            return;
        }
        let handlers = Handlers {
            csi: self.csi.clone(),
            devices: self.placement.devices().clone(),
            claims: self.claims.clone(),
        };
        crate::plugins::run(self.layout.root().join("plugins_registry"), handlers, tasks);
        let csi = self.csi.clone();
        tasks.spawn("csi-node", |token| async move {
            let mut wait = Duration::from_secs(1);
            while let Err(error) = csi.introduce().await {
                tracing::debug!(error, "cannot tell of drivers yet");
                tokio::select! {
                    () = token.cancelled() => return,
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(60)),
                }
            }
        });
    }

    /// Registers and reports the node, and follows it; `None` without an API.
    fn report_node(&self, facts: &NodeFacts, tasks: &Tasks) -> Option<client::Informer<Node>> {
        let (client, factory) = (self.client.clone()?, self.factory.as_ref()?);
        let fields = Some(format!("metadata.name={}", self.config.node_name));
        let informer = factory.informer_selected::<Node>(Selection { fields, ..Selection::default() });
        let follow = informer.clone();
        let reporter = NodeReporter {
            client: client.clone(),
            registration: self.registration(),
            source: Arc::new(facts.clone()),
            events: self.events.clone(),
            update: self.settings.node_status_update_frequency.0,
            report: self.settings.node_status_report_frequency.0,
            register: self.settings.register_node,
            reset_devices: self.placement.devices().is_new_node(),
            poke: self.poke.clone(),
            current: Box::new(move || follow.store().list().into_iter().next()),
        };
        reporter.run(tasks);
        lease::run(client, self.config.node_name.clone(), self.settings.node_lease_duration_seconds, tasks);
        Some(informer)
    }

    fn environment(&self, tasks: &Tasks) -> Arc<Environment> {
        let mut initial = initial_node(&self.registration());
        let facts = crate::node_status::Facts {
            machine: self.machine.clone(),
            max_pods: self.settings.max_pods,
            reserved: reserved(&self.settings, &self.machine, self.layout.root()),
            ..Default::default()
        };
        crate::node_status::setters::set_status(&mut initial, &facts, jiff::Timestamp::now());
        *self.node.write() = Some(Arc::new(initial));
        let (node, seen) = (self.node.clone(), self.node.clone());
        let manager = VolumeManager::new(volumes::Deps {
            client: self.client.clone(),
            objects: self.objects.clone(),
            layout: self.layout.clone(),
            recorder: self.recorder.clone(),
            csi: self.csi.clone(),
            node: Arc::new(move || seen.read().clone()),
        });
        manager.clone().run(tasks);
        Arc::new(Environment {
            objects: self.objects.clone(),
            volumes: Arc::new(NodeVolumes::new(manager, self.layout.clone())),
            cgroups: self.cgroups.clone(),
            layout: self.layout.clone(),
            events: self.events.clone(),
            dns: DnsSettings {
                cluster_dns: self.settings.cluster_dns_addresses(),
                cluster_domain: self.settings.cluster_domain.clone(),
                resolv_conf: PathBuf::from(&self.settings.resolv_conf),
                node_ips: Vec::new(),
            },
            node,
            host_ips: RwLock::new(self.addresses.clone()),
            runtime_classes: self.factory.as_ref().map(SharedInformerFactory::informer),
            placement: self.placement.clone(),
            claims: self.claims.clone(),
            on_slow_start: std::sync::OnceLock::new(),
        })
    }

    async fn agent(&self, environment: Arc<Environment>, probes: Arc<ProbeManager>) -> anyhow::Result<Agent> {
        let name = self.runtime.version().await.map_or_else(|_| "containerd".to_owned(), |v| v.name);
        let parallel = match (self.settings.serialize_image_pulls, self.settings.max_parallel_image_pulls) {
            (true, _) => Some(1),
            (false, most) => most.and_then(|m| usize::try_from(m).ok()),
        };
        let providers = match &self.config.credential_providers {
            Some((config, directory)) => {
                let read = Providers::read(config, directory);
                Some(read.context("failed to register CRI auth plugins")?)
            }
            None => None,
        };
        let longest = self.settings.crash_loop_back_off.max_container_restart_period;
        let runtime = PodRuntime::new(RuntimeParts {
            runtime: self.runtime.clone(),
            runtime_name: name,
            images: Images::with_providers(self.runtime.clone(), self.events.clone(), parallel, providers),
            events: self.events.clone(),
            layout: self.layout.clone(),
            limits: self.limits(),
            seccomp_root: self.layout.root().join("seccomp"),
            seccomp_default: self.settings.seccomp_default,
            backoff: Backoff::new(
                Duration::from_secs(10).min(longest.map_or(Duration::MAX, |d| d.0)),
                longest.map_or(Duration::from_secs(300), |d| d.0),
            ),
            reasons: WaitingReasons::default(),
            actuated: Record::open(self.layout.root().join(allocation::ACTUATED_FILE)),
            environment: environment.clone(),
        });
        Ok(Agent::new(Parts {
            config: self.settings.clone(),
            node_name: self.config.node_name.clone(),
            layout: self.layout.clone(),
            runtime,
            volumes: environment.volumes.clone(),
            environment,
            pods: self.pods.clone(),
            status: self.status.clone(),
            events: self.events.clone(),
            objects: self.objects.clone(),
            probes,
            cgroups: self.cgroups.clone(),
            placement: self.placement.clone(),
            pleg: self.pleg.clone(),
            network: self.network.clone(),
            mirrors: self.client.clone().map(|c| Mirrors::new(c, self.config.node_name.clone())),
            allocated: self.allocated.clone(),
            claims: self.claims.clone(),
            shutting_down: self.shutting_down.clone(),
            resizes: Conditions::default(),
            manifests: self.settings.static_pods(),
        }))
    }

    /// Serves the kubelet's own API, keeps its certificate, and rotates logs.
    fn serve(&self, volumes: Arc<dyn PodVolumes>, tasks: &Tasks) -> anyhow::Result<()> {
        let settings = &self.settings;
        let tls = ServingConfig::load_or_create(
            &self.config.cert_dir,
            &settings.tls_cert_file,
            &settings.tls_private_key_file,
            &self.config.hostname,
            &self.addresses,
        )
        .context("kubelet serving certificate")?;
        let pleg = self.pleg.clone();
        let deps = ServerDeps {
            runtime: self.runtime.clone(),
            pods: self.pods.clone(),
            allocated: self.allocated.clone(),
            status: self.status.clone(),
            client: self.client.clone(),
            config: settings.clone(),
            layout: self.layout.clone(),
            node_name: self.config.node_name.clone(),
            cgroups: self.cgroups.clone(),
            volumes,
            health: Arc::new(move || pleg.health()),
            tls,
        };
        tasks.spawn_critical("kubelet-server", |token| server::serve(deps, token));
        if let (Some(client), true) = (&self.client, settings.server_tls_bootstrap) {
            let (client, config, ips) = (client.clone(), self.config.clone(), self.addresses.clone());
            tasks.spawn("serving-certificate", |token| {
                certificates::serving(client, config.cert_dir, config.node_name, config.hostname, ips, token)
            });
        }
        let size = Quantity(settings.container_log_max_size.clone());
        if let Ok(size @ 1..) = u64::try_from(quantity::value(&size)) {
            let files = usize::try_from(settings.container_log_max_files).unwrap_or_default();
            let interval = settings.container_log_monitor_interval.0;
            let rotator = LogRotator::new(self.runtime.clone(), size, files, interval);
            tasks.spawn("log-rotation", |token| rotator.run(token));
        }
        Ok(())
    }

    fn evict(&self, workers: &PodWorkers, tasks: &Tasks) -> anyhow::Result<()> {
        let settings = &self.settings;
        let thresholds = threshold::parse(
            &settings.eviction_hard,
            &settings.eviction_soft,
            &settings.eviction_soft_grace_period,
        )?;
        let eviction = Eviction {
            thresholds,
            transition: settings.eviction_pressure_transition_period.0,
            max_grace: Duration::from_secs(
                u64::try_from(settings.eviction_max_pod_grace_period).unwrap_or_default(),
            ),
            images: image_policy(settings),
            runtime: self.runtime.clone(),
            pods: self.pods.clone(),
            allocated: self.allocated.clone(),
            workers: workers.clone(),
            cgroups: self.cgroups.clone(),
            events: self.events.clone(),
            pressure: self.pressure.clone(),
            poke: self.poke.clone(),
            layout: self.layout.clone(),
            memory: u64::try_from(self.machine.memory).unwrap_or_default(),
        };
        eviction.run(tasks);
        Ok(())
    }

    /// Ends pods in order when the machine shuts down, where that is wanted.
    fn end_with_node(&self, agent: &Agent, tasks: &Tasks) {
        let periods = self.settings.shutdown_periods();
        if periods.is_empty() {
            return;
        }
        let shutdown = Shutdown {
            login: Arc::new(Logind::default()),
            periods,
            ending: Arc::new(agent.clone()),
            state: self.shutting_down.clone(),
            times: Times::new(self.layout.root()),
            events: self.events.clone(),
            node: crate::events::node_reference(&self.config.node_name),
            poke: self.poke.clone(),
        };
        shutdown.run(tasks);
    }

    fn limits(&self) -> LimitSettings {
        LimitSettings {
            cpu_cfs_quota: self.settings.cpu_cfs_quota,
            cpu_period: i64::try_from(self.settings.cpu_cfs_quota_period.0.as_micros()).unwrap_or(100_000),
            memory_capacity: self.machine.memory,
            cgroup_v2: self.cgroups.version() == cgroups::Version::V2,
            swap_controller: false,
        }
    }

    /// Keeps the environment's node the one the API has.
    fn follow_node(
        &self,
        node: Option<client::Informer<Node>>,
        environment: &Arc<Environment>,
        tasks: &Tasks,
    ) {
        let Some(informer) = node else { return };
        let environment = environment.clone();
        let (cidr, tell) = tokio::sync::watch::channel(String::new());
        tell_pod_cidr(self.runtime.clone(), tell, tasks);
        informer.subscribe(move |event| {
            if !matches!(event, client::Event::Deleted(_)) {
                let node = event.object();
                let spec = node.spec.as_ref();
                let many = spec.and_then(|s| s.pod_cidrs.as_ref()).map(|c| c.join(","));
                let wanted = many.or_else(|| spec.and_then(|s| s.pod_cidr.clone())).unwrap_or_default();
                cidr.send_if_modified(|held| std::mem::replace(held, wanted.clone()) != wanted);
                *environment.node.write() = Some(node.clone());
            }
        });
    }

    /// Takes in pods of all sources, and clears up once all have been heard of.
    async fn take_in_pods(self, agent: Agent, tasks: &Tasks) {
        if let Some(directory) = self.settings.static_pods() {
            let recheck = self.settings.file_check_frequency.0;
            let manifests =
                crate::static_pods::follow(directory, self.config.node_name.clone(), recheck, tasks).await;
            agent.follow_static(manifests, tasks).await;
        }
        let Some(factory) = self.factory else {
            agent.run_housekeeping(tasks);
            return;
        };
        let fields = Some(format!("spec.nodeName={}", self.config.node_name));
        let pods = factory.informer_selected::<Pod>(Selection { fields, ..Selection::default() });
        let spawner = tasks.clone();
        tasks.spawn("pods", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = agent.follow_api(&pods, &spawner) => agent.run_housekeeping(&spawner),
            }
        });
    }
}

/// Tells the runtime which addresses pods of this node get, whenever that changes.
fn tell_pod_cidr(runtime: Runtime, mut cidr: tokio::sync::watch::Receiver<String>, tasks: &Tasks) {
    tasks.spawn("pod-cidr", |token| async move {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                changed = cidr.changed() => if changed.is_err() { return },
            }
            let wanted = cidr.borrow_and_update().clone();
            if let Err(error) = runtime.update_pod_cidr(&wanted).await {
                tracing::warn!(cidr = wanted, %error, "the runtime does not take the addresses of pods");
            }
        }
    });
}

fn wake_all(workers: &PodWorkers) {
    for uid in workers.uids() {
        workers.wake(&uid);
    }
}
