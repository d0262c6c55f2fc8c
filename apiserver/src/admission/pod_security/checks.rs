//! What each level forbids (upstream `pod-security-admission/policy`). Checks run in the order of upstream's ids,
//! those of the baseline first.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ContainerPort, Lifecycle, PodSecurityContext, PodSpec, Probe, SELinuxOptions, SecurityContext, Volume,
};

use super::policy::{Level, LevelVersion, Version};

/// A pod (or the template of one) as the checks see it.
pub struct Pod<'a> {
    annotations: Option<&'a BTreeMap<String, String>>,
    spec: &'a PodSpec,
    security: Option<&'a PodSecurityContext>,
    containers: Vec<Container<'a>>,
}

struct Container<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

impl<'a> Pod<'a> {
    /// Looks at a pod.
    #[must_use]
    pub fn new(annotations: Option<&'a BTreeMap<String, String>>, spec: &'a PodSpec) -> Self {
        let plain = |container: &'a k8s_openapi::api::core::v1::Container| Container {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_deref().unwrap_or_default(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe]
                .map(Option::as_ref),
            lifecycle: container.lifecycle.as_ref(),
        };
        let mut containers: Vec<_> = spec.init_containers.iter().flatten().map(plain).collect();
        containers.extend(spec.containers.iter().map(plain));
        containers.extend(spec.ephemeral_containers.iter().flatten().map(|container| {
            Container {
                name: &container.name,
                security: container.security_context.as_ref(),
                ports: container.ports.as_deref().unwrap_or_default(),
                probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe]
                    .map(Option::as_ref),
                lifecycle: container.lifecycle.as_ref(),
            }
        }));
        Self { annotations, spec, security: spec.security_context.as_ref(), containers }
    }

    /// Names of the containers for which `bad` holds.
    fn bad(&self, mut bad: impl FnMut(&Container<'a>) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|container| bad(container)).map(|container| container.name).collect()
    }

    fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// In a user namespace of its own, root is not root.
    fn has_user_namespace(&self) -> bool {
        self.spec.host_users == Some(false)
    }
}

/// A check that failed: in a word, and in detail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// In a word.
    pub reason: &'static str,
    /// Which containers, which values.
    pub detail: String,
}

type Check = fn(&Pod<'_>, Version) -> Option<Violation>;

const BASELINE: [(&str, Check); 12] =
    [
        ("appArmorProfile", app_armor),
        ("capabilities_baseline", capabilities_baseline),
        ("hostNamespaces", host_namespaces),
        ("hostPathVolumes", host_path),
        ("hostPorts", host_ports),
        ("hostProbesAndHostLifecycle", probe_hosts),
        ("privileged", privileged),
        ("procMount", |pod, version| {
            if version >= Version(35) && pod.has_user_namespace() { None } else { proc_mount(pod) }
        }),
        ("seLinuxOptions", selinux),
        ("seccompProfile_baseline", seccomp_baseline),
        ("sysctls", sysctls),
        ("windowsHostProcess", host_process),
    ];

/// Restricted checks: from which version on, and which baseline check they replace.
const RESTRICTED: [(u32, &str, Check); 7] = [
    (8, "", privilege_escalation),
    (22, "capabilities_baseline", capabilities_restricted),
    (35, "procMount", |pod, _| proc_mount(pod)),
    (0, "hostPathVolumes", volumes),
    (0, "", run_as_non_root),
    (23, "", run_as_user),
    (19, "seccompProfile_baseline", seccomp_restricted),
];

/// All that a level forbids about a pod.
#[must_use]
pub fn evaluate(demand: LevelVersion, pod: &Pod<'_>) -> Vec<Violation> {
    let version = demand.version;
    let restricted: Vec<_> = match demand.level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => Vec::new(),
        Level::Restricted => RESTRICTED.iter().filter(|(since, ..)| version >= Version(*since)).collect(),
    };
    let replaced = |id: &str| restricted.iter().any(|(_, replaces, _)| *replaces == id);
    let baseline = BASELINE.iter().filter(|(id, _)| !replaced(id)).map(|(_, check)| check(pod, version));
    baseline.chain(restricted.iter().map(|(_, _, check)| check(pod, version))).flatten().collect()
}

