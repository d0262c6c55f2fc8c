//! Upstream's tables of cases (`cases.jsonl`, one case a line), and properties.
//!
//! A case names the patch calculated two ways (`two`), three ways (`three`), what applying each gives
//! (`two_result`, else `modified`; `result`), or the error that one of the steps must end with.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::names::GroupVersionKind;
use crate::schema::{Field, ListType, Node, NodeId, Patch, Schema, TypeDef, TypeId, type_for};

/// The type that upstream's tables are about.
fn merge_item() -> Schema {
    let nodes = vec![
        Node::String,
        Node::Object { ty: TypeId(0), atomic: None },
        Node::List { item: NodeId(1), semantics: ListType::Atomic, wrapped: false },
        Node::Int64,
        Node::List { item: NodeId(3), semantics: ListType::Atomic, wrapped: false },
        Node::Map { value: NodeId(0), atomic: false },
        Node::Raw(crate::schema::Raw::Extension),
        Node::Object { ty: TypeId(1), atomic: None },
    ];
    let plain = Patch::default();
    let merge = Patch { merge: true, ..plain };
    let field = |name: &'static str, node: u32, patch: Patch, key: Option<&'static str>| Field {
        patch,
        merge_key: key.map(Cow::Borrowed),
        ..Field::custom(name, NodeId(node))
    };
    let common = || {
        vec![
            field("name", 0, plain, None),
            field("value", 0, plain, None),
            field("other", 0, plain, None),
            field("mergingList", 2, merge, Some("name")),
            field("nonMergingList", 2, plain, None),
            field("mergingIntList", 4, merge, None),
            field("simpleMap", 5, plain, None),
        ]
    };
    let mut item = common();
    item.extend([
        field("nonMergingIntList", 4, plain, None),
        field("mergeItemPtr", 1, merge, Some("name")),
        field("replacingItem", 6, Patch { replace: true, ..plain }, None),
        field("jsonItem", 6, plain, None),
        field("retainKeysMap", 7, Patch { retain_keys: true, ..plain }, None),
        field("retainKeysMergingList", 2, Patch { retain_keys: true, ..merge }, Some("name")),
    ]);
    let def = |name: &'static str, mut fields: Vec<Field>| {
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        TypeDef {
            name: name.into(),
            atomic: false,
            preserve_unknown: false,
            fields: fields.into(),
            wire: vec![].into(),
            present: vec![].into(),
        }
    };
    Schema::new(vec![def("test.MergeItem", item), def("test.RetainKeysMergeItem", common())], nodes)
}

/// Compares as upstream's tests do: lists that are merged are sets.
fn sorted(value: &Value, meta: Meta<'_>) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| {
                    let plain = key.rsplit('/').next().unwrap_or(key);
                    let out = match value {
                        Value::Array(items) if key == RETAIN_KEYS || key.starts_with(DELETE_FROM_LIST) => {
                            Value::Array(list::sort_scalars(items.clone()))
                        }
                        Value::Array(_) if key.starts_with(SET_ORDER) => value.clone(),
                        Value::Array(items) => match meta.for_list(plain) {
                            Ok(field) if field.patch.merge => {
                                let items: Vec<Value> =
                                    items.iter().map(|item| sorted(item, field.inner)).collect();
                                Value::Array(list::sort_maps(&items, field.merge_key).unwrap())
                            }
                            _ => value.clone(),
                        },
                        Value::Object(_) => match meta.for_map(plain) {
                            Ok(field) => sorted(value, field.inner),
                            Err(_) => value.clone(),
                        },
                        other => other.clone(),
                    };
                    (key.clone(), out)
                })
                .collect(),
        ),
        other => other.clone(),
    }
}

/// What went right and wrong in the table of cases.
#[derive(Default)]
struct Tally {
    right: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn check(&mut self, what: &str, found: Result<Value>, wanted: &Value) {
        match found {
            Ok(found) if found == *wanted => self.right += 1,
            Ok(found) => self.wrong.push(format!("{what}: {found}\n   wanted {wanted}")),
            Err(error) => self.wrong.push(format!("{what}: {error}\n   wanted {wanted}")),
        }
    }

