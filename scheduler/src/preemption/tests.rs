//! Clusters too full for a pod, and what is evicted for it.

use std::sync::Arc;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::*;
use crate::cycle::Decision;
use crate::node_info::NodeInfo;
use crate::plugins::registry::Parts;
use crate::testing::{self, cluster, cpu, merge, node, pod_with};

/// A pod with a priority, requests and a start time in seconds.
fn prioritized(name: &str, priority: i32, amount: &str, started: i64) -> Arc<PodInfo> {
    let start = Timestamp::from_second(1_700_000_000 + started).expect("a time").to_string();
    pod_with(
        name,
        json!({"metadata": {"labels": {"app": name.split('-').next()}}, "status": {"startTime": start},
               "spec": merged(cpu(amount), json!({"priority": priority}))}),
    )
}

fn merged(mut into: Value, from: Value) -> Value {
    merge(&mut into, from);
    into
}

fn with(mut node: NodeInfo, pods: &[&Arc<PodInfo>]) -> NodeInfo {
    pods.iter().for_each(|pod| node.add((*pod).clone()));
    node
}

/// `node: victims`, or the message.
fn outcome(pod: &Arc<PodInfo>, nodes: Vec<NodeInfo>, budgets: &[Arc<PodDisruptionBudget>]) -> String {
    let framework = testing::framework(&Parts::default());
    match testing::decide_with(&framework, pod, &cluster(nodes), &Nominated::new(), budgets) {
        Decision::Refuse { evict: Some(candidate), nomination, .. } => {
            assert_eq!(nomination, Nomination::Set(candidate.node.clone()));
            let names: Vec<_> = candidate.victims.iter().map(|pod| pod.name()).collect();
            format!("{}: {}", candidate.node, names.join(" "))
        }
        Decision::Refuse { diagnosis, .. } => {
            let after = diagnosis.after.strip_prefix("no new claims to deallocate, ");
            after.expect("the plugin for devices says something first").to_owned()
        }
        Decision::Place { node, .. } => format!("fits on {}", node.name()),
        Decision::Fail(error) => error,
    }
}

fn empty(name: &str) -> NodeInfo {
    node(name, "z", json!({}))
}

#[test]
fn the_least_important_pods_go_and_no_more_than_needed() {
    let low = |name: &str, amount: &str| prioritized(name, 1, amount, 0);
    let one = with(empty("n"), &[&low("a-small", "500m"), &low("b-large", "1500m")]);
    assert_eq!(outcome(&prioritized("p", 9, "500m", 0), vec![one.clone()], &[]), "n: b-large");
    let equal = prioritized("p", 1, "500m", 0);
    assert_eq!(
        outcome(&equal, vec![one], &[]),
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
    );
}

#[test]
fn nodes_that_can_never_take_the_pod_are_not_looked_at() {
    let full = with(empty("n"), &[&prioritized("a", 1, "2", 0)]);
    let cordoned =
        with(node("c", "z", json!({"spec": {"unschedulable": true}})), &[&prioritized("b", 1, "2", 0)]);
    assert_eq!(outcome(&prioritized("p", 9, "1", 0), vec![cordoned.clone(), full], &[]), "n: a");
    assert_eq!(
        outcome(&prioritized("p", 9, "1", 0), vec![cordoned], &[]),
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn a_pod_that_must_not_preempt_says_so() {
    let full = with(empty("n"), &[&prioritized("a", 1, "2", 0)]);
    let shy =
        pod_with("p", json!({"spec": merged(cpu("1"), json!({"priority": 9, "preemptionPolicy": "Never"}))}));
    assert_eq!(outcome(&shy, vec![full], &[]), "preemption: not eligible due to preemptionPolicy=Never.");
}

#[test]
fn one_eviction_at_a_time_on_the_nominated_node() {
    let going = |name: &str| {
        pod_with(
            name,
            json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]},
            "spec": merged(cpu("2"), json!({"priority": 1}))}),
        )
    };
    let waiting = |node: &str| {
        let spec = merged(cpu("1"), json!({"priority": 9}));
        pod_with("p", json!({"status": {"nominatedNodeName": node}, "spec": spec}))
    };
    let nodes = || vec![with(empty("n"), &[&going("a")]), with(empty("m"), &[&prioritized("b", 1, "2", 0)])];
    assert_eq!(
        outcome(&waiting("n"), nodes(), &[]),
        "preemption: not eligible due to a terminating pod on the nominated node."
    );
    assert_ne!(
        outcome(&waiting("m"), nodes(), &[]),
        "preemption: not eligible due to a terminating pod on the nominated node."
    );
}

