//! The kernel's rules of one family, in whichever of its languages was chosen.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tracing::warn;

use crate::model::{Family, PortName, ServicePort};
use crate::{iptables, nftables, rules};

/// How rules are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// As rules of iptables.
    Iptables,
    /// As a table of nftables.
    Nftables,
}

/// Brings the rules in step with services.
pub enum Kernel {
    /// By iptables.
    Iptables(iptables::Applier),
    /// By nftables.
    Nftables(nftables::Applier),
}

impl Kernel {
    /// Nothing written yet.
    #[must_use]
    pub fn new(mode: Mode, family: Family) -> Self {
        match mode {
            Mode::Iptables => Self::Iptables(iptables::Applier::new(family)),
            Mode::Nftables => Self::Nftables(nftables::Applier::new(family)),
        }
    }

    /// Whether anything was written and is believed to be still there.
    #[must_use]
    pub fn is_in_step(&self) -> bool {
        match self {
            Self::Iptables(applier) => applier.is_in_step(),
            Self::Nftables(applier) => applier.is_in_step(),
        }
    }

    /// Makes the rules those of `ports`.
    ///
    /// # Errors
    /// The program that writes them failed; the next call writes everything again.
    pub async fn apply(
        &mut self,
        settings: &rules::Settings,
        ports: &BTreeMap<PortName, ServicePort>,
    ) -> Result<()> {
        let family = if settings.family == Family::V4 { "IPv4" } else { "IPv6" };
        let (full, began) = (!self.is_in_step(), Instant::now());
        match self {
            Self::Iptables(applier) => applier.apply(&rules::render(settings, ports)).await?,
            Self::Nftables(applier) => applier.apply(&nftables::render(settings, ports)).await?,
        }
        let seconds = began.elapsed().as_secs_f64();
        let which = if full {
            "kubeproxy_sync_full_proxy_rules_duration_seconds"
        } else {
            "kubeproxy_sync_partial_proxy_rules_duration_seconds"
        };
        for name in ["kubeproxy_sync_proxy_rules_duration_seconds", which] {
            metrics::histogram!(name, "ip_family" => family).record(seconds);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        metrics::gauge!("kubeproxy_sync_proxy_rules_last_timestamp_seconds", "ip_family" => family).set(now);
        for (policy, count) in without_local(settings, ports) {
            let labels = [("ip_family", family), ("traffic_policy", policy)];
            metrics::gauge!("kubeproxy_sync_proxy_rules_no_local_endpoints_total", &labels)
                .set(f64::from(count));
        }
        Ok(())
    }

    /// Notices if somebody removed the rules: then the next apply writes everything.
    ///
    /// # Errors
    /// The program that reads them cannot be run.
    pub async fn check(&mut self) -> Result<()> {
        match self {
            Self::Iptables(applier) => applier.check().await,
            Self::Nftables(applier) => applier.check().await,
        }
    }
}

/// How many services have endpoints, but none where their policy wants them.
fn without_local(
    settings: &rules::Settings,
    ports: &BTreeMap<PortName, ServicePort>,
) -> [(&'static str, u32); 2] {
    let (mut internal, mut external) = (0, 0);
    for port in ports.values() {
        let usable = port.usable(&settings.place);
        if usable.any && usable.local.is_empty() {
            internal += u32::from(port.internal_local);
            external += u32::from(port.external_local && port.externally_accessible());
        }
    }
    [("internal", internal), ("external", external)]
}

/// Removes what the other mode has left: both at once would each rewrite destinations.
pub async fn remove_other(mode: Mode) {
    let removed = match mode {
        Mode::Iptables => nftables::cleanup().await,
        Mode::Nftables => iptables::cleanup().await,
    };
    if let Err(error) = removed {
        warn!(error = %format!("{error:#}"), "rules of the other mode could not be removed");
    }
}

/// Removes everything that kube-proxy ever writes, and nothing else.
///
/// # Errors
/// A program that removes them failed.
pub async fn cleanup() -> Result<()> {
    iptables::cleanup().await?;
    nftables::cleanup().await
}
