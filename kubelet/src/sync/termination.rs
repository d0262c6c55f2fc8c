//! How long containers get to stop, and in which order sidecars follow.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio_util::sync::CancellationToken;

use super::plan::KillReason;
use crate::types;

/// Every container gets at least this long, so that none is killed without being asked.
pub const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// How long a container of `pod` gets.
#[must_use]
pub fn grace_period(pod: &Pod, container: &Container, reason: KillReason) -> Duration {
    let seconds = |s: i64| Duration::from_secs(u64::try_from(s).unwrap_or_default());
    if let Some(grace) = pod.metadata.deletion_grace_period_seconds {
        return seconds(grace);
    }
    let Some(of_pod) = types::spec(pod).termination_grace_period_seconds else { return MINIMUM_GRACE };
    let probe = match reason {
        KillReason::StartupProbe => container.startup_probe.as_ref(),
        KillReason::LivenessProbe => container.liveness_probe.as_ref(),
        KillReason::Other | KillReason::FailedPostStartHook => None,
    };
    seconds(probe.and_then(|p| p.termination_grace_period_seconds).unwrap_or(of_pod))
}

/// Sidecars stop after all app containers, the last of the spec first.
#[derive(Debug, Default)]
pub struct TerminationOrder {
    ended: HashMap<String, CancellationToken>,
    before: HashMap<String, Vec<CancellationToken>>,
}

impl TerminationOrder {
    /// The order among the containers of `pod` that run now.
    #[must_use]
    pub fn new(pod: &Pod, running: &[&str]) -> Self {
        let spec = types::spec(pod);
        let mut order = Self::default();
        let mut add = |name: &str| {
            let token = CancellationToken::new();
            if !running.contains(&name) {
                token.cancel();
            }
            order.ended.insert(name.to_owned(), token.clone());
            token
        };
        let apps: Vec<_> = spec.containers.iter().map(|c| add(&c.name)).collect();
        let mut later: Option<CancellationToken> = None;
        let mut before = HashMap::new();
        for container in types::init_containers(spec).iter().rev() {
            let token = add(&container.name);
            if types::is_restartable_init(container) {
                before.insert(container.name.clone(), apps.iter().cloned().chain(later.take()).collect());
                later = Some(token);
            }
        }
        order.before = before;
        order
    }

    /// Waits until the containers that `name` outlives have ended, at most `limit`.
    pub async fn wait_for_turn(&self, name: &str, limit: Duration) {
        let Some(before) = self.before.get(name) else { return };
        let all = async {
            for token in before {
                token.cancelled().await;
            }
        };
        // Out of time: it is stopped all the same.
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Notes that `name` has ended.
    pub fn ended(&self, name: &str) {
        if let Some(token) = self.ended.get(name) {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_comes_from_deletion_probe_or_pod() {
        let pod = |meta: &str| -> Pod {
            serde_saphyr::from_str(&format!(
                "metadata: {{name: p{meta}}}\nspec:\n  terminationGracePeriodSeconds: 30\n  containers:\n  - name: a\n\
                 \x20   livenessProbe: {{terminationGracePeriodSeconds: 5}}\n    startupProbe: {{}}\n"
            ))
            .expect("valid")
        };
        let cases = [
            ("", KillReason::Other, 30),
            ("", KillReason::LivenessProbe, 5),
            ("", KillReason::StartupProbe, 30),
            (", deletionGracePeriodSeconds: 7", KillReason::LivenessProbe, 7),
            (", deletionGracePeriodSeconds: 0", KillReason::Other, 0),
        ];
        for (meta, reason, seconds) in cases {
            let pod = pod(meta);
            let grace = grace_period(&pod, &types::spec(&pod).containers[0], reason);
            assert_eq!(grace, Duration::from_secs(seconds), "{meta} {reason:?}");
        }
        let bare = Pod::default();
        assert_eq!(grace_period(&bare, &Container::default(), KillReason::Other), MINIMUM_GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn sidecars_stop_after_apps_in_reverse() {
        let pod: Pod = serde_saphyr::from_str(
            "spec:\n  initContainers:\n  - {name: s1, restartPolicy: Always}\n  - {name: i}\n\
             \x20 - {name: s2, restartPolicy: Always}\n  containers: [{name: a}, {name: b}]\n",
        )
        .expect("valid");
        let order = TerminationOrder::new(&pod, &["s1", "s2", "a"]);
        let waits = |name: &'static str| {
            let order = &order;
            async move {
                let start = tokio::time::Instant::now();
                order.wait_for_turn(name, Duration::from_secs(10)).await;
                start.elapsed() > Duration::ZERO
            }
        };
        assert!(!waits("a").await && waits("s1").await && waits("s2").await);
        order.ended("a");
        assert!(waits("s1").await && !waits("s2").await);
        order.ended("s2");
        assert!(!waits("s1").await);
    }
}
