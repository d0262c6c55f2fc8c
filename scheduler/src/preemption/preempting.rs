//! Which pods wait for evictions that are being asked for.

use std::collections::HashMap;
use std::sync::Arc;

use client::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;

type Lookup = Box<dyn Fn(&ObjectKey) -> Option<Arc<Pod>> + Send + Sync>;

/// How far the evictions for one pod are.
enum Progress {
    /// Some are still to be asked for.
    Running,
    /// This is the last one. Once its deletion is seen, the pod need not wait for us to notice that we are done:
    /// it might miss the events it waits for.
    Last(ObjectKey),
}

/// The pods for which evictions are being asked for. They are not tried meanwhile.
pub struct Preempting {
    running: Mutex<HashMap<String, Progress>>,
    lookup: Lookup,
}

impl Preempting {
    /// Nothing is running; `lookup` reads pods as last seen.
    pub fn new(lookup: impl Fn(&ObjectKey) -> Option<Arc<Pod>> + Send + Sync + 'static) -> Self {
        Self { running: Mutex::default(), lookup: Box::new(lookup) }
    }

    /// Evictions for the pod begin.
    pub fn begin(&self, uid: &str) {
        self.running.lock().insert(uid.to_owned(), Progress::Running);
    }

    /// The last eviction for the pod is being asked for.
    pub fn last(&self, uid: &str, victim: ObjectKey) {
        self.running.lock().insert(uid.to_owned(), Progress::Last(victim));
    }

    /// All evictions for the pod were asked for, or failed.
    pub fn end(&self, uid: &str) {
        self.running.lock().remove(uid);
    }

    /// Whether the pod has to wait.
    #[must_use]
    pub fn is_running(&self, uid: &str) -> bool {
        match self.running.lock().get(uid) {
            None => false,
            Some(Progress::Running) => true,
            Some(Progress::Last(victim)) => {
                (self.lookup)(victim).is_some_and(|pod| !api::pod::is_terminating(&pod))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_waits_until_the_deletion_of_its_last_victim_is_seen() {
        let seen: Arc<Mutex<Option<Arc<Pod>>>> = Arc::default();
        let here = seen.clone();
        let preempting = Preempting::new(move |_| here.lock().clone());
        assert!(!preempting.is_running("p"));
        preempting.begin("p");
        assert!(preempting.is_running("p"));
        preempting.last("p", ObjectKey::new("ns", "victim"));
        assert!(!preempting.is_running("p"), "the victim is gone");
        *seen.lock() = Some(Arc::default());
        assert!(preempting.is_running("p"));
        preempting.end("p");
        assert!(!preempting.is_running("p"));
    }
}
