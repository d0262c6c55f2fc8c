//! Pods and the templates of workloads.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, KeyToPath, PersistentVolumeClaimSpec, Pod, PodAffinityTerm, PodSpec, Volume,
    VolumeProjection, WeightedPodAffinityTerm,
};
use serde_json::Value;

use crate::field::{Path, quote};
use crate::format;
use crate::validation::ip::ip_warnings;
use crate::validation::security::each_container;
use crate::validation::{list, text};

use super::super::app_armor::field_of;
use super::volume::{claim_spec, fractional};
use super::{Object, deprecated_node_label, go_list, name, selector_term, typed};

/// New pods. Changed ones are written by programs, which read no warnings.
pub(crate) fn pod(new: &Value, old: Option<&Value>) -> Vec<String> {
    if old.is_some() {
        return Vec::new();
    }
    typed::<Pod>(new).map(|pod| new_pod(&pod, new)).unwrap_or_default()
}

/// New pods; `object` is the pod as it came.
pub(crate) fn new_pod(pod: &Pod, object: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    let messages = format::dns1123_label(name(object));
    if !messages.is_empty() {
        warnings.push(format!(
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; a DNS label is recommended: {}",
            go_list(&messages)
        ));
    }
    if let Some(spec) = &pod.spec {
        warnings.extend(pod_or_template(spec, object, &Path::root()));
    }
    warnings
}

/// The addresses in the status of a pod.
pub(crate) fn pod_status(new: &Value, _: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    for key in ["podIPs", "hostIPs"] {
        let path = Path::new("status").child(key);
        for (i, ip) in new["status"][key].as_array().into_iter().flatten().enumerate() {
            warnings.extend(ip_warnings(&path.index(i).child("ip"), ip["ip"].as_str().unwrap_or_default()));
        }
    }
    warnings
}

fn pod_names(object: &Value) -> Option<String> {
    let messages = format::dns1123_label(name(object));
    (!messages.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: {}",
            go_list(&messages)
        )
    })
}

/// Whether an update changed what the generation counts.
fn is_unchanged(new: &Value, old: Option<&Value>) -> bool {
    old.is_some_and(|old| new.pointer("/metadata/generation") == old.pointer("/metadata/generation"))
}

fn template_at(object: &Value, keys: &[&str]) -> Vec<String> {
    let path = keys.iter().fold(Path::root(), |path, key| path.child(key));
    let found = keys.iter().try_fold(object, |object, key| object.get(key));
    found.map(|found| template(found, &path)).unwrap_or_default()
}

/// Deployments, replica sets and replication controllers: their pods are named after them.
pub(crate) fn named_workload(new: &Value, old: Option<&Value>) -> Vec<String> {
    if is_unchanged(new, old) {
        return Vec::new();
    }
    let name = if old.is_none() { pod_names(new) } else { None };
    name.into_iter().chain(template_at(new, &["spec", "template"])).collect()
}

/// Daemon sets.
pub(crate) fn daemon_set(new: &Value, old: Option<&Value>) -> Vec<String> {
    let key = "/metadata/annotations/deprecated.daemonset.template.generation";
    if old.is_some_and(|old| old.pointer(key) == new.pointer(key)) {
        return Vec::new();
    }
    template_at(new, &["spec", "template"])
}

/// Stateful sets.
pub(crate) fn stateful_set(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings =
        if is_unchanged(new, old) { Vec::new() } else { template_at(new, &["spec", "template"]) };
    let path = Path::new("spec").child("volumeClaimTemplates");
    let claims = new.pointer("/spec/volumeClaimTemplates").and_then(Value::as_array);
    for (i, claim) in claims.into_iter().flatten().enumerate() {
        let path = if old.is_none() { path.index(i) } else { path.index(i).child("Spec") };
        let spec = claim.get("spec").and_then(typed::<PersistentVolumeClaimSpec>);
        warnings.extend(spec.map(|spec| claim_spec(&spec, &path)).unwrap_or_default());
    }
    if new.pointer("/spec/revisionHistoryLimit").and_then(Value::as_i64).is_some_and(|limit| limit < 0) {
        let text = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended";
        warnings.push(text.to_owned());
    }
    warnings
}

