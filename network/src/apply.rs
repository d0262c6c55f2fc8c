//! Making the plan so: CNI configuration, routes, the tunnel. May be repeated safely.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::process::Command;
use tracing::warn;

use crate::flags::Config;
use crate::overlay::{self, Device};
use crate::plan::{Plan, Range, Underlay};

/// Marks the routes made here, so that no others are removed.
const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(88);

/// Lets the kernel forward packets, and lets packet rules see what crosses a bridge. What cannot be set is
/// reported and left: some sandboxes do not let it be written but have it right.
pub async fn prepare_kernel() {
    if !Path::new("/proc/sys/net/bridge").exists() {
        // An error shows below, when the setting cannot be made.
        let _ = Command::new("modprobe").arg("br_netfilter").stderr(Stdio::null()).status().await;
    }
    for setting in ["net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"] {
        let path = format!("/proc/sys/{setting}");
        if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == "1") {
            continue;
        }
        if let Err(error) = std::fs::write(&path, "1") {
            warn!(setting, %error, "kernel setting could not be made");
        }
    }
}

/// Applies plans.
pub struct Applier {
    conf_file: PathBuf,
    kernel: Handle,
}

impl Applier {
    /// Opens the way to the kernel's routes.
    ///
    /// # Errors
    /// There is no netlink socket to be had.
    pub fn new(config: &Config) -> Result<Self> {
        let (connection, kernel, _) = rtnetlink::new_connection().context("open a netlink socket")?;
        // Ends by itself when the handle is dropped.
        tokio::spawn(connection);
        Ok(Self { conf_file: config.cni_conf_dir.join("10-coxswain.conflist"), kernel })
    }

    /// The network card that has this node's address.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn underlay(&self, own: Option<Ipv4Addr>) -> Result<Option<Underlay>> {
        match own {
            Some(own) => overlay::underlay(&self.kernel, own).await,
            None => Ok(None),
        }
    }

    /// Makes the plan so; returns this node's end of the tunnel, if it has one.
    ///
    /// # Errors
    /// The disk or the kernel refuses.
    pub async fn apply(&self, plan: &Plan, underlay: Option<&Underlay>) -> Result<Option<Device>> {
        // First: pods of this node need no other node.
        if let Some(cni) = &plan.cni {
            write_if_changed(&self.conf_file, &serde_json::to_string_pretty(cni)?)?;
        }
        let device = match (underlay, plan.range) {
            (Some(underlay), Some(range)) if plan.tunnel => {
                let device = overlay::ensure_device(&self.kernel, underlay, range, plan.mtu).await?;
                overlay::apply_entries(&self.kernel, device, plan).await?;
                Some(device)
            }
            _ => {
                overlay::remove_device(&self.kernel).await?;
                None
            }
        };
        self.apply_routes(plan, device).await?;
        Ok(device)
    }

    async fn apply_routes(&self, plan: &Plan, device: Option<Device>) -> Result<()> {
        let existing = own_routes(&self.kernel).await?;
        let direct = plan.routes.iter().map(|(range, via)| Route { range: *range, via: *via, tunnel: None });
        // The first address of a range stands for the node's end of the tunnel.
        let tunnelled = plan
            .tunnels
            .keys()
            .filter_map(|range| Some(Route { range: *range, via: range.base, tunnel: Some(device?.index) }));
        let wanted: BTreeSet<_> = direct.chain(tunnelled).collect();
        let have: BTreeSet<_> = existing.iter().map(|(route, _)| *route).collect();
        for (route, message) in existing {
            if !wanted.contains(&route) {
                let removed = self.kernel.route().del(message).execute().await;
                removed.with_context(|| format!("remove route {}", route.range))?;
            }
        }
        for route in wanted.difference(&have) {
            let add = self.kernel.route().add(route.message()).replace();
            add.execute().await.with_context(|| format!("add route {} via {}", route.range, route.via))?;
        }
        Ok(())
    }
}

/// A way to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    range: Range,
    via: Ipv4Addr,
    /// The tunnel's device, if it goes that way.
    tunnel: Option<u32>,
}

impl Route {
    fn message(self) -> RouteMessage {
        let builder = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(self.range.base, self.range.prefix)
            .gateway(self.via)
            .protocol(ROUTE_PROTOCOL);
        match self.tunnel {
            Some(index) => builder.output_interface(index).onlink().build(),
            None => builder.build(),
        }
    }
}

async fn own_routes(handle: &Handle) -> Result<Vec<(Route, RouteMessage)>> {
    let mut found = vec![];
    let mut routes = handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
    while let Some(message) = routes.try_next().await.context("list routes")? {
        if message.header.protocol != ROUTE_PROTOCOL {
            continue;
        }
        let (mut base, mut via, mut device) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(ip)) => base = Some(*ip),
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => via = Some(*ip),
                RouteAttribute::Oif(index) => device = Some(*index),
                _ => {}
            }
        }
        if let (Some(base), Some(via)) = (base, via) {
            let range = Range { base, prefix: message.header.destination_prefix_length };
            found.push((Route { range, via, tunnel: device.filter(|_| via == base) }, message));
        }
    }
    Ok(found)
}

/// Writes by renaming, so that the container runtime never reads half a file.
fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).with_context(|| format!("write {}", partial.display()))?;
    std::fs::rename(&partial, path).with_context(|| format!("write {}", path.display()))
}

/// Removes the packet rules, the routes and the tunnel made here.
///
/// # Errors
/// The kernel or iptables refuses.
pub async fn cleanup() -> Result<()> {
    crate::iptables::cleanup().await?;
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    let connection = tokio::spawn(connection);
    for (route, message) in own_routes(&handle).await? {
        let removed = handle.route().del(message).execute().await;
        removed.with_context(|| format!("remove route {}", route.range))?;
    }
    overlay::remove_device(&handle).await?;
    connection.abort();
    Ok(())
}
