//! Names of fields as identifiers: `a.b-c` is written `a__dot__b__dash__c`.

/// Words of the language that are no identifiers.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

const ESCAPES: [(&str, &str); 4] = [("__", "underscores"), (".", "dot"), ("-", "dash"), ("/", "slash")];

/// Whether a word is reserved by the language.
#[must_use]
pub fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// The identifier for a field of this name, if there is one.
#[must_use]
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some((from, to)) = ESCAPES.iter().find(|(from, _)| rest.starts_with(from)) {
            out.push_str("__");
            out.push_str(to);
            out.push_str("__");
            rest = &rest[from.len()..];
        } else if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
            rest = &rest[1..];
        } else {
            return None;
        }
    }
    Some(out)
}

/// The name of the field an identifier stands for, unless it contains a wrong escape.
#[must_use]
pub fn unescape(ident: &str) -> Option<String> {
    let mut out = String::with_capacity(ident.len());
    let mut rest = ident;
    while let Some(at) = rest.find("__") {
        let inner = &rest[at + 2..];
        // An escape is two underscores, something without underscores, two underscores.
        let end = inner.find('_').unwrap_or(inner.len());
        if end == 0 || !inner[end..].starts_with("__") {
            // The first underscore cannot begin one; the next may.
            out.push_str(&rest[..=at]);
            rest = &rest[at + 1..];
            continue;
        }
        out.push_str(&rest[..at]);
        let word = &inner[..end];
        match ESCAPES.iter().find(|(_, to)| *to == word) {
            Some((from, _)) => out.push_str(from),
            None if is_reserved(word) && word.len() + 4 == ident.len() => out.push_str(word),
            None => return None,
        }
        rest = &inner[end + 2..];
    }
    out.push_str(rest);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        let cases = [
            ("", None),
            ("0a", None),
            ("ü", None),
            ("a$b", None),
            ("true", Some("__true__")),
            ("namespace", Some("__namespace__")),
            ("a", Some("a")),
            ("foo.a", Some("foo__dot__a")),
            ("CONSTANT__", Some("CONSTANT__underscores__")),
            ("_", Some("_")),
            ("a/b", Some("a__slash__b")),
            ("a_b_c", Some("a_b_c")),
            ("a-b", Some("a__dash__b")),
            ("__dot__", Some("__underscores__dot__underscores__")),
            ("___", Some("__underscores___")),
            ("trueX", Some("trueX")),
        ];
        for (name, want) in cases {
            assert_eq!(escape(name).as_deref(), want, "{name}");
            if let Some(ident) = want {
                assert_eq!(unescape(ident).as_deref(), Some(name), "{ident}");
            }
        }
        for wrong in ["__illegal__", "x__true__", "a__b__"] {
            assert_eq!(unescape(wrong), None, "{wrong}");
        }
        assert_eq!(unescape("__").as_deref(), Some("__"));
        assert_eq!(unescape("_a__").as_deref(), Some("_a__"));
    }
}
