//! ControllerRevisions: the past templates of StatefulSets and DaemonSets. As upstream's pkg/controller/history.
//!
//! A revision holds the part of the object that it stands for, as a patch. Two revisions are equal when these parts
//! are; hashes only name them.

use super::{errors, meta};
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::kube::{self, Resource};
use client::{Api, Client};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a revision of a pod template holds: a patch that replaces the template.
pub fn template_patch(template: &PodTemplateSpec) -> Value {
    let mut template = serde_json::to_value(template).expect("API types always encode");
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// The pod template that a revision holds.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.pointer("/spec/template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// A revision of `owner` that holds `data`. `hash_label` is the label that gets the hash that names it.
pub fn build<O: Resource<DynamicType = ()>>(
    owner: &O,
    labels: &BTreeMap<String, String>,
    (hash_label, hash): (&str, String),
    data: Value,
    number: i64,
) -> ControllerRevision {
    let mut labels = labels.clone();
    labels.insert(hash_label.to_owned(), hash.clone());
    let name = meta::name(owner.meta());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", &name[..name.len().min(223)])),
            namespace: owner.meta().namespace.clone(),
            labels: Some(labels),
            annotations: owner.meta().annotations.clone(),
            owner_references: Some(vec![meta::controller_reference(owner)]),
            ..Default::default()
        },
        data: Some(RawExtension(data)),
        revision: number,
    }
}

/// Whether two revisions hold the same.
pub fn equal(a: &ControllerRevision, b: &ControllerRevision) -> bool {
    a.data.as_ref().map(|data| &data.0) == b.data.as_ref().map(|data| &data.0)
}

/// Orders by number, then age, then name.
pub fn sort(revisions: &mut [Arc<ControllerRevision>]) {
    revisions.sort_by_key(|revision| {
        (revision.revision, meta::created_at(&revision.metadata), meta::name(&revision.metadata).to_owned())
    });
}

/// Creates a revision. When its name is taken by one that holds something else, `collision_count` grows until it is
/// not. Returns the revision, which may be one that was there.
pub async fn create(
    client: &Client,
    build: impl Fn(i32) -> ControllerRevision,
    collision_count: &mut i32,
) -> Result<ControllerRevision, kube::Error> {
    loop {
        let revision = build(*collision_count);
        let api: Api<ControllerRevision> =
            Api::namespaced(client.clone(), meta::namespace(&revision.metadata));
        match api.create(&PostParams::default(), &revision).await {
            Err(error) if errors::is_already_exists(&error) => {
                let taken = api.get(meta::name(&revision.metadata)).await?;
                if equal(&taken, &revision) {
                    return Ok(taken);
                }
                *collision_count += 1;
            }
            other => return other,
        }
    }
}

/// Gives a revision another number.
pub async fn renumber(
    client: &Client,
    revision: &ControllerRevision,
    number: i64,
) -> Result<ControllerRevision, kube::Error> {
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), meta::namespace(&revision.metadata));
    let changed = ControllerRevision { revision: number, ..revision.clone() };
    api.replace(meta::name(&revision.metadata), &PostParams::default(), &changed).await
}

/// Deletes exactly this revision.
pub async fn delete(client: &Client, revision: &ControllerRevision) -> Result<(), kube::Error> {
    use super::errors::IgnoreGone;
    let api: Api<ControllerRevision> = Api::namespaced(client.clone(), meta::namespace(&revision.metadata));
    let exactly = Preconditions { uid: revision.metadata.uid.clone(), resource_version: None };
    let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
    api.delete(meta::name(&revision.metadata), &params).await.map(drop).ignore_gone().map(drop)
}

/// Of these revisions (sorted), those beyond the limit that nothing uses; oldest first.
pub fn beyond_limit(
    revisions: &[Arc<ControllerRevision>],
    limit: i32,
    is_live: impl Fn(&ControllerRevision) -> bool,
) -> Vec<Arc<ControllerRevision>> {
    let idle: Vec<_> = revisions.iter().filter(|revision| !is_live(revision)).cloned().collect();
    let excess = idle.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    idle.into_iter().take(excess).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::StatefulSet;

    #[test]
    fn template_survives_the_round_trip() {
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some([("a".to_owned(), "b".to_owned())].into()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let set = StatefulSet::default();
        let revision = build(
            &set,
            &BTreeMap::new(),
            ("controller.kubernetes.io/hash", "5c9b7f".to_owned()),
            template_patch(&template),
            1,
        );
        assert_eq!(template_of(&revision), Some(template));
        let name = meta::name(&revision.metadata).to_owned();
        let label = meta::label(&revision.metadata, "controller.kubernetes.io/hash").unwrap_or_default();
        assert_eq!(name, format!("-{label}"));
    }

    #[test]
    fn oldest_idle_revisions_go() {
        let mut revisions: Vec<_> = [3, 1, 2, 4]
            .map(|revision| Arc::new(ControllerRevision { revision, ..Default::default() }))
            .into();
        sort(&mut revisions);
        let gone = beyond_limit(&revisions, 1, |revision| revision.revision == 1);
        assert_eq!(gone.iter().map(|revision| revision.revision).collect::<Vec<_>>(), [2, 3]);
    }
}
