//! The patch that brings a pod's status in the API to what was generated.
//!
//! A strategic merge patch: conditions merge by type, so those of others survive; everything the kubelet owns is
//! stated in full, absent fields as null, so no copy of the API's status needs to be read first.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value, json};

use super::conditions::OWNED;

const FIELDS: [&str; 16] = [
    "phase",
    "reason",
    "message",
    "startTime",
    "qosClass",
    "observedGeneration",
    "hostIP",
    "podIP",
    "containerStatuses",
    "initContainerStatuses",
    "ephemeralContainerStatuses",
    "conditions",
    "hostIPs",
    "podIPs",
    "resources",
    "allocatedResources",
];

/// Builds the patch for the pod with this UID; the UID makes the API refuse it for another pod of the same name.
///
/// `stale` are types of conditions that the API may still have and the status has not.
#[must_use]
pub fn status_patch(uid: &str, status: &PodStatus, stale: &[&str]) -> Value {
    let mut all = match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let mut patch = Map::new();
    for field in FIELDS {
        let value = all.remove(field).unwrap_or(Value::Null);
        let value = match field {
            "conditions" => own_conditions(value, stale),
            // Merged by address, so stale ones must be replaced explicitly.
            "podIPs" | "hostIPs" => replaced(value),
            _ => value,
        };
        patch.insert(field.to_owned(), value);
    }
    json!({ "metadata": { "uid": uid }, "status": patch })
}

/// The owned conditions. Each is merged into the one of its type, so what it has not must be said to be absent.
fn own_conditions(value: Value, stale: &[&str]) -> Value {
    let Value::Array(list) = value else { return value };
    let own = list.into_iter().filter_map(|mut condition| {
        let map = condition.as_object_mut()?;
        let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
        if !OWNED.contains(&kind) && kind != "DisruptionTarget" {
            return None;
        }
        for field in ["reason", "message"] {
            map.entry(field).or_insert(Value::Null);
        }
        Some(condition)
    });
    let gone = stale.iter().map(|kind| json!({ "type": kind, "$patch": "delete" }));
    Value::Array(own.chain(gone).collect())
}

fn replaced(value: Value) -> Value {
    match value {
        Value::Array(mut list) => {
            list.push(json!({ "$patch": "replace" }));
            Value::Array(list)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patch_states_everything_owned_and_nothing_else() {
        let status: PodStatus = serde_json::from_value(json!({
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "nominatedNodeName": "n",
            "allocatedResources": {"cpu": "1"},
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "example.com/gate", "status": "True"}],
        }))
        .expect("valid");
        let patch = status_patch("u", &status, &["PodResizePending"]);
        assert_eq!(patch["metadata"]["uid"], "u");
        let status = &patch["status"];
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["reason"], Value::Null);
        assert!(status.get("reason").is_some() && status.get("nominatedNodeName").is_none());
        assert_eq!(
            status["conditions"],
            json!([
                {"type": "Ready", "status": "True", "reason": null, "message": null},
                {"type": "PodResizePending", "$patch": "delete"},
            ])
        );
        assert_eq!(status["podIPs"], json!([{"ip": "10.0.0.1"}, {"$patch": "replace"}]));
        // A map with a directive is dropped where there is nothing yet that it could replace.
        assert_eq!(status["allocatedResources"], json!({"cpu": "1"}));
    }
}
