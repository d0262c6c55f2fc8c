//! What pods need of claims for devices, and what claims need. Pure.

use crate::common::{meta, pods};
use k8s_openapi::api::core::v1::{Pod, PodResourceClaim};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// On a claim that was made for a pod: which of the pod's claims it is.
pub const CLAIM_NAME: &str = "resource.kubernetes.io/pod-claim-name";
/// Keeps a claim until nobody uses it.
const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// As many consumers as a claim may have.
const MOST_CONSUMERS: usize = 256;
/// A name without its random end is at most so long.
const BASE: usize = 57;

/// What the claim of a pod is called.
#[derive(Debug, PartialEq, Eq)]
pub enum Name {
    /// So; and whether it was made for the pod alone.
    Known(String, bool),
    /// None is needed.
    Unneeded,
    /// It has to be made.
    Unknown,
    /// Neither a claim nor a template is named.
    Unsupported,
}

/// Looks up what a claim of a pod is called. As upstream's resourceclaim.Name.
pub fn name_of(pod: &Pod, claim: &PodResourceClaim) -> Name {
    if let Some(name) = &claim.resource_claim_name {
        return Name::Known(name.clone(), false);
    }
    if claim.resource_claim_template_name.is_none() {
        return Name::Unsupported;
    }
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_deref());
    match statuses.unwrap_or_default().iter().find(|status| status.name == claim.name) {
        Some(status) => {
            status.resource_claim_name.clone().map_or(Name::Unneeded, |name| Name::Known(name, true))
        }
        None => Name::Unknown,
    }
}

/// The claims that a pod names in its spec.
pub fn claims_of(pod: &Pod) -> &[PodResourceClaim] {
    pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_deref()).unwrap_or_default()
}

/// The names of all claims that a pod uses, as far as they are known.
pub fn names_of(pod: &Pod) -> Vec<String> {
    let known = |claim: &PodResourceClaim| match name_of(pod, claim) {
        Name::Known(name, _) => Some(name),
        _ => None,
    };
    let extended = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
    let extended = extended.map(|status| status.resource_claim_name.clone());
    claims_of(pod).iter().filter_map(known).chain(extended).collect()
}

/// Whether a pod will never use its claims (again).
pub fn is_done(pod: &Pod) -> bool {
    pods::is_terminal(pod) || (meta::is_deleting(&pod.metadata) && pods::node_name(pod).is_empty())
}

/// Whether a claim was made for this pod.
pub fn is_for(pod: &Pod, claim: &ResourceClaim) -> bool {
    meta::is_controlled_by(&claim.metadata, meta::uid(&pod.metadata))
}

/// What to do about one claim of a pod.
#[derive(Debug, PartialEq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// Say in the pod's status that it is this one.
    Tell(String),
    /// Make it.
    Create(Box<ResourceClaim>),
    /// It cannot be; why.
    Fail(String),
}

/// Decides about one claim of a pod. `named` is the claim of the name that the pod knows, `made` are claims that were
/// made for the pod, `template` is what its own are made from.
pub fn need(
    pod: &Pod,
    claim: &PodResourceClaim,
    named: Option<&ResourceClaim>,
    made: &[std::sync::Arc<ResourceClaim>],
    template: Option<&ResourceClaimTemplate>,
) -> Need {
    match name_of(pod, claim) {
        Name::Unneeded => return Need::Nothing,
        Name::Unsupported => {
            return Need::Fail(
                "checking for claim before creating it: none of the supported fields are set".to_owned(),
            );
        }
        Name::Known(_, own) if named.is_some_and(|named| !own || is_for(pod, named)) => return Need::Nothing,
        Name::Known(..) | Name::Unknown => {}
    }
    let Some(template_name) = &claim.resource_claim_template_name else { return Need::Nothing };
    let is_it = |made: &&std::sync::Arc<ResourceClaim>| {
        meta::annotation(&made.metadata, CLAIM_NAME) == Some(claim.name.as_str())
    };
    if let Some(made) = made.iter().find(is_it) {
        return Need::Tell(meta::name(&made.metadata).to_owned());
    }
    let Some(template) = template else {
        return Need::Fail(format!(
            "resource claim template \"{template_name}\": resourceclaimtemplate.resource.k8s.io \"{template_name}\" \
             not found"
        ));
    };
    Need::Create(Box::new(from_template(pod, &claim.name, template)))
}

