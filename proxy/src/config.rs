//! How kube-proxy works on this node: upstream's `KubeProxyConfiguration` (v1alpha1), read from a file or filled in from
//! flags, checked whole, and what follows from it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use client::component::BadConfiguration;
use client::leader::parse_duration;
use serde::Deserialize;

use crate::kernel::Mode;
use crate::local::{LocalMode, NodePortAddresses};

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";
/// Upstream's word for the addresses that the Node shows.
const PRIMARY: &str = "primary";
const OOM_SCORE_ADJ: i32 = -999;
const SYNC_PERIOD: Duration = Duration::from_secs(30);
/// Less than upstream's second: what is written is only what changed.
const MIN_SYNC_PERIOD: Duration = Duration::from_millis(50);

/// How kube-proxy works on this node.
#[derive(Clone, Debug)]
pub struct Config {
    /// How rules are programmed.
    pub mode: Mode,
    /// Name of this node's Node object.
    pub node_name: String,
    /// How traffic of pods is told from other.
    pub local: LocalMode,
    /// Which addresses node ports are on.
    pub node_port_addresses: NodePortAddresses,
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
    /// How the kernel follows connections.
    pub conntrack: Conntrack,
    /// How likely this process is to be ended when memory is short.
    pub oom_score_adj: i32,
}

/// How the kernel follows connections; what is zero is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conntrack {
    /// How many for each core ...
    pub max_per_core: u64,
    /// ... but not less than these.
    pub min: u64,
    /// For how long an established connection of TCP may be silent.
    pub tcp_established: Duration,
    /// For how long one may be half closed.
    pub tcp_close_wait: Duration,
    /// Whether packets outside of a connection's window are let pass.
    pub tcp_be_liberal: bool,
    /// For how long a flow of UDP without answers is remembered.
    pub udp: Duration,
    /// For how long one with answers is.
    pub udp_stream: Duration,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self {
            max_per_core: 32 * 1024,
            min: 128 * 1024,
            tcp_established: Duration::from_secs(24 * 3600),
            tcp_close_wait: Duration::from_secs(3600),
            tcp_be_liberal: false,
            udp: Duration::ZERO,
            udp_stream: Duration::ZERO,
        }
    }
}

/// Upstream's file. Whatever is not there, null, empty or zero stands for its default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "these are upstream's names")]
pub struct KubeProxyConfiguration {
    pub api_version: String,
    pub kind: String,
    pub client_connection: Option<ClientConnection>,
    pub hostname_override: Option<String>,
    pub bind_address: Option<String>,
    pub healthz_bind_address: Option<String>,
    pub metrics_bind_address: Option<String>,
    pub mode: Option<String>,
    pub iptables: Option<Writing>,
    pub nftables: Option<Writing>,
    pub detect_local_mode: Option<String>,
    pub detect_local: Option<DetectLocal>,
    #[serde(rename = "clusterCIDR")]
    pub cluster_cidr: Option<String>,
    pub node_port_addresses: Option<Vec<String>>,
    pub oom_score_adj: Option<i32>,
    pub conntrack: Option<ConntrackFile>,
}

/// How to reach the API server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "these are upstream's names")]
pub struct ClientConnection {
    pub kubeconfig: Option<String>,
}

/// How rules are written in one of the modes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "these are upstream's names")]
pub struct Writing {
    pub masquerade_bit: Option<i32>,
    pub masquerade_all: Option<bool>,
    pub localhost_node_ports: Option<bool>,
    pub sync_period: Option<String>,
    pub min_sync_period: Option<String>,
}

/// By which network cards pods are known.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "these are upstream's names")]
pub struct DetectLocal {
    pub bridge_interface: Option<String>,
    pub interface_name_prefix: Option<String>,
}

/// How the kernel follows connections.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "these are upstream's names")]
pub struct ConntrackFile {
    pub max_per_core: Option<i32>,
    pub min: Option<i32>,
    pub tcp_established_timeout: Option<String>,
    pub tcp_close_wait_timeout: Option<String>,
    pub tcp_be_liberal: Option<bool>,
    pub udp_timeout: Option<String>,
    pub udp_stream_timeout: Option<String>,
}

