//! What several components ask about pods: readiness, end, quality of service, the resources they need.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

pub use self::resize::as_counted;
use crate::quantity::Quantity;

mod resize;

/// Amounts by resource name.
pub type Resources = BTreeMap<String, Quantity>;

/// Whether the pod has ended and will not run again.
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// The phase, empty if unset.
#[must_use]
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// A condition of the pod.
#[must_use]
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// Whether the `Ready` condition is true.
#[must_use]
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// Whether the pod has been ready for at least `min_ready_seconds`.
#[must_use]
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: jiff::Timestamp) -> bool {
    let Some(ready) = condition(pod, "Ready").filter(|c| c.status == "True") else { return false };
    if min_ready_seconds == 0 {
        return true;
    }
    let since = ready.last_transition_time.as_ref();
    since.is_some_and(|t| now.as_second() - t.0.as_second() >= i64::from(min_ready_seconds))
}

/// Whether deletion has been asked for.
#[must_use]
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts for its controller: neither ended nor being deleted.
#[must_use]
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_terminating(pod)
}

/// Whether an init container goes on running beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether the kubelet made this pod known from a manifest of its own.
#[must_use]
pub fn is_static(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref().and_then(|a| a.get("kubernetes.io/config.source"));
    source.is_some_and(|s| s != "api")
}

/// Whether the pod stands in the API for one that the kubelet runs from a manifest.
#[must_use]
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key("kubernetes.io/config.mirror"))
}

/// The quality of service class: as recorded in the status, or computed.
#[must_use]
pub fn qos_class(pod: &Pod) -> &str {
    let recorded = pod.status.as_ref().and_then(|s| s.qos_class.as_deref()).filter(|c| !c.is_empty());
    recorded.unwrap_or_else(|| pod.spec.as_ref().map_or("BestEffort", compute_qos_class))
}

/// The quality of service class that follows from the spec.
#[must_use]
pub fn compute_qos_class(spec: &PodSpec) -> &'static str {
    let counted = |list: Option<&BTreeMap<String, ApiQuantity>>| {
        let mut amounts = read(list);
        amounts.retain(|name, amount| matches!(name.as_str(), "cpu" | "memory") && amount.sign() > 0);
        amounts
    };
    let (mut requests, mut limits, mut guaranteed) = (Resources::new(), Resources::new(), true);
    let mut take = |resources: Option<&ResourceRequirements>, limits_matter: bool| {
        add(&mut requests, &counted(resources.and_then(|r| r.requests.as_ref())));
        let limit = counted(resources.and_then(|r| r.limits.as_ref()));
        guaranteed &= !limits_matter || limit.len() == 2;
        add(&mut limits, &limit);
    };
    if let Some(resources) = &spec.resources {
        take(Some(resources), resources.limits.as_ref().is_some_and(|l| !l.is_empty()));
    } else {
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        containers.for_each(|container| take(container.resources.as_ref(), true));
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let covered = requests.iter().all(|(name, request)| limits.get(name) == Some(request));
    if guaranteed && covered && requests.len() == limits.len() { "Guaranteed" } else { "Burstable" }
}

/// What the scheduler and quota count: the greater of what the init containers need one after the other (with the
/// sidecars started before each) and of what containers and sidecars need together, plus overhead. Pod-level
/// requests replace the sum for the resources they name.
#[must_use]
pub fn effective_requests(pod: &Pod) -> Resources {
    effective(pod, |r| r.requests.as_ref())
}

/// The limits by the same rules. Overhead counts only for resources that are limited at all.
#[must_use]
pub fn effective_limits(pod: &Pod) -> Resources {
    effective(pod, |r| r.limits.as_ref())
}

type Pick = fn(&ResourceRequirements) -> Option<&BTreeMap<String, ApiQuantity>>;

fn effective(pod: &Pod, pick: Pick) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::new() };
    let mut total = aggregate(spec, pick);
    for (name, amount) in read(spec.resources.as_ref().and_then(pick)) {
        if is_pod_level(&name) {
            total.insert(name, amount);
        }
    }
    let is_request =
        pick(&ResourceRequirements { requests: Some(BTreeMap::new()), ..Default::default() }).is_some();
    for (name, amount) in read(spec.overhead.as_ref()) {
        match total.get_mut(&name) {
            Some(sum) => sum.add(&amount),
            None if is_request => {
                total.insert(name, amount);
            }
            None => {}
        }
    }
    total
}

