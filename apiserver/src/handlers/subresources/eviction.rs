//! `eviction`: deletes a pod if its disruption budget allows it (upstream `EvictionREST`).

use api::names::{GroupResource, GroupVersionKind};
use api::selector::LabelSelector;
use api::status::ApiError;
use http::{Request, Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{StatusCause, Time};
use serde_json::{Value, json};

use super::value;
use crate::admission::Operation;
use crate::body::Body;
use crate::cacher::{self, Filter, ReadAt};
use crate::handlers::create::read_one_of;
use crate::handlers::delete::remove;
use crate::handlers::options::DeleteOptions;
use crate::object::{self, meta_text};
use crate::registry::Resource;
use crate::registry::managed_fields;
use crate::registry::storage::{Change, Current, Next, Storage, cache_error};
use crate::registry::write::{Write, match_namespace};
use crate::server::Context;

/// More evictions than this that the controller has not seen are too many.
const MAX_DISRUPTED: usize = 2000;
/// Who the server is in `managedFields`.
const MANAGER: &str = "kube-apiserver";
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("policy", "v1", "Eviction")
}

/// Evicts a pod.
pub async fn create(
    cx: &Context,
    pods: &Resource,
    request: Request<Body>,
) -> Result<Response<Body>, ApiError> {
    let accepted = cx.accept()?;
    let kinds = [kind(), GroupVersionKind::new("policy", "v1beta1", "Eviction")];
    let (mut eviction, options) = read_one_of(cx, request, &kinds, "CreateOptions").await?;
    let name = cx.info.name.as_str();
    if meta_text(&eviction, "name") != name {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    // Whether there is such a pod is looked at before the options are.
    current(&Write::new(cx, pods), name).await?;
    let body = eviction.get("deleteOptions").filter(|options| !options.is_null()).cloned();
    let mut delete = DeleteOptions::parse(Some(body.unwrap_or_else(|| json!({}))), &cx.query)?;
    delete.dry_run |= cx.dry_run();
    let write = Write { options, kind: kind(), dry_run: delete.dry_run, ..Write::new(cx, pods) };
    match_namespace(write.namespace, true, &mut eviction)?;
    write.admit(Operation::Create, name, &mut eviction, None).await?;
    write.admission_validate(Operation::Create, name, &eviction, None).await?;
    evict(&write, name, &mut delete).await?;
    let status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    value(cx, accepted, StatusCode::CREATED, &status)
}

async fn evict(write: &Write<'_>, name: &str, delete: &mut DeleteOptions) -> Result<(), ApiError> {
    let pod = current(write, name).await?;
    let own_precondition = delete.resource_version.is_some();
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let ended = matches!(phase, "Succeeded" | "Failed") || object::is_being_deleted(&pod);
    let mut pinned = false;
    let mut budget_name = String::new();
    if ended || phase == "Pending" {
        pinned = !ended;
    } else if let Some(budget) = budget_of(write, &pod).await? {
        budget_name = budget.metadata.name.clone().unwrap_or_default();
        match protection(&budget, &pod) {
            Protection::None => pinned = true,
            Protection::Counts => decrement(write, &budget_name, name, delete.dry_run).await?,
        }
    }
    if pinned && !own_precondition {
        delete.resource_version = Some(meta_text(&pod, "resourceVersion").to_owned());
    }
    let outcome = delete_marked(write, name, delete).await;
    match outcome {
        Err(error) if error.reason() == "Conflict" && pinned && !own_precondition => {
            Err(still_processed(&budget_name))
        }
        other => other,
    }
}

async fn current(write: &Write<'_>, name: &str) -> Result<Value, ApiError> {
    match write.storage().read(write.namespace, name).await? {
        Some(current) => Ok(current.value),
        None => Err(ApiError::not_found(&write.resource.group_resource(), name)),
    }
}

/// Says in the pod's status why it goes, then deletes it.
async fn delete_marked(write: &Write<'_>, name: &str, delete: &mut DeleteOptions) -> Result<(), ApiError> {
    if !delete.dry_run {
        let mut mark = Mark { resource: write.resource, name, options: delete };
        let updated = write.storage().update(write.namespace, name, &mut mark).await?;
        if let (Some(version), crate::registry::storage::Updated::Written(written)) =
            (&mut delete.resource_version, &updated)
        {
            *version = written.object.revision.to_string();
        }
    }
    remove(&Write { subresource: "", part: "", ..Write::new(write.cx, write.resource) }, name, delete)
        .await
        .map(drop)
}

struct Mark<'a> {
    resource: &'a Resource,
    name: &'a str,
    options: &'a DeleteOptions,
}

#[async_trait::async_trait]
impl Change for Mark<'_> {
    async fn next(&mut self, current: Option<&Current>) -> Result<Next, ApiError> {
        let Some(current) = current else {
            return Err(ApiError::not_found(&self.resource.group_resource(), self.name));
        };
        crate::handlers::delete::check_preconditions(self.resource, self.name, self.options, &current.value)?;
        let mut pod = current.value.clone();
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": object::now(),
        });
        let same = |c: &Value| {
            c["type"] == condition["type"] && c["status"] == "True" && c["reason"] == condition["reason"]
        };
        if !pod["status"]["conditions"].is_array() {
            pod["status"]["conditions"] = json!([]);
        }
        if let Some(conditions) = pod["status"]["conditions"].as_array_mut()
            && !conditions.iter().any(same)
        {
            conditions.retain(|c| c["type"] != "DisruptionTarget");
            conditions.push(condition);
        }
        Ok(Next::Put(pod))
    }
}

