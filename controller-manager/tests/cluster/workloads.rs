//! More workloads in a world of faults (see `model`): pods that fail, times that were missed, addresses that follow.

use super::faults::Faults;
use super::harness::Cluster;
use super::model::{FLAGS, Observer, SEEDS, all_are, count, image, service};
use super::store::text;
use super::{available, deployment, number};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn is_complete(job: &Value) -> bool {
    let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|held| held["type"] == "Complete" && held["status"] == "True")
}

/// Every index gets done, although pods fail; never by two pods at once; and no pod counts twice.
#[tokio::test(start_paused = true)]
async fn indexed_jobs_do_each_index_once() {
    const INDEX: &str = "batch.kubernetes.io/job-completion-index";
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let template = json!({
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "flaky" }], "restartPolicy": "Never" },
        });
        let job = json!({
            "kind": "Job", "metadata": { "name": "work" },
            "spec": {
                "parallelism": 3, "completions": 5, "backoffLimit": 100, "completionMode": "Indexed",
                "selector": { "matchLabels": { "app": "web" } }, "template": template, "suspend": false,
                "podReplacementPolicy": "TerminatingOrFailed",
            },
        });
        cluster.create("batch/v1", "jobs", job);
        let observer = Observer::start(cluster.store.clone(), |world| {
            let mut active = BTreeMap::<&str, usize>::new();
            for pod in world.of("pods").filter(|pod| !matches!(text(pod, "/status/phase"), "Failed")) {
                let index = pod["metadata"]["annotations"][INDEX].as_str().unwrap_or_default();
                *active.entry(index).or_default() += 1;
            }
            let total = world.active();
            match active.iter().find(|(_, pods)| **pods > 1) {
                Some((index, pods)) => Err(format!("{pods} pods for index {index}")),
                None if total > 3 => Err(format!("{total} pods at once")),
                None => Ok(()),
            }
        });
        cluster.wait("the end", |cluster| is_complete(&cluster.get("batch/v1", "jobs", "work"))).await;
        cluster.rests().await;
        let job = cluster.get("batch/v1", "jobs", "work");
        let pods = cluster.list("v1", "pods");
        let failed = pods.iter().filter(|pod| text(pod, "/status/phase") == "Failed").count();
        assert_eq!(text(&job, "/status/completedIndexes"), "0-4", "seed {seed}");
        assert_eq!(number(&job, "/status/succeeded"), 5, "seed {seed}: each completion counts once");
        assert_eq!(count(number(&job, "/status/failed")), failed, "seed {seed}: and so does each failure");
        assert_eq!(pods.len(), 5 + failed, "seed {seed}");
        let held =
            |pod: &&Value| pod["metadata"]["finalizers"].as_array().is_some_and(|held| !held.is_empty());
        assert_eq!(pods.iter().filter(held).count(), 0, "seed {seed}: no pod is held any more");
        observer.check(&format!("seed {seed}"));
        cluster.stop().await;
    }
}

/// A time that was missed is made up for, by one Job.
#[tokio::test(start_paused = true)]
async fn cron_jobs_start_once_for_each_time() {
    for seed in SEEDS {
        let policy = Faults::new(seed + 5000).pick(&["Allow", "Forbid", "Replace"]);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let template = json!({
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "one" }], "restartPolicy": "Never" },
        });
        // As the API server would have it: defaults, and the labels of the Job on its pods.
        let job = json!({ "spec": {
            "parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed", "suspend": false,
            "podReplacementPolicy": "TerminatingOrFailed",
            "selector": { "matchLabels": { "app": "web" } }, "template": template,
        } });
        let cron = json!({
            "kind": "CronJob", "metadata": { "name": "yearly" },
            "spec": { "schedule": "0 0 1 1 *", "timeZone": "Etc/UTC", "suspend": false, "concurrencyPolicy": policy,
                      "jobTemplate": job },
            "status": { "lastScheduleTime": "2025-06-01T00:00:00Z" },
        });
        cluster.create("batch/v1", "cronjobs", cron);
        cluster
            .wait("the run", |cluster| {
                let cron = cluster.get("batch/v1", "cronjobs", "yearly");
                cluster.list("batch/v1", "jobs").iter().any(is_complete)
                    && cron["status"]["active"].as_array().is_none_or(Vec::is_empty)
                    && text(&cron, "/status/lastScheduleTime") == "2026-01-01T00:00:00Z"
            })
            .await;
        cluster.rests().await;
        let made = cluster.store.changes(0);
        let made = made.iter().filter(|change| change.key.1 == "jobs" && change.kind == "ADDED").count();
        assert_eq!(made, 1, "seed {seed}: {policy}");
        cluster.stop().await;
    }
}

