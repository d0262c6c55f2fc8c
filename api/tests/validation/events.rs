//! Events of both groups (upstream `core/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{changes, wholly, with};

fn core() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Event")
}

fn new() -> GroupVersionKind {
    GroupVersionKind::new("events.k8s.io", "v1", "Event")
}

#[test]
fn core_events() {
    let of = |namespace: &str, version: &str, kind: &str, involved: &str| {
        json!({
            "metadata": {"namespace": namespace},
            "involvedObject": {"apiVersion": version, "kind": kind, "namespace": involved},
        })
    };
    let mismatch = |namespace: &str| {
        format!("involvedObject.namespace: Invalid value: \"{namespace}\": does not match event.namespace")
    };
    let (bar, foo, none) = (mismatch("bar"), mismatch("foo"), mismatch(""));
    let bare =
        format!("{bar} | namespace: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of");
    let cases = [
        (of("foo", "", "Pod", "bar"), bar.as_str()),
        (
            of("aoeu-_-aoeu", "", "Pod", "aoeu-_-aoeu"),
            "namespace: Invalid value: \"aoeu-_-aoeu\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (of("default", "v1", "Node", ""), ""),
        (of("default", "v1", "Namespace", ""), ""),
        (of("default", "apps/v1", "NoKind", "default"), ""),
        (of("default", "batch/v1", "Job", "foo"), &foo),
        (of("default", "batch/v1", "Job", "default"), ""),
        (of("default", "other/v1beta1", "Job", "foo"), &foo),
        (of("foo", "other/v1beta1", "Job", "foo"), ""),
        (of("default", "batch", "Job", "foo"), &foo),
        (of("foo", "batch/v1", "Job", "foo"), ""),
        (of("foo", "other/v1beta1", "FooBar", "bar"), &bar),
        (of("", "other/v1beta1", "FooBar", "bar"), &bare),
        (of("foo", "other/v1beta1", "FooBar", ""), &none),
    ];
    let base = json!({"metadata": {"name": "test", "namespace": "default"}, "involvedObject": {}});
    wholly(&core(), &base, &cases);
    // Names and namespaces of changed objects are looked at for all kinds alike.
    let named =
        |namespace: &Value| namespace.as_str().is_some_and(|name| !name.is_empty() && !name.contains('_'));
    let updates: Vec<(Value, Value, &str)> = cases
        .iter()
        .filter(|(event, _)| named(&event["metadata"]["namespace"]))
        .map(|(event, wrong)| {
            (json!({"metadata": {"namespace": event["metadata"]["namespace"]}}), event.clone(), *wrong)
        })
        .collect();
    changes(&core(), "", &base, &updates);
}

/// An event of the core group that has the time that new events have.
fn timed() -> Value {
    json!({
        "metadata": {"name": "test", "namespace": "kube-system"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node"}, "eventTime": "2017-09-19T13:49:16.000000Z",
        "reportingComponent": "k8s.io/my-controller", "reportingInstance": "node-xyz", "action": "Do",
        "reason": "Because",
    })
}

#[test]
fn timed_events() {
    let (long, longer) = ("z".repeat(129), "z".repeat(1025));
    let cases = [
        (json!({}), ""),
        (
            json!({"reportingComponent": null, "reportingInstance": null, "action": null, "reason": null}),
            "reportingComponent: Required value | reportingComponent: Invalid value: \"\": name part must be non-empty | reportingComponent: Invalid value: \"\": name part must consist of | reportingInstance: Required value | action: Required value | reason: Required value",
        ),
        (
            json!({"reportingComponent": "my-contr@ller"}),
            "reportingComponent: Invalid value: \"my-contr@ller\": name part must consist of",
        ),
        (
            json!({"reportingInstance": long}),
            "reportingInstance: Invalid value: \"\": can have at most 128 characters",
        ),
        (json!({"action": long}), "action: Invalid value: \"\": can have at most 128 characters"),
        (json!({"reason": long}), "reason: Invalid value: \"\": can have at most 128 characters"),
        (json!({"reason": null}), "reason: Required value"),
        (json!({"action": null}), "action: Required value"),
        (json!({"message": longer}), "message: Invalid value: \"\": can have at most 1024 characters"),
        (
            json!({"metadata": {"namespace": "other"}}),
            "involvedObject.namespace: Invalid value: \"\": does not match event.namespace",
        ),
    ];
    wholly(&core(), &timed(), &cases);
}

/// An event of `events.k8s.io`.
fn regarding() -> Value {
    json!({
        "metadata": {"name": "test", "namespace": "kube-system"}, "regarding": {"apiVersion": "v1", "kind": "Node"},
        "eventTime": "2017-09-19T13:49:16.000000Z", "reportingController": "k8s.io/my-controller",
        "reportingInstance": "node-xyz", "action": "Do", "reason": "Because", "type": "Normal",
    })
}

#[test]
fn new_events() {
    let unset = |field: &str| format!("{field}: Invalid value: \"\": needs to be unset");
    let (first, last, count, source) =
        (unset("firstTimestamp"), unset("lastTimestamp"), unset("count"), unset("source"));
    let time = "2017-09-19T13:49:16Z";
    let micros = "2017-09-19T13:49:16.000000Z";
    let (long, longer) = ("z".repeat(129), "z".repeat(1025));
    let cases = [
        (json!({}), ""),
        (
            json!({"metadata": {"name": null}}),
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            json!({"metadata": {"namespace": null}}),
            "involvedObject.namespace: Invalid value: \"\": does not match event.namespace | namespace: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist of | metadata.namespace: Required value",
        ),
        (
            json!({"eventTime": null}),
            "involvedObject.namespace: Invalid value: \"\": does not match event.namespace | eventTime: Required value",
        ),
        (json!({"metadata": {"namespace": "default"}, "eventTime": null}), "eventTime: Required value"),
        (
            json!({"reportingController": "my-contr@ller"}),
            "reportingController: Invalid value: \"my-contr@ller\": name part must consist of",
        ),
        (
            json!({"reportingInstance": long}),
            "reportingInstance: Invalid value: \"\": can have at most 128 characters",
        ),
        (json!({"reason": null}), "reason: Required value"),
        (json!({"action": null}), "action: Required value"),
        (json!({"note": longer}), "message: Invalid value: \"\": can have at most 1024 characters"),
        (json!({"type": "invalid-type"}), "type: Invalid value: \"\": has invalid value: invalid-type"),
        (json!({"deprecatedFirstTimestamp": time}), &first),
        (json!({"deprecatedLastTimestamp": time}), &last),
        (json!({"deprecatedCount": 123}), &count),
        (json!({"deprecatedSource": {"host": "host"}}), &source),
        (
            json!({"series": {"count": 0, "lastObservedTime": micros}}),
            "series.count: Invalid value: \"\": should be at least 2",
        ),
        (json!({"series": {"count": 2, "lastObservedTime": micros}}), ""),
    ];
    wholly(&new(), &regarding(), &cases);
}

#[test]
fn changed_new_events() {
    let series =
        |count: i32| json!({"series": {"count": count, "lastObservedTime": "2017-09-19T13:49:16.000000Z"}});
    let at = |time: &str| json!({"eventTime": time});
    let fixed = |field: &str| format!("{field}: field is immutable");
    let mut cases: Vec<(Value, Value, String)> = vec![
        (series(1), series(2), String::new()),
        (series(2), series(1), "series.count: Invalid value: \"\": should be at least 2".to_owned()),
        (json!({}), json!({"reason": "New"}), "reason: Invalid value: \"New\": field is immutable | reason: Invalid value: \"New\": field is immutable".to_owned()),
        (at("2017-09-19T13:49:16.000001Z"), at("2017-09-19T13:49:16.000001Z"), String::new()),
        (at("2017-09-19T13:49:16.000001Z"), at("2017-09-19T13:49:16.000002Z"), fixed("eventTime")),
        (at("2017-09-19T13:49:16.000000Z"), at("2017-09-19T13:49:17.000000Z"), fixed("eventTime")),
    ];
    let time = "2017-09-19T13:49:16Z";
    for (before, after, field) in [
        (json!({}), json!({"regarding": {"apiVersion": "v2"}}), "involvedObject"),
        (json!({"note": "message"}), json!({"note": "new-message"}), "message"),
        (json!({"deprecatedSource": {"host": "host"}}), json!({}), "source"),
        (json!({"deprecatedFirstTimestamp": time}), json!({}), "firstTimestamp"),
        (json!({"deprecatedLastTimestamp": time}), json!({}), "lastTimestamp"),
        (json!({"deprecatedCount": 2}), json!({}), "count"),
        (json!({}), json!({"type": "Warning"}), "type"),
        (json!({}), json!({"action": "Undo"}), "action"),
        (json!({}), json!({"related": {"apiVersion": "v1"}}), "related"),
        (json!({}), json!({"reportingController": "k8s.io/my-controller-new"}), "reportingController"),
        (json!({}), json!({"reportingInstance": "node-xyz-new"}), "reportingInstance"),
    ] {
        cases.push((before, after, fixed(field)));
    }
    let cases: Vec<(Value, Value, &str)> =
        cases.iter().map(|(before, after, wrong)| (before.clone(), after.clone(), wrong.as_str())).collect();
    changes(&new(), "", &regarding(), &cases);
    let unqualified = with(&regarding(), &json!({"reportingController": "k8s.io/my-controller"}));
    changes(
        &new(),
        "",
        &unqualified,
        &[(
            json!({}),
            json!({"reportingController": "k8s.io/my-controller/new"}),
            "reportingController: Invalid value: \"k8s.io/my-controller/new\": a valid label key must consist of | reportingController: Invalid value: \"k8s.io/my-controller/new\": field is immutable",
        )],
    );
}
