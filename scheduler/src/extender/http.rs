//! An extender behind HTTP. The names of fields are Go's, as upstream's types have no others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use client::kube::config::{KubeConfigOptions, Kubeconfig};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Extender, Filtered};
use crate::config::ExtenderConfiguration;
use crate::framework::MAX_SCORE;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::preemption::Candidate;
use crate::snapshot::Snapshot;

/// The greatest score an extender gives.
const MAX_EXTENDER_SCORE: i64 = 10;
const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

/// An extender behind HTTP.
pub struct HttpExtender {
    config: ExtenderConfiguration,
    client: Client,
    patience: Duration,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct FilterResult {
    #[serde(alias = "nodes")]
    nodes: Option<NodeList>,
    #[serde(alias = "nodenames", alias = "nodeNames")]
    node_names: Option<Vec<String>>,
    #[serde(alias = "failedNodes")]
    failed_nodes: Option<BTreeMap<String, String>>,
    #[serde(alias = "failedAndUnresolvableNodes")]
    failed_and_unresolvable_nodes: Option<BTreeMap<String, String>>,
    #[serde(alias = "error")]
    error: String,
}

#[derive(Default, Deserialize)]
struct NodeList {
    #[serde(default)]
    items: Vec<k8s_openapi::api::core::v1::Node>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostPriority {
    #[serde(alias = "host")]
    host: String,
    #[serde(alias = "score", default)]
    score: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BindingResult {
    #[serde(alias = "error")]
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct PreemptionResult {
    #[serde(alias = "nodeNameToMetaVictims")]
    node_name_to_meta_victims: HashMap<String, MetaVictims>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct MetaVictims {
    #[serde(alias = "pods")]
    pods: Vec<MetaPod>,
    #[serde(rename = "NumPDBViolations", alias = "numPDBViolations")]
    violations: i64,
}

#[derive(Deserialize)]
struct MetaPod {
    #[serde(rename = "UID", alias = "uid")]
    uid: String,
}

impl HttpExtender {
    /// Makes the client; the extender is not asked yet.
    ///
    /// # Errors
    /// The address, the credentials or the timeout cannot be used.
    pub async fn new(config: ExtenderConfiguration) -> Result<Self, String> {
        let tls = config.tls_config.clone().unwrap_or_default();
        let said = |text: &String| (!text.is_empty()).then(|| text.clone());
        let has_ca = !tls.ca_file.is_empty() || !tls.ca_data.is_empty();
        let insecure = tls.insecure || (config.enable_https && !has_ca);
        let kubeconfig = json!({
            "clusters": [{"name": "extender", "cluster": {
                "server": config.url_prefix.trim_end_matches('/'), "insecure-skip-tls-verify": insecure,
                "certificate-authority": said(&tls.ca_file), "certificate-authority-data": said(&tls.ca_data),
                "tls-server-name": said(&tls.server_name)}}],
            "users": [{"name": "extender", "user": {
                "client-certificate": said(&tls.cert_file), "client-certificate-data": said(&tls.cert_data),
                "client-key": said(&tls.key_file), "client-key-data": said(&tls.key_data)}}],
            "contexts": [{"name": "extender", "context": {"cluster": "extender", "user": "extender"}}],
            "current-context": "extender"});
        let failed = |error: &dyn std::fmt::Display| format!("extender {:?}: {error}", config.url_prefix);
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).map_err(|error| failed(&error))?;
        let options = KubeConfigOptions::default();
        let target = client::kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let client = target
            .map_err(|error| failed(&error))
            .and_then(|target| Client::try_from(target).map_err(|error| failed(&error)))?;
        let patience = match config.http_timeout.as_deref() {
            None | Some("" | "0" | "0s") => DEFAULT_PATIENCE,
            Some(text) => client::leader::parse_duration(text).map_err(|error| failed(&error))?,
        };
        Ok(Self { config, client, patience })
    }

    async fn send<T: DeserializeOwned>(&self, verb: &str, arguments: &Value) -> Result<T, String> {
        let body = serde_json::to_vec(arguments).map_err(|error| error.to_string())?;
        let request = ::http::Request::post(format!("/{verb}"))
            .header(::http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(self.patience, self.client.request::<T>(request)).await;
        let url = format!("{}/{verb}", self.config.url_prefix.trim_end_matches('/'));
        match answer {
            Err(_) => Err(format!("Post {url:?}: context deadline exceeded")),
            Ok(Err(client::kube::Error::Api(status))) => {
                Err(format!("failed {verb} with extender at URL {url}, code {}", status.code))
            }
            Ok(Err(error)) => Err(format!("Post {url:?}: {}", client::chain(&error))),
            Ok(Ok(answer)) => Ok(answer),
        }
    }

    /// A pod with nodes, by name if the extender knows them.
    fn about(&self, pod: &PodInfo, nodes: &[Arc<NodeInfo>]) -> Value {
        if self.config.node_cache_capable {
            let names: Vec<_> = nodes.iter().map(|node| node.name()).collect();
            return json!({"Pod": *pod.pod, "Nodes": null, "NodeNames": names});
        }
        let items: Vec<_> = nodes.iter().map(|node| &*node.node).collect();
        json!({"Pod": *pod.pod, "Nodes": {"metadata": {}, "items": items}, "NodeNames": null})
    }

    fn left(&self, result: &FilterResult, nodes: &[Arc<NodeInfo>]) -> Result<Vec<Arc<NodeInfo>>, String> {
        let names: Vec<String> = match (&result.node_names, &result.nodes) {
            (Some(names), _) if self.config.node_cache_capable => names.clone(),
            (_, Some(list)) => list.items.iter().filter_map(|node| node.metadata.name.clone()).collect(),
            _ => Vec::new(),
        };
        let find = |name: String| {
            let node = nodes.iter().find(|node| node.name() == name).cloned();
            node.ok_or_else(|| {
                let url = &self.config.url_prefix;
                format!("extender {url:?} claims a filtered node {name:?} which is not found in the input node list")
            })
        };
        names.into_iter().map(find).collect()
    }

    fn victims(&self, name: &str, victims: &MetaVictims, snapshot: &Snapshot) -> Result<Candidate, String> {
        let node = snapshot.node(name).ok_or_else(|| format!("nodeinfo not found for node name {name:?}"))?;
        let find = |pod: &MetaPod| {
            let there = node.pods.iter().find(|p| p.uid() == pod.uid).cloned();
            there.ok_or_else(|| {
                format!(
                    "extender: {} claims to preempt pod (UID: {}) on node: {name}, but the pod is not found on that node",
                    self.config.url_prefix, pod.uid
                )
            })
        };
        let pods: Result<Vec<_>, _> = victims.pods.iter().map(find).collect();
        let violations = usize::try_from(victims.violations).unwrap_or(0);
        Ok(Candidate { node: name.to_owned(), victims: pods?, violations })
    }
}

impl Extender for HttpExtender {
    fn name(&self) -> &str {
        &self.config.url_prefix
    }

    fn is_ignorable(&self) -> bool {
        self.config.ignorable
    }

    fn is_interested(&self, pod: &Pod) -> bool {
        let managed = &self.config.managed_resources;
        let spec = pod.spec.as_ref();
        let containers =
            spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
        let resources = containers.filter_map(|c| c.resources.as_ref());
        let mut names = resources.flat_map(|r| r.requests.iter().chain(&r.limits).flat_map(|all| all.keys()));
        managed.is_empty() || names.any(|name| managed.iter().any(|m| m.name == *name))
    }

    fn is_filter(&self) -> bool {
        !self.config.filter_verb.is_empty()
    }

    fn is_prioritizer(&self) -> bool {
        !self.config.prioritize_verb.is_empty()
    }

    fn is_binder(&self) -> bool {
        !self.config.bind_verb.is_empty()
    }

    fn supports_preemption(&self) -> bool {
        !self.config.preempt_verb.is_empty()
    }

    fn filter<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: Vec<Arc<NodeInfo>>,
    ) -> BoxFuture<'a, Result<Filtered, String>> {
        Box::pin(async move {
            let about = self.about(pod, &nodes);
            let result: FilterResult = self.send(&self.config.filter_verb, &about).await?;
            if !result.error.is_empty() {
                return Err(result.error);
            }
            let left = self.left(&result, &nodes)?;
            let never = result.failed_and_unresolvable_nodes.unwrap_or_default();
            let failed = result.failed_nodes.unwrap_or_default();
            let not_now =
                failed.into_iter().filter(|(name, _)| !never.contains_key(name)).collect::<Vec<_>>();
            let not_now = not_now.into_iter().map(|(name, reason)| (name, reason, false));
            let refused = not_now.chain(never.into_iter().map(|(name, reason)| (name, reason, true)));
            Ok(Filtered { left, refused: refused.collect() })
        })
    }

    fn prioritize<'a>(
        &'a self,
        pod: &'a PodInfo,
        nodes: &'a [Arc<NodeInfo>],
    ) -> BoxFuture<'a, Result<Vec<(String, i64)>, String>> {
        Box::pin(async move {
            let about = self.about(pod, nodes);
            let scores: Vec<HostPriority> = self.send(&self.config.prioritize_verb, &about).await?;
            let factor = self.config.weight * (MAX_SCORE / MAX_EXTENDER_SCORE);
            Ok(scores.into_iter().map(|scored| (scored.host, scored.score * factor)).collect())
        })
    }

