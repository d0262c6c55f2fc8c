//! The rest of the core group.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::{Strategy, Update};

pub(crate) const NAMESPACE: Strategy = Strategy::STATUS
    .create(create_namespace)
    .update(|new, old| match old.object("spec").cloned() {
        Some(spec) => {
            new.insert("spec".to_owned(), Value::Object(spec));
        }
        None => {
            new.remove("spec");
        }
    })
    .subresources(&[("finalize", (|new: &mut Object, old: &Object| new.copy("status", old)) as Update)]);

pub(crate) const SERVICE_ACCOUNT: Strategy =
    Strategy::PLAIN.create(clean_secrets).update(|new, _| clean_secrets(new));

/// Nodes keep the status they are created with: the kubelet registers itself with one.
pub(crate) const NODE: Strategy = Strategy::PLAIN
    .create(|new| drop_config(new, "spec", "configSource", None))
    .update(|new, old| {
        new.copy("status", old);
        drop_config(new, "spec", "configSource", Some(old));
    })
    .status_update(|new, old| drop_config(new, "status", "config", Some(old)));

/// Nodes are no longer configured by the server; what is set stays.
fn drop_config(new: &mut Object, part: &str, key: &str, old: Option<&Object>) {
    let used = old.and_then(|old| old.object(part)).is_some_and(|part| !part.is_unset(key));
    if let Some(part) = new.object_mut(part).filter(|_| !used) {
        part.remove(key);
    }
}

pub(crate) const SECRET: Strategy = Strategy::PLAIN.update(|new, old| {
    if new.text("type").is_empty() {
        new.copy("type", old);
    }
});

pub(crate) const LIMIT_RANGE: Strategy = Strategy::PLAIN.creates_on_update();

fn create_namespace(namespace: &mut Object) {
    namespace.insert("status".to_owned(), json!({"phase": "Active"}));
    // The label with the name is a default, but a generated name is known only now.
    if let Some(meta) = namespace.ensure("metadata").filter(|meta| !meta.text("name").is_empty()) {
        let name = meta.text("name").to_owned();
        if let Some(labels) = meta.ensure("labels") {
            labels.or_default("kubernetes.io/metadata.name", name);
        }
    }
    let Some(spec) = namespace.ensure("spec") else { return };
    spec.or_default("finalizers", Value::Array(Vec::new()));
    if let Some(finalizers) = spec.get_mut("finalizers").and_then(Value::as_array_mut)
        && !finalizers.iter().any(|f| f == "kubernetes")
    {
        finalizers.push(json!("kubernetes"));
    }
}

/// Of references to secrets only the name is kept.
fn clean_secrets(account: &mut Object) {
    for secret in account.each_mut("secrets") {
        secret.retain(|key, _| key == "name");
    }
}
