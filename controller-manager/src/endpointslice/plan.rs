//! Distributes endpoints over slices, touching as few slices as possible.

use super::topology::{self, Counts, Slices, Zones};
use super::{CONTROLLER, MANAGED_BY, SERVICE_NAME, endpoints};
use crate::common::{meta, pods, services};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What to write.
#[derive(Debug, Default)]
pub struct Plan {
    /// New slices.
    pub create: Vec<EndpointSlice>,
    /// Slices with other content.
    pub update: Vec<EndpointSlice>,
    /// Slices that nothing needs.
    pub delete: Vec<EndpointSlice>,
    /// By type of addresses: how many endpoints each zone has by its hints, or why there are none. Empty unless the
    /// Service asks for hints by topology.
    pub topology: BTreeMap<&'static str, Result<Counts, String>>,
}

/// Ports in an order of their own: slices are grouped by them.
type PortKey = Vec<(String, i32, String, String)>;

fn port_key(ports: &[EndpointPort]) -> PortKey {
    let mut key: PortKey = ports
        .iter()
        .map(|port| {
            (
                port.name.clone().unwrap_or_default(),
                port.port.unwrap_or(0),
                port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port.app_protocol.clone().unwrap_or_default(),
            )
        })
        .collect();
    key.sort();
    key
}

/// What makes two endpoints the same one.
fn identity(endpoint: &Endpoint) -> (Vec<String>, String, String) {
    let mut addresses = endpoint.addresses.clone();
    addresses.sort();
    let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()).unwrap_or_default();
    (addresses, endpoint.hostname.clone().unwrap_or_default(), uid)
}

/// Compares what is there with what should be. `zones` are given if hints are wanted by topology.
pub fn plan(
    service: &Service,
    pods: &[Arc<Pod>],
    node: impl Fn(&str) -> Option<Arc<Node>>,
    existing: &[Arc<EndpointSlice>],
    max_endpoints: usize,
    zones: Option<&Zones>,
) -> Plan {
    let types = endpoints::address_types(service);
    let mut plan = Plan::default();
    for address_type in &types {
        let existing: Vec<_> = existing.iter().filter(|slice| slice.address_type == *address_type).collect();
        let desired = desired(service, pods, &node, address_type, zones.is_some());
        let mut part = plan_type(service, desired, &existing, max_endpoints, address_type, zones.is_some());
        if let Some(zones) = zones {
            let unchanged = unchanged(&existing, &part);
            let slices = Slices { create: &mut part.create, update: &mut part.update, unchanged };
            plan.topology.insert(*address_type, topology::add_hints(zones, slices));
        }
        reuse(service, &mut part.create, &mut part.update, &mut part.delete);
        plan.create.extend(part.create);
        plan.update.extend(part.update);
        plan.delete.extend(part.delete);
    }
    let foreign = existing.iter().filter(|slice| !types.contains(&slice.address_type.as_str()));
    plan.delete.extend(foreign.map(|slice| EndpointSlice::clone(slice)));
    plan
}

/// The slices that a plan leaves alone.
fn unchanged(existing: &[&Arc<EndpointSlice>], plan: &Plan) -> Vec<EndpointSlice> {
    let touched: BTreeSet<_> =
        plan.update.iter().chain(&plan.delete).map(|slice| meta::name(&slice.metadata)).collect();
    let rest = existing.iter().filter(|slice| !touched.contains(meta::name(&slice.metadata)));
    rest.map(|slice| EndpointSlice::clone(slice)).collect()
}

/// Endpoints in the order of their pods, by their ports.
type Desired = BTreeMap<PortKey, (Vec<EndpointPort>, Vec<Endpoint>)>;

fn desired(
    service: &Service,
    pods: &[Arc<Pod>],
    node: &impl Fn(&str) -> Option<Arc<Node>>,
    address_type: &str,
    by_topology: bool,
) -> Desired {
    let mut desired = Desired::new();
    for pod in pods.iter().filter(|pod| services::belongs(pod, true)) {
        let ports = endpoints::ports(pod, service);
        let (_, list) = desired.entry(port_key(&ports)).or_insert_with(|| (ports, Vec::new()));
        let node = node(pods::node_name(pod));
        // A pod of a node that is gone is on its way out, unless its address is wanted in any case.
        if node.is_none() && !services::publishes_not_ready(service) {
            continue;
        }
        list.extend(endpoints::endpoint(pod, node.as_deref(), service, address_type));
    }
    if by_topology {
        // Hints come last and do not make an endpoint another one.
        for (_, list) in desired.values_mut() {
            list.iter_mut().for_each(|endpoint| endpoint.hints = None);
        }
    }
    desired
}

