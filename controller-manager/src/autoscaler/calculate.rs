//! How many replicas a metric asks for. As upstream's replica_calculator.go. Pure.
//!
//! The rule is always `replicas = ceil(usage / target)`, damped in three ways: nothing changes within the tolerance;
//! pods whose usage is not known count against the direction of the change; pods that are still starting count as
//! idle when there shall be more.

use crate::common::{conditions, meta, pods};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// How far usage may be from its target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    /// Below it.
    pub down: f64,
    /// Above it.
    pub up: f64,
}

impl Tolerances {
    fn hold(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What one pod uses, in thousandths.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// How much.
    pub value: i64,
    /// When it was measured.
    pub at: Timestamp,
    /// Over how long.
    pub window: SignedDuration,
}

/// What pods use, by their names.
pub type Metrics = BTreeMap<String, Metric>;

/// How long starting pods are looked at with care.
#[derive(Clone, Copy, Debug)]
pub struct Starting {
    /// After the start, samples of CPU may be left out for so long.
    pub cpu: SignedDuration,
    /// Readiness that changes within this time after the start is the first one.
    pub readiness: SignedDuration,
}

/// What a metric asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// So many replicas.
    pub replicas: i32,
    /// What a pod uses on average, or all together, in thousandths.
    pub usage: i64,
    /// The same in percent of what pods request.
    pub utilization: Option<i32>,
}

/// What all calculations need.
pub struct Calculator<'a> {
    /// The pods that the target selects.
    pub pods: &'a [Arc<Pod>],
    /// How far usage may be off.
    pub tolerances: Tolerances,
    /// How starting pods are treated.
    pub starting: Starting,
    /// The time.
    pub now: Timestamp,
}

/// The pods by what their metrics are worth.
#[derive(Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

#[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^52, and ratios need no more")]
fn float(value: i64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 pods")]
fn count(value: usize) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, reason = "out of range means as many as possible")]
fn ceil(value: f64) -> i32 {
    value.ceil() as i32
}

#[expect(clippy::cast_possible_truncation, reason = "out of range means as much as possible")]
fn ceil_wide(value: f64) -> i64 {
    value.ceil() as i64
}

fn small(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}

impl Calculator<'_> {
    /// By the use of a resource, in percent of what pods (or one container of each) request.
    pub fn utilization(
        &self,
        current: i32,
        target: i32,
        resource: &str,
        container: &str,
        mut metrics: Metrics,
    ) -> Result<Proposal, String> {
        let groups = self.group(&mut metrics, resource)?;
        let requests = requests(self.pods, container, resource)?;
        let (ratio, utilization, usage) = utilization_ratio(&metrics, &requests, target)?;
        let stay = Proposal { replicas: current, usage, utilization: Some(utilization) };
        let fallback = i64::from(target.max(100));
        let assumed = |pod: &str| requests.get(pod).copied().unwrap_or(0) * fallback / 100;
        let Some(replicas) = self.first_guess(ratio, &groups, current) else {
            assume(&mut metrics, &groups, ratio, assumed);
            let (again, ..) = utilization_ratio(&metrics, &requests, target)?;
            return Ok(Proposal {
                replicas: self.second_guess(ratio, again, metrics.len(), current),
                ..stay
            });
        };
        Ok(Proposal { replicas, ..stay })
    }

    /// By an amount that each pod shall use on average. `resource` is empty unless the metric is one.
    pub fn average(
        &self,
        current: i32,
        target: i64,
        resource: &str,
        mut metrics: Metrics,
    ) -> Result<Proposal, String> {
        let groups = self.group(&mut metrics, resource)?;
        let (ratio, usage) = usage_ratio(&metrics, target);
        let stay = Proposal { replicas: current, usage, utilization: None };
        let Some(replicas) = self.first_guess(ratio, &groups, current) else {
            assume(&mut metrics, &groups, ratio, |_| target);
            let (again, _) = usage_ratio(&metrics, target);
            return Ok(Proposal {
                replicas: self.second_guess(ratio, again, metrics.len(), current),
                ..stay
            });
        };
        Ok(Proposal { replicas, ..stay })
    }

    /// By one amount that stands for all pods.
    pub fn total(&self, current: i32, target: i64, usage: i64) -> Result<Proposal, String> {
        let ratio = float(usage) / float(target);
        let replicas = if current == 0 {
            ceil(ratio)
        } else if self.tolerances.hold(ratio) {
            current
        } else {
            ceil(ratio * count(self.ready()?))
        };
        Ok(Proposal { replicas, usage, utilization: None })
    }

    /// By one amount that is shared by all pods, of which each shall have so much.
    pub fn shared(&self, replicas: i32, target: i64, usage: i64) -> Proposal {
        let ratio = float(usage) / (float(target) * f64::from(replicas));
        let wanted = if self.tolerances.hold(ratio) { replicas } else { ceil(float(usage) / float(target)) };
        let each = if usage == i64::MAX { usage } else { ceil_wide(float(usage) / f64::from(replicas)) };
        Proposal { replicas: wanted, usage: each, utilization: None }
    }

    fn ready(&self) -> Result<usize, String> {
        if self.pods.is_empty() {
            return Err(
                "unable to calculate ready pods: no pods returned by selector while calculating replica count"
                    .to_owned(),
            );
        }
        let counts = |pod: &&Arc<Pod>| pods::phase(pod) == "Running" && pods::is_ready(pod);
        Ok(self.pods.iter().filter(counts).count())
    }

    /// Sorts the pods, and takes the metrics away that say nothing.
    fn group(&self, metrics: &mut Metrics, resource: &str) -> Result<Groups, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".to_owned());
        }
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = meta::name(&pod.metadata).to_owned();
            if meta::is_deleting(&pod.metadata) || pods::phase(pod) == "Failed" {
                groups.ignored.insert(name);
            } else if pods::phase(pod) == "Pending" {
                groups.unready.insert(name);
            } else if let Some(metric) = metrics.get(&name) {
                if resource == "cpu" && self.is_starting(pod, metric) {
                    groups.unready.insert(name);
                } else {
                    groups.ready += 1;
                }
            } else {
                groups.missing.insert(name);
            }
        }
        metrics.retain(|name, _| !groups.ignored.contains(name) && !groups.unready.contains(name));
        if metrics.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
        }
        Ok(groups)
    }

    /// Whether what the pod uses may only be what its start takes.
    fn is_starting(&self, pod: &Pod, metric: &Metric) -> bool {
        let ready = conditions::find(pods::pod_conditions(pod), "Ready");
        let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
        let (Some(ready), Some(started)) = (ready, started) else { return true };
        let after =
            |time: Timestamp, span: SignedDuration| time.saturating_add(span).unwrap_or(Timestamp::MAX);
        let changed = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
        let is_unready = ready.status == "False";
        if after(started.0, self.starting.cpu) > self.now {
            is_unready || metric.at < after(changed, metric.window)
        } else {
            is_unready && after(started.0, self.starting.readiness) > changed
        }
    }

    /// The answer when every pod's usage is known; `None` when some have to be guessed.
    fn first_guess(&self, ratio: f64, groups: &Groups, current: i32) -> Option<i32> {
        let grows_with_unready = !groups.unready.is_empty() && ratio > 1.0;
        if grows_with_unready || !groups.missing.is_empty() {
            return None;
        }
        Some(if self.tolerances.hold(ratio) { current } else { ceil(ratio * count(groups.ready)) })
    }

    /// The answer with guesses: they may dampen a change, never turn it around.
    fn second_guess(&self, first: f64, again: f64, pods: usize, current: i32) -> i32 {
        if self.tolerances.hold(again) || (first < 1.0 && again > 1.0) || (first > 1.0 && again < 1.0) {
            return current;
        }
        let replicas = ceil(again * count(pods));
        if (again < 1.0 && replicas > current) || (again > 1.0 && replicas < current) {
            return current;
        }
        replicas
    }
}

