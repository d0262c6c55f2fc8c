//! Puts the authorizers together as the configuration says, and again when its file changes (upstream
//! `kubeapiserver/authorizer`).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{SharedInformerFactory, Tasks};
use metrics::{Counter, counter, gauge};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use super::conditions::Condition;
use super::structured::{
    AuthorizationConfiguration, AuthorizerConfiguration, WEBHOOK, WebhookConfiguration, validate,
    validate_names,
};
use super::webhook::Webhook;
use super::{
    AlwaysAllow, AlwaysDeny, Answer, Authorizer, Decision, Superusers, Union, UserRules, abac, node, rbac,
    wait_for,
};
use crate::authn::User;
use crate::authn::setup::joined;
use crate::remote::Dialer;
use crate::request::RequestInfo;
use crate::webhook::{CallError, Client};

/// How often the file is looked at.
const RELOAD: Duration = Duration::from_secs(1);

/// What is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationConfig {
    /// File with the `AuthorizationConfiguration`; the rest does not count then.
    pub configuration_file: Option<PathBuf>,
    /// Authorizers in order: `Node`, `RBAC`, `ABAC`, `Webhook`, `AlwaysAllow`, `AlwaysDeny`.
    pub modes: Vec<String>,
    /// The policies of `ABAC`, also if a configuration file names it.
    pub policy_file: Option<PathBuf>,
    /// The webhook of the mode `Webhook`.
    pub webhook: Option<WebhookConfiguration>,
}

impl Default for AuthorizationConfig {
    fn default() -> Self {
        let modes = vec!["Node".to_owned(), "RBAC".to_owned()];
        Self { configuration_file: None, modes, policy_file: None, webhook: None }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no such configuration.
    #[error("failed to load AuthorizationConfiguration from file: {0}")]
    Unreadable(#[from] crate::config_file::Error),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// There are no policies.
    #[error(transparent)]
    Policies(#[from] abac::Error),
    /// A webhook cannot be used.
    #[error("authorization webhook")]
    Webhook(#[from] CallError),
    /// An authorizer is new that must be there from the start.
    #[error("authorizer type {0} is not allowed if it was not enabled at initial server startup")]
    New(String),
}

/// What stays when a file changes.
struct Parts {
    dialer: Dialer,
    rbac: Option<Arc<dyn Authorizer>>,
    node: Option<Arc<dyn Authorizer>>,
    abac: Option<Arc<dyn Authorizer>>,
}

/// The authorizers, which may be exchanged. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Current(Arc<RwLock<Arc<Union>>>);

impl Current {
    fn get(&self) -> Arc<Union> {
        Arc::clone(&self.0.read())
    }
}

impl Authorizer for Current {
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision {
        self.get().authorize(user, request)
    }

    fn decide<'a>(&'a self, user: &'a User, request: &'a RequestInfo) -> Answer<'a> {
        let union = self.get();
        if !union.is_remote() {
            return Answer::Now(union.authorize(user, request));
        }
        Answer::Later(Box::pin(async move { union.decide(user, request).get().await }))
    }

    fn rules(&self, user: &User, namespace: &str) -> UserRules {
        self.get().rules(user, namespace)
    }

    fn is_remote(&self) -> bool {
        self.get().is_remote()
    }
}

/// The authorizers that are configured, after the one for superusers. RBAC is given too, for those who resolve rules; it
/// is there whether or not it decides. `dialer`: how webhooks are reached.
///
/// # Errors
/// When the configuration cannot be used.
pub fn setup(
    config: &AuthorizationConfig,
    informers: &SharedInformerFactory,
    tasks: &Tasks,
    dialer: Dialer,
) -> Result<(Current, Arc<rbac::Rbac>), Error> {
    let (read, text) = match &config.configuration_file {
        Some(path) => {
            let failed = |source| Error::File { path: path.clone(), source };
            let text = std::fs::read(path).map_err(failed)?;
            (AuthorizationConfiguration::parse(&text)?, text)
        }
        None => (AuthorizationConfiguration::of_modes(&config.modes, config.webhook.as_ref()), Vec::new()),
    };
    let conditions = if config.configuration_file.is_some() {
        check(&read, &BTreeSet::new())?
    } else {
        // Flags have no conditions, and may say what files may not.
        vec![Vec::new(); read.authorizers.len()]
    };
    let types: BTreeSet<String> = read
        .authorizers
        .iter()
        .map(|authorizer| authorizer.kind.clone())
        .filter(|kind| kind != WEBHOOK)
        .collect();
    let rbac = rbac::Rbac::new(informers);
    let parts = Parts {
        dialer,
        rbac: types.contains("RBAC").then(|| Arc::clone(&rbac) as Arc<dyn Authorizer>),
        node: types.contains("Node").then(|| Arc::new(node::NodeAuthorizer::new(informers)) as _),
        abac: match types.contains("ABAC") {
            // As upstream, a file that is not named is looked for, and not found.
            true => Some(Arc::new(abac::Policies::load(&config.policy_file.clone().unwrap_or_default())?)),
            false => None,
        },
    };
    let current = Current(Arc::new(RwLock::new(Arc::new(parts.union(read, conditions)?))));
    if let Some(path) = config.configuration_file.clone() {
        let reloader = Reloader { path, text, types, parts, current: current.clone() };
        tasks.spawn("authorization-config", |token| reloader.run(token));
    }
    Ok((current, rbac))
}

/// Checks a configuration; `required` are types that must be in it.
fn check(
    config: &AuthorizationConfiguration,
    required: &BTreeSet<String>,
) -> Result<Vec<Vec<Condition>>, Error> {
    let compiled = validate(config).map_err(|errors| Error::Invalid(joined(&errors)))?;
    validate_names(config, required).map_err(Error::Invalid)?;
    Ok(compiled)
}

impl Parts {
    fn union(
        &self,
        config: AuthorizationConfiguration,
        conditions: Vec<Vec<Condition>>,
    ) -> Result<Union, Error> {
        let mut all: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Superusers)];
        for (authorizer, conditions) in config.authorizers.into_iter().zip(conditions) {
            let (kind, name) = (authorizer.kind.clone(), authorizer.name.clone());
            let inner = self.authorizer(authorizer, conditions)?;
            all.push(Arc::new(Counted::new(&kind, &name, inner)));
        }
        Ok(Union::new(all))
    }

