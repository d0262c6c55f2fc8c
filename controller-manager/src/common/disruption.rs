//! Says on a pod that it is taken away, and why, before it is deleted.

use super::errors::{self, IgnoreGone};
use super::meta;
use client::kube::api::{Patch, PatchParams};
use client::{Api, Client, kube};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

/// What is to be said.
#[derive(Clone, Copy, Debug)]
pub struct Reason {
    /// Machine-readable.
    pub reason: &'static str,
    /// For people.
    pub message: &'static str,
}

/// Sets the condition `DisruptionTarget`, and the phase `Failed` if asked for. `false` when the pod is gone.
pub async fn mark(
    client: &Client,
    pod: &Pod,
    reason: Option<Reason>,
    failed: bool,
    now: Timestamp,
) -> Result<bool, kube::Error> {
    let mut status = json!({});
    if failed {
        status["phase"] = json!("Failed");
    }
    if let Some(Reason { reason, message }) = reason {
        status["conditions"] = json!([{
            "type": "DisruptionTarget",
            "status": "True",
            "reason": reason,
            "message": message,
            "lastTransitionTime": Time(now),
        }]);
    }
    let patch = Patch::Strategic(json!({ "metadata": { "uid": pod.metadata.uid }, "status": status }));
    let api: Api<Pod> = Api::namespaced(client.clone(), meta::namespace(&pod.metadata));
    let patched = api.patch_status(meta::name(&pod.metadata), &PatchParams::default(), &patch).await;
    match patched {
        // Another pod has the name by now.
        Err(error) if errors::is_invalid(&error) => Ok(false),
        other => Ok(other.ignore_not_found()?.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::errors::tests::client_that_says;
    use crate::common::pods::tests::pod;

    /// A pod that somebody else changed at the same time has not gone, and must not be left where it is.
    #[tokio::test]
    async fn pod_that_is_gone_is_not_marked_and_one_that_changed_is_tried_again() {
        for (code, reason, marked) in [
            (404, "NotFound", Some(false)),
            (422, "Invalid", Some(false)),
            (409, "Conflict", None),
            (500, "InternalError", None),
        ] {
            let client = client_that_says(code, reason);
            let outcome =
                mark(&client, &pod("p", "n1", "Running", None), None, true, Timestamp::UNIX_EPOCH).await;
            assert_eq!(outcome.ok(), marked, "{reason}");
        }
    }
}
