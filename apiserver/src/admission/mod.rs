//! What is changed or refused on the way in (upstream `apiserver/pkg/admission`).
//!
//! [`chain`] gives the plugins in upstream's order. A request passes every plugin's `admit`, is validated by its
//! strategy, and then passes every plugin's `validate`. Plugins read other objects from informers.

mod annotations;
mod certificates;
pub mod configuration;
mod default_ingress_class;
mod default_tolerations;
mod derived;
mod expressions;
mod limit_ranger;
mod matching;
mod metrics;
mod namespace_lifecycle;
mod node_restriction;
mod pod_resize;
mod pod_security;
mod policy;
mod priority;
mod reinvocation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage;
mod taint_nodes;
mod webhook;

use std::sync::Arc;

use api::names::{GroupVersionKind, GroupVersionResource};
use api::status::ApiError;
use client::{Client, SharedInformerFactory};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::authn::User;
use crate::authz::Authorizer;
use crate::config::Config;
use crate::registry::Registry;
use crate::webhook::Clients;
pub use annotations::Annotations;
pub use reinvocation::Reinvocation;

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// A new object.
    Create,
    /// A change of an object.
    Update,
    /// A deletion.
    Delete,
    /// A streaming connection (exec, attach, port-forward, proxy).
    Connect,
}

/// What is being admitted.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    /// What the write does.
    pub operation: Operation,
    /// Kind of the object.
    pub kind: &'a GroupVersionKind,
    /// Resource of the request.
    pub resource: &'a GroupVersionResource,
    /// Subresource; empty for none.
    pub subresource: &'a str,
    /// Namespace; empty for none.
    pub namespace: &'a str,
    /// Name; empty while generateName has not been resolved.
    pub name: &'a str,
    /// Who asks.
    pub user: &'a User,
    /// Whether nothing will be stored.
    pub dry_run: bool,
    /// Create, update or delete options.
    pub options: &'a Value,
    /// What is said about the request in the audit log.
    pub annotations: &'a Annotations,
    /// What plugins tell each other about running again.
    pub reinvocation: &'a Reinvocation,
}

/// What a plugin says. Most of them know at once what they say to most writes.
pub enum Verdict<'a> {
    /// Without asking anybody.
    Now(Result<(), ApiError>),
    /// When somebody has been asked.
    Later(BoxFuture<'a, Result<(), ApiError>>),
}

impl<'a> Verdict<'a> {
    /// The plugin has nothing against it.
    pub const PASS: Self = Self::Now(Ok(()));

    /// What follows from what the plugin knows.
    pub fn now(check: impl FnOnce() -> Result<(), ApiError>) -> Self {
        Self::Now(check())
    }

    /// What is known when the work is done.
    pub fn later(work: impl Future<Output = Result<(), ApiError>> + Send + 'a) -> Self {
        Self::Later(work.boxed())
    }

    /// The verdict itself.
    ///
    /// # Errors
    /// The plugin refuses the write.
    pub async fn get(self) -> Result<(), ApiError> {
        match self {
            Self::Now(verdict) => verdict,
            Self::Later(verdict) => verdict.await,
        }
    }
}

/// One admission plugin. Both hooks see the object in its JSON form, defaulted; plugins decode what they need.
pub trait Plugin: Send + Sync + 'static {
    /// Upstream's name, for example `NamespaceLifecycle`.
    fn name(&self) -> &'static str;

    /// Whether the plugin wants to see such a write at all. Cheap; called for each write.
    fn handles(&self, attributes: &Attributes<'_>) -> bool;

    /// Changes the object, or refuses it. `object` is null for deletions.
    fn admit<'a>(
        &'a self,
        _attributes: &'a Attributes<'_>,
        _object: &'a mut Value,
        _old: Option<&'a Value>,
        _warnings: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::PASS
    }

    /// Refuses the object or lets it pass, after every plugin has changed it and it passed validation.
    fn validate<'a>(
        &'a self,
        _attributes: &'a Attributes<'_>,
        _object: &'a Value,
        _old: Option<&'a Value>,
        _warnings: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        Verdict::PASS
    }
}

impl Attributes<'_> {
    /// Whether the write is about this resource itself, not a subresource.
    #[must_use]
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.subresource.is_empty() && self.is_any(group, resource)
    }

    /// Whether the write is about this resource or one of its subresources.
    #[must_use]
    pub fn is_any(&self, group: &str, resource: &str) -> bool {
        self.resource.resource == resource && self.resource.group == group
    }

    /// 403 about the object; `why` follows "is forbidden: ".
    #[must_use]
    pub fn forbidden(&self, object: &Value, why: &str) -> ApiError {
        let meta = &object["metadata"];
        let text = |field: &str| meta[field].as_str().filter(|text| !text.is_empty());
        let name = if self.name.is_empty() {
            text("name").or_else(|| text("generateName")).unwrap_or("Unknown")
        } else {
            self.name
        };
        ApiError::forbidden(&self.resource.group_resource(), name, why)
    }
}

/// What plugins are made from.
pub struct Deps<'a> {
    /// The loopback client.
    pub client: Client,
    /// Informers over the loopback client.
    pub informers: &'a SharedInformerFactory,
    /// Who may do what.
    pub authorizer: Arc<dyn Authorizer>,
    /// What is served.
    pub registry: Arc<Registry>,
    /// Reaches webhooks.
    pub webhooks: Clients,
    /// How the server is configured.
    pub config: &'a Config,
    /// What plugins are told beside.
    pub configured: configuration::Configured,
}

