//! How many replicas each kind of metric asks for, and which of them wins: upstream's cases.

use super::super::calculate::{Metric, Starting, Tolerances};
use super::*;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use std::sync::Arc;

fn pods() -> Vec<Arc<Pod>> {
    let pod = |name: &str| -> Arc<Pod> {
        let requests = json!({ "requests": { "cpu": "1", "memory": "1Gi" } });
        Arc::new(
            serde_json::from_value(json!({
                "metadata": { "name": name },
                "spec": { "containers": [{ "name": "c", "resources": requests }] },
                "status": { "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
                            "conditions": [{ "type": "Ready", "status": "True" }] },
            }))
            .unwrap(),
        )
    };
    vec![pod("a"), pod("b")]
}

fn ask(metric: Value, observed: Result<Observed, String>) -> Result<Answer, Failure> {
    let pods = pods();
    let minute = SignedDuration::from_mins(1);
    let calculator = Calculator {
        pods: &pods,
        tolerances: Tolerances { down: 0.1, up: 0.1 },
        starting: Starting { cpu: minute, readiness: minute },
        now: Timestamp::from_second(2_000_000_000).unwrap(),
    };
    let metric: MetricSpec = serde_json::from_value(metric).unwrap();
    answer(&metric, "ns", observed, Replicas { spec: 2, status: 2 }, &calculator)
}

fn each(value: i64) -> Result<Observed, String> {
    let metric = |name: &str| {
        (name.to_owned(), Metric { value, at: Timestamp::MAX, window: SignedDuration::from_mins(1) })
    };
    Ok(Observed::Pods([metric("a"), metric("b")].into()))
}

/// A metric, what was observed, and what comes of it: replicas, name, status.
type Source = (Value, Result<Observed, String>, i32, &'static str, Value);

fn sources() -> [Source; 8] {
    let utilization = json!({ "type": "Utilization", "averageUtilization": 50 });
    let average = |value: &str| json!({ "type": "AverageValue", "averageValue": value });
    let value = |value: &str| json!({ "type": "Value", "value": value });
    let about = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" });
    let qps = json!({ "name": "qps" });
    [
        (
            json!({ "type": "Resource", "resource": { "name": "cpu", "target": utilization } }),
            each(1000),
            4,
            "cpu resource utilization (percentage of request)",
            json!({ "resource": { "name": "cpu",
                                  "current": { "averageUtilization": 100, "averageValue": "1" } } }),
        ),
        (
            json!({ "type": "Resource", "resource": { "name": "memory", "target": average("1Mi") } }),
            each(2 * 1024 * 1024 * 1000),
            4,
            "memory resource",
            json!({ "resource": { "name": "memory", "current": { "averageValue": "2Mi" } } }),
        ),
        (
            json!({ "type": "ContainerResource",
                    "containerResource": { "name": "cpu", "container": "c", "target": utilization } }),
            each(500),
            2,
            "cpu container resource utilization (percentage of request)",
            json!({ "containerResource": { "name": "cpu", "container": "c",
                                           "current": { "averageUtilization": 50, "averageValue": "500m" } } }),
        ),
        (
            json!({ "type": "Pods", "pods": { "metric": qps, "target": average("10") } }),
            each(30_000),
            6,
            "pods metric qps",
            json!({ "pods": { "metric": qps, "current": { "averageValue": "30" } } }),
        ),
        (
            json!({ "type": "Object", "object": { "describedObject": about, "metric": qps, "target": value("10") } }),
            Ok(Observed::Total(20_000)),
            4,
            "Deployment metric qps",
            json!({ "object": { "describedObject": about, "metric": qps, "current": { "value": "20" } } }),
        ),
        (
            json!({ "type": "Object",
                    "object": { "describedObject": about, "metric": qps, "target": average("10") } }),
            Ok(Observed::Total(30_000)),
            3,
            "external metric qps(nil)",
            json!({ "object": { "describedObject": about, "metric": qps, "current": { "averageValue": "15" } } }),
        ),
        (
            json!({ "type": "External", "external": { "metric": qps, "target": value("10") } }),
            Ok(Observed::Total(30_000)),
            6,
            "external metric qps(nil)",
            json!({ "external": { "metric": qps, "current": { "value": "30" } } }),
        ),
        (
            json!({ "type": "External", "external": { "metric": qps, "target": average("10") } }),
            Ok(Observed::Total(50_000)),
            5,
            "external metric qps(nil)",
            json!({ "external": { "metric": qps, "current": { "averageValue": "25" } } }),
        ),
    ]
}

#[test]
fn each_source_has_its_answer_and_its_place_in_the_status() {
    for (metric, observed, replicas, name, status) in sources() {
        let mut expected = status;
        expected["type"] = metric["type"].clone();
        let answer = ask(metric, observed).unwrap();
        assert_eq!((answer.replicas, answer.name.as_str()), (replicas, name));
        assert_eq!(serde_json::to_value(&answer.status).unwrap(), expected);
    }
}

#[test]
fn failures_say_which_metric_it_was() {
    let failures: Vec<_> = sources()
        .into_iter()
        .map(|(metric, ..)| ask(metric, Err("no".to_owned())).unwrap_err())
        .map(|failure| format!("{}: {}", failure.reason, failure.full))
        .collect();
    assert_eq!(
        failures,
        [
            "FailedGetResourceMetric: failed to get cpu resource metric value: failed to get cpu utilization: unable \
             to get metrics for resource cpu: no",
            "FailedGetResourceMetric: failed to get memory resource metric value: failed to get memory usage: unable \
             to get metrics for resource memory: no",
            "FailedGetContainerResourceMetric: failed to get c container metric value: failed to get cpu \
             utilization: unable to get metrics for resource cpu: no",
            "FailedGetPodsMetric: failed to get pods metric value: unable to get metric qps: no",
            "FailedGetObjectMetric: failed to get object metric value: unable to get metric qps: Deployment on ns \
             web/no",
            "FailedGetObjectMetric: failed to get object metric value: failed to get qps object metric: unable to \
             get metric qps: Deployment on ns web/no",
            "FailedGetExternalMetric: failed to get qps external metric value: failed to get external metric qps: \
             unable to get external metric ns/qps/nil: no",
            "FailedGetExternalMetric: failed to get qps external metric value: failed to get qps external metric: \
             unable to get external metric ns/qps/nil: no",
        ]
    );
    let unknown = ask(json!({ "type": "Cheese" }), Err(String::new())).unwrap_err();
    assert_eq!(unknown.message, "unknown metric source type \"Cheese\"");
}

#[test]
fn selectors_are_shown_as_go_shows_them() {
    let selector: LabelSelector = serde_json::from_value(json!({
        "matchLabels": { "a": "b" },
        "matchExpressions": [{ "key": "k", "operator": "In", "values": ["x", "y"] }],
    }))
    .unwrap();
    assert_eq!(
        shown(Some(&selector)),
        "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{\
         LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}"
    );
}
