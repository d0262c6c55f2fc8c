//! Pods changed by their status.

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Pod, PodExtendedResourceClaimStatus, PodSpec, PodStatus, ResourceClaim,
    ResourceHealth,
};

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::super::golang;
use super::super::ip::{is_dual_stack, legacy_ip, parse_sloppy};
use super::super::meta;
use super::super::resources::is_native;
use super::super::rules::{amount, check_int, dns_label, immutable, list, qualified_name, text};
use super::super::security;
use super::super::volume::object_name;
use super::annotation_updates;

/// A pod changed by its status.
pub(crate) fn status(new: &Pod, old: &Pod) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = meta::validate_update_core(&new.metadata, &old.metadata, &path);
    errors.extend(annotation_updates(new, old, &path.child("annotations")));
    let path = Path::new("status");
    let (now, before) = (new.status.clone().unwrap_or_default(), old.status.clone().unwrap_or_default());
    let empty = PodSpec::default();
    let spec = old.spec.as_ref().unwrap_or(&empty);
    for (i, condition) in list(&now.conditions).iter().enumerate() {
        let at = path.child("conditions").index(i);
        if let Some(generation) = condition.observed_generation.filter(|g| *g < 0) {
            errors.invalid(&at.child("observedGeneration"), generation, "must be a non-negative integer");
        }
        if !matches!(condition.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            errors.extend(qualified_name(&condition.type_, &at.child("Type")));
        }
    }
    let (nominated, at) = (text(&now.nominated_node_name), path.child("nominatedNodeName"));
    let changed = nominated != text(&before.nominated_node_name) && !nominated.is_empty();
    if changed {
        errors.extend(object_name(nominated, &at));
        if !text(&spec.node_name).is_empty() {
            errors.forbidden(&at, "may not be set on pods that are already bound to a node");
        }
    }
    if let Some(generation) = now.observed_generation.filter(|g| *g < 0) {
        errors.invalid(&path.child("observedGeneration"), generation, "must be a non-negative integer");
    }
    let class = |status: &Option<String>| text(status).to_owned();
    errors.extend(immutable(&class(&now.qos_class), &class(&before.qos_class), &path.child("qosClass")));
    let transitions = all_statuses(&now).into_iter().zip(all_statuses(&before));
    for ((key, now, kind), (_, before, _)) in transitions {
        errors.extend(state_transitions(now, before, spec, kind, &path.child(key)));
    }
    let claims = list(&spec.resource_claims);
    let statuses = list(&now.resource_claim_statuses);
    for (i, status) in statuses.iter().enumerate() {
        let at = path.child("resourceClaimStatuses").index(i);
        if !claims.iter().any(|c| c.name == status.name) {
            let detail = "must match the name of an entry in `spec.resourceClaims`";
            errors.invalid(&at.child("name"), status.name.as_str(), detail);
        }
        if statuses[..i].iter().any(|s| s.name == status.name) {
            errors.duplicate(&at.child("name"), status.name.as_str());
        }
        if let Some(name) = &status.resource_claim_name {
            errors.extend(object_name(name, &at.child("resourceClaimName")));
        }
    }
    extended_claim(now.extended_resource_claim_status.as_ref(), spec, &path, &mut errors);
    node_claims(&now, spec, &path, &mut errors);
    addresses(&now, &before, &mut errors);
    let statuses = all_statuses(&now);
    for (key, statuses, _) in statuses {
        users(statuses, security::os_name(spec), &path.child(key), &mut errors);
    }
    for (key, statuses, kind) in statuses {
        let containers = match kind {
            Kind::App => spec.containers.as_slice(),
            Kind::Init => list(&spec.init_containers),
            Kind::Ephemeral => {
                no_allocated_resources(statuses, &path.child(key), &mut errors);
                continue;
            }
        };
        allocated_resources(statuses, containers, &path.child(key), &mut errors);
    }
    for (key, statuses, _) in statuses {
        image_volumes(statuses, &path.child(key), &mut errors);
    }
    errors
}