fn plan_type(
    service: &Service,
    desired: Desired,
    existing: &[&Arc<EndpointSlice>],
    max_endpoints: usize,
    address_type: &str,
    by_topology: bool,
) -> Plan {
    let (mut create, mut update, mut delete) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_ports: BTreeMap<PortKey, Vec<EndpointSlice>> = BTreeMap::new();
    for slice in existing {
        if is_owned(slice, service) {
            let ports = slice.ports.as_deref().unwrap_or_default();
            by_ports.entry(port_key(ports)).or_default().push(EndpointSlice::clone(slice));
        } else {
            delete.push(EndpointSlice::clone(slice));
        }
    }
    for (key, (ports, endpoints)) in desired {
        let slices = by_ports.remove(&key).unwrap_or_default();
        let empty = || new_slice(service, address_type, ports.clone());
        let (made, changed, gone) = fill(service, slices, endpoints, max_endpoints, by_topology, empty);
        create.extend(made);
        update.extend(changed);
        delete.extend(gone);
    }
    delete.extend(by_ports.into_values().flatten());
    // A Service without endpoints has one empty slice.
    if existing.len() == delete.len() && create.is_empty() {
        let placeholder = new_slice(service, address_type, Vec::new());
        if let [only] = delete.as_slice()
            && is_placeholder(only, &placeholder)
        {
            delete.clear();
        } else {
            create.push(placeholder);
        }
    }
    Plan { create, update, delete, ..Plan::default() }
}

/// A slice that would be deleted is better overwritten by one that would be created.
fn reuse(
    service: &Service,
    create: &mut Vec<EndpointSlice>,
    update: &mut Vec<EndpointSlice>,
    delete: &mut Vec<EndpointSlice>,
) {
    delete.retain(|old| {
        if !is_owned(old, service) {
            return true;
        }
        let Some(new) = create.pop() else { return true };
        let metadata = ObjectMeta { labels: new.metadata.labels.clone(), ..old.metadata.clone() };
        update.push(EndpointSlice { metadata, ..new });
        false
    });
}

/// Puts endpoints into slices of one set of ports: kept ones where they are, new ones first into slices that change
/// anyway, then into one that has room for all, then into new slices.
fn fill(
    service: &Service,
    slices: Vec<EndpointSlice>,
    desired: Vec<Endpoint>,
    max: usize,
    by_topology: bool,
    empty: impl Fn() -> EndpointSlice,
) -> (Vec<EndpointSlice>, Vec<EndpointSlice>, Vec<EndpointSlice>) {
    let mut left: VecDeque<Endpoint> = VecDeque::new();
    let mut wanted: BTreeMap<_, Endpoint> = BTreeMap::new();
    let mut order = Vec::new();
    for endpoint in desired {
        let id = identity(&endpoint);
        if wanted.insert(id.clone(), endpoint).is_none() {
            order.push(id);
        }
    }
    let (mut unchanged, mut update, mut delete) = (Vec::new(), Vec::new(), Vec::new());
    for mut slice in slices {
        let before = slice.endpoints.take().unwrap_or_default();
        let kept: Vec<_> = before.iter().filter_map(|endpoint| wanted.remove(&identity(endpoint))).collect();
        let same = kept.len() == before.len()
            && kept.iter().zip(&before).all(|(new, old)| looks_same(new, old, by_topology));
        let relabelled = labels(service);
        let labels_same = slice.metadata.labels.as_ref() == Some(&relabelled);
        if !same && kept.is_empty() {
            slice.endpoints = Some(before);
            delete.push(slice);
        } else if same && labels_same {
            slice.endpoints = Some(before);
            unchanged.push(slice);
        } else {
            slice.endpoints = Some(if same { before } else { kept });
            slice.metadata.labels = Some(relabelled);
            update.push(slice);
        }
    }
    left.extend(order.iter().filter_map(|id| wanted.remove(id)));
    update.sort_by_key(|slice| std::cmp::Reverse(count(slice)));
    for slice in &mut update {
        top_up(slice, &mut left, max);
    }
    let mut create = Vec::new();
    while !left.is_empty() {
        let fits = (left.len() < max).then(|| best_fit(&unchanged, left.len(), max)).flatten();
        let mut slice = match fits {
            Some(index) => unchanged.swap_remove(index),
            None => empty(),
        };
        top_up(&mut slice, &mut left, max);
        if slice.metadata.name.is_some() { update.push(slice) } else { create.push(slice) }
    }
    (create, update, delete)
}

