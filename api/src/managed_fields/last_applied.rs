//! `kubectl apply` on the client's side kept the last configuration in an annotation. When kubectl goes over to
//! apply on the server's side, what stands there is its own (upstream `internal/lastappliedmanager.go`,
//! `lastappliedupdater.go`).

use serde_json::Value;

use super::FieldManager;
use super::conflict::Conflicts;
use crate::codec::json;
use crate::structured::{Duplicates, Set, check, compare, field_set};

/// The annotation.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The one manager it counts for.
pub(super) const KUBECTL: &str = "kubectl";
/// All annotations of an object together are not longer.
const MAX_ANNOTATIONS: usize = 256 * 1024;

fn annotation(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][ANNOTATION].as_str().filter(|text| !text.is_empty())
}

/// The conflicts that are left when fields applied on the client's side, and not changed since, are no conflict.
pub(super) fn left(manager: &FieldManager<'_>, live: &Value, conflicts: Conflicts) -> Conflicts {
    match own_fields(manager, live) {
        Some(own) => conflicts.into_iter().filter(|conflict| !own.contains(&conflict.path.0)).collect(),
        None => conflicts,
    }
}

/// The fields of the last configuration that are still as it says.
fn own_fields(manager: &FieldManager<'_>, live: &Value) -> Option<Set> {
    let version = manager.version();
    let shape = manager.versions.shape(&version)?;
    check(shape, live, Duplicates::Refused).ok()?;
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    let has_kind = last["kind"].as_str().is_some_and(|kind| !kind.is_empty());
    if !has_kind || last["apiVersion"].as_str() != Some(&version) {
        return None;
    }
    check(shape, &last, Duplicates::Refused).ok()?;
    let compared = compare(shape, &last, live).ok()?;
    let own = field_set(shape, &last);
    Some(own.difference(&compared.modified).difference(&compared.added).difference(&compared.removed))
}

/// Brings the annotation up to date, if the object has it: clients may go back to apply on their side.
pub(super) fn renew(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let text = format!("{}\n", json::escaped(&config));
    let annotations = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    let Some(annotations) = annotations else { return };
    annotations.insert(ANNOTATION.to_owned(), text.into());
    let size: usize =
        annotations.iter().map(|(key, value)| key.len() + value.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}
