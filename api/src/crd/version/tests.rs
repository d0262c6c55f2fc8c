//! Objects of a definition in and out.

use serde_json::json;

use super::*;

fn definition() -> Definition {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1}, "color": {"type": "string"}}},
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    }}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": schema, "deprecated": !storage,
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.n"}},
            "selectableFields": [{"jsonPath": ".spec.color"}]})
    };
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    let crd = json!({
        "metadata": {"name": "things.g.io"},
        "spec": {"group": "g.io", "scope": "Namespaced", "names": names, "versions": [version("v1", false), version("v2", true)]},
        "status": {"acceptedNames": names, "conditions": [], "storedVersions": ["v2"]},
    });
    Definition::new(&serde_json::from_value(crd).expect("a definition")).expect("names")
}

fn thing(version: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("g.io/{version}"), "kind": "Thing", "metadata": {"name": "a", "namespace": "n"}, "spec": spec})
}

#[test]
fn objects_are_pruned_defaulted_and_converted() {
    let definition = definition();
    let v1 = definition.version("v1").expect("v1");
    let (object, unknown) = v1.read(thing("v1", json!({"color": "red", "x": 1}))).expect("an object");
    assert_eq!((&object["spec"], unknown), (&json!({"color": "red", "size": 1}), vec!["spec.x".to_owned()]));
    let stored = definition.to_storage(object).expect("stored");
    assert_eq!(stored["apiVersion"], "g.io/v2");
    assert_eq!(definition.selectable_values(&stored), [("spec.color".to_owned(), "red".to_owned())]);
    let raw = thing("v1", json!({}));
    assert_eq!(definition.from_storage(raw).expect("an object")["spec"]["size"], 1);
    assert_eq!(v1.warning.as_deref(), Some("g.io/v1 Thing is deprecated; use g.io/v2 Thing"));
}

#[test]
fn only_changes_of_the_specification_count() {
    let definition = definition();
    let v2 = definition.version("v2").expect("v2");
    let mut old = thing("v2", json!({"size": 1}));
    old["status"] = json!({"ready": true});
    v2.prepare_for_create(&mut old);
    assert_eq!((old["metadata"]["generation"].clone(), old.get("status")), (json!(1), None));
    let mut new = old.clone();
    new["spec"]["size"] = json!(2);
    new["status"] = json!({"ready": false});
    v2.prepare_for_update(&mut new, &old);
    assert_eq!((new["metadata"]["generation"].clone(), new.get("status")), (json!(2), None));
    let mut status = new.clone();
    status["spec"]["size"] = json!(9);
    status["status"] = json!({"ready": true});
    v2.prepare_for_status_update(&mut status, &new);
    assert_eq!((&status["spec"]["size"], &status["status"]), (&json!(2), &json!({"ready": true})));
}

#[test]
fn wrong_values_are_refused() {
    let definition = definition();
    let v2 = definition.version("v2").expect("v2");
    let wrong = thing("v2", json!({"size": "big"}));
    let fields: Vec<String> =
        v2.validate_create(&wrong).iter().map(|error| error.field.to_string()).collect();
    assert!(fields.iter().any(|field| field == "spec.size"), "{fields:?}");
    let sized = |size: i64| thing("v2", json!({"size": size}));
    assert_eq!(v2.validate_create(&sized(-1)).len(), 1);
    assert!(v2.validate_create(&sized(3)).is_empty());
    let scale = v2.scale.as_ref().expect("a scale");
    assert_eq!(scale.read(&sized(3)), Ok((Some(3), 0, String::new())));
}
