//! What the pod network is told.

use std::path::PathBuf;

use clap::Parser;
use client::ClientFlags;
use client::component::BadConfiguration;

use crate::address::{Family, Range};
use crate::plan::Backend;

/// Connects the pods of this node with those of the others.
#[derive(Clone, Debug, Parser)]
#[command(name = "pod-network", version)]
pub struct Flags {
    /// Where the API server is.
    #[command(flatten)]
    pub client: ClientFlags,
    /// Name of this node's Node object.
    #[arg(long)]
    pub node_name: String,
    /// Address range of all pods; one of each family, the first address of pods first, where they have two.
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16")]
    pub cluster_cidr: Vec<String>,
    /// Folder where the container runtime looks for its CNI configuration.
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Folder where given-out pod addresses are kept.
    #[arg(long, default_value = "/var/lib/cni/networks")]
    pub ipam_dir: PathBuf,
    /// Name of the bridge.
    #[arg(long, default_value = "coxswain0")]
    pub bridge: String,
    /// Largest packet on the pod network; what the node's network takes (less what a tunnel adds) if 0.
    #[arg(long, default_value_t = 0)]
    pub mtu: u32,
    /// How packets get to other nodes: through them where they share a segment, else in a tunnel; or always one of both.
    #[arg(long, value_enum, default_value_t = Backend::Auto)]
    pub backend: Backend,
    /// Enforce NetworkPolicies.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub network_policies: bool,
    /// Remove the packet rules, routes and the tunnel made here, then exit.
    #[arg(long)]
    pub cleanup: bool,
    /// Log verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// How the pod network of this node is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this node's Node object.
    pub node_name: String,
    /// Address ranges of all pods, one of each family at most.
    pub cluster_cidrs: Vec<Range>,
    /// Folder of the CNI configuration.
    pub cni_conf_dir: PathBuf,
    /// Folder where given-out pod addresses are kept.
    pub ipam_dir: PathBuf,
    /// Name of the bridge.
    pub bridge: String,
    /// Largest packet; what the node's network takes if 0.
    pub mtu: u32,
    /// How packets get to other nodes.
    pub backend: Backend,
    /// Whether to enforce `NetworkPolicies`.
    pub policies: bool,
}

impl Flags {
    /// Checks the flags.
    ///
    /// # Errors
    /// A value cannot be used; the error says which and what would be right.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let cluster_cidrs = cluster_cidrs(&self.cluster_cidr).map_err(BadConfiguration)?;
        if self.bridge.is_empty() || self.bridge.len() > 15 {
            return Err(BadConfiguration("--bridge must have 1 to 15 characters".into()).into());
        }
        Ok(Config {
            node_name: self.node_name,
            cluster_cidrs,
            cni_conf_dir: self.cni_conf_dir,
            ipam_dir: self.ipam_dir,
            bridge: self.bridge,
            mtu: self.mtu,
            backend: self.backend,
            policies: self.network_policies,
        })
    }
}

impl Config {
    /// The range of all pods' addresses of a family, if pods have such.
    #[must_use]
    pub fn cluster_cidr(&self, family: Family) -> Option<Range> {
        self.cluster_cidrs.iter().copied().find(|range| range.family() == family)
    }
}

fn cluster_cidrs(texts: &[String]) -> Result<Vec<Range>, String> {
    let parsed = texts.iter().map(|text| {
        let range = Range::parse(text.trim());
        range.ok_or_else(|| format!("--cluster-cidr {text:?} is not a range such as 10.244.0.0/16"))
    });
    let ranges: Vec<_> = parsed.collect::<Result<_, _>>()?;
    match ranges.as_slice() {
        [_] => Ok(ranges),
        [one, other] if one.family() != other.family() => Ok(ranges),
        _ => Err("--cluster-cidr must be one range, or one of each family".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_range_or_one_of_each_family() {
        for (flag, expected) in [
            ("10.244.0.0/16", Some("10.244.0.0/16")),
            ("fd00:1::/56", Some("fd00:1::/56")),
            ("fd00:1::/56,10.244.0.0/16", Some("fd00:1::/56 10.244.0.0/16")),
            ("10.244.0.0/16,10.245.0.0/16", None),
            ("10.244.0.0/16,fd00:1::/56,fd00:2::/56", None),
            ("10.244.0.0/16,", None),
            ("10.244.0.0", None),
        ] {
            let flags =
                Flags::try_parse_from(["network", "--node-name=n", &format!("--cluster-cidr={flag}")]);
            let config = flags.expect("flags").into_config().ok();
            let texts =
                config.map(|c| c.cluster_cidrs.iter().map(Range::to_string).collect::<Vec<_>>().join(" "));
            assert_eq!(texts.as_deref(), expected, "{flag}");
        }
    }
}
