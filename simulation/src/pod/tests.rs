//! What a pod does on a simulated node, as tables: its life, its end, and what others do to it.

use super::*;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};

const START: &str = "2026-01-01T00:00:00Z";

fn time(seconds: u64) -> Timestamp {
    let start: Timestamp = START.parse().expect("a time");
    start.checked_add(Duration::from_secs(seconds)).expect("a time")
}

fn place() -> Place {
    Place {
        node: vec!["198.18.0.1".parse().expect("an address")],
        pod: vec!["10.0.0.2".parse().expect("an address")],
    }
}

fn durations(start: u64, run: u64, stop: u64) -> Durations {
    let seconds = Duration::from_secs;
    Durations { start: seconds(start), run: seconds(run), stop: seconds(stop) }
}

fn bound(spec: &str) -> Pod {
    bound_with("", spec)
}

fn bound_with(metadata: &str, spec: &str) -> Pod {
    let text = format!(
        "metadata: {{name: p, namespace: ns, uid: u, generation: 1, creationTimestamp: '{START}'{metadata}}}\n\
         spec: {{nodeName: n, {spec}}}\n\
         status: {{phase: Pending, qosClass: BestEffort, conditions: [{{type: PodScheduled, status: 'True', \
         lastTransitionTime: '{START}'}}]}}"
    );
    serde_saphyr::from_str(&text).expect("a pod")
}

/// Phase, whether it is ready, and the containers with how often they were started again.
fn words(status: &PodStatus) -> String {
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    let state = |s: &ContainerStatus| {
        let state = s.state.clone().unwrap_or_default();
        let state = match (state.running, state.terminated, state.waiting) {
            (Some(_), _, _) => "runs".to_owned(),
            (_, Some(ended), _) => format!("exit {}", ended.exit_code),
            (_, _, Some(waiting)) => waiting.reason.unwrap_or_default(),
            _ => "?".to_owned(),
        };
        let restarts = if s.restart_count > 0 { format!(" #{}", s.restart_count) } else { String::new() };
        format!(" {}: {state}{restarts}", s.name)
    };
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    let containers: String = lists.into_iter().flatten().flatten().map(state).collect();
    let why = status.reason.as_deref().map_or(String::new(), |reason| format!(" ({reason})"));
    format!(
        "{}{}{why}{containers}",
        status.phase.as_deref().unwrap_or("-"),
        if ready { " ready" } else { "" }
    )
}

/// What is written about a pod and when, if nobody else does anything.
fn story(mut pod: Pod, durations: &Durations, until: u64) -> Vec<String> {
    let (mut now, mut told) = (time(0), vec![]);
    loop {
        match plan(&pod, &place(), durations, now) {
            Plan::Report(status) => {
                told.push(format!("{} s: {}", now.duration_since(time(0)).as_secs(), words(&status)));
                // As the API gives it back.
                let text = serde_json::to_string(&status).expect("JSON");
                pod.status = Some(serde_json::from_str(&text).expect("a status"));
                assert!(told.len() < 20, "it does not stop: {told:?}");
            }
            Plan::Later(at) => {
                assert!(at > now, "later is not now");
                if at > time(until) {
                    return told;
                }
                now = at;
            }
            Plan::Rest => {
                told.push("rest".to_owned());
                return told;
            }
            Plan::Remove { .. } => panic!("nobody has deleted it"),
        }
    }
}

