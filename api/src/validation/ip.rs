//! IP addresses and CIDRs, read strictly or as Go's older parser did: with leading zeros.

use std::net::{IpAddr, Ipv4Addr};

use crate::field::{ErrorList, Path, Report, quote};

/// Reads an address; leading zeros are ignored.
pub(crate) fn parse_sloppy(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        let (head, tail) = text.rsplit_once(':')?;
        if tail.contains('.') {
            let v4 = parse_v4_sloppy(tail)?;
            return format!("{head}:{v4}").parse().ok();
        }
        return text.parse().ok();
    }
    parse_v4_sloppy(text).map(IpAddr::V4)
}

fn parse_v4_sloppy(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = part.trim_start_matches('0');
        *octet = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    }
    if parts.next().is_some() { None } else { Some(octets.into()) }
}

/// Reads a CIDR with a leading-zero address; the address and the prefix length.
pub(crate) fn parse_cidr_sloppy(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = parse_sloppy(address)?;
    if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    let max = if address.is_ipv4() { 32 } else { 128 };
    if length <= max { Some((address, length)) } else { None }
}

/// As Go prints an address: one mapped from IPv4 as IPv4.
pub(crate) fn go_text(ip: IpAddr) -> String {
    ip.to_canonical().to_string()
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

/// The first address of a network.
pub(crate) fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// An address in a field that once took sloppy ones; those of the old object still pass.
pub(crate) fn legacy_ip(path: &Path, value: &str, old: &[String]) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.iter().any(|o| o == value) {
        return errors;
    }
    match parse_sloppy(value) {
        None => {
            errors.invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        }
        Some(ip) => {
            if value.parse::<IpAddr>().is_err() {
                errors.invalid(path, value, "must not have leading 0s");
            }
            if is_mapped(ip) {
                errors.invalid(path, value, "must not be an IPv4-mapped IPv6 address");
            }
        }
    }
    errors
}

/// An address in canonical form.
pub(crate) fn strict_ip(path: &Path, value: &str) -> ErrorList {
    let mut errors = legacy_ip(path, value, &[]);
    if errors.is_empty()
        && let Some(ip) = parse_sloppy(value)
        && ip.to_string() != value
    {
        errors.invalid(path, value, format!("must be in canonical form ({})", quote(&ip.to_string())));
    }
    errors
}

/// A CIDR in a field that once took sloppy ones; those of the old object still pass.
pub(crate) fn legacy_cidr(path: &Path, value: &str, old: &[String]) -> ErrorList {
    let mut errors = ErrorList::new();
    if old.iter().any(|o| o == value) {
        return errors;
    }
    let Some((ip, length)) = parse_cidr_sloppy(value) else {
        errors.invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        return errors;
    };
    let (address, prefix) = value.split_once('/').unwrap_or((value, ""));
    if address.parse::<IpAddr>().is_err() || (prefix.len() > 1 && prefix.starts_with('0')) {
        errors.invalid(path, value, "must not have leading 0s in IP or prefix length");
    } else if is_mapped(ip) {
        errors.invalid(path, value, "must not have an IPv4-mapped IPv6 address");
    } else if masked(ip, length) != ip {
        errors.invalid(path, value, "must not have bits set beyond the prefix length");
    }
    errors
}

/// A CIDR in canonical form.
pub(crate) fn strict_cidr(path: &Path, value: &str) -> ErrorList {
    let mut errors = legacy_cidr(path, value, &[]);
    if errors.is_empty()
        && let Some((ip, length)) = parse_cidr_sloppy(value)
    {
        let canonical = format!("{}/{length}", masked(ip, length));
        if canonical != value {
            errors.invalid(path, value, format!("must be in canonical form ({})", quote(&canonical)));
        }
    }
    errors
}

/// Whether exactly the two families occur in a list of addresses.
pub(crate) fn is_dual_stack(addresses: impl Iterator<Item = Option<IpAddr>>) -> Option<bool> {
    let (mut v4, mut v6) = (false, false);
    for address in addresses {
        match address? {
            IpAddr::V4(_) => v4 = true,
            IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
                Some(_) => v4 = true,
                None => v6 = true,
            },
        }
    }
    Some(v4 && v6)
}

