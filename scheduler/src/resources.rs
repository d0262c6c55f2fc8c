//! Amounts of resources in the units that scheduling computes with.

use std::collections::BTreeMap;

use api::pod::{as_counted, effective_requests};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// What a container counts for in scores if it requests no CPU, in thousandths (upstream's
/// `DefaultMilliCPURequest`).
pub const UNSAID_CPU: i64 = 100;
/// What a container counts for in scores if it requests no memory, in bytes.
pub const UNSAID_MEMORY: i64 = 200 * 1024 * 1024;

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
        Self::of(&effective_requests(pod))
    }

    /// What a pod counts for on its node. While its containers are resized that is the greatest of what is asked
    /// for, allocated and in effect; of the last two if the node cannot do what is asked for.
    #[must_use]
    pub fn accounted_for(pod: &Pod) -> Self {
        match as_counted(pod) {
            Some(resized) => Self::requested_by(&resized),
            None => Self::requested_by(pod),
        }
    }

    /// Whether nothing is requested but the place of a pod.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.cpu == 0 && self.memory == 0 && self.ephemeral_storage == 0 && self.scalar.is_empty()
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

/// Whether a resource is neither Kubernetes' own nor of a quota (upstream `IsExtendedResourceName`).
#[must_use]
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// CPU and memory that a pod counts for in scores: containers that request none count for a little, so that
/// many of them do not pile up on one node. `requests` is what the pod counts for otherwise.
#[must_use]
pub fn non_zero_request(pod: &Pod, requests: &Resources) -> (i64, i64) {
    let Some(spec) = &pod.spec else { return (0, 0) };
    let for_the_pod = |name: &str| {
        spec.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key(name))
    };
    let lacks = |container: &Container, name: &str| {
        let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        !requests.is_some_and(|r| r.contains_key(name))
    };
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let missing = |name: &str| !for_the_pod(name) && containers().any(|c| lacks(c, name));
    let (cpu, memory) = (missing("cpu"), missing("memory"));
    if !cpu && !memory {
        return (requests.cpu, requests.memory);
    }
    let mut filled = as_counted(pod).unwrap_or_else(|| pod.clone());
    let Some(spec) = filled.spec.as_mut() else { return (0, 0) };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let requests = container.resources.get_or_insert_default().requests.get_or_insert_default();
        if cpu {
            requests.entry("cpu".into()).or_insert_with(|| ApiQuantity(format!("{UNSAID_CPU}m")));
        }
        if memory {
            requests.entry("memory".into()).or_insert_with(|| ApiQuantity(UNSAID_MEMORY.to_string()));
        }
    }
    let filled = Resources::requested_by(&filled);
    (filled.cpu, filled.memory)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(value: Value) -> Pod {
        serde_json::from_value(value).expect("a pod")
    }

    fn container(requests: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests}})
    }

    #[test]
    fn containers_that_request_nothing_count_a_little_in_scores() {
        let some = 200 * 1024 * 1024;
        for (spec, expected) in [
            (json!({"containers": [container(json!({"cpu": "1", "memory": "1"}))]}), (1000, 1)),
            (json!({"containers": [container(json!({})), container(json!({"cpu": "1"}))]}), (1100, 2 * some)),
            (
                json!({"resources": {"requests": {"cpu": "2"}}, "containers": [container(json!({}))]}),
                (2000, some),
            ),
        ] {
            let pod = pod(json!({"spec": spec}));
            assert_eq!(non_zero_request(&pod, &Resources::accounted_for(&pod)), expected, "{spec}");
        }
    }
}
