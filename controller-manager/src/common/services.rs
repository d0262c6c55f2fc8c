//! Services and the pods behind them: what Endpoints and EndpointSlices have in common.

use super::{meta, pods};
use crate::context::states;
use client::{Event, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// When the change behind an endpoints object happened.
pub const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";
/// Marks what belongs to a Service without a cluster IP.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector of a Service; `None` when it has none, and then its endpoints are somebody else's.
pub fn selector(service: &Service) -> Option<&BTreeMap<String, String>> {
    service.spec.as_ref()?.selector.as_ref().filter(|selector| !selector.is_empty())
}

/// Whether labels are all that a selector asks for.
pub fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Whether the Service is only another name.
pub fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName")
}

/// The cluster IP; empty when it is not set yet.
pub fn cluster_ip(service: &Service) -> &str {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default()
}

/// Whether the Service has an address of its own.
pub fn has_cluster_ip(service: &Service) -> bool {
    !matches!(cluster_ip(service), "" | "None")
}

/// Whether unready pods are published too.
pub fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true))
}

/// The ports of a Service.
pub fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

/// The addresses of a pod.
pub fn pod_ips(pod: &Pod) -> Vec<&str> {
    let Some(status) = &pod.status else { return Vec::new() };
    match status.pod_ips.as_deref() {
        Some(ips) if !ips.is_empty() => ips.iter().map(|ip| ip.ip.as_str()).collect(),
        _ => status.pod_ip.as_deref().filter(|ip| !ip.is_empty()).into_iter().collect(),
    }
}

/// Whether the pod can be an endpoint: it runs and has an address.
pub fn belongs(pod: &Pod, include_terminating: bool) -> bool {
    !pods::is_terminal(pod)
        && !pod_ips(pod).is_empty()
        && (include_terminating || !meta::is_deleting(&pod.metadata))
}

/// The name of the pod within the Service's domain, if it has one there.
pub fn hostname<'a>(pod: &'a Pod, service: &Service) -> Option<&'a str> {
    let spec = pod.spec.as_ref()?;
    let hostname = spec.hostname.as_deref().filter(|hostname| !hostname.is_empty())?;
    (spec.subdomain.as_deref() == service.metadata.name.as_deref()
        && pod.metadata.namespace == service.metadata.namespace)
        .then_some(hostname)
}

/// The number of the pod's port that the Service's port leads to: named ports are looked up in the containers.
pub fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None => return Some(port.port),
        Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    let in_container = |container: &Container| {
        let ports = container.ports.iter().flatten();
        let mut matching = ports.filter(|candidate| {
            candidate.name.as_deref() == Some(name)
                && candidate.protocol.as_deref().unwrap_or("TCP") == protocol
        });
        matching.next().map(|port| port.container_port)
    };
    spec.containers.iter().chain(sidecars).find_map(in_container)
}

