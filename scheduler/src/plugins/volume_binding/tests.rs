//! Claims and volumes, and which nodes they let a pod go to.

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use serde_json::{Value, json};

use super::*;
use crate::cycle::Decision;
use crate::listers::Lister;
use crate::plugins::registry::Parts;
use crate::testing::{self, cluster, merge, node, pod};
use crate::volumes::global;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn class(name: &str, extra: Value) -> StorageClass {
    let mut object = json!({"metadata": {"name": name}, "provisioner": "driver",
                            "volumeBindingMode": "WaitForFirstConsumer"});
    merge(&mut object, extra);
    read(object)
}

fn claim(name: &str, class: &str, extra: Value) -> PersistentVolumeClaim {
    let mut object = json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "1"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"],
                 "resources": {"requests": {"storage": "10Gi"}}}});
    merge(&mut object, extra);
    read(object)
}

fn volume(name: &str, class: &str, size: &str, node: &str) -> PersistentVolume {
    read(json!({"metadata": {"name": name, "resourceVersion": "1"}, "status": {"phase": "Available"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size},
                 "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                     {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}}}))
}

fn bound(name: &str, volume: &str) -> PersistentVolumeClaim {
    claim(
        name,
        "fast",
        json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
                               "spec": {"volumeName": volume}}),
    )
}

fn using(claims: &[&str]) -> Arc<PodInfo> {
    let volumes: Vec<_> = claims
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    pod("p", "a", json!({"volumes": volumes}))
}

fn volumes(claims: Vec<PersistentVolumeClaim>, all: Vec<PersistentVolume>) -> Volumes {
    let classes = vec![
        class("fast", json!({})),
        class("now", json!({"volumeBindingMode": "Immediate"})),
        class("local", json!({"provisioner": "kubernetes.io/no-provisioner"})),
        class(
            "zoned",
            json!({"allowedTopologies": [{"matchLabelExpressions": [
            {"key": "topology.kubernetes.io/zone", "values": ["z2"]}]}]}),
        ),
    ];
    Volumes {
        claims: Lister::from(claims).into(),
        volumes: Lister::from(all).into(),
        classes: classes.into(),
        ..Volumes::default()
    }
}

fn outcome(volumes: &Volumes, pod: &Arc<PodInfo>) -> String {
    let framework = testing::framework(&Parts { volumes: volumes.clone(), ..Parts::default() });
    let nodes = cluster(vec![node("a", "z1", json!({})), node("b", "z2", json!({}))]);
    match testing::decide(&framework, pod, &nodes) {
        Decision::Place { node, feasible: 1, .. } => node.name().to_owned(),
        Decision::Place { .. } => "any".to_owned(),
        Decision::Refuse { mut diagnosis, .. } => {
            diagnosis.after.clear();
            diagnosis.to_string().replace("0/2 nodes are available: ", "")
        }
        Decision::Fail(error) => error,
    }
}

#[test]
fn claims_decide_where_a_pod_can_go() {
    let on_b = || volume("on-b", "fast", "10Gi", "b");
    let missing = "persistentvolumeclaim \"x\" not found.";
    for (what, claims, all, expected) in [
        ("no claim", vec![], vec![], missing),
        ("bound", vec![bound("x", "on-b")], vec![on_b()], "b"),
        ("lost volume", vec![bound("x", "gone")], vec![], "persistentvolume \"gone\" not found."),
        (
            "immediate and unbound",
            vec![claim("x", "now", json!({}))],
            vec![],
            "pod has unbound immediate PersistentVolumeClaims.",
        ),
        ("to be made anywhere", vec![claim("x", "fast", json!({}))], vec![], "any"),
        ("to be made in one zone", vec![claim("x", "zoned", json!({}))], vec![], "b"),
        ("local, there", vec![claim("x", "local", json!({}))], vec![volume("l", "local", "10Gi", "a")], "a"),
        (
            "local, too small",
            vec![claim("x", "local", json!({}))],
            vec![volume("l", "local", "9Gi", "a")],
            "2 node(s) didn't find available persistent volumes to bind.",
        ),
        (
            "being deleted",
            vec![claim("x", "fast", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}))],
            vec![],
            "persistentvolumeclaim \"x\" is being deleted.",
        ),
        (
            "for a node already",
            vec![claim(
                "x",
                "fast",
                json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "a"}}}),
            )],
            vec![],
            "a",
        ),
    ] {
        assert_eq!(outcome(&volumes(claims, all), &using(&["x"])), expected, "{what}");
    }
}

#[test]
fn two_claims_do_not_get_the_same_volume() {
    let claims = || vec![claim("x", "local", json!({})), claim("y", "local", json!({}))];
    let one = volumes(claims(), vec![volume("l1", "local", "10Gi", "a")]);
    assert_eq!(
        outcome(&one, &using(&["x", "y"])),
        "2 node(s) didn't find available persistent volumes to bind."
    );
    let two = volumes(claims(), vec![volume("l1", "local", "10Gi", "a"), volume("l2", "local", "20Gi", "a")]);
    assert_eq!(outcome(&two, &using(&["x", "y"])), "a");
}

