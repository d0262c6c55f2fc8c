//! What a cluster is told once and remembers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};

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
    /// Address of this machine that pods and other machines use, or one of each family; that of the default route if not
    /// given.
    #[arg(long, visible_alias = "advertise-address", value_delimiter = ',')]
    #[serde(default, deserialize_with = "some_or_one")]
    pub node_ip: Vec<IpAddr>,
    /// Port of the API server.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address range of pods, or one of each family.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    /// Address range of services, or one of each family; the API is the first address of the first, DNS its tenth.
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
    /// The addresses of this machine, the first of the family that the cluster has first.
    ///
    /// # Errors
    /// They were not given and there is no route to tell them by.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        if !self.node_ip.is_empty() {
            return Ok(self.node_ip.clone());
        }
        let found: Vec<_> = self.cluster_cidr.split(',').filter_map(address_towards).collect();
        ensure!(!found.is_empty(), "this machine has no default route; give --node-ip");
        Ok(found)
    }

    /// The address of this machine that stands in URLs.
    ///
    /// # Errors
    /// It was not given and there is no route to tell it by.
    pub fn address(&self) -> Result<IpAddr> {
        self.addresses()?.first().copied().context("this machine has no address")
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

    /// An address of the first service range by its place in it.
    ///
    /// # Errors
    /// The range is none.
    pub fn service_address(&self, place: u32) -> Result<IpAddr> {
        let range = self.service_cluster_ip_range.split(',').next().unwrap_or_default();
        let base = range.split('/').next().unwrap_or_default();
        let base: IpAddr =
            base.parse().with_context(|| format!("{range:?} is not a range such as 10.96.0.0/16"))?;
        Ok(match base {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(place)).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(place.into())).into(),
        })
    }

    /// The address of the DNS service.
    ///
    /// # Errors
    /// The service range is none.
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
            node_addresses: self.addresses()?,
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

/// The address that this machine would send from to the world, in the family of a range. Nothing is sent: connecting a
/// UDP socket only asks the kernel for the route.
fn address_towards(range: &str) -> Option<IpAddr> {
    let (from, to) =
        if range.contains(':') { ("[::]:0", "[2001:db8::1]:9") } else { ("0.0.0.0:0", "192.0.2.1:9") };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// A list, or what was written when there was one address at most.
fn some_or_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Some(Vec<IpAddr>),
        One(Option<IpAddr>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::Some(all) => all,
        Written::One(one) => one.into_iter().collect(),
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    fs::write(path, serde_json::to_string_pretty(value)?).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(flags: &[&str]) -> Settings {
        let words = std::iter::once("up").chain(flags.iter().copied());
        Command::try_parse_from(words).expect("good words").settings
    }

    #[test]
    fn services_are_addressed_in_the_first_range() {
        for (range, expected) in [
            ("10.96.0.0/16", Some("10.96.0.10")),
            ("10.96.0.0/16,fd00:96::/112", Some("10.96.0.10")),
            ("fd00:96::/112,10.96.0.0/16", Some("fd00:96::a")),
            ("nowhere", None),
        ] {
            let settings = settings(&[&format!("--service-cluster-ip-range={range}")]);
            assert_eq!(settings.cluster_dns().ok().map(|ip| ip.to_string()).as_deref(), expected, "{range}");
        }
    }

    #[test]
    fn a_machine_has_the_addresses_that_were_given() {
        let dual = settings(&["--node-ip=fd00::1,192.0.2.1"]);
        let texts: Vec<_> = dual.addresses().expect("addresses").iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["fd00::1", "192.0.2.1"]);
        assert_eq!(dual.url().expect("a URL"), "https://[fd00::1]:6443");
    }

    #[test]
    fn what_was_remembered_is_read_also_as_it_was_written_with_one_address() {
        let text = serde_json::to_value(settings(&["--node-ip=192.0.2.1,fd00::1"])).expect("JSON");
        for (written, expected) in [
            (serde_json::json!(["192.0.2.1", "fd00::1"]), "[192.0.2.1, fd00::1]"),
            (serde_json::json!("192.0.2.1"), "[192.0.2.1]"),
            (serde_json::json!(null), "[]"),
        ] {
            let mut text = text.clone();
            text["nodeIp"] = written;
            let read: Settings = serde_json::from_value(text).expect("settings");
            assert_eq!(format!("{:?}", read.node_ip), expected);
        }
    }
}
