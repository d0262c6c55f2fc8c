//! RuntimeClass: overhead and placement that come with a pod's runtime (upstream `plugin/pkg/admission/runtimeclass`).

use std::sync::Arc;

use api::pod;
use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey};
use k8s_openapi::api::core::v1::Toleration;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use serde_json::{Value, json};

use super::{Attributes, Deps, Operation, Plugin, Verdict, member};

/// The plugin.
pub struct RuntimeClasses {
    client: Client,
    classes: Informer<RuntimeClass>,
}

impl RuntimeClasses {
    /// Watches runtime classes.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { client: deps.client.clone(), classes: deps.informers.informer() }
    }

    /// The class that a pod names.
    async fn class(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
    ) -> Result<Option<Arc<RuntimeClass>>, ApiError> {
        let Some(name) = object["spec"]["runtimeClassName"].as_str() else { return Ok(None) };
        if let Some(found) = self.classes.store().get(&ObjectKey::new("", name)) {
            return Ok(Some(found));
        }
        let found = Api::<RuntimeClass>::all(self.client.clone()).get_opt(name).await;
        let why = format!("pod rejected: RuntimeClass {name:?} not found");
        let found = found.map_err(crate::authz::from_client)?;
        found.map(|found| Some(Arc::new(found))).ok_or_else(|| attributes.forbidden(object, &why))
    }
}

fn overhead_of(class: Option<&RuntimeClass>) -> Option<pod::Resources> {
    class.and_then(|class| class.overhead.as_ref()).map(|overhead| pod::read(overhead.pod_fixed.as_ref()))
}

fn given_overhead(object: &Value) -> Option<pod::Resources> {
    let value = object["spec"].get("overhead").filter(|value| !value.is_null())?;
    let list = serde_json::from_value(value.clone()).ok()?;
    Some(pod::read(Some(&list)))
}

const DIFFERENT: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn set_overhead(class: &RuntimeClass, object: &mut Value) -> Result<(), String> {
    let Some(wanted) = overhead_of(Some(class)) else { return Ok(()) };
    if given_overhead(object).is_some_and(|given| !given.is_empty() && given != wanted) {
        return Err(DIFFERENT.to_owned());
    }
    let fixed = class.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref());
    member(object, "spec")["overhead"] = json!(fixed);
    Ok(())
}

fn set_scheduling(class: &RuntimeClass, object: &mut Value) -> Result<(), String> {
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    let spec = member(object, "spec");
    for (key, value) in scheduling.node_selector.iter().flatten() {
        if let Some(own) = spec["nodeSelector"][key].as_str().filter(|own| own != value) {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
        member(spec, "nodeSelector")[key] = json!(value);
    }
    let own: Vec<Toleration> = serde_json::from_value(spec["tolerations"].clone()).unwrap_or_default();
    let merged = merge_tolerations(own, scheduling.tolerations.as_deref().unwrap_or_default());
    if !merged.is_empty() {
        spec["tolerations"] = json!(merged);
    }
    Ok(())
}

/// Both lists; a toleration that another one includes is left out (upstream `tolerations.MergeTolerations`).
fn merge_tolerations(first: Vec<Toleration>, second: &[Toleration]) -> Vec<Toleration> {
    let mut all = first;
    all.extend(second.iter().cloned());
    let mut merged = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let later = &all[index + 1..];
        let covered = merged.iter().any(|other| includes(other, toleration))
            || later.iter().any(|other| other != toleration && includes(other, toleration));
        if !covered {
            merged.push(toleration.clone());
        }
    }
    merged
}

