//! Which requests a webhook or a policy is about (upstream `admission/plugin/policy/matching` and
//! `plugin/webhook/predicates`): its rules, selectors of namespaces and objects, and conditions.
//!
//! [`Criteria`] and [`Conditions`] are made once per configuration; a [`Matcher`] applies criteria to a request.

mod conditions;
mod rules;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::names::{GroupResource, GroupVersionKind, GroupVersionResource};
use api::selector::LabelSelector;
use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey};
use k8s_openapi::api::admissionregistration::v1::{MatchResources, RuleWithOperations};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use kube::Api;
use serde_json::Value;

use super::{Attributes, Deps, Operation};
use crate::registry::Registry;
pub(crate) use conditions::{Conditions, Met};
use rules::Rule;
pub(super) use rules::operation;

/// What a request must be like.
#[derive(Clone, Debug)]
pub(crate) struct Criteria {
    namespaces: Result<LabelSelector, String>,
    objects: Result<LabelSelector, String>,
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Whether requests for the same resource by another name or version are meant too.
    equivalent: bool,
    /// Whether all resources are meant where no rule names any.
    unless_named: bool,
}

/// The resource and kind by which a request matches: its own, or equivalent ones that a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matched {
    /// The resource.
    pub resource: GroupVersionResource,
    /// The kind that the object is to be seen as.
    pub kind: GroupVersionKind,
}

impl Criteria {
    /// Those of a policy or of its binding.
    pub fn of_policy(resources: &MatchResources) -> Self {
        let rules = |rules: &Option<Vec<_>>| rules.iter().flatten().map(Rule::named).collect();
        Self {
            namespaces: present(resources.namespace_selector.as_ref(), "namespace"),
            objects: present(resources.object_selector.as_ref(), "object"),
            rules: rules(&resources.resource_rules),
            excluded: rules(&resources.exclude_resource_rules),
            equivalent: resources.match_policy.as_deref() == Some("Equivalent"),
            unless_named: true,
        }
    }

    /// Those of a webhook.
    pub fn of_webhook(
        rules: &[RuleWithOperations],
        match_policy: Option<&str>,
        namespaces: Option<&meta::LabelSelector>,
        objects: Option<&meta::LabelSelector>,
    ) -> Self {
        Self {
            namespaces: LabelSelector::from_meta(namespaces),
            objects: LabelSelector::from_meta(objects),
            rules: rules.iter().map(Rule::plain).collect(),
            excluded: Vec::new(),
            equivalent: match_policy == Some("Equivalent"),
            unless_named: false,
        }
    }
}

fn present(selector: Option<&meta::LabelSelector>, what: &str) -> Result<LabelSelector, String> {
    match selector {
        Some(selector) => LabelSelector::from_meta(Some(selector)),
        None => {
            Err(format!("a nil {what} selector was passed, please ensure selectors are initialized properly"))
        }
    }
}

/// Applies criteria to requests.
#[derive(Clone)]
pub(crate) struct Matcher {
    client: Client,
    namespaces: Informer<Namespace>,
    registry: Arc<Registry>,
}

impl Matcher {
    /// Watches namespaces.
    pub fn new(deps: &Deps<'_>) -> Self {
        let registry = Arc::clone(&deps.registry);
        Self { client: deps.client.clone(), namespaces: deps.informers.informer(), registry }
    }

    /// How the request matches, if it does.
    ///
    /// # Errors
    /// When that cannot be told, of a request that the rules are about.
    pub async fn matches(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
        criteria: &Criteria,
    ) -> Result<Option<Matched>, ApiError> {
        let in_namespace = self.namespace_matches(attributes, object, criteria).await;
        if matches!(in_namespace, Ok(false)) {
            return Ok(None);
        }
        let selected = object_matches(object, old, criteria);
        if matches!(selected, Ok(false)) {
            return Ok(None);
        }
        let by_rules =
            |rules: &[Rule]| rules::matches(rules, attributes, criteria.equivalent, &self.registry);
        if by_rules(&criteria.excluded)?.is_some() {
            return Ok(None);
        }
        let matched = match criteria.rules.as_slice() {
            [] if criteria.unless_named => Some(Matched::own(attributes)),
            rules => by_rules(rules)?,
        };
        // What is wrong with selectors matters only to requests that the rules are about.
        if matched.is_some() {
            in_namespace?;
            selected?;
        }
        Ok(matched)
    }

