//! Gives each node a part of the cluster's address range for its pods. As upstream's range allocator.

use crate::common::meta;
use crate::context::{Context, enqueue_all};
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::{Patch, PatchParams};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    base: u128,
    prefix: u8,
    ipv6: bool,
}

impl Cidr {
    /// Reads `10.0.0.0/8`; bits beyond the prefix do not count.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.trim().split_once('/')?;
        let (address, prefix) = (address.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
        let (bits, ipv6) = match address {
            IpAddr::V4(address) => (u128::from(u32::from(address)), false),
            IpAddr::V6(address) => (u128::from(address), true),
        };
        let width = if ipv6 { 128 } else { 32 };
        (prefix <= width).then(|| Self { base: bits & mask(prefix, width), prefix, ipv6 })
    }

    fn width(self) -> u8 {
        if self.ipv6 { 128 } else { 32 }
    }

    /// How many ranges of the given prefix fit in.
    fn parts(self, prefix: u8) -> u128 {
        1_u128.checked_shl(u32::from(prefix.saturating_sub(self.prefix))).unwrap_or(u128::MAX)
    }

    fn part(self, prefix: u8, index: u128) -> Self {
        Self { base: self.base + index * (1_u128 << (self.width() - prefix)), prefix, ipv6: self.ipv6 }
    }

    /// Whether the two have addresses in common.
    pub fn overlaps(self, other: Self) -> bool {
        let prefix = self.prefix.min(other.prefix);
        self.ipv6 == other.ipv6 && (self.base ^ other.base) & mask(prefix, self.width()) == 0
    }
}

fn mask(prefix: u8, width: u8) -> u128 {
    let all = if width == 128 { u128::MAX } else { u128::from(u32::MAX) };
    if prefix == 0 { 0 } else { all & (all << (width - prefix).min(127)) }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let address = if self.ipv6 {
            IpAddr::V6(self.base.into())
        } else {
            IpAddr::V4(u32::try_from(self.base).unwrap_or(0).into())
        };
        write!(f, "{address}/{}", self.prefix)
    }
}

/// One range, cut into parts of one size.
struct Range {
    cidr: Cidr,
    node_prefix: u8,
    reserved: Vec<Cidr>,
    next: u128,
}

impl Range {
    /// The next free part after the one given last; those who come later do not get what was just returned.
    fn allocate(&mut self, taken: impl Fn(Cidr) -> bool) -> Option<Cidr> {
        let parts = self.cidr.parts(self.node_prefix);
        for step in 0..parts {
            let index = (self.next + step) % parts;
            let part = self.cidr.part(self.node_prefix, index);
            if !taken(part) && !self.reserved.iter().any(|reserved| reserved.overlaps(part)) {
                self.next = (index + 1) % parts;
                return Some(part);
            }
        }
        None
    }
}

struct Controller {
    client: Client,
    nodes: Informer<Node>,
    recorder: EventRecorder,
    ranges: Mutex<Vec<Range>>,
    /// What nodes were given, until the cache shows it.
    given: Arc<Mutex<HashMap<String, Vec<Cidr>>>>,
}

/// Starts the controller, if nodes are to be given addresses.
pub fn start(cx: &Context) {
    let flags = &cx.config.flags;
    if !flags.allocate_node_cidrs {
        return;
    }
    let reserved: Vec<_> = flags.service_cluster_ip_range.split(',').filter_map(Cidr::parse).collect();
    let ranges = flags.cluster_cidr.split(',').filter_map(|text| {
        let cidr = Cidr::parse(text)?;
        let (asked, default) = if cidr.ipv6 {
            (flags.node_cidr_mask_size_ipv6, 64)
        } else {
            (flags.node_cidr_mask_size_ipv4, 24)
        };
        let node_prefix = [asked, flags.node_cidr_mask_size, default].into_iter().find(|size| *size != 0)?;
        let node_prefix = node_prefix.clamp(cidr.prefix, cidr.width());
        Some(Range { cidr, node_prefix, reserved: reserved.clone(), next: 0 })
    });
    let ranges: Vec<_> = ranges.collect();
    if ranges.is_empty() {
        tracing::error!(cidr = flags.cluster_cidr, "--cluster-cidr is not a range of addresses");
        return;
    }
    // As upstream, which tells of this controller alone, and by this name.
    let labels = [("name", "nodeipam"), ("manager", "kube-controller-manager")];
    metrics::gauge!("running_managed_controllers", &labels).set(1.0);
    let nodes = cx.informer::<Node>();
    let queue = WorkQueue::new("cidrallocator_node");
    enqueue_all(&nodes, &queue);
    let given: Arc<Mutex<HashMap<String, Vec<Cidr>>>> = Arc::default();
    let (forget, waiting) = (given.clone(), queue.clone());
    let all = nodes.clone();
    nodes.subscribe(move |event| {
        if let Event::Deleted(node) = event {
            forget.lock().remove(meta::name(&node.metadata));
            // What it had may serve those that were left without.
            let without = all.store().list().into_iter().filter(|node| cidrs(node).is_empty());
            without.for_each(|node| waiting.add(meta::key(&node.metadata)));
        }
    });
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        recorder: cx.recorder("cidrAllocator"),
        ranges: Mutex::new(ranges),
        given,
        nodes: nodes.clone(),
    });
    let synced = async move { nodes.synced().await };
    cx.work("node-ipam-controller", queue, 4, synced, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    });
}

