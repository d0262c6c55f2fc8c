//! Flow schemas and priority levels.

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, FlowSchemaSpec, LimitResponse, NonResourcePolicyRule, PolicyRulesWithSubjects,
    PriorityLevelConfiguration, PriorityLevelConfigurationSpec, QueuingConfiguration, ResourcePolicyRule,
    Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::claim::same;
use super::golang;
use super::meta;
use super::rules::{dns_subdomain, list, text, to_value};

const MAX_PRECEDENCE: i32 = 10000;
const MAX_QUEUES: i32 = 10_000_000;
/// Bits of a hash that hands may be dealt from.
const MAX_HASH_BITS: f64 = 60.0;
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn metadata(meta: &ObjectMeta) -> ErrorList {
    meta::validate_core(meta, false, format::name_is_subdomain, &Path::new("metadata"))
}

/// The specs of the objects that must be as they are.
fn mandatory_schema(name: &str) -> Option<Value> {
    let (precedence, groups, method) = match name {
        "exempt" => (1, vec!["system:masters"], Value::Null),
        "catch-all" => (
            MAX_PRECEDENCE,
            vec!["system:unauthenticated", "system:authenticated"],
            json!({"type": "ByUser"}),
        ),
        _ => return None,
    };
    let subjects: Vec<Value> =
        groups.iter().map(|group| json!({"kind": "Group", "group": {"name": group}})).collect();
    let mut spec = json!({
        "matchingPrecedence": precedence,
        "priorityLevelConfiguration": {"name": name},
        "rules": [{
            "subjects": subjects,
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }],
    });
    if !method.is_null() {
        spec["distinguisherMethod"] = method;
    }
    Some(spec)
}

/// A new flow schema.
pub(crate) fn schema(object: &FlowSchema) -> ErrorList {
    let mut errors = metadata(&object.metadata);
    let (name, path) = (text(&object.metadata.name), Path::new("spec"));
    let spec = object.spec.clone().unwrap_or_default();
    schema_spec(name, &spec, &path, &mut errors);
    if mandatory_schema(name).is_some_and(|mandatory| !same(&mandatory, &to_value(&spec))) {
        let shown = golang::show("flowcontrol.FlowSchemaSpec", &to_value(&spec));
        errors.push(Error::invalid_shown(
            &path,
            shown,
            format!("spec of '{name}' must equal the fixed value"),
        ));
    }
    let conditions = object.status.as_ref().map(|s| list(&s.conditions)).unwrap_or_default();
    condition_types(conditions.iter().map(|c| text(&c.type_)), &mut errors);
    errors
}

/// A changed flow schema.
pub(crate) fn schema_update(new: &FlowSchema, _: &FlowSchema) -> ErrorList {
    schema(new)
}

/// A flow schema changed by its status.
pub(crate) fn schema_status(new: &FlowSchema, _: &FlowSchema) -> ErrorList {
    let mut errors = ErrorList::new();
    let conditions = new.status.as_ref().map(|s| list(&s.conditions)).unwrap_or_default();
    condition_types(conditions.iter().map(|c| text(&c.type_)), &mut errors);
    errors
}

fn condition_types<'a>(types: impl Iterator<Item = &'a str>, errors: &mut ErrorList) {
    let mut seen = Vec::new();
    for (i, kind) in types.enumerate() {
        let path = Path::new("status").child("conditions").index(i).child("type");
        if seen.contains(&kind) {
            errors.duplicate(&path, kind);
        }
        if kind.is_empty() {
            errors.required(&path, "");
        }
        seen.push(kind);
    }
}

