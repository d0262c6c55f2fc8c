//! Who has to go first. Pure; as upstream's `rankMemoryPressure` and its siblings.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::{qos, types};

/// A pod and what it uses of the resource that is short.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The pod.
    pub pod: Arc<Pod>,
    /// Use, in bytes or numbers.
    pub used: u64,
}

fn requested(pod: &Pod, resource: &str) -> u64 {
    let milli = qos::pod_requests(pod).get(resource).copied().unwrap_or_default();
    u64::try_from(milli / 1000).unwrap_or_default()
}

/// Sorts by: uses more than it asked for, lower priority, uses most above what it asked for.
#[must_use]
pub fn rank(mut candidates: Vec<Candidate>, resource: &str) -> Vec<Candidate> {
    candidates.sort_by_cached_key(|c| {
        let requested = requested(&c.pod, resource);
        let priority = types::spec(&c.pod).priority.unwrap_or_default();
        (Reverse(c.used > requested), priority, Reverse(i128::from(c.used) - i128::from(requested)))
    });
    candidates
}

/// Pods that may be asked to go: those the node can do without.
#[must_use]
pub fn evictable(pod: &Pod) -> bool {
    !qos::is_critical(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, priority: i32, request: &str, used: u64) -> Candidate {
        let pod = serde_saphyr::from_str(&format!(
            "metadata: {{name: {name}}}\nspec: {{priority: {priority}, containers: [{{name: a, resources: {{requests: {{memory: '{request}'}}}}}}]}}"
        ));
        Candidate { pod: Arc::new(pod.expect("valid pod")), used }
    }

    #[test]
    fn the_greedy_go_first_then_the_unimportant() {
        let ranked = rank(
            vec![
                candidate("modest", 0, "100", 50),
                candidate("greedy", 0, "100", 150),
                candidate("greediest", 0, "100", 900),
                candidate("important", 9, "100", 999),
                candidate("modest-important", 9, "100", 99),
            ],
            "memory",
        );
        let names: Vec<_> = ranked.iter().map(|c| types::name(&c.pod)).collect();
        assert_eq!(names, ["greediest", "greedy", "important", "modest", "modest-important"]);
    }

    #[test]
    fn critical_pods_stay() {
        let pod = |text: &str| -> Pod { serde_saphyr::from_str(text).expect("valid pod") };
        assert!(evictable(&pod("spec: {containers: []}")));
        assert!(!evictable(&pod("spec: {priority: 2000000000, containers: []}")));
        assert!(!evictable(&pod("metadata: {annotations: {kubernetes.io/config.source: file}}")));
    }
}
