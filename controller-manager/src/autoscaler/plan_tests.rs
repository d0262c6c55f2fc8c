//! A whole round of the autoscaler: replicas, conditions and events.

use super::super::calculate::{Metric, Metrics};
use super::*;
use jiff::SignedDuration;
use serde_json::{Value, json};

fn autoscaler(min: i32, max: i32, target: i32) -> HorizontalPodAutoscaler {
    let cpu = json!({ "type": "Resource", "resource": {
        "name": "cpu", "target": { "type": "Utilization", "averageUtilization": target } } });
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "ns" },
        "spec": {
            "minReplicas": min, "maxReplicas": max, "metrics": [cpu],
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        },
        "status": { "desiredReplicas": 3 },
    }))
    .unwrap()
}

fn pod(name: String) -> Arc<Pod> {
    let container = json!({ "name": "c", "resources": { "requests": { "cpu": "1" } } });
    Arc::new(
        serde_json::from_value(json!({
            "metadata": { "name": name }, "spec": { "containers": [container] },
            "status": { "phase": "Running", "startTime": "2026-01-01T00:00:00Z",
                        "conditions": [{ "type": "Ready", "status": "True" }] },
        }))
        .unwrap(),
    )
}

/// What is decided for pods that use so many thousandths of a CPU.
fn decide_for(hpa: &HorizontalPodAutoscaler, levels: &[i64], history: &mut History) -> Decision {
    let metric =
        |value: &i64| Metric { value: *value, at: Timestamp::MAX, window: SignedDuration::from_mins(1) };
    let names = || (0..).map(|index| format!("p{index}"));
    let metrics: Metrics = names().zip(levels.iter().map(metric)).collect();
    let observed = if metrics.is_empty() { Err("nothing".to_owned()) } else { Ok(Observed::Pods(metrics)) };
    run(hpa, levels.len().max(1), Ok(vec![observed]), history)
}

fn run(
    hpa: &HorizontalPodAutoscaler,
    current: usize,
    observed: Result<Vec<Result<Observed, String>>, Failure>,
    history: &mut History,
) -> Decision {
    let pods = (0..current).map(|index| pod(format!("p{index}"))).collect();
    let replicas = i32::try_from(current).unwrap();
    let minute = SignedDuration::from_mins(1);
    let settings = Settings {
        tolerance: 0.1,
        window: Duration::from_secs(300),
        starting: Starting { cpu: minute, readiness: minute },
    };
    let now = Now { clock: Timestamp::from_second(2_000_000_000).unwrap(), instant: Instant::now() };
    let seen = Seen { replicas: Replicas { spec: replicas, status: replicas }, pods, observed };
    decide(hpa, HorizontalPodAutoscalerStatus::default(), seen, history, &settings, now)
}

fn conditions(decision: &Decision) -> Vec<String> {
    let show = |held: &HorizontalPodAutoscalerCondition| {
        format!("{}={} {}", held.type_, held.status, held.reason.as_deref().unwrap_or_default())
    };
    decision.status.conditions.iter().flatten().map(show).collect()
}

#[test]
fn wishes_within_limits() {
    for (min, max, target, levels, expected, limited) in [
        (2, 6, 30, &[300, 500, 700][..], Some(5), "ScalingLimited=False DesiredWithinRange"),
        (2, 6, 50, &[100, 300, 500, 250, 250][..], Some(3), "ScalingLimited=False DesiredWithinRange"),
        (1, 5, 100, &[1010, 1030, 1020][..], None, "ScalingLimited=False DesiredWithinRange"),
        (2, 5, 90, &[10, 95, 10][..], Some(2), "ScalingLimited=True TooFewReplicas"),
        (2, 5, 90, &[8000, 9500, 1000][..], Some(5), "ScalingLimited=True TooManyReplicas"),
        (1, 100, 10, &[100, 200, 300][..], Some(6), "ScalingLimited=False DesiredWithinRange"),
        (1, 100, 10, &[1000, 1000, 1000][..], Some(6), "ScalingLimited=True ScaleUpLimit"),
    ] {
        let decision = decide_for(&autoscaler(min, max, target), levels, &mut History::default());
        assert_eq!(decision.rescale.as_ref().map(|(replicas, _)| *replicas), expected, "{levels:?}");
        let expected = ["ScalingActive=True ValidMetricFound", "AbleToScale=True ReadyForNewScale", limited];
        assert_eq!(conditions(&decision), expected, "{levels:?}");
    }
}

