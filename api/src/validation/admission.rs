//! `admissionregistration.k8s.io`: webhooks, and what they share with policies.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations, ServiceReference,
    ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use crate::cel::admission::{Compiler, Returns, Scope};
use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::meta::{self, has_invalid_values, label_selector};
use super::rules::{list, qualified_name, text};

mod expression;
pub(crate) mod policy;

const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub(super) const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

fn metadata(meta: &ObjectMeta) -> ErrorList {
    meta::validate_core(meta, false, format::name_is_subdomain, &Path::new("metadata"))
}

fn has_wildcard(items: &[String]) -> bool {
    items.iter().any(|item| item == "*")
}

/// What is asked of new configurations, and of changed ones unless the old one already broke it.
struct Options {
    same_conditions: bool,
    no_side_effects: bool,
    known_versions: bool,
    unique_names: bool,
    any_label_values: bool,
}

impl Options {
    fn new(new: &[MutatingWebhook], old: Option<&[MutatingWebhook]>) -> Self {
        let old_hooks = old.unwrap_or_default();
        let effects = |hook: &MutatingWebhook| NO_SIDE_EFFECTS.contains(&hook.side_effects.as_str());
        let known = |hook: &MutatingWebhook| {
            let versions = &hook.admission_review_versions;
            versions.is_empty() || versions.iter().any(|v| REVIEW_VERSIONS.contains(&v.as_str()))
        };
        let names: BTreeSet<&str> = old_hooks.iter().map(|hook| hook.name.as_str()).collect();
        let invalid = |selector: &Option<LabelSelector>| has_invalid_values(selector.as_ref());
        let same = new.len() == old_hooks.len()
            && new.iter().zip(old_hooks).all(|(a, b)| a.match_conditions == b.match_conditions);
        Self {
            same_conditions: old.is_some() && same,
            no_side_effects: old_hooks.iter().all(effects),
            known_versions: old_hooks.iter().all(known),
            unique_names: names.len() == old_hooks.len(),
            any_label_values: old_hooks
                .iter()
                .any(|h| invalid(&h.namespace_selector) || invalid(&h.object_selector)),
        }
    }
}

fn hooks_of(object: &ValidatingWebhookConfiguration) -> Vec<MutatingWebhook> {
    let convert = |hook: &k8s_openapi::api::admissionregistration::v1::ValidatingWebhook| MutatingWebhook {
        admission_review_versions: hook.admission_review_versions.clone(),
        client_config: hook.client_config.clone(),
        failure_policy: hook.failure_policy.clone(),
        match_conditions: hook.match_conditions.clone(),
        match_policy: hook.match_policy.clone(),
        name: hook.name.clone(),
        namespace_selector: hook.namespace_selector.clone(),
        object_selector: hook.object_selector.clone(),
        reinvocation_policy: None,
        rules: hook.rules.clone(),
        side_effects: hook.side_effects.clone(),
        timeout_seconds: hook.timeout_seconds,
    };
    list(&object.webhooks).iter().map(convert).collect()
}

/// New mutating webhooks.
pub(crate) fn mutating(object: &MutatingWebhookConfiguration) -> ErrorList {
    let hooks = list(&object.webhooks);
    configuration(&object.metadata, hooks, &Options::new(hooks, None))
}

/// Changed mutating webhooks.
pub(crate) fn mutating_update(
    new: &MutatingWebhookConfiguration,
    old: &MutatingWebhookConfiguration,
) -> ErrorList {
    let hooks = list(&new.webhooks);
    configuration(&new.metadata, hooks, &Options::new(hooks, Some(list(&old.webhooks))))
}

/// New validating webhooks.
pub(crate) fn validating(object: &ValidatingWebhookConfiguration) -> ErrorList {
    let hooks = hooks_of(object);
    configuration(&object.metadata, &hooks, &Options::new(&hooks, None))
}

/// Changed validating webhooks.
pub(crate) fn validating_update(
    new: &ValidatingWebhookConfiguration,
    old: &ValidatingWebhookConfiguration,
) -> ErrorList {
    let hooks = hooks_of(new);
    configuration(&new.metadata, &hooks, &Options::new(&hooks, Some(&hooks_of(old))))
}

fn configuration(meta: &ObjectMeta, hooks: &[MutatingWebhook], options: &Options) -> ErrorList {
    let mut errors = metadata(meta);
    for (i, hook) in hooks.iter().enumerate() {
        let path = Path::new("webhooks").index(i);
        webhook(hook, options, &path, &mut errors);
        let versions = &hook.admission_review_versions;
        review_versions(
            versions,
            options.known_versions,
            &path.child("admissionReviewVersions"),
            &mut errors,
        );
        let repeated = hooks[..i].iter().any(|other| other.name == hook.name);
        if options.unique_names && !hook.name.is_empty() && repeated {
            errors.duplicate(&path.child("name"), hook.name.as_str());
        }
    }
    errors
}

