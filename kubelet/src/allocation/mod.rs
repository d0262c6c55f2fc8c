//! What pods have been given, as opposed to what they wish: the resources a pod runs with while a resize waits.
//!
//! Two records, each kept in a file over restarts (upstream's names and format): what was *allocated*, which decides what
//! containers and control groups get, and what was *actuated*, which says what the runtime has been told. A resize is
//! pending while wish and allocation differ, and in progress while allocation and actuation do.

mod checkpoint;
mod conditions;
mod message;
pub mod order;
pub mod sizes;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use parking_lot::Mutex;

pub use conditions::{Conditions, IN_PROGRESS, PENDING};
pub use message::resize_message;
pub use sizes::{Resource, Sizes, with_pod_limits};

use crate::checkpoint::Behind;
use crate::types;

/// File of what was allocated, in the kubelet's root directory.
pub const ALLOCATED_FILE: &str = "allocated_pods_state";
/// File of what was actuated.
pub const ACTUATED_FILE: &str = "actuated_pods_state";

/// Resources of one pod: of its containers by name, and of the pod as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodResources {
    /// By container.
    pub containers: BTreeMap<String, ResourceRequirements>,
    /// Of the whole pod, where it has such.
    pub pod: Option<ResourceRequirements>,
}

impl PodResources {
    /// What the spec of `pod` asks for.
    #[must_use]
    pub fn of(pod: &Pod) -> Self {
        let spec = types::spec(pod);
        let containers = types::init_containers(spec).iter().chain(&spec.containers);
        let all = containers.map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default()));
        Self { containers: all.collect(), pod: spec.resources.clone() }
    }

    /// `pod` with these resources in place of its own; `None` when they are the same.
    #[must_use]
    pub fn applied(&self, pod: &Pod) -> Option<Pod> {
        let spec = types::spec(pod);
        let differs = |container: &Container| self.of_container(container).is_some_and(|r| r.1);
        let containers = types::init_containers(spec).iter().chain(&spec.containers);
        if same(spec.resources.as_ref(), self.pod.as_ref()) && !containers.into_iter().any(differs) {
            return None;
        }
        let mut changed = pod.clone();
        let spec = changed.spec.get_or_insert_default();
        spec.resources.clone_from(&self.pod);
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some((resources, true)) = self.of_container(container) {
                container.resources = Some(resources.clone());
            }
        }
        Some(changed)
    }

    /// What is kept for a container, and whether it differs from what the container says.
    fn of_container(&self, container: &Container) -> Option<(&ResourceRequirements, bool)> {
        let kept = self.containers.get(&container.name)?;
        Some((kept, !same(container.resources.as_ref(), Some(kept))))
    }
}

/// Alike in meaning: the same amounts, however they are written; nothing said is as good as an empty list.
fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>) -> bool {
    let (a, b) = (a.cloned().unwrap_or_default(), b.cloned().unwrap_or_default());
    let lists = [(&a.requests, &b.requests), (&a.limits, &b.limits)];
    lists.iter().all(|(a, b)| api::pod::read(a.as_ref()) == api::pod::read(b.as_ref()))
        && a.claims.unwrap_or_default() == b.claims.unwrap_or_default()
}

/// Resources by pod UID, kept in a file. Clones share it.
#[derive(Clone, Debug)]
pub struct Record {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// No file: nothing outlives this process.
    path: Option<PathBuf>,
    behind: Behind,
    pods: Mutex<HashMap<String, PodResources>>,
}

