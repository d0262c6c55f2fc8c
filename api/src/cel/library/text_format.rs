//! `"%s is %d".format([name, age])`.

use std::fmt::Write as _;

use crate::cel::eval::Fault;
use crate::cel::value::{List, Map, Value};
use crate::schema::scalar::go_quote;

/// The longest text made, in bytes; no budget allows for more.
const MAX_TEXT: usize = 32 << 20;
/// The most digits behind a point.
const MAX_PRECISION: usize = 1000;

/// A clause of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    /// `%s`.
    String,
    /// `%d`.
    Decimal,
    /// `%f`, with so many digits.
    Fixed(usize),
    /// `%e`, with so many digits.
    Scientific(usize),
    /// `%b`.
    Binary,
    /// `%x`, or `%X`.
    Hex { upper: bool },
    /// `%o`.
    Octal,
}

impl Clause {
    /// What is wrong with a value of this type for the clause.
    pub(crate) fn refusal(self, type_name: &str) -> String {
        let takes = match self {
            Self::String => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
            }
            Self::Decimal => "decimal clause can only be used on integers",
            Self::Fixed(_) => "fixed-point clause can only be used on doubles",
            Self::Scientific(_) => "scientific clause can only be used on doubles",
            Self::Binary => "only integers and bools can be formatted as binary",
            Self::Hex { .. } => "only integers, byte buffers, and strings can be formatted as hex",
            Self::Octal => "octal clause can only be used on integers",
        };
        format!("{takes}, was given {type_name}")
    }
}

/// Reads a format, calling `text` for what stands between clauses and `clause` for each clause with the index of its
/// argument.
pub(crate) fn walk<C>(
    format: &str,
    count: usize,
    context: &mut C,
    text: impl Fn(&mut C, &str),
    clause: impl Fn(&mut C, Clause, usize) -> Result<(), String>,
) -> Result<(), String> {
    let mut rest = format;
    let mut index = 0;
    while let Some(at) = rest.find('%') {
        text(context, &rest[..at]);
        rest = &rest[at + 1..];
        if let Some(tail) = rest.strip_prefix('%') {
            text(context, "%");
            rest = tail;
            continue;
        }
        if index >= count {
            return Err(format!("index {index} out of range"));
        }
        if rest.is_empty() {
            return Err("unexpected end of string".to_owned());
        }
        let (found, tail) =
            read(rest).map_err(|error| format!("could not parse formatting clause: {error}"))?;
        clause(context, found, index).map_err(|error| format!("error during formatting: {error}"))?;
        rest = tail;
        index += 1;
    }
    text(context, rest);
    Ok(())
}

/// The clause at the front, behind its percent sign.
fn read(text: &str) -> Result<(Clause, &str), String> {
    let mut precision = 6;
    let mut rest = text;
    if let Some(tail) = rest.strip_prefix('.') {
        let end = tail
            .find(|c: char| !c.is_ascii_digit())
            .ok_or("error while parsing precision: could not find end of precision specifier")?;
        precision = tail[..end].parse().map_err(|_| {
            let digits = go_quote(&tail[..end]);
            format!("error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing {digits}: invalid syntax")
        })?;
        rest = &tail[end..];
    }
    let precision = precision.min(MAX_PRECISION);
    let c = rest.chars().next().unwrap_or_default();
    let clause = match c {
        's' => Clause::String,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed(precision),
        'e' => Clause::Scientific(precision),
        'b' => Clause::Binary,
        'x' | 'X' => Clause::Hex { upper: c == 'X' },
        'o' => Clause::Octal,
        _ => return Err(format!("unrecognized formatting clause \"{c}\"")),
    };
    Ok((clause, &rest[1..]))
}

/// Puts arguments into a format.
///
/// # Errors
/// When the format is none, or an argument does not fit.
pub(crate) fn format(format: &str, args: &List<'_>) -> Result<String, Fault> {
    let mut out = Ok(String::new());
    let append = |out: &mut Result<String, Fault>, text: &str| {
        if let Ok(built) = out {
            built.push_str(text);
            if built.len() > MAX_TEXT {
                *out = Err(Fault::CostLimit);
            }
        }
    };
    let fill = |out: &mut Result<String, Fault>, clause: Clause, index: usize| {
        let value = match args.get(index) {
            Ok(value) => value,
            Err(fault) => {
                *out = Err(fault);
                return Ok(());
            }
        };
        let text = clause_text(clause, &value)?;
        append(out, &text);
        Ok(())
    };
    walk(format, args.len(), &mut out, append, fill).map_err(Fault::new)?;
    out
}

