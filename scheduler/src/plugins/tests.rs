//! Pods and clusters as short text, and where each pod goes.

use std::sync::Arc;

use serde_json::json;

use super::registry::Parts;
use crate::cycle::Decision;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use crate::testing::{self, cluster, cpu, node, pod};

fn choice(pod: &Arc<PodInfo>, snapshot: &Snapshot) -> String {
    match testing::decide(&testing::framework(&Parts::default()), pod, snapshot) {
        Decision::Place { node, .. } => node.name().to_owned(),
        Decision::Refuse { mut diagnosis, .. } => {
            diagnosis.after.clear();
            diagnosis.to_string()
        }
        Decision::Fail(error) => error,
    }
}

#[test]
fn every_refusal_has_upstreams_words() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let nodes = || {
        cluster(vec![
            node("cordoned", "z1", json!({"spec": {"unschedulable": true}})),
            node("plain", "z1", json!({})),
            node("tainted", "z1", tainted.clone()),
        ])
    };
    for (spec, expected) in [
        (json!({}), "plain"),
        (
            json!({"tolerations": [{"key": "k", "operator": "Exists"}], "nodeSelector": {"kubernetes.io/hostname": "tainted"}}),
            "tainted",
        ),
        (
            cpu("3"),
            "0/3 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
        ),
        (
            json!({"nodeSelector": {"disk": "ssd"}}),
            "0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable.",
        ),
    ] {
        assert_eq!(choice(&pod("p", "a", spec.clone()), &nodes()), expected, "{spec}");
    }
    assert_eq!(choice(&pod("p", "a", json!({})), &cluster(vec![])), "no nodes available to schedule pods");
}

#[test]
fn ports_and_pod_counts_are_limits() {
    let mut full = node("full", "z", json!({"status": {"allocatable": {"pods": "1"}}}));
    let on_port = |ip: &str| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]});
    full.add(pod("there", "a", on_port("10.0.0.1")));
    assert_eq!(
        choice(&pod("p", "a", json!({})), &cluster(vec![full.clone()])),
        "0/1 nodes are available: 1 Too many pods."
    );
    full.allocatable.pods = 10;
    let taken = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    for (ip, expected) in [("10.0.0.1", taken), ("", taken), ("0.0.0.0", taken), ("10.0.0.2", "full")] {
        assert_eq!(choice(&pod("p", "a", on_port(ip)), &cluster(vec![full.clone()])), expected, "{ip}");
    }
}

#[test]
fn emptier_node_wins_and_images_tip_the_balance() {
    let mut busy = node("busy", "z", json!({}));
    busy.add(pod("there", "other", cpu("1")));
    let free = node("free", "z", json!({}));
    assert_eq!(choice(&pod("p", "a", cpu("500m")), &cluster(vec![busy, free.clone()])), "free");
    let has_image = json!({"status": {"images": [{"names": ["img:1"], "sizeBytes": 2_000_000_000_i64}]}});
    let with_image = node("with-image", "z", has_image);
    let wants = json!({"containers": [{"name": "c", "image": "img:1"}]});
    assert_eq!(choice(&pod("p", "a", wants), &cluster(vec![free, with_image])), "with-image");
}

#[test]
fn hard_spreading_keeps_the_skew() {
    let (mut a, b) = (node("a", "z1", json!({})), node("b", "z2", json!({"spec": {"unschedulable": true}})));
    a.add(pod("one", "web", json!({})));
    let constraint = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]});
    let expected = "0/2 nodes are available: 1 node(s) didn't match pod topology spread constraints, 1 node(s) were unschedulable.";
    assert_eq!(choice(&pod("p", "web", constraint.clone()), &cluster(vec![a.clone(), b])), expected);
    assert_eq!(choice(&pod("p", "web", constraint), &cluster(vec![a, node("b", "z2", json!({}))])), "b");
}

#[test]
fn affinity_and_anti_affinity_hold_both_ways() {
    let term =
        json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "db"}}}]);
    let near = json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    let away =
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    let nodes = |first: Arc<PodInfo>| {
        let mut a = node("a", "z", json!({}));
        a.add(first);
        cluster(vec![a, node("b", "z", json!({}))])
    };
    let db = || pod("db", "db", json!({}));
    assert_eq!(choice(&pod("p", "web", near.clone()), &nodes(db())), "a");
    assert_eq!(choice(&pod("p", "web", away.clone()), &nodes(db())), "b");
    let alone = pod("alone", "web", away);
    assert_eq!(choice(&pod("p", "db", json!({})), &nodes(alone)), "b", "a pod there refuses the newcomer");
    let nobody = cluster(vec![node("a", "z", json!({}))]);
    assert_eq!(
        choice(&pod("p", "web", near.clone()), &nobody),
        "0/1 nodes are available: 1 node(s) didn't match pod affinity rules."
    );
    assert_eq!(choice(&pod("p", "db", near), &nobody), "a", "the first of a group may start it");
}