impl Record {
    /// The record in this file, empty when there is none. One that cannot be read is begun anew: what runs goes on, and
    /// what it is found to lack is told to the runtime once more.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let pods = match checkpoint::read(&path) {
            Ok(pods) => pods,
            Err(error) => {
                tracing::error!(path = %path.display(), error = client::chain(&error), "cannot read what pods were given");
                HashMap::new()
            }
        };
        Self {
            inner: Arc::new(Inner { path: Some(path), behind: Behind::default(), pods: Mutex::new(pods) }),
        }
    }

    /// A record that ends with its owner.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { inner: Arc::new(Inner { path: None, behind: Behind::default(), pods: Mutex::default() }) }
    }

    /// What is kept for a pod.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<PodResources> {
        self.inner.pods.lock().get(uid).cloned()
    }

    /// `pod` as recorded: with its own resources where nothing is.
    #[must_use]
    pub fn applied(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        let pods = self.inner.pods.lock();
        pods.get(types::uid(pod)).and_then(|kept| kept.applied(pod)).map_or_else(|| pod.clone(), Arc::new)
    }

    /// Whether the pod's wish is another than what is recorded; a pod of which nothing is recorded has none.
    #[must_use]
    pub fn differs(&self, pod: &Pod) -> bool {
        self.inner.pods.lock().get(types::uid(pod)).is_some_and(|kept| kept.applied(pod).is_some())
    }

    /// Changes what is kept for a pod.
    pub fn update(&self, uid: &str, change: impl FnOnce(&mut PodResources)) {
        self.edit(|pods| {
            let kept = pods.entry(uid.to_owned()).or_default();
            let before = kept.clone();
            change(kept);
            *kept != before
        });
    }

    /// Records the whole wish of a pod.
    pub fn set(&self, pod: &Pod) {
        self.update(types::uid(pod), |kept| *kept = PodResources::of(pod));
    }

    /// Forgets all pods but these.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.edit(|pods| {
            let before = pods.len();
            pods.retain(|uid, _| keep(uid));
            pods.len() != before
        });
    }

    /// Forgets a pod.
    pub fn remove(&self, uid: &str) {
        self.edit(|pods| pods.remove(uid).is_some());
    }

    fn edit(&self, change: impl FnOnce(&mut HashMap<String, PodResources>) -> bool) {
        let mut pods = self.inner.pods.lock();
        if !change(&mut pods) && !self.inner.behind.is() {
            return;
        }
        // Written under the lock, so that the file never goes back in time.
        if let Some(path) = &self.inner.path {
            self.inner.behind.note(checkpoint::write(path, &pods), path, "what pods were given");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(resources: &str) -> Arc<Pod> {
        Arc::new(
            serde_saphyr::from_str(&format!(
                "metadata: {{name: p, uid: u}}\nspec: {{containers: [{{name: a, resources: {resources}}}]}}"
            ))
            .expect("valid"),
        )
    }

    #[test]
    fn what_was_given_outlives_a_restart() {
        let path = std::env::temp_dir().join(format!("allocated-{}", uuid::Uuid::new_v4()));
        let record = Record::open(path.clone());
        let first = pod("{requests: {cpu: 100m}}");
        record.set(&first);
        let again = Record::open(path.clone());
        assert!(!again.differs(&first));
        assert!(Arc::ptr_eq(&again.applied(&first), &first));
        let wish = pod("{requests: {cpu: 200m}}");
        assert!(again.differs(&wish));
        assert_eq!(PodResources::of(&again.applied(&wish)), PodResources::of(&first));
        again.retain(|_| false);
        assert!(!Record::open(path.clone()).differs(&wish), "nothing is known of it");
        std::fs::remove_file(path).expect("was written");
    }

    #[test]
    fn what_a_disk_refused_is_written_once_there_is_room() {
        let path = std::env::temp_dir().join(format!("allocated-{}", uuid::Uuid::new_v4()));
        let record = Record::open(path.clone());
        let first = pod("{requests: {cpu: 100m}}");
        // In the way of what is to become the file.
        let in_the_way = path.with_extension("new");
        std::fs::create_dir(&in_the_way).expect("created");
        record.set(&first);
        let wish = pod("{requests: {cpu: 200m}}");
        assert!(record.differs(&wish) && !path.exists());
        std::fs::remove_dir(&in_the_way).expect("removed");
        // Nothing changes, but somebody looks.
        record.retain(|_| true);
        assert!(Record::open(path.clone()).differs(&wish));
        std::fs::remove_file(path).expect("was written");
    }

    #[test]
    fn amounts_are_compared_by_meaning() {
        let cases = [
            ("{requests: {cpu: 1}}", "{requests: {cpu: 1000m}}", false),
            ("{requests: {memory: 1Gi}}", "{requests: {memory: 1024Mi}}", false),
            ("{requests: {}}", "{}", false),
            ("{requests: {cpu: 1}}", "{requests: {cpu: 2}}", true),
            ("{requests: {cpu: 1}}", "{requests: {cpu: 1}, limits: {cpu: 1}}", true),
            ("{limits: {memory: 1Gi}}", "{}", true),
        ];
        for (given, wish, differs) in cases {
            let kept = PodResources::of(&pod(given));
            assert_eq!(kept.applied(&pod(wish)).is_some(), differs, "{given} {wish}");
        }
    }
}
