//! ValidatingAdmissionPolicy: refuses, warns of, or notes what expressions find wrong (upstream
//! `policy/validating/dispatcher.go`).

mod validator;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api::status::ApiError;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, ParamKind, ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde::Serialize;
use serde_json::Value;

use super::source::{Bound, Hook, Policy, Source};
use super::{is_excluded, params};
use crate::admission::expressions::{Facts, namespace_object};
use crate::admission::matching::{Matched, Matcher};
use crate::admission::metrics;
use crate::admission::{Attributes, Deps, Plugin, Verdict};
use crate::authz::Authorizer;
use crate::registry::Registry;
use validator::{Decision, Note, Request, Validator};

/// Under which failed validations are noted in the audit log.
const FAILURE_KEY: &str = "validation.policy.admission.k8s.io/validation_failure";
/// The longest value of an audit annotation, in bytes.
const MAX_ANNOTATION: usize = 10 * 1024;

impl Policy for ValidatingAdmissionPolicy {
    type Binding = ValidatingAdmissionPolicyBinding;
    type Compiled = Validator;

    fn bound(binding: &Self::Binding) -> &str {
        &binding.spec.policy_name
    }

    fn narrowed(binding: &Self::Binding) -> Option<&MatchResources> {
        binding.spec.match_resources.as_ref()
    }

    fn param_ref(binding: &Self::Binding) -> Option<&ParamRef> {
        binding.spec.param_ref.as_ref()
    }

    fn constraints(&self) -> Option<&MatchResources> {
        self.spec.as_ref()?.match_constraints.as_ref()
    }

    fn param_kind(&self) -> Option<&ParamKind> {
        self.spec.as_ref()?.param_kind.as_ref()
    }

    fn compile(&self) -> Validator {
        Validator::compile(self)
    }
}

/// The plugin.
pub struct ValidatingPolicies {
    source: Source<ValidatingAdmissionPolicy>,
    matcher: Matcher,
    registry: Arc<Registry>,
    authorizer: Arc<dyn Authorizer>,
}

/// Why a request is refused.
struct Denied {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: Option<String>,
}

impl Denied {
    fn message(&self) -> String {
        let (policy, message) = (&self.policy, &self.message);
        match &self.binding {
            Some(binding) => {
                format!(
                    "ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}"
                )
            }
            None => format!("ValidatingAdmissionPolicy '{policy}' denied request: {message}"),
        }
    }

    fn into_error(self, attributes: &Attributes<'_>, object: &Value) -> ApiError {
        let message = self.message();
        let mut error = attributes.forbidden(object, &message);
        let reason = self.reason.filter(|reason| !reason.is_empty()).unwrap_or_else(|| "Invalid".to_owned());
        error.status.code = Some(match reason.as_str() {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        });
        error.status.reason = Some(reason);
        let details = error.status.details.get_or_insert_default();
        let cause = StatusCause { message: Some(message), ..StatusCause::default() };
        details.causes.get_or_insert_default().push(cause);
        error
    }
}

/// One request on its way through all policies.
struct Dispatch<'d, 'a> {
    plugin: &'d ValidatingPolicies,
    attributes: &'d Attributes<'a>,
    object: &'d Value,
    old: Option<&'d Value>,
    warnings: &'d mut Vec<String>,
    /// The first reason to refuse.
    denied: Option<Denied>,
}

/// A request as one policy sees it.
struct Seen<'d> {
    facts: Facts,
    object: Cow<'d, Value>,
    old: Cow<'d, Value>,
    namespace: Value,
}

impl ValidatingPolicies {
    /// Watches policies, bindings and namespaces.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self {
            source: Source::new(deps),
            matcher: Matcher::new(deps),
            registry: Arc::clone(&deps.registry),
            authorizer: Arc::clone(&deps.authorizer),
        }
    }
}

impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !is_excluded(attributes)
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        warnings: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if self.source.is_empty() {
            return Verdict::PASS;
        }
        Verdict::later(async move {
            let hooks = self.source.hooks(attributes, object).await?;
            let mut dispatch = Dispatch { plugin: self, attributes, object, old, warnings, denied: None };
            for hook in hooks.iter() {
                dispatch.policy(hook).await?;
            }
            match dispatch.denied {
                Some(denied) => Err(denied.into_error(attributes, object)),
                None => Ok(()),
            }
        })
    }
}

impl<'d> Dispatch<'d, '_> {
    async fn policy(&mut self, hook: &Hook<ValidatingAdmissionPolicy>) -> Result<(), ApiError> {
        let Some(criteria) = &hook.criteria else {
            self.misconfigured(hook, None, "policy contained no match constraints, a required field");
            return Ok(());
        };
        let plugin = self.plugin;
        let matched = plugin.matcher.matches(self.attributes, self.object, self.old, criteria).await;
        let matched = match matched {
            Ok(Some(matched)) => matched,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.misconfigured(hook, None, error.message());
                return Ok(());
            }
        };
        let known = hook.params.as_ref().map(|params| params::resource(&plugin.registry, params)).transpose();
        let resource = match known {
            Ok(resource) => resource,
            Err(why) => {
                self.misconfigured(hook, None, &why);
                return Ok(());
            }
        };
        let (mut seen, mut notes) = (None, Notes::default());
        for bound in &hook.bindings {
            let params = hook.params.as_ref().zip(resource.as_deref());
            match self.applies(bound, params).await {
                Ok(Some(params)) if !params.is_empty() => {
                    let seen = match &mut seen {
                        Some(seen) => seen,
                        empty => match self.see(&matched).await {
                            Ok(made) => empty.insert(made),
                            Err(Unseen::Namespace(error)) => return Err(error),
                            Err(Unseen::Version(why)) => {
                                self.misconfigured(hook, Some(bound), &why);
                                continue;
                            }
                        },
                    };
                    for params in &params {
                        self.decide(hook, bound, seen, params, &mut notes).await;
                    }
                }
                Ok(_) => {}
                Err(why) => self.misconfigured(hook, Some(bound), &why),
            }
        }
        notes.publish(&hook.name, self.attributes);
        Ok(())
    }

    /// The parameters that a binding applies to this request with; `None` if it does not apply.
    async fn applies(
        &self,
        bound: &Bound<ValidatingAdmissionPolicy>,
        known: Option<(&super::source::Params, &crate::registry::Resource)>,
    ) -> Result<Option<Vec<Value>>, String> {
        if let Some(criteria) = &bound.criteria {
            let found = self.plugin.matcher.matches(self.attributes, self.object, self.old, criteria).await;
            if found.map_err(|error| error.message().to_owned())?.is_none() {
                return Ok(None);
            }
        }
        let reference = ValidatingAdmissionPolicy::param_ref(&bound.binding);
        params::collect(known, reference, self.attributes.namespace).await.map(Some)
    }

    async fn see(&self, matched: &Matched) -> Result<Seen<'d>, Unseen> {
        let matcher = &self.plugin.matcher;
        let version = async |value: &'d Value| match matched.kind == *self.attributes.kind {
            true => Ok(Cow::Borrowed(value)),
            false => {
                let converted = matcher.convert(self.attributes, value, matched).await;
                converted.map(Cow::Owned).map_err(|error| {
                    Unseen::Version(format!("failed to convert object version: {}", error.message()))
                })
            }
        };
        let object = version(self.object).await?;
        let old = version(self.old.unwrap_or(&Value::Null)).await?;
        let namespace = matcher.namespace_of(self.attributes).await.map_err(Unseen::Namespace)?;
        Ok(Seen {
            facts: Facts::new(self.attributes, matched, &self.plugin.authorizer),
            object,
            old,
            namespace: namespace_object(namespace.as_deref()),
        })
    }

    /// Evaluates a policy with one set of parameters, and does what the binding says about it.
    async fn decide(
        &mut self,
        hook: &Hook<ValidatingAdmissionPolicy>,
        bound: &Bound<ValidatingAdmissionPolicy>,
        seen: &Seen<'_>,
        params: &Value,
        notes: &mut Notes,
    ) {
        let input = seen.facts.input(&seen.object, &seen.old, params, &seen.namespace);
        let begin = Instant::now();
        let outcome = seen.facts.settle(|| hook.compiled.validate(Request(input))).await;
        let took = begin.elapsed();
        let count = |action, error| metrics::validated(&hook.name, &bound.name, action, error, took);
        for (index, decision) in outcome.decisions.into_iter().enumerate() {
            let Decision::Deny { message, reason } = decision else { continue };
            for action in &bound.binding.spec.validation_actions {
                match action.as_str() {
                    "Deny" => {
                        count("deny", false);
                        self.deny(hook, Some(bound), message.clone(), reason.clone());
                    }
                    "Audit" => {
                        count("audit", false);
                        self.note_failure(hook, bound, index, &message);
                    }
                    "Warn" => {
                        count("warn", false);
                        self.warnings.push(format!(
                            "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                            hook.name, bound.name
                        ));
                    }
                    _ => {}
                }
            }
        }
        for (key, note) in outcome.notes {
            match note {
                Note::Publish(value) => notes.add(key, value),
                Note::Error(why) => {
                    count("deny", true);
                    self.deny(hook, Some(bound), why, None);
                }
                Note::Exclude => {}
            }
        }
    }

    fn deny(
        &mut self,
        hook: &Hook<ValidatingAdmissionPolicy>,
        bound: Option<&Bound<ValidatingAdmissionPolicy>>,
        message: String,
        reason: Option<String>,
    ) {
        let binding = bound.map(|bound| bound.name.clone());
        self.denied.get_or_insert_with(|| Denied { policy: hook.name.clone(), binding, message, reason });
    }

    /// A policy (or a binding of it) that cannot be applied refuses, unless it says otherwise.
    fn misconfigured(
        &mut self,
        hook: &Hook<ValidatingAdmissionPolicy>,
        bound: Option<&Bound<ValidatingAdmissionPolicy>>,
        why: &str,
    ) {
        if !hook.compiled.fails() {
            return;
        }
        let what = if bound.is_some() { "binding" } else { "policy" };
        self.deny(hook, bound, format!("failed to configure {what}: {why}"), None);
    }

    fn note_failure(
        &self,
        hook: &Hook<ValidatingAdmissionPolicy>,
        bound: &Bound<ValidatingAdmissionPolicy>,
        index: usize,
        message: &str,
    ) {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Failure<'f> {
            message: &'f str,
            policy: &'f str,
            binding: &'f str,
            expression_index: usize,
            validation_actions: &'f [String],
        }
        let failure = Failure {
            message,
            policy: &hook.name,
            binding: &bound.name,
            expression_index: index,
            validation_actions: &bound.binding.spec.validation_actions,
        };
        let text = serde_json::to_string(&[failure]).unwrap_or_default();
        annotate(self.attributes, FAILURE_KEY.to_owned(), text);
    }
}

fn annotate(attributes: &Attributes<'_>, key: String, value: String) {
    if !attributes.annotations.add(key.as_str(), value) {
        tracing::warn!(key, "could not set an audit annotation, it has another value");
    }
}

/// Why a policy cannot look at a request.
enum Unseen {
    /// There is no version of the object that it wants.
    Version(String),
    /// There is no namespace.
    Namespace(ApiError),
}

/// Audit annotations of one policy: values from several bindings and parameters are joined.
#[derive(Default)]
struct Notes(BTreeMap<String, Vec<String>>);

impl Notes {
    fn add(&mut self, key: String, mut value: String) {
        let mut end = value.len().min(MAX_ANNOTATION);
        while !value.is_char_boundary(end) {
            end -= 1;
        }
        value.truncate(end);
        let values = self.0.entry(key).or_default();
        if !values.contains(&value) {
            values.push(value);
        }
    }

    fn publish(self, policy: &str, attributes: &Attributes<'_>) {
        for (key, values) in self.0 {
            annotate(attributes, format!("{policy}/{key}"), values.join(", "));
        }
    }
}
