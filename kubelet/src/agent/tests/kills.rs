//! The kubelet is killed between any two steps of a pod's life and starts again: nothing runs twice, nothing is left.
//!
//! A step is a call that changes something at the runtime. The kubelet dies with its last call done and its answer lost
//! or kept; what follows is another agent, which knows only what runtime and disk tell it.

use std::collections::BTreeMap;

use super::resizes::groups;
use super::*;

/// More calls than any of the stories makes.
pub(super) const STEPS: usize = 40;
const ROUNDS: usize = 12;

pub(super) const LIFE: &str = "  initContainers:\n  - {name: i, image: 'here:1'}\n\
                    \x20 - {name: s, image: 'here:1', restartPolicy: Always}\n\
                    \x20 containers:\n  - name: a\n    image: 'here:1'\n\
                    \x20   resources: {requests: {cpu: 100m, memory: 1Mi}, limits: {cpu: 100m, memory: 1Mi}}\n\
                    \x20   lifecycle: {preStop: {exec: {command: [bye]}}}\n";

pub(super) struct Story {
    pub(super) fake: FakeRuntime,
    root: PathBuf,
}

impl Story {
    pub(super) async fn new() -> Self {
        let fake = FakeRuntime::start(&["here:1"]).await;
        fake.state.lock().ends_at_once.insert("i".into(), 0);
        let root = std::env::temp_dir().join(format!("killed-{}", uuid::Uuid::new_v4()));
        Self { fake, root }
    }

    /// A kubelet over what there is.
    pub(super) fn kubelet(&self) -> House {
        let record = |name: &str| {
            std::fs::create_dir_all(&self.root).expect("create");
            Record::open(self.root.join(name))
        };
        let house = house_at(
            &self.fake,
            groups(&self.root.join("groups")),
            (record("allocated"), record("actuated")),
            Some(self.root.join("kubelet")),
        );
        drop(house.agent.start_workers(Intervals::default(), &house.tasks));
        house
    }

    /// From now on the kubelet is dead after so many calls.
    fn dies_after(&self, calls: Option<usize>) {
        self.fake.state.lock().dies_after = calls;
    }

    fn count(&self, call: &str) -> usize {
        self.fake.state.lock().calls.iter().filter(|c| c.starts_with(call)).count()
    }

    pub(super) fn running(&self) -> BTreeMap<String, usize> {
        let state = self.fake.state.lock();
        let mut running = BTreeMap::new();
        for (_, status) in state.containers.values().filter(|(_, s)| s.state == 1) {
            *running.entry(status.metadata.clone().unwrap_or_default().name).or_default() += 1;
        }
        running
    }

    pub(super) fn ready_sandboxes(&self) -> usize {
        self.fake.state.lock().sandboxes.values().filter(|s| s.state == 0).count()
    }

    pub(super) fn group_exists(&self) -> bool {
        groups(&self.root.join("groups")).pod_exists("u")
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.root));
    }
}

