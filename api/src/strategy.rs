//! What the server does to an object of its own accord before it checks it (upstream `pkg/registry/*/*/strategy.go`):
//! status is cleared on create and kept on update, the generation counts changes of the spec, and so on.
//!
//! Callers have set uid, creation time and a generated name before `prepare_for_create` (job selectors need the uid).

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt, semantic_eq};
use crate::kinds;
use crate::names::GroupVersionKind;
use crate::schema::type_for;

pub(crate) mod app_armor;
pub(crate) mod claim;
pub(crate) mod core;
pub(crate) mod devices;
mod drop;
pub(crate) mod other;
pub(crate) mod pod;
mod reset_fields;
pub(crate) mod service;
pub(crate) mod warnings;
pub(crate) mod workload;

pub use reset_fields::reset_fields;
pub(crate) use workload::TEMPLATE_GENERATION;

/// What counts for `metadata.generation`.
#[derive(Clone, Copy)]
pub(crate) enum Generation {
    /// The kind has no generation.
    None,
    /// It starts at 1 and never changes.
    Fixed,
    /// It starts at 1 and grows when one of these top-level fields changes.
    Counts(&'static [&'static str]),
    /// As `Counts`, but a new object has none.
    CountsChanges(&'static [&'static str]),
}

/// Changes the new object, seeing the old one.
pub(crate) type Update = fn(new: &mut Object, old: &Object);

/// The server's own changes to objects of a kind.
#[derive(Clone, Copy)]
pub(crate) struct Strategy {
    /// Whether clients write the status only by the status subresource.
    pub(crate) status: bool,
    pub(crate) generation: Generation,
    pub(crate) create: fn(&mut Object),
    /// What is said about a new object as the client sent it.
    pub(crate) notes: fn(&Object) -> Vec<String>,
    pub(crate) update: Update,
    pub(crate) status_update: Update,
    /// Whether a status update may change metadata too.
    pub(crate) status_keeps_meta: bool,
    /// Whether an update without a resourceVersion is accepted.
    pub(crate) unconditional: bool,
    /// Whether an update of an object that does not exist creates it.
    pub(crate) create_on_update: bool,
    /// Updates by other subresources.
    pub(crate) subresources: &'static [(&'static str, Update)],
    /// Where the spec of a pod stands, if anywhere.
    pub(crate) pod_spec: &'static [&'static str],
    /// Names of objects that nobody deletes, and why.
    pub(crate) undeletable: (&'static [&'static str], &'static str),
}

impl Strategy {
    /// No status, no generation, nothing changed.
    pub(crate) const PLAIN: Self = Self {
        status: false,
        generation: Generation::None,
        create: |_| {},
        notes: |_| Vec::new(),
        update: |_, _| {},
        status_update: |_, _| {},
        status_keeps_meta: false,
        unconditional: true,
        create_on_update: false,
        subresources: &[],
        pod_spec: &[],
        undeletable: (&[], ""),
    };

    /// A spec and a status, with a generation that counts changes of the spec.
    pub(crate) const SPEC_STATUS: Self =
        Self { status: true, generation: Generation::Counts(&["spec"]), ..Self::PLAIN };

    /// As [`Self::SPEC_STATUS`], with a template for pods in the spec.
    pub(crate) const WORKLOAD: Self = Self { pod_spec: &["spec", "template", "spec"], ..Self::SPEC_STATUS };

    /// A status but no generation.
    pub(crate) const STATUS: Self = Self { status: true, ..Self::PLAIN };

    /// A spec with a generation, no status.
    pub(crate) const SPEC: Self = Self { generation: Generation::Counts(&["spec"]), ..Self::PLAIN };

