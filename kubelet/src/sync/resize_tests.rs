//! Cases of upstream's `TestComputePodActionsForPodResize` and `TestDoPodResizeAction`, as text.

use super::*;
use crate::allocation::PodResources;
use crate::sync::plan::{ProbeResults, plan_pod};
use crate::types::{ContainerId, SandboxStatus};

struct NoProbes;

impl ProbeResults for NoProbes {
    fn liveness(&self, _: &str) -> Option<bool> {
        None
    }
    fn startup(&self, _: &str) -> Option<bool> {
        None
    }
}

fn pod(spec: &str) -> Pod {
    serde_saphyr::from_str(&format!("metadata: {{name: p, namespace: ns, uid: u}}\nspec: {spec}"))
        .expect("valid")
}

/// A pod whose containers all run, and were told what `told` asks for.
fn running(told: &Pod) -> PodStatus {
    let spec = types::spec(told);
    let sandbox = SandboxStatus {
        id: "s".into(),
        ready: true,
        ips: vec!["10.0.0.1".into()],
        ..SandboxStatus::default()
    };
    let containers = types::init_containers(spec).iter().chain(&spec.containers).map(|c| ContainerStatus {
        id: ContainerId::new("containerd", format!("id-{}", c.name)),
        name: c.name.clone(),
        state: ContainerState::Running,
        hash: crate::containers::hash::container_hash(c),
        ..ContainerStatus::default()
    });
    PodStatus {
        sandboxes: vec![sandbox],
        containers: containers.collect(),
        actuated: PodResources::of(told),
        ..PodStatus::default()
    }
}

const CPU_RESTART: &str = "resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}, \
                           {resourceName: memory, restartPolicy: NotRequired}], ";

fn one(more: &str, resources: &str) -> String {
    format!("{{containers: [{{name: a, {more}resources: {resources}}}]}}")
}

#[test]
fn only_what_differs_is_told() {
    let base = "{requests: {cpu: 100m, memory: 100Mi}, limits: {cpu: 100m, memory: 100Mi}}";
    let cases = [
        ("", base, base, "keep"),
        ("", base, "{requests: {cpu: 0.1, memory: 100Mi}, limits: {cpu: 100m, memory: 104857600}}", "keep"),
        ("", base, "{requests: {cpu: 200m, memory: 100Mi}, limits: {cpu: 200m, memory: 100Mi}}", "cpu a"),
        ("", base, "{requests: {cpu: 100m, memory: 200Mi}, limits: {cpu: 100m, memory: 200Mi}}", "memory a"),
        (
            "",
            base,
            "{requests: {cpu: 200m, memory: 200Mi}, limits: {cpu: 200m, memory: 200Mi}}",
            "memory a, cpu a",
        ),
        ("", base, "{requests: {cpu: 50m, memory: 100Mi}, limits: {cpu: 100m, memory: 100Mi}}", "cpu a"),
        ("", "{}", base, "memory a, cpu a"),
        (
            CPU_RESTART,
            base,
            "{requests: {cpu: 200m, memory: 100Mi}, limits: {cpu: 200m, memory: 100Mi}}",
            "kill a, resize-pod, start app[0]",
        ),
        (
            CPU_RESTART,
            base,
            "{requests: {cpu: 100m, memory: 200Mi}, limits: {cpu: 100m, memory: 200Mi}}",
            "memory a",
        ),
        (
            CPU_RESTART,
            base,
            "{requests: {cpu: 200m, memory: 200Mi}, limits: {cpu: 200m, memory: 200Mi}}",
            "kill a, resize-pod, start app[0]",
        ),
    ];
    for (policy, told, wish, expected) in cases {
        let (told, wish) = (pod(&one(policy, told)), pod(&one(policy, wish)));
        let observed = running(&told);
        assert_eq!(plan_pod(&wish, &observed, &NoProbes).to_string(), expected, "{wish:?}");
        assert_eq!(in_progress(&wish, &observed), expected != "keep");
    }
}

#[test]
fn sidecars_and_init_containers_are_resized() {
    let spec = |sidecar: &str, cpu: &str| {
        format!(
            "{{initContainers: [{{name: i, {sidecar}resources: {{requests: {{cpu: {cpu}}}}}}}], containers: [{{name: a}}]}}"
        )
    };
    let sidecar = "restartPolicy: Always, ";
    let observed = running(&pod(&spec(sidecar, "1")));
    let wish = pod(&spec(sidecar, "2"));
    assert_eq!(plan_pod(&wish, &observed, &NoProbes).to_string(), "cpu i");
    assert!(in_progress(&wish, &observed));
    let restarts = format!("{sidecar}{CPU_RESTART}");
    let observed = running(&pod(&spec(&restarts, "1")));
    let plan = plan_pod(&pod(&spec(&restarts, "2")), &observed, &NoProbes);
    assert_eq!(plan.to_string(), "kill i, resize-pod, start init[0]");
    assert_eq!(plan.kill[0].message, "Container i resize requires restart");
    // One that runs once is told, though nothing is said of it.
    let mut observed = running(&pod(&spec("", "1")));
    observed.containers.retain(|c| c.name == "i");
    let wish = pod(&spec("", "2"));
    assert_eq!(plan_pod(&wish, &observed, &NoProbes).to_string(), "cpu i");
    assert!(!in_progress(&wish, &observed));
}

