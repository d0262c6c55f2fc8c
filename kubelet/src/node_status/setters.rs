//! The node's status from what was found. Pure; as upstream's `nodestatus/setters.go`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proto::cri;

use super::machine::{Machine, kibibytes};
use crate::devices::{self, Capacity};
use crate::quantity;

/// The version this kubelet reports.
pub const VERSION: &str = "v1.36.2";
/// Most names of one image in the status.
const MAX_IMAGE_NAMES: usize = 5;

/// Pressure on the node's resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory is short.
    pub memory: bool,
    /// Disk is short.
    pub disk: bool,
    /// Process numbers are short.
    pub pid: bool,
}

/// Everything a node's status is made from.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The machine.
    pub machine: Machine,
    /// Size of the file system of the kubelet's directory, in bytes.
    pub ephemeral_storage: u64,
    /// Most pods.
    pub max_pods: i32,
    /// Most pods per CPU; zero for no such limit.
    pub pods_per_core: i32,
    /// What is kept back from pods.
    pub reserved: BTreeMap<String, Quantity>,
    /// Addresses, primary first.
    pub addresses: Vec<IpAddr>,
    /// Host name.
    pub hostname: String,
    /// Port of the kubelet's server.
    pub port: u16,
    /// The runtime's name and version, `containerd://1.6.20`.
    pub runtime_version: String,
    /// Images on this node.
    pub images: Vec<cri::Image>,
    /// Most images in the status; negative for all.
    pub max_images: i32,
    /// Handlers of the runtime.
    pub handlers: Vec<cri::RuntimeHandler>,
    /// Pressure on resources.
    pub pressure: Pressure,
    /// Why the node is not ready.
    pub faults: Vec<String>,
    /// Attached volumes that pods use.
    pub volumes_in_use: Vec<String>,
    /// Devices of plugins.
    pub devices: Capacity,
}

/// Sets everything of plugins to nothing: the node was made anew, and they have not told of themselves yet.
pub fn reset_devices(node: &mut Node) {
    let status = node.status.get_or_insert_default();
    for list in [&mut status.capacity, &mut status.allocatable] {
        let extended = list.iter_mut().flatten().filter(|(name, _)| devices::is_extended(name));
        extended.for_each(|(_, amount)| *amount = Quantity("0".to_owned()));
    }
}

/// An event about the node: reason and whether it is a warning, with its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// Reason.
    pub reason: String,
    /// Message.
    pub message: String,
    /// People should look.
    pub warning: bool,
}

/// What the scheduler and admission may count on here, by the names of upstream's feature gates.
const DECLARED: [&str; 2] =
    ["InPlacePodLevelResourcesVerticalScaling", "RestartAllContainersOnContainerExits"];

/// Brings `node`'s status to what `facts` say; what others put there stays. Answers events about what changed.
pub fn set_status(node: &mut Node, facts: &Facts, now: Timestamp) -> Vec<NodeEvent> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let mut status = node.status.take().unwrap_or_default();
    let mut events = Vec::new();
    status.addresses = Some(addresses(facts));
    set_resources(&mut status, facts);
    set_info(&mut status, facts, &name, &mut events);
    status.daemon_endpoints =
        Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(facts.port) }) });
    status.images = Some(images(facts));
    status.runtime_handlers = handlers(facts);
    status.declared_features = Some(DECLARED.map(str::to_owned).into());
    let in_use = &facts.volumes_in_use;
    status.volumes_in_use = (!in_use.is_empty()).then(|| in_use.clone());
    set_conditions(&mut status, facts, &name, now, &mut events);
    node.status = Some(status);
    events
}

fn addresses(facts: &Facts) -> Vec<NodeAddress> {
    let address = |kind: &str, text: String| NodeAddress { type_: kind.to_owned(), address: text };
    let ips = facts.addresses.iter().map(|ip| address("InternalIP", ip.to_string()));
    ips.chain([address("Hostname", facts.hostname.clone())]).collect()
}

