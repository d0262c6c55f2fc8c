//! Pods that say in annotations what AppArmor profile their containers run under (upstream
//! `applyAppArmorVersionSkew`): new pods get it as a field, too.

use serde_json::{Value, json};

use crate::field::Path;
use crate::json::{Object, ObjectExt};
use crate::validation::security::{APP_ARMOR, app_armor_profile};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

/// The profile that an annotation stands for.
pub(crate) fn field_of(annotation: &str) -> Option<Value> {
    match annotation {
        "unconfined" => Some(json!({"type": "Unconfined"})),
        "runtime/default" => Some(json!({"type": "RuntimeDefault"})),
        _ => annotation
            .strip_prefix("localhost/")
            .filter(|profile| !profile.is_empty())
            .map(|profile| json!({"type": "Localhost", "localhostProfile": profile})),
    }
}

fn is_valid(profile: &Value) -> bool {
    let typed = serde_json::from_value(profile.clone()).ok();
    typed.is_some_and(|profile| app_armor_profile(Some(&profile), &Path::root()).is_empty())
}

/// A container whose annotation has no field beside it.
struct Skew {
    list: &'static str,
    index: usize,
    key: String,
    /// What the field is to be; none if the annotation says nothing that can be one.
    profile: Option<Value>,
}

/// Which fields are to be set, and which annotations cannot be made fields.
fn skews(pod: &Object) -> Vec<Skew> {
    let empty = Object::new();
    let annotations = pod.object("metadata").and_then(|meta| meta.object("annotations"));
    let (Some(annotations), spec) = (annotations, pod.object("spec").unwrap_or(&empty)) else {
        return Vec::new();
    };
    if spec.object("os").is_some_and(|os| os.text("name") == "windows") {
        return Vec::new();
    }
    let profile = |object: &Object| {
        let found = object.object("securityContext").and_then(|context| context.get("appArmorProfile"));
        found.filter(|profile| !profile.is_null()).cloned()
    };
    let own = profile(spec);
    let mut skews = Vec::new();
    for list in CONTAINERS {
        for (index, container) in spec.each(list).enumerate() {
            let key = format!("{APP_ARMOR}{}", container.text("name"));
            let annotation = annotations.get(&key).and_then(Value::as_str);
            let Some(annotation) = annotation.filter(|_| profile(container).is_none()) else { continue };
            let profile = field_of(annotation).filter(is_valid);
            // What holds for the whole pod is not repeated.
            if profile.is_none() || profile != own {
                skews.push(Skew { list, index, key, profile });
            }
        }
    }
    skews
}

/// What is said about annotations that have no field beside them. To be asked before [`sync`].
pub(super) fn warnings(pod: &Object) -> Vec<String> {
    let path = Path::new("metadata").child("annotations");
    let text = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
    skews(pod).iter().map(|skew| format!("{}: {text}", path.key(&skew.key))).collect()
}

/// Sets the fields.
pub(super) fn sync(pod: &mut Object) {
    for skew in skews(pod) {
        let Some(profile) = skew.profile else { continue };
        let spec = pod.object_mut("spec");
        let context = spec.and_then(|spec| {
            let container = spec.list_mut(skew.list).get_mut(skew.index)?;
            container.as_object_mut()?.ensure("securityContext")
        });
        if let Some(context) = context {
            context.insert("appArmorProfile".to_owned(), profile);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::names::GroupVersionKind;
    use crate::strategy::prepare_for_create;

    use super::*;

    #[test]
    fn annotations_become_fields_of_new_pods() {
        let key = "container.apparmor.security.beta.kubernetes.io/c";
        let warning = format!(
            "metadata.annotations[{key}]: deprecated since v1.30; use the \"appArmorProfile\" field instead"
        );
        let of = |kind: &str| json!({"type": kind});
        let local = json!({"type": "Localhost", "localhostProfile": "p"});
        // The annotation, the field of the pod, that of the container; the container's afterwards, and whether it is
        // told.
        let cases = [
            (Some("runtime/default"), None, None, Some(of("RuntimeDefault")), true),
            (Some("localhost/p"), None, None, Some(local.clone()), true),
            (Some("unconfined"), Some(of("RuntimeDefault")), None, Some(of("Unconfined")), true),
            (Some("runtime/default"), Some(of("RuntimeDefault")), None, None, false),
            (Some("unconfined"), None, Some(local.clone()), Some(local), false),
            (Some("localhost/ p "), None, None, None, true),
            (Some("else"), None, None, None, true),
            (None, None, None, None, false),
        ];
        for (annotation, pod_field, field, want, told) in cases {
            let context = |profile: &Option<Value>| match profile {
                Some(profile) => json!({"appArmorProfile": profile}),
                None => json!({}),
            };
            let annotations = annotation.map_or(json!({}), |text| json!({key: text}));
            let mut pod = json!({"metadata": {"annotations": annotations}, "spec": {
                "securityContext": context(&pod_field),
                "containers": [{"name": "c", "securityContext": context(&field)}]}});
            let warnings = prepare_for_create(&GroupVersionKind::new("", "v1", "Pod"), &mut pod);
            assert_eq!(warnings, if told { vec![warning.clone()] } else { vec![] }, "{annotation:?}");
            assert_eq!(pod["spec"]["containers"][0]["securityContext"], context(&want), "{annotation:?}");
        }
    }
}
