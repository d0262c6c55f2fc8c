//! DELETE of one object and of collections: preconditions, grace, finalizers, propagation (upstream
//! `registry/rest/delete.go` and `genericregistry.Store.Delete`).

use api::names::GroupVersionKind;
use api::status::ApiError;
use futures::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::list;
use super::options::{DeleteOptions, ListOptions};
use super::render::{IncludeObject, transformed};
use crate::admission::Operation;
use crate::body::{self, Body};
use crate::codec;
use crate::negotiate;
use crate::object::{self, meta_text, set_meta};
use crate::registry::storage::{Change, Current, Next, Updated};
use crate::registry::write::Write;
use crate::registry::{Deletion, Resource};
use crate::server::{Context, response};

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// Deletions of a collection that are under way at once.
const PARALLEL: usize = 16;

/// Deletes one object.
pub async fn delete(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept_for(resource)?;
    let options = read_options(cx, resource, request).await?;
    let write = writer(cx, resource, &options);
    let name = cx.info.name.as_str();
    if let Some(why) = api::strategy::why_undeletable(&resource.stored_as, name) {
        return Err(ApiError::forbidden(&resource.group_resource(), name, why));
    }
    let outcome = remove(&write, name, &options).await?;
    let waits = matches!(outcome, Outcome::Pending(_)) && options.orphan_dependents == Some(false);
    let status = if waits { StatusCode::ACCEPTED } else { StatusCode::OK };
    let value = match outcome {
        Outcome::Gone(value) if returns_object(&resource.gvr.group, &resource.gvr.resource) => {
            resource.to_internal(value).await?
        }
        Outcome::Gone(value) => success(resource, name, meta_text(&value, "uid")),
        Outcome::Pending(value) => resource.to_internal(value).await?,
    };
    let include = IncludeObject::parse(cx.query.first("includeObject"))?;
    let value = transformed(&resource.into(), value, accepted, include)?;
    response::object(status, accepted, &value, &cx.headers)
}

fn writer<'a>(cx: &'a Context, resource: &'a Resource, options: &DeleteOptions) -> Write<'a> {
    let dry_run = options.dry_run;
    Write { dry_run, options: options.raw.clone(), ..Write::new(cx, resource) }
}

/// The options, from the body or the query.
pub async fn read_options(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<DeleteOptions, ApiError> {
    let bytes = body::read(request.into_body()).await?;
    if bytes.is_empty() {
        return DeleteOptions::parse(None, &cx.query);
    }
    let encoding = negotiate::content_encoding(&cx.headers)?;
    let meta = GroupVersionKind::new("meta.k8s.io", "v1", "DeleteOptions");
    let core = GroupVersionKind::new("", "v1", "DeleteOptions");
    let own =
        GroupVersionKind::new(resource.gvk.group.clone(), resource.gvk.version.clone(), "DeleteOptions");
    let decoded = codec::decode_one_of(&bytes, encoding, &[meta, core, own]).map_err(wrong_options)?;
    cx.record_body(&decoded.value);
    DeleteOptions::parse(Some(decoded.value), &cx.query)
}

/// A body of another kind is refused by a scheme that knows nothing but options, and one of no kind in few words.
fn wrong_options(error: ApiError) -> ApiError {
    const UNRECOGNIZED: &str = "the object provided is unrecognized (must be of type DeleteOptions): ";
    if let Some((why, _)) = error.message().strip_prefix(UNRECOGNIZED).and_then(|why| why.rsplit_once(" (")) {
        return ApiError::bad_request(why);
    }
    let Some((found, _)) = error.message().split_once(" cannot be handled as a DeleteOptions: ") else {
        return error;
    };
    let Some((kind, version)) = found.split_once(" in version ") else { return error };
    ApiError::bad_request(format!(
        "no kind {kind:?} is registered for version {version} in scheme \
         \"k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27\""
    ))
}

/// What became of a deletion.
pub enum Outcome {
    /// The object is gone; its last state.
    Gone(Value),
    /// It is marked and waits for something.
    Pending(Value),
}

/// Deletes one object, or marks it.
pub async fn remove(write: &Write<'_>, name: &str, options: &DeleteOptions) -> Result<Outcome, ApiError> {
    let mut change = DeleteChange { write, name, options: options.clone() };
    let namespace = write.namespace;
    match write.storage().update(namespace, name, &mut change).await? {
        Updated::Deleted(last, revision) => {
            write.release(&last).await;
            let mut last = last;
            if !write.dry_run {
                set_meta(&mut last, "resourceVersion", Some(revision.to_string().into()));
            }
            Ok(Outcome::Gone(last))
        }
        Updated::Kept(value) => Ok(Outcome::Pending(value)),
        Updated::Written(written) => {
            let value = written.object.value().map_err(|e| ApiError::internal(e.to_string()))?;
            // A grace of zero with nothing to wait for: marked, and gone at once.
            if change.ends_now(&value) { change.end(value).await } else { Ok(Outcome::Pending(value)) }
        }
    }
}

struct DeleteChange<'a> {
    write: &'a Write<'a>,
    name: &'a str,
    options: DeleteOptions,
}

