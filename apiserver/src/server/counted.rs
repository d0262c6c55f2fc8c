//! What is counted of authentication and authorization, under upstream's names (`endpoints/filters/metrics.go`).

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

use crate::authz::Decision;

/// One outcome: how often, and how long it took.
struct Outcome {
    count: Counter,
    duration: Histogram,
}

/// Handles are looked up once, when the first request comes.
struct Handles {
    authenticated: [Outcome; 2],
    users: [Counter; 2],
    authorized: [Outcome; 4],
}

static HANDLES: LazyLock<Handles> = LazyLock::new(|| {
    let authenticated = |result: &'static str| Outcome {
        count: counter!("authentication_attempts", "result" => result),
        duration: histogram!("authentication_duration_seconds", "result" => result),
    };
    let authorized = |result: &'static str| Outcome {
        count: counter!("authorization_attempts_total", "result" => result),
        duration: histogram!("authorization_duration_seconds", "result" => result),
    };
    Handles {
        authenticated: ["success", "error"].map(authenticated),
        users: ["email_id", "other"].map(|name| counter!("authenticated_user_requests", "username" => name)),
        authorized: ["allowed", "denied", "no-opinion", "error"].map(authorized),
    }
});

/// Names that are counted each by itself; all others are not bounded in number.
const KNOWN: [&str; 5] =
    ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

/// A request's sender has been found (`Some`), or has been refused.
pub(super) fn authenticated(name: Option<&str>, took: Duration) {
    let outcome = &HANDLES.authenticated[usize::from(name.is_none())];
    outcome.count.increment(1);
    outcome.duration.record(took.as_secs_f64());
    match name {
        Some(name) if KNOWN.contains(&name) => {
            counter!("authenticated_user_requests", "username" => name.to_owned()).increment(1);
        }
        Some(name) => HANDLES.users[usize::from(!name.contains('@'))].increment(1),
        None => {}
    }
}

/// A request has been decided about.
pub(super) fn authorized(decision: &Decision, took: Duration) {
    let outcome = match decision {
        Decision::Allow { .. } => 0,
        Decision::Deny { .. } => 1,
        Decision::NoOpinion { .. } => 2,
        Decision::Failed { .. } => 3,
    };
    let outcome = &HANDLES.authorized[outcome];
    outcome.count.increment(1);
    outcome.duration.record(took.as_secs_f64());
}
