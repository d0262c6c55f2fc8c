//! What a rule permits, and whether some rules permit all that others do (upstream
//! `component-helpers/auth/rbac/validation`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::go_list;
use crate::request::RequestInfo;

fn list(values: &Option<Vec<String>>) -> &[String] {
    values.as_deref().unwrap_or_default()
}

fn has(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == wanted)
}

fn has_or_all(values: &[String], wanted: &str) -> bool {
    values.iter().any(|value| value == "*" || value == wanted)
}

/// Whether the rule permits the request.
#[must_use]
pub fn allows(rule: &PolicyRule, request: &RequestInfo) -> bool {
    if !has_or_all(&rule.verbs, &request.verb) {
        return false;
    }
    if !request.is_resource {
        return list(&rule.non_resource_urls).iter().any(|url| url_covers(url, &request.path));
    }
    let names = list(&rule.resource_names);
    has_or_all(list(&rule.api_groups), &request.group)
        && list(&rule.resources).iter().any(|resource| resource_matches(resource, request))
        && (names.is_empty() || has(names, &request.name))
}

fn resource_matches(rule: &str, request: &RequestInfo) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => request.subresource.is_empty() && rule == request.resource,
        Some((resource, subresource)) => {
            subresource == request.subresource && (resource == "*" || resource == request.resource)
        }
    }
}

fn url_covers(owner: &str, path: &str) -> bool {
    owner == "*"
        || owner == path
        || owner.strip_suffix('*').is_some_and(|p| path.starts_with(p.trim_end_matches('*')))
}

/// The parts of `asked` that `owned` does not permit, each with one verb, resource and name.
#[must_use]
pub fn not_covered(owned: &[PolicyRule], asked: &[PolicyRule]) -> Vec<PolicyRule> {
    asked.iter().flat_map(break_down).filter(|part| !owned.iter().any(|rule| covers(rule, part))).collect()
}

/// An equivalent list of rules with one group, resource, verb and name each.
fn break_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &String| Some(vec![text.clone()]);
    let mut parts = Vec::new();
    for group in list(&rule.api_groups) {
        for resource in list(&rule.resources) {
            for verb in &rule.verbs {
                let part = PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    verbs: vec![verb.clone()],
                    ..PolicyRule::default()
                };
                match list(&rule.resource_names) {
                    [] => parts.push(part),
                    names => {
                        parts.extend(
                            names.iter().map(|name| PolicyRule { resource_names: one(name), ..part.clone() }),
                        );
                    }
                }
            }
        }
    }
    for url in list(&rule.non_resource_urls) {
        for verb in &rule.verbs {
            let verbs = vec![verb.clone()];
            parts.push(PolicyRule { non_resource_urls: one(url), verbs, ..PolicyRule::default() });
        }
    }
    parts
}

/// Whether `owner` permits what the atomic rule `part` does.
fn covers(owner: &PolicyRule, part: &PolicyRule) -> bool {
    let all =
        |owned: &[String], asked: &[String]| has(owned, "*") || asked.iter().all(|item| has(owned, item));
    let resources = list(&owner.resources);
    let resource = |asked: &String| {
        has_or_all(resources, asked)
            || asked
                .split_once('/')
                .is_some_and(|(_, subresource)| has(resources, &format!("*/{subresource}")))
    };
    let names = list(&owner.resource_names);
    let asked_names = list(&part.resource_names);
    let urls = list(&owner.non_resource_urls);
    all(&owner.verbs, &part.verbs)
        && all(list(&owner.api_groups), list(&part.api_groups))
        && list(&part.resources).iter().all(resource)
        && (names.is_empty() || (!asked_names.is_empty() && asked_names.iter().all(|name| has(names, name))))
        && list(&part.non_resource_urls).iter().all(|url| urls.iter().any(|owned| url_covers_url(owned, url)))
}

/// As [`url_covers`], but `*` covers only what begins like it, which is everything.
fn url_covers_url(owner: &str, url: &str) -> bool {
    owner == url || (owner.ends_with('*') && url.starts_with(owner.trim_end_matches('*')))
}

