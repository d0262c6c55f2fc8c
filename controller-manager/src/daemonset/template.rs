//! The pods of a DaemonSet, and the revisions of its template.

use super::HASH;
use crate::common::{hash, history, meta, pods};
use client::{Client, kube};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};
use std::sync::Arc;

const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";
const GENERATION_LABEL: &str = "pod-template-generation";

/// Taints that do not keep daemons away.
const TOLERATED: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];

/// The tolerations of the template and those that every daemon has.
pub fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let host_network = spec.host_network == Some(true);
    let network = host_network.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    let mut all = spec.tolerations.clone().unwrap_or_default();
    for (key, effect) in TOLERATED.into_iter().chain(network) {
        let toleration = Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Default::default()
        };
        let same = |held: &Toleration| {
            held.key == toleration.key
                && held.operator == toleration.operator
                && held.effect == toleration.effect
                && held.value.as_deref().unwrap_or_default().is_empty()
        };
        match all.iter_mut().find(|held| same(held)) {
            Some(held) => *held = toleration,
            None => all.push(toleration),
        }
    }
    all
}

fn generation(set: &DaemonSet) -> Option<i64> {
    meta::annotation(&set.metadata, GENERATION_ANNOTATION)?.parse().ok()
}

fn template(set: &DaemonSet) -> PodTemplateSpec {
    set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
}

/// The pod of a node: the scheduler may bind it to that node only.
pub fn pod(set: &DaemonSet, hash: &str, node: &str) -> Pod {
    let owner = meta::controller_reference(set);
    let mut pod = pods::from_template(&template(set), meta::name(&set.metadata), owner);
    let labels = pod.metadata.labels.get_or_insert_default();
    if let Some(generation) = generation(set) {
        labels.insert(GENERATION_LABEL.to_owned(), generation.to_string());
    }
    labels.insert(HASH.to_owned(), hash.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.to_owned()]),
            }]),
            match_expressions: None,
        }],
    });
    pod
}

/// Whether the pod was made from the set's present template.
pub fn is_updated(set: &DaemonSet, pod: &Pod, hash: &str) -> bool {
    let by_generation = generation(set).is_some_and(|generation| {
        meta::label(&pod.metadata, GENERATION_LABEL) == Some(generation.to_string().as_str())
    });
    by_generation || (!hash.is_empty() && meta::label(&pod.metadata, HASH) == Some(hash))
}

/// Finds the revision of the present template, with the greatest number; makes or renumbers it if need be.
pub async fn resolve(
    client: &Client,
    set: &DaemonSet,
    known: &[Arc<ControllerRevision>],
    collisions: &mut i32,
) -> Result<ControllerRevision, kube::Error> {
    let template = template(set);
    let data = history::template_patch(&template);
    let holds =
        |revision: &&Arc<ControllerRevision>| revision.data.as_ref().is_some_and(|held| held.0 == data);
    let (same, old): (Vec<_>, Vec<_>) = known.iter().partition(holds);
    let number = old.iter().map(|revision| revision.revision).max().unwrap_or(0) + 1;
    match same.last() {
        None => {
            let counted = set.status.as_ref().and_then(|status| status.collision_count);
            let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
            let build = |count| {
                let hash = revision_hash(&template, counted, count);
                history::build(set, &labels, (HASH, hash), data.clone(), number)
            };
            history::create(client, build, collisions).await
        }
        Some(current) if current.revision < number => history::renumber(client, current, number).await,
        Some(current) => Ok(ControllerRevision::clone(current)),
    }
}

/// The hash that names a revision. Before any collision was counted, none counts: not the same as that 0 were.
fn revision_hash(template: &PodTemplateSpec, counted: Option<i32>, count: i32) -> String {
    let unchanged = count == counted.unwrap_or(0);
    hash::template_hash(template, if unchanged { counted } else { Some(count) })
}

/// Revisions beyond the history limit that no pod has.
pub fn outdated(
    set: &DaemonSet,
    known: &[Arc<ControllerRevision>],
    current: &ControllerRevision,
    pods: &[Arc<Pod>],
) -> Vec<Arc<ControllerRevision>> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    history::beyond_limit(known, limit, |revision| {
        let hash = meta::label(&revision.metadata, HASH);
        revision.metadata.name == current.metadata.name
            || pods.iter().any(|pod| hash.is_some() && meta::label(&pod.metadata, HASH) == hash)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_are_named_as_upstream_names_them() {
        let labels = serde_json::json!({"labels": {"app": "web"}});
        let spec = serde_json::json!({"containers": [{"name": "c", "image": "new"}]});
        let template = serde_json::json!({"metadata": labels, "spec": spec});
        let template = serde_json::from_value(template).expect("the template is one");
        let hash = |counted, count| revision_hash(&template, counted, count);
        assert_eq!(hash(None, 0), "768768d587");
        assert_eq!(hash(Some(0), 0), "7cdc5d97f5");
        assert_eq!(hash(None, 3), "77d65b97dd");
        assert_eq!(hash(Some(3), 3), "77d65b97dd");
        assert_eq!(hash(Some(0), 3), "77d65b97dd");
    }
}
