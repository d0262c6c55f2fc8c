//! A webhook that decides (upstream `plugin/pkg/authorizer/webhook`): it is sent a SubjectAccessReview; what it answers
//! is kept for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use api::selector::{FieldSelector, LabelSelector, Operator};
use bytes::Bytes;
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
    SubjectAccessReviewSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldSelectorRequirement, LabelSelectorRequirement};
use metrics::{counter, histogram};
use serde::Deserialize;
use serde_json::{Value, json};

use super::conditions::{Condition, all_hold};
use super::structured::WebhookConfiguration;
use super::{Answer, Authorizer, Decision, UserRules, wait_for};
use crate::authn::User;
use crate::request::RequestInfo;
use crate::ttl_cache::TtlCache;
use crate::webhook::{CallError, Client};

/// How many answers are kept.
const KEPT: usize = 8192;
/// Answers to longer questions are not kept: who asks could fill the memory.
const LONGEST: usize = 10_000;

/// Asks a webhook.
pub struct Webhook {
    name: String,
    client: Client,
    config: WebhookConfiguration,
    conditions: Vec<Condition>,
    kept: TtlCache<Vec<u8>, Verdict>,
}

/// What a webhook has answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Verdict {
    allowed: bool,
    denied: bool,
    reason: String,
}

impl Webhook {
    /// Asks through `client`, as the configuration says.
    #[must_use]
    pub fn new(name: &str, client: Client, config: WebhookConfiguration, conditions: Vec<Condition>) -> Self {
        Self { name: name.to_owned(), client, config, conditions, kept: TtlCache::new(KEPT) }
    }

    fn failed(&self, error: String) -> Decision {
        Decision::Failed { denies: self.config.failure_policy == "Deny", error }
    }

    fn matches(&self, review: &SubjectAccessReviewSpec) -> Result<bool, String> {
        if self.conditions.is_empty() {
            return Ok(true);
        }
        let labels = || [("type", "Webhook".to_owned()), ("name", self.name.clone())];
        let begin = std::time::Instant::now();
        let found = all_hold(&self.conditions, review);
        histogram!("apiserver_authorization_match_condition_evaluation_seconds", &labels())
            .record(begin.elapsed().as_secs_f64());
        match &found {
            Ok(true) => {}
            Ok(false) => {
                counter!("apiserver_authorization_match_condition_exclusions_total", &labels()).increment(1);
            }
            Err(_) => {
                counter!("apiserver_authorization_match_condition_evaluation_errors_total", &labels())
                    .increment(1);
            }
        }
        found
    }

    async fn ask(&self, key: Vec<u8>, review: SubjectAccessReviewSpec, keeps: bool) -> Decision {
        let ask = || async {
            let verdict = self.post(review).await?;
            let ttl = if keeps { self.config.ttl(verdict.allowed) } else { Duration::ZERO };
            Ok((verdict, ttl))
        };
        match self.kept.get_or_make(key, ask).await {
            Ok(verdict) => verdict.decision(),
            Err(error) => self.failed(error),
        }
    }

    async fn post(&self, review: SubjectAccessReviewSpec) -> Result<Verdict, String> {
        let version = self.config.subject_access_review_version.as_str();
        let api_version = format!("authorization.k8s.io/{version}");
        let mut spec = serde_json::to_value(&review).map_err(|error| error.to_string())?;
        // The first version had another word for them.
        if let (Some(groups), true) =
            (spec.as_object_mut().and_then(|spec| spec.remove("groups")), version == "v1beta1")
        {
            spec["group"] = groups;
        } else if let Some(groups) = review.groups {
            spec["groups"] = json!(groups);
        }
        let body = json!({
            "kind": "SubjectAccessReview", "apiVersion": api_version, "metadata": {}, "spec": spec,
            "status": {"allowed": false},
        });
        let told = |outcome: Result<(), &CallError>, took: Duration| self.count(outcome, took);
        let answer = self.client.post_again(Bytes::from(body.to_string()), told).await.map_err(|error| {
            tracing::warn!(%error, webhook = self.name, "failed to make webhook authorizer request");
            if self.config.failure_policy != "Deny" {
                counter!("apiserver_authorization_webhook_evaluations_fail_open_total",
                    "name" => self.name.clone(), "result" => result(Err(&error)))
                .increment(1);
            }
            error.to_string()
        })?;
        read(&answer, &api_version)
    }

