//! Pods and pod templates.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    Pod, PodDNSConfig, PodResourceClaim, PodSchedulingGate, PodSpec, PodTemplate, PodTemplateSpec, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;
use crate::pod as rules;

use super::affinity::{affinity, spread_constraints, tolerations};
use super::claim::same;
use super::container::{self, Context, image_whitespace};
use super::golang;
use super::ip::legacy_ip;
use super::meta;
use super::resources::{container_resource_name, pod_resource_name, requirements};
use super::rules::{dns_label, list, qualified_name, text, to_value};
use super::security;
use super::volume::{object_name, volumes};

mod faults;
mod resize;
mod status;

pub(crate) use faults::{Fault, of_template};
pub(crate) use resize::resize;
pub(crate) use status::status;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A new pod.
pub(crate) fn create(pod: &Pod) -> ErrorList {
    let mut errors = metadata_and_spec(pod, None);
    let Some(spec) = &pod.spec else { return errors };
    let path = Path::new("spec");
    if !list(&spec.ephemeral_containers).is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(&spec.node_name).is_empty() && !list(&spec.scheduling_gates).is_empty() {
        errors
            .forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    errors.extend(security::profiles_agree(&annotations, spec, &path));
    errors
}

/// What new pods and changed ones have in common; what was wrong with the old one may stay.
fn metadata_and_spec(pod: &Pod, old: Option<&Pod>) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&pod.metadata, true, format::name_is_subdomain, &path);
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let before = old.map(|old| &old.metadata);
    errors.extend(pod_annotations(&pod.metadata, before, spec, &path.child("annotations")));
    let path = Path::new("spec");
    let faults = faults::of(old.and_then(|old| old.spec.as_ref()));
    errors.extend(pod_spec(spec, Some(&pod.metadata), &faults, &path));
    if text(&spec.service_account_name).is_empty() {
        for (i, volume) in list(&spec.volumes).iter().enumerate() {
            let sources = volume.projected.as_ref().map(|p| list(&p.sources)).unwrap_or_default();
            for (j, _) in sources.iter().enumerate().filter(|(_, s)| s.service_account_token.is_some()) {
                let at = path.child("volumes").index(i).child("projected").child("sources").index(j);
                let detail = "must not be specified when serviceAccountName is not set";
                errors.forbidden(&at.child("serviceAccountToken"), detail);
            }
        }
    }
    for (key, containers) in
        [("containers", spec.containers.as_slice()), ("initContainers", list(&spec.init_containers))]
    {
        for (i, container) in containers.iter().enumerate() {
            errors.extend(image_whitespace(container, &path.child(key).index(i)));
        }
    }
    errors
}

/// Annotations that mean something for pods.
fn pod_annotations(meta: &ObjectMeta, old: Option<&ObjectMeta>, spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let empty = std::collections::BTreeMap::new();
    let annotations = meta.annotations.as_ref().unwrap_or(&empty);
    if let Some(value) = annotations.get(MIRROR)
        && text(&spec.node_name).is_empty()
    {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errors.invalid(&path.key(MIRROR), value.as_str(), detail);
    }
    let bad_cost = |annotations: &std::collections::BTreeMap<String, String>| {
        annotations.get(DELETION_COST).filter(|cost| faults::is_bad_cost(cost)).cloned()
    };
    let was_bad = old.and_then(|old| old.annotations.as_ref()).and_then(bad_cost).is_some();
    if let Some(cost) = bad_cost(annotations).filter(|_| !was_bad) {
        errors.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
    }
    errors.extend(security::profile_annotations(annotations, spec, path));
    errors
}