#[async_trait::async_trait]
impl Change for DeleteChange<'_> {
    async fn next(&mut self, current: Option<&Current>) -> Result<Next, ApiError> {
        let (write, name) = (self.write, self.name);
        let resource = write.resource;
        let Some(current) = current else {
            return Err(ApiError::not_found(&resource.group_resource(), name));
        };
        let old = &current.value;
        check_preconditions(resource, name, &self.options, old)?;
        write.admit(Operation::Delete, name, &mut Value::Null, Some(old)).await?;
        write.admission_validate(Operation::Delete, name, &Value::Null, Some(old)).await?;
        if resource.deletion == Deletion::Namespace {
            return Ok(delete_namespace(old));
        }
        if resource.deletion == Deletion::Definition && !object::is_being_deleted(old) {
            let (marked, now) = (api::crd::conditions::mark_for_deletion(old), Timestamp::now());
            let mut marked = marked.ok_or_else(|| ApiError::internal("a definition that cannot be read"))?;
            // As upstream: nothing else of it changes.
            set_meta(&mut marked, "deletionTimestamp", Some(object::timestamp(now)));
            return Ok(Next::Put(marked));
        }
        Ok(plan(resource, &self.options, old, Timestamp::now()))
    }
}

impl DeleteChange<'_> {
    /// Whether a marked object has nothing left to wait for.
    fn ends_now(&self, value: &Value) -> bool {
        let held = self.write.resource.deletion == Deletion::Namespace && !spec_finalizers(value).is_empty();
        object::is_being_deleted(value)
            && object::finalizers(value).is_empty()
            && object::meta_int(value, "deletionGracePeriodSeconds").unwrap_or_default() == 0
            && !held
    }

    /// Deletes an object that was marked just now.
    async fn end(&self, last: Value) -> Result<Outcome, ApiError> {
        let mut end = End { last: last.clone() };
        match self.write.storage().update(self.write.namespace, self.name, &mut end).await? {
            Updated::Deleted(last, _) => {
                self.write.release(&last).await;
                Ok(Outcome::Gone(last))
            }
            Updated::Written(_) | Updated::Kept(_) => Ok(Outcome::Gone(last)),
        }
    }
}

struct End {
    last: Value,
}

#[async_trait::async_trait]
impl Change for End {
    async fn next(&mut self, current: Option<&Current>) -> Result<Next, ApiError> {
        Ok(match current {
            Some(current) if meta_text(&current.value, "uid") == meta_text(&self.last, "uid") => {
                Next::Delete(current.value.clone())
            }
            _ => Next::Keep(self.last.clone()),
        })
    }
}

/// Whether the object is the one the caller means.
pub fn check_preconditions(
    resource: &Resource,
    name: &str,
    options: &DeleteOptions,
    old: &Value,
) -> Result<(), ApiError> {
    let kind = api::names::GroupResource::new(resource.gvk.group.clone(), resource.gvk.kind.clone());
    let (uid, version) = (meta_text(old, "uid"), meta_text(old, "resourceVersion"));
    if let Some(asked) = options.uid.as_deref().filter(|asked| *asked != uid) {
        let why = format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({uid}). The object might have been deleted and then recreated"
        );
        return Err(ApiError::conflict(&kind, name, &why));
    }
    if let Some(asked) = options.resource_version.as_deref().filter(|asked| *asked != version) {
        let why = format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({version}). The object might have been modified"
        );
        return Err(ApiError::conflict(&kind, name, &why));
    }
    Ok(())
}

