//! Who gets which devices: the cases of upstream's `allocatortesting`, in short.
//!
//! Slices and claims are JSON without what all of them have. Devices are of the driver `d`; a device is named, or is an
//! object. The class `a` has all of them, `large` those with `size` 2.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

/// A slice of a pool for the node `n`.
fn slice(pool: &str, name: &str, devices: Value, extra: Value) -> Value {
    let all = devices.as_array().expect("devices").iter();
    let devices: Vec<_> =
        all.map(|device| if device.is_string() { json!({"name": device}) } else { device.clone() }).collect();
    let mut slice = json!({"metadata": {"name": name, "uid": name, "resourceVersion": "1"}, "spec": {"driver": "d", "nodeName": "n",
        "devices": devices, "pool": {"name": pool, "generation": 1, "resourceSliceCount": 1}}});
    crate::testing::merge(&mut slice, json!({"spec": extra}));
    slice
}

fn one(devices: Value) -> Vec<Value> {
    vec![slice("p", "s", devices, json!({}))]
}

fn sized(name: &str, size: i64) -> Value {
    json!({"name": name, "attributes": {"size": {"int": size}}})
}

/// `[request, class, how many]`; no number: all.
fn request(name: &str, class: &str, count: Option<i64>, extra: Value) -> Value {
    let mode = if count.is_some() { "ExactCount" } else { "All" };
    let mut exactly = json!({"deviceClassName": class, "allocationMode": mode, "count": count});
    crate::testing::merge(&mut exactly, extra);
    json!({"name": name, "exactly": exactly})
}

fn choice(name: &str, ways: &[(&str, &str, Option<i64>)]) -> Value {
    let ways: Vec<_> = ways
        .iter()
        .map(|(name, class, count)| {
            let mode = if count.is_some() { "ExactCount" } else { "All" };
            json!({"name": name, "deviceClassName": class, "allocationMode": mode, "count": count})
        })
        .collect();
    json!({"name": name, "firstAvailable": ways})
}

/// `request=device` for all results, claims apart by `|`; or the failure.
fn outcome(slices: Vec<Value>, claims: &[Value], taken: &[(&str, bool)]) -> String {
    let taken: Vec<_> = taken
        .iter()
        .map(|(device, admin)| json!({"request": "r", "driver": "d", "pool": "p", "device": device, "adminAccess": admin}))
        .collect();
    let other = json!({"metadata": {"name": "other", "namespace": "ns", "uid": "other"}, "spec": {},
        "status": {"allocation": {"devices": {"results": taken}}}});
    let class = |name: &str, expression: &str| -> DeviceClass {
        read(
            json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": expression}}]}}),
        )
    };
    let devices = Devices {
        claims: vec![read(other)].into(),
        slices: slices.into_iter().map(read::<ResourceSlice>).collect::<Vec<_>>().into(),
        classes: vec![class("a", "true"), class("large", "device.attributes['d'].?size.orValue(0) == 2")]
            .into(),
        ..Devices::default()
    };
    let claims: Vec<Arc<ResourceClaim>> = claims
        .iter()
        .zip(1..)
        .map(|(devices, n)| {
            let name = format!("c{n}");
            Arc::new(read(json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {"devices": devices}})))
        })
        .collect();
    let inventory = inventory::Inventory::new(&devices, std::iter::empty());
    let node: Node = read(json!({"metadata": {"name": "n", "labels": {"zone": "z"}}}));
    match allocate::allocate(&devices, &inventory, &node, &claims, None) {
        Ok(None) => "nothing".to_owned(),
        Err(failure) => format!("{failure:?}"),
        Ok(Some(results)) => {
            let of_claim = |result: &AllocationResult| {
                let all = result.devices.as_ref().and_then(|devices| devices.results.as_ref());
                let shown = all.into_iter().flatten().map(|r| format!("{}={}", r.request, r.device));
                shown.collect::<Vec<_>>().join(" ")
            };
            results.iter().map(of_claim).collect::<Vec<_>>().join(" | ")
        }
    }
}

fn check(what: &str, slices: Vec<Value>, claims: &[Value], taken: &[(&str, bool)], expected: &str) {
    assert_eq!(outcome(slices, claims, taken), expected, "{what}");
}

fn wants(requests: Value) -> Value {
    json!({"requests": requests})
}

const NONE: &[(&str, bool)] = &[];

