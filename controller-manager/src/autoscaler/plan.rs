//! Decides how many replicas a target gets, and what the autoscaler's status says. Pure, but for the history that it
//! carries on.

use super::calculate::{Calculator, Starting, Tolerances};
use super::compute::{self, Answer, Failure, Observed, Replicas};
use super::history::{History, Range};
use client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerBehavior, HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What is set for all autoscalers.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How far usage may be off.
    pub tolerance: f64,
    /// How long a number is kept from falling.
    pub window: Duration,
    /// How starting pods are treated.
    pub starting: Starting,
}

/// The time, for people and for measuring.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// As people read it.
    pub clock: Timestamp,
    /// As it passes.
    pub instant: Instant,
}

/// An event to record.
pub type Said = (EventType, &'static str, String);

/// What was decided.
#[derive(Debug)]
pub struct Decision {
    /// A new number, with the reason for it.
    pub rescale: Option<(i32, String)>,
    /// The status, as it is if rescaling goes well or is not needed.
    pub status: HorizontalPodAutoscalerStatus,
    /// What metrics say.
    pub metrics: Option<Vec<MetricStatus>>,
    /// Events.
    pub events: Vec<Said>,
}

/// Whether metrics matter: not when the target is switched off or out of bounds anyway.
pub fn needs_metrics(hpa: &HorizontalPodAutoscaler, current: i32) -> bool {
    let (min, max) = bounds(hpa);
    current != 0 && current <= max && current >= min
}

fn bounds(hpa: &HorizontalPodAutoscaler) -> (i32, i32) {
    (hpa.spec.min_replicas.unwrap_or(1), hpa.spec.max_replicas)
}

fn behavior(hpa: &HorizontalPodAutoscaler) -> Option<&HorizontalPodAutoscalerBehavior> {
    hpa.spec.behavior.as_ref()
}

/// The metrics of an autoscaler.
pub fn metrics(hpa: &HorizontalPodAutoscaler) -> &[MetricSpec] {
    hpa.spec.metrics.as_deref().unwrap_or_default()
}

/// Sets a condition in its place. The transition time moves with the status only.
pub fn set_condition(
    status: &mut HorizontalPodAutoscalerStatus,
    kind: &str,
    value: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) {
    let conditions = status.conditions.get_or_insert_default();
    let index = conditions.iter().position(|held| held.type_ == kind).unwrap_or_else(|| {
        let new = HorizontalPodAutoscalerCondition { type_: kind.to_owned(), ..Default::default() };
        conditions.push(new);
        conditions.len() - 1
    });
    let (held, value) = (&mut conditions[index], if value { "True" } else { "False" });
    if held.status != value {
        held.last_transition_time = Some(Time(now));
    }
    held.status = value.to_owned();
    held.reason = Some(reason.to_owned());
    held.message = Some(message.to_owned());
}

fn tolerances(hpa: &HorizontalPodAutoscaler, default: f64) -> Tolerances {
    let behavior = behavior(hpa);
    let own = |rules: Option<&k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
        let amount = rules?.tolerance.as_ref()?;
        api::quantity::Quantity::parse(&amount.0).ok().map(|amount| amount.as_f64())
    };
    Tolerances {
        down: own(behavior.and_then(|behavior| behavior.scale_down.as_ref())).unwrap_or(default),
        up: own(behavior.and_then(|behavior| behavior.scale_up.as_ref())).unwrap_or(default),
    }
}

/// A status that says what there is.
fn with_replicas(
    mut status: HorizontalPodAutoscalerStatus,
    current: i32,
    desired: i32,
    metrics: Option<Vec<MetricStatus>>,
) -> HorizontalPodAutoscalerStatus {
    status.current_replicas = Some(current);
    status.desired_replicas = desired;
    status.current_metrics = metrics;
    status.observed_generation = None;
    status
}

/// The status when rescaling failed.
pub fn not_rescaled(
    decision: &Decision,
    current: i32,
    before: i32,
    error: &str,
    now: Timestamp,
) -> HorizontalPodAutoscalerStatus {
    let mut status = decision.status.clone();
    let message = format!("the HPA controller was unable to update the target scale: {error}");
    set_condition(&mut status, "AbleToScale", false, ("FailedUpdateScale", &message), now);
    with_replicas(status, current, before, decision.metrics.clone())
}

/// The status when rescaling went well.
pub fn rescaled(decision: &Decision, current: i32, to: i32, now: Timestamp) -> HorizontalPodAutoscalerStatus {
    let mut status = decision.status.clone();
    let message = format!("the HPA controller was able to update the target scale to {to}");
    set_condition(&mut status, "AbleToScale", true, ("SucceededRescale", &message), now);
    status.last_scale_time = Some(Time(now));
    with_replicas(status, current, to, decision.metrics.clone())
}

/// What was seen of the target.
pub struct Seen {
    /// How many replicas there are.
    pub replicas: Replicas,
    /// The pods that it selects.
    pub pods: Vec<Arc<Pod>>,
    /// An entry for each metric, or why the pods cannot be told.
    pub observed: Result<Vec<Result<Observed, String>>, Failure>,
}

