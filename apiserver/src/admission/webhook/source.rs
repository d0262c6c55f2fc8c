//! The webhooks that are configured (upstream `configuration/{mutating,validating}_webhook_manager.go` and
//! `webhook/accessors.go`).
//! A configuration is read again when it has changed itself.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::cel::admission::{Compiler, Scope};
use api::status::ApiError;
use client::informer::Informer;
use client::{Object, SharedInformerFactory};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhook, ValidatingWebhookConfiguration,
    WebhookClientConfig,
};
use kube::ResourceExt;
use serde_json::Value;

use crate::admission::Attributes;
use crate::admission::derived::{Derived, loaded};
use crate::admission::matching::{Conditions, Criteria};
use crate::webhook::ClientConfig;

/// The limit of a call whose webhook names none: the default, which is filled in when a configuration is written.
const LIMIT: Duration = Duration::from_secs(10);

/// A webhook, made ready.
pub(super) struct Hook {
    /// Names it among all webhooks.
    pub key: String,
    /// Its name.
    pub name: String,
    /// The name of its configuration.
    pub configuration: String,
    /// Which requests it is about.
    pub criteria: Criteria,
    /// What else must be true of them.
    pub conditions: Conditions,
    /// Where it is.
    pub client: Result<ClientConfig, String>,
    /// Whether a request is refused when the webhook cannot be asked.
    pub fails: bool,
    /// What it does besides answering.
    pub side_effects: Option<String>,
    /// How long it may take.
    pub limit: Duration,
    /// The forms of the review that it takes.
    pub versions: Vec<String>,
    /// Whether it is asked again after later changes.
    pub again: bool,
}

/// A kind of configurations.
pub(super) trait Configuration: Object {
    /// Its webhooks, as mutating ones: those can do all that validating ones can.
    fn webhooks(&self) -> Vec<MutatingWebhook>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<MutatingWebhook> {
        self.webhooks.clone().unwrap_or_default()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn webhooks(&self) -> Vec<MutatingWebhook> {
        let as_mutating = |hook: ValidatingWebhook| MutatingWebhook {
            admission_review_versions: hook.admission_review_versions,
            client_config: hook.client_config,
            failure_policy: hook.failure_policy,
            match_conditions: hook.match_conditions,
            match_policy: hook.match_policy,
            name: hook.name,
            namespace_selector: hook.namespace_selector,
            object_selector: hook.object_selector,
            reinvocation_policy: None,
            rules: hook.rules,
            side_effects: hook.side_effects,
            timeout_seconds: hook.timeout_seconds,
        };
        self.webhooks.clone().unwrap_or_default().into_iter().map(as_mutating).collect()
    }
}

/// All webhooks, in the order they are asked: by the names of their configurations.
pub(super) type Hooks = Arc<[Arc<Hook>]>;

/// Knows the webhooks of one kind.
pub(super) struct Source<C: Configuration> {
    configurations: Informer<C>,
    state: Derived<State>,
}

#[derive(Default)]
struct State {
    hooks: Hooks,
    /// What has been made ready, by the configuration's name and version.
    known: HashMap<(String, String), Vec<Arc<Hook>>>,
}

impl<C: Configuration> Source<C> {
    /// Watches configurations.
    pub fn new(informers: &SharedInformerFactory) -> Self {
        let (configurations, state) = (informers.informer::<C>(), Derived::default());
        state.follow(&configurations);
        Self { configurations, state }
    }

    /// Whether it is known that there are none.
    pub fn is_empty(&self) -> bool {
        self.configurations.has_synced() && self.current().is_empty()
    }

    /// The webhooks in effect.
    ///
    /// # Errors
    /// When configurations have not been read yet.
    pub async fn hooks(&self, attributes: &Attributes<'_>, object: &Value) -> Result<Hooks, ApiError> {
        if !self.configurations.has_synced() {
            loaded(self.configurations.synced(), attributes, object).await?;
        }
        Ok(self.current())
    }

    fn current(&self) -> Hooks {
        let refresh = |state: &mut State| state.refresh(&self.configurations.store().list());
        self.state.read(refresh, |state| Arc::clone(&state.hooks))
    }
}

impl State {
    fn refresh<C: Configuration>(&mut self, configurations: &[Arc<C>]) {
        let mut before = std::mem::take(&mut self.known);
        let mut all = Vec::new();
        for configuration in configurations {
            let key = (configuration.name_any(), configuration.resource_version().unwrap_or_default());
            let hooks = before.remove(&key).unwrap_or_else(|| ready(&key.0, configuration.webhooks()));
            all.extend(hooks.iter().cloned());
            self.known.insert(key, hooks);
        }
        self.hooks = all.into();
    }
}

/// The webhooks of one configuration.
pub(super) fn ready(configuration: &str, webhooks: Vec<MutatingWebhook>) -> Vec<Arc<Hook>> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let one = |webhook: MutatingWebhook| {
        let count = counts.entry(webhook.name.clone()).or_default();
        let key = format!("{configuration}/{}/{count}", webhook.name);
        *count += 1;
        Arc::new(Hook::new(key, configuration, webhook))
    };
    webhooks.into_iter().map(one).collect()
}

impl Hook {
    fn new(key: String, configuration: &str, webhook: MutatingWebhook) -> Self {
        let scope = Scope { authorizer: true, ..Scope::default() };
        let conditions = webhook.match_conditions.unwrap_or_default();
        let policy = webhook.failure_policy.as_deref();
        let seconds = webhook.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            key,
            configuration: configuration.to_owned(),
            criteria: Criteria::of_webhook(
                webhook.rules.as_deref().unwrap_or_default(),
                webhook.match_policy.as_deref(),
                webhook.namespace_selector.as_ref(),
                webhook.object_selector.as_ref(),
            ),
            conditions: Conditions::compile(&mut Compiler::plain(), &conditions, scope, policy),
            client: client_config(webhook.client_config),
            fails: policy != Some("Ignore"),
            side_effects: Some(webhook.side_effects).filter(|effects| !effects.is_empty()),
            limit: seconds.map_or(LIMIT, Duration::from_secs),
            versions: webhook.admission_review_versions,
            again: webhook.reinvocation_policy.as_deref() == Some("IfNeeded"),
            name: webhook.name,
        }
    }
}

fn client_config(config: WebhookClientConfig) -> Result<ClientConfig, String> {
    let service = config.service.map(|service| (service.namespace, service.name, service.path, service.port));
    ClientConfig::new(service, config.url, config.ca_bundle.map(|bytes| bytes.0).unwrap_or_default())
}
