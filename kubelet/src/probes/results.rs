//! What probes have found, by container.

use std::collections::HashMap;

use parking_lot::{Mutex, RwLock};

use super::{ProbeKind, ProbeUpdate};

type Listener = Box<dyn Fn(&ProbeUpdate) + Send + Sync>;

#[derive(Clone)]
struct Found {
    pod_uid: String,
    /// `None` is known to be undecided, which is more than no entry at all.
    success: Option<bool>,
}

/// Results of all probes.
#[derive(Default)]
pub struct Results {
    found: Mutex<HashMap<(String, ProbeKind), Found>>,
    listeners: RwLock<Vec<Listener>>,
}

/// The runtime's identifier, with or without the runtime's name before it.
fn bare(id: &str) -> &str {
    id.split_once("://").map_or(id, |(_, id)| id)
}

impl Results {
    /// Tells `listener` of every new result.
    pub fn subscribe(&self, listener: Listener) {
        self.listeners.write().push(listener);
    }

    /// The decided result for a container.
    #[must_use]
    pub fn get(&self, id: &str, kind: ProbeKind) -> Option<bool> {
        self.found.lock().get(&(bare(id).to_owned(), kind))?.success
    }

    /// Whether anything, decided or not, is kept.
    #[must_use]
    pub fn knows(&self, id: &str, kind: ProbeKind) -> bool {
        self.found.lock().contains_key(&(bare(id).to_owned(), kind))
    }

    /// Keeps a result; listeners hear of it when it is new.
    pub fn set(&self, pod_uid: &str, id: &str, kind: ProbeKind, success: Option<bool>) {
        let id = bare(id).to_owned();
        let found = Found { pod_uid: pod_uid.to_owned(), success };
        let old = self.found.lock().insert((id.clone(), kind), found);
        if let Some(success) = success.filter(|_| old.is_none_or(|old| old.success != success)) {
            let update = ProbeUpdate { pod_uid: pod_uid.to_owned(), container_id: id, kind, success };
            self.listeners.read().iter().for_each(|listener| listener(&update));
        }
    }

    /// Forgets one container.
    pub fn remove(&self, id: &str, kind: ProbeKind) {
        self.found.lock().remove(&(bare(id).to_owned(), kind));
    }

    /// Forgets pods that `keep` does not want.
    pub fn forget_pods(&self, keep: impl Fn(&str) -> bool) {
        self.found.lock().retain(|_, found| keep(&found.pod_uid));
    }

    /// Forgets some kinds for a pod.
    pub fn forget_kinds(&self, pod_uid: &str, kinds: &[ProbeKind]) {
        self.found.lock().retain(|(_, kind), found| found.pod_uid != pod_uid || !kinds.contains(kind));
    }
}
