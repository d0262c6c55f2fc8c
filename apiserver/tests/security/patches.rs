//! Patches: what the server makes of one is what a client makes of it that reads, patches and writes.

use api::names::GroupVersionKind;
use api::patch::json::JsonPatch;
use api::patch::{merge, strategic};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::support::{Asker, Cluster, namespace};

const PATH: &str = "/apis/apps/v1/namespaces/app/deployments";
const ROUNDS: u64 = 60;

/// A deployment by chance: lists with merge keys, maps, unions and plain fields that differ.
fn deployment(random: &mut StdRng) -> Value {
    let mut containers = vec![];
    for name in ["a", "b", "c"] {
        if name != "a" && random.random_bool(0.4) {
            continue;
        }
        let env: Vec<_> = ["X", "Y", "Z"].into_iter().filter(|_| random.random_bool(0.6)).collect();
        let ports: Vec<_> = [80, 81].into_iter().filter(|_| random.random_bool(0.5)).collect();
        containers.push(json!({
            "name": name,
            "image": format!("example.com/{name}:{}", random.random_range(1..3)),
            "env": env.iter().map(|n| json!({"name": n, "value": random.random_range(0..3).to_string()}))
                .collect::<Vec<_>>(),
            "ports": ports.iter().map(|n| json!({"containerPort": n})).collect::<Vec<_>>(),
        }));
    }
    let kind = ["Recreate", "RollingUpdate"].choose(random);
    let volumes: Vec<_> = ["u", "v"].into_iter().filter(|_| random.random_bool(0.5)).collect();
    let mut spec =
        json!({"containers": containers, "nodeSelector": {"zone": random.random_range(0..3).to_string()}});
    spec["volumes"] = volumes
        .iter()
        .map(|name| match random.random_bool(0.5) {
            true => json!({"name": name, "emptyDir": {}}),
            false => json!({"name": name, "configMap": {"name": "m"}}),
        })
        .collect();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "annotations": {"n": random.random_range(0..4).to_string()}},
        "spec": {
            "replicas": random.random_range(0..4),
            "strategy": {"type": kind},
            "selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": spec},
        },
    })
}

/// The patch's kind, itself, and what a client makes of `current` with it.
fn patched(random: &mut StdRng, current: &Value, from: &Value, to: &Value) -> (&'static str, Value, Value) {
    let gvk = GroupVersionKind::new("apps", "v1", "Deployment");
    let ty = api::schema::type_for(&gvk).unwrap();
    match random.random_range(0..3) {
        0 => {
            let patch = merge::create(from, to);
            let mut made = current.clone();
            merge::apply(&mut made, patch.clone());
            ("application/merge-patch+json", patch, made)
        }
        1 => {
            let patch = strategic::create_two_way(from, to, ty).unwrap();
            let made = strategic::apply(current, &patch, ty).unwrap();
            ("application/strategic-merge-patch+json", patch, made)
        }
        _ => {
            let patch = json!([
                {"op": "replace", "path": "/spec/template/spec/containers", "value": to["spec"]["template"]["spec"]["containers"]},
                {"op": "copy", "from": "/metadata/annotations/n", "path": "/metadata/annotations/copied"},
                {"op": "test", "path": "/spec/replicas", "value": current["spec"]["replicas"]},
                {"op": "add", "path": "/spec/template/spec/nodeSelector/added", "value": "yes"},
            ]);
            let decoded = JsonPatch::decode(patch.to_string().as_bytes()).unwrap();
            let made = decoded.patch.apply(current).unwrap();
            ("application/json-patch+json", patch, made)
        }
    }
}

/// Leaves out what differs between a patch and an update by right.
fn content(mut answer: Value) -> Value {
    if let Some(meta) = answer["metadata"].as_object_mut() {
        meta.retain(|name, _| name != "managedFields");
    }
    answer
}

async fn by_patch(admin: &Asker, query: &str, kind: &str, patch: &Value) -> (u16, Value) {
    let asker = admin.clone().header("Content-Type", kind);
    asker.ask("PATCH", &format!("{PATH}/d{query}"), Some(patch)).await
}

#[tokio::test]
async fn patching_on_the_server_is_reading_patching_and_writing() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "app").await;
    let mut random = StdRng::seed_from_u64(7);
    let mut wrote = deployment(&mut random);
    admin.create(PATH, &wrote).await;
    for round in 0..ROUNDS {
        let (_, current) = admin.get(&format!("{PATH}/d")).await;
        let wanted = deployment(&mut random);
        let (kind, patch, made) = patched(&mut random, &current, &wrote, &wanted);
        let (updated, by_update) = admin.put(&format!("{PATH}/d?dryRun=All"), &made).await;
        let (status, dry) = by_patch(&admin, "?dryRun=All", kind, &patch).await;
        // A union may end up with two members, or two ports with one name: then both ways are refused.
        assert_eq!(status, updated, "round {round}: {patch}: {dry} {by_update}");
        if status != 200 {
            assert_eq!(dry["details"]["causes"], by_update["details"]["causes"], "round {round}: {patch}");
            continue;
        }
        assert_eq!(content(dry.clone()), content(by_update), "round {round}: {kind} {patch}");
        let (status, real) = by_patch(&admin, "", kind, &patch).await;
        assert_eq!(status, 200, "{real}");
        let (_, read) = admin.get(&format!("{PATH}/d")).await;
        assert_eq!(read, real, "what a patch answers is what is read afterwards");
        wrote = real;
    }
    cluster.stop().await;
}
