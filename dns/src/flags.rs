//! What the DNS server is told.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Parser;
use client::ClientFlags;

/// Answers for the names of services and pods, and forwards all others.
#[derive(Clone, Debug, Parser)]
#[command(name = "cluster-dns", version)]
pub struct Flags {
    /// Where the API server is.
    #[command(flatten)]
    pub client: ClientFlags,
    /// Domain of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Address and port to answer on, UDP and TCP.
    #[arg(long, default_value = "0.0.0.0:53")]
    pub listen: SocketAddr,
    /// Address and port of the health and metrics endpoint; off if empty.
    #[arg(long, default_value = "0.0.0.0:8181")]
    pub health: Option<SocketAddr>,
    /// For how many seconds clients may remember an answer about the cluster.
    #[arg(long, default_value_t = 5)]
    pub ttl: u32,
    /// File that names the servers to forward to.
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
    /// Log verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// How the DNS server works.
#[derive(Clone, Debug)]
pub struct Config {
    /// Domain of the cluster.
    pub domain: String,
    /// Where to answer.
    pub listen: SocketAddr,
    /// Health and metrics endpoint.
    pub health: Option<SocketAddr>,
    /// For how many seconds clients may remember an answer about the cluster.
    pub ttl: u32,
    /// File that names the servers to forward to, in order of preference.
    pub resolv_conf: PathBuf,
}

impl Flags {
    /// What the flags mean.
    ///
    /// # Errors
    /// None so far.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let Self { domain, listen, health, ttl, resolv_conf, .. } = self;
        Ok(Config { domain, listen, health, ttl, resolv_conf })
    }
}

/// The servers that a resolv.conf names; without any, or without the file, other names are refused.
#[must_use]
pub fn upstreams(resolv_conf: &std::path::Path) -> Vec<SocketAddr> {
    name_servers(&std::fs::read_to_string(resolv_conf).unwrap_or_default())
}

/// The `nameserver` lines of a resolv.conf.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let addresses = words.filter_map(|words| match words.as_slice() {
        ["nameserver", address, ..] => address.parse::<IpAddr>().ok(),
        _ => None,
    });
    addresses.map(|ip| SocketAddr::new(ip, 53)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read() {
        let text = "# comment\nsearch a b\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver bad\n";
        let read: Vec<_> = name_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["192.0.2.53:53", "[2001:db8::53]:53"]);
    }
}
