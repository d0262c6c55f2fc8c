//! Which requests a FlowSchema is about (upstream `rule.go`).

use k8s_openapi::api::flowcontrol::v1::{
    FlowSchemaSpec, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use crate::authn::{SERVICE_ACCOUNT_PREFIX, User};
use crate::request::RequestInfo;

const ALL: &str = "*";

/// Whether a schema is about a request.
#[must_use]
pub fn matches(spec: &FlowSchemaSpec, user: &User, info: &RequestInfo) -> bool {
    spec.rules.iter().flatten().any(|rule| matches_rule(rule, user, info))
}

fn matches_rule(rule: &PolicyRulesWithSubjects, user: &User, info: &RequestInfo) -> bool {
    rule.subjects.iter().any(|subject| matches_subject(subject, user))
        && match info.is_resource {
            true => rule.resource_rules.iter().flatten().any(|rule| matches_resource(rule, info)),
            false => rule.non_resource_rules.iter().flatten().any(|rule| matches_path(rule, info)),
        }
}

fn matches_subject(subject: &Subject, user: &User) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|own| own.name == ALL || own.name == user.name),
        "Group" => subject.group.as_ref().is_some_and(|own| own.name == ALL || user.in_group(&own.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|own| {
            let rest = user.name.strip_prefix(SERVICE_ACCOUNT_PREFIX);
            let name = rest.and_then(|rest| rest.strip_prefix(own.namespace.as_str())?.strip_prefix(':'));
            name.is_some_and(|name| own.name == ALL || own.name == name)
        }),
        _ => false,
    }
}

fn matches_resource(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    let resource = || {
        lists_all(&rule.resources)
            || rule.resources.iter().any(|own| match own.split_once('/') {
                Some((resource, sub)) => resource == info.resource && sub == info.subresource,
                None => *own == info.resource && info.subresource.is_empty(),
            })
    };
    lists(&rule.verbs, &info.verb)
        && resource()
        && lists(&rule.api_groups, &info.group)
        && match info.namespace.is_empty() {
            true => rule.cluster_scope.unwrap_or_default(),
            false => lists(rule.namespaces.as_deref().unwrap_or_default(), &info.namespace),
        }
}

fn matches_path(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    lists(&rule.verbs, &info.verb)
        && rule.non_resource_urls.iter().any(|own| {
            // Below a path is everything below it, with or without a star at its end.
            let folder = own.strip_suffix('*').unwrap_or(own);
            let folder = folder.strip_suffix('/').unwrap_or(folder);
            let below = || info.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            own == ALL || *own == info.path || below()
        })
}

/// A star is the only one of its list.
fn lists_all(list: &[String]) -> bool {
    matches!(list, [only] if only == ALL)
}