/// Pod templates.
pub(crate) fn pod_template(new: &Value, old: Option<&Value>) -> Vec<String> {
    if is_unchanged(new, old) { Vec::new() } else { template_at(new, &["template"]) }
}

/// Jobs.
pub(crate) fn job(new: &Value, old: Option<&Value>) -> Vec<String> {
    job_at(new, old, &["spec"])
}

/// Cron jobs.
pub(crate) fn cron_job(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut warnings = job_at(new, old, &["spec", "jobTemplate", "spec"]);
    let schedule = new.pointer("/spec/schedule").and_then(Value::as_str).unwrap_or_default();
    if old.is_some() && schedule.contains("TZ") {
        let text = "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
        warnings.push(text.to_owned());
    }
    warnings
}

fn job_at(new: &Value, old: Option<&Value>, keys: &[&str]) -> Vec<String> {
    if is_unchanged(new, old) {
        return Vec::new();
    }
    let mut warnings: Vec<String> = if old.is_none() { pod_names(new) } else { None }.into_iter().collect();
    let spec = keys.iter().try_fold(new, |object, key| object.get(key));
    let number = |key: &str| spec.and_then(|spec| spec.get(key)).and_then(Value::as_i64).unwrap_or(0);
    let is_indexed = spec.is_some_and(|spec| spec["completionMode"] == "Indexed");
    if is_indexed && number("completions") > 100_000 && number("parallelism") > 10_000 {
        let text = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
        warnings.push(format!("{}: {text}", keys.join(".")));
    }
    let keys: Vec<&str> = keys.iter().copied().chain(["template"]).collect();
    warnings.extend(template_at(new, &keys));
    warnings
}

/// A pod (at the root) or a template of one.
fn template(object: &Value, path: &Path) -> Vec<String> {
    let spec = object.get("spec").and_then(typed::<PodSpec>);
    spec.map(|spec| pod_or_template(&spec, object, path)).unwrap_or_default()
}

fn pod_or_template(spec: &PodSpec, object: &Value, path: &Path) -> Vec<String> {
    let empty = Object::new();
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object).unwrap_or(&empty);
    let mut warnings = Vec::new();
    let at = path.child("spec");
    scheduling(spec, &at, &mut warnings);
    let at_annotations = path.child("metadata").child("annotations");
    let gone = [
        (
            "scheduler.alpha.kubernetes.io/critical-pod",
            "non-functional in v1.16+; use the \"priorityClassName\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
        (
            "security.alpha.kubernetes.io/unsafe-sysctls",
            "non-functional in v1.11+; use the \"sysctls\" field instead",
        ),
    ];
    for (key, text) in gone.iter().filter(|(key, _)| annotations.contains_key(*key)) {
        warnings.push(format!("{}: {text}", at_annotations.key(key)));
    }
    for (i, volume) in list(&spec.volumes).iter().enumerate() {
        self::volume(volume, &at.child("volumes").index(i), &mut warnings);
    }
    list(&spec.volumes).iter().for_each(|volume| overlaps(volume, &mut warnings));
    duplicates(spec, &at, &mut warnings);
    for key in ["memory", "ephemeral-storage"] {
        let overhead = spec.overhead.as_ref().and_then(|o| o.get(key));
        warnings.extend(fractional(overhead, &at.child("overhead").key(key)));
    }
    let use_field = "non-functional in v1.27+; use the \"seccompProfile\" field instead";
    let context = spec.security_context.as_ref();
    let key = "seccomp.security.alpha.kubernetes.io/pod";
    if context.is_none_or(|c| c.seccomp_profile.is_none()) && annotations.contains_key(key) {
        warnings.push(format!("{}: {use_field}", at_annotations.key(key)));
    }
    let is_template = !path.as_str().is_empty();
    each_container(spec, &at, |container, at| {
        let context = container.security_context.as_ref();
        let key = format!("container.seccomp.security.alpha.kubernetes.io/{}", container.name);
        if context.is_none_or(|c| c.seccomp_profile.is_none()) && annotations.contains_key(&key) {
            warnings.push(format!("{}: {use_field}", at_annotations.key(&key)));
        }
        let key = format!("container.apparmor.security.beta.kubernetes.io/{}", container.name);
        let has_field = context.is_some_and(|c| c.app_armor_profile.is_some());
        let pod_field = spec.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
        let pod_field = pod_field.and_then(|profile| serde_json::to_value(profile).ok());
        let annotation = annotations.get(&key).and_then(Value::as_str);
        let differs = annotation.is_some_and(|text| pod_field.is_none() || pod_field != field_of(text));
        if is_template && !has_field && differs {
            let text = "deprecated since v1.30; use the \"appArmorProfile\" field instead";
            warnings.push(format!("{}: {text}", at_annotations.key(&key)));
        }
        self::container(container, at, &mut warnings);
    });
    ports(spec, &at, &mut warnings);
    if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
        let text = "must be >= 0; negative values are invalid and will be treated as 1";
        warnings.push(format!("{}: {text}", at.child("terminationGracePeriodSeconds")));
    }
    affinity(spec, &at, &mut warnings);
    for (i, server) in spec.dns_config.iter().flat_map(|dns| list(&dns.nameservers)).enumerate() {
        warnings.extend(ip_warnings(&at.child("dnsConfig").child("nameservers").index(i), server));
    }
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        warnings.extend(ip_warnings(&at.child("hostAliases").index(i).child("ip"), &alias.ip));
    }
    warnings
}

