//! The resolv.conf of a pod, from its `dnsPolicy`, its `dnsConfig` and the node's own resolver file.
//!
//! Pure apart from reading the node's resolver file. Limits are upstream's: three nameservers, 32 search domains,
//! 2048 characters of search list; what exceeds them is cut off and reported as a warning.

use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodDNSConfigOption};
use proto::cri::DnsConfig;

const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_DOMAIN: usize = 253;

/// What the kubelet knows about name resolution on this node.
#[derive(Clone, Debug, Default)]
pub struct DnsSettings {
    /// Addresses of the cluster's DNS server.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain, `cluster.local` mostly; empty for none.
    pub cluster_domain: String,
    /// The node's resolver file; empty disables look-ups for pods with policy Default.
    pub resolv_conf: PathBuf,
    /// Addresses of the node; only their families matter.
    pub node_ips: Vec<IpAddr>,
}

/// Why no resolver configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's resolver file cannot be read.
    #[error("open {path}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The node's resolver file makes no sense.
    #[error("Encountered error while parsing resolv conf file. Error: {0}")]
    Parse(String),
}

/// Something an operator should see as a Warning event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Reason of the event.
    pub reason: &'static str,
    /// Message of the event.
    pub message: String,
}

/// The content of a resolver file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// `nameserver` lines, in order.
    pub nameservers: Vec<String>,
    /// The last `search` line.
    pub searches: Vec<String>,
    /// Options, the last of a name wins.
    pub options: Vec<String>,
}

/// The resolver configuration of `pod`.
pub fn pod_dns(pod: &Pod, settings: &DnsSettings) -> Result<DnsConfig, Error> {
    pod_dns_with_warnings(pod, settings).map(|(config, _)| config)
}

/// The resolver configuration of `pod` and what should be told about it.
pub fn pod_dns_with_warnings(pod: &Pod, settings: &DnsSettings) -> Result<(DnsConfig, Vec<Warning>), Error> {
    let host = host_config(settings)?;
    Ok(compose(pod, settings, host))
}

fn host_config(settings: &DnsSettings) -> Result<ResolvConf, Error> {
    if settings.resolv_conf.as_os_str().is_empty() {
        return Ok(ResolvConf::default());
    }
    let text = std::fs::read_to_string(&settings.resolv_conf)
        .map_err(|source| Error::Open { path: settings.resolv_conf.clone(), source })?;
    parse_resolv_conf(&text)
}

/// Reads a resolver file.
pub fn parse_resolv_conf(text: &str) -> Result<ResolvConf, Error> {
    let mut conf = ResolvConf::default();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        let mut fields = line.split_whitespace();
        match fields.next() {
            Some("nameserver") => match fields.next() {
                Some(server) => conf.nameservers.push(server.to_owned()),
                None => return Err(Error::Parse("nameserver list is empty ".to_owned())),
            },
            Some("search") => {
                conf.searches = fields
                    .filter(|domain| *domain != ".")
                    .map(|domain| domain.strip_suffix('.').unwrap_or(domain).to_owned())
                    .collect();
            }
            Some("options") => fields.for_each(|option| replace_option(&mut conf.options, option)),
            _ => {}
        }
    }
    Ok(conf)
}

fn option_name(option: &str) -> &str {
    option.split(':').next().unwrap_or(option)
}