fn schema_spec(name: &str, spec: &FlowSchemaSpec, path: &Path, errors: &mut ErrorList) {
    let at = path.child("matchingPrecedence");
    let precedence = spec.matching_precedence.unwrap_or(0);
    if precedence <= 0 {
        errors.invalid(&at, precedence, "must be a positive value");
    }
    if precedence > MAX_PRECEDENCE {
        errors.invalid(&at, precedence, format!("must not be greater than {MAX_PRECEDENCE}"));
    }
    if precedence == 1 && name != "exempt" {
        errors.invalid(&at, precedence, "only the schema named 'exempt' may have matchingPrecedence 1");
    }
    if let Some(method) = &spec.distinguisher_method
        && !matches!(method.type_.as_str(), "ByNamespace" | "ByUser")
    {
        let at = path.child("distinguisherMethod").child("type");
        let shown = Some(golang::show("flowcontrol.FlowDistinguisherMethod", &to_value(method)));
        errors.push(Error { shown, ..Error::not_supported(&at, Value::Null, &["ByNamespace", "ByUser"]) });
    }
    let at = path.child("priorityLevelConfiguration").child("name");
    match spec.priority_level_configuration.name.as_str() {
        "" => errors.required(&at, "must reference a priority level"),
        level => errors.extend(dns_subdomain(level, &at)),
    }
    for (i, rules) in list(&spec.rules).iter().enumerate() {
        policy(rules, &path.child("rules").index(i), errors);
    }
}

fn policy(rules: &PolicyRulesWithSubjects, path: &Path, errors: &mut ErrorList) {
    if rules.subjects.is_empty() {
        errors.required(&path.child("subjects"), "subjects must contain at least one value");
    }
    for (i, one) in rules.subjects.iter().enumerate() {
        subject(one, &path.child("subjects").index(i), errors);
    }
    let (resources, others) = (list(&rules.resource_rules), list(&rules.non_resource_rules));
    if resources.is_empty() && others.is_empty() {
        errors.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    for (i, rule) in resources.iter().enumerate() {
        resource_rule(rule, &path.child("resourceRules").index(i), errors);
    }
    for (i, rule) in others.iter().enumerate() {
        non_resource_rule(rule, &path.child("nonResourceRules").index(i), errors);
    }
}

fn subject(subject: &Subject, path: &Path, errors: &mut ErrorList) {
    let kind = subject.kind.as_str();
    let named = |key: &str, name: Option<&str>, errors: &mut ErrorList| match name {
        None => {
            let detail = format!("{key} is required when subject kind is '{kind}'");
            errors.required(&path.child(key), detail);
        }
        Some("") => errors.required(&path.child(key).child("name"), ""),
        Some(_) => {}
    };
    match kind {
        "ServiceAccount" => {
            let account = subject.service_account.as_ref();
            named("serviceAccount", account.map(|a| a.name.as_str()), errors);
            if let Some(account) = account {
                let path = path.child("serviceAccount");
                if !account.name.is_empty() && account.name != "*" {
                    errors.extend(dns_subdomain(&account.name, &path.child("name")));
                }
                match account.namespace.as_str() {
                    "" => {
                        errors
                            .required(&path.child("namespace"), "must specify namespace for service account");
                    }
                    namespace => {
                        let messages = format::dns1123_label(namespace);
                        errors.messages(&path.child("namespace"), namespace, messages);
                    }
                }
            }
        }
        "User" => named("user", subject.user.as_ref().map(|user| user.name.as_str()), errors),
        "Group" => named("group", subject.group.as_ref().map(|group| group.name.as_str()), errors),
        _ => return errors.not_supported(&path.child("kind"), kind, &["Group", "ServiceAccount", "User"]),
    }
    let set = [
        ("serviceAccount", "ServiceAccount", subject.service_account.is_some()),
        ("user", "User", subject.user.is_some()),
        ("group", "Group", subject.group.is_some()),
    ];
    for (key, wanted, _) in set.iter().filter(|(_, wanted, set)| *set && *wanted != kind) {
        errors.forbidden(&path.child(key), format!("{key} is forbidden when subject kind is not '{wanted}'"));
    }
}

fn has_wildcard(items: &[String]) -> bool {
    items.iter().any(|item| item == "*")
}

fn verbs(verbs: &[String], path: &Path, errors: &mut ErrorList) {
    if verbs.is_empty() {
        errors.required(path, "verbs must contain at least one value");
    } else if has_wildcard(verbs) {
        if verbs.len() > 1 {
            errors.invalid(path, verbs.to_vec(), "if '*' is present, must not specify other verbs");
        }
    } else if verbs.iter().any(|verb| !VERBS.contains(&verb.as_str())) {
        errors.not_supported(path, verbs.to_vec(), &VERBS);
    }
}

fn alone(items: &[String], what: &str, path: &Path, errors: &mut ErrorList) {
    if items.len() > 1 && has_wildcard(items) {
        errors.invalid(path, items.to_vec(), format!("if '*' is present, must not specify other {what}"));
    }
}

fn resource_rule(rule: &ResourcePolicyRule, path: &Path, errors: &mut ErrorList) {
    verbs(&rule.verbs, &path.child("verbs"), errors);
    let at = path.child("apiGroups");
    if rule.api_groups.is_empty() {
        errors.required(&at, "resource rules must supply at least one api group");
    }
    alone(&rule.api_groups, "api groups", &at, errors);
    let at = path.child("resources");
    if rule.resources.is_empty() {
        errors.required(&at, "resource rules must supply at least one resource");
    }
    alone(&rule.resources, "resources", &at, errors);
    let at = path.child("namespaces");
    let namespaces = list(&rule.namespaces);
    if namespaces.is_empty() && rule.cluster_scope != Some(true) {
        errors.required(&at, "resource rules that are not cluster scoped must supply at least one namespace");
    } else if has_wildcard(namespaces) {
        alone(namespaces, "namespaces", &at, errors);
    } else {
        for (i, namespace) in namespaces.iter().enumerate() {
            for message in format::dns1123_label(namespace) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
                errors.invalid(&at.index(i), namespace.as_str(), detail);
            }
        }
    }
}

