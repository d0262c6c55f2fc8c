//! The tunnels to nodes of other segments, as flannel's vxlan backend makes them: a device `flannel.1` for IPv4 and
//! `flannel-v6.1` for IPv6, and for each other node the network card that answers for its range and the address that
//! the card is behind. The kernel learns nothing by itself; entries follow the plan.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{InfoData, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, LinkUnspec, LinkVxlan};

use crate::address::{Family, Range};
use crate::plan::{Endpoint, Mac, Underlay, VNI, Ways};

const PORT: u16 = 8472;
/// Written on the device: one without it is somebody else's.
const ALIAS: &str = "coxswain pod network";
const NO_DEVICE: i32 = -19;

/// Name of the tunnel's device.
fn device_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "flannel.1",
        Family::V6 => "flannel-v6.1",
    }
}

/// The kernel's word for the family.
fn kernels(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// The network card that has this address.
///
/// # Errors
/// The kernel cannot be asked.
pub async fn underlay(handle: &Handle, own: IpAddr) -> Result<Option<Underlay>> {
    // Where both stand, the other may be that of the far end of a link. IPv6 addresses have but the other.
    let attribute = match Family::of(own) {
        Family::V4 => AddressAttribute::Local(own),
        Family::V6 => AddressAttribute::Address(own),
    };
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await.context("list addresses")? {
        if message.header.family != kernels(Family::of(own)) || !message.attributes.contains(&attribute) {
            continue;
        }
        let index = message.header.index;
        let Some(link) = handle.link().get().match_index(index).execute().try_next().await? else { continue };
        let mtu = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        let segment = Range { base: own, prefix: message.header.prefix_len };
        return Ok(Some(Underlay { index, mtu: mtu.unwrap_or(1500), address: own, segment }));
    }
    Ok(None)
}

/// This node's end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub index: u32,
    /// Its address.
    pub mac: Mac,
}

struct Found {
    device: Device,
    local: Option<IpAddr>,
    is_ours: bool,
}

async fn find(handle: &Handle, family: Family) -> Result<Option<Found>> {
    match handle.link().get().match_name(device_name(family)).execute().try_next().await {
        Ok(link) => Ok(link.as_ref().and_then(read)),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == NO_DEVICE => Ok(None),
        Err(error) => Err(error).context("look for the tunnel"),
    }
}

fn read(link: &LinkMessage) -> Option<Found> {
    let (mut mac, mut local, mut is_ours) = (None, None, false);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Address(bytes) => mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::IfAlias(alias) => is_ours = alias == ALIAS,
            LinkAttribute::LinkInfo(infos) => local = infos.iter().find_map(local_end),
            _ => {}
        }
    }
    Some(Found { device: Device { index: link.header.index, mac: mac? }, local, is_ours })
}

fn local_end(info: &LinkInfo) -> Option<IpAddr> {
    let LinkInfo::Data(InfoData::Vxlan(infos)) = info else { return None };
    infos.iter().find_map(|info| match info {
        InfoVxlan::Local(address) => Some((*address).into()),
        InfoVxlan::Local6(address) => Some((*address).into()),
        _ => None,
    })
}

/// Makes the device, or finds it as it should be.
///
/// # Errors
/// The kernel refuses, or another owner has a device of this name.
pub async fn ensure_device(handle: &Handle, underlay: &Underlay, range: Range, mtu: u32) -> Result<Device> {
    let family = range.family();
    let device = match find(handle, family).await? {
        Some(found) => {
            ensure!(found.is_ours, "there is a {} that is not ours", device_name(family));
            if found.local == Some(underlay.address) {
                found.device
            } else {
                handle.link().del(found.device.index).execute().await.context("remove the old tunnel")?;
                create(handle, underlay, mtu).await?
            }
        }
        None => create(handle, underlay, mtu).await?,
    };
    let own = handle.address().add(device.index, range.base, family.bits()).replace();
    own.execute().await.context("give the tunnel its address")?;
    Ok(device)
}

