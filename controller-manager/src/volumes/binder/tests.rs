//! Upstream's cases, as scripts: what there is, which object is looked at, and what is different afterwards.

use super::super::claims::{self, annotate};
use super::plan::{self, View};
use super::steps::{Next, Plan, Step};
use crate::common::meta;
use client::EventType;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

#[derive(Clone, Default)]
struct World {
    volumes: Vec<PersistentVolume>,
    claims: Vec<PersistentVolumeClaim>,
    classes: Vec<Arc<StorageClass>>,
    pods: Vec<String>,
    disabled: bool,
}

impl View for World {
    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.volumes.iter().find(|volume| meta::name(&volume.metadata) == name).cloned().map(Arc::new)
    }
    fn candidates(&self, _: &PersistentVolumeClaim) -> Vec<Arc<PersistentVolume>> {
        self.volumes.iter().cloned().map(Arc::new).collect()
    }
    fn class(&self, name: &str) -> Option<Arc<StorageClass>> {
        self.classes.iter().find(|class| meta::name(&class.metadata) == name).cloned()
    }
    fn default_class(&self) -> Option<Arc<StorageClass>> {
        claims::default_class(self.classes.clone())
    }
    fn unscheduled_pods(&self, _: &PersistentVolumeClaim) -> Vec<String> {
        self.pods.clone()
    }
    fn provisions(&self) -> bool {
        !self.disabled
    }
}

impl World {
    /// Carries out a plan; events and what is left go to `log`.
    fn apply(&mut self, plan: Plan, log: &mut Vec<String>) {
        for step in plan.steps {
            match step {
                Step::Volume(new) | Step::VolumeStatus(new) => {
                    let old =
                        self.volumes.iter_mut().find(|old| old.metadata.name == new.metadata.name).unwrap();
                    assert_ne!(*old, *new, "a write changes something");
                    *old = *new;
                }
                Step::Claim(new) | Step::ClaimStatus(new) => {
                    let old =
                        self.claims.iter_mut().find(|old| old.metadata.name == new.metadata.name).unwrap();
                    assert_ne!(*old, *new, "a write changes something");
                    *old = *new;
                }
                Step::ClaimEvent(kind, reason, _) | Step::VolumeEvent(kind, reason, _) => {
                    let kind = if kind == EventType::Normal { "Normal" } else { "Warning" };
                    log.push(format!("event {kind} {reason}"));
                }
            }
        }
        match plan.next {
            Next::Fail(_) => log.push("error".to_owned()),
            Next::Reclaim => log.push("reclaim".to_owned()),
            Next::Done | Next::Claim(_) => {}
        }
    }

    fn sync_claim(&mut self, index: usize, log: &mut Vec<String>) {
        let plan = plan::claim(&self.claims[index], self);
        self.apply(plan, log);
    }

    fn sync_volume(&mut self, index: usize, log: &mut Vec<String>) {
        let volume = self.volumes[index].clone();
        let claim = claims::claim_ref(&volume).and_then(|reference| {
            let held = |claim: &&PersistentVolumeClaim| {
                claims::key_of(reference) == meta::key(&claim.metadata)
                    && meta::uid(&claim.metadata) == claims::uid_of(reference)
            };
            self.claims.iter().find(held).cloned()
        });
        self.apply(plan::volume(&volume, claim.as_ref()), log);
    }

