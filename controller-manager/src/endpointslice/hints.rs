//! What is known about hints by topology: the zones, and which Services have hints for them.

use super::topology::{Counts, Zones};
use crate::common::nodes;
use client::events::EventType;
use client::{Event, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Shared by the workers of the controller.
pub struct Hints {
    nodes: Informer<Node>,
    /// Worked out when it is asked for first after the nodes changed.
    zones: Mutex<Option<Arc<Zones>>>,
    services: Mutex<HashMap<ObjectKey, Given>>,
}

/// The hints of one Service.
#[derive(Default)]
struct Given {
    /// By type of addresses.
    counts: BTreeMap<&'static str, Counts>,
    /// Whether it has been said that there are hints.
    told: bool,
}

/// Something to be said about a Service.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// How bad it is.
    pub kind: EventType,
    /// For machines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

fn disabled(why: &str, address_type: &str) -> Said {
    let message = format!("{why}, addressType: {address_type}");
    Said { kind: EventType::Warning, reason: "TopologyAwareHintsDisabled", message }
}

impl Hints {
    /// Of the nodes in a cache.
    pub fn new(nodes: Informer<Node>) -> Self {
        Self { nodes, zones: Mutex::default(), services: Mutex::default() }
    }

    /// The zones as they are now.
    pub fn zones(&self) -> Arc<Zones> {
        let mut zones = self.zones.lock();
        zones.get_or_insert_with(|| Arc::new(Zones::of(&self.nodes.store().list()))).clone()
    }

    /// Wakes the Services that have too few endpoints for a zone after the nodes changed.
    pub fn enqueue_overloaded(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>) {
        let (hints, queue) = (self.clone(), queue.clone());
        self.nodes.subscribe(move |event| {
            let same = |old: &Node, new: &Node| {
                nodes::condition(old, "Ready") == nodes::condition(new, "Ready")
                    && super::endpoints::zone(old) == super::endpoints::zone(new)
            };
            if matches!(event, Event::Updated { old, new } if same(old, new)) {
                return;
            }
            *hints.zones.lock() = None;
            hints.overloaded().into_iter().for_each(|key| queue.add(key));
        });
    }

    fn overloaded(&self) -> Vec<ObjectKey> {
        let services = self.services.lock();
        if services.is_empty() {
            return Vec::new();
        }
        let zones = self.zones();
        let overloaded = |given: &Given| given.counts.values().any(|counts| zones.overload(counts));
        services.iter().filter(|(_, given)| overloaded(given)).map(|(key, _)| key.clone()).collect()
    }

    /// Remembers what became of a Service's hints, of these types of addresses; what is to be said about it.
    pub fn observe(
        &self,
        key: &ObjectKey,
        types: &[&'static str],
        results: &BTreeMap<&'static str, Result<Counts, String>>,
    ) -> Vec<Said> {
        let mut services = self.services.lock();
        let given = services.entry(key.clone()).or_default();
        let mut said = Vec::new();
        for address_type in types {
            match results.get(address_type) {
                Some(Ok(counts)) => {
                    given.counts.insert(address_type, counts.clone());
                    if !std::mem::replace(&mut given.told, true) {
                        let message =
                            format!("Topology Aware Hints has been enabled, addressType: {address_type}");
                        said.push(Said {
                            kind: EventType::Normal,
                            reason: "TopologyAwareHintsEnabled",
                            message,
                        });
                    }
                    continue;
                }
                Some(Err(why)) => said.push(disabled(why, address_type)),
                None if given.told => {
                    said.push(disabled("Topology Aware Hints has been disabled", address_type));
                }
                None => {}
            }
            given.counts.remove(address_type);
            given.told = false;
        }
        if given.counts.is_empty() && !given.told {
            services.remove(key);
        }
        said
    }

    /// The Service is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.services.lock().remove(key);
    }
}