/// The violations in one line: `host namespaces (hostNetwork=true), privileged (...)`.
#[must_use]
pub fn details(violations: &[Violation]) -> String {
    let one = |violation: &Violation| match violation.detail.as_str() {
        "" => violation.reason.to_owned(),
        detail => format!("{} ({detail})", violation.reason),
    };
    violations.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The violations without details.
#[must_use]
pub fn reasons(violations: &[Violation]) -> String {
    violations.iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ")
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// The pod itself and the containers, as far as they did it: `pod and container "a"`.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut setters = Vec::new();
    if pod {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(names));
    }
    (!setters.is_empty()).then(|| setters.join(" and "))
}

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

fn app_armor(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut values = BTreeSet::new();
    let mut bad = |kind: Option<&str>| match kind {
        None | Some("RuntimeDefault" | "Localhost") => false,
        Some(other) => {
            values.insert(other.to_owned());
            true
        }
    };
    let of_pod =
        bad(pod.security.and_then(|s| s.app_armor_profile.as_ref()).map(|profile| profile.type_.as_str()));
    let names =
        pod.bad(|c| bad(c.security.and_then(|s| s.app_armor_profile.as_ref()).map(|p| p.type_.as_str())));
    let fine =
        |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations: Vec<String> = pod
        .annotations
        .into_iter()
        .flatten()
        .filter(|(key, value)| key.starts_with(ANNOTATION) && !fine(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut shown: Vec<String> = values.into_iter().collect();
    let mut who: Vec<String> = setters(of_pod, &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural("annotation", "annotations", annotations.len()).to_owned());
        shown.extend(annotations);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural("forbidden AppArmor profile", "forbidden AppArmor profiles", shown.len());
    violation(
        reason,
        format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(&shown)),
    )
}

const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Names of the containers that add other capabilities than these, and the capabilities.
fn adding<'a>(pod: &Pod<'a>, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<String>) {
    let mut found = BTreeSet::new();
    let names = pod.bad(|container| {
        let added = container.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.add.as_deref());
        let more: Vec<_> =
            added.unwrap_or_default().iter().filter(|c| !allowed.contains(&c.as_str())).collect();
        found.extend(more.iter().map(|capability| (*capability).clone()));
        !more.is_empty()
    });
    (names, found)
}

fn capabilities_baseline(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let (names, found) = adding(pod, &DEFAULT_CAPABILITIES);
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(&names),
        quoted(&found)
    );
    violation("non-default capabilities", detail)
}

fn capabilities_restricted(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version >= Version(25) && pod.is_windows() {
        return None;
    }
    let keeping = pod.bad(|container| {
        let dropped =
            container.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.drop.as_deref());
        !dropped.unwrap_or_default().iter().any(|capability| capability == "ALL")
    });
    let (names, found) = adding(pod, &["NET_BIND_SERVICE"]);
    let mut parts = Vec::new();
    if !keeping.is_empty() {
        parts.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !names.is_empty() {
        let list = quoted(&found);
        parts.push(format!(
            "{} must not include {list} in securityContext.capabilities.add",
            containers(&names)
        ));
    }
    if parts.is_empty() { None } else { violation("unrestricted capabilities", parts.join("; ")) }
}

