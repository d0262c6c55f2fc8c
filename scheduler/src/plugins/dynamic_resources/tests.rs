//! Claims, devices, and who gets them.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceRequestAllocationResult;
use serde_json::{Value, json};

use super::*;
use crate::cycle::Decision;
use crate::framework::events::Object;
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
    let mut parts = slice("a", &[("half-0", part("20Gi")), ("half-1", part("20Gi")), ("full", part("40Gi"))]);
    parts.spec.pool.resource_slice_count = 2;
    let mut whole = parts.clone();
    whole.metadata.name = Some("a-counters".to_owned());
    whole.spec.devices = None;
    whole.spec.shared_counters =
        Some(read(json!([{"name": "gpu-0", "counters": {"memory": {"value": "40Gi"}}}])));
    let claims = |count: i64| vec![claim("x", one(json!({"count": count})))];
    let both = || vec![whole.clone(), parts.clone()];
    assert_eq!(outcome(&with(claims(2), both()), &using("x")), "a");
    assert_eq!(outcome(&with(claims(3), both()), &using("x")), NOT_ENOUGH);
    assert_eq!(outcome(&with(claims(1), vec![parts.clone()]), &using("x")), NOT_ENOUGH, "not all there yet");
    let mut twice = whole.clone();
    twice.spec.shared_counters = Some(read(json!([{"name": "other", "counters": {}}])));
    assert_eq!(
        outcome(&with(claims(1), vec![twice, parts.clone()]), &using("x")),
        "2 invalid resource pools were encountered.",
        "no such counters"
    );
}

#[test]
fn what_is_reserved_counts_until_it_is_given_back() {
    let claims = vec![claim("x", one(json!({}))), claim("y", one(json!({})))];
    let devices = with(claims, vec![slice("a", &[("d1", json!({}))])]);
    let plugin = DynamicResources::new(DynamicResourcesArgs::default(), &devices);
    let first = using("x");
    assert!(plugin.reserve(&first, &node("a", "z", json!({}))).is_ok());
    assert!(plugin.has_pre_bind(&first, "a"));
    let results: Vec<DeviceRequestAllocationResult> = devices
        .pending()
        .values()
        .flat_map(|pending| pending.allocation.devices.clone().and_then(|d| d.results).unwrap_or_default())
        .collect();
    assert_eq!((results.len(), results[0].device.as_str(), results[0].request.as_str()), (1, "d1", "r"));
    assert_eq!(outcome(&devices, &using("y")), NOT_ENOUGH);
    plugin.unreserve(&first, "a");
    assert_eq!(outcome(&devices, &using("y")), "a");
}

#[test]
fn a_claim_that_is_not_there_yet_is_waited_for() {
    let devices = with(vec![], vec![]);
    let plugin = DynamicResources::new(DynamicResourcesArgs::default(), &devices);
    let waiting = pod("p", "a", json!({"resourceClaims": [{"name": "c", "resourceClaimTemplateName": "t"}]}));
    let message = plugin.pre_enqueue(&waiting).expect_err("it waits").message();
    assert_eq!(message, "pod \"ns/p\": ResourceClaim not created yet");
    assert!(plugin.pre_enqueue(&pod("q", "a", json!({}))).is_ok());
}

const BUSY: &str = "example.com/gpu";

/// The result of one cycle with all that follows.
fn cycle(devices: &Devices, pod: &Arc<PodInfo>, nodes: Vec<NodeInfo>) -> Decision {
    let framework = testing::framework(&Parts { devices: devices.clone(), ..Parts::default() });
    testing::decide(&framework, pod, &cluster(nodes))
}

fn results(
    plugin: &DynamicResources,
    pod: &Arc<PodInfo>,
    node: &NodeInfo,
) -> Vec<DeviceRequestAllocationResult> {
    plugin.reserve(pod, node).expect("the devices are there");
    let pending = plugin.devices.pending();
    pending
        .values()
        .flat_map(|one| one.allocation.devices.clone().and_then(|d| d.results).unwrap_or_default())
        .collect()
}

