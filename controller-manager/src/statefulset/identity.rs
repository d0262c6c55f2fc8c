//! What the pods of a StatefulSet are called and look like.

use super::claims;
use crate::common::{meta, pods};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};

/// The label with the pod's name.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the pod's ordinal.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";
/// The label with the name of the pod's revision.
pub const REVISION: &str = "controller-revision-hash";

/// The name of the set a pod belongs to by its own name, and its ordinal.
pub fn parent(pod: &Pod) -> Option<(&str, i32)> {
    let (parent, ordinal) = meta::name(&pod.metadata).rsplit_once('-')?;
    let digits = !ordinal.is_empty() && ordinal.bytes().all(|byte| byte.is_ascii_digit());
    Some((parent, ordinal.parse().ok().filter(|_| digits)?))
}

/// The pod's ordinal.
pub fn ordinal(pod: &Pod) -> Option<i32> {
    parent(pod).map(|(_, ordinal)| ordinal)
}

/// The revision a pod was made from.
pub fn revision(pod: &Pod) -> &str {
    meta::label(&pod.metadata, REVISION).unwrap_or_default()
}

/// The first ordinal.
pub fn start(set: &StatefulSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref()).and_then(|ordinals| ordinals.start).unwrap_or(0)
}

/// Whether an ordinal is among those the set wants.
pub fn in_range(set: &StatefulSet, ordinal: i32) -> bool {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    (start(set)..start(set) + replicas).contains(&ordinal)
}

/// A pod of the set.
pub fn build(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let name = format!("{}-{ordinal}", meta::name(&set.metadata));
    let mut pod = pods::from_template(template, meta::name(&set.metadata), meta::controller_reference(set));
    pod.metadata.name = Some(name.clone());
    pod.metadata.namespace = set.metadata.namespace.clone();
    set_identity(&mut pod, &name, ordinal);
    pod.metadata.labels.get_or_insert_default().insert(REVISION.to_owned(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    let service = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    spec.subdomain = service.filter(|service| !service.is_empty());
    set_storage(set, &mut pod);
    pod
}

fn set_identity(pod: &mut Pod, name: &str, ordinal: i32) {
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.to_owned(), name.to_owned());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
}

/// The volumes of the claims come first and replace volumes of the same name.
fn set_storage(set: &StatefulSet, pod: &mut Pod) {
    let claims = claims::names(set, pod);
    if claims.is_empty() {
        return;
    }
    let volumes = pod.spec.get_or_insert_default().volumes.get_or_insert_default();
    volumes.retain(|volume| !claims.iter().any(|(name, _)| *name == volume.name));
    let of_claim = |(name, claim): (String, String)| Volume {
        name,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim,
            read_only: None,
        }),
        ..Default::default()
    };
    volumes.splice(0..0, claims.into_iter().map(of_claim));
}

/// The pod with the name label and the volumes that it should have; `None` when it has them.
pub fn repaired(set: &StatefulSet, pod: &Pod) -> Option<Pod> {
    let name = meta::name(&pod.metadata);
    let named = meta::label(&pod.metadata, POD_NAME) == Some(name);
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let stored = claims::names(set, pod).iter().all(|(volume, claim)| {
        volumes.iter().any(|held| {
            held.name == *volume
                && held.persistent_volume_claim.as_ref().is_some_and(|source| source.claim_name == *claim)
        })
    });
    if named && stored {
        return None;
    }
    let mut repaired = pod.clone();
    set_identity(&mut repaired, name, ordinal(pod)?);
    if !stored {
        set_storage(set, &mut repaired);
    }
    Some(repaired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_says_what_its_name_begins_with() {
        let mut set = StatefulSet::default();
        set.metadata.name = Some("web".into());
        let pod = build(&set, &PodTemplateSpec::default(), "r", 3);
        let names = (pod.metadata.generate_name.as_deref(), pod.metadata.name.as_deref());
        assert_eq!(names, (Some("web-"), Some("web-3")));
    }

    #[test]
    fn ordinal_is_the_number_after_the_last_dash() {
        for (name, expected) in [
            ("web-0", Some(("web", 0))),
            ("my-web-12", Some(("my-web", 12))),
            ("web", None),
            ("web-", None),
            ("web-x1", None),
            ("web-+1", None),
            ("web-99999999999", None),
        ] {
            let mut pod = Pod::default();
            pod.metadata.name = Some(name.into());
            assert_eq!(parent(&pod), expected, "{name}");
        }
    }
}
