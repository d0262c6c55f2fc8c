//! The agent's steps against a runtime in memory, without an API.

use std::collections::HashSet;

use tokio_util::sync::CancellationToken;

use super::volumes::PodVolumes;
use super::*;
use crate::cgroups;
use crate::claims::Claims;
use crate::containers::resources::LimitSettings;
use crate::cpus::Cpus;
use crate::devices::Devices;
use crate::dns::DnsSettings;
use crate::events::testing::Recorded;
use crate::images::Images;
use crate::memory::Memory;
use crate::placement::{Alignment, Placement};
use crate::pod_workers::{Intervals, PodSyncer, Synced};
use crate::runtime::fake::FakeRuntime;
use crate::sync::backoff::Backoff;
use crate::sync::reasons::WaitingReasons;
use crate::sync::runner::Inner;

/// Volumes that are always there, and remember who was released.
#[derive(Default)]
struct Always(Mutex<Vec<String>>);

#[async_trait::async_trait]
impl PodVolumes for Always {
    async fn mount_pod(&self, pod: &Pod) -> Result<(), String> {
        let missing = types::spec(pod).volumes.iter().flatten().any(|v| v.name == "missing");
        if missing { Err("MountVolume.SetUp failed".to_owned()) } else { Ok(()) }
    }
    async fn unmount_pod(&self, uid: &str) -> Result<(), String> {
        self.0.lock().push(uid.to_owned());
        Ok(())
    }
    async fn exist(&self, _: &str) -> bool {
        false
    }
    async fn container_mounts(
        &self,
        _: &Pod,
        _: &k8s_openapi::api::core::v1::Container,
        _: &[(String, String)],
        _: &crate::sync::runner::ImageVolumes,
    ) -> Result<Vec<proto::cri::Mount>, String> {
        Ok(Vec::new())
    }
    fn container_devices(
        &self,
        _: &Pod,
        _: &k8s_openapi::api::core::v1::Container,
    ) -> Result<Vec<proto::cri::Device>, String> {
        Ok(Vec::new())
    }
    fn path(&self, _: &str, _: &str) -> Option<PathBuf> {
        None
    }
}

/// No probes: what runs is started and ready.
#[derive(Default)]
struct Unprobed(Mutex<HashSet<String>>);

impl ProbeResults for Unprobed {
    fn liveness(&self, _: &str) -> Option<bool> {
        None
    }
    fn startup(&self, _: &str) -> Option<bool> {
        None
    }
}