/// What a deletion does to an object. Pure.
fn plan(resource: &Resource, options: &DeleteOptions, old: &Value, now: Timestamp) -> Next {
    let mut object = old.clone();
    let graceful = match resource.deletion {
        Deletion::Graceful => grace(options, &mut object, now),
        _ => Grace::None,
    };
    if graceful == Grace::Pending {
        return Next::Keep(old.clone());
    }
    let finalizers = collector_finalizers(options, &object);
    let held = !finalizers.is_empty();
    let list = held.then(|| json!(finalizers));
    set_meta(&mut object, "finalizers", list);
    match graceful {
        // The kubelet (or whoever holds a finalizer) ends it. A grace of zero is seen too, before the end.
        Grace::Marked(_) => Next::Put(object),
        _ if held => {
            mark(&mut object, now);
            Next::Put(object)
        }
        _ => Next::Delete(object),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grace {
    /// Nothing to wait for.
    None,
    /// Marked already, and the new grace is no shorter.
    Pending,
    /// Marked with this grace.
    Marked(i64),
}

/// Marks a pod (upstream `BeforeDelete` with the pod strategy's `CheckGracefulDelete`).
fn grace(options: &DeleteOptions, pod: &mut Value, now: Timestamp) -> Grace {
    let asked = options.grace_period.map(|seconds| if seconds < 0 { 1 } else { seconds });
    if object::is_being_deleted(pod) {
        let present = object::meta_int(pod, "deletionGracePeriodSeconds").map(|s| if s < 0 { 1 } else { s });
        let Some(present) = present.filter(|seconds| *seconds != 0) else { return Grace::None };
        let Some(mut seconds) = asked.filter(|seconds| *seconds < present) else { return Grace::Pending };
        let marked: Timestamp = meta_text(pod, "deletionTimestamp").parse().unwrap_or(now);
        let mut end = marked - SignedDuration::from_secs(present) + SignedDuration::from_secs(seconds);
        if end < now {
            end = now;
            seconds = seconds.min(1);
        }
        set_meta(pod, "deletionTimestamp", Some(object::timestamp(end)));
        set_meta(pod, "deletionGracePeriodSeconds", Some(seconds.into()));
        return Grace::Marked(seconds);
    }
    let default = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(0);
    let mut seconds = asked.unwrap_or(default);
    let unscheduled = pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty();
    if unscheduled || matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded")) {
        seconds = 0;
    }
    let seconds = if seconds < 0 { 1 } else { seconds };
    set_meta(pod, "deletionTimestamp", Some(object::timestamp(now + SignedDuration::from_secs(seconds))));
    set_meta(pod, "deletionGracePeriodSeconds", Some(seconds.into()));
    bump_generation(pod);
    Grace::Marked(seconds)
}

fn bump_generation(object: &mut Value) {
    if let Some(generation) = object::meta_int(object, "generation").filter(|generation| *generation > 0) {
        set_meta(object, "generation", Some((generation + 1).into()));
    }
}

/// Marks an object that has no grace of its own (upstream `markAsDeleting`).
fn mark(object: &mut Value, now: Timestamp) {
    if !object::is_being_deleted(object) {
        bump_generation(object);
    }
    let marked: Option<Timestamp> = meta_text(object, "deletionTimestamp").parse().ok();
    if marked.is_none_or(|marked| marked > now) {
        set_meta(object, "deletionTimestamp", Some(object::timestamp(now)));
    }
    set_meta(object, "deletionGracePeriodSeconds", Some(0.into()));
}

/// The finalizers after the propagation policy had its say (upstream `deletionFinalizersForGarbageCollection`).
fn collector_finalizers(options: &DeleteOptions, object: &Value) -> Vec<String> {
    let present = object::finalizers(object);
    let has = |name: &str| present.iter().any(|f| f == name);
    let policy = options.propagation.as_deref().filter(|policy| !policy.is_empty());
    let orphan = match (options.orphan_dependents, policy) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == "Orphan",
        (None, None) => has(ORPHAN),
    };
    let foreground = match (options.orphan_dependents, policy) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == "Foreground",
        (None, None) => has(FOREGROUND),
    };
    let mut finalizers: Vec<String> =
        present.into_iter().filter(|f| !matches!(f.as_str(), ORPHAN | FOREGROUND)).collect();
    finalizers.extend(orphan.then(|| ORPHAN.to_owned()));
    finalizers.extend(foreground.then(|| FOREGROUND.to_owned()));
    finalizers
}

