//! Pods and clusters made from short text, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::config::{KubeSchedulerConfiguration, profile};
use crate::cycle::{self, Cluster, Decision};
use crate::framework::{Framework, Nominated, Search};
use crate::node_info::NodeInfo;
use crate::plugins::registry::Parts;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;

/// The default profile.
pub(crate) fn framework(parts: &Parts) -> Framework {
    let config = KubeSchedulerConfiguration::default_for("default-scheduler");
    profile::build(&config.profiles[0], parts).expect("the default profile")
}

/// A node of 2 CPUs, 4 Gi and 10 pods in a zone.
pub(crate) fn node(name: &str, zone: &str, extra: Value) -> NodeInfo {
    let labels = json!({"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone});
    let mut object = json!({"metadata": {"name": name, "labels": labels}, "spec": {},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
    merge(&mut object, extra);
    NodeInfo::new(Arc::new(serde_json::from_value(object).expect("a node")))
}

/// A pod with the label `app`.
pub(crate) fn pod(name: &str, app: &str, spec: Value) -> Arc<PodInfo> {
    pod_with(name, json!({"metadata": {"labels": {"app": app}}, "spec": spec}))
}

/// A pod with anything.
pub(crate) fn pod_with(name: &str, extra: Value) -> Arc<PodInfo> {
    let mut object = json!({"metadata": {"name": name, "namespace": "ns", "uid": name},
                            "spec": {"containers": [{"name": "c"}]}});
    merge(&mut object, extra);
    Arc::new(PodInfo::new(Arc::new(serde_json::from_value(object).expect("a pod"))))
}

/// Requests so much CPU.
pub(crate) fn cpu(amount: &str) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]})
}

/// Puts one value over another.
pub(crate) fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// A cluster of these nodes.
pub(crate) fn cluster(nodes: Vec<NodeInfo>) -> Snapshot {
    let mut images = std::collections::HashMap::new();
    nodes.iter().flat_map(|n| n.images.keys()).for_each(|i| *images.entry(i.clone()).or_insert(0) += 1);
    let namespaces = BTreeMap::from([("ns".to_owned(), BTreeMap::new())]);
    Snapshot::new(nodes.into_iter().map(Arc::new).collect(), Arc::new(images), Arc::new(namespaces))
}

/// One cycle with nothing else around.
pub(crate) fn decide(framework: &Framework, pod: &Arc<PodInfo>, snapshot: &Snapshot) -> Decision {
    decide_with(framework, pod, snapshot, &Nominated::new(), &[])
}

/// One cycle.
pub(crate) fn decide_with(
    framework: &Framework,
    pod: &Arc<PodInfo>,
    snapshot: &Snapshot,
    nominated: &Nominated,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Decision {
    let cluster = Cluster { snapshot, nominated, extenders: &[], budgets: &|| budgets.to_vec() };
    let mut search = Search { threads: 3, ..Search::default() };
    cycle::decide(framework, pod, &cluster, &mut search)
        .now_or_never()
        .expect("without extenders nothing waits")
}
