//! Regular expressions in Go's syntax: read as Go's parser reads them, with its errors, and translated for the `regex`
//! crate, whose classes are Unicode by default and whose brackets know more operators.

use regex::{Regex, RegexBuilder};

/// Compiled programs beyond this size are refused.
const SIZE_LIMIT: usize = 4 << 20;
/// Groups within groups beyond this depth are refused (as upstream's parser).
const MAX_DEPTH: u32 = 1000;

/// Compiles an expression.
///
/// # Errors
/// Go's message for an expression that is none: "error parsing regexp: ...".
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let translated = Parser { whole: pattern, rest: pattern, out: String::new(), depth: 0 }
        .expression()
        .map_err(|(code, expr)| message(code, expr))?;
    RegexBuilder::new(&translated)
        .size_limit(SIZE_LIMIT)
        .nest_limit(MAX_DEPTH)
        .build()
        .map_err(|_| message("expression too large", pattern))
}

fn message(code: &str, expr: &str) -> String {
    format!("error parsing regexp: {code}: `{expr}`")
}

type Error<'a> = (&'static str, &'a str);

struct Parser<'a> {
    whole: &'a str,
    rest: &'a str,
    out: String,
    depth: u32,
}

/// What stands before a repetition operator.
#[derive(Clone, Copy, PartialEq)]
enum Before<'a> {
    Nothing,
    Something,
    /// A repetition, which began here.
    Repetition(&'a str),
}

impl<'a> Parser<'a> {
    fn expression(mut self) -> Result<String, Error<'a>> {
        let mut before = Before::Nothing;
        // What a group began after, so that it counts as something once it is closed.
        while let Some(c) = self.rest.chars().next() {
            before = match c {
                '(' => {
                    if self.open()? {
                        Before::Nothing
                    } else {
                        before_flags(before)
                    }
                }
                '|' => {
                    self.copy(1);
                    Before::Nothing
                }
                ')' => {
                    self.depth = self.depth.checked_sub(1).ok_or(("unexpected )", self.whole))?;
                    self.copy(1);
                    Before::Something
                }
                '^' | '$' | '.' => {
                    self.copy(1);
                    Before::Something
                }
                '[' => {
                    self.class()?;
                    Before::Something
                }
                '*' | '+' | '?' => self.repetition(1, before)?,
                '{' => match counts(self.rest) {
                    Some((min, max, length)) => {
                        let text = &self.rest[..length];
                        if min > 1000 || max.is_some_and(|max| max > 1000 || max < min) {
                            return Err(("invalid repeat count", text));
                        }
                        self.repetition(length, before)?
                    }
                    None => {
                        self.literal('{');
                        self.rest = &self.rest[1..];
                        Before::Something
                    }
                },
                '\\' => {
                    self.backslash()?;
                    Before::Something
                }
                other => {
                    self.literal(other);
                    self.rest = &self.rest[other.len_utf8()..];
                    Before::Something
                }
            };
        }
        if self.depth > 0 { Err(("missing closing )", self.whole)) } else { Ok(self.out) }
    }

    fn copy(&mut self, length: usize) {
        self.out.push_str(&self.rest[..length]);
        self.rest = &self.rest[length..];
    }

    fn literal(&mut self, c: char) {
        self.out.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
    }

    /// An opening parenthesis; false if it only sets flags.
    fn open(&mut self) -> Result<bool, Error<'a>> {
        let s = self.rest;
        if !s.starts_with("(?") {
            self.copy(1);
            return self.deeper();
        }
        let named = [("(?P<", 4), ("(?<", 3)].into_iter().find(|(start, _)| s.starts_with(start));
        if let Some((_, start)) = named {
            let end = s.find('>').ok_or(("invalid named capture", s))?;
            let name = &s[start..end];
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return Err(("invalid named capture", &s[..=end]));
            }
            self.out.push('(');
            self.rest = &s[end + 1..];
            return self.deeper();
        }
        let (mut minus, mut seen) = (false, false);
        for (at, c) in s.char_indices().skip(2) {
            match c {
                'i' | 'm' | 's' | 'U' => seen = true,
                '-' if !minus => (minus, seen) = (true, false),
                ':' | ')' if !minus || seen => {
                    // `(?)` sets nothing, and the other engine does not know it.
                    let text = &s[..=at];
                    if text != "(?)" {
                        self.out.push_str(text);
                    }
                    self.rest = &s[at + 1..];
                    return if c == ':' { self.deeper() } else { Ok(false) };
                }
                other => return Err(("invalid or unsupported Perl syntax", &s[..at + other.len_utf8()])),
            }
        }
        Err(("missing closing )", self.whole))
    }

    fn deeper(&mut self) -> Result<bool, Error<'a>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(("expression nests too deeply", self.whole)) } else { Ok(true) }
    }

    fn repetition(&mut self, length: usize, before: Before<'a>) -> Result<Before<'a>, Error<'a>> {
        let start = self.rest;
        let lazy = usize::from(start[length..].starts_with('?'));
        let after = &start[length + lazy..];
        match before {
            Before::Repetition(first) => {
                Err(("invalid nested repetition operator", &first[..first.len() - after.len()]))
            }
            Before::Nothing => {
                Err(("missing argument to repetition operator", &start[..start.len() - after.len()]))
            }
            Before::Something => {
                self.copy(length + lazy);
                Ok(Before::Repetition(start))
            }
        }
    }

    fn backslash(&mut self) -> Result<(), Error<'a>> {
        let s = self.rest;
        match s[1..].chars().next() {
            Some('A' | 'z') => self.copy(2),
            Some('b') => {
                self.out.push_str(r"(?-u:\b)");
                self.rest = &s[2..];
            }
            Some('B') => self.copy(2),
            Some('C') => return Err(("invalid escape sequence", r"\C")),
            Some('Q') => {
                let (text, rest) = s[2..].split_once(r"\E").unwrap_or((&s[2..], ""));
                text.chars().for_each(|c| self.literal(c));
                self.rest = rest;
            }
            Some('p' | 'P') => {
                let (text, rest) = unicode_class(s)?;
                self.out.push_str(&text);
                self.rest = rest;
            }
            Some(c) if perl_class(c).is_some() => {
                let (negated, ranges) = perl_class(c).unwrap_or_default();
                self.out.push_str(if negated { "[^" } else { "[" });
                self.out.push_str(ranges);
                self.out.push(']');
                self.rest = &s[2..];
            }
            _ => {
                let (c, rest) = escape(s)?;
                self.literal(c);
                self.rest = rest;
            }
        }
        Ok(())
    }

    fn class(&mut self) -> Result<(), Error<'a>> {
        let whole = self.rest;
        let mut t = &whole[1..];
        self.out.push('[');
        if let Some(rest) = t.strip_prefix('^') {
            self.out.push('^');
            t = rest;
        }
        let mut first = true;
        while first || !t.starts_with(']') {
            first = false;
            if let Some(rest) = t.strip_prefix("[:")
                && let Some(end) = rest.find(":]")
            {
                let name = &t[..end + 4];
                if !POSIX.contains(&rest[..end].trim_start_matches('^')) {
                    return Err(("invalid character class range", name));
                }
                self.out.push_str(name);
                t = &t[end + 4..];
                continue;
            }
            if t.starts_with(r"\p") || t.starts_with(r"\P") {
                let (text, rest) = unicode_class(t)?;
                self.out.push_str(&text);
                t = rest;
                continue;
            }
            if let Some((negated, ranges)) =
                t.strip_prefix('\\').and_then(|r| r.chars().next()).and_then(perl_class)
            {
                let text = if negated { format!("[^{ranges}]") } else { ranges.to_owned() };
                self.out.push_str(&text);
                t = &t[2..];
                continue;
            }
            let start = t;
            let (low, rest) = class_char(t, whole)?;
            t = rest;
            let mut high = low;
            if t.len() >= 2 && t.starts_with('-') && !t[1..].starts_with(']') {
                (high, t) = class_char(&t[1..], whole)?;
                if high < low {
                    return Err(("invalid character class range", &start[..start.len() - t.len()]));
                }
            }
            self.literal(low);
            if high != low {
                self.out.push('-');
                self.literal(high);
            }
        }
        self.out.push(']');
        self.rest = &t[1..];
        Ok(())
    }
}

