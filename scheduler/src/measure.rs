//! Metrics, under upstream's names.

use std::time::Instant;

use metrics::{counter, gauge, histogram};

use crate::framework::{Code, Rejection};
use crate::queue::{Queue, Waiting};

/// An attempt came to an end.
pub fn attempt(profile: &str, result: &'static str, started: Instant) {
    let labels = [("result", result.to_owned()), ("profile", profile.to_owned())];
    counter!("scheduler_schedule_attempts_total", &labels).increment(1);
    histogram!("scheduler_scheduling_attempt_duration_seconds", &labels)
        .record(started.elapsed().as_secs_f64());
}

/// A decision was made.
pub fn algorithm(started: Instant) {
    histogram!("scheduler_scheduling_algorithm_duration_seconds").record(started.elapsed().as_secs_f64());
}

/// A pod was bound.
pub fn scheduled(waiting: &Waiting) {
    histogram!("scheduler_pod_scheduling_attempts").record(f64::from(waiting.attempts));
    if let Some(first) = waiting.first_attempt {
        let attempts = if waiting.attempts >= 15 { "15+".to_owned() } else { waiting.attempts.to_string() };
        histogram!("scheduler_pod_scheduling_sli_duration_seconds", "attempts" => attempts)
            .record(first.elapsed().as_secs_f64());
    }
    if waiting.flushed {
        counter!("scheduler_pod_scheduled_after_flush_total").increment(1);
    }
}

/// How many pods wait.
pub fn queue(queue: &Queue) {
    for (name, length) in ["active", "backoff", "unschedulable", "gated"].into_iter().zip(queue.lengths()) {
        gauge!("scheduler_pending_pods", "queue" => name).set(length as f64);
    }
    gauge!("scheduler_inflight_events").set(queue.kept_events() as f64);
}

/// How many nodes and pods are known, and pods placed just now.
pub fn cache([nodes, pods, assumed]: [usize; 3]) {
    for (kind, size) in [("nodes", nodes), ("pods", pods), ("assumed_pods", assumed)] {
        gauge!("scheduler_scheduler_cache_size", "type" => kind).set(size as f64);
    }
}

/// Room is made at the cost of so many pods.
pub fn victims(count: usize) {
    histogram!("scheduler_preemption_victims").record(count as f64);
}

/// Evictions for one pod were asked for.
pub fn evicted(started: Instant, well: bool) {
    let result = if well { "success" } else { "error" };
    counter!("scheduler_preemption_goroutines_execution_total", "result" => result).increment(1);
    histogram!("scheduler_preemption_goroutines_duration_seconds", "result" => result)
        .record(started.elapsed().as_secs_f64());
}

/// A pod that fits nowhere is looked at for preemption.
pub fn preemption() {
    counter!("scheduler_preemption_attempts_total").increment(1);
}

/// A pod entered one of the queues.
pub fn incoming(queue: &'static str, event: &str) {
    counter!("scheduler_queue_incoming_pods_total", "queue" => queue, "event" => event.to_owned())
        .increment(1);
}

/// A plugin refuses one pod more (or, with `by` -1, less).
pub fn refused(plugin: &'static str, profile: &str, by: f64) {
    gauge!("scheduler_unschedulable_pods", "plugin" => plugin, "profile" => profile.to_owned()).increment(by);
}

/// An extension point was run through.
pub fn extension(point: &'static str, profile: &str, status: &'static str, started: Instant) {
    let labels = [
        ("extension_point", point.to_owned()),
        ("status", status.to_owned()),
        ("profile", profile.to_owned()),
    ];
    histogram!("scheduler_framework_extension_point_duration_seconds", &labels)
        .record(started.elapsed().as_secs_f64());
}

/// What upstream calls the outcome of an extension point.
#[must_use]
pub fn status<T>(outcome: &Result<T, Rejection>) -> &'static str {
    match outcome.as_ref().map_err(|rejection| rejection.code) {
        Ok(_) => "Success",
        Err(Code::Unschedulable) => "Unschedulable",
        Err(Code::Unresolvable) => "UnschedulableAndUnresolvable",
        Err(Code::Pending) => "Pending",
        Err(Code::Error) => "Error",
    }
}

/// The cache and the queue were told of an event.
pub fn handled(event: String, started: Instant) {
    histogram!("scheduler_event_handling_duration_seconds", "event" => event)
        .record(started.elapsed().as_secs_f64());
}

/// A pod waited to be allowed.
pub fn permitted(well: bool, started: Instant) {
    let result = if well { "Success" } else { "Unschedulable" };
    histogram!("scheduler_permit_wait_duration_seconds", "result" => result)
        .record(started.elapsed().as_secs_f64());
}
