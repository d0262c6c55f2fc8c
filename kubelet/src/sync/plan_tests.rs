//! Cases of upstream's `kuberuntime_manager_test.go` (`TestComputePodActions*`), as text.

use std::collections::HashMap;

use super::*;
use crate::types::{ContainerId, SandboxStatus};

#[derive(Default)]
struct Probes {
    liveness: HashMap<String, bool>,
    startup: HashMap<String, bool>,
}

impl ProbeResults for Probes {
    fn liveness(&self, id: &str) -> Option<bool> {
        self.liveness.get(id).copied()
    }
    fn startup(&self, id: &str) -> Option<bool> {
        self.startup.get(id).copied()
    }
}

fn pod(policy: &str, spec: &str) -> Pod {
    let text = format!(
        "metadata: {{name: foo, namespace: new, uid: '12345678'}}\nspec:\n  restartPolicy: {policy}\n{spec}"
    );
    serde_saphyr::from_str(&text).expect("valid pod")
}

fn three(policy: &str) -> Pod {
    pod(policy, "  containers: [{name: a, image: i}, {name: b, image: i}, {name: c, image: i}]\n")
}

fn with_init(policy: &str) -> Pod {
    pod(
        policy,
        "  initContainers: [{name: i1, image: i}, {name: i2, image: i}, {name: i3, image: i}]\n\
         \x20 containers: [{name: a, image: i}, {name: b, image: i}, {name: c, image: i}]\n",
    )
}

fn with_sidecars(policy: &str) -> Pod {
    pod(
        policy,
        "  initContainers:\n  - {name: s1, image: i, restartPolicy: Always}\n\
         \x20 - {name: s2, image: i, restartPolicy: Always, startupProbe: {}, livenessProbe: {}}\n\
         \x20 - {name: i3, image: i}\n  containers: [{name: a, image: i}]\n",
    )
}

/// Reads `ready`, `dead`, `ready-noip` sandboxes and `NAME=running|created|unknown|exited:CODE|changed`, newest first.
/// `probe:` words set probe results: `live:NAME=fail`, `startup:NAME=ok`.
fn observe(pod: &Pod, text: &str) -> (PodStatus, Probes) {
    let mut status = PodStatus { uid: "12345678".into(), ..PodStatus::default() };
    let mut probes = Probes::default();
    for word in text.split_whitespace() {
        if let Some(rest) = word.strip_prefix("live:").or_else(|| word.strip_prefix("startup:")) {
            let (name, result) = rest.split_once('=').expect("NAME=RESULT");
            let to = if word.starts_with("live:") { &mut probes.liveness } else { &mut probes.startup };
            to.insert(format!("id-{name}"), result == "ok");
            continue;
        }
        let Some((name, state)) = word.split_once('=') else {
            let attempt = u32::from(word.ends_with('+'));
            status.sandboxes.push(SandboxStatus {
                id: format!("sandbox{}", status.sandboxes.len()),
                ready: word.starts_with("ready"),
                attempt,
                host_network: word.contains("host"),
                ips: if word.contains("noip") || word.contains("host") {
                    vec![]
                } else {
                    vec!["10.0.0.1".into()]
                },
                ..SandboxStatus::default()
            });
            continue;
        };
        let container = types::find_container(types::spec(pod), name).map(|(_, c)| c).unwrap_or_default();
        let (state, code) = state.split_once(':').unwrap_or((state, "0"));
        let (state, hash) = match state {
            "changed" => ("running", "other".to_owned()),
            state => (state, container_hash(&container)),
        };
        status.containers.push(ContainerStatus {
            id: ContainerId::new("containerd", format!("id-{name}")),
            name: name.to_owned(),
            hash,
            exit_code: code.parse().unwrap_or_default(),
            reason: if code == "oom" { "OOMKilled".to_owned() } else { String::new() },
            state: match state {
                "running" => ContainerState::Running,
                "created" => ContainerState::Created,
                "exited" => ContainerState::Exited,
                _ => ContainerState::Unknown,
            },
            ..ContainerStatus::default()
        });
    }
    (status, probes)
}

