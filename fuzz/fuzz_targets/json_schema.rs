//! A definition's schema and an object: both from outside.

#![no_main]

use api::crd::Definition;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fn definition(schema: Value) -> Option<CustomResourceDefinition> {
    let names = json!({"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let spec = json!({"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]});
    let object = json!({"metadata": {"name": "things.example.com"}, "spec": spec,
                        "status": {"acceptedNames": names, "conditions": [], "storedVersions": ["v1"]}});
    serde_json::from_value(object).ok()
}

fuzz_target!(|input: &[u8]| {
    let Some((schema, object)) = fuzz::halves(input) else { return };
    let (Some(schema), Some(object)) = (fuzz::value(schema), fuzz::value(object)) else { return };
    let Some(crd) = definition(schema) else { return };
    let value = serde_json::to_value(&crd).expect("a definition is JSON");
    let gvk = api::names::GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    if !api::validation::validate_create(&gvk, &value).is_empty() {
        return;
    }
    let Some(definition) = Definition::new(&crd) else { return };
    let Some(version) = definition.version("v1") else { return };
    let Ok((mut object, _)) = version.read(object) else { return };
    version.default(&mut object);
    let found = version.validate_create(&object);
    let _ = version.validate_rules(&object, None, &found);
});
