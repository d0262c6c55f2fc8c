//! Defaults must be valid themselves, and hold nothing that would be pruned (upstream `defaulting/validation.go`).

use serde_json::{Value, json};

use crate::crd::defaulting::{Step, surround};
use crate::crd::props::{META_FIELDS, Props, PropsExt};
use crate::crd::value::Checker;
use crate::crd::{metadata, prune};
use crate::field::{Error, ErrorList, Path};

/// What is wrong with the defaults of a schema.
pub(super) fn validate(schema: &Props, pruned: bool, path: &Path) -> ErrorList {
    // The whole object is as good as an embedded one.
    let mut whole = schema.clone();
    whole.x_kubernetes_embedded_resource = Some(true);
    let mut walk = Walk { pruned, errors: ErrorList::new() };
    walk.node(&whole, &whole, path, &mut Vec::new(), false);
    walk.errors
}

struct Walk {
    pruned: bool,
    errors: ErrorList,
}

impl Walk {
    /// `root`: the schema of the object around, at the end of whose path `steps` the value stands.
    fn node<'s>(
        &mut self,
        schema: &'s Props,
        root: &'s Props,
        path: &Path,
        steps: &mut Vec<Step>,
        inside_meta: bool,
    ) {
        let mut own_steps = Vec::new();
        let (root, steps, inside_meta) =
            if schema.embedded() { (schema, &mut own_steps, false) } else { (root, steps, inside_meta) };
        if let Some(default) = schema.default_value() {
            let at = path.child("default");
            let found = if inside_meta {
                in_metadata(default, schema, root, steps, &at)
            } else {
                self.plain(default, schema, &at)
            };
            self.errors.extend(found);
        }
        if let Some(item) = schema.item() {
            steps.push(Step::Index);
            self.node(item, root, &path.child("items"), steps, inside_meta);
            steps.pop();
        }
        for (name, field) in schema.fields() {
            let meta = inside_meta || schema.embedded() && META_FIELDS.contains(&name.as_str());
            steps.push(Step::Child(name.clone()));
            self.node(field, root, &path.child("properties").key(name), steps, meta);
            steps.pop();
        }
    }

    fn plain(&mut self, default: &Value, schema: &Props, path: &Path) -> ErrorList {
        let mut errors = ErrorList::new();
        if self.pruned {
            let mut pruned = default.clone();
            prune::prune(&mut pruned, Some(schema), schema.embedded());
            if pruned != *default {
                errors.push(Error::invalid(path, default.clone(), "must not have unknown fields"));
            }
        }
        let mut coerced = default.clone();
        if let Err(error) = metadata::coerce_at(&mut coerced, schema, path) {
            errors.push(*error);
            return errors;
        }
        let mut found = metadata::validate(&coerced, Some(schema), schema.embedded(), path);
        if found.is_empty() {
            found = Checker::for_defaults(schema).check(&coerced, path);
        }
        errors.extend(found);
        errors
    }
}

/// A default inside of metadata must make metadata that can be read.
fn in_metadata(default: &Value, schema: &Props, root: &Props, steps: &[Step], path: &Path) -> ErrorList {
    let mut object = surround(default.clone(), steps);
    if let Value::Object(fields) = &mut object {
        fields.entry("kind").or_insert_with(|| json!("Validation"));
        fields.entry("apiVersion").or_insert_with(|| json!("validation/v1"));
    }
    let bad = |why: String| {
        vec![Error::invalid(path, default.clone(), format!("must result in valid metadata: {why}"))]
    };
    if let Err(error) = metadata::coerce(&mut object, Some(root), true, false) {
        return bad(error.to_string());
    }
    let found = metadata::validate(&object, Some(root), true, &Path::root());
    match found.as_slice() {
        [] => Checker::for_defaults(schema).check(default, path),
        [one] => bad(one.to_string()),
        many => bad(format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
    }
}
