//! Rules: operations and resources (upstream `plugin/webhook/predicates/rules`).

use api::names::GroupVersionResource;
use api::status::ApiError;
use k8s_openapi::api::admissionregistration::v1::{NamedRuleWithOperations, RuleWithOperations};

use super::Matched;
use crate::admission::{Attributes, Operation};
use crate::registry::Registry;

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// Resources and subresources; `*` for any.
    resources: Vec<(String, String)>,
    scope: String,
    /// Names of objects; any if there are none.
    names: Vec<String>,
}

impl Rule {
    /// A rule of a webhook.
    pub fn plain(rule: &RuleWithOperations) -> Self {
        let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let split = |resource: &String| match resource.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (resource.clone(), String::new()),
        };
        Self {
            operations: list(&rule.operations),
            groups: list(&rule.api_groups),
            versions: list(&rule.api_versions),
            resources: rule.resources.iter().flatten().map(split).collect(),
            scope: rule.scope.clone().unwrap_or_else(|| "*".to_owned()),
            names: Vec::new(),
        }
    }

    /// A rule of a policy.
    pub fn named(rule: &NamedRuleWithOperations) -> Self {
        let plain = RuleWithOperations {
            api_groups: rule.api_groups.clone(),
            api_versions: rule.api_versions.clone(),
            operations: rule.operations.clone(),
            resources: rule.resources.clone(),
            scope: rule.scope.clone(),
        };
        Self { names: rule.resource_names.clone().unwrap_or_default(), ..Self::plain(&plain) }
    }

    /// Whether a request is meant, taken as one for `resource`.
    fn matches(&self, attributes: &Attributes<'_>, resource: &GroupVersionResource) -> bool {
        let any = |items: &[String], wanted: &str| items.iter().any(|item| item == "*" || item == wanted);
        self.is_in_scope(attributes, resource)
            && any(&self.operations, operation(attributes.operation))
            && any(&self.groups, &resource.group)
            && any(&self.versions, &resource.version)
            && self.resources.iter().any(|(name, subresource)| {
                (name == "*" || *name == resource.resource)
                    && (subresource == "*" || subresource == attributes.subresource)
            })
    }

    fn is_in_scope(&self, attributes: &Attributes<'_>, resource: &GroupVersionResource) -> bool {
        // A request about a namespace has that namespace, but is not within it.
        let namespaces =
            resource.resource == "namespaces" && resource.version == "v1" && resource.group.is_empty();
        let cluster = namespaces || attributes.namespace.is_empty();
        match self.scope.as_str() {
            "*" => true,
            "Namespaced" => !cluster,
            "Cluster" => cluster,
            _ => false,
        }
    }

    fn names(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|own| own == name)
    }
}

/// An operation as rules name it.
pub(in crate::admission) fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// How a request matches any of the rules; earlier rules first, and what it says itself before equivalents.
pub(super) fn matches(
    rules: &[Rule],
    attributes: &Attributes<'_>,
    equivalent: bool,
    registry: &Registry,
) -> Result<Option<Matched>, ApiError> {
    let name = attributes.name;
    if rules.iter().any(|rule| rule.matches(attributes, attributes.resource) && rule.names(name)) {
        return Ok(Some(Matched::own(attributes)));
    }
    if !equivalent || rules.is_empty() {
        return Ok(None);
    }
    let equivalents = registry.equivalents(attributes.resource, attributes.subresource);
    for rule in rules {
        for (resource, kind) in &equivalents {
            if rule.matches(attributes, resource) && rule.names(name) {
                return Ok(Some(Matched { resource: resource.clone(), kind: kind.clone() }));
            }
        }
    }
    Ok(None)
}