fn scheduling(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    for key in spec.node_selector.iter().flatten().map(|(key, _)| key) {
        if let Some(message) = deprecated_node_label(key) {
            warnings.push(format!("{}: {message}", path.child("nodeSelector").key(key)));
        }
    }
    if let Some(nodes) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) {
        let path = path.child("affinity").child("nodeAffinity");
        let required = nodes.required_during_scheduling_ignored_during_execution.as_ref();
        let at = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
        for (i, term) in required.into_iter().flat_map(|r| &r.node_selector_terms).enumerate() {
            warnings.extend(selector_term(term, false, &at.index(i)));
        }
        let at = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        let preferred = list(&nodes.preferred_during_scheduling_ignored_during_execution);
        for (i, term) in preferred.iter().enumerate() {
            warnings.extend(selector_term(&term.preference, true, &at.index(i).child("preference")));
        }
    }
    for (i, constraint) in list(&spec.topology_spread_constraints).iter().enumerate() {
        let path = path.child("topologySpreadConstraints").index(i);
        if let Some(message) = deprecated_node_label(&constraint.topology_key) {
            warnings.push(format!("{}: {} is {message}", path.child("topologyKey"), constraint.topology_key));
        }
        if constraint.label_selector.is_none() {
            warnings.push(null_selector(&path));
        }
    }
}

fn null_selector(path: &Path) -> String {
    format!("{}: a null labelSelector results in matching no pod", path.child("labelSelector"))
}

fn affinity(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let Some(affinity) = &spec.affinity else { return };
    let path = path.child("affinity");
    type Terms<'a> = (&'a [PodAffinityTerm], &'a [WeightedPodAffinityTerm]);
    let with = affinity.pod_affinity.as_ref().map(|a| -> Terms<'_> {
        (
            list(&a.required_during_scheduling_ignored_during_execution),
            list(&a.preferred_during_scheduling_ignored_during_execution),
        )
    });
    let without = affinity.pod_anti_affinity.as_ref().map(|a| -> Terms<'_> {
        (
            list(&a.required_during_scheduling_ignored_during_execution),
            list(&a.preferred_during_scheduling_ignored_during_execution),
        )
    });
    for (key, terms) in [("podAffinity", with), ("podAntiAffinity", without)] {
        let Some((required, preferred)) = terms else { continue };
        let path = path.child(key);
        let at = path.child("requiredDuringSchedulingIgnoredDuringExecution");
        for (i, _) in required.iter().enumerate().filter(|(_, term)| term.label_selector.is_none()) {
            warnings.push(null_selector(&at.index(i)));
        }
        let at = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        let unset = |term: &WeightedPodAffinityTerm| term.pod_affinity_term.label_selector.is_none();
        for (i, _) in preferred.iter().enumerate().filter(|(_, term)| unset(term)) {
            warnings.push(null_selector(&at.index(i).child("podAffinityTerm")));
        }
    }
}

