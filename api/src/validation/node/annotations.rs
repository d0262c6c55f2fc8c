//! Annotations of nodes that once held what later became fields, as JSON.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Taint;
use serde_json::Value;

use crate::codec::json;
use crate::field::{ErrorList, Path, Report};
use crate::schema::{Field, ListType, Node, NodeId, Schema, TypeDef, TypeId};
use crate::validation::affinity::taints;

const TAINTS: &str = "scheduler.alpha.kubernetes.io/taints";
const AVOID_PODS: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";

/// The types that upstream reads the annotations into.
static TYPES: LazyLock<Schema> = LazyLock::new(types);
const AVOID: TypeId = TypeId(0);
const TAINT: TypeId = TypeId(4);

fn types() -> Schema {
    let (text, truth, time) = (NodeId(0), NodeId(1), NodeId(2));
    let object = |ty| Node::Object { ty: TypeId(ty), atomic: None };
    let entries = Node::List { item: NodeId(4), semantics: ListType::Atomic, wrapped: false };
    let nodes = vec![Node::String, Node::Bool, Node::Time, entries, object(1), object(2), object(3)];
    let def = |name: &'static str, fields: &[(&'static str, NodeId)]| {
        let mut fields: Vec<Field> = fields.iter().map(|(name, node)| Field::custom(*name, *node)).collect();
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        TypeDef {
            name: name.into(),
            atomic: false,
            preserve_unknown: false,
            fields: fields.into(),
            wire: Vec::new().into(),
            present: Vec::new().into(),
        }
    };
    let entry = [("podSignature", NodeId(5)), ("evictionTime", time), ("reason", text), ("message", text)];
    let owner = [
        ("apiVersion", text),
        ("kind", text),
        ("name", text),
        ("uid", text),
        ("controller", truth),
        ("blockOwnerDeletion", truth),
    ];
    let taint = [("Key", text), ("Value", text), ("Effect", text), ("TimeAdded", time)];
    let types = vec![
        def("core.v1.AvoidPods", &[("preferAvoidPods", NodeId(3))]),
        def("core.v1.PreferAvoidPodsEntry", &entry),
        def("core.v1.PodSignature", &[("podController", NodeId(6))]),
        def("meta.v1.OwnerReference", &owner),
        def("core.Taint", &taint),
    ];
    Schema::new(types, nodes)
}

/// Checks them all.
pub(super) fn validate(annotations: Option<&BTreeMap<String, String>>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let get = |key: &str| annotations.and_then(|all| all.get(key)).filter(|text| !text.is_empty());
    if let Some(text) = get(TAINTS) {
        match read_taints(text) {
            Ok(found) => errors.extend(taints(&found, &path.child(TAINTS))),
            Err(why) => errors.invalid(path, TAINTS, why),
        }
    }
    if let Some(text) = get(AVOID_PODS) {
        match read(text).and_then(|value| decode(value, AVOID)) {
            Ok(avoid) => avoid_pods(&avoid, &path.child(AVOID_PODS), &mut errors),
            Err(why) => errors.invalid(&path.child("AvoidPods"), AVOID_PODS, why),
        }
    }
    errors
}

fn avoid_pods(avoid: &Value, path: &Path, errors: &mut ErrorList) {
    for (i, entry) in avoid["preferAvoidPods"].as_array().into_iter().flatten().enumerate() {
        let path = path.index(i).child("PodSignature");
        let Some(controller) = entry.pointer("/podSignature/podController").filter(|c| !c.is_null()) else {
            errors.required(&path, "");
            continue;
        };
        if controller["controller"] != true {
            let path = path.child("PodController").child("Controller");
            errors.invalid(&path, false, "must point to a controller");
        }
    }
}

fn read(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| json::syntax_error(text.as_bytes(), &error))
}

fn read_taints(text: &str) -> Result<Vec<Taint>, String> {
    let items = match read(text)? {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        other => {
            let found = json::kind_of(&other);
            return Err(format!("json: cannot unmarshal {found} into Go value of type []core.Taint"));
        }
    };
    let taint = |item: Value| {
        let read = decode(item, TAINT)?;
        let text = |key: &str| read[key].as_str().unwrap_or_default().to_owned();
        let value = Some(text("Value")).filter(|value| !value.is_empty());
        Ok(Taint { key: text("Key"), value, effect: text("Effect"), time_added: None })
    };
    items.into_iter().map(taint).collect()
}

fn decode(value: Value, ty: TypeId) -> Result<Value, String> {
    let decoded = TYPES.ty(ty).decode_value(with_known_names(value));
    decoded.map(|decoded| decoded.value).map_err(|error| error.to_string())
}

/// Go does not look at the case of letters in the names of fields.
fn with_known_names(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let known = |name: String| {
                let fields = TYPES.types().flat_map(|ty| ty.fields().iter());
                let found = fields.map(|field| &field.name).find(|field| field.eq_ignore_ascii_case(&name));
                found.map(|field| field.clone().into_owned()).unwrap_or(name)
            };
            map.into_iter().map(|(name, value)| (known(name), with_known_names(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(with_known_names).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(key: &str, text: &str) -> Vec<String> {
        let annotations = BTreeMap::from([(key.to_owned(), text.to_owned())]);
        let path = Path::new("metadata").child("annotations");
        validate(Some(&annotations), &path).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pods_to_avoid() {
        let good = r#"{"preferAvoidPods": [{"podSignature": {"podController":
            {"apiVersion": "v1", "kind": "ReplicationController", "name": "foo", "uid": "abc", "controller": true}},
            "reason": "some reason", "message": "some message"}]}"#;
        let at = "metadata.annotations.scheduler.alpha.kubernetes.io/preferAvoidPods[0].PodSignature";
        let cases = [
            ("", vec![]),
            (good, vec![]),
            (r#"{"preferAvoidPods": [{"reason": "x"}]}"#, vec![format!("{at}: Required value")]),
            (
                &good.replace("true", "false"),
                vec![format!("{at}.PodController.Controller: Invalid value: false: must point to a controller")],
            ),
            (
                r#"{"preferAvoidPods": 1}"#,
                vec![
                    "metadata.annotations.AvoidPods: Invalid value: \
                     \"scheduler.alpha.kubernetes.io/preferAvoidPods\": json: cannot unmarshal number into Go struct \
                     field AvoidPods.preferAvoidPods of type []v1.PreferAvoidPodsEntry"
                        .to_owned(),
                ],
            ),
        ];
        for (text, want) in cases {
            assert_eq!(check(AVOID_PODS, text), want, "{text}");
        }
    }

    #[test]
    fn taints_once_were_an_annotation() {
        let cases = [
            (r#"[{"key": "GPU", "value": "abc", "effect": "NoSchedule"}]"#, vec![]),
            (
                r#"[{"key": "GPU", "effect": ""}]"#,
                vec!["metadata.annotations.scheduler.alpha.kubernetes.io/taints[0].effect: Required value"],
            ),
            (
                "{",
                vec![
                    "metadata.annotations: Invalid value: \"scheduler.alpha.kubernetes.io/taints\": unexpected end of JSON input",
                ],
            ),
        ];
        for (text, want) in cases {
            assert_eq!(check(TAINTS, text), want, "{text}");
        }
    }
}
