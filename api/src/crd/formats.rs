//! The formats of strings that are checked (upstream `kube-openapi/pkg/validation/strfmt`, and which of them count in
//! a definition: `apiserver/validation/formats.go`).

use std::sync::LazyLock;

use regex::Regex;

use super::email;
use crate::schema::parse_duration;
use crate::validation::ip::{parse_cidr_sloppy, parse_sloppy};

/// Whether a text has a format.
pub(super) type Format = fn(&str) -> bool;

/// All formats, by their names without dashes.
const FORMATS: [(&str, Format); 26] = [
    ("bsonobjectid", |t| t.len() == 24 && t.bytes().all(|b| b.is_ascii_hexdigit())),
    ("uri", is_request_uri),
    ("email", email::is_address),
    ("hostname", is_hostname),
    ("ipv4", |t| t.contains('.') && parse_sloppy(t).is_some()),
    ("ipv6", |t| t.contains(':') && t.parse::<std::net::Ipv6Addr>().is_ok()),
    ("cidr", |t| parse_cidr_sloppy(t).is_some()),
    ("mac", is_mac),
    ("uuid", |t| UUID.is_match(t)),
    ("uuid3", |t| UUID3.is_match(t)),
    ("uuid4", |t| UUID4.is_match(t)),
    ("uuid5", |t| UUID5.is_match(t)),
    ("isbn", |t| is_isbn10(t) || is_isbn13(t)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("creditcard", is_credit_card),
    ("ssn", |t| t.len() == 11 && SSN.is_match(t)),
    ("hexcolor", |t| HEX_COLOR.is_match(t)),
    ("rgbcolor", |t| RGB_COLOR.is_match(t)),
    ("byte", is_base64),
    ("password", |_| true),
    ("date", is_date),
    ("duration", is_duration),
    ("datetime", is_date_time),
    ("k8sshortname", |t| t.len() <= 63 && crate::format::dns1123_label(t).is_empty()),
    ("k8slongname", |t| t.len() <= 253 && crate::format::dns1123_subdomain(t).is_empty()),
];

fn normal(name: &str) -> String {
    name.replace('-', "")
}

/// The check of a format; `None` for one that is not known.
pub(super) fn find(name: &str) -> Option<Format> {
    let name = normal(name);
    FORMATS.iter().find(|(own, _)| *own == name).map(|(_, format)| *format)
}

/// Whether a format means something for values of these types in a definition.
pub(super) fn is_supported(name: &str, types: &[String]) -> bool {
    let kind = match types {
        [one] => one.as_str(),
        _ => "",
    };
    match kind {
        "" | "string" => find(name).is_some(),
        "integer" => matches!(name, "int32" | "int64"),
        "number" => matches!(name, "float" | "double"),
        _ => false,
    }
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern compiles")
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"));
static UUID3: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"));
static UUID4: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"));
static UUID5: LazyLock<Regex> =
    LazyLock::new(|| regex(r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"));
static SSN: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"));
static HEX_COLOR: LazyLock<Regex> = LazyLock::new(|| regex(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"));
static RGB_COLOR: LazyLock<Regex> = LazyLock::new(|| {
    let part = r"(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])";
    regex(&format!(
        r"^rgb\([\t\n\f\r ]*{part}[\t\n\f\r ]*,[\t\n\f\r ]*{part}[\t\n\f\r ]*,[\t\n\f\r ]*{part}[\t\n\f\r ]*\)$"
    ))
});
static CREDIT_CARD: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}",
        r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$"
    ))
});
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)",
        r"|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"
    ))
});
static DURATION_PART: LazyLock<Regex> = LazyLock::new(|| regex(r"([0-9]+)[\t\n\f\r ]*([A-Za-zµ]+)"));
static DAY_TIME: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"));

fn is_hostname(text: &str) -> bool {
    HOSTNAME.is_match(text) && text.len() <= 255 && text.split('.').all(|label| label.len() <= 63)
}

