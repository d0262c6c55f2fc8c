//! What others do to the addresses and routes of this node. A network card that was without its cable or was set up
//! anew comes back without the routes that led through it, and nothing in the API tells of that: the kernel does.

use std::net::IpAddr;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::sys::SocketAddr;

use crate::address::{Families, Family};
use crate::apply::{self, ROUTE_PROTOCOL};

const GROUPS: [MulticastGroup; 4] = [
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// The kernel's news.
pub struct Changes {
    news: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
}

impl Changes {
    /// Begins to listen.
    ///
    /// # Errors
    /// There is no netlink socket to be had.
    pub fn listen() -> Result<Self> {
        let (connection, _, news) =
            rtnetlink::new_multicast_connection(&GROUPS).context("listen to the kernel")?;
        // Ends by itself when the receiver is dropped.
        tokio::spawn(connection);
        Ok(Self { news })
    }

    /// Waits for one after which the ways to other nodes may not be what they were. May be cancelled.
    pub async fn next(&mut self, own: &Families<Option<IpAddr>>) {
        while let Some((message, _)) = self.news.next().await {
            if let NetlinkPayload::InnerMessage(message) = message.payload
                && matters(&message, own)
            {
                return;
            }
        }
        // The socket is gone; there is still the look from time to time.
        std::future::pending().await
    }
}

/// Whether it is about an address of this node, or about a route made here that somebody has removed. Addresses of pods
/// come and go all the time.
fn matters(message: &RouteNetlinkMessage, own: &Families<Option<IpAddr>>) -> bool {
    let is_own = |address: IpAddr| *own.of(Family::of(address)) == Some(address);
    match message {
        RouteNetlinkMessage::NewAddress(of) | RouteNetlinkMessage::DelAddress(of) => {
            of.attributes.iter().any(|attribute| match attribute {
                AddressAttribute::Address(address) | AddressAttribute::Local(address) => is_own(*address),
                _ => false,
            })
        }
        // The kernel's own, which it makes when a card that has an address comes up: it removes routes without a word
        // when the card goes down.
        RouteNetlinkMessage::NewRoute(route) => source(route).is_some_and(is_own),
        RouteNetlinkMessage::DelRoute(route) => route.header.protocol == ROUTE_PROTOCOL,
        _ => false,
    }
}

/// The address that packets get which go this way.
fn source(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::PrefSource(address) => apply::address(address),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rtnetlink::packet_route::address::AddressMessage;
    use rtnetlink::packet_route::route::{RouteAddress, RouteProtocol};

    use super::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);

    fn of(address: Ipv4Addr) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.attributes.push(AddressAttribute::Local(address.into()));
        message
    }

    fn from(address: Ipv4Addr, protocol: RouteProtocol) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.protocol = protocol;
        message.attributes.push(RouteAttribute::PrefSource(RouteAddress::Inet(address)));
        message
    }

    #[test]
    fn what_happens_to_own_addresses_and_routes_matters() {
        let own = Families { v4: Some(OWN.into()), v6: None };
        let kernel = RouteProtocol::Kernel;
        for (what, message, expected) in [
            ("own address comes", RouteNetlinkMessage::NewAddress(of(OWN)), true),
            ("own address goes", RouteNetlinkMessage::DelAddress(of(OWN)), true),
            ("another's comes", RouteNetlinkMessage::NewAddress(of(OTHER)), false),
            ("own card comes up", RouteNetlinkMessage::NewRoute(from(OWN, kernel)), true),
            ("another's comes up", RouteNetlinkMessage::NewRoute(from(OTHER, kernel)), false),
            ("our route goes", RouteNetlinkMessage::DelRoute(from(OTHER, ROUTE_PROTOCOL)), true),
            ("another's goes", RouteNetlinkMessage::DelRoute(from(OTHER, kernel)), false),
        ] {
            assert_eq!(matters(&message, &own), expected, "{what}");
        }
        assert!(!matters(&RouteNetlinkMessage::NewAddress(of(OWN)), &Families::default()));
    }
}
