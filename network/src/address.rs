//! Address families, and ranges of addresses of either.

use std::net::IpAddr;

/// An address family. A pod may have an address of each; routes, tunnels and packet rules of the two never mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// How long its addresses are.
    #[must_use]
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// Something for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families<T> {
    /// For IPv4.
    pub v4: T,
    /// For IPv6.
    pub v6: T,
}

impl<T> Families<T> {
    /// Made for one family after the other.
    pub fn from_fn(mut make: impl FnMut(Family) -> T) -> Self {
        Self { v4: make(Family::V4), v6: make(Family::V6) }
    }

    /// That of a family.
    #[must_use]
    pub fn of(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// That of a family, to be changed.
    pub fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// First address.
    pub base: IpAddr,
    /// Bits that all addresses share.
    pub prefix: u8,
}

impl Range {
    /// Reads `10.244.1.0/24` or `fd00:10:244:1::/64`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (base, prefix) = text.split_once('/')?;
        let (base, prefix): (IpAddr, u8) = (base.parse().ok()?, prefix.parse().ok()?);
        (prefix <= Family::of(base).bits()).then_some(Self { base, prefix })
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        Family::of(self.base)
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differ = bits(self.base) ^ bits(address);
        Family::of(address) == self.family() && differ.leading_zeros() >= u32::from(self.prefix)
    }
}

/// The address's bits, the first of them highest.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_addresses_of_its_family_alone() {
        for (range, address, expected) in [
            ("10.244.1.0/24", "10.244.1.255", true),
            ("10.244.1.0/24", "10.244.2.0", false),
            ("0.0.0.0/0", "203.0.113.7", true),
            ("0.0.0.0/0", "2001:db8::7", false),
            ("10.244.1.7/32", "10.244.1.7", true),
            ("10.244.1.7/32", "10.244.1.6", false),
            ("fd00:1::/64", "fd00:1::ffff:1", true),
            ("fd00:1::/64", "fd00:1:0:1::1", false),
            ("::/0", "fd00:1::1", true),
            ("::/0", "10.244.1.7", false),
            ("fd00:1::7/128", "fd00:1::7", true),
        ] {
            let parsed = Range::parse(range).expect("a range");
            assert_eq!(parsed.contains(address.parse().expect("an address")), expected, "{range} {address}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/x"] {
            assert_eq!(Range::parse(text), None, "{text}");
        }
    }
}
