//! Definitions that are valid, and that are not.

use serde_json::{Value, json};

use super::*;

fn valid() -> Value {
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    json!({
        "metadata": {"name": "things.g.io", "resourceVersion": "1"},
        "spec": {"group": "g.io", "scope": "Namespaced", "names": names, "conversion": {"strategy": "None"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}}]},
        "status": {"acceptedNames": {"plural": "", "kind": ""}, "conditions": [], "storedVersions": ["v1"]},
    })
}

fn fields(change: impl Fn(&mut Value)) -> Vec<String> {
    let mut value = valid();
    change(&mut value);
    let crd: Crd = serde_json::from_value(value).expect("a definition");
    create(&crd).iter().map(|error| error.field.to_string()).collect()
}

#[test]
fn what_is_wrong_has_a_path() {
    assert_eq!(fields(|_| ()), Vec::<String>::new());
    type Change = fn(&mut Value);
    let cases: [(Change, &str); 9] = [
        (|crd| crd["metadata"]["name"] = json!("others.g.io"), "metadata.name"),
        (|crd| crd["spec"]["group"] = json!("nodots"), "spec.group"),
        (|crd| crd["spec"]["scope"] = json!("Elsewhere"), "spec.scope"),
        (|crd| crd["spec"]["names"]["plural"] = json!("Things"), "spec.names.plural"),
        (|crd| crd["spec"]["names"]["listKind"] = json!("Thing"), "spec.names.listKind"),
        (|crd| crd["spec"]["versions"][0]["storage"] = json!(false), "spec.versions"),
        (|crd| crd["spec"]["versions"][0]["name"] = json!("V_1"), "spec.versions[0].name"),
        (|crd| crd["spec"]["preserveUnknownFields"] = json!(true), "spec.preserveUnknownFields"),
        (|crd| crd["status"]["storedVersions"] = json!(["v1", "v0"]), "status.storedVersions[1]"),
    ];
    for (change, field) in cases {
        let found = fields(change);
        assert!(found.iter().any(|own| own == field), "{field}: {found:?}");
    }
}

#[test]
fn the_group_and_the_scope_stay() {
    let old: Crd = serde_json::from_value(valid()).expect("a definition");
    assert!(update(&old, &old).is_empty());
    let mut value = valid();
    value["spec"]["scope"] = json!("Cluster");
    let condition = json!([{"type": "Established", "status": "True"}]);
    value["status"]["conditions"] = condition.clone();
    let new: Crd = serde_json::from_value(value).expect("a definition");
    let mut before = valid();
    before["status"]["conditions"] = condition;
    let old: Crd = serde_json::from_value(before).expect("a definition");
    let fields: Vec<String> = update(&new, &old).iter().map(|error| error.field.to_string()).collect();
    assert_eq!(fields, ["spec.scope"]);
}

#[test]
fn defaults_keep_the_rules_beside_them() {
    let with = |default: Value, rule: Value| {
        let found = fields(|crd| {
            let n = json!({"type": "integer", "default": default, "x-kubernetes-validations": [rule]});
            let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
            schema["properties"]["spec"] = json!({"type": "object", "properties": {"n": n}});
        });
        found.len() == 1 && found[0].ends_with("properties[n].default")
    };
    assert!(!with(json!(1), json!({"rule": "self > 0"})));
    assert!(with(json!(0), json!({"rule": "self > 0"})));
    // It stays what it is, and so does not grow.
    assert!(with(json!(1), json!({"rule": "self > oldSelf"})));
    assert!(!with(json!(1), json!({"rule": "self >= oldSelf"})));
    // It may come where there was nothing.
    let optional = json!({"rule": "oldSelf.hasValue() || self == 2", "optionalOldSelf": true});
    assert!(!with(json!(2), optional.clone()));
    assert!(with(json!(1), optional));
}
