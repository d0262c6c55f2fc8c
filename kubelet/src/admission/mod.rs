//! Whether a pod may run on this node. Pure; reasons and messages as upstream's `lifecycle/predicate.go`.

pub mod preempt;
pub mod sysctl;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, Pod, Taint, Toleration};

use crate::{qos, quantity, types};

/// Why a pod is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// One word, the reason of the pod's status.
    pub reason: String,
    /// A sentence; upstream's preface stands before it in the status.
    pub message: String,
}

pub(crate) fn reject(reason: impl Into<String>, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection { reason: reason.into(), message: message.into() })
}

/// Admits `pod` beside `others`, the pods that run here already.
pub fn admit(pod: &Pod, others: &[&Pod], node: &Node, allowed_sysctls: &[String]) -> Result<(), Rejection> {
    sysctl::check(pod, allowed_sysctls)?;
    check_os(pod, node)?;
    check_resources(pod, others, node)?;
    check_affinity(pod, node)?;
    check_ports(pod, others)?;
    check_taints(pod, node)
}

/// Whether `pod`, which runs here, may have what it asks for now. Pure; all but the room there is was settled when it came.
pub fn admit_resize(pod: &Pod, others: &[&Pod], node: &Node) -> Result<(), Rejection> {
    check_resources(pod, others, node)
}

/// A resource there is too little of, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// Its name.
    pub resource: String,
    /// What the pod asks.
    pub requested: i64,
    /// What the others have.
    pub used: i64,
    /// What there is.
    pub capacity: i64,
}

impl Shortage {
    /// What others would have to leave.
    #[must_use]
    pub fn missing(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }
}

/// As [`admit`], for a pod that others may have to leave for: what there is too little of, if nothing else is against it.
pub fn admit_critical(
    pod: &Pod,
    others: &[&Pod],
    node: &Node,
    allowed_sysctls: &[String],
) -> Result<Vec<Shortage>, Rejection> {
    sysctl::check(pod, allowed_sysctls)?;
    check_os(pod, node)?;
    check_affinity(pod, node)?;
    check_ports(pod, others)?;
    check_taints(pod, node)?;
    Ok(shortages(pod, others, node))
}

fn check_os(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let label = node.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
    let wanted = types::spec(pod).node_selector.as_ref().and_then(|s| s.get("kubernetes.io/os"));
    if let (Some(wanted), Some(label)) = (wanted, label)
        && wanted != label
    {
        return reject(
            "PodOSSelectorNodeLabelDoesNotMatch",
            "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
        );
    }
    if types::spec(pod).os.as_ref().is_some_and(|os| os.name != "linux") {
        return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    Ok(())
}

fn check_resources(pod: &Pod, others: &[&Pod], node: &Node) -> Result<(), Rejection> {
    let Some(short) = shortages(pod, others, node).into_iter().next() else { return Ok(()) };
    let Shortage { resource, requested, used, capacity } = short;
    let unit = if resource == "cpu" { 1 } else { 1000 };
    let (requested, used, capacity) = (requested / unit, used / unit, capacity / unit);
    reject(
        format!("OutOf{resource}"),
        format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        ),
    )
}

fn shortages(pod: &Pod, others: &[&Pod], node: &Node) -> Vec<Shortage> {
    let allocatable = node.status.as_ref().and_then(|s| s.allocatable.clone()).unwrap_or_default();
    let mut wanted = vec![("pods".to_owned(), 1000)];
    wanted.extend(qos::pod_requests(pod));
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for other in others {
        *used.entry("pods".to_owned()).or_default() += 1000;
        for (name, amount) in qos::pod_requests(other) {
            *used.entry(name).or_default() += amount;
        }
    }
    let short = |(resource, requested): (String, i64)| {
        // Resources the node does not have are another's business: they may be of the cluster, not of the node.
        let capacity = quantity::milli_value(allocatable.get(&resource)?);
        let used = used.get(&resource).copied().unwrap_or_default();
        let is_short = requested > 0 && requested > capacity - used;
        is_short.then_some(Shortage { resource, requested, used, capacity })
    };
    wanted.into_iter().filter_map(short).collect()
}

