//! Containers: ports, environment, mounts, probes, hooks.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerRestartRule, EnvFromSource, EnvVar, EphemeralContainer, ExecAction,
    GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe, SleepAction, TCPSocketAction,
    VolumeDevice, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::pod::Fault;
use super::resources::{container_resource_name, requirements};
use super::rules::{check, check_int, dns_label, list, non_negative, text, to_value};
use super::security;
use super::volume::{Volumes, descending_path, field_selector, no_backsteps, resource_selector};

/// What containers of one pod are checked against.
pub(crate) struct Context<'a> {
    pub(crate) spec: &'a PodSpec,
    pub(crate) volumes: Volumes<'a>,
    pub(crate) claims: BTreeSet<String>,
    pub(crate) grace: Option<i64>,
    pub(crate) host_users: bool,
    pub(crate) faults: &'a [Fault],
}

pub(crate) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// What all kinds of containers have in common.
pub(crate) fn common(container: &Container, context: &Context<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if container.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.extend(dns_label(&container.name, &path.child("name")));
    }
    if text(&container.image).is_empty() {
        errors.required(&path.child("image"), "");
    }
    let at = path.child("terminationMessagePolicy");
    match text(&container.termination_message_policy) {
        "" => errors.required(&at, ""),
        policy => errors.one_of(&at, policy, &["File", "FallbackToLogsOnError"]),
    }
    errors.extend(ports(list(&container.ports), &path.child("ports")));
    errors.extend(env(list(&container.env), &path.child("env")));
    errors.extend(env_from(list(&container.env_from), &path.child("envFrom")));
    let (mounts, devices) = (list(&container.volume_mounts), list(&container.volume_devices));
    errors.extend(volume_mounts(mounts, devices, container, context, &path.child("volumeMounts")));
    errors.extend(volume_devices(devices, mounts, context, &path.child("volumeDevices")));
    errors.extend(pull_policy(text(&container.image_pull_policy), &path.child("imagePullPolicy")));
    if let Some(resources) = &container.resources {
        let at = path.child("resources");
        errors.extend(requirements(resources, container_resource_name, &context.claims, context.faults, &at));
    }
    resize_policy(container, context.spec, &path.child("resizePolicy"), &mut errors);
    if let Some(security) = &container.security_context {
        errors.extend(security::container(security, context.host_users, &path.child("securityContext")));
    }
    errors
}

/// When an image is pulled.
pub(crate) fn pull_policy(policy: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match policy {
        "" => errors.required(path, ""),
        _ => errors.one_of(path, policy, &["Always", "IfNotPresent", "Never"]),
    }
    errors
}

fn resize_policy(container: &Container, spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let policies = list(&container.resize_policy);
    for (i, policy) in policies.iter().enumerate() {
        if policies[..i].iter().any(|p| p.resource_name == policy.resource_name) {
            errors.duplicate(&path.index(i), policy.resource_name.as_str());
        }
        match policy.resource_name.as_str() {
            "" => errors.required(path, ""),
            name => errors.one_of(path, name, &["cpu", "memory"]),
        }
        match policy.restart_policy.as_str() {
            "" => errors.required(path, ""),
            restart => errors.one_of(path, restart, &["NotRequired", "RestartContainer"]),
        }
        if text(&spec.restart_policy) == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(path, policy.restart_policy.as_str(), detail);
        }
    }
}

