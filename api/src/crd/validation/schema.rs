//! One schema of a definition: that it is structural, that its keywords fit together, its defaults, its rules.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaPropsOrArray, JSONSchemaPropsOrStringArray, ValidationRule,
};

use super::options::Options;
use super::rules::{self, Costs, Place};
use super::{defaults, fields, show};
use crate::crd::props::{META_FIELDS, Props, PropsExt, list, text};
use crate::crd::rules::{compile, declared};
use crate::crd::structural;
use crate::field::{Error, ErrorList, Path, Report};

/// The types there are.
pub(super) const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// What may stand at the root beside a status subresource, whose schema is taken out of it.
const AT_ROOT: &str = "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields XValidations]";

/// What is wrong with the schema of a version.
/// `unchanged`: it was there before, and its expressions may each cost what they do.
pub(super) fn validate(
    schema: &Props,
    has_status: bool,
    unchanged: bool,
    options: &Options,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    if has_status {
        root_keywords(schema, path, &mut errors);
    }
    if schema.is_nullable() {
        errors.forbidden(&Path::new(&format!("{path}.nullable")), "nullable cannot be true at the root");
    }
    let mut unsupported = None;
    let before = errors.len();
    if options.structural {
        match structural::check_supported(schema) {
            Err(why) => unsupported = Some(Error::invalid(path, "", why)),
            Ok(()) => {
                let mut found = structural::validate(path, schema);
                if found.is_empty() {
                    found = defaults::validate(schema, options.pruned_defaults, path);
                }
                errors.extend(found);
            }
        }
    }
    // Rules are looked at only where the schema is structural.
    let costs = (options.structural && unsupported.is_none() && errors.len() == before)
        .then(|| Costs::new(unchanged));
    let mut walk = Walk { options, errors: ErrorList::new(), rule_errors: ErrorList::new(), costs };
    let context = Context { cardinality: Some(1), compiled: true, ..Context::default() };
    walk.node(schema, path, &context, true);
    errors.extend(walk.errors);
    errors.extend(walk.rule_errors);
    if errors.is_empty() {
        errors.extend(unsupported);
    }
    if let Some(costs) = walk.costs {
        costs.report(path, &mut errors);
    }
    errors
}

fn root_keywords(schema: &Props, path: &Path, errors: &mut ErrorList) {
    if !matches!(schema.kind(), "" | "object") {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return errors.invalid(&Path::new(&format!("{path}.type")), schema.kind(), detail);
    }
    let allowed = Props {
        description: None,
        type_: None,
        format: None,
        title: None,
        maximum: None,
        exclusive_maximum: None,
        minimum: None,
        exclusive_minimum: None,
        max_length: None,
        min_length: None,
        pattern: None,
        max_items: None,
        min_items: None,
        unique_items: None,
        multiple_of: None,
        required: None,
        items: None,
        properties: None,
        external_docs: None,
        example: None,
        x_kubernetes_preserve_unknown_fields: None,
        x_kubernetes_validations: None,
        ..schema.clone()
    };
    if allowed != Props::default() {
        let detail = format!(
            "only {AT_ROOT} fields are allowed at the root of the schema if the status subresource is enabled"
        );
        errors.push(Error::invalid_shown(path, show::props(schema), detail));
    }
}

/// What counts where a schema stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    /// Why there may be no defaults, if so.
    no_defaults: Option<String>,
    /// Inside the metadata of an object.
    inside_meta: bool,
    /// The first place above whose old value cannot be told.
    pub(super) uncorrelated: Option<Path>,
    /// How often data of this schema can be in an object at most, as far as that is bounded.
    pub(super) cardinality: Option<u64>,
    /// Whether rules here are those of data, and not of a clause.
    compiled: bool,
}

impl Context {
    fn without_old_self(&self, path: &Path) -> Self {
        Self { uncorrelated: self.uncorrelated.clone().or_else(|| Some(path.clone())), ..self.clone() }
    }
}

impl Context {
    /// What counts below a schema.
    fn within(&self, schema: &Props) -> Self {
        let cardinality =
            self.cardinality.zip(max_elements(schema)).map(|(own, most)| own.saturating_mul(most));
        Self { cardinality, ..self.clone() }
    }

    /// What counts in a clause.
    fn in_clause(&self) -> Self {
        Self { compiled: false, ..self.clone() }
    }
}

