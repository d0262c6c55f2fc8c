//! Deletes the content of a namespace: one collection delete per resource, pods before everything else.

use crate::common::discovery::{self, Resource};
use crate::common::errors::{self, IgnoreGone};
use crate::common::meta;
use client::kube::api::{DeleteParams, ListParams};
use client::kube::core::{DynamicObject, PartialObjectMeta};
use client::{Api, Client, kube};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use std::collections::BTreeMap;

/// How long to allow for finalizers, in seconds.
const FINALIZER_ESTIMATE: u64 = 15;

/// What is left in a namespace.
#[derive(Debug, Default, PartialEq)]
pub struct Left {
    /// Objects left by `resource.group`.
    pub objects: BTreeMap<String, usize>,
    /// Objects left by the finalizer they wait for.
    pub finalizers: BTreeMap<String, usize>,
    /// Why discovery was incomplete.
    pub discovery: Vec<String>,
    /// What could not be deleted, and why.
    pub errors: Vec<String>,
    /// How long it may take for the rest to go, in seconds.
    pub estimate: u64,
}

impl Left {
    /// Whether all is gone.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.error().is_none()
    }

    /// Why the namespace has to be looked at again soon.
    pub fn error(&self) -> Option<String> {
        let all: Vec<_> = self.discovery.iter().chain(&self.errors).map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join(", "))
    }

    fn add(&mut self, resource: &Resource, items: &[PartialObjectMeta<DynamicObject>], estimate: u64) {
        if items.is_empty() {
            return;
        }
        // As upstream's messages: the group follows a dot even when it is empty.
        let name = format!("{}.{}", resource.api.plural, resource.api.group);
        self.objects.insert(name, items.len());
        let mut held = false;
        for finalizer in items.iter().flat_map(|item| meta::finalizers(&item.metadata)) {
            *self.finalizers.entry(finalizer.clone()).or_default() += 1;
            held = true;
        }
        let estimate = match estimate {
            0 if held => FINALIZER_ESTIMATE,
            estimate => estimate,
        };
        self.estimate = self.estimate.max(estimate);
    }
}

/// Deletes as much as can be deleted now.
pub async fn delete_all(client: &Client, namespace: &Namespace, now: Timestamp) -> Result<Left, kube::Error> {
    let name = meta::name(&namespace.metadata);
    let mut left = Left::default();
    let discovered = discovery::discover(client).await?;
    left.discovery = discovered.failures;
    let (pods, others): (Vec<_>, Vec<_>) = discovered
        .resources
        .into_iter()
        .filter(|resource| resource.namespaced && resource.supports(&["delete"]))
        .partition(|resource| resource.api.group.is_empty() && resource.api.plural == "pods");
    for resource in &pods {
        match pod_estimate(client, namespace, now).await {
            Ok(estimate) => delete(client, resource, name, estimate, &mut left).await,
            Err(error) => left.errors.push(errors::message(&error)),
        }
    }
    // As upstream's deleteAllContent: pods that are known to be there keep the rest, others' troubles do not.
    if left.objects.is_empty() {
        let results = join_all(others.iter().map(|resource| async {
            let mut left = Left::default();
            delete(client, resource, name, 0, &mut left).await;
            left
        }));
        for part in results.await {
            left.objects.extend(part.objects);
            for (finalizer, count) in part.finalizers {
                *left.finalizers.entry(finalizer).or_default() += count;
            }
            left.errors.extend(part.errors);
            left.estimate = left.estimate.max(part.estimate);
        }
    }
    Ok(left)
}

async fn delete(client: &Client, resource: &Resource, namespace: &str, estimate: u64, left: &mut Left) {
    match delete_one_kind(client, resource, namespace).await {
        Ok(items) => {
            let stuck = estimate == 0 && items.iter().all(|item| meta::finalizers(&item.metadata).is_empty());
            left.add(resource, &items, estimate);
            if stuck && !items.is_empty() && !items.iter().all(|item| meta::is_deleting(&item.metadata)) {
                left.errors.push(format!(
                    "unexpected items still remain in namespace: {namespace} for gvr: {}/{}, Resource={}",
                    resource.api.group, resource.api.version, resource.api.plural
                ));
            }
        }
        Err(error) => left.errors.push(errors::message(&error)),
    }
}

