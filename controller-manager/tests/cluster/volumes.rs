//! Volumes: binding, making, releasing, removing.

use super::Cluster;
use super::store::text;
use serde_json::{Value, json};

const STORAGE: &str = "storage.k8s.io/v1";

fn volume(name: &str, size: &str, policy: &str) -> Value {
    json!({
        "kind": "PersistentVolume", "metadata": { "name": name },
        "spec": {
            "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": policy, "volumeMode": "Filesystem",
            "nfs": { "server": "s", "path": "/" },
        },
    })
}

fn claim(name: &str, size: &str, class: &str) -> Value {
    json!({
        "kind": "PersistentVolumeClaim", "metadata": { "name": name },
        "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": size } },
            "storageClassName": class, "volumeMode": "Filesystem",
        },
        "status": { "phase": "Pending" },
    })
}

fn phase(cluster: &Cluster, plural: &str, name: &str) -> String {
    text(&cluster.get("v1", plural, name), "/status/phase").to_owned()
}

#[tokio::test(start_paused = true)]
async fn claims_are_bound_to_the_smallest_volumes_that_suit() {
    let cluster = Cluster::start(&[]).await;
    for number in 0..5 {
        cluster.create("v1", "persistentvolumeclaims", claim(&format!("c{number}"), "1Gi", ""));
    }
    for (number, size) in ["5Gi", "2Gi", "1Gi", "4Gi", "3Gi"].iter().enumerate() {
        cluster.create("v1", "persistentvolumes", volume(&format!("v{number}"), size, "Retain"));
    }
    cluster
        .wait("the binding", |cluster| {
            (0..5).all(|n| phase(cluster, "persistentvolumeclaims", &format!("c{n}")) == "Bound")
        })
        .await;
    cluster.rests().await;
    let mut held: Vec<_> = cluster
        .list("v1", "persistentvolumeclaims")
        .iter()
        .map(|claim| text(claim, "/spec/volumeName").to_owned())
        .collect();
    held.sort();
    assert_eq!(held, ["v0", "v1", "v2", "v3", "v4"]);
    let writes = cluster.writes.lock().clone();
    let to = |part: &str| writes.iter().filter(|call| call.starts_with("PUT") && call.contains(part)).count();
    // Each volume: finalizer, claim, phases; each claim: finalizer, volume, phase. Conflicts repeat a few.
    assert!(to("/persistentvolumes/") <= 30 && to("/persistentvolumeclaims/") <= 20, "{writes:#?}");
    cluster.delete("v1", "persistentvolumeclaims", "c0", json!({}));
    let name = |cluster: &Cluster| {
        let volumes = cluster.store.list("v1", "persistentvolumes", "").1;
        let released = volumes.iter().filter(|volume| text(volume, "/status/phase") == "Released");
        released.map(|volume| text(volume, "/spec/claimRef/name").to_owned()).collect::<Vec<_>>()
    };
    cluster.wait("the release", |cluster| name(cluster) == ["c0"]).await;
    cluster.delete("v1", "persistentvolumes", &held_by(&cluster, "c1"), json!({}));
    cluster.rests().await;
    assert_eq!(phase(&cluster, "persistentvolumeclaims", "c1"), "Bound", "a volume in use stays");
    cluster.stop().await;
}

fn held_by(cluster: &Cluster, claim: &str) -> String {
    text(&cluster.get("v1", "persistentvolumeclaims", claim), "/spec/volumeName").to_owned()
}