fn from_template(pod: &Pod, claim: &str, template: &ResourceClaimTemplate) -> ResourceClaim {
    let from = template.spec.metadata.clone().unwrap_or_default();
    let mut annotations = from.annotations.unwrap_or_default();
    annotations.insert(CLAIM_NAME.to_owned(), claim.to_owned());
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: meta::name(&pod.metadata).to_owned(),
        uid: meta::uid(&pod.metadata).to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    };
    ResourceClaim {
        metadata: ObjectMeta {
            generate_name: Some(generate_name(meta::name(&pod.metadata), claim)),
            namespace: pod.metadata.namespace.clone(),
            owner_references: Some(vec![owner]),
            annotations: Some(annotations),
            labels: from.labels,
            ..Default::default()
        },
        spec: template.spec.spec.clone(),
        status: None,
    }
}

/// Pod and claim, each shortened in proportion if both together are too long.
fn generate_name(pod: &str, claim: &str) -> String {
    let name = format!("{pod}-{claim}-");
    if name.len() <= BASE {
        return name;
    }
    let short = |part: &str| part.chars().take(part.len() * BASE / name.len()).collect::<String>();
    format!("{}-{}", short(pod), short(claim))
}

/// The claim with the pod among its consumers, if it is allocated and the pod is not among them.
pub fn reserved(pod: &Pod, claim: &ResourceClaim) -> Option<ResourceClaim> {
    let status = claim.status.as_ref()?;
    let consumers = status.reserved_for.as_deref().unwrap_or_default();
    let uid = meta::uid(&pod.metadata);
    let full = consumers.len() >= MOST_CONSUMERS;
    if status.allocation.is_none() || full || consumers.iter().any(|consumer| consumer.uid == uid) {
        return None;
    }
    let mut claim = claim.clone();
    let consumers = &mut claim.status.get_or_insert_default().reserved_for;
    consumers.get_or_insert_default().push(ResourceClaimConsumerReference {
        api_group: None,
        resource: "pods".to_owned(),
        name: meta::name(&pod.metadata).to_owned(),
        uid: uid.to_owned(),
    });
    Some(claim)
}

/// What a claim needs.
#[derive(Debug, Default, PartialEq)]
pub struct Cleanup {
    /// A new status.
    pub status: Option<Box<ResourceClaim>>,
    /// Whether the finalizer goes, after the status.
    pub release: bool,
    /// Whether the claim goes.
    pub delete: bool,
}

/// Whether a consumer is a pod.
pub fn is_pod(consumer: &ResourceClaimConsumerReference) -> bool {
    consumer.resource == "pods" && consumer.api_group.as_deref().unwrap_or_default().is_empty()
}

/// Decides about a claim. `stays` says whether a consumer may still use it, `owner` is the pod it was made for.
pub fn cleanup(
    claim: &ResourceClaim,
    stays: impl Fn(&ResourceClaimConsumerReference) -> bool,
    owner: Option<&Pod>,
) -> Cleanup {
    let status = claim.status.clone().unwrap_or_default();
    let before = status.reserved_for.clone().unwrap_or_default();
    let remaining: Vec<_> = before.iter().filter(|consumer| stays(consumer)).cloned().collect();
    let ours = meta::has_finalizer(&claim.metadata, FINALIZER);
    let unused = remaining.is_empty();
    let mut plan = Cleanup::default();
    let deallocates = ours && unused && status.allocation.is_some();
    if remaining.len() < before.len() || (meta::is_deleting(&claim.metadata) && deallocates) {
        let mut new = claim.clone();
        let status = new.status.get_or_insert_default();
        status.reserved_for = (!unused).then(|| remaining.clone());
        if deallocates {
            status.allocation = None;
        }
        plan.release = ours && status.allocation.is_none();
        plan.status = Some(Box::new(new));
    } else if ours && meta::is_deleting(&claim.metadata) && unused {
        plan.release = true;
    }
    if unused
        && let Some(reference) = meta::controller_of(&claim.metadata)
        && reference.kind == "Pod"
        && let Some(owner) = owner
    {
        plan.delete = reference.uid != meta::uid(&owner.metadata) || is_done(owner);
    }
    plan
}

/// The claim without the finalizer that keeps it.
pub fn released(mut claim: ResourceClaim) -> ResourceClaim {
    if let Some(finalizers) = &mut claim.metadata.finalizers {
        finalizers.retain(|held| held != FINALIZER);
    }
    claim
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
