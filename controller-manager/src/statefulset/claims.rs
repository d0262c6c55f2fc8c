//! The PersistentVolumeClaims of a StatefulSet's pods, and who owns them under its retention policy.

use super::identity;
use crate::common::meta;
use client::kube::Resource;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    set.spec.as_ref().and_then(|spec| spec.volume_claim_templates.as_deref()).unwrap_or_default()
}

fn claim_name(set: &StatefulSet, template: &str, ordinal: i32) -> String {
    format!("{template}-{}-{ordinal}", meta::name(&set.metadata))
}

/// The names of the pod's volumes and of the claims behind them.
pub fn names(set: &StatefulSet, pod: &Pod) -> Vec<(String, String)> {
    let Some(ordinal) = identity::ordinal(pod) else { return Vec::new() };
    let name = |template: &PersistentVolumeClaim| {
        let name = meta::name(&template.metadata);
        (name.to_owned(), claim_name(set, name, ordinal))
    };
    templates(set).iter().map(name).collect()
}

/// The claims of a pod as they are created.
pub fn for_pod(set: &StatefulSet, pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let Some(ordinal) = identity::ordinal(pod) else { return Vec::new() };
    let selector = set.spec.as_ref().and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
    let claim = |template: &PersistentVolumeClaim| {
        let mut claim = template.clone();
        claim.metadata.name = Some(claim_name(set, meta::name(&template.metadata), ordinal));
        claim.metadata.namespace = set.metadata.namespace.clone();
        claim.metadata.labels.get_or_insert_default().extend(selector.clone());
        claim.status = None;
        claim
    };
    templates(set).iter().map(claim).collect()
}

#[derive(Clone, Copy, PartialEq)]
struct Policy {
    delete_with_set: bool,
    delete_when_scaled: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.clone());
    let policy = policy.unwrap_or_default();
    Policy {
        delete_with_set: policy.when_deleted.as_deref() == Some("Delete"),
        delete_when_scaled: policy.when_scaled.as_deref() == Some("Delete"),
    }
}

fn refers<K: Resource<DynamicType = ()>>(reference: &OwnerReference, object: &K) -> bool {
    reference.api_version == K::api_version(&())
        && reference.kind == K::kind(&())
        && reference.name == meta::name(object.meta())
}

/// Whether the claim still belongs to an earlier pod of the same name, and will go with it.
pub fn is_stale(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    policy(set).delete_when_scaled
        && owners.into_iter().any(|owner| refers(owner, pod) && owner.uid != meta::uid(&pod.metadata))
}

/// Whether somebody else manages the claim, so that the policy does not hold for it.
pub fn is_managed_by_another(claim: &PersistentVolumeClaim, set: &StatefulSet, pod: &Pod) -> bool {
    if policy(set) == (Policy { delete_with_set: false, delete_when_scaled: false }) {
        return false;
    }
    claim.metadata.owner_references.iter().flatten().any(|owner| {
        if refers(owner, set) {
            return owner.uid != meta::uid(&set.metadata);
        }
        if refers(owner, pod) {
            return owner.uid != meta::uid(&pod.metadata);
        }
        owner.controller == Some(true)
    })
}