/// Whatever happened on the way: at rest, the addresses of a Service are those of its pods.
#[tokio::test(start_paused = true)]
async fn addresses_follow_the_pods() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        cluster.create("v1", "services", service());
        cluster.create("apps/v1", "deployments", deployment(4));
        cluster.wait("the first rollout", |cluster| available(cluster, 4)).await;
        let before = cluster.writes.lock().len();
        cluster.change("apps/v1", "deployments", "web", image("two"));
        cluster.wait("the update", |cluster| available(cluster, 4) && all_are(cluster, "two", 4)).await;
        let addresses = |value: &Value, pointer: &str, field: &str| -> BTreeSet<String> {
            let list = value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
            list.iter().map(|one| text(one, field).to_owned()).collect()
        };
        let agree = |cluster: &Cluster| {
            let pods = cluster.list("v1", "pods");
            let wanted: BTreeSet<_> =
                pods.iter().map(|pod| text(pod, "/status/podIPs/0/ip").to_owned()).collect();
            let slices = cluster.list("discovery.k8s.io/v1", "endpointslices");
            let endpoints = cluster.get("v1", "endpoints", "web");
            let own = slices.iter().flat_map(|slice| addresses(slice, "/endpoints", "/addresses/0"));
            own.collect::<BTreeSet<_>>() == wanted
                && slices.len() == 1
                && addresses(&endpoints, "/subsets/0/addresses", "/ip") == wanted
        };
        cluster.wait("the addresses", agree).await;
        cluster.rests().await;
        assert!(agree(&cluster), "seed {seed}: and it stays so");
        let writes = cluster.writes.lock()[before..].to_vec();
        let of = |what: &str| writes.iter().filter(|call| call.contains(what)).count();
        // Four pods come and four go, each with a few changes of state; nothing is written for nothing.
        assert!(of("/endpointslices") < 50 && of("/endpoints/") < 50, "seed {seed}: {writes:#?}");
        cluster.stop().await;
    }
}

/// A ReplicationController that finds pods of all sorts, and is scaled before it is through.
#[tokio::test(start_paused = true)]
async fn replication_controllers_come_to_their_number() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 6000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        for index in 0..choices.pick(&[0, 3, 6]) {
            let pod = json!({
                "kind": "Pod", "metadata": { "name": format!("old-{index}"), "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "one" }] },
            });
            cluster.create("v1", "pods", pod);
        }
        let controller = json!({
            "kind": "ReplicationController", "metadata": { "name": "rc" },
            "spec": { "replicas": choices.pick(&[1, 4]), "selector": { "app": "web" },
                      "template": super::template("one") },
        });
        cluster.create("v1", "replicationcontrollers", controller);
        tokio::time::sleep(choices.delay(2000)).await;
        let wanted = choices.pick(&[0_i64, 2, 5]);
        cluster.change("v1", "replicationcontrollers", "rc", json!({ "spec": { "replicas": wanted } }));
        let settled = |cluster: &Cluster| {
            let controller = cluster.get("v1", "replicationcontrollers", "rc");
            all_are(cluster, "one", wanted)
                && number(&controller, "/status/availableReplicas") == wanted
                && number(&controller, "/status/observedGeneration")
                    == number(&controller, "/metadata/generation")
        };
        cluster.wait("the number", settled).await;
        cluster.rests().await;
        assert!(settled(&cluster), "seed {seed}: and it stays so");
        let writes = cluster.writes.lock().len();
        assert!(writes < 120, "seed {seed}: {writes} writes");
        cluster.stop().await;
    }
}

/// A budget says in the end what its pods allow, and is not written more often than they change.
#[tokio::test(start_paused = true)]
async fn budgets_follow_their_pods() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let budget = json!({
            "kind": "PodDisruptionBudget", "metadata": { "name": "web" },
            "spec": { "minAvailable": "50%", "selector": { "matchLabels": { "app": "web" } } },
        });
        cluster.create("policy/v1", "poddisruptionbudgets", budget);
        cluster.create("apps/v1", "deployments", deployment(4));
        let says = |cluster: &Cluster, healthy: i64, wanted: i64| {
            let status = cluster.get("policy/v1", "poddisruptionbudgets", "web")["status"].clone();
            number(&status, "/currentHealthy") == healthy
                && number(&status, "/desiredHealthy") == wanted
                && number(&status, "/disruptionsAllowed") == healthy - wanted
        };
        cluster.wait("four pods", |cluster| available(cluster, 4) && says(cluster, 4, 2)).await;
        cluster.change("apps/v1", "deployments", "web", json!({ "spec": { "replicas": 1 } }));
        cluster.wait("one pod", |cluster| available(cluster, 1) && says(cluster, 1, 1)).await;
        cluster.rests().await;
        let writes = cluster.writes.lock().clone();
        let of_budget = writes.iter().filter(|call| call.contains("/poddisruptionbudgets/")).count();
        assert!(of_budget < 40, "seed {seed}: {of_budget} writes");
        cluster.stop().await;
    }
}