#[test]
fn a_promised_volume_is_nobody_elses_until_it_is_taken_back() {
    let claims = vec![claim("x", "local", json!({})), claim("y", "local", json!({}))];
    let volumes = volumes(claims, vec![volume("l", "local", "10Gi", "a")]);
    let plugin = VolumeBinding::new(&VolumeBindingArgs::default(), &volumes);
    let there = node("a", "z1", json!({}));
    let (first, second) = (using(&["x"]), using(&["y"]));
    assert!(plugin.reserve(&first, &there).is_ok());
    assert!(plugin.has_pre_bind(&first, "a"));
    let promised = volumes.volumes.get(&global("l")).expect("the volume");
    let reference = promised.spec.as_ref().and_then(|s| s.claim_ref.clone()).expect("a reference");
    assert_eq!(reference.name.as_deref(), Some("x"));
    assert_eq!(outcome(&volumes, &second), "2 node(s) didn't find available persistent volumes to bind.");
    plugin.unreserve(&first, "a");
    assert_eq!(outcome(&volumes, &second), "a");
    assert!(!plugin.has_pre_bind(&first, "a"));
}

#[test]
fn drivers_that_say_how_much_room_they_have_are_believed() {
    let capacity = |size: &str, zone: &str| -> CSIStorageCapacity {
        read(
            json!({"metadata": {"name": zone, "namespace": "kube-system"}, "storageClassName": "fast", "capacity": size,
                    "nodeTopology": {"matchLabels": {"topology.kubernetes.io/zone": zone}}}),
        )
    };
    let driver: CSIDriver = read(json!({"metadata": {"name": "driver"}, "spec": {"storageCapacity": true}}));
    let with = |capacities: Vec<CSIStorageCapacity>| Volumes {
        csi_drivers: vec![driver.clone()].into(),
        capacities: capacities.into(),
        ..volumes(vec![claim("x", "fast", json!({}))], vec![])
    };
    let small = with(vec![capacity("1Gi", "z1"), capacity("100Gi", "z2")]);
    assert_eq!(outcome(&small, &using(&["x"])), "b");
    assert_eq!(outcome(&with(vec![]), &using(&["x"])), "2 node(s) did not have enough free storage.");
}

#[test]
fn nodes_take_only_so_many_volumes() {
    let csi_node: CSINode = read(json!({"metadata": {"name": "a"}, "spec": {"drivers": [
        {"name": "driver", "nodeID": "a", "allocatable": {"count": 1}}]}}));
    let on = |name: &str| -> PersistentVolume {
        read(json!({"metadata": {"name": name}, "spec": {"csi": {"driver": "driver", "volumeHandle": name}}}))
    };
    let volumes = Volumes {
        csi_nodes: vec![csi_node].into(),
        ..volumes(vec![bound("x", "v1"), bound("y", "v2")], vec![on("v1"), on("v2")])
    };
    assert_eq!(outcome(&volumes, &using(&["x"])), "any");
    assert_eq!(outcome(&volumes, &using(&["x", "y"])), "b");
}

#[test]
fn a_claim_for_one_pod_is_used_by_one_pod() {
    let only = claim(
        "x",
        "fast",
        json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
        "spec": {"accessModes": ["ReadWriteOncePod"], "volumeName": "on-b"}}),
    );
    let volumes = volumes(vec![only], vec![volume("on-b", "fast", "10Gi", "b")]);
    let framework = testing::framework(&Parts { volumes: volumes.clone(), ..Parts::default() });
    let mut there = node("b", "z", json!({}));
    let other = testing::pod_with(
        "other",
        json!({"spec": {"priority": -1, "volumes": [
        {"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]}}),
    );
    there.add(other);
    let decision = testing::decide(&framework, &using(&["x"]), &cluster(vec![there]));
    let Decision::Refuse { diagnosis, evict, .. } = decision else { panic!("the claim is in use") };
    assert!(
        diagnosis.to_string().contains("with ReadWriteOncePod access mode already in-use by another pod")
    );
    assert_eq!(evict.expect("the other pod can go").victims[0].name(), "other");
}

#[test]
fn zone_labels_of_volumes_bind_pods_to_zones() {
    let mut zoned = volume("v", "fast", "10Gi", "a");
    zoned.spec.as_mut().expect("a spec").node_affinity = None;
    zoned.metadata.labels = Some([("topology.kubernetes.io/zone".to_owned(), "z2".to_owned())].into());
    assert_eq!(outcome(&volumes(vec![bound("x", "v")], vec![zoned]), &using(&["x"])), "b");
}
