//! Whether a definition is valid (upstream `apis/apiextensions/validation`): what it is called, its versions, its
//! conversion, its schemas with their defaults and rules, its columns and selectable fields.

use k8s_openapi::ByteString;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionNames,
};

use super::conditions::{self, Approval};
use super::props::{list, text};
use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::validation::{admission, meta};

mod defaults;
mod fields;
mod internal;
mod options;
mod rules;
mod schema;
mod show;
mod spec;
mod warnings;

pub(crate) use fields::field_path;
use internal::Internal;
use options::Options;
pub(crate) use warnings::warnings;

type Crd = CustomResourceDefinition;

/// What is wrong with a new definition.
pub(crate) fn create(crd: &Crd) -> ErrorList {
    let name = |name: &str| {
        let mut messages = format::name_is_subdomain(name, false);
        if name != format!("{}.{}", crd.spec.names.plural, crd.spec.group) {
            messages.push("must be spec.names.plural+\".\"+spec.group".to_owned());
        }
        messages
    };
    let at = Path::new("metadata");
    let mut errors = meta::validate(&crd.metadata, false, format::name_is_path_segment, &at);
    // The rule for names depends on the definition; metadata is checked by a plain function otherwise.
    let own = text(&crd.metadata.name);
    if !own.is_empty() {
        let at = at.child("name");
        errors.retain(|error| error.field != at);
        let mut first = ErrorList::new();
        first.messages(&at, own, name(own));
        errors.splice(0..0, first);
    }
    errors.extend(spec::validate(&crd.spec, &Internal::of(crd), &Options::create()));
    errors.extend(common(crd, None));
    errors
}

/// What is wrong with a changed definition.
pub(crate) fn update(new: &Crd, old: &Crd) -> ErrorList {
    let mut errors = meta::validate_update(&new.metadata, &old.metadata, &Path::new("metadata"));
    let (internal, before) = (Internal::of(new), Internal::of(old));
    let options = Options::update(&internal, old, &before);
    errors.extend(spec::validate(&new.spec, &internal, &options));
    errors.extend(spec::immutable(&new.spec, &old.spec, options.immutable_names));
    errors.extend(common(new, Some(old)));
    errors
}

/// What is wrong with the status of a definition.
pub(crate) fn status_update(new: &Crd, old: &Crd) -> ErrorList {
    let mut errors = meta::validate_update(&new.metadata, &old.metadata, &Path::new("metadata"));
    errors.extend(accepted_names(new));
    errors
}

fn common(crd: &Crd, old: Option<&Crd>) -> ErrorList {
    let mut errors = accepted_names(crd);
    errors.extend(stored_versions(crd));
    errors.extend(api_approval(crd, old));
    let preserves = |crd: &Crd| crd.spec.preserve_unknown_fields == Some(true);
    if preserves(crd) && !old.is_some_and(preserves) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&Path::new("spec").child("preserveUnknownFields"), true, detail);
    }
    errors
}

fn accepted_names(crd: &Crd) -> ErrorList {
    let accepted = crd.status.as_ref().and_then(|status| status.accepted_names.as_ref());
    accepted.map(|accepted| names(accepted, &Path::new("status").child("acceptedNames"))).unwrap_or_default()
}

fn stored_versions(crd: &Crd) -> ErrorList {
    let path = Path::new("status").child("storedVersions");
    let stored = crd.status.as_ref().map(|status| list(&status.stored_versions)).unwrap_or_default();
    if stored.is_empty() {
        return vec![Error::invalid_shown(&path, "null", "must have at least one stored version")];
    }
    let mut errors = ErrorList::new();
    for version in crd.spec.versions.iter().filter(|v| v.storage && !stored.contains(&v.name)) {
        errors.invalid(&path, stored.to_vec(), format!("must have the storage version {}", version.name));
    }
    for (i, name) in
        stored.iter().enumerate().filter(|(_, name)| crd.spec.versions.iter().all(|v| v.name != **name))
    {
        let detail = format!(
            "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
        );
        errors.invalid(&path.index(i), name.as_str(), detail);
    }
    errors
}