#[test]
fn a_device_that_can_be_shared_is_given_in_parts() {
    let shared = json!({"allowMultipleAllocations": true, "capacity": {"memory": {"value": "10Gi",
        "requestPolicy": {"default": "1Gi", "validRange": {"min": "1Gi", "step": "2Gi"}}}}});
    let slices = || vec![slice("a", &[("d1", shared.clone())])];
    let asks = |memory: &str| one(json!({"capacity": {"requests": {"memory": memory}}}));
    let other = |consumed: &str| -> ResourceClaim {
        let mut other = json!({"metadata": {"name": "y", "namespace": "ns", "uid": "y"}, "spec": {}});
        merge(
            &mut other,
            json!({"status": {"allocation": {"devices": {"results": [{"request": "r", "driver": "dra.example.com",
            "pool": "a", "device": "d1", "shareID": "s", "consumedCapacity": {"memory": consumed}}]}}}}),
        );
        read(other)
    };
    for (what, wanted, others, expected) in [
        ("alone", asks("5Gi"), None, "a"),
        ("too much", asks("11Gi"), None, NOT_ENOUGH),
        ("rounded up to too much", asks("10Gi"), None, NOT_ENOUGH),
        ("beside another", asks("5Gi"), Some("5Gi"), "a"),
        ("not beside another", asks("5Gi"), Some("7Gi"), NOT_ENOUGH),
        ("the default", one(json!({})), Some("9Gi"), "a"),
        ("no such capacity", one(json!({"capacity": {"requests": {"cores": "1"}}})), None, NOT_ENOUGH),
        ("one device is no two", one(json!({"count": 2})), None, NOT_ENOUGH),
    ] {
        let claims = others.map(&other).into_iter().chain([claim("x", wanted)]).collect();
        assert_eq!(outcome(&with(claims, slices()), &using("x")), expected, "{what}");
    }
    let plugin = DynamicResources::new(
        DynamicResourcesArgs::default(),
        &with(vec![claim("x", asks("4Gi"))], slices()),
    );
    let results = results(&plugin, &using("x"), &node("a", "z", json!({})));
    let consumed = results[0].consumed_capacity.as_ref().map(|all| all["memory"].0.as_str());
    assert_eq!((consumed, results[0].share_id.is_some()), (Some("5Gi"), true));
}

#[test]
fn devices_that_have_to_be_made_ready_come_last_and_say_so() {
    let attached = json!({"bindsToNode": true, "bindingConditions": ["Attached"], "bindingFailureConditions": ["Failed"]});
    let mut fabric = slice("fabric", &[("d1", attached)]);
    (fabric.spec.node_name, fabric.spec.all_nodes) = (None, Some(true));
    let plugin = |slices: Vec<ResourceSlice>| {
        DynamicResources::new(
            DynamicResourcesArgs::default(),
            &with(vec![claim("x", one(json!({})))], slices),
        )
    };
    let a = node("a", "z", json!({}));
    let both = plugin(vec![fabric.clone(), slice("z", &[("d2", json!({}))])]);
    let mut local = slice("z", &[("d2", json!({}))]);
    local.spec.node_name = Some("a".to_owned());
    assert_eq!(results(&plugin(vec![fabric.clone(), local]), &using("x"), &a)[0].device, "d2");
    let results = results(&both, &using("x"), &a);
    assert_eq!(results[0].binding_conditions, Some(vec!["Attached".to_owned()]));
    let message = both.waits_for(&using("x"), "a").map(|(_, message)| message);
    assert_eq!(message.as_deref(), Some("waiting for binding conditions for device on node a"));
    let pending = both.devices.pending();
    let selector = pending["x"].allocation.node_selector.as_ref().expect("it binds to the node");
    assert_eq!(
        selector.node_selector_terms[0].match_fields.as_ref().expect("a field")[0].values,
        Some(vec!["a".to_owned()])
    );
}

/// A claim that was given a device of that node, and what its driver says of it.
fn given(on: &str, since: Timestamp, status: &str) -> ResourceClaim {
    let mut claim = claim("x", one(json!({})));
    let id = json!({"driver": "dra.example.com", "pool": "a", "device": "d1"});
    let mut result =
        json!({"request": "r", "bindingConditions": ["Attached"], "bindingFailureConditions": ["Failed"]});
    merge(&mut result, id.clone());
    let condition = json!({"type": status, "status": "True", "reason": "r", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut device = json!({"conditions": [condition]});
    merge(&mut device, id);
    let selector = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [on]}]}]});
    claim.status = Some(read(json!({"devices": [device], "allocation": {"nodeSelector": selector,
        "allocationTimestamp": since.to_string(), "devices": {"results": [result]}}})));
    claim
}

