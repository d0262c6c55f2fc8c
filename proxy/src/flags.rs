//! What kube-proxy is told: upstream's flags, and the file that stands for most of them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use client::ClientFlags;
use client::connect::ConnectOptions;
use client::leader::parse_duration;

use crate::config::{Config, ConntrackFile, DetectLocal, KubeProxyConfiguration, Writing};
use crate::kernel::Mode;

/// Programs packet rules for Services on this node.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-proxy", version)]
pub struct Flags {
    /// Where the API server is.
    #[command(flatten)]
    pub client: ClientFlags,
    /// A file with a KubeProxyConfiguration. The flags below count only without it, but for the node's name.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Name of this node's Node object; the host name if empty.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// Address range of pods, or one of each family; traffic from elsewhere to a service address is masqueraded.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// How traffic of pods is told from other: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix.
    #[arg(long, default_value = "")]
    pub detect_local_mode: String,
    /// The bridge that traffic of pods comes through.
    #[arg(long, default_value = "")]
    pub pod_bridge_interface: String,
    /// How the names of the network cards begin that traffic of pods comes through.
    #[arg(long, default_value = "")]
    pub pod_interface_name_prefix: String,
    /// The ranges whose addresses of this node node ports are on, or "primary" for those that the Node shows.
    #[arg(long, value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,
    /// How rules are programmed.
    #[arg(long, value_enum, default_value_t = Mode::Iptables)]
    pub proxy_mode: Mode,
    /// Masquerade all traffic to service addresses.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    pub masquerade_all: bool,
    /// Which bit of the packet mark says that a packet must be masqueraded (0 to 31).
    #[arg(long, default_value_t = 14)]
    pub iptables_masquerade_bit: i32,
    /// Let node ports be reached on loopback addresses.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub iptables_localhost_nodeports: bool,
    /// How often rules are checked against what others may have done to them.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub iptables_sync_period: Duration,
    /// Least time between two changes of the rules.
    #[arg(long, default_value = "50ms", value_parser = parse_duration)]
    pub iptables_min_sync_period: Duration,
    /// Whether endpoints listen on addresses of IPv4 or of IPv6, unless they are told where.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: String,
    /// Address and port of the health endpoint.
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// Address and port of the metrics endpoint.
    #[arg(long)]
    pub metrics_bind_address: Option<String>,
    /// How the kernel follows connections.
    #[command(flatten)]
    pub conntrack: ConntrackFlags,
    /// How likely this process is to be ended when memory is short (-1000 to 1000).
    #[arg(long, default_value_t = -999, allow_negative_numbers = true)]
    pub oom_score_adj: i32,
    /// Make the settings of the kernel that need all rights, then exit.
    #[arg(long)]
    pub init_only: bool,
    /// Remove all rules of kube-proxy, of either mode, then exit.
    #[arg(long)]
    pub cleanup: bool,
    /// Log verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
    #[command(flatten)]
    ignored: Ignored,
}

/// How the kernel follows connections.
#[derive(Clone, Debug, clap::Args)]
pub struct ConntrackFlags {
    /// How many connections are followed for each core (0 to leave that as it is).
    #[arg(long, default_value_t = 32 * 1024)]
    conntrack_max_per_core: i32,
    /// How many are followed at least.
    #[arg(long, default_value_t = 128 * 1024)]
    conntrack_min: i32,
    /// For how long an established connection of TCP may be silent (0 to leave that as it is).
    #[arg(long, default_value = "24h")]
    conntrack_tcp_timeout_established: String,
    /// For how long a connection of TCP may be half closed (0 to leave that as it is).
    #[arg(long, default_value = "1h")]
    conntrack_tcp_timeout_close_wait: String,
    /// Let packets outside of a connection's window pass.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    conntrack_tcp_be_liberal: bool,
    /// For how long a flow of UDP without answers is remembered (0 to leave that as it is).
    #[arg(long, default_value = "0s")]
    conntrack_udp_timeout: String,
    /// For how long a flow of UDP with answers is remembered (0 to leave that as it is).
    #[arg(long, default_value = "0s")]
    conntrack_udp_timeout_stream: String,
}

/// Flags of upstream's that change nothing here.
#[derive(Clone, Debug, Default, clap::Args)]
struct Ignored {
    #[arg(long, hide = true)]
    config_sync_period: Option<String>,
    #[arg(long, hide = true)]
    feature_gates: Option<String>,
    #[arg(long, hide = true)]
    kube_api_burst: Option<i32>,
    #[arg(long, hide = true)]
    kube_api_content_type: Option<String>,
    #[arg(long, hide = true)]
    kube_api_qps: Option<f32>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    bind_address_hard_fail: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    profiling: Option<bool>,
    #[arg(long, hide = true)]
    show_hidden_metrics_for_version: Option<String>,
}

impl Flags {
    /// What configures the proxy: the file, or else these flags; and how to reach the API server.
    ///
    /// # Errors
    /// The file cannot be read, or a value cannot be used; the error says which and what would be right.
    pub fn resolve(self) -> anyhow::Result<(Config, ConnectOptions)> {
        let mut options = self.client.options("kube-proxy");
        if let Some(path) = &self.config {
            let file = KubeProxyConfiguration::read(path)?;
            options.kubeconfig = file.kubeconfig().map(PathBuf::from).or(options.kubeconfig);
            return Ok((file.into_config(&self.hostname_override)?, options));
        }
        Ok((self.into_config()?, options))
    }

