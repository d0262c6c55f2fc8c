//! May they: the authorizers and their union (upstream `authorization/authorizer`).
//!
//! Every decision is made from memory: informers feed what the authorizers know.

pub mod escalation;
pub mod node;
pub mod rbac;
pub mod reviews;
pub mod rules;

use std::sync::Arc;

use api::names::GroupResource;
use api::status::ApiError;
use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule};

use crate::authn::{MASTERS, User};
use crate::request::RequestInfo;

/// What an authorizer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Permitted; the reason goes into the audit log and access reviews.
    Allow {
        /// Why, for example `RBAC: allowed by ClusterRoleBinding "cluster-admin" of ...`.
        reason: String,
    },
    /// Refused, whatever other authorizers say.
    Deny {
        /// Why.
        reason: String,
    },
    /// Not for me to say; the next authorizer decides. Refused if nobody allows.
    NoOpinion {
        /// Why not, if there is something to say.
        reason: String,
    },
}

impl Decision {
    /// Allowed without a word.
    #[must_use]
    pub fn allow() -> Self {
        Self::Allow { reason: String::new() }
    }

    /// No opinion, and why.
    pub fn no_opinion(reason: impl Into<String>) -> Self {
        Self::NoOpinion { reason: reason.into() }
    }

    /// Whether the decision permits.
    #[must_use]
    pub fn allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The reason given.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow { reason } | Self::Deny { reason } | Self::NoOpinion { reason } => reason,
        }
    }
}

/// The rules an authorizer knows about a user in a namespace (upstream `RuleResolver`).
#[derive(Clone, Debug, Default)]
pub struct UserRules {
    /// Rules about resources.
    pub resource: Vec<ResourceRule>,
    /// Rules about URLs.
    pub non_resource: Vec<NonResourceRule>,
    /// Whether there may be more than can be told.
    pub incomplete: bool,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// Decides whether `user` may do what `request` asks. Decides from memory, never from the store.
pub trait Authorizer: Send + Sync + 'static {
    /// The decision.
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision;

    /// What the user may do in a namespace, as far as this authorizer can tell.
    fn rules(&self, _user: &User, _namespace: &str) -> UserRules {
        UserRules::default()
    }
}

/// Members of `system:masters` may do everything.
pub struct Superusers;

impl Authorizer for Superusers {
    fn authorize(&self, user: &User, _request: &RequestInfo) -> Decision {
        if user.in_group(MASTERS) { Decision::allow() } else { Decision::no_opinion("") }
    }
}

/// `--authorization-mode=AlwaysAllow`.
pub struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _user: &User, _request: &RequestInfo) -> Decision {
        Decision::allow()
    }

    fn rules(&self, _user: &User, _namespace: &str) -> UserRules {
        let all = || vec!["*".to_owned()];
        let resource = ResourceRule {
            api_groups: Some(all()),
            resources: Some(all()),
            verbs: all(),
            resource_names: None,
        };
        let non_resource = NonResourceRule { non_resource_urls: Some(all()), verbs: all() };
        UserRules { resource: vec![resource], non_resource: vec![non_resource], ..UserRules::default() }
    }
}

/// `--authorization-mode=AlwaysDeny`.
pub struct AlwaysDeny;

impl Authorizer for AlwaysDeny {
    fn authorize(&self, _user: &User, _request: &RequestInfo) -> Decision {
        Decision::no_opinion("Everything is forbidden.")
    }
}

/// Several authorizers: the first that has an opinion decides.
#[derive(Clone)]
pub struct Union(Vec<Arc<dyn Authorizer>>);

impl Union {
    /// Asks `authorizers` in this order.
    #[must_use]
    pub fn new(authorizers: Vec<Arc<dyn Authorizer>>) -> Self {
        Self(authorizers)
    }
}

impl Authorizer for Union {
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision {
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(user, request) {
                Decision::NoOpinion { reason } => {
                    if !reason.is_empty() {
                        reasons.push(reason);
                    }
                }
                decided => return decided,
            }
        }
        Decision::no_opinion(reasons.join("\n"))
    }

    fn rules(&self, user: &User, namespace: &str) -> UserRules {
        let mut all = UserRules::default();
        for authorizer in &self.0 {
            let rules = authorizer.rules(user, namespace);
            all.resource.extend(rules.resource);
            all.non_resource.extend(rules.non_resource);
            all.incomplete |= rules.incomplete;
            all.errors.extend(rules.errors);
        }
        all
    }
}

/// The mode an authorizer is configured by is not known.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown authorization mode {0}: must be one of AlwaysAllow, AlwaysDeny, Node, RBAC")]
pub struct UnknownMode(pub String);