impl PodProbes for Unprobed {
    fn add_pod(&self, pod: &Arc<Pod>) {
        self.0.lock().insert(types::uid(pod).to_owned());
    }
    fn remove_pod(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
    fn stop_liveness_and_startup(&self, _: &str) {}
    fn update_pod_status(&self, _: &Pod, status: &mut PodStatus) {
        for s in status.container_statuses.iter_mut().flatten() {
            s.ready = s.state.as_ref().is_some_and(|s| s.running.is_some());
            s.started = Some(s.ready);
        }
    }
    fn cleanup(&self, _: &HashSet<String>) {}
}

mod claims_prepared;
mod clock;
mod cpus_given;
mod devices_given;
mod ends;
mod faults;
mod kills;
mod preempts;
mod resizes;

struct House {
    agent: Agent,
    devices: Devices,
    volumes: Arc<Always>,
    probes: Arc<Unprobed>,
    events: Recorded,
    tasks: client::Tasks,
    root: PathBuf,
    /// Its files go with it.
    own: bool,
}

/// An agent over `fake`; a second one is the first after a restart.
fn house(fake: &FakeRuntime) -> House {
    let settings = cgroups::Settings { cgroups_per_qos: false, ..cgroups::Settings::default() };
    house_with(fake, Cgroups::new(settings).expect("the hierarchy is mounted"), Record::in_memory())
}

fn house_with(fake: &FakeRuntime, cgroups: Cgroups, allocated: Record) -> House {
    house_at(fake, cgroups, (allocated, Record::in_memory()), None)
}

/// With its files at `place`, or in a directory that goes with it.
fn house_at(
    fake: &FakeRuntime,
    cgroups: Cgroups,
    records: (Record, Record),
    place: Option<PathBuf>,
) -> House {
    house_given(fake, cgroups, records, place, Given::default())
}

/// What a house has to give, and where it hears of claims.
struct Given {
    cpus: Cpus,
    memory: Memory,
    alignment: Alignment,
    api: Option<client::Client>,
}

impl Default for Given {
    fn default() -> Self {
        Self { cpus: Cpus::shared(), memory: Memory::anywhere(), alignment: Alignment::default(), api: None }
    }
}

/// With CPUs and memory to give.
fn house_given(
    fake: &FakeRuntime,
    cgroups: Cgroups,
    (allocated, actuated): (Record, Record),
    place: Option<PathBuf>,
    given: Given,
) -> House {
    let Given { cpus, memory, alignment, api } = given;
    let own = place.is_none();
    let root = place.unwrap_or_else(|| std::env::temp_dir().join(format!("agent-{}", uuid::Uuid::new_v4())));
    let layout = Layout::new(root.join("lib"), root.join("logs"), root.join("links"));
    let (events, tasks) = (Recorded::default(), client::Tasks::new());
    let sink = Events::new(events.clone());
    let objects = Objects::new(None, None, &tasks);
    let (volumes, probes) = (Arc::new(Always::default()), Arc::new(Unprobed::default()));
    let node: Node =
        serde_saphyr::from_str("metadata: {name: n1}\nstatus: {allocatable: {cpu: '1', pods: '9'}}")
            .expect("valid");
    let devices = Devices::new(crate::devices::Deps {
        directory: layout.device_plugins_dir(),
        numa: vec![0, 1],
        poke: Arc::default(),
        tasks: tasks.clone(),
    });
    let placement = Placement::new(devices.clone(), cpus, memory, alignment);
    std::fs::create_dir_all(layout.root()).expect("created");
    let claims = Claims::open(api, "n1".into(), layout.root(), &tasks).expect("opened");
    let environment = Arc::new(Environment {
        objects: objects.clone(),
        volumes: volumes.clone(),
        cgroups: cgroups.clone(),
        layout: layout.clone(),
        events: sink.clone(),
        dns: DnsSettings::default(),
        node: Arc::new(RwLock::new(Some(Arc::new(node)))),
        host_ips: RwLock::new(vec!["192.0.2.1".parse().expect("valid")]),
        runtime_classes: None,
        placement: placement.clone(),
        claims: claims.clone(),
        on_slow_start: OnceLock::new(),
    });
    let limits = LimitSettings {
        cpu_cfs_quota: true,
        cpu_period: 100_000,
        memory_capacity: 1 << 30,
        cgroup_v2: false,
        swap_controller: false,
    };
    let runtime = PodRuntime::new(Inner {
        runtime: fake.client(),
        runtime_name: "fake".into(),
        images: Images::new(fake.client(), sink.clone(), Some(1)),
        events: sink.clone(),
        layout: layout.clone(),
        limits,
        seccomp_root: root.join("seccomp"),
        seccomp_default: false,
        backoff: Backoff::new(std::time::Duration::from_secs(10), std::time::Duration::from_secs(300)),
        reasons: WaitingReasons::default(),
        actuated,
        environment: environment.clone(),
    });
    let agent = Agent::new(Parts {
        config: Arc::default(),
        node_name: "n1".into(),
        layout,
        runtime,
        environment,
        pods: PodRegistry::default(),
        status: StatusManager::new(None),
        events: sink,
        objects,
        volumes: volumes.clone(),
        probes: probes.clone(),
        cgroups,
        placement,
        pleg: Pleg::new(fake.client()),
        network: NetworkFault::default(),
        mirrors: None,
        allocated,
        claims: claims.clone(),
        shutting_down: ShuttingDown::default(),
        resizes: Conditions::default(),
        manifests: None,
    });
    House { devices, agent, volumes, probes, events, tasks, root, own }
}

impl House {
    fn phase(&self, uid: &str) -> String {
        let status = self.agent.parts().status.pod_status(uid).expect("reported");
        let reason = status.reason.as_deref().map(|r| format!(" {r}")).unwrap_or_default();
        format!("{}{reason}", status.phase.clone().unwrap_or_default())
    }

    fn condition(&self, uid: &str, kind: &str) -> String {
        let status = self.agent.parts().status.pod_status(uid).expect("reported");
        let found = status.conditions.iter().flatten().find(|c| c.type_ == kind);
        found.map(|c| c.status.clone()).unwrap_or_default()
    }

    async fn sync(&self, pod: &Arc<Pod>) -> Result<Synced, crate::pod_workers::SyncError> {
        self.agent.sync_pod(pod, &CancellationToken::new()).await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if self.own {
            drop(std::fs::remove_dir_all(&self.root));
        }
    }
}

fn pod(more: &str) -> Arc<Pod> {
    Arc::new(
        serde_saphyr::from_str(&format!(
            "metadata: {{name: p, namespace: ns, uid: u, annotations: {{kubernetes.io/config.source: api}}}}\n\
             spec:\n  dnsPolicy: Default\n  terminationGracePeriodSeconds: 5\n{more}"
        ))
        .expect("valid pod"),
    )
}

const ONE: &str = "  containers: [{name: a, image: 'here:1'}]\n";

#[tokio::test]
async fn a_pod_runs_is_reported_and_ends() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    let pod = pod(ONE);
    assert_eq!(house.sync(&pod).await, Ok(Synced::default()));
    assert_eq!(house.phase("u"), "Running");
    assert_eq!(house.condition("u", "Ready"), "True");
    let status = house.agent.parts().status.pod_status("u").expect("reported");
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("10.9.0.1"), Some("192.0.2.1")));
    assert!(house.probes.0.lock().contains("u"));
    fake.calls();
    house.agent.sync_terminating_pod(&pod, None, None, &CancellationToken::new()).await.expect("stopped");
    assert_eq!(fake.calls(), ["StopContainer a 5", "StopPodSandbox sandbox-p-0"]);
    assert_eq!(house.phase("u"), "Failed", "it was stopped with an error code, for good");
    house.agent.sync_terminated_pod(&pod).await.expect("released");
    assert_eq!(*house.volumes.0.lock(), ["u"]);
    assert!(house.probes.0.lock().is_empty());
}

