//! Policies with their bindings, compiled (upstream `policy/generic/policy_source.go`).
//! A policy is compiled again when it has changed itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::names::{GroupVersion, GroupVersionKind};
use api::status::ApiError;
use client::Object;
use client::informer::Informer;
use k8s_openapi::api::admissionregistration::v1::{MatchResources, ParamKind, ParamRef};
use kube::ResourceExt;
use serde_json::Value;

use super::super::Deps;
use super::super::derived::{Derived, loaded};
use super::super::matching::Criteria;
use crate::admission::Attributes;

/// What both kinds of policies have.
pub(super) trait Policy: Object {
    /// What brings a policy into effect.
    type Binding: Object;
    /// What is compiled of it.
    type Compiled: Send + Sync + 'static;

    /// The policy that a binding is of.
    fn bound(binding: &Self::Binding) -> &str;
    /// What a binding narrows the requests to.
    fn narrowed(binding: &Self::Binding) -> Option<&MatchResources>;
    /// Which parameters a binding gives.
    fn param_ref(binding: &Self::Binding) -> Option<&ParamRef>;
    /// The requests it is about.
    fn constraints(&self) -> Option<&MatchResources>;
    /// The kind of its parameters.
    fn param_kind(&self) -> Option<&ParamKind>;
    /// Compiles it.
    fn compile(&self) -> Self::Compiled;
}

/// A policy that is bound.
pub(super) struct Hook<P: Policy> {
    pub name: String,
    pub criteria: Option<Criteria>,
    pub params: Option<Params>,
    pub compiled: Arc<P::Compiled>,
    pub bindings: Vec<Bound<P>>,
}

/// The kind of a policy's parameters.
pub(super) struct Params {
    /// As the policy has it.
    pub given: ParamKind,
    /// The same as a kind; an error if it is none.
    pub kind: Option<GroupVersionKind>,
}

/// A binding.
pub(super) struct Bound<P: Policy> {
    pub name: String,
    pub criteria: Option<Criteria>,
    pub binding: Arc<P::Binding>,
}

/// All policies that are bound, by name.
pub(super) type Hooks<P> = Arc<Vec<Hook<P>>>;

pub(super) struct Source<P: Policy> {
    policies: Informer<P>,
    bindings: Informer<P::Binding>,
    state: Derived<State<P>>,
}

struct State<P: Policy> {
    hooks: Hooks<P>,
    /// What has been compiled, by the policy's name and version.
    compiled: HashMap<(String, String), Arc<P::Compiled>>,
}

impl<P: Policy> Default for State<P> {
    fn default() -> Self {
        Self { hooks: Arc::default(), compiled: HashMap::new() }
    }
}

impl<P: Policy> Source<P> {
    /// Watches policies and bindings.
    pub fn new(deps: &Deps<'_>) -> Self {
        let (policies, bindings) = (deps.informers.informer::<P>(), deps.informers.informer::<P::Binding>());
        let state = Derived::default();
        state.follow(&policies);
        state.follow(&bindings);
        Self { policies, bindings, state }
    }

    fn has_synced(&self) -> bool {
        self.policies.has_synced() && self.bindings.has_synced()
    }

    /// Whether it is known that there are none.
    pub fn is_empty(&self) -> bool {
        self.has_synced() && self.current().is_empty()
    }

    /// The policies in effect.
    ///
    /// # Errors
    /// When they have not been read yet.
    pub async fn hooks(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Hooks<P>, ApiError> {
        if !self.has_synced() {
            let both = async {
                self.policies.synced().await;
                self.bindings.synced().await;
            };
            loaded(both, attributes, object).await?;
        }
        Ok(self.current())
    }

    fn current(&self) -> Hooks<P> {
        let refresh = |state: &mut State<P>| {
            state.refresh(&self.policies.store().list(), self.bindings.store().list());
        };
        self.state.read(refresh, |state| Arc::clone(&state.hooks))
    }
}

impl<P: Policy> State<P> {
    fn refresh(&mut self, policies: &[Arc<P>], bindings: Vec<Arc<P::Binding>>) {
        let mut bound: BTreeMap<String, Vec<Bound<P>>> = BTreeMap::new();
        for binding in bindings {
            let criteria = P::narrowed(&binding).map(Criteria::of_policy);
            let one = Bound { name: binding.name_any(), criteria, binding: Arc::clone(&binding) };
            bound.entry(P::bound(&binding).to_owned()).or_default().push(one);
        }
        let mut known = std::mem::take(&mut self.compiled);
        let mut hooks = Vec::new();
        for policy in policies {
            let name = policy.name_any();
            let Some(mut bindings) = bound.remove(&name) else { continue };
            bindings.sort_by(|a, b| a.name.cmp(&b.name));
            let key = (name.clone(), policy.resource_version().unwrap_or_default());
            let compiled = known.remove(&key).unwrap_or_else(|| Arc::new(policy.compile()));
            self.compiled.insert(key, Arc::clone(&compiled));
            let criteria = policy.constraints().map(Criteria::of_policy);
            hooks.push(Hook {
                name,
                criteria,
                params: policy.param_kind().map(Params::new),
                compiled,
                bindings,
            });
        }
        hooks.sort_by(|a, b| a.name.cmp(&b.name));
        self.hooks = Arc::new(hooks);
    }
}

impl Params {
    fn new(given: &ParamKind) -> Self {
        let version = GroupVersion::parse(given.api_version.as_deref().unwrap_or_default());
        let kind = version.map(|version| version.with_kind(given.kind.clone().unwrap_or_default()));
        Self { given: given.clone(), kind }
    }
}
