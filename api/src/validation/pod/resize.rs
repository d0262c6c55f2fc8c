//! Pods whose resources change while they run.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::field::{Error, ErrorList, Path, Report};
use crate::pod as rules;

use super::super::meta;
use super::super::rules::{list, text};
use super::{metadata_and_spec, same};

type Amounts = BTreeMap<String, Quantity>;

/// A pod with other resources.
pub(crate) fn resize(new: &Pod, old: &Pod) -> ErrorList {
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &Path::new("metadata"));
    errors.extend(metadata_and_spec(new, Some(old)));
    let refuse = |why: &str| vec![Error::forbidden(&Path::new("[]"), why)];
    if rules::is_mirror(old) {
        return refuse("static pods cannot be resized");
    }
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else { return errors };
    if old_spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return refuse("windows pods cannot be resized");
    }
    let path = Path::new("spec");
    if rules::qos_class(old) != rules::compute_qos_class(new_spec) {
        let class = new.status.as_ref().map(|s| text(&s.qos_class)).unwrap_or_default();
        errors.invalid(&path, class, "Pod QOS Class may not change as a result of resizing");
    }
    let running = old.status.as_ref().map(|s| list(&s.container_statuses)).unwrap_or_default();
    let running = running.iter().find(|c| c.state.as_ref().is_some_and(|s| s.running.is_some()));
    if running.is_some_and(|c| c.resources.is_none()) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    let mut munged = new_spec.clone();
    if has_pod_level(old_spec) || has_pod_level(new_spec) {
        pod_level(&mut munged, new_spec, old_spec, &path, &mut errors);
    }
    let order = container_order(new_spec, old_spec, &path);
    if !order.is_empty() {
        errors.extend(order);
        return errors;
    }
    let pairs = [
        ("initContainers", list(&new_spec.init_containers), list(&old_spec.init_containers)),
        ("containers", new_spec.containers.as_slice(), old_spec.containers.as_slice()),
    ];
    for (key, new, old) in pairs {
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            removed(new.resources.as_ref(), old.resources.as_ref(), &path.child(key).index(i), &mut errors);
        }
    }
    only_cpu_and_memory(&mut munged, old_spec, &path, &mut errors);
    if errors.is_empty() && !same(&munged, old_spec) {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
    errors
}

fn has_pod_level(spec: &PodSpec) -> bool {
    let set = |list: &Option<Amounts>| list.as_ref().is_some_and(|l| !l.is_empty());
    spec.resources.as_ref().is_some_and(|r| set(&r.requests) || set(&r.limits))
}

fn is_removed(new: Option<&Amounts>, old: Option<&Amounts>) -> bool {
    old.into_iter().flatten().any(|(name, _)| !new.is_some_and(|n| n.contains_key(name)))
}

fn pod_level(munged: &mut PodSpec, new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let at = path.child("resources");
    if old.resources.is_some() && new.resources.is_none() {
        return errors.forbidden(&at, "pod-level resources cannot be removed");
    }
    if let (Some(new), Some(old)) = (&new.resources, &old.resources) {
        if is_removed(new.requests.as_ref(), old.requests.as_ref()) {
            errors.forbidden(&at.child("requests"), "pod-level resource requests cannot be removed");
        }
        if is_removed(new.limits.as_ref(), old.limits.as_ref()) {
            errors.forbidden(&at.child("limits"), "pod-level resource limits cannot be removed");
        }
    }
    let empty = ResourceRequirements::default();
    if let Some(own) = &mut munged.resources {
        set_back(own, old.resources.as_ref().unwrap_or(&empty));
    }
    if old.resources.is_none() && munged.resources.as_ref().is_some_and(|r| *r == empty) {
        munged.resources = None;
    }
    if !same(&munged.resources, &old.resources) {
        errors.forbidden(path, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Sets cpu and memory back to what they were.
fn set_back(own: &mut ResourceRequirements, old: &ResourceRequirements) {
    for (own, old) in [(&mut own.requests, &old.requests), (&mut own.limits, &old.limits)] {
        let mut amounts = own.clone().unwrap_or_default();
        for name in ["cpu", "memory"] {
            match old.as_ref().and_then(|o| o.get(name)) {
                Some(amount) => amounts.insert(name.to_owned(), amount.clone()),
                None => amounts.remove(name),
            };
        }
        *own = Some(amounts).filter(|a| !a.is_empty());
    }
}

fn container_order(new: &PodSpec, old: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let pairs = [
        ("containers", new.containers.as_slice(), old.containers.as_slice()),
        ("initContainers", list(&new.init_containers), list(&old.init_containers)),
    ];
    for (key, new, old) in pairs {
        if new.len() != old.len() {
            errors.forbidden(&path.child(key), format!("{key} may not be added or removed on resize"));
            continue;
        }
        for (i, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
            let at = path.child(key).index(i).child("name");
            errors.forbidden(&at, format!("{key} may not be renamed or reordered on resize"));
        }
    }
    errors
}

fn removed(
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let Some(old) = old else { return };
    let at = path.child("resources");
    if is_removed(new.and_then(|r| r.requests.as_ref()), old.requests.as_ref()) {
        errors.forbidden(&at.child("requests"), "resource requests cannot be removed");
    }
    if is_removed(new.and_then(|r| r.limits.as_ref()), old.limits.as_ref()) {
        errors.forbidden(&at.child("limits"), "resource limits cannot be removed");
    }
}

fn set_container_back(container: &mut Container, old: &Container) {
    let empty = ResourceRequirements::default();
    let before = old.resources.as_ref().unwrap_or(&empty);
    let mut own = container.resources.clone().unwrap_or_default();
    set_back(&mut own, before);
    // As upstream, whose copy keeps limits and requests and forgets claims.
    own.claims = None;
    container.resources = if own == empty && old.resources.is_none() { None } else { Some(own) };
}

fn only_cpu_and_memory(munged: &mut PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (container, before) in munged.containers.iter_mut().zip(&old.containers) {
        set_container_back(container, before);
        if !same(container, before) {
            errors.forbidden(path, "only cpu and memory resources are mutable");
        }
    }
    let old_init = list(&old.init_containers);
    for (i, (container, before)) in munged.init_containers.iter_mut().flatten().zip(old_init).enumerate() {
        let changed = !same(container, before);
        let at = path.child("initContainers").index(i);
        set_container_back(container, before);
        if !same(container, before) {
            let detail = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.forbidden(&at, detail);
        }
        if changed && !rules::is_sidecar(container) {
            let policies = list(&container.resize_policy).iter();
            for _ in policies.filter(|p| p.restart_policy == "RestartContainer") {
                let detail =
                    "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
                errors.forbidden(&at, detail);
            }
        }
    }
}
