//! Workloads from any state: while calls fail and watches lag (see `model`), people change their mind, pods die, are
//! taken away and come back, and what controllers made is deleted. Once that is over, everything comes to its goal
//! with few writes, and rests there.

use super::faults::Faults;
use super::harness::{Cluster, key};
use super::model::{FLAGS, SEEDS, count, image, service};
use super::store::text;
use super::{available, daemon_set, deployment, number, stateful_set, template};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// So often somebody interferes.
const TIMES: usize = 6;
/// Interference comes in so many milliseconds at most.
const SOON: u64 = 3000;

/// One of them.
fn any<'a>(choices: &Faults, objects: &'a [Value]) -> Option<&'a Value> {
    let places: Vec<_> = (0..objects.len()).collect();
    (!places.is_empty()).then(|| &objects[choices.pick(&places)])
}

fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Failed" | "Succeeded")
}

/// Something happens to a pod behind the back of who made it.
fn meddle(cluster: &Cluster, choices: &Faults) {
    let pods = cluster.list("v1", "pods");
    let Some(pod) = any(choices, &pods) else { return };
    let key = key("v1", "pods", text(pod, "/metadata/name"));
    let labelled = |label: &str| json!({ "metadata": { "labels": { "app": label } } });
    let done = match choices.pick(&["delete", "kill", "fail", "unready", "take", "give back"]) {
        "delete" => cluster.store.delete(&key, &json!({})),
        "kill" => cluster.store.delete(&key, &json!({ "gracePeriodSeconds": 0 })),
        "fail" if !is_over(pod) => {
            cluster.store.patch(&key, "status", &json!({ "status": { "phase": "Failed" } }))
        }
        "unready" if text(pod, "/status/phase") == "Running" => {
            let unready =
                json!([{ "type": "Ready", "status": "False", "lastTransitionTime": cluster.store.now() }]);
            cluster.store.patch(&key, "status", &json!({ "status": { "conditions": unready } }))
        }
        "take" => cluster.store.patch(&key, "", &labelled("other")),
        _ => cluster.store.patch(&key, "", &labelled("web")),
    };
    done.expect("it was there a moment ago");
}

/// A pod that nobody made, but that looks as if.
fn stray(cluster: &Cluster, name: &str, spec: Value) {
    let mut pod = json!({ "kind": "Pod", "metadata": { "name": name, "labels": { "app": "web" } } });
    pod["spec"] = json!({ "containers": [{ "name": "c", "image": "one" }] });
    if let (Some(own), Some(more)) = (pod["spec"].as_object_mut(), spec.as_object()) {
        own.extend(more.clone());
    }
    if cluster.get("v1", "pods", name).is_null() {
        cluster.create("v1", "pods", pod);
    }
}

/// The objects that are controlled by this one.
fn own(cluster: &Cluster, group_version: &str, plural: &str, owner: &Value) -> Vec<Value> {
    let mut objects = cluster.list(group_version, plural);
    let uid = text(owner, "/metadata/uid");
    objects.retain(|object| text(object, "/metadata/ownerReferences/0/uid") == uid);
    objects
}

/// The pods of an owner that have not ended.
fn pods_of(cluster: &Cluster, owner: &Value) -> Vec<Value> {
    let mut pods = own(cluster, "v1", "pods", owner);
    pods.retain(|pod| !is_over(pod));
    pods
}

fn have_image(pods: &[Value], image: &str) -> bool {
    pods.iter().all(|pod| text(pod, "/spec/containers/0/image") == image)
}

/// Interferes again and again, in the given way.
async fn interfere(cluster: &Cluster, choices: &Faults, how: impl Fn(&Cluster, &Faults)) {
    for _ in 0..TIMES {
        tokio::time::sleep(choices.delay(SOON)).await;
        how(cluster, choices);
    }
}

