//! Processes that take the lead from each other, in the middle of work.

use super::faults::Faults;
use super::harness::Cluster;
use super::model::{Observer, SEEDS, all_are, image};
use super::store::text;
use super::{available, deployment, number};
use serde_json::json;
use tokio_util::sync::CancellationToken;

const FLAGS: &[&str] = &["--controllers=*,-node-lifecycle-controller", "--leader-elect=true"];

fn holder(cluster: &Cluster) -> String {
    let leases = cluster.store.list("coordination.k8s.io/v1", "leases", "kube-system").1;
    leases.first().map(|lease| text(lease, "/spec/holderIdentity").to_owned()).unwrap_or_default()
}

/// A leader that is cut off while it rolls out may hang in any call. Whatever it does when the network is back, it has
/// no word any more.
#[tokio::test(start_paused = true)]
async fn cut_off_leader_writes_nothing_after_another_leads() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 4000);
        let what = format!("seed {seed}");
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        cluster.create("apps/v1", "deployments", deployment(3));
        cluster.wait("the first rollout", |cluster| available(cluster, 3)).await;
        let first = holder(&cluster);
        let observer = Observer::start(cluster.store.clone(), |world| {
            let asked: i64 = world.of("replicasets").map(|set| number(set, "/spec/replicas")).sum();
            if asked > 4 { Err(format!("{asked} pods are asked for")) } else { Ok(()) }
        });
        cluster.change("apps/v1", "deployments", "web", image("two"));
        tokio::time::sleep(choices.delay(3000)).await;
        cluster.network.send_replace(false);
        let token = CancellationToken::new();
        let (second, _) = cluster.another(FLAGS, &token);
        let taken = |cluster: &Cluster| !holder(cluster).is_empty() && holder(cluster) != first;
        cluster.wait("another leader", taken).await;
        let written = cluster.writes.lock().len();
        cluster.network.send_replace(true);
        let rolled = |cluster: &Cluster| available(cluster, 3) && all_are(cluster, "two", 3);
        cluster.wait("the rollout", rolled).await;
        // Long enough for whatever the first may have been waiting for.
        cluster.rests().await;
        let late: Vec<_> = cluster.writes.lock()[written..].to_vec();
        assert_eq!(late, Vec::<String>::new(), "{what}");
        assert!(rolled(&cluster), "{what}: and it stays so");
        observer.check(&what);
        token.cancel();
        second.await.expect("it does not panic").expect("it stops in good order");
        let outcome = cluster.ended().await;
        assert!(outcome.is_err_and(|error| format!("{error:#}").contains("leader election lost")), "{what}");
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
    // It has seen everything when it replaces a pod that goes.
    let seen = |cluster: &Cluster| cluster.list("v1", "pods").len();
    let (before, victim) =
        (seen(&cluster), text(&cluster.list("v1", "pods")[0], "/metadata/name").to_owned());
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    }
    assert_eq!(*writes.lock(), Vec::<String>::new(), "nothing is left to do");
    cluster.delete("v1", "pods", &victim, json!({}));
    cluster
        .wait("the replacement", |cluster| {
            seen(cluster) == before && cluster.get("v1", "pods", &victim).is_null()
        })
        .await;
    assert!(!writes.lock().is_empty(), "and it works");
    token.cancel();
    second.await.expect("it does not panic").expect("it stops in good order");
    cluster.ended().await.expect("the first stopped in good order");
}