/// The rules in words, verbs of the same resource joined, sorted and without repetition.
#[must_use]
pub fn describe(rules: &[PolicyRule]) -> Vec<String> {
    let mut joined: BTreeMap<(String, String, Option<String>), PolicyRule> = BTreeMap::new();
    let mut words = BTreeSet::new();
    for rule in rules {
        match (list(&rule.api_groups), list(&rule.resources), list(&rule.resource_names)) {
            ([group], [resource], names) if names.len() <= 1 && list(&rule.non_resource_urls).is_empty() => {
                let key = (group.clone(), resource.clone(), names.first().cloned());
                match joined.get_mut(&key) {
                    Some(known) => known.verbs.extend(rule.verbs.iter().cloned()),
                    None => {
                        joined.insert(key, rule.clone());
                    }
                }
            }
            _ => {
                words.insert(compact(rule));
            }
        }
    }
    words.extend(joined.values().map(compact));
    words.into_iter().collect()
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
fn compact(rule: &PolicyRule) -> String {
    let fields = [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Verbs", rule.verbs.as_slice()),
    ];
    let parts = fields.iter().filter(|(_, values)| !values.is_empty());
    format!(
        "{{{}}}",
        parts.map(|(name, values)| format!("{name}:{}", go_list(values))).collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `verbs|groups|resources|names`, or `verbs|url|urls`.
    pub(crate) fn rule(text: &str) -> PolicyRule {
        let parts: Vec<Vec<String>> =
            text.split('|').map(|part| part.split(',').map(str::to_owned).collect()).collect();
        let some = |index: usize| parts.get(index).cloned();
        if parts[1] == ["url"] {
            let verbs = parts[0].clone();
            return PolicyRule { verbs, non_resource_urls: some(2), ..PolicyRule::default() };
        }
        PolicyRule {
            verbs: parts[0].clone(),
            api_groups: some(1),
            resources: some(2),
            resource_names: some(3),
            ..PolicyRule::default()
        }
    }

    fn request(text: &str) -> RequestInfo {
        let parts: Vec<&str> = text.split('|').collect();
        if parts[1].starts_with('/') {
            return RequestInfo { verb: parts[0].into(), path: parts[1].into(), ..RequestInfo::default() };
        }
        let (resource, subresource) = parts[2].split_once('/').unwrap_or((parts[2], ""));
        RequestInfo {
            is_resource: true,
            verb: parts[0].into(),
            group: parts[1].into(),
            resource: resource.into(),
            subresource: subresource.into(),
            name: parts.get(3).copied().unwrap_or_default().into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn rules_permit_what_they_say() {
        for (text, asked, expected) in [
            ("get||pods", "get||pods", true),
            ("get||pods", "list||pods", false),
            ("get||pods", "get|apps|pods", false),
            ("get||pods", "get||pods/log", false),
            ("get||pods/log", "get||pods/log", true),
            ("get||*/log", "get||pods/log", true),
            ("get||*/log", "get||pods", false),
            ("get||*", "get||pods/log", true),
            ("*|*|*", "watch|x|y", true),
            ("get||pods|a", "get||pods|a", true),
            ("get||pods|a", "get||pods|b", false),
            ("get||pods|a", "get||pods", false),
            ("get|url|/a/*", "get|/a/b/c", true),
            ("get|url|/a/*", "get|/a", false),
            ("get|url|/a", "get|/a/", false),
            ("get|url|*", "get|/x", true),
            ("get|url|*", "get||pods", false),
            ("get||pods", "get|/pods", false),
        ] {
            assert_eq!(allows(&rule(text), &request(asked)), expected, "{text} / {asked}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (owned, asked, missing) in [
            (vec!["get,list||pods"], vec!["get||pods"], vec![]),
            (
                vec!["get||configmaps"],
                vec!["get,list||secrets", "create||pods"],
                vec![
                    r#"{APIGroups:[""], Resources:["pods"], Verbs:["create"]}"#,
                    r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}"#,
                ],
            ),
            (
                vec![],
                vec!["*|*|*", "*|url|*"],
                vec![
                    r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#,
                    r#"{NonResourceURLs:["*"], Verbs:["*"]}"#,
                ],
            ),
            (
                vec!["get||pods|a"],
                vec!["get||pods"],
                vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#],
            ),
            (vec!["get||pods"], vec!["get||pods|a"], vec![]),
            (vec!["get||*/scale"], vec!["get||x/scale"], vec![]),
            (vec!["get|url|/a/*"], vec!["get|url|/a/b"], vec![]),
            (vec!["get|url|/a/*"], vec!["get|url|/b"], vec![r#"{NonResourceURLs:["/b"], Verbs:["get"]}"#]),
            (
                vec![],
                vec!["get||secrets|a,b"],
                vec![
                    r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["a"], Verbs:["get"]}"#,
                    r#"{APIGroups:[""], Resources:["secrets"], ResourceNames:["b"], Verbs:["get"]}"#,
                ],
            ),
        ] {
            let rules = |texts: &[&str]| texts.iter().map(|text| rule(text)).collect::<Vec<_>>();
            let found = describe(&not_covered(&rules(&owned), &rules(&asked)));
            assert_eq!(found, missing, "{owned:?} / {asked:?}");
        }
    }
}
