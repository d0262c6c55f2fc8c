//! What the scheduler is told: upstream's flags and what follows from them.

use std::net::SocketAddr;

use clap::Parser;
use client::ClientFlags;
use client::component::BadConfiguration;
use client::leader::{LeaderElection, LeaderFlags};

/// Assigns pods to nodes.
#[derive(Clone, Debug, Parser)]
#[command(name = "kube-scheduler", version)]
pub struct Flags {
    /// Where the API server is.
    #[command(flatten)]
    pub client: ClientFlags,
    /// Whether and how to elect a leader.
    #[command(flatten)]
    pub leader: LeaderFlags,
    /// Address of the health and metrics endpoint.
    #[arg(long, default_value = "127.0.0.1")]
    pub bind_address: String,
    /// Port of the health and metrics endpoint; 0 switches it off.
    #[arg(long, default_value_t = 10259)]
    pub secure_port: u16,
    /// Name that pods ask for in spec.schedulerName.
    #[arg(long, default_value = "default-scheduler")]
    pub scheduler_name: String,
    /// Accepted for compatibility: kubeconfig for delegated authentication.
    #[arg(long)]
    pub authentication_kubeconfig: Option<String>,
    /// Accepted for compatibility: kubeconfig for delegated authorization.
    #[arg(long)]
    pub authorization_kubeconfig: Option<String>,
    /// Log verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// How the scheduler works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name that pods ask for.
    pub scheduler_name: String,
    /// Leader election; none if switched off.
    pub election: Option<LeaderElection>,
    /// Health and metrics endpoint; none if switched off.
    pub serving: Option<SocketAddr>,
}

impl Flags {
    /// Checks the flags.
    ///
    /// # Errors
    /// A value cannot be used; the error says which and what would be right.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let address = self.bind_address.parse().map_err(|_| {
            BadConfiguration(format!(
                "--bind-address {:?} is not an address such as 127.0.0.1",
                self.bind_address
            ))
        })?;
        let serving = (self.secure_port != 0).then(|| SocketAddr::new(address, self.secure_port));
        let election = self.leader.election("kube-scheduler");
        Ok(Config { scheduler_name: self.scheduler_name, election, serving })
    }
}
