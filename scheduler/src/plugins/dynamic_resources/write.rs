//! What is written of claims: who gets which devices, and what is taken back.

use client::kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use client::{Api, Client, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimConsumerReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::extended::Mappings;
use super::{allocation, is_used_by, key_of};
use crate::pod_info::PodInfo;

/// Keeps a claim until its devices are free again.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// How often a claim is written again if somebody else wrote it.
const TRIES: usize = 5;

fn api(client: &Client, claim: &ResourceClaim) -> Api<ResourceClaim> {
    Api::namespaced(client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default())
}

fn name(claim: &ResourceClaim) -> String {
    claim.metadata.name.clone().unwrap_or_default()
}

/// Writes what a claim gets, and who uses it; the claim as it is then.
///
/// # Errors
/// It could not be, or the claim is not what it was.
pub(super) async fn reserve(
    client: &Client,
    pod: &PodInfo,
    key: &ObjectKey,
    result: Option<&AllocationResult>,
) -> Result<ResourceClaim, String> {
    let api: Api<ResourceClaim> = Api::namespaced(client.clone(), &key.namespace);
    let what = if result.is_some() { "allocation and reservation" } else { "reservation" };
    let mut failed = String::new();
    for _ in 0..TRIES {
        let claim = api.get(&key.name).await.map_err(|error| client::chain(&error))?;
        match reserve_once(&api, pod, claim, result).await {
            Err(error) if client::is_conflict(&error) => failed = client::chain(&error),
            Err(error) => return Err(format!("add {what} to claim {key}: {}", client::chain(&error))),
            Ok(outcome) => return outcome.map_err(|reason| format!("claim {key} {reason}")),
        }
    }
    Err(format!("add {what} to claim {key}: {failed}"))
}

async fn reserve_once(
    api: &Api<ResourceClaim>,
    pod: &PodInfo,
    mut claim: ResourceClaim,
    result: Option<&AllocationResult>,
) -> client::kube::Result<Result<ResourceClaim, &'static str>> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Ok(Err("got deleted in the meantime"));
    }
    let name = name(&claim);
    match (result, allocation(&claim)) {
        (Some(_), Some(_)) => return Ok(Err("got allocated elsewhere in the meantime")),
        (None, None) => return Ok(Err("got deallocated elsewhere in the meantime")),
        _ => {}
    }
    if let Some(result) = result {
        let finalizers = claim.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
            claim = api.replace(&name, &PostParams::default(), &claim).await?;
        }
        let mut result = result.clone();
        result.allocation_timestamp = Some(Time(Timestamp::now()));
        claim.status.get_or_insert_default().allocation = Some(result);
    }
    if !is_used_by(&claim, pod) {
        let user = ResourceClaimConsumerReference {
            api_group: None,
            resource: "pods".to_owned(),
            name: pod.name().to_owned(),
            uid: pod.uid().to_owned(),
        };
        claim.status.get_or_insert_default().reserved_for.get_or_insert_default().push(user);
    }
    api.replace_status(&name, &PostParams::default(), &claim).await.map(Ok)
}

/// Makes the claim for a pod's extended resources.
///
/// # Errors
/// It could not be made.
pub(super) async fn create(client: &Client, claim: &ResourceClaim) -> Result<ResourceClaim, String> {
    let mut new = claim.clone();
    (new.metadata.name, new.metadata.uid) = (None, None);
    let created = api(client, claim).create(&PostParams::default(), &new).await;
    created.map_err(|error| {
        format!("create claim for extended resources {}: {}", key_of(claim), client::chain(&error))
    })
}

/// Writes to the pod which claim has its extended resources.
///
/// # Errors
/// It could not be written.
pub(super) async fn tell_pod(
    client: &Client,
    pod: &PodInfo,
    claim: &ResourceClaim,
    mappings: &Mappings,
) -> Result<(), String> {
    let status = json!({"resourceClaimName": claim.metadata.name, "requestMappings": mappings});
    let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"extendedResourceClaimStatus": status}});
    let api: Api<Pod> = Api::namespaced(client.clone(), pod.namespace());
    let patched = api.patch_status(pod.name(), &PatchParams::default(), &Patch::Strategic(patch)).await;
    patched.map(drop).map_err(|error| {
        let (namespace, name) = (pod.namespace(), pod.name());
        format!("update pod {namespace}/{name} ExtendedResourceClaimStatus: {}", client::chain(&error))
    })
}

/// The pod does not use the claim after all.
///
/// # Errors
/// It could not be written.
pub(super) async fn unreserve(client: &Client, pod: &str, claim: &ResourceClaim) -> client::kube::Result<()> {
    let status = json!({"reservedFor": [{"$patch": "delete", "uid": pod}]});
    let patch = Patch::Strategic(json!({"metadata": {"uid": claim.metadata.uid}, "status": status}));
    api(client, claim).patch_status(&name(claim), &PatchParams::default(), &patch).await.map(drop)
}

/// The claim gets no devices after all.
///
/// # Errors
/// It could not be written.
pub(super) async fn deallocate(client: &Client, claim: &ResourceClaim) -> client::kube::Result<()> {
    let mut claim = claim.clone();
    if let Some(status) = &mut claim.status {
        (status.allocation, status.reserved_for, status.devices) = (None, None, None);
    }
    api(client, &claim).replace_status(&name(&claim), &PostParams::default(), &claim).await.map(drop)
}

/// Deletes a claim that was made for a pod's extended resources, although it has its devices.
///
/// # Errors
/// It could not be.
pub(super) async fn delete(client: &Client, claim: &ResourceClaim) -> client::kube::Result<()> {
    let (api, name) = (api(client, claim), name(claim));
    for _ in 0..TRIES {
        let Some(mut claim) = api.get_opt(&name).await? else { return Ok(()) };
        claim.metadata.finalizers.iter_mut().for_each(|all| all.retain(|one| one != FINALIZER));
        match api.replace(&name, &PostParams::default(), &claim).await {
            Err(error) if client::is_conflict(&error) => continue,
            outcome => drop(outcome?),
        }
        break;
    }
    api.delete(&name, &DeleteParams::default()).await.map(drop)
}