/// Waits for the goal and for rest; it was reached with few writes, and stays reached.
async fn settles(cluster: &Cluster, seed: u64, most: usize, goal: impl Fn(&Cluster) -> bool) {
    let before = cluster.writes.lock().len();
    cluster.wait("the goal", &goal).await;
    cluster.rests().await;
    assert!(goal(cluster), "seed {seed}: it stays so");
    let writes = cluster.writes.lock()[before..].to_vec();
    assert!(writes.len() < most, "seed {seed}: {} writes: {writes:#?}", writes.len());
}

#[tokio::test(start_paused = true)]
async fn deployments_come_to_their_goal() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 10_000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let mut web = deployment(choices.pick(&[0, 2, 4]));
        web["spec"]["strategy"] = choices
            .pick(&[true, false])
            .then(|| web["spec"]["strategy"].clone())
            .unwrap_or(json!({ "type": "Recreate" }));
        cluster.create("apps/v1", "deployments", web);
        interfere(&cluster, &choices, |cluster, choices| {
            let change = |change: Value| cluster.change("apps/v1", "deployments", "web", change);
            match choices.pick(&["pods", "scale", "image", "pause", "go on", "set", "scale set"]) {
                "pods" => meddle(cluster, choices),
                "scale" => change(json!({ "spec": { "replicas": choices.pick(&[0, 1, 3, 5]) } })),
                "image" => change(image(choices.pick(&["one", "two", "three", "stuck"]))),
                "pause" => change(json!({ "spec": { "paused": true } })),
                "go on" => change(json!({ "spec": { "paused": false } })),
                what => {
                    let sets = cluster.list("apps/v1", "replicasets");
                    let Some(set) = any(choices, &sets) else { return };
                    let name = text(set, "/metadata/name");
                    if what == "set" {
                        cluster.delete("apps/v1", "replicasets", name, json!({}));
                    } else {
                        let size = json!({ "spec": { "replicas": choices.pick(&[0, 2, 6]) } });
                        cluster.change("apps/v1", "replicasets", name, size);
                    }
                }
            }
        })
        .await;
        let (replicas, wanted) = (choices.pick(&[0_i64, 1, 4]), choices.pick(&["one", "four"]));
        let mut last = image(wanted);
        last["spec"]["replicas"] = json!(replicas);
        last["spec"]["paused"] = json!(false);
        cluster.change("apps/v1", "deployments", "web", last);
        settles(&cluster, seed, 150, |cluster| {
            let web = cluster.get("apps/v1", "deployments", "web");
            let sets = own(cluster, "apps/v1", "replicasets", &web);
            let pods: Vec<_> = sets.iter().flat_map(|set| pods_of(cluster, set)).collect();
            available(cluster, replicas) && pods.len() == count(replicas) && have_image(&pods, wanted)
        })
        .await;
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn stateful_sets_come_to_their_goal() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 11_000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let mut set = stateful_set();
        set["spec"]["podManagementPolicy"] = json!(choices.pick(&["OrderedReady", "Parallel"]));
        set["spec"]["volumeClaimTemplates"] = json!([{ "metadata": { "name": "data" }, "spec": {} }]);
        cluster.create("apps/v1", "statefulsets", set);
        interfere(&cluster, &choices, |cluster, choices| {
            let change = |change: Value| cluster.change("apps/v1", "statefulsets", "db", change);
            match choices.pick(&["pods", "pods", "scale", "image", "part", "stray", "claim"]) {
                "pods" => meddle(cluster, choices),
                "scale" => change(json!({ "spec": { "replicas": choices.pick(&[0, 1, 3, 5]) } })),
                "image" => change(image(choices.pick(&["one", "two", "three"]))),
                "part" => {
                    let rolling = json!({ "partition": choices.pick(&[0, 1, 2]) });
                    change(json!({ "spec": { "updateStrategy": { "rollingUpdate": rolling } } }));
                }
                "stray" => stray(cluster, choices.pick(&["db-1", "db-4"]), json!({})),
                _ => {
                    let claims = cluster.list("v1", "persistentvolumeclaims");
                    if let Some(claim) = any(choices, &claims) {
                        let name = text(claim, "/metadata/name");
                        cluster.delete("v1", "persistentvolumeclaims", name, json!({}));
                    }
                }
            }
        })
        .await;
        // What is in the way of a name goes, as its owner would see to it.
        for pod in cluster.list("v1", "pods") {
            if text(&pod, "/metadata/labels/app") == "other" {
                cluster.delete("v1", "pods", text(&pod, "/metadata/name"), json!({}));
            }
        }
        let (replicas, wanted) = (choices.pick(&[0_i64, 1, 4]), choices.pick(&["one", "four"]));
        let mut last = image(wanted);
        last["spec"]["replicas"] = json!(replicas);
        last["spec"]["updateStrategy"] = json!({ "rollingUpdate": { "partition": 0 } });
        cluster.change("apps/v1", "statefulsets", "db", last);
        settles(&cluster, seed, 150, |cluster| {
            let set = cluster.get("apps/v1", "statefulsets", "db");
            let pods = pods_of(cluster, &set);
            let names: BTreeSet<_> = pods.iter().map(|pod| text(pod, "/metadata/name").to_owned()).collect();
            let claimed = |name: &String| {
                !cluster.get("v1", "persistentvolumeclaims", &format!("data-{name}")).is_null()
            };
            names == (0..replicas).map(|ordinal| format!("db-{ordinal}")).collect()
                && names.iter().all(claimed)
                && have_image(&pods, wanted)
                && ["/status/replicas", "/status/readyReplicas", "/status/availableReplicas"]
                    .iter()
                    .all(|field| number(&set, field) == replicas)
                && text(&set, "/status/currentRevision") == text(&set, "/status/updateRevision")
                && number(&set, "/status/observedGeneration") == number(&set, "/metadata/generation")
        })
        .await;
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn daemon_sets_come_to_their_goal() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 12_000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1", "n2", "n3"], Some(seed));
        let (unavailable, surge) = choices.pick(&[(1, 0), (2, 0), (0, 1)]);
        cluster.create("apps/v1", "daemonsets", daemon_set(unavailable, surge));
        interfere(&cluster, &choices, |cluster, choices| {
            match choices.pick(&["pods", "pods", "image", "come", "go", "stray", "paint"]) {
                "pods" => meddle(cluster, choices),
                "image" => {
                    let image = image(choices.pick(&["one", "two", "three"]));
                    cluster.change("apps/v1", "daemonsets", "agent", image);
                }
                "come" => {
                    let name = choices.pick(&["n1", "n2", "n4"]);
                    if cluster.get("v1", "nodes", name).is_null() {
                        let node = json!({ "kind": "Node", "metadata": { "name": name, "labels": {} } });
                        cluster.create("v1", "nodes", node);
                    }
                }
                "go" => {
                    let name = choices.pick(&["n1", "n2", "n4"]);
                    if !cluster.get("v1", "nodes", name).is_null() {
                        cluster.delete("v1", "nodes", name, json!({}));
                    }
                }
                "stray" => stray(cluster, "stray", json!({ "nodeName": "n3" })),
                _ => {
                    let taints =
                        json!([{ "key": "k", "effect": choices.pick(&["NoSchedule", "NoExecute"]) }]);
                    let taints = if choices.happens(0.5) { taints } else { json!([]) };
                    cluster.change("v1", "nodes", "n3", json!({ "spec": { "taints": taints } }));
                }
            }
        })
        .await;
        let wanted = choices.pick(&["one", "four"]);
        cluster.change("v1", "nodes", "n3", json!({ "spec": { "taints": [] } }));
        cluster.change("apps/v1", "daemonsets", "agent", image(wanted));
        settles(&cluster, seed, 150, |cluster| {
            let set = cluster.get("apps/v1", "daemonsets", "agent");
            let nodes: BTreeSet<_> = cluster.store.list("v1", "nodes", "").1.iter().map(name).collect();
            let pods = pods_of(cluster, &set);
            let on: BTreeSet<_> = pods.iter().map(|pod| text(pod, "/spec/nodeName").to_owned()).collect();
            on == nodes
                && pods.len() == nodes.len()
                && have_image(&pods, wanted)
                && [
                    "/status/numberAvailable",
                    "/status/desiredNumberScheduled",
                    "/status/updatedNumberScheduled",
                ]
                .iter()
                .all(|field| count(number(&set, field)) == nodes.len())
                && number(&set, "/status/numberMisscheduled") == 0
        })
        .await;
        cluster.stop().await;
    }
}

