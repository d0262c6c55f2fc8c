//! YAML as upstream prints it: keys sorted, lists not indented below their key.

use serde_json::Value;

/// The object as a YAML document.
#[must_use]
pub fn render(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => write_list(&mut out, items, 0),
        other => {
            out.push_str(&scalar(other, 0));
            out.push('\n');
        }
    }
    out
}

fn pad(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth));
}

fn write_map(out: &mut String, map: &serde_json::Map<String, Value>, depth: usize, mut inline: bool) {
    for (key, value) in map {
        if !inline {
            pad(out, depth);
        }
        inline = false;
        out.push_str(&text(key, depth));
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                write_map(out, map, depth + 2, false);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                write_list(out, items, depth);
            }
            other => {
                out.push(' ');
                out.push_str(&scalar(other, depth + 2));
                out.push('\n');
            }
        }
    }
}

fn write_list(out: &mut String, items: &[Value], depth: usize) {
    for item in items {
        pad(out, depth);
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => write_map(out, map, depth + 2, true),
            Value::Array(items) if !items.is_empty() => {
                let mut inner = String::new();
                write_list(&mut inner, items, depth + 2);
                out.push_str(inner.trim_start());
            }
            other => {
                out.push_str(&scalar(other, depth + 2));
                out.push('\n');
            }
        }
    }
}

fn scalar(value: &Value, depth: usize) -> String {
    match value {
        Value::String(s) => text(s, depth),
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        other => other.to_string(),
    }
}

/// A string, quoted where a reader would take it for something else; several lines as a block.
fn text(s: &str, depth: usize) -> String {
    if s.contains('\n')
        && !s.starts_with([' ', '\n', '\t'])
        && s.chars().all(|c| c == '\n' || c == '\t' || !c.is_control())
    {
        let keep = if s.ends_with("\n\n") {
            "+"
        } else if s.ends_with('\n') {
            ""
        } else {
            "-"
        };
        let mut out = format!("|{keep}");
        for line in s.strip_suffix('\n').unwrap_or(s).split('\n') {
            out.push('\n');
            if !line.is_empty() {
                pad(&mut out, depth);
                out.push_str(line);
            }
        }
        return out;
    }
    if s.chars().any(char::is_control) {
        return serde_json::Value::String(s.to_owned()).to_string();
    }
    if needs_quotes(s) {
        if s.contains('\'') {
            return format!("'{}'", s.replace('\'', "''"));
        }
        return if looks_like_other(s) {
            format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""))
        } else {
            format!("'{s}'")
        };
    }
    s.to_owned()
}

fn needs_quotes(s: &str) -> bool {
    s.is_empty()
        || looks_like_other(s)
        || s.starts_with([
            ' ', '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@',
            '`',
        ]) && !(s.starts_with(['-', '?', ':']) && s.len() > 1 && !s[1..].starts_with(' '))
        || s.ends_with([' ', ':'])
        || s.contains(": ")
        || s.contains(" #")
}

/// Whether a YAML 1.1 reader takes the bare text for a number, a boolean, null or a time.
fn looks_like_other(s: &str) -> bool {
    let lower = s.to_ascii_lowercase();
    if s.is_empty()
        || matches!(
            lower.as_str(),
            "~" | "null"
                | "true"
                | "false"
                | "yes"
                | "no"
                | "on"
                | "off"
                | "y"
                | "n"
                | ".nan"
                | ".inf"
                | "-.inf"
                | "+.inf"
                | "<<"
                | "="
        )
    {
        return true;
    }
    let number = lower.trim_start_matches(['+', '-']);
    if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return false;
    }
    let digits = number.replace('_', "");
    digits.parse::<f64>().is_ok()
        || digits
            .strip_prefix("0x")
            .is_some_and(|h| !h.is_empty() && h.chars().all(|c| c.is_ascii_hexdigit()))
        || digits
            .strip_prefix("0o")
            .or(digits.strip_prefix("0b"))
            .is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_ascii_digit()))
        || digits.chars().all(|c| c.is_ascii_digit() || c == ':') && digits.contains(':')
        || is_time(s)
}

fn is_time(s: &str) -> bool {
    let bytes = s.as_bytes();
    bytes.len() >= 10
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[..4].iter().chain(&bytes[5..7]).all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn looks_as_upstream_prints_it() {
        let value = json!({"a": {"b": ["x", {"k": 1, "l": [true]}], "c": {}, "d": []}, "e": null, "f": "1", "g": "true",
                           "h": "two\nlines\n", "i": "2026-01-02T03:04:05Z", "j": "a: b", "k": "", "l": "-v", "m": "10.0.0.1"});
        let expected = "a:\n  b:\n  - x\n  - k: 1\n    l:\n    - true\n  c: {}\n  d: []\ne: null\nf: \"1\"\ng: \"true\"\n\
                        h: |\n  two\n  lines\ni: \"2026-01-02T03:04:05Z\"\nj: 'a: b'\nk: \"\"\nl: -v\nm: 10.0.0.1\n";
        assert_eq!(render(&value), expected);
    }

    #[test]
    fn what_is_printed_reads_back_the_same() {
        let texts = [
            "",
            " ",
            "a",
            "1",
            "1e3",
            "0x1f",
            "yes",
            "No",
            "~",
            "a: b",
            "a #b",
            "- x",
            "'q'",
            "\"q\"",
            "a\nb",
            "a\nb\n",
            "a\n\n",
            "\ttab",
            "x:",
            "*x",
            "{a}",
            "1:30",
            "é",
            "-",
            "--flag",
            "%d",
            "back\\slash",
            "null",
            "\u{7}",
        ];
        for text in texts {
            let value = json!({"v": text, "l": [text]});
            let back: Value = serde_saphyr::from_str(&render(&value)).expect(text);
            assert_eq!(back, value, "{text:?} printed as {}", render(&value));
        }
    }
}