#[test]
fn a_claim_in_the_way_of_its_pod_is_taken_back() {
    let now = Timestamp::now();
    let long_ago = now - jiff::SignedDuration::from_secs(601);
    let unavailable = "0/1 nodes are available: 1 resourceclaim not available on the node.";
    for (what, claim, expected) in [
        ("ready", given("a", long_ago, "Attached"), None),
        ("not ready yet", given("a", now, "Other"), None),
        ("too late", given("a", long_ago, "Other"), Some("deallocation of ResourceClaim completed")),
        ("failed", given("a", now, "Failed"), Some("deallocation of ResourceClaim completed")),
        ("elsewhere", given("b", now, "Attached"), Some("deallocation of ResourceClaim completed")),
        (
            "elsewhere, and used by others",
            {
                let mut claim = given("b", now, "Attached");
                let user = json!([{"resource": "pods", "name": "q", "uid": "q"}]);
                claim.status.as_mut().expect("a status").reserved_for = Some(read(user));
                claim
            },
            Some("still not schedulable"),
        ),
    ] {
        let decision = cycle(&with(vec![claim], vec![]), &using("x"), vec![node("a", "z", json!({}))]);
        match (decision, expected) {
            (Decision::Place { .. }, None) => {}
            (Decision::Refuse { diagnosis, write, .. }, Some(expected)) => {
                let preemption =
                    "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
                assert_eq!(
                    diagnosis.to_string(),
                    format!("{unavailable} {expected}, {preemption}"),
                    "{what}"
                );
                assert_eq!(write.is_some(), expected.ends_with("completed"), "{what}");
            }
            _ => panic!("{what}"),
        }
    }
}

#[test]
fn pods_without_claims_are_told_that_none_can_be_taken_back() {
    let said = |spec: Value| match cycle(
        &with(vec![], vec![]),
        &pod("p", "a", spec),
        vec![node("a", "z", json!({}))],
    ) {
        Decision::Refuse { diagnosis, .. } => diagnosis.to_string(),
        _ => panic!("it fits nowhere"),
    };
    assert_eq!(
        said(testing::cpu("3")),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, \
         preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    // Upstream's plugin fails if another one refused the pod before it was asked.
    let missing = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "none"}}]});
    assert_eq!(said(missing), "0/1 nodes are available: persistentvolumeclaim \"none\" not found. not found");
}

#[test]
fn all_devices_or_an_error() {
    let numa = |numa: i64| json!({"attributes": {"numa": {"int": numa}}});
    let mut all = one(json!({"allocationMode": "All", "count": null}));
    let apart = || vec![slice("a", &[("d1", numa(0)), ("d2", numa(1))])];
    merge(&mut all, json!({"constraints": [{"matchAttribute": "dra.example.com/numa"}]}));
    assert_eq!(
        outcome(&with(vec![claim("x", all)], apart()), &using("x")),
        "running \"DynamicResources\" plugin: claim ns/x, request r: cannot add device dra.example.com/a/d1 because a claim \
         constraint would not be satisfied"
            .replace("d1", "d2")
    );
    let mut partial = apart();
    partial[0].spec.pool.resource_slice_count = 2;
    let all = one(json!({"allocationMode": "All", "count": null}));
    assert_eq!(
        outcome(&with(vec![claim("x", all)], partial), &using("x")),
        "running \"DynamicResources\" plugin: claim ns/x, request r: asks for all devices, but resource pool \
         dra.example.com/a is currently being updated"
    );
    assert_eq!(
        outcome(&with(vec![claim("x", one(json!({"count": 33})))], apart()), &using("x")),
        "running \"DynamicResources\" plugin: claim ns/x: number of requested devices 33 exceeds the claim limit of 32"
    );
}

#[test]
fn a_node_where_claims_get_their_first_choice_is_better() {
    let sized = |memory: &str| json!({"capacity": {"memory": {"value": memory}}});
    let way = |name: &str, more_than: &str| {
        let expression =
            format!("device.capacity['dra.example.com'].memory.isGreaterThan(quantity('{more_than}'))");
        json!({"name": name, "deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1,
               "selectors": [{"cel": {"expression": expression}}]})
    };
    let wanted =
        json!({"requests": [{"name": "r", "firstAvailable": [way("large", "4Gi"), way("any", "0")]}]});
    let devices = with(
        vec![claim("x", wanted)],
        vec![slice("a", &[("d1", sized("1Gi"))]), slice("b", &[("d1", sized("8Gi"))])],
    );
    let plugin = DynamicResources::new(DynamicResourcesArgs::default(), &devices);
    let nodes: Vec<_> = ["a", "b"].map(|name| Arc::new(node(name, "z", json!({})))).into();
    let snapshot = Snapshot::default();
    let scorer = plugin.pre_score(&using("x"), &nodes, &snapshot).expect("there is a choice");
    assert_eq!((scorer.score(&nodes[0]), scorer.score(&nodes[1])), (7, 8));
    let plain = with(vec![claim("x", one(json!({})))], vec![slice("a", &[("d1", json!({}))])]);
    let plugin = DynamicResources::new(DynamicResourcesArgs::default(), &plain);
    assert!(plugin.pre_score(&using("x"), &nodes, &snapshot).is_none());
}