/// How many values a schema can have below it at most; `None`: any number.
fn max_elements(schema: &Props) -> Option<u64> {
    let most = match schema.kind() {
        "object" if schema.has_additional() => schema.max_properties,
        "array" => schema.max_items,
        _ => Some(1),
    };
    most.map(|most| u64::try_from(most).unwrap_or_default())
}

struct Walk<'a> {
    options: &'a Options,
    errors: ErrorList,
    rule_errors: ErrorList,
    /// `None`: rules are not compiled.
    costs: Option<Costs>,
}

impl Walk<'_> {
    fn node(&mut self, schema: &Props, path: &Path, context: &Context, root: bool) {
        let before = self.errors.len();
        self.keywords(schema, path, context);
        if schema.unique_items == Some(true) {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.errors.forbidden(&path.child("uniqueItems"), detail);
        }
        self.additional(schema, path, context);
        self.properties(schema, path, context, root);
        self.clauses(schema, path, context);
        self.items(schema, path, context);
        for (name, dependency) in schema.dependencies.iter().flatten() {
            if let JSONSchemaPropsOrStringArray::Schema(inner) = dependency {
                self.node(inner, &path.child("dependencies").key(name), context, false);
            }
        }
        if schema.x_kubernetes_preserve_unknown_fields == Some(false) {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.errors.invalid(&at, false, "must be true or undefined");
        }
        self.map_type(schema, path);
        self.list_type(schema, path);
        self.map_keys(schema, path);
        if self.options.strict_map_keys {
            self.errors.extend(map_keys_and_sets(schema, path));
        }
        for (i, rule) in schema.rules().iter().enumerate() {
            self.rule(rule, schema, &path.child("x-kubernetes-validations").index(i));
        }
        // What is wrong with a schema makes its rules wrong in ways that help nobody.
        if self.errors.len() == before && context.compiled && !schema.rules().is_empty() {
            self.compiled_rules(schema, path, context, root || schema.embedded());
        }
    }

    fn compiled_rules(&mut self, schema: &Props, path: &Path, context: &Context, root: bool) {
        let Some(costs) = &mut self.costs else { return };
        let at = path.child("x-kubernetes-validations");
        let Some(declared) = declared(schema, root) else {
            let why = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            return self.rule_errors.push(Error::internal(&at, why));
        };
        let compiled = compile(schema.rules(), schema, &declared);
        for (i, (rule, compiled)) in schema.rules().iter().zip(&compiled).enumerate() {
            let place = Place { path: &at.index(i), context };
            rules::check(rule, compiled, &place, costs, &mut self.rule_errors);
        }
    }

    /// Keywords that are not for definitions.
    fn keywords(&mut self, schema: &Props, path: &Path, context: &Context) {
        let kind = schema.kind();
        let errors = &mut self.errors;
        if self.options.known_types && !kind.is_empty() {
            errors.one_of(&path.child("type"), kind, &TYPES);
        }
        if let Some(reason) = context.no_defaults.as_deref().filter(|_| schema.default_value().is_some()) {
            errors.forbidden(&path.child("default"), format!("must not be set {reason}"));
        }
        let filled = |map: bool, detail: &'static str| map.then_some(detail);
        let not_array = match &schema.items {
            Some(JSONSchemaPropsOrArray::Schemas(items)) if !items.is_empty() => {
                Some("items must be a schema object and not an array")
            }
            _ => None,
        };
        for (name, detail) in [
            ("id", filled(!text(&schema.id).is_empty(), "id is not supported")),
            (
                "additionalItems",
                filled(schema.additional_items.is_some(), "additionalItems is not supported"),
            ),
            (
                "patternProperties",
                filled(
                    schema.pattern_properties.iter().flatten().next().is_some(),
                    "patternProperties is not supported",
                ),
            ),
            (
                "definitions",
                filled(schema.definitions.iter().flatten().next().is_some(), "definitions is not supported"),
            ),
            ("dependencies", filled(schema.dependencies.is_some(), "dependencies is not supported")),
            ("$ref", filled(schema.ref_path.is_some(), "$ref is not supported")),
            ("type", filled(kind == "null", "type cannot be set to null, use nullable as an alternative")),
            ("items", not_array),
            (
                "x-kubernetes-embedded-resource",
                filled(context.inside_meta && schema.embedded(), "must not be used inside of resource meta"),
            ),
        ] {
            if let Some(detail) = detail {
                errors.forbidden(&path.child(name), detail);
            }
        }
    }

    fn additional(&mut self, schema: &Props, path: &Path, context: &Context) {
        let at = path.child("additionalProperties");
        let has_fields = schema.fields().next().is_some();
        let allows_all = matches!(
            schema.additional_properties,
            None | Some(
                k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrBool::Bool(true)
            )
        );
        if has_fields && !allows_all {
            self.errors.forbidden(&at, "additionalProperties and properties are mutual exclusive");
        }
        let Some(inner) = schema.additional() else { return };
        let mut context = context.within(schema);
        if context.inside_meta {
            // What pruning does to defaults depends on the value there.
            context.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        self.node(inner, &at, &context, false);
    }

    fn properties(&mut self, schema: &Props, path: &Path, context: &Context, root: bool) {
        for (name, field) in schema.fields() {
            let mut context = context.within(schema);
            if schema.map_type() == "atomic" {
                context = context.without_old_self(path);
            }
            if (root || schema.embedded()) && META_FIELDS.contains(&name.as_str()) {
                context.inside_meta = true;
                if root {
                    context.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            self.node(field, &path.child("properties").key(name), &context, false);
        }
    }

    fn clauses(&mut self, schema: &Props, path: &Path, context: &Context) {
        let context = &context.in_clause();
        if let Some(clause) = &schema.not {
            self.node(clause, &path.child("not"), context, false);
        }
        for (name, clauses) in
            [("allOf", &schema.all_of), ("oneOf", &schema.one_of), ("anyOf", &schema.any_of)]
        {
            for (i, clause) in list(clauses).iter().enumerate() {
                self.node(clause, &path.child(name).index(i), context, false);
            }
        }
        for (name, inner) in schema.definitions.iter().flatten() {
            self.node(inner, &path.child("definitions").key(name), context, false);
        }
    }

    fn items(&mut self, schema: &Props, path: &Path, context: &Context) {
        let mut context = context.within(schema);
        if schema.list_type() != "map" {
            context = context.without_old_self(path);
        }
        let at = path.child("items");
        match &schema.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) => self.node(item, &at, &context, false),
            Some(JSONSchemaPropsOrArray::Schemas(items)) => {
                for (i, item) in items.iter().enumerate() {
                    self.node(item, &at.index(i), &context, false);
                }
            }
            None => {}
        }
    }

    fn needs_type(&mut self, schema: &Props, path: &Path, wanted: &str, keyword: &str) -> bool {
        let (at, kind) = (path.child("type"), schema.kind());
        let detail = format!("must be {wanted} if {keyword} is specified");
        if kind == wanted {
            return true;
        }
        if kind.is_empty() {
            self.errors.required(&at, detail);
        } else {
            self.errors.invalid(&at, kind, detail);
        }
        false
    }

    fn map_type(&mut self, schema: &Props, path: &Path) {
        let Some(kind) = &schema.x_kubernetes_map_type else { return };
        self.needs_type(schema, path, "object", "x-kubernetes-map-type");
        self.errors.one_of(&path.child("x-kubernetes-map-type"), kind, &["atomic", "granular"]);
    }

    fn list_type(&mut self, schema: &Props, path: &Path) {
        let Some(kind) = &schema.x_kubernetes_list_type else { return };
        if self.needs_type(schema, path, "array", "x-kubernetes-list-type")
            && self.options.atomic_sets
            && let Some(item) = schema.item()
            && has_unatomic_set(schema)
        {
            let name =
                if item.kind() == "array" { "x-kubernetes-list-type" } else { "x-kubernetes-map-type" };
            // As upstream, which shows the list type in both cases.
            let value = item.x_kubernetes_list_type.clone();
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            self.errors.invalid(&path.child("items").child(name), value, detail);
        }
        self.errors.one_of(&path.child("x-kubernetes-list-type"), kind, &["atomic", "set", "map"]);
    }

    fn map_keys(&mut self, schema: &Props, path: &Path) {
        let (keys, kind) = (schema.map_keys(), schema.x_kubernetes_list_type.as_deref());
        let at = path.child("x-kubernetes-list-type");
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        match kind {
            None if !keys.is_empty() => self.errors.required(&at, detail),
            Some(kind) if !keys.is_empty() && kind != "map" => self.errors.invalid(&at, kind, detail),
            _ => {}
        }
        if kind != Some("map") {
            return;
        }
        let keys_at = path.child("x-kubernetes-list-map-keys");
        if keys.is_empty() {
            self.errors.required(&keys_at, "must not be empty if x-kubernetes-list-type is map");
        }
        let items_at = path.child("items");
        let item = match &schema.items {
            None => {
                let detail = "must have a schema if x-kubernetes-list-type is map";
                return self.errors.required(&items_at, detail);
            }
            Some(items @ JSONSchemaPropsOrArray::Schemas(_)) => {
                let detail = "must only have a single schema if x-kubernetes-list-type is map";
                return self.errors.push(Error::invalid_shown(&items_at, show::items(items), detail));
            }
            Some(JSONSchemaPropsOrArray::Schema(item)) => item,
        };
        if item.kind() != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            return self.errors.invalid(&items_at.child("type"), item.kind(), detail);
        }
        for (i, key) in keys.iter().enumerate() {
            match item.field(key) {
                Some(field) if matches!(field.kind(), "array" | "object") => {
                    let at = items_at.child("properties").key(key).child("type");
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.errors.invalid(&at, item.kind(), detail);
                }
                Some(_) => {}
                None => {
                    self.errors.invalid(
                        &keys_at,
                        keys.to_vec(),
                        "entries must all be names of item properties",
                    );
                }
            }
            if keys[..i].contains(key) {
                self.errors.invalid(&keys_at, keys.to_vec(), "must not contain duplicate entries");
            }
        }
    }

    /// What can be said about a rule without reading its expression.
    fn rule(&mut self, rule: &ValidationRule, schema: &Props, path: &Path) {
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let own = rule.rule.trim();
        let message = text(&rule.message);
        let message_expression = text(&rule.message_expression);
        let field = text(&rule.field_path);
        let errors = &mut self.errors;
        if own.is_empty() {
            errors.required(&path.child("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.invalid(&path.child("message"), message, "must be non-empty if specified");
        } else if breaks(message.trim()) {
            errors.invalid(&path.child("message"), message, "must not contain line breaks");
        } else if breaks(own) && message.trim().is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            errors.required(&path.child("message"), detail);
        }
        if !message_expression.is_empty() && message_expression.trim().is_empty() {
            let detail = "messageExpression must be non-empty if specified";
            errors.required(&path.child("messageExpression"), detail);
        }
        if let Some(reason) = &rule.reason {
            errors.one_of(&path.child("reason"), reason, &REASONS);
        }
        if !field.is_empty() && field.trim().is_empty() {
            errors.invalid(&path.child("fieldPath"), field, "must be non-empty if specified");
        }
        if breaks(field) {
            errors.invalid(&path.child("fieldPath"), field, "must not contain line breaks");
        }
        let known =
            structural::check_supported(schema).is_err() || fields::field_path(field, schema, true).is_ok();
        if !field.is_empty() && !known {
            errors.invalid(&path.child("fieldPath"), field, "must be a valid path");
        }
    }
}

/// Whether a set holds items that are merged within.
pub(super) fn has_unatomic_set(schema: &Props) -> bool {
    let Some(item) = schema.item().filter(|_| schema.list_type() == "set") else { return false };
    match item.kind() {
        "array" => item.x_kubernetes_list_type.as_deref().is_some_and(|kind| kind != "atomic"),
        "object" => item.map_type() != "atomic",
        _ => false,
    }
}

/// Keys of maps are always there, and items of maps and sets are no nulls.
pub(super) fn map_keys_and_sets(schema: &Props, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let kind = schema.list_type();
    let Some(item) = schema.item().filter(|_| matches!(kind, "set" | "map")) else { return errors };
    let at = path.child("items");
    if item.is_nullable() {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {kind}");
        errors.forbidden(&at.child("nullable"), detail);
    }
    if kind == "set" {
        return errors;
    }
    for key in schema.map_keys() {
        let Some(field) = item.field(key) else { continue };
        let at = at.child("properties").key(key);
        if !item.required_names().contains(key) && field.default_value().is_none() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.required(&at.child("default"), detail);
        }
        if field.is_nullable() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.forbidden(&at.child("nullable"), detail);
        }
    }
    errors
}
