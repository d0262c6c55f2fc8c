//! Claims and volumes: DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize (upstream
//! `plugin/pkg/admission/storage`).

use std::sync::Arc;

use api::quantity::Quantity;
use client::ObjectKey;
use client::informer::Informer;
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::{Attributes, Deps, Operation, Plugin, Verdict, items, list_member, member, text};

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// Gives claims without a class the default one.
pub struct DefaultStorageClass {
    classes: Informer<StorageClass>,
}

impl DefaultStorageClass {
    /// Watches storage classes.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { classes: deps.informers.informer() }
    }
}

/// The default class; of several the newest, then the first by name.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    let marked = |class: &&Arc<StorageClass>| {
        let annotations = class.metadata.annotations.iter().flatten();
        annotations.into_iter().any(|(key, value)| {
            value == "true"
                && matches!(
                    key.as_str(),
                    "storageclass.kubernetes.io/is-default-class"
                        | "storageclass.beta.kubernetes.io/is-default-class"
                )
        })
    };
    classes.iter().filter(marked).min_by(|a, b| {
        let made = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        made(b).cmp(&made(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    })
}

fn has_class(claim: &Value) -> bool {
    claim["metadata"]["annotations"].get(BETA_CLASS).is_some()
        || claim["spec"]["storageClassName"].is_string()
}

impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && attributes.is("", "persistentvolumeclaims")
    }

    fn admit<'a>(
        &'a self,
        _: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            if has_class(object) {
                return Ok(());
            }
            if let Some(class) = default_class(&self.classes.store().list()) {
                member(object, "spec")["storageClassName"] = json!(class.metadata.name);
            }
            Ok(())
        })
    }
}

/// Marks volumes and claims so that they stay while they are used.
pub struct InUseProtection;

/// The finalizer of each resource.
const FINALIZERS: [(&str, &str, &str); 3] = [
    ("", "persistentvolumes", "kubernetes.io/pv-protection"),
    ("", "persistentvolumeclaims", "kubernetes.io/pvc-protection"),
    ("storage.k8s.io", "volumeattributesclasses", "kubernetes.io/vac-protection"),
];

fn finalizer(attributes: &Attributes<'_>) -> Option<&'static str> {
    let found = FINALIZERS.iter().find(|(group, resource, _)| attributes.is(group, resource));
    found.map(|(_, _, finalizer)| *finalizer)
}

impl Plugin for InUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Create && finalizer(attributes).is_some()
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            let Some(finalizer) = finalizer(attributes) else { return Ok(()) };
            let meta = member(object, "metadata");
            if !items(meta, "finalizers").iter().any(|other| other == finalizer) {
                list_member(meta, "finalizers").push(json!(finalizer));
            }
            Ok(())
        })
    }
}

/// Lets claims grow only if their class allows it.
pub struct ClaimResize {
    classes: Informer<StorageClass>,
}

impl ClaimResize {
    /// Watches storage classes.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { classes: deps.informers.informer() }
    }

    fn expandable(&self, claim: &Value, old: &Value) -> bool {
        let (class, before) = (class_of(claim), class_of(old));
        !class.is_empty()
            && class == before
            && self
                .classes
                .store()
                .get(&ObjectKey::new("", class))
                .is_some_and(|class| class.allow_volume_expansion == Some(true))
    }
}

fn class_of(claim: &Value) -> &str {
    let annotation = claim["metadata"]["annotations"][BETA_CLASS].as_str();
    annotation.unwrap_or_else(|| text(&claim["spec"], "storageClassName"))
}

fn size(claim: &Value) -> Quantity {
    let text = claim["spec"]["resources"]["requests"]["storage"].as_str();
    text.and_then(|text| Quantity::parse(text).ok()).unwrap_or_default()
}

impl Plugin for ClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation == Operation::Update && attributes.is("", "persistentvolumeclaims")
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::now(|| {
            let Some(old) = old.filter(|old| size(object) > size(old)) else { return Ok(()) };
            if text(&old["status"], "phase") != "Bound" {
                return Err(
                    attributes.forbidden(object, "Only bound persistent volume claims can be expanded")
                );
            }
            if !self.expandable(object, old) {
                let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                           support resize";
                return Err(attributes.forbidden(object, why));
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::testing::Write;

    #[test]
    fn the_newest_default_counts() {
        let class = |name: &str, made: &str, default: &str| {
            let value = json!({"provisioner": "p", "metadata": {
                "name": name, "creationTimestamp": made,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default}}});
            Arc::new(serde_json::from_value::<StorageClass>(value).expect("class"))
        };
        let classes = [
            class("old", "2026-01-01T00:00:00Z", "true"),
            class("new", "2026-02-01T00:00:00Z", "true"),
            class("newest", "2026-03-01T00:00:00Z", "false"),
        ];
        assert_eq!(default_class(&classes).and_then(|class| class.metadata.name.as_deref()), Some("new"));
        assert!(default_class(&classes[2..]).is_none());
    }

    #[test]
    fn an_empty_class_is_a_class() {
        assert!(has_class(&json!({"spec": {"storageClassName": ""}})));
        assert!(has_class(&json!({"metadata": {"annotations": {BETA_CLASS: "x"}}, "spec": {}})));
        assert!(!has_class(&json!({"spec": {}})));
    }

    #[tokio::test]
    async fn objects_in_use_are_marked_once() {
        let write = Write::new("", "PersistentVolumeClaim", "persistentvolumeclaims");
        let attributes = write.attributes(Operation::Create, "", "c");
        let mut claim = json!({"metadata": {}});
        for _ in 0..2 {
            InUseProtection
                .admit(&attributes, &mut claim, None, &mut Vec::new())
                .get()
                .await
                .expect("admitted");
            assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
        }
    }
}
