//! More functions on text.

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member, plain};
use crate::cel::value::Value;

use super::text_format;

/// The longest text a function makes, in bytes; no budget allows for more.
const MAX_TEXT: usize = 32 << 20;

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function("charAt", &[member("string_char_at_int", "string, int -> string")], char_at),
    function(
        "indexOf",
        &[
            member("string_index_of_string", "string, string -> int"),
            member("string_index_of_string_int", "string, string, int -> int"),
        ],
        index_of,
    ),
    function(
        "lastIndexOf",
        &[
            member("string_last_index_of_string", "string, string -> int"),
            member("string_last_index_of_string_int", "string, string, int -> int"),
        ],
        last_index_of,
    ),
    function("lowerAscii", &[member("string_lower_ascii", "string -> string")], |_, args| {
        map(args, |text| text.to_ascii_lowercase())
    }),
    function(
        "replace",
        &[
            member("string_replace_string_string", "string, string, string -> string"),
            member("string_replace_string_string_int", "string, string, string, int -> string"),
        ],
        replace,
    ),
    function(
        "split",
        &[
            member("string_split_string", "string, string -> list(string)"),
            member("string_split_string_int", "string, string, int -> list(string)"),
        ],
        split,
    ),
    function(
        "substring",
        &[
            member("string_substring_int", "string, int -> string"),
            member("string_substring_int_int", "string, int, int -> string"),
        ],
        substring,
    ),
    function("trim", &[member("string_trim", "string -> string")], |_, args| {
        map(args, |text| text.trim().to_owned())
    }),
    function("upperAscii", &[member("string_upper_ascii", "string -> string")], |_, args| {
        map(args, |text| text.to_ascii_uppercase())
    }),
];

/// The functions that came with the second version.
pub(crate) const FUNCTIONS_2: &[Function] = &[
    function("format", &[member("string_format", "string, list(dyn) -> string")], |_, args| match args {
        [Value::String(format), Value::List(args)] => text_format::format(format, args).map(Value::text),
        _ => Err(Fault::no_such_overload()),
    }),
    function("strings.quote", &[plain("strings_quote", "string -> string")], |_, args| map(args, quote)),
    function(
        "join",
        &[
            member("list_join", "list(string) -> string"),
            member("list_join_string", "list(string), string -> string"),
        ],
        join,
    ),
];

fn map<'a>(args: &[Value<'a>], make: impl Fn(&str) -> String) -> Evaluated<'a> {
    match &args[0] {
        Value::String(text) => Ok(Value::text(make(text))),
        _ => Err(Fault::no_such_overload()),
    }
}

fn out_of_range(index: i64) -> Fault {
    Fault::new(format!("index out of range: {index}"))
}

/// An index into `length` characters, or just behind them.
fn position(index: i64, length: usize) -> Result<usize, Fault> {
    usize::try_from(index).ok().filter(|at| *at <= length).ok_or_else(|| out_of_range(index))
}

fn char_at<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::String(text), Value::Int(index)] = args else { return Err(Fault::no_such_overload()) };
    let at = position(*index, text.chars().count())?;
    Ok(Value::text(text.chars().nth(at).map(String::from).unwrap_or_default()))
}

fn index_of<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, offset) = match args {
        [Value::String(text), Value::String(part)] => (text, part, 0),
        [Value::String(text), Value::String(part), Value::Int(offset)] => (text, part, *offset),
        _ => return Err(Fault::no_such_overload()),
    };
    if part.is_empty() {
        return Ok(Value::Int(offset));
    }
    let from = usize::try_from(offset).map_err(|_| out_of_range(offset))?;
    let Some(start) = text.char_indices().nth(from).map(|(at, _)| at) else { return Ok(Value::Int(-1)) };
    let found = text[start..].find(&**part);
    Ok(Value::Int(found.map_or(-1, |at| offset + text[start..start + at].chars().count() as i64)))
}

