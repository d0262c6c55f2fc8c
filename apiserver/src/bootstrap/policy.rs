//! The roles and bindings every cluster has (upstream `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`).
//!
//! `policy.txt` holds them, one rule a line: verbs, groups, resources and, if any, names; or verbs, `url` and paths.
//! `READ`, `WRITE` and `READWRITE` stand for the verbs that usually go together. Roles named `system:controller:X`
//! are bound to the service account X of kube-system without being listed.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// Only roles and bindings with this annotation are reconciled.
pub const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const GROUP: &str = "rbac.authorization.k8s.io";

/// Everything in the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Cluster roles.
    pub cluster_roles: Vec<ClusterRole>,
    /// Cluster role bindings.
    pub cluster_role_bindings: Vec<ClusterRoleBinding>,
    /// Roles in system namespaces.
    pub roles: Vec<Role>,
    /// Role bindings in system namespaces.
    pub role_bindings: Vec<RoleBinding>,
}

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| parse(include_str!("policy.txt")).expect("the table in this repository is well-formed"));

/// The default policy.
#[must_use]
pub fn policy() -> &'static Policy {
    &POLICY
}

/// What the Node authorizer permits every node.
#[must_use]
pub fn node_rules() -> Vec<PolicyRule> {
    let role =
        policy().cluster_roles.iter().find(|role| role.metadata.name.as_deref() == Some("system:node"));
    role.and_then(|role| role.rules.clone()).unwrap_or_default()
}

/// One object of the table while it is read.
struct Entry<'a> {
    kind: &'a str,
    name: &'a str,
    labels: BTreeMap<String, String>,
    lines: Vec<&'a str>,
}

fn parse(table: &str) -> Option<Policy> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for line in table.lines() {
        if let Some(line) = line.strip_prefix("  ") {
            entries.last_mut()?.lines.push(line);
            continue;
        }
        let mut words = line.split(' ');
        let (kind, name) = (words.next()?, words.next()?);
        let labels = words.map(pair).collect::<Option<_>>()?;
        entries.push(Entry { kind, name, labels, lines: Vec::new() });
    }
    let mut policy = Policy::default();
    for entry in entries {
        policy.add(&entry)?;
    }
    Some(policy)
}

fn pair(text: &str) -> Option<(String, String)> {
    text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
}

impl Policy {
    fn add(&mut self, entry: &Entry<'_>) -> Option<()> {
        match entry.kind {
            "ClusterRole" => {
                let metadata = entry.meta();
                let aggregation_rule = entry.aggregation()?;
                self.cluster_roles.push(ClusterRole { metadata, aggregation_rule, rules: entry.rules()? });
                if let Some(account) = entry.name.strip_prefix("system:controller:") {
                    let line = format!("sa kube-system/{account}");
                    let binding = Entry {
                        kind: "ClusterRoleBinding",
                        lines: vec![&line],
                        labels: BTreeMap::new(),
                        ..*entry
                    };
                    self.add(&binding)?;
                }
            }
            "ClusterRoleBinding" => {
                let (role_ref, subjects) = entry.binding("ClusterRole")?;
                self.cluster_role_bindings.push(ClusterRoleBinding {
                    metadata: entry.meta(),
                    role_ref,
                    subjects,
                });
            }
            "Role" => self.roles.push(Role { metadata: entry.meta(), rules: entry.rules()? }),
            "RoleBinding" => {
                let (role_ref, subjects) = entry.binding("Role")?;
                self.role_bindings.push(RoleBinding { metadata: entry.meta(), role_ref, subjects });
            }
            _ => return None,
        }
        Some(())
    }
}

impl Entry<'_> {
    fn meta(&self) -> ObjectMeta {
        let (namespace, name) = match self.name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, self.name),
        };
        let mut labels = self.labels.clone();
        labels.insert("kubernetes.io/bootstrapping".to_owned(), "rbac-defaults".to_owned());
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace,
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(AUTOUPDATE.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        }
    }

    fn aggregation(&self) -> Option<Option<AggregationRule>> {
        let mut selectors = Vec::new();
        for line in self.lines.iter().filter_map(|line| line.strip_prefix("aggregate ")) {
            let match_labels = Some(BTreeMap::from([pair(line)?]));
            selectors.push(LabelSelector { match_labels, ..LabelSelector::default() });
        }
        let rule = AggregationRule { cluster_role_selectors: Some(selectors.clone()) };
        Some(Some(rule).filter(|_| !selectors.is_empty()))
    }

    fn rules(&self) -> Option<Option<Vec<PolicyRule>>> {
        let lines = self.lines.iter().filter(|line| !line.starts_with("aggregate "));
        let rules: Vec<_> = lines.map(|line| rule(line)).collect::<Option<_>>()?;
        Some(Some(rules).filter(|rules| !rules.is_empty()))
    }

    fn binding(&self, kind: &str) -> Option<(RoleRef, Option<Vec<Subject>>)> {
        let own = self.name.split_once('/').map_or(self.name, |(_, name)| name);
        let mut role = own;
        let mut subjects = Vec::new();
        for line in &self.lines {
            match line.split_once(' ')? {
                ("ref", name) => role = name,
                (kind, name) => subjects.push(subject(kind, name)?),
            }
        }
        let role =
            RoleRef { api_group: Some(GROUP.to_owned()), kind: kind.to_owned(), name: role.to_owned() };
        Some((role, Some(subjects).filter(|subjects| !subjects.is_empty())))
    }
}

