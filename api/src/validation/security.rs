//! Security contexts of pods and containers.

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext,
    WindowsSecurityContextOptions,
};

use crate::field::{Error, ErrorList, Path, Report};
use crate::format;

use super::golang;
use super::pod::Fault;
use super::rules::{check_int, list, to_value};
use super::volume::descending_path;

const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// The operating system that a pod says it is for.
pub(crate) fn os_name(spec: &PodSpec) -> Option<&str> {
    spec.os.as_ref().map(|os| os.name.as_str())
}

pub(crate) fn seccomp_profile(profile: Option<&SeccompProfile>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(profile) = profile else { return errors };
    match profile.type_.as_str() {
        "" => errors.required(&path.child("type"), "type is required when seccompProfile is set"),
        kind => errors.one_of(&path.child("type"), kind, &PROFILES),
    }
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("Localhost", None) => errors.required(&at, "must be set when seccomp type is Localhost"),
        ("Localhost", Some(local)) => errors.extend(descending_path(local, &at)),
        (_, Some(_)) => {
            let shown = golang::show("core.SeccompProfile", &to_value(profile));
            let detail = "can only be set when seccomp type is Localhost";
            errors.push(Error::invalid_shown(&at, shown, detail));
        }
        (_, None) => {}
    }
    errors
}

pub(crate) fn app_armor_profile(profile: Option<&AppArmorProfile>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(profile) = profile else { return errors };
    let at = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => errors.required(&at, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(local)) => {
            if local.trim() != local {
                errors.invalid(&at, local, "must not be padded with whitespace");
            } else if local.is_empty() {
                errors.required(&at, "must be set when AppArmor type is Localhost");
            }
            if local.len() > 4095 {
                errors.too_long(&at, 4095);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(local)) => {
            errors.invalid(&at, local, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errors.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (kind, _) => errors.not_supported(&path.child("type"), kind, &PROFILES),
    }
    errors
}

fn id(value: Option<i64>, path: &Path) -> ErrorList {
    value.map(|id| check_int(path, id, format::user_id)).unwrap_or_default()
}

/// The security context of a container. `host_users` is whether the pod shares the users of its host.
pub(crate) fn container(context: &SecurityContext, host_users: bool, path: &Path) -> ErrorList {
    let mut errors = id(context.run_as_user, &path.child("runAsUser"));
    errors.extend(id(context.run_as_group, &path.child("runAsGroup")));
    if let Some(mount) = context.proc_mount.as_deref() {
        let at = path.child("procMount");
        errors.one_of(&at, mount, &["Default", "Unmasked"]);
        if host_users && mount == "Unmasked" {
            errors.invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    errors.extend(seccomp_profile(context.seccomp_profile.as_ref(), &path.child("seccompProfile")));
    if context.allow_privilege_escalation == Some(false) {
        let shown = || golang::show("core.SecurityContext", &to_value(context));
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid_shown(path, shown(), detail));
        }
        let added = context.capabilities.as_ref().map(|c| list(&c.add)).unwrap_or_default();
        for _ in added.iter().filter(|c| *c == "CAP_SYS_ADMIN") {
            let detail =
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid_shown(path, shown(), detail));
        }
    }
    errors.extend(windows(context.windows_options.as_ref(), &path.child("windowsOptions")));
    errors.extend(app_armor_profile(context.app_armor_profile.as_ref(), &path.child("appArmorProfile")));
    errors
}

/// The security context of a pod.
pub(crate) fn pod(context: &PodSecurityContext, spec: &PodSpec, faults: &[Fault], path: &Path) -> ErrorList {
    let mut errors = id(context.fs_group, &path.child("fsGroup"));
    errors.extend(id(context.run_as_user, &path.child("runAsUser")));
    errors.extend(id(context.run_as_group, &path.child("runAsGroup")));
    for (i, group) in list(&context.supplemental_groups).iter().enumerate() {
        errors.extend(id(Some(*group), &path.child("supplementalGroups").index(i)));
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(&path.child("shareProcessNamespace"), true, detail);
    }
    let lax = faults.contains(&Fault::Sysctls);
    sysctls(context, spec, lax, &path.child("sysctls"), &mut errors);
    if let Some(policy) = &context.fs_group_change_policy {
        errors.one_of(&path.child("fsGroupChangePolicy"), policy, &["Always", "OnRootMismatch"]);
    }
    errors.extend(seccomp_profile(context.seccomp_profile.as_ref(), &path.child("seccompProfile")));
    errors.extend(windows(context.windows_options.as_ref(), &path.child("windowsOptions")));
    errors.extend(app_armor_profile(context.app_armor_profile.as_ref(), &path.child("appArmorProfile")));
    if let Some(policy) = &context.supplemental_groups_policy {
        errors.one_of(&path.child("supplementalGroupsPolicy"), policy, &["Merge", "Strict"]);
    }
    if let Some(policy) = &context.se_linux_change_policy {
        errors.one_of(&path.child("seLinuxChangePolicy"), policy, &["Recursive"]);
    }
    errors
}

fn sysctls(context: &PodSecurityContext, spec: &PodSpec, lax: bool, path: &Path, errors: &mut ErrorList) {
    let segment = "[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
    let mut seen = std::collections::BTreeSet::new();
    for (i, sysctl) in list(&context.sysctls).iter().enumerate() {
        let at = path.index(i).child("name");
        let name = sysctl.name.as_str();
        if name.is_empty() {
            errors.required(&at, "");
        } else if !is_sysctl(name) {
            let detail =
                format!("must have at most 253 characters and match regex ^({segment}[\\./])*{segment}$");
            errors.invalid(&at, name, detail);
        } else if seen.contains(name) {
            errors.duplicate(&at, name);
        }
        if let Some(why) = host_sysctl(name, spec).filter(|_| !lax) {
            errors.invalid(&at, name, why);
        }
        seen.insert(name);
    }
}

/// Why a sysctl may not be set, if its namespace is the host's.
pub(crate) fn host_sysctl(name: &str, spec: &PodSpec) -> Option<&'static str> {
    let name = name.replace('/', ".");
    if spec.host_network == Some(true) && name.starts_with("net.") {
        Some("may not be specified when 'hostNetwork' is true")
    } else if spec.host_ipc == Some(true) && is_ipc(&name) {
        Some("may not be specified when 'hostIPC' is true")
    } else {
        None
    }
}