/// Decides. `status` already says that the scale could be read.
pub fn decide(
    hpa: &HorizontalPodAutoscaler,
    mut status: HorizontalPodAutoscalerStatus,
    seen: Seen,
    history: &mut History,
    settings: &Settings,
    now: Now,
) -> Decision {
    let Seen { replicas, pods, observed } = seen;
    let current = replicas.spec;
    let (min, max) = bounds(hpa);
    if !needs_metrics(hpa, current) {
        let rescale = if current == 0 {
            let why =
                ("ScalingDisabled", "scaling is disabled since the replica count of the target is zero");
            set_condition(&mut status, "ScalingActive", false, why, now.clock);
            None
        } else if current > max {
            Some((max, "Current number of replicas above Spec.MaxReplicas".to_owned()))
        } else {
            Some((min, "Current number of replicas below Spec.MinReplicas".to_owned()))
        };
        let status = with_replicas(status, current, current, None);
        return Decision { rescale, status, metrics: None, events: Vec::new() };
    }
    let calculator = Calculator {
        pods: &pods,
        tolerances: tolerances(hpa, settings.tolerance),
        starting: settings.starting,
        now: now.clock,
    };
    let namespace = hpa.metadata.namespace.as_deref().unwrap_or_default();
    let found = observed.map_err(Refused::Selector).and_then(|observed| {
        let answer = |(metric, observed)| compute::answer(metric, namespace, observed, replicas, &calculator);
        combine(metrics(hpa).iter().zip(observed).map(answer).collect(), current)
    });
    let mut events = Vec::new();
    let (wanted, name, statuses) = match found {
        Ok(best) => best.into_parts(&mut events),
        Err(refused) => return refused.into_decision(status, hpa, current, now),
    };
    let message = format!("the HPA was able to successfully calculate a replica count from {name}");
    set_condition(&mut status, "ScalingActive", true, ("ValidMetricFound", &message), now.clock);
    let reason = match wanted.cmp(&current) {
        std::cmp::Ordering::Greater => format!("{name} above target"),
        std::cmp::Ordering::Less => "All metrics below target".to_owned(),
        std::cmp::Ordering::Equal => String::new(),
    };
    let range = Range { min, max, current };
    let limited = match behavior(hpa) {
        Some(behavior) => history.normalize_by(behavior, wanted, range, settings.window, now.instant),
        None => history.normalize(wanted, range, settings.window, now.instant),
    };
    set_condition(&mut status, "AbleToScale", true, limited.able, now.clock);
    let (is_limited, why, message) = limited.limited;
    set_condition(&mut status, "ScalingLimited", is_limited, (why, message), now.clock);
    let rescale = (limited.replicas != current).then_some((limited.replicas, reason));
    let metrics = Some(statuses);
    let status = with_replicas(status, current, current, metrics.clone());
    Decision { rescale, status, metrics, events }
}

/// What the metrics ask for together.
struct Best {
    replicas: i32,
    name: String,
    statuses: Vec<MetricStatus>,
    failures: Vec<Failure>,
}

impl Best {
    fn into_parts(self, events: &mut Vec<Said>) -> (i32, String, Vec<MetricStatus>) {
        events.extend(
            self.failures.into_iter().map(|failure| (EventType::Warning, failure.reason, failure.message)),
        );
        (self.replicas, self.name, self.statuses)
    }
}

/// Why no number can be told.
enum Refused {
    /// Nobody knows which pods are meant.
    Selector(Failure),
    /// Metrics say nothing, or too little.
    Metrics(Vec<Failure>, usize, Vec<MetricStatus>),
}

/// The highest wish counts. Metrics that say nothing are passed over, unless there would be fewer replicas.
fn combine(answers: Vec<Result<Answer, Failure>>, current: i32) -> Result<Best, Refused> {
    let all = answers.len();
    let mut best = Best { replicas: 0, name: String::new(), statuses: Vec::new(), failures: Vec::new() };
    for answer in answers {
        match answer {
            Ok(answer) => {
                if best.replicas == 0 || answer.replicas > best.replicas {
                    best.replicas = answer.replicas;
                    best.name = answer.name;
                }
                best.statuses.push(answer.status);
            }
            Err(failure) => {
                // An empty entry keeps the place, as upstream has it.
                best.statuses.push(MetricStatus::default());
                best.failures.push(failure);
            }
        }
    }
    let failed = best.failures.len();
    if failed >= all || (failed > 0 && best.replicas < current) {
        return Err(Refused::Metrics(best.failures, all, best.statuses));
    }
    Ok(best)
}

impl Refused {
    fn into_decision(
        self,
        mut status: HorizontalPodAutoscalerStatus,
        hpa: &HorizontalPodAutoscaler,
        current: i32,
        now: Now,
    ) -> Decision {
        let before = hpa.status.as_ref().map_or(0, |status| status.desired_replicas);
        let mut events = Vec::new();
        let (condition, error, metrics) = match self {
            Self::Selector(failure) => {
                events.push((EventType::Warning, failure.reason, failure.message.clone()));
                (Some((failure.reason, failure.full)), failure.message, None)
            }
            Self::Metrics(failures, all, statuses) => {
                let count = failures.len();
                for failure in &failures {
                    events.push((EventType::Warning, failure.reason, failure.message.clone()));
                }
                let first = failures.first().map(|failure| failure.full.as_str()).unwrap_or_default();
                let error =
                    format!("invalid metrics ({count} invalid out of {all}), first error is: {first}");
                let condition = failures.first().map(|failure| {
                    let message = &failure.message;
                    (failure.reason, format!("the HPA was unable to compute the replica count: {message}"))
                });
                (condition, error, Some(statuses))
            }
        };
        if let Some((reason, message)) = condition {
            // Events about selectors have reasons of their own.
            let reason = if reason == "SelectorRequired" { "InvalidSelector" } else { reason };
            set_condition(&mut status, "ScalingActive", false, (reason, &message), now.clock);
        }
        events.push((EventType::Warning, "FailedComputeMetricsReplicas", error));
        let status = with_replicas(status, current, before, metrics.clone());
        Decision { rescale: None, status, metrics, events }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