#[test]
fn budgets_are_respected_where_that_is_possible() {
    let budget = |allowed: i32| -> Arc<PodDisruptionBudget> {
        let object = json!({"metadata": {"name": "b", "namespace": "ns"}, "status": {"disruptionsAllowed": allowed,
            "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0},
            "spec": {"selector": {"matchLabels": {"app": "kept"}}}});
        Arc::new(serde_json::from_value(object).expect("a budget"))
    };
    let nodes = || {
        vec![
            with(empty("n"), &[&prioritized("kept-1", 1, "2", 0)]),
            with(empty("m"), &[&prioritized("free-1", 5, "2", 0)]),
        ]
    };
    let important = prioritized("p", 9, "2", 0);
    assert_eq!(outcome(&important, nodes(), &[budget(0)]), "m: free-1");
    assert_eq!(outcome(&important, nodes(), &[budget(1)]), "n: kept-1");
    // On one node, those that the budget keeps are put back first.
    let both = with(empty("n"), &[&prioritized("kept-1", 1, "1", 0), &prioritized("free-1", 5, "1", 0)]);
    assert_eq!(outcome(&prioritized("p", 9, "1", 0), vec![both], &[budget(0)]), "n: free-1");
}

#[test]
fn the_node_where_the_least_harm_is_done_is_picked() {
    let candidate = |node: &str, violations: usize, victims: &[(i32, i64)]| Candidate {
        node: node.to_owned(),
        violations,
        victims: victims.iter().map(|(p, started)| prioritized(node, *p, "1", *started)).collect(),
    };
    for (what, a, b, expected) in [
        ("violations", candidate("a", 1, &[(1, 0)]), candidate("b", 0, &[(5, 0)]), "b"),
        ("highest priority", candidate("a", 0, &[(5, 0)]), candidate("b", 0, &[(1, 0), (1, 0)]), "b"),
        ("sum", candidate("a", 0, &[(5, 0), (4, 0)]), candidate("b", 0, &[(5, 0), (3, 0)]), "b"),
        ("sum of negative ones", candidate("a", 0, &[(-5, 0), (-5, 0)]), candidate("b", 0, &[(-5, 0)]), "b"),
        ("latest start", candidate("a", 0, &[(5, 10)]), candidate("b", 0, &[(5, 20)]), "b"),
        ("first", candidate("a", 0, &[(5, 0)]), candidate("b", 0, &[(5, 0)]), "a"),
    ] {
        let best = pick(vec![a, b], Timestamp::now()).expect("a candidate");
        assert_eq!(best.node, expected, "{what}");
    }
}

#[test]
fn pods_nominated_to_a_node_keep_their_place_there() {
    let framework = testing::framework(&Parts::default());
    let (first, second) = (prioritized("first", 9, "2", 0), prioritized("second", 9, "2", 0));
    let nominated: Nominated = [("n".to_owned(), vec![first.clone()])].into();
    let nodes = || cluster(vec![empty("n")]);
    let fits = |pod: &Arc<PodInfo>| {
        let decision = testing::decide_with(&framework, pod, &nodes(), &nominated, &[]);
        matches!(decision, Decision::Place { .. })
    };
    assert!(fits(&first), "its own nomination does not count");
    assert!(!fits(&second));
    assert!(fits(&prioritized("third", 10, "2", 0)), "a more important one does not care");
    assert_eq!(outranked(&nominated, "n", 10).len(), 1);
    assert!(outranked(&nominated, "n", 9).is_empty());
}

#[test]
fn anti_affinity_is_resolved_by_evicting_the_pods_it_is_against() {
    let term = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "noisy"}}}]);
    let away = json!({"priority": 9, "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    let picky = pod_with("p", json!({"spec": away}));
    let shared =
        with(empty("n"), &[&prioritized("noisy-1", 1, "100m", 0), &prioritized("quiet-1", 1, "100m", 0)]);
    assert_eq!(outcome(&picky, vec![shared], &[]), "n: noisy-1");
}

/// On random clusters: the pod fits without the victims, and no victim could stay.
#[test]
fn no_pod_is_evicted_that_could_stay() {
    let framework = testing::framework(&Parts::default());
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(1..5);
        let nodes = (0..count).map(|n| {
            let mut node = empty(&format!("n{n}"));
            for p in 0..random.random_range(0..9) {
                let (priority, size) = (random.random_range(0..6), random.random_range(1..10) * 100);
                node.add(prioritized(&format!("p{n}-{p}"), priority, &format!("{size}m"), p));
            }
            node
        });
        let snapshot = cluster(nodes.collect());
        let amount = format!("{}m", random.random_range(1..21) * 100);
        let pod = prioritized("new", random.random_range(0..8), &amount, 0);
        let Decision::Refuse { evict: Some(candidate), .. } = testing::decide(&framework, &pod, &snapshot)
        else {
            continue;
        };
        let fits_without = |gone: &[Arc<PodInfo>]| {
            let mut node = NodeInfo::clone(snapshot.node(&candidate.node).expect("the node"));
            gone.iter().for_each(|victim| drop(node.remove(victim.uid())));
            matches!(testing::decide(&framework, &pod, &cluster(vec![node])), Decision::Place { .. })
        };
        assert!(fits_without(&candidate.victims), "seed {seed}");
        for at in 0..candidate.victims.len() {
            assert!(candidate.victims[at].priority < pod.priority, "seed {seed}");
            let mut fewer = candidate.victims.clone();
            fewer.remove(at);
            assert!(!fits_without(&fewer), "seed {seed}: {} could stay", candidate.victims[at].name());
        }
    }
}