fn name(object: &Value) -> String {
    text(object, "/metadata/name").to_owned()
}

#[tokio::test(start_paused = true)]
async fn jobs_come_to_their_end() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 13_000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let mut once = template("one");
        once["spec"]["restartPolicy"] = json!("Never");
        let mode = choices.pick(&["NonIndexed", "Indexed"]);
        let job = json!({
            "kind": "Job", "metadata": { "name": "work" },
            "spec": {
                "parallelism": 2, "completions": 6, "backoffLimit": 1000, "completionMode": mode,
                "selector": { "matchLabels": { "app": "web" } }, "template": once, "suspend": false,
                "podReplacementPolicy": choices.pick(&["TerminatingOrFailed", "Failed"]),
            },
        });
        cluster.create("batch/v1", "jobs", job);
        interfere(&cluster, &choices, |cluster, choices| {
            let change = |change: Value| cluster.change("batch/v1", "jobs", "work", change);
            match choices.pick(&["pods", "pods", "suspend", "resume", "parallelism", "stray"]) {
                "pods" => meddle(cluster, choices),
                "suspend" => change(json!({ "spec": { "suspend": true } })),
                "resume" => change(json!({ "spec": { "suspend": false } })),
                "stray" => stray(cluster, "stray", json!({})),
                _ => change(json!({ "spec": { "parallelism": choices.pick(&[0, 1, 4]) } })),
            }
        })
        .await;
        cluster.change("batch/v1", "jobs", "work", json!({ "spec": { "suspend": false, "parallelism": 3 } }));
        settles(&cluster, seed, 150, |cluster| {
            let job = cluster.get("batch/v1", "jobs", "work");
            let conditions = job.pointer("/status/conditions").and_then(Value::as_array);
            let complete = conditions
                .into_iter()
                .flatten()
                .any(|held| held["type"] == "Complete" && held["status"] == "True");
            let held = |pod: &Value| pod["metadata"]["finalizers"].as_array().is_some_and(|f| !f.is_empty());
            complete
                && number(&job, "/status/succeeded") == 6
                && number(&job, "/status/active") == 0
                && pods_of(cluster, &job).is_empty()
                && !cluster.list("v1", "pods").iter().any(held)
        })
        .await;
        cluster.stop().await;
    }
}

