//! Amounts of resources in the units that scheduling computes with.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};

/// What a container counts for in scores if it requests no CPU, in thousandths (upstream's
/// `DefaultMilliCPURequest`).
const UNSAID_CPU: i64 = 100;
/// What a container counts for in scores if it requests no memory, in bytes.
const UNSAID_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths.
    pub cpu: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Ephemeral storage in bytes.
    pub ephemeral_storage: i64,
    /// How many pods.
    pub pods: i64,
    /// Everything else, in whole units.
    pub scalar: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads amounts by name.
    pub fn of<'a>(amounts: impl IntoIterator<Item = (&'a String, &'a Quantity)>) -> Self {
        let mut read = Self::default();
        for (name, amount) in amounts {
            match name.as_str() {
                "cpu" => read.cpu = amount.milli_value(),
                "memory" => read.memory = amount.value(),
                "ephemeral-storage" => read.ephemeral_storage = amount.value(),
                "pods" => read.pods = amount.value(),
                _ => {
                    read.scalar.insert(name.clone(), amount.value());
                }
            }
        }
        read
    }

    /// What a pod requests, by the rules for init containers, sidecars, overhead and pod-level requests.
    #[must_use]
    pub fn requested_by(pod: &Pod) -> Self {
        Self::of(&api::pod::effective_requests(pod))
    }

    /// Adds (or, with `sign` -1, takes away).
    pub fn add(&mut self, other: &Self, sign: i64) {
        self.cpu += sign * other.cpu;
        self.memory += sign * other.memory;
        self.ephemeral_storage += sign * other.ephemeral_storage;
        self.pods += sign * other.pods;
        for (name, amount) in &other.scalar {
            *self.scalar.entry(name.clone()).or_insert(0) += sign * amount;
        }
    }

    /// One amount by name.
    #[must_use]
    pub fn amount(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            "pods" => self.pods,
            _ => self.scalar.get(name).copied().unwrap_or(0),
        }
    }
}

/// CPU and memory that a pod counts for in scores: containers that request none count for a little, so that
/// many of them do not pile up on one node.
#[must_use]
pub fn non_zero_request(pod: &Pod) -> (i64, i64) {
    let Some(spec) = &pod.spec else { return (0, 0) };
    let requested = Resources::requested_by(pod);
    let says = |container: &Container, name: &str| {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        requests.is_some_and(|r| r.contains_key(name))
    };
    let unsaid = |name: &str, amount: i64| {
        amount * i64::try_from(spec.containers.iter().filter(|c| !says(c, name)).count()).unwrap_or(0)
    };
    (requested.cpu + unsaid("cpu", UNSAID_CPU), requested.memory + unsaid("memory", UNSAID_MEMORY))
}
