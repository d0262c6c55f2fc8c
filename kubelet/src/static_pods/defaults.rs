//! Defaults of a pod that came past no API server: those of upstream's `SetDefaults_Pod` and its parts that the
//! kubelet looks at.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, Probe};

/// Fills in what is absent.
pub(super) fn set_defaults(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    let text = |slot: &mut Option<String>, value: &str| {
        if slot.as_deref().unwrap_or_default().is_empty() {
            *slot = Some(value.to_owned());
        }
    };
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(30);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_with(PodSecurityContext::default);
    let host_network = spec.host_network.unwrap_or_default();
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        set_container(container, host_network);
    }
}

fn set_container(container: &mut Container, host_network: bool) {
    let image = container.image.clone().unwrap_or_default();
    let tagged = crate::images::name::with_default_tag(&image).unwrap_or(image);
    let policy = if tagged.ends_with(":latest") { "Always" } else { "IfNotPresent" };
    container.image_pull_policy.get_or_insert_with(|| policy.to_owned());
    container.termination_message_path.get_or_insert_with(|| "/dev/termination-log".to_owned());
    container.termination_message_policy.get_or_insert_with(|| "File".to_owned());
    for port in container.ports.iter_mut().flatten() {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
        if host_network {
            port.host_port.get_or_insert(port.container_port);
        }
    }
    // A limit without a request is its own request.
    if let Some(resources) = &mut container.resources
        && let Some(limits) = resources.limits.clone()
    {
        let requests = resources.requests.get_or_insert_default();
        for (name, amount) in limits {
            requests.entry(name).or_insert(amount);
        }
    }
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(set_probe);
}

fn set_probe(probe: &mut Probe) {
    probe.timeout_seconds.get_or_insert(1);
    probe.period_seconds.get_or_insert(10);
    probe.success_threshold.get_or_insert(1);
    probe.failure_threshold.get_or_insert(3);
    if let Some(get) = &mut probe.http_get {
        get.scheme.get_or_insert_with(|| "HTTP".to_owned());
        get.path.get_or_insert_with(|| "/".to_owned());
    }
}