#[test]
fn what_shrinks_is_told_first() {
    let spec = |a: &str, b: &str, c: &str| {
        let one = |name: &str, cpu: &str| {
            format!("{{name: {name}, resources: {{limits: {{cpu: {cpu}}}, requests: {{cpu: {cpu}}}}}}}")
        };
        format!("{{containers: [{}, {}, {}]}}", one("a", a), one("b", b), one("c", c))
    };
    let observed = running(&pod(&spec("2", "2", "2")));
    let order = |wish: &Pod| plan_pod(wish, &observed, &NoProbes).to_string();
    assert_eq!(order(&pod(&spec("3", "1", "2"))), "cpu b, cpu a");
    assert_eq!(order(&pod(&spec("1", "3", "1"))), "cpu c, cpu a, cpu b");
}

#[test]
fn the_pods_own_resources_reach_containers_without() {
    let spec = |cpu: &str| {
        format!("{{resources: {{requests: {{cpu: 1}}, limits: {{cpu: {cpu}}}}}, containers: [{{name: a}}]}}")
    };
    let mut observed = running(&pod(&spec("1")));
    observed
        .actuated
        .containers
        .insert("a".into(), serde_saphyr::from_str("{limits: {cpu: 1}}").expect("valid"));
    let wish = pod(&spec("2"));
    assert_eq!(plan_pod(&wish, &observed, &NoProbes).to_string(), "cpu a, resize-pod");
    assert!(in_progress(&wish, &observed));
    assert!(!in_progress(&pod(&spec("1")), &observed));
}

#[test]
fn a_stopped_container_needs_no_resize() {
    let told = pod(&one("", "{requests: {cpu: 1}}"));
    let mut observed = running(&told);
    observed.containers[0].state = ContainerState::Exited;
    let wish = pod(&one("", "{requests: {cpu: 2}}"));
    assert_eq!(plan_pod(&wish, &observed, &NoProbes).to_string(), "start app[0]");
    assert!(!in_progress(&wish, &observed));
}

#[test]
fn groups_grow_before_and_shrink_after_their_containers() {
    let limits = |shares, quota, memory| Limits {
        shares: Some(shares),
        quota: Some(quota),
        period: Some(100_000),
        memory: Some(memory),
        pids: None,
    };
    let show = |resource, now: &Limits, then: &Limits| {
        let steps = steps(resource, Some((now, then))).into_iter().map(|step| match step {
            Step::Containers(_) => "containers".to_owned(),
            Step::Group(l) => [
                l.shares.map(|v| format!("weight {v}")),
                l.quota.map(|v| format!("quota {v}")),
                l.memory.map(|v| format!("memory {v}")),
            ]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" "),
        });
        steps.collect::<Vec<_>>().join(", ")
    };
    let cases = [
        (Resource::Cpu, limits(100, 1000, 1), limits(200, 2000, 1), "quota 2000, weight 200, containers"),
        (Resource::Cpu, limits(200, 2000, 1), limits(100, 1000, 1), "containers, weight 100, quota 1000"),
        (Resource::Cpu, limits(200, 1000, 1), limits(100, 2000, 1), "quota 2000, containers, weight 100"),
        (Resource::Cpu, limits(100, 1000, 1), limits(100, 1000, 2), "containers"),
        (Resource::Memory, limits(100, 1000, 1), limits(200, 2000, 2), "memory 2, containers"),
        (Resource::Memory, limits(100, 1000, 2), limits(200, 2000, 1), "containers, memory 1"),
        (Resource::Memory, limits(100, 1000, i64::MAX), limits(200, 2000, 1), "containers, memory 1"),
        (Resource::Cpu, limits(100, -1, 1), limits(100, 1000, 1), "quota 1000, containers"),
        (
            Resource::Cpu,
            limits(100, 1000, 1),
            Limits { shares: Some(200), ..Limits::default() },
            "weight 200, containers",
        ),
        (Resource::Memory, limits(100, 1000, 1), Limits::default(), "containers"),
    ];
    for (resource, now, then, expected) in cases {
        assert_eq!(show(resource, &now, &then), expected, "{now:?} {then:?}");
    }
    assert_eq!(steps(Resource::Cpu, None), [Step::Containers(Resource::Cpu)]);
}

#[test]
fn smaller_memory_limits_are_found() {
    let limits = |memory| Limits { memory, ..Limits::default() };
    let update = |name: &str, now: i64, then: i64| {
        let size = |limit| Sizes {
            memory: crate::allocation::sizes::Size { limit, request: 0 },
            ..Sizes::default()
        };
        ContainerUpdate {
            id: format!("id-{name}"),
            name: name.into(),
            current: size(now),
            desired: size(then),
        }
    };
    let plan = ResizePlan {
        memory: vec![update("less", 5, 3), update("more", 3, 5), update("added", 0, 4), update("none", 4, 0)],
        ..ResizePlan::default()
    };
    let (of_pod, containers) = shrinking_memory(&plan, Some((&limits(Some(9)), &limits(Some(8)))));
    let names: Vec<_> = containers.iter().map(|(_, name, limit)| format!("{name}={limit}")).collect();
    assert_eq!((of_pod, names.join(" ").as_str()), (Some(8), "less=3 added=4"));
    assert_eq!(shrinking_memory(&plan, Some((&limits(Some(8)), &limits(Some(8))))).0, None);
    assert_eq!(shrinking_memory(&plan, Some((&limits(Some(8)), &limits(None)))).0, None);
    assert_eq!(shrinking_memory(&ResizePlan::default(), None), (None, Vec::new()));
}
