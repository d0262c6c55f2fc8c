//! Cases of upstream's `kubelet_pods_test.go` and `status/generate_test.go`, as text.

use k8s_openapi::api::core::v1::ContainerState;

use super::*;
use crate::types::{ContainerId, ContainerStatus as Record, SandboxStatus};

fn pod(policy: &str, spec: &str) -> Pod {
    serde_saphyr::from_str(&format!(
        "metadata: {{name: p, namespace: ns, uid: u, generation: 4}}\nspec:\n  restartPolicy: {policy}\n{spec}"
    ))
    .expect("valid pod")
}

const TWO: &str = "  containers: [{name: a, image: img}, {name: b, image: img}]\n";
const INIT: &str = "  initContainers: [{name: i, image: img}]\n  containers: [{name: a, image: img}]\n";
const SIDECAR: &str = "  initContainers: [{name: s, image: img, restartPolicy: Always}]\n  containers: [{name: a, image: img}]\n";

/// Reads `NAME=running|created|unknown|exited:CODE`, newest first, in a ready sandbox.
fn observe(text: &str) -> types::PodStatus {
    let mut status = types::PodStatus {
        uid: "u".into(),
        ips: vec!["10.0.0.5".into()],
        sandboxes: vec![SandboxStatus {
            id: "s".into(),
            ready: true,
            ips: vec!["10.0.0.5".into()],
            ..Default::default()
        }],
        ..Default::default()
    };
    for (index, word) in text.split_whitespace().enumerate() {
        let (name, state) = word.split_once('=').expect("NAME=STATE");
        let (state, code) = state.split_once(':').unwrap_or((state, "0"));
        let state = match state {
            "running" => types::ContainerState::Running,
            "created" => types::ContainerState::Created,
            "exited" => types::ContainerState::Exited,
            _ => types::ContainerState::Unknown,
        };
        status.containers.push(Record {
            id: ContainerId::new("containerd", format!("{name}{index}")),
            name: name.into(),
            state,
            exit_code: code.parse().expect("code"),
            reason: if code == "0" { "Completed".into() } else { "Error".into() },
            image: "img".into(),
            sandbox_id: "s".into(),
            ..Default::default()
        });
    }
    status
}

/// What probes say when there are none: running is started and ready.
fn no_probes(pod: &Pod, status: &mut PodStatus) {
    let running = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some());
    for s in status.container_statuses.iter_mut().flatten() {
        s.started = Some(running(s));
        s.ready = running(s);
    }
    for s in status.init_container_statuses.iter_mut().flatten() {
        let container = types::init_containers(types::spec(pod)).iter().find(|c| c.name == s.name);
        s.started = Some(running(s));
        s.ready = match container {
            Some(c) if types::is_restartable_init(c) => running(s),
            _ => s.state.as_ref().and_then(|s| s.terminated.as_ref()).is_some_and(|t| t.exit_code == 0),
        };
    }
}

struct Case<'a> {
    pod: &'a Pod,
    observed: types::PodStatus,
    previous: Option<PodStatus>,
    reasons: WaitingReasons,
    terminal: bool,
    verdict: Option<Verdict>,
    now: i64,
}

impl<'a> Case<'a> {
    fn new(pod: &'a Pod, observed: &str) -> Self {
        Self {
            pod,
            observed: observe(observed),
            previous: None,
            reasons: WaitingReasons::default(),
            terminal: false,
            verdict: None,
            now: 100,
        }
    }

    fn status(&self) -> PodStatus {
        generate(
            &StatusInput {
                pod: self.pod,
                observed: &self.observed,
                previous: self.previous.as_ref(),
                reasons: &self.reasons,
                terminal: self.terminal,
                verdict: self.verdict.as_ref(),
                host_ips: &["192.0.2.1".parse().expect("valid")],
                sandbox_is_good: true,
                resizes: &[],
                group: None,
            },
            no_probes,
            Timestamp::from_second(self.now).expect("in range"),
        )
    }
}

fn state(state: &Option<ContainerState>) -> String {
    let Some(state) = state else { return "-".into() };
    match (&state.running, &state.waiting, &state.terminated) {
        (Some(_), _, _) => "running".into(),
        (_, Some(w), _) => format!("waiting:{}", w.reason.clone().unwrap_or_default()),
        (_, _, Some(t)) => format!("ended:{}", t.exit_code),
        _ => "?".into(),
    }
}

