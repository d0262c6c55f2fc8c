//! The spec of a definition.

use std::collections::BTreeSet;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinitionSpec, CustomResourceSubresources,
};

use super::internal::{Internal, Version};
use super::options::Options;
use super::{conversion, fields, names, schema, show};
use crate::crd::props::{Props, PropsExt, has, text};
use crate::crd::structural;
use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::validation::IMMUTABLE;

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// What is wrong with a spec.
pub(super) fn validate(
    spec: &CustomResourceDefinitionSpec,
    internal: &Internal<'_>,
    options: &Options,
) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    group(&spec.group, &path.child("group"), &mut errors);
    match spec.scope.as_str() {
        "" => errors.required(&path.child("scope"), ""),
        scope => errors.one_of(&path.child("scope"), scope, &["Cluster", "Namespaced"]),
    }
    let mut options = options.clone();
    options.structural |= !internal.preserve_unknown;
    schemas_given(internal, &options, &path, &mut errors);
    let any = |holds: &mut dyn FnMut(&Props) -> bool| internal.schemas().any(|schema| has(schema, holds));
    if any(&mut |schema| schema.default_value().is_some()) {
        options.structural = true;
        if internal.preserve_unknown {
            let detail = "must be false in order to use defaults in the schema";
            errors.invalid(&path.child("preserveUnknownFields"), true, detail);
        }
    }
    options.structural |= any(&mut uses_extensions);
    versions(internal, &options, &path, &mut errors);
    required_names(spec, &path.child("names"), &mut errors);
    errors.extend(names(&spec.names, &path.child("names")));
    let at = path.child("validation");
    errors.extend(validation(
        internal.has_schema,
        internal.schema,
        internal.has_any_status(),
        (&options, internal.version),
        &at,
    ));
    errors.extend(subresources(internal.subresources, &path.child("subresources")));
    errors.extend(columns(internal.columns, &path.child("additionalPrinterColumns")));
    errors.extend(selectable(internal, &options, &path));
    let strategy = spec.conversion.as_ref().map(|conversion| conversion.strategy.as_str());
    if let Some(strategy) = strategy.filter(|strategy| *strategy != "None" && internal.preserve_unknown) {
        let detail = "must be None if spec.preserveUnknownFields is true";
        errors.invalid(&path.child("conversion").child("strategy"), strategy, detail);
    }
    if let Some(own) = &spec.conversion {
        errors.extend(conversion(own, &options, &path.child("conversion")));
    }
    errors
}

/// What must stay as it was.
pub(super) fn immutable(
    new: &CustomResourceDefinitionSpec,
    old: &CustomResourceDefinitionSpec,
    names: bool,
) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = ErrorList::new();
    let mut same = |path: Path, new: &str, old: &str| {
        if new != old {
            errors.invalid(&path, new, IMMUTABLE);
        }
    };
    if names {
        same(path.child("scope"), &new.scope, &old.scope);
        same(path.child("names").child("kind"), &new.names.kind, &old.names.kind);
    }
    same(path.child("group"), &new.group, &old.group);
    same(path.child("names").child("plural"), &new.names.plural, &old.names.plural);
    errors
}

fn group(group: &str, path: &Path, errors: &mut ErrorList) {
    let messages = format::dns1123_subdomain(group);
    if group.is_empty() {
        errors.required(path, "");
    } else if !messages.is_empty() {
        errors.invalid(path, group, messages.join(","));
    } else if !group.contains('.') {
        errors.invalid(path, group, "should be a domain with at least one dot");
    }
}

fn schemas_given(internal: &Internal<'_>, options: &Options, path: &Path, errors: &mut ErrorList) {
    if internal.schema.is_some() {
        return;
    }
    for (i, version) in internal.versions.iter().enumerate().filter(|(_, version)| version.schema.is_none()) {
        let at = path.child("versions").index(i).child("schema").child("openAPIV3Schema");
        if options.need_schema {
            errors.required(&at, "");
        } else if !internal.preserve_unknown && version.served {
            errors.required(&at, "because otherwise all fields are pruned");
        }
    }
}

/// Whether a schema uses extensions that presuppose a known structure.
fn uses_extensions(schema: &Props) -> bool {
    schema.embedded()
        || schema.x_kubernetes_preserve_unknown_fields.is_some()
        || schema.int_or_string()
        || !schema.map_keys().is_empty()
        || schema.x_kubernetes_list_type.is_some()
        || !schema.rules().is_empty()
}

fn versions(internal: &Internal<'_>, options: &Options, path: &Path, errors: &mut ErrorList) {
    let at = path.child("versions");
    let mut seen = BTreeSet::new();
    let mut unique = true;
    for (i, own) in internal.versions.iter().enumerate() {
        unique &= seen.insert(own.name);
        let messages = format::dns1035_label(own.name);
        if !messages.is_empty() {
            errors.invalid(&at.index(i).child("name"), own.name, messages.join(","));
        }
        errors.extend(version(own, internal.has_status(own), options, &at.index(i)));
    }
    let mut all_versions = |detail: &str| {
        errors.push(Error::invalid_shown(&at, show::versions(&internal.versions), detail));
    };
    if !unique {
        all_versions("must contain unique version names");
    }
    if internal.versions.iter().filter(|version| version.storage).count() != 1 {
        all_versions("must have exactly one version marked as storage version");
    }
    let messages = format::dns1035_label(internal.version);
    if !internal.version.is_empty() && !messages.is_empty() {
        errors.invalid(&path.child("version"), internal.version, messages.join(","));
    }
}

