//! Defaults must be valid themselves, and hold nothing that would be pruned (upstream `defaulting/validation.go`).

use serde_json::{Value, json};

use crate::crd::defaulting::{Step, surround};
use crate::crd::props::{META_FIELDS, Props, PropsExt};
use crate::crd::rules::{BUDGET, Rules};
use crate::crd::value::Checker;
use crate::crd::{metadata, prune};
use crate::field::{Error, ErrorList, Path};

/// What is wrong with the defaults of a schema.
pub(super) fn validate(schema: &Props, pruned: bool, path: &Path) -> ErrorList {
    // The whole object is as good as an embedded one.
    let mut whole = schema.clone();
    whole.x_kubernetes_embedded_resource = Some(true);
    let mut walk = Walk { pruned, errors: ErrorList::new(), budget: Some(BUDGET) };
    walk.node(&whole, &whole, path, &mut Vec::new(), false);
    walk.errors
}

struct Walk {
    pruned: bool,
    errors: ErrorList,
    /// What rules may still cost; nothing more is checked when it is used up.
    budget: Option<u64>,
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
        if self.budget.is_none() {
            return;
        }
        let mut own_steps = Vec::new();
        let (root, steps, inside_meta) =
            if schema.embedded() { (schema, &mut own_steps, false) } else { (root, steps, inside_meta) };
        if let Some(default) = schema.default_value() {
            let at = path.child("default");
            let whole = std::ptr::eq(schema, root);
            if inside_meta {
                self.in_metadata(default, schema, root, steps, &at);
            } else {
                self.plain(default, schema, whole, &at);
            }
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

    fn plain(&mut self, default: &Value, schema: &Props, whole: bool, path: &Path) {
        if self.pruned {
            let mut pruned = default.clone();
            prune::prune(&mut pruned, Some(schema), schema.embedded());
            if pruned != *default {
                self.errors.push(Error::invalid(path, default.clone(), "must not have unknown fields"));
            }
        }
        let mut coerced = default.clone();
        if let Err(error) = metadata::coerce_at(&mut coerced, schema, path) {
            self.errors.push(*error);
            return;
        }
        let found = metadata::validate(&coerced, Some(schema), schema.embedded(), path);
        if found.is_empty() {
            self.checked(&coerced, schema, whole, path);
        }
        self.errors.extend(found);
    }

    /// A default inside of metadata must make metadata that can be read.
    fn in_metadata(&mut self, default: &Value, schema: &Props, root: &Props, steps: &[Step], path: &Path) {
        let mut object = surround(default.clone(), steps);
        if let Value::Object(fields) = &mut object {
            fields.entry("kind").or_insert_with(|| json!("Validation"));
            fields.entry("apiVersion").or_insert_with(|| json!("validation/v1"));
        }
        let why = match metadata::coerce(&mut object, Some(root), true, false) {
            Err(error) => error.to_string(),
            Ok(_) => match metadata::validate(&object, Some(root), true, &Path::root()).as_slice() {
                [] => return self.checked(default, schema, false, path),
                [one] => one.to_string(),
                many => {
                    format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
                }
            },
        };
        let detail = format!("must result in valid metadata: {why}");
        self.errors.push(Error::invalid(path, default.clone(), detail));
    }

    /// A default against its schema, and then against the rules there. `whole`: whether it is a whole object.
    fn checked(&mut self, default: &Value, schema: &Props, whole: bool, path: &Path) {
        let found = Checker::for_defaults(schema).check(default, path);
        let clean = found.is_empty();
        self.errors.extend(found);
        if let (true, Some(budget), Some(rules)) = (clean, self.budget, Rules::of_default(schema, whole)) {
            let (found, left) = rules.check_default(default, path, budget);
            self.errors.extend(found);
            self.budget = left;
        }
    }
}
