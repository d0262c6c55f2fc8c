//! JSON text: syntax errors in Go's words, and encoding.

use serde::Serialize;
use serde_json::Value;

/// Go's decoder goes no deeper than this.
const MAX_DEPTH: usize = 10_000;

/// The message Go's decoder gives for text that `serde_json` refused with `error`.
#[must_use]
pub fn syntax_error(json: &[u8], error: &serde_json::Error) -> String {
    Scanner { text: json, at: 0 }.scan().err().unwrap_or_else(|| {
        if error.to_string().contains("recursion limit") {
            "exceeded max depth".to_owned()
        } else {
            error.to_string()
        }
    })
}

/// Text that Go's decoder reads and `serde_json` does not: bytes that are not UTF-8 and halves of surrogate pairs,
/// with the replacement character in their place. `None` when there is nothing to mend.
#[must_use]
pub fn mend(json: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(json);
    let mut out = String::with_capacity(text.len());
    let mut rest: &str = &text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        let (length, lone) = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
            (Some(0xd800..=0xdfff), _) => (6, true),
            // The escaped character may be of any length; a backslash at the very end stands alone.
            _ => (escape.char_indices().nth(2).map_or(escape.len(), |(end, _)| end), false),
        };
        out.push_str(if lone { "\\ufffd" } else { &escape[..length] });
        rest = &escape[length..];
    }
    out.push_str(rest);
    (out.as_bytes() != json).then(|| out.into_bytes())
}

/// The code unit of a `\uXXXX` escape at the beginning of `text`.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    digits.bytes().all(|b| b.is_ascii_hexdigit()).then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

/// What Go calls a JSON value of this kind in errors.
#[must_use]
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Reads JSON text without a schema.
///
/// # Errors
/// Go's message when the text is not JSON.
pub fn decode(json: &[u8]) -> Result<Value, String> {
    serde_json::from_slice(json).or_else(|error| match mend(json) {
        Some(mended) => serde_json::from_slice(&mended).map_err(|error| syntax_error(&mended, &error)),
        None => Err(syntax_error(json, &error)),
    })
}

/// Writes JSON text as upstream's encoder does, with a line break at the end.
#[must_use]
pub fn encode(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write(&mut out, value);
    out.push(b'\n');
    out
}

/// Compact JSON text with `<`, `>` and `&` escaped, as Go's standard encoder writes it.
#[must_use]
pub fn escaped(value: &Value) -> String {
    let mut out = Vec::new();
    write_escaped(&mut out, value);
    String::from_utf8(out).unwrap_or_default()
}

/// As [`escaped`], of anything, appended to `out`.
pub(crate) fn write_escaped(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let start = out.len();
    // Writing into memory cannot fail, and what is written has names that are texts.
    let _ = serde_json::to_writer(&mut *out, value);
    let special = |byte: &u8| matches!(byte, b'<' | b'>' | b'&');
    if out[start..].iter().any(special) {
        let plain = out.split_off(start);
        for byte in plain {
            match byte {
                b'<' => out.extend_from_slice(b"\\u003c"),
                b'>' => out.extend_from_slice(b"\\u003e"),
                b'&' => out.extend_from_slice(b"\\u0026"),
                other => out.push(other),
            }
        }
    }
}

/// Writes JSON text indented by two spaces (`?pretty=true`).
#[must_use]
pub fn encode_pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

/// Appends compact JSON text.
pub fn write(out: &mut Vec<u8>, value: &Value) {
    // Writing into memory cannot fail, and every Value is serializable.
    let _ = serde_json::to_writer(out, value);
}

/// Walks JSON text to the first byte at which Go's scanner gives up.
struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

/// What an open bracket waits for.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Object,
    Array,
}

type Scan<T = ()> = Result<T, String>;