fn spec_finalizers(namespace: &Value) -> Vec<&str> {
    namespace["spec"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// A namespace is marked and said to be terminating; the namespace controller empties it (upstream
/// `registry/core/namespace/storage`).
fn delete_namespace(old: &Value) -> Next {
    if object::is_being_deleted(old) {
        let done = spec_finalizers(old).is_empty() && object::finalizers(old).is_empty();
        return if done { Next::Delete(old.clone()) } else { Next::Keep(old.clone()) };
    }
    let mut namespace = old.clone();
    mark(&mut namespace, Timestamp::now());
    set_meta(&mut namespace, "deletionGracePeriodSeconds", None);
    namespace["status"]["phase"] = "Terminating".into();
    Next::Put(namespace)
}

/// Resources that answer a deletion with the object (upstream `ReturnDeletedObject`).
pub(crate) fn returns_object(group: &str, plural: &str) -> bool {
    matches!(
        (group, plural),
        (
            "",
            "pods"
                | "services"
                | "namespaces"
                | "persistentvolumes"
                | "persistentvolumeclaims"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
        ) | (
            "storage.k8s.io",
            "csidrivers" | "csinodes" | "storageclasses" | "volumeattachments" | "volumeattributesclasses"
        ) | ("resource.k8s.io", _)
    )
}

/// The Status of a deletion that is done.
fn success(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource.gvr.resource, "uid": uid});
    if !resource.gvr.group.is_empty() {
        details["group"] = resource.gvr.group.clone().into_owned().into();
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Deletes all objects that a selector chooses, and answers with what they were.
pub async fn collection(
    cx: &Context,
    resource: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept_for(resource)?;
    let list_options = ListOptions { watch: false, ..ListOptions::parse(cx, resource, false)? };
    let options = read_options(cx, resource, request).await?;
    let (page, meta) = list::page(cx, resource, &list_options).await?;
    let (write, options) = (&writer(cx, resource, &options), &options);
    let names: Vec<String> = page.items.iter().map(|item| item.name().to_owned()).collect();
    // Made first: a stream that holds the closure itself is not provably Send.
    let removals: Vec<_> = names.iter().map(|name| remove(write, name, options)).collect();
    let mut outcomes = stream::iter(removals).buffered(PARALLEL);
    let mut first_error = None;
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(_) => {}
            // Gone already is as good as deleted.
            Err(error) if error.code() == 404 => {}
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    if let Some(error) = first_error {
        return Err(error);
    }
    list::answer(cx, resource, page.items, &meta, accepted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(node: &str) -> Value {
        json!({"metadata": {"name": "p", "generation": 1}, "spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}})
    }

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn pods_on_nodes_get_their_grace() {
        let mut scheduled = pod("n1");
        assert_eq!(grace(&DeleteOptions::default(), &mut scheduled, now()), Grace::Marked(30));
        assert_eq!(scheduled["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
        assert_eq!(scheduled["metadata"]["generation"], 2);
        assert_eq!(grace(&DeleteOptions::default(), &mut scheduled, now()), Grace::Pending);
        let shorter = DeleteOptions { grace_period: Some(5), ..DeleteOptions::default() };
        assert_eq!(grace(&shorter, &mut scheduled, now()), Grace::Marked(5));
        assert_eq!(scheduled["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
        let at_once = DeleteOptions { grace_period: Some(0), ..DeleteOptions::default() };
        assert_eq!(grace(&at_once, &mut scheduled, now()), Grace::Marked(0));
        assert_eq!(grace(&DeleteOptions::default(), &mut pod(""), now()), Grace::Marked(0));
    }

    #[test]
    fn propagation_policies_become_finalizers() {
        let object = json!({"metadata": {"finalizers": ["a", "orphan"]}});
        let with = |policy: Option<&str>| DeleteOptions {
            propagation: policy.map(str::to_owned),
            ..DeleteOptions::default()
        };
        assert_eq!(collector_finalizers(&with(None), &object), ["a", "orphan"]);
        assert_eq!(collector_finalizers(&with(Some("Background")), &object), ["a"]);
        assert_eq!(collector_finalizers(&with(Some("Foreground")), &object), ["a", "foregroundDeletion"]);
    }
}
