//! The options that come in the query (and for deletions in the body), read and checked as upstream does (upstream
//! `apis/meta/v1/validation` and `apis/meta/internalversion/validation`).

use api::field::{self, Path};
use api::names::GroupVersionKind;
use api::selector::{FieldSelector, LabelSelector};
use api::status::ApiError;
use serde_json::{Map, Value, json};
use store::Revision;

use crate::query::Query;
use crate::registry::Resource;
use crate::server::Context;

/// What happens to fields that the schema does not know, or that stand twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, and a warning says so.
    Warn,
    /// They are an error.
    Strict,
}

fn invalid(kind: &'static str, errors: &[field::Error]) -> ApiError {
    ApiError::invalid(&GroupVersionKind::new("meta.k8s.io", "v1", kind), "", errors)
}

/// `fieldValidation`, and the options of create and update as admission sees them; 422 for bad ones.
pub fn write_options(cx: &Context, kind: &'static str) -> Result<(FieldValidation, Value), ApiError> {
    checked_options(cx, kind, Vec::new())
}

/// As [`write_options`] for patches, which may force only if they apply a configuration, and then say who they are.
pub fn patch_options(cx: &Context, applies: bool) -> Result<(FieldValidation, Value), ApiError> {
    let mut errors = Vec::new();
    if applies && cx.query.first("fieldManager").unwrap_or_default().is_empty() {
        errors.push(field::Error::required(&Path::new("fieldManager"), "is required for apply patch"));
    }
    if !applies && cx.query.first("force").is_some() {
        let why = "may not be specified for non-apply patch";
        errors.push(field::Error::forbidden(&Path::new("force"), why));
    }
    checked_options(cx, "PatchOptions", errors)
}

fn checked_options(
    cx: &Context,
    kind: &'static str,
    mut errors: Vec<field::Error>,
) -> Result<(FieldValidation, Value), ApiError> {
    let query = &cx.query;
    let dry_run: Vec<&str> = query.all("dryRun").collect();
    check_dry_run(&dry_run, &mut errors);
    let manager = query.first("fieldManager").unwrap_or_default();
    errors.extend(api::validation::meta::field_manager(manager, &Path::new("fieldManager")));
    let level = query.first("fieldValidation").unwrap_or_default();
    let validation = match level {
        "Ignore" => FieldValidation::Ignore,
        "" | "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        other => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            errors.push(field::Error::not_supported(&Path::new("fieldValidation"), other, &supported));
            FieldValidation::Warn
        }
    };
    if !errors.is_empty() {
        return Err(invalid(kind, &errors));
    }
    let mut options = Map::new();
    options.insert("kind".into(), kind.into());
    options.insert("apiVersion".into(), "meta.k8s.io/v1".into());
    if !dry_run.is_empty() {
        options.insert("dryRun".into(), json!(dry_run));
    }
    for (name, value) in [("fieldManager", manager), ("fieldValidation", level)] {
        if !value.is_empty() {
            options.insert(name.into(), value.into());
        }
    }
    Ok((validation, Value::Object(options)))
}

fn check_dry_run(values: &[&str], errors: &mut Vec<field::Error>) {
    let path = Path::new("dryRun");
    if values.iter().any(|value| *value != "All") {
        errors.push(field::Error::not_supported(&path, json!(values), &["All"]));
    }
}