fn is_ipc(name: &str) -> bool {
    name == "kernel.sem" || ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|p| name.starts_with(p))
}

fn is_sysctl(name: &str) -> bool {
    let segment = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().next_back())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    name.len() <= 253 && name.split(['.', '/']).all(segment)
}

fn windows(options: Option<&WindowsSecurityContextOptions>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(options) = options else { return errors };
    if let Some(name) = &options.gmsa_credential_spec_name {
        errors.messages(&path.child("gmsaCredentialSpecName"), name, format::dns1123_subdomain(name));
    }
    if let Some(spec) = &options.gmsa_credential_spec {
        let at = path.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.invalid(&at, "", "gmsaCredentialSpec cannot be an empty string");
        } else if spec.len() > 64 << 10 {
            errors.invalid(&at, spec.as_str(), "gmsaCredentialSpec size must be under 64 KiB");
        }
    }
    if let Some(name) = &options.run_as_user_name {
        windows_user(name, &path.child("runAsUserName"), &mut errors);
    }
    errors
}

fn windows_user(name: &str, path: &Path, errors: &mut ErrorList) {
    let mut wrong = |detail: &str| errors.invalid(path, name, format!("runAsUserName{detail}"));
    if name.is_empty() {
        return wrong(" cannot be an empty string");
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return wrong(" cannot contain control characters");
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts.as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return wrong(" cannot contain more than one backslash"),
    };
    if domain.is_some_and(|d| d.len() >= 256) {
        wrong("'s Domain length must be under 256 characters");
    }
    if domain.is_some_and(|d| !is_net_bios(d) && !is_dns(d)) {
        wrong("'s Domain doesn't match the NetBios nor the DNS format");
    }
    if user.is_empty() {
        wrong("'s User cannot be empty");
    } else if user.len() > 104 {
        wrong("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        wrong("'s User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
}

fn is_net_bios(domain: &str) -> bool {
    let length = domain.chars().count();
    (1..=15).contains(&length)
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        label.len() <= 63
            && edge(label.chars().next())
            && edge(label.chars().next_back())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Calls `visit` with each container and its path: init, app, ephemeral, as upstream visits them.
pub(crate) fn each_container(spec: &PodSpec, path: &Path, mut visit: impl FnMut(&Container, &Path)) {
    let lists = [("initContainers", list(&spec.init_containers)), ("containers", spec.containers.as_slice())];
    for (key, containers) in lists {
        for (i, container) in containers.iter().enumerate() {
            visit(container, &path.child(key).index(i));
        }
    }
    for (i, container) in list(&spec.ephemeral_containers).iter().enumerate() {
        visit(&super::container::of_ephemeral(container), &path.child("ephemeralContainers").index(i));
    }
}

/// Host processes of Windows: all containers or none.
pub(crate) fn host_processes(spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let pod =
        spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()).and_then(|w| w.host_process);
    let (mut all, mut host) = (0, 0);
    each_container(spec, path, |container, path| {
        all += 1;
        let own = container.security_context.as_ref().and_then(|c| c.windows_options.as_ref());
        let own = own.and_then(|w| w.host_process);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let at = path.child("securityContext").child("windowsOptions").child("hostProcess");
            errors.invalid(&at, own, detail);
        }
        host += usize::from(own.or(pod) == Some(true));
    });
    if host == 0 {
        return errors;
    }
    if host != all {
        let detail =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path, "", detail);
    }
    if spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(&path.child("hostNetwork"), false, detail);
    }
    errors
}