fn clause_text(clause: Clause, value: &Value<'_>) -> Result<String, String> {
    let refuse = || clause.refusal(value.type_of().name());
    match clause {
        Clause::String => string(value),
        Clause::Decimal => match value {
            Value::Int(_) | Value::Uint(_) => Ok(value.to_string()),
            _ => Err(refuse()),
        },
        Clause::Fixed(precision) => double(value).map(|value| fixed(value, precision)).ok_or_else(refuse),
        Clause::Scientific(precision) => {
            double(value).map(|value| scientific(value, precision)).ok_or_else(refuse)
        }
        Clause::Binary => match value {
            Value::Int(value) => Ok(signed(*value, |magnitude| format!("{magnitude:b}"))),
            Value::Uint(value) => Ok(format!("{value:b}")),
            Value::Bool(value) => Ok(u8::from(*value).to_string()),
            _ => Err(refuse()),
        },
        Clause::Hex { upper } => {
            let hex = match value {
                Value::String(text) => bytes_hex(text.as_bytes()),
                Value::Bytes(bytes) => bytes_hex(bytes),
                Value::Int(value) => signed(*value, |magnitude| format!("{magnitude:x}")),
                Value::Uint(value) => format!("{value:x}"),
                _ => return Err(refuse()),
            };
            Ok(if upper { hex.to_uppercase() } else { hex })
        }
        Clause::Octal => match value {
            Value::Int(value) => Ok(signed(*value, |magnitude| format!("{magnitude:o}"))),
            Value::Uint(value) => Ok(format!("{value:o}")),
            _ => Err(refuse()),
        },
    }
}

fn signed(value: i64, show: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", show(value.unsigned_abs()))
}

fn bytes_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn double(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(value) => Some(*value),
        Value::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn not_finite(value: f64) -> Option<&'static str> {
    match value {
        _ if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("∞"),
        f64::NEG_INFINITY => Some("-∞"),
        _ => None,
    }
}

/// As American English has it: thousands apart.
fn fixed(value: f64, precision: usize) -> String {
    if let Some(name) = not_finite(value) {
        return name.to_owned();
    }
    let plain = format!("{value:.precision$}");
    let (whole, fraction) = plain.split_at(plain.find('.').unwrap_or(plain.len()));
    let (sign, digits) = match whole.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", whole),
    };
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{sign}{grouped}{fraction}")
}

/// As American English has it: `1.5 × 10⁰³`.
fn scientific(value: f64, precision: usize) -> String {
    if let Some(name) = not_finite(value) {
        return name.to_owned();
    }
    let plain = format!("{value:.precision$e}");
    let (digits, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ("⁻", exponent),
        None => ("", exponent),
    };
    let raised: String = format!("{exponent:0>2}")
        .chars()
        .map(|digit| ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit as usize - '0' as usize])
        .collect();
    format!("{digits}×10{sign}{raised}")
}

fn string(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::List(list) => list_text(list),
        Value::Map(map) => map_text(map),
        Value::Null
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::Bool(_)
        | Value::String(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::Type(_) => Ok(value.to_string()),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| {
            "could not convert argument \"invalid UTF-8 in bytes, cannot convert to string\" to string"
                .to_owned()
        }),
        other => Err(Clause::String.refusal(other.type_of().name())),
    }
}

/// An element within a list or map, as an expression would write it.
fn element(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(go_quote(text)),
        Value::Bytes(_) => Ok(format!("b{}", go_quote(&string(value)?))),
        Value::Timestamp(_) => Ok(format!("timestamp({})", go_quote(&value.to_string()))),
        Value::Duration(_) => Ok(format!("duration({})", go_quote(&value.to_string()))),
        Value::Double(value) => Ok(match not_finite(*value) {
            Some("NaN") => "\"NaN\"".to_owned(),
            Some("∞") => "\"+Inf\"".to_owned(),
            Some(_) => "\"-Inf\"".to_owned(),
            None => format!("{value:.6}"),
        }),
        Value::Extension(_)
        | Value::Object(_)
        | Value::Optional(_)
        | Value::Fields(_)
        | Value::Preserved(_) => Err(format!("no formatting function for {}", value.type_of().name())),
        other => string(other),
    }
}

fn list_text(list: &List<'_>) -> Result<String, String> {
    let mut out = "[".to_owned();
    for (at, item) in list.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        out.push_str(&element(&item.map_err(|fault| fault.to_string())?)?);
        if out.len() > MAX_TEXT {
            return Err("text too long".to_owned());
        }
    }
    out.push(']');
    Ok(out)
}

fn map_text(map: &Map<'_>) -> Result<String, String> {
    let mut entries = Vec::with_capacity(map.len());
    for key in map.keys() {
        if !matches!(key, Value::String(_) | Value::Bool(_) | Value::Int(_) | Value::Uint(_)) {
            return Err(format!("no formatting function for map key of type {}", key.type_of().name()));
        }
        let value = map.find(&key).map_err(|fault| fault.to_string())?.unwrap_or(Value::Null);
        entries.push((element(&key)?, element(&value)?));
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    let entries: Vec<String> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    Ok(format!("{{{}}}", entries.join(", ")))
}