/// Fills in what is not known: when there might be fewer, missing pods use all they may; when there might be more,
/// missing and starting ones use nothing.
fn assume(metrics: &mut Metrics, groups: &Groups, ratio: f64, most: impl Fn(&str) -> i64) {
    let metric = |value| Metric { value, at: Timestamp::MIN, window: SignedDuration::ZERO };
    for pod in &groups.missing {
        if ratio < 1.0 {
            metrics.insert(pod.clone(), metric(most(pod)));
        } else if ratio > 1.0 {
            metrics.insert(pod.clone(), metric(0));
        }
    }
    if ratio > 1.0 {
        for pod in &groups.unready {
            metrics.insert(pod.clone(), metric(0));
        }
    }
}

fn utilization_ratio(
    metrics: &Metrics,
    requests: &BTreeMap<String, i64>,
    target: i32,
) -> Result<(f64, i32, i64), String> {
    let known = metrics.iter().filter_map(|(pod, metric)| Some((metric.value, *requests.get(pod)?)));
    let (mut used, mut requested, mut pods) = (0, 0, 0);
    for (value, request) in known {
        used += value;
        requested += request;
        pods += 1;
    }
    if requested == 0 {
        return Err("no metrics returned matched known pods".to_owned());
    }
    let utilization = small(used * 100 / requested);
    Ok((f64::from(utilization) / f64::from(target), utilization, used / pods))
}

fn usage_ratio(metrics: &Metrics, target: i64) -> (f64, i64) {
    let used: i64 = metrics.values().map(|metric| metric.value).sum();
    let each = used / i64::try_from(metrics.len()).unwrap_or(1).max(1);
    (float(each) / float(target), each)
}

/// What pods request of a resource, in thousandths.
fn requests(pods: &[Arc<Pod>], container: &str, resource: &str) -> Result<BTreeMap<String, i64>, String> {
    let request = |pod: &Arc<Pod>| {
        let name = meta::name(&pod.metadata).to_owned();
        let of_pod = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        let amount = match of_pod.filter(|requests| container.is_empty() && !requests.is_empty()) {
            Some(_) => api::pod::effective_requests(pod)
                .get(resource)
                .map(api::quantity::Quantity::milli_value)
                .ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"))?,
            None => of_containers(pod, &name, container, resource)?,
        };
        Ok((name, amount))
    };
    pods.iter().map(request).collect()
}

fn of_containers(pod: &Pod, name: &str, container: &str, resource: &str) -> Result<i64, String> {
    let Some(spec) = &pod.spec else { return Ok(0) };
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let sidecars = init.iter().filter(|init| init.restart_policy.as_deref() == Some("Always"));
    let mut sum = 0;
    let amount = |held: &Container| {
        let requests = held.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let amount = requests.and_then(|requests| requests.get(resource));
        let amount = amount.and_then(|amount| api::quantity::Quantity::parse(&amount.0).ok());
        amount
            .map(|amount| amount.milli_value())
            .ok_or_else(|| format!("missing request for {resource} in container {} of Pod {name}", held.name))
    };
    for held in spec.containers.iter().chain(sidecars) {
        if container == held.name {
            return amount(held);
        }
        if container.is_empty() {
            sum += amount(held)?;
        }
    }
    if container.is_empty() { Ok(sum) } else { Err(format!("container {container} not found in Pod {name}")) }
}

#[cfg(test)]
#[path = "calculate_tests.rs"]
mod tests;
