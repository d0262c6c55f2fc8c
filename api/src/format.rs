//! The formats of names, label keys and values, ports and the like (upstream `util/validation` and
//! `api/validate/content`). Each check returns the messages of what is wrong, none if nothing is.

use crate::field::{Error, ErrorList, Path};

const LABEL_KEY_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_KEY_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const DNS_LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS_SUBDOMAIN_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// What a check found wrong.
pub type Messages = Vec<String>;

/// `must be no more than N characters`.
#[must_use]
pub fn max_len(length: usize) -> String {
    format!("must be no more than {length} characters")
}

fn max_bytes(length: usize) -> String {
    format!("must be no more than {length} bytes")
}

/// `must be between A and B, inclusive`.
#[must_use]
pub fn range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A message with examples and the regular expression behind it.
#[must_use]
pub fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{regex}')");
    }
    let quoted: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", quoted.join(" or "))
}

fn ends_alphanumeric(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(b)) if a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
}

fn is_label_name(text: &str) -> bool {
    ends_alphanumeric(text) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn matches_dns_label(text: &str) -> bool {
    ends_alphanumeric(text) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn matches_dns_subdomain(text: &str) -> bool {
    text.split('.').all(matches_dns_label)
}

/// A label key or other qualified name: `name` or `prefix/name`.
#[must_use]
pub fn label_key(value: &str) -> Messages {
    let mut errors = Vec::new();
    let examples = ["MyName", "my.name", "123-abc"];
    let mut parts = value.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(content_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            name
        }
        _ => {
            let message = regex_error(LABEL_KEY_MESSAGE, LABEL_KEY_FMT, &examples);
            return vec![format!(
                "a valid label key {message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", max_bytes(63)));
    }
    if !is_label_name(name) {
        errors.push(format!("name part {}", regex_error(LABEL_KEY_MESSAGE, LABEL_KEY_FMT, &examples)));
    }
    errors
}

/// A label value.
#[must_use]
pub fn label_value(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(max_bytes(63));
    }
    if !value.is_empty() && !is_label_name(value) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        errors.push(regex_error(message, &format!("({LABEL_KEY_FMT})?"), &["MyValue", "my_value", "12345"]));
    }
    errors
}

const SUBDOMAIN_MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";

fn content_subdomain(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(max_bytes(253));
    }
    if !matches_dns_subdomain(value) {
        errors.push(regex_error(SUBDOMAIN_MESSAGE, DNS_SUBDOMAIN_FMT, &["example.com"]));
    }
    errors
}

/// A DNS label (RFC 1123), lower case.
#[must_use]
pub fn dns1123_label(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(max_len(63));
    }
    if !matches_dns_label(value) {
        if matches_dns_subdomain(value) {
            errors.push("must not contain dots".to_owned());
        } else {
            let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            errors.push(regex_error(message, DNS_LABEL_FMT, &["my-name", "123-abc"]));
        }
    }
    errors
}

/// A DNS subdomain (RFC 1123), lower case.
#[must_use]
pub fn dns1123_subdomain(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(max_len(253));
    }
    if !matches_dns_subdomain(value) {
        errors.push(regex_error(SUBDOMAIN_MESSAGE, DNS_SUBDOMAIN_FMT, &["example.com"]));
    }
    errors
}

/// A DNS subdomain whose labels may begin with and contain underscores.
#[must_use]
pub fn dns1123_subdomain_with_underscore(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(max_len(253));
    }
    let label = |text: &str| {
        let text = text.strip_prefix('_').unwrap_or(text);
        ends_alphanumeric(text)
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    if !value.split('.').all(label) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character";
        let fmt = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*";
        errors.push(regex_error(message, fmt, &["example.com"]));
    }
    errors
}

