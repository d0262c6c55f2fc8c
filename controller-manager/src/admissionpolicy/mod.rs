//! Whether the expressions of ValidatingAdmissionPolicies fit the types that they are about: what does not is told in
//! their status. As upstream's pkg/controller/validatingadmissionpolicystatus.

mod check;
mod types;

use crate::common::meta;
use crate::context::{Context, enqueue_all};
use client::controller::Action;
use client::kube::api::{Patch, PatchParams};
use client::{Api, Client, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::admissionregistration::v1::{ExpressionWarning, ValidatingAdmissionPolicy};
use serde_json::{Value, json};

/// Who it is in `managedFields`.
const MANAGER: &str = "validatingadmissionpolicy-status";

/// Starts the controller.
pub fn start(cx: &Context) {
    let policies = cx.informer::<ValidatingAdmissionPolicy>();
    let queue = WorkQueue::new("validatingadmissionpolicy-status");
    enqueue_all(&policies, &queue);
    let synced = policies.clone();
    let synced = async move { synced.synced().await };
    let client = cx.client.clone();
    let workers = cx.config.concurrent.admission_policies;
    cx.work("validatingadmissionpolicy-status-controller", queue, workers, synced, move |key| {
        let (client, policies) = (client.clone(), policies.clone());
        async move { reconcile(&client, &policies, &key).await }
    });
}

async fn reconcile(
    client: &Client,
    policies: &Informer<ValidatingAdmissionPolicy>,
    key: &ObjectKey,
) -> anyhow::Result<Action> {
    let Some(policy) = policies.store().get(key) else { return Ok(Action::Done) };
    if !is_due(&policy) {
        return Ok(Action::Done);
    }
    let spec = policy.spec.clone().unwrap_or_default();
    let types = types::resolve(client, &spec).await;
    let api: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let status = status(&policy, &check::check(&spec, &types));
    api.patch_status(&key.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&status)).await?;
    Ok(Action::Done)
}

/// Whether the policy has changed since it was last looked at.
fn is_due(policy: &ValidatingAdmissionPolicy) -> bool {
    let observed = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or_default();
    policy.metadata.generation.unwrap_or_default() > observed
}

/// The status to apply.
fn status(policy: &ValidatingAdmissionPolicy, warnings: &[ExpressionWarning]) -> Value {
    let mut checking = json!({});
    if !warnings.is_empty() {
        checking["expressionWarnings"] = json!(warnings);
    }
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": meta::name(&policy.metadata)},
        "status": {"observedGeneration": policy.metadata.generation, "typeChecking": checking},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_looked_at_once_a_generation() {
        let policy = |generation: i64, observed: Option<i64>| -> ValidatingAdmissionPolicy {
            serde_json::from_value(json!({"metadata": {"name": "p", "generation": generation},
                "status": {"observedGeneration": observed}}))
            .expect("a policy")
        };
        assert!(is_due(&policy(1, None)));
        assert!(is_due(&policy(3, Some(2))));
        assert!(!is_due(&policy(2, Some(2))));
        let applied = status(&policy(4, None), &[]);
        assert_eq!(applied["status"], json!({"observedGeneration": 4, "typeChecking": {}}));
    }
}
