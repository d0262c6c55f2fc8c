//! The conditions that tell of resizes, by pod.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use parking_lot::Mutex;

use crate::status::containers::api_time;
use crate::types;

/// Condition of a pod whose resize has not been allocated.
pub const PENDING: &str = "PodResizePending";
/// Condition of a pod whose resize has been allocated and is not yet done.
pub const IN_PROGRESS: &str = "PodResizeInProgress";

#[derive(Clone, Debug, Default)]
struct OfPod {
    pending: Option<PodCondition>,
    in_progress: Option<PodCondition>,
}

/// What is told of resizes of this node's pods.
#[derive(Debug, Default)]
pub struct Conditions(Mutex<HashMap<String, OfPod>>);

fn condition(
    kind: &str,
    old: Option<&PodCondition>,
    (reason, message): (&str, &str),
    generation: Option<i64>,
    now: Timestamp,
) -> PodCondition {
    let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
    let unchanged = old.filter(|old| old.reason.as_deref().unwrap_or_default() == reason);
    PodCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: text(reason),
        message: text(message),
        observed_generation: generation,
        last_transition_time: unchanged
            .map_or_else(|| Some(api_time(now)), |old| old.last_transition_time.clone()),
        ..PodCondition::default()
    }
}

impl Conditions {
    /// Those of one pod.
    #[must_use]
    pub fn of(&self, uid: &str) -> Vec<PodCondition> {
        let all = self.0.lock();
        let Some(pod) = all.get(uid) else { return Vec::new() };
        pod.pending.iter().chain(&pod.in_progress).cloned().collect()
    }

    /// A resize waits. Whether that is news.
    pub fn set_pending(&self, pod: &Pod, reason: &str, message: &str, now: Timestamp) -> bool {
        let (mut all, generation) = (self.0.lock(), pod.metadata.generation);
        let slot = &mut all.entry(types::uid(pod).to_owned()).or_default().pending;
        let news = slot
            .as_ref()
            .is_none_or(|old| old.reason.as_deref() != Some(reason) || old.observed_generation != generation);
        *slot = Some(condition(PENDING, slot.as_ref(), (reason, message), generation, now));
        news
    }

    /// A resize is on its way, or failed for now. What is known already stays, its generation above all. Answers that
    /// generation, and whether this is news.
    pub fn set_in_progress(
        &self,
        pod: &Pod,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> (Option<i64>, bool) {
        let mut all = self.0.lock();
        let slot = &mut all.entry(types::uid(pod).to_owned()).or_default().in_progress;
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let (mut what, mut generation) = ((reason.to_owned(), message.to_owned()), pod.metadata.generation);
        if let Some(old) = slot.as_ref() {
            if reason.is_empty() && message.is_empty() {
                what = (text(&old.reason), text(&old.message));
            }
            generation = old.observed_generation;
        }
        let new = condition(IN_PROGRESS, slot.as_ref(), (&what.0, &what.1), generation, now);
        let news = slot.as_ref().is_none_or(|old| (&old.reason, &old.message) != (&new.reason, &new.message));
        *slot = Some(new);
        (generation, news)
    }

    /// No resize waits any more.
    pub fn clear_pending(&self, uid: &str) {
        self.clear(uid, |pod| pod.pending.take());
    }

    /// No resize is on its way any more; which generation's that was, if there was one.
    pub fn clear_in_progress(&self, uid: &str) -> Option<Option<i64>> {
        self.clear(uid, |pod| pod.in_progress.take()).map(|c| c.observed_generation)
    }

    fn clear(
        &self,
        uid: &str,
        take: impl FnOnce(&mut OfPod) -> Option<PodCondition>,
    ) -> Option<PodCondition> {
        let mut all = self.0.lock();
        let pod = all.get_mut(uid)?;
        let taken = take(pod);
        if pod.pending.is_none() && pod.in_progress.is_none() {
            all.remove(uid);
        }
        taken
    }

    /// Forgets a pod.
    pub fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }

    /// Takes over what an earlier kubelet told the API of a pod.
    pub fn take_over(&self, pod: &Pod) {
        for told in pod.status.iter().flat_map(|s| s.conditions.iter().flatten()) {
            let mut all = self.0.lock();
            let known =
                |all: &mut HashMap<String, OfPod>| all.entry(types::uid(pod).to_owned()).or_default().clone();
            match told.type_.as_str() {
                PENDING if known(&mut all).pending.is_none() => {
                    all.entry(types::uid(pod).to_owned()).or_default().pending = Some(told.clone());
                }
                IN_PROGRESS if known(&mut all).in_progress.is_none() => {
                    all.entry(types::uid(pod).to_owned()).or_default().in_progress = Some(told.clone());
                }
                _ => {}
            }
        }
    }

    /// Since when the resize of a pod waits.
    #[must_use]
    pub fn pending_since(&self, uid: &str) -> Option<Timestamp> {
        self.0.lock().get(uid)?.pending.as_ref()?.last_transition_time.as_ref().map(|t| t.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(generation: i64) -> Pod {
        serde_saphyr::from_str(&format!("metadata: {{name: p, uid: u, generation: {generation}}}"))
            .expect("valid")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn shown(conditions: &Conditions) -> String {
        let all = conditions.of("u").into_iter().map(|c| {
            let since = c.last_transition_time.map(|t| t.0.as_second()).unwrap_or_default();
            format!(
                "{} {}@{} since {since}",
                c.type_,
                c.reason.unwrap_or_default(),
                c.observed_generation.unwrap_or_default()
            )
        });
        all.collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn waiting_is_told_once_per_reason_and_generation() {
        let conditions = Conditions::default();
        assert!(conditions.set_pending(&pod(2), "Deferred", "full", at(1)));
        assert!(!conditions.set_pending(&pod(2), "Deferred", "still full", at(2)));
        assert!(conditions.set_pending(&pod(3), "Deferred", "full", at(3)));
        assert_eq!(shown(&conditions), "PodResizePending Deferred@3 since 1");
        assert!(conditions.set_pending(&pod(3), "Infeasible", "never", at(4)));
        assert_eq!(shown(&conditions), "PodResizePending Infeasible@3 since 4");
        conditions.clear_pending("u");
        assert_eq!(shown(&conditions), "");
    }

    #[test]
    fn progress_keeps_its_generation_and_its_error() {
        let conditions = Conditions::default();
        assert_eq!(conditions.set_in_progress(&pod(2), "", "", at(1)), (Some(2), true));
        assert_eq!(conditions.set_in_progress(&pod(3), "Error", "too small", at(2)), (Some(2), true));
        assert_eq!(conditions.set_in_progress(&pod(3), "", "", at(3)), (Some(2), false));
        assert_eq!(conditions.set_in_progress(&pod(3), "Error", "too small", at(4)), (Some(2), false));
        assert_eq!(shown(&conditions), "PodResizeInProgress Error@2 since 2");
        assert_eq!(conditions.clear_in_progress("u"), Some(Some(2)));
        assert_eq!(conditions.clear_in_progress("u"), None);
    }

    #[test]
    fn an_earlier_kubelets_words_are_taken_over() {
        let conditions = Conditions::default();
        let mut told = pod(4);
        told.status = serde_saphyr::from_str(
            "conditions: [{type: PodResizePending, status: 'True', reason: Deferred, observedGeneration: 4}, \
             {type: Ready, status: 'True'}]",
        )
        .ok();
        conditions.take_over(&told);
        assert_eq!(shown(&conditions), "PodResizePending Deferred@4 since 0");
        assert!(!conditions.set_pending(&pod(4), "Deferred", "full", at(1)));
    }
}