/// The Services that select pods with these labels.
pub fn for_labels(
    services: &Informer<Service>,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<ObjectKey> {
    let all = services.store().list_namespace(namespace);
    let matching =
        all.iter().filter(|service| selector(service).is_some_and(|selector| selects(selector, labels)));
    matching.map(|service| meta::key(&service.metadata)).collect()
}

/// Wakes the Services of a pod when it changes in a way that endpoints show.
pub fn enqueue_for_pods(
    pods: &Informer<Pod>,
    services: &Informer<Service>,
    queue: &WorkQueue<ObjectKey>,
    batch: Duration,
) {
    let (services, queue) = (services.clone(), queue.clone());
    pods.subscribe(move |event| {
        if let Event::Updated { old, new } = event
            && !shows(old, new)
        {
            return;
        }
        let mut keys = BTreeSet::new();
        for pod in states(event) {
            keys.extend(for_labels(&services, meta::namespace(&pod.metadata), meta::labels(&pod.metadata)));
        }
        for key in keys {
            if batch.is_zero() { queue.add(key) } else { queue.add_after(key, batch) }
        }
    });
}

/// Whether endpoints show the difference between two states of a pod.
fn shows(old: &Pod, new: &Pod) -> bool {
    let name = |pod: &Pod| pod.spec.as_ref().map(|spec| (spec.hostname.clone(), spec.subdomain.clone()));
    meta::labels(&old.metadata) != meta::labels(&new.metadata)
        || name(old) != name(new)
        || meta::is_deleting(&old.metadata) != meta::is_deleting(&new.metadata)
        || pods::is_ready(old) != pods::is_ready(new)
        || pods::is_terminal(old) != pods::is_terminal(new)
        || pod_ips(old) != pod_ips(new)
        || pods::node_name(old) != pods::node_name(new)
}

/// Remembers what endpoints were last computed from, to tell when the change they show happened.
/// As upstream's TriggerTimeTracker.
#[derive(Default)]
pub struct TriggerTimes(Mutex<HashMap<ObjectKey, HashMap<String, Timestamp>>>);

impl TriggerTimes {
    /// The earliest change since the last call for this Service; `None` when nothing with a time changed.
    pub fn observe(&self, key: &ObjectKey, service: &Service, pods: &[Arc<Pod>]) -> Option<Timestamp> {
        let ready_at = |pod: &Pod| Some(pods::ready_condition(pod)?.last_transition_time.as_ref()?.0);
        let now: HashMap<_, _> = pods
            .iter()
            .filter_map(|pod| Some((meta::name(&pod.metadata).to_owned(), ready_at(pod)?)))
            .collect();
        let mut states = self.0.lock();
        let before = states.insert(key.clone(), now.clone());
        match before {
            None => service.metadata.creation_timestamp.as_ref().map(|time| time.0),
            Some(before) => now
                .iter()
                .filter(|(name, at)| before.get(*name).is_none_or(|seen| *at > seen))
                .map(|(_, at)| *at)
                .min(),
        }
    }

    /// The Service is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }
}

/// The annotation's value.
pub fn trigger_text(at: Timestamp) -> String {
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::api::core::v1::ContainerPort;

    #[test]
    fn named_ports_are_found_in_containers_and_sidecars() {
        let mut pod = pod("p", "n", "Running", None);
        let container = |name: &str, number, policy: Option<&str>| Container {
            restart_policy: policy.map(str::to_owned),
            ports: Some(vec![ContainerPort {
                name: Some(name.into()),
                container_port: number,
                protocol: Some("TCP".into()),
                ..Default::default()
            }]),
            ..Default::default()
        };
        if let Some(spec) = &mut pod.spec {
            spec.containers = vec![container("web", 8080, None)];
            spec.init_containers =
                Some(vec![container("side", 9090, Some("Always")), container("init", 1, None)]);
        }
        let port = |target| ServicePort { port: 80, target_port: target, ..Default::default() };
        let named = |name: &str| Some(IntOrString::String(name.into()));
        for (target, expected) in [
            (None, Some(80)),
            (Some(IntOrString::Int(81)), Some(81)),
            (named("web"), Some(8080)),
            (named("side"), Some(9090)),
            (named("init"), None),
        ] {
            assert_eq!(target_port(&pod, &port(target.clone())), expected, "{target:?}");
        }
        let udp = ServicePort { protocol: Some("UDP".into()), ..port(named("web")) };
        assert_eq!(target_port(&pod, &udp), None);
    }

    #[test]
    fn trigger_time_is_the_earliest_new_change() {
        let (times, key) = (TriggerTimes::default(), ObjectKey::new("ns", "svc"));
        let mut service = Service::default();
        service.metadata.creation_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(5)));
        let pods = |a, b| {
            vec![Arc::new(pod("a", "n", "Running", Some(a))), Arc::new(pod("b", "n", "Running", Some(b)))]
        };
        assert_eq!(times.observe(&key, &service, &pods(6, 7)), Some(at(5)));
        assert_eq!(times.observe(&key, &service, &pods(6, 7)), None);
        assert_eq!(times.observe(&key, &service, &pods(9, 8)), Some(at(8)));
    }
}