fn review_versions(versions: &[String], known: bool, path: &Path, errors: &mut ErrorList) {
    if versions.is_empty() {
        return errors.required(path, "must specify one of v1, v1beta1");
    }
    for (i, version) in versions.iter().enumerate() {
        if versions[..i].contains(version) {
            errors.invalid(&path.index(i), version.as_str(), "duplicate version");
            continue;
        }
        errors.messages(&path.index(i), version, format::dns1035_label(version));
    }
    if known && !versions.iter().any(|version| REVIEW_VERSIONS.contains(&version.as_str())) {
        errors.invalid(path, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
}

fn webhook(hook: &MutatingWebhook, options: &Options, path: &Path, errors: &mut ErrorList) {
    errors.extend(format::fully_qualified_name(&path.child("name"), &hook.name));
    for (i, rule) in list(&hook.rules).iter().enumerate() {
        operations_rule(rule, &path.child("rules").index(i), errors);
    }
    if let Some(policy) = &hook.failure_policy {
        errors.one_of(&path.child("failurePolicy"), policy, &FAILURE_POLICIES);
    }
    if let Some(policy) = &hook.match_policy {
        errors.one_of(&path.child("matchPolicy"), policy, &MATCH_POLICIES);
    }
    let allowed: &[&str] = if options.no_side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    let at = path.child("sideEffects");
    match hook.side_effects.as_str() {
        "" => errors.required(&at, format!("must specify one of {}", allowed.join(", "))),
        effects => errors.one_of(&at, effects, allowed),
    }
    if let Some(seconds) = hook.timeout_seconds.filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        errors.invalid(&path.child("timeoutSeconds"), seconds, detail);
    }
    let selectors =
        [("namespaceSelector", &hook.namespace_selector), ("objectSelector", &hook.object_selector)];
    for (key, selector) in selectors {
        errors.extend(label_selector(selector.as_ref(), options.any_label_values, &path.child(key)));
    }
    if let Some(policy) = &hook.reinvocation_policy {
        errors.one_of(&path.child("reinvocationPolicy"), policy, &REINVOCATION_POLICIES);
    }
    client_config(&hook.client_config, &path.child("clientConfig"), errors);
    if !options.same_conditions {
        match_conditions(list(&hook.match_conditions), false, &path.child("matchConditions"), errors);
    }
}

/// Where a webhook is called.
pub(crate) fn client_config(config: &WebhookClientConfig, path: &Path, errors: &mut ErrorList) {
    match (&config.url, &config.service) {
        (None, None) | (Some(_), Some(_)) => {
            errors.required(path, "exactly one of url or service is required")
        }
        (Some(url), None) => webhook_url(url, &path.child("url"), errors),
        (None, Some(service)) => webhook_service(service, &path.child("service"), errors),
    }
}

/// The address of a webhook.
pub(crate) fn webhook_url(url: &str, path: &Path, errors: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    if let Some(c) = url.chars().find(|c| c.is_control()) {
        let _ = c;
        let shown = crate::field::quote(url);
        let detail = format!(
            "url must be a valid URL: parse {shown}: net/url: invalid control character in URL{FORM}"
        );
        return errors.required(path, detail);
    }
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_scheme = |scheme: &str| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    };
    let (scheme, rest) = match rest.split_once(':') {
        Some(("", _)) => {
            let shown = crate::field::quote(url);
            let detail = format!("url must be a valid URL: parse {shown}: missing protocol scheme{FORM}");
            return errors.required(path, detail);
        }
        Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_lowercase(), rest),
        _ => (String::new(), rest),
    };
    let authority = rest.strip_prefix("//").map(|rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = match authority.unwrap_or_default().rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority.unwrap_or_default()),
    };
    if scheme != "https" {
        errors.invalid(path, scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        errors.invalid(path, "", format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        errors.invalid(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        errors.invalid(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        errors.invalid(path, query, "query parameters are not permitted in the URL");
    }
}

fn webhook_service(service: &ServiceReference, path: &Path, errors: &mut ErrorList) {
    // Upstream passes name and namespace the wrong way round, so each is missed under the other's path.
    let names = (service.name.as_str(), service.namespace.as_str());
    service_target(names, service.path.as_deref(), service.port, path, errors);
}

/// Checks where a webhook is called: by URL, or a service's name, namespace, path and port.
pub(crate) fn webhook_target(
    url: Option<&str>,
    service: Option<(&str, &str, Option<&str>, Option<i32>)>,
    path: &Path,
    errors: &mut ErrorList,
) {
    match (url, service) {
        (None, None) | (Some(_), Some(_)) => {
            errors.required(path, "exactly one of url or service is required");
        }
        (Some(url), None) => webhook_url(url, &path.child("url"), errors),
        (None, Some((name, namespace, target, port))) => {
            service_target((name, namespace), target, port, &path.child("service"), errors);
        }
    }
}

fn service_target(
    (name, namespace): (&str, &str),
    target: Option<&str>,
    port: Option<i32>,
    path: &Path,
    errors: &mut ErrorList,
) {
    if namespace.is_empty() {
        errors.required(&path.child("name"), "");
    }
    if name.is_empty() {
        errors.required(&path.child("namespace"), "");
    }
    let port = port.unwrap_or(0);
    let messages = format::port_number(i64::from(port));
    if !messages.is_empty() {
        let detail = format!("port is not valid: {}", messages.join(", "));
        errors.invalid(&path.child("port"), port, detail);
    }
    let value = target.unwrap_or_default();
    let at = path.child("path");
    match value {
        "" | "/" => return,
        "//" => return errors.invalid(&at, value, "segment[0] may not be empty"),
        _ => {}
    }
    if !value.starts_with('/') {
        errors.invalid(&at, value, "must start with a '/'");
    }
    let steps = value.get(1..).unwrap_or_default();
    for (i, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.invalid(&at, value, format!("segment[{i}] may not be empty"));
            continue;
        }
        for message in format::dns1123_subdomain(step) {
            errors.invalid(&at, value, format!("segment[{i}]: {message}"));
        }
    }
}

pub(super) fn operations_rule(rule: &RuleWithOperations, path: &Path, errors: &mut ErrorList) {
    let at = path.child("operations");
    let operations = list(&rule.operations);
    if operations.is_empty() {
        errors.required(&at, "");
    }
    if operations.len() > 1 && has_wildcard(operations) {
        errors.invalid(&at, operations.to_vec(), "if '*' is present, must not specify other operations");
    }
    for (i, operation) in operations.iter().enumerate() {
        errors.one_of(&at.index(i), operation, &OPERATIONS);
    }
    let lists = [
        ("apiGroups", list(&rule.api_groups), "API groups"),
        ("apiVersions", list(&rule.api_versions), "API versions"),
    ];
    for (key, items, what) in lists {
        let at = path.child(key);
        if items.is_empty() {
            errors.required(&at, "");
        }
        if items.len() > 1 && has_wildcard(items) {
            errors.invalid(&at, items.to_vec(), format!("if '*' is present, must not specify other {what}"));
        }
        if key == "apiVersions" {
            for (i, _) in items.iter().enumerate().filter(|(_, version)| version.is_empty()) {
                errors.required(&at.index(i), "");
            }
        }
    }
    resources(list(&rule.resources), &path.child("resources"), errors);
    if let Some(scope) = &rule.scope {
        errors.one_of(&path.child("scope"), scope, &["*", "Cluster", "Namespaced"]);
    }
}

fn resources(resources: &[String], path: &Path, errors: &mut ErrorList) {
    if resources.is_empty() {
        errors.required(path, "");
    }
    let (mut all_of, mut in_all) = (BTreeSet::new(), BTreeSet::new());
    let (mut double, mut single, mut plain) = (false, false, false);
    for (i, resource) in resources.iter().enumerate() {
        let at = path.index(i);
        if resource.is_empty() {
            errors.required(&at, "");
            continue;
        }
        double |= resource == "*/*";
        single |= resource == "*";
        let Some((name, part)) = resource.split_once('/') else {
            plain = resource != "*";
            continue;
        };
        if all_of.contains(name) {
            let detail = format!("if '{name}/*' is present, must not specify {resource}");
            errors.invalid(&at, resource.as_str(), detail);
        }
        if in_all.contains(part) {
            let detail = format!("if '*/{part}' is present, must not specify {resource}");
            errors.invalid(&at, resource.as_str(), detail);
        }
        if part == "*" {
            all_of.insert(name);
        }
        if name == "*" {
            in_all.insert(part);
        }
    }
    if resources.len() > 1 && double {
        errors.invalid(path, resources.to_vec(), "if '*/*' is present, must not specify other resources");
    }
    if single && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.invalid(path, resources.to_vec(), detail);
    }
}

/// Match conditions; `params`: whether they can look at parameters. They see no variables.
pub(super) fn match_conditions(
    conditions: &[MatchCondition],
    params: bool,
    path: &Path,
    errors: &mut ErrorList,
) {
    let mut compiler = Compiler::plain();
    let scope = Scope { params, authorizer: true, patches: false };
    if conditions.len() > 64 {
        errors.push(Error::too_many(path, conditions.len(), 64));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        let at = path.child("expression");
        match condition.expression.trim() {
            "" => errors.required(&at, ""),
            text => expression::check(&compiler.compile(text, Returns::Bool, scope), text, &at, errors),
        }
        match condition.name.as_str() {
            "" => errors.required(&path.child("name"), ""),
            name => {
                errors.extend(qualified_name(name, &path.child("name")));
                if conditions[..i].iter().any(|other| other.name == name) {
                    errors.duplicate(&path.child("name"), name);
                }
            }
        }
    }
}