/// The budget that protects a pod; several are an error.
async fn budget_of(write: &Write<'_>, pod: &Value) -> Result<Option<PodDisruptionBudget>, ApiError> {
    let budgets = budgets(write)?;
    let cache = budgets.cache.as_ref().ok_or_else(ApiError::no_such_resource)?;
    let filter = Filter { namespace: Some(write.namespace.to_owned()), ..Filter::default() };
    let options = cacher::ListOptions { at: ReadAt::Latest, filter, limit: 0, start: None };
    let page = cache.list(options).await.map_err(|error| cache_error(&error))?;
    let labels: std::collections::BTreeMap<String, String> =
        serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default();
    let mut found = Vec::new();
    for item in &page.items {
        let budget: PodDisruptionBudget = serde_json::from_slice(&item.json()).map_err(ApiError::internal)?;
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        if LabelSelector::from_meta(selector).is_ok_and(|selector| selector.matches(&labels)) {
            found.push(budget);
        }
    }
    if found.len() > 1 {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(ApiError::new(500, "", message));
    }
    Ok(found.pop())
}

fn budgets(write: &Write<'_>) -> Result<std::sync::Arc<Resource>, ApiError> {
    write
        .cx
        .server
        .registry
        .find("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(ApiError::no_such_resource)
}

enum Protection {
    /// The pod may go: it is not healthy and does not count.
    None,
    /// Its going is a disruption.
    Counts,
}

fn protection(budget: &PodDisruptionBudget, pod: &Value) -> Protection {
    let conditions = pod["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
    if ready {
        return Protection::Counts;
    }
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let healthy = budget
        .status
        .as_ref()
        .map(|s| (s.current_healthy.unwrap_or(0), s.desired_healthy.unwrap_or(0)))
        .is_some_and(|(current, desired)| current >= desired && desired > 0);
    if policy == Some("AlwaysAllow") || healthy { Protection::None } else { Protection::Counts }
}

/// Takes one disruption from the budget.
async fn decrement(write: &Write<'_>, budget: &str, pod: &str, dry_run: bool) -> Result<(), ApiError> {
    let resource = budgets(write)?;
    let storage = Storage { store: write.cx.server.cacher.store(), resource: &resource, dry_run, texts: &[] };
    storage
        .update(write.namespace, budget, &mut Decrement { resource: &resource, budget, pod })
        .await
        .map(drop)
}

struct Decrement<'a> {
    resource: &'a Resource,
    budget: &'a str,
    pod: &'a str,
}

#[async_trait::async_trait]
impl Change for Decrement<'_> {
    async fn next(&mut self, current: Option<&Current>) -> Result<Next, ApiError> {
        let gone = || ApiError::not_found(&GroupResource::new("policy", "poddisruptionbudgets"), self.budget);
        let current = current.ok_or_else(gone)?;
        let mut budget: PodDisruptionBudget = api::json::read(&current.value).map_err(ApiError::internal)?;
        check(&budget, self.budget)?;
        let status = budget.status.get_or_insert_default();
        let left = status.disruptions_allowed.unwrap_or(0) - 1;
        status.disruptions_allowed = Some(left);
        let disrupted = status.disrupted_pods.get_or_insert_default();
        disrupted.insert(self.pod.to_owned(), Time(Timestamp::now()));
        let mut value = current.value.clone();
        value["status"]["disruptionsAllowed"] = left.into();
        value["status"]["disruptedPods"] = serde_json::to_value(&*disrupted).map_err(ApiError::internal)?;
        if left == 0 {
            insufficient(&mut value);
        }
        // The server writes the status in its own name.
        let versions = managed_fields::versions(self.resource, "status");
        let (kind, old) = (&self.resource.gvk, Some(&current.value));
        managed_fields::record_for(MANAGER, &versions, kind, "status", &mut value, old);
        Ok(Next::Put(value))
    }
}

/// Marks the condition `DisruptionAllowed` as false.
fn insufficient(budget: &mut Value) {
    let condition = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "observedGeneration": budget["metadata"]["generation"], "lastTransitionTime": object::now(),
    });
    if !budget["status"]["conditions"].is_array() {
        budget["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = budget["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|c| c["type"] == "DisruptionAllowed") {
        Some(known) if known["status"] == "False" => {}
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

fn still_processed(budget: &str) -> ApiError {
    refused(10, format!("The disruption budget {budget} is still being processed by the server."))
}

fn refused(retry_after: i32, message: String) -> ApiError {
    let cause =
        StatusCause { reason: Some("DisruptionBudget".to_owned()), message: Some(message), field: None };
    let mut error = ApiError::too_many_requests(REFUSED, retry_after).with_causes(vec![cause]);
    if let Some(details) = error.status.details.as_mut().filter(|_| retry_after == 0) {
        details.retry_after_seconds = None;
    }
    error
}

/// Whether the budget has a disruption left (upstream `checkAndDecrement`).
fn check(budget: &PodDisruptionBudget, name: &str) -> Result<(), ApiError> {
    let status = budget.status.clone().unwrap_or_default();
    let allowed = status.disruptions_allowed.unwrap_or(0);
    let (desired, healthy) = (status.desired_healthy.unwrap_or(0), status.current_healthy.unwrap_or(0));
    let forbidden =
        |why: &str| Err(ApiError::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), name, why));
    if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
        return Err(still_processed(name));
    }
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status.disrupted_pods.as_ref().is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed > 0 {
        return Ok(());
    }
    let condition = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "DisruptionAllowed" && c.status == "False" && !c.message.is_empty());
    let none = format!("The disruption budget {name} does not allow evicting pods currently");
    let message = match condition {
        Some(c) if c.reason == "SyncFailed" => format!("{none} because it failed sync: {}", c.message),
        _ if healthy <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
        Some(c) => format!("{none} ({}): {}", c.reason, c.message),
        None => none,
    };
    Err(refused(0, message))
}
