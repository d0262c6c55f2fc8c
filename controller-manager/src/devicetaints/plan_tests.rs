//! Which pods leave their tainted devices, and when, as tables.

use super::*;
use serde_json::{Value, json};

const TAINTED: &str = "2026-01-01T00:00:00Z";

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a valid object")
}

/// A pod on a node that uses the claims `c` and, by a template, `own`.
fn pod() -> Value {
    json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "web-uid" },
        "spec": {
            "nodeName": "n1", "containers": [],
            "resourceClaims": [{ "name": "first", "resourceClaimName": "c" },
                               { "name": "second", "resourceClaimTemplateName": "t" }],
        },
        "status": { "resourceClaimStatuses": [{ "name": "second", "resourceClaimName": "own" }] },
    })
}

fn claim(name: &str, device: &str, tolerations: Value) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "default" },
        "spec": {},
        "status": {
            "allocation": { "devices": { "results": [{
                "request": "r", "driver": "d", "pool": "p", "device": device, "tolerations": tolerations }] } },
            "reservedFor": [{ "resource": "pods", "name": "web", "uid": "web-uid" }],
        },
    })
}

fn owned(mut claim: Value, uid: &str) -> Value {
    claim["metadata"]["ownerReferences"] =
        json!([{ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": uid, "controller": true }]);
    claim
}

fn taint(effect: &str) -> Value {
    json!({ "key": "broken", "value": "yes", "effect": effect, "timeAdded": TAINTED })
}

fn later(seconds: i64) -> Value {
    let mut taint = taint("NoExecute");
    let at: Timestamp = TAINTED.parse().expect("a time");
    taint["timeAdded"] =
        json!(at.saturating_add(SignedDuration::from_secs(seconds)).expect("in range").to_string());
    taint
}

/// A slice of a generation with one device.
fn slice(generation: i64, device: &str, taints: Value) -> Value {
    json!({
        "metadata": { "name": format!("{device}-{generation}") },
        "spec": { "driver": "d", "pool": { "name": "p", "generation": generation, "resourceSliceCount": 1 },
                  "devices": [{ "name": device, "taints": taints }] },
    })
}

/// After how many seconds from the taint the pod has to leave.
fn leaves(pod: Value, claims: &[Value], slices: &[Value]) -> Option<i64> {
    let slices: Vec<Arc<ResourceSlice>> = slices.iter().map(|slice| Arc::new(of(slice.clone()))).collect();
    let find = |name: &str| {
        let held = claims.iter().find(|claim| claim["metadata"]["name"] == name);
        held.map(|claim| Arc::new(of(claim.clone())))
    };
    let pool = |driver: &str, pool: &str| {
        let of_pool =
            |slice: &&Arc<ResourceSlice>| slice.spec.driver == driver && slice.spec.pool.name == pool;
        slices.iter().filter(of_pool).cloned().collect()
    };
    let at = eviction(&of(pod), find, pool)?;
    Some(at.duration_since(TAINTED.parse().expect("a time")).as_secs())
}

/// One claim of device `gpu`, which has these taints.
fn with(tolerations: Value, taints: Value) -> Option<i64> {
    leaves(pod(), &[claim("c", "gpu", tolerations)], &[slice(1, "gpu", taints), slice(1, "other", json!([]))])
}

#[test]
fn only_taints_that_execute_make_pods_leave() {
    assert_eq!(with(json!([]), json!([])), None);
    assert_eq!(with(json!([]), json!([taint("NoExecute")])), Some(0));
    for effect in ["NoSchedule", "None", "SomethingNew"] {
        assert_eq!(with(json!([]), json!([taint(effect)])), None, "{effect}");
    }
    assert_eq!(
        with(json!([]), json!([taint("NoSchedule"), later(5), later(3)])),
        Some(3),
        "the earliest counts"
    );
    let unknown = json!([{ "key": "broken", "effect": "NoExecute" }]);
    assert_eq!(with(json!([]), unknown), None, "nobody knows since when");
}

#[test]
fn tolerations_put_it_off() {
    let tolerates = |more: Value| {
        let mut toleration = json!({ "effect": "NoExecute", "operator": "Exists" });
        for (key, value) in more.as_object().expect("fields") {
            toleration[key] = value.clone();
        }
        toleration
    };
    let taints = || json!([taint("NoExecute")]);
    for (tolerations, expected) in [
        (json!([tolerates(json!({}))]), None),
        (json!([tolerates(json!({ "tolerationSeconds": 60 }))]), Some(60)),
        (json!([tolerates(json!({ "tolerationSeconds": -1 }))]), Some(0)),
        (
            json!([
                tolerates(json!({ "tolerationSeconds": 60 })),
                tolerates(json!({ "tolerationSeconds": 30 })),
                tolerates(json!({ "tolerationSeconds": 20, "key": "other" }))
            ]),
            Some(30),
        ),
        (json!([tolerates(json!({ "tolerationSeconds": 60 })), tolerates(json!({}))]), None),
        (json!([tolerates(json!({ "key": "broken" }))]), None),
        (json!([tolerates(json!({ "key": "other" }))]), Some(0)),
        (json!([tolerates(json!({ "key": "broken", "operator": "Equal", "value": "yes" }))]), None),
        (json!([tolerates(json!({ "key": "broken", "operator": "Equal", "value": "no" }))]), Some(0)),
        (json!([tolerates(json!({ "operator": "New" }))]), Some(0)),
        (json!([tolerates(json!({ "effect": "NoSchedule" }))]), Some(0)),
        // As upstream: who tolerates every effect has to say this one.
        (json!([tolerates(json!({ "effect": "" }))]), Some(0)),
    ] {
        assert_eq!(with(tolerations.clone(), taints()), expected, "{tolerations}");
    }
    let one = json!([tolerates(json!({ "key": "broken", "tolerationSeconds": 60 }))]);
    let mut other = taint("NoExecute");
    other["key"] = json!("overheated");
    assert_eq!(with(one, json!([taint("NoExecute"), other])), Some(0), "each taint has to be tolerated");
}

#[test]
fn the_newest_generation_of_a_pool_counts() {
    let claims = [claim("c", "gpu", json!([]))];
    let tainted = || json!([taint("NoExecute")]);
    assert_eq!(leaves(pod(), &claims, &[]), None, "no slice at all");
    assert_eq!(leaves(pod(), &claims, &[slice(1, "gpu", tainted()), slice(2, "gpu", json!([]))]), None);
    assert_eq!(leaves(pod(), &claims, &[slice(1, "gpu", json!([])), slice(2, "gpu", tainted())]), Some(0));
    assert_eq!(leaves(pod(), &claims, &[slice(1, "gpu", tainted()), slice(2, "other", json!([]))]), None);
    let mut elsewhere = slice(1, "gpu", tainted());
    elsewhere["spec"]["pool"]["name"] = json!("q");
    assert_eq!(leaves(pod(), &claims, &[elsewhere]), None, "the same name in another pool");
    assert_eq!(leaves(pod(), &claims, &[slice(1, "other", tainted())]), None);
}

#[test]
fn only_claims_that_the_pod_may_use_count() {
    let slices = [slice(1, "gpu", json!([taint("NoExecute")])), slice(1, "late", json!([later(9)]))];
    let gpu = || claim("c", "gpu", json!([]));
    let own = || claim("own", "late", json!([]));
    let mut unscheduled = pod();
    unscheduled["spec"]["nodeName"] = Value::Null;
    let mut untold = pod();
    untold["status"] = json!({});
    let mut free = gpu();
    free["status"]["reservedFor"] = json!([]);
    let mut others = gpu();
    others["status"]["reservedFor"][0]["uid"] = json!("another");
    let mut groups = gpu();
    groups["status"]["reservedFor"][0] =
        json!({ "apiGroup": "scheduling.k8s.io", "resource": "podgroups", "name": "web", "uid": "web-uid" });
    let mut unallocated = gpu();
    unallocated["status"]["allocation"] = Value::Null;
    for (what, pod, claims, expected) in [
        ("not scheduled", unscheduled, vec![gpu()], None),
        ("no claim", pod(), vec![], None),
        ("a claim for nobody", pod(), vec![free], None),
        ("a claim for another pod of the name", pod(), vec![others], None),
        ("a claim for a group", pod(), vec![groups], None),
        ("no devices", pod(), vec![unallocated], None),
        ("its own claim", pod(), vec![owned(own(), "web-uid")], Some(9)),
        ("a claim made for another", pod(), vec![owned(own(), "another")], None),
        ("its own claim, which it does not know", untold, vec![owned(own(), "web-uid")], None),
        ("both, and the first to go counts", pod(), vec![gpu(), owned(own(), "web-uid")], Some(0)),
    ] {
        assert_eq!(leaves(pod, &claims, &slices), expected, "{what}");
    }
}
