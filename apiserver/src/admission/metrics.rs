//! What is counted of webhooks and policies, under upstream's names (`apiserver/pkg/admission/metrics`).

use std::time::Duration;

use metrics::{counter, histogram};

/// What became of a call of a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Called {
    /// The request passes.
    Passed,
    /// The webhook refuses it, with this code.
    Refused(u16),
    /// The webhook could not be asked; whether that refuses the request.
    Failed(bool),
}

/// The code of a webhook that could not be asked.
const UNAVAILABLE: u16 = 503;

/// A webhook has been called. `kind`: `admit` or `validating`.
pub(crate) fn called(name: &str, kind: &'static str, operation: &'static str, took: Duration, what: Called) {
    let (code, rejected, error) = match what {
        Called::Passed => (200, false, None),
        Called::Refused(code) => (code, true, Some("no_error")),
        Called::Failed(refuses) => (UNAVAILABLE, refuses, Some("calling_webhook_error")),
    };
    let name = || name.to_owned();
    let rejected_text = if rejected { "true" } else { "false" };
    histogram!("apiserver_admission_webhook_admission_duration_seconds",
        "name" => name(), "type" => kind, "operation" => operation, "rejected" => rejected_text)
    .record(took.as_secs_f64());
    // As upstream: codes that nobody knows are one.
    let shown = if (100..600).contains(&code) { code } else { 600 };
    counter!("apiserver_admission_webhook_request_total",
        "name" => name(), "type" => kind, "operation" => operation, "code" => shown.to_string(),
        "rejected" => rejected_text)
    .increment(1);
    if let Some(error) = error.filter(|_| rejected) {
        let code = if error == "no_error" { shown } else { code };
        counter!("apiserver_admission_webhook_rejection_count",
            "name" => name(), "type" => kind, "operation" => operation, "error_type" => error,
            "rejection_code" => code.to_string())
        .increment(1);
    }
    if what == Called::Failed(false) {
        counter!("apiserver_admission_webhook_fail_open_count", "name" => name(), "type" => kind)
            .increment(1);
    }
}

/// A validating policy has been evaluated. `action`: `allow`, `deny`, `audit` or `warn`.
pub(crate) fn validated(policy: &str, binding: &str, action: &'static str, error: bool, took: Duration) {
    let labels = [
        ("policy", policy.to_owned()),
        ("policy_binding", binding.to_owned()),
        ("enforcement_action", action.to_owned()),
        ("error_type", if error { "invalid_error" } else { "no_error" }.to_owned()),
    ];
    counter!("apiserver_validating_admission_policy_check_total", &labels).increment(1);
    histogram!("apiserver_validating_admission_policy_check_duration_seconds", &labels)
        .record(took.as_secs_f64());
}

/// A mutating policy has been carried out, or has failed.
pub(crate) fn mutated(policy: &str, binding: &str, error: bool, took: Duration) {
    let labels = [
        ("policy", policy.to_owned()),
        ("policy_binding", binding.to_owned()),
        ("error_type", if error { "invalid_error" } else { "no_error" }.to_owned()),
    ];
    counter!("apiserver_mutating_admission_policy_check_total", &labels).increment(1);
    histogram!("apiserver_mutating_admission_policy_check_duration_seconds", &labels)
        .record(took.as_secs_f64());
}