/// The statuses of all containers, in the order in which they are checked.
fn all_statuses(status: &PodStatus) -> [(&'static str, &[ContainerStatus], Kind); 3] {
    [
        ("containerStatuses", list(&status.container_statuses), Kind::App),
        ("initContainerStatuses", list(&status.init_container_statuses), Kind::Init),
        ("ephemeralContainerStatuses", list(&status.ephemeral_container_statuses), Kind::Ephemeral),
    ]
}

/// The claim that was made for extended resources, and which request serves which container.
fn extended_claim(
    status: Option<&PodExtendedResourceClaimStatus>,
    spec: &PodSpec,
    path: &Path,
    errors: &mut ErrorList,
) {
    let Some(status) = status else { return };
    let path = path.child("extendedResourceClaimStatus");
    let mappings = path.child("requestMappings");
    if status.request_mappings.is_empty() {
        errors.required(&mappings, "at least one request mapping is required");
    }
    for (i, mapping) in status.request_mappings.iter().enumerate() {
        let at = mappings.index(i);
        let mut all = list(&spec.init_containers).iter().chain(&spec.containers);
        match all.rfind(|c| c.name == mapping.container_name) {
            Some(container) if !requests(container).any(|name| *name == mapping.resource_name) => {
                let detail = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                errors.invalid(&at.child("resourceName"), mapping.resource_name.as_str(), detail);
            }
            Some(_) => {}
            None => {
                let detail =
                    "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                errors.invalid(&at.child("containerName"), mapping.container_name.as_str(), detail);
            }
        }
        errors.extend(dns_label(&mapping.request_name, &path.child("requestName")));
        if status.request_mappings[..i].contains(mapping) {
            errors.duplicate(&at.child("containerName"), mapping.container_name.as_str());
            errors.duplicate(&at.child("resourceName"), mapping.resource_name.as_str());
            errors.duplicate(&at.child("requestName"), mapping.request_name.as_str());
        }
    }
    match status.resource_claim_name.as_str() {
        "" => errors.required(&path.child("resourceClaimName"), ""),
        name => errors.extend(object_name(name, &path.child("resourceClaimName"))),
    }
}

fn requests(container: &Container) -> impl Iterator<Item = &String> {
    container.resources.iter().flat_map(|r| r.requests.iter()).flat_map(|r| r.keys())
}

/// What of the node's own resources the claims of the pod take.
fn node_claims(status: &PodStatus, spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let path = path.child("nodeAllocatableResourceClaimStatuses");
    for (i, claim) in list(&status.node_allocatable_resource_claim_statuses).iter().enumerate() {
        let (path, name) = (path.index(i), claim.resource_claim_name.as_str());
        if name.is_empty() {
            errors.required(&path.child("resourceClaimName"), "must not be empty");
        }
        let in_spec = list(&spec.resource_claims).iter().filter_map(|c| c.resource_claim_name.as_ref());
        let made = list(&status.resource_claim_statuses).iter();
        let made = made.filter_map(|c| c.resource_claim_name.as_ref());
        if !in_spec.chain(made).any(|own| own == name) {
            errors.invalid(&path.child("resourceClaimName"), name, "no mapping found in pod reference");
        }
        if list(&claim.containers).is_empty() {
            errors.required(&path.child("containers"), "must not be empty");
        }
        let at = path.child("resources");
        if claim.resources.is_empty() {
            errors.required(&at, "must not be empty");
        }
        for (name, quantity) in &claim.resources {
            let at = at.key(name);
            if !is_native(name) {
                errors.invalid(&at, name.as_str(), "must be a node allocatable resource name");
            }
            let quantity = amount(quantity);
            if quantity.sign() < 0 {
                errors.invalid(&at, quantity.to_string(), "must be non-negative");
            }
        }
    }
}

/// The users that processes of containers run as.
fn users(statuses: &[ContainerStatus], os: Option<&str>, path: &Path, errors: &mut ErrorList) {
    for (i, status) in statuses.iter().enumerate() {
        let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) else { continue };
        let path = path.index(i).child("user").child("linux");
        match os.unwrap_or("linux") {
            "windows" => errors.forbidden(&path, "cannot be set for a windows pod"),
            "linux" => {
                errors.extend(check_int(&path.child("uid"), user.uid, format::user_id));
                errors.extend(check_int(&path.child("gid"), user.gid, format::user_id));
                for (j, group) in list(&user.supplemental_groups).iter().enumerate() {
                    let at = path.child("supplementalGroups").index(j);
                    errors.extend(check_int(&at, *group, format::user_id));
                }
            }
            _ => {}
        }
    }
}

