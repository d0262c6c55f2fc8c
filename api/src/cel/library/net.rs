//! IP addresses and ranges of them.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member, plain};
use crate::cel::value::Value;
use crate::schema::scalar::go_quote;
use crate::validation::ip::masked;

use super::extension::Extension;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// An address in it.
    pub address: IpAddr,
    /// How many bits of it all addresses of the range share.
    pub length: u8,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.address.is_ipv4() && masked(ip, self.length) == masked(self.address, self.length)
    }
}

/// The functions on addresses.
pub(crate) const IP: &[Function] = &[
    function("ip", &[plain("string_to_ip", "string -> net.IP")], |_, args| {
        parse_ip(text(&args[0])).map(|ip| Value::extension(Extension::Ip(ip))).map_err(Fault::new)
    }),
    function("family", &[member("ip_family", "net.IP -> int")], |_, args| {
        Ok(Value::Int(if ip(&args[0])?.is_ipv4() { 4 } else { 6 }))
    }),
    function("ip.isCanonical", &[plain("ip_is_canonical", "string -> bool")], |_, args| {
        let text = text(&args[0]);
        parse_ip(text).map(|ip| Value::Bool(ip.to_string() == text)).map_err(Fault::new)
    }),
    function("isUnspecified", &[member("ip_is_unspecified", "net.IP -> bool")], |_, args| {
        holds(args, |ip| ip.is_unspecified())
    }),
    function("isLoopback", &[member("ip_is_loopback", "net.IP -> bool")], |_, args| {
        holds(args, |ip| ip.is_loopback())
    }),
    function("isLinkLocalMulticast", &[member("ip_is_link_local_multicast", "net.IP -> bool")], |_, args| {
        holds(args, |ip| match ip {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
        })
    }),
    function("isLinkLocalUnicast", &[member("ip_is_link_local_unicast", "net.IP -> bool")], |_, args| {
        holds(args, is_link_local)
    }),
    function("isGlobalUnicast", &[member("ip_is_global_unicast", "net.IP -> bool")], |_, args| {
        holds(args, |ip| {
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            !broadcast
                && !ip.is_unspecified()
                && !ip.is_loopback()
                && !ip.is_multicast()
                && !is_link_local(ip)
        })
    }),
    function("isIP", &[plain("is_ip", "string -> bool")], |_, args| {
        Ok(Value::Bool(parse_ip(text(&args[0])).is_ok()))
    }),
    function("string", &[plain("ip_to_string", "net.IP -> string")], |_, args| {
        Ok(Value::text(ip(&args[0])?.to_string()))
    }),
];

/// The functions on ranges.
pub(crate) const CIDR: &[Function] = &[
    function("cidr", &[plain("string_to_cidr", "string -> net.CIDR")], |_, args| {
        let network = to_network(text(&args[0]))?;
        Ok(Value::extension(Extension::Cidr(network)))
    }),
    function(
        "containsIP",
        &[
            member("cidr_contains_ip_string", "net.CIDR, string -> bool"),
            member("cidr_contains_ip_ip", "net.CIDR, net.IP -> bool"),
        ],
        contains_ip,
    ),
    function(
        "containsCIDR",
        &[
            member("cidr_contains_cidr_string", "net.CIDR, string -> bool"),
            member("cidr_contains_cidr", "net.CIDR, net.CIDR -> bool"),
        ],
        contains_cidr,
    ),
    function("ip", &[member("cidr_ip", "net.CIDR -> net.IP")], |_, args| {
        Ok(Value::extension(Extension::Ip(network(&args[0])?.address)))
    }),
    function("prefixLength", &[member("cidr_prefix_length", "net.CIDR -> int")], |_, args| {
        Ok(Value::Int(i64::from(network(&args[0])?.length)))
    }),
    function("masked", &[member("cidr_masked", "net.CIDR -> net.CIDR")], |_, args| {
        let Network { address, length } = network(&args[0])?;
        let address = masked(address, length);
        Ok(Value::extension(Extension::Cidr(Network { address, length })))
    }),
    function("isCIDR", &[plain("is_cidr", "string -> bool")], |_, args| {
        Ok(Value::Bool(parse_network(text(&args[0])).is_ok()))
    }),
    function("string", &[plain("cidr_to_string", "net.CIDR -> string")], |_, args| {
        Ok(Value::text(network(&args[0])?.to_string()))
    }),
];

