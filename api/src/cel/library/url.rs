//! URLs, read as Go reads them.

use std::fmt;
use std::sync::Arc;

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member, plain};
use crate::cel::value::{Entries, Map, Value};
use crate::schema::scalar::go_quote;

use super::extension::Extension;

/// A URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    opaque: String,
    user: Option<String>,
    host: String,
    /// The path, escaped.
    path: String,
    query: String,
    force_query: bool,
    fragment: String,
    /// Whether there is a scheme and a path but no authority at all.
    omit_host: bool,
}

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function("url", &[plain("string_to_url", "string -> kubernetes.URL")], |_, args| {
        let text = args[0].as_str().unwrap_or_default();
        let url = Url::check(text).and_then(|()| Url::parse(text));
        url.map(|url| Value::extension(Extension::Url(url)))
            .map_err(|error| Fault::new(format!("URL parse error during conversion from string: {error}")))
    }),
    function("getScheme", &[member("url_get_scheme", "kubernetes.URL -> string")], |_, args| {
        get(args, |url| url.scheme.clone())
    }),
    function("getHost", &[member("url_get_host", "kubernetes.URL -> string")], |_, args| {
        get(args, |url| url.host.clone())
    }),
    function("getHostname", &[member("url_get_hostname", "kubernetes.URL -> string")], |_, args| {
        get(args, |url| url.host_and_port().0)
    }),
    function("getPort", &[member("url_get_port", "kubernetes.URL -> string")], |_, args| {
        get(args, |url| url.host_and_port().1)
    }),
    function("getEscapedPath", &[member("url_get_escaped_path", "kubernetes.URL -> string")], |_, args| {
        get(args, |url| url.path.clone())
    }),
    function("getQuery", &[member("url_get_query", "kubernetes.URL -> map(string, list(string))")], query),
    function("isURL", &[plain("is_url_string", "string -> bool")], |_, args| {
        Ok(Value::Bool(Url::check(args[0].as_str().unwrap_or_default()).is_ok()))
    }),
];

fn url<'v>(value: &'v Value<'_>) -> Result<&'v Url, Fault> {
    match value {
        Value::Extension(extension) => match &**extension {
            Extension::Url(url) => Ok(url),
            _ => Err(Fault::no_such_overload()),
        },
        _ => Err(Fault::no_such_overload()),
    }
}

fn get<'a>(args: &[Value<'a>], part: fn(&Url) -> String) -> Evaluated<'a> {
    url(&args[0]).map(|url| Value::text(part(url)))
}

/// Values by name, each a list in the order given.
fn query<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut found: Vec<(String, Vec<Value<'a>>)> = Vec::new();
    for part in url(&args[0])?.query.split('&') {
        if part.is_empty() || part.contains(';') {
            continue;
        }
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let (Ok(name), Ok(value)) = (unescape(name, Part::Query), unescape(value, Part::Query)) else {
            continue;
        };
        let value = Value::text(value);
        match found.iter_mut().find(|(other, _)| *other == name) {
            Some((_, values)) => values.push(value),
            None => found.push((name, vec![value])),
        }
    }
    let mut entries = Entries::default();
    for (name, values) in found {
        entries.set(Value::text(name), Value::list(values))?;
    }
    Ok(Value::Map(Map::Values(Arc::new(entries))))
}

/// Parts of a URL differ in what may stand in them unescaped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Host,
    Zone,
    User,
    Query,
    Fragment,
}

fn is_reserved_in(part: Part, byte: u8) -> bool {
    if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
        return false;
    }
    match part {
        Part::Host | Part::Zone => !b"!$&'()*+,;=:[]<>\"".contains(&byte),
        Part::Path => !b"$&+,/:;=@".contains(&byte),
        Part::User => !b"$&+,;=".contains(&byte),
        Part::Query => true,
        Part::Fragment => !b"$&+,/:;=?@!()*".contains(&byte),
    }
}

fn unescape(text: &str, part: Part) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'%' {
            let code = text.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
            let shown = || String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 3)]).into_owned();
            let Some(code) = code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) else {
                return Err(format!("invalid URL escape {}", go_quote(&shown())));
            };
            if part == Part::Host && code < 0x80 && code != b'%' {
                return Err(format!("invalid URL escape {}", go_quote(&shown())));
            }
            out.push(code);
            at += 3;
            continue;
        }
        if matches!(part, Part::Host | Part::Zone) && byte < 0x80 && is_reserved_in(part, byte) {
            let shown = go_quote(&char::from(byte).to_string());
            return Err(format!("invalid character {shown} in host name"));
        }
        out.push(if byte == b'+' && part == Part::Query { b' ' } else { byte });
        at += 1;
    }
    Ok(String::from_utf8_lossy(&out).into_owned())
}

fn escape(text: &str, part: Part) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match is_reserved_in(part, byte) {
            true => out.push_str(&format!("%{byte:02X}")),
            false => out.push(char::from(byte)),
        }
    }
    out
}

