//! The current and the next template of a StatefulSet, kept as ControllerRevisions.

use super::identity;
use crate::common::{hash, history, meta};
use client::{Client, kube};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use std::sync::Arc;

const HASH: &str = "controller.kubernetes.io/hash";

/// A template and the name of its revision.
#[derive(Clone, Debug, Default)]
pub struct Revision {
    /// Name of the ControllerRevision.
    pub name: String,
    /// The template it holds.
    pub template: PodTemplateSpec,
}

/// The templates that pods of the set have or get.
#[derive(Clone, Debug, Default)]
pub struct Revisions {
    /// What the last completed update went to.
    pub current: Revision,
    /// What the set's template is now.
    pub update: Revision,
    /// How many names were taken by other templates.
    pub collision_count: i32,
}

/// Finds the revisions, and writes the next one if the template is new or an old one has returned. `known` is sorted.
pub async fn resolve(
    client: &Client,
    set: &StatefulSet,
    known: &[Arc<ControllerRevision>],
) -> Result<Revisions, kube::Error> {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let mut collision_count = status.collision_count.unwrap_or(0);
    let number = known.last().map_or(1, |last| last.revision + 1);
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
    let data = history::template_patch(&template);
    let build = |count| {
        let hash = hash::revision_hash(&data, count);
        history::build(set, &labels, (HASH, hash), data.clone(), number)
    };
    let next = build(collision_count);
    let update = match known.iter().rposition(|revision| history::equal(revision, &next)) {
        Some(index) if index + 1 == known.len() => ControllerRevision::clone(&known[index]),
        Some(index) => history::renumber(client, &known[index], number).await?,
        None => history::create(client, build, &mut collision_count).await?,
    };
    let current = known.iter().find(|revision| {
        status.current_revision.as_deref().is_some_and(|name| name == meta::name(&revision.metadata))
    });
    let held = |revision: &ControllerRevision| Revision {
        name: meta::name(&revision.metadata).to_owned(),
        template: history::template_of(revision).unwrap_or_else(|| template.clone()),
    };
    Ok(Revisions {
        current: held(current.map_or(&update, Arc::as_ref)),
        update: held(&update),
        collision_count,
    })
}

/// Revisions beyond the history limit that no pod has.
pub fn outdated(
    set: &StatefulSet,
    known: &[Arc<ControllerRevision>],
    pods: &[Arc<Pod>],
    revisions: &Revisions,
) -> Vec<Arc<ControllerRevision>> {
    let limit = set.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    history::beyond_limit(known, limit, |revision| {
        let name = meta::name(&revision.metadata);
        name == revisions.current.name
            || name == revisions.update.name
            || pods.iter().any(|pod| identity::revision(pod) == name)
    })
}
