//! Processes that take the lead from each other, in the middle of work.

use super::faults::Faults;
use super::harness::{Cluster, Process};
use super::model::{Observer, SEEDS, World, all_are, image};
use super::store::text;
use super::{available, deployment, number, stateful_set, template};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const FLAGS: &[&str] = &["--controllers=*,-node-lifecycle-controller", "--leader-elect=true"];

fn holder(cluster: &Cluster) -> String {
    let leases = cluster.store.list("coordination.k8s.io/v1", "leases", "kube-system").1;
    leases.first().map(|lease| text(lease, "/spec/holderIdentity").to_owned()).unwrap_or_default()
}

/// A process that took over from one that was cut off.
struct Successor {
    token: CancellationToken,
    process: Process,
    /// So many writes the first had made by then.
    written: usize,
}

impl Successor {
    /// Cuts the first off, lets another take over, and gives the first its network back: whatever it hung in goes on.
    async fn takes_over(cluster: &Cluster) -> Self {
        let first = holder(cluster);
        cluster.network.send_replace(false);
        let token = CancellationToken::new();
        let (process, _) = cluster.another(FLAGS, &token);
        let taken = |cluster: &Cluster| !holder(cluster).is_empty() && holder(cluster) != first;
        cluster.wait("another leader", taken).await;
        let written = cluster.writes.lock().len();
        cluster.network.send_replace(true);
        Self { token, process, written }
    }

    /// Waits for rest, and looks at what the first did meanwhile: nothing, and it has ended.
    async fn check(self, cluster: Cluster, observer: Observer, what: &str) {
        // Long enough for whatever the first may have been waiting for.
        cluster.rests().await;
        let late: Vec<_> = cluster.writes.lock()[self.written..].to_vec();
        assert_eq!(late, Vec::<String>::new(), "{what}");
        observer.check(what);
        self.token.cancel();
        self.process.await.expect("it does not panic").expect("it stops in good order");
        let outcome = cluster.ended().await;
        assert!(outcome.is_err_and(|error| format!("{error:#}").contains("leader election lost")), "{what}");
    }
}

/// Never fewer pods that serve, once there were so many.
fn never_fewer(ready: usize) -> impl Fn(&World) -> Result<(), String> + Send {
    let began = Mutex::new(false);
    move |world| {
        let (now, mut began) = (world.ready(), began.lock());
        *began |= now > ready;
        if *began && now < ready { Err(format!("only {now} pods are ready")) } else { Ok(()) }
    }
}

#[tokio::test(start_paused = true)]
async fn rollout_goes_on_under_another_leader() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 4000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        cluster.create("apps/v1", "deployments", deployment(3));
        cluster.wait("the first rollout", |cluster| available(cluster, 3)).await;
        let observer = Observer::start(cluster.store.clone(), |world| {
            let asked: i64 = world.of("replicasets").map(|set| number(set, "/spec/replicas")).sum();
            if asked > 4 { Err(format!("{asked} pods are asked for")) } else { Ok(()) }
        });
        cluster.change("apps/v1", "deployments", "web", image("two"));
        tokio::time::sleep(choices.delay(3000)).await;
        let successor = Successor::takes_over(&cluster).await;
        let rolled = |cluster: &Cluster| available(cluster, 3) && all_are(cluster, "two", 3);
        cluster.wait("the rollout", rolled).await;
        successor.check(cluster, observer, &format!("seed {seed}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn stateful_set_is_updated_by_one_leader_after_the_other() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 4100);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        cluster.create("apps/v1", "statefulsets", stateful_set());
        let done = |cluster: &Cluster, image: &str| {
            let set = cluster.get("apps/v1", "statefulsets", "db");
            number(&set, "/status/readyReplicas") == 3 && all_are(cluster, image, 3)
        };
        cluster.wait("the first pods", |cluster| done(cluster, "one")).await;
        let observer = Observer::start(cluster.store.clone(), never_fewer(2));
        cluster.change("apps/v1", "statefulsets", "db", image("two"));
        tokio::time::sleep(choices.delay(3000)).await;
        let successor = Successor::takes_over(&cluster).await;
        cluster.wait("the update", |cluster| done(cluster, "two")).await;
        successor.check(cluster, observer, &format!("seed {seed}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn completions_count_once_under_any_leader() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 4200);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let job = json!({
            "kind": "Job", "metadata": { "name": "work" },
            "spec": {
                "parallelism": 2, "completions": 8, "backoffLimit": 6, "completionMode": "NonIndexed",
                "selector": { "matchLabels": { "app": "web" } }, "template": template("one"), "suspend": false,
                "podReplacementPolicy": "TerminatingOrFailed",
            },
        });
        cluster.create("batch/v1", "jobs", job);
        let observer = Observer::start(cluster.store.clone(), |world| {
            let active = world.active();
            if active > 2 { Err(format!("{active} pods at once")) } else { Ok(()) }
        });
        let begun = |cluster: &Cluster| !cluster.list("v1", "pods").is_empty();
        cluster.wait("the first pod", begun).await;
        tokio::time::sleep(choices.delay(3000)).await;
        let successor = Successor::takes_over(&cluster).await;
        cluster
            .wait("the end", |cluster| {
                let job = cluster.get("batch/v1", "jobs", "work");
                let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
                conditions.into_iter().flatten().any(|held| held["type"] == "Complete")
            })
            .await;
        let done = number(&cluster.get("batch/v1", "jobs", "work"), "/status/succeeded");
        assert_eq!(done, 8, "seed {seed}: each completion counts once");
        assert_eq!(cluster.list("v1", "pods").len(), 8, "seed {seed}: and took one pod");
        successor.check(cluster, observer, &format!("seed {seed}")).await;
    }
}

/// A process that starts where everything is as it should be leaves it so.
#[tokio::test(start_paused = true)]
async fn successor_that_finds_rest_writes_nothing() {
    const FLAGS: &[&str] = &["--controllers=*,-node-lifecycle-controller"];
    let cluster = Cluster::start_with(FLAGS, vec!["n1", "n2"], None);
    super::everything(&cluster);
    cluster.wait("the rollout", |cluster| available(cluster, 3)).await;
    cluster.rests().await;
    cluster.rests().await;
    cluster.token.cancel();
    let token = CancellationToken::new();
    let (second, writes) = cluster.another(FLAGS, &token);
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    }
    assert_eq!(*writes.lock(), Vec::<String>::new(), "nothing is left to do");
    let pods = |cluster: &Cluster| cluster.list("v1", "pods").len();
    let before = pods(&cluster);
    let is_of_set = |pod: &&Value| text(pod, "/metadata/ownerReferences/0/kind") == "ReplicaSet";
    let victim = cluster.list("v1", "pods").iter().find(is_of_set).cloned().expect("a pod of the deployment");
    let victim = text(&victim, "/metadata/name").to_owned();
    cluster.delete("v1", "pods", &victim, json!({}));
    cluster
        .wait("the replacement", |cluster| {
            pods(cluster) == before && cluster.get("v1", "pods", &victim).is_null()
        })
        .await;
    assert!(!writes.lock().is_empty(), "and it works");
    token.cancel();
    second.await.expect("it does not panic").expect("it stops in good order");
    cluster.ended().await.expect("the first stopped in good order");
}