#[tokio::test]
async fn a_restart_of_the_agent_disturbs_nothing() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let pod = pod(ONE);
    house(&fake).sync(&pod).await.expect("synced");
    fake.calls();
    let again = house(&fake);
    again.sync(&pod).await.expect("synced");
    assert!(fake.calls().is_empty());
    assert_eq!(again.phase("u"), "Running");
}

#[tokio::test]
async fn a_job_that_is_done_is_terminal() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    for (policy, code, phase) in
        [("Never", 0, "Succeeded"), ("Never", 3, "Failed"), ("OnFailure", 0, "Succeeded")]
    {
        let fake = if code == 0 { &fake } else { &FakeRuntime::start(&["here:1"]).await };
        let house = house(fake);
        let pod = pod(&format!("  restartPolicy: {policy}\n{ONE}"));
        fake.state.lock().sandboxes.clear();
        fake.state.lock().containers.clear();
        fake.state.lock().ends_at_once.insert("a".into(), code);
        assert_eq!(house.sync(&pod).await, Ok(Synced { terminal: true, again: None }), "{policy} {code}");
        assert_eq!(house.phase("u"), phase);
    }
}

#[tokio::test]
async fn deadlines_end_pods() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    let live = pod(&format!("  activeDeadlineSeconds: 3600\n{ONE}"));
    let synced = house.sync(&live).await.expect("synced");
    assert!(synced.again.is_some_and(|a| a > std::time::Duration::from_secs(3500)), "{synced:?}");
    let mut over = (*live).clone();
    over.metadata.uid = Some("v".into());
    over.status = serde_saphyr::from_str("startTime: '2020-01-01T00:00:00Z'").expect("valid");
    let synced = house.sync(&Arc::new(over)).await.expect("synced");
    assert!(synced.terminal);
    assert_eq!(house.phase("v"), "Failed DeadlineExceeded");
}

#[tokio::test]
async fn pods_wait_for_network_and_volumes() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    *house.agent.parts().network.write() = Some("cni plugin not initialized".into());
    let error = house.sync(&pod(ONE)).await.expect_err("no network");
    assert_eq!(error.message, "network is not ready: cni plugin not initialized");
    assert!(
        house.sync(&pod(&format!("  hostNetwork: true\n{ONE}"))).await.is_ok(),
        "the node's network is there"
    );
    *house.agent.parts().network.write() = None;
    fake.calls();
    let mut needy = (*pod(&format!("  volumes: [{{name: missing}}]\n{ONE}"))).clone();
    needy.metadata.uid = Some("w".into());
    assert!(house.sync(&Arc::new(needy)).await.is_err());
    assert!(fake.calls().is_empty());
    assert_eq!(
        (house.phase("w").as_str(), house.condition("w", "PodReadyToStartContainers").as_str()),
        ("Pending", "False")
    );
}

#[tokio::test]
async fn evicted_pods_carry_the_verdict() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    let pod = pod(ONE);
    house.sync(&pod).await.expect("synced");
    let verdict = Verdict {
        reason: "Evicted".into(),
        message: "The node was low on resource: memory. ".into(),
        disruption: true,
    };
    let grace = Some(std::time::Duration::from_secs(1));
    house
        .agent
        .sync_terminating_pod(&pod, grace, Some(verdict), &CancellationToken::new())
        .await
        .expect("stopped");
    house.agent.sync_terminated_pod(&pod).await.expect("released");
    assert_eq!(house.phase("u"), "Failed Evicted");
    assert_eq!(house.condition("u", "DisruptionTarget"), "True");
}

#[tokio::test]
async fn refused_pods_fail_and_reach_no_worker() {
    let fake = FakeRuntime::start(&["here:1"]).await;
    let house = house(&fake);
    let workers = house.agent.start_workers(Intervals::default(), &house.tasks);
    let greedy = pod("  containers: [{name: a, image: 'here:1', resources: {requests: {cpu: 2}}}]\n");
    house.agent.pod_changed(&greedy).await;
    assert!(workers.view("u").is_none());
    assert_eq!(house.phase("u"), "Failed OutOfcpu");
    assert!(house.events.lines()[0].starts_with("OutOfcpu: Node didn't have enough resource: cpu"));
    house.agent.pod_removed(&greedy);
    let mut modest = (*pod(ONE)).clone();
    modest.metadata.uid = Some("v".into());
    house.agent.pod_changed(&Arc::new(modest)).await;
    assert!(workers.view("v").is_some());
    house.tasks.shut_down().await.expect("no failure");
}