#[test]
fn bounds_count_before_metrics() {
    for (current, min, max, expected) in [
        (10, 1, 5, Some((5, "Current number of replicas above Spec.MaxReplicas"))),
        (1, 3, 5, Some((3, "Current number of replicas below Spec.MinReplicas"))),
        (0, 3, 5, None),
    ] {
        let hpa = autoscaler(min, max, 50);
        assert!(!needs_metrics(&hpa, current));
        let current = usize::try_from(current).unwrap();
        let decision = run(&hpa, current, Ok(Vec::new()), &mut History::default());
        let rescale = decision.rescale.as_ref().map(|(replicas, reason)| (*replicas, reason.as_str()));
        assert_eq!(rescale, expected);
        let disabled = conditions(&decision) == ["ScalingActive=False ScalingDisabled"];
        assert_eq!(disabled, current == 0);
    }
    assert!(needs_metrics(&autoscaler(1, 5, 50), 5));
}

#[test]
fn falling_waits_for_what_was_recommended_of_late() {
    let mut history = History::default();
    history.begin(3, Instant::now());
    let decision = decide_for(&autoscaler(1, 5, 50), &[100, 100, 100], &mut history);
    assert_eq!(decision.rescale, None);
    assert_eq!(conditions(&decision)[1], "AbleToScale=True ScaleDownStabilized");
}

#[test]
fn a_metric_that_says_nothing_stops_only_falling() {
    let mut hpa = autoscaler(1, 10, 50);
    let metrics = hpa.spec.metrics.as_mut().unwrap();
    metrics.push(metrics[0].clone());
    let level = |value: i64| {
        let metric = |name: &str| {
            (name.to_owned(), Metric { value, at: Timestamp::MAX, window: SignedDuration::from_mins(1) })
        };
        Ok(Observed::Pods([metric("p0"), metric("p1")].into()))
    };
    let none = || Err("nothing".to_owned());
    let up = run(&hpa, 2, Ok(vec![none(), level(1000)]), &mut History::default());
    assert_eq!(up.rescale.as_ref().map(|(replicas, _)| *replicas), Some(4));
    assert_eq!(up.events.len(), 1, "the failure is told");
    let down = run(&hpa, 2, Ok(vec![level(100), none()]), &mut History::default());
    assert_eq!(down.rescale, None);
    assert_eq!(conditions(&down), ["ScalingActive=False FailedGetResourceMetric"]);
    assert_eq!(down.status.desired_replicas, 3, "what was wished before stays");
    let said: Vec<_> =
        down.events.iter().map(|(_, reason, message)| format!("{reason}: {message}")).collect();
    assert_eq!(
        said,
        [
            "FailedGetResourceMetric: failed to get cpu utilization: unable to get metrics for resource cpu: nothing",
            "FailedComputeMetricsReplicas: invalid metrics (1 invalid out of 2), first error is: failed to get cpu \
             resource metric value: failed to get cpu utilization: unable to get metrics for resource cpu: nothing",
        ]
    );
}

#[test]
fn own_tolerance_counts_before_that_of_all() {
    let mut hpa = autoscaler(1, 10, 100);
    let behavior: Value = json!({ "scaleUp": { "tolerance": "0.01" }, "scaleDown": { "tolerance": "0.5" } });
    hpa.spec.behavior = serde_json::from_value(behavior).unwrap();
    assert_eq!(tolerances(&hpa, 0.1), Tolerances { down: 0.5, up: 0.01 });
    assert_eq!(tolerances(&autoscaler(1, 10, 100), 0.1), Tolerances { down: 0.1, up: 0.1 });
}

#[test]
fn conditions_keep_their_place_and_their_time() {
    let mut status = HorizontalPodAutoscalerStatus::default();
    let at = |second| Timestamp::from_second(second).unwrap();
    set_condition(&mut status, "A", true, ("One", "one"), at(1));
    set_condition(&mut status, "B", true, ("One", "one"), at(1));
    set_condition(&mut status, "A", true, ("Two", "two"), at(2));
    let held = &status.conditions.as_ref().unwrap()[0];
    assert_eq!((held.type_.as_str(), held.reason.as_deref()), ("A", Some("Two")));
    assert_eq!(held.last_transition_time, Some(Time(at(1))));
}