fn api_approval(crd: &Crd, old: Option<&Crd>) -> ErrorList {
    if !conditions::is_protected(&crd.spec.group) {
        return ErrorList::new();
    }
    let annotation =
        |crd: &Crd| conditions::approval_annotation(crd.metadata.annotations.as_ref()).to_owned();
    let own = annotation(crd);
    let (state, reason) = conditions::approval(&own);
    if old.is_some_and(|old| conditions::approval(&annotation(old)).0 == state) {
        return ErrorList::new();
    }
    let path = Path::new("metadata").child("annotations").key("api-approved.kubernetes.io");
    match state {
        Approval::Invalid => vec![Error::invalid(&path, own, reason)],
        Approval::Missing => vec![Error::required(&path, reason)],
        Approval::Approved | Approval::Bypassed => ErrorList::new(),
    }
}

/// Names as they may be wished for or be given.
fn names(names: &CustomResourceDefinitionNames, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut label = |path: &Path, value: &str, mixed: bool| {
        let messages =
            if mixed { format::dns1035_label(&value.to_lowercase()) } else { format::dns1035_label(value) };
        if !value.is_empty() && !messages.is_empty() {
            let prefix = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            errors.invalid(path, value, format!("{prefix}{}", messages.join(",")));
        }
    };
    let list_kind = text(&names.list_kind);
    label(&path.child("plural"), &names.plural, false);
    label(&path.child("singular"), text(&names.singular), false);
    label(&path.child("kind"), &names.kind, true);
    label(&path.child("listKind"), list_kind, true);
    let each = |key: &str, values: &[String], errors: &mut ErrorList| {
        for (i, value) in values.iter().enumerate() {
            let messages = format::dns1035_label(value);
            if !messages.is_empty() {
                errors.invalid(&path.child(key).index(i), value.as_str(), messages.join(","));
            }
        }
    };
    each("shortNames", list(&names.short_names), &mut errors);
    if !names.kind.is_empty() && names.kind == list_kind {
        errors.invalid(&path.child("listKind"), list_kind, "kind and listKind may not be the same");
    }
    each("categories", list(&names.categories), &mut errors);
    errors
}

/// Whether bytes are certificates in PEM, at least one.
pub(crate) fn is_ca_bundle(bytes: &[u8]) -> bool {
    bytes.is_empty() || ca_bundle_problem(bytes).is_none()
}

fn ca_bundle_problem(bytes: &[u8]) -> Option<String> {
    let mut found = false;
    for block in x509_parser::pem::Pem::iter_from_buffer(bytes).map_while(Result::ok) {
        found |= block.label == "CERTIFICATE" && block.parse_x509().is_ok();
    }
    (!found).then(|| "unable to load root certificates: unable to parse bytes as PEM block".to_owned())
}

/// How objects become those of another version.
fn conversion(conversion: &CustomResourceConversion, options: &Options, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let strategy = path.child("strategy");
    match conversion.strategy.as_str() {
        "" => errors.required(&strategy, ""),
        other => errors.one_of(&strategy, other, &["None", "Webhook"]),
    }
    let webhook = conversion.webhook.as_ref();
    let config = webhook.and_then(|webhook| webhook.client_config.as_ref());
    let versions = webhook.map(|webhook| webhook.conversion_review_versions.as_slice()).unwrap_or_default();
    let config_at = path.child("webhookClientConfig");
    let versions_at = path.child("conversionReviewVersions");
    if conversion.strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if config.is_some() {
            errors.forbidden(&config_at, detail);
        }
        if !versions.is_empty() {
            errors.forbidden(&versions_at, detail);
        }
        return errors;
    }
    match config {
        None => errors.required(&config_at, "required when strategy is set to Webhook"),
        Some(config) => {
            let service = config.service.as_ref();
            admission::webhook_target(
                config.url.as_deref(),
                service.map(|s| (s.name.as_str(), s.namespace.as_str(), s.path.as_deref(), s.port)),
                &config_at,
                &mut errors,
            );
            if let Some(ByteString(bundle)) = config.ca_bundle.as_ref().filter(|bundle| !bundle.0.is_empty())
                && !options.allow_bad_bundle
                && let Some(why) = ca_bundle_problem(bundle)
            {
                let shown = crate::schema::scalar::format_base64(bundle);
                errors.invalid(&config_at.child("caBundle"), shown, why);
            }
        }
    }
    errors.extend(review_versions(versions, options.known_review_version, &versions_at));
    errors
}

fn review_versions(versions: &[String], known: bool, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if versions.is_empty() {
        errors.required(path, "");
        return errors;
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            errors.invalid(&path.index(i), version.as_str(), "duplicate version");
            continue;
        }
        errors.messages(&path.index(i), version, format::dns1035_label(version));
    }
    if known && !versions.iter().any(|version| options::is_review_version(version)) {
        errors.invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
    errors
}

#[cfg(test)]
mod tests;