    /// Checks the flags.
    ///
    /// # Errors
    /// A value cannot be used; the error says which and what would be right.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let (hostname, min_sync_period) = (self.hostname_override.clone(), self.iptables_min_sync_period);
        let mut config = self.configuration().into_config(&hostname)?;
        // Unlike in a file, zero means zero.
        config.min_sync_period = min_sync_period;
        Ok(config)
    }

    fn configuration(self) -> KubeProxyConfiguration {
        let seconds = |period: Duration| Some(format!("{}ms", period.as_millis()));
        let writing = Writing {
            masquerade_bit: Some(self.iptables_masquerade_bit),
            masquerade_all: Some(self.masquerade_all),
            localhost_node_ports: Some(self.iptables_localhost_nodeports),
            sync_period: seconds(self.iptables_sync_period),
            min_sync_period: None,
        };
        let conntrack = self.conntrack;
        KubeProxyConfiguration {
            mode: Some(if self.proxy_mode == Mode::Iptables { "iptables" } else { "nftables" }.to_owned()),
            bind_address: Some(self.bind_address),
            healthz_bind_address: self.healthz_bind_address.map(or_off),
            metrics_bind_address: self.metrics_bind_address.map(or_off),
            iptables: Some(writing.clone()),
            nftables: Some(writing),
            detect_local_mode: Some(self.detect_local_mode),
            detect_local: Some(DetectLocal {
                bridge_interface: Some(self.pod_bridge_interface),
                interface_name_prefix: Some(self.pod_interface_name_prefix),
            }),
            cluster_cidr: Some(self.cluster_cidr),
            node_port_addresses: Some(self.nodeport_addresses),
            oom_score_adj: Some(self.oom_score_adj),
            conntrack: Some(ConntrackFile {
                max_per_core: Some(conntrack.conntrack_max_per_core),
                min: Some(conntrack.conntrack_min),
                tcp_established_timeout: Some(conntrack.conntrack_tcp_timeout_established),
                tcp_close_wait_timeout: Some(conntrack.conntrack_tcp_timeout_close_wait),
                tcp_be_liberal: Some(conntrack.conntrack_tcp_be_liberal),
                udp_timeout: Some(conntrack.conntrack_udp_timeout),
                udp_stream_timeout: Some(conntrack.conntrack_udp_timeout_stream),
            }),
            ..KubeProxyConfiguration::default()
        }
    }
}

/// A flag that is given empty switches an endpoint off.
fn or_off(text: String) -> String {
    if text.is_empty() { "0.0.0.0:0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::{LocalMode, NodePortAddresses};

    fn resolved(words: &[&str]) -> anyhow::Result<(Config, ConnectOptions)> {
        let words = std::iter::once("kube-proxy").chain(words.iter().copied());
        Flags::try_parse_from(words)?.resolve()
    }

    #[test]
    fn flags_are_those_of_upstream() {
        let (config, _) = resolved(&[
            "--hostname-override=N1",
            "--cluster-cidr=10.244.0.0/16,fd00:244::/56",
            "--nodeport-addresses=primary",
            "--iptables-min-sync-period=0",
            "--metrics-bind-address=",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0s",
            "--oom-score-adj=-7",
            "--feature-gates=A=true",
            "--profiling",
            "--kube-api-qps=5",
        ])
        .expect("good");
        assert_eq!(config.node_name, "n1");
        assert_eq!(
            config.local,
            LocalMode::ClusterCidr(vec!["10.244.0.0/16".into(), "fd00:244::/56".into()])
        );
        assert_eq!(config.node_port_addresses, NodePortAddresses::Primary);
        assert_eq!((config.min_sync_period, config.sync_period.as_secs()), (Duration::ZERO, 30));
        assert_eq!((config.metrics, config.oom_score_adj), (None, -7));
        assert_eq!(config.health.map(|address| address.port()), Some(10256));
        assert_eq!((config.conntrack.max_per_core, config.conntrack.tcp_established), (0, Duration::ZERO));
        assert_eq!(config.conntrack.tcp_close_wait.as_secs(), 3600);
        for wrong in ["--cluster-cidr=10.0.0.0", "--iptables-masquerade-bit=32", "--config=/no/such/file"] {
            assert!(resolved(&[wrong]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_file_goes_before_flags_but_for_the_nodes_name() {
        let path = std::env::temp_dir().join(format!("kube-proxy-{}.yaml", std::process::id()));
        let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n\
                    hostnameOverride: file\nclientConnection: {kubeconfig: /k}\nclusterCIDR: 10.1.0.0/16\n";
        std::fs::write(&path, text).expect("written");
        let flag = format!("--config={}", path.display());
        let (config, options) =
            resolved(&[&flag, "--hostname-override=flag", "--cluster-cidr=10.2.0.0/16"]).expect("good");
        assert_eq!((config.node_name.as_str(), config.mode), ("flag", Mode::Nftables));
        assert_eq!(config.local, LocalMode::ClusterCidr(vec!["10.1.0.0/16".into()]));
        assert_eq!(options.kubeconfig, Some(PathBuf::from("/k")));
        let (config, _) = resolved(&[&flag]).expect("good");
        assert_eq!(config.node_name, "file");
        std::fs::remove_file(path).expect("removed");
    }
}