/// Requests or limits of all containers by the init and sidecar rules, without overhead and pod-level resources.
#[must_use]
pub fn aggregate_container_requests(spec: &PodSpec) -> Resources {
    aggregate(spec, |r| r.requests.as_ref())
}

/// As [`aggregate_container_requests`], for limits.
#[must_use]
pub fn aggregate_container_limits(spec: &PodSpec) -> Resources {
    aggregate(spec, |r| r.limits.as_ref())
}

fn aggregate(spec: &PodSpec, pick: Pick) -> Resources {
    let of = |container: &Container| read(container.resources.as_ref().and_then(pick));
    let mut together = Resources::new();
    spec.containers.iter().for_each(|container| add(&mut together, &of(container)));
    let (mut sidecars, mut peak) = (Resources::new(), Resources::new());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if is_sidecar(container) {
            add(&mut together, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        max(&mut peak, &needed);
    }
    max(&mut together, &peak);
    together
}

/// Whether a resource may be requested for a pod as a whole.
#[must_use]
pub fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Reads a resource list; what cannot be read is left out (validation does not let it in).
#[must_use]
pub fn read(list: Option<&BTreeMap<String, ApiQuantity>>) -> Resources {
    let entry =
        |(name, amount): (&String, &ApiQuantity)| Some((name.clone(), Quantity::parse(&amount.0).ok()?));
    list.into_iter().flatten().filter_map(entry).collect()
}

/// Adds `more` to `sum`, by name.
pub fn add(sum: &mut Resources, more: &Resources) {
    for (name, amount) in more {
        match sum.get_mut(name) {
            Some(total) => total.add(amount),
            None => {
                sum.insert(name.clone(), amount.clone());
            }
        }
    }
}

/// Raises `peak` to at least `other`, by name.
pub fn max(peak: &mut Resources, other: &Resources) {
    for (name, amount) in other {
        if peak.get(name).is_none_or(|old| amount > old) {
            peak.insert(name.clone(), amount.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    fn show(resources: &Resources) -> String {
        let pairs: Vec<_> = resources.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
        pairs.join(" ")
    }

    fn container(requests: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests}})
    }

    #[test]
    fn init_containers_count_by_their_peak() {
        let cases = [
            (
                json!({"containers": [container(json!({"cpu": "1"})), container(json!({"cpu": "500m"}))]}),
                "cpu=1500m",
            ),
            (
                json!({"containers": [container(json!({"cpu": "1"}))], "initContainers": [container(json!({"cpu": "3"}))]}),
                "cpu=3",
            ),
            (
                json!({"containers": [container(json!({"cpu": "1"}))], "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}},
                    container(json!({"cpu": "3"}))]}),
                "cpu=4",
            ),
            (
                json!({"containers": [container(json!({"cpu": "5"}))], "initContainers": [
                    {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}], "overhead": {"cpu": "100m", "memory": "1Mi"}}),
                "cpu=6100m memory=1Mi",
            ),
            (
                json!({"containers": [container(json!({"cpu": "5"}))], "resources": {"requests": {"cpu": "7"}}}),
                "cpu=7",
            ),
        ];
        for (spec, want) in cases {
            assert_eq!(show(&effective_requests(&pod(spec.clone()))), want, "{spec}");
        }
    }

    #[test]
    fn quality_of_service_follows_requests_and_limits() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let cases = [
            (json!({"containers": [{"name": "c"}]}), "BestEffort"),
            (json!({"containers": [container(json!({"cpu": "1"}))]}), "Burstable"),
            (json!({"containers": [container(json!({"cpu": "0"}))]}), "BestEffort"),
            (
                json!({"containers": [{"name": "c", "resources": {"requests": both, "limits": both}}]}),
                "Guaranteed",
            ),
            (
                json!({"containers": [{"name": "c", "resources": {"requests": both, "limits": both}}, {"name": "d"}]}),
                "Burstable",
            ),
            (
                json!({"containers": [{"name": "c"}], "resources": {"requests": both, "limits": both}}),
                "Guaranteed",
            ),
        ];
        for (spec, want) in cases {
            assert_eq!(qos_class(&pod(spec.clone())), want, "{spec}");
        }
    }
}
