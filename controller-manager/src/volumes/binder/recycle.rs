//! Empties volumes whose policy is `Recycle`: a pod deletes everything in them. As upstream's recyclerclient.

use super::super::claims;
use crate::common::meta;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use serde_json::json;

/// Where the pods run.
pub const NAMESPACE: &str = "default";
const PREFIX: &str = "recycler-for-";
const IMAGE: &str = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6";
const SCRUB: &str =
    "test -e /scrub && find /scrub -mindepth 1 -delete && test -z \"$(ls -A /scrub)\" || exit 1";
const SECONDS_PER_GIB: i64 = 30;

/// How far the emptying is.
#[derive(Debug, PartialEq)]
pub enum Progress {
    /// The pod has to be made.
    Start(Box<Pod>),
    /// The pod works, or an old one has to go first.
    Wait,
    /// A pod of an earlier time is in the way.
    Clear,
    /// The volume is empty.
    Emptied,
    /// It could not be emptied; why.
    Failed(String),
}

/// The name of the pod that empties a volume.
pub fn pod_name(volume: &str) -> String {
    format!("{PREFIX}{volume}")
}

/// The volume that a pod empties.
pub fn volume_of(pod: &Pod) -> Option<&str> {
    let name = meta::name(&pod.metadata).strip_prefix(PREFIX)?;
    (meta::namespace(&pod.metadata) == NAMESPACE).then_some(name)
}

/// Decides how to go on with a released volume. `None` when volumes of its kind cannot be emptied.
pub fn progress(volume: &PersistentVolume, pod: Option<&Pod>) -> Option<Progress> {
    let wanted = recycler(volume)?;
    let Some(pod) = pod else { return Some(Progress::Start(Box::new(wanted))) };
    if meta::is_deleting(&pod.metadata) {
        return Some(Progress::Wait);
    }
    // A pod that was there before the volume was released says nothing about it.
    let marker = |pod: &Pod| meta::annotation(&pod.metadata, MARKER).map(str::to_owned);
    if marker(pod) != marker(&wanted) {
        return Some(Progress::Clear);
    }
    let status = pod.status.as_ref();
    Some(match status.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => Progress::Emptied,
        Some("Failed") => {
            let message = status.and_then(|status| status.message.clone()).filter(|text| !text.is_empty());
            let why = message.unwrap_or_else(|| "pod failed, pod.Status.Message unknown".to_owned());
            Progress::Failed(format!("Recycle failed: failed to recycle volume: {why}"))
        }
        _ => Progress::Wait,
    })
}

/// On a recycler: the UIDs of the volume and of the claim that left it.
const MARKER: &str = "pv.kubernetes.io/recycles";

/// The pod that empties a volume, if volumes of its kind can be.
fn recycler(volume: &PersistentVolume) -> Option<Pod> {
    let spec = volume.spec.as_ref()?;
    let (source, minimum) = if let Some(source) = &spec.host_path {
        (json!({ "name": "vol", "hostPath": { "path": source.path } }), 60)
    } else {
        (json!({ "name": "vol", "nfs": spec.nfs.as_ref()? }), 300)
    };
    let seconds = (claims::capacity(volume).value() / (1 << 30)).saturating_mul(SECONDS_PER_GIB).max(minimum);
    let claim = spec.claim_ref.as_ref().map(claims::uid_of).unwrap_or_default();
    let marker = format!("{}/{claim}", meta::uid(&volume.metadata));
    serde_json::from_value(json!({
        "metadata": {
            "name": pod_name(meta::name(&volume.metadata)), "namespace": NAMESPACE,
            "annotations": { MARKER: marker },
        },
        "spec": {
            "activeDeadlineSeconds": seconds,
            "restartPolicy": "Never",
            "volumes": [source],
            "containers": [{
                "name": "pv-recycler", "image": IMAGE, "command": ["/bin/sh"], "args": ["-c", SCRUB],
                "volumeMounts": [{ "name": "vol", "mountPath": "/scrub" }],
            }],
        },
    }))
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn volume(source: Value, size: &str) -> PersistentVolume {
        let mut volume = json!({
            "metadata": { "name": "v", "uid": "u" },
            "spec": { "capacity": { "storage": size }, "claimRef": { "uid": "c" } },
        });
        for (key, value) in source.as_object().into_iter().flatten() {
            volume["spec"][key] = value.clone();
        }
        serde_json::from_value(volume).unwrap()
    }

    #[test]
    fn time_grows_with_the_size() {
        let (host, nfs) =
            (json!({ "hostPath": { "path": "/a" } }), json!({ "nfs": { "server": "s", "path": "/" } }));
        for (source, size, seconds) in
            [(&host, "1Gi", 60), (&host, "10Gi", 300), (&nfs, "5Gi", 300), (&nfs, "20Gi", 600)]
        {
            let pod = recycler(&volume(source.clone(), size)).unwrap();
            assert_eq!(pod.spec.unwrap().active_deadline_seconds, Some(seconds));
        }
        assert!(progress(&volume(json!({ "local": { "path": "/a" } }), "1Gi"), None).is_none());
    }

    #[test]
    fn pods_of_an_earlier_time_do_not_count() {
        let volume = volume(json!({ "hostPath": { "path": "/a" } }), "1Gi");
        let Some(Progress::Start(pod)) = progress(&volume, None) else { panic!("a pod is started") };
        let with = |phase: &str, message: &str| {
            let mut pod = pod.as_ref().clone();
            pod.status = serde_json::from_value(json!({ "phase": phase, "message": message })).unwrap();
            pod
        };
        assert_eq!(progress(&volume, Some(&with("Running", ""))), Some(Progress::Wait));
        assert_eq!(progress(&volume, Some(&with("Succeeded", ""))), Some(Progress::Emptied));
        let failed =
            |text: &str| Some(Progress::Failed(format!("Recycle failed: failed to recycle volume: {text}")));
        assert_eq!(progress(&volume, Some(&with("Failed", "too late"))), failed("too late"));
        assert_eq!(
            progress(&volume, Some(&with("Failed", ""))),
            failed("pod failed, pod.Status.Message unknown")
        );
        let mut old = with("Succeeded", "");
        claims::annotate(&mut old.metadata, MARKER, "u/earlier");
        assert_eq!(progress(&volume, Some(&old)), Some(Progress::Clear));
    }
}
