//! MutatingAdmissionPolicy: changes objects as expressions say (upstream `policy/mutating/dispatcher.go` and
//! `policy/generic/policy_dispatcher.go`).

mod patch;

use std::sync::Arc;
use std::time::Instant;

use api::cel::admission::{Compiled, Compiler, Scope};
use api::names::GroupVersionResource;
use api::status::ApiError;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ParamKind, ParamRef,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use super::source::{Hook, Policy, Source};
use super::{is_excluded, params};
use crate::admission::expressions::{Facts, namespace_object};
use crate::admission::matching::{Conditions, Matched, Matcher, Met, convert};
use crate::admission::metrics;
use crate::admission::{Attributes, Deps, Operation, Plugin, Verdict};
use crate::authz::{Authorizer, go_quote};
use crate::object::meta_text;
use crate::registry::Registry;
use patch::{Failure, Patcher, Target};

const NAME: &str = "MutatingAdmissionPolicy";

impl Policy for MutatingAdmissionPolicy {
    type Binding = MutatingAdmissionPolicyBinding;
    type Compiled = Mutator;

    fn bound(binding: &Self::Binding) -> &str {
        binding.spec.as_ref().and_then(|spec| spec.policy_name.as_deref()).unwrap_or_default()
    }

    fn narrowed(binding: &Self::Binding) -> Option<&MatchResources> {
        binding.spec.as_ref()?.match_resources.as_ref()
    }

    fn param_ref(binding: &Self::Binding) -> Option<&ParamRef> {
        binding.spec.as_ref()?.param_ref.as_ref()
    }

    fn constraints(&self) -> Option<&MatchResources> {
        self.spec.as_ref()?.match_constraints.as_ref()
    }

    fn param_kind(&self) -> Option<&ParamKind> {
        self.spec.as_ref()?.param_kind.as_ref()
    }

    fn compile(&self) -> Mutator {
        Mutator::compile(self)
    }
}

/// A policy, compiled.
pub(crate) struct Mutator {
    fails: bool,
    /// Whether it runs again after later changes.
    reinvocable: bool,
    variables: Vec<(String, Compiled)>,
    conditions: Conditions,
    patchers: Vec<Patcher>,
}

impl Mutator {
    fn compile(policy: &MutatingAdmissionPolicy) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let mut compiler = Compiler::composed();
        let scope = Scope { params: spec.param_kind.is_some(), authorizer: true, patches: false };
        for variable in spec.variables.iter().flatten() {
            compiler.variable(&variable.name, &variable.expression, scope);
        }
        let (conditions, failure_policy) =
            (spec.match_conditions.unwrap_or_default(), spec.failure_policy.as_deref());
        let conditions = Conditions::compile(&mut compiler, &conditions, scope, failure_policy);
        let mutations = spec.mutations.iter().flatten();
        let patchers = mutations.filter_map(|one| Patcher::compile(&mut compiler, one, scope)).collect();
        Self {
            fails: failure_policy != Some("Ignore"),
            reinvocable: spec.reinvocation_policy.as_deref() == Some("IfNeeded"),
            conditions,
            patchers,
            variables: compiler.into_variables(),
        }
    }
}

/// The plugin.
pub struct MutatingPolicies {
    source: Source<MutatingAdmissionPolicy>,
    matcher: Matcher,
    registry: Arc<Registry>,
    authorizer: Arc<dyn Authorizer>,
}

/// A policy that is to change an object, by one binding with one set of parameters.
struct Invocation<'h> {
    hook: &'h Hook<MutatingAdmissionPolicy>,
    binding: &'h str,
    matched: Matched,
    params: Value,
}

impl Invocation<'_> {
    /// What tells it from others.
    fn key(&self) -> String {
        let (namespace, name) = (meta_text(&self.params, "namespace"), meta_text(&self.params, "name"));
        format!("{}/{}/{namespace}/{name}", self.hook.name, self.binding)
    }
}