fn no_allocated_resources(statuses: &[ContainerStatus], path: &Path, errors: &mut ErrorList) {
    for (i, status) in statuses.iter().enumerate() {
        if !list(&status.allocated_resources_status).is_empty() {
            let at = path.index(i).child("allocatedResourcesStatus");
            errors.forbidden(&at, "must not be specified in container status");
        }
    }
}

/// The devices that containers were given, and how they are.
fn allocated_resources(
    statuses: &[ContainerStatus],
    containers: &[Container],
    path: &Path,
    errors: &mut ErrorList,
) {
    for (i, status) in statuses.iter().enumerate() {
        let container = containers.iter().find(|c| c.name == status.name);
        for (j, resource) in list(&status.allocated_resources_status).iter().enumerate() {
            let path = path.index(i).child("allocatedResourcesStatus").index(j);
            if let Some(container) = container {
                allocated_name(&resource.name, container, &path.child("name"), errors);
            }
            resource_health(list(&resource.resources), &path.child("resources"), errors);
        }
    }
}

fn allocated_name(name: &str, container: &Container, path: &Path, errors: &mut ErrorList) {
    if !name.starts_with("claim:") {
        if !requests(container).any(|own| own == name) {
            errors.invalid(path, name, "must match one of the container's resource requests");
        }
        return;
    }
    let claims = container.resources.as_ref().map(|r| list(&r.claims)).unwrap_or_default();
    let as_written = |claim: &ResourceClaim| match text(&claim.request) {
        "" => format!("claim:{}", claim.name),
        request => format!("claim:{}/{request}", claim.name),
    };
    if !claims.iter().any(|claim| as_written(claim) == name) {
        let detail = "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty";
        errors.invalid(path, name, detail);
    }
}

const MAX_HEALTH_MESSAGE: usize = 1024;

fn resource_health(resources: &[ResourceHealth], path: &Path, errors: &mut ErrorList) {
    for (i, resource) in resources.iter().enumerate() {
        let path = path.index(i);
        errors.one_of(&path.child("health"), text(&resource.health), &["Healthy", "Unhealthy", "Unknown"]);
        match &resource.message {
            Some(message) if message.is_empty() => {
                errors.required(&path.child("message"), "must be non-empty if specified");
            }
            Some(message) if message.len() > MAX_HEALTH_MESSAGE => {
                errors.too_long(&path.child("message"), MAX_HEALTH_MESSAGE);
            }
            _ => {}
        }
        if resources[..i].iter().any(|other| other.resource_id == resource.resource_id) {
            errors.duplicate(&path.child("resourceID"), resource.resource_id.as_str());
        }
    }
}

const MAX_IMAGE_REFERENCE: usize = 256;

fn image_volumes(statuses: &[ContainerStatus], path: &Path, errors: &mut ErrorList) {
    for (i, status) in statuses.iter().enumerate() {
        for (j, mount) in list(&status.volume_mounts).iter().enumerate() {
            let Some(image) = mount.volume_status.as_ref().and_then(|v| v.image.as_ref()) else { continue };
            let path = path.index(i).child("volumeMounts").index(j).child("volumeStatus");
            let path = path.child("imageVolumeStatus").child("imageRef");
            if image.image_ref.is_empty() {
                errors.required(&path, "imageRef must not be empty");
            }
            if image.image_ref.len() > MAX_IMAGE_REFERENCE {
                errors.too_long(&path, MAX_IMAGE_REFERENCE);
            }
        }
    }
}