/// The spec of a pod (`meta` is the pod's) or of a template.
fn pod_spec(spec: &PodSpec, meta: Option<&ObjectMeta>, faults: &[Fault], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let (good, found) = volumes(list(&spec.volumes), meta, faults, &path.child("volumes"));
    errors.extend(found);
    let claims = list(&spec.resource_claims);
    let context = Context {
        spec,
        volumes: good,
        claims: claims.iter().map(|c| c.name.clone()).filter(|n| !n.is_empty()).collect(),
        grace: spec.termination_grace_period_seconds,
        host_users: spec.host_users != Some(false),
        faults,
    };
    errors.extend(resource_claims(claims, meta, &path.child("resourceClaims")));
    errors.extend(container::containers(&context, &path.child("containers")));
    errors.extend(container::init_containers(&context, &path.child("initContainers")));
    errors.extend(container::ephemeral_containers(&context, &path.child("ephemeralContainers")));
    errors.extend(pod_resources(spec, &context, &path.child("resources")));
    host_network(spec, meta.is_some(), path, &mut errors);
    match text(&spec.restart_policy) {
        "" => errors.required(&path.child("restartPolicy"), ""),
        policy => errors.one_of(&path.child("restartPolicy"), policy, &["Always", "OnFailure", "Never"]),
    }
    match text(&spec.dns_policy) {
        "" => errors.required(&path.child("dnsPolicy"), ""),
        policy => {
            let known = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
            errors.one_of(&path.child("dnsPolicy"), policy, &known);
        }
    }
    errors.extend(meta::labels(spec.node_selector.as_ref(), &path.child("nodeSelector")));
    let security = spec.security_context.clone().unwrap_or_default();
    errors.extend(security::pod(&security, spec, faults, &path.child("securityContext")));
    if let Some(own) = &spec.affinity {
        errors.extend(affinity(own, faults, &path.child("affinity")));
    }
    errors.extend(dns_config(spec.dns_config.as_ref(), text(&spec.dns_policy), &path.child("dnsConfig")));
    for (i, gate) in list(&spec.readiness_gates).iter().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        errors.extend(qualified_name(&gate.condition_type, &at));
    }
    errors.extend(scheduling_gates(list(&spec.scheduling_gates), &path.child("schedulingGates")));
    let constraints = list(&spec.topology_spread_constraints);
    errors.extend(spread_constraints(constraints, faults, &path.child("topologySpreadConstraints")));
    errors.extend(security::host_processes(spec, path));
    host_users(spec, faults, path, &mut errors);
    host_name(spec, path, &mut errors);
    errors.extend(names_and_limits(spec, faults, path));
    errors.extend(container::file_variables(spec, path));
    errors
}

/// The plain fields at the end of the spec.
fn names_and_limits(spec: &PodSpec, faults: &[Fault], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let optional = |name: &Option<String>| Some(text(name).to_owned()).filter(|n| !n.is_empty());
    if let Some(name) = optional(&spec.service_account_name) {
        errors.extend(object_name(&name, &path.child("serviceAccountName")));
    }
    if let Some(name) = optional(&spec.node_name) {
        errors.extend(object_name(&name, &path.child("nodeName")));
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let detail = format::range(1, i64::from(i32::MAX));
        errors.invalid(&path.child("activeDeadlineSeconds"), seconds, detail);
    }
    if let Some(name) = optional(&spec.hostname) {
        errors.extend(dns_label(&name, &path.child("hostname")));
    }
    if let Some(name) = optional(&spec.subdomain) {
        errors.extend(dns_label(&name, &path.child("subdomain")));
    }
    errors.extend(tolerations(list(&spec.tolerations), &path.child("tolerations")));
    for (i, alias) in list(&spec.host_aliases).iter().enumerate() {
        let at = path.child("hostAliases").index(i);
        errors.extend(legacy_ip(&at.child("ip"), &alias.ip, &[]));
        for (j, name) in list(&alias.hostnames).iter().enumerate() {
            errors.extend(object_name(name, &at.child("hostnames").index(j)));
        }
    }
    if let Some(name) = optional(&spec.priority_class_name) {
        errors.extend(object_name(&name, &path.child("priorityClassName")));
    }
    if let Some(name) = &spec.runtime_class_name {
        errors.extend(object_name(name, &path.child("runtimeClassName")));
    }
    if let Some(policy) = &spec.preemption_policy {
        errors.extend(preemption_policy(policy, &path.child("preemptionPolicy")));
    }
    if let Some(overhead) = &spec.overhead {
        let limits = k8s_openapi::api::core::v1::ResourceRequirements {
            limits: Some(overhead.clone()),
            ..Default::default()
        };
        let at = path.child("overhead");
        errors.extend(requirements(&limits, container_resource_name, &BTreeSet::new(), faults, &at));
    }
    errors.extend(security::operating_system(spec, path));
    if let Some(group) = &spec.scheduling_group {
        let at = path.child("schedulingGroup").child("podGroupName");
        match &group.pod_group_name {
            None => errors.invalid(&at, serde_json::Value::Null, "must specify one of: `podGroupName`"),
            Some(name) => errors.extend(object_name(name, &at)),
        }
    }
    errors
}