fn text<'v>(value: &'v Value<'_>) -> &'v str {
    value.as_str().unwrap_or_default()
}

fn ip(value: &Value<'_>) -> Result<IpAddr, Fault> {
    match value {
        Value::Extension(extension) => match **extension {
            Extension::Ip(ip) => Ok(ip),
            _ => Err(Fault::no_such_overload()),
        },
        _ => Err(Fault::no_such_overload()),
    }
}

fn network(value: &Value<'_>) -> Result<Network, Fault> {
    match value {
        Value::Extension(extension) => match **extension {
            Extension::Cidr(network) => Ok(network),
            _ => Err(Fault::no_such_overload()),
        },
        _ => Err(Fault::no_such_overload()),
    }
}

fn holds<'a>(args: &[Value<'a>], holds: fn(IpAddr) -> bool) -> Evaluated<'a> {
    ip(&args[0]).map(|ip| Value::Bool(holds(ip)))
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn contains_ip<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let range = network(&args[0])?;
    let address = match &args[1] {
        // As upstream: what is no address is no argument.
        Value::String(text) => parse_ip(text).map_err(|_| Fault::no_such_overload())?,
        other => ip(other)?,
    };
    Ok(Value::Bool(range.contains(address)))
}

fn contains_cidr<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let range = network(&args[0])?;
    let other = match &args[1] {
        Value::String(text) => to_network(text)?,
        other => network(other)?,
    };
    Ok(Value::Bool(range.length <= other.length && range.contains(other.address)))
}