fn non_resource_rule(rule: &NonResourcePolicyRule, path: &Path, errors: &mut ErrorList) {
    verbs(&rule.verbs, &path.child("verbs"), errors);
    let at = path.child("nonResourceURLs");
    let urls = &rule.non_resource_urls;
    if urls.is_empty() {
        errors.required(&at, "nonResourceURLs must contain at least one value");
    } else if has_wildcard(urls) {
        alone(urls, "non-resource URLs", &at, errors);
    } else {
        for (i, url) in urls.iter().enumerate() {
            if let Some(why) = bad_url(url) {
                errors.invalid(&at.index(i), url.as_str(), why);
            }
        }
    }
}

fn bad_url(url: &str) -> Option<&'static str> {
    let stars = url.matches('*').count();
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ if stars > 1 || (stars == 1 && !url.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        _ => None,
    }
}

/// A new priority level.
pub(crate) fn level(object: &PriorityLevelConfiguration) -> ErrorList {
    let mut errors = metadata(&object.metadata);
    let key = "flowcontrol.k8s.io/preserve-zero-concurrency-shares";
    if object.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(key)) {
        let at = Path::new("metadata").child("annotations");
        errors.forbidden(&at, format!("annotation '{key}' is forbidden"));
    }
    let (name, path) = (text(&object.metadata.name), Path::new("spec"));
    let spec = object.spec.clone().unwrap_or_default();
    level_spec(name, &spec, &path, &mut errors);
    mandatory_level(name, &spec, &path, &mut errors);
    errors.extend(level_status(object, object));
    errors
}

fn mandatory_level(name: &str, spec: &PriorityLevelConfigurationSpec, path: &Path, errors: &mut ErrorList) {
    let shown = || golang::show("flowcontrol.PriorityLevelConfigurationSpec", &to_value(spec));
    if name == "exempt" && (spec.type_ != "Exempt" || spec.limited.is_some()) {
        let detail = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value";
        errors.push(Error::invalid_shown(path, shown(), detail));
    }
    let fixed = json!({
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"}},
    });
    if name == "catch-all" && !same(&to_value(spec), &fixed) {
        errors.push(Error::invalid_shown(path, shown(), "spec of 'catch-all' must equal the fixed value"));
    }
}