/// Slices and Endpoints are made anew, and what somebody wrote into slices is put right. (What is written into Endpoints
/// stays until something else happens, as upstream has it.)
#[tokio::test(start_paused = true)]
async fn addresses_come_to_be_those_of_the_pods() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 14_000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        cluster.create("v1", "services", service());
        cluster.create("apps/v1", "deployments", deployment(3));
        const SLICES: (&str, &str) = ("discovery.k8s.io/v1", "endpointslices");
        interfere(&cluster, &choices, |cluster, choices| {
            let slices = cluster.list(SLICES.0, SLICES.1);
            let endpoints = cluster.get("v1", "endpoints", "web");
            match (choices.pick(&["pods", "select", "slice", "tamper", "endpoints"]), any(choices, &slices)) {
                ("pods", _) => meddle(cluster, choices),
                ("select", _) => {
                    let selector = json!({ "app": choices.pick(&["web", "other"]) });
                    cluster.change("v1", "services", "web", json!({ "spec": { "selector": selector } }));
                }
                ("slice", Some(slice)) => cluster.delete(SLICES.0, SLICES.1, &name(slice), json!({})),
                ("tamper", Some(slice)) => {
                    cluster.change(SLICES.0, SLICES.1, &name(slice), json!({ "endpoints": [] }));
                }
                ("endpoints", _) if !endpoints.is_null() => {
                    cluster.delete("v1", "endpoints", "web", json!({}));
                }
                _ => {}
            }
        })
        .await;
        cluster.change("v1", "services", "web", json!({ "spec": { "selector": { "app": "web" } } }));
        settles(&cluster, seed, 120, |cluster| {
            let mut pods = cluster.list("v1", "pods");
            pods.retain(|pod| text(pod, "/metadata/labels/app") == "web" && !is_over(pod));
            let wanted: BTreeSet<_> =
                pods.iter().map(|pod| text(pod, "/status/podIPs/0/ip").to_owned()).collect();
            let slices = cluster.list(SLICES.0, SLICES.1);
            let told =
                slices.iter().flat_map(|slice| slice["endpoints"].as_array().cloned().unwrap_or_default());
            let told: Vec<_> = told.map(|endpoint| text(&endpoint, "/addresses/0").to_owned()).collect();
            let endpoints = cluster.get("v1", "endpoints", "web");
            let addresses = endpoints.pointer("/subsets/0/addresses").and_then(Value::as_array).cloned();
            let addresses = addresses.unwrap_or_default();
            let addresses: BTreeSet<_> = addresses.iter().map(|held| text(held, "/ip").to_owned()).collect();
            pods.len() >= 3
                && !wanted.contains("")
                && told.len() == wanted.len()
                && told.into_iter().collect::<BTreeSet<_>>() == wanted
                && addresses == wanted
        })
        .await;
        cluster.stop().await;
    }
}

