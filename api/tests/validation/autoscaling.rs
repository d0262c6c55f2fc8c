//! Horizontal pod autoscalers (upstream `autoscaling/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::creates;

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("autoscaling", "v2", "HorizontalPodAutoscaler")
}

fn cpu(target: Value) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
}

fn base() -> Value {
    json!({
        "metadata": {"name": "myautoscaler", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": "mydeployment", "apiVersion": "apps/v1"},
            "minReplicas": 1, "maxReplicas": 5,
            "metrics": cpu(json!({"type": "Utilization", "averageUtilization": 70})),
        },
    })
}

#[test]
fn rules_of_scaling() {
    let pods = |value: i32, period: i32| json!({"type": "Pods", "value": value, "periodSeconds": period});
    let rules = |rules: Value| move |side: &str| json!({"spec": {"behavior": {side: rules}}});
    let good = json!([pods(3, 4), {"type": "Percent", "value": 7, "periodSeconds": 8}]);
    let cases = [
        (json!({"policies": good, "selectPolicy": "Max", "stabilizationWindowSeconds": 300}), ""),
        (json!({"selectPolicy": "Max"}), "policies: Required value: must specify at least one Policy"),
        (
            json!({"policies": [], "selectPolicy": "Max"}),
            "policies: Required value: must specify at least one Policy",
        ),
        (
            json!({"policies": good, "stabilizationWindowSeconds": 3601}),
            "stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
        ),
        (
            json!({"policies": [pods(7, 1801)]}),
            "policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ),
        (
            json!({"policies": good, "selectPolicy": "incorrect"}),
            "selectPolicy: Unsupported value: \"incorrect\": supported values: \"Disabled\", \"Max\", \"Min\"",
        ),
        (
            json!({"policies": [{"type": "hm", "value": 7, "periodSeconds": 8}]}),
            "policies[0].type: Unsupported value: \"hm\": supported values: \"Percent\", \"Pods\"",
        ),
        (
            json!({"policies": [pods(8, 0)]}),
            "policies[0].periodSeconds: Invalid value: 0: must be greater than zero",
        ),
        (json!({"policies": [pods(0, 8)]}), "policies[0].value: Invalid value: 0: must be greater than zero"),
        (
            json!({"policies": [pods(1, -1)]}),
            "policies[0].periodSeconds: Invalid value: -1: must be greater than zero",
        ),
        (
            json!({"policies": [pods(-1, 1)]}),
            "policies[0].value: Invalid value: -1: must be greater than zero",
        ),
    ];
    for side in ["scaleUp", "scaleDown"] {
        for (given, wrong) in &cases {
            let expected =
                if wrong.is_empty() { String::new() } else { format!("spec.behavior.{side}.{wrong}") };
            creates(&kind(), &base(), &[(rules(given.clone())(side), &expected)]);
        }
    }
}

#[test]
fn targets_and_bounds() {
    let target = |target: Value| json!({"spec": {"scaleTargetRef": target}});
    let spec = |spec: Value| json!({"spec": spec});
    creates(
        &kind(),
        &base(),
        &[
            (json!({}), ""),
            (target(json!({"kind": ""})), "spec.scaleTargetRef.kind: Required"),
            (target(json!({"kind": ".."})), "spec.scaleTargetRef.kind: Invalid"),
            (target(json!({"name": ""})), "spec.scaleTargetRef.name: Required"),
            (target(json!({"name": ".."})), "spec.scaleTargetRef.name: Invalid"),
            (
                target(json!({"apiVersion": ""})),
                "spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group",
            ),
            (
                target(json!({"apiVersion": "apps/v1/v3"})),
                "spec.scaleTargetRef.apiVersion: Invalid value: \"apps/v1/v3\": unexpected GroupVersion string: apps/v1/v3",
            ),
            (target(json!({"kind": "ReplicationController", "apiVersion": "v1"})), ""),
            (spec(json!({"minReplicas": -1})), "spec.minReplicas: must be greater than or equal to 1"),
            (spec(json!({"maxReplicas": 0})), "spec.maxReplicas: must be set and greater than 0"),
            (
                spec(json!({"minReplicas": 7})),
                "spec.maxReplicas: must be greater than or equal to `minReplicas`",
            ),
        ],
    );
}

#[test]
fn metrics() {
    let all = |metrics: Value| json!({"spec": {"metrics": metrics}});
    let one = |key: &str, kind: &str, source: Value| all(json!([{"type": kind, key: source}]));
    let container = |name: &str, of: &str| {
        let target = json!({"type": "Utilization", "averageUtilization": 70});
        one(
            "containerResource",
            "ContainerResource",
            json!({"name": name, "container": of, "target": target}),
        )
    };
    let pods =
        |name: &str, target: Value| one("pods", "Pods", json!({"metric": {"name": name}, "target": target}));
    let object = |object: Value, name: &str, target: Value| {
        one(
            "object",
            "Object",
            json!({"describedObject": object, "metric": {"name": name}, "target": target}),
        )
    };
    let service = json!({"kind": "Service", "name": "s"});
    let value = json!({"type": "Value", "value": "1"});
    let average = json!({"type": "AverageValue", "averageValue": "1"});
    let external = |name: &str, target: Value| {
        one("external", "External", json!({"metric": {"name": name}, "target": target}))
    };
    let at = "spec.metrics[0]";
    creates(
        &kind(),
        &base(),
        &[
            (container("cpu", "c"), ""),
            (pods("qps", average.clone()), ""),
            (object(service.clone(), "qps", value.clone()), ""),
            (external("qps", average.clone()), ""),
            (
                all(cpu(json!({"type": "Utilization", "averageUtilization": 70, "averageValue": "300m"}))),
                &format!(
                    "{at}.resource.target.averageValue: may not set both a target raw value and a target utilization"
                ),
            ),
            (
                all(cpu(json!({"type": "Utilization", "averageUtilization": -10}))),
                &format!("{at}.resource.target.averageUtilization: must be greater than 0"),
            ),
            (
                all(cpu(json!({"type": "Value"}))),
                &format!(
                    "{at}.resource.target.averageUtilization: must set either a target raw value or a target utilization"
                ),
            ),
            (
                one(
                    "resource",
                    "Resource",
                    json!({"name": "", "target": {"type": "Utilization", "averageUtilization": 7}}),
                ),
                &format!("{at}.resource.name: must specify a resource name"),
            ),
            (container("", "c"), &format!("{at}.containerResource.name: must specify a resource name")),
            (
                container("InvalidResource", "c"),
                &format!(
                    "{at}.containerResource.name: Invalid value: \"InvalidResource\": must be a standard resource type or fully qualified"
                ),
            ),
            (container("cpu", ""), &format!("{at}.containerResource.container: must specify a container")),
            (
                container("cpu", "---***"),
                &format!("{at}.containerResource.container: Invalid value: \"---***\""),
            ),
            (pods("", average.clone()), &format!("{at}.pods.metric.name: must specify a metric name")),
            (
                pods("qps", json!({"type": "Value"})),
                &format!("{at}.pods.target.averageValue: must specify a positive target averageValue"),
            ),
            (
                object(service.clone(), "qps", json!({"type": "Value"})),
                &format!("{at}.object.target.averageValue: must set either a target value or averageValue"),
            ),
            (
                object(json!({"name": "s"}), "qps", value.clone()),
                &format!("{at}.object.describedObject.kind: Required"),
            ),
            (object(service, "", value), &format!("{at}.object.metric.name: must specify a metric name")),
            (external("", average), &format!("{at}.external.metric.name: must specify a metric name")),
            (
                external("a/b", json!({"type": "Value", "value": "1"})),
                &format!("{at}.external.metric.name: Invalid value: \"a/b\": may not contain '/'"),
            ),
            (
                external("qps", json!({"type": "Value"})),
                &format!(
                    "{at}.external.target.averageValue: must set either a target value for metric or a per-pod target"
                ),
            ),
            (
                external("qps", json!({"type": "Value", "value": "1", "averageValue": "1"})),
                &format!(
                    "{at}.external.target.value: may not set both a target value for metric and a per-pod target"
                ),
            ),
            (
                all(json!([{"type": ""}])),
                &format!("{at}.type: Required value: must specify a metric source type"),
            ),
            (all(json!([{"type": "Odd"}])), &format!("{at}.type: Unsupported value: \"Odd\"")),
            (
                all(json!([{"type": "Pods"}])),
                &format!("{at}.pods: Required value: must populate information for the given metric source"),
            ),
        ],
    );
}