fn set_resources(status: &mut NodeStatus, facts: &Facts) {
    let capacity = status.capacity.get_or_insert_default();
    capacity.extend(facts.machine.capacity());
    let bytes = i64::try_from(facts.ephemeral_storage).unwrap_or(i64::MAX);
    capacity.insert("ephemeral-storage".to_owned(), kibibytes(bytes));
    let mut pods = i64::from(facts.max_pods);
    if facts.pods_per_core > 0 {
        pods = pods.min(facts.machine.cores * i64::from(facts.pods_per_core));
    }
    capacity.insert("pods".to_owned(), Quantity(pods.to_string()));
    let count = |number: usize| Quantity(number.to_string());
    for (name, (all, _)) in &facts.devices.resources {
        capacity.insert(name.clone(), count(*all));
    }
    for name in &facts.devices.removed {
        // Left at nothing, not left out: what is not there may be the cluster's business.
        capacity.insert(name.clone(), count(0));
    }
    let capacity = capacity.clone();
    let allocatable = status.allocatable.get_or_insert_default();
    allocatable.retain(|name, _| capacity.contains_key(name));
    for (name, amount) in &capacity {
        allocatable.insert(name.clone(), minus(name, amount, facts.reserved.get(name)));
    }
    for (name, (_, healthy)) in &facts.devices.resources {
        allocatable.insert(name.clone(), count(*healthy));
    }
    let huge: i64 = facts.machine.huge_pages.values().sum();
    if huge > 0
        && let Some(memory) = allocatable.get_mut("memory")
    {
        *memory = kibibytes((quantity::value(memory) - huge).max(0));
    }
}

fn minus(name: &str, amount: &Quantity, reserved: Option<&Quantity>) -> Quantity {
    let Some(reserved) = reserved else { return amount.clone() };
    if name == "cpu" {
        return quantity::from_milli(
            (quantity::milli_value(amount) - quantity::milli_value(reserved)).max(0),
        );
    }
    let left = (quantity::value(amount) - quantity::value(reserved)).max(0);
    // As upstream, which keeps the amount's own notation: storage is reported in plain bytes once something is taken.
    if name == "ephemeral-storage" { Quantity(left.to_string()) } else { kibibytes(left) }
}

fn set_info(status: &mut NodeStatus, facts: &Facts, name: &str, events: &mut Vec<NodeEvent>) {
    let before = status.node_info.take().unwrap_or_default();
    let machine = &facts.machine;
    if !before.boot_id.is_empty() && before.boot_id != machine.boot_id {
        events.push(NodeEvent {
            reason: "Rebooted".to_owned(),
            message: format!("Node {name} has been rebooted, boot id: {}", machine.boot_id),
            warning: true,
        });
    }
    status.node_info = Some(NodeSystemInfo {
        architecture: architecture().to_owned(),
        boot_id: machine.boot_id.clone(),
        container_runtime_version: facts.runtime_version.clone(),
        kernel_version: machine.kernel_version.clone(),
        kube_proxy_version: String::new(),
        kubelet_version: VERSION.to_owned(),
        machine_id: machine.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: machine.os_image.clone(),
        swap: (machine.swap > 0).then_some(NodeSwapStatus { capacity: Some(machine.swap) }),
        system_uuid: machine.system_uuid.clone(),
    });
}

/// The architecture in Go's words.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn images(facts: &Facts) -> Vec<ContainerImage> {
    let mut all: Vec<&cri::Image> = facts.images.iter().collect();
    // The largest first: the scheduler looks at where large images already are.
    all.sort_by_key(|i| (std::cmp::Reverse(i.size), i.id.clone()));
    let most = usize::try_from(facts.max_images).unwrap_or(usize::MAX);
    let image = |i: &&cri::Image| ContainerImage {
        names: Some(i.repo_digests.iter().chain(&i.repo_tags).take(MAX_IMAGE_NAMES).cloned().collect()),
        size_bytes: i64::try_from(i.size).ok(),
    };
    all.iter().take(most).map(image).collect()
}

fn handlers(facts: &Facts) -> Option<Vec<NodeRuntimeHandler>> {
    let handler = |h: &cri::RuntimeHandler| NodeRuntimeHandler {
        name: Some(h.name.clone()),
        features: h.features.as_ref().map(|f| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
            user_namespaces: Some(f.user_namespaces),
        }),
    };
    (!facts.handlers.is_empty()).then(|| facts.handlers.iter().map(handler).collect())
}

