//! What is remembered of recommendations and scalings: upstream's cases.

use super::*;
use k8s_openapi::api::autoscaling::v2::HPAScalingPolicy;

fn rules_of(text: &str, default: &[(&str, i32)]) -> HPAScalingRules {
    let policy = |kind: &str, value, period_seconds| HPAScalingPolicy {
        type_: kind.to_owned(),
        value,
        period_seconds,
    };
    let mut rules = HPAScalingRules { select_policy: Some("Max".to_owned()), ..Default::default() };
    if text == "-" {
        rules.policies = Some(default.iter().map(|(kind, value)| policy(kind, *value, 15)).collect());
        return rules;
    }
    let numbers: Vec<i32> = text.split(',').map(|number| number.parse().unwrap()).collect();
    let [pods, pods_period, percent, percent_period, window] = numbers[..] else { panic!("{text}") };
    let mut policies = Vec::new();
    if pods != 0 {
        policies.push(policy("Pods", pods, pods_period));
    }
    if percent != 0 {
        policies.push(policy("Percent", percent, percent_period));
    }
    rules.policies = Some(policies);
    rules.stabilization_window_seconds = Some(window);
    rules
}

const UP: [(&str, i32); 2] = [("Pods", 4), ("Percent", 100)];
const DOWN: [(&str, i32); 1] = [("Percent", 100)];

fn ago(seconds: u64, now: Instant) -> Instant {
    now.checked_sub(Duration::from_secs(seconds)).expect("the clock is old enough")
}

/// A moment with an hour before it.
fn now() -> Instant {
    Instant::now() + Duration::from_secs(7200)
}

/// Changes in the middle of equal parts of a span.
fn changes(text: &str, now: Instant) -> Vec<Change> {
    let Some((sizes, span)) = text.split_once('/') else { return Vec::new() };
    let sizes: Vec<i32> = sizes.split(',').map(|size| size.parse().unwrap()).collect();
    let (count, span) = (u64::try_from(sizes.len()).unwrap(), span.parse::<u64>().unwrap());
    let part = span / count;
    let middle = |index: u64| span - part * (index + 1) + part / 2;
    let change =
        |(index, replicas): (u64, i32)| Change { replicas, at: ago(middle(index), now), outdated: false };
    (0..).zip(sizes).map(change).collect()
}

#[test]
fn limits_by_rules() {
    let now = now();
    for line in include_str!("rules_cases.txt").lines().skip_while(|line| !line.is_empty()).skip(1) {
        let words: Vec<_> = line.split(' ').collect();
        let [current, wanted, min, max, up, down, grown, shrunk, expected, why] = words[..] else {
            panic!("{line}")
        };
        let number = |text: &str| text.parse::<i32>().unwrap();
        let history =
            History { recommendations: Vec::new(), grown: changes(grown, now), shrunk: changes(shrunk, now) };
        let range = Range { min: number(min), max: number(max), current: number(current) };
        let (up, down) = (rules_of(up, &UP), rules_of(down, &DOWN));
        let (replicas, (reason, _)) = history.limit(number(wanted), range, (&up, &down), now);
        assert_eq!((replicas, reason), (number(expected), why), "{line}");
    }
}

#[test]
fn smallest_change_can_be_chosen_or_none() {
    let (history, now) = (History::default(), now());
    let mut rules = rules_of("2,60,50,60,300", &[]);
    rules.select_policy = Some("Min".to_owned());
    assert_eq!((history.up_limit(1, &rules, now), history.down_limit(5, &rules, now)), (2, 3));
    rules.select_policy = Some("Disabled".to_owned());
    assert_eq!((history.up_limit(1, &rules, now), history.down_limit(5, &rules, now)), (1, 5));
}

#[test]
fn limits_without_rules() {
    for (current, desired, min, max, expected, why) in [
        (5, 7, 3, 8, 7, "DesiredWithinRange"),
        (3, 1, 2, 8, 2, "TooFewReplicas"),
        (1, 0, 0, 10, 0, "DesiredWithinRange"),
        (20, 1000, 1, 10, 10, "TooManyReplicas"),
        (3, 1000, 1, 2000, 6, "ScaleUpLimit"),
        (1, 1000, 1, 2000, 4, "ScaleUpLimit"),
    ] {
        let (replicas, (reason, _)) = clamp(desired, Range { min, max, current });
        assert_eq!((replicas, reason), (expected, why));
    }
}