/// Syncs until nothing more is to be done; whether it came so far.
pub(super) async fn sync_up(house: &House, pod: &Arc<Pod>) -> bool {
    for _ in 0..ROUNDS {
        match house.sync(pod).await {
            Ok(synced) if synced == Synced::default() => return true,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    false
}

pub(super) async fn take_down(house: &House, pod: &Arc<Pod>) -> bool {
    let token = CancellationToken::new();
    house.agent.sync_terminating_pod(pod, None, None, &token).await.is_ok()
        && house.agent.sync_terminated_pod(pod).await.is_ok()
}

#[tokio::test]
async fn a_start_that_is_cut_off_goes_on() {
    let pod = pod(LIFE);
    let mut survived = false;
    for step in 0..STEPS {
        let story = Story::new().await;
        story.dies_after(Some(step));
        survived = sync_up(&story.kubelet(), &pod).await;
        story.dies_after(None);
        assert!(sync_up(&story.kubelet(), &pod).await, "step {step}");
        let expected = BTreeMap::from([("a".to_owned(), 1), ("s".to_owned(), 1)]);
        assert_eq!(story.running(), expected, "step {step}");
        assert_eq!(story.ready_sandboxes(), 1, "step {step}");
        for container in ["i", "s", "a"] {
            assert_eq!(story.count(&format!("StartContainer {container}")), 1, "step {step} {container}");
        }
        assert_eq!(story.count("RunPodSandbox"), 1, "step {step}");
        assert_eq!(story.count("StopContainer"), 0, "step {step}");
        if survived {
            break;
        }
    }
    assert!(survived, "every step was tried");
}

#[tokio::test]
async fn a_stop_that_is_cut_off_goes_on() {
    let pod = pod(LIFE);
    let mut survived = false;
    for step in 0..STEPS {
        let story = Story::new().await;
        assert!(sync_up(&story.kubelet(), &pod).await);
        assert!(story.group_exists());
        story.dies_after(Some(step));
        survived = take_down(&story.kubelet(), &pod).await;
        story.dies_after(None);
        let last = story.kubelet();
        assert!(take_down(&last, &pod).await, "step {step}");
        assert_eq!((story.running(), story.ready_sandboxes()), (BTreeMap::new(), 0), "step {step}");
        assert_eq!(*last.volumes.0.lock(), ["u"], "step {step}");
        assert!(!story.group_exists(), "step {step}");
        assert!(last.probes.0.lock().is_empty());
        for container in ["i", "s", "a"] {
            assert_eq!(story.count(&format!("StartContainer {container}")), 1, "step {step} {container}");
        }
        if survived {
            break;
        }
    }
    assert!(survived, "every step was tried");
}

#[tokio::test]
async fn a_resize_that_is_cut_off_goes_on() {
    let before = pod(LIFE);
    let mut after = (*before).clone();
    if let Some(spec) = after.spec.as_mut() {
        spec.containers[0].resources =
            serde_saphyr::from_str("{requests: {cpu: 200m, memory: 2Mi}, limits: {cpu: 200m, memory: 2Mi}}")
                .ok();
    }
    let after = Arc::new(after);
    let mut survived = false;
    for step in 0..STEPS {
        let story = Story::new().await;
        let first = story.kubelet();
        first.agent.parts().allocated.set(&before);
        assert!(sync_up(&first, &before).await);
        first.agent.parts().allocated.set(&after);
        drop(first);
        story.dies_after(Some(step));
        survived = sync_up(&story.kubelet(), &after).await;
        story.dies_after(None);
        let last = story.kubelet();
        assert!(sync_up(&last, &after).await, "step {step}");
        assert_eq!(story.count("StartContainer a"), 1, "step {step}");
        let told = last.agent.parts().runtime.actuated().get("u").unwrap_or_default();
        let a = told.containers.get("a").and_then(|r| r.limits.clone()).unwrap_or_default();
        assert_eq!((a["cpu"].0.as_str(), a["memory"].0.as_str()), ("200m", "2Mi"), "step {step}");
        let linux = story.fake.state.lock().containers.values().find_map(|(_, s)| {
            let is_a = s.metadata.as_ref().is_some_and(|m| m.name == "a");
            s.resources.clone().filter(|_| is_a).and_then(|r| r.linux)
        });
        let linux = linux.unwrap_or_default();
        assert_eq!((linux.cpu_quota, linux.memory_limit_in_bytes), (20_000, 2 << 20), "step {step}");
        assert!(last.agent.parts().resizes.of("u").is_empty());
        if survived {
            break;
        }
    }
    assert!(survived, "every step was tried");
}

#[tokio::test]
async fn what_nobody_wants_is_found_and_removed() {
    let pod = pod(LIFE);
    let story = Story::new().await;
    assert!(sync_up(&story.kubelet(), &pod).await);
    // The pod is deleted from the API while no kubelet runs: the next one knows it from the runtime alone.
    let last = story.kubelet();
    last.agent.sync_terminating_runtime_pod("u").await.expect("stopped");
    assert_eq!((story.running(), story.ready_sandboxes()), (BTreeMap::new(), 0));
    last.agent.workers().sync_known(&HashSet::new());
    last.agent.collect_containers().await.expect("collected");
    assert!(story.fake.state.lock().containers.is_empty() && story.fake.state.lock().sandboxes.is_empty());
}