    fn check_error(&mut self, what: &str, found: Result<Value>, wanted: &str) {
        match found {
            Err(error) if error.to_string().contains(wanted) => self.right += 1,
            found => self.wrong.push(format!("{what}: {found:?}\n   wanted the error {wanted}")),
        }
    }
}

#[test]
fn upstreams_cases() {
    let schema = merge_item();
    let ty = schema.ty(TypeId(0));
    let mut tally = Tally::default();
    for line in include_str!("cases.jsonl").lines() {
        run_case(&serde_json::from_str(line).unwrap(), ty, &mut tally);
    }
    let Tally { right, wrong } = tally;
    assert!(wrong.is_empty(), "{} of {} fail:\n{}", wrong.len(), wrong.len() + right, wrong.join("\n"));
    assert!(right > 400, "only {right} checks");
}

fn run_case(case: &Value, ty: TypeRef<'_>, tally: &mut Tally) {
    let name = case["name"].as_str().unwrap();
    let get = |key: &str| {
        let value = case.get(key)?.clone();
        Some(if case["sort"] == true { sorted(&value, Meta::Object(ty)) } else { value })
    };
    let of = |key: &str| get(key).unwrap_or_else(|| json!({}));
    let (original, modified, current) = (of("original"), of("modified"), of("current"));
    let two = of("two");
    let error = case.get("error").and_then(Value::as_str);
    if case["apply_only"] != true {
        tally.check(&format!("{name} two-way"), create_two_way(&original, &modified, ty), &two);
    }
    match error {
        Some(error) => tally.check_error(name, apply(&original, &two, ty), error),
        None => {
            let wanted = get("two_result").unwrap_or(modified.clone());
            tally.check(&format!("{name} two-way result"), apply(&original, &two, ty), &wanted);
        }
    }
    if case["apply_only"] == true {
        return;
    }
    if case["conflict"] == true {
        let found = create_three_way(&original, &modified, &current, ty, false);
        tally.check_error(&format!("{name} three-way"), found, "conflicts with changes");
        if get("result").is_none() {
            return;
        }
    } else {
        let found = create_three_way(&original, &modified, &current, ty, false);
        tally.check(&format!("{name} three-way, cautious"), found, &of("three"));
    }
    let found = create_three_way(&original, &modified, &current, ty, true);
    tally.check(&format!("{name} three-way"), found, &of("three"));
    if error.is_none() {
        tally.check(&format!("{name} three-way result"), apply(&current, &of("three"), ty), &of("result"));
    }
}

fn deployment() -> TypeRef<'static> {
    type_for(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap()
}

fn with_containers(containers: Value) -> Value {
    json!({"spec": {"template": {"spec": {"containers": containers}}}})
}

