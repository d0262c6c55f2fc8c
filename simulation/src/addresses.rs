//! Addresses of pods, out of the ranges of their nodes. Pure.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where nodes have the ranges that nobody gives them: shared address space (RFC 6598), a /24 for each.
const FALLBACK: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 0);

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: IpAddr,
    prefix: u8,
}

impl Range {
    /// Reads `10.244.1.0/24` and its like.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let (base, prefix): (IpAddr, u8) = (base.parse().ok()?, prefix.parse().ok()?);
        (prefix <= bits(base)).then_some(Self { base, prefix })
    }

    /// The range of a node that has got none.
    #[must_use]
    pub fn fallback(number: u32) -> Self {
        Self { base: Ipv4Addr::from(u32::from(FALLBACK) + (number << 8)).into(), prefix: 24 }
    }

    /// How many addresses there are, at most what a u32 counts.
    fn size(self) -> u32 {
        1_u32.checked_shl(u32::from(bits(self.base) - self.prefix)).unwrap_or(u32::MAX)
    }

    fn at(self, place: u32) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base).wrapping_add(place)).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base).wrapping_add(place.into())).into(),
        }
    }

    fn place(self, address: IpAddr) -> Option<u32> {
        let place = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => u32::from(address).checked_sub(u32::from(base))?,
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                u32::try_from(u128::from(address).checked_sub(u128::from(base))?).ok()?
            }
            _ => return None,
        };
        (place < self.size()).then_some(place)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Which addresses are in use, by node and pod.
#[derive(Debug, Default)]
pub struct Addresses {
    nodes: HashMap<u32, Used>,
}

#[derive(Debug, Default)]
struct Used {
    /// Places in the node's ranges, by the UID of the pod.
    pods: HashMap<Box<str>, u32>,
    taken: HashSet<u32>,
    last: u32,
}

/// The first place that pods get: the network itself and its gateway come before.
const FIRST: u32 = 2;

impl Addresses {
    /// The addresses of a pod, one of each range: those it has already, else the next free ones, so that an address is
    /// not soon used again. None if all are in use.
    pub fn take(&mut self, node: u32, uid: &str, ranges: &[Range]) -> Option<Vec<IpAddr>> {
        // The last address of a range is everybody's.
        let places = ranges.iter().map(|range| range.size().saturating_sub(1)).min()?;
        let used = self.nodes.entry(node).or_default();
        let place = match used.pods.get(uid) {
            Some(place) => *place,
            None => {
                let after = (used.last + 1).max(FIRST)..places;
                let place = after.chain(FIRST..places).find(|place| !used.taken.contains(place))?;
                used.last = place;
                used.keep(uid, place);
                place
            }
        };
        Some(ranges.iter().map(|range| range.at(place)).collect())
    }

    /// Notes an address that a pod has.
    pub fn reserve(&mut self, node: u32, uid: &str, address: IpAddr, ranges: &[Range]) {
        let Some(place) = ranges.iter().find_map(|range| range.place(address)) else { return };
        let used = self.nodes.entry(node).or_default();
        if !used.pods.contains_key(uid) {
            used.keep(uid, place);
        }
    }

    /// The pod needs no addresses any more.
    pub fn release(&mut self, node: u32, uid: &str) {
        let Some(used) = self.nodes.get_mut(&node) else { return };
        if let Some(place) = used.pods.remove(uid) {
            used.taken.remove(&place);
        }
    }
}

impl Used {
    fn keep(&mut self, uid: &str, place: u32) {
        self.pods.insert(uid.into(), place);
        self.taken.insert(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(text: &str) -> Vec<Range> {
        text.split_whitespace().map(|text| Range::parse(text).expect(text)).collect()
    }

    fn take(addresses: &mut Addresses, uid: &str, of: &str) -> String {
        let taken = addresses.take(7, uid, &ranges(of));
        taken.map_or("none".to_owned(), |all| {
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        })
    }

    #[test]
    fn each_pod_has_an_address_of_its_own_until_it_is_gone() {
        let (mut all, of) = (Addresses::default(), "10.244.1.0/29");
        assert_eq!(take(&mut all, "a", of), "10.244.1.2");
        assert_eq!(take(&mut all, "b", of), "10.244.1.3");
        assert_eq!(take(&mut all, "a", of), "10.244.1.2", "it keeps its own");
        all.release(7, "a");
        let rest: Vec<_> = ["c", "d", "e", "f", "g"].map(|uid| take(&mut all, uid, of)).to_vec();
        assert_eq!(rest, ["10.244.1.4", "10.244.1.5", "10.244.1.6", "10.244.1.2", "none"]);
    }

    #[test]
    fn addresses_that_pods_have_are_not_given_away() {
        let (mut all, of) = (Addresses::default(), "10.244.1.0/29");
        all.reserve(7, "old", "10.244.1.2".parse().expect("an address"), &ranges(of));
        all.reserve(7, "elsewhere", "10.244.2.3".parse().expect("an address"), &ranges(of));
        assert_eq!(take(&mut all, "new", of), "10.244.1.3");
        assert_eq!(take(&mut all, "old", of), "10.244.1.2");
    }

    #[test]
    fn both_families_and_none() {
        assert_eq!(take(&mut Addresses::default(), "a", "10.0.0.0/24 fd00::/64"), "10.0.0.2 fd00::2");
        assert_eq!(take(&mut Addresses::default(), "a", ""), "none");
        assert_eq!(take(&mut Addresses::default(), "a", "10.0.0.0/31"), "none");
        assert_eq!(
            Addresses::default().take(0, "a", &[Range::fallback(258)]),
            Some(vec!["100.65.2.2".parse().expect("an address")])
        );
        for text in ["10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129"] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }
}