fn ports(ports: &[ContainerPort], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        // As upstream, whose loop over the messages of a bad name changes the index that later paths are made with;
        // the path made before stays.
        let path = path.index(i);
        let name = text(&port.name);
        if !name.is_empty() {
            let messages = format::port_name(name);
            if !messages.is_empty() {
                errors.messages(&path.child("name"), name, messages);
            } else if !names.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        if port.container_port == 0 {
            errors.required(&path.child("containerPort"), "");
        } else {
            errors.extend(check_int(&path.child("containerPort"), port.container_port, format::port_number));
        }
        if let Some(host) = port.host_port.filter(|p| *p != 0) {
            errors.extend(check_int(&path.child("hostPort"), host, format::port_number));
        }
        match text(&port.protocol) {
            "" => errors.required(&path.child("protocol"), ""),
            protocol => errors.one_of(&path.child("protocol"), protocol, &PROTOCOLS),
        }
    }
    errors
}

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn env(vars: &[EnvVar], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, var) in vars.iter().enumerate() {
        let path = path.index(i);
        if var.name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.messages(&path.child("name"), &var.name, format::relaxed_env_var_name(&var.name));
        }
        env_source(var, &path.child("valueFrom"), &mut errors);
    }
    errors
}

fn env_source(var: &EnvVar, path: &Path, errors: &mut ErrorList) {
    let Some(source) = &var.value_from else { return };
    let mut count = 0;
    if let Some(field) = &source.field_ref {
        count += 1;
        errors.extend(field_selector(field, &ENV_FIELDS, &path.child("fieldRef")));
    }
    if let Some(resource) = &source.resource_field_ref {
        count += 1;
        errors.extend(resource_selector(resource, &path.child("resourceFieldRef"), false));
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|r| (&r.name, &r.key))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|r| (&r.name, &r.key))),
    ];
    for (key, reference) in keys {
        let Some((name, entry)) = reference else { continue };
        count += 1;
        let path = path.child(key);
        errors.messages(&path.child("name"), name, format::dns1123_subdomain(name));
        if entry.is_empty() {
            errors.required(&path.child("key"), "");
        } else {
            errors.messages(&path.child("key"), entry, format::config_map_key(entry));
        }
    }
    if let Some(file) = &source.file_key_ref {
        count += 1;
        let path = path.child("fileKeyRef");
        match file.key.as_str() {
            "" => errors.required(&path.child("key"), ""),
            key => errors.messages(&path.child("key"), key, format::relaxed_env_var_name(key)),
        }
        match file.volume_name.as_str() {
            "" => errors.required(&path.child("volumeName"), ""),
            name => errors.extend(dns_label(name, &path.child("volumeName"))),
        }
        match file.path.as_str() {
            "" => errors.required(&path.child("path"), ""),
            own => errors.extend(no_backsteps(own, &path.child("path"))),
        }
    }
    if count == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path, "", detail);
    } else if !text(&var.value).is_empty() {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn env_from(sources: &[EnvFromSource], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, source) in sources.iter().enumerate() {
        let own = path.index(i);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            errors.messages(&own.child("prefix"), prefix, format::relaxed_env_var_name(prefix));
        }
        let names = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| &r.name)),
            ("secretRef", source.secret_ref.as_ref().map(|r| &r.name)),
        ];
        for (key, name) in names {
            let Some(name) = name else { continue };
            let at = own.child(key).child("name");
            if name.is_empty() {
                errors.required(&at, "");
            } else {
                errors.messages(&at, name, format::name_is_subdomain(name, true));
            }
        }
        match names.iter().filter(|(_, name)| name.is_some()).count() {
            0 => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
        }
    }
    errors
}

fn volume_mounts(
    mounts: &[VolumeMount],
    devices: &[VolumeDevice],
    container: &Container,
    context: &Context<'_>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, mount) in mounts.iter().enumerate() {
        let own = path.index(i);
        if mount.name.is_empty() {
            errors.required(&own.child("name"), "");
        }
        if !context.volumes.contains_key(mount.name.as_str()) {
            errors.push(Error::not_found(&own.child("name"), mount.name.as_str()));
        }
        if mount.mount_path.is_empty() {
            errors.required(&own.child("mountPath"), "");
        }
        if mounts[..i].iter().any(|m| m.mount_path == mount.mount_path) {
            errors.invalid(&own.child("mountPath"), mount.mount_path.as_str(), "must be unique");
        }
        if devices.iter().any(|d| d.name == mount.name) {
            errors.invalid(
                &own.child("name"),
                mount.name.as_str(),
                "must not already exist in volumeDevices",
            );
        }
        if devices.iter().any(|d| d.device_path == mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.invalid(&own.child("mountPath"), mount.mount_path.as_str(), detail);
        }
        sub_paths(mount, &own, path, &mut errors);
        if let Some(propagation) = &mount.mount_propagation {
            let at = path.child("mountPropagation");
            errors.one_of(&at, propagation, &["Bidirectional", "HostToContainer", "None"]);
            let privileged = container.security_context.as_ref().and_then(|c| c.privileged) == Some(true);
            if propagation == "Bidirectional" && !privileged {
                let detail = "Bidirectional mount propagation is available only to privileged containers";
                errors.forbidden(&at, detail);
            }
        }
        recursive_read_only(mount, &path.child("recursiveReadOnly"), &mut errors);
    }
    errors
}