/// Whether everything `inner` tolerates is tolerated by `outer`.
fn includes(outer: &Toleration, inner: &Toleration) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let operator = |toleration: &Toleration| match text(&toleration.operator).as_str() {
        "" => "Equal".to_owned(),
        other => other.to_owned(),
    };
    if outer == inner {
        return true;
    }
    if !text(&outer.key).is_empty() && outer.key != inner.key {
        return false;
    }
    if !text(&outer.effect).is_empty() && outer.effect != inner.effect {
        return false;
    }
    if let Some(seconds) = outer.toleration_seconds
        && (outer.effect.as_deref() == Some("NoExecute") || outer.effect.is_none())
        && inner.toleration_seconds.is_none_or(|inner| inner > seconds)
    {
        return false;
    }
    match operator(outer).as_str() {
        "Exists" => true,
        _ => operator(inner) == "Equal" && outer.value == inner.value,
    }
}

impl Plugin for RuntimeClasses {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "pods")
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if !names_class(object) {
            return Verdict::PASS;
        }
        Verdict::later(async move {
            let Some(class) = self.class(attributes, object).await? else { return Ok(()) };
            let set = set_overhead(&class, object).and_then(|()| set_scheduling(&class, object));
            set.map_err(|why| attributes.forbidden(object, &why))
        })
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if !names_class(object) {
            return Verdict::Now(check_overhead(attributes, object, None));
        }
        Verdict::later(async move {
            let class = self.class(attributes, object).await?;
            check_overhead(attributes, object, class.as_deref())
        })
    }
}

fn names_class(pod: &Value) -> bool {
    pod["spec"]["runtimeClassName"].is_string()
}

fn check_overhead(
    attributes: &Attributes<'_>,
    object: &Value,
    class: Option<&RuntimeClass>,
) -> Result<(), ApiError> {
    let why = match (overhead_of(class), given_overhead(object)) {
        (Some(wanted), given) if given.clone().unwrap_or_default() != wanted => DIFFERENT,
        (None, Some(_)) => {
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        }
        _ => return Ok(()),
    };
    Err(attributes.forbidden(object, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(value: Value) -> RuntimeClass {
        serde_json::from_value(value).expect("class")
    }

    #[test]
    fn overhead_comes_from_the_class() {
        let class = class(json!({"handler": "h", "overhead": {"podFixed": {"cpu": "100m"}}}));
        for (given, expected) in [
            (json!({}), Ok(json!({"cpu": "100m"}))),
            (json!({"overhead": {"cpu": "0.1"}}), Ok(json!({"cpu": "100m"}))),
            (json!({"overhead": {"cpu": "1"}}), Err(DIFFERENT.to_owned())),
        ] {
            let mut pod = json!({"spec": given});
            let set = set_overhead(&class, &mut pod);
            assert_eq!(set.map(|()| pod["spec"]["overhead"].clone()), expected);
        }
    }

    #[test]
    fn placement_is_merged_or_conflicts() {
        let class = class(json!({"handler": "h", "scheduling": {
            "nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "a", "operator": "Exists"}]}}));
        let mut pod = json!({"spec": {"nodeSelector": {"x": "y"}, "tolerations": [{"key": "b", "operator": "Exists"}]}});
        set_scheduling(&class, &mut pod).expect("merged");
        assert_eq!(pod["spec"]["nodeSelector"], json!({"x": "y", "disk": "ssd"}));
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        let mut pod = json!({"spec": {"nodeSelector": {"disk": "hdd"}}});
        assert_eq!(
            set_scheduling(&class, &mut pod),
            Err("conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd".to_owned())
        );
    }

    #[test]
    fn included_tolerations_are_left_out() {
        let toleration = |value: Value| serde_json::from_value::<Toleration>(value).expect("toleration");
        let narrow = toleration(json!({"key": "a", "operator": "Equal", "value": "1"}));
        let wide = toleration(json!({"key": "a", "operator": "Exists"}));
        assert_eq!(
            merge_tolerations(vec![narrow.clone()], std::slice::from_ref(&wide)),
            std::slice::from_ref(&wide)
        );
        assert_eq!(merge_tolerations(vec![wide.clone()], &[narrow]), [wide]);
    }
}