/// Flags alone leave what stands before them where it is.
fn before_flags(before: Before<'_>) -> Before<'_> {
    match before {
        Before::Repetition(_) => Before::Something,
        other => other,
    }
}

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];

/// `{n}`, `{n,}` or `{n,m}` at the beginning: the numbers and the length.
fn counts(text: &str) -> Option<(u32, Option<u32>, usize)> {
    let end = text.find('}')?;
    let inside = &text[1..end];
    let number = |text: &str| {
        let good = !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text.len() == 1 || !text.starts_with('0'));
        good.then(|| text.parse().unwrap_or(u32::MAX))
    };
    let (min, max) = match inside.split_once(',') {
        None => (number(inside)?, Some(number(inside)?)),
        Some((min, "")) => (number(min)?, None),
        Some((min, max)) => (number(min)?, Some(number(max)?)),
    };
    Some((min, max, end + 1))
}

/// `\d` and the like: whether negated, and the ranges.
fn perl_class(c: char) -> Option<(bool, &'static str)> {
    Some(match c {
        'd' => (false, "0-9"),
        'D' => (true, "0-9"),
        's' => (false, r"\t\n\x0c\r\x20"),
        'S' => (true, r"\t\n\x0c\r\x20"),
        'w' => (false, "0-9A-Za-z_"),
        'W' => (true, "0-9A-Za-z_"),
        _ => return None,
    })
}

/// `\pN`, `\p{Name}`, `\p{^Name}` and their negations.
fn unicode_class(s: &str) -> Result<(String, &str), Error<'_>> {
    let mut negated = s.starts_with(r"\P");
    let after = &s[2..];
    let Some(first) = after.chars().next() else { return Err(("invalid character class range", s)) };
    let (name, rest) = if first == '{' {
        let end = after.find('}').ok_or(("invalid character class range", s))?;
        (&after[1..end], &after[end + 1..])
    } else {
        after.split_at(first.len_utf8())
    };
    let sequence = &s[..s.len() - rest.len()];
    let bare = name.strip_prefix('^');
    negated ^= bare.is_some();
    let text = format!("\\{}{{{}}}", if negated { 'P' } else { 'p' }, bare.unwrap_or(name));
    if Regex::new(&text).is_err() {
        return Err(("invalid character class range", sequence));
    }
    Ok((text, rest))
}

