//! Entries, limits and scales: the tables of upstream's `managedfields/internal` and `scalehandler_test.go`, and what
//! updates record.

use serde_json::{Value, json};

use super::scale::{Mappings, ScaleHandler};
use super::*;
use crate::structured::{Path, Versioned};

fn kind(name: &'static str) -> GroupVersionKind {
    GroupVersionKind::new("", "v1", name)
}

fn update(kind: &GroupVersionKind, live: Option<&Value>, new: &mut Value, manager: &str, now: &str) {
    let versions = BuiltIn::new(kind.clone(), None);
    FieldManager { versions: &versions, kind, subresource: "", now }.update(live, new, manager);
}

fn owned(object: &Value) -> Vec<(String, Value)> {
    let list = object["metadata"]["managedFields"].as_array();
    let entry =
        |entry: &Value| (entry["manager"].as_str().expect("a manager").to_owned(), entry["fieldsV1"].clone());
    list.into_iter().flatten().map(entry).collect()
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "uid": "u"}, "data": data})
}

#[test]
fn fields_belong_to_who_changed_them_last() {
    let kind = kind("ConfigMap");
    let mut first = config_map(json!({"k": "1", "l": "1"}));
    update(&kind, None, &mut first, "maker", "2026-01-01T00:00:00Z");
    assert_eq!(owned(&first), [("maker".to_owned(), json!({"f:data": {".": {}, "f:k": {}, "f:l": {}}}))]);
    let mut second = first.clone();
    second["data"]["k"] = "2".into();
    update(&kind, Some(&first), &mut second, "patcher", "2026-01-01T00:00:01Z");
    assert_eq!(
        owned(&second),
        [
            ("maker".to_owned(), json!({"f:data": {".": {}, "f:l": {}}})),
            ("patcher".to_owned(), json!({"f:data": {"f:k": {}}})),
        ]
    );
    let mut third = second.clone();
    third["data"] = json!({"k": "2"});
    update(&kind, Some(&second), &mut third, "remover", "2026-01-01T00:00:02Z");
    assert_eq!(owned(&third)[0], ("maker".to_owned(), json!({"f:data": {}})));
    assert_eq!(owned(&third).len(), 2);
}

#[test]
fn list_elements_are_told_apart_by_their_keys() {
    let kind = kind("Pod");
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [
        {"name": "c", "image": "i", "args": ["a", "b"], "ports": [{"containerPort": 80}], "resources": {}},
    ]}});
    update(&kind, None, &mut pod, "m", "2026-01-01T00:00:00Z");
    let port = r#"k:{"containerPort":80,"protocol":"TCP"}"#;
    let container = json!({".": {}, "f:name": {}, "f:image": {}, "f:args": {}, "f:resources": {},
        "f:ports": {".": {}, port: {".": {}, "f:containerPort": {}}}});
    let containers = json!({"k:{\"name\":\"c\"}": container});
    assert_eq!(owned(&pod)[0].1["f:spec"]["f:containers"], containers);
}

#[test]
fn many_updaters_become_ancient() {
    let kind = kind("ConfigMap");
    let mut object = config_map(json!({"k0": "v"}));
    update(&kind, None, &mut object, "m0", "2026-01-01T00:00:00Z");
    for i in 1..15 {
        let old = object.clone();
        object["data"][format!("k{i}")] = "v".into();
        update(&kind, Some(&old), &mut object, &format!("m{i}"), &format!("2026-01-01T00:00:{i:02}Z"));
    }
    let all = owned(&object);
    assert_eq!(all.len(), 10);
    assert_eq!(all[0].0, "ancient-changes");
    assert_eq!(object["metadata"]["managedFields"][0]["time"], "2026-01-01T00:00:05Z");
}

#[test]
fn what_conversion_adds_is_the_writers() {
    let kind = GroupVersionKind::new("apps", "v1", "DaemonSet");
    let mut set =
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"}, "spec": {}});
    update(&kind, None, &mut set, "m", "2026-01-01T00:00:00Z");
    let generation = json!({".": {}, "f:deprecated.daemonset.template.generation": {}});
    assert_eq!(owned(&set)[0].1["f:metadata"], json!({"f:annotations": generation}));
    assert_eq!(set["metadata"]["annotations"], Value::Null);

    let kind = GroupVersionKind::new("autoscaling", "v1", "HorizontalPodAutoscaler");
    let target = json!({"kind": "Deployment", "name": "d"});
    let spec = json!({"maxReplicas": 3, "scaleTargetRef": target});
    let mut hpa = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "spec": spec,
        "metadata": {"name": "h"}, "status": {"currentReplicas": 0, "desiredReplicas": 0}});
    update(&kind, None, &mut hpa, "m", "2026-01-01T00:00:00Z");
    assert_eq!(owned(&hpa)[0].1["f:spec"]["f:targetCPUUtilizationPercentage"], json!({}));
}

