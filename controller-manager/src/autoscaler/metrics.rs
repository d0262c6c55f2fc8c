//! Asks the metrics APIs: `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io`.
//! As upstream's podautoscaler/metrics and the clients in k8s.io/metrics.

use super::calculate::{Metric, Metrics};
use crate::common::errors;
use api::quantity::Quantity;
use client::kube::api::ListParams;
use client::kube::core::Request;
use client::{Client, kube};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;

const RESOURCE: &str = "resource";
const CUSTOM: &str = "custom";
const EXTERNAL: &str = "external";
const WINDOW: SignedDuration = SignedDuration::from_mins(1);

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Timestamp,
    #[serde(default)]
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Option<Named>,
    timestamp: Timestamp,
    #[serde(alias = "window")]
    window_seconds: Option<i64>,
    value: String,
}

/// What has to be known of an object to find its metrics.
pub struct Object<'a> {
    /// `plural.group`; the namespace itself when empty.
    pub resource: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A client of the three APIs.
#[derive(Clone)]
pub struct MetricsClient {
    client: Client,
}

fn milli(text: &str) -> Option<i64> {
    Quantity::parse(text).ok().map(|amount| amount.milli_value())
}

/// What pods use of a resource, all their containers together or one of them.
fn of_pods(items: Vec<PodMetrics>, resource: &str, container: &str) -> Metrics {
    let usage = |held: &ContainerMetrics| held.usage.get(resource).and_then(|text| milli(text));
    let value = |pod: &PodMetrics| {
        if container.is_empty() {
            let sum: Option<i64> = pod.containers.iter().map(usage).sum();
            return sum.filter(|_| !pod.containers.is_empty());
        }
        pod.containers.iter().find(|held| held.name == container).and_then(usage)
    };
    let metric = |pod: PodMetrics| {
        let window = client::leader::parse_duration(&pod.window).ok();
        let window = window.and_then(|window| SignedDuration::try_from(window).ok()).unwrap_or_default();
        let metric = Metric { value: value(&pod)?, at: pod.timestamp, window };
        Some((pod.metadata.name, metric))
    };
    items.into_iter().filter_map(metric).collect()
}

impl MetricsClient {
    /// Asks through `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// What pods use of a resource.
    pub async fn resource(
        &self,
        namespace: &str,
        resource: &str,
        selector: &str,
        container: &str,
    ) -> Result<Metrics, String> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods");
        let list: List<PodMetrics> = self.list(RESOURCE, path, selector, "").await?;
        if list.items.is_empty() {
            return Err(none(RESOURCE));
        }
        Ok(of_pods(list.items, resource, container))
    }

    /// A metric of pods.
    pub async fn pods(
        &self,
        namespace: &str,
        metric: &str,
        selector: &str,
        metric_selector: &str,
    ) -> Result<Metrics, String> {
        let base = self.custom().await?;
        let path = format!("{base}/namespaces/{namespace}/pods/*/{metric}");
        let list: List<MetricValue> = self.list(CUSTOM, path, selector, metric_selector).await?;
        if list.items.is_empty() {
            return Err(none(CUSTOM));
        }
        let metric = |item: MetricValue| {
            let window = item.window_seconds.map_or(WINDOW, SignedDuration::from_secs);
            let metric = Metric { value: milli(&item.value)?, at: item.timestamp, window };
            Some((item.described_object?.name, metric))
        };
        Ok(list.items.into_iter().filter_map(metric).collect())
    }

    /// A metric of one object.
    pub async fn object(
        &self,
        namespace: &str,
        object: Object<'_>,
        metric: &str,
        metric_selector: &str,
    ) -> Result<i64, String> {
        let base = self.custom().await?;
        let path = if object.resource.is_empty() {
            format!("{base}/namespaces/{namespace}/metrics/{metric}")
        } else {
            format!("{base}/namespaces/{namespace}/{}/{}/{metric}", object.resource, object.name)
        };
        let list: List<MetricValue> = self.list(CUSTOM, path, "", metric_selector).await?;
        match list.items.as_slice() {
            [item] => milli(&item.value).ok_or_else(|| unread(CUSTOM, &item.value)),
            items => {
                let count = items.len();
                let why = format!(
                    "the custom metrics API server returned {count} results when we asked for exactly one"
                );
                Err(unread(CUSTOM, &why))
            }
        }
    }

    /// The sum of a metric that no object of the cluster has.
    pub async fn external(&self, namespace: &str, metric: &str, selector: &str) -> Result<i64, String> {
        let path = format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}");
        let list: List<MetricValue> = self.list(EXTERNAL, path, selector, "").await?;
        if list.items.is_empty() {
            return Err(none(EXTERNAL));
        }
        Ok(list.items.iter().filter_map(|item| milli(&item.value)).fold(0, i64::saturating_add))
    }

    /// The path of the custom metrics API, in the newest version that the server has.
    async fn custom(&self) -> Result<String, String> {
        #[derive(Deserialize)]
        struct Group {
            #[serde(default)]
            versions: Vec<Version>,
        }
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        const GROUP: &str = "/apis/custom.metrics.k8s.io";
        let request =
            http::Request::get(GROUP).body(Vec::new()).map_err(|error| unread(CUSTOM, &error.to_string()))?;
        let group: Group = self
            .client
            .request(request)
            .await
            .map_err(|error| unread(CUSTOM, &errors::message_about(&error, "")))?;
        let has = |wanted: &str| group.versions.iter().any(|version| version.version == wanted);
        let version = if has("v1beta2") { "v1beta2" } else { "v1beta1" };
        Ok(format!("{GROUP}/{version}"))
    }

    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        which: &str,
        path: String,
        selector: &str,
        metric_selector: &str,
    ) -> Result<List<T>, String> {
        let request = request(path, selector, metric_selector).map_err(|error| unread(which, &error))?;
        self.client
            .request(request)
            .await
            .map_err(|error: kube::Error| unread(which, &errors::message_about(&error, what_of(which))))
    }
}