fn version(version: &Version<'_>, has_status: bool, options: &Options, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("deprecationWarning");
    for message in deprecation_warning(version) {
        errors.invalid(&at, version.deprecation_warning.unwrap_or_default(), message);
    }
    let at = path.child("schema");
    errors.extend(validation(version.has_schema, version.schema, has_status, (options, version.name), &at));
    errors.extend(subresources(version.subresources, &path.child("subresources")));
    errors.extend(columns(version.columns, &path.child("additionalPrinterColumns")));
    if !version.selectable_fields.is_empty() {
        let at = path.child("selectableFields");
        match version.schema {
            None => {
                let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
                errors.invalid(&at, "", detail);
            }
            Some(schema) => {
                errors.extend(unsupported(schema, path));
                errors.extend(fields::validate(
                    version.selectable_fields,
                    schema,
                    options,
                    version.name,
                    &at,
                ));
            }
        }
    }
    errors
}

/// Why selectable fields cannot be looked up in a schema.
fn unsupported(schema: &Props, path: &Path) -> Option<Error> {
    let why = structural::check_supported(schema).err()?;
    Some(Error::invalid(&path.child("schema.openAPIV3Schema"), "", why))
}

fn selectable(internal: &Internal<'_>, options: &Options, path: &Path) -> ErrorList {
    let at = path.child("selectableFields");
    if internal.selectable_fields.is_empty() {
        return ErrorList::new();
    }
    let Some(schema) = internal.schema else {
        return vec![Error::invalid(&at, "", "may only be set when validations.schema is included")];
    };
    let mut errors: ErrorList = unsupported(schema, path).into_iter().collect();
    errors.extend(fields::validate(internal.selectable_fields, schema, options, "", &at));
    errors
}

fn deprecation_warning(version: &Version<'_>) -> Vec<String> {
    let mut messages = Vec::new();
    let Some(warning) = version.deprecation_warning else { return messages };
    if !version.deprecated {
        return vec!["can only be set for deprecated versions".to_owned()];
    }
    if warning.len() > 256 {
        messages.push("must be <= 256 characters long".to_owned());
    }
    if warning.is_empty() {
        messages.push("must not be an empty string".to_owned());
    }
    // Go counts only the plain blank among the characters that print.
    let prints = |c: char| {
        c == ' '
            || !c.is_control() && !c.is_whitespace() && c.escape_debug().eq([c])
            || matches!(c, '"' | '\'' | '\\')
    };
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| !prints(*c)) {
        messages.push(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {at}"
        ));
    }
    messages
}

fn required_names(spec: &CustomResourceDefinitionSpec, path: &Path, errors: &mut ErrorList) {
    let names = &spec.names;
    for (key, value) in [
        ("plural", names.plural.as_str()),
        ("singular", text(&names.singular)),
        ("kind", &names.kind),
        ("listKind", text(&names.list_kind)),
    ] {
        if value.is_empty() {
            errors.required(&path.child(key), "");
        }
    }
}

fn validation(
    given: bool,
    schema: Option<&Props>,
    has_status: bool,
    (options, version): (&Options, &str),
    path: &Path,
) -> ErrorList {
    match schema {
        Some(schema) if given => {
            let unchanged = options.unchanged_schemas.contains(version);
            schema::validate(schema, has_status, unchanged, options, &path.child("openAPIV3Schema"))
        }
        _ => ErrorList::new(),
    }
}

/// The subresources of a version.
fn subresources(subresources: Option<&CustomResourceSubresources>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(scale) = subresources.and_then(|subresources| subresources.scale.as_ref()) else {
        return errors;
    };
    let mut below = |key: &str, value: &str, parents: &[&str], detail: &str, required: bool| {
        let at = path.child(key);
        let simple = simple_path(value, &at);
        if value.is_empty() {
            if required {
                errors.required(&at, "");
            }
        } else if let Some(error) = simple {
            errors.push(error);
        } else if !parents.iter().any(|parent| value.starts_with(parent)) {
            errors.invalid(&at, value, detail);
        }
    };
    below(
        "scale.specReplicasPath",
        &scale.spec_replicas_path,
        &[".spec."],
        "should be a json path under .spec",
        true,
    );
    below(
        "scale.statusReplicasPath",
        &scale.status_replicas_path,
        &[".status."],
        "should be a json path under .status",
        true,
    );
    below(
        "scale.labelSelectorPath",
        text(&scale.label_selector_path),
        &[".spec.", ".status."],
        "should be a json path under either .spec or .status",
        false,
    );
    errors
}

fn simple_path(value: &str, path: &Path) -> Option<Error> {
    let good = value.is_empty() || value.starts_with('.');
    (!good).then(|| Error::invalid(path, value, "must be a simple json path starting with ."))
}

fn columns(columns: &[CustomResourceColumnDefinition], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, column) in columns.iter().enumerate() {
        let path = path.index(i);
        if column.name.is_empty() {
            errors.required(&path.child("name"), "");
        }
        let types = format!("must be one of {}", COLUMN_TYPES.join(","));
        if column.type_.is_empty() {
            errors.required(&path.child("type"), types);
        } else if !COLUMN_TYPES.contains(&column.type_.as_str()) {
            errors.invalid(&path.child("type"), column.type_.as_str(), types);
        }
        let format = text(&column.format);
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.invalid(&path.child("format"), format, detail);
        }
        let at = path.child("JSONPath");
        if column.json_path.is_empty() {
            errors.required(&at, "");
        }
        errors.extend(simple_path(&column.json_path, &at));
    }
    errors
}