fn last_index_of<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, part, offset) = match args {
        [Value::String(text), Value::String(part)] => (text, part, None),
        [Value::String(text), Value::String(part), Value::Int(offset)] => (text, part, Some(*offset)),
        _ => return Err(Fault::no_such_overload()),
    };
    let length = text.chars().count() as i64;
    if part.is_empty() {
        return Ok(Value::Int(offset.unwrap_or(length)));
    }
    let offset = match offset {
        None if text.len() < part.len() => return Ok(Value::Int(-1)),
        None => length - 1,
        Some(offset) if offset < 0 => return Err(out_of_range(offset)),
        Some(offset) if offset >= length => return Ok(Value::Int(-1)),
        Some(offset) => offset,
    };
    // The match may begin at the offset, but no later.
    let last = offset.min(length - part.chars().count() as i64);
    let Ok(last) = usize::try_from(last) else { return Ok(Value::Int(-1)) };
    let end = text.char_indices().nth(last).map_or(text.len(), |(at, _)| at) + part.len();
    let found = text.get(..end.min(text.len())).and_then(|text| text.rfind(&**part));
    Ok(Value::Int(found.map_or(-1, |at| text[..at].chars().count() as i64)))
}

fn replace<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, old, new, limit) = match args {
        [Value::String(text), Value::String(old), Value::String(new)] => (text, old, new, -1),
        [Value::String(text), Value::String(old), Value::String(new), Value::Int(limit)] => {
            (text, old, new, *limit)
        }
        _ => return Err(Fault::no_such_overload()),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let times = text.matches(&**old).take(limit).count();
    match times.checked_mul(new.len()).and_then(|added| added.checked_add(text.len())) {
        Some(length) if length <= MAX_TEXT => Ok(Value::text(text.replacen(&**old, new, times))),
        _ => Err(Fault::CostLimit),
    }
}

fn split<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (text, separator, limit) = match args {
        [Value::String(text), Value::String(separator)] => (text, separator, -1),
        [Value::String(text), Value::String(separator), Value::Int(limit)] => (text, separator, *limit),
        _ => return Err(Fault::no_such_overload()),
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<Value<'a>> = match separator.is_empty() {
        _ if limit == 0 => Vec::new(),
        false => text.splitn(limit, &**separator).map(Value::text).collect(),
        true => {
            let mut parts = Vec::new();
            let mut rest: &str = text;
            while let Some(c) = rest.chars().next() {
                let (head, tail) =
                    if parts.len() + 1 == limit { (rest, "") } else { rest.split_at(c.len_utf8()) };
                parts.push(Value::text(head));
                rest = tail;
            }
            parts
        }
    };
    Ok(Value::list(parts))
}

fn substring<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let Value::String(text) = &args[0] else { return Err(Fault::no_such_overload()) };
    let length = text.chars().count();
    let (start, end) = match &args[1..] {
        [Value::Int(start)] => (position(*start, length)?, length),
        [Value::Int(start), Value::Int(end)] if start > end => {
            return Err(Fault::new(format!("invalid substring range. start: {start}, end: {end}")));
        }
        [Value::Int(start), Value::Int(end)] => (position(*start, length)?, position(*end, length)?),
        _ => return Err(Fault::no_such_overload()),
    };
    Ok(Value::text(text.chars().skip(start).take(end - start).collect::<String>()))
}

fn join<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let Value::List(list) = &args[0] else { return Err(Fault::no_such_overload()) };
    let separator = args.get(1).and_then(Value::as_str).unwrap_or_default();
    let mut out = String::new();
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            out.push_str(separator);
        }
        match item? {
            Value::String(text) => out.push_str(&text),
            other => return Err(Fault::new(format!("join: invalid input: {other}"))),
        }
        if out.len() > MAX_TEXT {
            return Err(Fault::CostLimit);
        }
    }
    Ok(Value::text(out))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
