//! Conditions of a definition, and the names it may have (upstream `apihelpers`, `controller/status`,
//! `controller/nonstructuralschema` and `controller/apiapproval`). Pure: the server's controller writes what is decided
//! here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition as Condition, CustomResourceDefinitionNames,
    CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use serde::Deserialize;
use serde_json::{Value, json};

use super::formats::is_request_uri;
use super::props::{list, text};
use super::structural;
use crate::field::{Error, ErrorList, Path, quote};

/// The finalizer that holds a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// All names are this definition's.
pub const NAMES_ACCEPTED: &str = "NamesAccepted";
/// The definition is served.
pub const ESTABLISHED: &str = "Established";
/// The definition is being deleted.
pub const TERMINATING: &str = "Terminating";
/// A schema is not structural.
pub const NON_STRUCTURAL: &str = "NonStructuralSchema";
/// Whether a group of the community has approved the definition.
pub const APPROVAL: &str = "KubernetesAPIApprovalPolicyConformant";
const APPROVED_ANNOTATION: &str = "api-approved.kubernetes.io";

/// A condition.
#[must_use]
pub fn condition(kind: &str, status: bool, reason: &str, message: &str) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        ..Condition::default()
    }
}

fn conditions(crd: &CustomResourceDefinition) -> &[Condition] {
    crd.status.as_ref().map(|status| list(&status.conditions)).unwrap_or_default()
}

/// A condition of a definition.
#[must_use]
pub fn find<'a>(crd: &'a CustomResourceDefinition, kind: &str) -> Option<&'a Condition> {
    conditions(crd).iter().find(|condition| condition.type_ == kind)
}

/// Whether a condition is there and true.
#[must_use]
pub fn is_true(crd: &CustomResourceDefinition, kind: &str) -> bool {
    find(crd, kind).is_some_and(|condition| condition.status == "True")
}

/// Sets a condition. Its time changes only with its status.
pub fn set(crd: &mut CustomResourceDefinition, mut new: Condition, now: Timestamp) {
    new.last_transition_time = Some(Time(now));
    let status = crd.status.get_or_insert_default();
    let known = status.conditions.get_or_insert_default();
    match known.iter_mut().find(|condition| condition.type_ == new.type_) {
        None => known.push(new),
        Some(old) => {
            if old.status == new.status && old.last_transition_time.is_some() {
                new.last_transition_time = old.last_transition_time.take();
            }
            new.observed_generation = old.observed_generation;
            *old = new;
        }
    }
}

/// Takes a condition away.
pub fn remove(crd: &mut CustomResourceDefinition, kind: &str) {
    if let Some(known) = crd.status.as_mut().and_then(|status| status.conditions.as_mut()) {
        known.retain(|condition| condition.type_ != kind);
    }
}

fn equivalent(new: &Condition, old: Option<&Condition>) -> bool {
    old.is_some_and(|old| new.status == old.status && new.reason == old.reason && new.message == old.message)
}

/// The names in use in a group.
#[derive(Clone, Debug, Default)]
pub struct NamesInUse {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl NamesInUse {
    /// The names that the definitions of a group have been given.
    pub fn of<'a>(crds: impl Iterator<Item = &'a CustomResourceDefinition>) -> Self {
        let mut names = Self::default();
        for accepted in crds.filter_map(|crd| crd.status.as_ref()?.accepted_names.as_ref()) {
            let resources = [&accepted.plural, text(&accepted.singular)].map(str::to_owned);
            names.resources.extend(resources.into_iter().chain(list(&accepted.short_names).iter().cloned()));
            names.kinds.extend([accepted.kind.clone(), text(&accepted.list_kind).to_owned()]);
        }
        names
    }
}

/// Decides which names a definition gets; `None` if nothing changes.
#[must_use]
pub fn plan_names(
    crd: &CustomResourceDefinition,
    used: &NamesInUse,
    now: Timestamp,
) -> Option<CustomResourceDefinition> {
    let empty = CustomResourceDefinitionNames::default();
    let accepted = crd.status.as_ref().and_then(|status| status.accepted_names.as_ref()).unwrap_or(&empty);
    if same_names(&crd.spec.names, accepted) {
        return None;
    }
    let (names, naming) = accept(&crd.spec.names, accepted, used);
    if same_names(&names, accepted) && equivalent(&naming, find(crd, NAMES_ACCEPTED)) {
        return None;
    }
    let mut established = find(crd, ESTABLISHED)
        .cloned()
        .unwrap_or_else(|| condition(ESTABLISHED, false, "NotAccepted", "not all names are accepted"));
    if established.status != "True" && naming.status == "True" {
        let message = "the initial names have been accepted";
        established = condition(ESTABLISHED, false, "Installing", message);
    }
    let mut planned = crd.clone();
    planned.status.get_or_insert_with(CustomResourceDefinitionStatus::default).accepted_names = Some(names);
    set(&mut planned, naming, now);
    set(&mut planned, established, now);
    Some(planned)
}