/// How a condition is called when it holds and when it does not: reason, message, event.
struct Words {
    kind: &'static str,
    yes: [&'static str; 3],
    no: [&'static str; 3],
}

const PRESSURES: [Words; 3] = [
    Words {
        kind: "MemoryPressure",
        yes: [
            "KubeletHasInsufficientMemory",
            "kubelet has insufficient memory available",
            "NodeHasInsufficientMemory",
        ],
        no: [
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
            "NodeHasSufficientMemory",
        ],
    },
    Words {
        kind: "DiskPressure",
        yes: ["KubeletHasDiskPressure", "kubelet has disk pressure", "NodeHasDiskPressure"],
        no: ["KubeletHasNoDiskPressure", "kubelet has no disk pressure", "NodeHasNoDiskPressure"],
    },
    Words {
        kind: "PIDPressure",
        yes: [
            "KubeletHasInsufficientPID",
            "kubelet has insufficient PID available",
            "NodeHasInsufficientPID",
        ],
        no: ["KubeletHasSufficientPID", "kubelet has sufficient PID available", "NodeHasSufficientPID"],
    },
];

fn set_conditions(
    status: &mut NodeStatus,
    facts: &Facts,
    name: &str,
    now: Timestamp,
    events: &mut Vec<NodeEvent>,
) {
    let conditions = status.conditions.get_or_insert_default();
    let happened = [facts.pressure.memory, facts.pressure.disk, facts.pressure.pid];
    for (words, yes) in PRESSURES.iter().zip(happened) {
        let [reason, message, event] = if yes { words.yes } else { words.no };
        if set_condition(conditions, words.kind, yes, reason, message, now) {
            events.push(node_event(name, event));
        }
    }
    let before = conditions.iter().find(|c| c.type_ == "Ready").map(|c| c.status.clone());
    let ready = facts.faults.is_empty();
    let fault = match facts.faults.as_slice() {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    let (reason, message) = if ready {
        ("KubeletReady", "kubelet is posting ready status")
    } else {
        ("KubeletNotReady", fault.as_str())
    };
    let changed = set_condition(conditions, "Ready", ready, reason, message, now);
    // As upstream: the first Ready of a node is no change, and says nothing.
    if changed && before.is_some() {
        events.push(node_event(name, if ready { "NodeReady" } else { "NodeNotReady" }));
    }
}

fn node_event(name: &str, event: &str) -> NodeEvent {
    NodeEvent {
        reason: event.to_owned(),
        message: format!("Node {name} status is now: {event}"),
        warning: false,
    }
}

/// Sets a condition; whether its status changed.
fn set_condition(
    all: &mut Vec<NodeCondition>,
    kind: &str,
    yes: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let status = if yes { "True" } else { "False" };
    let new = |since: Option<Time>| NodeCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: since.or(Some(Time(now))),
    };
    match all.iter_mut().find(|c| c.type_ == kind) {
        Some(found) => {
            let same = found.status == status;
            *found = new(found.last_transition_time.clone().filter(|_| same));
            !same
        }
        None => {
            all.push(new(None));
            true
        }
    }
}

/// Whether two statuses differ in more than heartbeats.
#[must_use]
pub fn differs(old: Option<&NodeStatus>, new: &NodeStatus) -> bool {
    let Some(old) = old else { return true };
    let still = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        status
    };
    still(old) != still(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            machine: Machine { cores: 2, memory: 4 << 30, boot_id: "b1".into(), ..Machine::default() },
            ephemeral_storage: 100 << 20,
            max_pods: 110,
            reserved: BTreeMap::from([
                ("cpu".to_owned(), Quantity("100m".into())),
                ("memory".to_owned(), Quantity("100Mi".into())),
                ("ephemeral-storage".to_owned(), Quantity("10Mi".into())),
            ]),
            addresses: vec!["10.0.0.1".parse().expect("valid")],
            hostname: "n1".into(),
            max_images: 50,
            ..Facts::default()
        }
    }

