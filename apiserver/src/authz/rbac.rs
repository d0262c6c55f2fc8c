//! Role based access control (upstream `plugin/pkg/auth/authorizer/rbac`), compiled in memory.
//!
//! Bindings are indexed by subject: the name of a user (service accounts by their user names) or of a group. A
//! decision looks up the user and each group, and only reads rules of roles that are bound to them. Informers keep
//! the index current; a lock is held only to change or read it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use client::{Event, SharedInformerFactory};
use foldhash::fast::RandomState;
use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use parking_lot::RwLock;

use super::{Authorizer, Decision, UserRules, go_quote, rules};
use crate::authn::{SERVICE_ACCOUNT_PREFIX, User};
use crate::request::RequestInfo;

type Map<K, V> = HashMap<K, V, RandomState>;

/// A user or a group that roles are bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(String),
    Group(String),
}

/// One binding of one subject.
#[derive(Debug)]
struct Grant {
    binding: Arc<Binding>,
    /// `User "alice"`.
    subject: String,
}

#[derive(Debug, PartialEq)]
struct Binding {
    /// Empty for a cluster role binding.
    namespace: String,
    name: String,
    role: RoleRef,
}

impl Grant {
    fn reason(&self) -> String {
        let Binding { namespace, name, role } = &*self.binding;
        let (kind, name) = if namespace.is_empty() {
            ("ClusterRoleBinding", go_quote(name))
        } else {
            ("RoleBinding", go_quote(&format!("{name}/{namespace}")))
        };
        let (role_kind, role_name, subject) = (&role.kind, go_quote(&role.name), &self.subject);
        format!("RBAC: allowed by {kind} {name} of {role_kind} {role_name} to {subject}")
    }
}

/// The bindings of one namespace (or of the whole cluster), by subject.
type Grants = Map<SubjectKey, Vec<Grant>>;

#[derive(Default)]
struct State {
    cluster_roles: Map<String, Arc<Vec<PolicyRule>>>,
    roles: Map<(String, String), Arc<Vec<PolicyRule>>>,
    /// By namespace; cluster role bindings under the empty name.
    grants: Map<String, Grants>,
}

/// The authorizer.
#[derive(Default)]
pub struct Rbac {
    state: RwLock<State>,
}

impl Rbac {
    /// Keeps itself current from informers.
    #[must_use]
    pub fn new(informers: &SharedInformerFactory) -> Arc<Self> {
        let rbac = Arc::new(Self::default());
        let this = rbac.clone();
        informers.informer::<ClusterRole>().subscribe(move |event| match event {
            Event::Deleted(role) => this.remove_cluster_role(role),
            other => this.put_cluster_role(other.object()),
        });
        let this = rbac.clone();
        informers.informer::<Role>().subscribe(move |event| match event {
            Event::Deleted(role) => this.remove_role(role),
            other => this.put_role(other.object()),
        });
        let this = rbac.clone();
        informers.informer::<ClusterRoleBinding>().subscribe(move |event| match event {
            Event::Deleted(binding) => this.remove_binding("", &name(&binding.metadata.name)),
            other => this.put_cluster_role_binding(other.object()),
        });
        let this = rbac.clone();
        informers.informer::<RoleBinding>().subscribe(move |event| match event {
            Event::Deleted(binding) => {
                this.remove_binding(&name(&binding.metadata.namespace), &name(&binding.metadata.name));
            }
            other => this.put_role_binding(other.object()),
        });
        rbac
    }

    /// Takes in a cluster role.
    pub fn put_cluster_role(&self, role: &ClusterRole) {
        let rules = Arc::new(role.rules.clone().unwrap_or_default());
        self.state.write().cluster_roles.insert(name(&role.metadata.name), rules);
    }

    fn remove_cluster_role(&self, role: &ClusterRole) {
        self.state.write().cluster_roles.remove(&name(&role.metadata.name));
    }

    /// Takes in a role.
    pub fn put_role(&self, role: &Role) {
        let rules = Arc::new(role.rules.clone().unwrap_or_default());
        self.state.write().roles.insert((name(&role.metadata.namespace), name(&role.metadata.name)), rules);
    }

