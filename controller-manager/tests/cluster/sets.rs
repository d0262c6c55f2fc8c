//! Sets of pods in a world of faults (see `model`): other strategies, other orders.

use super::faults::Faults;
use super::harness::Cluster;
use super::model::{FLAGS, Observer, SEEDS, all_are, count, image};
use super::store::text;
use super::{available, daemon_set, deployment, number, template};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeSet;

/// Pods of two versions never live at the same time, those that are on their way out included.
#[tokio::test(start_paused = true)]
async fn recreated_deployments_never_run_two_versions() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let mut web = deployment(3);
        web["spec"]["strategy"] = json!({ "type": "Recreate" });
        cluster.create("apps/v1", "deployments", web);
        cluster.wait("the first rollout", |cluster| available(cluster, 3)).await;
        let observer = Observer::start(cluster.store.clone(), |world| {
            let lives =
                world.of("pods").filter(|pod| !matches!(text(pod, "/status/phase"), "Failed" | "Succeeded"));
            let versions: BTreeSet<_> = lives.map(|pod| text(pod, "/spec/containers/0/image")).collect();
            if versions.len() > 1 { Err(format!("{versions:?} live together")) } else { Ok(()) }
        });
        for version in ["two", "three"] {
            let before = cluster.writes.lock().len();
            cluster.change("apps/v1", "deployments", "web", image(version));
            cluster
                .wait("the rollout", |cluster| available(cluster, 3) && all_are(cluster, version, 3))
                .await;
            cluster.rests().await;
            let writes = cluster.writes.lock().len() - before;
            assert!(writes < 120, "seed {seed}: {writes} writes");
        }
        observer.check(&format!("seed {seed}"));
        cluster.stop().await;
    }
}

/// All at once, and yet no more than were ever asked for; their claims stay.
#[tokio::test(start_paused = true)]
async fn parallel_stateful_sets_scale_and_keep_their_claims() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 7000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let set = json!({
            "kind": "StatefulSet", "metadata": { "name": "db" },
            "spec": {
                "replicas": 4, "serviceName": "db", "selector": { "matchLabels": { "app": "web" } },
                "template": template("one"), "podManagementPolicy": "Parallel", "revisionHistoryLimit": 10,
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
            },
        });
        cluster.create("apps/v1", "statefulsets", set);
        let observer = Observer::start(cluster.store.clone(), |world| {
            let names: BTreeSet<_> = world.of("pods").map(|pod| text(pod, "/metadata/name")).collect();
            let wrong = names.iter().find(|name| !["db-0", "db-1", "db-2", "db-3"].contains(name));
            wrong.map_or(Ok(()), |name| Err(format!("there is a pod {name}")))
        });
        let done = |cluster: &Cluster, pods: i64| {
            let names: Vec<_> =
                cluster.list("v1", "pods").iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect();
            let set = cluster.get("apps/v1", "statefulsets", "db");
            names == (0..pods).map(|index| format!("db-{index}")).collect::<Vec<_>>()
                && number(&set, "/status/readyReplicas") == pods
                && number(&set, "/status/replicas") == pods
                && number(&set, "/status/observedGeneration") == number(&set, "/metadata/generation")
        };
        cluster.wait("four pods", |cluster| done(cluster, 4)).await;
        for replicas in [1_i64, 3] {
            cluster.change("apps/v1", "statefulsets", "db", json!({ "spec": { "replicas": replicas } }));
            tokio::time::sleep(choices.delay(1000)).await;
        }
        cluster.wait("three pods", |cluster| done(cluster, 3)).await;
        cluster.rests().await;
        assert!(done(&cluster, 3), "seed {seed}: and it stays so");
        assert_eq!(cluster.list("v1", "persistentvolumeclaims").len(), 4, "seed {seed}");
        observer.check(&format!("seed {seed}"));
        cluster.stop().await;
    }
}

/// With a surge instead of unavailability, no node is ever without a pod that serves.
#[tokio::test(start_paused = true)]
async fn surging_daemon_sets_leave_no_node_without_their_pod() {
    for seed in SEEDS {
        let nodes = vec!["n1", "n2", "n3"];
        let cluster = Cluster::start_with(FLAGS, nodes, Some(seed));
        cluster.create("apps/v1", "daemonsets", daemon_set(0, 1));
        let done = |cluster: &Cluster, image: &str| {
            let set = cluster.get("apps/v1", "daemonsets", "agent");
            number(&set, "/status/numberAvailable") == 3 && all_are(cluster, image, 3)
        };
        cluster.wait("the first pods", |cluster| done(cluster, "one")).await;
        let observer = Observer::start(cluster.store.clone(), {
            let began = Mutex::new(false);
            move |world| {
                let served: BTreeSet<_> = world.serving().map(|pod| text(pod, "/spec/nodeName")).collect();
                let mut began = began.lock();
                *began |= served.len() == 3;
                let most = count(3) + 1;
                match world.active() {
                    pods if pods > most => Err(format!("{pods} pods at once")),
                    _ if *began && served.len() < 3 => Err(format!("only {served:?} are served")),
                    _ => Ok(()),
                }
            }
        });
        let before = cluster.writes.lock().len();
        cluster.change("apps/v1", "daemonsets", "agent", image("two"));
        cluster.wait("the update", |cluster| done(cluster, "two")).await;
        cluster.rests().await;
        let writes = cluster.writes.lock().len() - before;
        assert!(writes < 100, "seed {seed}: {writes} writes");
        observer.check(&format!("seed {seed}"));
        cluster.stop().await;
    }
}
