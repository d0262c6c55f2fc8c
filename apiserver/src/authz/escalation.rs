//! Nobody grants what they do not have: checks before roles and bindings are written (upstream
//! `pkg/registry/rbac/*/policybased`).

use std::sync::Arc;

use api::names::GroupResource;
use api::status::ApiError;
use client::Client;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role, RoleRef};
use kube::Api;
use serde_json::Value;

use super::rbac::Rbac;
use super::{Authorizer, go_list, go_quote, rules};
use crate::authn::{MASTERS, User};
use crate::request::RequestInfo;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Checks writes of `roles`, `clusterroles`, `rolebindings` and `clusterrolebindings`.
pub struct Escalation {
    rbac: Arc<Rbac>,
    authorizer: Arc<dyn Authorizer>,
    client: Client,
}

impl Escalation {
    /// `client`: for roles the informers do not know (yet).
    #[must_use]
    pub fn new(rbac: Arc<Rbac>, authorizer: Arc<dyn Authorizer>, client: Client) -> Self {
        Self { rbac, authorizer, client }
    }

    /// Whether `request` is one this is about.
    #[must_use]
    pub fn concerns(request: &RequestInfo) -> bool {
        request.group == GROUP
            && matches!(
                request.resource.as_str(),
                "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings"
            )
    }

    /// Refuses the object if `user` may not write it. Called before it is validated; `old` is none for a create.
    pub async fn check(
        &self,
        user: &User,
        request: &RequestInfo,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let exempt = !Self::concerns(request) || user.in_group(MASTERS);
        if exempt || old.is_some_and(|old| same_but_for_deletion(object, old)) {
            return Ok(());
        }
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let forbid = |why: &str| Err(ApiError::forbidden(&resource(request), name, why));
        match request.resource.as_str() {
            "roles" | "clusterroles" => {
                if self.may(user, request, "escalate", &request.resource, &request.name).await {
                    return Ok(());
                }
                if let Some(why) = self.exceeds(user, &request.namespace, &rules_of(object)) {
                    return forbid(&why);
                }
                let aggregates = aggregates(object) || old.is_some_and(aggregates);
                if aggregates && self.exceeds(user, &request.namespace, &full_authority()).is_some() {
                    return forbid("must have cluster-admin privileges to use the aggregationRule");
                }
            }
            _ => {
                let role: RoleRef = serde_json::from_value(object["roleRef"].clone()).unwrap_or_default();
                let plural = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
                if self.may(user, request, "bind", plural, &role.name).await {
                    return Ok(());
                }
                let granted = self.rules_of_role(request, &role).await?;
                if let Some(why) = self.exceeds(user, &request.namespace, &granted) {
                    return forbid(&why);
                }
            }
        }
        Ok(())
    }

    async fn may(&self, user: &User, request: &RequestInfo, verb: &str, resource: &str, name: &str) -> bool {
        let asked = RequestInfo {
            is_resource: true,
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: resource.to_owned(),
            namespace: request.namespace.clone(),
            name: name.to_owned(),
            ..RequestInfo::default()
        };
        self.authorizer.decide(user, &asked).get().await.allowed()
    }

    /// Why these rules are more than the user has; `None` if they are not.
    fn exceeds(&self, user: &User, namespace: &str, asked: &[PolicyRule]) -> Option<String> {
        let (owned, errors) = self.rbac.rules_for(user, namespace);
        let missing = rules::not_covered(&owned, asked);
        if missing.is_empty() {
            return None;
        }
        let mut why = format!(
            "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            go_quote(&user.name),
            go_list(&user.groups),
            rules::describe(&missing).join("\n")
        );
        if !errors.is_empty() {
            let errors =
                if errors.len() == 1 { errors[0].clone() } else { format!("[{}]", errors.join(", ")) };
            why.push_str(&format!("; resolution errors: [{errors}]"));
        }
        Some(why)
    }

    async fn rules_of_role(
        &self,
        request: &RequestInfo,
        role: &RoleRef,
    ) -> Result<Vec<PolicyRule>, ApiError> {
        if let Some(rules) = self.rbac.role_rules(role, &request.namespace) {
            return Ok(rules.to_vec());
        }
        let found = if role.kind == "ClusterRole" {
            let api = Api::<ClusterRole>::all(self.client.clone());
            api.get_opt(&role.name).await.map(|role| role.map(|role| role.rules))
        } else {
            let api = Api::<Role>::namespaced(self.client.clone(), &request.namespace);
            api.get_opt(&role.name).await.map(|role| role.map(|role| role.rules))
        };
        match found {
            Ok(Some(rules)) => Ok(rules.unwrap_or_default()),
            Ok(None) => Err(ApiError::not_found(&resource(request), &role.name)),
            Err(error) => Err(super::from_client(error)),
        }
    }
}