#[test]
fn requests_get_what_fits_and_go_back_where_it_leads_nowhere() {
    let simple = || wants(json!([request("r", "a", Some(1), json!({}))]));
    let large = || wants(json!([request("r", "large", Some(1), json!({}))]));
    let mixed = || one(json!([sized("l", 2), sized("s", 1)]));
    check("one", one(json!(["x"])), &[simple()], NONE, "r=x");
    check(
        "none for the node",
        vec![slice("p", "s", json!(["x"]), json!({"nodeName": "m"}))],
        &[simple()],
        NONE,
        "nothing",
    );
    check("no claims", one(json!(["x"])), &[], NONE, "");
    check("no slices", vec![], &[simple()], NONE, "nothing");
    let both =
        wants(json!([request("s", "a", Some(1), json!({})), request("l", "large", Some(1), json!({}))]));
    check("the first request gives way", mixed(), &[both], NONE, "s=s l=l");
    check("the first claim gives way", mixed(), &[simple(), large()], NONE, "r=s | r=l");
    check(
        "not enough that are large",
        mixed(),
        &[wants(json!([request("r", "large", Some(2), json!({}))]))],
        NONE,
        "nothing",
    );
    let split = |count| {
        vec![
            slice("p", "s1", json!(["x"]), json!({"pool": {"resourceSliceCount": count}})),
            slice("p", "s2", json!(["y"]), json!({"pool": {"resourceSliceCount": count}})),
        ]
    };
    let two = || wants(json!([request("r", "a", Some(2), json!({}))]));
    check("over several slices", split(2), &[two()], NONE, "r=x r=y");
    check("not while some are missing", split(3), &[two()], NONE, "nothing");
    let mut old = split(1);
    old[1]["spec"]["pool"]["generation"] = json!(2);
    check("older generations do not count", old, &[simple()], NONE, "r=y");
    let twice = vec![
        slice("p", "s1", json!(["x"]), json!({"pool": {"resourceSliceCount": 2}})),
        slice("p", "s2", json!(["x"]), json!({"pool": {"resourceSliceCount": 2}})),
    ];
    check("a name twice", twice, &[simple()], NONE, "Node(\"invalid resource pools were encountered\")");
    let others = vec![slice("q", "s1", json!(["x"]), json!({})), slice("p", "s2", json!(["y"]), json!({}))];
    check("pools by name", others, &[simple()], NONE, "r=y");
    check("one is taken", one(json!(["x", "y"])), &[simple()], &[("x", false)], "r=y");
    check("for administration nothing is", one(json!(["x", "y"])), &[simple()], &[("x", true)], "r=x");
    let network = |extra: Value| {
        let mut slice = slice("p", "s", json!(["x"]), json!({}));
        slice["spec"]["nodeName"] = Value::Null;
        crate::testing::merge(&mut slice, json!({"spec": extra}));
        vec![slice]
    };
    let zone = |zone: &str| {
        json!({"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [
        {"key": "zone", "operator": "In", "values": [zone]}]}]}})
    };
    check("on the network", network(zone("z")), &[simple()], NONE, "r=x");
    check("on another's", network(zone("y")), &[simple()], NONE, "nothing");
    check("anywhere", network(json!({"allNodes": true})), &[simple()], NONE, "r=x");
    let each = json!([{"name": "x", "nodeName": "m"}, {"name": "y", "nodeName": "n"}]);
    check(
        "each by itself",
        network(json!({"perDeviceNodeSelection": true, "devices": each})),
        &[simple()],
        NONE,
        "r=y",
    );
}