/// A DNS label of the older kind (RFC 1035), which begins with a letter.
#[must_use]
pub fn dns1035_label(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(max_len(63));
    }
    if !matches_dns_label(value) || !value.starts_with(|c: char| c.is_ascii_lowercase()) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        errors.push(regex_error(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    errors
}

/// `*.` and a DNS subdomain.
#[must_use]
pub fn wildcard_dns1123_subdomain(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(max_len(253));
    }
    if !value.strip_prefix("*.").is_some_and(matches_dns_subdomain) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        errors.push(regex_error(message, &format!("\\*\\.{DNS_SUBDOMAIN_FMT}"), &["*.example.com"]));
    }
    errors
}

/// A C identifier.
#[must_use]
pub fn c_identifier(value: &str) -> Messages {
    let good = value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if good {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_'";
    vec![regex_error(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// A port number.
#[must_use]
pub fn port_number(port: i64) -> Messages {
    in_range(port, 1, 65535)
}

/// A number within limits.
#[must_use]
pub fn in_range(value: i64, low: i64, high: i64) -> Messages {
    if (low..=high).contains(&value) { Vec::new() } else { vec![range(low, high)] }
}

/// A user or group id.
#[must_use]
pub fn user_id(id: i64) -> Messages {
    in_range(id, 0, i64::from(i32::MAX))
}

/// The name of a port.
#[must_use]
pub fn port_name(port: &str) -> Messages {
    let mut errors = Vec::new();
    if port.len() > 15 {
        errors.push(max_len(15));
    }
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !port.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if port.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if port.starts_with('-') || port.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// Digits and a percent sign.
#[must_use]
pub fn percent(value: &str) -> Messages {
    let good =
        value.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if good {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(message, "[0-9]+%", &["1%", "93%"])]
}

/// The name of an HTTP header.
#[must_use]
pub fn http_header_name(value: &str) -> Messages {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// The name of an environment variable, by the old, strict rule.
#[must_use]
pub fn env_var_name(value: &str) -> Messages {
    let mut errors = Vec::new();
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    if value.is_empty() || !value.bytes().all(ok) || value.starts_with(|c: char| c.is_ascii_digit()) {
        let message = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or '.', and must not start with a digit";
        errors.push(regex_error(
            message,
            "[-._a-zA-Z][-._a-zA-Z0-9]*",
            &["my.env-name", "MY_ENV.NAME", "MyEnvName1"],
        ));
    }
    errors.extend(dot_prefix(value));
    errors
}

/// The name of an environment variable, by the relaxed rule that upstream uses by default.
#[must_use]
pub fn relaxed_env_var_name(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.is_empty() {
        errors.push("environment variable name must be non-empty".to_owned());
    }
    if value.chars().any(|c| !(' '..='~').contains(&c) || c == '=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    errors
}

/// A key of a ConfigMap or Secret.
#[must_use]
pub fn config_map_key(value: &str) -> Messages {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(max_len(253));
    }
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        errors.push(regex_error(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    errors.extend(dot_prefix(value));
    errors
}

fn dot_prefix(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A name that can stand in a URL path.
#[must_use]
pub fn path_segment_name(name: &str) -> Messages {
    match name {
        "." | ".." => return vec![format!("may not be '{name}'")],
        _ => {}
    }
    path_segment_prefix(name)
}

/// The beginning of a name that can stand in a URL path.
#[must_use]
pub fn path_segment_prefix(name: &str) -> Messages {
    ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// A domain name with at least three segments, for example the name of a webhook.
#[must_use]
pub fn fully_qualified_name(path: &Path, name: &str) -> ErrorList {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let errors = dns1123_subdomain(name);
    if !errors.is_empty() {
        return vec![Error::invalid(path, name, errors.join(","))];
    }
    if name.split('.').count() < 3 {
        let detail = "should be a domain with at least three segments separated by dots";
        return vec![Error::invalid(path, name, detail)];
    }
    Vec::new()
}

/// A domain and a path: `acme.io/foo`.
#[must_use]
pub fn domain_prefixed_path(path: &Path, value: &str) -> ErrorList {
    if value.is_empty() {
        return vec![Error::required(path, "")];
    }
    let Some((host, rest)) = value.split_once('/').filter(|(a, b)| !a.is_empty() && !b.is_empty()) else {
        return vec![Error::invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")")];
    };
    let mut errors: ErrorList =
        dns1123_subdomain(host).into_iter().map(|m| Error::invalid(path, host, m)).collect();
    if !rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b)) {
        let message = regex_error("Invalid path", "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+", &[]);
        errors.push(Error::invalid(path, rest, message));
    }
    errors
}

/// How a name is checked: by kind. `prefix` is true for a generateName.
pub type NameCheck = fn(name: &str, prefix: bool) -> Messages;

fn mask_trailing_dash(name: &str) -> std::borrow::Cow<'_, str> {
    // As upstream's maskTrailingDash, which also drops the letter before the dash.
    if name.len() > 1 && name.ends_with('-') && name.is_char_boundary(name.len() - 2) {
        format!("{}a", &name[..name.len() - 2]).into()
    } else {
        name.into()
    }
}

/// Names that are DNS subdomains: most kinds.
#[must_use]
pub fn name_is_subdomain(name: &str, prefix: bool) -> Messages {
    if prefix { dns1123_subdomain(&mask_trailing_dash(name)) } else { dns1123_subdomain(name) }
}

/// Names that are DNS labels: namespaces.
#[must_use]
pub fn name_is_label(name: &str, prefix: bool) -> Messages {
    if prefix { dns1123_label(&mask_trailing_dash(name)) } else { dns1123_label(name) }
}

/// Names that are DNS labels and begin with a letter: services.
#[must_use]
pub fn name_is_1035_label(name: &str, prefix: bool) -> Messages {
    if prefix { dns1035_label(&mask_trailing_dash(name)) } else { dns1035_label(name) }
}

/// Names that need only fit into a URL path: RBAC.
#[must_use]
pub fn name_is_path_segment(name: &str, prefix: bool) -> Messages {
    if prefix { path_segment_prefix(name) } else { path_segment_name(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Messages;

    #[test]
    fn good_values_pass() {
        let cases: [(Check, &[&str]); 9] = [
            (
                label_key,
                &[
                    "simple",
                    "1234",
                    "now.with.dots/simple",
                    "Uppercase_Is_OK_123",
                    "a/b",
                    "requests.storage-foo",
                ],
            ),
            (label_value, &["", "simple", "1-2", "A_b.c"]),
            (dns1123_label, &["a", "a-b", "0", "a1"]),
            (dns1123_subdomain, &["a", "a.b", "0.a-b.c"]),
            (dns1035_label, &["a", "a-1"]),
            (port_name, &["telnet", "p-1", "0a"]),
            (config_map_key, &["a", "a.b", "..a".trim_start_matches('.'), "-", "_"]),
            (percent, &["0%", "100%"]),
            (c_identifier, &["_a", "A1"]),
        ];
        for (check, values) in cases {
            for value in values {
                assert_eq!(check(value), Messages::new(), "{value}");
            }
        }
    }

    #[test]
    fn bad_values_are_refused() {
        let cases: [(Check, &[&str]); 9] = [
            (label_key, &["", "a/b/c", "-a", "a-", "Example.com/abc", "/simple", "example.com/", "a^b"]),
            (label_value, &["-a", "a.", "a b"]),
            (dns1123_label, &["", "A", "a.b", "-a", "a_b"]),
            (dns1123_subdomain, &["", "a..b", ".a", "A.b"]),
            (dns1035_label, &["", "0a", "a-"]),
            (port_name, &["", "123", "a--b", "-a", "aaaaaaaaaaaaaaaa", "A"]),
            (config_map_key, &["", ".", "..", "..a", "a/b"]),
            (percent, &["", "%", "1", "1.5%"]),
            (c_identifier, &["", "1a", "a-b"]),
        ];
        for (check, values) in cases {
            for value in values {
                assert_ne!(check(value), Messages::new(), "{value}");
            }
        }
    }

    #[test]
    fn messages_are_upstreams() {
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(label_key(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
    }
}
