//! What a request cannot change, whatever it says, and so cannot own (upstream `GetResetFields` of what serves it).

use crate::names::GroupVersionKind;
use crate::registry;
use crate::structured::{Filter, Set};

/// What counts of a change of objects of a kind by way of a part of them; `None`: everything.
#[must_use]
pub fn reset_fields(kind: &GroupVersionKind, part: &str) -> Option<Filter> {
    let name = (&*kind.group, &*kind.kind);
    let csr = name == ("certificates.k8s.io", "CertificateSigningRequest");
    let excluded: &[&[&str]] = match part {
        "" if csr => &[&["spec"], &["status"]],
        "" if has_status(kind) => &[&["status"]],
        "status" if csr => &[&["spec"], &["status", "conditions"]],
        "status" => by_status(name),
        "approval" => &[&["spec"], &["status", "certificate"]],
        "finalize" => &[&["status"]],
        // What the strategies of ephemeral containers and resizing say is not asked for.
        _ => return None,
    };
    Some(Filter::Exclude(Set::of_fields(excluded)))
}

fn has_status(kind: &GroupVersionKind) -> bool {
    registry::by_kind(kind).is_some_and(|resource| resource.subresource("status").is_some())
}

fn by_status(name: (&str, &str)) -> &'static [&'static [&'static str]] {
    match name {
        ("apps", "Deployment") => &[&["spec"], &["metadata", "labels"]],
        ("", "Pod") => &[&["spec"], &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]],
        ("networking.k8s.io", "ServiceCIDR")
        | ("storage.k8s.io", "VolumeAttachment")
        | ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy")
        | ("apiregistration.k8s.io" | "resource.k8s.io" | "flowcontrol.apiserver.k8s.io", _) => {
            &[&["spec"], &["metadata"]]
        }
        _ => &[&["spec"]],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn left(kind: (&'static str, &'static str), part: &str) -> serde_json::Value {
        let all = json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {
                "f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:resources": {".": {}, "f:limits": {}}}},
                "f:ephemeralContainers": {"k:{\"name\":\"e\"}": {".": {}, "f:image": {}}},
            },
            "f:status": {"f:conditions": {}, "f:certificate": {}},
        });
        let kind = GroupVersionKind::new(kind.0, "v1", kind.1);
        let set = Set::decode(&all).expect("well formed");
        reset_fields(&kind, part).map_or_else(|| set.clone(), |filter| filter.apply(set.clone())).encode()
    }

    #[test]
    fn parts_own_only_what_they_can_change() {
        let labels = json!({"f:labels": {"f:a": {}}});
        let status = json!({"f:conditions": {}, "f:certificate": {}});
        assert_eq!(left(("", "Pod"), "")["f:status"], json!(null));
        assert_eq!(left(("", "Node"), "status"), json!({"f:metadata": labels, "f:status": status}));
        assert_eq!(left(("apps", "Deployment"), "status"), json!({"f:status": status}));
        assert_eq!(left(("storage.k8s.io", "VolumeAttachment"), "status"), json!({"f:status": status}));
        let csr = ("certificates.k8s.io", "CertificateSigningRequest");
        assert_eq!(left(csr, ""), json!({"f:metadata": labels}));
        assert_eq!(left(csr, "approval")["f:status"], json!({"f:conditions": {}}));
        assert_eq!(left(("", "ConfigMap"), "")["f:status"], status);
        assert_eq!(left(("", "Pod"), "resize")["f:status"], status);
    }
}
