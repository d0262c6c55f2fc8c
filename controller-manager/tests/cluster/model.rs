//! Controllers in a world where calls fail, answers are lost, watches lag, break and start over, and pods take their
//! time. Whatever happens, and in whatever order: every workload comes to its goal, promises about how many pods there
//! are hold all the way, writes are few, and at the end there is rest.

use super::faults::Faults;
use super::harness::Cluster;
use super::store::{Change, Key, Store, text};
use super::{available, daemon_set, number, stateful_set, template};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Nodes here do not say that they live.
pub const FLAGS: &[&str] = &["--controllers=*,-node-lifecycle-controller"];
pub const SEEDS: std::ops::Range<u64> = 0..12;

/// What the API server has, change by change.
#[derive(Default)]
pub struct World {
    objects: BTreeMap<Key, Value>,
}

impl World {
    fn apply(&mut self, change: Change) {
        if change.kind == "DELETED" {
            self.objects.remove(&change.key);
        } else {
            self.objects.insert(change.key, change.object);
        }
    }

    pub fn of<'a>(&'a self, plural: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |(key, _)| key.1 == plural).map(|(_, object)| object)
    }

    /// Pods that serve.
    pub fn serving(&self) -> impl Iterator<Item = &Value> {
        self.of("pods").filter(|pod| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && text(pod, "/status/phase") == "Running"
                && text(pod, "/status/conditions/0/status") == "True"
        })
    }

    /// How many of them there are.
    pub fn ready(&self) -> usize {
        self.serving().count()
    }

    /// Pods that have not ended and are not being deleted.
    pub fn active(&self) -> usize {
        let active = |pod: &&Value| {
            pod["metadata"]["deletionTimestamp"].is_null()
                && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
        };
        self.of("pods").filter(active).count()
    }
}

/// Looks at every state that there ever is; remembers the first that breaks a promise.
pub struct Observer {
    task: JoinHandle<()>,
    broken: Arc<Mutex<Option<String>>>,
}

impl Observer {
    pub fn start(store: Store, promise: impl Fn(&World) -> Result<(), String> + Send + 'static) -> Self {
        let broken = Arc::new(Mutex::new(None));
        let said = broken.clone();
        let task = tokio::spawn(async move {
            let (mut head, mut world, mut seen) = (store.head(), World::default(), 0);
            loop {
                for change in store.changes(seen) {
                    seen = change.version;
                    world.apply(change);
                    if let Err(why) = promise(&world) {
                        said.lock().get_or_insert(why);
                    }
                }
                if head.changed().await.is_err() {
                    return;
                }
            }
        });
        Self { task, broken }
    }

    pub fn check(self, what: &str) {
        self.task.abort();
        let broken = self.broken.lock().take();
        assert_eq!(broken, None, "{what}");
    }
}

pub fn image(name: &str) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": name }] } } } })
}

pub fn count(pods: i64) -> usize {
    usize::try_from(pods).expect("not negative")
}

fn images(cluster: &Cluster) -> Vec<String> {
    cluster.list("v1", "pods").iter().map(|pod| text(pod, "/spec/containers/0/image").to_owned()).collect()
}

pub fn all_are(cluster: &Cluster, image: &str, pods: i64) -> bool {
    let images = images(cluster);
    images.len() == count(pods) && images.iter().all(|held| held == image)
}