    fn authorizer(
        &self,
        config: AuthorizerConfiguration,
        conditions: Vec<Condition>,
    ) -> Result<Arc<dyn Authorizer>, Error> {
        let missing = || Error::New(config.kind.clone());
        Ok(match config.kind.as_str() {
            "Node" => Arc::clone(self.node.as_ref().ok_or_else(missing)?),
            "RBAC" => Arc::clone(self.rbac.as_ref().ok_or_else(missing)?),
            "ABAC" => Arc::clone(self.abac.as_ref().ok_or_else(missing)?),
            "AlwaysAllow" => Arc::new(AlwaysAllow),
            "AlwaysDeny" => Arc::new(AlwaysDeny),
            WEBHOOK => {
                let Some(webhook) = config.webhook else {
                    return Err(Error::Invalid(
                        "authorization-mode Webhook's authorization config file not passed".to_owned(),
                    ));
                };
                let Some(file) = &webhook.connection_info.kube_config_file else {
                    return Err(Error::Invalid(
                        "authorization webhooks are found by kubeconfig files only".to_owned(),
                    ));
                };
                let client =
                    Client::from_kubeconfig(file, Some(webhook.timeout.length), self.dialer.clone())?;
                Arc::new(Webhook::new(&config.name, client, webhook, conditions))
            }
            other => {
                return Err(Error::Invalid(format!(
                    "unknown authorization mode {other}: must be one of ABAC, AlwaysAllow, AlwaysDeny, Node, \
                     RBAC, Webhook"
                )));
            }
        })
    }
}

/// Counts what an authorizer decides.
struct Counted {
    inner: Arc<dyn Authorizer>,
    allowed: Counter,
    denied: Counter,
}

impl Counted {
    fn new(kind: &str, name: &str, inner: Arc<dyn Authorizer>) -> Self {
        let counter = |decision: &'static str| {
            counter!("apiserver_authorization_decisions_total",
                "type" => kind.to_owned(), "name" => name.to_owned(), "decision" => decision)
        };
        Self { inner, allowed: counter("allowed"), denied: counter("denied") }
    }

    fn count(&self, decision: Decision) -> Decision {
        match &decision {
            Decision::Allow { .. } => self.allowed.increment(1),
            Decision::Deny { .. } | Decision::Failed { denies: true, .. } => self.denied.increment(1),
            Decision::NoOpinion { .. } | Decision::Failed { denies: false, .. } => {}
        }
        decision
    }
}

impl Authorizer for Counted {
    fn authorize(&self, user: &User, request: &RequestInfo) -> Decision {
        wait_for(self.decide(user, request))
    }

    fn decide<'a>(&'a self, user: &'a User, request: &'a RequestInfo) -> Answer<'a> {
        match self.inner.decide(user, request) {
            Answer::Now(decision) => Answer::Now(self.count(decision)),
            Answer::Later(decision) => Answer::Later(Box::pin(async move { self.count(decision.await) })),
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> UserRules {
        self.inner.rules(user, namespace)
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }
}

/// Looks at the file now and then; what is good in it comes into effect.
struct Reloader {
    path: PathBuf,
    text: Vec<u8>,
    /// Types that must stay.
    types: BTreeSet<String>,
    parts: Parts,
    current: Current,
}

impl Reloader {
    async fn run(mut self, token: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = tokio::time::sleep(RELOAD) => self.look(),
            }
        }
    }

    fn look(&mut self) {
        let read = std::fs::read(&self.path);
        let outcome = match read {
            Ok(text) if text == self.text => return,
            Ok(text) => {
                let outcome = self.apply(&text);
                self.text = text;
                outcome
            }
            Err(source) => Err(Error::File { path: self.path.clone(), source }),
        };
        let status = if outcome.is_ok() { "success" } else { "failure" };
        counter!("apiserver_authorization_config_controller_automatic_reloads_total", "status" => status)
            .increment(1);
        gauge!("apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds",
            "status" => status)
        .set(jiff::Timestamp::now().as_second() as f64);
        match outcome {
            Ok(()) => tracing::info!(file = %self.path.display(), "reloaded authorization config"),
            Err(error) => {
                tracing::warn!(error = %client::chain(&error), "could not reload authorization config");
            }
        }
    }

    fn apply(&self, text: &[u8]) -> Result<(), Error> {
        let config = AuthorizationConfiguration::parse(text)?;
        let conditions = check(&config, &self.types)?;
        *self.current.0.write() = Arc::new(self.parts.union(config, conditions)?);
        Ok(())
    }
}