/// Whether pods may displace others.
pub(crate) fn preemption_policy(policy: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match policy {
        "" => errors.required(path, ""),
        _ => errors.one_of(path, policy, &["PreemptLowerPriority", "Never"]),
    }
    errors
}

fn resource_claims(claims: &[PodResourceClaim], meta: Option<&ObjectMeta>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mirror = meta.and_then(|m| m.annotations.as_ref()).is_some_and(|a| a.contains_key(MIRROR));
    let mut names = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        if mirror {
            errors.forbidden(&Path::new("[]"), "static pods do not support resource claims");
            continue;
        }
        let path = path.index(i);
        let name = claim.name.as_str();
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if names.contains(name) {
            errors.duplicate(&path.child("name"), name);
        } else {
            errors.extend(dns_label(name, &path.child("name")));
            names.insert(name);
        }
        let shown = || golang::show("core.PodResourceClaim", &to_value(claim));
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                let detail =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(Error::invalid_shown(&path, shown(), detail));
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(Error::invalid_shown(&path, shown(), detail));
            }
            _ => {}
        }
        if let Some(name) = &claim.resource_claim_name {
            errors.extend(object_name(name, &path.child("resourceClaimName")));
        }
        if let Some(name) = &claim.resource_claim_template_name {
            errors.extend(object_name(name, &path.child("resourceClaimTemplateName")));
        }
    }
    errors
}