#[test]
fn pods_live_as_their_policies_say() {
    let gates = "readinessGates: [{conditionType: example.com/gate}], containers: [{name: a}]";
    let init =
        "initContainers: [{name: i}, {name: s, restartPolicy: Always}], containers: [{name: a}, {name: b}]";
    for (metadata, spec, expected) in [
        ("", "containers: [{name: a}]", vec!["0 s: Running ready a: runs", "rest"]),
        ("", gates, vec!["0 s: Running a: runs", "rest"]),
        (
            "",
            "restartPolicy: Never, containers: [{name: a}, {name: b}]",
            vec!["0 s: Running ready a: runs b: runs", "5 s: Succeeded a: exit 0 b: exit 0", "rest"],
        ),
        (
            ", annotations: {coxswain.io/exit-code: '3'}",
            "restartPolicy: Never, containers: [{name: a}]",
            vec!["0 s: Running ready a: runs", "5 s: Failed a: exit 3", "rest"],
        ),
        (
            ", annotations: {coxswain.io/run-duration: 2s, coxswain.io/exit-code: '1'}",
            "restartPolicy: OnFailure, containers: [{name: a}]",
            vec![
                "0 s: Running ready a: runs",
                "2 s: Running ready a: runs #1",
                "4 s: Running a: CrashLoopBackOff #1",
                "14 s: Running ready a: runs #2",
                "16 s: Running a: CrashLoopBackOff #2",
                "36 s: Running ready a: runs #3",
                "38 s: Running a: CrashLoopBackOff #3",
            ],
        ),
        (
            ", annotations: {coxswain.io/run-duration: 30s}",
            "containers: [{name: a}]",
            vec![
                "0 s: Running ready a: runs",
                "30 s: Running ready a: runs #1",
                "60 s: Running a: CrashLoopBackOff #1",
            ],
        ),
        ("", init, vec!["0 s: Running ready i: exit 0 s: runs a: runs b: runs", "rest"]),
        (
            "",
            &format!("restartPolicy: OnFailure, {init}"),
            vec![
                "0 s: Running ready i: exit 0 s: runs a: runs b: runs",
                "5 s: Succeeded i: exit 0 s: exit 0 a: exit 0 b: exit 0",
                "rest",
            ],
        ),
        (
            "",
            "activeDeadlineSeconds: 3, containers: [{name: a}]",
            vec!["0 s: Running ready a: runs", "3 s: Failed (DeadlineExceeded) a: exit 143", "rest"],
        ),
        // What cannot be read is not said.
        (
            ", annotations: {coxswain.io/run-duration: soon}",
            "containers: [{name: a}]",
            vec!["0 s: Running ready a: runs", "rest"],
        ),
    ] {
        assert_eq!(story(bound_with(metadata, spec), &durations(0, 5, 0), 60), expected, "{metadata} {spec}");
    }
}

#[test]
fn what_takes_no_time_takes_one_write() {
    let job = "restartPolicy: Never, containers: [{name: a}]";
    assert_eq!(story(bound(job), &durations(0, 0, 0), 60), ["0 s: Succeeded a: exit 0", "rest"]);
}

#[test]
fn a_pod_that_takes_time_to_start_says_so() {
    let expected = ["0 s: Pending a: ContainerCreating", "4 s: Running ready a: runs", "rest"];
    assert_eq!(story(bound("containers: [{name: a}]"), &durations(4, 1, 0), 60), expected);
}

#[test]
fn a_running_pod_says_where_it_is_and_of_what_it_is_made() {
    let spec =
        "containers: [{name: a, image: web:1, resources: {requests: {cpu: 100m}, limits: {memory: 1Gi}}}]";
    let Plan::Report(status) = plan(&bound(spec), &place(), &durations(0, 1, 0), time(7)) else {
        panic!("it runs");
    };
    assert_eq!((status.host_ip.as_deref(), status.pod_ip.as_deref()), (Some("198.18.0.1"), Some("10.0.0.2")));
    assert_eq!(status.pod_ips.map(|ips| ips.len()), Some(1));
    assert_eq!(status.start_time.map(|t| t.0), Some(time(7)));
    assert_eq!(status.observed_generation, Some(1));
    let container = &status.container_statuses.expect("containers")[0];
    assert_eq!(container.image, "web:1");
    assert_eq!(container.container_id.as_deref(), Some("simulated://u-a-0"));
    assert_eq!(container.started, Some(true));
    let resources = container.resources.clone().expect("resources");
    assert_eq!(resources.requests.map(|r| r["cpu"].0.clone()).as_deref(), Some("100m"));
    let kinds: Vec<_> =
        status.conditions.into_iter().flatten().map(|c| format!("{}={}", c.type_, c.status)).collect();
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert!(kinds.contains(&format!("{kind}=True")), "{kind} of {kinds:?}");
    }
    let shared = bound("hostNetwork: true, containers: [{name: a}]");
    let none = Place { pod: vec![], ..place() };
    let Plan::Report(status) = plan(&shared, &none, &durations(0, 1, 0), time(7)) else { panic!("it runs") };
    assert_eq!(status.pod_ip.as_deref(), Some("198.18.0.1"));
    assert!(!needs_addresses(&shared) && needs_addresses(&bound(spec)));
}

