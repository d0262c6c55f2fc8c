//! NamespaceLifecycle: nothing is made in a namespace that does not exist or is going away; some namespaces stay
//! (upstream `admission/plugin/namespace/lifecycle`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use api::names::GroupResource;
use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use kube::Api;
use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Deps, Operation, Plugin, Verdict};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// For so long after a deletion the cache is not believed.
const LIVE_LOOKUP: Duration = Duration::from_secs(30);
/// So many deletions are remembered.
const REMEMBERED: usize = 100;

/// The plugin.
pub struct NamespaceLifecycle {
    client: Client,
    namespaces: Informer<Namespace>,
    /// Namespaces whose deletion was asked for, and until when the cache may be behind.
    deleted: Mutex<HashMap<String, Instant>>,
}

impl NamespaceLifecycle {
    /// Watches namespaces.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { client: deps.client.clone(), namespaces: deps.informers.informer(), deleted: Mutex::default() }
    }

    fn remember(&self, namespace: &str) {
        let now = Instant::now();
        let mut deleted = self.deleted.lock();
        if deleted.len() >= REMEMBERED {
            deleted.retain(|_, until| *until > now);
        }
        deleted.insert(namespace.to_owned(), now + LIVE_LOOKUP);
    }

    fn recently_deleted(&self, namespace: &str) -> bool {
        let deleted = self.deleted.lock();
        !deleted.is_empty() && deleted.get(namespace).is_some_and(|until| *until > Instant::now())
    }

    /// Whether the namespace is going away; `None` where the cache may be behind.
    fn is_known_to_terminate(&self, namespace: &str) -> Option<bool> {
        let cached = self.namespaces.store().get(&ObjectKey::new("", namespace))?;
        let terminating = terminating(&cached);
        (terminating || !self.recently_deleted(namespace)).then_some(terminating)
    }

    /// Asks the API whether the namespace is going away; an error if it does not exist.
    async fn is_terminating(&self, namespace: &str) -> Result<bool, ApiError> {
        let found = Api::<Namespace>::all(self.client.clone()).get_opt(namespace).await;
        match found.map_err(crate::authz::from_client)? {
            Some(found) => Ok(terminating(&found)),
            None => Err(ApiError::not_found(&GroupResource::new("", "namespaces"), namespace)),
        }
    }
}

fn terminating(namespace: &Namespace) -> bool {
    namespace.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Terminating")
}

impl Plugin for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        let own = attributes.kind.kind == "Namespace" && attributes.kind.group.is_empty();
        match attributes.operation {
            Operation::Delete => own,
            Operation::Connect => false,
            _ => {
                !own && !attributes.namespace.is_empty()
                    && !attributes.is_any("authorization.k8s.io", "localsubjectaccessreviews")
            }
        }
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        _: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if attributes.operation == Operation::Delete {
            if IMMORTAL.contains(&attributes.name) {
                return Verdict::Now(Err(attributes.forbidden(object, "this namespace may not be deleted")));
            }
            self.remember(attributes.name);
            return Verdict::PASS;
        }
        match self.is_known_to_terminate(attributes.namespace) {
            Some(terminating) => Verdict::Now(judge(attributes, object, terminating)),
            None => Verdict::later(async move {
                judge(attributes, object, self.is_terminating(attributes.namespace).await?)
            }),
        }
    }
}

/// Nothing new in a namespace that is going away.
fn judge(attributes: &Attributes<'_>, object: &Value, terminating: bool) -> Result<(), ApiError> {
    if !terminating || attributes.operation != Operation::Create {
        return Ok(());
    }
    let namespace = attributes.namespace;
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let cause = StatusCause {
        reason: Some("NamespaceTerminating".to_owned()),
        message: Some(format!("namespace {namespace} is being terminated")),
        field: Some("metadata.namespace".to_owned()),
    };
    Err(attributes.forbidden(object, &why).with_causes(vec![cause]))
}