#[test]
fn all_means_all() {
    let all = |class: &str| wants(json!([request("r", class, None, json!({}))]));
    check("some", one(json!(["x", "y"])), &[all("a")], NONE, "r=x r=y");
    check("of a class", one(json!([sized("x", 1), sized("y", 2)])), &[all("large")], NONE, "r=y");
    check("there are none", one(json!([])), &[all("a")], NONE, "nothing");
    check("one is taken", one(json!(["x", "y"])), &[all("a")], &[("x", false)], "nothing");
    let admin = wants(json!([request("r", "a", None, json!({"adminAccess": true}))]));
    check(
        "for administration",
        one(json!(["x", "y"])),
        std::slice::from_ref(&admin),
        &[("x", false)],
        "r=x r=y",
    );
    check("and again", one(json!(["x"])), &[admin.clone(), admin], NONE, "r=x | r=x");
    let plus = wants(json!([request("r", "a", None, json!({})), request("one", "a", Some(1), json!({}))]));
    check("nothing is left", one(json!(["x", "y"])), &[plus], NONE, "nothing");
    let incomplete = vec![slice("p", "s", json!(["x"]), json!({"pool": {"resourceSliceCount": 2}}))];
    let failure = "Claim(\"claim ns/c1, request r: asks for all devices, but resource pool d/p is currently being updated\")";
    check("not all are there", incomplete, &[all("a")], NONE, failure);
    let choice = |ways: &[(&str, &str, Option<i64>)]| wants(json!([choice("r", ways)]));
    check(
        "or else one",
        one(json!(["x", "y"])),
        &[choice(&[("all", "a", None), ("one", "a", Some(1))])],
        &[("x", false)],
        "r/one=y",
    );
}

#[test]
fn alternatives_are_tried_in_order() {
    let first = |ways: &[(&str, &str, Option<i64>)]| wants(json!([choice("r", ways)]));
    let ways = [("big", "large", Some(1)), ("any", "a", Some(1))];
    check("the first", one(json!([sized("s", 1), sized("l", 2)])), &[first(&ways)], NONE, "r/big=l");
    check("the second", one(json!([sized("s", 1)])), &[first(&ways)], NONE, "r/any=s");
    check("none", one(json!([])), &[first(&ways)], NONE, "nothing");
    let two = wants(json!([choice("r", &ways), request("l", "large", Some(1), json!({}))]));
    check(
        "for the sake of another request",
        one(json!([sized("s", 1), sized("l", 2)])),
        &[two],
        NONE,
        "r/any=s l=l",
    );
    let many = [("many", "a", Some(33)), ("one", "a", Some(1))];
    check("more than a claim can hold", one(json!(["x"])), &[first(&many)], NONE, "r/one=x");
    let too_many = "Claim(\"claim ns/c1: number of requested devices 33 exceeds the claim limit of 32\")";
    check(
        "too many",
        one(json!(["x"])),
        &[wants(json!([request("r", "a", Some(33), json!({}))]))],
        NONE,
        too_many,
    );
    let sum = wants(json!([request("q", "a", Some(20), json!({})), request("r", "a", Some(13), json!({}))]));
    check("too many together", one(json!(["x"])), &[sum], NONE, too_many);
}

#[test]
fn constraints_hold_for_those_they_name() {
    let red = || json!({"name": "red", "attributes": {"color": {"string": "red"}}});
    let devices = || one(json!([sized("x", 1), sized("y", 2), sized("z", 2), red()]));
    let claim = |constraint: Value, count: i64| {
        let requests =
            json!([request("r", "a", Some(count), json!({})), request("q", "a", Some(1), json!({}))]);
        json!({"requests": requests, "constraints": [constraint]})
    };
    check("the same for all", devices(), &[claim(json!({"matchAttribute": "d/size"}), 1)], NONE, "r=y q=z");
    check(
        "for one request",
        devices(),
        &[claim(json!({"matchAttribute": "d/size", "requests": ["r"]}), 2)],
        NONE,
        "r=y r=z q=x",
    );
    check("too many alike", devices(), &[claim(json!({"matchAttribute": "d/size"}), 2)], NONE, "nothing");
    check("nobody has it", devices(), &[claim(json!({"matchAttribute": "d/other"}), 1)], NONE, "nothing");
    check("of another domain", devices(), &[claim(json!({"matchAttribute": "e/size"}), 1)], NONE, "nothing");
    check("different", devices(), &[claim(json!({"distinctAttribute": "d/size"}), 1)], NONE, "r=x q=y");
    check(
        "too many different",
        devices(),
        &[claim(json!({"distinctAttribute": "d/size"}), 2)],
        NONE,
        "nothing",
    );
    let empty = "Claim(\"claim ns/c1, constraint #0: empty constraint (unsupported constraint type?)\")";
    check("of no known kind", devices(), &[claim(json!({}), 1)], NONE, empty);
    let ways = [("one", "a", Some(1)), ("large", "large", Some(1))];
    let of_way = |name: &str| {
        json!({"requests": [choice("r", &ways), request("q", "large", Some(1), json!({}))],
                                     "constraints": [{"matchAttribute": "d/size", "requests": [name, "q"]}]})
    };
    check("by the request", devices(), &[of_way("r")], NONE, "r/one=y q=z");
    check("by the way", devices(), &[of_way("r/large")], NONE, "r/one=x q=y");
}

