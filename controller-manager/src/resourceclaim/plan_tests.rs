//! Which claims are made for a pod, kept, released and deleted.

use super::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn pod(phase: &str, node: &str, deleting: bool, known: Value) -> Pod {
    let mut pod = json!({
        "metadata": { "name": "web", "namespace": "ns", "uid": "u" },
        "spec": {
            "containers": [], "nodeName": node,
            "resourceClaims": [
                { "name": "own", "resourceClaimTemplateName": "template" },
                { "name": "shared", "resourceClaimName": "all" },
            ],
        },
        "status": { "phase": phase, "resourceClaimStatuses": known },
    });
    if deleting {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    serde_json::from_value(pod).unwrap()
}

fn template() -> ResourceClaimTemplate {
    serde_json::from_value(json!({
        "metadata": { "name": "template" },
        "spec": { "metadata": { "labels": { "a": "b" }, "annotations": { "c": "d" } }, "spec": {} },
    }))
    .unwrap()
}

fn claim(owner: &str, consumers: &[&str], allocated: bool, finalizer: bool, deleting: bool) -> ResourceClaim {
    let consumer = |uid: &&str| json!({ "resource": "pods", "name": uid, "uid": uid });
    let mut claim = json!({
        "metadata": { "name": "web-own-1", "namespace": "ns", "annotations": { CLAIM_NAME: "own" } },
        "spec": {},
        "status": { "reservedFor": consumers.iter().map(consumer).collect::<Vec<_>>() },
    });
    if !owner.is_empty() {
        claim["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "Pod", "name": "web", "uid": owner, "controller": true }]);
    }
    if allocated {
        claim["status"]["allocation"] = json!({});
    }
    if finalizer {
        claim["metadata"]["finalizers"] = json!(["resource.kubernetes.io/delete-protection"]);
    }
    if deleting {
        claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    serde_json::from_value(claim).unwrap()
}

#[test]
fn claims_are_made_once_and_told() {
    let fresh = pod("Pending", "", false, Value::Null);
    let wanted = &claims_of(&fresh)[0];
    let Need::Create(made) = need(&fresh, wanted, None, &[], Some(&template())) else { panic!("it is made") };
    assert_eq!(made.metadata.generate_name.as_deref(), Some("web-own-"));
    assert!(is_for(&fresh, &made));
    assert_eq!(meta::annotation(&made.metadata, CLAIM_NAME), Some("own"));
    assert_eq!(
        (meta::annotation(&made.metadata, "c"), meta::label(&made.metadata, "a")),
        (Some("d"), Some("b"))
    );
    let existing = [Arc::new(claim("u", &[], false, false, false))];
    let told = need(&fresh, wanted, None, &existing, Some(&template()));
    assert_eq!(told, Need::Tell("web-own-1".to_owned()));
    assert!(matches!(need(&fresh, wanted, None, &[], None), Need::Fail(_)));
    let knows = pod("Pending", "", false, json!([{ "name": "own", "resourceClaimName": "web-own-1" }]));
    assert_eq!(need(&knows, wanted, Some(&existing[0]), &[], None), Need::Nothing);
    let others = claim("x", &[], false, false, false);
    assert!(matches!(need(&knows, wanted, Some(&others), &[], Some(&template())), Need::Create(_)));
    let without = pod("Pending", "", false, json!([{ "name": "own" }]));
    assert_eq!(need(&without, wanted, None, &[], None), Need::Nothing);
    let shared = &claims_of(&fresh)[1];
    assert_eq!(need(&fresh, shared, None, &[], None), Need::Nothing, "people make it");
    assert_eq!(names_of(&knows), ["web-own-1", "all"]);
}

#[test]
fn long_names_are_shortened_in_proportion() {
    assert_eq!(generate_name("a", "b"), "a-b-");
    let long = generate_name(&"p".repeat(63), &"c".repeat(63));
    assert!(long.len() <= BASE + 1 && long.starts_with('p') && long.ends_with('c'), "{long}");
}

#[test]
fn pods_that_run_are_among_the_consumers() {
    let running = pod("Running", "n1", false, Value::Null);
    for (consumers, allocated, expected) in
        [(&[][..], true, true), (&["x"], true, true), (&["u"], true, false), (&[], false, false)]
    {
        let claim = claim("", consumers, allocated, true, false);
        assert_eq!(reserved(&running, &claim).is_some(), expected, "{consumers:?} {allocated}");
    }
    let many: Vec<String> = (0..256).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(reserved(&running, &claim("", &many, true, true, false)), None);
}

#[test]
fn claims_are_freed_when_nobody_uses_them() {
    let show = |plan: &Cleanup| {
        let status = plan.status.as_ref().map(|claim| {
            let status = claim.status.clone().unwrap_or_default();
            let consumers = status.reserved_for.unwrap_or_default().len();
            format!("{consumers} consumers, allocated {}", status.allocation.is_some())
        });
        (status.unwrap_or_default(), plan.release, plan.delete)
    };
    let stays = |consumer: &ResourceClaimConsumerReference| consumer.uid == "stays";
    let live = pod("Running", "n1", false, Value::Null);
    let ended = pod("Succeeded", "n1", false, Value::Null);
    for (claim, owner, expected) in [
        (claim("", &["stays"], true, true, false), None, (String::new(), false, false)),
        (
            claim("", &["stays", "gone"], true, true, false),
            None,
            ("1 consumers, allocated true".to_owned(), false, false),
        ),
        (
            claim("", &["gone"], true, true, false),
            None,
            ("0 consumers, allocated false".to_owned(), true, false),
        ),
        (
            claim("", &["gone"], true, false, false),
            None,
            ("0 consumers, allocated true".to_owned(), false, false),
        ),
        (claim("", &[], true, true, true), None, ("0 consumers, allocated false".to_owned(), true, false)),
        (claim("", &[], false, true, true), None, (String::new(), true, false)),
        (claim("", &[], true, true, false), None, (String::new(), false, false)),
        (claim("u", &[], false, false, false), Some(&ended), (String::new(), false, true)),
        (claim("u", &[], false, false, false), Some(&live), (String::new(), false, false)),
        (claim("old", &[], false, false, false), Some(&live), (String::new(), false, true)),
        (claim("u", &["stays"], true, true, false), Some(&ended), (String::new(), false, false)),
    ] {
        assert_eq!(show(&cleanup(&claim, stays, owner)), expected, "{claim:?}");
    }
}

#[test]
fn a_pod_is_done_when_it_ended_or_never_began() {
    for (phase, node, deleting, done) in [
        ("Running", "n1", false, false),
        ("Running", "n1", true, false),
        ("Pending", "", true, true),
        ("Failed", "n1", false, true),
    ] {
        assert_eq!(is_done(&pod(phase, node, deleting, Value::Null)), done);
    }
}