/// The path as written if it is escaped well, else as it should have been.
fn escaped_path(path: &str) -> Result<String, String> {
    let plain = unescape(path, Part::Path)?;
    let valid =
        path.bytes().all(|byte| b"!$&'()*+,;=:@[]%".contains(&byte) || !is_reserved_in(Part::Path, byte));
    Ok(if valid { path.to_owned() } else { escape(&plain, Part::Path) })
}

fn is_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()),
        None => text.is_empty(),
    }
}

/// The scheme, if any, and what follows it.
fn scheme(text: &str) -> Result<(&str, &str), String> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((&text[..at], &text[at + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host(text: &str) -> Result<String, String> {
    let bad_port = |port: &str| Err(format!("invalid port {} after host", go_quote(port)));
    if text.starts_with('[') {
        let Some(end) = text.rfind(']') else { return Err("missing ']' in host".to_owned()) };
        if !is_port(&text[end + 1..]) {
            return bad_port(&text[end + 1..]);
        }
        if let Some(zone) = text[..end].find("%25") {
            let parts = [
                unescape(&text[..zone], Part::Host)?,
                unescape(&text[zone..end], Part::Zone)?,
                unescape(&text[end..], Part::Host)?,
            ];
            return Ok(parts.concat());
        }
    } else if let Some(colon) = text.rfind(':')
        && !is_port(&text[colon..])
    {
        return bad_port(&text[colon..]);
    }
    unescape(text, Part::Host)
}

impl Url {
    /// Whether `text` is a URL that a request could be for: absolute, or an absolute path.
    ///
    /// # Errors
    /// With what is wrong.
    pub(crate) fn check(text: &str) -> Result<(), String> {
        Self::read(text, true).map(drop).map_err(|error| format!("parse {}: {error}", go_quote(text)))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let fail = |part: &str, error: String| format!("parse {}: {error}", go_quote(part));
        let mut url = Self::read(address, false).map_err(|error| fail(address, error))?;
        url.fragment = unescape(fragment, Part::Fragment).map_err(|error| fail(text, error))?;
        Ok(url)
    }

    fn read(text: &str, request: bool) -> Result<Self, String> {
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        if text.is_empty() && request {
            return Err("empty url".to_owned());
        }
        if text == "*" {
            return Ok(Self { path: "*".to_owned(), ..Self::default() });
        }
        let (scheme, rest) = scheme(text)?;
        let mut url = Self { scheme: scheme.to_ascii_lowercase(), ..Self::default() };
        let (mut rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        url.query = query.to_owned();
        url.force_query = query.is_empty() && text.ends_with('?');
        if !rest.starts_with('/') {
            if !url.scheme.is_empty() {
                url.opaque = rest.to_owned();
                return Ok(url);
            }
            if request {
                return Err("invalid URI for request".to_owned());
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
        }
        let authority = !url.scheme.is_empty() || !request && !rest.starts_with("///");
        if let Some(after) = rest.strip_prefix("//").filter(|_| authority) {
            let (authority, path) = after.split_at(after.find('/').unwrap_or(after.len()));
            rest = path;
            url.set_authority(authority)?;
        } else {
            url.omit_host = !url.scheme.is_empty() && rest.starts_with('/');
        }
        url.path = escaped_path(rest)?;
        Ok(url)
    }

    fn set_authority(&mut self, authority: &str) -> Result<(), String> {
        let Some((user, host_part)) = authority.rsplit_once('@') else {
            self.host = host(authority)?;
            return Ok(());
        };
        self.host = host(host_part)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
        if !user.bytes().all(allowed) {
            return Err("net/url: invalid userinfo".to_owned());
        }
        let parts: Vec<String> = user
            .splitn(2, ':')
            .map(|part| unescape(part, Part::User).map(|part| escape(&part, Part::User)))
            .collect::<Result<_, _>>()?;
        self.user = Some(parts.join(":"));
        Ok(())
    }

    /// The host without brackets, and the port.
    fn host_and_port(&self) -> (String, String) {
        let (name, port) = match self.host.rfind(':') {
            Some(colon) if is_port(&self.host[colon..]) => (&self.host[..colon], &self.host[colon + 1..]),
            _ => (self.host.as_str(), ""),
        };
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        (bare.to_owned(), port.to_owned())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.scheme.is_empty() {
            write!(f, "{}:", self.scheme)?;
        }
        if !self.opaque.is_empty() {
            f.write_str(&self.opaque)?;
        } else {
            let authority = !self.scheme.is_empty() || !self.host.is_empty() || self.user.is_some();
            let hidden = self.omit_host && self.host.is_empty() && self.user.is_none();
            if authority && !hidden {
                if !self.host.is_empty() || !self.path.is_empty() || self.user.is_some() {
                    f.write_str("//")?;
                }
                if let Some(user) = &self.user {
                    write!(f, "{user}@")?;
                }
                f.write_str(&escape(&self.host, Part::Host))?;
            }
            if !self.path.is_empty() && !self.path.starts_with('/') && !self.host.is_empty() {
                f.write_str("/")?;
            }
            f.write_str(&self.path)?;
        }
        if self.force_query || !self.query.is_empty() {
            write!(f, "?{}", self.query)?;
        }
        if !self.fragment.is_empty() {
            write!(f, "#{}", escape(&self.fragment, Part::Fragment))?;
        }
        Ok(())
    }
}
