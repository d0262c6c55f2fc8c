//! What happens by the clock, on a clock that is simulated: schedules, deadlines, patience, nodes that fall silent.

use super::faults::Faults;
use super::harness::Cluster;
use super::model::{FLAGS, SEEDS, image};
use super::store::text;
use super::{available, deployment, number, template};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

fn since(cluster: &Cluster, begin: Timestamp) -> i64 {
    cluster.store.clock.now().duration_since(begin).as_secs()
}

fn at(object: &Value, pointer: &str) -> Timestamp {
    text(object, pointer).parse().expect("a time")
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let held = object.pointer("/status/conditions").and_then(Value::as_array);
    held.into_iter().flatten().find(|held| held["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test(start_paused = true)]
async fn rollout_that_makes_no_progress_says_so_in_time() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        cluster.create("apps/v1", "deployments", deployment(2));
        cluster.wait("the first rollout", |cluster| available(cluster, 2)).await;
        let begin = cluster.store.clock.now();
        cluster.change("apps/v1", "deployments", "web", image("stuck"));
        let progressing = |cluster: &Cluster| {
            let web = cluster.get("apps/v1", "deployments", "web");
            let held = condition(&web, "Progressing");
            format!("{} {}", text(held, "/status"), text(held, "/reason"))
        };
        cluster.wait("the end of patience", |c| progressing(c) == "False ProgressDeadlineExceeded").await;
        // The deadline counts from the last progress, which is seen with some lag.
        let patience = since(&cluster, begin);
        assert!((599..640).contains(&patience), "seed {seed}: after {patience} s");
        cluster.rests().await;
        assert_eq!(progressing(&cluster), "False ProgressDeadlineExceeded", "seed {seed}");
        cluster.change("apps/v1", "deployments", "web", image("two"));
        cluster
            .wait("the way out", |c| available(c, 2) && progressing(c) == "True NewReplicaSetAvailable")
            .await;
        cluster.rests().await;
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn pods_count_as_available_after_their_time() {
    const LONG: i64 = 30;
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let mut web = deployment(2);
        web["spec"]["minReadySeconds"] = json!(LONG);
        cluster.create("apps/v1", "deployments", web);
        let mut set = super::stateful_set();
        set["spec"]["minReadySeconds"] = json!(LONG);
        set["spec"]["selector"] = json!({ "matchLabels": { "app": "db" } });
        set["spec"]["template"]["metadata"]["labels"] = json!({ "app": "db" });
        cluster.create("apps/v1", "statefulsets", set);
        // Whoever counts a pod does so when its time is over, not before.
        let count = |cluster: &Cluster, kind: &str| {
            let now = cluster.store.clock.now();
            let ripe = |pod: &&Value| {
                let ready = pod.pointer("/status/conditions/0/lastTransitionTime").and_then(Value::as_str);
                let ready = ready.and_then(|time| time.parse::<Timestamp>().ok());
                text(pod, "/metadata/ownerReferences/0/kind") == kind
                    && ready.is_some_and(|ready| now >= ready + SignedDuration::from_secs(LONG))
            };
            i64::try_from(cluster.list("v1", "pods").iter().filter(ripe).count()).expect("a few")
        };
        let reached = |cluster: &Cluster| {
            let told = |plural: &str, name: &str| {
                number(&cluster.get("apps/v1", plural, name), "/status/availableReplicas")
            };
            let (web, db) = (told("deployments", "web"), told("statefulsets", "db"));
            assert!(web <= count(cluster, "ReplicaSet"), "seed {seed}: counted too early");
            assert!(db <= count(cluster, "StatefulSet"), "seed {seed}: counted too early");
            web == 2 && db == 3
        };
        let begin = cluster.store.clock.now();
        cluster.wait("all of them", reached).await;
        // Those of the StatefulSet wait for each other.
        assert!(since(&cluster, begin) < 3 * LONG + 60, "seed {seed}");
        cluster.rests().await;
        cluster.stop().await;
    }
}

fn job(spec: Value) -> Value {
    let mut once = template("one");
    once["spec"]["restartPolicy"] = json!("Never");
    let mut job = json!({
        "parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
        "podReplacementPolicy": "TerminatingOrFailed",
        "selector": { "matchLabels": { "app": "web" } }, "template": once,
    });
    if let (Some(job), Some(more)) = (job.as_object_mut(), spec.as_object()) {
        job.extend(more.clone());
    }
    job
}

fn with_image(mut job: Value, name: &str) -> Value {
    job["template"]["spec"]["containers"][0]["image"] = json!(name);
    job
}

#[tokio::test(start_paused = true)]
async fn job_ends_with_its_deadline_and_goes_with_its_time() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let spec = job(json!({ "activeDeadlineSeconds": 90, "ttlSecondsAfterFinished": 3600 }));
        let work = json!({ "kind": "Job", "metadata": { "name": "work" }, "spec": with_image(spec, "long") });
        cluster.create("batch/v1", "jobs", work);
        let begin = cluster.store.clock.now();
        let failed = |cluster: &Cluster| {
            let work = cluster.get("batch/v1", "jobs", "work");
            let held = condition(&work, "Failed");
            held["status"] == "True" && held["reason"] == "DeadlineExceeded"
        };
        cluster.wait("the deadline", failed).await;
        let passed = since(&cluster, begin);
        assert!((90..120).contains(&passed), "seed {seed}: after {passed} s");
        cluster.wait("the end of its pod", |cluster| cluster.list("v1", "pods").is_empty()).await;
        let told = at(&cluster.get("batch/v1", "jobs", "work"), "/status/conditions/0/lastTransitionTime");
        cluster.wait("the end", |cluster| cluster.get("batch/v1", "jobs", "work").is_null()).await;
        let passed = since(&cluster, told);
        assert!((3600..3640).contains(&passed), "seed {seed}: after {passed} s");
        cluster.rests().await;
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn job_waits_longer_after_each_failure() {
    let mut waited = 0;
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let spec = with_image(job(json!({ "completions": 3, "backoffLimit": 50 })), "flaky");
        cluster.create(
            "batch/v1",
            "jobs",
            json!({ "kind": "Job", "metadata": { "name": "work" }, "spec": spec }),
        );
        cluster
            .wait("the end", |cluster| {
                condition(&cluster.get("batch/v1", "jobs", "work"), "Complete")["status"] == "True"
            })
            .await;
        let mut pods = cluster.list("v1", "pods");
        pods.sort_by_key(|pod| at(pod, "/metadata/creationTimestamp"));
        let mut failures = 0;
        for pair in pods.windows(2) {
            if text(&pair[0], "/status/phase") != "Failed" {
                failures = 0;
                continue;
            }
            failures += 1;
            let ended = at(&pair[0], "/status/containerStatuses/0/state/terminated/finishedAt");
            let pause = at(&pair[1], "/metadata/creationTimestamp").duration_since(ended).as_secs();
            // Ten seconds after the first, twice as long after each further one in a row. Times have whole seconds.
            let least = (10 << (failures - 1)).min(600) - 1;
            assert!(pause >= least && pause < least + 30, "seed {seed}: {pause} s after failure {failures}");
            waited += 1;
        }
        cluster.rests().await;
        cluster.stop().await;
    }
    assert!(waited > 10, "pods failed here and there: {waited}");
}

/// Six hours of a schedule: each time has its Job unless the policy says otherwise, none has two, and what has ended
/// is kept as long as is asked.
#[tokio::test(start_paused = true)]
async fn schedules_are_kept_through_the_day() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 16_000);
        let policy = choices.pick(&["Allow", "Forbid", "Replace"]);
        let endless = choices.happens(0.3);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let spec = with_image(job(json!({})), if endless { "long" } else { "one" });
        let cron = json!({
            "kind": "CronJob", "metadata": { "name": "often" },
            "spec": { "schedule": "*/20 * * * *", "suspend": false, "concurrencyPolicy": policy,
                      "successfulJobsHistoryLimit": 2, "failedJobsHistoryLimit": 1, "jobTemplate": { "spec": spec } },
        });
        cluster.create("batch/v1", "cronjobs", cron);
        let begin = cluster.store.clock.now();
        tokio::time::sleep(Duration::from_mins(6 * 60 + 10)).await;
        let what = format!("seed {seed}: {policy}, {}", if endless { "endless" } else { "short" });
        let changes = cluster.store.changes(0);
        let made = changes.iter().filter(|change| change.key.1 == "jobs" && change.kind == "ADDED");
        let times: Vec<_> = made
            .map(|change| {
                let at = &change.object["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
                at.as_str().unwrap_or_default().parse::<Timestamp>().expect("a time")
            })
            .collect();
        assert_eq!(times.iter().collect::<BTreeSet<_>>().len(), times.len(), "{what}: {times:?}");
        let wanted = if endless && policy == "Forbid" { 1 } else { 18 };
        assert_eq!(times.len(), wanted, "{what}: {times:?}");
        for (change, time) in
            changes.iter().filter(|change| change.key.1 == "jobs" && change.kind == "ADDED").zip(&times)
        {
            let late = at(&change.object, "/metadata/creationTimestamp").duration_since(*time).as_secs();
            assert!((0..60).contains(&late), "{what}: {late} s late");
        }
        let jobs = cluster.list("batch/v1", "jobs");
        let cron = cluster.get("batch/v1", "cronjobs", "often");
        let active = cron["status"]["active"].as_array().map_or(0, Vec::len);
        let expected = match (endless, policy) {
            (false, _) => (2, 0),
            (true, "Allow") => (18, 18),
            (true, _) => (1, 1),
        };
        assert_eq!((jobs.len(), active), expected, "{what}");
        if !(endless && policy == "Forbid") {
            assert_eq!(
                at(&cron, "/status/lastScheduleTime"),
                begin + SignedDuration::from_hours(6),
                "{what}"
            );
        }
        cluster.change("batch/v1", "cronjobs", "often", json!({ "spec": { "suspend": true } }));
        cluster.rests().await;
        let writes = cluster.writes.lock().len();
        // A Job is made, its pod made, counted and released, and the CronJob says so twice; many a call has to be made
        // again.
        assert!(writes < 600, "{what}: {writes} writes");
        cluster.stop().await;
    }
}