    async fn namespace_matches(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        criteria: &Criteria,
    ) -> Result<bool, ApiError> {
        if attributes.namespace.is_empty() && attributes.resource.resource != "namespaces" {
            return Ok(true);
        }
        let selector = criteria.namespaces.as_ref().map_err(ApiError::internal)?;
        if selector.is_empty() {
            return Ok(true);
        }
        let written = attributes.resource.resource == "namespaces"
            && attributes.subresource.is_empty()
            && matches!(attributes.operation, Operation::Create | Operation::Update);
        if written {
            return Ok(selector.matches(&labels(object)));
        }
        let namespace = self.namespace(attributes.namespace).await?;
        Ok(selector.matches(&namespace.metadata.labels))
    }

    /// A namespace; the API is asked where the cache may be behind.
    pub async fn namespace(&self, name: &str) -> Result<Arc<Namespace>, ApiError> {
        if let Some(found) = self.namespaces.store().get(&ObjectKey::new("", name)) {
            return Ok(found);
        }
        let absent = || ApiError::not_found(&GroupResource::new("", "namespaces"), name);
        if name.is_empty() {
            return Err(absent());
        }
        let found = Api::<Namespace>::all(self.client.clone()).get_opt(name).await;
        found.map_err(crate::authz::from_client)?.map(Arc::new).ok_or_else(absent)
    }

    /// The namespace whose objects expressions may look at: that of the request, unless it is about a namespace itself.
    pub async fn namespace_of(
        &self,
        attributes: &Attributes<'_>,
    ) -> Result<Option<Arc<Namespace>>, ApiError> {
        let kind = attributes.kind;
        let itself = kind.group.is_empty() && kind.version == "v1" && kind.kind == "Namespace";
        match attributes.namespace {
            name if name.is_empty() || itself => Ok(None),
            name => self.namespace(name).await.map(Some),
        }
    }

    /// The object of a request as the kind by which it matches.
    pub async fn convert(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        matched: &Matched,
    ) -> Result<Value, ApiError> {
        self.convert_from(object, attributes.kind, matched).await
    }

    /// An object of some kind as another kind of its resource.
    pub async fn convert_from(
        &self,
        object: &Value,
        from: &GroupVersionKind,
        to: &Matched,
    ) -> Result<Value, ApiError> {
        convert(&self.registry, object, from, to).await
    }
}

impl Matched {
    /// By what the request itself says.
    pub fn own(attributes: &Attributes<'_>) -> Self {
        Self { resource: attributes.resource.clone(), kind: attributes.kind.clone() }
    }
}

/// An object as another kind of its resource.
pub(crate) async fn convert(
    registry: &Registry,
    object: &Value,
    from: &GroupVersionKind,
    to: &Matched,
) -> Result<Value, ApiError> {
    if object.is_null() || *from == to.kind {
        return Ok(object.clone());
    }
    let GroupVersionResource { group, version, resource } = &to.resource;
    let served = registry.find(group, version, resource);
    match served.filter(|resource| resource.custom.is_some()) {
        Some(custom) => custom.to_served(object.clone()).await,
        None => crate::codec::convert(object.clone(), from, &to.kind),
    }
}

fn labels(object: &Value) -> Option<&serde_json::Map<String, Value>> {
    object["metadata"]["labels"].as_object()
}

fn object_matches(object: &Value, old: Option<&Value>, criteria: &Criteria) -> Result<bool, ApiError> {
    let selector = criteria.objects.as_ref().map_err(ApiError::internal)?;
    let selects = |object: &Value| object.is_object() && selector.matches(&labels(object));
    Ok(selector.is_empty() || selects(object) || old.is_some_and(selects))
}