fn resource(request: &RequestInfo) -> GroupResource {
    GroupResource::new(request.group.clone(), request.resource.clone())
}

fn rules_of(object: &Value) -> Vec<PolicyRule> {
    serde_json::from_value(object["rules"].clone()).unwrap_or_default()
}

fn aggregates(object: &Value) -> bool {
    object["aggregationRule"]["clusterRoleSelectors"]
        .as_array()
        .is_some_and(|selectors| !selectors.is_empty())
}

fn full_authority() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), api_groups: Some(all()), resources: Some(all()), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: Some(all()), ..PolicyRule::default() },
    ]
}

/// Whether only what the garbage collector needs to change has changed.
fn same_but_for_deletion(object: &Value, old: &Value) -> bool {
    let strip = |value: &Value| {
        let mut value = value.clone();
        if let Some(meta) = value["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields"] {
                meta.remove(field);
            }
        }
        value
    };
    strip(object) == strip(old)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::rbac::tests::{user, world};

    fn escalation() -> Escalation {
        let rbac = Arc::new(world());
        // A service that must not be asked: the cases need no role the cache does not know.
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
            let response = http::Response::builder()
                .status(404)
                .body(kube::client::Body::from(body.to_string().into_bytes()));
            Ok::<_, std::convert::Infallible>(response.expect("response"))
        });
        Escalation::new(rbac.clone(), rbac, Client::new(service, "default"))
    }

    fn request(resource: &str, namespace: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: "create".into(),
            group: GROUP.into(),
            version: "v1".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            ..RequestInfo::default()
        }
    }

    fn role(verbs: &[&str], resource: &str) -> Value {
        json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": verbs}]})
    }

    #[tokio::test]
    async fn roles_may_not_exceed_their_author() {
        let escalation = escalation();
        let alice = user("alice", &["system:authenticated"]);
        let roles = request("roles", "ns");
        assert!(escalation.check(&alice, &roles, &role(&["get"], "pods"), None).await.is_ok());
        let error =
            escalation.check(&alice, &roles, &role(&["get", "list"], "pods"), None).await.expect_err("more");
        assert_eq!(
            error.message(),
            "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is \
             attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], \
             Verbs:[\"list\"]}"
        );
        let masters = user("root", &[MASTERS]);
        assert!(escalation.check(&masters, &roles, &role(&["*"], "*"), None).await.is_ok());
    }

    #[tokio::test]
    async fn only_references_may_change_freely() {
        let escalation = escalation();
        let alice = user("alice", &[]);
        let old = role(&["*"], "secrets");
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["x"]);
        let roles = request("roles", "ns");
        assert!(escalation.check(&alice, &roles, &new, Some(&old)).await.is_ok());
        new["metadata"]["labels"] = json!({"a": "b"});
        assert!(escalation.check(&alice, &roles, &new, Some(&old)).await.is_err());
    }

    #[tokio::test]
    async fn bindings_may_not_exceed_their_author() {
        let escalation = escalation();
        let binding = |kind: &str, name: &str| json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name}});
        let check = async |user: User, object: Value| {
            escalation.check(&user, &request("rolebindings", "ns"), &object, None).await
        };
        assert!(check(user("alice", &[]), binding("Role", "pods")).await.is_ok());
        assert_eq!(check(user("bob", &[]), binding("Role", "pods")).await.expect_err("not held").code(), 403);
        let error = check(user("bob", &[]), binding("Role", "nothere")).await.expect_err("absent");
        assert_eq!(error.message(), "rolebindings.rbac.authorization.k8s.io \"nothere\" not found");
    }

    #[tokio::test]
    async fn aggregation_needs_everything() {
        let object = json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
        let error = escalation().check(&user("x", &[]), &request("clusterroles", ""), &object, None).await;
        assert_eq!(
            error.expect_err("refused").message(),
            "clusterroles.rbac.authorization.k8s.io \"r\" is forbidden: must have cluster-admin privileges to use the \
             aggregationRule"
        );
    }
}
