//! What the Endpoints object of a Service should be.

use crate::common::{meta, pods, services};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Pod, Service, ServicePort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
const OVER_CAPACITY: (&str, &str) = ("endpoints.kubernetes.io/over-capacity", "truncated");
/// Most addresses in one object.
const CAPACITY: usize = 1000;

/// Whether Endpoints without a Service can go: those of an old leader election stay.
pub fn is_leftover(endpoints: &Endpoints) -> bool {
    meta::annotation(&endpoints.metadata, "control-plane.alpha.kubernetes.io/leader").is_none()
}

/// The object to write; `None` when the one that is there is right.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    current: Option<&Endpoints>,
    trigger: Option<Timestamp>,
) -> Option<Endpoints> {
    let mut subsets = subsets(service, pods);
    let truncated = truncate(&mut subsets);
    let labels = labels(service);
    if let Some(current) = current {
        let capacity = meta::annotation(&current.metadata, OVER_CAPACITY.0) == Some(OVER_CAPACITY.1);
        if normal(current.subsets.clone().unwrap_or_default()) == subsets
            && meta::labels(&current.metadata) == &labels
            && capacity == truncated
        {
            return None;
        }
    }
    let mut metadata = current.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..Default::default()
        },
        |current| current.metadata.clone(),
    );
    let annotations = metadata.annotations.get_or_insert_default();
    set(annotations, services::TRIGGER_TIME, trigger.map(services::trigger_text));
    set(annotations, OVER_CAPACITY.0, truncated.then(|| OVER_CAPACITY.1.to_owned()));
    metadata.annotations = metadata.annotations.filter(|annotations| !annotations.is_empty());
    metadata.labels = Some(labels);
    Some(Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) })
}

fn set(annotations: &mut BTreeMap<String, String>, key: &str, value: Option<String>) {
    match value {
        Some(value) => annotations.insert(key.to_owned(), value),
        None => annotations.remove(key),
    };
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(services::HEADLESS);
    if !services::has_cluster_ip(service) {
        labels.insert(services::HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    labels
}

/// Name, number, protocol: ports are ordered and grouped by these.
type PortKey = Vec<(String, i32, String)>;

fn port_key(ports: &[EndpointPort]) -> PortKey {
    let key = |port: &EndpointPort| {
        (port.name.clone().unwrap_or_default(), port.port, port.protocol.clone().unwrap_or_default())
    };
    ports.iter().map(key).collect()
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Vec<EndpointSubset> {
    let publish = services::publishes_not_ready(service);
    let mut groups: BTreeMap<PortKey, EndpointSubset> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| services::belongs(pod, publish)) {
        let Some(ip) = address_for(service, pod) else { continue };
        let mut ports: Vec<_> =
            services::ports(service).iter().filter_map(|port| endpoint_port(pod, port)).collect();
        let portless = services::ports(service).is_empty() && services::cluster_ip(service) == "None";
        if ports.is_empty() && !portless {
            continue;
        }
        ports.sort_by_key(|port| port_key(std::slice::from_ref(port)));
        let subset = groups.entry(port_key(&ports)).or_insert_with(|| EndpointSubset {
            ports: (!ports.is_empty()).then_some(ports),
            ..Default::default()
        });
        let address = address(service, pod, ip);
        let list = if publish || pods::is_ready(pod) {
            &mut subset.addresses
        } else {
            &mut subset.not_ready_addresses
        };
        list.get_or_insert_default().push(address);
    }
    normal(groups.into_values().collect())
}

fn endpoint_port(pod: &Pod, port: &ServicePort) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: port.name.clone().filter(|name| !name.is_empty()),
        port: services::target_port(pod, port)?,
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    })
}

fn address(service: &Service, pod: &Pod, ip: String) -> EndpointAddress {
    EndpointAddress {
        ip,
        hostname: services::hostname(pod, service).map(str::to_owned),
        node_name: Some(pods::node_name(pod).to_owned()).filter(|name| !name.is_empty()),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".to_owned()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..Default::default()
        }),
    }
}

/// The pod's address of the Service's first family.
fn address_for(service: &Service, pod: &Pod) -> Option<String> {
    let first = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref()?.first().cloned());
    let ipv6 = match first {
        Some(family) => family == "IPv6",
        None if services::has_cluster_ip(service) => services::cluster_ip(service).contains(':'),
        None => services::pod_ips(pod).first()?.contains(':'),
    };
    let ips = services::pod_ips(pod).into_iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
    ips.into_iter().find(|ip| ip.is_ipv6() == ipv6).map(|ip| ip.to_string())
}