fn lists(list: &[String], text: &str) -> bool {
    lists_all(list) || list.iter().any(|own| own == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn user(name: &str) -> User {
        User { name: name.to_owned(), groups: vec!["goodg1".into(), "goodg2".into()], ..User::default() }
    }

    fn resource(namespace: &str, subresource: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: "goodverb".into(),
            group: "goodapig".into(),
            version: "v1".into(),
            namespace: namespace.into(),
            resource: "goodrscs".into(),
            subresource: subresource.into(),
            name: "eman".into(),
            ..RequestInfo::default()
        }
    }

    fn path(path: &str) -> RequestInfo {
        RequestInfo { path: path.into(), verb: "goodverb".into(), ..RequestInfo::default() }
    }

    fn check(expected: bool, user: &User, info: &RequestInfo, rule: &Value) {
        let spec = json!({"priorityLevelConfiguration": {"name": "x"}, "rules": [rule]});
        let spec = serde_json::from_value(spec).expect("a spec");
        assert_eq!(matches(&spec, user, info), expected, "{} {info:?} {rule}", user.name);
    }

    fn subject(kind: &str, name: &str) -> Value {
        match kind {
            "User" => json!({"kind": kind, "user": {"name": name}}),
            "Group" => json!({"kind": kind, "group": {"name": name}}),
            _ => {
                let (namespace, name) = name.split_once('/').expect("a namespace and a name");
                json!({"kind": kind, "serviceAccount": {"namespace": namespace, "name": name}})
            }
        }
    }

    // After upstream's TestLiterals.
    #[test]
    fn resource_rules_are_about_everything_that_they_list() {
        let rule =
            |subject: Value, verb: &str, group: &str, resource: &str, namespaces: &[&str], cluster: bool| {
                json!({"subjects": [subject], "resourceRules": [{"verbs": [verb], "apiGroups": [group],
                "resources": [resource], "namespaces": namespaces, "clusterScope": cluster}]})
            };
        let good = || subject("User", "goodu");
        let cases = [
            (true, rule(good(), "goodverb", "goodapig", "goodrscs", &["goodns"], false)),
            (true, rule(subject("Group", "goodg1"), "goodverb", "goodapig", "goodrscs", &["goodns"], false)),
            (true, rule(subject("User", "*"), "goodverb", "goodapig", "goodrscs", &["goodns"], false)),
            (true, rule(subject("Group", "*"), "goodverb", "goodapig", "goodrscs", &["goodns"], false)),
            (true, rule(good(), "*", "goodapig", "goodrscs", &["goodns"], false)),
            (true, rule(good(), "goodverb", "*", "goodrscs", &["goodns"], false)),
            (true, rule(good(), "goodverb", "goodapig", "*", &["goodns"], false)),
            (true, rule(good(), "goodverb", "goodapig", "goodrscs", &["*"], false)),
            (false, rule(subject("User", "badu"), "goodverb", "goodapig", "goodrscs", &["goodns"], true)),
            (false, rule(subject("Group", "badg"), "goodverb", "goodapig", "goodrscs", &["goodns"], true)),
            (false, rule(good(), "badverb", "goodapig", "goodrscs", &["goodns"], true)),
            (false, rule(good(), "goodverb", "badapig", "goodrscs", &["goodns"], true)),
            (false, rule(good(), "goodverb", "goodapig", "badrscs", &["goodns"], true)),
            (false, rule(good(), "goodverb", "goodapig", "goodrscs", &["badns"], true)),
            (false, rule(good(), "goodverb", "goodapig", "goodrscs", &[], true)),
        ];
        for (expected, rule) in &cases {
            check(*expected, &user("goodu"), &resource("goodns", ""), rule);
        }
        let cluster = rule(good(), "goodverb", "goodapig", "goodrscs", &[], true);
        check(true, &user("goodu"), &resource("", ""), &cluster);
        let namespaced = rule(good(), "goodverb", "goodapig", "goodrscs", &["*"], false);
        check(false, &user("goodu"), &resource("", ""), &namespaced);
        check(false, &user("goodu"), &resource("goodns", "status"), &namespaced);
        let sub = rule(good(), "goodverb", "goodapig", "goodrscs/status", &["*"], false);
        check(true, &user("goodu"), &resource("goodns", "status"), &sub);
        check(false, &user("goodu"), &resource("goodns", ""), &sub);
        check(false, &user("goodu"), &path("/openapi/v2"), &namespaced);
    }

    #[test]
    fn service_accounts_are_known_by_their_user_names() {
        let rule = |name: &str| {
            json!({"subjects": [subject("ServiceAccount", name)], "nonResourceRules": [
                {"verbs": ["*"], "nonResourceURLs": ["*"]}]})
        };
        for (expected, name, user_name) in [
            (true, "ns/sa", "system:serviceaccount:ns:sa"),
            (true, "ns/*", "system:serviceaccount:ns:sa"),
            (false, "ns/sa", "system:serviceaccount:ns:other"),
            (false, "ns/*", "system:serviceaccount:nsx:sa"),
            (false, "n/*", "system:serviceaccount:ns:sa"),
            (false, "ns/sa", "sa"),
        ] {
            check(expected, &user(user_name), &path("/x"), &rule(name));
        }
    }

    #[test]
    fn paths_are_about_what_is_below_them() {
        let rule = |verb: &str, url: &str| {
            json!({"subjects": [subject("User", "goodu")], "nonResourceRules": [
                {"verbs": [verb], "nonResourceURLs": [url]}]})
        };
        for (expected, verb, url, asked) in [
            (true, "goodverb", "/openapi/v2", "/openapi/v2"),
            (true, "*", "/openapi/v2", "/openapi/v2"),
            (true, "goodverb", "*", "/openapi/v2"),
            (true, "goodverb", "/openapi/*", "/openapi/v2"),
            (true, "goodverb", "/openapi", "/openapi/v2"),
            (false, "badverb", "/openapi/v2", "/openapi/v2"),
            (false, "goodverb", "/closedapi/v2", "/openapi/v2"),
            (false, "goodverb", "/open*", "/openapi/v2"),
            (false, "goodverb", "/openapi/*", "/openapi"),
        ] {
            check(expected, &user("goodu"), &path(asked), &rule(verb, url));
        }
    }
}
