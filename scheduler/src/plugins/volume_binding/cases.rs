//! What upstream's plugin finds for claims on a node, case by case.
//!
//! A case is a paragraph. `claims` have a name, a size, a class and what is known of them: the volume they are `bound:`
//! to, were `prebound:` to or `lost:`, the node they are `for:`, their `owner:`. The pod uses all of them, and those
//! that it `uses` besides; `own` is a volume with a template for its claim. `volumes` have a name, a size, a class, the
//! node they are on and maybe the `claim:` they are for. `room` is what the driver says it has: class, node or
//! everywhere, capacity, largest volume.

use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::{CSIDriver, CSIStorageCapacity, StorageClass};
use serde_json::{Value, json};

use super::*;
use crate::listers::Lister;
use crate::testing;

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn tagged<'a>(words: &[&'a str], tag: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(tag))
}

fn classes() -> Vec<StorageClass> {
    let allowed = |value: &str| json!([{"matchLabelExpressions": [{"key": "node", "values": [value, "x"]}]}]);
    let class = |name: &str, provisioner: &str, mode: &str, allowed: Value| {
        read(json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode,
                    "allowedTopologies": allowed}))
    };
    let waits = "WaitForFirstConsumer";
    vec![
        class("wait", "kubernetes.io/no-provisioner", waits, Value::Null),
        class("now", "driver", "Immediate", Value::Null),
        class("made", "driver", waits, allowed("node1")),
        class("elsewhere", "driver", waits, allowed("y")),
    ]
}

fn claim(words: &[&str]) -> PersistentVolumeClaim {
    let (bound, lost) = (tagged(words, "bound:"), tagged(words, "lost:"));
    let mut annotations = json!({});
    if bound.or(lost).is_some() {
        annotations["pv.kubernetes.io/bind-completed"] = "yes".into();
    }
    if let Some(node) = tagged(words, "for:") {
        annotations["volume.kubernetes.io/selected-node"] = node.into();
    }
    let owners = tagged(words, "owner:")
        .map(|uid| json!([{"apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid, "controller": true}]));
    read(json!({
        "metadata": {"name": words[0], "namespace": "ns", "uid": words[0], "annotations": annotations,
                     "ownerReferences": owners},
        "spec": {"storageClassName": words[2], "resources": {"requests": {"storage": words[1]}},
                 "volumeName": bound.or(lost).or(tagged(words, "prebound:"))},
        "status": {"phase": lost.map(|_| "Lost")}}))
}

fn volume(words: &[&str]) -> PersistentVolume {
    let claim = tagged(words, "claim:").map(|name| json!({"name": name, "namespace": "ns", "uid": name}));
    let on = json!([{"matchExpressions": [{"key": "node", "operator": "In", "values": [words[3]]}]}]);
    read(json!({"metadata": {"name": words[0]}, "status": {"phase": "Available"},
        "spec": {"capacity": {"storage": words[1]}, "storageClassName": words[2], "claimRef": claim,
                 "nodeAffinity": {"required": {"nodeSelectorTerms": on}}}}))
}

fn room(words: &[&str]) -> CSIStorageCapacity {
    let amount = |text: &&str| (**text != *"-").then(|| (*text).to_owned());
    let labels = if words[1] == "everywhere" { json!({}) } else { json!({"node": words[1]}) };
    read(
        json!({"metadata": {"name": words.join("-"), "namespace": "kube-system"}, "storageClassName": words[0],
        "capacity": amount(&words[2]), "maximumVolumeSize": amount(&words[3]),
        "nodeTopology": {"matchLabels": labels}}),
    )
}

/// What the plugin says of `node1`.
fn outcome(text: &str) -> String {
    let items = |name: &str| -> Vec<Vec<&str>> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.flat_map(|line| line.split(" | ")).map(|item| item.split_whitespace().collect()).collect()
    };
    let (claims, own, others) = (items("claims "), items("own "), items("uses "));
    let drivers: Vec<CSIDriver> = items("driver ")
        .iter()
        .map(|words| {
            read(json!({"metadata": {"name": "driver"}, "spec": {"storageCapacity": words.len() == 1}}))
        })
        .collect();
    let volumes = Volumes {
        claims: Lister::from(claims.iter().map(|words| claim(words)).collect::<Vec<_>>()).into(),
        volumes: Lister::from(items("volumes ").iter().map(|words| volume(words)).collect::<Vec<_>>()).into(),
        classes: classes().into(),
        csi_drivers: drivers.into(),
        capacities: items("room ").iter().map(|words| room(words)).collect::<Vec<_>>().into(),
        ..Volumes::default()
    };
    let used = claims
        .iter()
        .filter(|_| own.is_empty())
        .chain(&others)
        .map(|words| json!({"name": words[0], "persistentVolumeClaim": {"claimName": words[0]}}));
    let made = own.iter().map(|words| json!({"name": words[0], "ephemeral": {}}));
    let pod = testing::pod("p", "a", json!({"volumes": used.chain(made).collect::<Vec<_>>()}));
    let node = testing::node("node1", "z", json!({"metadata": {"labels": {"node": "node1"}}}));
    let plugin = VolumeBinding::new(&VolumeBindingArgs::default(), &volumes);
    match plugin.pre_filter(&pod, &testing::cluster(Vec::new())) {
        Ok(prepared) => match prepared.filter.map(|filter| filter.filter(&node)) {
            None => "nothing to do".to_owned(),
            Some(Err(rejection)) => refused(&rejection),
            Some(Ok(())) => found(&plugin, &pod, &node),
        },
        Err(rejection) => refused(&rejection),
    }
}

fn refused(rejection: &Rejection) -> String {
    format!("{}: {}", if rejection.is_unresolvable() { "never" } else { "error" }, rejection.message())
}

fn found(plugin: &VolumeBinding, pod: &Arc<PodInfo>, node: &NodeInfo) -> String {
    let claims = plugin.claims(pod).expect("the filter read them").expect("there are some");
    let claims = Claims::sort(&plugin.volumes, claims).expect("the filter sorted them");
    let found = claims.find(&plugin.volumes, &node.node).expect("the filter found them");
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let bindings = found.bindings.iter().map(|(volume, claim)| {
        format!("{} gets {}", name(&claim.metadata.name), name(&volume.metadata.name))
    });
    let provisions = found.provisions.iter().map(|claim| format!("{} is made", name(&claim.metadata.name)));
    let all: Vec<_> = bindings.chain(provisions).collect();
    if all.is_empty() { "ok".to_owned() } else { all.join(", ") }
}

#[test]
fn what_is_found_is_as_upstream_finds_it() {
    let cases: Vec<_> =
        include_str!("cases.txt").split("\n\n").filter_map(|text| text.split_once("expect ")).collect();
    assert_eq!(cases.len(), 49);
    for (text, expected) in cases {
        assert_eq!(outcome(text), expected.trim_end(), "{text}");
    }
}