    fn count(&self, outcome: Result<(), &CallError>, took: Duration) {
        let labels = [("name", self.name.clone()), ("result", result(outcome).to_owned())];
        counter!("apiserver_authorization_webhook_evaluations_total", &labels).increment(1);
        histogram!("apiserver_authorization_webhook_duration_seconds", &labels).record(took.as_secs_f64());
    }
}

fn result(outcome: Result<(), &CallError>) -> &'static str {
    match outcome {
        Ok(()) => "success",
        Err(error) if error.late => "timeout",
        Err(_) => "error",
    }
}

/// What the webhook says, if it is a review of the version it was asked in.
fn read(answer: &Value, api_version: &str) -> Result<Verdict, String> {
    if answer["kind"] != "SubjectAccessReview" || answer["apiVersion"] != api_version {
        let (kind, version) = (&answer["kind"], &answer["apiVersion"]);
        return Err(format!("no kind {kind} is registered for version {version}"));
    }
    let status = answer.get("status").cloned().unwrap_or_else(|| json!({}));
    serde_json::from_value(crate::config_file::without_nulls(status))
        .map_err(|error| format!("unable to decode the answer of the webhook: {error}"))
}

impl Verdict {
    fn decision(self) -> Decision {
        match (self.allowed, self.denied) {
            (true, true) => {
                let error = "webhook subject access review returned both allow and deny response";
                Decision::Failed { denies: true, error: error.to_owned() }
            }
            (_, true) => Decision::Deny { reason: self.reason },
            (true, _) => Decision::Allow { reason: self.reason },
            (false, false) => Decision::NoOpinion { reason: self.reason },
        }
    }
}

impl Authorizer for Webhook {
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision {
        wait_for(self.decide(user, request))
    }

    fn decide<'a>(&'a self, user: &'a User, request: &'a RequestInfo) -> Answer<'a> {
        let review = review(user, request);
        match self.matches(&review) {
            Ok(true) => {}
            Ok(false) => return Answer::Now(Decision::no_opinion("")),
            Err(error) => return Answer::Now(self.failed(error)),
        }
        let key = serde_json::to_vec(&review).unwrap_or_default();
        if let Some(verdict) = self.kept.get(&key) {
            return Answer::Now(verdict.decision());
        }
        Answer::Later(Box::pin(self.ask(key, review, controlled(request) < LONGEST)))
    }

    fn rules(&self, _: &User, _: &str) -> UserRules {
        let error = "webhook authorizer does not support user rule resolution".to_owned();
        UserRules { incomplete: true, errors: vec![error], ..UserRules::default() }
    }

    fn is_remote(&self) -> bool {
        true
    }
}

/// How much of a question is what the client likes.
fn controlled(request: &RequestInfo) -> usize {
    let RequestInfo { namespace, verb, group, version, resource, subresource, name, path, .. } = request;
    [namespace, verb, group, version, resource, subresource, name, path].iter().map(|text| text.len()).sum()
}

/// What a webhook is asked.
fn review(user: &User, request: &RequestInfo) -> SubjectAccessReviewSpec {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let extra: BTreeMap<_, _> = user.extra.clone();
    let mut review = SubjectAccessReviewSpec {
        user: some(&user.name),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()).filter(|groups| !groups.is_empty()),
        extra: Some(extra).filter(|extra| !extra.is_empty()),
        ..SubjectAccessReviewSpec::default()
    };
    if !request.is_resource {
        review.non_resource_attributes =
            Some(NonResourceAttributes { path: some(&request.path), verb: some(&request.verb) });
        return review;
    }
    review.resource_attributes = Some(ResourceAttributes {
        namespace: some(&request.namespace),
        verb: some(&request.verb),
        group: some(&request.group),
        version: some(&request.version),
        resource: some(&request.resource),
        subresource: some(&request.subresource),
        name: some(&request.name),
        field_selector: field_selector(&request.field_selector),
        label_selector: label_selector(&request.label_selector),
    });
    review
}

/// A selector that cannot be read is left out: the question is then about more, not about less.
fn field_selector(text: &str) -> Option<FieldSelectorAttributes> {
    let requirements = FieldSelector::parse(text).ok()?.requirements;
    let requirements: Vec<_> = requirements
        .into_iter()
        .map(|requirement| FieldSelectorRequirement {
            key: requirement.field,
            operator: if requirement.equals { "In" } else { "NotIn" }.to_owned(),
            values: Some(vec![requirement.value]),
        })
        .collect();
    let attributes =
        FieldSelectorAttributes { requirements: Some(requirements), ..FieldSelectorAttributes::default() };
    Some(attributes).filter(|selector| selector.requirements.as_ref().is_some_and(|list| !list.is_empty()))
}