    pub(crate) const fn counting(mut self, fields: &'static [&'static str]) -> Self {
        self.generation = Generation::Counts(fields);
        self
    }

    pub(crate) const fn fixed_generation(mut self) -> Self {
        self.generation = Generation::Fixed;
        self
    }

    pub(crate) const fn create(mut self, create: fn(&mut Object)) -> Self {
        self.create = create;
        self
    }

    pub(crate) const fn notes(mut self, notes: fn(&Object) -> Vec<String>) -> Self {
        self.notes = notes;
        self
    }

    pub(crate) const fn update(mut self, update: Update) -> Self {
        self.update = update;
        self
    }

    pub(crate) const fn status_update(mut self, update: Update) -> Self {
        self.status_update = update;
        self
    }

    pub(crate) const fn status_keeps_meta(mut self) -> Self {
        self.status_keeps_meta = true;
        self
    }

    pub(crate) const fn conditional(mut self) -> Self {
        self.unconditional = false;
        self
    }

    pub(crate) const fn creates_on_update(mut self) -> Self {
        self.create_on_update = true;
        self
    }

    pub(crate) const fn undeletable(mut self, names: &'static [&'static str], why: &'static str) -> Self {
        self.undeletable = (names, why);
        self
    }

    pub(crate) const fn pod_at(mut self, path: &'static [&'static str]) -> Self {
        self.pod_spec = path;
        self
    }

    pub(crate) const fn subresources(mut self, subresources: &'static [(&'static str, Update)]) -> Self {
        self.subresources = subresources;
        self
    }
}

fn strategy(gvk: &GroupVersionKind) -> Strategy {
    kinds::find(gvk).map_or(Strategy::PLAIN, |kind| kind.strategy)
}

/// Whether the kind accepts updates that carry no resourceVersion.
#[must_use]
pub fn allow_unconditional_update(gvk: &GroupVersionKind) -> bool {
    strategy(gvk).unconditional
}

/// Whether an update may create an object of the kind.
#[must_use]
pub fn allow_create_on_update(gvk: &GroupVersionKind) -> bool {
    strategy(gvk).create_on_update
}

/// Why an object of this name may not be deleted, if it may not.
#[must_use]
pub fn why_undeletable(gvk: &GroupVersionKind, name: &str) -> Option<&'static str> {
    let (names, why) = strategy(gvk).undeletable;
    names.contains(&name).then_some(why)
}

/// What the server does to a new object. Gives warnings about the object as it was.
pub fn prepare_for_create(gvk: &GroupVersionKind, object: &mut Value) -> Vec<String> {
    let strategy = strategy(gvk);
    let Some(object) = object.as_object_mut() else { return Vec::new() };
    let warnings = (strategy.notes)(object);
    if strategy.status {
        // What the encoder writes of an empty status.
        let zero = type_for(gvk).and_then(|ty| ty.zero().remove("status"));
        object.insert("status".to_owned(), zero.unwrap_or_else(|| json!({})));
    }
    if !strategy.pod_spec.is_empty() {
        drop::pod_fields(object, None, strategy.pod_spec);
    }
    if matches!(strategy.generation, Generation::Fixed | Generation::Counts(_)) {
        set_meta(object, "generation", Some(json!(1)));
    }
    (strategy.create)(object);
    warnings
}

/// What the server does to a changed object.
pub fn prepare_for_update(gvk: &GroupVersionKind, new: &mut Value, old: &Value) {
    let strategy = strategy(gvk);
    let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) else { return };
    keep_generation(new, old);
    if strategy.status {
        new.copy("status", old);
    }
    if !strategy.pod_spec.is_empty() {
        drop::pod_fields(new, Some(old), strategy.pod_spec);
    }
    (strategy.update)(new, old);
    if let Generation::Counts(fields) | Generation::CountsChanges(fields) = strategy.generation
        && fields.iter().any(|field| !same_field(new, old, field))
    {
        bump_generation(new, old);
    }
    keep_system_meta(new, old);
}

/// What the server does to an object changed by its status subresource: only the status is the caller's.
pub fn prepare_for_status_update(gvk: &GroupVersionKind, new: &mut Value, old: &Value) {
    let strategy = strategy(gvk);
    let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) else { return };
    keep_generation(new, old);
    let kept: Vec<String> = old.keys().chain(new.keys()).cloned().collect();
    for key in kept.iter().filter(|k| !matches!(k.as_str(), "status" | "metadata" | "apiVersion" | "kind")) {
        new.copy(key, old);
    }
    if strategy.status_keeps_meta {
        reset_meta(new, old);
    }
    (strategy.status_update)(new, old);
    keep_system_meta(new, old);
}