fn cidrs(node: &Node) -> Vec<Cidr> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
    let one = spec.and_then(|spec| spec.pod_cidr.clone());
    let all = if all.is_empty() { one.into_iter().collect() } else { all };
    all.iter().filter_map(|text| Cidr::parse(text)).collect()
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        let Some(node) = self.nodes.store().get(&key) else { return Ok(Action::Done) };
        if !cidrs(&node).is_empty() || meta::is_deleting(&node.metadata) {
            return Ok(Action::Done);
        }
        let Some(parts) = self.allocate(&key.name) else {
            let about = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Node".to_owned()),
                name: Some(key.name.clone()),
                uid: node.metadata.uid.clone(),
                ..Default::default()
            };
            let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
            self.recorder.event(&about, EventType::Normal, "CIDRNotAvailable", message);
            anyhow::bail!("no CIDR is left for node {}", key.name);
        };
        let texts: Vec<_> = parts.iter().map(ToString::to_string).collect();
        let patch = Patch::Merge(json!({
            "metadata": { "uid": node.metadata.uid },
            "spec": { "podCIDR": texts.first(), "podCIDRs": texts },
        }));
        let api: Api<Node> = Api::all(self.client.clone());
        if let Err(error) = api.patch(&key.name, &PatchParams::default(), &patch).await {
            self.given.lock().remove(&key.name);
            return Err(error.into());
        }
        Ok(Action::Done)
    }

    /// One part of each range; what was given to this node before is given again.
    fn allocate(&self, name: &str) -> Option<Vec<Cidr>> {
        let mut given = self.given.lock();
        if let Some(parts) = given.get(name) {
            return Some(parts.clone());
        }
        let held: Vec<_> = self.nodes.store().list().iter().flat_map(|node| cidrs(node)).collect();
        let taken =
            |part: Cidr| held.iter().chain(given.values().flatten()).any(|other| other.overlaps(part));
        let mut ranges = self.ranges.lock();
        let parts: Option<Vec<_>> = ranges.iter_mut().map(|range| range.allocate(taken)).collect();
        let parts = parts?;
        given.insert(name.to_owned(), parts.clone());
        Some(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        Cidr::parse(text).expect("valid")
    }

    #[test]
    fn parts_are_given_in_turn_and_reserved_ones_are_not() {
        let mut range = Range {
            cidr: cidr("10.244.0.0/22"),
            node_prefix: 24,
            reserved: vec![cidr("10.244.1.0/25")],
            next: 0,
        };
        let held = [cidr("10.244.2.0/24")];
        let mut next = || range.allocate(|part| held.contains(&part)).map(|part| part.to_string());
        assert_eq!(next().as_deref(), Some("10.244.0.0/24"));
        assert_eq!(next().as_deref(), Some("10.244.3.0/24"));
        assert_eq!(next().as_deref(), Some("10.244.0.0/24"));
        assert_eq!(range.allocate(|_| true), None);
    }

    #[test]
    fn ranges_are_read_and_written() {
        for (text, written) in [
            ("10.1.2.3/16", "10.1.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.0.0.1/32", "10.0.0.1/32"),
            ("fd00:1::5/48", "fd00:1::/48"),
        ] {
            assert_eq!(cidr(text).to_string(), written);
        }
        assert!(Cidr::parse("10.0.0.0/33").is_none() && Cidr::parse("x/8").is_none());
        assert_eq!(cidr("fd00::/48").part(64, 3).to_string(), "fd00:0:0:3::/64");
        assert!(cidr("10.0.0.0/8").overlaps(cidr("10.9.0.0/16")));
        assert!(!cidr("10.0.0.0/8").overlaps(cidr("11.0.0.0/8")));
    }
}
