//! Security contexts: what the pod and the container say together, as the runtime takes it.

use std::path::Path;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext,
};
use proto::cri;
use proto::cri::security_profile::ProfileType;

use crate::types;

/// A security context cannot be honoured; the container is not created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The image runs as root and the pod forbids it.
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageRunsAsRoot {
        /// Pod, as messages name it.
        pod: String,
        /// Container.
        container: String,
    },
    /// The context itself says root and not root.
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    BreaksNonRoot {
        /// Pod, as messages name it.
        pod: String,
        /// Container.
        container: String,
    },
    /// The image names its user, so nobody can tell whether that is root.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root \
         (pod: {pod:?}, container: {container})"
    )]
    UserUnknown {
        /// Pod, as messages name it.
        pod: String,
        /// Container.
        container: String,
        /// User of the image.
        user: String,
    },
    /// A localhost profile without a name.
    #[error("localhostProfile must be set if seccompProfile type is Localhost.")]
    NoSeccompProfile,
    /// A policy this version does not know.
    #[error("unsupported supplementalGroupsPolicy: {0}")]
    SupplementalGroupsPolicy(String),
}

/// Who an image runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageUser {
    /// Numeric user.
    pub uid: Option<i64>,
    /// User by name; empty when numeric.
    pub username: String,
}

/// The container's context with the pod's where the container is silent.
#[must_use]
pub fn effective(pod: &Pod, container: &Container) -> SecurityContext {
    let mut own = container.security_context.clone().unwrap_or_default();
    if let Some(pod) = &types::spec(pod).security_context {
        own.run_as_user = own.run_as_user.or(pod.run_as_user);
        own.run_as_group = own.run_as_group.or(pod.run_as_group);
        own.run_as_non_root = own.run_as_non_root.or(pod.run_as_non_root);
        own.se_linux_options = own.se_linux_options.or_else(|| pod.se_linux_options.clone());
    }
    own
}

/// Whether the container may run as the image's user.
pub fn verify_non_root(pod: &Pod, container: &Container, image: &ImageUser) -> Result<(), Error> {
    let context = effective(pod, container);
    if context.run_as_non_root != Some(true) {
        return Ok(());
    }
    let (pod, container) = (types::format_pod(pod), container.name.clone());
    match (context.run_as_user, image.uid) {
        (Some(0), _) => Err(Error::BreaksNonRoot { pod, container }),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(Error::ImageRunsAsRoot { pod, container }),
        (None, None) if !image.username.is_empty() => {
            Err(Error::UserUnknown { pod, container, user: image.username.clone() })
        }
        (None, _) => Ok(()),
    }
}

/// The context of one container as the runtime takes it.
pub fn container_context(
    pod: &Pod,
    container: &Container,
    image: &ImageUser,
    seccomp_root: &Path,
    seccomp_default: bool,
) -> Result<cri::LinuxContainerSecurityContext, Error> {
    let context = effective(pod, container);
    let pod_context = types::spec(pod).security_context.as_ref();
    let unmasked = context.proc_mount.as_deref() == Some("Unmasked");
    let mut result = cri::LinuxContainerSecurityContext {
        capabilities: context.capabilities.as_ref().map(|c| cri::Capability {
            add_capabilities: c.add.clone().unwrap_or_default(),
            drop_capabilities: c.drop.clone().unwrap_or_default(),
            ..Default::default()
        }),
        privileged: context.privileged.unwrap_or_default(),
        namespace_options: Some(namespace_options(pod)),
        selinux_options: context.se_linux_options.map(|o| cri::SeLinuxOption {
            user: o.user.unwrap_or_default(),
            role: o.role.unwrap_or_default(),
            r#type: o.type_.unwrap_or_default(),
            level: o.level.unwrap_or_default(),
        }),
        run_as_user: context.run_as_user.map(|value| cri::Int64Value { value }),
        run_as_group: context.run_as_group.map(|value| cri::Int64Value { value }),
        readonly_rootfs: context.read_only_root_filesystem.unwrap_or_default(),
        supplemental_groups: supplemental_groups(pod_context),
        supplemental_groups_policy: groups_policy(pod_context)?,
        no_new_privs: context.allow_privilege_escalation == Some(false),
        masked_paths: if unmasked { Vec::new() } else { masked_paths() },
        readonly_paths: if unmasked { Vec::new() } else { READONLY_PATHS.map(str::to_owned).to_vec() },
        seccomp: Some(seccomp(
            container.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref()),
            pod_context.and_then(|c| c.seccomp_profile.as_ref()),
            seccomp_root,
            seccomp_default,
        )?),
        apparmor: apparmor(pod, container),
        ..Default::default()
    };
    if result.run_as_user.is_none() {
        result.run_as_user = image.uid.map(|value| cri::Int64Value { value });
        result.run_as_username.clone_from(&image.username);
    }
    Ok(result)
}

