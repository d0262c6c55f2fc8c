//! Text of events about resizes, as upstream's `events/resize.go`.

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::Serialize;

use crate::types;

#[derive(Serialize)]
struct OfContainer<'a> {
    name: &'a str,
    resources: ResourceRequirements,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<OfContainer<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<OfContainer<'a>>,
    generation: i64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

fn of(containers: &[Container]) -> Vec<OfContainer<'_>> {
    let one = |c: &Container| c.resources.clone().unwrap_or_default();
    containers.iter().map(|c| OfContainer { name: &c.name, resources: one(c) }).collect()
}

/// `PREFIX: {…}`, the resources of the pod's spec as JSON.
#[must_use]
pub fn resize_message(prefix: &str, pod: &Pod, generation: Option<i64>, error: &str) -> String {
    let spec = types::spec(pod);
    let summary = Summary {
        init_containers: of(types::init_containers(spec)),
        containers: of(&spec.containers),
        generation: generation.unwrap_or_default(),
        error,
    };
    serde_json::to_string(&summary).map_or_else(|_| prefix.to_owned(), |text| format!("{prefix}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_carry_the_resources() {
        let pod: Pod = serde_saphyr::from_str(
            "spec: {containers: [{name: c1, resources: {requests: {cpu: '5', memory: 4500Mi}}}], initContainers: [{name: i}]}",
        )
        .expect("valid");
        assert_eq!(
            resize_message("Pod resize OutOfcpu", &pod, Some(2), "full"),
            r#"Pod resize OutOfcpu: {"initContainers":[{"name":"i","resources":{}}],"containers":[{"name":"c1","resources":{"requests":{"cpu":"5","memory":"4500Mi"}}}],"generation":2,"error":"full"}"#
        );
    }
}
