//! One call of one webhook.

use std::time::Instant;

use api::status::ApiError;
use bytes::Bytes;

use super::Invocation;
use super::review::{self, Reviewed};
use super::source::Hook;
use crate::admission::Attributes;
use crate::admission::matching::operation;
use crate::admission::metrics::{self, Called};
use crate::webhook::Clients;

/// Why there is no verdict.
#[derive(Debug)]
pub(super) enum Failure {
    /// The webhook could not be asked, or its answer is not believed: what follows is its failure policy's business.
    Call(String),
    /// The request is refused.
    Refused(ApiError),
}

impl Failure {
    fn call(what: &str, why: impl std::fmt::Display) -> Self {
        Self::Call(format!("{what}: {why}"))
    }
}

/// Asks a webhook about a request, and passes on what it has to say besides its verdict.
pub(super) async fn call(
    clients: &Clients,
    hook: &Hook,
    attributes: &Attributes<'_>,
    invocation: &Invocation,
    mutating: bool,
    warnings: &mut Vec<String>,
) -> Result<Reviewed, Failure> {
    if attributes.dry_run {
        match hook.side_effects.as_deref() {
            None => return Err(Failure::Call("Webhook SideEffects is nil".to_owned())),
            Some("None" | "NoneOnDryRun") => {}
            Some(_) => {
                let why = format!("admission webhook {:?} does not support dry run", hook.name);
                return Err(Failure::Refused(ApiError::bad_request(why)));
            }
        }
    }
    let review = review::ask(attributes, invocation, &hook.versions)
        .map_err(|why| Failure::call("could not create admission objects", why))?;
    let client = match &hook.client {
        Ok(config) => clients.client(config).map_err(|error| error.to_string()),
        Err(why) => Err(why.clone()),
    };
    let client = client.map_err(|why| Failure::call("could not get REST client", why))?;
    let body = Bytes::from(review.body.to_string());
    let answer = client.post(body, Some(hook.limit)).await;
    let answer = answer.map_err(|error| Failure::call("failed to call webhook", error))?;
    let mut verdict = review
        .accept(answer, mutating)
        .map_err(|why| Failure::call("received invalid webhook response", why))?;
    for (key, value) in std::mem::take(&mut verdict.annotations) {
        let key = format!("{}/{key}", hook.name);
        if !attributes.annotations.add(key.as_str(), value) {
            tracing::warn!(webhook = hook.name, key, "an audit annotation has been made already");
        }
    }
    warnings.append(&mut verdict.warnings);
    if verdict.allowed {
        return Ok(verdict);
    }
    Err(Failure::Refused(review::denied(&hook.name, verdict.result.take())))
}

/// Counts a call and what came of it. `kind`: `admit` or `validating`.
pub(super) fn count<T>(
    hook: &Hook,
    kind: &'static str,
    attributes: &Attributes<'_>,
    begin: Instant,
    outcome: &Result<T, Failure>,
) {
    let what = match outcome {
        Ok(_) => Called::Passed,
        Err(Failure::Refused(error)) => Called::Refused(error.code()),
        Err(Failure::Call(_)) => Called::Failed(hook.fails),
    };
    metrics::called(&hook.name, kind, operation(attributes.operation), begin.elapsed(), what);
}

/// What becomes of a request whose webhook could not be asked: nothing, or an error.
pub(super) fn policy(hook: &Hook, why: &str) -> Result<(), ApiError> {
    let message = format!("failed calling webhook {:?}: {why}", hook.name);
    if hook.fails {
        tracing::warn!(webhook = hook.name, why, "could not ask a webhook, the request is refused");
        return Err(ApiError::internal(message));
    }
    tracing::warn!(webhook = hook.name, why, "could not ask a webhook, the request passes");
    Ok(())
}
