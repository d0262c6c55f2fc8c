//! Whether a configuration of authorization makes sense (upstream `apiserver/pkg/apis/apiserver/validation` and
//! `kubeapiserver/authorizer`). What is checked is compiled on the way: the conditions of each authorizer.

use std::collections::BTreeSet;
use std::time::Duration;

use api::field::{Error, ErrorList, Path};
use serde_json::json;

use super::{AuthorizationConfiguration, ConnectionInfo, WEBHOOK, WebhookConfiguration};
use crate::authz::conditions::Condition;
use crate::config_file::go_error;

/// The types that there are.
const TYPES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", WEBHOOK];
/// The most conditions of one webhook.
const CONDITIONS: usize = 64;

/// Checks a configuration and compiles its conditions.
///
/// # Errors
/// With all that is wrong.
pub fn validate(config: &AuthorizationConfiguration) -> Result<Vec<Vec<Condition>>, ErrorList> {
    let (mut errors, mut compiled) = (ErrorList::new(), Vec::new());
    let path = Path::new("authorizers");
    if config.authorizers.is_empty() {
        errors.push(Error::required(&path, "at least one authorization mode must be defined"));
    }
    let (mut types, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (i, authorizer) in config.authorizers.iter().enumerate() {
        let path = path.index(i);
        compiled.push(Vec::new());
        let (at, kind) = (path.child("type"), authorizer.kind.as_str());
        if kind.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        if !TYPES.contains(&kind) {
            errors.push(Error::not_supported(&at, kind, &TYPES));
            continue;
        }
        if !types.insert(kind) && kind != WEBHOOK {
            errors.push(Error::duplicate(&at, kind));
            continue;
        }
        check_name(
            &authorizer.name,
            !names.insert(authorizer.name.as_str()),
            &path.child("name"),
            &mut errors,
        );
        match (&authorizer.webhook, kind == WEBHOOK) {
            (None, true) => {
                errors.push(Error::required(&path.child("webhook"), "required when type=Webhook"));
            }
            (Some(webhook), true) => compiled[i] = check_webhook(webhook, &path, &mut errors),
            (Some(_), false) => {
                let why = "may only be specified when type=Webhook";
                errors.push(Error::invalid(&path.child("webhook"), "non-null", why));
            }
            (None, false) => {}
        }
    }
    if errors.is_empty() { Ok(compiled) } else { Err(errors) }
}

fn check_name(name: &str, taken: bool, path: &Path, errors: &mut ErrorList) {
    if name.is_empty() {
        errors.push(Error::required(path, ""));
    } else if taken {
        errors.push(Error::duplicate(path, name));
    } else if !crate::authn::is_subdomain(name) {
        let why = api::format::dns1123_subdomain(name).join(", ");
        errors.push(Error::invalid(path, name, format!("authorizer name is invalid: {why}")));
    }
}

fn check_webhook(webhook: &WebhookConfiguration, path: &Path, errors: &mut ErrorList) -> Vec<Condition> {
    let spans = [
        ("timeout", &webhook.timeout, Duration::from_secs(30), "must be > 0s and <= 30s"),
        ("authorizedTTL", &webhook.authorized_ttl, Duration::MAX, "must be > 0s"),
        ("unauthorizedTTL", &webhook.unauthorized_ttl, Duration::MAX, "must be > 0s"),
    ];
    for (field, span, most, why) in spans {
        let at = path.child(field);
        if span.is_zero() {
            errors.push(Error::required(&at, ""));
        } else if span.negative || span.length > most {
            errors.push(Error::invalid(&at, span.text.clone(), why));
        }
    }
    let mut choice = |field: &str, given: &str, known: &[&str], needed: Option<&str>| {
        let at = path.child(field);
        if given.is_empty() {
            errors.extend(needed.map(|why| Error::required(&at, why)));
        } else if !known.contains(&given) {
            errors.push(Error::not_supported(&at, given, known));
        }
    };
    choice(
        "subjectAccessReviewVersion",
        &webhook.subject_access_review_version,
        &["v1", "v1beta1"],
        Some(""),
    );
    choice(
        "matchConditionSubjectAccessReviewVersion",
        &webhook.match_condition_subject_access_review_version,
        &["v1"],
        (!webhook.match_conditions.is_empty()).then_some("required if match conditions are specified"),
    );
    choice("failurePolicy", &webhook.failure_policy, &["NoOpinion", "Deny"], Some(""));
    check_connection(&webhook.connection_info, &path.child("connectionInfo"), errors);
    check_conditions(webhook, &path.child("matchConditions"), errors)
}

fn check_connection(info: &ConnectionInfo, path: &Path, errors: &mut ErrorList) {
    let at = path.child("kubeConfigFile");
    let file = info.kube_config_file.as_deref();
    let shown = file.map(|file| file.display().to_string()).unwrap_or_default();
    match info.kind.as_str() {
        "" => errors.push(Error::required(&path.child("type"), "")),
        "InClusterConfig" => {
            if file.is_some() {
                errors.push(Error::invalid(&at, shown, "can only be set when type=KubeConfigFile"));
            }
        }
        "KubeConfigFile" => {
            let Some(file) = file.filter(|file| !file.as_os_str().is_empty()) else {
                return errors.push(Error::required(&at, ""));
            };
            let why = match std::fs::metadata(file) {
                _ if !file.is_absolute() => "must be an absolute path".to_owned(),
                Err(error) => format!("error loading file: stat {shown}: {}", go_error(&error)),
                Ok(found) if !found.is_file() => "must be a regular file".to_owned(),
                Ok(_) => return,
            };
            errors.push(Error::invalid(&at, shown, why));
        }
        _ => {
            let given = json!({"Type": info.kind, "KubeConfigFile": info.kube_config_file});
            let known = ["InClusterConfig", "KubeConfigFile"];
            let error = Error::not_supported(&path.child("type"), given, &known);
            errors.push(error);
        }
    }
}

fn check_conditions(webhook: &WebhookConfiguration, path: &Path, errors: &mut ErrorList) -> Vec<Condition> {
    let conditions = &webhook.match_conditions;
    if conditions.len() > CONDITIONS {
        errors.push(Error::too_many(path, conditions.len(), CONDITIONS));
        return Vec::new();
    }
    let (mut compiled, mut seen) = (Vec::new(), BTreeSet::new());
    for (i, condition) in conditions.iter().enumerate() {
        let (at, text) = (path.index(i).child("expression"), condition.expression.as_str());
        if text.trim().is_empty() {
            errors.push(Error::required(&at, ""));
        } else if !seen.insert(text) {
            errors.push(Error::duplicate(&at, text));
        } else {
            match Condition::compile(text) {
                Ok(condition) => compiled.push(condition),
                Err(why) => errors.push(Error::invalid(&at, text, why)),
            }
        }
    }
    compiled
}

/// What this server demands beside: names of authorizers that are no webhooks, and all types in `required`.
///
/// # Errors
/// With what is wrong.
pub fn validate_names(
    config: &AuthorizationConfiguration,
    required: &BTreeSet<String>,
) -> Result<(), String> {
    let own = config.authorizers.iter().filter(|authorizer| authorizer.kind != WEBHOOK);
    let mut errors: Vec<String> = own
        .clone()
        .filter(|authorizer| authorizer.kind.to_lowercase() != authorizer.name)
        .map(|authorizer| {
            let (kind, name) = (&authorizer.kind, &authorizer.name);
            format!("expected name {} for authorizer {kind} instead of {name}", kind.to_lowercase())
        })
        .collect();
    let missing: Vec<&str> = required
        .iter()
        .map(String::as_str)
        .filter(|kind| own.clone().all(|authorizer| authorizer.kind != *kind))
        .collect();
    if !missing.is_empty() {
        errors.push(format!("missing required types: [{}]", missing.join(" ")));
    }
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

#[cfg(test)]
mod tests;