/// The context of a pod's sandbox.
pub fn sandbox_context(pod: &Pod) -> Result<cri::LinuxSandboxSecurityContext, Error> {
    let context = types::spec(pod).security_context.as_ref();
    Ok(cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(pod)),
        selinux_options: context.and_then(|c| c.se_linux_options.clone()).map(|o| cri::SeLinuxOption {
            user: o.user.unwrap_or_default(),
            role: o.role.unwrap_or_default(),
            r#type: o.type_.unwrap_or_default(),
            level: o.level.unwrap_or_default(),
        }),
        run_as_user: context.and_then(|c| c.run_as_user).map(|value| cri::Int64Value { value }),
        run_as_group: context.and_then(|c| c.run_as_group).map(|value| cri::Int64Value { value }),
        supplemental_groups: supplemental_groups(context),
        supplemental_groups_policy: groups_policy(context)?,
        privileged: has_privileged_container(pod),
        // As upstream: the sandbox always runs confined, whatever its containers want.
        seccomp: Some(profile(ProfileType::RuntimeDefault)),
        ..Default::default()
    })
}

/// Which namespaces the pod shares with the node, and its containers with each other.
#[must_use]
pub fn namespace_options(pod: &Pod) -> cri::NamespaceOption {
    use cri::NamespaceMode::{Container, Node, Pod as InPod};
    let spec = types::spec(pod);
    let node_or = |host: Option<bool>, otherwise| if host.unwrap_or_default() { Node } else { otherwise };
    let pid = if spec.share_process_namespace.unwrap_or_default() { InPod } else { Container };
    cri::NamespaceOption {
        network: node_or(spec.host_network, InPod) as i32,
        pid: node_or(spec.host_pid, pid) as i32,
        ipc: node_or(spec.host_ipc, InPod) as i32,
        ..Default::default()
    }
}

fn has_privileged_container(pod: &Pod) -> bool {
    types::all_containers(types::spec(pod))
        .iter()
        .any(|(_, c)| c.security_context.as_ref().and_then(|s| s.privileged).unwrap_or_default())
}

fn supplemental_groups(context: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(context) = context else { return Vec::new() };
    context.fs_group.into_iter().chain(context.supplemental_groups.clone().unwrap_or_default()).collect()
}

fn groups_policy(context: Option<&PodSecurityContext>) -> Result<i32, Error> {
    match context.and_then(|c| c.supplemental_groups_policy.as_deref()) {
        None => Ok(0),
        Some(name) => cri::SupplementalGroupsPolicy::from_str_name(name)
            .map(|p| p as i32)
            .ok_or_else(|| Error::SupplementalGroupsPolicy(name.to_owned())),
    }
}

fn profile(kind: ProfileType) -> cri::SecurityProfile {
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref: String::new() }
}

fn seccomp(
    container: Option<&SeccompProfile>,
    pod: Option<&SeccompProfile>,
    root: &Path,
    default: bool,
) -> Result<cri::SecurityProfile, Error> {
    match container.or(pod) {
        None if default => Ok(profile(ProfileType::RuntimeDefault)),
        None => Ok(profile(ProfileType::Unconfined)),
        Some(chosen) => match (chosen.type_.as_str(), chosen.localhost_profile.as_deref()) {
            ("RuntimeDefault", _) => Ok(profile(ProfileType::RuntimeDefault)),
            ("Localhost", Some(name)) if !name.is_empty() => Ok(cri::SecurityProfile {
                profile_type: ProfileType::Localhost as i32,
                localhost_ref: root.join(name).display().to_string(),
            }),
            ("Localhost", _) => Err(Error::NoSeccompProfile),
            _ => Ok(profile(ProfileType::Unconfined)),
        },
    }
}

