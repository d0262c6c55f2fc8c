//! The scheduler alone on simulated clusters, shaped like upstream's `scheduler_perf`: how many pods a second get
//! their node. No API server, no network: pods go from the queue through cycles to the cache.
//!
//! `cargo bench -p scheduler`, with other sizes: `cargo bench -p scheduler -- --nodes 500 --pods 1000`. Words that
//! are no options choose cases by parts of their names.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler::cache::Cache;
use scheduler::config::{KubeSchedulerConfiguration, profile};
use scheduler::cycle::{Cluster, Decision, decide};
use scheduler::framework::events::Object;
use scheduler::framework::{Action, ClusterEvent, Resource, Search};
use scheduler::plugins::registry::Parts;
use scheduler::pod_info::PodInfo;
use scheduler::profiles::Profiles;
use scheduler::queue::{Queue, Waits};
use scheduler::snapshot::Snapshot;
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One shape of cluster and pods.
struct Case {
    name: &'static str,
    /// So many times the nodes that are asked for.
    nodes: usize,
    /// Pods that are there before, made by number, and how many, given nodes and pods.
    before: Option<(Make, Count)>,
    /// Pods that are measured.
    pods: Make,
    /// How many of them, given nodes and pods.
    measured: Count,
    /// After so many attempts something in the cluster changes; 0: nothing does.
    churn: usize,
}

type Make = fn(number: usize) -> Value;
type Count = fn(nodes: usize, pods: usize) -> usize;

impl Case {
    const fn new(name: &'static str, pods: Make) -> Self {
        Self { name, nodes: 1, before: None, pods, measured: |_, pods| pods, churn: 0 }
    }

    const fn before(mut self, before: Make) -> Self {
        self.before = Some((before, |nodes, pods| if nodes < pods { nodes } else { pods }));
        self
    }

    const fn after(mut self, before: Make, count: Count) -> Self {
        self.before = Some((before, count));
        self
    }

    const fn measuring(mut self, measured: Count) -> Self {
        self.measured = measured;
        self
    }
}

const CASES: [Case; 13] = [
    Case::new("SchedulingBasic", basic).before(basic),
    Case::new("SchedulingNodeAffinity", node_affinity).before(node_affinity),
    Case::new("SchedulingPodAntiAffinity", anti_affinity),
    // Two thirds of the nodes are taken by pods of other namespaces.
    Case::new("SchedulingRequiredPodAntiAffinityWithNSSelector", repelled_everywhere)
        .after(repelled_in_many_namespaces, |nodes, _| nodes * 2 / 3)
        .measuring(|nodes, pods| pods.min(nodes / 3)),
    Case::new("SchedulingPodAffinity", affinity).before(affinity),
    Case::new("SchedulingPreferredPodAffinity", preferred_affinity).before(preferred_affinity),
    Case::new("SchedulingPreferredPodAntiAffinity", preferred_anti_affinity).before(preferred_anti_affinity),
    Case::new("TopologySpreading", spreading).before(basic),
    Case::new("MixedSchedulingBasePod", basic).after(mixed, |nodes, _| nodes * 2),
    Case { churn: 100, ..Case::new("SchedulingWithMixedChurn", basic) },
    Case::new("Preemption", high_priority)
        .after(low_priority, |nodes, _| nodes * 4)
        .measuring(|nodes, pods| pods.min(nodes)),
    Case::new("Unschedulable", basic).before(too_large),
    // As upstream: none of a controller's, but pods that name the one node they are for.
    Case { nodes: 3, ..Case::new("SchedulingDaemonset", for_one_node).measuring(|_, pods| pods * 3) },
];

fn with(labels: Value, spec: Value, cpu: &str, memory: &str) -> Value {
    let mut spec = spec;
    spec["containers"] = json!([{"name": "pause", "image": "registry.k8s.io/pause:3.10.1",
        "resources": {"limits": {"cpu": cpu, "memory": memory}, "requests": {"cpu": cpu, "memory": memory}}}]);
    json!({"metadata": {"labels": labels}, "spec": spec})
}

fn small(labels: Value, spec: Value) -> Value {
    with(labels, spec, "100m", "500Mi")
}

fn basic(_: usize) -> Value {
    small(json!({}), json!({}))
}

fn node_affinity(_: usize) -> Value {
    let zone = json!([{"matchExpressions": [
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["zone1", "zone2"]}]}]);
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": zone}}});
    small(json!({}), json!({"affinity": affinity}))
}

fn term(key: &str, label: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"color": label}}})
}

fn anti_affinity(number: usize) -> Value {
    // As many colors as it takes for all pods to find a node of their own.
    let color = format!("green{}", number % 4);
    let terms = json!([term("kubernetes.io/hostname", &color)]);
    let affinity = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
    small(json!({"color": color}), json!({"affinity": affinity}))
}

