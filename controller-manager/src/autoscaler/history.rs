//! What was recommended and done of late, and how it limits what is done now. As upstream's horizontal.go. Pure.
//!
//! Recommendations steady: within a window the number does not fall below the highest of them (or rise above the
//! lowest). Changes that were made limit how fast it goes on.

use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use std::time::Duration;
use tokio::time::Instant;

/// What is remembered of one autoscaler.
#[derive(Clone, Debug, Default)]
pub struct History {
    recommendations: Vec<(i32, Instant)>,
    grown: Vec<Change>,
    shrunk: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Change {
    replicas: i32,
    at: Instant,
    outdated: bool,
}

/// A number, with what the conditions say about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Limited {
    /// So many replicas.
    pub replicas: i32,
    /// Reason and message of the condition `AbleToScale`.
    pub able: (&'static str, &'static str),
    /// Whether a limit holds, with reason and message of the condition `ScalingLimited`.
    pub limited: (bool, &'static str, &'static str),
}

/// Between what and what a number lies.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// At least.
    pub min: i32,
    /// At most.
    pub max: i32,
    /// As many as there are.
    pub current: i32,
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_FEW: (&str, &str) =
    ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const TOO_MANY: (&str, &str) =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const UP_STEADY: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STEADY: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);

fn age(at: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(at)
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl History {
    /// The number there is counts as recommended, if nothing was before.
    pub fn begin(&mut self, current: i32, now: Instant) {
        if self.recommendations.is_empty() {
            self.recommendations.push((current, now));
        }
    }

    fn remember(&mut self, desired: i32, old: Option<usize>, now: Instant) {
        match old {
            Some(index) => self.recommendations[index] = (desired, now),
            None => self.recommendations.push((desired, now)),
        }
    }

    /// The highest recommendation within the window.
    fn highest(&mut self, desired: i32, window: Duration, now: Instant) -> i32 {
        let mut highest = desired;
        let mut old = None;
        for (index, (recommended, at)) in self.recommendations.iter().enumerate() {
            if age(*at, now) > window {
                old = Some(index);
            } else {
                highest = highest.max(*recommended);
            }
        }
        self.remember(desired, old, now);
        highest
    }

    /// What is left of a wish without rules of its own.
    pub fn normalize(&mut self, desired: i32, range: Range, window: Duration, now: Instant) -> Limited {
        let steady = self.highest(desired, window, now);
        let able = if steady == desired { READY } else { DOWN_STEADY };
        let (replicas, (reason, message)) = clamp(steady, range);
        Limited { replicas, able, limited: (replicas != steady, reason, message) }
    }

    /// What is left of a wish under rules.
    pub fn normalize_by(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        desired: i32,
        range: Range,
        window: Duration,
        now: Instant,
    ) -> Limited {
        let (up, down) = (rules(behavior.scale_up.as_ref()), rules(behavior.scale_down.as_ref()));
        let up_window = seconds(up.stabilization_window_seconds.unwrap_or(0));
        let down_window = down.stabilization_window_seconds.map_or(window, seconds);
        let steady = self.steady(desired, range.current, (up_window, down_window), now);
        let able = match steady == desired {
            true => READY,
            false if desired >= range.current => UP_STEADY,
            false => DOWN_STEADY,
        };
        let (replicas, (reason, message)) = self.limit(steady, range, (&up, &down), now);
        Limited { replicas, able, limited: (replicas != steady, reason, message) }
    }

    fn steady(&mut self, desired: i32, current: i32, windows: (Duration, Duration), now: Instant) -> i32 {
        let (mut lowest, mut highest, mut old) = (desired, desired, None);
        for (index, (recommended, at)) in self.recommendations.iter().enumerate() {
            let age = age(*at, now);
            if age < windows.0 {
                lowest = lowest.min(*recommended);
            }
            if age < windows.1 {
                highest = highest.max(*recommended);
            }
            if age > windows.0 && age > windows.1 {
                old = Some(index);
            }
        }
        self.remember(desired, old, now);
        current.max(lowest).min(highest)
    }

    fn limit(
        &self,
        desired: i32,
        range: Range,
        (up, down): (&HPAScalingRules, &HPAScalingRules),
        now: Instant,
    ) -> (i32, (&'static str, &'static str)) {
        if desired > range.current {
            let limit = self.up_limit(range.current, up, now).max(range.current);
            let (most, why) = if range.max > limit { (limit, UP_LIMIT) } else { (range.max, TOO_MANY) };
            if desired > most {
                return (most, why);
            }
        } else if desired < range.current {
            let limit = self.down_limit(range.current, down, now).min(range.current);
            let (least, why) = if range.min < limit { (limit, DOWN_LIMIT) } else { (range.min, TOO_FEW) };
            if desired < least {
                return (least, why);
            }
        }
        (desired, WITHIN)
    }

    /// How many there were at the beginning of a period.
    fn before(&self, current: i32, period: i32, now: Instant) -> i32 {
        let within = |changes: &[Change]| -> i32 {
            let recent = changes.iter().filter(|change| age(change.at, now) < seconds(period));
            recent.map(|change| change.replicas).sum()
        };
        current - within(&self.grown) + within(&self.shrunk)
    }

    fn up_limit(&self, current: i32, rules: &HPAScalingRules, now: Instant) -> i32 {
        let limits = rules.policies.iter().flatten().map(|policy| {
            let before = self.before(current, policy.period_seconds, now);
            match policy.type_.as_str() {
                "Pods" => before.saturating_add(policy.value),
                _ => rounded((f64::from(before) * (1.0 + f64::from(policy.value) / 100.0)).ceil()),
            }
        });
        match rules.select_policy.as_deref() {
            Some("Disabled") => current,
            Some("Min") => limits.min().unwrap_or(i32::MAX),
            _ => limits.max().unwrap_or(i32::MIN),
        }
    }

    fn down_limit(&self, current: i32, rules: &HPAScalingRules, now: Instant) -> i32 {
        let limits = rules.policies.iter().flatten().map(|policy| {
            let before = self.before(current, policy.period_seconds, now);
            match policy.type_.as_str() {
                "Pods" => before.saturating_sub(policy.value),
                _ => rounded(f64::from(before) * (1.0 - f64::from(policy.value) / 100.0)),
            }
        });
        match rules.select_policy.as_deref() {
            Some("Disabled") => current,
            Some("Min") => limits.max().unwrap_or(i32::MIN),
            _ => limits.min().unwrap_or(i32::MAX),
        }
    }

    /// Remembers that the number was changed.
    pub fn changed(&mut self, behavior: &HorizontalPodAutoscalerBehavior, from: i32, to: i32, now: Instant) {
        let (changes, rules, replicas) = if to > from {
            (&mut self.grown, behavior.scale_up.as_ref(), to - from)
        } else {
            (&mut self.shrunk, behavior.scale_down.as_ref(), from - to)
        };
        let policies = rules.and_then(|rules| rules.policies.as_deref()).unwrap_or_default();
        let longest = seconds(policies.iter().map(|policy| policy.period_seconds).max().unwrap_or(0));
        for change in changes.iter_mut() {
            change.outdated |= age(change.at, now) > longest;
        }
        let new = Change { replicas, at: now, outdated: false };
        match changes.iter_mut().rfind(|change| change.outdated) {
            Some(old) => *old = new,
            None => changes.push(new),
        }
    }
}

fn rules(rules: Option<&HPAScalingRules>) -> HPAScalingRules {
    rules.cloned().unwrap_or_default()
}

#[expect(clippy::cast_possible_truncation, reason = "the fraction is cut off, as upstream does")]
fn rounded(value: f64) -> i32 {
    value as i32
}

/// The limits without rules: at most twice as many at once, or four.
fn clamp(desired: i32, range: Range) -> (i32, (&'static str, &'static str)) {
    let limit = range.current.saturating_mul(2).max(4);
    let (most, why) = if range.max > limit { (limit, UP_LIMIT) } else { (range.max, TOO_MANY) };
    if desired < range.min {
        (range.min, TOO_FEW)
    } else if desired > most {
        (most, why)
    } else {
        (desired, WITHIN)
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
