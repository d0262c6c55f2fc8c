//! Somebody sets the clock while a pod runs: what breaks before or after is mended as ever, and nothing runs twice or is
//! left.

use super::faults::{counts, end};
use super::kills::{LIFE, Story, sync_up};
use super::*;

const HOUR: i64 = 3_600_000_000_000;

#[derive(Clone, Copy, Debug)]
enum Broken {
    Container,
    Sandbox,
}

impl Story {
    fn breaks(&self, broken: Broken) {
        let mut state = self.fake.state.lock();
        state.end("a", 1);
        if matches!(broken, Broken::Sandbox) {
            state.end("s", 1);
            state.sandboxes.values_mut().for_each(|sandbox| sandbox.state = 1);
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_set_disturbs_no_pod() {
    let pod = pod(LIFE);
    for (before, after) in [(HOUR, 0), (0, HOUR), (0, -HOUR), (24 * HOUR, -24 * HOUR)] {
        for (broken, starts) in [
            (Broken::Container, counts(&[("a", 2), ("i", 1), ("s", 1)])),
            (Broken::Sandbox, counts(&[("a", 2), ("i", 2), ("s", 2)])),
        ] {
            for first in [true, false] {
                let case = format!("{before} to {after}, {broken:?}, broken first: {first}");
                let story = Story::new().await;
                let house = story.kubelet();
                story.fake.state.lock().set_clock(before);
                assert!(sync_up(&house, &pod).await, "{case}");
                if first {
                    story.breaks(broken);
                }
                story.fake.state.lock().set_clock(after);
                if !first {
                    story.breaks(broken);
                }
                // Another kubelet sees the same.
                for house in [&house, &story.kubelet()] {
                    assert!(sync_up(house, &pod).await, "{case}");
                    assert_eq!(story.running(), counts(&[("a", 1), ("s", 1)]), "{case}");
                    assert_eq!((story.starts(), story.ready_sandboxes()), (starts.clone(), 1), "{case}");
                }
                assert!(end(&house, &pod).await, "{case}");
                assert_eq!(story.inventory(), (0, 0, false), "{case}");
            }
        }
    }
}