fn to_network(text: &str) -> Result<Network, Fault> {
    parse_network(text).map_err(|error| {
        Fault::new(format!("network address parse error during conversion from string: {error}"))
    })
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// An address without a zone, none mapped from IPv4.
fn parse_ip(text: &str) -> Result<IpAddr, String> {
    let (ip, zone) = parse_address(text).map_err(|error| {
        format!("IP Address {} parse error during conversion from string: {error}", go_quote(text))
    })?;
    if zone {
        return Err(format!("IP address {} with zone value is not allowed", go_quote(text)));
    }
    if is_mapped(ip) {
        return Err(format!("IPv4-mapped IPv6 address {} is not allowed", go_quote(text)));
    }
    Ok(ip)
}

fn parse_network(text: &str) -> Result<Network, String> {
    let network = parse_prefix(text).map_err(|error| {
        let quoted = go_quote(text);
        format!(
            "network address parse error during conversion from string: netip.ParsePrefix({quoted}): {error}"
        )
    })?;
    if is_mapped(network.address) {
        return Err(format!("IPv4-mapped IPv6 address {} is not allowed", go_quote(text)));
    }
    Ok(network)
}

fn parse_prefix(text: &str) -> Result<Network, String> {
    let (address, length) = text.rsplit_once('/').ok_or("no '/'")?;
    let (address, zone) = parse_address(address)?;
    if zone {
        return Err("IPv6 zones cannot be present in a prefix".to_owned());
    }
    let bad = || format!("bad bits after slash: {}", go_quote(length));
    if length.len() > 1 && !length.starts_with(|c: char| ('1'..='9').contains(&c)) {
        return Err(bad());
    }
    if !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let bits: u64 = length.parse().map_err(|_| bad())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match u8::try_from(bits) {
        Ok(length) if length <= most => Ok(Network { address, length }),
        _ => Err("prefix length out of range".to_owned()),
    }
}

/// Reads an address as Go's `netip.ParseAddr` does; whether it has a zone.
fn parse_address(text: &str) -> Result<(IpAddr, bool), String> {
    let fail = |message: &str| Err(format!("ParseAddr({}): {message}", go_quote(text)));
    match text.chars().find(|c| matches!(c, '.' | ':' | '%')) {
        Some('.') => v4_octets(text, text).map(|octets| (IpAddr::from(octets), false)),
        Some(':') => parse_v6(text),
        Some(_) => fail("missing IPv6 address"),
        None => fail("unable to parse IP"),
    }
}

/// The octets of `part`, within the whole `text`.
fn v4_octets(text: &str, part: &str) -> Result<[u8; 4], String> {
    let fail = |message: &str| Err(format!("ParseAddr({}): {message}", go_quote(text)));
    let fail_at = |message: &str, at: usize| fail(&format!("{message} (at {})", go_quote(&part[at..])));
    let bytes = part.as_bytes();
    let mut octets = [0u8; 4];
    let (mut value, mut position, mut digits) = (0u32, 0, 0);
    for (at, byte) in bytes.iter().copied().enumerate() {
        match byte {
            b'0'..=b'9' => {
                if digits == 1 && value == 0 {
                    return fail("IPv4 field has octet with leading zero");
                }
                value = value * 10 + u32::from(byte - b'0');
                digits += 1;
                if value > 255 {
                    return fail("IPv4 field has value >255");
                }
            }
            b'.' => {
                if at == 0 || at + 1 == bytes.len() || bytes[at - 1] == b'.' {
                    return fail_at("IPv4 field must have at least one digit", at);
                }
                if position == 3 {
                    return fail("IPv4 address too long");
                }
                octets[position] = value as u8;
                position += 1;
                (value, digits) = (0, 0);
            }
            _ if part.is_char_boundary(at) => return fail_at("unexpected character", at),
            _ => return fail("unexpected character"),
        }
    }
    if position < 3 {
        return fail("IPv4 address too short");
    }
    octets[3] = value as u8;
    Ok(octets)
}

fn parse_v6(text: &str) -> Result<(IpAddr, bool), String> {
    let fail = |message: &str| Err(format!("ParseAddr({}): {message}", go_quote(text)));
    let fail_at = |message: &str, at: &str| fail(&format!("{message} (at {})", go_quote(at)));
    let (mut rest, zone) = match text.split_once('%') {
        Some((_, "")) => return fail("zone must be a non-empty string"),
        Some((address, _)) => (address, true),
        None => (text, false),
    };
    let address = rest;
    let mut bytes = [0u8; 16];
    let (mut at, mut ellipsis) = (0, None);
    if let Some(after) = rest.strip_prefix("::") {
        (ellipsis, rest) = (Some(0), after);
        if rest.is_empty() {
            return Ok((IpAddr::V6(Ipv6Addr::UNSPECIFIED), zone));
        }
    }
    while at < 16 {
        let digits = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        if digits > 4 {
            return fail_at("each group must have 4 or less digits", rest);
        }
        if digits == 0 {
            return fail_at("each colon-separated field must have at least one digit", rest);
        }
        if rest[digits..].starts_with('.') {
            if ellipsis.is_none() && at != 12 {
                return fail_at("embedded IPv4 address must replace the final 2 fields of the address", rest);
            }
            if at + 4 > 16 {
                return fail_at(
                    "too many hex fields to fit an embedded IPv4 at the end of the address",
                    rest,
                );
            }
            bytes[at..at + 4].copy_from_slice(&v4_octets(text, &address[address.len() - rest.len()..])?);
            (at, rest) = (at + 4, "");
            break;
        }
        let field = u16::from_str_radix(&rest[..digits], 16).unwrap_or_default();
        bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
        at += 2;
        rest = &rest[digits..];
        if rest.is_empty() {
            break;
        }
        match rest.strip_prefix(':') {
            None => return fail_at("unexpected character, want colon", rest),
            Some("") => return fail_at("colon must be followed by more characters", rest),
            Some(after) => rest = after,
        }
        if let Some(after) = rest.strip_prefix(':') {
            if ellipsis.is_some() {
                return fail_at("multiple :: in address", rest);
            }
            (ellipsis, rest) = (Some(at), after);
            if rest.is_empty() {
                break;
            }
        }
    }
    if !rest.is_empty() {
        return fail_at("trailing garbage after address", rest);
    }
    match ellipsis {
        None if at < 16 => return fail("address string too short"),
        Some(_) if at == 16 => return fail("the :: must expand to at least one field of zeros"),
        Some(gap) => {
            bytes.copy_within(gap..at, 16 - (at - gap));
            bytes[gap..16 - (at - gap)].fill(0);
        }
        None => {}
    }
    Ok((IpAddr::from(bytes), zone))
}
