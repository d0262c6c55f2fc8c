//! Whom a critical pod takes the place of. Pure, as upstream's `preemption`: as few pods as may be, guaranteed ones last.

use k8s_openapi::api::core::v1::Pod;

use super::Shortage;
use crate::qos::{self, QosClass};
use crate::types;

/// A resource and how much of it is still missing, in thousandths.
type Missing = (String, i64);

/// Pods among `others` without which there is room for `pod`; the text of a failure is upstream's.
pub fn victims<'a>(pod: &Pod, others: &[&'a Pod], shortages: &[Shortage]) -> Result<Vec<&'a Pod>, String> {
    let missing: Vec<Missing> = shortages.iter().map(|s| (s.resource.clone(), s.missing())).collect();
    let of = |class: QosClass| -> Vec<&'a Pod> {
        let may_go = |other: &&&Pod| preemptable(pod, other) && qos::pod_qos(other) == class;
        others.iter().filter(may_go).copied().collect()
    };
    let (best_effort, burstable) = (of(QosClass::BestEffort), of(QosClass::Burstable));
    let guaranteed = of(QosClass::Guaranteed);
    let without = |pods: &[&[&Pod]]| pods.iter().flat_map(|p| p.iter()).fold(missing.clone(), subtract);
    let left = without(&[&best_effort, &burstable, &guaranteed]);
    if !left.is_empty() {
        return Err(none_found(&left));
    }
    // Of each class only as many as it takes when all of the lesser ones are gone, then back from the greatest on.
    let last = nearest(&guaranteed, without(&[&best_effort, &burstable]))?;
    let second = nearest(&burstable, without(&[&best_effort, &last]))?;
    let first = nearest(&best_effort, without(&[&second, &last]))?;
    Ok(first.into_iter().chain(second).chain(last).collect())
}

/// Whether a pod may have to leave for another.
fn preemptable(pod: &Pod, other: &Pod) -> bool {
    if qos::is_critical(pod) && !qos::is_critical(other) {
        return true;
    }
    let priorities = types::spec(pod).priority.zip(types::spec(other).priority);
    priorities.is_some_and(|(pod, other)| pod > other)
}

fn none_found(missing: &[Missing]) -> String {
    let shown = |(resource, amount): &Missing| {
        let unit = if resource == "cpu" { 1 } else { 1000 };
        format!("(res: {resource}, q: {}), ", amount / unit)
    };
    let shown: String = missing.iter().map(shown).collect();
    format!("no set of running pods found to reclaim resources: [{shown}]")
}

/// Pods until nothing is missing, each time the one that gives most of what is; of such the smaller one.
fn nearest<'a>(pods: &[&'a Pod], mut missing: Vec<Missing>) -> Result<Vec<&'a Pod>, String> {
    let (mut pods, mut chosen) = (pods.to_vec(), Vec::new());
    while !missing.is_empty() {
        let mut best: Option<(usize, f64)> = None;
        for (index, pod) in pods.iter().enumerate() {
            let distance = distance(&missing, pod);
            let better = best.is_none_or(|(other, least)| {
                distance < least
                    || distance.total_cmp(&least).is_eq()
                        && size(pod) <= pods.get(other).map_or((0, 0), |p| size(p))
            });
            if better {
                best = Some((index, distance));
            }
        }
        let (index, _) = best.ok_or_else(|| none_found(&missing))?;
        let pod = pods.swap_remove(index);
        missing = subtract(missing, &pod);
        chosen.push(pod);
    }
    Ok(chosen)
}

/// What a pod asks of a resource, in thousandths.
fn request(pod: &Pod, resource: &str) -> i64 {
    if resource == "pods" { 1000 } else { qos::pod_requests(pod).get(resource).copied().unwrap_or_default() }
}

fn size(pod: &Pod) -> (i64, i64) {
    (request(pod, "memory"), request(pod, "cpu"))
}

/// How far a pod is from giving all that is missing; each resource counts alike.
#[expect(clippy::cast_precision_loss, reason = "only compared")]
fn distance(missing: &[Missing], pod: &Pod) -> f64 {
    let part = |(resource, amount): &Missing| {
        let left = amount.saturating_sub(request(pod, resource)).max(0);
        (left as f64 / *amount as f64).powi(2)
    };
    missing.iter().map(part).sum()
}

