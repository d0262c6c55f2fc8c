//! URLs taken apart as Go's `net/url` does it, as far as configurations are concerned.

/// The parts of a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts<'a> {
    /// What is before `://`, in lower case; may be empty.
    pub scheme: String,
    /// What is before `@`.
    pub user: Option<&'a str>,
    /// Host and port.
    pub host: &'a str,
    /// What is after `?`.
    pub query: &'a str,
    /// What is after `#`.
    pub fragment: &'a str,
}

impl<'a> Parts<'a> {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// What is wrong with it, in Go's words.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = scheme(rest)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let Some(rest) = rest.strip_prefix("//") else {
            return Ok(Self { scheme, query, fragment, ..Self::default() });
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        let port = match host.rsplit_once(']') {
            Some((_, port)) => port,
            None if host.starts_with('[') => return Err("missing ']' in host".to_owned()),
            None => host.find(':').map_or("", |at| &host[at..]),
        };
        let digits = port.strip_prefix(':').unwrap_or(port);
        if !port.is_empty() && (!port.starts_with(':') || digits.bytes().any(|byte| !byte.is_ascii_digit())) {
            return Err(format!("invalid port {} after host", api::field::quote(port)));
        }
        Ok(Self { scheme, user, host, query, fragment })
    }
}

/// The scheme, if there is one, and what follows its colon.
fn scheme(text: &str) -> Result<(String, &str), String> {
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if at > 0 => {}
            b':' if at == 0 => return Err("missing protocol scheme".to_owned()),
            b':' => return Ok((text[..at].to_ascii_lowercase(), &text[at + 1..])),
            _ => break,
        }
    }
    let first = text.split('/').next().unwrap_or_default();
    if first.contains(':') {
        return Err("first path segment in URL cannot contain colon".to_owned());
    }
    Ok((String::new(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let parts = Parts::parse("HTTPS://u:p@a.b:1/x?q=1#f").expect("a URL");
        let expected =
            Parts { scheme: "https".into(), user: Some("u:p"), host: "a.b:1", query: "q=1", fragment: "f" };
        assert_eq!(parts, expected);
        assert_eq!(Parts::parse("invalid-url").expect("a URL").scheme, "");
        assert_eq!(Parts::parse("https://[::1]:2/").expect("a URL").host, "[::1]:2");
        for (text, why) in [
            ("https://a:port", "invalid port \":port\" after host"),
            ("https://[::1", "missing ']' in host"),
            (":x", "missing protocol scheme"),
            ("1a:b", "first path segment in URL cannot contain colon"),
            ("a\nb", "net/url: invalid control character in URL"),
        ] {
            assert_eq!(Parts::parse(text), Err(why.to_owned()), "{text}");
        }
    }
}