fn addresses(now: &PodStatus, before: &PodStatus, errors: &mut ErrorList) {
    let path = Path::new("status").child("podIPs");
    let ips = |s: &PodStatus| -> Vec<String> { list(&s.pod_ips).iter().map(|ip| ip.ip.clone()).collect() };
    let (own, old) = (ips(now), ips(before));
    let shown = |list: &[String], kind: &str| {
        let all: Vec<_> = list.iter().map(|ip| serde_json::json!({"ip": ip})).collect();
        golang::show_list(kind, &serde_json::Value::Array(all))
    };
    let many = |own: &[String], old: &[String], path: &Path, kind: &str, errors: &mut ErrorList| {
        for (i, ip) in own.iter().enumerate() {
            errors.extend(legacy_ip(&path.index(i), ip, old));
        }
        if own.len() > 1 {
            let dual = is_dual_stack(own.iter().map(|ip| parse_sloppy(ip)));
            if dual != Some(true) || own.len() > 2 {
                let detail = "may specify no more than one IP for each IP family";
                errors.push(Error::invalid_shown(path, shown(own, kind), detail));
            }
        }
    };
    many(&own, &old, &path, "core.PodIP", errors);
    let ips = |s: &PodStatus| -> Vec<String> { list(&s.host_ips).iter().map(|ip| ip.ip.clone()).collect() };
    let (own, old) = (ips(now), ips(before));
    let path = Path::new("status").child("hostIPs");
    if let Some(first) = own.first().filter(|first| *first != text(&now.host_ip)) {
        errors.invalid(&path.index(0).child("ip"), first.as_str(), "must be equal to `hostIP`");
    }
    many(&own, &old, &path, "core.HostIP", errors);
}

/// Which containers a list of statuses is of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    App,
    Init,
    Ephemeral,
}

/// Containers that have ended do not come back, unless something says they may restart.
fn state_transitions(
    now: &[ContainerStatus],
    before: &[ContainerStatus],
    spec: &PodSpec,
    kind: Kind,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    if kind != Kind::Ephemeral && all_could_restart(spec) {
        return errors;
    }
    for (i, old) in before.iter().enumerate() {
        let Some(ended) = old.state.as_ref().and_then(|s| s.terminated.as_ref()) else { continue };
        let back = now
            .iter()
            .find(|n| n.name == old.name && n.state.as_ref().is_none_or(|s| s.terminated.is_none()));
        if back.is_none() {
            continue;
        }
        let containers = match kind {
            Kind::App => spec.containers.as_slice(),
            Kind::Init => list(&spec.init_containers),
            Kind::Ephemeral => &[],
        };
        let container = containers.iter().find(|c| c.name == old.name);
        if !container.is_some_and(|c| should_restart(c, spec, ended.exit_code)) {
            let detail = "may not be transitioned to non-terminated state";
            errors.forbidden(&path.index(i).child("state"), detail);
        }
    }
    errors
}

fn all_could_restart(spec: &PodSpec) -> bool {
    let restarts_all = |c: &Container| {
        list(&c.restart_policy_rules).iter().any(|rule| rule.action == "RestartAllContainers")
    };
    spec.containers.iter().chain(list(&spec.init_containers)).any(restarts_all)
}

/// Whether a container that ended with a code is started again.
fn should_restart(container: &Container, spec: &PodSpec, code: i32) -> bool {
    for rule in list(&container.restart_policy_rules) {
        let matched = rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = list(&codes.values).contains(&code);
            if codes.operator == "In" { listed } else { !listed }
        });
        if matched && rule.action == "Restart" {
            return true;
        }
    }
    match container.restart_policy.as_deref().unwrap_or(text(&spec.restart_policy)) {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}
