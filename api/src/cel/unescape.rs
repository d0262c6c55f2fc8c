//! What string and bytes literals stand for.

/// The value of a string literal, quotes and prefix `r` included, as the bytes it denotes.
///
/// # Errors
/// When an escape sequence denotes nothing.
pub(crate) fn unescape(literal: &str, bytes: bool) -> Result<Vec<u8>, &'static str> {
    const BAD: &str = "unable to unescape string";
    let literal = literal.replace("\r\n", "\n").replace('\r', "\n");
    let (raw, quoted) = match literal.strip_prefix(['r', 'R']) {
        Some(rest) => (true, rest),
        None => (false, literal.as_str()),
    };
    let body = ["'''", "\"\"\"", "'", "\""]
        .iter()
        .find_map(|quote| {
            (quoted.len() >= 2 * quote.len())
                .then(|| quoted.strip_prefix(quote)?.strip_suffix(quote))
                .flatten()
        })
        .ok_or(BAD)?;
    if raw || !body.contains('\\') {
        return Ok(body.as_bytes().to_vec());
    }
    let mut out = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if c == '\\' {
            rest = escape(rest, bytes, &mut out)?;
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(out)
}

/// Appends what the escape sequence at the front of `rest`, behind its backslash, denotes; gives what follows it.
fn escape<'t>(rest: &'t str, bytes: bool, out: &mut Vec<u8>) -> Result<&'t str, &'static str> {
    const BAD: &str = "unable to unescape string";
    const BAD_OCTAL: &str = "unable to unescape octal sequence in string";
    let Some(c) = rest.chars().next() else {
        return Err("unable to unescape string, found '\\' as last character");
    };
    let tail = &rest[c.len_utf8()..];
    let simple = match c {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' | '\'' | '"' | '`' | '?' => Some(c as u8),
        _ => None,
    };
    if let Some(byte) = simple {
        out.push(byte);
        return Ok(tail);
    }
    let (digits, radix, from, bad) = match c {
        'x' | 'X' => (2, 16, tail, BAD),
        'u' if !bytes => (4, 16, tail, BAD),
        'U' if !bytes => (8, 16, tail, BAD),
        '0'..='3' => (3, 8, rest, BAD_OCTAL),
        _ => return Err(BAD),
    };
    let code = from.get(..digits).filter(|text| text.chars().all(|c| c.is_digit(radix))).ok_or(bad)?;
    let code = u32::from_str_radix(code, radix).map_err(|_| bad)?;
    if bytes {
        out.push(code as u8);
    } else {
        let c = char::from_u32(code).ok_or("invalid unicode code point")?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(&from[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_denote_bytes() {
        type Want = Result<&'static [u8], &'static str>;
        let cases: [(&str, bool, Want); 14] = [
            ("'hello'", false, Ok(b"hello")),
            (r#""""x"y""""#, false, Ok(b"x\"y")),
            (r"r'\n'", false, Ok(br"\n")),
            (r"'\a\b\f\n\r\t\v\'\`\?'", false, Ok(b"\x07\x08\x0c\n\r\t\x0b'`?")),
            (r"'\303\277'", false, Ok("\u{c3}\u{bf}".as_bytes())),
            (r"'\303\277'", true, Ok(b"\xc3\xbf")),
            (r"'\xff'", true, Ok(b"\xff")),
            (r"'\u00f6\U0001F600'", false, Ok("ö😀".as_bytes())),
            ("'a\r\nb'", false, Ok(b"a\nb")),
            (r"'\u00f6'", true, Err("unable to unescape string")),
            (r"'\ud800'", false, Err("invalid unicode code point")),
            (r"'\09'", false, Err("unable to unescape octal sequence in string")),
            (r"'\xg0'", false, Err("unable to unescape string")),
            ("'", false, Err("unable to unescape string")),
        ];
        for (literal, bytes, want) in cases {
            assert_eq!(unescape(literal, bytes), want.map(<[u8]>::to_vec), "{literal}");
        }
    }
}
