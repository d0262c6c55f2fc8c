//! What a cluster is told once and remembers.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::pki::Subjects;

/// The way to other nodes is chosen by where they are.
pub const AUTO: &str = "auto";

fn auto() -> String {
    AUTO.to_owned()
}

/// The choices for one cluster on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// Name of this machine's Node; the host name if not given.
    #[arg(long, default_value_t = host_name())]
    pub node_name: String,
    /// Address of this machine that pods and other machines use; that of the default route if not given.
    #[arg(long, visible_alias = "advertise-address")]
    pub node_ip: Option<IpAddr>,
    /// Port of the API server.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address range of pods.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    /// Address range of services; the API is its first address, DNS its tenth.
    #[arg(long, default_value = "10.96.0.0/16")]
    pub service_cluster_ip_range: String,
    /// DNS domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// etcd members that keep the state; without them the embedded store does.
    #[arg(long, default_value = "")]
    pub etcd_servers: String,
    /// Bridge of the pod network.
    #[arg(long, default_value = "coxswain0")]
    pub bridge: String,
    /// How packets get to pods of other nodes: through them where they share a segment, else in a tunnel; or always one
    /// of both.
    #[arg(
        long,
        default_value = AUTO,
        value_parser = [AUTO, "host-gw", "vxlan"],
        overrides_with = "pod_network_backend"
    )]
    #[serde(default = "auto")]
    pub pod_network_backend: String,
    /// Control group that pods are put below; the root if empty.
    #[arg(long, default_value = "")]
    pub cgroup_root: String,
    /// How many pods this machine takes.
    #[arg(long, default_value_t = 110)]
    pub max_pods: u16,
    /// Log verbosity of all components.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
    /// Whether this machine is a node of another machine's cluster.
    #[arg(long, hide = true)]
    #[serde(default)]
    pub joined: bool,
}

/// The name of this machine, as a Node may have it.
#[must_use]
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

impl Settings {
    /// The address of this machine.
    ///
    /// # Errors
    /// It was not given and there is no route to tell it by.
    pub fn address(&self) -> Result<IpAddr> {
        if let Some(ip) = self.node_ip {
            return Ok(ip);
        }
        // Nothing is sent: connecting a UDP socket only asks the kernel for the route.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        let routed = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
        Ok(routed.context("this machine has no default route; give --node-ip")?.ip())
    }

    /// The address as a URL has it.
    ///
    /// # Errors
    /// The address was not given and cannot be told.
    pub fn url_host(&self) -> Result<String> {
        let address = self.address()?;
        Ok(if address.is_ipv6() { format!("[{address}]") } else { address.to_string() })
    }

    /// The URL of the API server: the node's own address, so that it is good on other machines too.
    ///
    /// # Errors
    /// The address was not given and cannot be told.
    pub fn url(&self) -> Result<String> {
        Ok(format!("https://{}:{}", self.url_host()?, self.secure_port))
    }

    /// An address of the service range by its place in it.
    ///
    /// # Errors
    /// The range is not an IPv4 range.
    pub fn service_address(&self, place: u32) -> Result<IpAddr> {
        let base = self.service_cluster_ip_range.split('/').next().unwrap_or_default();
        let base: std::net::Ipv4Addr = base.parse().with_context(|| {
            format!("{:?} is not a range such as 10.96.0.0/16", self.service_cluster_ip_range)
        })?;
        Ok(std::net::Ipv4Addr::from(u32::from(base) + place).into())
    }

    /// The address of the DNS service.
    ///
    /// # Errors
    /// The service range is not an IPv4 range.
    pub fn cluster_dns(&self) -> Result<IpAddr> {
        self.service_address(10)
    }

    /// Whom the certificates are for.
    ///
    /// # Errors
    /// An address cannot be told.
    pub fn subjects(&self) -> Result<Subjects> {
        Ok(Subjects {
            node_name: self.node_name.clone(),
            node_addresses: vec![self.address()?],
            service_address: self.service_address(1)?,
            cluster_domain: self.cluster_domain.clone(),
        })
    }

    /// Reads what was remembered.
    ///
    /// # Errors
    /// There is no cluster.
    pub fn read(layout: &Layout) -> Result<Self> {
        let path = layout.settings();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
    }

    /// Remembers them.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&self, layout: &Layout) -> Result<()> {
        write_json(&layout.settings(), self)
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(path, serde_json::to_string_pretty(value)?).with_context(|| format!("write {}", path.display()))
}
