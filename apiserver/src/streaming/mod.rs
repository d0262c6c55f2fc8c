//! Requests that are passed on to kubelets, pods and services (upstream `registry/core/{pod,service,node}/rest`).
//!
//! Bytes are relayed as they come. The kubelet speaks the streaming protocols itself (SPDY/3.1 and WebSockets), so an
//! upgraded connection is two pumps and nothing else; each runs in a task of its own and ends when a side closes.

pub(crate) mod dial;
mod exec;
mod kubelet;
mod links;
mod log;
mod proxy;
pub(crate) mod relay;

use std::sync::Arc;

use api::names::GroupResource;
use api::status::ApiError;
use client::{Client, SharedInformerFactory};
use http::{Request, Response};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use crate::authn::User;
use crate::authz::{self, Authorizer};
use crate::body::Body;
use crate::config::KubeletClientConfig;
use crate::query::Query;
use crate::remote::Dialer;
use crate::request::RequestInfo;

pub use dial::Error as DialError;
pub(crate) use kubelet::authority;

/// Passes requests on.
pub struct Streaming {
    client: Client,
    kubelets: kubelet::Kubelets,
    /// For pods and services, whose certificates nobody can verify.
    open: dial::Dialer,
    authorizer: Arc<dyn Authorizer>,
}

impl Streaming {
    /// Reads the kubelet client's certificate and CA. `way`: how connections into the cluster are opened.
    pub fn new(
        client: Client,
        informers: &SharedInformerFactory,
        config: &KubeletClientConfig,
        authorizer: Arc<dyn Authorizer>,
        way: Dialer,
    ) -> Result<Self, DialError> {
        let kubelets = kubelet::Kubelets::new(client.clone(), informers, config, &way)?;
        let open = dial::Dialer::unverified(way)?;
        Ok(Self { client, kubelets, open, authorizer })
    }

    /// Whether a request is one that is passed on.
    #[must_use]
    pub fn concerns(info: &RequestInfo) -> bool {
        info.group.is_empty()
            && matches!(
                (info.resource.as_str(), info.subresource.as_str()),
                ("pods", "log" | "exec" | "attach" | "portforward" | "proxy")
                    | ("services" | "nodes", "proxy")
            )
    }

    /// Passes a request on. It has been authorized as it is.
    pub async fn serve(
        &self,
        user: &User,
        info: &RequestInfo,
        query: &Query,
        request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        match (info.resource.as_str(), info.subresource.as_str()) {
            ("pods", "log") => self.log(info, query, request.headers()).await,
            ("pods", "exec" | "attach" | "portforward") => {
                // Looking (GET, which browsers need for WebSockets) is not enough to run something.
                if info.verb != "create" {
                    let create = RequestInfo { verb: "create".to_owned(), ..info.clone() };
                    let decision = self.authorizer.decide(user, &create).get().await;
                    authz::permit(decision, user, &create)?;
                }
                self.upgrade(info, query, request).await
            }
            ("pods", "proxy") => self.pod_proxy(info, request).await,
            ("services", "proxy") => self.service_proxy(info, request).await,
            ("nodes", "proxy") => self.node_proxy(info, request).await,
            _ => Err(ApiError::no_such_resource()),
        }
    }

    async fn pod(&self, info: &RequestInfo, name: &str) -> Result<Pod, ApiError> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &info.namespace);
        match api.get_opt(name).await.map_err(authz::from_client)? {
            Some(pod) => Ok(pod),
            None => Err(ApiError::not_found(&GroupResource::new("", "pods"), name)),
        }
    }
}

/// The container meant: the one named, or the only one (upstream `validateContainer`).
fn container(pod: &Pod, asked: &str) -> Result<String, ApiError> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Err(ApiError::bad_request("pod has no spec")) };
    let init = spec.init_containers.iter().flatten().map(|container| container.name.as_str());
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| container.name.as_str());
    let all: Vec<&str> =
        init.chain(spec.containers.iter().map(|c| c.name.as_str())).chain(ephemeral).collect();
    if !asked.is_empty() {
        if all.contains(&asked) {
            return Ok(asked.to_owned());
        }
        return Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}")));
    }
    match spec.containers.as_slice() {
        [one] => Ok(one.name.clone()),
        [] => Err(ApiError::bad_request(format!("a container name must be specified for pod {name}"))),
        _ => Err(ApiError::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            all.join(" ")
        ))),
    }
}

/// The node a pod runs on.
fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|node| !node.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_must_be_clear() {
        let pod = |containers: &[&str]| -> Pod {
            let list: Vec<_> = containers.iter().map(|name| json!({"name": name})).collect();
            let spec = json!({"containers": list, "initContainers": [{"name": "i"}]});
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("pod")
        };
        for (containers, asked, expected) in [
            (&["a"][..], "", Ok("a")),
            (&["a", "b"][..], "b", Ok("b")),
            (&["a"][..], "i", Ok("i")),
            (&["a"][..], "x", Err("container x is not valid for pod p")),
            (
                &["a", "b"][..],
                "",
                Err("a container name must be specified for pod p, choose one of: [i a b]"),
            ),
        ] {
            let found = container(&pod(containers), asked);
            let found = found.as_deref().map_err(ApiError::message);
            assert_eq!(found, expected);
        }
    }
}