fn containers(list: &Option<Vec<ContainerStatus>>) -> String {
    let one = |s: &ContainerStatus| {
        format!("{} {} last {} x{}", s.name, state(&s.state), state(&s.last_state), s.restart_count)
    };
    list.iter().flatten().map(one).collect::<Vec<_>>().join("; ")
}

fn conditions(status: &PodStatus) -> String {
    let one = |c: &PodCondition| {
        let reason = c.reason.as_deref().map(|r| format!("({r})")).unwrap_or_default();
        format!("{}={}{reason}", c.type_, c.status)
    };
    status.conditions.iter().flatten().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_pod_that_starts_over_says_so() {
    let pod: Pod = serde_saphyr::from_str(
        "metadata: {name: p, uid: u}\nspec: {restartPolicy: Never, containers: [{name: a, restartPolicy: Never, \
         restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]}, {name: b}]}",
    )
    .expect("valid");
    let ran: PodStatus = serde_saphyr::from_str(
        "phase: Running\ncontainerStatuses:\n\
         - {name: a, image: i, imageID: i, ready: true, restartCount: 2, state: {running: {}}}\n\
         - {name: b, image: i, imageID: i, ready: true, restartCount: 0, state: {running: {}}}\n",
    )
    .expect("valid");
    let ended = types::ContainerStatus {
        name: "a".into(),
        state: types::ContainerState::Exited,
        exit_code: 42,
        restart_count: 2,
        ..types::ContainerStatus::default()
    };
    let observed = types::PodStatus { containers: vec![ended], ..types::PodStatus::default() };
    let reasons = WaitingReasons::default();
    let input = StatusInput {
        pod: &pod,
        observed: &observed,
        previous: Some(&ran),
        reasons: &reasons,
        terminal: false,
        verdict: None,
        host_ips: &[],
        sandbox_is_good: true,
        resizes: &[],
        group: None,
    };
    let status = generate(&input, |_, _| {}, Timestamp::UNIX_EPOCH);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "AllContainersRestarting");
    assert_eq!(condition.map(|c| c.status.as_str()), Some("True"));
    let b = &status.container_statuses.as_ref().expect("set")[1];
    assert_eq!(b.restart_count, 1);
    assert_eq!(
        b.state.as_ref().and_then(|s| s.waiting.as_ref()?.reason.as_deref()),
        Some("RestartingAllContainers")
    );
}

#[test]
fn phases() {
    let cases = [
        ("Always", TWO, "", "Pending"),
        ("Always", TWO, "a=running b=running", "Running"),
        ("Always", TWO, "a=exited:0 b=exited:1", "Running"),
        ("Always", TWO, "a=running", "Pending"),
        ("Always", TWO, "a=running b=exited:1", "Running"),
        ("Never", TWO, "a=exited:0 b=exited:0", "Succeeded"),
        ("Never", TWO, "a=exited:0 b=exited:1", "Failed"),
        ("Never", TWO, "a=running b=exited:1", "Running"),
        ("OnFailure", TWO, "a=exited:0 b=exited:0", "Succeeded"),
        ("OnFailure", TWO, "a=exited:0 b=exited:1", "Running"),
        ("Always", INIT, "i=running", "Pending"),
        ("Always", INIT, "i=exited:0", "Pending"),
        ("Always", INIT, "i=exited:1", "Pending"),
        ("Never", INIT, "i=exited:1", "Failed"),
        ("OnFailure", INIT, "i=exited:1", "Pending"),
        ("Always", INIT, "a=running i=exited:0", "Running"),
        ("Always", INIT, "a=running", "Running"),
        ("Always", SIDECAR, "s=running", "Pending"),
        ("Always", SIDECAR, "a=running s=running", "Running"),
        ("Always", SIDECAR, "a=running s=exited:1", "Running"),
        ("Never", SIDECAR, "a=exited:0 s=running", "Running"),
        ("Never", SIDECAR, "a=exited:0 s=exited:143", "Succeeded"),
    ];
    for (policy, spec, observed, phase) in cases {
        let pod = pod(policy, spec);
        assert_eq!(
            Case::new(&pod, observed).status().phase.as_deref(),
            Some(phase),
            "{policy} {spec} {observed}"
        );
    }
}

