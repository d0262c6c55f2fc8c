//! Any one call of a pod's life goes wrong between kubelet and runtime: lost, its answer lost, doubled, or never
//! answered. The kubelet goes on: nothing runs twice, and nothing is left.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kills::{LIFE, STEPS, Story, sync_up, take_down};
use super::*;
use crate::runtime::faults::Fault;

/// How often a worker tries before it is said to be stuck.
const TRIES: usize = 20;

impl Story {
    /// From now on so many calls go well, and then one goes wrong.
    fn goes_wrong(&self, after: usize, fault: Fault) {
        let mut state = self.fake.state.lock();
        (state.fault, state.faults_met) = (Some((after, fault)), 0);
    }

    fn went_wrong(&self) -> bool {
        self.fake.state.lock().faults_met > 0
    }

    /// How often each container was started.
    pub(super) fn starts(&self) -> BTreeMap<String, usize> {
        let mut starts = BTreeMap::new();
        for name in &self.fake.state.lock().started {
            *starts.entry(name.clone()).or_default() += 1;
        }
        starts
    }

    /// Containers and sandboxes that the runtime knows, and whether the pod has a group.
    pub(super) fn inventory(&self) -> (usize, usize, bool) {
        let state = self.fake.state.lock();
        (state.containers.len(), state.sandboxes.len(), self.group_exists())
    }
}

pub(super) fn counts(of: &[(&str, usize)]) -> BTreeMap<String, usize> {
    of.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// Tries again as a worker does, later each time.
async fn until_done(mut attempt: impl AsyncFnMut() -> bool) -> bool {
    for _ in 0..TRIES {
        if attempt().await {
            return true;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    false
}

/// Takes the pod down and collects what is left.
pub(super) async fn end(house: &House, pod: &Arc<Pod>) -> bool {
    if !take_down(house, pod).await {
        return false;
    }
    house.agent.workers().sync_known(&HashSet::new());
    house.agent.collect_containers().await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_start_during_which_a_call_goes_wrong_comes_to_its_end() {
    let pod = pod(LIFE);
    for fault in Fault::ALL {
        let mut tried_all = false;
        for step in 0..STEPS {
            let story = Story::new().await;
            let house = story.kubelet();
            story.goes_wrong(step, fault);
            assert!(until_done(async || sync_up(&house, &pod).await).await, "{fault:?} at {step}");
            tried_all = !story.went_wrong();
            assert_eq!(story.running(), counts(&[("a", 1), ("s", 1)]), "{fault:?} at {step}");
            assert_eq!(story.ready_sandboxes(), 1, "{fault:?} at {step}");
            assert_eq!(story.starts(), counts(&[("a", 1), ("i", 1), ("s", 1)]), "{fault:?} at {step}");
            assert!(until_done(async || end(&house, &pod).await).await, "{fault:?} at {step}");
            assert_eq!(story.inventory(), (0, 0, false), "{fault:?} at {step}");
            if tried_all {
                break;
            }
        }
        assert!(tried_all, "{fault:?}: every step was tried");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_during_which_a_call_goes_wrong_comes_about() {
    let pod = pod(LIFE);
    for fault in Fault::ALL {
        let mut tried_all = false;
        for step in 0..STEPS {
            let story = Story::new().await;
            let house = story.kubelet();
            assert!(sync_up(&house, &pod).await);
            story.goes_wrong(step, fault);
            assert!(until_done(async || end(&house, &pod).await).await, "{fault:?} at {step}");
            tried_all = !story.went_wrong();
            story.fake.state.lock().fault = None;
            assert!(until_done(async || end(&house, &pod).await).await, "{fault:?} at {step}");
            assert_eq!(story.inventory(), (0, 0, false), "{fault:?} at {step}");
            assert_eq!(story.starts(), counts(&[("a", 1), ("i", 1), ("s", 1)]), "{fault:?} at {step}");
            assert_eq!(*house.volumes.0.lock().first().expect("released"), "u");
            if tried_all {
                break;
            }
        }
        assert!(tried_all, "{fault:?}: every step was tried");
    }
}
