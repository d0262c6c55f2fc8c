//! The objects every cluster has from the start, other than roles and bindings.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::IpAddr;

use api::status::ApiError;
use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec, ServiceCIDRStatus};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::authz::from_client;
use crate::config::Config;

/// The namespaces the system lives in.
pub const SYSTEM_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];
/// The name of the default range of Service addresses.
pub const DEFAULT_SERVICE_CIDR: &str = "kubernetes";

/// What is known only when the server runs.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The address of the `kubernetes` Service.
    pub service_ip: IpAddr,
    /// The port the server listens on.
    pub port: u16,
}

/// Makes the system namespaces.
pub async fn namespaces(client: &Client) -> Result<(), ApiError> {
    let api = Api::<Namespace>::all(client.clone());
    super::each(SYSTEM_NAMESPACES, |name| {
        let api = &api;
        async move {
            let namespace = Namespace { metadata: named(name), ..Namespace::default() };
            create_if_absent(api, namespace).await
        }
    })
    .await
}

/// Makes everything else.
pub async fn start(client: &Client, config: &Config, facts: &Facts) -> Result<(), ApiError> {
    let priorities = Api::<PriorityClass>::all(client.clone());
    let services = Api::<APIService>::all(client.clone());
    let network = async {
        service_cidr(client, config).await?;
        let api = Api::<Service>::namespaced(client.clone(), "default");
        create_if_absent(&api, kubernetes_service(config, facts)).await
    };
    let (network, flow, priorities, services, authentication, tracking) = tokio::join!(
        network,
        super::flow_control::ensure(client),
        all(&priorities, priority_classes()),
        all(&services, api_services()?),
        super::trust::publish(client, &config.authentication),
        token_tracking(client),
    );
    network?;
    flow?;
    priorities?;
    services?;
    tracking?;
    authentication
}

pub(super) fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

async fn create_if_absent<K>(api: &Api<K>, object: K) -> Result<(), ApiError>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    if api.get_opt(&object.name_any()).await.map_err(from_client)?.is_some() {
        return Ok(());
    }
    let created = api.create(&PostParams::default(), &object).await;
    created.map(drop).map_err(from_client).or_else(super::done_by_others)
}

/// Makes those of `objects` that do not exist.
async fn all<K>(api: &Api<K>, objects: Vec<K>) -> Result<(), ApiError>
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let list = api.list_metadata(&ListParams::default()).await.map_err(from_client)?;
    let known: Vec<String> = list.items.iter().map(ResourceExt::name_any).collect();
    let missing = objects.into_iter().filter(|object| !known.contains(&object.name_any()));
    super::each(missing, |object| async move {
        let created = api.create(&PostParams::default(), &object).await;
        created.map(drop).map_err(from_client).or_else(super::done_by_others)
    })
    .await
}