/// As upstream, which reports the paths below the list and not below the mount.
fn sub_paths(mount: &VolumeMount, own: &Path, path: &Path, errors: &mut ErrorList) {
    let (sub, expression) = (text(&mount.sub_path), text(&mount.sub_path_expr));
    if !sub.is_empty() {
        errors.extend(descending_path(sub, &path.child("subPath")));
    }
    if !expression.is_empty() {
        if !sub.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.invalid(&own.child("subPathExpr"), expression, detail);
        }
        errors.extend(descending_path(expression, &path.child("subPathExpr")));
    }
}

fn recursive_read_only(mount: &VolumeMount, path: &Path, errors: &mut ErrorList) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|p| p != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.forbidden(path, detail);
            }
        }
        Some(other) => errors.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn volume_devices(
    devices: &[VolumeDevice],
    mounts: &[VolumeMount],
    context: &Context<'_>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in devices.iter().enumerate() {
        let (name, device_path) = (device.name.as_str(), device.device_path.as_str());
        let (name_at, path_at) = (path.index(i).child("name"), path.index(i).child("devicePath"));
        let volume = context.volumes.get(name);
        if name.is_empty() {
            errors.required(&name_at, "");
        }
        if names.contains(name) {
            errors.invalid(&name_at, name, "must be unique");
        }
        match volume {
            Some(v) if v.persistent_volume_claim.is_none() && v.ephemeral.is_none() => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.invalid(&name_at, name, detail);
            }
            Some(_) => {}
            None => errors.push(Error::not_found(&name_at, name)),
        }
        if device_path.is_empty() {
            errors.required(&path_at, "");
        }
        if paths.contains(device_path) {
            errors.invalid(&path_at, device_path, "must be unique");
        }
        if !device_path.is_empty() && !no_backsteps(device_path, path).is_empty() {
            errors.invalid(&path_at, device_path, "can not contain backsteps ('..')");
        } else {
            paths.insert(device_path);
        }
        if mounts.iter().any(|m| m.name == name) {
            errors.invalid(&name_at, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| m.mount_path == device_path) {
            errors.invalid(&path_at, device_path, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
    errors
}

/// The handlers of a probe or hook.
#[derive(Default)]
struct Handlers<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

fn handlers(handlers: &Handlers<'_>, grace: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut count = 0;
    let mut take = |key: &str, set: bool, check: &dyn Fn(&Path) -> ErrorList| {
        if !set {
            return;
        }
        if count > 0 {
            errors.forbidden(&path.child(key), "may not specify more than 1 handler type");
        } else {
            errors.extend(check(&path.child(key)));
        }
        count += 1;
    };
    take("exec", handlers.exec.is_some(), &|path| {
        let mut errors = ErrorList::new();
        if handlers.exec.is_none_or(|e| list(&e.command).is_empty()) {
            errors.required(&path.child("command"), "");
        }
        errors
    });
    take("httpGet", handlers.http_get.is_some(), &|path| {
        handlers.http_get.map(|h| http_get(h, path)).unwrap_or_default()
    });
    take("tcpSocket", handlers.tcp_socket.is_some(), &|path| {
        handlers.tcp_socket.map(|t| port_or_name(&t.port, &path.child("port"))).unwrap_or_default()
    });
    take("grpc", handlers.grpc.is_some(), &|path| {
        handlers.grpc.map(|g| check_int(&path.child("port"), g.port, format::port_number)).unwrap_or_default()
    });
    take("sleep", handlers.sleep.is_some(), &|path| {
        let mut errors = ErrorList::new();
        let seconds = handlers.sleep.map_or(0, |s| s.seconds);
        if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&seconds)) {
            let detail =
                format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.invalid(path, seconds, detail);
        }
        errors
    });
    if count == 0 {
        errors.required(path, "must specify a handler type");
    }
    errors
}

