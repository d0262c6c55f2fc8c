//! Resizes of pods that run: whether there is room, who waits, and what is told of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Agent;
use crate::admission::{Rejection, admit_resize};
use crate::allocation::{PodResources, order, resize_message};
use crate::qos::{self, QosClass};
use crate::{quantity, sync, types};

/// How often resizes that wait are tried again if nothing happened that could make room.
const RETRY: Duration = Duration::from_secs(180);

impl Agent {
    /// Starts trying again what waits. All pods that run here must have been admitted.
    pub(super) fn run_resizes(&self, tasks: &Tasks) {
        self.inner.admission.lock().complete = true;
        self.retry_resizes();
        let this = self.clone();
        tasks.spawn("resizes", |token| async move {
            loop {
                tokio::select! { () = token.cancelled() => return, () = tokio::time::sleep(RETRY) => {} }
                this.retry_resizes();
            }
        });
    }

    /// The wish of a pod may have changed: allocates it now, or lets it wait.
    pub(super) fn resize_wanted(&self, pod: &Arc<Pod>) {
        let (parts, uid) = (self.parts(), types::uid(pod));
        if !parts.allocated.differs(pod) {
            self.inner.admission.lock().waiting.retain(|waiting| waiting != uid);
            parts.resizes.clear_pending(uid);
            return;
        }
        let mut admission = self.inner.admission.lock();
        if !admission.waiting.iter().any(|waiting| waiting == uid) {
            admission.waiting.push(uid.to_owned());
        }
        drop(admission);
        self.retry_resizes();
    }

    /// Tries all resizes that wait, in order.
    pub(super) fn retry_resizes(&self) {
        let parts = self.parts();
        let mut admission = self.inner.admission.lock();
        if !admission.complete || admission.waiting.is_empty() {
            return;
        }
        let mut pods: Vec<Arc<Pod>> = admission
            .waiting
            .iter()
            .filter_map(|uid| parts.pods.by_uid(uid))
            .filter(|pod| may_resize(pod))
            .collect();
        let allocated: Vec<Arc<Pod>> = pods.iter().map(|pod| parts.allocated.applied(pod)).collect();
        let mut waiting: Vec<_> = pods
            .iter()
            .zip(&allocated)
            .map(|(pod, allocated)| {
                (
                    order::Waiting { pod, allocated, since: parts.resizes.pending_since(types::uid(pod)) },
                    pod.clone(),
                )
            })
            .collect();
        waiting.sort_by(|a, b| order::compare(&a.0, &b.0));
        pods = waiting.into_iter().map(|(_, pod)| pod).collect();
        admission.waiting =
            pods.iter().filter(|pod| self.try_resize(pod)).map(|p| types::uid(p).to_owned()).collect();
    }

    /// Whether the pod goes on waiting.
    fn try_resize(&self, pod: &Arc<Pod>) -> bool {
        let (parts, uid, now) = (self.parts(), types::uid(pod), Timestamp::now());
        if !parts.allocated.differs(pod) {
            parts.resizes.clear_pending(uid);
            return false;
        }
        let Some(node) = self.node() else { return true };
        let (waits, news) = match self.room(pod, &node) {
            Ok(()) => {
                parts.allocated.set(pod);
                parts.resizes.forget(uid);
                parts.resizes.set_in_progress(pod, "", "", now);
                let message = resize_message("Pod resize started", pod, pod.metadata.generation, "");
                parts.events.normal(pod, "ResizeStarted", message);
                (false, true)
            }
            Err(Rejection { reason, message }) => {
                let known = if reason == "Infeasible" { "Infeasible" } else { "Deferred" };
                let news = parts.resizes.set_pending(pod, known, &message, now);
                if news {
                    let prefix = format!("Pod resize {reason}");
                    let text = resize_message(&prefix, pod, pod.metadata.generation, &message);
                    parts.events.warning(pod, &format!("Resize{known}"), text);
                }
                (known == "Deferred", news)
            }
        };
        if news {
            self.workers().wake(uid);
        }
        waits
    }

    fn room(&self, pod: &Pod, node: &Node) -> Result<(), Rejection> {
        self.may_change(pod)?;
        let others = self.holders(types::uid(pod));
        let others: Vec<&Pod> = others.iter().map(|p| &**p).collect();
        admit_resize(pod, &others, node)
    }