/// What went wrong with policies that fail then.
#[derive(Default)]
struct Errors(Vec<(String, &'static str)>);

impl Errors {
    fn add(
        &mut self,
        hook: &Hook<MutatingAdmissionPolicy>,
        binding: Option<&str>,
        why: &str,
        reason: &'static str,
    ) {
        if !hook.compiled.fails {
            return;
        }
        let policy = &hook.name;
        let message = match binding {
            Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
            None => format!("policy {} denied request: {why}", go_quote(policy)),
        };
        self.0.push((message, reason));
    }

    fn misconfigured(&mut self, hook: &Hook<MutatingAdmissionPolicy>, binding: Option<&str>, why: &str) {
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.add(hook, binding, &format!("failed to configure {what}: {why}"), "");
    }

    /// 403 with all of them; the first one gives message and reason.
    fn into_result(self, attributes: &Attributes<'_>, object: &Value) -> Result<(), ApiError> {
        let Some((message, reason)) = self.0.first() else { return Ok(()) };
        let mut error = attributes.forbidden(object, "");
        error.status.message = Some(message.clone());
        if !reason.is_empty() {
            error.status.reason = Some((*reason).to_owned());
        }
        let cause = |(message, _)| StatusCause { message: Some(message), ..StatusCause::default() };
        Err(error.with_causes(self.0.into_iter().map(cause).collect()))
    }
}

impl MutatingPolicies {
    /// Watches policies, bindings and namespaces.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self {
            source: Source::new(deps),
            matcher: Matcher::new(deps),
            registry: Arc::clone(&deps.registry),
            authorizer: Arc::clone(&deps.authorizer),
        }
    }

    /// What a policy is to do to a request.
    async fn invocations<'h>(
        &self,
        hook: &'h Hook<MutatingAdmissionPolicy>,
        (attributes, object, old): (&Attributes<'_>, &Value, Option<&Value>),
        errors: &mut Errors,
    ) -> Vec<Invocation<'h>> {
        let mut found = Vec::new();
        let Some(criteria) = &hook.criteria else {
            errors.misconfigured(hook, None, "policy contained no match constraints, a required field");
            return found;
        };
        let matched = match self.matcher.matches(attributes, object, old, criteria).await {
            Ok(Some(matched)) => matched,
            Ok(None) => return found,
            Err(error) => {
                errors.misconfigured(hook, None, error.message());
                return found;
            }
        };
        let known = hook.params.as_ref().map(|params| params::resource(&self.registry, params)).transpose();
        let resource = match known {
            Ok(resource) => resource,
            Err(why) => {
                errors.misconfigured(hook, None, &why);
                return found;
            }
        };
        for bound in &hook.bindings {
            let binding = bound.name.as_str();
            if let Some(criteria) = &bound.criteria {
                match self.matcher.matches(attributes, object, old, criteria).await {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(error) => {
                        errors.misconfigured(hook, Some(binding), error.message());
                        continue;
                    }
                }
            }
            let known = hook.params.as_ref().zip(resource.as_deref());
            let reference = MutatingAdmissionPolicy::param_ref(&bound.binding);
            match params::collect(known, reference, attributes.namespace).await {
                Ok(all) => found.extend(all.into_iter().map(|params| Invocation {
                    hook,
                    binding,
                    matched: matched.clone(),
                    params,
                })),
                Err(why) => errors.misconfigured(hook, Some(binding), &why),
            }
        }
        found
    }

    /// Carries out what policies are to do, one after the other.
    async fn run(
        &self,
        invocations: &[Invocation<'_>],
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
        errors: &mut Errors,
    ) -> Result<(), ApiError> {
        let namespace = self.matcher.namespace_of(attributes).await?;
        let namespace = namespace_object(namespace.as_deref());
        let mut dirty = false;
        for invocation in invocations {
            let (begin, before) = (Instant::now(), errors.0.len());
            let outcome = self.invoke(invocation, attributes, object, (old, &namespace), errors).await;
            let failed = outcome.is_err() || errors.0.len() > before;
            if failed || matches!(outcome, Ok(true)) {
                metrics::mutated(&invocation.hook.name, invocation.binding, failed, begin.elapsed());
            }
            dirty |= outcome?;
        }
        if dirty {
            attributes.reinvocation.changed(NAME);
        }
        Ok(())
    }

    /// Lets one policy change the object. Whether a mutation was carried out, even if nothing is different.
    async fn invoke(
        &self,
        invocation: &Invocation<'_>,
        attributes: &Attributes<'_>,
        object: &mut Value,
        (old, namespace): (Option<&Value>, &Value),
        errors: &mut Errors,
    ) -> Result<bool, ApiError> {
        let Invocation { hook, matched, params, .. } = invocation;
        let (mutator, binding) = (&hook.compiled, Some(invocation.binding));
        let converted = async {
            let before = convert(&self.registry, object, attributes.kind, matched).await?;
            let old = old.unwrap_or(&Value::Null);
            Ok::<_, ApiError>((before, convert(&self.registry, old, attributes.kind, matched).await?))
        };
        let (before, old) = match converted.await {
            Ok(both) => both,
            Err(error) => {
                errors.misconfigured(hook, None, error.message());
                return Ok(false);
            }
        };
        let facts = Facts::new(attributes, matched, &self.authorizer);
        let (input, variables) = (facts.input(&before, &old, params, namespace), &mutator.variables);
        match facts.settle(|| mutator.conditions.check(input, variables)).await {
            Met::Yes => {}
            Met::No => return Ok(false),
            Met::Error(why) => {
                errors.add(hook, binding, &why, "Invalid");
                return Ok(false);
            }
        }
        let (reinvocation, key) = (attributes.reinvocation, invocation.key());
        if !reinvocation.is_due(NAME, &key) {
            return Ok(false);
        }
        let GroupVersionResource { group, version, resource } = &matched.resource;
        let served = self.registry.find(group, version, resource);
        // Subresources may be of kinds of their own.
        let served = served.filter(|resource| resource.gvk == matched.kind);
        let custom = served.as_ref().and_then(|resource| resource.custom.as_ref());
        let target = Target { kind: &matched.kind, custom };
        let (mut current, mut dirty) = (before.clone(), false);
        for patcher in mutator.patchers.iter().filter(|_| !before.is_null()) {
            let input = facts.input(&current, &old, params, namespace);
            match facts.settle(|| patcher.patch(input, variables, target)).await {
                Ok(patched) => (current, dirty) = (patched, true),
                Err(Failure::Policy(why)) => errors.add(hook, binding, &why, "Invalid"),
                Err(Failure::Request(error)) => return Err(error),
            }
        }
        if !api::semantic_eq(Some(&before), Some(&current)) {
            reinvocation.changed(NAME);
        }
        if dirty {
            let own = Matched { resource: attributes.resource.clone(), kind: attributes.kind.clone() };
            *object = convert(&self.registry, &current, &matched.kind, &own).await?;
        }
        if mutator.reinvocable {
            reinvocation.ran(NAME, &key);
        }
        Ok(dirty)
    }
}

impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        attributes.operation != Operation::Delete && !is_excluded(attributes)
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if self.source.is_empty() {
            return Verdict::PASS;
        }
        Verdict::later(async move {
            let hooks = self.source.hooks(attributes, object).await?;
            self.dispatch(&hooks, attributes, object, old).await
        })
    }
}

impl MutatingPolicies {
    async fn dispatch(
        &self,
        hooks: &[Hook<MutatingAdmissionPolicy>],
        attributes: &Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), ApiError> {
        let (mut invocations, mut errors) = (Vec::new(), Errors::default());
        for hook in hooks {
            invocations.extend(self.invocations(hook, (attributes, object, old), &mut errors).await);
        }
        if !invocations.is_empty() {
            attributes.reinvocation.enter(NAME, object);
            let outcome = self.run(&invocations, attributes, object, old, &mut errors).await;
            attributes.reinvocation.leave(NAME, object);
            outcome?;
        }
        errors.into_result(attributes, object)
    }
}