fn subject(kind: &str, name: &str) -> Option<Subject> {
    let of = |kind: &str| Subject {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
        namespace: None,
    };
    match kind {
        "user" => Some(of("User")),
        "group" => Some(of("Group")),
        "sa" => {
            let (namespace, name) = name.split_once('/')?;
            Some(Subject {
                api_group: None,
                kind: "ServiceAccount".to_owned(),
                name: name.to_owned(),
                namespace: Some(namespace.to_owned()),
            })
        }
        _ => None,
    }
}

fn rule(line: &str) -> Option<PolicyRule> {
    let mut words = line.split(' ');
    let verbs = match words.next()? {
        "READ" => "get,list,watch",
        "WRITE" => "create,delete,deletecollection,patch,update",
        "READWRITE" => "create,delete,deletecollection,get,list,patch,update,watch",
        other => other,
    };
    let list = |text: &str| text.split(',').map(|item| item.trim_matches('"').to_owned()).collect::<Vec<_>>();
    let verbs = list(verbs);
    match words.next()? {
        "url" => {
            let non_resource_urls = Some(list(words.next()?));
            Some(PolicyRule { verbs, non_resource_urls, ..PolicyRule::default() })
        }
        groups => Some(PolicyRule {
            verbs,
            api_groups: Some(list(groups)),
            resources: Some(list(words.next()?)),
            resource_names: words.next().map(list),
            non_resource_urls: None,
        }),
    }
}

#[cfg(test)]
mod matrix;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::{MASTERS, User};
    use crate::authz::Authorizer as _;
    use crate::authz::rbac::Rbac;
    use crate::request::RequestInfo;

    #[test]
    fn the_table_is_whole() {
        let policy = policy();
        assert_eq!(policy.cluster_roles.len(), 70);
        assert_eq!(policy.cluster_role_bindings.len(), 51);
        assert_eq!((policy.roles.len(), policy.role_bindings.len()), (7, 7));
        for role in &policy.cluster_roles {
            for rule in role.rules.iter().flatten() {
                assert!(!rule.verbs.is_empty(), "{:?}", role.metadata.name);
            }
        }
    }

    fn loaded() -> Rbac {
        let rbac = Rbac::default();
        policy().cluster_roles.iter().for_each(|role| rbac.put_cluster_role(role));
        policy().cluster_role_bindings.iter().for_each(|binding| rbac.put_cluster_role_binding(binding));
        policy().roles.iter().for_each(|role| rbac.put_role(role));
        policy().role_bindings.iter().for_each(|binding| rbac.put_role_binding(binding));
        rbac
    }

    #[test]
    fn system_users_may_do_their_work_and_no_more() {
        let rbac = loaded();
        let user = |name: &str, groups: &[&str]| User {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        };
        let scheduler = user("system:kube-scheduler", &[]);
        let manager = user("system:kube-controller-manager", &[]);
        let nobody = User::anonymous();
        let anybody = user("alice", &["system:authenticated"]);
        let collector = user("system:serviceaccount:kube-system:generic-garbage-collector", &[]);
        for (who, verb, group, resource, namespace, expected) in [
            (&scheduler, "create", "", "pods/binding", "ns", true),
            (&scheduler, "list", "", "secrets", "ns", false),
            (&manager, "list", "", "secrets", "ns", true),
            (&manager, "delete", "", "pods", "ns", false),
            (&manager, "update", "coordination.k8s.io", "leases", "kube-system", true),
            (&collector, "delete", "apps", "deployments", "ns", true),
            (&anybody, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", true),
            (&nobody, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", false),
            (&user("x", &[MASTERS]), "escalate", "x", "y", "", true),
        ] {
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let request = RequestInfo {
                is_resource: true,
                verb: verb.into(),
                group: group.into(),
                resource: resource.into(),
                subresource: subresource.into(),
                namespace: namespace.into(),
                ..RequestInfo::default()
            };
            assert_eq!(rbac.authorize(who, &request).allowed(), expected, "{} {verb} {resource}", who.name);
        }
        for (who, path, expected) in [
            (&nobody, "/healthz", true),
            (&nobody, "/version", true),
            (&nobody, "/livez", true),
            (&nobody, "/readyz", true),
            (&nobody, "/metrics", false),
            (&nobody, "/api", false),
            (&anybody, "/api", true),
            (&anybody, "/openapi/v2", true),
            (&anybody, "/metrics", false),
        ] {
            let request = RequestInfo { verb: "get".into(), path: path.into(), ..RequestInfo::default() };
            assert_eq!(rbac.authorize(who, &request).allowed(), expected, "{} {path}", who.name);
        }
    }
}
