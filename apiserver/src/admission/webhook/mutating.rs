//! `MutatingAdmissionWebhook`: webhooks that change objects (upstream `webhook/mutating`).

use std::sync::Arc;
use std::time::Instant;

use api::patch::JsonPatch;
use api::status::ApiError;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use serde_json::{Value, json};

use super::call::{self, Failure};
use super::review::{JSON_PATCH, Reviewed};
use super::source::Hook;
use super::{Invocation, Webhooks, is_exempt};
use crate::admission::matching::Matched;
use crate::admission::{Attributes, Deps, Plugin, Verdict};
use crate::codec;
use crate::registry::Registry;

const NAME: &str = "MutatingAdmissionWebhook";

/// The plugin.
pub(crate) struct Mutating {
    webhooks: Webhooks<MutatingWebhookConfiguration>,
    registry: Arc<Registry>,
}

impl Mutating {
    /// Watches configurations.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self {
            webhooks: Webhooks::new(deps, &deps.configured.mutating),
            registry: Arc::clone(&deps.registry),
        }
    }

    /// Asks one webhook, and changes the object as it says. Whether anything changed.
    async fn ask(
        &self,
        hook: &Hook,
        attributes: &Attributes<'_>,
        invocation: Invocation,
        object: &mut Value,
        warnings: &mut Vec<String>,
    ) -> Result<bool, Failure> {
        let clients = &self.webhooks.clients;
        let verdict = call::call(clients, hook, attributes, &invocation, true, warnings).await?;
        let Some(patch) = patch_of(hook, &verdict)? else { return Ok(false) };
        if invocation.object.is_null() {
            let why = format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            );
            return Err(Failure::Refused(ApiError::internal(why)));
        }
        if verdict.patch_type != JSON_PATCH {
            return Err(Failure::Call(format!("unsupported patch type {:?}", verdict.patch_type)));
        }
        let patched = patch.apply(&invocation.object);
        let patched = patched.map_err(|error| Failure::Refused(ApiError::internal(error)))?;
        let patched = self.decode(&invocation.matched, patched).map_err(Failure::Refused)?;
        let changed = !api::semantic_eq(Some(&invocation.object), Some(&patched));
        let own = Matched { resource: attributes.resource.clone(), kind: attributes.kind.clone() };
        let matched = &invocation.matched.kind;
        *object =
            self.webhooks.matcher.convert_from(&patched, matched, &own).await.map_err(Failure::Refused)?;
        Ok(changed)
    }

    /// A patched object in the form of its type, defaulted.
    fn decode(&self, matched: &Matched, patched: Value) -> Result<Value, ApiError> {
        let resource = &matched.resource;
        let served = self.registry.find(&resource.group, &resource.version, &resource.resource);
        let custom = served.as_ref().and_then(|served| served.custom.as_ref());
        let custom = custom.filter(|custom| custom.version.gvk == matched.kind);
        let decoded = codec::decode_value_for(custom, patched, &matched.kind);
        decoded.map(|decoded| decoded.value).map_err(|error| {
            let why = error.message();
            let why = why.split_once(" cannot be handled as a ").and_then(|(_, rest)| rest.split_once(": "));
            ApiError::internal(why.map_or(error.message(), |(_, why)| why))
        })
    }
}

/// The patch of a verdict; `None` if it changes nothing.
fn patch_of(hook: &Hook, verdict: &Reviewed) -> Result<Option<JsonPatch>, Failure> {
    if verdict.patch.is_empty() {
        return Ok(None);
    }
    let patch = JsonPatch::decode(&verdict.patch).map_err(|error| {
        let why = error.to_string();
        let why = why.strip_prefix("error decoding patch: ").unwrap_or(&why).to_owned();
        tracing::debug!(webhook = hook.name, why, "a patch cannot be read");
        Failure::Call(format!("received undecodable patch in webhook response: {why}"))
    })?;
    Ok(Some(patch.patch).filter(|patch| !patch.is_empty()))
}

impl Plugin for Mutating {
    fn name(&self) -> &'static str {
        NAME
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        !is_exempt(attributes.kind)
    }

    fn admit<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a mut Value,
        old: Option<&'a Value>,
        warnings: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if self.webhooks.source.is_empty() {
            return Verdict::PASS;
        }
        Verdict::later(async move {
            let hooks = self.webhooks.source.hooks(attributes, object).await?;
            self.dispatch(&hooks, attributes, object, (old, warnings)).await
        })
    }
}

impl Mutating {
    async fn dispatch(
        &self,
        hooks: &[Arc<Hook>],
        attributes: &Attributes<'_>,
        object: &mut Value,
        (old, warnings): (Option<&Value>, &mut Vec<String>),
    ) -> Result<(), ApiError> {
        let reinvocation = attributes.reinvocation;
        reinvocation.enter(NAME, object);
        let mut asked = false;
        for (index, hook) in hooks.iter().enumerate() {
            let Some(invocation) = self.webhooks.concerns(hook, attributes, object, old).await? else {
                continue;
            };
            // One that did not see the object the first time does not see it the second time.
            if !reinvocation.is_due(NAME, &hook.key) {
                continue;
            }
            asked = true;
            let begin = Instant::now();
            let outcome = self.ask(hook, attributes, invocation, object, warnings).await;
            call::count(hook, "admit", attributes, begin, &outcome);
            let place = format!("round_{}_index_{index}", reinvocation.round());
            let changed = matches!(outcome, Ok(true));
            let said = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
            let key = format!("mutation.webhook.admission.k8s.io/{place}");
            attributes.annotations.add(key, said.to_string());
            if changed {
                reinvocation.changed(NAME);
            }
            if hook.again {
                reinvocation.ran(NAME, &hook.key);
            }
            match outcome {
                Ok(_) => {}
                Err(Failure::Refused(error)) => return Err(error),
                Err(Failure::Call(why)) => {
                    call::policy(hook, &why)?;
                    let key = format!("failed-open.mutation.webhook.admission.k8s.io/{place}");
                    attributes.annotations.add(key, hook.name.as_str());
                }
            }
        }
        if asked {
            reinvocation.leave(NAME, object);
        }
        Ok(())
    }
}