#[test]
fn extended_resources_are_devices_where_nodes_do_not_count_them() {
    let wants = |amount: i64| {
        let requests = json!({"resources": {"requests": {BUSY: amount.to_string()}}});
        let mut container = json!({"name": "c"});
        merge(&mut container, requests);
        pod("p", "a", json!({"containers": [container]}))
    };
    let named = |claims: Vec<ResourceClaim>, slices: Vec<ResourceSlice>| {
        let mut class = class("gpu", "device.driver == \"dra.example.com\"");
        class.spec.extended_resource_name = Some(BUSY.to_owned());
        Devices { classes: vec![class].into(), ..with(claims, slices) }
    };
    let devices = || vec![slice("b", &[("d1", json!({})), ("d2", json!({}))])];
    assert_eq!(outcome(&named(vec![], devices()), &wants(2)), "b");
    assert_eq!(outcome(&named(vec![], devices()), &wants(3)), NOT_ENOUGH);
    assert_eq!(
        outcome(&with(vec![], devices()), &wants(1)),
        "2 Insufficient example.com/gpu.",
        "no class of that name"
    );
    let counting = node(
        "c",
        "z",
        json!({"status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10", BUSY: "4"}}}),
    );
    assert!(matches!(
        cycle(&named(vec![], vec![]), &wants(4), vec![counting.clone()]),
        Decision::Place { .. }
    ));
    assert!(matches!(
        cycle(&named(vec![], devices()), &wants(5), vec![counting.clone()]),
        Decision::Refuse { .. }
    ));

    let plugin = DynamicResources::new(DynamicResourcesArgs::default(), &named(vec![], devices()));
    let given = results(&plugin, &wants(2), &node("b", "z", json!({})));
    assert_eq!(
        given.iter().map(|result| result.request.as_str()).collect::<Vec<_>>(),
        ["container-0-request-0"; 2]
    );
    assert!(plugin.has_pre_bind(&wants(2), "b"));
    assert_eq!(outcome(&plugin.devices, &wants(1)), NOT_ENOUGH, "the devices are taken");
    plugin.unreserve(&wants(2), "b");
    assert_eq!(outcome(&plugin.devices, &wants(1)), "b");

    let mut stale = claim("p-extended-resources-x", one(json!({})));
    stale.metadata.annotations =
        Some(read(json!({"resource.kubernetes.io/extended-resource-claim": "true"})));
    stale.metadata.owner_references =
        Some(read(json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "p", "controller": true}])));
    match cycle(&named(vec![stale], devices()), &wants(1), vec![node("b", "z", json!({}))]) {
        Decision::Refuse { diagnosis, write, .. } => {
            assert!(write.is_some());
            let said = diagnosis.to_string();
            assert!(
                said.contains(
                    "1 cannot schedule extended resource claim. deletion of ResourceClaim completed, "
                ),
                "{said}"
            );
        }
        _ => panic!("the claim of an earlier attempt is in the way"),
    }
}

#[test]
fn claims_that_others_wait_for_wake_only_those_that_use_them() {
    let event = |old: Option<ResourceClaim>, new: Option<ResourceClaim>| {
        let object = |claim: ResourceClaim| Object::ResourceClaim(Arc::new(claim));
        ClusterEvent::new(Resource::ResourceClaim, Action::OTHER, old.map(object), new.map(object))
    };
    let plain = claim("x", one(json!({})));
    let allocated = given("a", Timestamp::now(), "Attached");
    let labelled = {
        let mut claim = plain.clone();
        claim.metadata.labels = Some(read(json!({"a": "b"})));
        claim
    };
    let with_status = {
        let mut claim = plain.clone();
        claim.status = Some(read(json!({"reservedFor": [{"resource": "pods", "name": "q", "uid": "q"}]})));
        claim
    };
    let plugin = DynamicResources::new(
        DynamicResourcesArgs::default(),
        &with(vec![plain.clone(), claim("y", one(json!({})))], vec![]),
    );
    for (what, pod, event, expected) in [
        ("its claim is new", using("x"), event(None, Some(plain.clone())), true),
        ("another's is new", using("y"), event(None, Some(plain.clone())), false),
        ("devices are free again", using("y"), event(Some(allocated.clone()), Some(plain.clone())), true),
        ("they are free with the claim", using("y"), event(Some(allocated), None), true),
        ("labels", using("x"), event(Some(plain.clone()), Some(labelled)), false),
        ("the status of its claim", using("x"), event(Some(plain.clone()), Some(with_status)), true),
        ("its own claim is not there", using("none"), event(None, Some(plain)), false),
    ] {
        assert_eq!(plugin.is_worth_retrying(&pod, &event), expected, "{what}");
    }
}