/// Requests and limits of the pod as a whole, and whether the containers fit into them.
fn pod_resources(spec: &PodSpec, context: &Context<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(resources) = &spec.resources else { return errors };
    if security::os_name(spec) == Some("windows") {
        errors.forbidden(path, "may not be set for a windows pod");
        return errors;
    }
    if resources.claims.is_some() {
        let detail = "claims may not be set for Resources at pod-level";
        errors.forbidden(&path.child("claims"), detail);
    }
    errors.extend(requirements(resources, pod_resource_name, &context.claims, context.faults, path));
    let (requests, limits) =
        (rules::read(resources.requests.as_ref()), rules::read(resources.limits.as_ref()));
    for (name, sum) in rules::aggregate_container_requests(spec) {
        if let Some(own) = requests.get(&name).filter(|own| sum > **own) {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&path.child("requests").key(&name), own.to_string(), detail);
        }
    }
    for (name, sum) in rules::aggregate_container_limits(spec) {
        if let Some(own) = limits.get(&name).filter(|own| name.starts_with("hugepages-") && sum > **own) {
            let detail = format!("must be greater than or equal to aggregate container limits of {sum}");
            errors.invalid(&path.child("limits").key(&name), own.to_string(), detail);
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (name, limit) in rules::read(container.resources.as_ref().and_then(|r| r.limits.as_ref())) {
            if let Some(own) = limits.get(&name).filter(|own| limit > **own) {
                let at = path.child("containers").index(i).key(&name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {own}");
                errors.invalid(&at, limit.to_string(), detail);
            }
        }
    }
    errors
}

fn host_network(spec: &PodSpec, is_pod: bool, path: &Path, errors: &mut ErrorList) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in list(&container.ports).iter().enumerate() {
            let host = port.host_port.unwrap_or(0);
            if (is_pod || host != 0) && host != port.container_port {
                let at = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                errors.invalid(&at, host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn dns_config(config: Option<&PodDNSConfig>, policy: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if policy == "None" {
        match config {
            None => {
                errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
                return errors;
            }
            Some(config) if list(&config.nameservers).is_empty() => {
                let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                errors.required(&path.child("nameservers"), detail);
                return errors;
            }
            Some(_) => {}
        }
    }
    let Some(config) = config else { return errors };
    let servers = list(&config.nameservers);
    if servers.len() > 3 {
        errors.invalid(&path.child("nameservers"), servers.to_vec(), "must not have more than 3 nameservers");
    }
    for (i, server) in servers.iter().enumerate() {
        errors.extend(legacy_ip(&path.child("nameservers").index(i), server, &[]));
    }
    let searches = list(&config.searches);
    if searches.len() > 32 {
        errors.invalid(&path.child("searches"), searches.to_vec(), "must not have more than 32 search paths");
    }
    if searches.join(" ").len() > 2048 {
        let detail = "must not have more than 2048 characters (including spaces) in the search list";
        errors.invalid(&path.child("searches"), searches.to_vec(), detail);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        let messages = format::dns1123_subdomain_with_underscore(search);
        errors.messages(&path.child("searches").index(i), search, messages);
    }
    for (i, _) in list(&config.options).iter().enumerate().filter(|(_, o)| text(&o.name).is_empty()) {
        errors.required(&path.child("options").index(i), "must not be empty");
    }
    errors
}

fn scheduling_gates(gates: &[PodSchedulingGate], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, gate) in gates.iter().enumerate() {
        errors.extend(qualified_name(&gate.name, &path.index(i)));
        if gates[..i].iter().any(|g| g.name == gate.name) {
            errors.duplicate(&path.index(i), gate.name.as_str());
        }
    }
    errors
}

fn host_users(spec: &PodSpec, faults: &[Fault], path: &Path, errors: &mut ErrorList) {
    if spec.host_users != Some(false) {
        return;
    }
    let fields = [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)];
    for (key, _) in fields.iter().filter(|(_, set)| *set == Some(true)) {
        errors.forbidden(&path.child(key), "when `hostUsers` is false");
    }
    security::each_container(spec, path, |container, path| {
        if !list(&container.volume_devices).is_empty() && !faults.contains(&Fault::UserDevices) {
            errors.forbidden(&path.child("volumeDevices"), "when `hostUsers` is false");
        }
    });
}

fn host_name(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let Some(name) = &spec.hostname_override else { return };
    let path_of = path.child("hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(&path_of, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(&path_of, "may not be specified when hostNetwork is true");
    }
    if name.len() > 64 {
        errors.too_long(&path_of, 64);
    }
    errors.extend(object_name(name, &path_of));
}

/// The template of a workload; what was wrong with the one it replaces may stay.
pub(crate) fn template(template: &PodTemplateSpec, old: Option<&PodTemplateSpec>, path: &Path) -> ErrorList {
    let empty = (ObjectMeta::default(), PodSpec::default());
    let meta = template.metadata.as_ref().unwrap_or(&empty.0);
    let spec = template.spec.as_ref().unwrap_or(&empty.1);
    let mut errors = template_metadata(template, old, path);
    errors.extend(pod_spec(spec, None, &of_template(old), &path.child("spec")));
    let annotations = meta.annotations.clone().unwrap_or_default();
    errors.extend(security::profiles_agree(&annotations, spec, &path.child("spec")));
    if !list(&spec.ephemeral_containers).is_empty() {
        let detail = "ephemeral containers not allowed in pod template";
        errors.forbidden(&path.child("spec").child("ephemeralContainers"), detail);
    }
    errors
}

/// The labels and annotations of a template.
pub(crate) fn template_metadata(
    template: &PodTemplateSpec,
    old: Option<&PodTemplateSpec>,
    path: &Path,
) -> ErrorList {
    let empty = (ObjectMeta::default(), PodSpec::default());
    let meta = template.metadata.as_ref().unwrap_or(&empty.0);
    let spec = template.spec.as_ref().unwrap_or(&empty.1);
    let mut errors = meta::labels(meta.labels.as_ref(), &path.child("labels"));
    errors.extend(meta::annotations(meta.annotations.as_ref(), &path.child("annotations")));
    let before = old.and_then(|old| old.metadata.as_ref());
    errors.extend(pod_annotations(meta, before, spec, &path.child("annotations")));
    errors
}

/// A new pod template.
pub(crate) fn pod_template(object: &PodTemplate) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_core(&object.metadata, true, format::name_is_subdomain, &path);
    let empty = PodTemplateSpec::default();
    errors.extend(template(object.template.as_ref().unwrap_or(&empty), None, &Path::new("template")));
    errors
}

/// A changed pod template.
pub(crate) fn pod_template_update(new: &PodTemplate, old: &PodTemplate) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    let empty = PodTemplateSpec::default();
    let now = new.template.as_ref().unwrap_or(&empty);
    errors.extend(template(now, old.template.as_ref(), &Path::new("template")));
    errors
}