impl KubeProxyConfiguration {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or is another thing.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).map_err(|why| BadConfiguration(format!("{}: {why}", path.display())).into())
    }

    fn parse(text: &str) -> Result<Self, String> {
        let read: Self = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if (read.api_version.as_str(), read.kind.as_str()) == (API_VERSION, KIND) {
            return Ok(read);
        }
        Err(format!("it is {:?} of {:?}, not {KIND:?} of {API_VERSION:?}", read.kind, read.api_version))
    }

    /// The file that says how to reach the API server.
    #[must_use]
    pub fn kubeconfig(&self) -> Option<&str> {
        self.client_connection.as_ref()?.kubeconfig.as_deref().filter(|path| !path.is_empty())
    }

    /// Checks it; `hostname` goes before what it says of the node's name.
    ///
    /// # Errors
    /// A value cannot be used; the error says which and what would be right.
    pub fn into_config(self, hostname: &str) -> anyhow::Result<Config> {
        let named = [Some(hostname.to_owned()), self.hostname_override.clone()];
        let named = named.into_iter().flatten().find(|name| !name.trim().is_empty());
        let node_name = match named {
            Some(name) => name,
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")?,
        };
        Ok(self.resolve(node_name.trim().to_lowercase()).map_err(BadConfiguration)?)
    }

    fn resolve(self, node_name: String) -> Result<Config, String> {
        let mode = mode(self.mode.as_deref().unwrap_or_default())?;
        let (iptables, nftables) = (self.iptables.unwrap_or_default(), self.nftables.unwrap_or_default());
        let localhost = iptables.localhost_node_ports.unwrap_or(true);
        let writing = if mode == Mode::Iptables { iptables } else { nftables };
        let bit = writing.masquerade_bit.unwrap_or(14);
        let bit = u32::try_from(bit).ok().filter(|bit| *bit <= 31);
        let bit = bit.ok_or("MasqueradeBit: must be within the range [0, 31]")?;
        let sync_period = period("SyncPeriod", writing.sync_period, SYNC_PERIOD)?;
        let min_sync_period = period("MinSyncPeriod", writing.min_sync_period, MIN_SYNC_PERIOD)?;
        if min_sync_period > sync_period {
            return Err("SyncPeriod: must be greater than or equal to MinSyncPeriod".to_owned());
        }
        let oom_score_adj = self.oom_score_adj.unwrap_or(OOM_SCORE_ADJ);
        if !(-1000..=1000).contains(&oom_score_adj) {
            return Err("OOMScoreAdj: must be within the range [-1000, 1000]".to_owned());
        }
        let (any, loopback) = wildcards(self.bind_address.as_deref().unwrap_or_default())?;
        let node_port_addresses = node_port_addresses(mode, self.node_port_addresses.unwrap_or_default())?;
        let detect = self.detect_local.unwrap_or_default();
        Ok(Config {
            mode,
            node_name,
            local: local(self.detect_local_mode.as_deref().unwrap_or_default(), self.cluster_cidr, detect)?,
            masquerade_all: writing.masquerade_all.unwrap_or_default(),
            masquerade_mark: 1 << bit,
            localhost_node_ports: localhost && node_port_addresses.have_loopback(),
            node_port_addresses,
            sync_period: sync_period.max(Duration::from_secs(1)),
            min_sync_period,
            health: address("HealthzBindAddress", self.healthz_bind_address, any, 10256)?,
            metrics: address("MetricsBindAddress", self.metrics_bind_address, loopback, 10249)?,
            conntrack: conntrack(self.conntrack.unwrap_or_default())?,
            oom_score_adj,
        })
    }
}

fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "" | "iptables" => Ok(Mode::Iptables),
        "nftables" => Ok(Mode::Nftables),
        "ipvs" => Err("Mode: ipvs is not there, and deprecated: take nftables".to_owned()),
        other => Err(format!("Mode: {other:?} must be iptables, nftables or blank")),
    }
}

/// Zero stands for the default, as where nothing is said.
fn period(what: &str, text: Option<String>, default: Duration) -> Result<Duration, String> {
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Ok(default);
    }
    let period = parse_duration(&text).map_err(|error| format!("{what}: {error}"))?;
    Ok(if period.is_zero() { default } else { period })
}