/// A node falls silent: its pods get their patience, are replaced elsewhere, and end when it comes back.
#[tokio::test(start_paused = true)]
async fn pods_leave_a_node_that_is_silent_for_too_long() {
    const PATIENCE: i64 = 120;
    for seed in SEEDS {
        let cluster = Cluster::start_with(&[], vec!["n1", "n2"], Some(seed));
        let mut web = deployment(2);
        let tolerated = json!([
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
              "tolerationSeconds": PATIENCE },
        ]);
        web["spec"]["template"]["spec"]["tolerations"] = tolerated;
        cluster.create("apps/v1", "deployments", web);
        cluster.wait("the rollout", |cluster| available(cluster, 2)).await;
        let on = |cluster: &Cluster, node: &str, deleted: bool| {
            let pods = cluster.list("v1", "pods");
            let there = |pod: &&Value| {
                text(pod, "/spec/nodeName") == node
                    && pod["metadata"]["deletionTimestamp"].is_string() == deleted
            };
            pods.iter().filter(there).count()
        };
        assert_eq!(on(&cluster, "n1", false), 2, "seed {seed}");
        cluster.silent.lock().insert("n1".to_owned());
        let begin = cluster.store.clock.now();
        let ready = |cluster: &Cluster| {
            text(condition(&cluster.get("v1", "nodes", "n1"), "Ready"), "/status").to_owned()
        };
        cluster.wait("the silence being noticed", |cluster| ready(cluster) == "Unknown").await;
        let noticed = since(&cluster, begin);
        assert!((20..80).contains(&noticed), "seed {seed}: after {noticed} s");
        cluster.wait("the eviction", |cluster| on(cluster, "n1", true) == 2).await;
        let evicted = since(&cluster, begin) - noticed;
        assert!((PATIENCE - 1..PATIENCE + 90).contains(&evicted), "seed {seed}: after {evicted} s");
        cluster
            .wait("pods elsewhere", |cluster| available(cluster, 2) && on(cluster, "n2", false) == 2)
            .await;
        assert_eq!(on(&cluster, "n1", true), 2, "seed {seed}: nobody knows what became of them");
        cluster.silent.lock().clear();
        let well = |cluster: &Cluster| {
            let node = cluster.get("v1", "nodes", "n1");
            let clean = node.pointer("/spec/taints").and_then(Value::as_array).is_none_or(Vec::is_empty);
            ready(cluster) == "True" && clean && on(cluster, "n1", true) == 0
        };
        cluster.wait("the return", well).await;
        cluster.rests().await;
        assert!(well(&cluster) && available(&cluster, 2), "seed {seed}");
        cluster.stop().await;
    }
}

/// A node that is silent for less than its pods have patience keeps them.
#[tokio::test(start_paused = true)]
async fn pods_stay_on_a_node_that_comes_back_in_time() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(&[], vec!["n1"], Some(seed));
        let mut web = deployment(2);
        web["spec"]["template"]["spec"]["tolerations"] = json!([
            { "key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute",
              "tolerationSeconds": 300 },
        ]);
        cluster.create("apps/v1", "deployments", web);
        cluster.wait("the rollout", |cluster| available(cluster, 2)).await;
        cluster.rests().await;
        let names = |cluster: &Cluster| -> Vec<_> {
            cluster.list("v1", "pods").iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect()
        };
        let before = names(&cluster);
        cluster.silent.lock().insert("n1".to_owned());
        tokio::time::sleep(Duration::from_secs(200)).await;
        cluster.silent.lock().clear();
        cluster.wait("the return", |cluster| available(cluster, 2)).await;
        cluster.rests().await;
        assert_eq!(names(&cluster), before, "seed {seed}");
        assert!(available(&cluster, 2), "seed {seed}");
        cluster.stop().await;
    }
}