fn volume(volume: &Volume, path: &Path, warnings: &mut Vec<String>) {
    let mut gone = |key: &str, set: bool, text: &str| {
        if set {
            warnings.push(format!("{}: {text}", path.child(key)));
        }
    };
    let photon = volume.photon_persistent_disk.is_some();
    gone("photonPersistentDisk", photon, "deprecated in v1.11, non-functional in v1.16+");
    gone("gitRepo", volume.git_repo.is_some(), "deprecated in v1.11, and disabled by default in v1.33+");
    gone("scaleIO", volume.scale_io.is_some(), "deprecated in v1.16, non-functional in v1.22+");
    gone("flocker", volume.flocker.is_some(), "deprecated in v1.22, non-functional in v1.25+");
    gone("storageOS", volume.storageos.is_some(), "deprecated in v1.22, non-functional in v1.25+");
    gone("quobyte", volume.quobyte.is_some(), "deprecated in v1.22, non-functional in v1.25+");
    gone("glusterfs", volume.glusterfs.is_some(), "deprecated in v1.25, non-functional in v1.26+");
    if let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) {
        let path = path.child("ephemeral").child("volumeClaimTemplate").child("spec");
        warnings.extend(claim_spec(&template.spec, &path));
    }
    let mut gone = |key: &str, set: bool| {
        if set {
            warnings.push(format!("{}: deprecated in v1.28, non-functional in v1.31+", path.child(key)));
        }
    };
    gone("cephfs", volume.cephfs.is_some());
    gone("rbd", volume.rbd.is_some());
}

/// A path inside a volume and what puts a file there.
#[derive(Clone, PartialEq)]
struct Place {
    path: String,
    source: String,
}

impl Place {
    fn new(path: &str, source: &str) -> Self {
        Self { path: path.trim_end_matches('/').to_owned(), source: source.to_owned() }
    }

    fn shown(&self) -> String {
        match self.source.as_str() {
            "" => quote(&self.path),
            source => format!("{} ({source})", quote(&self.path)),
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (format!("{}/", self.path), format!("{}/", other.path));
        !self.path.is_empty() && !other.path.is_empty() && (a.starts_with(&b) || b.starts_with(&a))
    }
}

fn collisions(places: &[Place]) -> Vec<String> {
    let mut found = Vec::new();
    for (i, place) in places.iter().enumerate() {
        let others = places[..i].iter().filter(|other| place.overlaps(other));
        found.extend(others.map(|other| format!("{} with {}", place.shown(), other.shown())));
    }
    found
}

fn places(items: Option<&Vec<KeyToPath>>, source: &str) -> Vec<Place> {
    items.into_iter().flatten().map(|item| Place::new(&item.path, source)).collect()
}

fn overlaps(volume: &Volume, warnings: &mut Vec<String>) {
    let mut tell = |what: &str, places: &[Place]| {
        for found in collisions(places) {
            warnings.push(format!("volume {} ({what}): overlapping paths: {found}", quote(&volume.name)));
        }
    };
    if let Some(map) = &volume.config_map {
        tell(&format!("ConfigMap {}", quote(&map.name)), &places(map.items.as_ref(), ""));
    }
    if let Some(secret) = &volume.secret {
        tell(&format!("Secret {}", quote(text(&secret.secret_name))), &places(secret.items.as_ref(), ""));
    }
    if let Some(downward) = &volume.downward_api {
        let all: Vec<Place> = list(&downward.items).iter().map(|item| Place::new(&item.path, "")).collect();
        tell("DownwardAPI", &all);
    }
    let Some(projected) = &volume.projected else { return };
    let sources = list(&projected.sources);
    let mut all: Vec<Place> = Vec::new();
    for source in sources {
        if *source == VolumeProjection::default() {
            warnings.push(format!("volume {} (Projected) has no sources provided", quote(&volume.name)));
            continue;
        }
        for place in projected_places(source) {
            for other in all.iter().filter(|other| place.overlaps(other)) {
                warnings.push(format!(
                    "volume {} (Projected): overlapping paths: {} with {}",
                    quote(&volume.name),
                    place.shown(),
                    other.shown()
                ));
            }
            all.push(place);
        }
    }
}

fn projected_places(source: &VolumeProjection) -> Vec<Place> {
    if let Some(map) = source.config_map.as_ref().filter(|map| map.items.is_some()) {
        places(map.items.as_ref(), &format!("ConfigMap {}", quote(&map.name)))
    } else if let Some(secret) = source.secret.as_ref().filter(|secret| secret.items.is_some()) {
        places(secret.items.as_ref(), &format!("Secret {}", quote(&secret.name)))
    } else if let Some(downward) = source.downward_api.as_ref().filter(|downward| downward.items.is_some()) {
        list(&downward.items).iter().map(|item| Place::new(&item.path, "DownwardAPI")).collect()
    } else if let Some(token) = &source.service_account_token {
        vec![Place::new(&token.path, "ServiceAccountToken")]
    } else if let Some(bundle) = &source.cluster_trust_bundle {
        let name = bundle.name.as_deref().or(bundle.signer_name.as_deref()).unwrap_or_default();
        vec![Place::new(&bundle.path, &format!("ClusterTrustBundle {}", quote(name)))]
    } else {
        Vec::new()
    }
}

fn duplicates(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        if !seen.insert(alias.ip.as_str()) {
            let at = path.child("hostAliases").index(i).child("ip");
            warnings.push(format!("{at}: duplicate ip {}", quote(&alias.ip)));
        }
    }
    let secrets = list(&spec.image_pull_secrets);
    let at = |i: usize| path.child("imagePullSecrets").index(i).child("name");
    let mut seen = BTreeSet::new();
    for (i, secret) in secrets.iter().enumerate() {
        if !seen.insert(secret.name.as_str()) {
            warnings.push(format!("{}: duplicate name {}", at(i), quote(&secret.name)));
        }
    }
    for (i, _) in secrets.iter().enumerate().filter(|(_, secret)| secret.name.is_empty()) {
        warnings.push(format!("{}: invalid empty name \"\"", at(i)));
    }
}

