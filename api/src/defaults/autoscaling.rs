//! Defaults of horizontal pod autoscalers.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

/// Version 1.
pub(crate) fn autoscaler_v1(object: &mut Object) {
    if let Some(spec) = object.ensure("spec") {
        spec.or_default("minReplicas", 1);
    }
}

/// Version 2.
pub(crate) fn autoscaler_v2(object: &mut Object) {
    let Some(spec) = object.ensure("spec") else { return };
    spec.or_default("minReplicas", 1);
    if spec.list("metrics").is_empty() {
        let cpu = json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}});
        spec.insert("metrics".to_owned(), json!([cpu]));
    }
    if let Some(behavior) = spec.object_mut("behavior") {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        rules(behavior, "scaleUp", json!([pods, percent]), Some(0));
        rules(behavior, "scaleDown", json!([percent]), None);
    }
}

fn rules(behavior: &mut Object, key: &str, policies: Value, window: Option<i32>) {
    if let Some(rules) = behavior.ensure(key) {
        rules.or_default("selectPolicy", "Max");
        rules.or_default("policies", policies);
        if let Some(window) = window {
            rules.or_default("stabilizationWindowSeconds", window);
        }
    }
}