/// As Go's `url.ParseRequestURI`: absolute, or a path from the root.
pub(crate) fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    if text == "*" {
        return true;
    }
    let (scheme, rest) = match scheme(text) {
        Ok(parts) => parts,
        Err(()) => return false,
    };
    let rest = rest.split_once('?').map_or(rest, |(rest, _)| rest);
    if !rest.starts_with('/') {
        // With a scheme it is opaque.
        return !scheme.is_empty();
    }
    let (authority, path) = match rest.strip_prefix("//") {
        Some(after) if !scheme.is_empty() || !rest.starts_with("///") => {
            after.split_at(after.find('/').unwrap_or(after.len()))
        }
        _ => ("", rest),
    };
    is_authority(authority) && escapes_are_whole(path)
}

/// `scheme:rest`; an error for a text that begins with a colon.
fn scheme(text: &str) -> Result<(&str, &str), ()> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err(()),
            b':' => return Ok((&text[..i], &text[i + 1..])),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

fn is_authority(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
    let user_fits = user.is_none_or(|user| {
        escapes_are_whole(user)
            && user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&b))
    });
    let port = |text: &str| text.is_empty() || text[1..].bytes().all(|b| b.is_ascii_digit());
    let host_fits = if let Some(inside) = host.strip_prefix('[') {
        inside
            .rsplit_once(']')
            .is_some_and(|(_, after)| (after.is_empty() || after.starts_with(':')) && port(after))
    } else {
        let (name, number) = host.split_at(host.rfind(':').unwrap_or(host.len()));
        // Other escapes than those of letters beyond ASCII are not for hosts.
        let allowed =
            |b: u8| b.is_ascii_alphanumeric() || b >= 0x80 || b"-._~!$&'()*+,;=:[]<>\"%".contains(&b);
        port(number) && name.bytes().all(allowed) && escapes_are_whole(name)
    };
    user_fits && host_fits
}

/// Whether every percent sign is followed by two hexadecimal digits.
fn escapes_are_whole(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit))
}

/// As Go's `net.ParseMAC`: 6, 8 or 20 octets with colons or dashes, or groups of four digits with dots.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize, counts: [usize; 3]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|p| p.len() == digits && p.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    groups(':', 2, [6, 8, 20]) || groups('-', 2, [6, 8, 20]) || groups('.', 4, [3, 4, 10])
}

fn without_spaces(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\t' | '\n' | '\x0c' | '\r' | ' ' | '-')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = without_spaces(text);
    let bytes = text.as_bytes();
    let (Some(head), Some(last)) = (bytes.get(..9), bytes.get(9)) else { return false };
    let digits = head.iter().all(u8::is_ascii_digit) && (last.is_ascii_digit() || *last == b'X');
    let value = |b: &u8| if *b == b'X' { 10 } else { u32::from(b - b'0') };
    bytes.len() == 10
        && digits
        && bytes.iter().zip(1..).map(|(b, weight)| weight * value(b)).sum::<u32>() % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let text = without_spaces(text);
    let bytes = text.as_bytes();
    if bytes.len() != 13 || !bytes.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = bytes[..12]
        .iter()
        .enumerate()
        .map(|(i, b)| u32::from(b - b'0') * if i % 2 == 0 { 1 } else { 3 })
        .sum();
    u32::from(bytes[12] - b'0') == (10 - sum % 10) % 10
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let luhn = || {
        let each = digits.bytes().rev().enumerate().map(|(i, b)| {
            let digit = u32::from(b - b'0') * if i % 2 == 1 { 2 } else { 1 };
            if digit >= 10 { digit % 10 + 1 } else { digit }
        });
        each.sum::<u32>() % 10 == 0
    };
    CREDIT_CARD.is_match(&digits) && luhn()
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && padding <= 2
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && crate::schema::parse_time(&format!("{text}T00:00:00Z")).is_ok()
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    let Some(found) = DAY_TIME.captures(time).filter(|_| text.len() >= 4 && is_date(date)) else {
        return false;
    };
    &found[1] <= "23" && &found[2] <= "59" && &found[3] <= "59"
}

