//! The node's Lease: a small heartbeat, renewed in a task of its own.

use std::time::Duration;

use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Api, Client, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use serde_json::{Value, json};

/// Where the leases of nodes are.
pub const NAMESPACE: &str = "kube-node-lease";
const RETRY: Duration = Duration::from_millis(200);
const MAX_RETRY: Duration = Duration::from_secs(7);

/// Starts renewing the lease of `node_name`, four times in its duration.
pub fn run(client: Client, node_name: String, seconds: i32, tasks: &Tasks) {
    let period = Duration::from_secs(u64::try_from(seconds).unwrap_or(40)) / 4;
    tasks.spawn("node-lease", move |token| async move {
        let renewing = async {
            let mut retry = RETRY;
            let mut known = Known::default();
            loop {
                match tokio::time::timeout(period, renew(&client, &node_name, seconds, &mut known)).await {
                    Ok(Ok(())) => {
                        retry = RETRY;
                        tokio::time::sleep(period).await;
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(error = client::chain(&error), "failed to update the node lease");
                        tokio::time::sleep(retry).await;
                        retry = (retry * 2).min(MAX_RETRY);
                    }
                    Err(_) => tracing::warn!("failed to update the node lease: no answer in time"),
                }
            }
        };
        tokio::select! { () = token.cancelled() => {}, () = renewing => {} }
    });
}

/// What is known of the lease in the API.
#[derive(Default)]
struct Known {
    /// It is there.
    exists: bool,
    /// It belongs to the node, and goes with it.
    owned: bool,
}

/// Renews the lease with one request; makes it first when there is none.
async fn renew(
    client: &Client,
    node_name: &str,
    seconds: i32,
    known: &mut Known,
) -> Result<(), client::kube::Error> {
    let api: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    // The node may register later than its lease.
    let owner = if known.owned { None } else { owner(client, node_name).await };
    if known.exists {
        let mut patch = renewal(node_name, seconds);
        if let Some(owner) = &owner {
            patch["metadata"] = json!({ "ownerReferences": [owner] });
        }
        match api.patch(node_name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if client::is_not_found(&error) => *known = Known::default(),
            Err(error) => return Err(error),
            Ok(_) => {
                known.owned |= owner.is_some();
                return Ok(());
            }
        }
    }
    match api.create(&PostParams::default(), &lease(node_name, seconds, owner.clone())).await {
        Ok(_) => *known = Known { exists: true, owned: owner.is_some() },
        Err(error) if client::is_already_exists(&error) => {
            known.exists = true;
            return Box::pin(renew(client, node_name, seconds, known)).await;
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn owner(client: &Client, node_name: &str) -> Option<OwnerReference> {
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(node_name).await.ok()?;
    Some(owned_by(node_name, node.metadata.uid?))
}

/// The node as the owner of its lease.
#[must_use]
pub fn owned_by(node_name: &str, uid: String) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid,
        ..OwnerReference::default()
    }
}

/// The merge patch that renews a lease.
#[must_use]
pub fn renewal(node_name: &str, seconds: i32) -> Value {
    json!({ "spec": {
        "holderIdentity": node_name,
        "leaseDurationSeconds": seconds,
        "renewTime": MicroTime(Timestamp::now()),
    }})
}

/// A lease as it is made.
#[must_use]
pub fn lease(node_name: &str, seconds: i32, owner: Option<OwnerReference>) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(node_name.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: owner.map(|o| vec![o]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node_name.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api::FakeApi;

    #[tokio::test(start_paused = true)]
    async fn the_lease_is_made_once_and_renewed() {
        let (api, tasks) = (FakeApi::default(), Tasks::new());
        api.answer(200, json!({"metadata": {"name": "n1", "uid": "x"}}));
        run(api.client(), "n1".into(), 40, &tasks);
        let asked = api.asked(4).await;
        let what: Vec<_> = asked.iter().map(|a| a.what.as_str()).collect();
        const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        assert_eq!(
            what,
            [
                "GET /api/v1/nodes/n1".to_owned(),
                format!("POST {LEASES}"),
                format!("PATCH {LEASES}/n1"),
                format!("PATCH {LEASES}/n1"),
            ]
        );
        assert_eq!(asked[1].body["spec"]["holderIdentity"], "n1");
        assert_eq!(asked[1].body["metadata"]["ownerReferences"][0]["uid"], "x");
        assert_eq!(asked[2].body["spec"]["leaseDurationSeconds"], 40);
        tasks.shut_down().await.expect("no failure");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_deleted_is_made_again() {
        let (api, tasks) = (FakeApi::default(), Tasks::new());
        api.answer(200, json!({"metadata": {"name": "n1", "uid": "x"}}));
        run(api.client(), "n1".into(), 40, &tasks);
        api.asked(2).await;
        api.refuse(404, "NotFound");
        let asked = api.asked(4).await;
        assert!(asked[2].what.starts_with("PATCH ") && asked[3].what.starts_with("POST "), "{asked:?}");
        tasks.shut_down().await.expect("no failure");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_older_than_its_node_gets_its_owner_later() {
        let (api, tasks) = (FakeApi::default(), Tasks::new());
        api.refuse(404, "NotFound");
        run(api.client(), "n1".into(), 40, &tasks);
        api.asked(2).await;
        api.answer(200, json!({"metadata": {"name": "n1", "uid": "x"}}));
        let asked = api.asked(5).await;
        assert!(asked[1].body["metadata"].get("ownerReferences").is_none());
        assert_eq!(asked[3].body["metadata"]["ownerReferences"][0]["uid"], "x");
        assert!(asked[4].what.starts_with("PATCH "), "{asked:?}");
        tasks.shut_down().await.expect("no failure");
    }
}
