//! `ValidatingAdmissionWebhook`: webhooks that refuse objects (upstream `webhook/validating`).

use std::sync::Arc;
use std::time::Instant;

use api::status::ApiError;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use serde_json::Value;

use super::call::{self, Failure};
use super::source::Hook;
use super::{Invocation, Webhooks, is_exempt};
use crate::admission::{Attributes, Deps, Plugin, Verdict};

const NAME: &str = "ValidatingAdmissionWebhook";

/// The plugin.
pub(crate) struct Validating {
    webhooks: Webhooks<ValidatingWebhookConfiguration>,
}

impl Validating {
    /// Watches configurations.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self { webhooks: Webhooks::new(deps, &deps.configured.validating) }
    }

    /// Asks one webhook; also what it wants to be told to the client.
    async fn ask(
        &self,
        hook: &Hook,
        index: usize,
        attributes: &Attributes<'_>,
        invocation: &Invocation,
    ) -> (Result<(), ApiError>, Vec<String>) {
        let mut warnings = Vec::new();
        let clients = &self.webhooks.clients;
        let begin = Instant::now();
        let called = call::call(clients, hook, attributes, invocation, false, &mut warnings).await;
        call::count(hook, "validating", attributes, begin, &called);
        let outcome = match called {
            Ok(_) => Ok(()),
            Err(Failure::Refused(error)) => Err(error),
            Err(Failure::Call(why)) => call::policy(hook, &why).inspect(|()| {
                let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                attributes.annotations.add(key, hook.name.as_str());
            }),
        };
        (outcome, warnings)
    }
}

impl Plugin for Validating {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !is_exempt(attributes.kind)
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        warnings: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if self.webhooks.source.is_empty() {
            return Verdict::PASS;
        }
        Verdict::later(async move {
            let hooks = self.webhooks.source.hooks(attributes, object).await?;
            self.dispatch(&hooks, attributes, (object, old), warnings).await
        })
    }
}

impl Validating {
    async fn dispatch(
        &self,
        hooks: &[Arc<Hook>],
        attributes: &Attributes<'_>,
        (object, old): (&Value, Option<&Value>),
        warnings: &mut Vec<String>,
    ) -> Result<(), ApiError> {
        let mut concerned = Vec::new();
        for hook in hooks {
            if let Some(invocation) = self.webhooks.concerns(hook, attributes, object, old).await? {
                concerned.push((hook, invocation));
            }
        }
        let mut asked: FuturesUnordered<_> = concerned
            .iter()
            .enumerate()
            .map(|(index, (hook, invocation))| self.ask(hook, index, attributes, invocation))
            .collect();
        // All are heard, and the first that refuses is told.
        let mut first = Ok(());
        while let Some((outcome, mut said)) = asked.next().await {
            warnings.append(&mut said);
            first = first.and(outcome);
        }
        first
    }
}