/// Managers `(name, version, hour, fields)`.
type Row<'a> = (&'a str, &'a str, u32, &'a str);

fn managed(rows: &[Row<'_>]) -> Managed {
    let mut out = Managed::default();
    for (manager, version, hour, fields) in rows {
        let id = ManagerId {
            manager: (*manager).to_owned(),
            operation: Operation::Update,
            api_version: (*version).to_owned(),
            subresource: String::new(),
        };
        let mut set = Set::default();
        fields.chars().for_each(|field| set.insert(&Path::of_fields(&[&field.to_string()]).0));
        out.times.insert(id.clone(), format!("2026-01-01T{hour:02}:00:00Z"));
        out.fields.insert(id, Versioned { set, version: (*version).to_owned(), applied: false });
    }
    out
}

// Upstream's TestCapUpdateManagers.
#[test]
fn the_oldest_updaters_are_merged_by_version() {
    let cases: [(&str, &[Row<'_>], &[Row<'_>]); 6] = [
        (
            "one version, no ancient changes",
            &[("u1", "v1", 1, "a"), ("u2", "v1", 2, "b"), ("u3", "v1", 3, "c"), ("u4", "v1", 4, "d")],
            &[("ancient-changes", "v1", 2, "ab"), ("u3", "v1", 3, "c"), ("u4", "v1", 4, "d")],
        ),
        (
            "one version, one ancient changes",
            &[
                ("ancient-changes", "v1", 2, "ab"),
                ("u3", "v1", 3, "c"),
                ("u4", "v1", 4, "d"),
                ("u5", "v1", 5, "e"),
            ],
            &[("ancient-changes", "v1", 3, "abc"), ("u4", "v1", 4, "d"), ("u5", "v1", 5, "e")],
        ),
        (
            "two versions, no ancient changes",
            &[
                ("u1", "v1", 1, "a"),
                ("u2", "v2", 2, "b"),
                ("u3", "v1", 3, "c"),
                ("u4", "v1", 4, "d"),
                ("u5", "v1", 5, "e"),
            ],
            &[("u2", "v2", 2, "b"), ("ancient-changes", "v1", 4, "acd"), ("u5", "v1", 5, "e")],
        ),
        (
            "three versions, one ancient changes",
            &[
                ("u2", "v2", 2, "b"),
                ("ancient-changes", "v1", 4, "acd"),
                ("u5", "v1", 5, "e"),
                ("u6", "v3", 6, "f"),
                ("u7", "v2", 7, "g"),
            ],
            &[("ancient-changes", "v1", 5, "acde"), ("u6", "v3", 6, "f"), ("ancient-changes", "v2", 7, "bg")],
        ),
        (
            "three versions, two ancient changes",
            &[
                ("ancient-changes", "v1", 5, "acde"),
                ("u6", "v3", 6, "f"),
                ("ancient-changes", "v2", 7, "bg"),
                ("u8", "v3", 8, "h"),
            ],
            &[
                ("ancient-changes", "v1", 5, "acde"),
                ("ancient-changes", "v2", 7, "bg"),
                ("ancient-changes", "v3", 8, "fh"),
            ],
        ),
        (
            "four versions, two ancient changes",
            &[
                ("ancient-changes", "v1", 5, "acde"),
                ("u6", "v3", 6, "f"),
                ("ancient-changes", "v2", 7, "bg"),
                ("u8", "v4", 8, "h"),
            ],
            &[
                ("ancient-changes", "v1", 5, "acde"),
                ("u6", "v3", 6, "f"),
                ("ancient-changes", "v2", 7, "bg"),
                ("u8", "v4", 8, "h"),
            ],
        ),
    ];
    for (name, given, wanted) in cases {
        let mut found = managed(given);
        cap::cap_at(&mut found, 3);
        assert_eq!(found.encode(), managed(wanted).encode(), "{name}");
        cap::cap_at(&mut found, 3);
        assert_eq!(found.encode(), managed(wanted).encode(), "{name}, again");
    }
}

#[test]
fn a_client_may_forget_all_managers() {
    let kind = kind("ConfigMap");
    let mut object = config_map(json!({"k": "v"}));
    update(&kind, None, &mut object, "m", "2026-01-01T00:00:00Z");
    for reset in [json!([]), json!([{}])] {
        let mut new = object.clone();
        new["metadata"]["managedFields"] = reset;
        update(&kind, Some(&object), &mut new, "m", "2026-01-01T00:00:01Z");
        assert!(owned(&new).is_empty());
        // Nothing is tracked before somebody applies.
        let mut later = new.clone();
        later["data"]["k"] = "w".into();
        update(&kind, Some(&new), &mut later, "m", "2026-01-01T00:00:02Z");
        assert!(owned(&later).is_empty());
    }
}

#[test]
fn parts_do_not_rewrite_entries() {
    let kind = kind("Pod");
    let versions = BuiltIn::new(kind.clone(), None);
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "status": {},
        "metadata": {"name": "p", "labels": {"a": "b"}}});
    update(&kind, None, &mut pod, "m", "2026-01-01T00:00:00Z");
    pod["metadata"]["uid"] = "u".into();
    let mut new = pod.clone();
    new["metadata"]["managedFields"] = json!([{"manager": "x", "operation": "Apply", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {}}}]);
    new["status"] = json!({"phase": "Running"});
    let by_status =
        FieldManager { versions: &versions, kind: &kind, subresource: "status", now: "2026-01-01T00:00:01Z" };
    by_status.update(Some(&pod), &mut new, "kubelet");
    let entries = &new["metadata"]["managedFields"];
    assert_eq!(owned(&new).iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["m", "kubelet"]);
    assert_eq!(entries[1]["subresource"], "status");
    assert_eq!(entries[1]["fieldsV1"], json!({"f:status": {"f:phase": {}}}));
}