/// The claim with the owners that the policy asks for; `None` when it has them, or when it is not ours to change.
pub fn with_owners(
    claim: &PersistentVolumeClaim,
    set: &StatefulSet,
    pod: &Pod,
) -> Option<PersistentVolumeClaim> {
    let policy = policy(set);
    let owners = claim.metadata.owner_references.clone().unwrap_or_default();
    let ours = |owner: &OwnerReference| refers(owner, set) || refers(owner, pod);
    let ours_by_uid = |owner: &OwnerReference| {
        owner.uid == meta::uid(&set.metadata)
            || (pod.metadata.uid.is_some() && owner.uid == meta::uid(&pod.metadata))
    };
    if owners.iter().any(|owner| ours(owner) && !ours_by_uid(owner)) {
        return None;
    }
    let mut wanted: Vec<_> = owners.iter().filter(|owner| !ours(owner)).cloned().collect();
    let foreign = wanted.iter().any(|owner| owner.controller == Some(true));
    if policy == (Policy { delete_with_set: false, delete_when_scaled: false }) || !foreign {
        let scaled_down = identity::ordinal(pod).is_some_and(|ordinal| !identity::in_range(set, ordinal));
        if policy.delete_when_scaled && scaled_down {
            wanted.extend(pod.metadata.uid.is_some().then(|| meta::controller_reference(pod)));
        } else if policy.delete_with_set {
            wanted.push(meta::controller_reference(set));
        }
    }
    let same = wanted.len() == owners.len() && wanted.iter().all(|owner| owners.contains(owner));
    (!same).then(|| {
        let mut claim = claim.clone();
        claim.metadata.owner_references = Some(wanted);
        claim
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::{
        StatefulSetPersistentVolumeClaimRetentionPolicy as Retention, StatefulSetSpec,
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

    fn named(name: &str, uid: &str) -> ObjectMeta {
        ObjectMeta { name: Some(name.into()), uid: Some(uid.into()), ..Default::default() }
    }

    fn set(when_deleted: &str, when_scaled: &str) -> StatefulSet {
        StatefulSet {
            metadata: named("web", "set"),
            spec: Some(StatefulSetSpec {
                replicas: Some(1),
                selector: LabelSelector {
                    match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
                    ..Default::default()
                },
                volume_claim_templates: Some(vec![PersistentVolumeClaim {
                    metadata: named("data", ""),
                    ..Default::default()
                }]),
                persistent_volume_claim_retention_policy: Some(Retention {
                    when_deleted: Some(when_deleted.into()),
                    when_scaled: Some(when_scaled.into()),
                }),
                ..Default::default()
            }),
            status: None,
        }
    }

    fn pod(name: &str) -> Pod {
        Pod { metadata: named(name, name), ..Default::default() }
    }

    #[test]
    fn policy_decides_who_owns_the_claim() {
        for (deleted, scaled, pod_name, owner) in [
            ("Retain", "Retain", "web-0", None),
            ("Delete", "Retain", "web-0", Some("set")),
            ("Delete", "Retain", "web-1", Some("set")),
            ("Retain", "Delete", "web-0", None),
            ("Retain", "Delete", "web-1", Some("web-1")),
            ("Delete", "Delete", "web-0", Some("set")),
            ("Delete", "Delete", "web-1", Some("web-1")),
        ] {
            let (set, pod) = (set(deleted, scaled), pod(pod_name));
            let claim = for_pod(&set, &pod).remove(0);
            let owned = with_owners(&claim, &set, &pod);
            let uid = owned
                .as_ref()
                .and_then(|claim| Some(claim.metadata.owner_references.as_ref()?.first()?.uid.as_str()));
            assert_eq!(uid, owner, "{deleted} {scaled} {pod_name}");
            if let Some(owned) = owned {
                assert_eq!(with_owners(&owned, &set, &pod), None, "a second time changes nothing");
            }
        }
    }

    #[test]
    fn claims_are_named_and_labelled_after_set_and_ordinal() {
        let claim = for_pod(&set("Retain", "Retain"), &pod("web-3")).remove(0);
        assert_eq!(meta::name(&claim.metadata), "data-web-3");
        assert_eq!(meta::label(&claim.metadata, "app"), Some("web"));
    }

    #[test]
    fn a_claim_that_another_manages_is_told() {
        let owner = |kind: &str, name: &str, uid: &str, controls: bool| {
            let version = if kind == "Pod" { "v1" } else { "apps/v1" };
            serde_json::json!({"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": controls})
        };
        let is_managed = |set: &StatefulSet, owner: serde_json::Value| {
            let claim = serde_json::json!({"metadata": {"name": "data-web-0", "ownerReferences": [owner]}});
            let claim = serde_json::from_value(claim).expect("a claim");
            is_managed_by_another(&claim, set, &pod("web-0"))
        };
        let (deletes, retains) = (set("Delete", "Retain"), set("Retain", "Retain"));
        let own = pod("web-0").metadata.uid.unwrap_or_default();
        assert!(is_managed(&deletes, owner("Deployment", "other", "1", true)));
        assert!(!is_managed(&deletes, owner("Deployment", "other", "1", false)));
        assert!(!is_managed(&retains, owner("Deployment", "other", "1", true)));
        assert!(!is_managed(&deletes, owner("StatefulSet", "web", "set", true)));
        assert!(is_managed(&deletes, owner("StatefulSet", "web", "earlier", true)));
        assert!(!is_managed(&deletes, owner("Pod", "web-0", &own, true)));
        assert!(is_managed(&deletes, owner("Pod", "web-0", "earlier", true)));
    }

    #[test]
    fn claim_of_an_earlier_pod_is_left_alone() {
        let (set, pod) = (set("Retain", "Delete"), pod("web-0"));
        let mut claim = for_pod(&set, &pod).remove(0);
        let earlier = OwnerReference { uid: "earlier".into(), ..meta::controller_reference(&pod) };
        claim.metadata.owner_references = Some(vec![earlier]);
        assert!(is_stale(&claim, &set, &pod));
        assert_eq!(with_owners(&claim, &set, &pod), None);
    }
}
