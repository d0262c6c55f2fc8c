//! Admission by webhooks: `MutatingAdmissionWebhook` and `ValidatingAdmissionWebhook` (upstream
//! `admission/plugin/webhook`).
//!
//! [`source`] knows the webhooks that are configured, `matching` says which of them a request concerns, [`review`] is
//! what they are asked and what is believed of their answers, [`call`] asks one. Mutating webhooks are asked one after
//! the other, validating ones all at once.

mod call;
mod mutating;
mod review;
mod source;
#[cfg(test)]
mod tests;
mod validating;

use std::sync::Arc;

use api::names::GroupVersionKind;
use api::status::ApiError;
use serde_json::Value;

use super::expressions::Facts;
use super::matching::{Matched, Matcher, Met};
use super::{Attributes, Deps};
use crate::authz::Authorizer;
use crate::webhook::{Clients, Logins};
pub(super) use mutating::Mutating;
use source::{Configuration, Hook, Source};
pub(super) use validating::Validating;

/// What both plugins have.
struct Webhooks<C: Configuration> {
    source: Source<C>,
    matcher: Matcher,
    authorizer: Arc<dyn Authorizer>,
    clients: Clients,
}

impl<C: Configuration> Webhooks<C> {
    /// `logins`: who this server is to them.
    fn new(deps: &Deps<'_>, logins: &Logins) -> Self {
        Self {
            source: Source::new(deps.informers),
            matcher: Matcher::new(deps),
            authorizer: Arc::clone(&deps.authorizer),
            clients: deps.webhooks.with_logins(logins.clone()),
        }
    }

    /// How a request concerns a webhook, if it does. `object` is the one that the request would write.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn concerns(
        &self,
        hook: &Hook,
        attributes: &Attributes<'_>,
        object: &Value,
        old: Option<&Value>,
    ) -> Result<Option<Invocation>, ApiError> {
        let matched = self.matcher.matches(attributes, object, old, &hook.criteria).await?;
        let Some(matched) = matched else { return Ok(None) };
        let invocation = Invocation {
            object: self.matcher.convert(attributes, object, &matched).await?,
            old: self.matcher.convert(attributes, old.unwrap_or(&Value::Null), &matched).await?,
            matched,
        };
        if hook.conditions.is_empty() {
            return Ok(Some(invocation));
        }
        let facts = Facts::new(attributes, &invocation.matched, &self.authorizer);
        let input = || facts.input(&invocation.object, &invocation.old, &Value::Null, &Value::Null);
        match facts.settle(|| hook.conditions.check(input(), &[])).await {
            Met::Yes => Ok(Some(invocation)),
            Met::No => Ok(None),
            Met::Error(why) => {
                let resource = attributes.resource.group_resource();
                Err(ApiError::forbidden(&resource, attributes.name, &why))
            }
        }
    }
}

/// A request as one webhook is to see it.
struct Invocation {
    matched: Matched,
    object: Value,
    old: Value,
}

/// Whether webhooks have no say: a configuration must be able to be mended (upstream
/// `IsExemptAdmissionConfigurationResource`).
fn is_exempt(kind: &GroupVersionKind) -> bool {
    const KINDS: [&str; 6] = [
        "ValidatingWebhookConfiguration",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    ];
    kind.group == "admissionregistration.k8s.io" && KINDS.contains(&&*kind.kind)
}
