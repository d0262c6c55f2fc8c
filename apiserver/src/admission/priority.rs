//! Priority: the number behind a pod's priority class (upstream `plugin/pkg/admission/priority`).

use std::sync::Arc;

use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Api;
use serde_json::{Value, json};

use super::derived::Derived;
use super::{Attributes, Deps, Operation, Plugin, Verdict, member, text};

/// The plugin.
pub struct Priority {
    client: Client,
    classes: Informer<PriorityClass>,
    /// The class of pods that name none.
    default: Derived<Option<Arc<PriorityClass>>>,
}

impl Priority {
    /// Watches priority classes.
    pub fn new(deps: &Deps<'_>) -> Self {
        let classes = deps.informers.informer();
        let default = Derived::default();
        default.follow(&classes);
        Self { client: deps.client.clone(), classes, default }
    }

    fn default_class(&self) -> Option<Arc<PriorityClass>> {
        self.default.read(|default| *default = default_class(&self.classes.store().list()), Clone::clone)
    }

    /// Asks the API for a class that the cache does not know.
    async fn asked_for(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        name: &str,
    ) -> Result<PriorityClass, ApiError> {
        let found = Api::<PriorityClass>::all(self.client.clone()).get_opt(name).await;
        let found = found.map_err(crate::authz::from_client)?;
        let why = format!("no PriorityClass with name {name} was found");
        found.ok_or_else(|| attributes.forbidden(object, &why))
    }
}

/// The global default; of several the one with the lowest value.
fn default_class(classes: &[Arc<PriorityClass>]) -> Option<Arc<PriorityClass>> {
    let defaults = classes.iter().filter(|class| class.global_default == Some(true));
    defaults.min_by_key(|class| class.value.unwrap_or_default()).cloned()
}

/// Writes the class into the pod; the reason if the pod says something else.
fn set_priority(spec: &mut Value, class: Option<&PriorityClass>) -> Result<(), String> {
    if let Some(name) = class.and_then(|class| class.metadata.name.as_deref()) {
        spec["priorityClassName"] = json!(name);
    }
    let value = class.and_then(|class| class.value).unwrap_or_default();
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != i64::from(value)) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {value} from the given PriorityClass name"
        ));
    }
    spec["priority"] = json!(value);
    let default = "PreemptLowerPriority";
    let policy = class.map_or(Some(default), |class| class.preemption_policy.as_deref());
    if let Some(policy) = policy {
        let given = text(spec, "preemptionPolicy");
        if !given.is_empty() && given != policy {
            return Err(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            ));
        }
        spec["preemptionPolicy"] = json!(policy);
    }
    Ok(())
}

/// An update that does not say anything about it leaves it.
fn keep_priority(object: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        let kept = old["spec"].get(field).filter(|kept| !kept.is_null());
        if object["spec"].get(field).is_none_or(Value::is_null)
            && let Some(kept) = kept
        {
            member(object, "spec")[field] = kept.clone();
        }
    }
}

/// As [`set_priority`], with the refusal.
fn write_priority(
    attributes: &Attributes<'_>,
    object: &mut Value,
    class: Option<&PriorityClass>,
) -> Result<(), ApiError> {
    set_priority(member(object, "spec"), class).map_err(|why| attributes.forbidden(object, &why))
}

impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update)
            && (attributes.is("", "pods") || attributes.is("scheduling.k8s.io", "priorityclasses"))
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if !attributes.is("", "pods") {
            return Verdict::PASS;
        }
        if let (Operation::Update, Some(old)) = (attributes.operation, old) {
            keep_priority(object, old);
            return Verdict::PASS;
        }
        let name = text(&object["spec"], "priorityClassName");
        if name.is_empty() {
            return Verdict::Now(write_priority(attributes, object, self.default_class().as_deref()));
        }
        if let Some(class) = self.classes.store().get(&ObjectKey::new("", name)) {
            return Verdict::Now(write_priority(attributes, object, Some(&class)));
        }
        let name = name.to_owned();
        Verdict::later(async move {
            let class = self.asked_for(attributes, object, &name).await?;
            write_priority(attributes, object, Some(&class))
        })
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            let concerns =
                attributes.is("scheduling.k8s.io", "priorityclasses") && object["globalDefault"] == true;
            if !concerns {
                return Ok(());
            }
            let Some(default) = self.default_class() else { return Ok(()) };
            let name = default.metadata.name.as_deref().unwrap_or_default();
            if attributes.operation == Operation::Create || name != text(&object["metadata"], "name") {
                let why =
                    format!("PriorityClass {name} is already marked as default. Only one default can exist");
                return Err(attributes.forbidden(object, &why));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(value: Value) -> PriorityClass {
        serde_json::from_value(value).expect("class")
    }

    #[test]
    fn pods_get_the_number_of_their_class() {
        let high = class(json!({"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}));
        for (given, class, expected) in [
            (json!({}), None, Ok(json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}))),
            (
                json!({"priorityClassName": "high"}),
                Some(&high),
                Ok(json!({"priorityClassName": "high", "priority": 1000, "preemptionPolicy": "Never"})),
            ),
            (
                json!({"priority": 7}),
                Some(&high),
                Err(
                    "the integer value of priority (7) must not be provided in pod spec; priority admission controller \
                     computed 1000 from the given PriorityClass name",
                ),
            ),
            (
                json!({"preemptionPolicy": "PreemptLowerPriority"}),
                Some(&high),
                Err(
                    "the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; \
                     priority admission controller computed Never from the given PriorityClass name",
                ),
            ),
        ] {
            let mut spec = given;
            let result = set_priority(&mut spec, class).map(|()| spec);
            assert_eq!(result, expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn of_several_defaults_the_lowest_counts() {
        let classes: Vec<_> = [("a", 5, true), ("b", 3, true), ("c", 1, false)]
            .map(|(name, value, default)| {
                Arc::new(class(json!({"metadata": {"name": name}, "value": value, "globalDefault": default})))
            })
            .to_vec();
        let found = default_class(&classes).expect("a default");
        assert_eq!(found.metadata.name.as_deref(), Some("b"));
    }
}