    fn node(status: &str) -> Node {
        serde_saphyr::from_str(&format!("metadata: {{name: n1}}\nstatus: {status}")).expect("valid")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    #[test]
    fn a_node_declares_what_it_can_do() {
        let mut node = node("{declaredFeatures: [OfAnOlderKubelet]}");
        set_status(&mut node, &facts(), at(0));
        let declared = node.status.and_then(|status| status.declared_features).expect("set");
        assert_eq!(declared, DECLARED);
        assert!(declared.is_sorted(), "validation wants them in order");
    }

    #[test]
    fn resources_of_others_survive() {
        let mut node =
            node("{capacity: {example.com/dongle: '4', cpu: '9'}, allocatable: {example.com/gone: '1'}}");
        set_status(&mut node, &facts(), at(0));
        let status = node.status.expect("set");
        let (capacity, allocatable) = (status.capacity.expect("set"), status.allocatable.expect("set"));
        assert_eq!(capacity["example.com/dongle"].0, "4");
        assert_eq!(allocatable["example.com/dongle"].0, "4");
        assert!(!allocatable.contains_key("example.com/gone"));
        assert_eq!((capacity["cpu"].0.as_str(), allocatable["cpu"].0.as_str()), ("2", "1900m"));
        assert_eq!(allocatable["memory"].0, format!("{}Ki", (4096 - 100) * 1024));
        assert_eq!(allocatable["ephemeral-storage"].0, (90 << 20).to_string());
        assert_eq!(capacity["pods"].0, "110");
    }

    #[test]
    fn devices_are_counted_and_remembered_at_nothing() {
        let mut node = node("{capacity: {example.com/gone: '4', other.com/kept: '1'}}");
        let devices = Capacity {
            resources: [("example.com/dongle".to_owned(), (3, 2)), ("example.com/late".to_owned(), (0, 0))]
                .into(),
            removed: ["example.com/gone".to_owned()].into(),
        };
        set_status(&mut node, &Facts { devices, ..facts() }, at(0));
        let shown = |node: &Node, name: &str| {
            let status = node.status.clone().expect("set");
            let of = |list: Option<BTreeMap<String, Quantity>>| list.expect("set")[name].0.clone();
            format!("{} {}", of(status.capacity), of(status.allocatable))
        };
        assert_eq!(shown(&node, "example.com/dongle"), "3 2");
        assert_eq!(shown(&node, "example.com/late"), "0 0");
        assert_eq!(shown(&node, "example.com/gone"), "0 0");
        assert_eq!(shown(&node, "other.com/kept"), "1 1");
        reset_devices(&mut node);
        assert_eq!(shown(&node, "other.com/kept"), "0 0");
        assert_eq!(shown(&node, "pods"), "110 110");
    }

    #[test]
    fn conditions_change_with_the_facts_and_say_so() {
        let mut node = node("{}");
        let reasons = |events: Vec<NodeEvent>| events.into_iter().map(|e| e.reason).collect::<Vec<_>>();
        let first = reasons(set_status(&mut node, &facts(), at(0)));
        assert_eq!(first, ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"]);
        assert!(set_status(&mut node, &facts(), at(5)).is_empty());
        let faulty = Facts {
            faults: vec!["container runtime is down".into()],
            pressure: Pressure { memory: true, ..Pressure::default() },
            ..facts()
        };
        assert_eq!(
            reasons(set_status(&mut node, &faulty, at(9))),
            ["NodeHasInsufficientMemory", "NodeNotReady"]
        );
        let status = node.status.clone().expect("set");
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").expect("set");
        assert_eq!(ready.message.as_deref(), Some("container runtime is down"));
        assert_eq!(ready.reason.as_deref(), Some("KubeletNotReady"));
        assert_eq!(ready.last_transition_time, Some(Time(at(9))));
        assert_eq!(
            reasons(set_status(&mut node, &facts(), at(12))),
            ["NodeHasSufficientMemory", "NodeReady"]
        );
    }

    #[test]
    fn a_reboot_is_told() {
        let mut node = node("{}");
        set_status(&mut node, &facts(), at(0));
        let mut rebooted = facts();
        rebooted.machine.boot_id = "b2".into();
        let events = set_status(&mut node, &rebooted, at(1));
        assert_eq!(events[0].message, "Node n1 has been rebooted, boot id: b2");
    }

    #[test]
    fn only_heartbeats_are_no_difference() {
        let mut node = node("{}");
        set_status(&mut node, &facts(), at(0));
        let first = node.status.clone().expect("set");
        set_status(&mut node, &facts(), at(60));
        assert!(!differs(Some(&first), node.status.as_ref().expect("set")));
        set_status(&mut node, &Facts { max_pods: 5, ..facts() }, at(60));
        assert!(differs(Some(&first), node.status.as_ref().expect("set")));
    }

    #[test]
    fn the_largest_images_are_listed() {
        let image = |id: &str, size| cri::Image {
            id: id.into(),
            size,
            repo_tags: vec![id.into()],
            ..Default::default()
        };
        let facts =
            Facts { images: vec![image("s", 1), image("l", 9), image("m", 5)], max_images: 2, ..facts() };
        let names: Vec<_> = images(&facts).into_iter().flat_map(|i| i.names.unwrap_or_default()).collect();
        assert_eq!(names, ["l", "m"]);
    }
}
