//! Values to YAML text, in the style of go-yaml v2: sorted keys, two spaces, lists flush with their key, plain
//! scalars wherever they read back as text, lines folded after column 80.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::resolve::{Scalar, is_base60, is_timestamp, resolve};

/// Where lines are folded.
const WIDTH: usize = 80;
/// Keys longer than this are written in the long form.
const MAX_SIMPLE_KEY: usize = 128;

/// Writes one document.
#[must_use]
pub fn encode(value: &Value) -> String {
    let mut emitter = Emitter { out: String::with_capacity(1024), column: 0 };
    match value {
        Value::Object(map) if !map.is_empty() => emitter.mapping(map, 0, true),
        Value::Array(items) if !items.is_empty() => emitter.sequence(items, 0, true),
        value => {
            emitter.flow(value, 2, false);
            emitter.newline();
        }
    }
    emitter.out
}

struct Emitter {
    out: String,
    column: usize,
}

impl Emitter {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn put_char(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn newline(&mut self) {
        if !self.out.ends_with('\n') || self.column > 0 {
            self.out.push('\n');
        }
        self.column = 0;
    }

    fn indent(&mut self, indent: usize) {
        self.newline();
        (0..indent).for_each(|_| self.put_char(' '));
    }

    /// Writes entries; the first goes where the cursor stands if `inline`.
    fn mapping(&mut self, map: &Map<String, Value>, indent: usize, mut inline: bool) {
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort_by(|a, b| natural(a, b));
        for key in keys {
            if !std::mem::take(&mut inline) {
                self.indent(indent);
            }
            let simple = key.len() <= MAX_SIMPLE_KEY && !key.contains('\n');
            if simple {
                self.text(key, indent, true);
                self.put_char(':');
            } else {
                self.put("? ");
                self.text(key, indent + 2, false);
                self.indent(indent);
                self.put_char(':');
            }
            self.entry_value(&map[key.as_str()], indent);
        }
        self.newline();
    }

    fn entry_value(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => self.mapping(map, indent + 2, false),
            // Lists stand flush with their key.
            Value::Array(items) if !items.is_empty() => self.sequence(items, indent, false),
            value => {
                self.put_char(' ');
                self.flow(value, indent + 2, false);
            }
        }
    }

    fn sequence(&mut self, items: &[Value], indent: usize, mut inline: bool) {
        for item in items {
            if !std::mem::take(&mut inline) {
                self.indent(indent);
            }
            self.put("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.mapping(map, indent + 2, true),
                Value::Array(items) if !items.is_empty() => self.sequence(items, indent + 2, true),
                value => self.flow(value, indent + 2, false),
            }
        }
        self.newline();
    }

    /// Writes something that fits behind a key or a dash.
    fn flow(&mut self, value: &Value, indent: usize, key: bool) {
        match value {
            Value::Null => self.put("null"),
            Value::Bool(value) => self.put(if *value { "true" } else { "false" }),
            Value::Number(value) => self.put(&number(value)),
            Value::String(text) => self.text(text, indent, key),
            Value::Array(_) => self.put("[]"),
            Value::Object(_) => self.put("{}"),
        }
    }

    fn text(&mut self, text: &str, indent: usize, key: bool) {
        let facts = Facts::of(text);
        let plain_reads_back =
            resolve(text) == Scalar::Text && !is_base60(text) && !is_timestamp(text) && text != "<<";
        if text.contains('\n') && !key && facts.block {
            self.literal(text, indent);
        } else if text.contains('\n') || !plain_reads_back {
            self.double_quoted(text, indent, key);
        } else if facts.plain && !(text.is_empty() && key) {
            self.plain(text, indent, key);
        } else if facts.single_quoted {
            self.single_quoted(text, indent, key);
        } else {
            self.double_quoted(text, indent, key);
        }
    }

    fn plain(&mut self, text: &str, indent: usize, key: bool) {
        self.folded(text, indent, key, false);
    }

    fn single_quoted(&mut self, text: &str, indent: usize, key: bool) {
        self.put_char('\'');
        self.folded(text, indent, key, true);
        self.put_char('\'');
    }

    /// Writes text without line breaks of its own, breaking lines at single spaces.
    fn folded(&mut self, text: &str, indent: usize, key: bool, quoted: bool) {
        let mut spaces = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if c == ' ' {
                let next_is_space = chars.peek().is_some_and(|(_, next)| *next == ' ');
                let inner = !quoted || (at > 0 && at + 1 < text.len());
                if !key && !spaces && self.column > WIDTH && inner && !next_is_space {
                    self.indent(indent);
                } else {
                    self.put_char(' ');
                }
                spaces = true;
            } else {
                if quoted && c == '\'' {
                    self.put_char('\'');
                }
                self.put_char(c);
                spaces = false;
            }
        }
    }

    fn double_quoted(&mut self, text: &str, indent: usize, key: bool) {
        self.put_char('"');
        let mut spaces = false;
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if let Some(escape) = escape(c) {
                self.put(&escape);
                spaces = false;
            } else if c == ' ' {
                if !key && !spaces && self.column > WIDTH && at > 0 && at + 1 < text.len() {
                    self.indent(indent);
                    if chars.peek().is_some_and(|(_, next)| *next == ' ') {
                        self.put_char('\\');
                    }
                } else {
                    self.put_char(' ');
                }
                spaces = true;
            } else {
                self.put_char(c);
                spaces = false;
            }
        }
        self.put_char('"');
    }

    fn literal(&mut self, text: &str, indent: usize) {
        self.put_char('|');
        if text.starts_with([' ', '\n']) {
            self.put_char('2');
        }
        if !text.ends_with('\n') {
            self.put_char('-');
        } else if text == "\n" || text.ends_with("\n\n") {
            self.put_char('+');
        }
        self.newline();
        for line in text.split_inclusive('\n') {
            if line != "\n" {
                (0..indent).for_each(|_| self.put_char(' '));
            }
            self.out.push_str(line);
            self.column = if line.ends_with('\n') { 0 } else { line.chars().count() };
        }
    }
}

