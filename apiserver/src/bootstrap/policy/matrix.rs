//! Every default role against every resource and verb that there is, as upstream's roles have it.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};

use super::{GROUP, ObjectMeta, policy};
use crate::authn::User;
use crate::authz::Authorizer as _;
use crate::authz::rbac::Rbac;
use crate::request::RequestInfo;

const TABLE: &str = include_str!("../testdata/roles.txt");

/// What may be asked: a verb, and a resource with a name, or a path.
type Question = (String, String);

/// The questions of one line, each with the name that it is about (empty for any).
fn questions(line: &str) -> Vec<(Question, String)> {
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let verbs: Vec<&str> = words.next().unwrap_or_default().split(',').collect();
    let mut found = Vec::new();
    for word in words.filter(|word| *word != "url") {
        let (about, name) = word.split_once('=').unwrap_or((word, ""));
        found.extend(verbs.iter().map(|verb| (((*verb).to_owned(), about.to_owned()), name.to_owned())));
    }
    found
}

fn request((verb, about): &Question, name: &str, namespace: &str) -> RequestInfo {
    let verb = verb.clone();
    if about.starts_with('/') {
        return RequestInfo { verb, path: about.clone(), ..RequestInfo::default() };
    }
    let (group, resource) = about.split_once(':').unwrap_or(("", about));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    RequestInfo {
        is_resource: true,
        verb,
        group: group.to_owned(),
        version: "v1".to_owned(),
        resource: resource.to_owned(),
        subresource: subresource.to_owned(),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        ..RequestInfo::default()
    }
}

/// Every role is bound to a user of its own name, `namespace/name`.
fn loaded() -> Rbac {
    let rbac = Rbac::default();
    let subject = |name: String| {
        vec![Subject { kind: "User".into(), api_group: Some(GROUP.into()), name, namespace: None }]
    };
    for role in &policy().cluster_roles {
        rbac.put_cluster_role(role);
        let name = role.metadata.name.clone().unwrap_or_default();
        rbac.put_cluster_role_binding(&ClusterRoleBinding {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            role_ref: RoleRef {
                api_group: Some(GROUP.into()),
                kind: "ClusterRole".into(),
                name: name.clone(),
            },
            subjects: Some(subject(format!("/{name}"))),
        });
    }
    for role in &policy().roles {
        rbac.put_role(role);
        let (name, namespace) = (role.metadata.name.clone(), role.metadata.namespace.clone());
        let user = format!("{}/{}", namespace.clone().unwrap_or_default(), name.clone().unwrap_or_default());
        let role_name = name.clone().unwrap_or_default();
        rbac.put_role_binding(&RoleBinding {
            metadata: ObjectMeta { name, namespace, ..ObjectMeta::default() },
            role_ref: RoleRef { api_group: Some(GROUP.into()), kind: "Role".into(), name: role_name },
            subjects: Some(subject(user)),
        });
    }
    rbac
}

#[test]
fn roles_permit_what_upstreams_do_and_no_more() {
    let mut all: Vec<Question> = Vec::new();
    let mut roles: BTreeMap<&str, BTreeMap<Question, BTreeSet<String>>> = BTreeMap::new();
    let mut current = None;
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("role "), line.strip_prefix("  "), current) {
            (Some(role), ..) => {
                roles.insert(role, BTreeMap::new());
                current = Some(role);
            }
            (_, Some(line), Some(role)) => {
                for (question, name) in questions(line) {
                    roles.entry(role).or_default().entry(question).or_default().insert(name);
                }
            }
            (_, Some(line), None) => all.extend(questions(line).into_iter().map(|(question, _)| question)),
            _ => {}
        }
    }
    assert!(all.len() > 700, "the table is whole: {}", all.len());
    let own = |name: &Option<String>| name.clone().unwrap_or_default();
    let cluster = policy().cluster_roles.iter().map(|role| format!("/{}", own(&role.metadata.name)));
    let namespaced = policy().roles.iter();
    let namespaced =
        namespaced.map(|role| format!("{}/{}", own(&role.metadata.namespace), own(&role.metadata.name)));
    let ours: BTreeSet<String> = cluster.chain(namespaced).collect();
    assert_eq!(ours, roles.keys().map(|role| (*role).to_owned()).collect());

    let (rbac, mut wrong) = (loaded(), Vec::new());
    for (role, permitted) in &roles {
        let namespace = role.split('/').next().unwrap_or_default();
        let user = User { name: (*role).to_owned(), ..User::default() };
        for question in &all {
            let expected = permitted.get(question);
            let named = expected.into_iter().flatten().map(String::as_str);
            // Who asks about no name asks about all.
            for name in ["", "another"].into_iter().chain(named) {
                let wanted = expected.is_some_and(|names| names.contains("") || names.contains(name));
                let found = rbac.authorize(&user, &request(question, name, namespace)).allowed();
                if found != wanted {
                    wrong.push(format!("{role}: {question:?} {name:?} is permitted: {found}"));
                }
            }
            // What is permitted in one namespace is not in another one.
            if !namespace.is_empty() {
                let elsewhere = rbac.authorize(&user, &request(question, "", "default")).allowed();
                assert!(!elsewhere || question.1.starts_with('/'), "{role}: {question:?}");
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
