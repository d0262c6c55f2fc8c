//! What kube-proxy is told: upstream's flags and what follows from them.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use client::ClientFlags;
use client::component::BadConfiguration;
use client::leader::parse_duration;

use crate::kernel::Mode;

/// Programs packet rules for Services on this node.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-proxy", version)]
pub struct Flags {
    /// Where the API server is.
    #[command(flatten)]
    pub client: ClientFlags,
    /// Name of this node's Node object; the host name if empty.
    #[arg(long, default_value = "")]
    pub hostname_override: String,
    /// Address range of pods; traffic from elsewhere to a service address is masqueraded.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// How rules are programmed.
    #[arg(long, value_enum, default_value_t = Mode::Iptables)]
    pub proxy_mode: Mode,
    /// Masquerade all traffic to service addresses.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, action = clap::ArgAction::Set)]
    pub masquerade_all: bool,
    /// Which bit of the packet mark says that a packet must be masqueraded (0 to 31).
    #[arg(long, default_value_t = 14)]
    pub iptables_masquerade_bit: u8,
    /// Let node ports be reached on loopback addresses.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub iptables_localhost_nodeports: bool,
    /// How often rules are checked against what others may have done to them.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub iptables_sync_period: Duration,
    /// Least time between two changes of the rules.
    #[arg(long, default_value = "50ms", value_parser = parse_duration)]
    pub iptables_min_sync_period: Duration,
    /// Address and port of the health endpoint.
    #[arg(long, default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: String,
    /// Address and port of the metrics endpoint.
    #[arg(long, default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: String,
    /// Remove all rules of kube-proxy, of either mode, then exit.
    #[arg(long)]
    pub cleanup: bool,
    /// Log verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// How kube-proxy works on this node.
#[derive(Clone, Debug)]
pub struct Config {
    /// How rules are programmed.
    pub mode: Mode,
    /// Name of this node's Node object.
    pub node_name: String,
    /// Address ranges of pods, at most one of each family; empty if unknown.
    pub cluster_cidrs: Vec<String>,
    /// Masquerade all traffic to service addresses.
    pub masquerade_all: bool,
    /// The mark of packets to be masqueraded.
    pub masquerade_mark: u32,
    /// Whether node ports answer on loopback addresses.
    pub localhost_node_ports: bool,
    /// How often rules are checked against what others may have done to them.
    pub sync_period: Duration,
    /// Least time between two changes of the rules.
    pub min_sync_period: Duration,
    /// Health endpoint; none if switched off.
    pub health: Option<SocketAddr>,
    /// Metrics endpoint; none if switched off.
    pub metrics: Option<SocketAddr>,
}

impl Flags {
    /// Checks the flags.
    ///
    /// # Errors
    /// A value cannot be used; the error says which and what would be right.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let bad = |text: String| anyhow::Error::new(BadConfiguration(text));
        if self.iptables_masquerade_bit > 31 {
            return Err(bad("--iptables-masquerade-bit must be from 0 to 31".into()));
        }
        let cluster_cidrs: Vec<_> =
            self.cluster_cidr.split(',').filter(|c| !c.is_empty()).map(str::to_owned).collect();
        for cidr in &cluster_cidrs {
            let address = cidr.split_once('/').map(|(address, _)| address.parse::<std::net::IpAddr>());
            if !matches!(address, Some(Ok(_))) {
                return Err(bad(format!(
                    "--cluster-cidr {cidr:?} is not an address range such as 10.244.0.0/16"
                )));
            }
        }
        let node_name = if self.hostname_override.is_empty() { host_name()? } else { self.hostname_override };
        Ok(Config {
            mode: self.proxy_mode,
            node_name: node_name.trim().to_lowercase(),
            cluster_cidrs,
            masquerade_all: self.masquerade_all,
            masquerade_mark: 1 << self.iptables_masquerade_bit,
            localhost_node_ports: self.iptables_localhost_nodeports,
            sync_period: self.iptables_sync_period.max(Duration::from_secs(1)),
            min_sync_period: self.iptables_min_sync_period,
            health: address("--healthz-bind-address", &self.healthz_bind_address, 10256)?,
            metrics: address("--metrics-bind-address", &self.metrics_bind_address, 10249)?,
        })
    }
}

fn host_name() -> anyhow::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/hostname")?)
}

/// An address with or without a port; empty or port 0 switches the endpoint off.
fn address(flag: &str, text: &str, default_port: u16) -> anyhow::Result<Option<SocketAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text
        .parse::<SocketAddr>()
        .or_else(|_| text.parse().map(|ip: std::net::IpAddr| SocketAddr::new(ip, default_port)))
        .map_err(|_| {
            BadConfiguration(format!("{flag} {text:?} is not an address such as 127.0.0.1:{default_port}"))
        })?;
    Ok(Some(address).filter(|a| a.port() != 0))
}
