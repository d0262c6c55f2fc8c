//! What a pod counts for while its resources change (upstream `component-helpers/resource`, with `UseStatusResources`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::{condition, is_pod_level, is_sidecar};
use crate::quantity::Quantity;

type Amounts = BTreeMap<String, ApiQuantity>;

/// The pod as if it asked for what it counts for: the greatest of what is asked for, allocated and in effect; of the
/// last two if the node cannot do what is asked for. None if that is what it asks for.
#[must_use]
pub fn as_counted(pod: &Pod) -> Option<Pod> {
    let status = pod.status.as_ref()?;
    let statuses = || status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let of = |name: &str| statuses().find(|status| status.name == name);
    let pending = condition(pod, "PodResizePending");
    let asked_counts = pending.is_none_or(|c| c.reason.as_deref() != Some("Infeasible"));
    let spec = pod.spec.as_ref()?;
    let counted = |container: &Container| of_container(container, of(&container.name)?, asked_counts);
    let resizable =
        || spec.init_containers.iter().flatten().filter(|c| is_sidecar(c)).chain(&spec.containers);
    let whole = of_pod(pod, asked_counts);
    if whole.is_none() && !resizable().any(|container| counted(container).is_some()) {
        return None;
    }
    let mut resized = pod.clone();
    let spec = resized.spec.as_mut()?;
    if whole.is_some() {
        spec.resources = whole;
    }
    let sidecars = spec.init_containers.iter_mut().flatten().filter(|c| is_sidecar(c));
    for container in sidecars.chain(&mut spec.containers) {
        if let Some(counted) = counted(container) {
            container.resources = Some(counted);
        }
    }
    Some(resized)
}

/// What a container counts for; none if that is what it asks for.
fn of_container(
    container: &Container,
    status: &ContainerStatus,
    asked_counts: bool,
) -> Option<ResourceRequirements> {
    let actual = status.resources.as_ref()?;
    let asked = container.resources.clone().unwrap_or_default();
    let counted = counted(&asked, actual, status.allocated_resources.as_ref(), asked_counts);
    (counted != asked).then_some(counted)
}

/// The same for the pod as a whole. Only what it asks for is counted so.
fn of_pod(pod: &Pod, asked_counts: bool) -> Option<ResourceRequirements> {
    let (status, asked) = (pod.status.as_ref()?, pod.spec.as_ref()?.resources.as_ref()?);
    let counted =
        counted(asked, status.resources.as_ref()?, status.allocated_resources.as_ref(), asked_counts);
    let only_asked = |asked: &Option<Amounts>, counted: &Option<Amounts>| {
        let amount = |name: &String| counted.as_ref().and_then(|all| all.get(name)).cloned();
        let zero = || ApiQuantity("0".to_owned());
        let one = |(name, asked): (&String, &ApiQuantity)| {
            let amount = if is_pod_level(name) { amount(name).unwrap_or_else(zero) } else { asked.clone() };
            (name.clone(), amount)
        };
        asked.as_ref().map(|asked| asked.iter().map(one).collect())
    };
    let whole = ResourceRequirements {
        requests: only_asked(&asked.requests, &counted.requests),
        limits: only_asked(&asked.limits, &counted.limits),
        ..asked.clone()
    };
    (whole != *asked).then_some(whole)
}

fn counted(
    asked: &ResourceRequirements,
    actual: &ResourceRequirements,
    allocated: Option<&Amounts>,
    asked_counts: bool,
) -> ResourceRequirements {
    let requests = asked.requests.as_ref().filter(|_| asked_counts);
    let limits = asked.limits.as_ref().filter(|_| asked_counts);
    ResourceRequirements {
        requests: greatest([requests, actual.requests.as_ref(), allocated]),
        limits: greatest([limits, actual.limits.as_ref(), None]),
        ..asked.clone()
    }
}

/// The greatest amount of each resource.
fn greatest(lists: [Option<&Amounts>; 3]) -> Option<Amounts> {
    let mut all = Amounts::new();
    for (name, amount) in lists.into_iter().flatten().flatten() {
        let parsed = |amount: &ApiQuantity| Quantity::parse(&amount.0).ok();
        if all.get(name).is_none_or(|known| parsed(known) < parsed(amount)) {
            all.insert(name.clone(), amount.clone());
        }
    }
    (!all.is_empty()).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::super::{effective_limits, effective_requests};
    use super::*;
    use serde_json::{Value, json};

    /// CPU requested and limited that the pod counts for.
    fn cpu(spec: Value, status: Value) -> (String, String) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec, "status": status})).expect("a pod");
        let counted = as_counted(&pod).unwrap_or(pod);
        let text = |amount: Option<&Quantity>| amount.map_or_else(String::new, ToString::to_string);
        (text(effective_requests(&counted).get("cpu")), text(effective_limits(&counted).get("cpu")))
    }

    fn resources(requests: &str, limits: &str) -> Value {
        json!({"requests": {"cpu": requests}, "limits": {"cpu": limits}})
    }

    #[test]
    fn a_pod_counts_for_the_greatest_of_wanted_allocated_and_actual() {
        let container = |resources: Value| json!({"containers": [{"name": "c", "resources": resources}]});
        let whole = |resources: Value| json!({"resources": resources, "containers": [{"name": "c"}]});
        let status = |reason: &str, of_container: Option<Value>, of_pod: Option<Value>| {
            let conditions = json!([{"type": "PodResizePending", "status": "True", "reason": reason}]);
            let mut status = json!({"conditions": conditions});
            if let Some(resources) = of_container {
                status["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": true,
                    "restartCount": 0, "allocatedResources": {"cpu": "500m"}, "resources": resources}]);
            }
            if let Some(resources) = of_pod {
                status["resources"] = resources;
                status["allocatedResources"] = json!({"cpu": "500m", "memory": "1Gi"});
            }
            status
        };
        let actual = || resources("700m", "800m");
        for (what, spec, status, requests, limits) in [
            ("nothing known", container(resources("900m", "1")), json!({}), "900m", "1"),
            (
                "wanted",
                container(resources("900m", "1")),
                status("Deferred", Some(actual()), None),
                "900m",
                "1",
            ),
            (
                "not to be had",
                container(resources("900m", "1")),
                status("Infeasible", Some(actual()), None),
                "700m",
                "800m",
            ),
            (
                "less is wanted",
                container(resources("100m", "200m")),
                status("Deferred", Some(actual()), None),
                "700m",
                "800m",
            ),
            (
                "the pod's",
                whole(resources("900m", "1")),
                status("Deferred", None, Some(actual())),
                "900m",
                "1",
            ),
            (
                "not to be had",
                whole(resources("900m", "1")),
                status("Infeasible", None, Some(actual())),
                "700m",
                "800m",
            ),
            (
                "less is wanted",
                whole(resources("100m", "200m")),
                status("Deferred", None, Some(actual())),
                "700m",
                "800m",
            ),
            (
                "in effect nothing",
                whole(resources("100m", "200m")),
                status("Infeasible", None, Some(json!({}))),
                "500m",
                "0",
            ),
        ] {
            assert_eq!(cpu(spec, status), (requests.to_owned(), limits.to_owned()), "{what}");
        }
    }
}
