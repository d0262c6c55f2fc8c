//! Why containers of this node wait, as the last attempt to start them found.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Reason and message by pod UID and container name.
#[derive(Debug, Default)]
pub struct WaitingReasons(Mutex<HashMap<(String, String), (String, String)>>);

impl WaitingReasons {
    /// Notes why a container waits.
    pub fn set(&self, uid: &str, container: &str, reason: &str, message: &str) {
        let key = (uid.to_owned(), container.to_owned());
        self.0.lock().insert(key, (reason.to_owned(), message.to_owned()));
    }

    /// The container started.
    pub fn clear(&self, uid: &str, container: &str) {
        self.0.lock().remove(&(uid.to_owned(), container.to_owned()));
    }

    /// Why a container waits: reason and message.
    #[must_use]
    pub fn find(&self, uid: &str, container: &str) -> Option<(String, String)> {
        self.0.lock().get(&(uid.to_owned(), container.to_owned())).cloned()
    }

    /// Forgets a pod.
    pub fn forget_pod(&self, uid: &str) {
        self.0.lock().retain(|(pod, _), _| pod != uid);
    }
}