fn priority_classes() -> Vec<PriorityClass> {
    let class = |name: &str, value: i32, description: &str| PriorityClass {
        metadata: named(name),
        value: Some(value),
        description: Some(description.to_owned()),
        ..PriorityClass::default()
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// Groups served by this server: name, priority, version, priority of the version.
const GROUPS: [(&str, i32, &str, i32); 21] = [
    ("", 18000, "v1", 1),
    ("admissionregistration.k8s.io", 16700, "v1", 15),
    ("apiextensions.k8s.io", 16700, "v1", 15),
    ("apps", 17800, "v1", 15),
    ("authentication.k8s.io", 17700, "v1", 15),
    ("authorization.k8s.io", 17600, "v1", 15),
    ("autoscaling", 17500, "v1", 15),
    ("autoscaling", 17500, "v2", 30),
    ("batch", 17400, "v1", 15),
    ("certificates.k8s.io", 17300, "v1", 15),
    ("coordination.k8s.io", 16500, "v1", 15),
    ("discovery.k8s.io", 16200, "v1", 15),
    ("events.k8s.io", 17750, "v1", 15),
    ("flowcontrol.apiserver.k8s.io", 16100, "v1", 21),
    ("networking.k8s.io", 17200, "v1", 15),
    ("node.k8s.io", 16300, "v1", 15),
    ("policy", 17100, "v1", 15),
    ("rbac.authorization.k8s.io", 17000, "v1", 15),
    ("resource.k8s.io", 16200, "v1", 21),
    ("scheduling.k8s.io", 16600, "v1", 15),
    ("storage.k8s.io", 16800, "v1", 15),
];

/// Where a group and version of this server stands among groups, and among the versions of the group.
#[must_use]
pub fn priorities(group: &str, version: &str) -> Option<(i32, i32)> {
    let mut rows = GROUPS.iter();
    rows.find(|row| row.0 == group && row.2 == version).map(|(_, group, _, version)| (*group, *version))
}

fn api_services() -> Result<Vec<APIService>, ApiError> {
    let now = Time(Timestamp::now());
    let service = |(group, priority, version, version_priority): &(&str, i32, &str, i32)| {
        let mut spec = json!({
            "groupPriorityMinimum": priority, "version": version, "versionPriority": version_priority});
        if !group.is_empty() {
            spec["group"] = json!(group);
        }
        let object = json!({
            "metadata": {
                "name": format!("{version}.{group}"),
                "labels": {"kube-aggregator.kubernetes.io/automanaged": "onstart"}},
            "spec": spec,
            "status": {"conditions": [{
                "type": "Available", "status": "True", "reason": "Local", "lastTransitionTime": now,
                "message": "Local APIServices are always available"}]},
        });
        serde_json::from_value(object).map_err(ApiError::internal)
    };
    GROUPS.iter().map(service).collect()
}

/// The default range of Service addresses; its status says that it can be used.
async fn service_cidr(client: &Client, config: &Config) -> Result<(), ApiError> {
    let api = Api::<ServiceCIDR>::all(client.clone());
    let ranges = config.service_cluster_ip_ranges.iter();
    let cidrs: Vec<String> = ranges.map(|cidr| format!("{}/{}", cidr.address, cidr.prefix)).collect();
    let existing = match api.get_opt(DEFAULT_SERVICE_CIDR).await.map_err(from_client)? {
        Some(existing) => existing,
        None => {
            let spec = Some(ServiceCIDRSpec { cidrs: Some(cidrs.clone()) });
            let object = ServiceCIDR { metadata: named(DEFAULT_SERVICE_CIDR), spec, status: None };
            match api.create(&PostParams::default(), &object).await.map_err(from_client) {
                Ok(created) => created,
                Err(error) => return super::done_by_others(error),
            }
        }
    };
    if existing.spec.as_ref().and_then(|spec| spec.cidrs.as_ref()) != Some(&cidrs) {
        tracing::warn!(configured = ?cidrs, "the stored default ServiceCIDR has other ranges");
        return Ok(());
    }
    let ready = existing.status.as_ref().and_then(|status| status.conditions.as_ref());
    if existing.metadata.deletion_timestamp.is_some()
        || ready.is_some_and(|list| list.iter().any(|c| c.type_ == "Ready"))
    {
        return Ok(());
    }
    let condition = Condition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        message: "Kubernetes default Service CIDR is ready".to_owned(),
        last_transition_time: Time(Timestamp::now()),
        reason: String::new(),
        observed_generation: None,
    };
    let status = Some(ServiceCIDRStatus { conditions: Some(vec![condition]) });
    let object = ServiceCIDR { status, ..existing };
    let params = PostParams::default();
    let written = api.replace_status(DEFAULT_SERVICE_CIDR, &params, &object).await;
    written.map(drop).map_err(from_client).or_else(super::done_by_others)
}

/// The Service by which pods reach this API.
fn kubernetes_service(config: &Config, facts: &Facts) -> Service {
    let labels = [("provider", "kubernetes"), ("component", "apiserver")];
    let node_port = i32::from(config.kubernetes_service_node_port);
    let port = ServicePort {
        name: Some("https".to_owned()),
        protocol: Some("TCP".to_owned()),
        port: 443,
        target_port: Some(IntOrString::Int(i32::from(facts.port))),
        node_port: Some(node_port).filter(|port| *port > 0),
        ..ServicePort::default()
    };
    Service {
        metadata: ObjectMeta {
            namespace: Some("default".to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..named("kubernetes")
        },
        spec: Some(ServiceSpec {
            ports: Some(vec![port]),
            cluster_ip: Some(facts.service_ip.to_string()),
            ip_family_policy: Some("SingleStack".to_owned()),
            session_affinity: Some("None".to_owned()),
            type_: Some(if node_port > 0 { "NodePort" } else { "ClusterIP" }.to_owned()),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// Says since when the use of tokens in secrets is noted, for who cleans up those that nobody uses (upstream
/// `legacytokentracking`).
async fn token_tracking(client: &Client) -> Result<(), ApiError> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), "kube-system");
    let name = "kube-apiserver-legacy-service-account-token-tracking";
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    let data = Some(BTreeMap::from([("since".to_owned(), today)]));
    let written = match api.get_opt(name).await.map_err(from_client)? {
        Some(existing) if is_dated(&existing) => return Ok(()),
        Some(existing) => api.replace(name, &PostParams::default(), &ConfigMap { data, ..existing }).await,
        None => {
            let object = ConfigMap { metadata: named(name), data, ..ConfigMap::default() };
            api.create(&PostParams::default(), &object).await
        }
    };
    written.map(drop).map_err(from_client).or_else(super::done_by_others)
}

fn is_dated(tracking: &ConfigMap) -> bool {
    let since = tracking.data.as_ref().and_then(|data| data.get("since"));
    since.is_some_and(|since| since.len() == 10 && since.parse::<jiff::civil::Date>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts { service_ip: "10.0.0.1".parse().expect("address"), port: 6443 }
    }

    #[test]
    fn the_kubernetes_service_leads_to_this_server() {
        let service = kubernetes_service(&Config::default(), &facts());
        let spec = service.spec.expect("spec");
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.0.0.1"));
        assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
        assert_eq!(spec.ports.expect("ports")[0].target_port, Some(IntOrString::Int(6443)));
        let config = Config { kubernetes_service_node_port: 30443, ..Config::default() };
        assert_eq!(
            kubernetes_service(&config, &facts()).spec.expect("spec").type_.as_deref(),
            Some("NodePort")
        );
    }

    #[test]
    fn tables_decode() {
        assert_eq!(api_services().expect("table")[0].name_any(), "v1.");
    }

    #[test]
    fn tracking_that_has_no_date_begins_anew() {
        for (since, dated) in [
            (Some("2026-01-31"), true),
            (Some("2026-02-31"), false),
            (Some("20260131"), false),
            (None, false),
        ] {
            let data = since.map(|since| BTreeMap::from([("since".to_owned(), since.to_owned())]));
            assert_eq!(is_dated(&ConfigMap { data, ..ConfigMap::default() }), dated, "{since:?}");
        }
    }
}