/// How a text may be written.
struct Facts {
    plain: bool,
    single_quoted: bool,
    block: bool,
}

impl Facts {
    fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self { plain: true, single_quoted: true, block: false };
        }
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut breaks) = (false, false);
        let (mut space_break, mut break_space) = (false, false);
        let (mut before_space, mut before_break) = (false, false);
        let mut after_blank = true;
        let mut chars = text.chars().peekable();
        let mut first = true;
        while let Some(c) = chars.next() {
            let next_blank = chars.peek().is_none_or(|next| is_blank(*next));
            indicators |= match c {
                '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
                | '`'
                    if first =>
                {
                    true
                }
                '?' | '-' if first => next_blank,
                ':' => next_blank,
                '#' => after_blank,
                _ => false,
            };
            special |= !is_printable(c);
            if c == ' ' {
                break_space |= before_break;
                (before_space, before_break) = (true, false);
            } else if is_break(c) {
                breaks = true;
                space_break |= before_space;
                (before_space, before_break) = (false, true);
            } else {
                (before_space, before_break) = (false, false);
            }
            after_blank = is_blank(c);
            first = false;
        }
        let edge = |c: Option<char>| c.is_some_and(|c| c == ' ' || is_break(c));
        let at_edge = edge(text.chars().next()) || edge(text.chars().next_back());
        let hard = space_break || special;
        Self {
            plain: !(indicators || breaks || at_edge || break_space || hard),
            single_quoted: !(break_space || hard),
            block: !(hard || text.ends_with(' ')),
        }
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t' || is_break(c)
}

/// What libyaml prints unescaped.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

fn escape(c: char) -> Option<String> {
    Some(match c {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\0' => "\\0".to_owned(),
        '\u{7}' => "\\a".to_owned(),
        '\u{8}' => "\\b".to_owned(),
        '\t' => "\\t".to_owned(),
        '\n' => "\\n".to_owned(),
        '\u{b}' => "\\v".to_owned(),
        '\u{c}' => "\\f".to_owned(),
        '\r' => "\\r".to_owned(),
        '\u{1b}' => "\\e".to_owned(),
        '\u{85}' => "\\N".to_owned(),
        '\u{2028}' => "\\L".to_owned(),
        '\u{2029}' => "\\P".to_owned(),
        c if is_printable(c) => return None,
        c => match c as u32 {
            code @ ..=0xff => format!("\\x{code:02X}"),
            code @ ..=0xffff => format!("\\u{code:04X}"),
            code => format!("\\U{code:08X}"),
        },
    })
}

/// A number as Go's `strconv.FormatFloat(x, 'g', -1, 64)` writes it.
fn number(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => {
            let scientific = format!("{value:e}");
            let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
            let exponent: i32 = exponent.parse().unwrap_or(0);
            if (-4..21).contains(&exponent) {
                value.to_string()
            } else {
                let sign = if exponent < 0 { '-' } else { '+' };
                format!("{mantissa}e{sign}{:02}", exponent.abs())
            }
        }
        _ => number.to_string(),
    }
}

/// go-yaml's order of keys: letters after everything else, digits by the number they form.
fn natural(a: &str, b: &str) -> Ordering {
    let (ac, bc): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut digits = false;
    for i in 0..ac.len().min(bc.len()) {
        let (x, y) = (ac[i], bc[i]);
        if x == y {
            digits = x.is_ascii_digit();
            continue;
        }
        let (xl, yl) = (x.is_alphabetic(), y.is_alphabetic());
        if xl && yl {
            return x.cmp(&y);
        }
        if xl || yl {
            // Within a number, the one that goes on with digits is larger.
            return match (digits, xl) {
                (true, xl) => {
                    if xl {
                        Ordering::Less
                    } else {
                        Ordering::Greater
                    }
                }
                (false, xl) => {
                    if xl {
                        Ordering::Greater
                    } else {
                        Ordering::Less
                    }
                }
            };
        }
        let value = |chars: &[char]| -> (u128, usize) {
            let run: Vec<u128> =
                chars.iter().map_while(|c| c.to_digit(10)).map(u128::from).take(30).collect();
            (run.iter().fold(0, |n, d| n * 10 + d), run.len())
        };
        // Leading zeros make the shorter one come first.
        let leading = |chars: &[char]| -> bool {
            (0..i).rev().take_while(|j| chars[*j].is_ascii_digit()).any(|j| chars[j] != '0')
        };
        if (x == '0' || y == '0') && !leading(&ac) {
            let ((an, al), (bn, bl)) = (value(&ac[i..]), value(&bc[i..]));
            if al > 0 && bl > 0 {
                return an.cmp(&bn).then(al.cmp(&bl));
            }
        }
        let ((an, al), (bn, bl)) = (value(&ac[i..]), value(&bc[i..]));
        if an != bn {
            return an.cmp(&bn);
        }
        if al != bl {
            return al.cmp(&bl);
        }
        return x.cmp(&y);
    }
    ac.len().cmp(&bc.len())
}