/// One on a node, whatever namespaces of the team they are in.
fn repelled(namespace: String) -> Value {
    let mut everywhere = term("kubernetes.io/hostname", "green");
    everywhere["namespaceSelector"] = json!({"matchLabels": {"team": "devops"}});
    let affinity =
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [everywhere]}});
    let mut pod = small(json!({"color": "green"}), json!({"affinity": affinity}));
    pod["metadata"]["namespace"] = json!(namespace);
    pod
}

fn repelled_in_many_namespaces(number: usize) -> Value {
    repelled(format!("init-ns-{}", number % TEAM))
}

fn repelled_everywhere(_: usize) -> Value {
    repelled("measure-ns-0".to_owned())
}

fn mixed(number: usize) -> Value {
    // Those of anti-affinity are no more than there are nodes.
    let kinds = [basic, affinity, anti_affinity, preferred_affinity, preferred_anti_affinity];
    kinds[number % kinds.len()](number / kinds.len())
}

fn for_one_node(_: usize) -> Value {
    let only = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-0"]}]}]);
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": only}}});
    json!({"metadata": {}, "spec": {"affinity": affinity, "containers": [
        {"name": "pause", "image": "registry.k8s.io/pause:3.10.1"}]}})
}

fn affinity(_: usize) -> Value {
    let terms = json!([term("topology.kubernetes.io/zone", "blue")]);
    let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
    small(json!({"color": "blue"}), json!({"affinity": affinity}))
}

fn preferred_affinity(_: usize) -> Value {
    let terms = json!([{"weight": 1, "podAffinityTerm": term("kubernetes.io/hostname", "red")}]);
    let affinity = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}});
    small(json!({"color": "red"}), json!({"affinity": affinity}))
}

fn preferred_anti_affinity(_: usize) -> Value {
    let terms = json!([{"weight": 1, "podAffinityTerm": term("kubernetes.io/hostname", "yellow")}]);
    let affinity = json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}});
    small(json!({"color": "yellow"}), json!({"affinity": affinity}))
}

fn spreading(_: usize) -> Value {
    let constraint = json!([{"maxSkew": 5, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"color": "blue"}}}]);
    small(json!({"color": "blue"}), json!({"topologySpreadConstraints": constraint}))
}

fn low_priority(_: usize) -> Value {
    with(json!({}), json!({"priority": 0}), "900m", "500Mi")
}

fn high_priority(_: usize) -> Value {
    with(json!({}), json!({"priority": 10}), "3000m", "500Mi")
}

fn too_large(_: usize) -> Value {
    with(json!({}), json!({"priority": 10, "preemptionPolicy": "Never"}), "9000m", "500Mi")
}

/// Namespaces of the team, beside the one that is measured.
const TEAM: usize = 100;

/// What kubelets have by default.
const PODS_OF_A_NODE: usize = 110;

/// The number of the node that comes and goes.
const CHURNING: usize = 1_000_000;

fn node(number: usize, pods: usize) -> Arc<Node> {
    let name = format!("node-{number}");
    let labels = json!({"kubernetes.io/hostname": name,
                        "topology.kubernetes.io/zone": format!("zone{}", number % 3)});
    let amounts = json!({"cpu": "4", "memory": "32Gi", "pods": pods.to_string()});
    let object = json!({"metadata": {"name": name, "labels": labels},
                        "status": {"allocatable": amounts, "capacity": amounts}});
    Arc::new(serde_json::from_value(object).expect("a node"))
}

fn pod(name: &str, mut object: Value) -> Arc<PodInfo> {
    object["metadata"]["name"] = json!(name);
    object["metadata"]["uid"] = json!(name);
    if object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = json!("default");
    }
    object["spec"]["schedulerName"] = json!("default-scheduler");
    let pod: Pod = serde_json::from_value(object).expect("a pod");
    Arc::new(PodInfo::new(Arc::new(pod)))
}

/// The scheduler without its surroundings.
struct Simulation {
    profiles: Arc<Profiles>,
    cache: Cache,
    queue: Queue,
    snapshot: Snapshot,
    search: Search,
    evicted: usize,
}

impl Simulation {
    /// `room`: how many pods the first node takes; others take as many as nodes do by default.
    fn new(nodes: usize, room: usize) -> Self {
        let config = KubeSchedulerConfiguration::default_for("default-scheduler");
        let framework = profile::build(&config.profiles[0], &Parts::default()).expect("the default profile");
        let profiles = Arc::new(Profiles::new([framework], false));
        let mut cache = Cache::default();
        cache.set_namespace("default", Some(std::collections::BTreeMap::new()));
        let team = std::collections::BTreeMap::from([("team".to_owned(), "devops".to_owned())]);
        let own = (0..TEAM).map(|number| format!("init-ns-{number}")).chain(["measure-ns-0".to_owned()]);
        own.for_each(|name| cache.set_namespace(&name, Some(team.clone())));
        (0..nodes).for_each(|number| {
            cache.set_node(node(number, if number == 0 { room } else { PODS_OF_A_NODE }));
        });
        let queue = Queue::new(profiles.clone(), Waits::default());
        let snapshot = Snapshot::default();
        let search = Search { threads: scheduler::parallel::threads(16), ..Search::default() };
        Self { profiles, cache, queue, snapshot, search, evicted: 0 }
    }

