//! Between the served versions of what is stored once.
//!
//! Only autoscalers and events are served in two versions whose fields differ; everything else keeps its fields and
//! changes its `apiVersion`.

use serde_json::Value;

use crate::json::Object;
use crate::names::GroupVersionKind;
use crate::schema;

mod autoscaler;

/// An object of one version as an object of another. An object that is no JSON object comes back as it is.
#[must_use]
pub fn convert(from: &GroupVersionKind, to: &GroupVersionKind, mut value: Value) -> Value {
    let Some(object) = value.as_object_mut() else { return value };
    if from == to {
        return value;
    }
    let names = |gvk: &GroupVersionKind| format!("{}/{} {}", gvk.group, gvk.version, gvk.kind);
    match (names(from).as_str(), names(to).as_str()) {
        ("autoscaling/v1 HorizontalPodAutoscaler", "autoscaling/v2 HorizontalPodAutoscaler") => {
            autoscaler::v1_to_v2(object);
        }
        ("autoscaling/v2 HorizontalPodAutoscaler", "autoscaling/v1 HorizontalPodAutoscaler") => {
            autoscaler::v2_to_v1(object);
        }
        ("/v1 Event", "events.k8s.io/v1 Event") => rename(object, EVENT, |(old, new)| (old, new)),
        ("events.k8s.io/v1 Event", "/v1 Event") => rename(object, EVENT, |(old, new)| (new, old)),
        _ => {
            set_kind(object, to);
            return value;
        }
    }
    set_kind(object, to);
    // What one version leaves out when it is empty, the other may write.
    let ty = schema::type_for(to);
    match ty.and_then(|ty| ty.decode_value(value.clone()).ok()) {
        Some(decoded) => decoded.value,
        None => value,
    }
}

fn set_kind(object: &mut Object, gvk: &GroupVersionKind) {
    object.insert("apiVersion".to_owned(), gvk.group_version().to_string().into());
    object.insert("kind".to_owned(), gvk.kind.to_string().into());
}

/// The fields of events whose names differ: in the core group, in `events.k8s.io`.
const EVENT: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("message", "note"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

fn rename(
    object: &mut Object,
    names: &[(&'static str, &'static str)],
    order: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) {
    for (from, to) in names.iter().copied().map(order) {
        if let Some(value) = object.remove(from) {
            object.insert(to.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hpa(version: &'static str) -> GroupVersionKind {
        GroupVersionKind::new("autoscaling", version, "HorizontalPodAutoscaler")
    }

    #[test]
    fn autoscalers_survive_the_older_version() {
        let target = json!({"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"});
        let object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
            "spec": {
                "scaleTargetRef": target, "maxReplicas": 3,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "5"}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
                ],
                "behavior": {"scaleDown": {"selectPolicy": "Max", "stabilizationWindowSeconds": 10,
                    "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}},
            },
            "status": {
                "currentReplicas": 1, "desiredReplicas": 2,
                "currentMetrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 40, "averageValue": "100m"}}},
                ],
                "conditions": [{"type": "A", "status": "True", "lastTransitionTime": null}],
            },
        });
        let old = convert(&hpa("v2"), &hpa("v1"), object.clone());
        assert_eq!(
            old["metadata"]["annotations"],
            json!({
                "autoscaling.alpha.kubernetes.io/metrics":
                    "[{\"type\":\"Pods\",\"pods\":{\"metricName\":\"rps\",\"targetAverageValue\":\"5\"}}]",
                "autoscaling.alpha.kubernetes.io/current-metrics":
                    "[{\"type\":\"Resource\",\"resource\":{\"name\":\"cpu\",\"currentAverageUtilization\":40,\"currentAverageValue\":\"100m\"}}]",
                "autoscaling.alpha.kubernetes.io/conditions":
                    "[{\"type\":\"A\",\"status\":\"True\",\"lastTransitionTime\":null}]",
                "autoscaling.alpha.kubernetes.io/behavior":
                    "{\"ScaleUp\":null,\"ScaleDown\":{\"StabilizationWindowSeconds\":10,\"SelectPolicy\":\"Max\",\"Policies\":[{\"Type\":\"Percent\",\"Value\":100,\"PeriodSeconds\":15}],\"Tolerance\":null}}",
            })
        );
        assert_eq!(
            old["spec"],
            json!({"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50})
        );
        assert_eq!(
            old["status"],
            json!({"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 40})
        );
        assert_eq!(convert(&hpa("v1"), &hpa("v2"), old), object);
    }

    #[test]
    fn events_change_names() {
        let core = GroupVersionKind::new("", "v1", "Event");
        let new = GroupVersionKind::new("events.k8s.io", "v1", "Event");
        let object = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "a"}, "involvedObject": {"kind": "Pod"},
            "message": "m", "reportingComponent": "c", "source": {}, "count": 2, "eventTime": null,
            "firstTimestamp": null, "lastTimestamp": null, "reportingInstance": "",
        });
        let changed = convert(&core, &new, object.clone());
        assert_eq!(changed["regarding"], json!({"kind": "Pod"}));
        assert_eq!(changed["note"], "m");
        assert_eq!(changed["apiVersion"], "events.k8s.io/v1");
        assert_eq!(convert(&new, &core, changed), object);
    }
}
