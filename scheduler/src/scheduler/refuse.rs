//! What follows when a pod was not placed: it goes back to the queue, and its status and an event say why.

use std::sync::Arc;

use client::{EventType, Tasks};
use tokio::time::Instant;
use tracing::debug;

use super::write::{self, Condition};
use super::{Shared, pod_name};
use crate::framework::Diagnosis;
use crate::measure;
use crate::pod_info::{PodInfo, node_name};
use crate::preemption::{Candidate, Nomination, Write};
use crate::profiles::wanted;
use crate::queue::Waiting;

/// Events hold no more than this.
const LONGEST_NOTE: usize = 1024;

/// What is to be done for a pod that fits nowhere.
pub(super) struct Room {
    /// What becomes of its nominated node.
    pub(super) nomination: Nomination,
    /// The pods to evict.
    pub(super) evict: Option<Candidate>,
    /// What else is to be written.
    pub(super) write: Option<Write>,
}

impl Room {
    /// Nothing.
    pub(super) fn none() -> Self {
        Self { nomination: Nomination::Set(String::new()), evict: None, write: None }
    }
}

/// The pod fits nowhere.
pub(super) fn refuse(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    waiting: Waiting,
    diagnosis: Diagnosis,
    room: Room,
    started: std::time::Instant,
) {
    let Room { nomination, evict, write } = room;
    measure::attempt(wanted(&waiting.pod.pod), "unschedulable", started);
    let message = diagnosis.to_string();
    debug!(pod = pod_name(&waiting.pod.pod), message, "fits nowhere");
    let diagnosis = if diagnosis.nodes == 0 { no_nodes() } else { diagnosis };
    let pod = waiting.pod.clone();
    // The pod must be known to wait for the evictions before it can be tried again.
    let eviction = evict.and_then(|candidate| super::evict::begin(shared, &pod, candidate));
    give_back(shared, waiting, Some(&diagnosis), &nomination);
    if let Some(write) = write {
        carry_out(shared, tasks, write);
    }
    if let Some(eviction) = eviction {
        eviction.start(shared, tasks);
    }
    say(shared, tasks, &pod, "Unschedulable", message, nomination);
}

/// Writes what makes room; events tell when it is in effect.
fn carry_out(shared: &Arc<Shared>, tasks: &Tasks, write: Write) {
    let shared = shared.clone();
    tasks.spawn("make room", |_| async move {
        let Ok(_slot) = shared.writes.acquire().await else { return };
        if let Err(error) = write.run(shared.client.clone()).await {
            debug!(error = %client::chain(&error), "could not make room");
        }
    });
}

/// Something went wrong.
pub(super) fn fail(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    waiting: Waiting,
    error: String,
    started: std::time::Instant,
) {
    measure::attempt(wanted(&waiting.pod.pod), "error", started);
    let (pod, nomination) = (waiting.pod.clone(), Nomination::Set(String::new()));
    give_back(shared, waiting, None, &nomination);
    say(shared, tasks, &pod, "SchedulerError", error, nomination);
}

/// Without nodes no plugin refused; any node may do.
fn no_nodes() -> Diagnosis {
    let mut diagnosis = Diagnosis::new(0);
    diagnosis.plugins.insert("NodeName");
    diagnosis
}

/// Puts the pod back in its newest state, if it still needs a node.
fn give_back(shared: &Shared, mut waiting: Waiting, diagnosis: Option<&Diagnosis>, nomination: &Nomination) {
    let newest = shared.newest(&waiting.pod.pod).filter(|pod| node_name(pod).is_empty());
    let state = &mut *shared.state.lock();
    let Some(newest) = newest else { return state.queue.done(waiting.pod.uid()) };
    if !Arc::ptr_eq(&newest, &waiting.pod.pod) {
        waiting.pod = Arc::new(PodInfo::new(newest));
    }
    let pod = waiting.pod.clone();
    state.queue.give_back(waiting, diagnosis, Instant::now());
    let node = match nomination {
        Nomination::Keep => None,
        Nomination::Set(node) => Some(node.as_str()),
    };
    state.queue.nominator.set(&pod, node);
    shared.changed.notify_one();
}

fn say(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    pod: &Arc<PodInfo>,
    reason: &'static str,
    message: String,
    nomination: Nomination,
) {
    // Nobody asks any more why a pod that is gone was not placed.
    let Some(pod) = shared.newest(&pod.pod) else { return };
    if let Some(recorder) = shared.recorder(&pod) {
        recorder.object_event(&*pod, EventType::Warning, "FailedScheduling", shortened(&message));
    }
    let condition = Condition { kind: "PodScheduled", status: "False", reason, message };
    if !write::needs_status(&pod, Some(&condition), &nomination) {
        return;
    }
    let shared = shared.clone();
    tasks.spawn("condition", |_| async move {
        let Ok(_slot) = shared.writes.acquire().await else { return };
        if let Err(error) = write::status(&shared.client, &pod, Some(&condition), &nomination).await {
            debug!(pod = pod_name(&pod), error = %client::chain(&error), "could not write condition");
        }
    });
}

fn shortened(message: &str) -> String {
    if message.len() <= LONGEST_NOTE {
        return message.to_owned();
    }
    let mut end = LONGEST_NOTE - 4;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} ...", &message[..end])
}
