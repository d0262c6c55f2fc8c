//! May they: the authorizers and their union (upstream `authorization/authorizer`).
//!
//! Every decision is made from memory (informers feed what the authorizers know), but for those of webhooks.

pub mod abac;
pub mod conditions;
pub mod escalation;
pub mod node;
pub mod rbac;
pub mod reviews;
pub mod rules;
pub mod setup;
pub mod structured;
pub mod webhook;

use std::sync::Arc;

use api::names::GroupResource;
use api::status::ApiError;
use futures::future::BoxFuture;
use k8s_openapi::api::authorization::v1::{NonResourceRule, ResourceRule};
use tokio::runtime::RuntimeFlavor;

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
    /// An authorizer could not decide.
    Failed {
        /// Whether that refuses, or the next authorizer decides.
        denies: bool,
        /// Why it could not.
        error: String,
    },
}

/// A decision, now or when somebody else has been asked.
pub enum Answer<'a> {
    /// It has been made.
    Now(Decision),
    /// It is waited for.
    Later(BoxFuture<'a, Decision>),
}

impl Answer<'_> {
    /// The decision.
    pub async fn get(self) -> Decision {
        match self {
            Self::Now(decision) => decision,
            Self::Later(decision) => decision.await,
        }
    }
}

/// The decision, for those who cannot wait for it otherwise: blocks this thread while its work goes on elsewhere.
#[must_use]
pub fn wait_for(answer: Answer<'_>) -> Decision {
    let later = match answer {
        Answer::Now(decision) => return decision,
        Answer::Later(later) => later,
    };
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| runtime.block_on(later))
        }
        // Nobody else could do what is waited for.
        _ => Decision::Failed { denies: false, error: "a webhook cannot be asked from here".to_owned() },
    }
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
            Self::Failed { error, .. } => error,
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
    /// The decision. Blocks if somebody else must be asked.
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision;

    /// The decision, without blocking.
    fn decide<'a>(&'a self, user: &'a User, request: &'a RequestInfo) -> Answer<'a> {
        Answer::Now(self.authorize(user, request))
    }

    /// Whether somebody else may have to be asked.
    fn is_remote(&self) -> bool {
        false
    }

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
        wait_for(self.decide(user, request))
    }

    fn decide<'a>(&'a self, user: &'a User, request: &'a RequestInfo) -> Answer<'a> {
        let mut heard = Heard::default();
        for (i, authorizer) in self.0.iter().enumerate() {
            match authorizer.decide(user, request) {
                Answer::Now(decision) => {
                    if let Some(decided) = heard.add(decision) {
                        return Answer::Now(decided);
                    }
                }
                Answer::Later(decision) => {
                    let rest = &self.0[i + 1..];
                    return Answer::Later(Box::pin(async move {
                        if let Some(decided) = heard.add(decision.await) {
                            return decided;
                        }
                        for authorizer in rest {
                            if let Some(decided) = heard.add(authorizer.decide(user, request).get().await) {
                                return decided;
                            }
                        }
                        heard.sum()
                    }));
                }
            }
        }
        Answer::Now(heard.sum())
    }

    fn is_remote(&self) -> bool {
        self.0.iter().any(|authorizer| authorizer.is_remote())
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

/// What authorizers without an opinion have said.
#[derive(Default)]
struct Heard {
    reasons: Vec<String>,
    errors: Vec<String>,
}

impl Heard {
    /// The decision, if it is one; else it is remembered.
    fn add(&mut self, decision: Decision) -> Option<Decision> {
        match decision {
            Decision::NoOpinion { reason } => {
                if !reason.is_empty() {
                    self.reasons.push(reason);
                }
                None
            }
            Decision::Failed { denies: false, error } => {
                self.errors.push(error);
                None
            }
            decided => Some(decided),
        }
    }

    fn sum(self) -> Decision {
        match self.errors.as_slice() {
            [] => Decision::no_opinion(self.reasons.join("\n")),
            [one] => Decision::Failed { denies: false, error: one.clone() },
            many => Decision::Failed { denies: false, error: format!("[{}]", many.join(", ")) },
        }
    }
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
        Decision::Failed { error, .. } => Err(ApiError::internal(error)),
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

    /// Says the same to everybody; at once, or later.
    struct Says(Decision, bool);

    impl Authorizer for Says {
        fn authorize(&self, _: &User, _: &RequestInfo) -> Decision {
            self.0.clone()
        }

        fn decide<'a>(&'a self, _: &'a User, _: &'a RequestInfo) -> Answer<'a> {
            if self.1 {
                Answer::Later(Box::pin(async { self.0.clone() }))
            } else {
                Answer::Now(self.0.clone())
            }
        }
    }

    #[tokio::test]
    async fn those_who_are_asked_late_decide_in_their_turn() {
        let failed = |denies, error: &str| Decision::Failed { denies, error: error.to_owned() };
        let deny = || Decision::Deny { reason: "no".to_owned() };
        for (said, expected) in [
            (vec![Decision::no_opinion("a"), Decision::no_opinion("b")], Decision::no_opinion("a\nb")),
            (vec![Decision::no_opinion("a"), Decision::allow(), deny()], Decision::allow()),
            (vec![deny(), Decision::allow()], deny()),
            (vec![failed(false, "x"), Decision::allow()], Decision::allow()),
            (vec![failed(true, "x"), Decision::allow()], failed(true, "x")),
            (vec![failed(false, "x"), Decision::no_opinion("a")], failed(false, "x")),
            (vec![failed(false, "x"), failed(false, "y")], failed(false, "[x, y]")),
        ] {
            for late in 0..1 << said.len() {
                let one = |(i, decision): (usize, &Decision)| {
                    Arc::new(Says(decision.clone(), late & (1 << i) > 0)) as Arc<dyn Authorizer>
                };
                let union = Union::new(said.iter().enumerate().map(one).collect());
                let (nobody, nothing) = (user("x", &[]), RequestInfo::default());
                let found = union.decide(&nobody, &nothing).get().await;
                assert_eq!(found, expected, "{said:?} {late:b}");
            }
        }
    }
}