fn class_char<'a>(t: &'a str, whole: &'a str) -> Result<(char, &'a str), Error<'a>> {
    match t.chars().next() {
        None => Err(("missing closing ]", whole)),
        Some('\\') => escape(t),
        Some(c) => Ok((c, &t[c.len_utf8()..])),
    }
}

/// An escaped character.
fn escape(s: &str) -> Result<(char, &str), Error<'_>> {
    let t = &s[1..];
    let Some(c) = t.chars().next() else { return Err(("trailing backslash at end of expression", "")) };
    let rest = &t[c.len_utf8()..];
    let bad = |rest: &str| Err(("invalid escape sequence", &s[..s.len() - rest.len()]));
    match c {
        '0'..='7' => {
            let more = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
            if c != '0' && more == 0 {
                return bad(rest);
            }
            let digits = &t[..=more];
            let number = u32::from_str_radix(digits, 8).ok().and_then(char::from_u32);
            number.map_or_else(|| bad(rest), |c| Ok((c, &rest[more..])))
        }
        'x' => {
            let (digits, after) = match rest.strip_prefix('{') {
                Some(inside) => match inside.split_once('}') {
                    Some((digits, after)) => (digits, after),
                    None => return bad(""),
                },
                None => match rest.get(..2) {
                    Some(digits) => (digits, &rest[2..]),
                    None => return bad(""),
                },
            };
            let hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let number = u32::from_str_radix(digits, 16).ok().filter(|_| hex).and_then(char::from_u32);
            number.map_or_else(|| bad(after), |c| Ok((c, after)))
        }
        'a' => Ok(('\x07', rest)),
        'f' => Ok(('\x0c', rest)),
        'n' => Ok(('\n', rest)),
        'r' => Ok(('\r', rest)),
        't' => Ok(('\t', rest)),
        'v' => Ok(('\x0b', rest)),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => Ok((c, rest)),
        _ => bad(rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_gos() {
        for (pattern, want) in [
            ("(", "missing closing ): `(`"),
            ("a)b", "unexpected ): `a)b`"),
            ("[a", "missing closing ]: `[a`"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("[[:word2:]]", "invalid character class range: `[:word2:]`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a*+", "invalid nested repetition operator: `*+`"),
            ("a??*", "invalid nested repetition operator: `??*`"),
            ("*", "missing argument to repetition operator: `*`"),
            ("(|*)", "missing argument to repetition operator: `*`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("a{2,1}", "invalid repeat count: `{2,1}`"),
            (r"\8", r"invalid escape sequence: `\8`"),
            (r"\1", r"invalid escape sequence: `\1`"),
            (r"\y", r"invalid escape sequence: `\y`"),
            ("\\", "trailing backslash at end of expression: ``"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("(?!a)", "invalid or unsupported Perl syntax: `(?!`"),
            ("(?<=a)", "invalid named capture: `(?<=a)`"),
            ("(?P<n@me>a)", "invalid named capture: `(?P<n@me>`"),
            (r"\p{Nope}", r"invalid character class range: `\p{Nope}`"),
            (r"\x{zz}", r"invalid escape sequence: `\x{zz}`"),
        ] {
            let got = compile(pattern).map(|_| ()).expect_err(pattern);
            assert_eq!(got, format!("error parsing regexp: {want}"), "{pattern}");
        }
    }

    #[test]
    fn expressions_match_as_in_go() {
        for (pattern, text, want) in [
            (r"^\d+$", "12", true),
            (r"^\d+$", "\u{662}", false),
            (r"^\w+$", "aé", false),
            (r"^[\w.-]+$", "a_b.c-d", true),
            (r"^[\W]+$", "é!", true),
            (r"^[[a]+$", "[a[", true),
            (r"^[a&&b]+$", "&ab", true),
            (r"^[]a]+$", "]a", true),
            (r"^[^]a]$", "b", true),
            (r"^a{,2}$", "a{,2}", true),
            (r"^a{2}$", "aa", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            (r"(?i)^ABC$", "abc", true),
            (r"^(?P<first>a)(?<first2>b)$", "ab", true),
            (r"^\pL+$", "éa", true),
            (r"^[\p{^Greek}]$", "α", false),
            (r"^\x41\x{42}\103$", "ABC", true),
            (r"\bfoo\b", "a foo b", true),
            (r"^[a-]$", "-", true),
            ("^a.b$", "a\nb", false),
            ("(?s)^a.b$", "a\nb", true),
            ("^(a|b)*?c$", "abac", true),
        ] {
            let regex = compile(pattern).expect(pattern);
            assert_eq!(regex.is_match(text), want, "{pattern} on {text:?}");
        }
    }
}