#[test]
fn malformed_entries_are_refused() {
    let entry = |changes: Value| {
        let mut entry = json!({"manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:a": {}}});
        for (name, value) in changes.as_object().expect("fields") {
            entry[name.as_str()] = value.clone();
        }
        Managed::decode(&[entry]).map(|_| ()).map_err(|why| why.to_string())
    };
    assert_eq!(entry(json!({})), Ok(()));
    for (changes, why) in [
        (json!({"operation": "Guess"}), "operation must be `Apply` or `Update`"),
        (json!({"operation": null}), "operation must be `Apply` or `Update`"),
        (json!({"apiVersion": ""}), "apiVersion must not be empty"),
        (json!({"fieldsType": null}), "missing fieldsType in managed fields entry 0"),
        (json!({"fieldsType": "FieldsV9"}), "invalid fieldsType \"FieldsV9\" in managed fields entry 0"),
        (json!({"fieldsV1": {"fa": {}}}), "error decoding set: malformed set of fields"),
    ] {
        assert_eq!(entry(changes), Err(why.to_owned()));
    }
}

// Upstream's TestSortEncodedManagedFields, in essence.
#[test]
fn entries_come_in_upstreams_order() {
    let row = |manager: &str, operation: &str, version: &str, time: &str, subresource: &str| {
        json!({"manager": manager, "operation": operation, "apiVersion": version, "time": time,
            "subresource": subresource, "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}})
    };
    let (early, late) = ("2001-01-01T01:00:00Z", "2002-01-01T01:00:00Z");
    let sorted = [
        row("a", "Apply", "v1", early, ""),
        row("c", "Apply", "v1", early, ""),
        row("b", "Apply", "v1", late, ""),
        row("z", "Update", "v1", "", ""),
        row("d", "Update", "v1", early, ""),
        row("d", "Update", "v1", early, "status"),
        row("d", "Update", "v2", early, ""),
        row("a", "Update", "v1", late, ""),
    ];
    let mut given = sorted.to_vec();
    given.reverse();
    let encoded = Managed::decode(&given).expect("well formed").encode();
    let brief = |entries: &[Value]| -> Vec<Value> {
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let names = ["manager", "operation", "apiVersion", "time", "subresource"];
        entries.iter().map(|entry| json!(names.map(|name| text(entry, name)))).collect()
    };
    assert_eq!(brief(&encoded), brief(&sorted));
}

// Upstream's TestTransformManagedFieldsToSubresource and TestTransformingManagedFieldsToParent.
#[test]
fn scales_and_workloads_share_the_owners_of_replicas() {
    let mut count = 0;
    for line in include_str!("cases/scale.jsonl").lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let path = |names: &Value| {
            let names: Vec<&str> = names.as_array()?.iter().filter_map(Value::as_str).collect();
            Some(Path::of_fields(&names))
        };
        let mappings: Mappings = match case["mappings"].as_object() {
            Some(map) => map.iter().map(|(version, names)| (version.clone(), path(names))).collect(),
            None => [("apps/v1".to_owned(), Some(Path::of_fields(&["spec", "replicas"])))].into(),
        };
        let workload = json!({"metadata": {"managedFields": case["parent"]}});
        let version = case["version"].as_str().unwrap_or("apps/v1");
        let handler = ScaleHandler::new(&workload, version, &mappings).expect("well formed");
        let found = match case["scale"].as_array() {
            Some(scale) => handler.to_parent(Managed::decode(scale).expect("well formed")),
            None => handler.to_subresource(),
        };
        assert_eq!(Value::Array(found.encode()), case["expected"], "{}", case["test"]);
        count += 1;
    }
    assert!(count > 15, "{count} cases");
}