/// Everything in its order, and nothing that is empty.
fn normal(mut subsets: Vec<EndpointSubset>) -> Vec<EndpointSubset> {
    let order = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            for target in addresses.iter_mut().filter_map(|address| address.target_ref.as_mut()) {
                target.resource_version = None;
            }
            addresses.sort_by_key(|address| {
                let uid = address.target_ref.as_ref().and_then(|target| target.uid.clone());
                (address.ip.parse::<IpAddr>().ok(), uid)
            });
        }
        *list = list.take().filter(|addresses| !addresses.is_empty());
    };
    for subset in &mut subsets {
        order(&mut subset.addresses);
        order(&mut subset.not_ready_addresses);
        if let Some(ports) = &mut subset.ports {
            ports.sort_by_key(|port| port_key(std::slice::from_ref(port)));
        }
    }
    subsets.sort_by_key(|subset| port_key(subset.ports.as_deref().unwrap_or_default()));
    subsets
}

/// Cuts the list to what one object may hold: ready addresses stay before unready ones.
fn truncate(subsets: &mut Vec<EndpointSubset>) -> bool {
    let len = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
    let total: usize = subsets.iter().map(|s| len(&s.addresses) + len(&s.not_ready_addresses)).sum();
    if total <= CAPACITY {
        return false;
    }
    let mut room = CAPACITY;
    let mut cut = |list: &mut Option<Vec<EndpointAddress>>| {
        if let Some(addresses) = list {
            addresses.truncate(room);
            room -= addresses.len();
        }
        *list = list.take().filter(|addresses| !addresses.is_empty());
    };
    subsets.iter_mut().for_each(|subset| cut(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| cut(&mut subset.not_ready_addresses));
    subsets.retain(|subset| subset.addresses.is_some() || subset.not_ready_addresses.is_some());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::{at, pod};
    use k8s_openapi::api::core::v1::{PodIP, ServiceSpec};

    fn service(ports: &[(&str, i32)], cluster_ip: &str) -> Service {
        let ports: Vec<_> = (ports.iter())
            .map(|(name, port)| ServicePort { name: Some((*name).into()), port: *port, ..Default::default() })
            .collect();
        Service {
            metadata: ObjectMeta {
                name: Some("svc".into()),
                namespace: Some("default".into()),
                ..Default::default()
            },
            spec: Some(ServiceSpec {
                cluster_ip: Some(cluster_ip.into()),
                ports: Some(ports),
                ..Default::default()
            }),
            status: None,
        }
    }

    fn addressed(index: usize, ready: bool) -> Arc<Pod> {
        let mut pod = pod(&format!("p{index}"), "node", "Running", ready.then_some(1));
        if let Some(status) = &mut pod.status {
            status.pod_ips = Some(vec![PodIP { ip: format!("10.1.{}.{}", index / 250, index % 250) }]);
        }
        Arc::new(pod)
    }

    fn text(endpoints: &Endpoints) -> String {
        let ips = |list: &Option<Vec<EndpointAddress>>| {
            list.iter().flatten().map(|address| address.ip.as_str()).collect::<Vec<_>>().join(",")
        };
        let subset = |subset: &EndpointSubset| {
            let ports: Vec<_> = subset.ports.iter().flatten().map(|port| port.port.to_string()).collect();
            format!("{}|{}:{}", ips(&subset.addresses), ips(&subset.not_ready_addresses), ports.join(","))
        };
        endpoints.subsets.iter().flatten().map(subset).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pods_appear_by_readiness_and_port() {
        for (ports, cluster_ip, pods, expected) in [
            (
                &[("http", 80)][..],
                "10.0.0.1",
                vec![addressed(2, true), addressed(1, false)],
                "10.1.0.2|10.1.0.1:80",
            ),
            (
                &[("b", 81), ("a", 80)],
                "10.0.0.1",
                vec![addressed(11, true), addressed(9, true)],
                "10.1.0.9,10.1.0.11|:80,81",
            ),
            (&[], "None", vec![addressed(1, true)], "10.1.0.1|:"),
            (&[], "10.0.0.1", vec![addressed(1, true)], ""),
            (&[("http", 80)], "10.0.0.1", vec![], ""),
        ] {
            let service = service(ports, cluster_ip);
            let planned = plan(&service, &pods, None, Some(at(1))).expect("nothing is there");
            assert_eq!(text(&planned), expected);
            assert_eq!(plan(&service, &pods, Some(&planned), None), None, "at rest");
        }
    }

    #[test]
    fn large_services_are_cut() {
        let service = service(&[("http", 80)], "10.0.0.1");
        let pods: Vec<_> = (0..1200).map(|index| addressed(index, index % 2 == 0)).collect();
        let planned = plan(&service, &pods, None, None).expect("nothing is there");
        let subset = &planned.subsets.as_ref().expect("one subset")[0];
        let count = |list: &Option<Vec<EndpointAddress>>| list.as_ref().map_or(0, Vec::len);
        assert_eq!((count(&subset.addresses), count(&subset.not_ready_addresses)), (600, 400));
        assert_eq!(meta::annotation(&planned.metadata, OVER_CAPACITY.0), Some("truncated"));
        assert_eq!(plan(&service, &pods, Some(&planned), None), None);
    }
}
