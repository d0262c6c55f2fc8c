//! Cases of upstream's `status/naming_controller_test.go`.

use serde_json::json;

use super::*;

fn crd(name: &str, kind: &str, accepted: serde_json::Value) -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"group": "g", "scope": "Namespaced", "versions": [],
            "names": {"plural": format!("{name}s"), "singular": name, "kind": kind, "listKind": format!("{kind}List")}},
        "status": {"acceptedNames": accepted, "conditions": [], "storedVersions": []},
    }))
    .expect("a definition")
}

fn none() -> serde_json::Value {
    json!({"plural": "", "kind": ""})
}

#[test]
fn free_names_are_accepted_and_taken_ones_are_not() {
    let now = Timestamp::UNIX_EPOCH;
    let new = crd("alfa", "Alfa", none());
    let given = plan_names(&new, &NamesInUse::default(), now).expect("a change");
    assert!(is_true(&given, NAMES_ACCEPTED));
    assert_eq!(find(&given, ESTABLISHED).and_then(|c| c.reason.as_deref()), Some("Installing"));
    assert!(plan_names(&given, &NamesInUse::default(), now).is_none());
    let served = plan_established(&given, now).expect("a change");
    assert!(is_true(&served, ESTABLISHED));
    assert!(plan_established(&served, now).is_none());

    let used = NamesInUse::of([&given].into_iter());
    let other = crd("bravo", "Alfa", none());
    let refused = plan_names(&other, &used, now).expect("a change");
    assert!(!is_true(&refused, NAMES_ACCEPTED));
    assert!(plan_established(&refused, now).is_none());
    let accepted = refused.status.expect("a status").accepted_names.expect("names");
    assert_eq!((accepted.plural.as_str(), accepted.kind.as_str()), ("bravos", ""));
}
