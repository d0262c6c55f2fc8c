//! What is written of the devices that a claim gets.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
    ResourceClaim,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::allocate::Got;
use super::requests::{self, Way};

/// What a claim gets on the node.
pub(super) fn of(
    claim: &ResourceClaim,
    chosen: &[&Way<'_>],
    got: &[&Got<'_>],
    node: &Node,
) -> AllocationResult {
    let config = config(claim, chosen);
    AllocationResult {
        allocation_timestamp: None,
        devices: Some(DeviceAllocationResult {
            results: Some(got.iter().map(|got| device(got)).collect()),
            config: (!config.is_empty()).then_some(config),
        }),
        node_selector: node_selector(got, node),
    }
}

fn device(got: &Got<'_>) -> DeviceRequestAllocationResult {
    let shared = got.share.as_ref();
    let consumed = shared.filter(|amounts| !amounts.is_empty()).map(|amounts| {
        amounts.iter().map(|(name, amount)| (name.clone(), ApiQuantity(amount.canonical()))).collect()
    });
    DeviceRequestAllocationResult {
        request: got.way.name.clone(),
        driver: got.id.0.clone(),
        pool: got.id.1.clone(),
        device: got.id.2.clone(),
        admin_access: got.way.admin.then_some(true),
        tolerations: (!got.way.tolerations.is_empty()).then(|| got.way.tolerations.to_vec()),
        share_id: shared.map(|_| uuid::Uuid::new_v4().to_string()),
        consumed_capacity: consumed,
        binding_conditions: got.item.device.binding_conditions.clone(),
        binding_failure_conditions: got.item.device.binding_failure_conditions.clone(),
    }
}

/// First what classes say of their devices, once each, then what the claim says.
fn config(claim: &ResourceClaim, chosen: &[&Way<'_>]) -> Vec<DeviceAllocationConfiguration> {
    let mut all: Vec<DeviceAllocationConfiguration> = Vec::new();
    let mut seen: Vec<(Option<String>, usize, usize)> = Vec::new();
    for way in chosen {
        let name = way.class.metadata.name.clone();
        if let Some((_, start, end)) = seen.iter().find(|(class, ..)| *class == name) {
            for config in &mut all[*start..*end] {
                config.requests.get_or_insert_default().push(way.name.clone());
            }
            continue;
        }
        let start = all.len();
        all.extend(way.class.spec.config.iter().flatten().map(|config| DeviceAllocationConfiguration {
            source: "FromClass".to_owned(),
            requests: Some(vec![way.name.clone()]),
            opaque: config.opaque.clone(),
        }));
        seen.push((name, start, all.len()));
    }
    let own = requests::devices(claim).and_then(|devices| devices.config.as_ref());
    for config in own.into_iter().flatten() {
        let named = config.requests.as_deref().unwrap_or_default();
        let is_about = |way: &&&Way<'_>| named.iter().any(|n| *n == way.name || n == way.parent);
        if named.is_empty() || chosen.iter().any(|way| is_about(&way)) {
            all.push(DeviceAllocationConfiguration {
                source: "FromClaim".to_owned(),
                requests: config.requests.clone(),
                opaque: config.opaque.clone(),
            });
        }
    }
    all
}

/// Where all of the devices can be used.
fn node_selector(got: &[&Got<'_>], node: &Node) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    for item in got.iter().map(|got| &got.item) {
        let (spec, device) = (&item.slice.spec, item.device);
        let per_device = spec.per_device_node_selection == Some(true);
        let name = if per_device { &device.node_name } else { &spec.node_name };
        let selector = if per_device { &device.node_selector } else { &spec.node_selector };
        if name.is_some() || device.binds_to_node == Some(true) {
            let only = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![node.metadata.name.clone().unwrap_or_default()]),
            };
            let term = NodeSelectorTerm { match_fields: Some(vec![only]), match_expressions: None };
            return Some(NodeSelector { node_selector_terms: vec![term] });
        }
        if let Some(first) = selector.as_ref().and_then(|s| s.node_selector_terms.first()) {
            add(first.match_fields.as_deref(), &mut term.match_fields);
            add(first.match_expressions.as_deref(), &mut term.match_expressions);
        }
    }
    let says_something = term.match_fields.is_some() || term.match_expressions.is_some();
    says_something.then(|| NodeSelector { node_selector_terms: vec![term] })
}

fn add(from: Option<&[NodeSelectorRequirement]>, into: &mut Option<Vec<NodeSelectorRequirement>>) {
    for requirement in from.into_iter().flatten() {
        let all = into.get_or_insert_default();
        if !all.contains(requirement) {
            all.push(requirement.clone());
        }
    }
}