fn same_names(a: &CustomResourceDefinitionNames, b: &CustomResourceDefinitionNames) -> bool {
    (&a.plural, text(&a.singular), &a.kind, text(&a.list_kind), list(&a.short_names), list(&a.categories))
        == (
            &b.plural,
            text(&b.singular),
            &b.kind,
            text(&b.list_kind),
            list(&b.short_names),
            list(&b.categories),
        )
}

/// Every name that is free, or has been this definition's before; the last one that is neither is told.
fn accept(
    wanted: &CustomResourceDefinitionNames,
    accepted: &CustomResourceDefinitionNames,
    used: &NamesInUse,
) -> (CustomResourceDefinitionNames, Condition) {
    let mut names = accepted.clone();
    let mut naming = condition(NAMES_ACCEPTED, true, "NoConflicts", "no conflicts found");
    let in_use = |name: &str| format!("{} is already in use", quote(name));
    let free = |wanted: &str, own: &str, used: &BTreeSet<String>| wanted == own || !used.contains(wanted);
    let mut refuse = |reason: &str, message: String| {
        naming = condition(NAMES_ACCEPTED, false, reason, &message);
    };
    if free(&wanted.plural, &accepted.plural, &used.resources) {
        names.plural.clone_from(&wanted.plural);
    } else {
        refuse("PluralConflict", in_use(&wanted.plural));
    }
    if free(text(&wanted.singular), text(&accepted.singular), &used.resources) {
        names.singular.clone_from(&wanted.singular);
    } else {
        refuse("SingularConflict", in_use(text(&wanted.singular)));
    }
    let own = list(&accepted.short_names);
    let mut taken: Vec<String> = Vec::new();
    for name in list(&wanted.short_names).iter().filter(|name| !own.contains(name)) {
        let message = in_use(name);
        if !free(name, "", &used.resources) && !taken.contains(&message) {
            taken.push(message);
        }
    }
    match taken.as_slice() {
        [] => names.short_names.clone_from(&wanted.short_names),
        [one] => refuse("ShortNamesConflict", one.clone()),
        many => refuse("ShortNamesConflict", format!("[{}]", many.join(", "))),
    }
    if free(&wanted.kind, &accepted.kind, &used.kinds) {
        names.kind.clone_from(&wanted.kind);
    } else {
        refuse("KindConflict", in_use(&wanted.kind));
    }
    if free(text(&wanted.list_kind), text(&accepted.list_kind), &used.kinds) {
        names.list_kind.clone_from(&wanted.list_kind);
    } else {
        refuse("ListKindConflict", in_use(text(&wanted.list_kind)));
    }
    names.categories.clone_from(&wanted.categories);
    (names, naming)
}

/// Whether a definition with all its names can be established; `None` if nothing changes.
#[must_use]
pub fn plan_established(crd: &CustomResourceDefinition, now: Timestamp) -> Option<CustomResourceDefinition> {
    if !is_true(crd, NAMES_ACCEPTED) || is_true(crd, ESTABLISHED) {
        return None;
    }
    let webhook = crd.spec.conversion.as_ref().and_then(|c| c.webhook.as_ref());
    let bundle = webhook.and_then(|w| w.client_config.as_ref()).and_then(|c| c.ca_bundle.as_ref());
    let new = match bundle {
        Some(bundle) if !super::validation::is_ca_bundle(&bundle.0) => {
            condition(ESTABLISHED, false, "InvalidCABundle", "The conversion webhook CABundle is invalid")
        }
        _ => condition(ESTABLISHED, true, "InitialNamesAccepted", "the initial names have been accepted"),
    };
    if equivalent(&new, find(crd, ESTABLISHED)) {
        return None;
    }
    let mut planned = crd.clone();
    set(&mut planned, new, now);
    Some(planned)
}

/// Says whether the schemas are structural; `None` if nothing changes.
#[must_use]
pub fn plan_structural(crd: &CustomResourceDefinition, now: Timestamp) -> Option<CustomResourceDefinition> {
    let new = structural_condition(crd);
    let old = find(crd, NON_STRUCTURAL);
    match &new {
        None if old.is_none() => return None,
        Some(new) if equivalent(new, old) => return None,
        _ => {}
    }
    let mut planned = crd.clone();
    match new {
        Some(new) => set(&mut planned, new, now),
        None => remove(&mut planned, NON_STRUCTURAL),
    }
    Some(planned)
}