fn replace_option(options: &mut Vec<String>, option: &str) {
    match options.iter_mut().find(|known| option_name(known) == option_name(option)) {
        Some(known) => *known = option.to_owned(),
        None => options.push(option.to_owned()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Cluster,
    Host,
    None,
}

fn policy(pod: &Pod) -> Policy {
    let Some(spec) = &pod.spec else { return Policy::Cluster };
    match spec.dns_policy.as_deref() {
        Some("None") => Policy::None,
        Some("Default") => Policy::Host,
        Some("ClusterFirst") | None if spec.host_network == Some(true) => Policy::Host,
        _ => Policy::Cluster,
    }
}

fn compose(pod: &Pod, settings: &DnsSettings, host: ResolvConf) -> (DnsConfig, Vec<Warning>) {
    let mut warnings = Vec::new();
    let mut kind = policy(pod);
    if kind == Policy::Cluster && settings.cluster_dns.is_empty() {
        warnings.push(Warning { reason: "MissingClusterDNS", message: missing_cluster_dns(pod) });
        kind = Policy::Host;
    }
    let mut config = match kind {
        Policy::None => ResolvConf::default(),
        Policy::Cluster => cluster_config(pod, settings, host),
        Policy::Host => node_config(settings, host),
    };
    if let Some(own) = pod.spec.as_ref().and_then(|spec| spec.dns_config.as_ref()) {
        append_own(&mut config, own);
    }
    fit_nameservers(&mut config.nameservers, &mut warnings);
    fit_searches(&mut config.searches, &mut warnings);
    let config =
        DnsConfig { servers: config.nameservers, searches: config.searches, options: config.options };
    (config, warnings)
}

fn missing_cluster_dns(pod: &Pod) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    format!(
        "pod: \"{}_{}({})\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" \
         policy. Falling back to \"Default\" policy.",
        text(&pod.metadata.name),
        text(&pod.metadata.namespace),
        text(&pod.metadata.uid),
    )
}

fn cluster_config(pod: &Pod, settings: &DnsSettings, host: ResolvConf) -> ResolvConf {
    let mut searches = Vec::new();
    if !settings.cluster_domain.is_empty() {
        let domain = &settings.cluster_domain;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        searches.extend([format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()]);
    }
    searches.extend(host.searches);
    ResolvConf {
        nameservers: settings.cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches: without_duplicates(searches),
        options: vec!["ndots:5".to_owned()],
    }
}

fn node_config(settings: &DnsSettings, host: ResolvConf) -> ResolvConf {
    if !settings.resolv_conf.as_os_str().is_empty() {
        return host;
    }
    let mut nameservers: Vec<String> = settings
        .node_ips
        .iter()
        .map(|ip| if ip.is_ipv6() { "::1".to_owned() } else { "127.0.0.1".to_owned() })
        .collect();
    if nameservers.is_empty() {
        nameservers.push("127.0.0.1".to_owned());
    }
    ResolvConf { nameservers, searches: vec![".".to_owned()], options: host.options }
}

fn append_own(config: &mut ResolvConf, own: &PodDNSConfig) {
    config.nameservers.extend(own.nameservers.iter().flatten().cloned());
    config.searches.extend(own.searches.iter().flatten().cloned());
    config.nameservers = without_duplicates(std::mem::take(&mut config.nameservers));
    config.searches = without_duplicates(std::mem::take(&mut config.searches));
    for PodDNSConfigOption { name, value } in own.options.iter().flatten() {
        let name = name.as_deref().unwrap_or_default();
        let option = match value.as_deref() {
            Some(value) if !value.is_empty() => format!("{name}:{value}"),
            _ => name.to_owned(),
        };
        replace_option(&mut config.options, &option);
    }
}

fn without_duplicates(values: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    values.into_iter().filter(|value| seen.insert(value.clone())).collect()
}

fn fit_nameservers(nameservers: &mut Vec<String>, warnings: &mut Vec<Warning>) {
    if nameservers.len() > MAX_NAMESERVERS {
        nameservers.truncate(MAX_NAMESERVERS);
        let message = format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            nameservers.join(" ")
        );
        warnings.push(Warning { reason: "DNSConfigForming", message });
    }
}

