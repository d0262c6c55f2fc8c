//! What the scheduler is told: upstream's flags and what follows from them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use client::ClientFlags;
use client::component::BadConfiguration;
use client::leader::{LeaderElection, LeaderFlags, parse_duration};

use crate::config::{KubeSchedulerConfiguration, LeaderElectionConfiguration};

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
    /// Path of a KubeSchedulerConfiguration file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Name that pods ask for in spec.schedulerName; without a file.
    #[arg(long, default_value = "default-scheduler")]
    pub scheduler_name: String,
    /// Accepted for compatibility: kubeconfig for delegated authentication.
    #[arg(long)]
    pub authentication_kubeconfig: Option<String>,
    /// Accepted for compatibility: kubeconfig for delegated authorization.
    #[arg(long)]
    pub authorization_kubeconfig: Option<String>,
    /// Accepted for compatibility: requests are not held back on this side.
    #[arg(long)]
    pub kube_api_qps: Option<f32>,
    /// Accepted for compatibility: requests are not held back on this side.
    #[arg(long)]
    pub kube_api_burst: Option<i32>,
    /// Accepted for compatibility: requests are JSON.
    #[arg(long)]
    pub kube_api_content_type: Option<String>,
    /// Log verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// How the scheduler works.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the file says, or what holds without one.
    pub configuration: KubeSchedulerConfiguration,
    /// Leader election; none if switched off.
    pub election: Option<LeaderElection>,
    /// Health and metrics endpoint; none if switched off.
    pub serving: Option<SocketAddr>,
}

impl Config {
    /// The kubeconfig that the file names.
    #[must_use]
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        let path = &self.configuration.client_connection.kubeconfig;
        (!path.is_empty()).then(|| PathBuf::from(path))
    }
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
        let configuration = match &self.config {
            None => KubeSchedulerConfiguration::default_for(&self.scheduler_name),
            Some(path) => {
                let loaded = KubeSchedulerConfiguration::load(path);
                loaded.map_err(|error| BadConfiguration(client::chain(&error)))?
            }
        };
        let election = elect(&self.leader, &configuration.leader_election)?;
        Ok(Config { configuration, election, serving })
    }
}

/// As the file says, and as the flags say where it says nothing.
fn elect(
    flags: &LeaderFlags,
    file: &LeaderElectionConfiguration,
) -> Result<Option<LeaderElection>, BadConfiguration> {
    let mut flags = flags.clone();
    let read = |text: &Option<String>, into: &mut Duration| match text {
        None => Ok(()),
        Some(text) => parse_duration(text).map(|duration| *into = duration).map_err(BadConfiguration),
    };
    read(&file.lease_duration, &mut flags.leader_elect_lease_duration)?;
    read(&file.renew_deadline, &mut flags.leader_elect_renew_deadline)?;
    read(&file.retry_period, &mut flags.leader_elect_retry_period)?;
    flags.leader_elect = file.leader_elect.unwrap_or(flags.leader_elect);
    flags.leader_elect_resource_name = file.resource_name.clone().or(flags.leader_elect_resource_name);
    if let Some(namespace) = &file.resource_namespace {
        flags.leader_elect_resource_namespace.clone_from(namespace);
    }
    Ok(flags.election("kube-scheduler"))
}
