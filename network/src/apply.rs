//! Making the plan so: CNI configuration, routes, the tunnel. May be repeated safely.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use futures::TryStreamExt;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::process::Command;
use tracing::warn;

use crate::address::{Families, Family, Range};
use crate::flags::Config;
use crate::overlay::{self, Device};
use crate::plan::{Plan, Underlay, Ways};

/// Marks the routes made here, so that no others are removed.
pub const ROUTE_PROTOCOL: RouteProtocol = RouteProtocol::Other(88);

/// Lets the kernel forward packets, and lets packet rules see what crosses a bridge. What cannot be set is
/// reported and left: some sandboxes do not let it be written but have it right.
pub async fn prepare_kernel(config: &Config) {
    if !Path::new("/proc/sys/net/bridge").exists() {
        // An error shows below, when the setting cannot be made.
        let _ = Command::new("modprobe").arg("br_netfilter").stderr(Stdio::null()).status().await;
    }
    let uses = |family| config.cluster_cidr(family).is_some();
    let mut settings = vec![];
    if uses(Family::V4) {
        settings.extend(["net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"]);
    }
    if uses(Family::V6) {
        keep_router_advertisements();
        settings.extend(["net/ipv6/conf/all/forwarding", "net/bridge/bridge-nf-call-ip6tables"]);
    }
    for setting in settings {
        set(&Path::new("/proc/sys").join(setting), "1");
    }
}

/// A machine that forwards IPv6 no longer hears what routers say, and would lose its own default route, unless told
/// to hear them all the same.
fn keep_router_advertisements() {
    let cards = std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    for accepts in cards.map(|card| card.path().join("accept_ra")) {
        if std::fs::read_to_string(&accepts).is_ok_and(|now| now.trim() == "1") {
            set(&accepts, "2");
        }
    }
}

fn set(setting: &Path, value: &str) {
    if std::fs::read_to_string(setting).is_ok_and(|now| now.trim() == value) {
        return;
    }
    if let Err(error) = std::fs::write(setting, value) {
        warn!(setting = %setting.display(), %error, "kernel setting could not be made");
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

    /// The network cards that have this node's addresses.
    ///
    /// # Errors
    /// The kernel cannot be asked.
    pub async fn underlays(&self, own: Families<Option<IpAddr>>) -> Result<Families<Option<Underlay>>> {
        let mut found = Families::default();
        for family in Family::BOTH {
            if let Some(own) = *own.of(family) {
                *found.of_mut(family) = overlay::underlay(&self.kernel, own).await?;
            }
        }
        Ok(found)
    }

    /// Makes the plan so; returns this node's ends of the tunnels it has.
    ///
    /// # Errors
    /// The disk or the kernel refuses.
    pub async fn apply(
        &self,
        plan: &Plan,
        underlays: &Families<Option<Underlay>>,
    ) -> Result<Families<Option<Device>>> {
        // First: pods of this node need no other node.
        if let Some(cni) = &plan.cni {
            write_if_changed(&self.conf_file, &serde_json::to_string_pretty(cni)?)?;
        }
        let mut devices = Families::default();
        for family in Family::BOTH {
            let (ways, underlay) = (plan.ways.of(family), underlays.of(family).as_ref());
            let device = self.apply_tunnel(family, ways, underlay, plan.mtu).await?;
            self.apply_routes(family, ways, device).await?;
            *devices.of_mut(family) = device;
        }
        Ok(devices)
    }

    async fn apply_tunnel(
        &self,
        family: Family,
        ways: &Ways,
        underlay: Option<&Underlay>,
        mtu: u32,
    ) -> Result<Option<Device>> {
        let (Some(underlay), Some(range), true) = (underlay, ways.range, ways.tunnel) else {
            overlay::remove_device(&self.kernel, family).await?;
            return Ok(None);
        };
        let device = overlay::ensure_device(&self.kernel, underlay, range, mtu).await?;
        overlay::apply_entries(&self.kernel, device, family, ways).await?;
        Ok(Some(device))
    }

    async fn apply_routes(&self, family: Family, ways: &Ways, device: Option<Device>) -> Result<()> {
        let existing = own_routes(&self.kernel, family).await?;
        let direct = ways.routes.iter().map(|(range, via)| Route { range: *range, via: *via, tunnel: None });
        // The first address of a range stands for the node's end of the tunnel.
        let tunnelled = ways
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
            let add = self.kernel.route().add(route.message()?).replace();
            add.execute().await.with_context(|| format!("add route {} via {}", route.range, route.via))?;
        }
        Ok(())
    }
}

/// A way to another node's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Route {
    range: Range,
    via: IpAddr,
    /// The tunnel's device, if it goes that way.
    tunnel: Option<u32>,
}

impl Route {
    fn message(self) -> Result<RouteMessage> {
        let builder = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(self.range.base, self.range.prefix)?
            .gateway(self.via)?
            .protocol(ROUTE_PROTOCOL);
        Ok(match self.tunnel {
            Some(index) => builder.output_interface(index).onlink().build(),
            None => builder.build(),
        })
    }
}

async fn own_routes(handle: &Handle, family: Family) -> Result<Vec<(Route, RouteMessage)>> {
    let mut found = vec![];
    let which = match family {
        Family::V4 => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        Family::V6 => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    let mut routes = handle.route().get(which).execute();
    while let Some(message) = routes.try_next().await.context("list routes")? {
        if message.header.protocol == ROUTE_PROTOCOL
            && let Some(route) = read(&message)
        {
            found.push((route, message));
        }
    }
    Ok(found)
}

fn read(message: &RouteMessage) -> Option<Route> {
    let (mut base, mut via, mut device) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(to) => base = address(to),
            RouteAttribute::Gateway(to) => via = address(to),
            RouteAttribute::Oif(index) => device = Some(*index),
            _ => {}
        }
    }
    let (base, via) = (base?, via?);
    let range = Range { base, prefix: message.header.destination_prefix_length };
    Some(Route { range, via, tunnel: device.filter(|_| via == base) })
}

/// The address of a route's attribute.
pub(crate) fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
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

/// Removes the packet rules, the routes and the tunnels made here.
///
/// # Errors
/// The kernel or iptables refuses.
pub async fn cleanup() -> Result<()> {
    crate::iptables::cleanup().await?;
    let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
    let connection = tokio::spawn(connection);
    for family in Family::BOTH {
        for (route, message) in own_routes(&handle, family).await? {
            let removed = handle.route().del(message).execute().await;
            removed.with_context(|| format!("remove route {}", route.range))?;
        }
        overlay::remove_device(&handle, family).await?;
    }
    connection.abort();
    Ok(())
}