fn fit_searches(searches: &mut Vec<String>, warnings: &mut Vec<Warning>) {
    let before = searches.len();
    searches.truncate(MAX_SEARCH_PATHS);
    searches.retain(|domain| domain.len() <= MAX_DOMAIN);
    while searches.join(" ").len() > MAX_SEARCH_CHARS {
        searches.pop();
    }
    if searches.len() < before {
        let message = format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            searches.join(" ")
        );
        warnings.push(Warning { reason: "DNSConfigForming", message });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn settings() -> DnsSettings {
        DnsSettings {
            cluster_dns: vec!["10.0.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: PathBuf::from("/node/resolv.conf"),
            node_ips: vec!["192.0.2.1".parse().unwrap()],
        }
    }

    fn pod(policy: &str, host_network: bool, config: Option<PodDNSConfig>) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("ns1".to_owned());
        pod.spec = Some(PodSpec {
            dns_policy: Some(policy.to_owned()),
            host_network: Some(host_network),
            dns_config: config,
            ..PodSpec::default()
        });
        pod
    }

    fn host() -> ResolvConf {
        parse_resolv_conf(
            "# a comment\nnameserver 1.1.1.1\nsearch corp. .\noptions timeout:1 rotate\noptions timeout:2\n",
        )
        .unwrap()
    }

    fn render(pod: &Pod, settings: &DnsSettings) -> (String, usize) {
        let (config, warnings) = compose(pod, settings, host());
        let text = format!(
            "{} | {} | {}",
            config.servers.join(","),
            config.searches.join(","),
            config.options.join(",")
        );
        (text, warnings.len())
    }

    #[test]
    fn resolver_file_is_read_with_the_last_search_and_option_winning() {
        let conf = host();
        assert_eq!(conf.nameservers, ["1.1.1.1"]);
        assert_eq!(conf.searches, ["corp"]);
        assert_eq!(conf.options, ["timeout:2", "rotate"]);
        assert!(parse_resolv_conf("nameserver\n").is_err());
    }

    #[test]
    fn policy_decides_the_configuration() {
        let cluster = "10.0.0.10 | ns1.svc.cluster.local,svc.cluster.local,cluster.local,corp | ndots:5";
        let node = "1.1.1.1 | corp | timeout:2,rotate";
        for (policy, host_network, want) in [
            ("ClusterFirst", false, cluster),
            ("ClusterFirst", true, node),
            ("ClusterFirstWithHostNet", true, cluster),
            ("Default", false, node),
            ("None", false, " |  | "),
        ] {
            assert_eq!(
                render(&pod(policy, host_network, None), &settings()),
                (want.to_owned(), 0),
                "{policy} {host_network}"
            );
        }
    }

    #[test]
    fn without_cluster_dns_the_node_configuration_is_used_with_a_warning() {
        let mut settings = settings();
        settings.cluster_dns.clear();
        assert_eq!(
            render(&pod("ClusterFirst", false, None), &settings),
            ("1.1.1.1 | corp | timeout:2,rotate".to_owned(), 1)
        );
        settings.resolv_conf = PathBuf::new();
        assert_eq!(render(&pod("Default", false, None), &settings).0, "127.0.0.1 | . | timeout:2,rotate");
    }

    #[test]
    fn own_configuration_is_merged_and_cut_to_the_limits() {
        let own = PodDNSConfig {
            nameservers: Some(["10.0.0.10", "2.2.2.2", "3.3.3.3", "4.4.4.4"].map(str::to_owned).to_vec()),
            searches: Some(vec!["corp".to_owned(), "my".to_owned()]),
            options: Some(vec![
                PodDNSConfigOption { name: Some("ndots".to_owned()), value: Some("2".to_owned()) },
                PodDNSConfigOption { name: Some("edns0".to_owned()), value: None },
            ]),
        };
        let (text, warnings) = render(&pod("ClusterFirst", false, Some(own)), &settings());
        let want = "10.0.0.10,2.2.2.2,3.3.3.3 | ns1.svc.cluster.local,svc.cluster.local,cluster.local,corp,my | ndots:2,edns0";
        assert_eq!((text.as_str(), warnings), (want, 1));
        let mut long: Vec<String> = (0..40).map(|i| format!("{i:02}{}", "x".repeat(98))).collect();
        let mut warnings = Vec::new();
        fit_searches(&mut long, &mut warnings);
        assert_eq!((long.len(), warnings.len()), (20, 1));
    }
}