/// A namespace with anything in it, also what its owners hold on to for a while, goes in the end; its neighbour stays.
#[tokio::test(start_paused = true)]
async fn namespaces_come_to_their_end() {
    for seed in SEEDS {
        let choices = Faults::new(seed + 15_000);
        let cluster = Cluster::start_with(FLAGS, vec!["n1"], Some(seed));
        let other = |plural: &str, name: &str| {
            ("v1".to_owned(), plural.to_owned(), "other".to_owned(), name.to_owned())
        };
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace" });
        cluster.store.create(super::key("v1", "namespaces", "other"), namespace).expect("it is new");
        let map =
            |name: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
        cluster.store.create(other("configmaps", "kept"), map("kept")).expect("it is new");
        let mut held = Vec::new();
        for index in 0..choices.pick(&[0, 1, 4]) {
            let (plural, kind) = choices.pick(&[("configmaps", "ConfigMap"), ("secrets", "Secret")]);
            let name = format!("held-{index}");
            let metadata = json!({ "name": name, "finalizers": ["example.com/mine"] });
            cluster.create("v1", plural, json!({ "kind": kind, "metadata": metadata }));
            held.push((plural, name));
        }
        cluster.create("apps/v1", "deployments", deployment(choices.pick(&[0, 3])));
        cluster.create("apps/v1", "statefulsets", stateful_set());
        tokio::time::sleep(choices.delay(SOON)).await;
        cluster.delete("v1", "namespaces", "default", json!({}));
        for (plural, name) in held {
            tokio::time::sleep(choices.delay(60_000)).await;
            let released = json!({ "metadata": { "finalizers": [] } });
            cluster.change("v1", plural, &name, released);
        }
        settles(&cluster, seed, 300, |cluster| {
            cluster.get("v1", "namespaces", "default").is_null()
                && cluster
                    .store
                    .changes(0)
                    .iter()
                    .all(|change| change.key.2 != "default" || cluster.store.get(&change.key).is_none())
        })
        .await;
        assert!(cluster.store.get(&other("configmaps", "kept")).is_some(), "seed {seed}");
        cluster.stop().await;
    }
}
