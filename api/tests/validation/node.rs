//! Nodes (upstream `core/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes, wholly};

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Node")
}

fn base() -> Value {
    json!({
        "metadata": {"name": "abc", "labels": {"a": "b"}},
        "status": {"addresses": [{"type": "ExternalIP", "address": "something"}], "capacity": {"cpu": "10", "memory": "0"}},
    })
}

fn nodes(cases: &[(Value, &str)]) {
    wholly(&kind(), &base(), cases);
}

const AVOID: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";

fn avoiding(controller: Option<bool>) -> Value {
    let mut entry = json!({"reason": "some reason", "message": "some message"});
    if let Some(controller) = controller {
        entry["podSignature"] = json!({"podController": {
            "apiVersion": "v1", "kind": "ReplicationController", "name": "foo", "uid": "abcdef123456", "controller": controller}});
    }
    let entries = json!({"preferAvoidPods": [entry]}).to_string();
    json!({"metadata": {"annotations": {AVOID: entries}}})
}

#[test]
fn metadata_and_resources() {
    let capacity = |capacity: Value| json!({"status": {"capacity": capacity}});
    nodes(&[
        (json!({}), ""),
        (
            capacity(
                json!({"cpu": "10", "memory": "10G", "my.org/gpu": "10", "hugepages-2Mi": "10Gi", "hugepages-1Gi": "0"}),
            ),
            "",
        ),
        (capacity(json!({"hugepages-2Mi": "10Gi", "hugepages-1Gi": "10Gi"})), ""),
        (
            capacity(json!({"example.com/a": "500m"})),
            "status.capacity.example.com/a: Invalid value: \"500m\": must be an integer",
        ),
        (
            capacity(json!({"cpu": "-1"})),
            "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (json!({"metadata": {"name": ""}}), "metadata.name: Required value"),
        (
            json!({"metadata": {"name": "No"}}),
            "metadata.name: a lowercase RFC 1123 subdomain must consist of",
        ),
        (
            json!({"metadata": {"labels": {"NoUppercaseOrSpecialCharsLike=Equals": "b"}}}),
            "metadata.labels: Invalid value: \"NoUppercaseOrSpecialCharsLike=Equals\"",
        ),
        (avoiding(Some(true)), ""),
        (avoiding(None), &format!("metadata.annotations.{AVOID}[0].PodSignature: Required value")),
        (
            avoiding(Some(false)),
            &format!(
                "metadata.annotations.{AVOID}[0].PodSignature.PodController.Controller: Invalid value: false: must point to a controller"
            ),
        ),
    ]);
}

#[test]
fn taints() {
    // As upstream, which says the taints were among the metadata.
    let place = |taints: &Value| json!({"spec": {"taints": taints}});
    let taint =
        |key: &str, value: &str, effect: &str| json!([{"key": key, "value": value, "effect": effect}]);
    below(
        &kind(),
        &base(),
        "metadata.taints",
        place,
        &[
            (taint("GPU", "true", "NoSchedule"), ""),
            (taint("GPU", "true", "NoExecute"), ""),
            (
                taint("", "special-user-1", "NoSchedule"),
                "[0].key: name part must be non-empty | [0].key: name part must consist of",
            ),
            (
                taint("NoUppercaseOrSpecialCharsLike=Equals", "special-user-1", "NoSchedule"),
                "[0].key: name part must consist of",
            ),
            (
                taint("dedicated", "some\\bad\\value", "NoSchedule"),
                "[0].value: a valid label must be an empty string",
            ),
            (taint("dedicated", "special-user-3", ""), "[0].effect: Required value"),
            (
                taint("dedicated", "special-user-3", "NoScheduleNoAdmit"),
                "[0].effect: Unsupported value: \"NoScheduleNoAdmit\"",
            ),
            (
                json!([
                    {"key": "dedicated", "value": "special-user-1", "effect": "NoSchedule"},
                    {"key": "dedicated", "value": "special-user-2", "effect": "NoSchedule"},
                ]),
                "[1]: Duplicate value: {\"Key\":\"dedicated\",\"Value\":\"special-user-2\",\"Effect\":\"NoSchedule\",\"TimeAdded\":null}: taints must be unique by key and effect pair",
            ),
        ],
    );
}

#[test]
fn ranges_of_pods() {
    let place = |cidrs: &Value| json!({"spec": {"podCIDRs": cidrs}});
    let family = ": may specify no more than one CIDR for each IP family";
    below(
        &kind(),
        &base(),
        "spec.podCIDRs",
        place,
        &[
            (Value::Null, ""),
            (json!([]), ""),
            (json!(["192.168.0.0/16"]), ""),
            (json!(["2000::/10"]), ""),
            (json!(["2000::/10", "192.168.0.0/16"]), ""),
            (json!(["192.168.0.0/16", "2000::/10"]), ""),
            (json!(["192.168.0.0"]), "[0]: must be a valid CIDR value"),
            (json!(["192.168.000.000/16"]), "[0]: must not have leading 0s"),
            (json!(["this-is-not-a-valid-cidr"]), "[0]: must be a valid CIDR value"),
            (json!(["10.0.0.0/16", "10.0.0.0/16"]), family),
            (json!(["2000::/10", "2000::/10"]), family),
            (json!(["2000::/10", "3000::/10"]), family),
            (json!(["10.0.0.0/16", "10.1.0.0/16"]), family),
            (json!(["2000::/10", "10.0.0.0/16", "3000::/10"]), family),
            (json!(["10.0.0.0/16", "3000::/10", "10.1.0.0/16"]), family),
        ],
    );
}

#[test]
fn swap_and_features() {
    let swap = |swap: Value| json!({"status": {"nodeInfo": {"swap": swap}}});
    let positive = "metadata.nodeSwapStatus.capacity: must be greater than zero";
    let features = |names: Value| json!({"status": {"declaredFeatures": names}});
    let at = "status.declaredFeatures";
    let long = format!("F{}", "e".repeat(253));
    let cases = [
        (features(json!([])), String::new()),
        (features(json!(["AnotherFeature", "MyFeature", "MyFeature/SubFeature"])), String::new()),
        (features(json!(["MyFeature", "MyFeature"])), format!("{at}[1]: Duplicate value: \"MyFeature\"")),
        (
            features(json!(["MyFeature", "AnotherFeature"])),
            format!("{at}[1]: list must be sorted alphabetically"),
        ),
        (
            features(json!(["AnotherFeature", "invalid", "MyFeature"])),
            format!(
                "{at}[1]: invalid feature name \"invalid\" | {at}[2]: list must be sorted alphabetically"
            ),
        ),
        (
            features(json!(["myFeature"])),
            format!("{at}[0]: invalid feature name \"myFeature\": must start with an UpperCamelCase segment"),
        ),
        (features(json!(["Feature-name"])), format!("{at}[0]: invalid feature name")),
        (features(json!(["FeatureA/"])), format!("{at}[0]: invalid feature name")),
        (features(json!([long])), format!("{at}[0]: must be no more than 253 characters")),
    ];
    nodes(&[
        (swap(Value::Null), ""),
        (swap(json!({})), ""),
        (swap(json!({"capacity": 123_456})), ""),
        (swap(json!({"capacity": 0})), positive),
        (swap(json!({"capacity": -123_456})), positive),
    ]);
    for (change, wrong) in cases {
        nodes(&[(change.clone(), &wrong)]);
        // As upstream, whose two checks of a changed node both look at the features.
        let twice = if wrong.is_empty() { String::new() } else { format!("{wrong} | {wrong}") };
        changes(&kind(), "", &base(), &[(json!({}), change, &twice)]);
    }
}

#[test]
fn updates() {
    let meta = |meta: Value| json!({"metadata": meta});
    let spec = |spec: Value| json!({"spec": spec});
    let status = |status: Value| json!({"status": status});
    let cidrs = |cidrs: Value| spec(json!({"podCIDRs": cidrs}));
    let address = |kind: &str, address: &str| json!({"type": kind, "address": address});
    let kept = "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid";
    let family = "spec.podCIDRs: may specify no more than one CIDR for each IP family";
    let fraction = |list: &str, amount: &str| {
        format!("status.{list}.example.com/a: Invalid value: \"{amount}\": must be an integer")
    };
    let twice = |wrong: String| format!("{wrong} | {wrong}");
    changes(
        &kind(),
        "",
        &base(),
        &[
            (json!({}), json!({}), ""),
            (
                meta(json!({"name": "foo"})),
                meta(json!({"name": "bar"})),
                "metadata.name: field is immutable | metadata.name: field is immutable",
            ),
            (meta(json!({"labels": {"foo": "bar"}})), meta(json!({"labels": {"foo": "baz"}})), ""),
            (json!({}), meta(json!({"labels": {"foo": "baz"}})), ""),
            (meta(json!({"labels": {"bar": "foo"}})), meta(json!({"labels": {"Foo": "baz"}})), ""),
            (cidrs(json!([])), cidrs(json!(["192.168.0.0/16"])), ""),
            (cidrs(json!(["192.123.0.0/16"])), cidrs(json!(["192.168.0.0/16"])), kept),
            (cidrs(json!(["192.168.0.0/16"])), cidrs(json!(["192.168.0.0/16"])), ""),
            (
                cidrs(json!(["192.168.0.0/16", "2000::/10"])),
                cidrs(json!(["192.168.0.0/16", "2000::/10"])),
                "",
            ),
            (cidrs(json!(["192.168.0.0/16"])), cidrs(json!(["192.168.0.0/16", "2000::/10"])), kept),
            (
                cidrs(json!(["192.168.0.0/16", "192.167.0.0/16", "2000::/10"])),
                cidrs(json!(["192.168.0.0/16", "2000::/10"])),
                kept,
            ),
            (
                cidrs(json!(["192.168.0.0/16", "2000::/10"])),
                cidrs(json!(["2000::/10", "192.168.0.0/16"])),
                &format!("{kept} | {kept}"),
            ),
            (cidrs(json!([])), cidrs(json!(["10.0.0.0/16", "10.1.0.0/16"])), family),
            (
                status(json!({"capacity": {"cpu": "10000", "memory": "100"}})),
                status(json!({"capacity": {"cpu": "100", "memory": "10000"}})),
                "",
            ),
            (
                status(json!({"addresses": [address("ExternalIP", "1.2.3.4")]})),
                status(json!({"addresses": null})),
                "",
            ),
            (json!({}), spec(json!({"unschedulable": true})), ""),
            (
                json!({}),
                status(
                    json!({"addresses": [address("ExternalIP", "1.1.1.1"), address("ExternalIP", "1.1.1.1")]}),
                ),
                "status.addresses[1]: Duplicate value: {\"Type\":\"ExternalIP\",\"Address\":\"1.1.1.1\"}",
            ),
            (
                json!({}),
                status(
                    json!({"addresses": [address("ExternalIP", "1.1.1.1"), address("InternalIP", "10.1.1.1")]}),
                ),
                "",
            ),
            (json!({}), avoiding(Some(true)), ""),
            (
                json!({}),
                avoiding(None),
                &twice(format!("metadata.annotations.{AVOID}[0].PodSignature: Required value")),
            ),
            (
                json!({}),
                avoiding(Some(false)),
                &twice(format!(
                    "metadata.annotations.{AVOID}[0].PodSignature.PodController.Controller: must point to a controller"
                )),
            ),
            (json!({}), status(json!({"capacity": {"example.com/a": "5", "example.com/b": "10"}})), ""),
            (
                json!({}),
                status(json!({"capacity": {"example.com/a": "500m"}})),
                &twice(fraction("capacity", "500m")),
            ),
            (
                json!({}),
                status(json!({"capacity": {"example.com/a": "5"}, "allocatable": {"example.com/a": "4.5"}})),
                &twice(fraction("allocatable", "4500m")),
            ),
            (json!({}), spec(json!({"providerID": "provider:///new"})), ""),
            (
                spec(json!({"providerID": "provider:///old"})),
                spec(json!({"providerID": "provider:///new"})),
                "spec.providerID: Forbidden: node updates may not change providerID except from \"\" to valid",
            ),
            (json!({}), spec(json!({"externalID": "x"})), "spec.externalID: Forbidden: may not be updated"),
        ],
    );
}