fn structural_condition(crd: &CustomResourceDefinition) -> Option<Condition> {
    let mut errors = ErrorList::new();
    let spec = Path::new("spec");
    if crd.spec.preserve_unknown_fields == Some(true) {
        errors.push(Error::invalid(&spec.child("preserveUnknownFields"), true, "must be false"));
    }
    for (i, version) in crd.spec.versions.iter().enumerate() {
        let Some(schema) = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) else {
            continue;
        };
        if let Err(why) = structural::check_supported(schema) {
            let message = format!("failed to check validation schema for version {}: {why}", version.name);
            let unknown = condition(NON_STRUCTURAL, false, "StructuralError", &message);
            return Some(Condition { status: "Unknown".to_owned(), ..unknown });
        }
        let at = spec.child("versions").index(i).child("schema").child("openAPIV3Schema");
        errors.extend(structural::validate(&at, schema));
    }
    let mut texts: Vec<String> = Vec::new();
    for error in errors.iter().map(ToString::to_string) {
        if !texts.contains(&error) {
            texts.push(error);
        }
    }
    let message = match texts.as_slice() {
        [] => return None,
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Some(condition(NON_STRUCTURAL, true, "Violations", &message))
}

/// Whether a definition in a group of the community has been approved of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approval {
    Invalid,
    Approved,
    Bypassed,
    Missing,
}

/// Whether definitions in a group need approval.
pub(crate) fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')))
}

/// The annotation that approval is noted in.
pub(crate) fn approval_annotation(annotations: Option<&BTreeMap<String, String>>) -> &str {
    annotations.and_then(|all| all.get(APPROVED_ANNOTATION)).map(String::as_str).unwrap_or_default()
}

/// What the annotation says, and why that is so.
pub(crate) fn approval(annotation: &str) -> (Approval, String) {
    let see = "see https://github.com/kubernetes/enhancements/pull/1111";
    let protected = format!("protected groups must have approval annotation {}", quote(APPROVED_ANNOTATION));
    let is_url = || {
        let host = annotation.split_once("://").map(|(scheme, rest)| (scheme, rest.split(['/', '?']).next()));
        is_request_uri(annotation)
            && host.is_some_and(|(scheme, host)| !scheme.is_empty() && host.is_some_and(|h| !h.is_empty()))
    };
    if annotation.is_empty() {
        (Approval::Missing, format!("{protected}, {see}"))
    } else if annotation.starts_with("unapproved") {
        (Approval::Bypassed, format!("not approved: {}", quote(annotation)))
    } else if is_url() {
        (Approval::Approved, format!("approved in {annotation}"))
    } else {
        let form = "with either a URL or a reason starting with \"unapproved\"";
        (Approval::Invalid, format!("{protected} {form}, {see}"))
    }
}

/// Says whether the definition has been approved of; `None` if nothing changes.
#[must_use]
pub fn plan_approval(crd: &CustomResourceDefinition, now: Timestamp) -> Option<CustomResourceDefinition> {
    if !is_protected(&crd.spec.group) {
        return None;
    }
    let (state, why) = approval(approval_annotation(crd.metadata.annotations.as_ref()));
    let reason = match state {
        Approval::Invalid => "InvalidAnnotation",
        Approval::Missing => "MissingAnnotation",
        Approval::Approved => "ApprovedAnnotation",
        Approval::Bypassed => "UnapprovedAnnotation",
    };
    let new = condition(APPROVAL, state == Approval::Approved, reason, &why);
    if equivalent(&new, find(crd, APPROVAL)) {
        return None;
    }
    let mut planned = crd.clone();
    set(&mut planned, new, now);
    Some(planned)
}

/// A definition whose deletion is asked for: held until its objects are gone, and saying so (upstream `REST.Delete` of
/// definitions). `None`: it is no definition.
#[must_use]
pub fn mark_for_deletion(definition: &Value) -> Option<Value> {
    let mut crd = CustomResourceDefinition::deserialize(definition).ok()?;
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set(&mut crd, condition(TERMINATING, true, "InstanceDeletionPending", message), Timestamp::now());
    let mut marked = definition.clone();
    marked["status"]["conditions"] = serde_json::to_value(conditions(&crd)).ok()?;
    let finalizers = marked["metadata"]["finalizers"].as_array_mut();
    match finalizers {
        Some(list) if list.iter().any(|name| name == CLEANUP_FINALIZER) => {}
        Some(list) => list.push(CLEANUP_FINALIZER.into()),
        None => marked["metadata"]["finalizers"] = json!([CLEANUP_FINALIZER]),
    }
    Some(marked)
}

/// The condition of a definition that is being deleted, from one step to the next.
pub fn set_terminating(
    crd: &mut CustomResourceDefinition,
    status: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    set(crd, condition(TERMINATING, status, reason, message), now);
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
