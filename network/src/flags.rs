//! What the pod network is told.

use std::path::PathBuf;

use clap::Parser;
use client::ClientFlags;
use client::component::BadConfiguration;

use crate::plan::{Backend, Range};

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
    /// Address range of all pods.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
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
    /// Address range of all pods.
    pub cluster_cidr: Range,
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
        let Some(cluster_cidr) = Range::parse(&self.cluster_cidr) else {
            let text = format!("--cluster-cidr {:?} is not a range such as 10.244.0.0/16", self.cluster_cidr);
            return Err(BadConfiguration(text).into());
        };
        if self.bridge.is_empty() || self.bridge.len() > 15 {
            return Err(BadConfiguration("--bridge must have 1 to 15 characters".into()).into());
        }
        Ok(Config {
            node_name: self.node_name,
            cluster_cidr,
            cni_conf_dir: self.cni_conf_dir,
            ipam_dir: self.ipam_dir,
            bridge: self.bridge,
            mtu: self.mtu,
            backend: self.backend,
            policies: self.network_policies,
        })
    }
}