#[test]
fn containers_ports_and_strategies() {
    let original = with_containers(json!([
        {"name": "a", "image": "a:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
        {"name": "b", "image": "b:1"},
    ]));
    for (patch, result) in [
        (
            with_containers(json!([{"name": "a", "image": "a:2"}])),
            with_containers(json!([
                {"name": "a", "image": "a:2", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
                {"name": "b", "image": "b:1"},
            ])),
        ),
        (
            with_containers(json!([{"name": "a", "$patch": "delete"}, {"name": "c", "image": "c:1"}])),
            with_containers(json!([{"name": "c", "image": "c:1"}, {"name": "b", "image": "b:1"}])),
        ),
        (
            with_containers(json!([{"$patch": "replace"}, {"name": "z"}])),
            with_containers(json!([{"name": "z"}])),
        ),
        (
            json!({"spec": {"template": {"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}}}),
            with_containers(json!([
                {"name": "b", "image": "b:1"},
                {"name": "a", "image": "a:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]},
            ])),
        ),
    ] {
        assert_eq!(apply(&original, &patch, deployment()), Ok(result), "{patch}");
    }
    let rolling = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let recreate = json!({"spec": {"strategy": {"type": "Recreate"}}});
    let patch = create_two_way(&rolling, &recreate, deployment()).unwrap();
    assert_eq!(
        patch,
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": null, "type": "Recreate"}}})
    );
    assert_eq!(apply(&rolling, &patch, deployment()), Ok(recreate));
}

#[test]
fn faults_read_as_upstream_writes_them() {
    let original = with_containers(json!([{"name": "app", "image": "a:1"}]));
    let template = |spec: Value| json!({"spec": {"template": {"spec": spec}}});
    for (patch, code, message) in [
        (json!({"$patch": 5}), 500, "unknown patch type: %!s(int64=5) in map: map[$patch:5]"),
        (
            template(
                json!({"$setElementOrder/containers": [{"name": "app"}], "containers": [{"name": "side", "image": "side:2"}]}),
            ),
            500,
            "The order in patch list:\n[map[image:side:2 name:side]]\n doesn't match $setElementOrder list:\n[map[name:app]]\n",
        ),
        (
            with_containers(json!([{"image": "x"}])),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            template(json!({"$setElementOrder/containers": "x"})),
            500,
            "expected a []interface {}, but received a string",
        ),
        (json!({"spec": {"strategy": {"$retainKeys": "x"}}}), 400, "invalid patch format of retainKeys"),
        (
            json!({"spec": {"strategy": {"$retainKeys": ["x"], "type": "Recreate"}}}),
            400,
            "invalid patch format of retainKeys",
        ),
        (with_containers(json!([[1]])), 500, "list element types are not identical"),
    ] {
        let mut original = original.clone();
        original["spec"]["strategy"] = json!({"type": "RollingUpdate"});
        let error = apply(&original, &patch, deployment()).unwrap_err();
        assert_eq!(error.code(), code, "{patch}");
        assert!(error.to_string().starts_with(message), "{patch}: {error}");
    }
}

fn any_deployment() -> impl Strategy<Value = Value> {
    let env = proptest::collection::btree_map("[AB]", "[xy]", 0..3).prop_map(|map| {
        map.into_iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>()
    });
    let containers = proptest::collection::btree_map("[abc]", ("[xy]", env), 1..4).prop_map(|map| {
        map.into_iter()
            .map(|(name, (image, env))| json!({"name": name, "image": image, "env": env}))
            .collect::<Vec<_>>()
    });
    let strategy = prop_oneof![
        Just(json!({"type": "Recreate"})),
        (1..3i32).prop_map(|n| json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": n}})),
    ];
    let labels = proptest::collection::btree_map("[kl]", "[vw]", 0..3);
    let finalizers = proptest::sample::subsequence(vec!["f/1", "f/2", "f/3"], 0..3);
    (containers.prop_shuffle(), strategy, labels, finalizers.prop_shuffle()).prop_map(
        |(containers, strategy, labels, finalizers)| {
            json!({
                "metadata": {"labels": labels, "finalizers": finalizers},
                "spec": {"strategy": strategy, "template": {"spec": {"containers": containers}}},
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_created_patch_leads_there_and_twice_is_once(a in any_deployment(), b in any_deployment()) {
        let patch = create_two_way(&a, &b, deployment()).unwrap();
        let once = apply(&a, &patch, deployment()).unwrap();
        prop_assert_eq!(&once, &b, "{}", patch);
        let twice = apply(&once, &patch, deployment()).unwrap();
        prop_assert_eq!(twice, once, "{}", patch);
    }

    #[test]
    fn an_apply_reaches_what_was_applied(o in any_deployment(), m in any_deployment(), c in any_deployment()) {
        let patch = create_three_way(&o, &m, &c, deployment(), true).unwrap();
        let once = apply(&c, &patch, deployment()).unwrap();
        prop_assert_eq!(&once["spec"]["strategy"]["type"], &m["spec"]["strategy"]["type"]);
        for container in m["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
            let found = once["spec"]["template"]["spec"]["containers"].as_array().unwrap();
            prop_assert!(found.iter().any(|f| f["name"] == container["name"] && f["image"] == container["image"]));
        }
        prop_assert_eq!(&apply(&once, &patch, deployment()).unwrap(), &once);
    }
}