fn host_namespaces(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let spec = pod.spec;
    let set = [
        ("hostNetwork=true", spec.host_network),
        ("hostPID=true", spec.host_pid),
        ("hostIPC=true", spec.host_ipc),
    ];
    let set: Vec<&str> = set.iter().filter(|(_, on)| *on == Some(true)).map(|(name, _)| *name).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn host_path(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let volumes = pod.spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
    let names: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", "volumes", names.len()), quoted(&names)))
}

fn host_ports(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = pod.bad(|container| {
        let ports: Vec<i32> =
            container.ports.iter().filter_map(|port| port.host_port).filter(|p| *p != 0).collect();
        found.extend(ports.iter().map(ToString::to_string));
        !ports.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let ports: Vec<String> = found.into_iter().collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural("uses", "use", names.len()),
        plural("hostPort", "hostPorts", ports.len()),
        ports.join(", ")
    );
    violation("hostPort", detail)
}

fn probe_hosts(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version < Version(34) {
        return None;
    }
    let mut hosts = BTreeSet::new();
    let mut names = pod.bad(|container| {
        let probes = container.probes.iter().flatten().flat_map(|probe| {
            let http = probe.http_get.as_ref().and_then(|get| get.host.as_ref());
            [http, probe.tcp_socket.as_ref().and_then(|socket| socket.host.as_ref())]
        });
        let handlers =
            container.lifecycle.into_iter().flat_map(|hooks| [&hooks.post_start, &hooks.pre_stop]).flatten();
        let hooks = handlers.flat_map(|handler| {
            let http = handler.http_get.as_ref().and_then(|get| get.host.as_ref());
            [http, handler.tcp_socket.as_ref().and_then(|socket| socket.host.as_ref())]
        });
        let found: Vec<&String> = probes.chain(hooks).flatten().filter(|host| !host.is_empty()).collect();
        hosts.extend(found.iter().map(|host| (*host).clone()));
        !found.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    let detail = format!(
        "{} {} {} {}",
        containers(&names),
        plural("uses", "use", names.len()),
        plural("probe or lifecycle host", "probe or lifecycle hosts", hosts.len()),
        quoted(&hosts)
    );
    violation("probe or lifecycle host", detail)
}

fn privileged(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let names = pod.bad(|container| container.security.and_then(|s| s.privileged) == Some(true));
    if names.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = pod.bad(|container| {
        let mount =
            container.security.and_then(|s| s.proc_mount.as_deref()).filter(|mount| *mount != "Default");
        found.extend(mount.map(str::to_owned));
        mount.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let detail =
        format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(&found));
    violation("procMount", detail)
}

fn selinux(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let set = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
    let mut bad = |options: Option<&SELinuxOptions>| {
        let Some(options) = options else { return false };
        let kind = options.type_.as_deref().unwrap_or_default();
        let allowed = matches!(kind, "" | "container_t" | "container_init_t" | "container_kvm_t")
            || (version >= Version(31) && kind == "container_engine_t");
        if !allowed {
            types.insert(kind.to_owned());
        }
        user |= set(&options.user);
        role |= set(&options.role);
        !allowed || set(&options.user) || set(&options.role)
    };
    let of_pod = bad(pod.security.and_then(|s| s.se_linux_options.as_ref()));
    let names = pod.bad(|container| bad(container.security.and_then(|s| s.se_linux_options.as_ref())));
    let who = setters(of_pod, &names)?;
    let mut what = Vec::new();
    if !types.is_empty() {
        what.push(format!("{} {}", plural("type", "types", types.len()), quoted(&types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    violation(
        "seLinuxOptions",
        format!("{who} set forbidden securityContext.seLinuxOptions: {}", what.join("; ")),
    )
}

fn known_seccomp(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

/// The type of a container's seccomp profile.
fn seccomp_of<'a>(container: &Container<'a>) -> Option<&'a str> {
    container.security.and_then(|s| s.seccomp_profile.as_ref()).map(|profile| profile.type_.as_str())
}

fn seccomp_baseline(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version < Version(19) {
        return seccomp_annotations(pod);
    }
    explicit_seccomp(pod)
}

fn explicit_seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let mut bad = |kind: Option<&str>| {
        let kind = kind.filter(|kind| !known_seccomp(kind));
        found.extend(kind.map(str::to_owned));
        kind.is_some()
    };
    let of_pod =
        bad(pod.security.and_then(|s| s.seccomp_profile.as_ref()).map(|profile| profile.type_.as_str()));
    let names = pod.bad(|container| bad(seccomp_of(container)));
    let who = setters(of_pod, &names)?;
    violation(
        "seccompProfile",
        format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(&found)),
    )
}

fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let containers =
        pod.containers.iter().map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", c.name));
    let keys = std::iter::once("seccomp.security.alpha.kubernetes.io/pod".to_owned()).chain(containers);
    let fine = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let bad: BTreeSet<String> = keys
        .filter_map(|key| {
            let value =
                pod.annotations.and_then(|annotations| annotations.get(&key)).filter(|value| !fine(value))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if bad.is_empty() {
        return None;
    }
    let list: Vec<String> = bad.into_iter().collect();
    let what = plural("annotation", "annotations", list.len());
    violation("seccompProfile", format!("forbidden {what} {}", list.join(", ")))
}

fn seccomp_restricted(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version >= Version(25) && pod.is_windows() {
        return None;
    }
    if let Some(explicit) = explicit_seccomp(pod) {
        return Some(explicit);
    }
    if pod.security.is_some_and(|security| security.seccomp_profile.is_some()) {
        return None;
    }
    let names = pod.bad(|container| seccomp_of(container).is_none());
    if names.is_empty() {
        return None;
    }
    let detail = format!(
        "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
        containers(&names)
    );
    violation("seccompProfile", detail)
}

/// Sysctls that affect only the pod, and since when they are allowed.
const SYSCTLS: [(u32, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

fn sysctls(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    let allowed =
        |name: &str| SYSCTLS.iter().any(|(since, known)| *known == name && version >= Version(*since));
    let set = pod.security.and_then(|security| security.sysctls.as_deref()).unwrap_or_default();
    let bad: Vec<&str> =
        set.iter().map(|sysctl| sysctl.name.as_str()).filter(|name| !allowed(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn host_process(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let of_pod =
        pod.security.and_then(|s| s.windows_options.as_ref()).and_then(|options| options.host_process)
            == Some(true);
    let names = pod.bad(|container| {
        container.security.and_then(|s| s.windows_options.as_ref()).and_then(|options| options.host_process)
            == Some(true)
    });
    let who = setters(of_pod, &names)?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn privilege_escalation(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version >= Version(25) && pod.is_windows() {
        return None;
    }
    let names =
        pod.bad(|container| container.security.and_then(|s| s.allow_privilege_escalation) != Some(false));
    if names.is_empty() {
        return None;
    }
    let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names));
    violation("allowPrivilegeEscalation != false", detail)
}

fn volumes(pod: &Pod<'_>, _: Version) -> Option<Violation> {
    let bad: Vec<&Volume> = pod.spec.volumes.iter().flatten().filter(|volume| !is_ordinary(volume)).collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = bad.iter().map(|volume| kind_of(volume)).collect();
    let names: Vec<&str> = bad.iter().map(|volume| volume.name.as_str()).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural("volume", "volumes", names.len()),
        quoted(&names),
        plural("uses", "use", names.len()),
        plural("restricted volume type", "restricted volume types", kinds.len()),
        quoted(&kinds)
    );
    violation("restricted volume types", detail)
}

fn is_ordinary(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some()
}

fn kind_of(volume: &Volume) -> &'static str {
    let kinds = [
        ("hostPath", volume.host_path.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("fc", volume.fc.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
    ];
    kinds.iter().find(|(_, is)| *is).map_or("unknown", |(name, _)| name)
}

fn run_as_non_root(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    if version >= Version(35) && pod.has_user_namespace() {
        return None;
    }
    let of_pod = pod.security.and_then(|security| security.run_as_non_root);
    let of = |container: &Container<'_>| container.security.and_then(|security| security.run_as_non_root);
    let explicit = pod.bad(|container| of(container) == Some(false));
    if let Some(who) = setters(of_pod == Some(false), &explicit) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if of_pod == Some(true) {
        return None;
    }
    let implicit = pod.bad(|container| of(container).is_none());
    if implicit.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)))
}

fn run_as_user(pod: &Pod<'_>, version: Version) -> Option<Violation> {
    if version >= Version(35) && pod.has_user_namespace() {
        return None;
    }
    let of_pod = pod.security.and_then(|security| security.run_as_user) == Some(0);
    let names = pod.bad(|container| container.security.and_then(|security| security.run_as_user) == Some(0));
    let who = setters(of_pod, &names)?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