fn container(container: &Container, path: &Path, warnings: &mut Vec<String>) {
    if let Some(resources) = &container.resources {
        for name in ["memory", "ephemeral-storage"] {
            for (key, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
                let amount = amounts.as_ref().and_then(|amounts| amounts.get(name));
                warnings.extend(fractional(amount, &path.child("resources").child(key).key(name)));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (i, variable) in list(&container.env).iter().enumerate() {
        let name = variable.name.as_str();
        if seen.insert(name) {
            continue;
        }
        let reference = format!("$({name})");
        let value = text(&variable.value);
        if variable.value_from.is_some() || value == reference || !value.contains(&reference) {
            let at = path.child("env").index(i);
            let name = quote(name);
            warnings.push(format!(
                "{at}: hides previous definition of {name}, which may be dropped when using apply"
            ));
        }
    }
}

fn ports(spec: &PodSpec, path: &Path, warnings: &mut Vec<String>) {
    let mut all: BTreeMap<(i32, String), Vec<(Path, ContainerPort)>> = BTreeMap::new();
    each_container(spec, path, |container, path| {
        for (i, port) in list(&container.ports).iter().enumerate() {
            let at = path.child("ports").index(i);
            let (ip, host_port) = (text(&port.host_ip), port.host_port.unwrap_or(0));
            if !ip.is_empty() && host_port == 0 {
                warnings.push(format!(
                    "{at}: hostIP set without hostPort: {{Name:{} HostPort:0 ContainerPort:{} Protocol:{} HostIP:{ip}}}",
                    text(&port.name),
                    port.container_port,
                    text(&port.protocol)
                ));
            }
            let others = all.entry((port.container_port, text(&port.protocol).to_owned())).or_default();
            for (field, other) in others.iter() {
                let (other_ip, other_port) = (text(&other.host_ip), other.host_port.unwrap_or(0));
                let what = if ip == other_ip && host_port == other_port {
                    "duplicate"
                } else if host_port == 0 || other_port == 0 {
                    "overlapping"
                } else if host_port == other_port && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                warnings.push(format!("{at}: {what} port definition with {field}"));
            }
            others.push((at, port.clone()));
        }
    });
    let mut names: BTreeMap<String, Path> = BTreeMap::new();
    each_container(spec, path, |container, path| {
        for (i, port) in
            list(&container.ports).iter().enumerate().filter(|(_, port)| !text(&port.name).is_empty())
        {
            let (at, name) = (path.child("ports").index(i), text(&port.name));
            match names.get(name) {
                Some(other) => warnings.push(format!(
                    "{at}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                    quote(name)
                )),
                None => {
                    names.insert(name.to_owned(), at);
                }
            }
        }
    });
}
