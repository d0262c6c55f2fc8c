//! Which events make a refused pod worth another try.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::framework::events::Object;
use crate::framework::{Action, ClusterEvent, Resource};
use crate::plugins::registry::Parts;
use crate::pod_info::PodInfo;
use crate::testing::{self, cpu, merge, pod, pod_with};

/// Something that happened, by its old and its new state.
fn nodes(old: Option<Value>, new: Option<Value>) -> ClusterEvent {
    let object = |value: Value| -> Object {
        let mut node =
            json!({"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "2", "pods": "10"}}});
        merge(&mut node, value);
        let node: Node = serde_json::from_value(node).expect("a node");
        Object::Node(Arc::new(node))
    };
    let action = if old.is_none() { Action::ADD } else { Action::NODE_LABEL };
    ClusterEvent::new(Resource::Node, action, old.map(object), new.map(object))
}

fn pods(old: Option<Value>, new: Option<Value>) -> ClusterEvent {
    let object = |value: Value| {
        let mut pod = json!({"metadata": {"name": "other", "namespace": "ns", "uid": "other"},
                             "spec": {"nodeName": "n", "containers": []}});
        merge(&mut pod, value);
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        Object::Pod(Arc::new(pod))
    };
    let action = match (&old, &new) {
        (None, _) => Action::ADD,
        (_, None) => Action::DELETE,
        _ => Action::POD_LABEL,
    };
    ClusterEvent::new(Resource::AssignedPod, action, old.map(object), new.map(object))
}

fn labels(labels: Value) -> Value {
    json!({"metadata": {"labels": labels}})
}

fn is_worth(plugin: &str, pod: &PodInfo, event: &ClusterEvent) -> bool {
    let framework = testing::framework(&Parts::default());
    framework.plugin(plugin).expect("a default plugin").is_worth_retrying(pod, event)
}

fn check(plugin: &str, pod: &PodInfo, cases: &[(&str, ClusterEvent, bool)]) {
    for (what, event, expected) in cases {
        assert_eq!(is_worth(plugin, pod, event), *expected, "{plugin}: {what}");
    }
}

#[test]
fn resources() {
    let wants = pod("p", "a", cpu("1500m"));
    let amount = |cpu: &str| json!({"status": {"allocatable": {"cpu": cpu}}});
    check(
        "NodeResourcesFit",
        &wants,
        &[
            ("a node that is large enough", nodes(None, Some(amount("2"))), true),
            ("a node that is too small", nodes(None, Some(amount("1"))), false),
            ("a node that grew", nodes(Some(amount("1")), Some(amount("2"))), true),
            ("a node that was large enough before", nodes(Some(amount("2")), Some(amount("2"))), false),
            ("a pod that went", pods(Some(json!({})), None), true),
            ("a pod that was nowhere", pods(Some(json!({"spec": {"nodeName": ""}})), None), false),
            (
                "a pod that needs less",
                pods(Some(json!({"spec": cpu("2")})), Some(json!({"spec": cpu("1")}))),
                true,
            ),
            (
                "a pod that needs more",
                pods(Some(json!({"spec": cpu("1")})), Some(json!({"spec": cpu("2")}))),
                false,
            ),
        ],
    );
}

#[test]
fn nodes_that_are_wanted_or_kept_from() {
    let picky = pod("p", "a", json!({"nodeSelector": {"disk": "ssd"}}));
    check(
        "NodeAffinity",
        &picky,
        &[
            ("the right label", nodes(None, Some(labels(json!({"disk": "ssd"})))), true),
            ("another label", nodes(None, Some(labels(json!({"disk": "hdd"})))), false),
            ("changed to the right one", nodes(Some(json!({})), Some(labels(json!({"disk": "ssd"})))), true),
            (
                "had the right one before",
                nodes(Some(labels(json!({"disk": "ssd"}))), Some(labels(json!({"disk": "ssd", "x": "y"})))),
                false,
            ),
        ],
    );
    let tainted = |key: &str| json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
    let tolerant = pod("p", "a", json!({"tolerations": [{"key": "mine", "operator": "Exists"}]}));
    check(
        "TaintToleration",
        &tolerant,
        &[
            ("tolerated", nodes(None, Some(tainted("mine"))), true),
            ("not tolerated", nodes(None, Some(tainted("other"))), false),
            ("no longer tainted", nodes(Some(tainted("other")), Some(json!({}))), true),
            ("was fine before", nodes(Some(json!({})), Some(tainted("mine"))), false),
        ],
    );
    let cordoned = |yes: bool| json!({"spec": {"unschedulable": yes}});
    check(
        "NodeUnschedulable",
        &pod("p", "a", json!({})),
        &[
            ("uncordoned", nodes(Some(cordoned(true)), Some(cordoned(false))), true),
            ("new and cordoned", nodes(None, Some(cordoned(true))), false),
            ("never cordoned", nodes(Some(cordoned(false)), Some(cordoned(false))), false),
        ],
    );
}

#[test]
fn ports() {
    let on =
        |port: i32| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": port}]}]});
    check(
        "NodePorts",
        &pod("p", "a", on(80)),
        &[
            ("the same port is free", pods(Some(json!({"spec": on(80)})), None), true),
            ("another port is free", pods(Some(json!({"spec": on(81)})), None), false),
            ("a pod without ports went", pods(Some(json!({})), None), false),
        ],
    );
}

#[test]
fn pods_that_are_wanted_near_or_away() {
    let term = json!([{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}}]);
    let rule =
        |kind: &str| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    let app = |name: &str| labels(json!({"app": name}));
    let zone = |name: &str| labels(json!({"zone": name}));
    check(
        "InterPodAffinity",
        &pod("p", "web", rule("podAffinity")),
        &[
            ("a pod it wants came", pods(None, Some(app("db"))), true),
            ("another pod came", pods(None, Some(app("web"))), false),
            ("a pod became one it wants", pods(Some(app("x")), Some(app("db"))), true),
            ("a pod it wants went", pods(Some(app("db")), None), false),
            ("a node of a zone", nodes(None, Some(zone("z"))), true),
            ("a node of no zone", nodes(None, Some(json!({}))), false),
        ],
    );
    check(
        "InterPodAffinity",
        &pod("p", "web", rule("podAntiAffinity")),
        &[
            ("a pod it avoids went", pods(Some(app("db")), None), true),
            ("another pod went", pods(Some(app("web")), None), false),
            ("a pod became none it avoids", pods(Some(app("db")), Some(app("x"))), true),
            ("a new node", nodes(None, Some(json!({}))), true),
            ("a node left its zone", nodes(Some(zone("z")), Some(json!({}))), true),
            ("a node stays in its zone", nodes(Some(zone("z")), Some(zone("z"))), false),
        ],
    );
    let avoids_web = json!([{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let other = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": avoids_web}}}});
    check(
        "InterPodAffinity",
        &pod("p", "web", json!({})),
        &[("a pod that avoids it went", pods(Some(other), None), true)],
    );
}

#[test]
fn spreading() {
    let constraint = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                             "labelSelector": {"matchLabels": {"app": "web"}}}]);
    let spread = pod("p", "web", json!({"topologySpreadConstraints": constraint}));
    let app = |name: &str| labels(json!({"app": name}));
    let zone = |name: &str| labels(json!({"zone": name}));
    check(
        "PodTopologySpread",
        &spread,
        &[
            ("a pod that is counted came", pods(None, Some(app("web"))), true),
            ("a pod that is counted went", pods(Some(app("web")), None), true),
            ("another pod went", pods(Some(app("db")), None), false),
            (
                "a pod of another namespace went",
                pods(Some(json!({"metadata": {"namespace": "x", "labels": {"app": "web"}}})), None),
                false,
            ),
            ("a pod is counted from now on", pods(Some(app("db")), Some(app("web"))), true),
            ("a node with the label", nodes(None, Some(zone("z"))), true),
            ("a node without the label", nodes(None, Some(json!({}))), false),
            ("a node moved", nodes(Some(zone("z")), Some(zone("y"))), true),
            ("a node as it was", nodes(Some(zone("z")), Some(zone("z"))), false),
        ],
    );
}

#[test]
fn gates_and_claims() {
    let gated = pod_with("p", json!({"spec": {"schedulingGates": [{"name": "g"}]}}));
    let other = pods(Some(json!({})), Some(json!({})));
    let itself = pods(Some(json!({})), Some(json!({"metadata": {"uid": "p"}})));
    check("SchedulingGates", &gated, &[("another pod", other, false), ("the pod itself", itself, true)]);
}
