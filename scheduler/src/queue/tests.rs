//! What becomes of waiting pods over time and with events.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::framework::events::Object;
use crate::framework::{Action, Diagnosis, Resource};
use crate::plugins::registry::Parts;
use crate::testing::{self, pod_with};

fn queue() -> Queue {
    let profiles = Profiles::new([testing::framework(&Parts::default())], false);
    Queue::new(Arc::new(profiles), Waits::default())
}

fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
    pod_with(uid, json!({"spec": {"priority": priority}}))
}

fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
    queue.pop(now).map(|w| w.pod.uid().to_owned())
}

fn after(now: Instant, seconds: u64) -> Instant {
    now + Duration::from_secs(seconds)
}

fn refused_by(plugins: &[&'static str]) -> Diagnosis {
    let mut diagnosis = Diagnosis::new(1);
    diagnosis.plugins.extend(plugins);
    diagnosis
}

fn node_added(allocatable: Value) -> ClusterEvent {
    let node: Node =
        serde_json::from_value(json!({"metadata": {"name": "n"}, "status": {"allocatable": allocatable}}))
            .expect("a node");
    ClusterEvent::new(Resource::Node, Action::ADD, None, Some(Object::Node(Arc::new(node))))
}

fn big_node() -> ClusterEvent {
    node_added(json!({"cpu": "8", "memory": "8Gi", "pods": "100"}))
}

/// A queue with one pod that was refused by the resources plugin.
fn with_refused(now: Instant) -> Queue {
    let mut queue = queue();
    queue.add(pod("a", 0), now);
    let waiting = queue.pop(now).expect("a pod");
    queue.give_back(waiting, Some(&refused_by(&["NodeResourcesFit"])), now);
    queue
}

#[test]
fn greater_priority_first_then_age() {
    let (mut queue, now) = (queue(), Instant::now());
    for (uid, priority) in [("old", 0), ("young", 0), ("important", 9)] {
        queue.add(pod(uid, priority), now);
    }
    let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
    assert_eq!(order, ["important", "old", "young"]);
}

#[test]
fn refused_pod_wakes_only_on_an_event_that_helps_its_plugin() {
    let now = Instant::now();
    let mut queue = with_refused(now);
    assert_eq!(queue.lengths(), [0, 0, 1, 0]);
    let pod_added =
        ClusterEvent::new(Resource::AssignedPod, Action::ADD, None, Some(Object::Pod(Arc::default())));
    queue.happened(pod_added, now);
    queue.happened(node_added(json!({"cpu": "8", "pods": "0"})), now);
    assert_eq!(queue.lengths(), [0, 0, 1, 0], "no pods fit on that node");
    queue.happened(big_node(), now);
    assert_eq!(queue.lengths(), [0, 1, 0, 0], "it backs off first");
    assert_eq!(queue.next_wake(), Some(after(now, 1)));
}

#[test]
fn a_pod_that_backs_off_is_taken_early_only_if_there_is_nothing_else_and_it_was_refused() {
    let now = Instant::now();
    let mut queue = with_refused(now);
    queue.happened(big_node(), now);
    queue.add(pod("b", 0), now);
    assert_eq!(popped(&mut queue, now).as_deref(), Some("b"));
    let waiting = queue.pop(now).expect("a, early");
    assert_eq!(waiting.pod.uid(), "a");
    queue.give_back(waiting, None, now);
    assert_eq!(popped(&mut queue, now), None, "after an error it waits");
    assert_eq!(popped(&mut queue, after(now, 1)).as_deref(), Some("a"));
}

#[test]
fn event_during_the_attempt_is_not_missed() {
    for (event, expected) in [(big_node(), [0, 1, 0, 0]), (node_added(json!({})), [0, 0, 1, 0])] {
        let (mut queue, now) = (queue(), Instant::now());
        queue.add(pod("a", 0), now);
        let waiting = queue.pop(now).expect("a pod");
        queue.happened(event, now);
        queue.give_back(waiting, Some(&refused_by(&["NodeResourcesFit"])), now);
        assert_eq!(queue.lengths(), expected);
        assert_eq!(queue.kept_events(), 0);
    }
}

#[test]
fn events_are_kept_as_long_as_a_pod_that_has_not_seen_them_is_tried() {
    let (mut queue, now) = (queue(), Instant::now());
    queue.add(pod("a", 0), now);
    queue.add(pod("b", 0), now);
    let a = queue.pop(now).expect("a");
    queue.happened(big_node(), now);
    let b = queue.pop(now).expect("b");
    queue.happened(big_node(), now);
    assert_eq!(queue.kept_events(), 2);
    queue.done(a.pod.uid());
    assert_eq!(queue.kept_events(), 1);
    queue.done(b.pod.uid());
    assert_eq!(queue.kept_events(), 0);
}

#[test]
fn backoff_doubles_up_to_ten_seconds() {
    let now = Instant::now();
    let mut queue = queue();
    queue.add(pod("a", 0), now);
    let mut seconds = vec![];
    let mut at = now;
    for _ in 0..6 {
        let waiting = queue.pop(at).expect("a pod");
        queue.give_back(waiting, None, at);
        let wake = queue.next_wake().expect("it backs off");
        seconds.push((wake - at).as_secs());
        at = wake;
    }
    assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
}

#[test]
fn a_pod_nothing_happens_for_is_tried_after_five_minutes() {
    let now = Instant::now();
    let mut queue = with_refused(now);
    assert_eq!(queue.next_wake(), Some(after(now, 300)));
    assert_eq!(popped(&mut queue, after(now, 299)), None);
    let waiting = queue.pop(after(now, 300)).expect("flushed");
    assert!(waiting.flushed);
}

#[test]
fn gated_pod_waits_until_its_gates_are_gone() {
    let (mut queue, now) = (queue(), Instant::now());
    let gated = pod_with("a", json!({"spec": {"schedulingGates": [{"name": "g"}]}}));
    queue.add(gated.clone(), now);
    assert_eq!(queue.lengths(), [0, 0, 0, 1]);
    queue.happened(big_node(), now);
    assert_eq!(popped(&mut queue, after(now, 600)), None, "time does not open gates");
    let labelled = pod_with(
        "a",
        json!({"metadata": {"labels": {"x": "y"}}, "spec": {"schedulingGates": [{"name": "g"}]}}),
    );
    queue.update(&gated.pod, labelled.clone(), now);
    assert_eq!(popped(&mut queue, now), None);
    queue.update(&labelled.pod, pod("a", 0), now);
    assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
}

#[test]
fn update_of_an_active_pod_takes_its_new_state_and_of_a_tried_one_is_an_event() {
    let (mut queue, now) = (queue(), Instant::now());
    let old = pod("a", 0);
    queue.add(old.clone(), now);
    let new = pod_with("a", json!({"metadata": {"labels": {"x": "y"}}}));
    queue.update(&old.pod, new.clone(), now);
    let waiting = queue.pop(now).expect("a");
    assert!(Arc::ptr_eq(&waiting.pod, &new));
    let tolerant = pod_with("a", json!({"spec": {"tolerations": [{"operator": "Exists"}]}}));
    queue.update(&new.pod, tolerant, now);
    assert_eq!(popped(&mut queue, now), None);
    queue.give_back(waiting, Some(&refused_by(&["TaintToleration"])), now);
    assert_eq!(queue.lengths(), [0, 1, 0, 0]);
}

#[test]
fn what_was_waited_for_brings_a_pod_back_at_once() {
    let (mut queue, now) = (queue(), Instant::now());
    queue.add(pod("a", 0), now);
    let waiting = queue.pop(now).expect("a");
    let mut diagnosis = Diagnosis::new(1);
    diagnosis.pending.insert("NodeResourcesFit");
    queue.give_back(waiting, Some(&diagnosis), now);
    queue.happened(big_node(), now);
    assert_eq!(queue.lengths(), [1, 0, 0, 0]);
}

#[test]
fn removed_pods_are_forgotten_wherever_they_are() {
    let now = Instant::now();
    let mut queue = with_refused(now);
    queue.remove("a");
    assert_eq!(queue.lengths(), [0; 4]);
    queue.happened(big_node(), now);
    assert_eq!(popped(&mut queue, after(now, 600)), None);
    assert!(!queue.contains("a"));
}

#[test]
fn activation_does_not_wait_for_events() {
    let now = Instant::now();
    let mut queue = with_refused(now);
    queue.activate_pod(&pod("a", 0), now);
    let waiting = queue.pop(now).expect("a");
    queue.activate_pod(&waiting.pod, now);
    queue.give_back(waiting, Some(&refused_by(&["NodeResourcesFit"])), now);
    assert_eq!(queue.lengths(), [0, 1, 0, 0], "activated while it was tried");
}

#[test]
fn nominations_known_only_here_survive_updates_of_the_pod() {
    let mut nominator = Nominator::default();
    let pod = |node: &str| pod_with("a", json!({"status": {"nominatedNodeName": node}}));
    let unsaid: Arc<PodInfo> = pod("");
    nominator.set(&unsaid, Some("n1"));
    nominator.update(&unsaid.pod, &pod(""));
    assert_eq!(nominator.node_of("a"), Some("n1"));
    nominator.update(&unsaid.pod, &pod("n2"));
    assert_eq!(nominator.node_of("a"), Some("n2"));
    nominator.update(&pod("n2").pod, &pod(""));
    assert_eq!(nominator.node_of("a"), None);
    assert!(nominator.nominated().is_empty());
}