/// A namespace empties, whatever fails on the way.
#[tokio::test(start_paused = true)]
async fn namespaces_go_with_all_that_is_in_them() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        cluster.create("apps/v1", "deployments", deployment(2));
        cluster.create(
            "v1",
            "configmaps",
            json!({ "kind": "ConfigMap", "metadata": { "name": "settings" } }),
        );
        cluster.wait("the rollout", |cluster| available(cluster, 2)).await;
        cluster.delete("v1", "namespaces", "default", json!({}));
        cluster.wait("the end", |cluster| cluster.get("v1", "namespaces", "default").is_null()).await;
        for (group_version, plural) in
            [("v1", "pods"), ("v1", "configmaps"), ("apps/v1", "replicasets"), ("apps/v1", "deployments")]
        {
            assert!(cluster.list(group_version, plural).is_empty(), "seed {seed}: {plural} are left");
        }
        cluster.stop().await;
    }
}

/// Each pod has one claim of its own, from the beginning to the end.
#[tokio::test(start_paused = true)]
async fn pods_never_have_two_claims_of_a_kind() {
    const RESOURCE: &str = "resource.k8s.io/v1";
    for seed in SEEDS {
        let choices = Faults::new(seed + 8000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let observer = Observer::start(cluster.store.clone(), |world| {
            let mut claims = BTreeMap::<&str, usize>::new();
            for claim in world.of("resourceclaims") {
                *claims.entry(text(claim, "/metadata/ownerReferences/0/uid")).or_default() += 1;
            }
            let several = claims.iter().find(|(_, claims)| **claims > 1);
            several.map_or(Ok(()), |(pod, claims)| Err(format!("{claims} claims of {pod}")))
        });
        let template =
            json!({ "kind": "ResourceClaimTemplate", "metadata": { "name": "gpu" }, "spec": { "spec": {} } });
        cluster.create(RESOURCE, "resourceclaimtemplates", template);
        for name in ["a", "b", "c"] {
            let wanted = json!([{ "name": "gpu", "resourceClaimTemplateName": "gpu" }]);
            let spec = json!({ "containers": [{ "name": "c", "image": "one" }], "resourceClaims": wanted });
            cluster.create(
                "v1",
                "pods",
                json!({ "kind": "Pod", "metadata": { "name": name }, "spec": spec }),
            );
            tokio::time::sleep(choices.delay(300)).await;
        }
        let told = |cluster: &Cluster| {
            let pods = cluster.list("v1", "pods");
            let name =
                |pod: &Value| text(pod, "/status/resourceClaimStatuses/0/resourceClaimName").to_owned();
            let names: BTreeSet<_> = pods.iter().map(name).filter(|name| !name.is_empty()).collect();
            names.len() == pods.len() && cluster.list(RESOURCE, "resourceclaims").len() == pods.len()
        };
        cluster.wait("the claims", told).await;
        cluster.delete("v1", "pods", "b", json!({}));
        let gone = |cluster: &Cluster| cluster.get("v1", "pods", "b").is_null() && told(cluster);
        cluster.wait("the end of one", gone).await;
        cluster.rests().await;
        assert!(gone(&cluster), "seed {seed}: and it stays so");
        let writes = cluster.writes.lock().len();
        assert!(writes < 60, "seed {seed}: {writes} writes");
        observer.check(&format!("seed {seed}"));
        cluster.stop().await;
    }
}

/// What a quota says is used is what there is, in the end.
#[tokio::test(start_paused = true)]
async fn quotas_count_what_there_is() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 9000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let hard = json!({ "pods": "10", "configmaps": "5", "count/replicasets.apps": "9" });
        let quota =
            json!({ "kind": "ResourceQuota", "metadata": { "name": "limits" }, "spec": { "hard": hard } });
        cluster.create("v1", "resourcequotas", quota);
        cluster.create("apps/v1", "deployments", deployment(3));
        cluster.create("v1", "configmaps", json!({ "kind": "ConfigMap", "metadata": { "name": "a" } }));
        let says = |cluster: &Cluster, pods: &str, maps: &str| {
            let used = cluster.get("v1", "resourcequotas", "limits")["status"]["used"].clone();
            used == json!({ "pods": pods, "configmaps": maps, "count/replicasets.apps": "1" })
        };
        cluster.wait("the use", |cluster| says(cluster, "3", "1")).await;
        cluster.change("apps/v1", "deployments", "web", json!({ "spec": { "replicas": 1 } }));
        tokio::time::sleep(choices.delay(2000)).await;
        cluster.delete("v1", "configmaps", "a", json!({}));
        cluster.wait("less use", |cluster| says(cluster, "1", "0")).await;
        cluster.rests().await;
        let writes = cluster.writes.lock().clone();
        let of_quota = writes.iter().filter(|call| call.contains("/resourcequotas/")).count();
        assert!(of_quota < 40, "seed {seed}: {of_quota} writes");
        cluster.stop().await;
    }
}