/// Where endpoints listen unless told otherwise: on all addresses, and on loopback, of the family of the node's address.
fn wildcards(bind: &str) -> Result<(IpAddr, IpAddr), String> {
    let bind = if bind.is_empty() { "0.0.0.0" } else { bind };
    let ip: IpAddr = bind.parse().map_err(|_| format!("BindAddress: {bind:?} is not an address"))?;
    let of_v4 = (IpAddr::from([0; 4]), IpAddr::from([127, 0, 0, 1]));
    let of_v6 = (IpAddr::from([0_u16; 8]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    Ok(if ip.is_ipv4() { of_v4 } else { of_v6 })
}

fn node_port_addresses(mode: Mode, given: Vec<String>) -> Result<NodePortAddresses, String> {
    let words: Vec<_> =
        given.into_iter().map(|word| word.trim().to_owned()).filter(|w| !w.is_empty()).collect();
    match words.as_slice() {
        [] if mode == Mode::Nftables => Ok(NodePortAddresses::Primary),
        [] => Ok(NodePortAddresses::Everywhere),
        [only] if only == PRIMARY => Ok(NodePortAddresses::Primary),
        many if many.iter().any(|word| word == PRIMARY) => {
            Err("NodePortAddresses: can't use both 'primary' and CIDRs".to_owned())
        }
        many => match many.iter().find(|range| !is_range(range)) {
            Some(range) => Err(format!("NodePortAddresses: {range:?} must be a valid CIDR")),
            None => Ok(NodePortAddresses::Ranges(words)),
        },
    }
}

fn is_range(text: &str) -> bool {
    let Some((address, prefix)) = text.split_once('/') else { return false };
    let (Ok(address), Ok(prefix)) = (address.parse::<IpAddr>(), prefix.parse::<u8>()) else { return false };
    prefix <= if address.is_ipv4() { 32 } else { 128 }
}

fn local(mode: &str, cluster: Option<String>, detect: DetectLocal) -> Result<LocalMode, String> {
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    match mode {
        "" | "ClusterCIDR" => {
            let ranges: Vec<_> = cluster.iter().flat_map(|all| all.split(',')).map(str::trim).collect();
            let ranges: Vec<_> =
                ranges.into_iter().filter(|range| !range.is_empty()).map(str::to_owned).collect();
            let families: Vec<_> = ranges.iter().map(|range| range.contains(':')).collect();
            if let Some(range) = ranges.iter().find(|range| !is_range(range)) {
                return Err(format!("ClusterCIDR: {range:?} is not an address range such as 10.244.0.0/16"));
            }
            if ranges.len() > 2 || (ranges.len() == 2 && families[0] == families[1]) {
                return Err("ClusterCIDR: must be one range, or one of each family".to_owned());
            }
            Ok(LocalMode::ClusterCidr(ranges))
        }
        "NodeCIDR" => Ok(LocalMode::NodeCidr),
        "BridgeInterface" => {
            let name = some(detect.bridge_interface);
            name.map(LocalMode::Bridge).ok_or("DetectLocal.BridgeInterface: must be set".to_owned())
        }
        "InterfaceNamePrefix" => {
            let prefix = some(detect.interface_name_prefix);
            prefix.map(LocalMode::Prefix).ok_or("DetectLocal.InterfaceNamePrefix: must be set".to_owned())
        }
        other => Err(format!(
            "DetectLocalMode: {other:?} must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix"
        )),
    }
}

/// An address with or without a port; port 0 switches the endpoint off.
fn address(
    what: &str,
    text: Option<String>,
    any: IpAddr,
    default_port: u16,
) -> Result<Option<SocketAddr>, String> {
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Ok(Some(SocketAddr::new(any, default_port)));
    }
    let parsed =
        text.parse::<SocketAddr>().or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, default_port)));
    let address =
        parsed.map_err(|_| format!("{what}: {text:?} is not an address such as 127.0.0.1:{default_port}"))?;
    Ok(Some(address).filter(|address| address.port() != 0))
}

fn conntrack(file: ConntrackFile) -> Result<Conntrack, String> {
    let default = Conntrack::default();
    let count = |what: &str, given: Option<i32>, default: u64| match given {
        None => Ok(default),
        Some(given) => {
            u64::try_from(given).map_err(|_| format!("{what}: must be greater than or equal to 0"))
        }
    };
    // Here zero is meant: it leaves the kernel's own.
    let timeout = |what: &str, given: Option<String>, default: Duration| match given {
        None => Ok(default),
        Some(text) => parse_duration(&text).map_err(|error| format!("{what}: {error}")),
    };
    Ok(Conntrack {
        max_per_core: count("Conntrack.MaxPerCore", file.max_per_core, default.max_per_core)?,
        min: count("Conntrack.Min", file.min, default.min)?,
        tcp_established: timeout(
            "Conntrack.TCPEstablishedTimeout",
            file.tcp_established_timeout,
            default.tcp_established,
        )?,
        tcp_close_wait: timeout(
            "Conntrack.TCPCloseWaitTimeout",
            file.tcp_close_wait_timeout,
            default.tcp_close_wait,
        )?,
        tcp_be_liberal: file.tcp_be_liberal.unwrap_or_default(),
        udp: timeout("Conntrack.UDPTimeout", file.udp_timeout, default.udp)?,
        udp_stream: timeout("Conntrack.UDPStreamTimeout", file.udp_stream_timeout, default.udp_stream)?,
    })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
