//! The host name of a pod and its managed /etc/hosts.

use std::io;
use std::path::Path;

use k8s_openapi::api::core::v1::{HostAlias, Pod};

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const NODE_HOSTS: &str = "/etc/hosts";
/// Host names have 64 bytes in the kernel, the last of them a NUL.
const MAX_HOSTNAME: usize = 63;
const MAX_FQDN: usize = 64;

/// Why a pod cannot have the host name it asks for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `hostname` or `subdomain` of the spec is not a DNS label.
    #[error("pod {field} {value:?} is not a valid DNS label")]
    Label {
        /// `Hostname` or `Subdomain`.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// Nothing is left after cutting.
    #[error("hostname for pod {pod:?} was invalid: {hostname:?}")]
    Empty {
        /// The pod.
        pod: String,
        /// The host name before cutting.
        hostname: String,
    },
    /// `setHostnameAsFQDN` with a name that is too long.
    #[error(
        "Failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({max} characters is the max, {len} characters requested)"
    )]
    FqdnTooLong {
        /// The name.
        fqdn: String,
        /// The limit.
        max: usize,
        /// Its length.
        len: usize,
    },
}

/// Host name and domain of `pod`; the domain is empty when the pod has no subdomain.
pub fn pod_hostname(pod: &Pod, cluster_domain: &str) -> Result<(String, String), Error> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Ok((cut(&name, &name)?, String::new())) };
    if let Some(hostname) = &spec.hostname_override {
        return Ok((cut(&name, hostname)?, String::new()));
    }
    let hostname = match spec.hostname.as_deref() {
        Some(own) if !own.is_empty() => label("Hostname", own)?,
        _ => &name,
    };
    let hostname = cut(&name, hostname)?;
    let domain = match spec.subdomain.as_deref() {
        Some(own) if !own.is_empty() => {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            format!("{}.{namespace}.svc.{cluster_domain}", label("Subdomain", own)?)
        }
        _ => String::new(),
    };
    Ok((hostname, domain))
}

/// The host name for the sandbox: the short one, or the full one when `setHostnameAsFQDN` asks for it.
pub fn sandbox_hostname(pod: &Pod, hostname: &str, domain: &str) -> Result<String, Error> {
    let as_fqdn = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true) && spec.hostname_override.is_none());
    if !as_fqdn || domain.is_empty() {
        return Ok(hostname.to_owned());
    }
    let fqdn = format!("{hostname}.{domain}");
    if fqdn.len() > MAX_FQDN {
        return Err(Error::FqdnTooLong { len: fqdn.len(), max: MAX_FQDN, fqdn });
    }
    Ok(fqdn)
}

fn label<'a>(field: &'static str, value: &'a str) -> Result<&'a str, Error> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let valid =
        value.len() <= 63 && value.chars().all(inner) && !value.starts_with('-') && !value.ends_with('-');
    if valid { Ok(value) } else { Err(Error::Label { field, value: value.to_owned() }) }
}

fn cut(pod: &str, hostname: &str) -> Result<String, Error> {
    let short = if hostname.len() <= MAX_HOSTNAME {
        hostname
    } else {
        hostname.get(..MAX_HOSTNAME).unwrap_or_default().trim_end_matches(['-', '.'])
    };
    if short.is_empty() {
        return Err(Error::Empty { pod: pod.to_owned(), hostname: hostname.to_owned() });
    }
    Ok(short.to_owned())
}

/// Whether the kubelet gives `pod` a hosts file at all: a pod of the host network always, others once they have an address.
pub fn wants_hosts_file(pod: &Pod, pod_ips: &[String]) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) || !pod_ips.is_empty()
}

/// Writes the hosts file of `pod` at `path`.
pub async fn ensure_hosts_file(
    path: &Path,
    pod: &Pod,
    pod_ips: &[String],
    hostname: &str,
    domain: &str,
) -> io::Result<()> {
    let aliases = pod.spec.as_ref().and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    let content = if pod.spec.as_ref().is_some_and(|spec| spec.host_network == Some(true)) {
        node_hosts(&tokio::fs::read_to_string(NODE_HOSTS).await?, aliases)
    } else {
        managed_hosts(pod_ips, hostname, domain, aliases)
    };
    if tokio::fs::read(path).await.is_ok_and(|old| old == content.as_bytes()) {
        return Ok(());
    }
    // Written in place: containers hold the file itself in a bind mount.
    tokio::fs::write(path, content).await?;
    use std::os::unix::fs::PermissionsExt;
    tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).await
}

fn node_hosts(node: &str, aliases: &[HostAlias]) -> String {
    format!("{HEADER_HOST_NETWORK}{node}{}", alias_lines(aliases))
}

fn managed_hosts(pod_ips: &[String], hostname: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut text = HEADER.to_owned();
    text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    text.push_str(
        "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    for ip in pod_ips {
        if domain.is_empty() {
            text.push_str(&format!("{ip}\t{hostname}\n"));
        } else {
            text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
        }
    }
    text + &alias_lines(aliases)
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = "\n# Entries added by HostAliases.\n".to_owned();
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        text.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn pod(name: &str, spec: PodSpec) -> Pod {
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("ns".to_owned());
        pod
    }

    fn spec(hostname: &str, subdomain: &str) -> PodSpec {
        PodSpec {
            hostname: Some(hostname.to_owned()),
            subdomain: Some(subdomain.to_owned()),
            ..PodSpec::default()
        }
    }

    #[test]
    fn hostname_comes_from_the_spec_or_the_name() {
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(10));
        for (name, spec, want) in [
            ("web-0", PodSpec::default(), Some(("web-0".to_owned(), ""))),
            ("web-0", spec("h", "sub"), Some(("h".to_owned(), "sub.ns.svc.cluster.local"))),
            (&long, PodSpec::default(), Some(("a".repeat(62), ""))),
            ("web-0", spec("Bad", ""), None),
            ("web-0", spec("", "a.b"), None),
        ] {
            let got = pod_hostname(&pod(name, spec), "cluster.local").ok();
            assert_eq!(got, want.map(|(h, d)| (h, d.to_owned())), "{name}");
        }
    }

    #[test]
    fn fqdn_is_used_only_on_request_and_within_64_characters() {
        let mut asked = spec("h", "sub");
        asked.set_hostname_as_fqdn = Some(true);
        let asked = pod("p", asked);
        assert_eq!(sandbox_hostname(&asked, "h", "sub.ns.svc.c").unwrap(), "h.sub.ns.svc.c");
        assert_eq!(sandbox_hostname(&asked, "h", "").unwrap(), "h");
        assert!(sandbox_hostname(&asked, "h", &"x".repeat(63)).is_err());
        assert_eq!(sandbox_hostname(&pod("p", spec("h", "sub")), "h", "d").unwrap(), "h");
    }

    #[test]
    fn hosts_file_lists_pod_and_aliases() {
        let alias =
            HostAlias { ip: "1.2.3.4".to_owned(), hostnames: Some(vec!["a".to_owned(), "b".to_owned()]) };
        let text = managed_hosts(&["10.1.0.2".to_owned()], "h", "s.ns.svc.c", &[alias]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with(
            "fe00::2\tip6-allrouters\n10.1.0.2\ths.ns.svc.c\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
                .replace("\ths.ns.svc.c", "\th.s.ns.svc.c\th").as_str()
        ));
        assert_eq!(node_hosts("x\n", &[]), "# Kubernetes-managed hosts file (host network).\nx\n");
    }
}
