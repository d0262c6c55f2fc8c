//! Which nodes a volume is to be attached to, and which attachments have to go. Pure.

use super::super::claims::access_modes;
use crate::common::{meta, nodes};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod};
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// The nodes that need a volume, with the pods for which they do.
pub type Wanted = BTreeMap<String, Vec<Arc<Pod>>>;

/// What becomes of an attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Pods of the node need it.
    Keep,
    /// No pod needs it, but the node has not let go of it.
    InUse,
    /// It can go.
    Detach,
}

/// What to do about a volume.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Nodes to attach it to.
    pub attach: Vec<String>,
    /// Nodes that have to wait because another one has the volume for itself.
    pub refused: Vec<String>,
    /// Attachments to delete.
    pub detach: Vec<String>,
    /// Whether a node holds the volume that may be made to let go.
    pub in_use: bool,
}

/// The name of the attachment of a volume to a node. As upstream's getAttachmentName.
pub fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let hash = Sha256::digest(format!("{handle}{driver}{node}"));
    hash.iter().fold("csi-".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Whether an attachment has such a name as only this controller gives. Those that others have made stay.
pub fn is_named_by_us(attachment: &VolumeAttachment) -> bool {
    let hash = meta::name(&attachment.metadata).strip_prefix("csi-");
    hash.is_some_and(|hash| hash.len() == 64 && hash.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// Driver and handle of a volume, if a CSI driver has it.
pub fn csi(volume: &PersistentVolume) -> Option<(&str, &str)> {
    let source = volume.spec.as_ref()?.csi.as_ref()?;
    Some((&source.driver, &source.volume_handle))
}

/// The name by which nodes call a volume in their status.
pub fn unique_name(volume: &PersistentVolume) -> Option<String> {
    let (driver, handle) = csi(volume)?;
    Some(format!("kubernetes.io/csi/{driver}^{handle}"))
}

/// The attachment that brings a volume to a node.
pub fn attachment(volume: &PersistentVolume, node: &str) -> Option<VolumeAttachment> {
    let (driver, handle) = csi(volume)?;
    serde_json::from_value(json!({
        "metadata": { "name": attachment_name(handle, driver, node) },
        "spec": {
            "attacher": driver, "nodeName": node,
            "source": { "persistentVolumeName": meta::name(&volume.metadata) },
        },
    }))
    .ok()
}

/// Whether several nodes may have the volume at once. As upstream's IsMultiAttachAllowed.
pub fn is_shared(volume: &PersistentVolume) -> bool {
    let modes = access_modes(volume);
    modes.is_empty() || modes.iter().any(|mode| matches!(mode.as_str(), "ReadWriteMany" | "ReadOnlyMany"))
}

/// Whether the node leaves attaching to this controller.
pub fn is_managed(node: &Node) -> bool {
    let annotation = "volumes.kubernetes.io/controller-managed-attach-detach";
    meta::annotation(&node.metadata, annotation) == Some("true")
}

fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|status| status.attached)
}

/// What becomes of one attachment. `patience` is over when the node had long enough to let go.
pub fn fate(
    attachment: &VolumeAttachment,
    name: &str,
    wanted: &Wanted,
    node: Option<&Node>,
    patience: bool,
) -> Fate {
    if wanted.contains_key(&attachment.spec.node_name) {
        return Fate::Keep;
    }
    let Some(node) = node else { return Fate::Detach };
    let status = node.status.as_ref();
    let held = status.and_then(|status| status.volumes_in_use.as_deref()).unwrap_or_default();
    let out_of_service =
        nodes::taints(node).iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service");
    let lost = patience && nodes::condition(node, "Ready") != Some("True");
    if held.iter().any(|held| held == name) && !out_of_service && !lost { Fate::InUse } else { Fate::Detach }
}

/// Whether a node's status says that it has the volume.
pub fn is_reported(node: &Node, name: &str) -> bool {
    let attached = node.status.as_ref().and_then(|status| status.volumes_attached.as_deref());
    attached.unwrap_or_default().iter().any(|attached| attached.name == name)
}

/// Decides about one volume.
pub fn plan(
    volume: &PersistentVolume,
    wanted: &Wanted,
    attachments: &[Arc<VolumeAttachment>],
    node: impl Fn(&str) -> Option<Arc<Node>>,
    patience: impl Fn(&str) -> bool,
) -> Plan {
    let mut plan = Plan::default();
    let name = unique_name(volume).unwrap_or_default();
    let mut holders = BTreeSet::new();
    for attachment in attachments {
        let on = attachment.spec.node_name.as_str();
        holders.insert(on);
        if meta::is_deleting(&attachment.metadata) || !is_named_by_us(attachment) {
            continue;
        }
        let node = node(on);
        match fate(attachment, &name, wanted, node.as_deref(), patience(on)) {
            Fate::Keep => {}
            Fate::InUse => plan.in_use = true,
            // The node is told first that the volume goes, so that it does not mount it again.
            Fate::Detach if node.is_some_and(|node| is_reported(&node, &name)) => {}
            Fate::Detach => plan.detach.push(meta::name(&attachment.metadata).to_owned()),
        }
    }
    for on in wanted.keys().filter(|on| !holders.contains(on.as_str())) {
        if is_shared(volume) || (holders.is_empty() && plan.attach.is_empty()) {
            plan.attach.push(on.clone());
        } else {
            plan.refused.push(on.clone());
        }
    }
    plan
}

/// An attachment with the name of its volume, and what becomes of it.
pub struct Held {
    /// The attachment.
    pub attachment: Arc<VolumeAttachment>,
    /// The name by which nodes call the volume.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// The volumes that a node's status should say it has.
pub fn report(node: &Node, held: &[Held]) -> BTreeSet<String> {
    let on_node = |held: &&Held| held.attachment.spec.node_name == meta::name(&node.metadata);
    let counts = |held: &&Held| {
        is_attached(&held.attachment)
            && !meta::is_deleting(&held.attachment.metadata)
            && held.fate != Fate::Detach
    };
    held.iter().filter(on_node).filter(counts).map(|held| held.name.clone()).collect()
}

/// Whether a list of attached volumes is not what a node's status says.
pub fn differs(node: &Node, report: &BTreeSet<String>) -> bool {
    let attached = node.status.as_ref().and_then(|status| status.volumes_attached.as_deref());
    let said: BTreeSet<_> =
        attached.unwrap_or_default().iter().map(|attached| attached.name.clone()).collect();
    said != *report
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn volume(modes: &[&str]) -> PersistentVolume {
        serde_json::from_value(json!({
            "metadata": { "name": "v" },
            "spec": { "csi": { "driver": "d", "volumeHandle": "h" }, "accessModes": modes },
        }))
        .unwrap()
    }

    fn attached(on: &str, attached: bool, deleting: bool) -> Arc<VolumeAttachment> {
        let mut made = attachment(&volume(&[]), on).unwrap();
        made.status = serde_json::from_value(json!({ "attached": attached })).unwrap();
        if deleting {
            made.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        }
        Arc::new(made)
    }

    fn node(name: &str, in_use: bool, reported: bool, more: Value) -> Node {
        let unique = "kubernetes.io/csi/d^h";
        let mut node = json!({ "metadata": { "name": name }, "spec": {}, "status": {
            "conditions": [{ "type": "Ready", "status": "True" }] } });
        if in_use {
            node["status"]["volumesInUse"] = json!([unique]);
        }
        if reported {
            node["status"]["volumesAttached"] = json!([{ "name": unique, "devicePath": "" }]);
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            node[key] = value.clone();
        }
        serde_json::from_value(node).unwrap()
    }

    fn wanted(nodes: &[&str]) -> Wanted {
        nodes.iter().map(|node| ((*node).to_owned(), Vec::new())).collect()
    }

    #[test]
    fn names_are_upstreams() {
        assert_eq!(
            attachment_name("h", "d", "n1"),
            format!("csi-{}", {
                let hash = Sha256::digest(b"hdn1");
                hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            })
        );
        assert_eq!(unique_name(&volume(&[])).as_deref(), Some("kubernetes.io/csi/d^h"));
    }

    #[test]
    fn one_node_at_a_time_unless_the_volume_is_shared() {
        let none = |_: &str| None;
        let never = |_: &str| false;
        let once = volume(&["ReadWriteOnce"]);
        let first = plan(&once, &wanted(&["n1", "n2"]), &[], none, never);
        assert_eq!((first.attach, first.refused), (vec!["n1".to_owned()], vec!["n2".to_owned()]));
        let held = [attached("n1", true, false)];
        let second = plan(&once, &wanted(&["n1", "n2"]), &held, none, never);
        assert_eq!((second.attach.len(), second.refused.len(), second.detach.len()), (0, 1, 0));
        let going = plan(&once, &wanted(&["n2"]), &[attached("n1", true, true)], none, never);
        assert_eq!((going.attach.len(), going.refused.len()), (0, 1), "until the old one is gone");
        let many = plan(&volume(&["ReadWriteMany"]), &wanted(&["n1", "n2"]), &held, none, never);
        assert_eq!(many.attach, ["n2"]);
    }

    #[test]
    fn a_volume_goes_when_the_node_let_go_and_was_told() {
        let out = json!({ "spec": { "taints": [{ "key": "node.kubernetes.io/out-of-service", "effect": "NoExecute" }] } });
        for (in_use, reported, more, patience, detached, waits) in [
            (true, true, json!({}), false, false, true),
            (true, true, json!({}), true, false, true),
            (false, true, json!({}), false, false, false),
            (false, false, json!({}), false, true, false),
            (true, false, out, false, true, false),
        ] {
            let node = Arc::new(node("n1", in_use, reported, more));
            let find = |_: &str| Some(node.clone());
            let plan = plan(&volume(&[]), &wanted(&[]), &[attached("n1", true, false)], find, |_| patience);
            assert_eq!((plan.detach.len() == 1, plan.in_use), (detached, waits), "{in_use} {reported}");
        }
        let gone = plan(&volume(&[]), &wanted(&[]), &[attached("n1", true, false)], |_| None, |_| false);
        assert_eq!(gone.detach.len(), 1, "a node that is gone holds nothing");
        let mut silent = node("n1", true, false, json!({}));
        silent.status.as_mut().unwrap().conditions = None;
        let held = attached("n1", true, false);
        let name = "kubernetes.io/csi/d^h";
        assert_eq!(fate(&held, name, &wanted(&[]), Some(&silent), true), Fate::Detach);
        assert_eq!(fate(&held, name, &wanted(&[]), Some(&silent), false), Fate::InUse);
        assert_eq!(fate(&held, name, &wanted(&["n1"]), Some(&silent), true), Fate::Keep);
    }

    #[test]
    fn what_others_have_attached_is_left_to_them() {
        let mut theirs = VolumeAttachment::clone(&attached("n1", true, false));
        assert!(is_named_by_us(&theirs));
        for name in ["va-e2e-1", "csi-1", &format!("csi-{}", "x".repeat(64))] {
            theirs.metadata.name = Some(name.to_owned());
            let held = [Arc::new(theirs.clone())];
            let plan = plan(&volume(&[]), &wanted(&[]), &held, |_| None, |_| true);
            assert_eq!(plan.detach, [""; 0], "{name}");
        }
    }

    #[test]
    fn nodes_say_what_they_have_until_it_goes() {
        let node = node("n1", false, true, json!({}));
        let held = |on: &str, attach: bool, deleting: bool, fate| Held {
            attachment: attached(on, attach, deleting),
            name: "kubernetes.io/csi/d^h".to_owned(),
            fate,
        };
        for (held, said) in [
            (held("n1", true, false, Fate::Keep), true),
            (held("n1", true, false, Fate::InUse), true),
            (held("n1", true, false, Fate::Detach), false),
            (held("n1", false, false, Fate::Keep), false),
            (held("n1", true, true, Fate::Keep), false),
            (held("n2", true, false, Fate::Keep), false),
        ] {
            let report = report(&node, &[held]);
            assert_eq!(!report.is_empty(), said);
            assert_eq!(differs(&node, &report), !said);
        }
    }
}
