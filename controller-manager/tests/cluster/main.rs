//! All controllers together against a small API server in memory, with a node that runs every pod at once.
//!
//! Time is paused, so waiting for something to happen costs nothing, and "nothing happens for ten minutes" can be
//! asked too.

mod autoscaling;
mod devices;
mod faults;
mod harness;
mod health;
mod lead;
mod model;
mod server;
mod services;
mod sets;
mod states;
mod store;
mod time;
mod volumes;
mod workloads;

use harness::{Cluster, key};
use serde_json::{Value, json};
use store::text;
use tokio_util::sync::CancellationToken;

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": image }], "restartPolicy": "Always" },
    })
}

/// Three pods, one after the other.
fn stateful_set() -> Value {
    json!({
        "kind": "StatefulSet", "metadata": { "name": "db" },
        "spec": {
            "replicas": 3, "serviceName": "db", "selector": { "matchLabels": { "app": "web" } },
            "template": template("one"), "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
        },
    })
}

/// A pod on each node; so many nodes may be without theirs during an update, or have two.
fn daemon_set(unavailable: u32, surge: u32) -> Value {
    json!({
        "kind": "DaemonSet", "metadata": { "name": "agent" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } }, "template": template("one"),
            "revisionHistoryLimit": 10,
            "updateStrategy": { "type": "RollingUpdate",
                                "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": surge } },
        },
    })
}

fn deployment(replicas: i32) -> Value {
    json!({
        "kind": "Deployment",
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "template": template("one"),
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
        },
    })
}

/// One of each kind that controllers look after, beside each other.
fn everything(cluster: &Cluster) {
    let labelled = |name: &str| {
        json!({ "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{ "name": "c", "image": "one" }], "restartPolicy": "Always" } })
    };
    let of = |name: &str| json!({ "matchLabels": { "app": name } });
    let once = json!({ "metadata": { "labels": { "app": "once" } },
                       "spec": { "containers": [{ "name": "c", "image": "one" }], "restartPolicy": "Never" } });
    cluster.create("apps/v1", "deployments", deployment(3));
    let all = [
        (
            "apps/v1",
            "statefulsets",
            "StatefulSet",
            "db",
            json!({
                "replicas": 2, "serviceName": "db", "selector": of("db"), "template": labelled("db"),
                "podManagementPolicy": "OrderedReady", "revisionHistoryLimit": 10,
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            }),
        ),
        (
            "apps/v1",
            "daemonsets",
            "DaemonSet",
            "agent",
            json!({
                "selector": of("agent"), "template": labelled("agent"), "revisionHistoryLimit": 10,
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } },
            }),
        ),
        (
            "v1",
            "replicationcontrollers",
            "ReplicationController",
            "rc",
            json!({
                "replicas": 2, "selector": { "app": "rc" }, "template": labelled("rc"),
            }),
        ),
        (
            "batch/v1",
            "jobs",
            "Job",
            "once",
            json!({
                "completions": 3, "parallelism": 3, "backoffLimit": 6, "completionMode": "Indexed",
                "suspend": false, "podReplacementPolicy": "TerminatingOrFailed",
                "selector": of("once"), "template": once.clone(),
            }),
        ),
        (
            "batch/v1",
            "cronjobs",
            "CronJob",
            "nightly",
            json!({
                "schedule": "0 3 * * *", "suspend": true, "concurrencyPolicy": "Allow",
                "jobTemplate": { "spec": { "template": once } },
            }),
        ),
        (
            "v1",
            "services",
            "Service",
            "web",
            json!({
                "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
                "ports": [{ "port": 80, "protocol": "TCP" }],
            }),
        ),
        (
            "policy/v1",
            "poddisruptionbudgets",
            "PodDisruptionBudget",
            "web",
            json!({
                "maxUnavailable": 1, "selector": of("web"),
            }),
        ),
        ("v1", "resourcequotas", "ResourceQuota", "limits", json!({ "hard": { "pods": "50" } })),
        (
            "v1",
            "persistentvolumes",
            "PersistentVolume",
            "v",
            json!({
                "capacity": { "storage": "1Gi" }, "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
                "persistentVolumeReclaimPolicy": "Retain", "nfs": { "server": "s", "path": "/" },
            }),
        ),
        (
            "v1",
            "persistentvolumeclaims",
            "PersistentVolumeClaim",
            "c",
            json!({
                "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } },
                "storageClassName": "", "volumeMode": "Filesystem",
            }),
        ),
        (
            "resource.k8s.io/v1",
            "resourceclaimtemplates",
            "ResourceClaimTemplate",
            "gpu",
            json!({ "spec": {} }),
        ),
        (
            "v1",
            "pods",
            "Pod",
            "learner",
            json!({
                "containers": [{ "name": "c", "image": "one" }],
                "resourceClaims": [{ "name": "gpu", "resourceClaimTemplateName": "gpu" }],
            }),
        ),
        (
            "autoscaling/v2",
            "horizontalpodautoscalers",
            "HorizontalPodAutoscaler",
            "web",
            json!({
                "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
                "minReplicas": 1, "maxReplicas": 5,
                "metrics": [{ "type": "Resource", "resource": {
                    "name": "cpu", "target": { "type": "Utilization", "averageUtilization": 50 } } }],
            }),
        ),
    ];
    for (group_version, plural, kind, name, spec) in all {
        cluster.create(
            group_version,
            plural,
            json!({ "kind": kind, "metadata": { "name": name }, "spec": spec }),
        );
    }
}

fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn available(cluster: &Cluster, wanted: i64) -> bool {
    let web = cluster.get("apps/v1", "deployments", "web");
    number(&web, "/status/availableReplicas") == wanted
        && number(&web, "/status/updatedReplicas") == wanted
        && number(&web, "/status/replicas") == wanted
        && number(&web, "/status/observedGeneration") == number(&web, "/metadata/generation")
}

#[tokio::test(start_paused = true)]
async fn deployment_rolls_out_scales_and_rests() {
    let cluster = Cluster::start(&[]).await;
    cluster.create("apps/v1", "deployments", deployment(3));
    cluster.wait("the first rollout", |cluster| available(cluster, 3)).await;
    cluster.rests().await;
    let writes = cluster.writes.lock().clone();
    let to = |path: &str| writes.iter().filter(|call| call.contains(path)).count();
    assert_eq!((to("POST /apis/apps/v1/namespaces/default/replicasets"), to("/pods")), (1, 3));
    // Each set of pods that becomes ready may be reported, but nothing is reported twice.
    assert!(to("/replicasets/") <= 5 && to("/deployments/") <= 6, "{writes:#?}");
    let image =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "two" }] } } } });
    cluster.change("apps/v1", "deployments", "web", image);
    cluster
        .wait("the second rollout", |cluster| {
            let images: Vec<_> = cluster
                .list("v1", "pods")
                .iter()
                .map(|pod| text(pod, "/spec/containers/0/image").to_owned())
                .collect();
            available(cluster, 3) && images == ["two", "two", "two"]
        })
        .await;
    assert_eq!(cluster.list("apps/v1", "replicasets").len(), 2);
    let web = cluster.get("apps/v1", "deployments", "web");
    assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    cluster.change("apps/v1", "deployments", "web", json!({ "spec": { "replicas": 5 } }));
    cluster.wait("scaling up", |cluster| available(cluster, 5)).await;
    cluster.change("apps/v1", "deployments", "web", json!({ "spec": { "replicas": 1 } }));
    cluster
        .wait("scaling down", |cluster| available(cluster, 1) && cluster.list("v1", "pods").len() == 1)
        .await;
    cluster.rests().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deleted_pod_is_replaced_once() {
    let cluster = Cluster::start(&[]).await;
    cluster.create("apps/v1", "deployments", deployment(3));
    cluster.wait("the rollout", |cluster| available(cluster, 3)).await;
    cluster.rests().await;
    let created = |cluster: &Cluster| {
        cluster.writes.lock().iter().filter(|call| *call == "POST /api/v1/namespaces/default/pods").count()
    };
    let before = created(&cluster);
    let victim = text(&cluster.list("v1", "pods")[0], "/metadata/name").to_owned();
    cluster.delete("v1", "pods", &victim, json!({}));
    cluster
        .wait("the replacement", |cluster| {
            available(cluster, 3)
                && !cluster.list("v1", "pods").iter().any(|pod| text(pod, "/metadata/name") == victim)
        })
        .await;
    cluster.rests().await;
    assert_eq!(created(&cluster) - before, 1);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn dependents_go_with_their_owner_or_stay_as_orphans() {
    let cluster = Cluster::start(&[]).await;
    cluster.create("apps/v1", "deployments", deployment(2));
    cluster.wait("the rollout", |cluster| available(cluster, 2)).await;
    cluster.delete("apps/v1", "deployments", "web", json!({ "propagationPolicy": "Orphan" }));
    cluster
        .wait("the orphaning", |cluster| {
            cluster.get("apps/v1", "deployments", "web").is_null()
                && cluster
                    .list("apps/v1", "replicasets")
                    .iter()
                    .all(|set| set["metadata"]["ownerReferences"].as_array().is_none_or(Vec::is_empty))
        })
        .await;
    assert_eq!(cluster.list("v1", "pods").len(), 2);
    cluster.create("apps/v1", "deployments", deployment(2));
    cluster
        .wait("the adoption", |cluster| {
            available(cluster, 2) && cluster.list("apps/v1", "replicasets").len() == 1
        })
        .await;
    cluster.delete("apps/v1", "deployments", "web", json!({ "propagationPolicy": "Foreground" }));
    cluster
        .wait("the end of everything", |cluster| {
            cluster.list("apps/v1", "deployments").is_empty()
                && cluster.list("apps/v1", "replicasets").is_empty()
                && cluster.list("v1", "pods").is_empty()
        })
        .await;
    cluster.create("apps/v1", "deployments", deployment(2));
    cluster.wait("the rollout", |cluster| available(cluster, 2)).await;
    cluster.delete("apps/v1", "deployments", "web", json!({ "propagationPolicy": "Background" }));
    cluster
        .wait("the collection", |cluster| {
            cluster.list("apps/v1", "replicasets").is_empty() && cluster.list("v1", "pods").is_empty()
        })
        .await;
    cluster.rests().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn deleted_namespace_is_emptied() {
    let cluster = Cluster::start(&[]).await;
    cluster.wait("the account", |cluster| !cluster.get("v1", "serviceaccounts", "default").is_null()).await;
    cluster.create("apps/v1", "deployments", deployment(2));
    cluster.create("v1", "configmaps", json!({ "kind": "ConfigMap", "metadata": { "name": "settings" } }));
    cluster.wait("the rollout", |cluster| available(cluster, 2)).await;
    cluster.delete("v1", "namespaces", "default", json!({}));
    cluster
        .wait("the end of the namespace", |cluster| cluster.get("v1", "namespaces", "default").is_null())
        .await;
    for (group_version, plural) in
        [("v1", "pods"), ("v1", "configmaps"), ("apps/v1", "replicasets"), ("v1", "serviceaccounts")]
    {
        assert!(cluster.list(group_version, plural).is_empty(), "{plural} are left");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn statefulset_keeps_names_and_updates_from_the_top() {
    let cluster = Cluster::start(&[]).await;
    let set = json!({
        "kind": "StatefulSet",
        "metadata": { "name": "db" },
        "spec": {
            "replicas": 3, "serviceName": "db", "podManagementPolicy": "OrderedReady",
            "selector": { "matchLabels": { "app": "web" } }, "template": template("one"),
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } },
            "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }],
        },
    });
    cluster.create("apps/v1", "statefulsets", set);
    let done = |cluster: &Cluster, image: &str| {
        let pods = cluster.list("v1", "pods");
        let names: Vec<_> = pods.iter().map(|pod| text(pod, "/metadata/name")).collect();
        let set = cluster.get("apps/v1", "statefulsets", "db");
        names == ["db-0", "db-1", "db-2"]
            && pods.iter().all(|pod| text(pod, "/spec/containers/0/image") == image)
            && number(&set, "/status/readyReplicas") == 3
            && text(&set, "/status/currentRevision") == text(&set, "/status/updateRevision")
    };
    cluster.wait("three pods", |cluster| done(cluster, "one")).await;
    assert_eq!(cluster.list("v1", "persistentvolumeclaims").len(), 3);
    let image =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "two" }] } } } });
    cluster.change("apps/v1", "statefulsets", "db", image);
    cluster.wait("the update", |cluster| done(cluster, "two")).await;
    cluster.change("apps/v1", "statefulsets", "db", json!({ "spec": { "replicas": 1 } }));
    cluster
        .wait("one pod", |cluster| {
            cluster.list("v1", "pods").len() == 1 && !cluster.get("v1", "pods", "db-0").is_null()
        })
        .await;
    cluster.rests().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn daemonset_follows_the_nodes() {
    let cluster = Cluster::start(&[]).await;
    let set = json!({
        "kind": "DaemonSet",
        "metadata": { "name": "agent" },
        "spec": {
            "selector": { "matchLabels": { "app": "web" } }, "template": template("one"),
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
        },
    });
    cluster.create("apps/v1", "daemonsets", set);
    let ready = |cluster: &Cluster, count: i64| {
        let set = cluster.get("apps/v1", "daemonsets", "agent");
        number(&set, "/status/numberReady") == count
            && number(&set, "/status/desiredNumberScheduled") == count
    };
    cluster.wait("one pod", |cluster| ready(cluster, 1)).await;
    cluster.create("v1", "nodes", json!({ "kind": "Node", "metadata": { "name": "n2" } }));
    cluster.wait("two pods", |cluster| ready(cluster, 2)).await;
    let image =
        json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "image": "two" }] } } } });
    cluster.change("apps/v1", "daemonsets", "agent", image);
    cluster
        .wait("the update", |cluster| {
            let pods = cluster.list("v1", "pods");
            ready(cluster, 2) && pods.iter().all(|pod| text(pod, "/spec/containers/0/image") == "two")
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn job_counts_every_pod_once() {
    let cluster = Cluster::start(&[]).await;
    let job = json!({
        "kind": "Job",
        "metadata": { "name": "sum" },
        "spec": {
            "completions": 5, "parallelism": 2, "backoffLimit": 6, "completionMode": "NonIndexed",
            "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "containers": [{ "name": "c", "image": "one" }], "restartPolicy": "Never" },
            },
        },
    });
    cluster.create("batch/v1", "jobs", job);
    cluster
        .wait("the completion", |cluster| {
            let job = cluster.get("batch/v1", "jobs", "sum");
            let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
            conditions
                .iter()
                .any(|condition| condition["type"] == "Complete" && condition["status"] == "True")
        })
        .await;
    let job = cluster.get("batch/v1", "jobs", "sum");
    assert_eq!(number(&job, "/status/succeeded"), 5);
    let pods = cluster.list("v1", "pods");
    assert_eq!(pods.len(), 5);
    assert!(pods.iter().all(|pod| pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)));
    cluster.rests().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn replication_controller_keeps_its_pods() {
    let cluster = Cluster::start(&[]).await;
    let controller = json!({
        "kind": "ReplicationController",
        "metadata": { "name": "rc" },
        "spec": { "replicas": 2, "selector": { "app": "web" }, "template": template("one") },
    });
    cluster.create("v1", "replicationcontrollers", controller);
    cluster
        .wait("two pods", |cluster| {
            number(&cluster.get("v1", "replicationcontrollers", "rc"), "/status/readyReplicas") == 2
        })
        .await;
    cluster.change("v1", "replicationcontrollers", "rc", json!({ "spec": { "replicas": 0 } }));
    cluster.wait("no pods", |cluster| cluster.list("v1", "pods").is_empty()).await;
    cluster.rests().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn second_process_takes_over_when_the_first_stops() {
    let cluster = Cluster::start(&["--leader-elect=true"]).await;
    let lease = |cluster: &Cluster| {
        let leases = cluster.store.list("coordination.k8s.io/v1", "leases", "kube-system").1;
        leases.first().map(|lease| text(lease, "/spec/holderIdentity").to_owned()).unwrap_or_default()
    };
    cluster.wait("a leader", |cluster| !lease(cluster).is_empty()).await;
    let first = lease(&cluster);
    let token = CancellationToken::new();
    let (second, _) = cluster.another(&["--leader-elect=true"], &token);
    cluster.create("apps/v1", "deployments", deployment(1));
    cluster.wait("the rollout", |cluster| available(cluster, 1)).await;
    assert_eq!(lease(&cluster), first);
    cluster.token.cancel();
    cluster.wait("another leader", |cluster| !lease(cluster).is_empty() && lease(cluster) != first).await;
    cluster.change("apps/v1", "deployments", "web", json!({ "spec": { "replicas": 2 } }));
    cluster.wait("scaling by the second", |cluster| available(cluster, 2)).await;
    token.cancel();
    second.await.expect("it does not panic").expect("it stops in good order");
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn each_controller_writes_as_itself() {
    let cluster = Cluster::start(&["--use-service-account-credentials"]).await;
    cluster.create("apps/v1", "deployments", deployment(1));
    cluster.wait("the rollout", |cluster| available(cluster, 1)).await;
    let calls = cluster.writes.lock().clone();
    for call in [
        "POST /apis/apps/v1/namespaces/default/replicasets as deployment-controller",
        "POST /api/v1/namespaces/default/pods as replicaset-controller",
    ] {
        assert!(calls.iter().any(|made| made == call), "{call} is not among {calls:?}");
    }
    let tokens = calls.iter().filter(|call| call.contains("/serviceaccounts/replicaset-controller/token"));
    // Once in vain, once after the account was created.
    assert_eq!(tokens.count(), 2);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn budget_follows_its_pods() {
    let cluster = Cluster::start(&[]).await;
    let budget = json!({
        "kind": "PodDisruptionBudget",
        "metadata": { "name": "web" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "web" } } },
    });
    cluster.create("policy/v1", "poddisruptionbudgets", budget);
    cluster.create("apps/v1", "deployments", deployment(3));
    let says = |cluster: &Cluster, healthy: i64, wanted: i64, allowed: i64| {
        let status = cluster.get("policy/v1", "poddisruptionbudgets", "web")["status"].clone();
        number(&status, "/currentHealthy") == healthy
            && number(&status, "/desiredHealthy") == wanted
            && number(&status, "/disruptionsAllowed") == allowed
    };
    cluster.wait("one disruption allowed", |cluster| says(cluster, 3, 2, 1)).await;
    cluster.change("apps/v1", "deployments", "web", json!({ "spec": { "replicas": 5 } }));
    cluster.wait("the larger scale", |cluster| says(cluster, 5, 4, 1)).await;
    cluster.rests().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn quota_reports_what_is_used() {
    let cluster = Cluster::start(&[]).await;
    let quota = json!({
        "kind": "ResourceQuota",
        "metadata": { "name": "limits" },
        "spec": { "hard": { "pods": "10", "configmaps": "5", "count/replicasets.apps": "9" } },
    });
    cluster.create("v1", "resourcequotas", quota);
    cluster.create("apps/v1", "deployments", deployment(3));
    cluster.create("v1", "configmaps", json!({ "kind": "ConfigMap", "metadata": { "name": "a" } }));
    cluster
        .wait("the use", |cluster| {
            let used = cluster.get("v1", "resourcequotas", "limits")["status"]["used"].clone();
            used == json!({ "pods": "3", "configmaps": "1", "count/replicasets.apps": "1" })
        })
        .await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_vanished_owner_are_released_and_adopted() {
    let cluster = Cluster::start(&[]).await;
    let pod = |name: &str, label: &str| {
        json!({
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": label } },
            "spec": { "containers": [{ "name": "c", "image": "one" }] },
        })
    };
    cluster.create("v1", "pods", pod("stray", "web"));
    cluster.create("v1", "pods", pod("other", "db"));
    cluster.create("apps/v1", "replicasets", json!({
        "kind": "ReplicaSet",
        "metadata": { "name": "web" },
        "spec": { "replicas": 2, "selector": { "matchLabels": { "app": "web" } }, "template": template("one") },
    }));
    let owner = |cluster: &Cluster, name: &str| {
        text(&cluster.get("v1", "pods", name), "/metadata/ownerReferences/0/name").to_owned()
    };
    cluster
        .wait("the adoption", |cluster| {
            owner(cluster, "stray") == "web" && cluster.list("v1", "pods").len() == 3
        })
        .await;
    assert_eq!(owner(&cluster, "other"), "");
    cluster.change("v1", "pods", "stray", json!({ "metadata": { "labels": { "app": "none" } } }));
    cluster
        .wait("the release", |cluster| {
            owner(cluster, "stray").is_empty() && cluster.list("v1", "pods").len() == 4
        })
        .await;
    cluster.rests().await;
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn node_gets_addresses() {
    let cluster = Cluster::start(&["--allocate-node-cidrs", "--cluster-cidr=10.244.0.0/16"]).await;
    cluster
        .wait("a range", |cluster| {
            text(&cluster.get("v1", "nodes", "n1"), "/spec/podCIDR") == "10.244.0.0/24"
        })
        .await;
    cluster.stop().await;
}