    /// Guaranteed pods have what they were given for themselves, and keep it.
    fn may_change(&self, pod: &Pod) -> Result<(), Rejection> {
        if qos::pod_qos(pod) != QosClass::Guaranteed {
            return Ok(());
        }
        let parts = self.parts();
        let allocated = parts.allocated.get(types::uid(pod)).unwrap_or_default();
        let changes = |name: &str| {
            let spec = types::spec(pod);
            let mut containers = types::init_containers(spec).iter().chain(&spec.containers);
            containers.any(|container| {
                let given = allocated.containers.get(&container.name).and_then(|r| r.requests.as_ref());
                let wanted = container.resources.as_ref().and_then(|r| r.requests.as_ref());
                qos::amount(given, name) != qos::amount(wanted, name)
            })
        };
        let given = [
            ("cpu", parts.placement.cpus().are_given(), "CPU Manager policy \"static\""),
            ("memory", parts.placement.memory().is_given(), "Memory Manager policy \"Static\""),
        ];
        match given.into_iter().find(|(name, alone, _)| *alone && changes(name)) {
            None => Ok(()),
            Some((.., policy)) => Err(Rejection {
                reason: "Infeasible".to_owned(),
                message: format!("Resize is infeasible for Guaranteed Pods alongside {policy}"),
            }),
        }
    }

    /// Pods that hold resources of this node, with what they hold: what they were allocated, or still have.
    pub(super) fn holders(&self, but: &str) -> Vec<Arc<Pod>> {
        let parts = self.parts();
        let active = self.active_pods(but);
        let held = active.iter().map(|pod| {
            let allocated = parts.allocated.applied(pod);
            let told = parts.runtime.actuated().get(types::uid(pod)).unwrap_or_default();
            greater(&allocated, &told).map_or(allocated, Arc::new)
        });
        held.collect()
    }

    /// Tells whether something allocated is not yet done.
    pub(super) fn note_progress(&self, pod: &Arc<Pod>, observed: &types::PodStatus) {
        let (parts, uid) = (self.parts(), types::uid(pod));
        if sync::resize::in_progress(pod, observed) {
            parts.resizes.set_in_progress(pod, "", "", Timestamp::now());
        } else if let Some(generation) = parts.resizes.clear_in_progress(uid) {
            let message = resize_message("Pod resize completed", pod, generation, "");
            parts.events.normal(pod, "ResizeCompleted", message);
            // It may have become smaller.
            self.retry_resizes();
        }
    }

    /// Tells why a resize could not be done.
    pub(super) fn note_resize_failure(&self, pod: &Arc<Pod>, error: &str) {
        let parts = self.parts();
        let (generation, news) = parts.resizes.set_in_progress(pod, "Error", error, Timestamp::now());
        if news {
            let message = resize_message("Pod resize error", pod, generation, error);
            parts.events.warning(pod, "ResizeError", message);
        }
    }
}

fn may_resize(pod: &Pod) -> bool {
    !api::pod::is_terminating(pod) && !api::pod::is_terminal(pod)
}

/// `pod` with the requests of its containers raised to what the runtime was told, where that is more.
fn greater(pod: &Pod, told: &PodResources) -> Option<Pod> {
    let less = |requests: Option<&BTreeMap<String, Quantity>>, name: &str, told: &Quantity| {
        requests.and_then(|r| r.get(name)).map_or(0, quantity::milli_value) < quantity::milli_value(told)
    };
    let mut raised = None;
    for (container, told) in &told.containers {
        for (name, amount) in
            told.requests.iter().flatten().filter(|(n, _)| matches!(n.as_str(), "cpu" | "memory"))
        {
            let spec = types::spec(raised.as_ref().unwrap_or(pod));
            let Some((_, found)) = types::find_container(spec, container) else { continue };
            let own = found.resources.as_ref().and_then(|r| r.requests.as_ref());
            if !less(own, name, amount) {
                continue;
            }
            let spec = raised.get_or_insert_with(|| pod.clone()).spec.get_or_insert_default();
            let all = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
            for same in all.filter(|c| c.name == *container) {
                let requests = same.resources.get_or_insert_default().requests.get_or_insert_default();
                requests.insert(name.clone(), amount.clone());
            }
        }
    }
    raised
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_runtime_still_gives_counts() {
        let pod: Pod = serde_saphyr::from_str(
            "spec: {containers: [{name: a, resources: {requests: {cpu: 1, memory: 1Gi}}}]}",
        )
        .expect("valid");
        let told = |text: &str| PodResources {
            containers: BTreeMap::from([("a".to_owned(), serde_saphyr::from_str(text).expect("valid"))]),
            pod: None,
        };
        assert!(greater(&pod, &told("{requests: {cpu: 1, memory: 1Gi}}")).is_none());
        assert!(greater(&pod, &told("{requests: {cpu: 500m}}")).is_none());
        let held = greater(&pod, &told("{requests: {cpu: 2, memory: 512Mi}}")).expect("more CPU");
        assert_eq!(crate::qos::pod_requests(&held)["cpu"], 2000);
        assert_eq!(crate::qos::pod_requests(&held)["memory"], (1 << 30) * 1000);
    }
}