fn local_class(path: &str) -> Value {
    json!({
        "kind": "StorageClass",
        "metadata": { "name": "standard",
                      "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": "coxswain.io/local-path", "parameters": { "path": path },
        "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    })
}

#[tokio::test(start_paused = true)]
async fn directories_are_made_where_the_pod_goes_and_removed_with_the_claim() {
    let root = std::env::temp_dir().join(format!("local-path-{}", uuid::Uuid::new_v4()));
    let cluster = Cluster::start(&[]).await;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("a kernel");
    let label = json!({ "metadata": { "labels": { "kubernetes.io/hostname": "n1" } } });
    cluster.change("v1", "nodes", "n1", label);
    let info = json!({ "status": { "nodeInfo": {
        "bootID": boot_id.trim(), "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
        "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
        "systemUUID": "",
    } } });
    cluster.store.patch(&super::key("v1", "nodes", "n1"), "status", &info).expect("it is there");
    let mut data = claim("data", "1Gi", "");
    data["spec"]["storageClassName"] = Value::Null;
    cluster.create("v1", "persistentvolumeclaims", data);
    cluster.create(STORAGE, "storageclasses", local_class(root.to_str().expect("plain text")));
    cluster
        .wait("the default class", |cluster| {
            let claim = cluster.get("v1", "persistentvolumeclaims", "data");
            text(&claim, "/spec/storageClassName") == "standard"
        })
        .await;
    cluster.rests().await;
    assert_eq!(held_by(&cluster, "data"), "", "it waits for a pod");
    let chosen = json!({ "metadata": { "annotations": { "volume.kubernetes.io/selected-node": "n1" } } });
    cluster.change("v1", "persistentvolumeclaims", "data", chosen);
    cluster.wait("the volume", |cluster| phase(cluster, "persistentvolumeclaims", "data") == "Bound").await;
    let volume = cluster.get("v1", "persistentvolumes", &held_by(&cluster, "data"));
    let path = text(&volume, "/spec/hostPath/path").to_owned();
    std::fs::write(format!("{path}/file"), "text").expect("the directory is there");
    cluster.rests().await;
    cluster.delete("v1", "persistentvolumeclaims", "data", json!({}));
    cluster
        .wait("the removal", |cluster| cluster.store.list("v1", "persistentvolumes", "").1.is_empty())
        .await;
    assert!(!std::path::Path::new(&path).exists());
    cluster.rests().await;
    cluster.stop().await;
    std::fs::remove_dir(&root).expect("it is empty");
}

#[tokio::test(start_paused = true)]
async fn claims_of_ephemeral_volumes_come_and_go_with_their_pods() {
    let cluster = Cluster::start(&[]).await;
    cluster.create("v1", "persistentvolumes", volume("v", "1Gi", "Retain"));
    let template = json!({ "spec": claim("", "1Gi", "")["spec"] });
    cluster.create(
        "v1",
        "pods",
        json!({
            "kind": "Pod", "metadata": { "name": "web" },
            "spec": {
                "containers": [{ "name": "c", "image": "one" }],
                "volumes": [{ "name": "data", "ephemeral": { "volumeClaimTemplate": template } }],
            },
        }),
    );
    cluster
        .wait("the claim", |cluster| phase(cluster, "persistentvolumeclaims", "web-data") == "Bound")
        .await;
    cluster.delete("v1", "pods", "web", json!({}));
    cluster
        .wait("the release", |cluster| {
            cluster.get("v1", "persistentvolumeclaims", "web-data").is_null()
                && phase(cluster, "persistentvolumes", "v") == "Released"
        })
        .await;
    cluster.rests().await;
    cluster.stop().await;
}

/// A driver that attaches and detaches at once.
async fn drive(store: super::store::Store) {
    let mut head = store.head();
    loop {
        for attachment in store.list(STORAGE, "volumeattachments", "").1 {
            let key = super::key(STORAGE, "volumeattachments", text(&attachment, "/metadata/name"));
            if attachment.pointer("/status/attached") != Some(&json!(true)) {
                let _ = store.patch(&key, "status", &json!({ "status": { "attached": true } }));
            }
        }
        if head.changed().await.is_err() {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn volumes_are_attached_for_pods_and_detached_when_the_node_let_go() {
    let cluster = Cluster::start(&["--disable-force-detach-on-timeout"]).await;
    let driver = tokio::spawn(drive(cluster.store.clone()));
    let managed = json!({ "volumes.kubernetes.io/controller-managed-attach-detach": "true" });
    cluster.change("v1", "nodes", "n1", json!({ "metadata": { "annotations": managed } }));
    let mut disk = volume("disk", "1Gi", "Retain");
    disk["spec"]["nfs"] = Value::Null;
    disk["spec"]["csi"] = json!({ "driver": "d.example", "volumeHandle": "h" });
    cluster.create("v1", "persistentvolumes", disk);
    cluster.create("v1", "persistentvolumeclaims", claim("data", "1Gi", ""));
    let data = json!({ "name": "data", "persistentVolumeClaim": { "claimName": "data" } });
    let spec = json!({ "containers": [{ "name": "c", "image": "one" }], "volumes": [data] });
    cluster.create("v1", "pods", json!({ "kind": "Pod", "metadata": { "name": "web" }, "spec": spec }));
    let unique = "kubernetes.io/csi/d.example^h";
    let reported = |cluster: &Cluster| {
        text(&cluster.get("v1", "nodes", "n1"), "/status/volumesAttached/0/name") == unique
    };
    cluster.wait("the attachment", reported).await;
    let use_it = |cluster: &Cluster, list: Value| {
        let status = json!({ "status": { "volumesInUse": list } });
        cluster.store.patch(&super::key("v1", "nodes", "n1"), "status", &status).expect("it is there");
    };
    use_it(&cluster, json!([unique]));
    cluster.rests().await;
    cluster.delete("v1", "pods", "web", json!({}));
    cluster.wait("the end of the pod", |cluster| cluster.list("v1", "pods").is_empty()).await;
    cluster.rests().await;
    assert!(reported(&cluster), "the node still uses it");
    use_it(&cluster, json!([]));
    cluster
        .wait("the detachment", |cluster| cluster.store.list(STORAGE, "volumeattachments", "").1.is_empty())
        .await;
    assert!(!reported(&cluster));
    cluster.rests().await;
    driver.abort();
    cluster.stop().await;
}