    fn bind<'a>(&'a self, pod: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let arguments = json!({"PodName": pod.name(), "PodNamespace": pod.namespace(),
                                   "PodUID": pod.uid(), "Node": node});
            let result: BindingResult = self.send(&self.config.bind_verb, &arguments).await?;
            if result.error.is_empty() { Ok(()) } else { Err(result.error) }
        })
    }

    fn process_preemption<'a>(
        &'a self,
        pod: &'a PodInfo,
        candidates: &'a [Candidate],
        snapshot: &'a Snapshot,
    ) -> BoxFuture<'a, Result<Vec<Candidate>, String>> {
        Box::pin(async move {
            let by_name = self.config.node_cache_capable;
            let victims = candidates.iter().map(|candidate| {
                let pods: Vec<Value> = candidate
                    .victims
                    .iter()
                    .map(|victim| if by_name { json!({"UID": victim.uid()}) } else { json!(*victim.pod) })
                    .collect();
                (candidate.node.clone(), json!({"Pods": pods, "NumPDBViolations": candidate.violations}))
            });
            let victims: serde_json::Map<_, _> = victims.collect();
            let key = if by_name { "NodeNameToMetaVictims" } else { "NodeNameToVictims" };
            let arguments = json!({"Pod": *pod.pod, key: victims});
            let result: PreemptionResult = self.send(&self.config.preempt_verb, &arguments).await?;
            let mut left = Vec::new();
            // In the order they were given: of equals the first is picked.
            for candidate in candidates {
                if let Some(victims) = result.node_name_to_meta_victims.get(&candidate.node) {
                    left.push(self.victims(&candidate.node, victims, snapshot)?);
                }
            }
            Ok(left)
        })
    }
}
