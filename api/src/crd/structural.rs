//! Structural schemas: those by which every value has one known shape, whatever `anyOf` and the like say of it
//! (upstream `apiserver/schema/{convert,validation,complete}.go`).

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::props::{Props, PropsExt, list, text};
use crate::field::{Error, ErrorList, Path, Report};
use crate::regexp;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Whether a schema uses only what a structural schema can express (upstream `NewStructural`).
///
/// # Errors
/// Upstream's message about the first thing that it cannot.
pub(crate) fn check_supported(schema: &Props) -> Result<(), String> {
    supported_keywords(schema)?;
    let clauses = schema.not.as_deref().into_iter();
    let clauses = clauses.chain(list(&schema.all_of)).chain(list(&schema.any_of)).chain(list(&schema.one_of));
    clauses.into_iter().try_for_each(check_supported)?;
    if schema.x_kubernetes_preserve_unknown_fields == Some(false) {
        return Err(
            "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".to_owned()
        );
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schemas(items)) if !items.is_empty() => {
            return Err("OpenAPIV3Schema 'items' must be a schema, but is an array".to_owned());
        }
        Some(JSONSchemaPropsOrArray::Schema(item)) => check_supported(item)?,
        _ => {}
    }
    schema.fields().try_for_each(|(_, field)| check_supported(field))?;
    schema.additional().map_or(Ok(()), check_supported)
}

fn supported_keywords(schema: &Props) -> Result<(), String> {
    let used = [
        ("id", !text(&schema.id).is_empty()),
        ("schema", !text(&schema.schema).is_empty()),
        ("$ref", !text(&schema.ref_path).is_empty()),
        ("patternProperties", schema.pattern_properties.as_ref().is_some_and(|map| !map.is_empty())),
        ("dependencies", schema.dependencies.as_ref().is_some_and(|map| !map.is_empty())),
        ("additionalItems", schema.additional_items.is_some()),
        ("definitions", schema.definitions.as_ref().is_some_and(|map| !map.is_empty())),
    ];
    match used.iter().find(|(_, used)| *used) {
        Some((name, _)) => Err(format!("OpenAPIV3Schema '{name}' is not supported")),
        None => Ok(()),
    }
}

/// What keeps a schema from being structural, sorted by message.
pub(crate) fn validate(path: &Path, schema: &Props) -> ErrorList {
    let mut errors = ErrorList::new();
    invariants(schema, Level::Root, path, &mut errors);
    complete_clauses(schema, Some(schema), path, path, &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

/// Whether a schema is structural.
pub(crate) fn is_structural(schema: &Props) -> bool {
    check_supported(schema).is_ok() && validate(&Path::root(), schema).is_empty()
}

fn invariants(schema: &Props, level: Level, path: &Path, errors: &mut ErrorList) {
    if schema.kind() == "array" && schema.item().is_none() {
        errors.required(&path.child("items"), "must be specified");
    }
    if let Some(item) = schema.item() {
        invariants(item, Level::Item, &path.child("items"), errors);
    }
    for (name, field) in schema.fields() {
        invariants(field, Level::Field, &path.child("properties").key(name), errors);
    }
    if schema.has_additional() && level == Level::Root {
        errors.forbidden(&path.child("additionalProperties"), "must not be used at the root");
    }
    if let Some(additional) = schema.additional() {
        invariants(additional, Level::Field, &path.child("additionalProperties"), errors);
    }
    extensions(schema, path, errors);
    let (any, all) = (is_int_or_string_any_of(schema), is_int_or_string_all_of(schema));
    value_validation(schema, any, all, level, path, errors);
    own_type(schema, level, path, errors);
    metadata_fields(schema, level, path, errors);
}

fn extensions(schema: &Props, path: &Path, errors: &mut ErrorList) {
    if !schema.int_or_string() {
        return;
    }
    for (name, set) in [
        ("x-kubernetes-preserve-unknown-fields", schema.preserves()),
        ("x-kubernetes-embedded-resource", schema.embedded()),
    ] {
        if set {
            errors.invalid(&path.child(name), true, "must be false if x-kubernetes-int-or-string is true");
        }
    }
}

fn own_type(schema: &Props, level: Level, path: &Path, errors: &mut ErrorList) {
    let at = path.child("type");
    let kind = schema.kind();
    if schema.embedded() && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        if kind.is_empty() { errors.required(&at, detail) } else { errors.invalid(&at, kind, detail) }
    } else if kind.is_empty() && !schema.int_or_string() && !schema.preserves() {
        errors.required(
            &at,
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        );
    }
    if schema.embedded() && schema.has_additional() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.forbidden(&path.child("additionalProperties"), detail);
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.invalid(&at, kind, "must be object at the root");
    }
}

fn metadata_fields(schema: &Props, level: Level, path: &Path, errors: &mut ErrorList) {
    let checked = level == Level::Root || schema.embedded();
    let properties = path.child("properties");
    for name in ["kind", "apiVersion"] {
        if let Some(field) = schema.field(name)
            && checked
            && field.kind() != "string"
        {
            errors.invalid(&properties.key(name).child("type"), field.kind(), "must be string");
        }
    }
    if let Some(metadata) = schema.field("metadata") {
        let at = properties.key("metadata");
        if checked && metadata.kind() != "object" {
            errors.invalid(&at.child("type"), metadata.kind(), "must be object");
        }
        if level == Level::Root && !restricts_names_only(metadata) {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.forbidden(&at, detail);
        }
    }
    let no_fields = schema.properties.as_ref().is_none_or(|fields| fields.is_empty());
    if schema.embedded() && !schema.preserves() && no_fields {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.required(&properties, detail);
    }
}

