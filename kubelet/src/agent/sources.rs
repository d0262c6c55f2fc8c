//! Takes pods in from the API and from manifests, admits them, and hands them to their workers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::{Informer, ObjectKey, Tasks, WorkQueue};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;

use super::Agent;
use crate::admission::{Rejection, admit, sysctl};
use crate::pod_workers::Stage;
use crate::pods::{is_mirror, is_static};
use crate::status::conditions::OWNED;
use crate::types;

/// What admission remembers.
#[derive(Debug, Default)]
pub(super) struct Admission {
    /// UIDs of pods that were admitted.
    admitted: HashSet<String>,
    /// UIDs of pods that were refused.
    rejected: HashSet<String>,
    /// UIDs of pods whose resize waits, in the order in which they are tried.
    pub(super) waiting: Vec<String>,
    /// All pods that run here have been admitted: room may be given to those that wait.
    pub(super) complete: bool,
}

/// The API shows only what this kubelet itself reported: there is nothing to do for the pod.
fn is_echo(before: &Pod, now: &Pod) -> bool {
    let (b, n) = (&before.metadata, &now.metadata);
    let over =
        |p: &Pod| matches!(p.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"));
    let others = |p: &Pod| -> Vec<_> {
        let all = p.status.iter().flat_map(|s| s.conditions.iter().flatten());
        all.filter(|c| !OWNED.contains(&c.type_.as_str())).cloned().collect()
    };
    b.uid == n.uid
        && b.labels == n.labels
        && b.annotations == n.annotations
        && b.deletion_timestamp == n.deletion_timestamp
        && b.deletion_grace_period_seconds == n.deletion_grace_period_seconds
        && before.spec == now.spec
        && over(before) == over(now)
        && others(before) == others(now)
}

/// Stands in the queue of pods behind the first list of them.
fn end_of_first() -> ObjectKey {
    ObjectKey::new("", "")
}

impl Agent {
    /// Follows the API's pods of this node. Answers when all that exist now are taken in.
    pub async fn follow_api(&self, pods: &Informer<Pod>, tasks: &Tasks) {
        let queue: WorkQueue<ObjectKey> = WorkQueue::new("pods");
        let notify = queue.clone();
        pods.subscribe(move |event| notify.add(ObjectKey::of(&**event.object())));
        let (this, informer, work) = (self.clone(), pods.clone(), queue.clone());
        let (reached, whole) = tokio::sync::oneshot::channel();
        tasks.spawn("pod-source", |token| async move {
            let mut known: HashMap<ObjectKey, Arc<Pod>> = HashMap::new();
            let mut reached = Some(reached);
            loop {
                let key = tokio::select! {
                    () = token.cancelled() => return,
                    key = work.get() => match key { Some(key) => key, None => return },
                };
                if key == end_of_first() {
                    // Nobody waits any more when the kubelet is about to stop.
                    reached.take().map(|reached| reached.send(()));
                } else {
                    let now = informer.store().get(&key);
                    tokio::select! {
                        biased;
                        () = this.api_pod_changed(&mut known, &key, now) => {}
                        () = token.cancelled() => return,
                    }
                }
                work.done(&key);
            }
        });
        pods.synced().await;
        // Keys come out in order: those of the first list are before this.
        queue.add(end_of_first());
        if whole.await.is_err() {
            // The source ended first: the kubelet stops.
            std::future::pending::<()>().await;
        }
    }

    /// Brings what is known under a name to what the API has: the same pod, another of the same name, or none.
    async fn api_pod_changed(
        &self,
        known: &mut HashMap<ObjectKey, Arc<Pod>>,
        key: &ObjectKey,
        now: Option<Arc<Pod>>,
    ) {
        let before = known.get(key).cloned();
        if let Some(before) = &before
            && now.as_ref().is_none_or(|n| types::uid(n) != types::uid(before))
        {
            known.remove(key);
            self.pod_removed(before);
        }
        let Some(pod) = now else { return };
        known.insert(key.clone(), pod.clone());
        if before.is_some_and(|before| is_echo(&before, &pod)) {
            self.parts().pods.upsert(pod.clone());
            self.parts().status.observe(types::uid(&pod), &pod);
            self.workers().refresh(&pod);
        } else {
            self.pod_changed(&pod).await;
        }
    }

    /// A pod is new or changed.
    pub async fn pod_changed(&self, pod: &Arc<Pod>) {
        let parts = self.parts();
        let runs = parts.pods.upsert(pod.clone());
        if is_mirror(pod) {
            // The static pod it stands for has its status published on it; a mirror of nothing is removed.
            if let Some(fixed) = runs {
                parts.status.observe(types::uid(&fixed), pod);
                self.workers().wake(types::uid(&fixed));
            }
            return;
        }
        parts.status.observe(types::uid(pod), pod);
        if self.admit(pod).await {
            self.resize_wanted(pod);
            self.workers().update(pod);
        }
    }

    /// A pod is gone from its source.
    pub fn pod_removed(&self, pod: &Arc<Pod>) {
        let uid = types::uid(pod);
        let parts = self.parts();
        parts.pods.remove(uid);
        if is_mirror(pod) {
            // Its static pod makes a new one.
            if let Some(fixed) = parts
                .pods
                .pods()
                .iter()
                .find(|p| is_static(p) && types::full_name(p) == types::full_name(pod))
            {
                self.workers().wake(types::uid(fixed));
            }
            return;
        }
        let mut admission = self.inner.admission.lock();
        admission.admitted.remove(uid);
        admission.rejected.remove(uid);
        drop(admission);
        self.workers().remove(uid);
        self.retry_resizes();
    }

    /// Follows the manifests' pods; the set is always whole.
    pub async fn follow_static(&self, mut pods: watch::Receiver<Vec<Arc<Pod>>>, tasks: &Tasks) {
        let mut known = HashMap::new();
        let now = pods.borrow_and_update().clone();
        self.static_pods_changed(&mut known, &now).await;
        let this = self.clone();
        tasks.spawn("static-pods", |token| async move {
            loop {
                tokio::select! {
                    () = token.cancelled() => return,
                    changed = pods.changed() => if changed.is_err() { return },
                }
                let now = pods.borrow_and_update().clone();
                tokio::select! {
                    biased;
                    () = this.static_pods_changed(&mut known, &now) => {}
                    () = token.cancelled() => return,
                }
            }
        });
    }

    async fn static_pods_changed(&self, known: &mut HashMap<String, Arc<Pod>>, now: &[Arc<Pod>]) {
        let uids: HashSet<&str> = now.iter().map(|p| types::uid(p)).collect();
        let gone: Vec<_> = known.values().filter(|p| !uids.contains(types::uid(p))).cloned().collect();
        for pod in gone {
            known.remove(types::uid(&pod));
            self.pod_removed(&pod);
        }
        for pod in now {
            if known.insert(types::uid(pod).to_owned(), pod.clone()).as_ref() != Some(pod) {
                self.pod_changed(pod).await;
            }
        }
    }

    /// Whether the pod goes to a worker. Each pod is asked for once; what runs already is never asked again.
    pub(super) async fn admit(&self, pod: &Arc<Pod>) -> bool {
        if let Some(settled) = self.settled(pod) {
            return settled;
        }
        // After a restart, a pod is asked for what it was given, not for what it wished for meanwhile.
        let allocated = self.parts().allocated.applied(pod);
        let runs = self.has_run(pod).await;
        let made = match self.place(&allocated, runs).await {
            Ok(()) if !runs => self.make_room(&allocated).await,
            placed => placed.map(|()| false),
        };
        let uid = types::uid(pod);
        let mut admission = self.inner.admission.lock();
        match made.and_then(|made| if made { Ok(()) } else { self.fits(&allocated) }) {
            Err(rejection) if !runs => {
                admission.rejected.insert(uid.to_owned());
                drop(admission);
                self.parts().placement.retain(&|holder| holder != uid);
                self.reject(pod, &rejection);
                false
            }
            // What already runs, from before a restart, is not disturbed.
            _ => {
                admission.admitted.insert(uid.to_owned());
                self.parts().allocated.set(&allocated);
                self.parts().resizes.take_over(pod);
                true
            }
        }
    }

    /// Whether the pod goes to a worker, where that needs no admission.
    fn settled(&self, pod: &Pod) -> Option<bool> {
        let admission = self.inner.admission.lock();
        if admission.rejected.contains(types::uid(pod)) {
            // A refused pod has nothing here; once it is to go, the worker lets it go.
            return Some(pod.metadata.deletion_timestamp.is_some());
        }
        let goes = admission.admitted.contains(types::uid(pod))
            || api::pod::is_terminal(pod)
            || pod.metadata.deletion_timestamp.is_some();
        goes.then_some(true)
    }

    /// Gives the pod's containers what is given to one alone.
    async fn place(&self, pod: &Pod, runs: bool) -> Result<(), Rejection> {
        self.parts().shutting_down.admit()?;
        sysctl::check(pod, &self.parts().config.allowed_unsafe_sysctls)?;
        let uid = types::uid(pod).to_owned();
        let active = |holder: &str| holder == uid || self.may_hold(holder);
        self.parts().placement.admit(pod, runs, &active).await
    }

    /// Whether there is room for the pod beside the others, and nothing else speaks against it.
    fn fits(&self, pod: &Arc<Pod>) -> Result<(), Rejection> {
        let Some(node) = self.node() else { return Ok(()) };
        let node = self.parts().placement.raised(pod, &node);
        let others = self.holders(types::uid(pod));
        let others: Vec<&Pod> = others.iter().map(|p| &**p).collect();
        admit(pod, &others, &node, &self.parts().config.allowed_unsafe_sysctls)
    }

    /// Whether the pod with this UID may still hold what was given to it.
    pub(super) fn may_hold(&self, uid: &str) -> bool {
        let admission = self.inner.admission.lock();
        if !admission.complete {
            // Pods from before a restart have not all been heard of.
            return true;
        }
        let refused = admission.rejected.contains(uid);
        drop(admission);
        !refused
            && match self.workers().view(uid) {
                Some(view) => view.stage < Stage::Terminated,
                None => self.parts().pods.by_uid(uid).is_some_and(|pod| !api::pod::is_terminal(&pod)),
            }
    }

    /// Whether the pod runs already, from before a restart.
    async fn has_run(&self, pod: &Pod) -> bool {
        let pleg = &self.parts().pleg;
        let listed = match pleg.listing() {
            Some(listed) => Some(listed),
            // Shortly after the start. Without an answer, the pod is a new one.
            None => pleg.list_now().await.ok(),
        };
        listed.is_some_and(|l| l.get(types::uid(pod)).is_some_and(|p| p.active))
    }

    /// Pods that hold resources of this node, without the one asked about.
    pub(super) fn active_pods(&self, but: &str) -> Vec<Arc<Pod>> {
        let admission_sees = |pod: &Arc<Pod>| {
            let uid = types::uid(pod);
            uid != but && self.workers().view(uid).is_some_and(|v| v.stage < Stage::Terminated)
        };
        self.parts().pods.pods().into_iter().filter(admission_sees).collect()
    }

    fn reject(&self, pod: &Arc<Pod>, rejection: &Rejection) {
        let parts = self.parts();
        tracing::info!(
            pod = types::format_pod(pod),
            reason = rejection.reason,
            message = rejection.message,
            "pod rejected"
        );
        parts.events.warning(pod, &rejection.reason, rejection.message.clone());
        let status = PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some(rejection.reason.clone()),
            message: Some(format!("Pod was rejected: {}", rejection.message)),
            qos_class: Some(crate::qos::pod_qos(pod).to_string()),
            observed_generation: pod.metadata.generation,
            start_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now())),
            ..PodStatus::default()
        };
        self.publish(pod, status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_reports_are_echoes() {
        let pod = |meta: &str, spec: &str, status: &str| -> Pod {
            serde_saphyr::from_str(&format!(
                "metadata: {{name: p, uid: u{meta}}}\nspec: {{containers: [{spec}]}}\nstatus: {status}"
            ))
            .expect("valid pod")
        };
        let before = pod("", "{name: a}", "{phase: Pending}");
        let cases = [
            (
                pod(
                    ", resourceVersion: '9'",
                    "{name: a}",
                    "{phase: Running, conditions: [{type: Ready, status: 'True'}]}",
                ),
                true,
            ),
            (pod("", "{name: a}", "{phase: Running, conditions: [{type: x/gate, status: 'True'}]}"), false),
            (pod("", "{name: a}", "{phase: Failed}"), false),
            (pod("", "{name: a, image: new}", "{phase: Pending}"), false),
            (pod(", labels: {a: b}", "{name: a}", "{phase: Pending}"), false),
            (pod(", deletionTimestamp: '2026-01-01T00:00:00Z'", "{name: a}", "{phase: Pending}"), false),
        ];
        for (now, echo) in cases {
            assert_eq!(is_echo(&before, &now), echo, "{now:?}");
        }
    }
}