async fn create(handle: &Handle, underlay: &Underlay, mtu: u32) -> Result<Device> {
    let (family, name) = (Family::of(underlay.address), device_name(Family::of(underlay.address)));
    let device = LinkVxlan::new(name, VNI).dev(underlay.index).port(PORT);
    let device = match underlay.address {
        IpAddr::V4(own) => device.local(own),
        IpAddr::V6(own) => device.local6(own),
    };
    let device = device.learning(false).mtu(mtu).build();
    handle.link().add(device).execute().await.with_context(|| format!("make the tunnel {name}"))?;
    let found = find(handle, family).await?.context("the tunnel that was made is not there")?;
    let named = LinkUnspec::new_with_index(found.device.index)
        .append_extra_attribute(LinkAttribute::IfAlias(ALIAS.to_owned()))
        .up()
        .build();
    handle.link().set(named).execute().await.context("set the tunnel up")?;
    Ok(found.device)
}

/// Removes the device, if it is there and ours.
///
/// # Errors
/// The kernel refuses.
pub async fn remove_device(handle: &Handle, family: Family) -> Result<()> {
    match find(handle, family).await? {
        Some(found) if found.is_ours => {
            handle.link().del(found.device.index).execute().await.context("remove the tunnel")
        }
        _ => Ok(()),
    }
}

/// Makes the entries of the tunnel those of the plan: who answers for a range, and where that card is.
///
/// # Errors
/// The kernel refuses.
pub async fn apply_entries(handle: &Handle, device: Device, family: Family, ways: &Ways) -> Result<()> {
    let index = device.index;
    let wanted: BTreeSet<(IpAddr, Mac)> =
        ways.tunnels.iter().map(|(range, end)| (range.base, end.mac)).collect();
    for (entry, key) in entries(handle, index, kernels(family)).await? {
        if key.is_some_and(|key| !wanted.contains(&key)) {
            handle.neighbours().del(entry).execute().await.context("forget a node")?;
        }
    }
    for (address, mac) in wanted {
        let add = handle.neighbours().add(index, address).link_layer_address(&mac);
        let add = add.state(NeighbourState::Permanent).replace();
        add.execute().await.with_context(|| format!("say who answers for {address}"))?;
    }
    let wanted: BTreeSet<(IpAddr, Mac)> =
        ways.tunnels.values().map(|Endpoint { address, mac }| (*address, *mac)).collect();
    for (entry, key) in entries(handle, index, AddressFamily::Bridge).await? {
        if key.is_some_and(|key| !wanted.contains(&key)) {
            handle.neighbours().del(entry).execute().await.context("forget where a node is")?;
        }
    }
    for (address, mac) in wanted {
        // The device's own table, not that of a bridge it might belong to.
        let add = handle.neighbours().add_bridge(index, &mac).flags(NeighbourFlags::Own);
        let add = add.destination(address).replace();
        add.execute().await.with_context(|| format!("say that a node is behind {address}"))?;
    }
    Ok(())
}

/// The permanent entries of the device, each with its address and card.
async fn entries(
    handle: &Handle,
    index: u32,
    family: AddressFamily,
) -> Result<Vec<(NeighbourMessage, Option<(IpAddr, Mac)>)>> {
    let mut found = vec![];
    let mut all = handle.neighbours().get().set_address_family(family).execute();
    while let Some(message) = all.try_next().await.context("list the tunnel's entries")? {
        if message.header.ifindex == index && message.header.state == NeighbourState::Permanent {
            let key = key(&message);
            found.push((message, key));
        }
    }
    Ok(found)
}

fn key(message: &NeighbourMessage) -> Option<(IpAddr, Mac)> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(to) => address = read_address(to),
            NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.as_slice().try_into().ok(),
            _ => {}
        }
    }
    Some((address?, mac?))
}

/// In lists of cards the kernel's addresses have no family of their own.
fn read_address(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some((*ip).into()),
        NeighbourAddress::Inet6(ip) => Some((*ip).into()),
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes.as_slice()).map(IpAddr::from)).ok()
        }
        _ => None,
    }
}