fn request(path: String, selector: &str, metric_selector: &str) -> Result<http::Request<Vec<u8>>, String> {
    let mut params = ListParams::default();
    if !selector.is_empty() {
        params = params.labels(selector);
    }
    let mut request = Request::new(path).list(&params).map_err(|error| error.to_string())?;
    if !metric_selector.is_empty() {
        let uri = format!("{}&metricLabelSelector={}", request.uri(), encoded(metric_selector));
        *request.uri_mut() = uri.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    }
    Ok(request)
}

/// The text as a value in a query.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// What is asked for, as errors name it.
fn what_of(which: &str) -> &'static str {
    if which == RESOURCE { "get pods.metrics.k8s.io" } else { "" }
}

fn none(which: &str) -> String {
    format!("no metrics returned from {which} metrics API")
}

fn unread(which: &str, why: &str) -> String {
    format!("unable to fetch metrics from {which} metrics API: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_are_summed_up_or_one_is_taken() {
        let items = || -> Vec<PodMetrics> {
            let container = |name: &str, cpu: &str| json!({ "name": name, "usage": { "cpu": cpu } });
            let pod = |name: &str, containers: serde_json::Value| {
                json!({ "metadata": { "name": name }, "timestamp": "2026-01-01T00:00:00Z", "window": "30s",
                        "containers": containers })
            };
            serde_json::from_value(json!([
                pod("a", json!([container("x", "100m"), container("y", "1")])),
                pod("b", json!([container("x", "5m"), { "name": "y", "usage": { "memory": "1Mi" } }])),
                pod("c", json!([])),
            ]))
            .unwrap()
        };
        let values = |container: &str| -> Vec<(String, i64)> {
            let metrics = of_pods(items(), "cpu", container);
            metrics.into_iter().map(|(name, metric)| (name, metric.value)).collect()
        };
        assert_eq!(values(""), [("a".to_owned(), 1100)]);
        assert_eq!(values("x"), [("a".to_owned(), 100), ("b".to_owned(), 5)]);
        assert_eq!(of_pods(items(), "cpu", "x")["a"].window, SignedDuration::from_secs(30));
    }

    #[test]
    fn selectors_go_into_the_query() {
        let uri = |selector, metric| request("/p".to_owned(), selector, metric).unwrap().uri().to_string();
        assert_eq!(uri("", ""), "/p?");
        assert!(
            uri("a=b", "c=d,e").ends_with("labelSelector=a%3Db&metricLabelSelector=c%3Dd%2Ce"),
            "{}",
            uri("a=b", "c=d,e")
        );
    }
}