fn check(pod: &Pod, cases: &[(&str, &str)]) {
    for (observed, expected) in cases {
        let (status, probes) = observe(pod, observed);
        assert_eq!(plan_pod(pod, &status, &probes).to_string(), *expected, "{observed}");
    }
}

#[test]
fn sandboxes() {
    check(
        &three("Always"),
        &[
            ("", "kill-pod, create-sandbox#0, start app[0], start app[1], start app[2]"),
            ("ready a=running b=running c=running", "keep"),
            (
                "dead a=running b=running c=running",
                "kill-pod, create-sandbox#1, start app[0], start app[1], start app[2]",
            ),
            (
                "ready ready a=running b=running c=running",
                "kill-pod, create-sandbox#1, start app[0], start app[1], start app[2]",
            ),
            (
                "dead+ ready a=running b=running c=running",
                "kill-pod, create-sandbox#2, start app[0], start app[1], start app[2]",
            ),
            (
                "ready-noip a=running b=running c=running",
                "kill-pod, create-sandbox#1, start app[0], start app[1], start app[2]",
            ),
            (
                "ready-host a=running b=running c=running",
                "kill-pod, create-sandbox#1, start app[0], start app[1], start app[2]",
            ),
        ],
    );
    check(
        &three("Never"),
        &[
            ("dead a=exited:0 b=exited:1 c=exited:0", "kill-pod"),
            ("dead", "kill-pod, create-sandbox#1, start app[0], start app[1], start app[2]"),
        ],
    );
    check(
        &three("OnFailure"),
        &[
            ("dead a=exited:0 b=exited:0 c=exited:0", "kill-pod"),
            ("dead a=exited:0 b=exited:1 c=exited:0", "kill-pod, create-sandbox#1, start app[1]"),
        ],
    );
}

#[test]
fn containers_restart_by_policy() {
    check(
        &three("Always"),
        &[
            ("ready a=exited:0 b=running c=exited:1", "start app[0], start app[2]"),
            ("ready b=running c=running", "start app[0]"),
            ("ready a=unknown b=running c=running", "kill a, start app[0]"),
            ("ready a=created b=running c=running", "start app[0]"),
            ("ready a=changed b=running c=running", "kill a, start app[0]"),
            ("ready a=running b=running c=running live:b=fail", "kill b, start app[1]"),
            ("ready a=running b=running c=running startup:b=fail", "kill b, start app[1]"),
            ("ready a=running b=running c=running startup:b=ok live:b=ok", "keep"),
        ],
    );
    check(
        &three("OnFailure"),
        &[
            ("ready a=exited:0 b=running c=exited:1", "start app[2]"),
            ("ready a=exited:0 b=exited:0 c=exited:0", "kill-pod"),
        ],
    );
    check(
        &three("Never"),
        &[
            ("ready a=exited:1 b=running c=running", "keep"),
            ("ready a=exited:1 b=exited:0 c=exited:0", "kill-pod"),
            ("ready a=running b=running c=running live:b=fail", "kill b"),
            ("ready a=changed b=running c=running", "kill a, start app[0]"),
            ("ready a=unknown b=running c=running", "kill a, start app[0]"),
        ],
    );
}

#[test]
fn a_pod_being_deleted_starts_nothing_again() {
    let mut pod = three("Always");
    pod.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
    check(&pod, &[("ready a=exited:1 b=running c=running", "keep")]);
}