/// How a deletion is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`
    pub grace_period: Option<i64>,
    /// `preconditions.uid`
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`
    pub resource_version: Option<String>,
    /// `orphanDependents`
    pub orphan_dependents: Option<bool>,
    /// `propagationPolicy`
    pub propagation: Option<String>,
    /// Whether nothing is to be deleted.
    pub dry_run: bool,
    /// As admission sees them.
    pub raw: Value,
}

impl DeleteOptions {
    /// From a body, if there is one, or from the query.
    pub fn parse(body: Option<Value>, query: &Query) -> Result<Self, ApiError> {
        let raw = match body {
            Some(body) => body,
            None => Self::from_query(query)?,
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let dry_run: Vec<String> = raw["dryRun"].as_array().into_iter().flatten().filter_map(text).collect();
        let options = Self {
            grace_period: raw["gracePeriodSeconds"].as_i64(),
            uid: text(&raw["preconditions"]["uid"]),
            resource_version: text(&raw["preconditions"]["resourceVersion"]),
            orphan_dependents: raw["orphanDependents"].as_bool(),
            propagation: text(&raw["propagationPolicy"]),
            dry_run: dry_run.iter().any(|value| value == "All"),
            raw,
        };
        options.validate(&dry_run)?;
        Ok(options)
    }

    fn from_query(query: &Query) -> Result<Value, ApiError> {
        let mut raw = Map::new();
        raw.insert("kind".into(), "DeleteOptions".into());
        raw.insert("apiVersion".into(), "meta.k8s.io/v1".into());
        if let Some(seconds) = query.int("gracePeriodSeconds")? {
            raw.insert("gracePeriodSeconds".into(), seconds.into());
        }
        if let Some(orphan) = query.bool("orphanDependents") {
            raw.insert("orphanDependents".into(), orphan.into());
        }
        if let Some(policy) = query.first("propagationPolicy").filter(|policy| !policy.is_empty()) {
            raw.insert("propagationPolicy".into(), policy.into());
        }
        let dry_run: Vec<&str> = query.all("dryRun").collect();
        if !dry_run.is_empty() {
            raw.insert("dryRun".into(), json!(dry_run));
        }
        Ok(Value::Object(raw))
    }

    fn validate(&self, dry_run: &[String]) -> Result<(), ApiError> {
        let mut errors = Vec::new();
        let policy = Path::new("propagationPolicy");
        if self.orphan_dependents.is_some() && self.propagation.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(field::Error::invalid(&policy, self.propagation.clone().unwrap_or_default(), why));
        }
        if let Some(other) = &self.propagation
            && !matches!(other.as_str(), "Foreground" | "Background" | "Orphan" | "")
        {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(field::Error::not_supported(&policy, other.as_str(), &supported));
        }
        let values: Vec<&str> = dry_run.iter().map(String::as_str).collect();
        check_dry_run(&values, &mut errors);
        if errors.is_empty() { Ok(()) } else { Err(invalid("DeleteOptions", &errors)) }
    }
}

/// What to list or watch.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Labels wanted.
    pub labels: LabelSelector,
    /// Fields wanted.
    pub fields: FieldSelector,
    /// Whether to watch.
    pub watch: bool,
    /// Whether bookmarks are wanted.
    pub bookmarks: bool,
    /// `resourceVersion`, as sent.
    pub resource_version: String,
    /// `resourceVersionMatch`, as sent.
    pub version_match: String,
    /// `timeoutSeconds`
    pub timeout: Option<i64>,
    /// `limit`; 0 for all.
    pub limit: i64,
    /// `continue`, as sent.
    pub token: String,
    /// `sendInitialEvents`
    pub send_initial_events: Option<bool>,
}

impl ListOptions {
    /// Reads and checks the options.
    pub fn parse(cx: &Context, resource: &Resource, watch: bool) -> Result<Self, ApiError> {
        let query = &cx.query;
        let text = |name: &str| query.first(name).unwrap_or_default().to_owned();
        let options = Self {
            labels: LabelSelector::parse(&text("labelSelector")).map_err(ApiError::bad_request)?,
            fields: parse_fields(resource, &text("fieldSelector"))?,
            watch,
            bookmarks: query.bool("allowWatchBookmarks").unwrap_or(false),
            resource_version: text("resourceVersion"),
            version_match: text("resourceVersionMatch"),
            timeout: query.int("timeoutSeconds")?,
            limit: query.int("limit")?.unwrap_or(0),
            token: text("continue"),
            send_initial_events: query.bool("sendInitialEvents"),
        };
        options.validate()?;
        Ok(options)
    }

    /// As upstream's `ValidateListOptions`.
    fn validate(&self) -> Result<(), ApiError> {
        let errors = if self.watch { self.watch_errors() } else { self.list_errors() };
        if errors.is_empty() { Ok(()) } else { Err(invalid("ListOptions", &errors)) }
    }

    fn list_errors(&self) -> Vec<field::Error> {
        let mut errors = self.match_errors();
        if self.send_initial_events.is_some() {
            errors.push(field::Error::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
        errors
    }

    fn match_errors(&self) -> Vec<field::Error> {
        let path = Path::new("resourceVersionMatch");
        let mut errors = Vec::new();
        if self.version_match.is_empty() {
            return errors;
        }
        if self.resource_version.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(field::Error::forbidden(&path, why));
        }
        if !self.token.is_empty() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(field::Error::forbidden(&path, why));
        }
        if !matches!(self.version_match.as_str(), "Exact" | "NotOlderThan") {
            let supported = ["Exact", "NotOlderThan", ""];
            errors.push(field::Error::not_supported(&path, self.version_match.as_str(), &supported));
        }
        if self.version_match == "Exact" && self.resource_version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(field::Error::forbidden(&path, why));
        }
        errors
    }

    fn watch_errors(&self) -> Vec<field::Error> {
        let path = Path::new("resourceVersionMatch");
        let mut errors = Vec::new();
        if self.send_initial_events.is_some() && self.version_match != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            errors.push(field::Error::forbidden(&path, why));
        }
        if self.version_match.is_empty() {
            return errors;
        }
        if self.send_initial_events.is_none() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(field::Error::forbidden(&path, why));
        }
        if self.version_match != "NotOlderThan" {
            errors.push(field::Error::not_supported(&path, self.version_match.as_str(), &["NotOlderThan"]));
        }
        if !self.token.is_empty() {
            let why = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(field::Error::forbidden(&path, why));
        }
        errors
    }

    /// The resourceVersion as a number: `None` if unset, 400 for anything but a number.
    pub fn revision(&self) -> Result<Option<Revision>, ApiError> {
        if self.resource_version.is_empty() {
            return Ok(None);
        }
        parse_version(&self.resource_version).map(Some)
    }

    /// The only name that can match, if the selector says so.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.fields.requires_exact_match("metadata.name").map(str::to_owned)
    }
}

/// A resourceVersion as a number.
pub fn parse_version(text: &str) -> Result<Revision, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<u64>().ok().filter(|_| digits).map(Revision).ok_or_else(|| {
        ApiError::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

fn parse_fields(resource: &Resource, text: &str) -> Result<FieldSelector, ApiError> {
    let Some(custom) = &resource.custom else {
        return api::selector::parse_for_kind(&resource.gvk, text).map_err(ApiError::bad_request);
    };
    let known = |label: &str| {
        let general = label == "metadata.name" || (label == "metadata.namespace" && resource.namespaced);
        if general || custom.version.selects_by(label) {
            return Ok(label.to_owned());
        }
        Err(format!("field label not supported: {label}"))
    };
    FieldSelector::parse(text).and_then(|selector| selector.transform(known)).map_err(ApiError::bad_request)
}