/// What to say of an address that is accepted but not in the usual form.
pub(crate) fn ip_warnings(path: &Path, value: &str) -> Vec<String> {
    let Some(ip) = parse_sloppy(value) else { return Vec::new() };
    let strict = value.parse::<IpAddr>().ok();
    match strict {
        None => vec![non_standard(path, value, ip)],
        Some(ip) if is_mapped(ip) => vec![non_standard(path, value, ip)],
        Some(IpAddr::V6(v6)) if v6.to_string() != value => {
            let canonical = quote(&v6.to_string());
            vec![format!(
                "{path}: IPv6 address {} should be in RFC 5952 canonical format ({canonical})",
                quote(value)
            )]
        }
        Some(_) => Vec::new(),
    }
}

fn non_standard(path: &Path, value: &str, ip: IpAddr) -> String {
    format!("{path}: non-standard IP address {} is invalid: use {}", quote(value), quote(&go_text(ip)))
}

/// What to say of a CIDR that is accepted but not in the usual form.
pub(crate) fn cidr_warnings(path: &Path, value: &str) -> Vec<String> {
    let Some((ip, length)) = parse_cidr_sloppy(value) else { return Vec::new() };
    let mut warnings = Vec::new();
    let network = format!("{}/{length}", go_text(masked(ip, length)));
    if masked(ip, length) != ip {
        let single = format!("{}/{}", go_text(ip), if ip.is_ipv4() { 32 } else { 128 });
        warnings.push(format!(
            "{path}: CIDR value {} is ambiguous in this context (should be {} or {}?)",
            quote(value),
            quote(&network),
            quote(&single)
        ));
    }
    let (address, prefix) = value.split_once('/').unwrap_or((value, ""));
    let strict = address.parse::<IpAddr>().ok().filter(|_| prefix.len() == 1 || !prefix.starts_with('0'));
    match strict {
        None => warnings.push(format!(
            "{path}: non-standard CIDR value {} is invalid: use {}",
            quote(value),
            quote(&network)
        )),
        Some(ip) if is_mapped(ip) => warnings.push(format!(
            "{path}: non-standard CIDR value {} is invalid: use {}",
            quote(value),
            quote(&network)
        )),
        Some(IpAddr::V6(v6)) if warnings.is_empty() && format!("{v6}/{length}") != value => {
            warnings.push(format!(
                "{path}: IPv6 CIDR value {} should be in RFC 5952 canonical format ({})",
                quote(value),
                quote(&format!("{v6}/{length}"))
            ));
        }
        Some(_) => {}
    }
    warnings
}

/// An address that endpoints may have.
pub(crate) fn endpoint_ip(value: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(ip) = parse_sloppy(value).map(|ip| ip.to_canonical()) else {
        errors.invalid(path, value, "must be a valid IP address");
        return errors;
    };
    if ip.is_unspecified() {
        errors.invalid(path, value, format!("may not be unspecified ({value})"));
    }
    if ip.is_loopback() {
        errors.invalid(path, value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if link_local {
        errors.invalid(path, value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(path, value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_judged_as_upstream_judges_them() {
        let path = Path::new("ip");
        let cases = [
            ("1.2.3.4", ""),
            ("fe80::1", ""),
            ("01.2.3.4", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            ("1.2.3", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            ("a", "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
        ];
        for (value, want) in cases {
            let got: Vec<_> = legacy_ip(&path, value, &[]).into_iter().map(|e| e.detail).collect();
            assert_eq!(got.join(" "), want, "{value}");
        }
        let cases = [
            ("10.0.0.0/8", ""),
            ("10.0.0.1/8", "must not have bits set beyond the prefix length"),
            ("10.0.0.0/08", "must not have leading 0s in IP or prefix length"),
            ("10.0.0.0", "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
            ("0.0.0.0/0", ""),
            ("::/0", ""),
        ];
        for (value, want) in cases {
            let got: Vec<_> = legacy_cidr(&path, value, &[]).into_iter().map(|e| e.detail).collect();
            assert_eq!(got.join(" "), want, "{value}");
        }
    }
}