/// Annotations that pods keep for life.
fn annotation_updates(new: &Pod, old: &Pod, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let empty = std::collections::BTreeMap::new();
    let (new_all, old_all) = (
        new.metadata.annotations.as_ref().unwrap_or(&empty),
        old.metadata.annotations.as_ref().unwrap_or(&empty),
    );
    for (key, value) in old_all.iter().filter(|(key, value)| new_all.get(*key) != Some(*value)) {
        let _ = value;
        if key.starts_with(security::APP_ARMOR) {
            errors.forbidden(&path.key(key), "may not remove or update AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), "may not remove or update mirror pod annotation");
        }
    }
    for key in new_all.keys().filter(|key| !old_all.contains_key(*key)) {
        if key.starts_with(security::APP_ARMOR) {
            errors.forbidden(&path.key(key), "may not add AppArmor annotations");
        }
        if key == MIRROR {
            errors.forbidden(&path.key(key), "may not add mirror pod annotation");
        }
    }
    let spec = PodSpec::default();
    let before = Some(&old.metadata);
    errors.extend(pod_annotations(&new.metadata, before, new.spec.as_ref().unwrap_or(&spec), path));
    errors
}

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A changed pod.
pub(crate) fn update(new: &Pod, old: &Pod) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &path);
    errors.extend(metadata_and_spec(new, Some(old)));
    errors.extend(annotation_updates(new, old, &path.child("annotations")));
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    let path = Path::new("spec");
    let lists = [
        ("containers", new_spec.containers.as_slice(), old_spec.containers.as_slice()),
        ("initContainers", list(&new_spec.init_containers), list(&old_spec.init_containers)),
    ];
    for (key, new, old) in lists {
        let path = path.child(key);
        if new.len() != old.len() {
            errors.forbidden(&path, "pod updates may not add or remove containers");
            return errors;
        }
        for (i, container) in new.iter().enumerate() {
            if text(&container.image).is_empty() {
                errors.required(&path.index(i).child("image"), "");
            }
            errors.extend(image_whitespace(container, &path.index(i)));
        }
    }
    let at = path.child("activeDeadlineSeconds");
    match (new_spec.active_deadline_seconds, old_spec.active_deadline_seconds) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.invalid(&at, seconds, format::range(0, i64::from(i32::MAX)));
            return errors;
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.invalid(&at, seconds, "must be less than or equal to previous value");
            return errors;
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.invalid(&at, serde_json::Value::Null, detail);
        }
        _ => {}
    }
    let (new_tolerations, old_tolerations) = (list(&new_spec.tolerations), list(&old_spec.tolerations));
    errors.extend(only_added_tolerations(new_tolerations, old_tolerations, &path.child("tolerations")));
    for (i, gate) in list(&new_spec.scheduling_gates).iter().enumerate() {
        if !list(&old_spec.scheduling_gates).iter().any(|g| g.name == gate.name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.forbidden(&path.child("schedulingGates").index(i).child("name"), detail);
        }
    }
    if !same(new_spec, old_spec) {
        spec_update(new_spec, old_spec, &path, &mut errors);
    }
    errors
}

fn only_added_tolerations(new: &[Toleration], old: &[Toleration], path: &Path) -> ErrorList {
    let kept = |old: &Toleration| {
        new.iter().any(|n| Toleration { toleration_seconds: n.toleration_seconds, ..old.clone() } == *n)
    };
    if !old.iter().all(kept) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return vec![Error::forbidden(path, detail)];
    }
    tolerations(new, path)
}

/// Everything that may change is set back; what differs then may not.
fn spec_update(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let mut munged = new.clone();
    for (container, before) in munged.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&before.image);
    }
    for (container, before) in munged.init_containers.iter_mut().flatten().zip(list(&old.init_containers)) {
        container.image.clone_from(&before.image);
    }
    munged.active_deadline_seconds = old.active_deadline_seconds;
    munged.scheduling_gates.clone_from(&old.scheduling_gates);
    munged.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && munged.termination_grace_period_seconds == Some(1)
    {
        munged.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if !list(&old.scheduling_gates).is_empty() {
        gated_update(&mut munged, old, path, errors);
    }
    if !same(&munged, old) {
        let diff = golang::diff("core.PodSpec", &to_value(old), &to_value(&munged));
        errors.forbidden(path, format!("pod updates may not change fields other than {UPDATABLE}\n{diff}"));
    }
}