fn level_spec(name: &str, spec: &PriorityLevelConfigurationSpec, path: &Path, errors: &mut ErrorList) {
    let kind = spec.type_.as_str();
    if (name == "exempt") != (kind == "Exempt") {
        errors.invalid(&path.child("type"), kind, "must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match kind {
        "Exempt" => {
            if spec.limited.is_some() {
                errors.forbidden(&path.child("limited"), "must be nil if the type is not Limited");
            }
            if let Some(exempt) = &spec.exempt {
                let path = path.child("exempt");
                shares(exempt.nominal_concurrency_shares, &path, errors);
                lendable(exempt.lendable_percent, &path, errors);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.forbidden(&path.child("exempt"), "must be nil if the type is Limited");
            }
            let path = path.child("limited");
            let Some(limited) = &spec.limited else {
                return errors.required(&path, "must not be empty when type is Limited");
            };
            shares(limited.nominal_concurrency_shares, &path, errors);
            let response = limited.limit_response.clone().unwrap_or_default();
            limit_response(&response, &path.child("limitResponse"), errors);
            lendable(limited.lendable_percent, &path, errors);
            if let Some(percent) = limited.borrowing_limit_percent.filter(|percent| *percent < 0) {
                let detail = "if specified, must be a non-negative integer";
                errors.invalid(&path.child("borrowingLimitPercent"), percent, detail);
            }
        }
        _ => errors.not_supported(&path.child("type"), kind, &["Exempt", "Limited"]),
    }
}

fn shares(shares: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        errors.invalid(&path.child("nominalConcurrencyShares"), shares, "must be a non-negative integer");
    }
}

fn lendable(percent: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if let Some(percent) = percent.filter(|percent| !(0..=100).contains(percent)) {
        errors.invalid(&path.child("lendablePercent"), percent, "must be between 0 and 100, inclusive");
    }
}

fn limit_response(response: &LimitResponse, path: &Path, errors: &mut ErrorList) {
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", Some(_)) => {
            errors.forbidden(&at, "must be nil if limited.limitResponse.type is not Limited");
        }
        ("Reject", None) => {}
        ("Queue", None) => {
            errors.required(&at, "must not be empty if limited.limitResponse.type is Limited");
        }
        ("Queue", Some(queuing)) => queues(queuing, &at, errors),
        (other, _) => errors.not_supported(&path.child("type"), other, &["Queue", "Reject"]),
    }
}

fn queues(queuing: &QueuingConfiguration, path: &Path, errors: &mut ErrorList) {
    let limit = queuing.queue_length_limit.unwrap_or(0);
    if limit <= 0 {
        errors.invalid(&path.child("queueLengthLimit"), limit, "must be positive");
    }
    let (queues, hand) = (queuing.queues.unwrap_or(0), queuing.hand_size.unwrap_or(0));
    if queues <= 0 {
        errors.invalid(&path.child("queues"), queues, "must be positive");
    } else if queues > MAX_QUEUES {
        errors.invalid(&path.child("queues"), queues, format!("must not be greater than {MAX_QUEUES}"));
    }
    let at = path.child("handSize");
    let bits = (f64::from(queues).log2() * f64::from(hand)).ceil();
    if hand <= 0 {
        errors.invalid(&at, hand, "must be positive");
    } else if hand > queues {
        errors.invalid(&at, hand, format!("should not be greater than queues ({queues})"));
    } else if bits > MAX_HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {MAX_HASH_BITS}"
        );
        errors.invalid(&at, hand, detail);
    }
}

/// A changed priority level.
pub(crate) fn level_update(new: &PriorityLevelConfiguration, _: &PriorityLevelConfiguration) -> ErrorList {
    level(new)
}

/// A priority level changed by its status.
pub(crate) fn level_status(new: &PriorityLevelConfiguration, _: &PriorityLevelConfiguration) -> ErrorList {
    let mut errors = ErrorList::new();
    let conditions = new.status.as_ref().map(|s| list(&s.conditions)).unwrap_or_default();
    condition_types(conditions.iter().map(|c| text(&c.type_)), &mut errors);
    errors
}