fn count(slice: &EndpointSlice) -> usize {
    slice.endpoints.as_ref().map_or(0, Vec::len)
}

fn top_up(slice: &mut EndpointSlice, left: &mut VecDeque<Endpoint>, max: usize) {
    let endpoints = slice.endpoints.get_or_insert_default();
    let room = max.saturating_sub(endpoints.len()).min(left.len());
    endpoints.extend(left.drain(..room));
}

/// The slice that would be fullest with so many endpoints more.
fn best_fit(slices: &[EndpointSlice], more: usize, max: usize) -> Option<usize> {
    let fitting =
        slices.iter().enumerate().filter(|(_, slice)| count(slice) > 0 && count(slice) + more <= max);
    fitting.max_by_key(|(_, slice)| count(slice)).map(|(index, _)| index)
}

/// Hints by topology are no part of an endpoint: they depend on all others.
fn looks_same(new: &Endpoint, old: &Endpoint, by_topology: bool) -> bool {
    let conditions = |endpoint: &Endpoint| endpoint.conditions.clone().unwrap_or_default();
    let target = |endpoint: &Endpoint| {
        let mut target = endpoint.target_ref.clone()?;
        target.resource_version = None;
        Some(target)
    };
    new.node_name == old.node_name
        && new.zone == old.zone
        && (by_topology || new.hints == old.hints)
        && conditions(new) == conditions(old)
        && target(new) == target(old)
}

fn is_owned(slice: &EndpointSlice, service: &Service) -> bool {
    let owners = slice.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| {
        owner.uid == meta::uid(&service.metadata) && owner.kind == "Service" && owner.api_version == "v1"
    })
}

fn is_placeholder(slice: &EndpointSlice, placeholder: &EndpointSlice) -> bool {
    count(slice) == 0
        && slice.ports.as_deref().unwrap_or_default().is_empty()
        && slice.metadata.labels == placeholder.metadata.labels
        && slice.metadata.owner_references == placeholder.metadata.owner_references
}