fn http_get(action: &HTTPGetAction, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if text(&action.path).is_empty() {
        errors.required(&path.child("path"), "");
    }
    errors.extend(port_or_name(&action.port, &path.child("port")));
    errors.one_of(&path.child("scheme"), text(&action.scheme), &["HTTP", "HTTPS"]);
    for header in list(&action.http_headers) {
        errors.messages(&path.child("httpHeaders"), &header.name, format::http_header_name(&header.name));
    }
    errors
}

/// A port by number or name.
pub(crate) fn port_or_name(port: &IntOrString, path: &Path) -> ErrorList {
    match port {
        IntOrString::Int(number) => check_int(path, *number, format::port_number),
        IntOrString::String(name) => check(path, name, format::port_name(name)),
    }
}

fn probe(probe: &Probe, grace: Option<i64>, path: &Path) -> ErrorList {
    let handler = Handlers {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    let mut errors = handlers(&handler, grace, path);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (key, number) in numbers {
        errors.extend(non_negative(number.unwrap_or(0), &path.child(key)));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
    errors
}

fn probes(container: &Container, grace: Option<i64>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let once = |own: &Probe, path: &Path, errors: &mut ErrorList| {
        let threshold = own.success_threshold.unwrap_or(0);
        if threshold != 1 {
            errors.invalid(&path.child("successThreshold"), threshold, "must be 1");
        }
    };
    if let Some(own) = &container.liveness_probe {
        let path = path.child("livenessProbe");
        errors.extend(probe(own, grace, &path));
        once(own, &path, &mut errors);
    }
    if let Some(own) = &container.readiness_probe {
        let path = path.child("readinessProbe");
        errors.extend(probe(own, grace, &path));
        if let Some(seconds) = own.termination_grace_period_seconds {
            let at = path.child("terminationGracePeriodSeconds");
            errors.invalid(&at, seconds, "must not be set for readinessProbes");
        }
    }
    if let Some(own) = &container.startup_probe {
        let path = path.child("startupProbe");
        errors.extend(probe(own, grace, &path));
        once(own, &path, &mut errors);
    }
    errors
}

fn lifecycle(lifecycle: &Lifecycle, context: &Context<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let hook = |hook: &LifecycleHandler, path: &Path| {
        let handler = Handlers {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        };
        handlers(&handler, context.grace, path)
    };
    if let Some(own) = &lifecycle.post_start {
        errors.extend(hook(own, &path.child("postStart")));
    }
    if let Some(own) = &lifecycle.pre_stop {
        errors.extend(hook(own, &path.child("preStop")));
    }
    if let Some(signal) = &lifecycle.stop_signal {
        let at = path.child("stopSignal");
        match security::os_name(context.spec) {
            None => errors.forbidden(&at, "may not be set for containers with empty `spec.os.name`"),
            Some("windows") => errors.one_of(&at, signal, &["SIGKILL", "SIGTERM"]),
            Some("linux") => {
                let names = linux_signals();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                errors.one_of(&at, signal, &names);
            }
            Some(_) => {}
        }
    }
    errors
}

/// The signals of Linux by name, sorted.
fn linux_signals() -> Vec<String> {
    let plain = "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX";
    let mut names: Vec<String> = plain.split(' ').map(|name| format!("SIG{name}")).collect();
    names.extend((1..=15).map(|i| format!("SIGRTMIN+{i}")));
    names.extend((1..=14).map(|i| format!("SIGRTMAX-{i}")));
    names.sort();
    names
}

fn restart_rules(policy: Option<&str>, rules: &[ContainerRestartRule], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let at = path.child("restartPolicy");
    match policy {
        None if rules.is_empty() => return errors,
        None => errors.required(&at, "must specify restartPolicy when restart rules are used"),
        Some(policy) => errors.one_of(&at, policy, &["Always", "Never", "OnFailure"]),
    }
    if rules.len() > 20 {
        errors.push(Error::too_many(&path.child("restartPolicyRules"), rules.len(), 20));
    }
    for (i, rule) in rules.iter().enumerate() {
        let path = path.child("restartPolicyRules").index(i);
        errors.one_of(&path.child("action"), &rule.action, &["Restart", "RestartAllContainers"]);
        let at = path.child("exitCodes");
        match &rule.exit_codes {
            None => errors.required(&at, "must be specified"),
            Some(codes) => {
                errors.one_of(&at.child("operator"), &codes.operator, &["In", "NotIn"]);
                let count = list(&codes.values).len();
                if count > 255 {
                    errors.push(Error::too_many(&at.child("values"), count, 255));
                }
            }
        }
    }
    errors
}

/// The containers proper.
pub(crate) fn containers(context: &Context<'_>, path: &Path) -> ErrorList {
    let containers = &context.spec.containers;
    let mut errors = ErrorList::new();
    if containers.is_empty() {
        errors.required(path, "");
        return errors;
    }
    for (i, container) in containers.iter().enumerate() {
        let path = path.index(i);
        errors.extend(common(container, context, &path));
        if containers[..i].iter().any(|c| c.name == container.name) {
            errors.duplicate(&path.child("name"), container.name.as_str());
        }
        if let Some(own) = &container.lifecycle {
            errors.extend(lifecycle(own, context, &path.child("lifecycle")));
        }
        errors.extend(probes(container, context.grace, &path));
        let rules = list(&container.restart_policy_rules);
        errors.extend(restart_rules(container.restart_policy.as_deref(), rules, &path));
    }
    errors.extend(host_port_conflicts(containers, path));
    errors
}

fn host_port_conflicts(containers: &[Container], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut used = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(&container.ports).iter().enumerate() {
            let Some(host) = port.host_port.filter(|p| *p != 0) else { continue };
            let key = format!("{}/{}/{host}", text(&port.protocol), text(&port.host_ip));
            if used.contains(&key) {
                errors.duplicate(&path.index(i).child("ports").index(j).child("hostPort"), key);
            } else {
                used.insert(key);
            }
        }
    }
    errors
}

/// The init containers.
pub(crate) fn init_containers(context: &Context<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut names: BTreeSet<&str> = context.spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in list(&context.spec.init_containers).iter().enumerate() {
        let own = path.index(i);
        errors.extend(common(container, context, &own));
        let policy = container.restart_policy.as_deref();
        errors.extend(restart_rules(policy, list(&container.restart_policy_rules), &own));
        let always = policy == Some("Always");
        let name = container.name.as_str();
        if names.contains(name) {
            errors.duplicate(&own.child("name"), name);
        } else if !name.is_empty() {
            names.insert(name);
        }
        errors.extend(host_port_conflicts(std::slice::from_ref(container), path));
        if always {
            if let Some(hooks) = &container.lifecycle {
                errors.extend(lifecycle(hooks, context, &own.child("lifecycle")));
            }
            errors.extend(probes(container, context.grace, &own));
        } else {
            let fields = [
                ("lifecycle", container.lifecycle.is_some()),
                ("livenessProbe", container.liveness_probe.is_some()),
                ("readinessProbe", container.readiness_probe.is_some()),
                ("startupProbe", container.startup_probe.is_some()),
            ];
            for (key, _) in fields.iter().filter(|(_, set)| *set) {
                let detail = "may not be set for init containers without restartPolicy=Always";
                errors.forbidden(&own.child(key), detail);
            }
            let may_restart = context.faults.contains(&Fault::InitRestarts);
            for (j, resize) in list(&container.resize_policy).iter().enumerate() {
                if resize.restart_policy == "RestartContainer" && !may_restart {
                    let at = own.child("resizePolicy").index(j).child("restartPolicy");
                    let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
                    errors.invalid(&at, "RestartContainer", detail);
                }
            }
        }
    }
    errors
}

/// An ephemeral container as a container: the fields they share.
pub(crate) fn of_ephemeral(container: &EphemeralContainer) -> Container {
    let mut value = to_value(container);
    if let Some(object) = value.as_object_mut() {
        object.remove("targetContainerName");
    }
    serde_json::from_value(value).unwrap_or_default()
}

/// The ephemeral containers.
pub(crate) fn ephemeral_containers(context: &Context<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = context.spec;
    let others: BTreeSet<&str> =
        spec.containers.iter().chain(list(&spec.init_containers)).map(|c| c.name.as_str()).collect();
    let mut names = others.clone();
    for (i, own) in list(&spec.ephemeral_containers).iter().enumerate() {
        let path = path.index(i);
        let container = of_ephemeral(own);
        errors.extend(common(&container, context, &path));
        errors.extend(image_whitespace(&container, &path));
        if !names.insert(own.name.as_str()) {
            errors.duplicate(&path.child("name"), own.name.as_str());
        }
        let target = text(&own.target_container_name);
        if !target.is_empty() && !others.contains(target) {
            errors.push(Error::not_found(&path.child("targetContainerName"), target));
        }
        let fields = [
            ("ports", own.ports.is_some()),
            ("resources", container.resources.as_ref().is_some_and(|r| *r != Default::default())),
            ("resizePolicy", own.resize_policy.is_some()),
            ("restartPolicy", own.restart_policy.is_some()),
            ("restartPolicyRules", own.restart_policy_rules.is_some()),
            ("livenessProbe", own.liveness_probe.is_some()),
            ("readinessProbe", own.readiness_probe.is_some()),
            ("startupProbe", own.startup_probe.is_some()),
            ("lifecycle", own.lifecycle.is_some()),
        ];
        for (key, _) in fields.iter().filter(|(_, set)| *set) {
            errors.forbidden(&path.child(key), "cannot be set for an Ephemeral Container");
        }
        for (j, mount) in list(&own.volume_mounts).iter().enumerate() {
            let path = path.child("volumeMounts").index(j);
            for (key, sub) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
                if !text(sub).is_empty() {
                    errors.forbidden(&path.child(key), "cannot be set for an Ephemeral Container");
                }
            }
        }
    }
    errors
}

/// Blanks around the name of an image, which templates may have and pods may not.
pub(crate) fn image_whitespace(container: &Container, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let image = text(&container.image);
    if image.trim() != image {
        errors.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
    }
    errors
}

/// Volumes by name, for variables read from files.
pub(crate) fn file_variables(spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let volumes: BTreeMap<&str, _> = list(&spec.volumes).iter().map(|v| (v.name.as_str(), v)).collect();
    security::each_container(spec, path, |container, path| {
        for (i, var) in list(&container.env).iter().enumerate() {
            let file = var.value_from.as_ref().and_then(|s| s.file_key_ref.as_ref());
            let Some(name) = file.map(|f| f.volume_name.as_str()) else { continue };
            let at = path.child("env").index(i).child("valueFrom").child("fileKeyRef").child("volumeName");
            match volumes.get(name) {
                None => errors.push(Error::not_found(&at, name)),
                Some(volume) if volume.empty_dir.is_none() => {
                    errors.invalid(&at, name, "referenced volume must be of type emptyDir");
                }
                Some(_) => {}
            }
        }
    });
    errors
}
