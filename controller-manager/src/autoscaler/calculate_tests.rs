//! Upstream's cases, from a file.

use super::*;
use serde_json::{Value, json};

/// A time that was not set.
const NEVER: &str = "0001-01-01T00:00:00Z";

#[derive(Default)]
struct Case<'a> {
    lines: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Case<'a> {
    fn read(text: &'a str) -> Self {
        let line = |line: &'a str| {
            let mut words = line.split_whitespace();
            (words.next().unwrap_or_default(), words.collect())
        };
        Self { lines: text.lines().map(line).collect() }
    }

    fn all(&self, key: &str) -> &[&'a str] {
        self.lines.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    fn number(&self, key: &str) -> Option<i64> {
        self.all(key).first().map(|text| text.parse().expect("a number"))
    }

    fn pods(&self, now: Timestamp) -> Vec<Arc<Pod>> {
        let current =
            usize::try_from(self.number("current").expect("a number of replicas")).expect("not negative");
        let count = current.max(self.all("phase").len());
        let at = |seconds: i64| (now - SignedDuration::from_secs(seconds)).to_string();
        (0..count)
            .map(|index| {
                let ready = self.all("ready").get(index).copied().unwrap_or("True");
                let started = match self.all("start").get(index) {
                    // Hot pods started half a minute ago, cool ones three minutes.
                    Some(&"hot") => at(30),
                    Some(_) => at(180),
                    None => NEVER.to_owned(),
                };
                let requests = self.all("requests");
                let resources = match (requests.first(), requests.get(index + 1)) {
                    (Some(name), Some(amount)) => json!({ "requests": { *name: amount } }),
                    _ => Value::Null,
                };
                let container = |name: &str| json!({ "name": name, "resources": resources });
                let mut pod = json!({
                    "metadata": { "name": format!("test-pod-{index}") },
                    "spec": { "containers": [container("container1"), container("container2")] },
                    "status": {
                        "phase": self.all("phase").get(index).unwrap_or(&"Running"), "startTime": started,
                        "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": NEVER }],
                    },
                });
                if self.all("deleted").get(index) == Some(&"true") {
                    pod["metadata"]["deletionTimestamp"] = json!(at(0));
                }
                Arc::new(serde_json::from_value(pod).expect("a pod"))
            })
            .collect()
    }

    /// What was measured; when is not said, as in upstream's tests.
    fn metrics(&self) -> Metrics {
        let container = self.all("container").first().copied();
        let value = |level: &str| -> i64 {
            let mut levels = level.split(',').map(|level| level.parse::<i64>().expect("a level"));
            match container {
                Some("container1") => levels.next().unwrap_or(0),
                Some(_) => levels.nth(1).unwrap_or(0),
                None => levels.sum(),
            }
        };
        let name = |index: usize| {
            self.all("names")
                .get(index)
                .map_or_else(|| format!("test-pod-{index}"), |name| (*name).to_owned())
        };
        let metric = |level: &str| Metric {
            value: value(level),
            at: NEVER.parse().expect("a time"),
            window: SignedDuration::from_mins(1),
        };
        self.all("levels").iter().enumerate().map(|(index, level)| (name(index), metric(level))).collect()
    }

    fn total(&self) -> i64 {
        let levels = self.all("levels").iter().map(|level| level.parse::<i64>().expect("a level"));
        levels.fold(0, i64::saturating_add)
    }

    fn run(&self) -> Result<Proposal, String> {
        let now = Timestamp::from_second(1_700_000_000).expect("in range");
        let pods = self.pods(now);
        let tolerance = |index: usize| {
            self.all("tolerance").get(index).map_or(0.1, |text| text.parse().expect("a fraction"))
        };
        let calculator = Calculator {
            pods: &pods,
            tolerances: Tolerances { down: tolerance(0), up: tolerance(1) },
            starting: Starting {
                cpu: SignedDuration::from_mins(2),
                readiness: SignedDuration::from_secs(10),
            },
            now,
        };
        let replicas = i32::try_from(self.number("current").expect("replicas")).expect("in range");
        let metrics = self.metrics();
        if let Some(target) = self.number("utilization") {
            let resource = self.all("requests").first().copied().unwrap_or_default();
            let container = self.all("container").first().copied().unwrap_or_default();
            let target = i32::try_from(target).expect("in range");
            return calculator.utilization(replicas, target, resource, container, metrics);
        }
        if let Some(target) = self.number("average") {
            return calculator.average(replicas, target, "", metrics);
        }
        if let Some(target) = self.number("total").or_else(|| self.number("external")) {
            return calculator.total(replicas, target, self.total());
        }
        let target = self.number("shared").or_else(|| self.number("externalshared")).expect("a target");
        Ok(calculator.shared(replicas, target, self.total()))
    }
}

#[test]
fn cases() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for text in include_str!("calculate_cases.txt").split("\n\n").skip(1) {
        let case = Case::read(text.trim_end());
        let answer = match case.run() {
            Ok(Proposal { replicas, usage, utilization: Some(utilization) }) => {
                format!("expect {replicas} {usage} {utilization}")
            }
            Ok(Proposal { replicas, usage, utilization: None }) => format!("expect {replicas} {usage}"),
            Err(error) => format!("error {error}"),
        };
        let wanted = text.trim_end().lines().last().unwrap_or_default();
        let same = match wanted.strip_prefix("error ") {
            Some(error) => answer.starts_with("error ") && answer.contains(error),
            None => answer == wanted,
        };
        count += 1;
        if !same {
            wrong.push(format!("{text}\n-- but {answer}"));
        }
    }
    assert!(count > 70 && wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn requests_of_the_whole_pod_count_before_those_of_containers() {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p" },
        "spec": {
            "resources": { "requests": { "cpu": "3" } },
            "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1" } } }, { "name": "b" }],
            "initContainers": [
                { "name": "once", "resources": { "requests": { "cpu": "9" } } },
                { "name": "beside", "restartPolicy": "Always", "resources": { "requests": { "cpu": "2" } } },
            ],
        },
    }))
    .unwrap();
    let mut plain = pod.clone();
    plain.spec.as_mut().unwrap().resources = None;
    let of = |pod: &Pod, container: &str| {
        requests(&[Arc::new(pod.clone())], container, "cpu").map(|requests| requests["p"])
    };
    assert_eq!(of(&pod, ""), Ok(3000));
    assert_eq!(of(&pod, "a"), Ok(1000));
    assert_eq!(of(&pod, "beside"), Ok(2000));
    assert_eq!(of(&pod, "once"), Err("container once not found in Pod p".to_owned()));
    assert_eq!(of(&plain, ""), Err("missing request for cpu in container b of Pod p".to_owned()));
}