/// What pods of one operating system may not have.
pub(crate) fn operating_system(spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(os) = os_name(spec) else { return errors };
    let at = path.child("os");
    match os {
        "" => errors.required(&at.child("name"), ""),
        "linux" => linux(spec, path, &mut errors),
        "windows" => windows_pod(spec, path, &mut errors),
        other => errors.not_supported(&at, other, &["linux", "windows"]),
    }
    errors
}

fn linux(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let detail = "windows options cannot be set for a linux pod";
    if spec.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
        errors.forbidden(&path.child("securityContext").child("windowsOptions"), detail);
    }
    each_container(spec, path, |container, path| {
        if container.security_context.as_ref().is_some_and(|c| c.windows_options.is_some()) {
            errors.forbidden(&path.child("securityContext").child("windowsOptions"), detail);
        }
    });
}

fn windows_pod(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let detail = "cannot be set for a windows pod";
    // Stored pods have a context, if an empty one.
    let empty = PodSecurityContext::default();
    let context = spec.security_context.as_ref().unwrap_or(&empty);
    let at = path.child("securityContext");
    let fields = [
        (at.child("appArmorProfile"), context.app_armor_profile.is_some()),
        (at.child("seLinuxOptions"), context.se_linux_options.is_some()),
        (path.child("hostUsers"), spec.host_users.is_some()),
        (path.child("hostPID"), spec.host_pid == Some(true)),
        (path.child("hostIPC"), spec.host_ipc == Some(true)),
        (at.child("seccompProfile"), context.seccomp_profile.is_some()),
        (at.child("fsGroup"), context.fs_group.is_some()),
        (at.child("fsGroupChangePolicy"), context.fs_group_change_policy.is_some()),
        (at.child("sysctls"), !list(&context.sysctls).is_empty()),
        (path.child("shareProcessNamespace"), spec.share_process_namespace.is_some()),
        (at.child("runAsUser"), context.run_as_user.is_some()),
        (at.child("runAsGroup"), context.run_as_group.is_some()),
        (at.child("supplementalGroups"), context.supplemental_groups.is_some()),
        (at.child("supplementalGroupsPolicy"), context.supplemental_groups_policy.is_some()),
        (at.child("seLinuxChangePolicy"), context.se_linux_change_policy.is_some()),
    ];
    fields.iter().filter(|(_, set)| *set).for_each(|(at, _)| errors.forbidden(at, detail));
    each_container(spec, path, |container, path| {
        let Some(context) = &container.security_context else { return };
        let fields = [
            ("appArmorProfile", context.app_armor_profile.is_some()),
            ("seLinuxOptions", context.se_linux_options.is_some()),
            ("seccompProfile", context.seccomp_profile.is_some()),
            ("capabilities", context.capabilities.is_some()),
            ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
            ("privileged", context.privileged.is_some()),
            ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
            ("procMount", context.proc_mount.is_some()),
            ("runAsUser", context.run_as_user.is_some()),
            ("runAsGroup", context.run_as_group.is_some()),
        ];
        for (key, _) in fields.iter().filter(|(_, set)| *set) {
            errors.forbidden(&path.child("securityContext").child(key), detail);
        }
    });
}

