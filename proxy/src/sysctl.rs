//! Settings of the kernel and of this process that service traffic needs. Failing ones are reported and left: some
//! sandboxes do not let them be written but have them right.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tracing::{debug, warn};

use crate::config::{Config, Conntrack};
use crate::kernel::Mode;

/// The most connections that are followed, however many cores there are.
const MOST: u64 = 1 << 20;
const HASH_SIZE: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const BE_LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";

/// Makes those of the kernel.
pub fn prepare(config: &Config) {
    set("net/ipv4/ip_forward", 1);
    if config.mode == Mode::Iptables && config.localhost_node_ports {
        set("net/ipv4/conf/all/route_localnet", 1);
    }
    load_conntrack();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, value) in conntrack(&config.conntrack, cores) {
        set(&format!("net/netfilter/{name}"), value);
    }
    if let Some(most) = most_connections(&config.conntrack, cores) {
        grow_hash(most / 4);
    }
}

/// Makes it less likely that this process is ended when memory is short. For a process that is kube-proxy alone.
pub fn protect(config: &Config) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", config.oom_score_adj.to_string()) {
        debug!(%error, "this process may be ended like any other when memory is short");
    }
}

/// Whether packets outside of a connection's window are let pass.
#[must_use]
pub fn is_liberal() -> bool {
    std::fs::read_to_string(path(BE_LIBERAL)).is_ok_and(|now| now.trim() != "0")
}

/// Right after a boot no rule has needed it yet, and what is not there cannot be set.
fn load_conntrack() {
    if !path("net/netfilter/nf_conntrack_max").exists() {
        // An error shows below, when the settings cannot be made.
        let _ = Command::new("modprobe").arg("nf_conntrack").stderr(Stdio::null()).status();
    }
}

fn path(setting: &str) -> PathBuf {
    Path::new("/proc/sys").join(setting)
}

fn set(setting: &str, value: u64) {
    if std::fs::read_to_string(path(setting)).is_ok_and(|now| now.trim() == value.to_string()) {
        return;
    }
    if let Err(error) = std::fs::write(path(setting), value.to_string()) {
        warn!(setting, value, %error, "kernel setting could not be made");
    }
}

/// The table of connections has room for as many as may be followed.
fn grow_hash(wanted: u64) {
    let now = std::fs::read_to_string(HASH_SIZE).ok().and_then(|text| text.trim().parse::<u64>().ok());
    if now.is_some_and(|now| now < wanted)
        && let Err(error) = std::fs::write(HASH_SIZE, wanted.to_string())
    {
        warn!(%error, "the table of connections could not be made larger");
    }
}

/// How many connections are followed at most; none to leave that as it is.
fn most_connections(conntrack: &Conntrack, cores: usize) -> Option<u64> {
    let scaled = conntrack.max_per_core.checked_mul(cores as u64).filter(|scaled| *scaled > 0)?;
    Some(if scaled > MOST { MOST } else { scaled.max(conntrack.min) })
}

/// What the kernel is told of the connections that it follows.
fn conntrack(conntrack: &Conntrack, cores: usize) -> Vec<(&'static str, u64)> {
    let mut settings: Vec<_> =
        most_connections(conntrack, cores).map(|most| ("nf_conntrack_max", most)).into_iter().collect();
    let timeouts = [
        ("nf_conntrack_tcp_timeout_established", conntrack.tcp_established),
        ("nf_conntrack_tcp_timeout_close_wait", conntrack.tcp_close_wait),
        ("nf_conntrack_udp_timeout", conntrack.udp),
        ("nf_conntrack_udp_timeout_stream", conntrack.udp_stream),
    ];
    let is_set = |timeout: &Duration| !timeout.is_zero();
    settings.extend(
        timeouts.into_iter().filter(|(_, timeout)| is_set(timeout)).map(|(name, t)| (name, t.as_secs())),
    );
    settings.extend(conntrack.tcp_be_liberal.then_some(("nf_conntrack_tcp_be_liberal", 1)));
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_followed_as_many_as_the_machine_is_large() {
        let of = |max_per_core, min| Conntrack { max_per_core, min, ..Conntrack::default() };
        for (configured, cores, expected) in [
            (of(32_768, 131_072), 2, Some(131_072)),
            (of(32_768, 131_072), 8, Some(262_144)),
            (of(32_768, 131_072), 64, Some(1_048_576)),
            (of(0, 131_072), 64, None),
        ] {
            assert_eq!(most_connections(&configured, cores), expected, "{configured:?} {cores}");
        }
    }

    #[test]
    fn what_is_zero_is_left_as_it_is() {
        let nothing = Conntrack {
            max_per_core: 0,
            tcp_established: Duration::ZERO,
            tcp_close_wait: Duration::ZERO,
            ..Conntrack::default()
        };
        assert!(conntrack(&nothing, 2).is_empty());
        let settings = conntrack(&Conntrack { tcp_be_liberal: true, ..Conntrack::default() }, 2);
        assert_eq!(
            settings,
            [
                ("nf_conntrack_max", 131_072),
                ("nf_conntrack_tcp_timeout_established", 86_400),
                ("nf_conntrack_tcp_timeout_close_wait", 3_600),
                ("nf_conntrack_tcp_be_liberal", 1),
            ]
        );
    }
}