impl Scanner<'_> {
    fn scan(mut self) -> Scan {
        let mut open: Vec<Open> = Vec::new();
        loop {
            // A value begins here.
            match self.next_token()? {
                b'{' => {
                    push(&mut open, Open::Object)?;
                    if self.peek_token() == Some(b'}') {
                        self.at += 1;
                        open.pop();
                    } else {
                        self.key()?;
                        continue;
                    }
                }
                b'[' => {
                    push(&mut open, Open::Array)?;
                    if self.peek_token() != Some(b']') {
                        continue;
                    }
                    self.at += 1;
                    open.pop();
                }
                b'"' => self.string()?,
                b't' => self.literal("true")?,
                b'f' => self.literal("false")?,
                b'n' => self.literal("null")?,
                c @ (b'-' | b'0'..=b'9') => self.number(c)?,
                c => return invalid(c, "looking for beginning of value"),
            }
            // A value has ended; close what ends with it.
            loop {
                match open.last() {
                    None => return self.end(),
                    Some(Open::Object) => match self.next_token()? {
                        b',' => {
                            self.key()?;
                            break;
                        }
                        b'}' => drop(open.pop()),
                        c => return invalid(c, "after object key:value pair"),
                    },
                    Some(Open::Array) => match self.next_token()? {
                        b',' => break,
                        b']' => drop(open.pop()),
                        c => return invalid(c, "after array element"),
                    },
                }
            }
        }
    }

    fn next(&mut self) -> Scan<u8> {
        let byte =
            self.text.get(self.at).copied().ok_or_else(|| "unexpected end of JSON input".to_owned())?;
        self.at += 1;
        Ok(byte)
    }

    fn peek_token(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn next_token(&mut self) -> Scan<u8> {
        self.peek_token();
        self.next()
    }

    fn end(&mut self) -> Scan {
        match self.peek_token() {
            None => Ok(()),
            Some(c) => invalid(c, "after top-level value"),
        }
    }

    fn key(&mut self) -> Scan {
        match self.next_token()? {
            b'"' => self.string()?,
            c => return invalid(c, "looking for beginning of object key string"),
        }
        match self.next_token()? {
            b':' => Ok(()),
            c => invalid(c, "after object key"),
        }
    }

    fn string(&mut self) -> Scan {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let c = self.next()?;
                            if !c.is_ascii_hexdigit() {
                                return invalid(c, "in \\u hexadecimal character escape");
                            }
                        }
                    }
                    c => return invalid(c, "in string escape code"),
                },
                c if c < 0x20 => return invalid(c, "in string literal"),
                _ => {}
            }
        }
    }

    fn literal(&mut self, word: &str) -> Scan {
        for expected in word.bytes().skip(1) {
            let c = self.next()?;
            if c != expected {
                return invalid(c, &format!("in literal {word} (expecting {})", quote_char(expected)));
            }
        }
        Ok(())
    }

    fn number(&mut self, first: u8) -> Scan {
        let first = if first == b'-' { self.next()? } else { first };
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            c => return invalid(c, "in numeric literal"),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            let c = self.next()?;
            if !c.is_ascii_digit() {
                return invalid(c, "after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            let mut c = self.next()?;
            if matches!(c, b'+' | b'-') {
                c = self.next()?;
            }
            if !c.is_ascii_digit() {
                return invalid(c, "in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

fn push(open: &mut Vec<Open>, kind: Open) -> Scan {
    open.push(kind);
    if open.len() > MAX_DEPTH { Err("exceeded max depth".to_owned()) } else { Ok(()) }
}

fn invalid<T>(c: u8, context: &str) -> Scan<T> {
    Err(format!("invalid character {} {context}", quote_char(c)))
}

/// A byte as Go's scanner shows it.
fn quote_char(c: u8) -> String {
    match c {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        c => {
            let quoted = crate::schema::scalar::go_quote(&char::from(c).to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_characters_are_replaced_as_in_go() {
        for (text, value) in [
            (&br#""\ud800""#[..], "\u{fffd}"),
            (br#""\ud83d\ude00 \udc00x \\ud800""#, "\u{1F600} \u{fffd}x \\ud800"),
            (b"\"a\xffb\"", "a\u{fffd}b"),
        ] {
            assert_eq!(decode(text), Ok(Value::from(value)));
        }
        assert_eq!(mend(br#"{"a":"\n\u00e4"}"#), None);
        assert_eq!(mend(b"\"\\"), None);
    }

    #[test]
    fn syntax_errors_read_as_go_writes_them() {
        for (text, message) in [
            ("", "unexpected end of JSON input"),
            ("  ", "unexpected end of JSON input"),
            ("junk", "invalid character 'j' looking for beginning of value"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("nul!", "invalid character '!' in literal null (expecting 'l')"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("01", "invalid character '1' after top-level value"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("{\"a\":", "unexpected end of JSON input"),
        ] {
            assert_eq!(decode(text.as_bytes()), Err(message.to_owned()), "{text}");
        }
    }
}