type Make = fn(&Deps<'_>) -> Arc<dyn Plugin>;

/// Every plugin in the order they run, and whether it runs by default.
const PLUGINS: [(&str, bool, Make); 25] = [
    ("NamespaceLifecycle", true, |deps| Arc::new(namespace_lifecycle::NamespaceLifecycle::new(deps))),
    ("LimitRanger", true, |deps| Arc::new(limit_ranger::LimitRanger::new(deps))),
    ("ServiceAccount", true, |deps| Arc::new(service_account::ServiceAccounts::new(deps))),
    ("NodeRestriction", false, |deps| Arc::new(node_restriction::NodeRestriction::new(deps))),
    ("TaintNodesByCondition", true, |_| Arc::new(taint_nodes::TaintNodes)),
    ("AlwaysPullImages", false, |_| Arc::new(default_tolerations::AlwaysPullImages)),
    ("PodSecurity", true, |deps| Arc::new(pod_security::PodSecurity::new(deps))),
    ("Priority", true, |deps| Arc::new(priority::Priority::new(deps))),
    ("DefaultTolerationSeconds", true, |deps| Arc::new(default_tolerations::DefaultTolerations::new(deps))),
    ("DefaultStorageClass", true, |deps| Arc::new(storage::DefaultStorageClass::new(deps))),
    ("StorageObjectInUseProtection", true, |_| Arc::new(storage::InUseProtection)),
    ("PersistentVolumeClaimResize", true, |deps| Arc::new(storage::ClaimResize::new(deps))),
    ("RuntimeClass", true, |deps| Arc::new(runtime_class::RuntimeClasses::new(deps))),
    ("CertificateApproval", true, |deps| Arc::new(certificates::Approval::new(deps))),
    ("CertificateSigning", true, |deps| Arc::new(certificates::Signing::new(deps))),
    ("CertificateSubjectRestriction", true, |_| Arc::new(certificates::SubjectRestriction)),
    ("DefaultIngressClass", true, |deps| Arc::new(default_ingress_class::DefaultIngressClass::new(deps))),
    ("PodTopologyLabels", true, |deps| Arc::new(taint_nodes::PodTopologyLabels::new(deps))),
    ("NodeDeclaredFeatureValidator", true, |deps| Arc::new(pod_resize::DeclaredFeatures::new(deps))),
    ("PodResizeValidator", true, |deps| Arc::new(pod_resize::PodResize::new(deps))),
    ("MutatingAdmissionPolicy", true, |deps| Arc::new(policy::mutating::MutatingPolicies::new(deps))),
    ("MutatingAdmissionWebhook", true, |deps| Arc::new(webhook::Mutating::new(deps))),
    ("ValidatingAdmissionPolicy", true, |deps| Arc::new(policy::validating::ValidatingPolicies::new(deps))),
    ("ValidatingAdmissionWebhook", true, |deps| Arc::new(webhook::Validating::new(deps))),
    ("ResourceQuota", true, |deps| Arc::new(resource_quota::ResourceQuotas::new(deps))),
];

/// Whether a plugin is on.
#[must_use]
pub fn is_on(config: &Config, plugin: &str) -> bool {
    let names = |list: &[String]| list.iter().any(|other| other == plugin);
    PLUGINS.iter().any(|(name, default, _)| {
        *name == plugin
            && (*default || names(&config.enable_admission_plugins))
            && !names(&config.disable_admission_plugins)
    })
}

/// The plugins that are on, in order. Names of the configuration that are not known are returned.
pub fn chain(deps: &Deps<'_>) -> (Vec<Arc<dyn Plugin>>, Vec<String>) {
    let (on, off) = (&deps.config.enable_admission_plugins, &deps.config.disable_admission_plugins);
    let unknown = on.iter().chain(off).filter(|name| !PLUGINS.iter().any(|(known, ..)| known == name));
    let enabled = PLUGINS.iter().filter(|(name, ..)| is_on(deps.config, name));
    (enabled.map(|(_, _, make)| make(deps)).collect(), unknown.cloned().collect())
}

/// The object in its typed form.
fn decode<K: DeserializeOwned>(object: &Value) -> Result<K, ApiError> {
    api::json::read(object)
        .map_err(|error| ApiError::bad_request(format!("object cannot be decoded: {error}")))
}

/// A member of an object that is made if it is absent (or null).
fn member<'a>(object: &'a mut Value, name: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    &mut object[name]
}

/// A member list, made if absent.
fn list_member<'a>(object: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    let value = member(object, name);
    if !value.is_array() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().expect("it was just made a list")
}

/// The items of a member list; none if it is absent.
fn items<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    object[name].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A member text; empty if absent.
fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

/// Attributes for tests.
#[cfg(test)]
mod testing {
    use super::*;

    /// A write by an ordinary user.
    pub(crate) struct Write {
        pub kind: GroupVersionKind,
        pub resource: GroupVersionResource,
        pub user: User,
        pub options: Value,
        pub annotations: Annotations,
        pub reinvocation: Reinvocation,
    }

    impl Write {
        pub(crate) fn new(group: &'static str, kind: &'static str, resource: &'static str) -> Self {
            Self {
                kind: GroupVersionKind::new(group, "v1", kind),
                resource: GroupVersionResource::new(group, "v1", resource),
                user: User { name: "alice".into(), ..User::default() },
                options: Value::Null,
                annotations: Annotations::new(true),
                reinvocation: Reinvocation::default(),
            }
        }

        pub(crate) fn attributes<'a>(
            &'a self,
            operation: Operation,
            subresource: &'a str,
            name: &'a str,
        ) -> Attributes<'a> {
            Attributes {
                operation,
                kind: &self.kind,
                resource: &self.resource,
                subresource,
                namespace: "ns",
                name,
                user: &self.user,
                dry_run: false,
                options: &self.options,
                annotations: &self.annotations,
                reinvocation: &self.reinvocation,
            }
        }
    }
}
