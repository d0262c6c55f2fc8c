//! Regular expressions, in the syntax and with the meaning they have in Go.

use std::borrow::Cow;

use ::regex::{Regex, RegexBuilder};

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member};
use crate::cel::value::{Text, Value};

/// The largest compiled regular expression, in bytes.
const MAX_COMPILED: usize = 10 << 20;
/// The longest regular expression that is compiled.
const MAX_PATTERN: usize = 64 << 10;

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function("find", &[member("string_find_string", "string, string -> string")], find),
    function(
        "findAll",
        &[
            member("string_find_all_string", "string, string -> list(string)"),
            member("string_find_all_string_int", "string, string, int -> list(string)"),
        ],
        find_all,
    ),
];

/// Compiles a regular expression as Go understands it.
///
/// # Errors
/// When it is none.
pub(crate) fn compile(pattern: &str) -> Result<Regex, Fault> {
    let bad = |what: &str| Fault::new(format!("error parsing regexp: {what}: `{pattern}`"));
    if pattern.len() > MAX_PATTERN {
        return Err(bad("expression too large"));
    }
    let translated = translate(pattern);
    RegexBuilder::new(&translated).size_limit(MAX_COMPILED).build().map_err(|error| match error {
        ::regex::Error::CompiledTooBig(_) => bad("expression too large"),
        _ => bad("invalid regular expression"),
    })
}

/// The same expression in the syntax of our engine: classes such as `\d` mean ASCII, a bracket within a class is only
/// a bracket.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut chars = pattern.chars().peekable();
    let (mut in_class, mut in_named) = (false, false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('Q') if !in_class => {
                    let mut literal = String::new();
                    while let Some(c) = chars.next() {
                        if c == '\\' && chars.peek() == Some(&'E') {
                            chars.next();
                            break;
                        }
                        literal.push(c);
                    }
                    out.push_str(&::regex::escape(&literal));
                }
                Some(class @ ('d' | 'D' | 'w' | 'W' | 's' | 'S')) => {
                    out.push_str(&ascii_class(class, in_class))
                }
                Some('b') if !in_class => out.push_str(r"(?-u:\b)"),
                Some('B') if !in_class => out.push_str(r"(?-u:\B)"),
                Some('C') if !in_class => out.push_str("(?s:.)"),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            '[' if in_class && chars.peek() == Some(&':') => {
                in_named = true;
                out.push('[');
            }
            '[' if in_class => out.push_str(r"\["),
            '&' | '~' | '-' if in_class && chars.peek() == Some(&c) => out.extend(['\\', c]),
            '[' => {
                in_class = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.extend(chars.next());
                }
                // A bracket that closes nothing yet is itself.
                if chars.peek() == Some(&']') {
                    chars.next();
                    out.push_str(r"\]");
                }
            }
            ']' if in_named && out.ends_with(':') => {
                in_named = false;
                out.push(']');
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            other => out.push(other),
        }
    }
    out
}

fn ascii_class(class: char, in_class: bool) -> Cow<'static, str> {
    let set = match class.to_ascii_lowercase() {
        'd' => "0-9",
        'w' => "0-9A-Za-z_",
        _ => r"\t\n\f\r ",
    };
    match (class.is_ascii_uppercase(), in_class) {
        (false, true) => Cow::Borrowed(set),
        (false, false) => format!("[{set}]").into(),
        (true, _) => format!("[^{set}]").into(),
    }
}

/// Runs `use_it` with the regular expression that is the second argument.
fn with_regex<'a>(
    context: &Context<'_>,
    pattern: &Text<'_>,
    use_it: impl FnOnce(&Regex) -> Evaluated<'a>,
) -> Evaluated<'a> {
    match context.regex {
        Some(regex) => use_it(regex),
        None => {
            let compiled = compile(pattern).map_err(|error| match context.function {
                "matches" => error,
                _ => Fault::new(format!("Illegal regex: {error}")),
            })?;
            use_it(&compiled)
        }
    }
}

pub(super) fn matches<'a>(context: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(pattern)] => {
            with_regex(context, pattern, |regex| Ok(Value::Bool(regex.is_match(text))))
        }
        [Value::String(_), _] => Err(Fault::no_such_overload()),
        _ => Err(Fault::new("no such overload: matches")),
    }
}

fn find<'a>(context: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::String(pattern)] = args else { return Err(Fault::no_such_overload()) };
    with_regex(context, pattern, |regex| Ok(Value::text(regex.find(text).map_or("", |found| found.as_str()))))
}

fn find_all<'a>(context: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (Some(Value::String(text)), Some(Value::String(pattern))) = (args.first(), args.get(1)) else {
        return Err(Fault::no_such_overload());
    };
    let limit = match args.get(2) {
        None => usize::MAX,
        Some(Value::Int(limit)) => usize::try_from(*limit).unwrap_or(usize::MAX),
        Some(_) => return Err(Fault::no_such_overload()),
    };
    with_regex(context, pattern, |regex| {
        let found = regex.find_iter(text).take(limit).map(|found| Value::text(found.as_str())).collect();
        Ok(Value::list(found))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_what_they_mean_in_go() {
        let cases = [
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢٣", false),
            (r"^[\w-]+$", "a_b-c", true),
            (r"^\w+$", "ü", false),
            (r"^[[:alpha:]]+$", "abc", true),
            (r"^[[]$", "[", true),
            (r"^[]a]+$", "]a", true),
            (r"^[a&&b]+$", "&ab", true),
            (r"\Qa.b\E", "xa.by", true),
            (r"\Qa.b\E", "aXb", false),
            (r"^[^\s]+$", "ab", true),
            (r"\bword\b", "a word", true),
        ];
        for (pattern, text, want) in cases {
            assert_eq!(compile(pattern).map(|regex| regex.is_match(text)), Ok(want), "{pattern} {text}");
        }
        for wrong in ["(", "a{2,1}", "[z-a]", r"\8"] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
    }
}
