//! From the runtime's messages to the kubelet's own view of a pod.

use std::cmp::Reverse;

use jiff::Timestamp;
use proto::cri;

use crate::containers::labels;
use crate::types::{ContainerId, ContainerState, ContainerStatus, PodStatus, SandboxStatus};

/// A time of the runtime's, in nanoseconds since 1970; zero means none.
#[must_use]
pub fn timestamp(nanos: i64) -> Option<Timestamp> {
    if nanos == 0 { None } else { Timestamp::from_nanosecond(i128::from(nanos)).ok() }
}

/// The state of a container.
#[must_use]
pub fn container_state(state: i32) -> ContainerState {
    match cri::ContainerState::try_from(state) {
        Ok(cri::ContainerState::ContainerCreated) => ContainerState::Created,
        Ok(cri::ContainerState::ContainerRunning) => ContainerState::Running,
        Ok(cri::ContainerState::ContainerExited) => ContainerState::Exited,
        _ => ContainerState::Unknown,
    }
}

/// Puts the statuses of one pod's sandboxes and containers together, newest first each.
#[must_use]
pub fn pod_status(
    runtime: &str,
    uid: &str,
    sandboxes: Vec<cri::PodSandboxStatus>,
    containers: Vec<cri::ContainerStatus>,
) -> PodStatus {
    let mut status = PodStatus { uid: uid.to_owned(), ..PodStatus::default() };
    if let Some(metadata) = sandboxes.iter().find_map(|s| s.metadata.as_ref()) {
        status.name.clone_from(&metadata.name);
        status.namespace.clone_from(&metadata.namespace);
    } else if let Some(container) = containers.first() {
        let label = |key: &str| container.labels.get(key).cloned().unwrap_or_default();
        status.name = label(labels::POD_NAME);
        status.namespace = label(labels::POD_NAMESPACE);
    }
    // Attempts first: they grow even while somebody sets the clock back.
    status.sandboxes = sandboxes.into_iter().map(sandbox).collect();
    status.sandboxes.sort_by_key(|s| Reverse((s.attempt, s.created_at)));
    status.containers = containers.into_iter().map(|c| container(runtime, c)).collect();
    status.containers.sort_by_key(|c| Reverse((c.restart_count, c.created_at)));
    status.ips = status.sandboxes.first().filter(|s| s.ready).map(|s| s.ips.clone()).unwrap_or_default();
    status
}

fn sandbox(status: cri::PodSandboxStatus) -> SandboxStatus {
    let host_network = status
        .linux
        .and_then(|l| l.namespaces)
        .and_then(|n| n.options)
        .is_some_and(|o| o.network == cri::NamespaceMode::Node as i32);
    let mut ips = Vec::new();
    if let Some(network) = status.network.filter(|_| !host_network) {
        let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|i| i.ip));
        ips.extend(all.filter(|ip| ip.parse::<std::net::IpAddr>().is_ok()));
    }
    SandboxStatus {
        id: status.id,
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        created_at: timestamp(status.created_at),
        attempt: status.metadata.map(|m| m.attempt).unwrap_or_default(),
        host_network,
        ips,
        runtime_handler: status.runtime_handler,
    }
}

fn container(runtime: &str, status: cri::ContainerStatus) -> ContainerStatus {
    let info = labels::ContainerInfo::read(&status.labels, &status.annotations);
    let attempt = status.metadata.as_ref().map(|m| m.attempt).unwrap_or_default();
    let image = status.image.unwrap_or_default();
    // The name the user asked for, when the runtime kept it.
    let image_name =
        if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
    ContainerStatus {
        id: ContainerId::new(runtime, status.id),
        name: info.name,
        state: container_state(status.state),
        created_at: timestamp(status.created_at),
        started_at: timestamp(status.started_at),
        finished_at: timestamp(status.finished_at),
        exit_code: status.exit_code,
        image: image_name,
        image_id: if status.image_ref.is_empty() { status.image_id.clone() } else { status.image_ref },
        image_ref: status.image_id,
        hash: info.hash,
        restart_count: info.restart_count.unwrap_or_else(|| i32::try_from(attempt).unwrap_or(i32::MAX)),
        reason: status.reason,
        message: status.message,
        log_path: status.log_path,
        sandbox_id: String::new(),
        resources: status.resources.and_then(|r| r.linux),
        user: status.user.and_then(|u| u.linux),
        mounts: status.mounts,
        stop_signal: cri::Signal::try_from(status.stop_signal)
            .ok()
            .filter(|s| *s != cri::Signal::RuntimeDefault)
            .map(|s| s.as_str_name().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox_status(id: &str, created: i64, ready: bool, ip: &str, node: bool) -> cri::PodSandboxStatus {
        let network = if node { cri::NamespaceMode::Node } else { cri::NamespaceMode::Pod };
        cri::PodSandboxStatus {
            id: id.to_owned(),
            metadata: Some(cri::PodSandboxMetadata {
                name: "p".into(),
                namespace: "ns".into(),
                ..Default::default()
            }),
            state: if ready { 0 } else { 1 },
            created_at: created,
            network: Some(cri::PodSandboxNetworkStatus {
                ip: ip.to_owned(),
                additional_ips: vec![cri::PodIp { ip: "fd00::9".to_owned() }],
            }),
            linux: Some(cri::LinuxPodSandboxStatus {
                namespaces: Some(cri::Namespace {
                    options: Some(cri::NamespaceOption { network: network as i32, ..Default::default() }),
                }),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn addresses_are_those_of_the_newest_ready_sandbox() {
        let cases = [
            (vec![("a", 1, true, "10.0.0.1", false)], vec!["10.0.0.1", "fd00::9"]),
            (
                vec![("a", 1, true, "10.0.0.1", false), ("b", 2, true, "10.0.0.2", false)],
                vec!["10.0.0.2", "fd00::9"],
            ),
            (vec![("a", 1, true, "10.0.0.1", false), ("b", 2, false, "10.0.0.2", false)], vec![]),
            (vec![("a", 1, true, "192.0.2.1", true)], vec![]),
            (vec![("a", 1, true, "", false)], vec!["fd00::9"]),
        ];
        for (sandboxes, ips) in cases {
            let sandboxes =
                sandboxes.iter().map(|(i, c, r, ip, n)| sandbox_status(i, *c, *r, ip, *n)).collect();
            let status = pod_status("containerd", "u", sandboxes, Vec::new());
            assert_eq!(status.ips, ips);
            assert_eq!((status.name.as_str(), status.namespace.as_str()), ("p", "ns"));
        }
    }
}