#[test]
fn init_containers_run_in_order() {
    check(
        &with_init("Always"),
        &[
            ("", "kill-pod, create-sandbox#0, start init[0]"),
            ("ready", "start init[0]"),
            ("ready i1=running", "keep"),
            ("ready i1=exited:0", "start init[1]"),
            ("ready i2=exited:0 i1=exited:0", "start init[2]"),
            ("ready i3=exited:0 i2=exited:0 i1=exited:0", "start app[0], start app[1], start app[2]"),
            ("ready i3=exited:0", "start app[0], start app[1], start app[2]"),
            ("ready i2=exited:1 i1=exited:0", "start init[1]"),
            ("ready i1=created", "start init[0]"),
            ("ready i1=unknown", "kill i1, start init[0]"),
            ("ready a=running b=running c=running", "keep"),
            ("ready a=exited:1 b=running c=running i3=exited:0", "start app[0]"),
            ("dead i3=exited:0 a=running b=running c=running", "kill-pod, create-sandbox#1, start init[0]"),
            ("dead i1=running", "kill-pod, create-sandbox#1, start init[0]"),
        ],
    );
    check(
        &with_init("OnFailure"),
        &[
            ("ready i3=exited:1 i2=exited:0", "start init[2]"),
            ("ready i3=exited:oom i2=exited:0", "start init[2]"),
        ],
    );
    check(
        &with_init("Never"),
        &[
            ("ready i3=exited:1 i2=exited:0", "kill-pod"),
            ("ready i3=exited:oom i2=exited:0", "kill-pod"),
            ("ready i2=unknown i1=exited:0", "kill-pod"),
            ("ready i2=created i1=exited:0", "start init[1]"),
        ],
    );
}

#[test]
fn sidecars_gate_what_follows_and_are_kept_running() {
    check(
        &with_sidecars("Always"),
        &[
            ("", "kill-pod, create-sandbox#0, start init[0]"),
            ("ready s1=running", "start init[1]"),
            ("ready s2=running s1=running", "keep"),
            ("ready s2=running s1=running startup:s2=ok", "start init[2]"),
            ("ready s2=running s1=running startup:s2=fail", "kill s2, start init[1]"),
            ("ready i3=running s2=running s1=running startup:s2=ok", "keep"),
            ("ready i3=running s2=running s1=exited:0 startup:s2=ok", "start init[0]"),
            ("ready i3=exited:0 s2=running s1=running startup:s2=ok", "start app[0]"),
            ("ready a=running i3=exited:0 s2=exited:1 s1=running", "start init[1]"),
            ("ready a=running s2=running s1=running startup:s2=ok live:s2=fail", "kill s2, start init[1]"),
            ("ready a=running s1=running", "start init[1]"),
            ("ready a=running s2=running s1=changed startup:s2=ok", "kill s1, start init[0]"),
            ("ready a=running s2=running s1=unknown startup:s2=ok", "kill s1, start init[0]"),
        ],
    );
    check(
        &with_sidecars("Never"),
        &[
            ("ready s1=exited:1", "start init[0]"),
            ("ready a=exited:0 i3=exited:0 s2=exited:0 s1=running", "kill-pod"),
            ("ready i3=exited:1 s2=running s1=running startup:s2=ok", "kill-pod"),
        ],
    );
}

#[test]
fn ephemeral_containers_start_once() {
    let pod = pod(
        "Never",
        "  containers: [{name: a, image: i}]\n  ephemeralContainers: [{name: d1, image: i}, {name: d2, image: i}]\n",
    );
    check(
        &pod,
        &[
            ("", "kill-pod, create-sandbox#0, start app[0]"),
            ("ready a=running", "start ephemeral[0], start ephemeral[1]"),
            ("ready a=running d1=exited:1", "start ephemeral[1]"),
            ("ready a=running d1=running d2=exited:0", "keep"),
        ],
    );
}

#[test]
fn messages_say_why() {
    let pod = three("Always");
    let (status, probes) = observe(&pod, "ready a=changed b=running c=unknown live:b=fail");
    let plan = plan_pod(&pod, &status, &probes);
    let messages: Vec<_> = plan.kill.iter().map(|k| k.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "Container a definition changed, will be restarted",
            "Container b failed liveness probe, will be restarted",
            "Container is in \"unknown\" state, try killing it before restart",
        ]
    );
    assert_eq!(plan.kill[1].reason, KillReason::LivenessProbe);
}