/// What the server does to an object changed by another subresource that writes the object itself
/// (`ephemeralcontainers`, `resize`, `approval`, `finalize`; `status` too).
pub fn prepare_for_subresource_update(
    gvk: &GroupVersionKind,
    subresource: &str,
    new: &mut Value,
    old: &Value,
) {
    if subresource == "status" {
        return prepare_for_status_update(gvk, new, old);
    }
    let strategy = strategy(gvk);
    let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) else { return };
    keep_generation(new, old);
    if let Some((_, update)) = strategy.subresources.iter().find(|(name, _)| *name == subresource) {
        update(new, old);
    }
    keep_system_meta(new, old);
}

/// Warnings for a new object, or for a changed one (after preparation).
#[must_use]
pub fn warnings(gvk: &GroupVersionKind, new: &Value, old: Option<&Value>) -> Vec<String> {
    kinds::find(gvk).map(|kind| (kind.warnings)(new, old)).unwrap_or_default()
}

/// Warnings for an object changed by a subresource (after preparation).
#[must_use]
pub fn subresource_warnings(
    gvk: &GroupVersionKind,
    subresource: &str,
    new: &Value,
    old: &Value,
) -> Vec<String> {
    match (subresource, kinds::find(gvk)) {
        ("status", Some(kind)) => (kind.status_warnings)(new, Some(old)),
        _ => Vec::new(),
    }
}

fn same_field(new: &Object, old: &Object, field: &str) -> bool {
    match field.split_once('.') {
        None => semantic_eq(new.get(field), old.get(field)),
        Some((outer, inner)) => {
            let get = |object: &Object| object.object(outer).and_then(|o| o.get(inner)).cloned();
            semantic_eq(get(new).as_ref(), get(old).as_ref())
        }
    }
}

pub(crate) fn set_meta(object: &mut Object, key: &str, value: Option<Value>) {
    if let Some(meta) = object.ensure("metadata") {
        match value {
            Some(value) => meta.insert(key.to_owned(), value),
            None => meta.remove(key),
        };
    }
}

fn copy_meta(new: &mut Object, old: &Object, key: &str) {
    let value = old.object("metadata").and_then(|meta| meta.get(key)).cloned();
    set_meta(new, key, value);
}

fn keep_generation(new: &mut Object, old: &Object) {
    copy_meta(new, old, "generation");
}

pub(crate) fn bump_generation(new: &mut Object, old: &Object) {
    let generation = old.object("metadata").map_or(0, |meta| meta.int("generation"));
    set_meta(new, "generation", Some(json!(generation + 1)));
}

/// What no update of a custom object can change, whatever it says.
pub fn keep_system_metadata(new: &mut Value, old: &Value) {
    if let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) {
        keep_system_meta(new, old);
    }
}

/// As upstream's BeforeUpdate: what no update can change, whatever it says.
fn keep_system_meta(new: &mut Object, old: &Object) {
    let Some(old_meta) = old.object("metadata") else { return };
    let unset =
        |new: &Object, key| new.object("metadata").is_none_or(|m| m.is_unset(key) || m.text(key).is_empty());
    if unset(new, "uid") {
        copy_meta(new, old, "uid");
    }
    for key in ["creationTimestamp", "deletionTimestamp"] {
        if !old_meta.is_unset(key) {
            copy_meta(new, old, key);
        }
    }
    if !old_meta.is_unset("deletionGracePeriodSeconds")
        && new.object("metadata").is_some_and(|m| m.is_unset("deletionGracePeriodSeconds"))
    {
        copy_meta(new, old, "deletionGracePeriodSeconds");
    }
}

/// Metadata as it was, but for the record of managers (upstream `ResetObjectMetaForStatus`).
pub(crate) fn reset_meta(new: &mut Object, old: &Object) {
    for key in ["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"] {
        copy_meta(new, old, key);
    }
}