/// A pod of one of three kinds, that may keep away from another kind, and use a host port.
fn opinionated(random: &mut StdRng, name: &str, priority: i32) -> Arc<PodInfo> {
    let kind = |random: &mut StdRng| ["a", "b", "c"][random.random_range(0..3)];
    let key = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"][random.random_range(0..2)];
    let away = random.random_bool(0.3).then(|| {
        let labels = json!({"matchLabels": {"app": kind(random)}});
        json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": key, "labelSelector": labels}]}})
    });
    let spread = random.random_bool(0.3).then(|| {
        let labels = json!({"matchLabels": {"app": kind(random)}});
        json!([{"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": labels}])
    });
    let amount = format!("{}m", random.random_range(1..10) * 100);
    let ports = random.random_bool(0.2).then(|| json!([{"containerPort": 80, "hostPort": 80}]));
    let mut spec = merged(
        cpu(&amount),
        json!({"priority": priority, "affinity": away,
                                               "topologySpreadConstraints": spread}),
    );
    spec["containers"][0]["ports"] = ports.unwrap_or(Value::Null);
    pod_with(name, json!({"metadata": {"labels": {"app": kind(random)}}, "spec": spec}))
}

/// The same with all that pods may hold against each other, over the whole cluster.
#[test]
fn no_pod_is_evicted_that_is_not_in_the_way() {
    let framework = testing::framework(&Parts::default());
    let mut evictions = 0;
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(1..6);
        let nodes: Vec<_> = (0..count)
            .map(|n| {
                let mut node = node(&format!("n{n}"), ["x", "y"][n % 2], json!({}));
                for p in 0..random.random_range(0..6) {
                    let priority = random.random_range(0..6);
                    node.add(opinionated(&mut random, &format!("p{n}-{p}"), priority));
                }
                node
            })
            .collect();
        let pod = opinionated(&mut random, "new", 4);
        let snapshot = cluster(nodes.clone());
        let Decision::Refuse { evict: Some(candidate), .. } = testing::decide(&framework, &pod, &snapshot)
        else {
            continue;
        };
        evictions += 1;
        let fits_without = |gone: &[Arc<PodInfo>]| {
            let mut nodes = nodes.clone();
            let there = nodes.iter_mut().find(|node| node.name() == candidate.node).expect("the node");
            gone.iter().for_each(|victim| drop(there.remove(victim.uid())));
            let there = there.clone();
            let (prepared, allowed) = framework.prepare(&pod, &cluster(nodes));
            allowed.is_ok() && prepared.check(&there).is_ok()
        };
        assert!(fits_without(&candidate.victims), "seed {seed}");
        for victim in &candidate.victims {
            assert!(victim.priority < pod.priority, "seed {seed}");
            let others: Vec<_> =
                candidate.victims.iter().filter(|other| other.uid() != victim.uid()).cloned().collect();
            assert!(!fits_without(&others), "seed {seed}: {} is not in the way", victim.name());
        }
    }
    assert!(evictions > 50, "{evictions}");
}

/// What several threads find is what one finds.
#[test]
fn candidates_do_not_depend_on_threads() {
    let framework = testing::framework(&Parts::default());
    let mut random = StdRng::seed_from_u64(7);
    let nodes: Vec<_> = (0..700)
        .map(|n| {
            let mut node = node(&format!("n{n}"), ["x", "y", "z"][n % 3], json!({}));
            for p in 0..random.random_range(0..6) {
                let priority = random.random_range(0..9);
                node.add(opinionated(&mut random, &format!("p{n}-{p}"), priority));
            }
            node
        })
        .collect();
    let snapshot = cluster(nodes);
    for round in 0..20 {
        let spec = json!({"priority": 6, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1900m"}}}]});
        let pod = match round % 2 {
            0 => pod_with("new", json!({"spec": spec})),
            _ => opinionated(&mut random, "new", 6),
        };
        let (prepared, _) = framework.prepare(&pod, &snapshot);
        let mut diagnosis = Diagnosis::new(snapshot.nodes.len());
        for at in 0..snapshot.nodes.len() {
            diagnosis.refuse(at, Rejection::new("test", "full"));
        }
        let found = |threads: usize| {
            let attempt = Attempt {
                framework: &framework,
                pod: &pod,
                snapshot: &snapshot,
                prepared: &prepared,
                nominated: &Nominated::new(),
                diagnosis: &diagnosis,
                budgets: &[],
                extenders: &[],
                now: Timestamp::UNIX_EPOCH,
                threads,
            };
            let (candidates, why_not) = candidates(&attempt, DefaultPreemptionArgs::default(), 123);
            let names: Vec<_> = candidates
                .iter()
                .map(|c| format!("{} {:?}", c.node, c.victims.iter().map(|v| v.name()).collect::<Vec<_>>()))
                .collect();
            (names, why_not.to_string())
        };
        let (one, three) = (found(1), found(3));
        assert!(round % 2 == 1 || one.0.len() >= 100, "{}", one.0.len());
        assert_eq!(one, three, "round {round}");
    }
}