/// A span as Go writes it, or numbers with units as people do.
fn is_duration(text: &str) -> bool {
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    if parse_duration(text).is_ok() {
        return true;
    }
    let mut found = false;
    for part in DURATION_PART.captures_iter(text) {
        if part[1].parse::<i64>().is_err() {
            return false;
        }
        let unit = part[2].to_lowercase();
        found |= UNITS.iter().any(|names| {
            names.iter().any(|name| *name == unit) || names.last().is_some_and(|name| unit.starts_with(name))
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_take_what_upstream_takes() {
        for (name, good, bad) in [
            (
                "bsonobjectid",
                &["507f1f77bcf86cd799439011"] as &[&str],
                &["507f1f77bcf86cd79943901", "", "x"] as &[&str],
            ),
            (
                "uri",
                &["https://example.com/x", "/a/b", "mailto:a@b", "http://[::1]:80/", "*"],
                &["relative/x", "not ok!", "", ":x", "http://a b/", "http://a:b/", "/%zz"],
            ),
            (
                "email",
                &["a@example.com", "A <a@example.com>", "\"a b\"@example.com"],
                &["not ok!", "a@", "@b", "a"],
            ),
            (
                "hostname",
                &["h.example.com", "localhost", "a-b.example.london"],
                &["not ok!", "", "-a.example.com", "a_b.example.com"],
            ),
            ("ipv4", &["192.0.2.1", "192.000.002.001"], &["2001:db8::1", "1.2.3", "256.1.1.1"]),
            ("ipv6", &["2001:db8::1", "::ffff:192.0.2.1"], &["192.0.2.1", "2001:db8:::1"]),
            ("cidr", &["192.0.2.0/24", "2001:db8::/32"], &["192.0.2.0", "192.0.2.0/33"]),
            (
                "mac",
                &["00:11:22:33:44:55", "00-11-22-33-44-55", "0011.2233.4455"],
                &["00:11:22:33:44", "not ok!"],
            ),
            (
                "uuid",
                &["11111111-1111-1111-1111-111111111111", "AAAAAAAA111111111111111111111111"],
                &["1111", ""],
            ),
            ("uuid4", &["11111111-1111-4111-8111-111111111111"], &["11111111-1111-1111-1111-111111111111"]),
            ("isbn10", &["0321751043", "0-321-75104-3"], &["0321751044", "x"]),
            ("isbn13", &["978-0321751041"], &["978-0321751042"]),
            ("isbn", &["0321751043", "978-0321751041"], &["1"]),
            ("creditcard", &["4111-1111-1111-1111"], &["4111-1111-1111-1112"]),
            ("ssn", &["111-11-1111", "111 11 1111"], &["1111111111", "11-111-1111"]),
            ("hexcolor", &["#FFFFFF", "abc"], &["#FFFF"]),
            ("rgbcolor", &["rgb(255, 255, 255)"], &["rgb(300,0,0)", "rgb(1,2)"]),
            ("byte", &["AAE=", "AAAA"], &["AAE", "", "not ok!"]),
            ("date", &["2024-01-02"], &["", "2024-13-01", "2024-1-2", "2024-02-30"]),
            (
                "date-time",
                &["2024-01-02T03:04:05Z", "2024-01-02t03:04:05.1+01:00"],
                &["2024-01-02T03:04:05", "2024-01-02", "2024-01-02T24:00:00Z"],
            ),
            ("duration", &["1h30m", "2 days", "3 weeks", "0"], &["not ok!", "", "5 moons"]),
            ("k8s-short-name", &["short-name"], &["Not", "a.b", ""]),
            ("k8s-long-name", &["a.b-c"], &["a..b"]),
            ("password", &["anything", ""], &[]),
        ] {
            let check = find(name).expect(name);
            for text in good {
                assert!(check(text), "{name}: {text:?}");
            }
            for text in bad {
                assert!(!check(text), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn formats_belong_to_types() {
        let of = |kind: &str| vec![kind.to_owned()];
        for (name, types, want) in [
            ("date-time", of("string"), true),
            ("datetime", Vec::new(), true),
            ("int32", of("integer"), true),
            ("int32", of("string"), false),
            ("double", of("number"), true),
            ("date", of("object"), false),
            ("no-such-format", of("string"), false),
            ("date", vec!["integer".to_owned(), "string".to_owned()], true),
        ] {
            assert_eq!(is_supported(name, &types), want, "{name} {types:?}");
        }
    }
}
