//! A pod on a simulated node: what it needs next, decided from the pod and the time alone.

pub mod life;
mod plan;

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kubelet::duration::GoDuration;
use kubelet::types;

pub use plan::{Plan, needs_addresses, plan};

/// The annotation that says for how long the containers of a pod run, as Go writes durations: `1m30s`.
pub const RUN_DURATION: &str = "coxswain.io/run-duration";
/// The annotation that says what the containers of a pod exit with.
pub const EXIT_CODE: &str = "coxswain.io/exit-code";

/// How long steps of a pod's life take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durations {
    /// From being bound to running.
    pub start: Duration,
    /// From running to the end, of containers that are not to run forever.
    pub run: Duration,
    /// From being told to stop to the end, at most the grace period.
    pub stop: Duration,
}

/// Where a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Addresses of the node.
    pub node: Vec<IpAddr>,
    /// Addresses of the pod.
    pub pod: Vec<IpAddr>,
}

/// How the containers of a pod end by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// How long they run.
    pub duration: Duration,
    /// What they exit with.
    pub code: i32,
}

impl Run {
    /// How the containers of `pod` end; none that run forever. What annotations say that cannot be read is not said.
    #[must_use]
    pub fn of(pod: &Pod, default: Duration) -> Option<Self> {
        let said = types::annotation(pod, RUN_DURATION).and_then(|text| text.parse::<GoDuration>().ok());
        let ends = matches!(types::spec(pod).restart_policy.as_deref(), Some("Never" | "OnFailure"));
        let duration = said.map(Duration::from).or(ends.then_some(default))?;
        let code = types::annotation(pod, EXIT_CODE).and_then(|text| text.parse::<u8>().ok());
        Some(Self { duration, code: code.unwrap_or_default().into() })
    }
}

/// Whether a pod has ended for good.
#[must_use]
pub fn is_terminal(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")))
}

#[cfg(test)]
mod tests;
