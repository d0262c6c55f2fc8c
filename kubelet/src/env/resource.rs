//! Requests and limits of a container as numbers, for `resourceFieldRef`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity;

type Resources = BTreeMap<String, Quantity>;

/// The value `selector` asks for, in units of its divisor, rounded up. `own` is the container meant when the selector
/// names none. Limits that are not set are the node's allocatable resources.
pub fn resource_value(
    selector: &ResourceFieldSelector,
    pod: &Pod,
    own: Option<&Container>,
    node: Option<&Node>,
) -> Result<String, String> {
    let container = match selector.container_name.as_deref() {
        Some(name) if !name.is_empty() => find(pod, name)?,
        _ => own.ok_or_else(|| "containerName is required".to_owned())?,
    };
    let unsupported = || format!("unsupported container resource : {}", selector.resource);
    let (list, resource) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known =
        matches!(resource, "cpu" | "memory" | "ephemeral-storage") || resource.starts_with("hugepages-");
    if !known || !matches!(list, "limits" | "requests") {
        return Err(unsupported());
    }
    let declared = container.resources.as_ref();
    let amount = if list == "limits" {
        defaulted_limits(declared.and_then(|r| r.limits.as_ref()), node).remove(resource)
    } else {
        declared.and_then(|r| r.requests.as_ref()).and_then(|requests| requests.get(resource)).cloned()
    };
    Ok(in_units(amount.as_ref(), selector.divisor.as_ref(), resource == "cpu").to_string())
}

fn in_units(amount: Option<&Quantity>, divisor: Option<&Quantity>, cpu: bool) -> i64 {
    let Some(amount) = amount else { return 0 };
    let divisor = divisor.filter(|divisor| quantity::milli_value(divisor) != 0);
    let (amount, divisor) = if cpu {
        (quantity::milli_value(amount), divisor.map_or(1000, quantity::milli_value))
    } else {
        (quantity::value(amount), divisor.map_or(1, quantity::value))
    };
    if divisor <= 0 { 0 } else { amount.div_euclid(divisor) + i64::from(amount.rem_euclid(divisor) != 0) }
}

/// `limits` with what is missing or zero taken from the node's allocatable resources.
pub fn defaulted_limits(limits: Option<&Resources>, node: Option<&Node>) -> Resources {
    let mut limits = limits.cloned().unwrap_or_default();
    let allocatable =
        node.and_then(|node| node.status.as_ref()).and_then(|status| status.allocatable.as_ref());
    for resource in ["cpu", "memory", "ephemeral-storage"] {
        let unset = limits.get(resource).is_none_or(|amount| quantity::milli_value(amount) == 0);
        if let (true, Some(amount)) = (unset, allocatable.and_then(|list| list.get(resource))) {
            limits.insert(resource.to_owned(), amount.clone());
        }
    }
    limits
}

fn find<'a>(pod: &'a Pod, name: &str) -> Result<&'a Container, String> {
    let spec = pod.spec.as_ref();
    let containers =
        spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    containers
        .into_iter()
        .find(|container| container.name == name)
        .ok_or_else(|| format!("container {name} not found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_rounded_up_to_the_divisor() {
        let q = |text: &str| Quantity(text.to_owned());
        for (amount, divisor, cpu, want) in [
            ("1500m", None, true, 2),
            ("1500m", Some("1m"), true, 1500),
            ("250m", Some("1"), true, 1),
            ("64Mi", None, false, 67_108_864),
            ("64Mi", Some("1Mi"), false, 64),
            ("65M", Some("1Mi"), false, 62),
            ("64Mi", Some("0"), false, 67_108_864),
        ] {
            let divisor = divisor.map(q);
            assert_eq!(in_units(Some(&q(amount)), divisor.as_ref(), cpu), want, "{amount} {divisor:?}");
        }
        assert_eq!(in_units(None, None, true), 0);
    }
}
