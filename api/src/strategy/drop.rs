//! Fields of features that are off: dropped from new objects, kept in objects that already have them.

use crate::json::{Object, ObjectExt};

/// The object at the end of a path.
fn at<'a>(object: &'a mut Object, path: &[&str]) -> Option<&'a mut Object> {
    path.iter().try_fold(object, |object, key| object.object_mut(key))
}

fn seen<'a>(object: &'a Object, path: &[&str]) -> Option<&'a Object> {
    path.iter().try_fold(object, |object, key| object.object(key))
}

/// Drops what a pod (or a template of one) may not have, at a path of the object.
pub(super) fn pod_fields(object: &mut Object, old: Option<&Object>, path: &[&str]) {
    let old = old.and_then(|old| seen(old, path));
    if let Some(spec) = at(object, path) {
        pod_spec(spec, old);
    }
}

const STATUSES: [&str; 3] = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];

/// Drops what the status of a pod may not have.
pub(super) fn pod_status(status: &mut Object, old: &Object) {
    const NODE_CLAIMS: &str = "nodeAllocatableResourceClaimStatuses";
    if old.is_unset(NODE_CLAIMS) {
        status.remove(NODE_CLAIMS);
    }
    let has_digest = |mount: &Object| !mount.is_unset("volumeStatus");
    let kept = STATUSES.iter().flat_map(|key| old.each(key)).any(|s| s.each("volumeMounts").any(has_digest));
    if kept {
        return;
    }
    for key in STATUSES {
        for container in status.each_mut(key) {
            container.each_mut("volumeMounts").for_each(|mount| {
                mount.remove("volumeStatus");
            });
        }
    }
}

const CONTAINERS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

fn pod_spec(spec: &mut Object, old: Option<&Object>) {
    if old.is_none_or(|old| old.is_unset("schedulingGroup")) {
        spec.remove("schedulingGroup");
    }
    for source in ["clusterTrustBundle", "podCertificate"] {
        if !old.is_some_and(|old| projects(old, source)) {
            drop_projection(spec, source);
        }
    }
    let has_signal =
        |container: &Object| container.object("lifecycle").is_some_and(|l| !l.is_unset("stopSignal"));
    if old.is_some_and(|old| CONTAINERS.iter().any(|key| old.each(key).any(has_signal))) {
        return;
    }
    for key in CONTAINERS {
        for container in spec.each_mut(key).filter(|c| has_signal(c)) {
            let emptied = container.object_mut("lifecycle").is_some_and(|lifecycle| {
                lifecycle.remove("stopSignal");
                lifecycle.is_empty()
            });
            if emptied {
                container.remove("lifecycle");
            }
        }
    }
}

fn projects(spec: &Object, source: &str) -> bool {
    let projected = spec.each("volumes").filter_map(|volume| volume.object("projected"));
    projected.flat_map(|p| p.each("sources")).any(|s| !s.is_unset(source))
}

fn drop_projection(spec: &mut Object, source: &str) {
    for volume in spec.each_mut("volumes") {
        let Some(projected) = volume.object_mut("projected") else { continue };
        projected.each_mut("sources").for_each(|item| {
            item.remove(source);
        });
    }
}