#[test]
fn what_others_change_is_answered() {
    let running = |spec: &str| {
        let mut pod = bound(spec);
        let Plan::Report(status) = plan(&pod, &place(), &durations(0, 1, 0), time(0)) else {
            panic!("it runs")
        };
        pod.status = Some(*status);
        pod
    };
    let next = |pod: &Pod| match plan(pod, &place(), &durations(0, 1, 0), time(9)) {
        Plan::Report(status) => words(&status),
        other => format!("{other:?}"),
    };
    let mut resized = running("containers: [{name: a}]");
    assert_eq!(next(&resized), "Rest");
    resized.metadata.generation = Some(2);
    assert_eq!(next(&resized), "Running ready a: runs", "the new generation is seen");
    let mut undone = running("containers: [{name: a}]");
    undone.status.as_mut().expect("a status").conditions = None;
    assert_eq!(next(&undone), "Running ready a: runs");
    let mut gated = running("readinessGates: [{conditionType: example.com/gate}], containers: [{name: a}]");
    let gate = serde_saphyr::from_str("{type: example.com/gate, status: 'True'}").expect("a condition");
    gated.status.as_mut().and_then(|s| s.conditions.as_mut()).expect("conditions").push(gate);
    assert_eq!(next(&gated), "Running ready a: runs");
}

#[test]
fn a_deleted_pod_stops_in_its_time_and_goes() {
    let running = "containers: [{name: a}]";
    let all = [
        // deleted with a grace period of, held by a finalizer, started, ended; taking 5 s to stop; at: what is to be done
        (30, false, true, false, 4, "later 5 s"),
        (30, false, true, false, 5, "remove"),
        (2, false, true, false, 2, "remove"),
        (30, false, false, false, 0, "remove"),
        (30, false, true, true, 0, "remove"),
        (30, true, true, false, 5, "remove, last: Failed a: exit 143"),
        (30, true, false, false, 0, "remove, last: Failed a: exit 137"),
        (30, true, true, true, 0, "remove"),
        (0, true, true, false, 5, "report Failed a: exit 143"),
        (0, true, true, true, 5, "rest"),
        (0, false, true, false, 0, "later 2 s"),
        (0, false, true, false, 2, "remove"),
    ];
    for (grace, held, started, ended, at, expected) in all {
        let mut pod = bound(running);
        let policy = if ended { "restartPolicy: Never, containers: [{name: a}]" } else { running };
        if started {
            let starting = bound(policy);
            let Plan::Report(status) = plan(&starting, &place(), &durations(0, 0, 0), time(0)) else {
                panic!("it runs");
            };
            pod.status = Some(*status);
        }
        assert_eq!(is_terminal(&pod), ended);
        let to = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time(grace));
        pod.metadata.deletion_timestamp = Some(to);
        pod.metadata.deletion_grace_period_seconds = i64::try_from(grace).ok();
        pod.metadata.finalizers = held.then(|| vec!["batch.kubernetes.io/job-tracking".to_owned()]);
        let done = match plan(&pod, &place(), &durations(0, 0, 5), time(at)) {
            Plan::Rest => "rest".to_owned(),
            Plan::Later(at) => format!("later {} s", at.duration_since(time(0)).as_secs()),
            Plan::Report(status) => format!("report {}", words(&status)),
            Plan::Remove { last: None } => "remove".to_owned(),
            Plan::Remove { last: Some(status) } => format!("remove, last: {}", words(&status)),
        };
        assert_eq!(done, expected, "{grace} s, held: {held}, started: {started}, ended: {ended}, at {at} s");
    }
}

#[test]
fn what_rests_has_nothing_to_do_at_any_time() {
    let soon = durations(0, 1, 0);
    for spec in [
        "containers: [{name: a}]",
        "restartPolicy: Never, containers: [{name: a}]",
        "activeDeadlineSeconds: 2, containers: [{name: a}]",
        "readinessGates: [{conditionType: x}], containers: [{name: a}]",
    ] {
        let mut pod = bound(spec);
        for seconds in 0..10 {
            if let Plan::Report(status) = plan(&pod, &place(), &soon, time(seconds)) {
                assert!(!crate::record::is_at_rest(&pod), "{spec} at {seconds} s");
                pod.status = Some(*status);
            }
        }
        let rests =
            !spec.starts_with("readinessGates") && !spec.starts_with("activeDeadline") || is_terminal(&pod);
        assert_eq!(crate::record::is_at_rest(&pod), rests, "{spec}");
    }
}