#[test]
fn taints_keep_devices_from_those_who_do_not_tolerate_them() {
    let tainted = |name: &str, effects: &[&str]| {
        let taints: Vec<_> = effects
            .iter()
            .map(|effect| json!({"key": effect.to_lowercase(), "value": "v", "effect": effect}))
            .collect();
        json!({"name": name, "taints": taints})
    };
    let wants =
        |tolerations: Value| wants(json!([request("r", "a", Some(1), json!({"tolerations": tolerations}))]));
    let both = || one(json!([tainted("x", &["NoSchedule", "NoExecute"])]));
    check("another one", one(json!([tainted("x", &["NoSchedule"]), "y"])), &[wants(json!([]))], NONE, "r=y");
    check("no effect", one(json!([tainted("x", &["None"])])), &[wants(json!([]))], NONE, "r=x");
    check(
        "one is not enough",
        both(),
        &[wants(json!([{"key": "noschedule", "operator": "Exists"}]))],
        NONE,
        "nothing",
    );
    check("all", both(), &[wants(json!([{"operator": "Exists"}]))], NONE, "r=x");
    let equal = |value: &str| {
        json!([{"key": "noschedule", "operator": "Equal", "value": value, "effect": "NoSchedule"},
                                     {"key": "noexecute", "value": value}])
    };
    check("by value", both(), &[wants(equal("v"))], NONE, "r=x");
    check("by another value", both(), &[wants(equal("w"))], NONE, "nothing");
    check("an unknown way", both(), &[wants(json!([{"operator": "Like"}]))], NONE, "nothing");
    let admin = json!([request("r", "a", Some(1), json!({"adminAccess": true}))]);
    check("administration as well", both(), &[super::allocate_tests::wants(admin)], NONE, "nothing");
}

#[test]
fn what_is_wrong_is_said() {
    let bad = |extra: Value| wants(json!([request("r", "a", Some(1), extra)]));
    let cel = |expression: &str| json!({"selectors": [{"cel": {"expression": expression}}]});
    for (what, claim, expected) in [
        (
            "no class",
            bad(json!({"deviceClassName": "none"})),
            "claim ns/c1, request r: could not retrieve device class none",
        ),
        (
            "no expression",
            bad(json!({"selectors": [{}]})),
            "claim ns/c1, request r, selector #0: CEL expression empty (unsupported selector type?)",
        ),
        (
            "a mode",
            bad(json!({"allocationMode": "Some"})),
            "claim ns/c1, request r: unsupported count mode Some",
        ),
        ("does not compile", bad(cel("noSuchVar")), "claim ns/c1: selector #0: CEL compile error: "),
        ("fails", bad(cel("device.attributes['d'].none")), "claim ns/c1: selector #0: CEL runtime error: "),
    ] {
        let said = outcome(one(json!(["x"])), &[claim], NONE);
        assert!(said.starts_with(&format!("Claim(\"{expected}")), "{what}: {said}");
    }
}

#[test]
fn devices_with_counters_take_their_part() {
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "c", "counters": {"memory": {"value": memory}}}]});
    let counters = json!([{"name": "c", "counters": {"memory": {"value": "8Gi"}, "unused": {"value": "1"}}}]);
    let mut shared = slice(
        "p",
        "counters",
        json!([]),
        json!({"sharedCounters": counters, "pool": {"resourceSliceCount": 2}}),
    );
    shared["spec"]["devices"] = Value::Null;
    let parts = json!([part("whole", "8Gi"), part("a", "4Gi"), part("b", "4Gi"), "free"]);
    let slices =
        || vec![slice("p", "s", parts.clone(), json!({"pool": {"resourceSliceCount": 2}})), shared.clone()];
    let wants = |count| wants(json!([request("r", "a", Some(count), json!({}))]));
    check("the first that fits", slices(), &[wants(1)], NONE, "r=whole");
    check("parts", slices(), &[wants(3)], NONE, "r=a r=b r=free");
    check("too many", slices(), &[wants(4)], NONE, "nothing");
    check("what others have is gone", slices(), &[wants(2)], &[("a", false)], "r=b r=free");
    check("all of it", slices(), &[wants(1)], &[("whole", false)], "r=free");
}