fn restricts_names_only(metadata: &Props) -> bool {
    let mut rest = metadata.clone();
    let names_only = metadata.fields().all(|(name, _)| name == "name" || name == "generateName");
    if names_only {
        rest.properties = None;
    }
    (rest.type_, rest.default) = (None, None);
    rest == Props::default()
}

fn typed(kind: &str) -> Props {
    Props { type_: Some(kind.to_owned()), ..Props::default() }
}

fn is_int_or_string(clauses: &[Props]) -> bool {
    matches!(clauses, [a, b] if *a == typed("integer") && *b == typed("string"))
}

/// `anyOf` an integer or a string.
pub(crate) fn is_int_or_string_any_of(schema: &Props) -> bool {
    is_int_or_string(list(&schema.any_of))
}

/// `allOf` whose first clause is that.
pub(crate) fn is_int_or_string_all_of(schema: &Props) -> bool {
    list(&schema.all_of).first().is_some_and(|first| is_int_or_string(list(&first.any_of)))
}

fn value_validation(
    schema: &Props,
    skip_any: bool,
    skip_first_all: bool,
    level: Level,
    path: &Path,
    errors: &mut ErrorList,
) {
    if !skip_any {
        for (i, clause) in list(&schema.any_of).iter().enumerate() {
            nested(clause, false, level, &path.child("anyOf").index(i), errors);
        }
    }
    for (i, clause) in list(&schema.all_of).iter().enumerate() {
        nested(clause, skip_first_all && i == 0, level, &path.child("allOf").index(i), errors);
    }
    for (i, clause) in list(&schema.one_of).iter().enumerate() {
        nested(clause, false, level, &path.child("oneOf").index(i), errors);
    }
    if let Some(clause) = &schema.not {
        nested(clause, false, level, &path.child("not"), errors);
    }
    let pattern = text(&schema.pattern);
    if !pattern.is_empty()
        && let Err(why) = regexp::compile(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.invalid(&path.child("pattern"), pattern, detail);
    }
}

/// A schema inside of `anyOf` and the like, which must say nothing of the shape.
fn nested(schema: &Props, skip_any: bool, level: Level, path: &Path, errors: &mut ErrorList) {
    value_validation(schema, skip_any, false, level, path, errors);
    if let Some(item) = schema.item() {
        nested(item, false, level, &path.child("items"), errors);
    }
    for (name, field) in schema.fields() {
        nested(field, false, Level::Field, &path.child("properties").key(name), errors);
    }
    const EMPTY: &str = "must be empty to be structural";
    const UNDEFINED: &str = "must be undefined to be structural";
    const FALSE: &str = "must be false to be structural";
    let allows = matches!(
        schema.additional_properties,
        Some(JSONSchemaPropsOrBool::Schema(_) | JSONSchemaPropsOrBool::Bool(true))
    );
    for (name, set, detail) in [
        ("type", !schema.kind().is_empty(), EMPTY),
        ("additionalProperties", allows, UNDEFINED),
        ("default", schema.default_value().is_some(), UNDEFINED),
        ("title", !text(&schema.title).is_empty(), EMPTY),
        ("description", !text(&schema.description).is_empty(), EMPTY),
        ("nullable", schema.is_nullable(), FALSE),
        ("x-kubernetes-preserve-unknown-fields", schema.preserves(), FALSE),
        ("x-kubernetes-embedded-resource", schema.embedded(), FALSE),
        ("x-kubernetes-int-or-string", schema.int_or_string(), FALSE),
        ("x-kubernetes-list-map-keys", !schema.map_keys().is_empty(), EMPTY),
        ("x-kubernetes-list-type", schema.x_kubernetes_list_type.is_some(), UNDEFINED),
        ("x-kubernetes-map-type", schema.x_kubernetes_map_type.is_some(), UNDEFINED),
        ("x-kubernetes-validations", !schema.rules().is_empty(), EMPTY),
    ] {
        if set {
            errors.forbidden(&path.child(name), detail);
        }
    }
    if schema.field("metadata").is_some() {
        let at = path.child("properties").key("metadata");
        errors.forbidden(&at, "must not be specified in a nested context");
    }
}

/// Whatever the clauses of the root speak of must exist outside of them.
fn complete_clauses(
    clause: &Props,
    schema: Option<&Props>,
    at: &Path,
    clause_at: &Path,
    errors: &mut ErrorList,
) {
    if schema.is_none() {
        return errors.push(Error::required(at, format!("because it is defined in {clause_at}")));
    }
    let each = |name: &str, clauses: &[Props], errors: &mut ErrorList| {
        for (i, inner) in clauses.iter().enumerate() {
            complete(inner, schema, at, &clause_at.child(name).index(i), errors);
        }
    };
    if let Some(not) = &clause.not {
        complete(not, schema, at, &clause_at.child("not"), errors);
    }
    each("allOf", list(&clause.all_of), errors);
    each("anyOf", list(&clause.any_of), errors);
    each("oneOf", list(&clause.one_of), errors);
}

fn complete(clause: &Props, schema: Option<&Props>, at: &Path, clause_at: &Path, errors: &mut ErrorList) {
    complete_clauses(clause, schema, at, clause_at, errors);
    let Some(schema) = schema else { return };
    if let Some(item) = clause.item() {
        complete(item, schema.item(), &at.child("items"), &clause_at.child("items"), errors);
    }
    for (name, inner) in clause.fields() {
        let (at, inner_at) = (at.child("properties").key(name), clause_at.child("properties").key(name));
        match schema.field(name) {
            None => errors.required(&at, format!("because it is defined in {inner_at}")),
            Some(field) => complete(inner, Some(field), &at, &inner_at, errors),
        }
    }
}

#[cfg(test)]
#[path = "structural_tests.rs"]
mod tests;