#[test]
fn a_terminal_pod_gets_a_terminal_phase() {
    for (observed, phase) in [("a=exited:0 b=exited:0", "Succeeded"), ("a=exited:0 b=exited:137", "Failed")] {
        let pod = pod("Always", TWO);
        let case = Case { terminal: true, ..Case::new(&pod, observed) };
        assert_eq!(case.status().phase.as_deref(), Some(phase));
    }
    let mut pod = pod("Always", TWO);
    pod.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    let case = Case { terminal: true, ..Case::new(&pod, "a=exited:0 b=exited:0") };
    assert_eq!(case.status().phase.as_deref(), Some("Running"), "static pods come back");
}

#[test]
fn phases_do_not_go_back() {
    let mut pod = pod("Always", TWO);
    pod.status = serde_saphyr::from_str("{phase: Failed, reason: Evicted, message: low}").expect("valid");
    let status = Case::new(&pod, "a=running b=running").status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    pod.status = None;
    let verdict =
        Verdict { reason: "DeadlineExceeded".into(), message: "too long".into(), disruption: false };
    let case = Case { verdict: Some(verdict), ..Case::new(&pod, "a=running b=running") };
    let status = case.status();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn container_states() {
    let cases = [
        ("Always", TWO, "", "a waiting:ContainerCreating last - x0; b waiting:ContainerCreating last - x0"),
        ("Always", TWO, "a=running b=created", "a running last - x0; b waiting: last - x0"),
        ("Always", TWO, "a=running a=exited:3 b=exited:0", "a running last ended:3 x0; b ended:0 last - x0"),
        (
            "Always",
            TWO,
            "a=exited:1 a=exited:2 a=exited:3 b=running",
            "a ended:1 last ended:2 x0; b running last - x0",
        ),
        ("Always", INIT, "", "a waiting:PodInitializing last - x0"),
        ("Always", INIT, "i=running", "a waiting:PodInitializing last - x0"),
    ];
    for (policy, spec, observed, expected) in cases {
        let pod = pod(policy, spec);
        assert_eq!(
            containers(&Case::new(&pod, observed).status().container_statuses),
            expected,
            "{observed}"
        );
    }
    let pod = pod("Always", INIT);
    let init = |observed| containers(&Case::new(&pod, observed).status().init_container_statuses);
    assert_eq!(init("i=exited:0"), "i ended:0 last - x0");
    assert_eq!(init("a=running"), "i ended:0 last - x0", "its record is gone, but it must have completed");
}

#[test]
fn waiting_containers_say_why() {
    let pod = pod("Always", TWO);
    let case = Case::new(&pod, "a=exited:1");
    case.reasons.set("u", "a", "CrashLoopBackOff", "back-off 10s");
    case.reasons.set("u", "b", "ErrImagePull", "no such image");
    let status = case.status();
    assert_eq!(
        containers(&status.container_statuses),
        "a waiting:CrashLoopBackOff last ended:1 x0; b waiting:ErrImagePull last - x0"
    );
    assert_eq!(status.phase.as_deref(), Some("Pending"));
}

#[test]
fn a_container_that_vanished_ended() {
    let pod = pod("Always", TWO);
    let previous = Case::new(&pod, "a=running b=running").status();
    let case = Case { previous: Some(previous), ..Case::new(&pod, "b=running") };
    let status = case.status();
    assert_eq!(
        containers(&status.container_statuses),
        "a waiting:ContainerCreating last ended:137 x1; b running last - x0"
    );
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let unknown = Case { previous: case.previous, ..Case::new(&pod, "a=unknown b=running") };
    assert_eq!(
        containers(&unknown.status().container_statuses),
        "a ended:137 last - x1; b running last - x0"
    );
}

#[test]
fn conditions_follow_containers() {
    let cases = [
        (
            TWO,
            "a=running b=running",
            "PodReadyToStartContainers=True Initialized=True Ready=True ContainersReady=True PodScheduled=True",
        ),
        (
            TWO,
            "a=running",
            "PodReadyToStartContainers=True Initialized=True Ready=False(ContainersNotReady) \
             ContainersReady=False(ContainersNotReady) PodScheduled=True",
        ),
        (
            INIT,
            "i=running",
            "PodReadyToStartContainers=True Initialized=False(ContainersNotInitialized) Ready=False(ContainersNotReady) \
             ContainersReady=False(ContainersNotReady) PodScheduled=True",
        ),
        (
            SIDECAR,
            "a=running s=exited:1",
            "PodReadyToStartContainers=True Initialized=True Ready=False(ContainersNotReady) \
             ContainersReady=False(ContainersNotReady) PodScheduled=True",
        ),
    ];
    for (spec, observed, expected) in cases {
        let pod = pod("Always", spec);
        assert_eq!(conditions(&Case::new(&pod, observed).status()), expected, "{observed}");
    }
    let pod = pod("Never", INIT);
    assert_eq!(
        conditions(&Case::new(&pod, "a=exited:0 i=exited:0").status()),
        "PodReadyToStartContainers=True Initialized=True(PodCompleted) Ready=False(PodCompleted) \
         ContainersReady=False(PodCompleted) PodScheduled=True"
    );
    let status = Case::new(&pod, "i=running").status();
    let find = |kind: &str| {
        status.conditions.iter().flatten().find(|c| c.type_ == kind).and_then(|c| c.message.clone())
    };
    assert_eq!(find("Initialized").as_deref(), Some("containers with incomplete status: [i]"));
    assert_eq!(find("Ready").as_deref(), Some("containers with unready status: [a]"));
}

#[test]
fn readiness_gates_are_respected_and_others_conditions_kept() {
    let mut pod =
        pod("Always", "  readinessGates: [{conditionType: x/gate}]\n  containers: [{name: a, image: i}]\n");
    let ready = |pod: &Pod| {
        let status = Case::new(pod, "a=running").status();
        status.conditions.into_iter().flatten().find(|c| c.type_ == "Ready").expect("set")
    };
    assert_eq!(
        ready(&pod).message.as_deref(),
        Some("corresponding condition of pod readiness gate \"x/gate\" does not exist.")
    );
    pod.status = serde_saphyr::from_str("{conditions: [{type: x/gate, status: 'True'}]}").expect("valid");
    assert_eq!(ready(&pod).status, "True");
    assert!(conditions(&Case::new(&pod, "a=running").status()).starts_with("x/gate=True "));
}

#[test]
fn transitions_keep_their_time() {
    let pod = pod("Always", TWO);
    let first = Case::new(&pod, "a=running b=running").status();
    let at = |status: &PodStatus, kind: &str| {
        let c = status.conditions.iter().flatten().find(|c| c.type_ == kind).expect("set");
        c.last_transition_time.clone().expect("set").0.as_second()
    };
    let second = Case { previous: Some(first), now: 200, ..Case::new(&pod, "a=running") }.status();
    assert_eq!((at(&second, "PodScheduled"), at(&second, "Ready")), (100, 200));
    assert_eq!(second.start_time.as_ref().map(|t| t.0.as_second()), Some(100));
    assert_eq!(second.observed_generation, Some(4));
}

#[test]
fn addresses() {
    let plain = pod("Always", TWO);
    let status = Case::new(&plain, "").status();
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("10.0.0.5"), Some("192.0.2.1")));
    let mut case = Case::new(&plain, "");
    case.observed.ips = vec!["fd00::5".into(), "10.0.0.5".into(), "10.0.0.6".into()];
    let ips: Vec<_> = case.status().pod_ips.into_iter().flatten().map(|i| i.ip).collect();
    assert_eq!(ips, ["10.0.0.5", "fd00::5"], "the node's family first, one of each");
    let host = pod("Always", &format!("  hostNetwork: true\n{TWO}"));
    let mut case = Case::new(&host, "");
    case.observed.ips = vec![];
    assert_eq!(case.status().pod_ip.as_deref(), Some("192.0.2.1"));
    let mut ended = Case::new(&plain, "");
    ended.previous = Some(status);
    ended.observed.ips = vec![];
    ended.observed.sandboxes[0].ready = false;
    assert_eq!(ended.status().pod_ip.as_deref(), Some("10.0.0.5"), "an ended pod keeps its address");
}