/// Pods that are still held back may narrow down where they can run.
fn gated_update(munged: &mut PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) {
    if !same(&munged.node_selector, &old.node_selector) {
        let new = munged.node_selector.clone().unwrap_or_default();
        if old.node_selector.iter().flatten().any(|(key, value)| new.get(key) != Some(value)) {
            let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            errors.invalid(&path.child("nodeSelector"), to_value(&new), detail);
        }
        munged.node_selector.clone_from(&old.node_selector);
    }
    let affinity = |spec: &PodSpec| spec.affinity.as_ref().and_then(|a| a.node_affinity.clone());
    let (new_affinity, old_affinity) = (affinity(munged), affinity(old));
    if same(&new_affinity, &old_affinity) {
        return;
    }
    let terms = |a: &Option<k8s_openapi::api::core::v1::NodeAffinity>| {
        let required = a.as_ref().and_then(|a| a.required_during_scheduling_ignored_during_execution.clone());
        required.map(|r| r.node_selector_terms).unwrap_or_default()
    };
    let (new_terms, old_terms) = (terms(&new_affinity), terms(&old_affinity));
    let at = path.child("affinity").child("nodeAffinity");
    let at = at.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    if !old_terms.is_empty() && old_terms.len() != new_terms.len() {
        let shown = golang::show_list("core.NodeSelectorTerm", &to_value(&new_terms));
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(Error::invalid_shown(&at, shown, detail));
    } else {
        for (i, (new, old)) in new_terms.iter().zip(&old_terms).enumerate() {
            let (new_e, old_e) = (list(&new.match_expressions), list(&old.match_expressions));
            let (new_f, old_f) = (list(&new.match_fields), list(&old.match_fields));
            let was_empty = old_e.is_empty() && old_f.is_empty() && !(new_e.is_empty() && new_f.is_empty());
            if was_empty || !new_e.starts_with(old_e) || !new_f.starts_with(old_f) {
                let shown = golang::show("core.NodeSelectorTerm", &to_value(new));
                let detail = "only additions are allowed (no mutations or deletions)";
                errors.push(Error::invalid_shown(&at.index(i), shown, detail));
            }
        }
    }
    match (&mut munged.affinity, old_affinity) {
        (Some(own), None)
            if own.pod_affinity.is_none() && own.pod_anti_affinity.is_none() && old.affinity.is_none() =>
        {
            munged.affinity = None;
        }
        (Some(own), before) => own.node_affinity = before,
        (own @ None, before @ Some(_)) => {
            *own = Some(k8s_openapi::api::core::v1::Affinity { node_affinity: before, ..Default::default() });
        }
        (None, None) => {}
    }
}

/// A pod with other ephemeral containers.
pub(crate) fn ephemeral_containers(new: &Pod, old: &Pod) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &path);
    errors.extend(metadata_and_spec(new, Some(old)));
    errors.extend(annotation_updates(new, old, &path.child("annotations")));
    if rules::is_mirror(old) {
        return vec![Error::forbidden(&Path::new("[]"), "static pods do not support ephemeral containers")];
    }
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    let path = Path::new("spec").child("ephemeralContainers");
    for before in list(&old_spec.ephemeral_containers) {
        let name = crate::field::quote(&before.name);
        match list(&new_spec.ephemeral_containers).iter().rfind(|c| c.name == before.name) {
            None => {
                errors.forbidden(&path, format!("existing ephemeral containers {name} may not be removed\n"));
            }
            Some(now) if !same(now, before) => {
                let diff = golang::diff("core.EphemeralContainer", &to_value(before), &to_value(now));
                let detail = format!("existing ephemeral containers {name} may not be changed\n{diff}");
                errors.forbidden(&path, detail);
            }
            Some(_) => {}
        }
    }
    errors
}
