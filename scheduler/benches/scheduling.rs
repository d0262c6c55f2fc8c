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
use scheduler::framework::{ClusterEvent, Search};
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
    /// Pods that are there before, made by number, as many as asked for.
    before: Option<fn(usize) -> Value>,
    /// Pods that are measured.
    pods: fn(usize) -> Value,
}

const CASES: [Case; 9] = [
    Case { name: "SchedulingBasic", before: Some(basic), pods: basic },
    Case { name: "SchedulingNodeAffinity", before: Some(node_affinity), pods: node_affinity },
    Case { name: "SchedulingPodAntiAffinity", before: None, pods: anti_affinity },
    Case { name: "SchedulingPodAffinity", before: Some(affinity), pods: affinity },
    Case {
        name: "SchedulingPreferredPodAffinity",
        before: Some(preferred_affinity),
        pods: preferred_affinity,
    },
    Case {
        name: "SchedulingPreferredPodAntiAffinity",
        before: Some(preferred_anti_affinity),
        pods: preferred_anti_affinity,
    },
    Case { name: "TopologySpreading", before: Some(basic), pods: spreading },
    Case { name: "Preemption", before: Some(low_priority), pods: high_priority },
    Case { name: "Unschedulable", before: Some(too_large), pods: basic },
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

fn node(number: usize) -> Arc<Node> {
    let name = format!("node-{number}");
    let labels = json!({"kubernetes.io/hostname": name,
                        "topology.kubernetes.io/zone": format!("zone{}", number % 3)});
    let amounts = json!({"cpu": "4", "memory": "32Gi", "pods": "110"});
    let object = json!({"metadata": {"name": name, "labels": labels},
                        "status": {"allocatable": amounts, "capacity": amounts}});
    Arc::new(serde_json::from_value(object).expect("a node"))
}

fn pod(name: &str, mut object: Value) -> Arc<PodInfo> {
    object["metadata"]["name"] = json!(name);
    object["metadata"]["uid"] = json!(name);
    object["metadata"]["namespace"] = json!("default");
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
    fn new(nodes: usize) -> Self {
        let config = KubeSchedulerConfiguration::default_for("default-scheduler");
        let framework = profile::build(&config.profiles[0], &Parts::default()).expect("the default profile");
        let profiles = Arc::new(Profiles::new([framework], false));
        let mut cache = Cache::default();
        cache.set_namespace("default", Some(std::collections::BTreeMap::new()));
        (0..nodes).for_each(|number| cache.set_node(node(number)));
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

    fn add(&mut self, name: &str, object: Value) {
        self.queue.add(pod(name, object), tokio::time::Instant::now());
    }
}

fn run(case: &Case, nodes: usize, pods: usize) {
    let mut simulation = Simulation::new(nodes);
    if let Some(before) = case.before {
        let count = if case.name == "Preemption" { nodes * 4 } else { nodes.min(pods) };
        (0..count).for_each(|number| simulation.add(&format!("before-{number}"), before(number)));
        while simulation.queue.lengths()[0] > 0 && simulation.step().is_some() {}
    }
    let pods = if case.name == "Preemption" { pods.min(nodes) } else { pods };
    (0..pods).for_each(|number| simulation.add(&format!("pod-{number}"), (case.pods)(number)));
    let (started, mut placed, mut attempts) = (Instant::now(), 0, 0);
    // Every pod is tried at most twice: once more after room was made for it.
    while placed < pods && attempts < 3 * pods {
        attempts += 1;
        match simulation.step() {
            Some(true) => placed += 1,
            Some(false) => {}
            None => break,
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let evicted = simulation.evicted;
    println!(
        "{:<36} {placed:>6} of {pods} pods on {nodes} nodes in {seconds:>7.2} s: {:>8.0} pods/s, {attempts} attempts, {evicted} evicted",
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