#[tokio::test(start_paused = true)]
async fn rolling_updates_never_exceed_surge_or_unavailability() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 1000);
        let replicas = choices.pick(&[1_i64, 3, 5]);
        let surge = choices.pick(&[0_i64, 1, 2]);
        let missing = if surge == 0 { choices.pick(&[1_i64, 2]) } else { choices.pick(&[0_i64, 1]) };
        let what = format!("seed {seed}: {replicas} replicas, surge {surge}, unavailable {missing}");
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let strategy = json!({ "type": "RollingUpdate",
                               "rollingUpdate": { "maxSurge": surge, "maxUnavailable": missing } });
        let spec = json!({
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } }, "template": template("one"),
            "strategy": strategy, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 6000,
        });
        let web = json!({ "kind": "Deployment", "metadata": { "name": "web" }, "spec": spec });
        cluster.create("apps/v1", "deployments", web);
        cluster.wait("the first rollout", |cluster| available(cluster, replicas)).await;
        let least = count((replicas - missing).max(0));
        let began = Arc::new(Mutex::new(false));
        let rolls = began.clone();
        let observer = Observer::start(cluster.store.clone(), move |world| {
            let asked: i64 = world.of("replicasets").map(|set| number(set, "/spec/replicas")).sum();
            if asked > replicas + surge {
                return Err(format!("{asked} pods are asked for"));
            }
            let ready = world.ready();
            let mut began = rolls.lock();
            *began |= ready >= least;
            if *began && ready < least { Err(format!("only {ready} pods are ready")) } else { Ok(()) }
        });
        let before = cluster.writes.lock().len();
        cluster.change("apps/v1", "deployments", "web", image("two"));
        tokio::time::sleep(choices.delay(4000)).await;
        cluster.change("apps/v1", "deployments", "web", image("three"));
        cluster
            .wait("the last rollout", |cluster| {
                available(cluster, replicas) && all_are(cluster, "three", replicas)
            })
            .await;
        cluster.rests().await;
        let writes = cluster.writes.lock().len() - before;
        assert!(writes < 60 + 40 * count(replicas), "{what}: {writes} writes");
        observer.check(&what);
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn stateful_sets_change_one_pod_at_a_time() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        cluster.create("apps/v1", "statefulsets", stateful_set());
        let done = |cluster: &Cluster, image: &str| {
            let set = cluster.get("apps/v1", "statefulsets", "db");
            number(&set, "/status/readyReplicas") == 3 && all_are(cluster, image, 3)
        };
        cluster.wait("the first pods", |cluster| done(cluster, "one")).await;
        let observer = Observer::start(cluster.store.clone(), {
            let began = Mutex::new(false);
            move |world| {
                let (ready, mut began) = (world.ready(), began.lock());
                *began |= ready == 3;
                if *began && ready < 2 { Err(format!("only {ready} pods are ready")) } else { Ok(()) }
            }
        });
        let before = cluster.writes.lock().len();
        cluster.change("apps/v1", "statefulsets", "db", image("two"));
        cluster.wait("the update", |cluster| done(cluster, "two")).await;
        cluster.rests().await;
        let writes = cluster.writes.lock().len() - before;
        assert!(writes < 80, "seed {seed}: {writes} writes");
        observer.check(&format!("seed {seed}"));
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn daemon_sets_leave_at_most_one_node_without_their_pod() {
    for seed in SEEDS {
        let nodes = vec!["n1", "n2", "n3", "n4"];
        let cluster = Cluster::start_with(FLAGS, nodes, Some(seed));
        cluster.create("apps/v1", "daemonsets", daemon_set(1, 0));
        let done = |cluster: &Cluster, image: &str| {
            let set = cluster.get("apps/v1", "daemonsets", "agent");
            number(&set, "/status/numberAvailable") == 4 && all_are(cluster, image, 4)
        };
        cluster.wait("the first pods", |cluster| done(cluster, "one")).await;
        let observer = Observer::start(cluster.store.clone(), {
            let began = Mutex::new(false);
            move |world| {
                let (ready, mut began) = (world.ready(), began.lock());
                *began |= ready == 4;
                if *began && ready < 3 { Err(format!("only {ready} pods are ready")) } else { Ok(()) }
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

#[tokio::test(start_paused = true)]
async fn jobs_run_no_more_pods_at_once_than_they_may() {
    for seed in SEEDS {
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let job = json!({
            "kind": "Job", "metadata": { "name": "work" },
            "spec": {
                "parallelism": 2, "completions": 6, "backoffLimit": 6, "completionMode": "NonIndexed",
                "selector": { "matchLabels": { "app": "web" } }, "template": template("one"), "suspend": false,
                "podReplacementPolicy": "TerminatingOrFailed",
            },
        });
        cluster.create("batch/v1", "jobs", job);
        let observer = Observer::start(cluster.store.clone(), |world| {
            let active = world.active();
            if active > 2 { Err(format!("{active} pods at once")) } else { Ok(()) }
        });
        cluster
            .wait("the end", |cluster| {
                let job = cluster.get("batch/v1", "jobs", "work");
                let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
                conditions
                    .into_iter()
                    .flatten()
                    .any(|held| held["type"] == "Complete" && held["status"] == "True")
            })
            .await;
        cluster.rests().await;
        let job = cluster.get("batch/v1", "jobs", "work");
        assert_eq!(number(&job, "/status/succeeded"), 6, "seed {seed}: each completion counts once");
        assert_eq!(cluster.list("v1", "pods").len(), 6, "seed {seed}: and took one pod");
        observer.check(&format!("seed {seed}"));
        cluster.stop().await;
    }
}

/// A set that finds pods of all sorts: its own, orphans, ended ones, too many or too few.
#[tokio::test(start_paused = true)]
async fn replica_sets_come_to_their_number_from_any_state() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 2000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        for index in 0..choices.pick(&[0, 2, 7]) {
            let label = choices.pick(&["web", "web", "other"]);
            let pod = json!({
                "kind": "Pod", "metadata": { "name": format!("old-{index}"), "labels": { "app": label } },
                "spec": { "containers": [{ "name": "c", "image": "one" }] },
            });
            cluster.create("v1", "pods", pod);
            if choices.happens(0.3) {
                let key = super::key("v1", "pods", &format!("old-{index}"));
                let phase = json!({ "status": { "phase": choices.pick(&["Failed", "Succeeded"]) } });
                cluster.store.patch(&key, "status", &phase).expect("it is there");
            }
        }
        let wanted = choices.pick(&[0_i64, 1, 4]);
        let set = json!({
            "kind": "ReplicaSet", "metadata": { "name": "web" },
            "spec": { "replicas": wanted, "selector": { "matchLabels": { "app": "web" } },
                      "template": template("one") },
        });
        cluster.create("apps/v1", "replicasets", set);
        let serving = move |cluster: &Cluster| {
            let pods = cluster.list("v1", "pods");
            let own = |pod: &&Value| {
                text(pod, "/metadata/ownerReferences/0/name") == "web"
                    && !matches!(text(pod, "/status/phase"), "Failed" | "Succeeded")
            };
            let set = cluster.get("apps/v1", "replicasets", "web");
            pods.iter().filter(own).count() == count(wanted)
                && number(&set, "/status/availableReplicas") == wanted
                && number(&set, "/status/replicas") == wanted
                && number(&set, "/status/observedGeneration") == number(&set, "/metadata/generation")
        };
        cluster.wait("the number", serving).await;
        cluster.rests().await;
        assert!(serving(&cluster), "seed {seed}: and it stays so");
        let writes = cluster.writes.lock().len();
        assert!(writes < 120, "seed {seed}: {writes} writes");
        cluster.stop().await;
    }
}

/// Claims and volumes of random sizes find each other, each at most once.
#[tokio::test(start_paused = true)]
async fn no_volume_is_given_to_two_claims() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 3000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let observer = Observer::start(cluster.store.clone(), |world| {
            let mut held = std::collections::BTreeSet::new();
            for claim in world.of("persistentvolumeclaims") {
                let volume = text(claim, "/spec/volumeName");
                if !volume.is_empty() && !held.insert(volume) {
                    return Err(format!("{volume} is given away twice"));
                }
            }
            Ok(())
        });
        let size = || format!("{}Gi", choices.pick(&[1, 2, 3]));
        for index in 0..4 {
            cluster.create(
                "v1",
                "persistentvolumeclaims",
                json!({
                    "kind": "PersistentVolumeClaim", "metadata": { "name": format!("c{index}") },
                    "spec": { "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                              "resources": { "requests": { "storage": size() } } },
                    "status": { "phase": "Pending" },
                }),
            );
            tokio::time::sleep(choices.delay(500)).await;
            cluster.create(
                "v1",
                "persistentvolumes",
                json!({
                    "kind": "PersistentVolume", "metadata": { "name": format!("v{index}") },
                    "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": size() },
                              "persistentVolumeReclaimPolicy": "Retain", "nfs": { "server": "s", "path": "/" } },
                }),
            );
        }
        // One large enough for each that is left over.
        for index in 4..8 {
            cluster.create(
                "v1",
                "persistentvolumes",
                json!({
                    "kind": "PersistentVolume", "metadata": { "name": format!("v{index}") },
                    "spec": { "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "3Gi" },
                              "persistentVolumeReclaimPolicy": "Retain", "nfs": { "server": "s", "path": "/" } },
                }),
            );
        }
        let bound = |cluster: &Cluster| {
            let claims = cluster.list("v1", "persistentvolumeclaims");
            let volumes = cluster.store.list("v1", "persistentvolumes", "").1;
            let settled =
                volumes.iter().all(|volume| matches!(text(volume, "/status/phase"), "Bound" | "Available"));
            settled && claims.iter().all(|claim| text(claim, "/status/phase") == "Bound")
        };
        cluster.wait("the binding", bound).await;
        cluster.rests().await;
        let volumes = cluster.store.list("v1", "persistentvolumes", "").1;
        let taken = volumes.iter().filter(|volume| text(volume, "/status/phase") == "Bound").count();
        assert_eq!(taken, 4, "seed {seed}: what a fault left bound is free again");
        let writes = cluster.writes.lock().len();
        assert!(writes < 100, "seed {seed}: {writes} writes");
        observer.check(&format!("seed {seed}"));
        cluster.stop().await;
    }
}

/// The Service in front of the pods of workloads.
pub fn service() -> Value {
    json!({
        "kind": "Service", "metadata": { "name": "web" },
        "spec": { "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
                  "ports": [{ "port": 80, "protocol": "TCP" }] },
    })
}