    /// Looks at everything until nothing changes.
    fn settle(&mut self, log: &mut Vec<String>) {
        for _ in 0..10 {
            let (volumes, claims) = (self.volumes.clone(), self.claims.clone());
            log.clear();
            (0..self.claims.len()).for_each(|index| self.sync_claim(index, log));
            (0..self.volumes.len()).for_each(|index| self.sync_volume(index, log));
            if (volumes, claims) == (self.volumes.clone(), self.claims.clone()) {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn show(&self) -> Vec<String> {
        self.volumes.iter().map(show_volume).chain(self.claims.iter().map(show_claim)).collect()
    }
}

fn marks(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> String {
    let mut text = String::new();
    for (key, mark) in MARKS {
        if let Some(value) = meta::annotation(metadata, key) {
            let _ =
                if mark.ends_with('=') { write!(text, " {mark}{value}") } else { write!(text, " {mark}") };
        }
    }
    for finalizer in meta::finalizers(metadata) {
        let _ = write!(text, " finalizer={finalizer}");
    }
    text
}

const MARKS: [(&str, &str); 6] = [
    (claims::BOUND_BY_CONTROLLER, "controller"),
    (claims::BIND_COMPLETED, "completed"),
    (claims::SELECTED_NODE, "node"),
    (claims::STORAGE_PROVISIONER, "by="),
    (claims::PROVISIONED_BY, "made="),
    (claims::MIGRATED_TO, "moved="),
];

fn show_volume(volume: &PersistentVolume) -> String {
    let spec = volume.spec.clone().unwrap_or_default();
    let claim = spec.claim_ref.as_ref().map_or_else(
        || "-".to_owned(),
        |held| format!("{}/{}", held.name.clone().unwrap_or_default(), claims::uid_of(held)),
    );
    let phase = Some(claims::volume_phase(volume)).filter(|phase| !phase.is_empty()).unwrap_or("-");
    format!(
        "volume {} {} {claim} {phase} {} {}{}{}",
        meta::name(&volume.metadata),
        spec.capacity.unwrap_or_default()["storage"].0,
        spec.persistent_volume_reclaim_policy.unwrap_or_default(),
        quoted(spec.storage_class_name.as_deref()),
        marks(&volume.metadata),
        volume.metadata.labels.as_ref().map_or("", |_| " labels"),
    )
}

fn show_claim(claim: &PersistentVolumeClaim) -> String {
    let spec = claim.spec.clone().unwrap_or_default();
    let asked = spec.resources.clone().unwrap_or_default().requests.unwrap_or_default()["storage"].0.clone();
    let status = claim.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let held = status.capacity.map(|capacity| capacity["storage"].0.clone());
    let mut text = format!(
        "claim {} {} {asked} {} {phase} {}{}",
        meta::name(&claim.metadata),
        meta::uid(&claim.metadata),
        Some(claims::volume_name(claim)).filter(|name| !name.is_empty()).unwrap_or("-"),
        quoted(spec.storage_class_name.as_deref()),
        marks(&claim.metadata),
    );
    if phase == "Bound" && held.as_ref() != Some(&asked) {
        let _ = write!(text, " has={}", held.unwrap_or_default());
    }
    if phase != "Bound" {
        assert_eq!(status.access_modes, None, "only a bound claim has ways of access");
    }
    text
}

fn quoted(class: Option<&str>) -> &str {
    class.map_or("-", |class| if class.is_empty() { "\"\"" } else { class })
}

fn read_class(text: &str) -> Option<&str> {
    Some(text.trim_matches('"')).filter(|class| *class != "-")
}

/// Reads what follows the columns.
fn read_marks(object: &mut Value, words: &[&str]) {
    for word in words {
        let (name, value) = word.split_once('=').map_or((*word, "yes"), |(name, value)| (name, value));
        let mark = MARKS.iter().find(|(_, mark)| mark.trim_end_matches('=') == name);
        if let Some((key, _)) = mark {
            object["metadata"]["annotations"][*key] = json!(value);
            if *key == claims::STORAGE_PROVISIONER {
                object["metadata"]["annotations"][claims::BETA_STORAGE_PROVISIONER] = json!(value);
            }
            continue;
        }
        let labels = json!({ "foo": "true", "bar": "false" });
        match name {
            "labels" => object["metadata"]["labels"] = labels,
            "selector" => object["spec"]["selector"]["matchLabels"] = labels,
            "Block" | "Filesystem" => object["spec"]["volumeMode"] = json!(name),
            "rwx" => object["spec"]["accessModes"] = json!(["ReadWriteMany"]),
            "attributes" => object["spec"]["volumeAttributesClassName"] = json!(value),
            "finalizer" => object["metadata"]["finalizers"] = json!([value]),
            other => panic!("what is {other}?"),
        }
    }
}

fn read_volume(words: &[&str]) -> PersistentVolume {
    let [name, size, claim, phase, policy, class, rest @ ..] = words else { panic!("{words:?}") };
    let mut volume = json!({
        "metadata": { "name": name },
        "spec": {
            "capacity": { "storage": size }, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": policy, "storageClassName": read_class(class),
        },
        "status": { "phase": if *phase == "-" { "" } else { phase } },
    });
    if let Some((name, uid)) = claim.split_once('/') {
        volume["spec"]["claimRef"] = json!({
            "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": "default", "name": name,
            "uid": Some(uid).filter(|uid| !uid.is_empty()),
        });
    }
    read_marks(&mut volume, rest);
    serde_json::from_value(volume).unwrap()
}

fn read_claim(words: &[&str]) -> PersistentVolumeClaim {
    let [name, uid, size, volume, phase, class, rest @ ..] = words else { panic!("{words:?}") };
    let modes = json!(["ReadWriteOnce", "ReadOnlyMany"]);
    let mut claim = json!({
        "metadata": { "name": name, "namespace": "default", "uid": uid },
        "spec": {
            "accessModes": modes, "resources": { "requests": { "storage": size } },
            "volumeName": read_class(volume), "storageClassName": read_class(class),
        },
        "status": { "phase": phase },
    });
    if *phase == "Bound" {
        claim["status"]["accessModes"] = modes;
        claim["status"]["capacity"] = json!({ "storage": size });
    }
    read_marks(&mut claim, rest);
    serde_json::from_value(claim).unwrap()
}

fn read(lines: &[&str]) -> World {
    let mut world = World::default();
    let wait = json!({ "metadata": { "name": "wait" }, "provisioner": "example.com/maker",
                       "volumeBindingMode": "WaitForFirstConsumer" });
    world.classes.push(Arc::new(serde_json::from_value(wait).unwrap()));
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["volume", ..] => world.volumes.push(read_volume(&words[1..])),
            ["claim", ..] => world.claims.push(read_claim(&words[1..])),
            ["class", "wait", _] => {}
            ["class", name, provisioner, ..] => {
                let class = json!({ "metadata": { "name": name }, "provisioner": provisioner,
                                    "volumeBindingMode": "Immediate" });
                let mut class: StorageClass = serde_json::from_value(class).unwrap();
                if words.len() > 3 {
                    annotate(&mut class.metadata, "storageclass.kubernetes.io/is-default-class", "true");
                }
                world.classes.push(Arc::new(class));
            }
            ["pod", name] => world.pods.push(name.to_owned()),
            ["disabled"] => world.disabled = true,
            _ => panic!("what is {line}?"),
        }
    }
    world
}

#[test]
fn cases() {
    let script = include_str!("cases.txt");
    let mut wrong = Vec::new();
    for case in script.split("\n\n").filter(|case| case.starts_with("# ")) {
        let lines: Vec<_> = case.lines().skip(1).filter(|line| !line.starts_with("##")).collect();
        let at = lines.iter().position(|line| line.starts_with("sync")).unwrap();
        let mut world = read(&lines[..at]);
        let (before, mut log) = (world.show(), Vec::new());
        match lines[at] {
            "sync claim" => world.sync_claim(0, &mut log),
            "sync volume" => world.sync_volume(0, &mut log),
            _ => world.settle(&mut log),
        }
        let mut after: Vec<_> = world.show().into_iter().filter(|line| !before.contains(line)).collect();
        after.extend(log);
        // What was there before and is not shown needs no word again.
        let hidden = ["labels", "selector", "Block", "Filesystem", "rwx"];
        let visible = |line: &&str| {
            let words =
                line.split(' ').filter(|word| !hidden.contains(word) && !word.starts_with("attributes="));
            words.collect::<Vec<_>>().join(" ")
        };
        let wanted: Vec<_> = lines[at + 1..].iter().map(visible).collect();
        let after: Vec<_> = after.iter().map(String::as_str).map(|line| visible(&line)).collect();
        if after != wanted {
            wrong.push(format!("{case}\n-- but:\n{}", after.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_claim_has_what_its_volume_had_before_it_grew() {
    let mut world = read(&["volume v 5Gi - Available Retain \"\"", "claim c u 1Gi - Pending -"]);
    annotate(&mut world.volumes[0].metadata, claims::PRE_RESIZE_CAPACITY, "1Gi");
    world.sync_claim(0, &mut Vec::new());
    assert_eq!(show_claim(&world.claims[0]), "claim c u 1Gi v Bound - controller completed");
}

/// From any state, looking at everything in turn comes to rest, and no volume is held by two claims.
#[test]
fn random_states_come_to_rest() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    for seed in 0..400 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pick = |choices: &[&str]| choices[random.random_range(0..choices.len())].to_owned();
        let mut lines = Vec::new();
        for volume in ["v1", "v2", "v3"] {
            let phase = pick(&["-", "Pending", "Available", "Bound", "Released", "Failed"]);
            let claim = pick(&["-", "-", "c1/", "c1/u1", "c2/u2", "c2/old", "gone/u9"]);
            let more =
                pick(&["", " controller", " made=example.com/maker", " controller made=example.com/maker"]);
            let size = pick(&["1Gi", "2Gi"]);
            let policy = pick(&["Retain", "Delete"]);
            lines.push(format!("volume {volume} {size} {claim} {phase} {policy} \"\"{more}"));
        }
        for (claim, uid) in [("c1", "u1"), ("c2", "u2")] {
            let volume = pick(&["-", "-", "v1", "v2", "v4"]);
            let phase = pick(&["Pending", "Bound", "Lost"]);
            let more = pick(&["", " controller", " completed", " controller completed"]);
            lines.push(format!("claim {claim} {uid} 1Gi {volume} {phase} -{more}"));
        }
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let mut world = read(&lines);
        for claim in &mut world.claims {
            claim.status.as_mut().unwrap().access_modes = None;
        }
        let mut log = Vec::new();
        world.settle(&mut log);
        let bound = |claim: &&PersistentVolumeClaim| {
            let completed = meta::annotation(&claim.metadata, claims::BIND_COMPLETED).is_some();
            claims::claim_phase(claim) == "Bound" && completed
        };
        for claim in world.claims.iter().filter(bound) {
            let volume = world.volume(claims::volume_name(claim)).expect("a bound claim has its volume");
            assert_eq!(claims::volume_phase(&volume), "Bound", "{lines:?}");
            let held = claims::claim_ref(&volume).map(claims::uid_of);
            assert_eq!(held, Some(meta::uid(&claim.metadata)), "{lines:?}");
        }
    }
}