fn apparmor(pod: &Pod, container: &Container) -> Option<cri::SecurityProfile> {
    let own = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let of_pod = types::spec(pod).security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let AppArmorProfile { type_, localhost_profile } = own.or(of_pod)?;
    Some(match type_.as_str() {
        "Unconfined" => profile(ProfileType::Unconfined),
        "Localhost" => cri::SecurityProfile {
            profile_type: ProfileType::Localhost as i32,
            localhost_ref: localhost_profile.clone().unwrap_or_default(),
        },
        _ => profile(ProfileType::RuntimeDefault),
    })
}

const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn masked_paths() -> Vec<String> {
    [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(pod_context: &str, container_context: &str) -> Pod {
        serde_saphyr::from_str(&format!(
            "metadata: {{name: p, namespace: ns, uid: u}}\nspec:\n  securityContext: {pod_context}\n  \
             containers: [{{name: c, securityContext: {container_context}}}]"
        ))
        .expect("valid pod")
    }

    fn first(pod: &Pod) -> &Container {
        &types::spec(pod).containers[0]
    }

    #[test]
    fn non_root_is_verified() {
        let numeric = |uid| ImageUser { uid: Some(uid), username: String::new() };
        let named = ImageUser { uid: None, username: "app".into() };
        let cases = [
            ("{}", "{}", numeric(0), None),
            ("{runAsNonRoot: true}", "{}", numeric(1), None),
            ("{runAsNonRoot: true}", "{}", numeric(0), Some("image will run as root")),
            ("{runAsNonRoot: true}", "{runAsUser: 0}", numeric(1), Some("breaks non-root policy")),
            ("{runAsNonRoot: true, runAsUser: 7}", "{}", numeric(0), None),
            ("{runAsNonRoot: true}", "{runAsNonRoot: false}", numeric(0), None),
            ("{}", "{runAsNonRoot: true}", named, Some("non-numeric user (app)")),
        ];
        for (of_pod, of_container, image, message) in cases {
            let pod = pod(of_pod, of_container);
            let result = verify_non_root(&pod, first(&pod), &image);
            match message {
                None => assert_eq!(result, Ok(()), "{of_pod} {of_container}"),
                Some(m) => assert!(result.expect_err(m).to_string().contains(m), "{of_pod} {of_container}"),
            }
        }
    }

    #[test]
    fn container_overrides_pod() {
        let pod = pod(
            "{runAsUser: 5, runAsGroup: 6, fsGroup: 9, supplementalGroups: [10], seccompProfile: {type: RuntimeDefault}}",
            "{runAsUser: 7, allowPrivilegeEscalation: false, capabilities: {add: [NET_ADMIN], drop: [ALL]}}",
        );
        let c = container_context(&pod, first(&pod), &ImageUser::default(), Path::new("/seccomp"), false)
            .expect("valid");
        assert_eq!(c.run_as_user.map(|v| v.value), Some(7));
        assert_eq!(c.run_as_group.map(|v| v.value), Some(6));
        assert_eq!(c.supplemental_groups, [9, 10]);
        assert!(c.no_new_privs);
        assert_eq!(c.capabilities.expect("set").drop_capabilities, ["ALL"]);
        assert_eq!(c.seccomp.expect("set").profile_type, ProfileType::RuntimeDefault as i32);
    }

    #[test]
    fn namespaces_follow_the_spec() {
        let cases = [
            ("", (0, 1, 0)),
            ("hostNetwork: true", (2, 1, 0)),
            ("hostPID: true", (0, 2, 0)),
            ("hostIPC: true", (0, 1, 2)),
            ("shareProcessNamespace: true", (0, 0, 0)),
        ];
        for (line, expected) in cases {
            let pod: Pod =
                serde_saphyr::from_str(&format!("spec:\n  containers: []\n  {line}\n")).expect("valid");
            let n = namespace_options(&pod);
            assert_eq!((n.network, n.pid, n.ipc), expected, "{line}");
        }
    }
}
