//! Claims, devices, and who gets them.

use k8s_openapi::api::resource::v1::DeviceRequestAllocationResult;
use serde_json::{Value, json};

use super::*;
use crate::cycle::Decision;
use crate::plugins::registry::Parts;
use crate::testing::{self, cluster, merge, node, pod};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// Devices of a node: name and attributes.
fn slice(node: &str, devices: &[(&str, Value)]) -> ResourceSlice {
    let devices: Vec<_> = devices
        .iter()
        .map(|(name, extra)| {
            let mut device = json!({"name": name});
            merge(&mut device, extra.clone());
            device
        })
        .collect();
    read(json!({"metadata": {"name": node, "uid": node, "resourceVersion": "1"},
        "spec": {"driver": "dra.example.com", "nodeName": node, "devices": devices,
                 "pool": {"name": node, "generation": 1, "resourceSliceCount": 1}}}))
}

fn class(name: &str, expression: &str) -> DeviceClass {
    read(json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": expression}}]}}))
}

fn claim(name: &str, devices: Value) -> ResourceClaim {
    read(json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {"devices": devices}}))
}

fn one(extra: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    merge(&mut exactly, extra);
    json!({"requests": [{"name": "r", "exactly": exactly}]})
}

fn with(claims: Vec<ResourceClaim>, slices: Vec<ResourceSlice>) -> Devices {
    Devices {
        claims: claims.into(),
        slices: slices.into(),
        classes: vec![class("gpu", "device.driver == \"dra.example.com\"")].into(),
        ..Devices::default()
    }
}

fn using(name: &str) -> Arc<PodInfo> {
    pod("p", "a", json!({"resourceClaims": [{"name": "c", "resourceClaimName": name}]}))
}

fn outcome(devices: &Devices, pod: &Arc<PodInfo>) -> String {
    let framework = testing::framework(&Parts { devices: devices.clone(), ..Parts::default() });
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

const NOT_ENOUGH: &str = "2 cannot allocate all claims.";

#[test]
fn requests_decide_on_which_node_there_are_the_right_devices() {
    let attributes = |size: &str, numa: i64| {
        json!({"attributes": {"version": {"version": "1.2.0"}, "numa": {"int": numa}},
               "capacity": {"memory": {"value": size}}})
    };
    let slices = || {
        vec![
            slice("a", &[("d1", attributes("1Gi", 0)), ("d2", attributes("1Gi", 1))]),
            slice(
                "b",
                &[("d1", attributes("8Gi", 0)), ("d2", attributes("8Gi", 0)), ("d3", attributes("8Gi", 1))],
            ),
        ]
    };
    let cel = |expression: &str| json!({"selectors": [{"cel": {"expression": expression}}]});
    let same = |attribute: &str, count: i64| {
        let mut devices = one(json!({"count": count}));
        merge(&mut devices, json!({"constraints": [{"matchAttribute": attribute}]}));
        devices
    };
    for (what, devices, expected) in [
        ("one", one(json!({})), "any"),
        ("three", one(json!({"count": 3})), "b"),
        ("four", one(json!({"count": 4})), NOT_ENOUGH),
        ("all", one(json!({"allocationMode": "All", "count": null})), "any"),
        ("large", one(cel("device.capacity['dra.example.com'].memory.isGreaterThan(quantity('2Gi'))")), "b"),
        (
            "new",
            one(cel("device.attributes['dra.example.com'].version.isGreaterThan(semver('1.1.0'))")),
            "any",
        ),
        ("none such", one(cel("device.attributes['dra.example.com'].numa == 7")), NOT_ENOUGH),
        ("near to each other", same("dra.example.com/numa", 2), "b"),
        ("too many near to each other", same("dra.example.com/numa", 3), NOT_ENOUGH),
        (
            "second choice",
            json!({"requests": [{"name": "r", "firstAvailable": [
                {"name": "many", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 9},
                {"name": "few", "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 3}]}]}),
            "b",
        ),
        (
            "no class",
            one(json!({"deviceClassName": "other"})),
            "request r: device class other does not exist.",
        ),
    ] {
        assert_eq!(outcome(&with(vec![claim("x", devices)], slices()), &using("x")), expected, "{what}");
    }
}

#[test]
fn taken_and_tainted_devices_are_not_given_again() {
    let taken = json!({"status": {"allocation": {"devices": {"results": [
        {"request": "r", "driver": "dra.example.com", "pool": "a", "device": "d1"}]}}}});
    let mut other = json!({"metadata": {"name": "y", "namespace": "ns", "uid": "y"}, "spec": {}});
    merge(&mut other, taken);
    let slices = || vec![slice("a", &[("d1", json!({}))]), slice("b", &[("d1", json!({}))])];
    let devices = with(vec![claim("x", one(json!({}))), read(other)], slices());
    assert_eq!(outcome(&devices, &using("x")), "b");
    let tainted = json!({"taints": [{"key": "broken", "effect": "NoSchedule"}]});
    let slices = || vec![slice("a", &[("d1", tainted.clone())])];
    assert_eq!(outcome(&with(vec![claim("x", one(json!({})))], slices()), &using("x")), NOT_ENOUGH);
    let tolerant = one(json!({"tolerations": [{"key": "broken", "operator": "Exists"}]}));
    assert_eq!(outcome(&with(vec![claim("x", tolerant)], slices()), &using("x")), "a");
}

#[test]
fn parts_of_a_device_share_what_the_whole_has() {
    let part = |memory: &str| json!({"consumesCounters": [{"counterSet": "gpu-0", "counters": {"memory": {"value": memory}}}]});
    let mut whole = slice("a", &[("half-0", part("20Gi")), ("half-1", part("20Gi")), ("full", part("40Gi"))]);
    whole.spec.shared_counters =
        Some(read(json!([{"name": "gpu-0", "counters": {"memory": {"value": "40Gi"}}}])));
    let claims = |count: i64| vec![claim("x", one(json!({"count": count})))];
    assert_eq!(outcome(&with(claims(2), vec![whole.clone()]), &using("x")), "a");
    assert_eq!(outcome(&with(claims(3), vec![whole]), &using("x")), NOT_ENOUGH);
}

#[test]
fn what_is_reserved_counts_until_it_is_given_back() {
    let claims = vec![claim("x", one(json!({}))), claim("y", one(json!({})))];
    let devices = with(claims, vec![slice("a", &[("d1", json!({}))])]);
    let plugin = DynamicResources::new(&devices);
    let first = using("x");
    assert!(plugin.reserve(&first, &node("a", "z", json!({}))).is_ok());
    assert!(plugin.has_pre_bind(&first, "a"));
    let results: Vec<DeviceRequestAllocationResult> = devices
        .pending()
        .values()
        .flat_map(|(_, result)| result.devices.clone().and_then(|d| d.results).unwrap_or_default())
        .collect();
    assert_eq!((results.len(), results[0].device.as_str(), results[0].request.as_str()), (1, "d1", "r"));
    assert_eq!(outcome(&devices, &using("y")), NOT_ENOUGH);
    plugin.unreserve(&first, "a");
    assert_eq!(outcome(&devices, &using("y")), "a");
}

#[test]
fn a_claim_that_is_not_there_yet_is_waited_for() {
    let devices = with(vec![], vec![]);
    let plugin = DynamicResources::new(&devices);
    let waiting = pod("p", "a", json!({"resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}]}));
    let message = plugin.pre_enqueue(&waiting).expect_err("it waits").message();
    assert_eq!(message, "pod \"ns/p\": ResourceClaim not created yet");
    assert!(plugin.pre_enqueue(&pod("q", "a", json!({}))).is_ok());
}