/// The annotation that once held a container's AppArmor profile.
pub(crate) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

type Annotations = std::collections::BTreeMap<String, String>;

/// Annotations that hold profiles.
pub(crate) fn profile_annotations(annotations: &Annotations, spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(profile) = annotations.get(SECCOMP_POD) {
        errors.extend(seccomp_annotation(profile, &path.child(SECCOMP_POD)));
    }
    for (key, profile) in annotations.iter().filter(|(key, _)| key.starts_with(SECCOMP_CONTAINER)) {
        errors.extend(seccomp_annotation(profile, &path.child(key)));
    }
    for (key, profile) in annotations {
        let Some(name) = key.strip_prefix(APP_ARMOR) else { continue };
        let mut found = false;
        each_container(spec, path, |container, _| found |= container.name == name);
        if !found {
            errors.invalid(&path.key(key), name, "container not found");
        }
        let good = ["", "runtime/default", "unconfined"].contains(&profile.as_str());
        if !good && !profile.starts_with("localhost/") {
            let detail = format!("invalid AppArmor profile name: {}", crate::field::quote(profile));
            errors.invalid(&path.key(key), profile.as_str(), detail);
        }
    }
    errors
}

fn seccomp_annotation(profile: &str, path: &Path) -> ErrorList {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => ErrorList::new(),
        _ => match profile.strip_prefix("localhost/") {
            Some(local) => descending_path(local, path),
            None => vec![Error::invalid(path, profile, "must be a valid seccomp profile")],
        },
    }
}

/// Annotations and fields must say the same.
pub(crate) fn profiles_agree(annotations: &Annotations, spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let pod = spec.security_context.as_ref();
    if let Some(profile) = pod.and_then(|c| c.seccomp_profile.as_ref())
        && let Some(annotation) = annotations.get(SECCOMP_POD)
    {
        let at = path.child("securityContext").child("seccompProfile");
        seccomp_agrees(annotation, profile, &at, &mut errors);
    }
    each_container(spec, path, |container, path| {
        let own = container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref());
        let key = format!("{SECCOMP_CONTAINER}{}", container.name);
        if let (Some(profile), Some(annotation)) = (own, annotations.get(&key)) {
            let at = path.child("securityContext").child("seccompProfile");
            seccomp_agrees(annotation, profile, &at, &mut errors);
        }
    });
    if os_name(spec) == Some("windows") {
        return errors;
    }
    each_container(spec, path, |container, path| {
        let own = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
        let profile = own.or(pod.and_then(|c| c.app_armor_profile.as_ref()));
        let annotation = annotations.get(&format!("{APP_ARMOR}{}", container.name));
        if let (Some(profile), Some(annotation)) = (profile, annotation) {
            let at = path.child("securityContext").child("appArmorProfile");
            let local = profile.localhost_profile.as_deref();
            agrees("apparmor", annotation, &profile.type_, local, &["runtime/default"], &at, &mut errors);
        }
    });
    errors
}

fn seccomp_agrees(annotation: &str, profile: &SeccompProfile, path: &Path, errors: &mut ErrorList) {
    let local = profile.localhost_profile.as_deref();
    agrees(
        "seccomp",
        annotation,
        &profile.type_,
        local,
        &["runtime/default", "docker/default"],
        path,
        errors,
    );
}

fn agrees(
    what: &str,
    annotation: &str,
    kind: &str,
    local: Option<&str>,
    defaults: &[&str],
    path: &Path,
    errors: &mut ErrorList,
) {
    let types = match kind {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => defaults.contains(&annotation),
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !types {
        errors.forbidden(&path.child("type"), format!("{what} type in annotation and field must match"));
    } else if kind == "Localhost" && annotation.strip_prefix("localhost/") != local {
        let detail = format!("{what} profile in annotation and field must match");
        errors.forbidden(&path.child("localhostProfile"), detail);
    }
}