/// What is missing still when a pod is gone.
fn subtract(missing: Vec<Missing>, pod: &&Pod) -> Vec<Missing> {
    let left = missing.into_iter().map(|(resource, amount)| {
        let given = request(pod, &resource);
        (resource, amount.saturating_sub(given))
    });
    left.filter(|(_, amount)| *amount > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        let resources = |amount: u32, limited: bool| {
            let amounts = format!("{{cpu: {amount}m, memory: {amount}Mi}}");
            let limits = if limited { format!(", limits: {amounts}") } else { String::new() };
            format!("{{requests: {amounts}{limits}}}")
        };
        let (priority, resources) = match name {
            "cluster-critical" => ("2000000000", resources(100, false)),
            "node-critical" => ("2000000100", resources(100, false)),
            "burstable" => ("null", resources(100, false)),
            "guaranteed" => ("null", resources(100, true)),
            "high-burstable" => ("null", resources(300, false)),
            "high-guaranteed" => ("null", resources(300, true)),
            _ => ("null", "{}".to_owned()),
        };
        serde_saphyr::from_str(&format!(
            "metadata: {{name: {name}}}\nspec: {{priority: {priority}, containers: [{{name: a, resources: {resources}}}]}}"
        ))
        .expect("valid")
    }

    fn shortages(cpu: i64, memory: i64, pods: i64) -> Vec<Shortage> {
        let all = [("cpu", cpu), ("memory", memory * (1 << 20) * 1000), ("pods", pods * 1000)];
        let short = |(resource, requested): (&str, i64)| {
            let resource = resource.to_owned();
            (requested > 0).then_some(Shortage { resource, requested, used: 5, capacity: 5 })
        };
        all.into_iter().filter_map(short).collect()
    }

    /// Upstream's cases.
    #[test]
    fn few_and_lesser_pods_go_first() {
        let all = "best-effort high-burstable burstable guaranteed high-guaranteed";
        let cases = [
            ("cluster-critical", "", (0, 0, 0), Some("")),
            ("cluster-critical", "", (0, 0, 1), None),
            ("cluster-critical", "burstable", (100, 100, 1), Some("burstable")),
            ("cluster-critical", "burstable", (200, 200, 2), None),
            ("cluster-critical", "burstable best-effort", (0, 0, 1), Some("best-effort")),
            ("cluster-critical", "best-effort", (0, 1, 0), None),
            ("cluster-critical", "burstable guaranteed", (0, 0, 1), Some("burstable")),
            ("cluster-critical", "best-effort high-burstable burstable", (100, 100, 0), Some("burstable")),
            (
                "cluster-critical",
                "best-effort burstable high-burstable",
                (150, 150, 0),
                Some("high-burstable"),
            ),
            ("cluster-critical", all, (350, 350, 0), Some("high-burstable burstable")),
            ("cluster-critical", all, (0, 550, 0), Some("high-burstable high-guaranteed")),
            ("node-critical", "cluster-critical", (100, 0, 0), Some("cluster-critical")),
            ("cluster-critical", "node-critical", (100, 0, 0), None),
            ("cluster-critical", "cluster-critical", (0, 0, 1), None),
        ];
        for (preemptor, others, (cpu, memory, pods), expected) in cases {
            let others: Vec<Pod> = others.split_whitespace().map(pod).collect();
            let others: Vec<&Pod> = others.iter().collect();
            let found = victims(&pod(preemptor), &others, &shortages(cpu, memory, pods));
            let names = found.map(|pods| pods.into_iter().map(types::name).collect::<Vec<_>>().join(" "));
            assert_eq!(names.ok().as_deref(), expected, "{preemptor} {cpu} {memory} {pods}");
        }
    }

    #[test]
    fn a_failure_says_what_is_missing() {
        let burstable = pod("burstable");
        let failed =
            victims(&pod("node-critical"), &[&burstable], &shortages(200, 100, 2)).expect_err("too little");
        assert_eq!(
            failed,
            "no set of running pods found to reclaim resources: [(res: cpu, q: 100), (res: pods, q: 1), ]"
        );
    }
}