fn label_selector(text: &str) -> Option<LabelSelectorAttributes> {
    let selector = LabelSelector::parse(text).ok()?;
    let requirement = |requirement: &api::selector::Requirement| {
        let operator = match requirement.operator() {
            Operator::In | Operator::Equals | Operator::DoubleEquals => "In",
            Operator::NotIn | Operator::NotEquals => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            // There is no word for it in a review, which then is about more.
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        Some(LabelSelectorRequirement {
            key: requirement.key().to_owned(),
            operator: operator.to_owned(),
            values: Some(requirement.values().to_vec()).filter(|values| !values.is_empty()),
        })
    };
    let requirements: Vec<_> = selector.requirements().iter().filter_map(requirement).collect();
    if requirements.is_empty() {
        return None;
    }
    Some(LabelSelectorAttributes { requirements: Some(requirements), ..LabelSelectorAttributes::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: "list".into(),
            version: "v1".into(),
            resource: "pods".into(),
            namespace: "ns".into(),
            ..RequestInfo::default()
        }
    }

    #[test]
    fn reviews_say_all_that_is_asked() {
        let user = User {
            name: "jane".into(),
            uid: "1".into(),
            groups: vec!["dev".into()],
            extra: BTreeMap::from([("k".to_owned(), vec!["v".to_owned()])]),
        };
        let asked = RequestInfo {
            field_selector: "spec.nodeName=a,metadata.name!=b".into(),
            label_selector: "x in (1,2),!y,z>3".into(),
            ..request()
        };
        let expected = json!({
            "user": "jane", "uid": "1", "groups": ["dev"], "extra": {"k": ["v"]},
            "resourceAttributes": {
                "namespace": "ns", "verb": "list", "version": "v1", "resource": "pods",
                "fieldSelector": {"requirements": [
                    {"key": "metadata.name", "operator": "NotIn", "values": ["b"]},
                    {"key": "spec.nodeName", "operator": "In", "values": ["a"]},
                ]},
                "labelSelector": {"requirements": [
                    {"key": "x", "operator": "In", "values": ["1", "2"]},
                    {"key": "y", "operator": "DoesNotExist"},
                ]},
            },
        });
        assert_eq!(json!(review(&user, &asked)), expected);
        let path = RequestInfo { path: "/x".into(), verb: "get".into(), ..RequestInfo::default() };
        let expected = json!({"user": "u", "nonResourceAttributes": {"path": "/x", "verb": "get"}});
        assert_eq!(json!(review(&User { name: "u".into(), ..User::default() }, &path)), expected);
        let broken = RequestInfo { field_selector: "a".into(), label_selector: "(".into(), ..request() };
        let attributes = review(&user, &broken).resource_attributes.expect("a resource");
        assert_eq!((attributes.field_selector, attributes.label_selector), (None, None));
    }

    #[test]
    fn answers_are_decisions() {
        let version = "authorization.k8s.io/v1";
        let decided = |status: Value| {
            let answer = json!({"kind": "SubjectAccessReview", "apiVersion": version, "status": status});
            read(&answer, version).map(Verdict::decision)
        };
        let reason = || "why".to_owned();
        for (status, expected) in [
            (json!({"allowed": true}), Decision::allow()),
            (json!({"allowed": false, "reason": "why"}), Decision::NoOpinion { reason: reason() }),
            (json!({"denied": true, "reason": "why"}), Decision::Deny { reason: reason() }),
            (json!({}), Decision::no_opinion("")),
            (
                json!({"allowed": true, "denied": true}),
                Decision::Failed {
                    denies: true,
                    error: "webhook subject access review returned both allow and deny response".to_owned(),
                },
            ),
        ] {
            assert_eq!(decided(status.clone()), Ok(expected), "{status}");
        }
        assert!(decided(json!({"allowed": "yes"})).is_err());
        for answer in [
            json!({}),
            json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1beta1",
                   "status": {"allowed": true}}),
            json!({"kind": "TokenReview", "apiVersion": version, "status": {"allowed": true}}),
        ] {
            assert!(read(&answer, version).is_err(), "{answer}");
        }
    }
}