    fn remove_role(&self, role: &Role) {
        self.state.write().roles.remove(&(name(&role.metadata.namespace), name(&role.metadata.name)));
    }

    /// Takes in a cluster role binding.
    pub fn put_cluster_role_binding(&self, binding: &ClusterRoleBinding) {
        self.put_binding("", &name(&binding.metadata.name), &binding.role_ref, binding.subjects.as_deref());
    }

    /// Takes in a role binding.
    pub fn put_role_binding(&self, binding: &RoleBinding) {
        let (namespace, name) = (name(&binding.metadata.namespace), name(&binding.metadata.name));
        self.put_binding(&namespace, &name, &binding.role_ref, binding.subjects.as_deref());
    }

    fn put_binding(&self, namespace: &str, name: &str, role: &RoleRef, subjects: Option<&[Subject]>) {
        let binding =
            Arc::new(Binding { namespace: namespace.to_owned(), name: name.to_owned(), role: role.clone() });
        let mut state = self.state.write();
        state.remove_binding(namespace, name);
        let grants = state.grants.entry(namespace.to_owned()).or_default();
        for subject in subjects.unwrap_or_default() {
            if let Some((key, shown)) = subject_key(subject, namespace) {
                grants.entry(key).or_default().push(Grant { binding: binding.clone(), subject: shown });
            }
        }
    }

    fn remove_binding(&self, namespace: &str, name: &str) {
        self.state.write().remove_binding(namespace, name);
    }

    /// The rules of the role a binding in `namespace` refers to, if it is known.
    #[must_use]
    pub fn role_rules(&self, role: &RoleRef, namespace: &str) -> Option<Arc<Vec<PolicyRule>>> {
        self.state.read().role_rules(role, namespace).ok()
    }

    /// All rules that apply to a user in a namespace (empty: cluster-wide), and what could not be resolved.
    #[must_use]
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        self.state.read().visit(user, namespace, |_, found| {
            match found {
                Ok(found) => rules.extend(found.iter().cloned()),
                Err(error) => errors.push(error),
            }
            false
        });
        (rules, errors)
    }
}

fn name(name: &Option<String>) -> String {
    name.clone().unwrap_or_default()
}

/// Under which name a subject is found, and how it is shown. A binding without namespace needs one in the subject.
fn subject_key(subject: &Subject, namespace: &str) -> Option<(SubjectKey, String)> {
    let shown = |name: &str| format!("{} {}", subject.kind, go_quote(name));
    match subject.kind.as_str() {
        "User" => Some((SubjectKey::User(subject.name.clone()), shown(&subject.name))),
        "Group" => Some((SubjectKey::Group(subject.name.clone()), shown(&subject.name))),
        "ServiceAccount" => {
            let own = subject.namespace.as_deref().filter(|own| !own.is_empty());
            let namespace = own.unwrap_or(namespace);
            let user = format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{}", subject.name);
            let key = (!namespace.is_empty()).then_some(SubjectKey::User(user))?;
            Some((key, shown(&format!("{}/{namespace}", subject.name))))
        }
        _ => None,
    }
}

impl State {
    fn remove_binding(&mut self, namespace: &str, name: &str) {
        if let Some(grants) = self.grants.get_mut(namespace) {
            grants.retain(|_, list| {
                list.retain(|grant| grant.binding.name != name);
                !list.is_empty()
            });
            if grants.is_empty() {
                self.grants.remove(namespace);
            }
        }
    }

    fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Arc<Vec<PolicyRule>>, String> {
        let found = match role.kind.as_str() {
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone())),
            "ClusterRole" => self.cluster_roles.get(&role.name),
            other => return Err(format!("unsupported role reference kind: {}", go_quote(other))),
        };
        let kind = role.kind.to_lowercase();
        found
            .cloned()
            .ok_or_else(|| format!("{kind}.rbac.authorization.k8s.io {} not found", go_quote(&role.name)))
    }

    /// Shows the rules of every grant of the user until `visit` returns true.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&Grant, Result<Arc<Vec<PolicyRule>>, String>) -> bool,
    ) {
        let subjects = || {
            let groups = user.groups.iter().map(|group| SubjectKey::Group(group.clone()));
            std::iter::once(SubjectKey::User(user.name.clone())).chain(groups)
        };
        for scope in
            [Some(""), Some(namespace).filter(|namespace| !namespace.is_empty())].into_iter().flatten()
        {
            let Some(grants) = self.grants.get(scope) else { continue };
            let mut seen: Vec<&str> = Vec::new();
            for subject in subjects() {
                for grant in grants.get(&subject).into_iter().flatten() {
                    if seen.contains(&grant.binding.name.as_str()) {
                        continue;
                    }
                    seen.push(&grant.binding.name);
                    if visit(grant, self.role_rules(&grant.binding.role, scope)) {
                        return;
                    }
                }
            }
        }
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision {
        let mut allowed = None;
        let mut errors: Vec<String> = Vec::new();
        self.state.read().visit(user, &request.namespace, |grant, found| {
            match found {
                Ok(found) if found.iter().any(|rule| rules::allows(rule, request)) => {
                    allowed = Some(grant.reason());
                }
                Ok(_) => {}
                Err(error) => {
                    if !errors.contains(&error) {
                        errors.push(error);
                    }
                }
            }
            allowed.is_some()
        });
        if let Some(reason) = allowed {
            return Decision::Allow { reason };
        }
        match errors.as_slice() {
            [] => Decision::no_opinion(""),
            [one] => Decision::no_opinion(format!("RBAC: {one}")),
            many => Decision::no_opinion(format!("RBAC: [{}]", many.join(", "))),
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> UserRules {
        let (rules, errors) = self.rules_for(user, namespace);
        let mut out = UserRules { errors, ..UserRules::default() };
        for rule in rules {
            if rule.resources.as_ref().is_some_and(|list| !list.is_empty()) {
                out.resource.push(ResourceRule {
                    verbs: rule.verbs.clone(),
                    api_groups: rule.api_groups,
                    resources: rule.resources,
                    resource_names: rule.resource_names,
                });
            }
            if rule.non_resource_urls.as_ref().is_some_and(|list| !list.is_empty()) {
                let non_resource_urls = rule.non_resource_urls;
                out.non_resource.push(NonResourceRule { verbs: rule.verbs, non_resource_urls });
            }
        }
        out
    }
}

/// How many roles and bindings are known, for metrics and tests.
impl Rbac {
    /// Bindings by namespace.
    #[must_use]
    pub fn bindings(&self) -> BTreeMap<String, usize> {
        let state = self.state.read();
        let count = |grants: &Grants| {
            let mut names: Vec<&str> =
                grants.values().flatten().map(|grant| grant.binding.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            names.len()
        };
        state.grants.iter().map(|(namespace, grants)| (namespace.clone(), count(grants))).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::authz::rules::tests::rule;

    fn meta(namespace: &str, name: &str) -> ObjectMeta {
        let namespace = Some(namespace.to_owned()).filter(|n| !n.is_empty());
        ObjectMeta { name: Some(name.to_owned()), namespace, ..ObjectMeta::default() }
    }

    pub(crate) fn subject(kind: &str, namespace: &str, name: &str) -> Subject {
        let namespace = Some(namespace.to_owned()).filter(|n| !n.is_empty());
        Subject { kind: kind.to_owned(), name: name.to_owned(), namespace, ..Subject::default() }
    }

    fn role_ref(kind: &str, name: &str) -> RoleRef {
        RoleRef { kind: kind.to_owned(), name: name.to_owned(), ..RoleRef::default() }
    }

    pub(crate) fn world() -> Rbac {
        let rbac = Rbac::default();
        let rules = Some(vec![rule("get,list||nodes"), rule("get|url|/a/*")]);
        rbac.put_cluster_role(&ClusterRole { metadata: meta("", "nodes"), rules, ..ClusterRole::default() });
        let rules = Some(vec![rule("get||pods")]);
        rbac.put_role(&Role { metadata: meta("ns", "pods"), rules });
        rbac.put_cluster_role_binding(&ClusterRoleBinding {
            metadata: meta("", "b1"),
            role_ref: role_ref("ClusterRole", "nodes"),
            subjects: Some(vec![subject("Group", "", "dev"), subject("ServiceAccount", "ns", "web")]),
        });
        rbac.put_role_binding(&RoleBinding {
            metadata: meta("ns", "b2"),
            role_ref: role_ref("Role", "pods"),
            subjects: Some(vec![subject("User", "", "alice"), subject("ServiceAccount", "", "web")]),
        });
        rbac.put_role_binding(&RoleBinding {
            metadata: meta("ns", "b3"),
            role_ref: role_ref("Role", "gone"),
            subjects: Some(vec![subject("User", "", "carol")]),
        });
        rbac
    }

    pub(crate) fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        }
    }

    fn request(verb: &str, namespace: &str, resource: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: verb.into(),
            namespace: namespace.into(),
            resource: resource.into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn bindings_permit_in_their_scope_and_say_why() {
        let rbac = world();
        for (who, what, expected) in [
            (
                user("x", &["dev"]),
                request("get", "", "nodes"),
                r#"ClusterRoleBinding "b1" of ClusterRole "nodes" to Group "dev""#,
            ),
            (
                user("x", &["dev"]),
                request("get", "ns", "nodes"),
                r#"ClusterRoleBinding "b1" of ClusterRole "nodes" to Group "dev""#,
            ),
            (
                user("alice", &[]),
                request("get", "ns", "pods"),
                r#"RoleBinding "b2/ns" of Role "pods" to User "alice""#,
            ),
            (
                user("system:serviceaccount:ns:web", &[]),
                request("get", "ns", "pods"),
                r#"RoleBinding "b2/ns" of Role "pods" to ServiceAccount "web/ns""#,
            ),
        ] {
            let reason = format!("RBAC: allowed by {expected}");
            assert_eq!(rbac.authorize(&who, &what), Decision::Allow { reason });
        }
    }

    #[test]
    fn everything_else_is_left_to_others() {
        let rbac = world();
        for (who, what) in [
            (user("x", &["dev"]), request("delete", "", "nodes")),
            (user("alice", &[]), request("get", "other", "pods")),
            (user("alice", &[]), request("get", "", "pods")),
            (user("system:serviceaccount:other:web", &[]), request("get", "ns", "pods")),
        ] {
            assert_eq!(rbac.authorize(&who, &what), Decision::no_opinion(""), "{who:?} {what:?}");
        }
        let missing = rbac.authorize(&user("carol", &[]), &request("get", "ns", "pods"));
        assert_eq!(missing.reason(), r#"RBAC: role.rbac.authorization.k8s.io "gone" not found"#);
    }

    #[test]
    fn changes_take_effect() {
        let rbac = world();
        rbac.put_role_binding(&RoleBinding {
            metadata: meta("ns", "b2"),
            role_ref: role_ref("Role", "pods"),
            subjects: Some(vec![subject("User", "", "bob")]),
        });
        assert!(!rbac.authorize(&user("alice", &[]), &request("get", "ns", "pods")).allowed());
        assert!(rbac.authorize(&user("bob", &[]), &request("get", "ns", "pods")).allowed());
        rbac.remove_binding("ns", "b2");
        assert!(!rbac.authorize(&user("bob", &[]), &request("get", "ns", "pods")).allowed());
        assert_eq!(rbac.bindings(), BTreeMap::from([(String::new(), 1), ("ns".to_owned(), 1)]));
    }

    #[test]
    fn rules_are_told_for_reviews() {
        let rules = world().rules(&user("alice", &["dev"]), "ns");
        assert_eq!((rules.resource.len(), rules.non_resource.len()), (2, 1));
        assert!(!rules.incomplete);
    }
}