/// Deletes all objects of a resource and returns those that are still there.
async fn delete_one_kind(
    client: &Client,
    resource: &Resource,
    namespace: &str,
) -> Result<Vec<PartialObjectMeta<DynamicObject>>, kube::Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource.api);
    let unsupported =
        |error: &kube::Error| errors::is_method_not_supported(error) || errors::is_not_found(error);
    let background = DeleteParams::background();
    if resource.supports(&["list"]) {
        // Most resources have nothing in most namespaces: look before deleting.
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(list) if list.items.is_empty() => return Ok(Vec::new()),
            Ok(_) => {}
            Err(error) if unsupported(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let collection = if resource.supports(&["deletecollection"]) {
        match api.delete_collection(&background, &ListParams::default()).await {
            Ok(_) => true,
            Err(error) if unsupported(&error) => false,
            Err(error) => return Err(error),
        }
    } else {
        false
    };
    if !resource.supports(&["list"]) {
        return Ok(Vec::new());
    }
    let list = async || match api.list_metadata(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        Err(error) if unsupported(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    if !collection {
        for item in list().await? {
            let deleted = api.delete(meta::name(&item.metadata), &background).await.ignore_not_found();
            if let Err(error) = deleted
                && !errors::is_method_not_supported(&error)
            {
                return Err(error);
            }
        }
    }
    list().await
}

/// The longest grace time of a pod, in seconds; 0 once that much time has passed since the namespace was deleted.
async fn pod_estimate(client: &Client, namespace: &Namespace, now: Timestamp) -> Result<u64, kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), meta::name(&namespace.metadata));
    let pods = api.list(&ListParams::default()).await?;
    let running = pods.items.iter().filter(|pod| !crate::common::pods::is_terminal(pod));
    let grace =
        running.filter_map(|pod| pod.spec.as_ref()?.termination_grace_period_seconds).max().unwrap_or(0);
    let deleted = namespace.metadata.deletion_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let since = now.as_second() - deleted;
    Ok(if since >= grace { 0 } else { u64::try_from(grace).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use client::kube::client::Body;
    use http_body_util::Full;
    use parking_lot::Mutex;
    use serde_json::{Value, json};
    use std::sync::Arc;

    const VERBS: [&str; 4] = ["get", "list", "delete", "deletecollection"];

    /// What discovery says: pods, and flakes of `example.com/v1`.
    fn discovery(path: &str) -> Option<Value> {
        let resources = |name: &str, kind: &str| {
            json!({"resources": [{"name": name, "singularName": "", "kind": kind, "namespaced": true,
                                   "verbs": VERBS}]})
        };
        let version = json!({"groupVersion": "example.com/v1", "version": "v1"});
        Some(match path {
            "/api/v1" => {
                let mut list = resources("pods", "Pod");
                list["groupVersion"] = "v1".into();
                list
            }
            "/apis" => json!({"groups": [{"name": "example.com", "versions": [version],
                                          "preferredVersion": version}]}),
            "/apis/example.com/v1" => {
                let mut list = resources("flakes", "Flake");
                list["groupVersion"] = "example.com/v1".into();
                list
            }
            _ => return None,
        })
    }

    /// What is left in a namespace whose server answers requests for these resources so, and what it was asked.
    async fn left(
        answer: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static,
    ) -> (Left, Vec<String>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (asked.clone(), Arc::new(answer));
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
                let resource = path.rsplit('/').next().unwrap_or_default();
                let (code, body) = discovery(&path).map_or_else(
                    || {
                        log.lock().push(format!("{method} {resource}"));
                        answer(&method, resource)
                    },
                    |body| (200, body),
                );
                http::Response::builder().status(code).body(Full::new(Bytes::from(body.to_string())))
            }
        });
        let namespace = json!({"metadata": {"name": "ns", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        let namespace = serde_json::from_value(namespace).expect("a namespace");
        let client = Client::new(service, "default");
        let left = delete_all(&client, &namespace, Timestamp::now()).await.expect("discovery works");
        let asked = asked.lock().clone();
        (left, asked)
    }

    fn failure(code: u16, reason: &str) -> (u16, Value) {
        let text = format!("{reason} happened");
        (
            code,
            json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": text}),
        )
    }

    fn nothing() -> (u16, Value) {
        (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}))
    }

    /// As upstream's TestDeleteEncounters404: its definition may be gone in the meantime.
    #[tokio::test]
    async fn resource_that_is_gone_holds_nothing_up() {
        let (left, asked) = left(|_, resource| match resource {
            "flakes" => failure(404, "NotFound"),
            _ => nothing(),
        })
        .await;
        assert_eq!(left, Left::default());
        assert!(asked.contains(&"DELETE flakes".to_owned()), "{asked:?}");
    }

    #[tokio::test]
    async fn pods_that_cannot_be_listed_do_not_keep_the_rest() {
        let (left, asked) = left(|method, resource| match (method, resource) {
            (_, "pods") => failure(500, "InternalError"),
            ("GET", _) => {
                let flake = json!({"apiVersion": "example.com/v1", "kind": "Flake",
                    "metadata": {"name": "f", "finalizers": ["hold"]}});
                (200, json!({"kind": "List", "apiVersion": "v1", "metadata": {}, "items": [flake]}))
            }
            _ => (200, json!({"kind": "Status", "status": "Success"})),
        })
        .await;
        assert_eq!(left.errors, ["InternalError happened"]);
        assert_eq!(left.objects, [("flakes.example.com".to_owned(), 1)].into());
        assert_eq!((left.finalizers, left.estimate), ([("hold".to_owned(), 1)].into(), FINALIZER_ESTIMATE));
        assert!(asked.contains(&"DELETE flakes".to_owned()), "{asked:?}");
    }

    #[tokio::test]
    async fn pods_that_remain_keep_the_rest() {
        let (left, asked) = left(|method, resource| match (method, resource) {
            ("GET", "pods") => {
                let pod = json!({"apiVersion": "v1", "kind": "Pod",
                    "metadata": {"name": "p", "finalizers": ["hold"]}, "spec": {"containers": []}});
                (200, json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [pod]}))
            }
            _ => (200, json!({"kind": "Status", "status": "Success"})),
        })
        .await;
        assert_eq!(left.objects, [("pods.".to_owned(), 1)].into());
        assert!(!asked.iter().any(|asked| asked.ends_with("flakes")), "{asked:?}");
    }
}