fn check_affinity(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let spec = types::spec(pod);
    let empty = BTreeMap::new();
    let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
    let selected = spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    let name = BTreeMap::from([("metadata.name".to_owned(), node.metadata.name.clone().unwrap_or_default())]);
    let affine = required.is_none_or(|selector| {
        selector.node_selector_terms.iter().any(|term| {
            let (expressions, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
            let any = expressions.is_some_and(|e| !e.is_empty()) || fields.is_some_and(|f| !f.is_empty());
            any && expressions.unwrap_or_default().iter().all(|r| matches(r, labels))
                && fields.unwrap_or_default().iter().all(|r| matches(r, &name))
        })
    });
    if selected && affine {
        return Ok(());
    }
    reject("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
}

fn matches(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &String| text.parse::<i64>().ok();
    let compared = || Some((number(value?)?, number(values.first()?)?));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|v| values.contains(v)),
        "NotIn" => value.is_none_or(|v| !values.contains(v)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared().is_some_and(|(a, b)| a > b),
        "Lt" => compared().is_some_and(|(a, b)| a < b),
        _ => false,
    }
}

/// Host ports of a pod: protocol, address, port.
fn host_ports(pod: &Pod) -> Vec<(String, String, i32)> {
    let spec = types::spec(pod);
    let sidecars = types::init_containers(spec).iter().filter(|c| types::is_restartable_init(c));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
    ports
        .filter_map(|p| {
            // On the node's network every port is the node's.
            let port =
                p.host_port.filter(|p| *p > 0).or(types::host_network(pod).then_some(p.container_port))?;
            let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
            Some((p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), ip, port))
        })
        .collect()
}

fn check_ports(pod: &Pod, others: &[&Pod]) -> Result<(), Rejection> {
    let taken: Vec<_> = others.iter().flat_map(|p| host_ports(p)).collect();
    let any = |ip: &str| ip == "0.0.0.0";
    let clash = host_ports(pod).iter().any(|(protocol, ip, port)| {
        taken.iter().any(|(p, i, n)| p == protocol && n == port && (i == ip || any(i) || any(ip)))
    });
    if clash {
        return reject(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        );
    }
    Ok(())
}

fn check_taints(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    // As upstream: static pods run whatever the taints.
    if crate::pods::is_static(pod) {
        return Ok(());
    }
    let tolerations = types::spec(pod).tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or_default();
    let hit = taints.iter().any(|t| t.effect == "NoExecute" && !tolerations.iter().any(|o| tolerates(o, t)));
    if hit {
        return reject(
            "TaintToleration",
            "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
        );
    }
    Ok(())
}

/// Whether a toleration covers a taint.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        serde_saphyr::from_str(&format!("metadata: {{name: p}}\nspec: {spec}")).expect("valid pod")
    }

    #[test]
    fn refusals_are_upstreams() {
        let node: Node = serde_saphyr::from_str(
            "metadata: {name: n1, labels: {disk: ssd, kubernetes.io/os: linux, cores: '8'}}\n\
             spec: {taints: [{key: gone, effect: NoExecute}, {key: full, effect: NoSchedule}]}\n\
             status: {allocatable: {cpu: '2', memory: 1Gi, pods: '3'}}",
        )
        .expect("valid node");
        let other = pod(
            "{tolerations: [{operator: Exists}], containers: [{name: a, ports: [{containerPort: 80, hostPort: 8080}], \
             resources: {requests: {cpu: 1500m}}}]}",
        );
        let cases = [
            ("{tolerations: [{operator: Exists}], containers: [{name: a}]}", None),
            ("{containers: [{name: a}]}", Some("TaintToleration")),
            ("{tolerations: [{key: gone, operator: Exists, effect: NoExecute}], containers: []}", None),
            ("{os: {name: windows}, containers: []}", Some("PodOSNotSupported")),
            (
                "{nodeSelector: {kubernetes.io/os: windows}, containers: []}",
                Some("PodOSSelectorNodeLabelDoesNotMatch"),
            ),
            ("{nodeSelector: {disk: hdd}, containers: []}", Some("NodeAffinity")),
            ("{containers: [{name: a, resources: {requests: {cpu: 600m}}}]}", Some("OutOfcpu")),
            ("{containers: [{name: a, resources: {requests: {memory: 2Gi}}}]}", Some("OutOfmemory")),
            ("{containers: [{name: a, ports: [{containerPort: 1, hostPort: 8080}]}]}", Some("NodePorts")),
            (
                "{tolerations: [{operator: Exists}], containers: [{name: a, ports: [{containerPort: 1, hostPort: 8080, protocol: UDP}]}]}",
                None,
            ),
            (
                "{tolerations: [{operator: Exists}], containers: [], affinity: {nodeAffinity: \
                 {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: \
                 [{key: cores, operator: Gt, values: ['4']}], matchFields: [{key: metadata.name, operator: In, values: [n1]}]}]}}}}",
                None,
            ),
        ];
        for (spec, reason) in cases {
            let result = admit(&pod(spec), &[&other], &node, &[]);
            assert_eq!(result.err().map(|r| r.reason).as_deref(), reason, "{spec}");
        }
        let full = admit(&pod("{containers: []}"), &[&other, &other, &other], &node, &[]).expect_err("full");
        assert_eq!(full.reason, "OutOfpods");
        assert_eq!(
            full.message,
            "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"
        );
        let cpu = admit(
            &pod("{containers: [{name: a, resources: {requests: {cpu: 600m}}}]}"),
            &[&other],
            &node,
            &[],
        );
        assert_eq!(
            cpu.expect_err("full").message,
            "Node didn't have enough resource: cpu, requested: 600, used: 1500, capacity: 2000"
        );
    }
}
