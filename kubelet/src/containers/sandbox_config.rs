//! Configuration of a pod's sandbox.

use k8s_openapi::api::core::v1::{Container, Pod};
use proto::cri;

use super::resources::{LimitSettings, sandbox_resources};
use super::{labels, security};
use crate::admission::sysctl::normalize;
use crate::layout::Layout;
use crate::types;

/// What the sandbox needs from outside the pod's spec.
pub struct SandboxInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Which sandbox of the pod it is, counted from zero.
    pub attempt: u32,
    /// Resolver configuration.
    pub dns: cri::DnsConfig,
    /// Host name; ignored on the node's network.
    pub hostname: String,
    /// Parent cgroup as the runtime's driver names it; empty without per-pod cgroups.
    pub cgroup_parent: String,
    /// Paths of this node.
    pub layout: &'a Layout,
    /// How limits are enforced.
    pub limits: &'a LimitSettings,
}

/// Builds the configuration of a sandbox.
pub fn sandbox_config(input: SandboxInput<'_>) -> Result<cri::PodSandboxConfig, security::Error> {
    let pod = input.pod;
    let (name, namespace, uid) = (types::name(pod), types::namespace(pod), types::uid(pod));
    let sysctls = types::spec(pod).security_context.as_ref().and_then(|c| c.sysctls.as_ref());
    let linux = cri::LinuxPodSandboxConfig {
        cgroup_parent: input.cgroup_parent,
        security_context: Some(security::sandbox_context(pod)?),
        sysctls: sysctls.into_iter().flatten().map(|s| (normalize(&s.name), s.value.clone())).collect(),
        overhead: None,
        resources: Some(sandbox_resources(pod, input.limits)),
    };
    Ok(cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            attempt: input.attempt,
        }),
        hostname: if types::host_network(pod) { String::new() } else { input.hostname },
        log_directory: input.layout.pod_log_dir(namespace, name, uid).display().to_string(),
        dns_config: Some(input.dns),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(linux),
        windows: None,
    })
}

/// Ports of app containers and sidecars, those with a host port among them; none on the node's own network.
fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if types::host_network(pod) {
        return Vec::new();
    }
    let spec = types::spec(pod);
    let sidecars = types::init_containers(spec).iter().filter(|c| types::is_restartable_init(c));
    spec.containers.iter().chain(sidecars).flat_map(container_ports).collect()
}

fn container_ports(container: &Container) -> impl Iterator<Item = cri::PortMapping> + '_ {
    container.ports.iter().flatten().map(|port| cri::PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        } as i32,
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or_default(),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(spec: &str) -> cri::PodSandboxConfig {
        let pod: Pod =
            serde_saphyr::from_str(&format!("metadata: {{name: p, namespace: ns, uid: u}}\nspec:\n{spec}"))
                .expect("valid");
        sandbox_config(SandboxInput {
            pod: &pod,
            attempt: 1,
            dns: cri::DnsConfig::default(),
            hostname: "p".into(),
            cgroup_parent: "/kubepods/besteffort/podu".into(),
            layout: &Layout::new("/var/lib/kubelet", "/var/log/pods", "/var/log/containers"),
            limits: &LimitSettings {
                cpu_cfs_quota: true,
                cpu_period: 100_000,
                memory_capacity: 1 << 30,
                cgroup_v2: false,
                swap_controller: false,
            },
        })
        .expect("valid")
    }

    #[test]
    fn sandbox_carries_identity_ports_and_sysctls() {
        let c = config(
            "  securityContext: {sysctls: [{name: net.core.somaxconn, value: '1024'}]}\n  containers:\n\
             \x20 - {name: a, ports: [{containerPort: 53, hostPort: 5353, protocol: UDP, hostIP: 127.0.0.1}]}\n",
        );
        assert_eq!(c.log_directory, "/var/log/pods/ns_p_u");
        assert_eq!((c.hostname.as_str(), c.metadata.as_ref().map(|m| m.attempt)), ("p", Some(1)));
        assert_eq!(c.labels["io.kubernetes.pod.uid"], "u");
        let port = &c.port_mappings[0];
        assert_eq!((port.protocol, port.container_port, port.host_port), (1, 53, 5353));
        let linux = c.linux.expect("set");
        assert_eq!(linux.sysctls["net.core.somaxconn"], "1024");
        assert_eq!(linux.cgroup_parent, "/kubepods/besteffort/podu");
    }

    #[test]
    fn host_network_has_neither_hostname_nor_mappings() {
        let c = config(
            "  hostNetwork: true\n  containers: [{name: a, ports: [{containerPort: 80, hostPort: 80}]}]\n",
        );
        assert!(c.hostname.is_empty() && c.port_mappings.is_empty());
    }
}
