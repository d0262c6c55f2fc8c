//! Who controls what: adoption of orphans that match, release of controlled objects that no longer do.
//!
//! Before an orphan is adopted the owner is read live once, so that an owner that is being deleted adopts nothing.
//! As upstream's pkg/controller/controller_ref_manager.go.

use super::Selector;
use super::errors::{self, IgnoreGone};
use super::meta;
use client::kube::api::{Patch, PatchParams};
use client::kube::core::NamespaceResourceScope;
use client::kube::{self, Resource};
use client::{Api, Client, Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use std::sync::Arc;

/// The index of controlled objects by their controller's UID, and of orphans by namespace.
pub const CONTROLLER_INDEX: &str = "controller-uid";

/// The value under which the index has the orphans of a namespace.
pub fn orphans_of(namespace: &str) -> String {
    format!("_os/{namespace}")
}

/// The values of [`CONTROLLER_INDEX`] for an object.
pub fn controller_index(meta: &ObjectMeta) -> Vec<String> {
    vec![match meta::controller_of(meta) {
        Some(owner) => owner.uid.clone(),
        None => orphans_of(meta::namespace(meta)),
    }]
}

/// What an owner does about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's.
    Keep,
    /// It is an orphan that matches.
    Adopt,
    /// It is the owner's but no longer matches.
    Release,
    /// It is none of the owner's business.
    Ignore,
}

/// Decides whether `owner` has or wants `object`.
pub fn claim(owner: &ObjectMeta, selector: &Selector, object: &ObjectMeta) -> Claim {
    let matches = selector.matches(meta::labels(object));
    match meta::controller_of(object) {
        Some(controller) if controller.uid != meta::uid(owner) => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if meta::is_deleting(owner) => Claim::Ignore,
        Some(_) => Claim::Release,
        None if meta::is_deleting(owner) || !matches || meta::is_deleting(object) => Claim::Ignore,
        None if meta::namespace(owner) != meta::namespace(object) => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Claims objects for `owner` and returns those that are its own now.
pub async fn claim_all<O, K>(
    client: &Client,
    owner: &O,
    selector: &Selector,
    objects: Vec<Arc<K>>,
    finalizers: &[&str],
) -> Result<Vec<Arc<K>>, kube::Error>
where
    O: Object + Resource<Scope = NamespaceResourceScope>,
    K: Object + Resource<Scope = NamespaceResourceScope>,
{
    let namespace = meta::namespace(owner.meta());
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut claimed = Vec::with_capacity(objects.len());
    let mut may_adopt = None;
    for object in objects {
        match claim(owner.meta(), selector, object.meta()) {
            Claim::Keep => claimed.push(object),
            Claim::Ignore => {}
            Claim::Release => release(&api, owner.meta(), object.meta(), finalizers).await?,
            Claim::Adopt => {
                if may_adopt.is_none() {
                    may_adopt = Some(still_there(client, owner).await?);
                }
                if may_adopt == Some(true) {
                    claimed.extend(adopt(&api, owner, object.meta(), finalizers).await?.map(Arc::new));
                }
            }
        }
    }
    Ok(claimed)
}

async fn still_there<O>(client: &Client, owner: &O) -> Result<bool, kube::Error>
where
    O: Object + Resource<Scope = NamespaceResourceScope>,
{
    let api: Api<O> = Api::namespaced(client.clone(), meta::namespace(owner.meta()));
    let fresh = api.get(meta::name(owner.meta())).await.ignore_not_found()?;
    Ok(fresh.is_some_and(|fresh| fresh.meta().uid == owner.meta().uid && !meta::is_deleting(fresh.meta())))
}

async fn adopt<O: Object, K: Object>(
    api: &Api<K>,
    owner: &O,
    object: &ObjectMeta,
    finalizers: &[&str],
) -> Result<Option<K>, kube::Error> {
    let mut metadata = json!({ "ownerReferences": [meta::controller_reference(owner)], "uid": object.uid });
    if !finalizers.is_empty() {
        metadata["finalizers"] = json!(finalizers);
    }
    let patch = Patch::Strategic(json!({ "metadata": metadata }));
    api.patch(meta::name(object), &PatchParams::default(), &patch).await.ignore_not_found()
}

async fn release<K: Object>(
    api: &Api<K>,
    owner: &ObjectMeta,
    object: &ObjectMeta,
    finalizers: &[&str],
) -> Result<(), kube::Error> {
    let mut metadata =
        json!({ "ownerReferences": [{ "$patch": "delete", "uid": meta::uid(owner) }], "uid": object.uid });
    if !finalizers.is_empty() {
        metadata["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    let patch = Patch::Strategic(json!({ "metadata": metadata }));
    match api.patch(meta::name(object), &PatchParams::default(), &patch).await {
        // Invalid: the reference is gone, or the object is another one by now.
        Err(error) if errors::is_invalid(&error) => Ok(()),
        other => other.map(drop).ignore_not_found().map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::errors::tests::client_that_says;
    use crate::common::pods::tests::pod;
    use k8s_openapi::api::apps::v1::ReplicaSet;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference, Time};

    fn object(owner: Option<&str>, label: &str, deleting: bool) -> ObjectMeta {
        ObjectMeta {
            namespace: Some("ns".into()),
            labels: Some([("app".to_owned(), label.to_owned())].into()),
            deletion_timestamp: deleting.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
            owner_references: owner.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..Default::default() }]
            }),
            ..Default::default()
        }
    }

    #[test]
    fn claims() {
        let selector = LabelSelector {
            match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..Default::default()
        };
        let selector = Selector::from_meta(Some(&selector)).expect("valid");
        for (owner_deleting, owner, label, deleting, expected) in [
            (false, Some("me"), "web", false, Claim::Keep),
            (false, Some("me"), "web", true, Claim::Keep),
            (false, Some("me"), "other", false, Claim::Release),
            (true, Some("me"), "other", false, Claim::Ignore),
            (true, Some("me"), "web", false, Claim::Keep),
            (false, Some("you"), "web", false, Claim::Ignore),
            (false, None, "web", false, Claim::Adopt),
            (false, None, "web", true, Claim::Ignore),
            (true, None, "web", false, Claim::Ignore),
            (false, None, "other", false, Claim::Ignore),
        ] {
            let mut me = object(None, "", owner_deleting);
            me.uid = Some("me".into());
            let decided = claim(&me, &selector, &object(owner, label, deleting));
            assert_eq!(decided, expected, "{owner_deleting} {owner:?} {label} {deleting}");
        }
    }

    /// A pod that somebody else changed at the same time is an orphan still, and the set has to come back to it.
    #[tokio::test]
    async fn adoption_and_release_that_conflict_are_tried_again() {
        for (code, reason, done) in [(404, "NotFound", true), (409, "Conflict", false)] {
            let api: Api<Pod> = Api::namespaced(client_that_says(code, reason), "default");
            let (set, pod) = (ReplicaSet::default(), pod("p", "n1", "Running", None).metadata);
            let adopted = adopt(&api, &set, &pod, &[]).await;
            assert_eq!(adopted.is_ok_and(|pod| pod.is_none()), done, "{reason}");
            assert_eq!(release(&api, &set.metadata, &pod, &[]).await.is_ok(), done, "{reason}");
        }
    }
}
