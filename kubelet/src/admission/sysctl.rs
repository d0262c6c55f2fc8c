//! Kernel parameters a pod may set. Pure; as upstream's `sysctl/allowlist.go`.

use k8s_openapi::api::core::v1::Pod;

use super::{Rejection, reject};
use crate::types;

/// Parameters that touch nothing outside of the pod.
const SAFE: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// The name with dots: `net/ipv4/x` and `net.ipv4.x` are one. An interface's name may itself hold dots, so the
/// first separator tells which of the two is used.
#[must_use]
pub fn normalize(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| {
                if c == '/' {
                    '.'
                } else if c == '.' {
                    '/'
                } else {
                    c
                }
            })
            .collect(),
        _ => name.to_owned(),
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    let pattern = normalize(pattern);
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// Admits a pod whose parameters are safe, or allowed on this node.
pub fn check(pod: &Pod, allowed: &[String]) -> Result<(), Rejection> {
    let spec = types::spec(pod);
    let sysctls = spec.security_context.as_ref().and_then(|c| c.sysctls.as_deref()).unwrap_or_default();
    for sysctl in sysctls {
        let name = normalize(&sysctl.name);
        let safe = SAFE.contains(&name.as_str());
        if !safe && !allowed.iter().any(|pattern| matches(pattern, &name)) {
            return reject("SysctlForbidden", format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        let net = name.starts_with("net.");
        let ipc =
            ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."].iter().any(|p| name.starts_with(p));
        if net && spec.host_network.unwrap_or_default() {
            let text = format!("forbidden sysctl: {:?} not allowed with host net enabled", sysctl.name);
            return reject("SysctlForbidden", text);
        }
        if ipc && spec.host_ipc.unwrap_or_default() {
            let text = format!("forbidden sysctl: {:?} not allowed with host ipc enabled", sysctl.name);
            return reject("SysctlForbidden", text);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_or_allowed_parameters_pass() {
        let allowed = ["kernel.msg*".to_owned(), "net/core/somaxconn".to_owned()];
        let cases = [
            ("net.ipv4.tcp_syncookies", "", true),
            ("net/ipv4/tcp_syncookies", "", true),
            ("kernel.msgmax", "", true),
            ("net.core.somaxconn", "", true),
            ("net.core.rmem_max", "", false),
            ("kernel.sem", "", false),
            ("net.ipv4.tcp_syncookies", ", hostNetwork: true", false),
            ("kernel.msgmax", ", hostIPC: true", false),
            ("kernel.msgmax", ", hostNetwork: true", true),
        ];
        for (name, more, passes) in cases {
            let pod: Pod = serde_saphyr::from_str(&format!(
                "spec: {{containers: [], securityContext: {{sysctls: [{{name: {name}, value: '1'}}]}}{more}}}"
            ))
            .expect("valid pod");
            assert_eq!(check(&pod, &allowed).is_ok(), passes, "{name} {more}");
        }
    }

    #[test]
    fn names_are_one_in_both_notations() {
        assert_eq!(normalize("net/ipv4/conf/eth0.1/forwarding"), "net.ipv4.conf.eth0/1.forwarding");
        assert_eq!(normalize("net.ipv4.conf.eth0/1.forwarding"), "net.ipv4.conf.eth0/1.forwarding");
    }
}