    /// Tries the next pod; none is left: false. Placed pods and evicted ones are told to the queue, as the API would.
    fn step(&mut self) -> Option<bool> {
        let now = tokio::time::Instant::now();
        let waiting = self.queue.pop(now)?;
        self.cache.update(&mut self.snapshot);
        let nominated = self.queue.nominator.nominated();
        let framework = self.profiles.of(&waiting.pod.pod)?.clone();
        let cluster =
            Cluster { snapshot: &self.snapshot, nominated: &nominated, extenders: &[], budgets: &Vec::new };
        let decision = decide(&framework, &waiting.pod, &cluster, &mut self.search).now_or_never()?;
        drop(nominated);
        match decision {
            Decision::Place { node, .. } => {
                self.cache.assume(&waiting.pod, node.name());
                self.queue.nominator.remove(waiting.pod.uid());
                self.queue.done(waiting.pod.uid());
                Some(true)
            }
            Decision::Refuse { diagnosis, evict, .. } => {
                let pod = waiting.pod.clone();
                self.queue.give_back(waiting, Some(&diagnosis), now);
                if let Some(candidate) = evict {
                    self.queue.nominator.set(&pod, Some(&candidate.node));
                    for victim in candidate.victims {
                        self.cache.remove_pod(victim.uid());
                        let gone = scheduler::pod_info::on_node(&victim.pod, &candidate.node);
                        self.queue.happened(ClusterEvent::pod_gone(Arc::new(gone)), now);
                        self.evicted += 1;
                    }
                }
                Some(false)
            }
            Decision::Fail(error) => panic!("{error}"),
        }
    }

    /// A node comes and goes, a Service does, and a pod that fits nowhere, in turn.
    fn churn(&mut self, turn: usize) {
        let now = tokio::time::Instant::now();
        let event = match turn % 4 {
            0 => {
                let new = node(CHURNING, PODS_OF_A_NODE);
                self.cache.set_node(new.clone());
                ClusterEvent::new(Resource::Node, Action::ADD, None, Some(Object::Node(new)))
            }
            1 => {
                let gone = node(CHURNING, PODS_OF_A_NODE);
                self.cache.remove_node(&format!("node-{CHURNING}"));
                ClusterEvent::new(Resource::Node, Action::DELETE, Some(Object::Node(gone)), None)
            }
            2 => return self.add("large", with(json!({}), json!({"priority": 10}), "9000m", "500Mi")),
            _ => return self.queue.remove("large"),
        };
        self.queue.happened(event, now);
    }

    fn add(&mut self, name: &str, object: Value) {
        self.queue.add(pod(name, object), tokio::time::Instant::now());
    }
}

fn run(case: &Case, nodes: usize, pods: usize) {
    let (measured, nodes) = ((case.measured)(nodes, pods), nodes * case.nodes);
    let mut simulation = Simulation::new(nodes, PODS_OF_A_NODE.max(measured * usize::from(case.nodes > 1)));
    if let Some((before, count)) = case.before {
        let count = count(nodes, pods);
        (0..count).for_each(|number| simulation.add(&format!("before-{number}"), before(number)));
        while simulation.queue.lengths()[0] > 0 && simulation.step().is_some() {}
    }
    let pods = measured;
    (0..pods).for_each(|number| simulation.add(&format!("pod-{number}"), (case.pods)(number)));
    let (started, mut placed, mut attempts) = (Instant::now(), 0, 0);
    // Every pod is tried at most twice: once more after room was made for it.
    while placed < pods && attempts < 3 * pods {
        attempts += 1;
        if case.churn > 0 && attempts % case.churn == 0 {
            simulation.churn(attempts / case.churn);
        }
        match simulation.step() {
            Some(true) => placed += 1,
            Some(false) => {}
            None => break,
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let evicted = simulation.evicted;
    println!(
        "{:<48} {placed:>6} of {pods} pods on {nodes} nodes in {seconds:>7.2} s: {:>8.0} pods/s, {attempts} attempts, {evicted} evicted",
        case.name,
        f64::from(u32::try_from(placed).unwrap_or(u32::MAX)) / seconds,
    );
}

fn main() {
    // Without --bench this is a test whether it works at all.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let (mut nodes, mut pods) = if is_bench { (5000, 10_000) } else { (50, 100) };
    let (mut wanted, mut arguments) = (Vec::new(), std::env::args().skip(1));
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok());
        match argument.as_str() {
            "--nodes" => nodes = number().unwrap_or(nodes),
            "--pods" => pods = number().unwrap_or(pods),
            "--bench" => {}
            other => wanted.push(other.to_owned()),
        }
    }
    let is_wanted = |case: &&Case| wanted.is_empty() || wanted.iter().any(|word| case.name.contains(word));
    CASES.iter().filter(is_wanted).for_each(|case| run(case, nodes, pods));
}
