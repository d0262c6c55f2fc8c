//! DefaultTolerationSeconds: pods stay for a while on a node that stops answering (upstream
//! `plugin/pkg/admission/defaulttolerationseconds`). AlwaysPullImages, off by default, lives here too.

use serde_json::{Value, json};

use super::{Attributes, Deps, Operation, Plugin, Verdict, items, list_member, member, text};

/// Adds tolerations.
pub struct DefaultTolerations {
    not_ready: i64,
    unreachable: i64,
}

impl DefaultTolerations {
    /// With the configured seconds.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self {
            not_ready: deps.config.default_not_ready_toleration_seconds,
            unreachable: deps.config.default_unreachable_toleration_seconds,
        }
    }
}

fn tolerates(spec: &Value, key: &str) -> bool {
    items(spec, "tolerations").iter().any(|toleration| {
        let (own, effect) = (text(toleration, "key"), text(toleration, "effect"));
        (own == key || own.is_empty()) && matches!(effect, "NoExecute" | "")
    })
}

impl Plugin for DefaultTolerations {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && attributes.is("", "pods")
    }

    fn admit<'a>(
        &'a self,
        _: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            let spec = member(object, "spec");
            let wanted = [
                ("node.kubernetes.io/not-ready", self.not_ready),
                ("node.kubernetes.io/unreachable", self.unreachable),
            ];
            // Both are decided on before one is added: an added one must not count as a general toleration.
            let missing = wanted.map(|(key, _)| !tolerates(spec, key));
            for ((key, seconds), missing) in wanted.into_iter().zip(missing) {
                if missing {
                    list_member(spec, "tolerations").push(json!({
                        "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}));
                }
            }
            Ok(())
        })
    }
}

/// Sets every image's pull policy to Always.
pub struct AlwaysPullImages;

impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        matches!(attributes.operation, Operation::Create | Operation::Update) && attributes.is("", "pods")
    }

    fn admit<'a>(
        &'a self,
        _: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            for list in ["initContainers", "containers", "ephemeralContainers"] {
                let containers = object["spec"].get_mut(list).and_then(Value::as_array_mut);
                for container in containers.into_iter().flatten() {
                    container["imagePullPolicy"] = json!("Always");
                }
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::Write;

    #[tokio::test]
    async fn tolerations_are_added_where_none_fits() {
        let plugin = DefaultTolerations { not_ready: 300, unreachable: 100 };
        let write = Write::new("", "Pod", "pods");
        let attributes = write.attributes(Operation::Create, "", "p");
        for (given, added) in [
            (json!([]), 2),
            (json!([{"operator": "Exists"}]), 0),
            (
                json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"}]),
                1,
            ),
            (
                json!([{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule"}]),
                2,
            ),
        ] {
            let mut pod = json!({"spec": {"tolerations": given}});
            let before = items(&pod["spec"], "tolerations").len();
            plugin.admit(&attributes, &mut pod, None, &mut Vec::new()).get().await.expect("admitted");
            assert_eq!(items(&pod["spec"], "tolerations").len() - before, added, "{given}");
        }
    }
}
