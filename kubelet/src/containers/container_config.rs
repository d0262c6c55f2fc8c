//! Configuration of one container.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod};
use proto::cri;

use super::labels;
use super::resources::{LimitSettings, Place, container_resources};
use super::security::{self, ImageUser};
use crate::layout::container_log_file;

/// What the container needs from outside the pod's spec.
pub struct ContainerInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container; an ephemeral one in the form of a container.
    pub container: &'a Container,
    /// How often it was created before.
    pub restart_count: i32,
    /// Image as the runtime knows it.
    pub image_ref: String,
    /// Who the image runs as.
    pub image_user: ImageUser,
    /// Environment, expanded.
    pub env: Vec<(String, String)>,
    /// Command with variables expanded; empty for the image's.
    pub command: Vec<String>,
    /// Arguments with variables expanded; empty for the image's.
    pub args: Vec<String>,
    /// Mounts.
    pub mounts: Vec<cri::Mount>,
    /// Devices.
    pub devices: Vec<cri::Device>,
    /// Annotations that go with its devices.
    pub annotations: BTreeMap<String, String>,
    /// Devices by their qualified CDI names.
    pub cdi_devices: Vec<String>,
    /// Container whose processes this one sees; for ephemeral containers.
    pub target_id: Option<String>,
    /// How limits are enforced.
    pub limits: &'a LimitSettings,
    /// Where it runs.
    pub place: Place,
    /// Directory of seccomp profiles.
    pub seccomp_root: &'a Path,
    /// Confine containers that say nothing.
    pub seccomp_default: bool,
}

/// Builds the configuration of a container.
pub fn container_config(input: ContainerInput<'_>) -> Result<cri::ContainerConfig, security::Error> {
    let ContainerInput { pod, container, .. } = input;
    security::verify_non_root(pod, container, &input.image_user)?;
    let mut context = security::container_context(
        pod,
        container,
        &input.image_user,
        input.seccomp_root,
        input.seccomp_default,
    )?;
    if let (Some(target), Some(options)) = (input.target_id, context.namespace_options.as_mut())
        && options.pid == cri::NamespaceMode::Container as i32
    {
        options.pid = cri::NamespaceMode::Target as i32;
        options.target_id = target;
    }
    let attempt = u32::try_from(input.restart_count).unwrap_or_default();
    let mut annotations: HashMap<String, String> = input.annotations.into_iter().collect();
    // The kubelet's own are read back from here, so nobody else's take their place.
    annotations.extend(labels::container_annotations(pod, container, input.restart_count));
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(cri::ImageSpec {
            image: input.image_ref,
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: input.command,
        args: input.args,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: input.env.into_iter().map(|(key, value)| cri::KeyValue { key, value: value.into() }).collect(),
        mounts: input.mounts,
        devices: input.devices,
        labels: labels::container_labels(pod, &container.name),
        annotations,
        cdi_devices: input.cdi_devices.into_iter().map(|name| cri::CdiDevice { name }).collect(),
        log_path: container_log_file(&container.name, attempt),
        stdin: container.stdin.unwrap_or_default(),
        stdin_once: container.stdin_once.unwrap_or_default(),
        tty: container.tty.unwrap_or_default(),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(input.place.applied(container_resources(pod, container, input.limits))),
            security_context: Some(context),
        }),
        stop_signal: stop_signal(container),
        ..Default::default()
    })
}

fn stop_signal(container: &Container) -> i32 {
    let name = container.lifecycle.as_ref().and_then(|l| l.stop_signal.as_deref());
    name.and_then(cri::Signal::from_str_name).unwrap_or(cri::Signal::RuntimeDefault) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types;

    #[test]
    fn container_carries_names_and_limits() {
        let pod: Pod = serde_saphyr::from_str(
            "metadata: {name: p, namespace: ns, uid: u}\nspec:\n  containers:\n  - name: c\n    image: busybox\n\
             \x20   workingDir: /w\n    tty: true\n    resources: {limits: {memory: 1Mi}}\n\
             \x20   lifecycle: {stopSignal: SIGUSR1}\n",
        )
        .expect("valid");
        let config = container_config(ContainerInput {
            pod: &pod,
            container: &types::spec(&pod).containers[0],
            restart_count: 3,
            image_ref: "sha256:1".into(),
            image_user: ImageUser { uid: Some(0), username: String::new() },
            env: vec![("A".into(), "1".into())],
            command: vec!["sh".into()],
            args: vec![],
            mounts: vec![],
            devices: vec![],
            annotations: BTreeMap::from([("vendor/a".to_owned(), "1".to_owned())]),
            cdi_devices: vec!["vendor/class=1".into()],
            target_id: Some("t".into()),
            limits: &LimitSettings {
                cpu_cfs_quota: true,
                cpu_period: 100_000,
                memory_capacity: 1 << 30,
                cgroup_v2: false,
                swap_controller: false,
            },
            place: Place { cpus: "2-3".into(), memory_nodes: "1".into(), alone: true },
            seccomp_root: Path::new("/s"),
            seccomp_default: false,
        })
        .expect("valid");
        assert_eq!(config.log_path, "c/3.log");
        assert_eq!(config.image.expect("set").user_specified_image, "busybox");
        assert_eq!((config.working_dir.as_str(), config.tty), ("/w", true));
        assert_eq!(config.annotations["io.kubernetes.container.restartCount"], "3");
        assert_eq!(config.annotations["vendor/a"], "1");
        assert_eq!(config.cdi_devices[0].name, "vendor/class=1");
        assert_eq!(config.stop_signal, cri::Signal::Sigusr1 as i32);
        let linux = config.linux.expect("set");
        let resources = linux.resources.expect("set");
        assert_eq!(resources.memory_limit_in_bytes, 1 << 20);
        assert_eq!((resources.cpuset_cpus.as_str(), resources.cpuset_mems.as_str()), ("2-3", "1"));
        assert_eq!(resources.cpu_quota, -1);
        let options = linux.security_context.and_then(|c| c.namespace_options).expect("set");
        assert_eq!((options.pid, options.target_id.as_str()), (3, "t"));
    }
}