/// The Service's labels, and those by which slices are found.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(services::HEADLESS);
    if !services::has_cluster_ip(service) {
        labels.insert(services::HEADLESS.to_owned(), String::new());
    }
    labels.insert(SERVICE_NAME.to_owned(), meta::name(&service.metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    labels
}

fn new_slice(service: &Service, address_type: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(pods::name_prefix(meta::name(&service.metadata))),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels(service)),
            owner_references: Some(vec![meta::controller_reference(service)]),
            ..Default::default()
        },
        address_type: address_type.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::tests::pod;
    use k8s_openapi::api::core::v1::{PodIP, ServicePort, ServiceSpec};

    fn service() -> Service {
        Service {
            metadata: ObjectMeta {
                name: Some("svc".into()),
                namespace: Some("default".into()),
                uid: Some("uid-svc".into()),
                labels: Some([("team".to_owned(), "a".to_owned())].into()),
                ..Default::default()
            },
            spec: Some(ServiceSpec {
                cluster_ip: Some("10.0.0.1".into()),
                ip_families: Some(vec!["IPv4".into()]),
                ports: Some(vec![ServicePort { port: 80, ..Default::default() }]),
                ..Default::default()
            }),
            status: None,
        }
    }

    fn addressed(index: usize, ready: bool) -> Arc<Pod> {
        let mut pod = pod(&format!("p{index:03}"), "node", "Running", ready.then_some(1));
        if let Some(status) = &mut pod.status {
            status.pod_ips = Some(vec![PodIP { ip: format!("10.1.{}.{}", index / 250, index % 250) }]);
        }
        Arc::new(pod)
    }

    fn planned(service: &Service, pods: &[Arc<Pod>], existing: &[Arc<EndpointSlice>]) -> Plan {
        plan(service, pods, |_| Some(Arc::new(Node::default())), existing, 100, None)
    }

    /// Applies a plan to a model of the store.
    fn apply(mut slices: Vec<Arc<EndpointSlice>>, plan: Plan, serial: &mut usize) -> Vec<Arc<EndpointSlice>> {
        let name = |slice: &EndpointSlice| meta::name(&slice.metadata).to_owned();
        slices.retain(|slice| !plan.delete.iter().any(|gone| name(gone) == name(slice)));
        for new in plan.update {
            slices.retain(|slice| name(slice) != name(&new));
            slices.push(Arc::new(new));
        }
        for mut new in plan.create {
            *serial += 1;
            new.metadata.name = Some(format!("svc-{serial}"));
            slices.push(Arc::new(new));
        }
        slices
    }

    fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
        let mut sizes: Vec<_> = slices.iter().map(|slice| count(slice)).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn sizes_follow_the_pods_and_rest_is_rest() {
        let (service, mut serial, mut slices) = (service(), 0, Vec::new());
        for (pods, expected) in [
            (0..0, &[0][..]),
            (0..3, &[3]),
            (0..100, &[100]),
            (0..101, &[1, 100]),
            (0..250, &[50, 100, 100]),
            (100..250, &[50, 100]),
            (0..0, &[0]),
        ] {
            let pods: Vec<_> = pods.map(|index| addressed(index, true)).collect();
            slices = apply(slices.clone(), planned(&service, &pods, &slices), &mut serial);
            assert_eq!(sizes(&slices), expected);
            let again = planned(&service, &pods, &slices);
            assert!(
                again.create.is_empty() && again.update.is_empty() && again.delete.is_empty(),
                "{again:?}"
            );
        }
    }

    #[test]
    fn one_change_touches_one_slice() {
        let (service, mut serial) = (service(), 0);
        let pods: Vec<_> = (0..250).map(|index| addressed(index, true)).collect();
        let slices = apply(Vec::new(), planned(&service, &pods, &[]), &mut serial);
        let mut changed = pods.clone();
        changed[120] = addressed(120, false);
        let plan = planned(&service, &changed, &slices);
        assert_eq!((plan.create.len(), plan.update.len(), plan.delete.len()), (0, 1, 0));
    }

    #[test]
    fn new_labels_reach_the_slices() {
        let (mut service, mut serial) = (service(), 0);
        let pods = [addressed(1, true)];
        let slices = apply(Vec::new(), planned(&service, &pods, &[]), &mut serial);
        service.metadata.labels = Some([("team".to_owned(), "b".to_owned())].into());
        let plan = planned(&service, &pods, &slices);
        assert_eq!(meta::label(&plan.update[0].metadata, "team"), Some("b"));
        assert_eq!(meta::label(&plan.update[0].metadata, SERVICE_NAME), Some("svc"));
    }

    #[test]
    fn conditions_tell_ready_serving_and_terminating_apart() {
        let mut service = service();
        let mut leaving = Pod::clone(&addressed(2, true));
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        for (publish, pod, expected) in [
            (false, addressed(1, true), (true, true, false)),
            (false, addressed(1, false), (false, false, false)),
            (true, addressed(1, false), (true, false, false)),
            (false, Arc::new(leaving.clone()), (false, true, true)),
        ] {
            if let Some(spec) = &mut service.spec {
                spec.publish_not_ready_addresses = Some(publish);
            }
            let plan = planned(&service, &[pod], &[]);
            let endpoint = &plan.create[0].endpoints.as_ref().expect("one endpoint")[0];
            let conditions = endpoint.conditions.clone().expect("set");
            let got = (conditions.ready, conditions.serving, conditions.terminating);
            assert_eq!(got, (Some(expected.0), Some(expected.1), Some(expected.2)));
        }
    }
}