fn recommended(list: &[(i32, u64)], now: Instant) -> History {
    let recommendations =
        list.iter().map(|(replicas, minutes)| (*replicas, ago(minutes * 60, now))).collect();
    History { recommendations, ..Default::default() }
}

fn numbers(history: &History) -> Vec<i32> {
    history.recommendations.iter().map(|(replicas, _)| *replicas).collect()
}

#[test]
fn highest_recommendation_of_late_counts() {
    let now = now();
    for (before, desired, expected, after) in [
        (&[][..], 5, 5, &[5][..]),
        (&[(4, 2), (5, 1)], 3, 5, &[4, 5, 3]),
        (&[(1, 2), (2, 1)], 3, 3, &[1, 2, 3]),
        (&[(10, 10), (9, 9)], 3, 3, &[10, 3]),
        (&[(10, 10), (4, 1), (5, 2), (9, 9)], 3, 5, &[10, 4, 5, 3]),
    ] {
        let mut history = recommended(before, now);
        assert_eq!(history.highest(desired, Duration::from_secs(300), now), expected);
        assert_eq!(numbers(&history), after);
    }
}

#[test]
fn recommendations_of_late_hold_a_number_in_both_directions() {
    let now = now();
    for (before, current, desired, expected, after, up, down) in [
        (&[][..], 100, 5, 5, &[5][..], 0, 0),
        (&[(4, 2), (5, 1)], 100, 3, 5, &[4, 5, 3], 0, 180),
        (&[(4, 2), (5, 1)], 1, 7, 4, &[4, 5, 7], 300, 0),
        (&[(1, 2), (2, 1)], 100, 3, 3, &[1, 2, 3], 300, 0),
        (&[(4, 2), (5, 1)], 1, 3, 3, &[4, 5, 3], 0, 300),
        (&[(10, 10), (9, 9)], 100, 3, 3, &[10, 3], 0, 0),
        (&[(10, 10), (9, 9)], 1, 100, 100, &[10, 100], 0, 0),
        (&[(10, 10), (4, 1), (5, 2), (9, 9)], 100, 3, 5, &[10, 4, 5, 3], 0, 180),
        (&[(10, 100), (6, 1), (5, 2), (9, 3)], 1, 100, 5, &[100, 6, 5, 9], 300, 0),
        (&[(2, 100), (3, 3)], 2, 1, 2, &[1, 3], 300, 300),
        (&[(2, 100), (1, 3)], 2, 3, 2, &[3, 1], 300, 300),
    ] {
        let mut history = recommended(before, now);
        assert_eq!(
            history.steady(desired, current, (seconds(up), seconds(down)), now),
            expected,
            "{before:?}"
        );
        assert_eq!(numbers(&history), after, "{before:?}");
    }
}

#[test]
fn changes_that_no_policy_looks_back_to_make_room() {
    let now = now();
    for (before, rules, within, after) in [
        (&[][..], "10,60,100,60,0", 0, &[5][..]),
        (&[(7, 61)], "10,60,100,60,0", 0, &[5]),
        (&[(7, 58)], "10,60,100,60,0", 7, &[7, 5]),
        (&[(7, 61), (6, 59)], "10,60,0,0,0", 6, &[5, 6]),
        (&[(8, 29), (6, 59), (7, 61), (9, 61)], "10,60,100,30,0", 14, &[8, 6, 7, 5]),
        (&[(7, 58), (6, 59)], "10,120,100,30,0", 13, &[7, 6, 5]),
    ] {
        let made = || -> Vec<Change> {
            let change = |(replicas, seconds): &(i32, u64)| Change {
                replicas: *replicas,
                at: ago(*seconds, now),
                outdated: false,
            };
            before.iter().map(change).collect()
        };
        let behavior = HorizontalPodAutoscalerBehavior {
            scale_up: Some(rules_of(rules, &[])),
            scale_down: Some(rules_of(rules, &[])),
        };
        let sizes = |changes: &[Change]| changes.iter().map(|change| change.replicas).collect::<Vec<_>>();
        let mut up = History { grown: made(), ..Default::default() };
        assert_eq!(up.before(10, 60, now), 10 - within);
        up.changed(&behavior, 10, 15, now);
        assert_eq!(sizes(&up.grown), after);
        let mut down = History { shrunk: made(), ..Default::default() };
        assert_eq!(down.before(10, 60, now), 10 + within);
        down.changed(&behavior, 10, 5, now);
        assert_eq!(sizes(&down.shrunk), after);
    }
}