/// The authorizers of `--authorization-mode`, after the one for superusers. RBAC is given too, for those who resolve
/// rules; it is there whether or not it decides.
pub fn setup(
    modes: &[String],
    informers: &client::SharedInformerFactory,
) -> Result<(Union, Arc<rbac::Rbac>), UnknownMode> {
    let rbac = rbac::Rbac::new(informers);
    let mut authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Superusers)];
    for mode in modes {
        authorizers.push(match mode.as_str() {
            "Node" => Arc::new(node::NodeAuthorizer::new(informers)),
            "RBAC" => rbac.clone(),
            "AlwaysAllow" => Arc::new(AlwaysAllow),
            "AlwaysDeny" => Arc::new(AlwaysDeny),
            other => return Err(UnknownMode(other.to_owned())),
        });
    }
    Ok((Union::new(authorizers), rbac))
}

/// Decides, and turns a refusal into the error the client gets.
pub fn check(authorizer: &dyn Authorizer, user: &User, request: &RequestInfo) -> Result<(), ApiError> {
    permit(authorizer.authorize(user, request), user, request)
}

/// Turns a decision that refuses into the error the client gets.
pub fn permit(decision: Decision, user: &User, request: &RequestInfo) -> Result<(), ApiError> {
    match decision {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(forbidden(user, request, &reason)),
    }
}

/// 403, as upstream words it (`responsewriters.ForbiddenStatusError`).
#[must_use]
pub fn forbidden(user: &User, request: &RequestInfo, reason: &str) -> ApiError {
    let name = go_quote(&user.name);
    let message = if request.is_resource {
        let resource = if request.subresource.is_empty() {
            request.resource.clone()
        } else {
            format!("{}/{}", request.resource, request.subresource)
        };
        let scope = if request.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {}", go_quote(&request.namespace))
        };
        let (verb, group) = (&request.verb, go_quote(&request.group));
        format!("User {name} cannot {verb} resource {} in API group {group} {scope}", go_quote(&resource))
    } else {
        format!("User {name} cannot {} path {}", request.verb, go_quote(&request.path))
    };
    // Nothing in the message may look like HTML.
    let mut message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    if !reason.is_empty() {
        message.push_str(": ");
        message.push_str(reason);
    }
    let resource = GroupResource::new(request.group.clone(), request.resource.clone());
    ApiError::forbidden(&resource, &request.name, &message)
}

/// A string as Go prints it with `%q`.
#[must_use]
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if u32::from(c) < 0x20 || u32::from(c) == 0x7f => {
                out.push_str(&format!("\\x{:02x}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Quoted strings, separated.
#[must_use]
pub fn go_strings(list: &[String], separator: &str) -> String {
    list.iter().map(|item| go_quote(item)).collect::<Vec<_>>().join(separator)
}

/// A list of strings as Go prints it with `%q`: `["a" "b"]`.
#[must_use]
pub fn go_list(list: &[String]) -> String {
    format!("[{}]", go_strings(list, " "))
}

/// An error of the loopback client as the error of this request.
#[must_use]
pub fn from_client(error: kube::Error) -> ApiError {
    let kube::Error::Api(status) = error else { return ApiError::internal(error) };
    let value = serde_json::to_value(&*status).unwrap_or_default();
    match serde_json::from_value(value) {
        Ok(status) => ApiError { status: Box::new(status) },
        Err(error) => ApiError::internal(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..User::default()
        }
    }

    #[test]
    fn refusals_are_worded_as_upstream_does() {
        let list = RequestInfo {
            is_resource: true,
            verb: "list".into(),
            resource: "pods".into(),
            namespace: "y".into(),
            ..RequestInfo::default()
        };
        let log =
            RequestInfo { verb: "get".into(), subresource: "log".into(), name: "p".into(), ..list.clone() };
        let scale = RequestInfo {
            group: "apps".into(),
            resource: "deployments".into(),
            namespace: String::new(),
            ..log.clone()
        };
        let path = RequestInfo { verb: "get".into(), path: "/a<b".into(), ..RequestInfo::default() };
        for (request, reason, expected) in [
            (
                &list,
                "",
                r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#,
            ),
            (
                &log,
                "why",
                r#"pods "p" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "y": why"#,
            ),
            (
                &scale,
                "",
                r#"deployments.apps "p" is forbidden: User "x" cannot get resource "deployments/log" in API group "apps" at the cluster scope"#,
            ),
            (&path, "", r#"forbidden: User "x" cannot get path "/a&lt;b""#),
        ] {
            assert_eq!(forbidden(&user("x", &[]), request, reason).message(), expected);
        }
    }

    #[test]
    fn the_first_opinion_counts() {
        let request = RequestInfo::default();
        let union = Union::new(vec![Arc::new(Superusers), Arc::new(AlwaysDeny)]);
        assert!(union.authorize(&user("root", &[MASTERS]), &request).allowed());
        let refused = union.authorize(&user("x", &[]), &request);
        assert_eq!(refused, Decision::no_opinion("Everything is forbidden."));
    }
}
