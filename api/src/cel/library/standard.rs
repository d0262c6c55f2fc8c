//! Operators and functions every expression has.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::cel::ast::operators as op;
use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member, operator, plain};
use crate::cel::ty::Type;
use crate::cel::value::{Timestamp, Value, double_to_int, double_to_uint, format_double, ops};

use super::regex;

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    operator(op::CONDITIONAL, &[plain("conditional", "bool, A, A -> A")], unreachable),
    operator(op::AND, &[plain("logical_and", "bool, bool -> bool")], unreachable),
    operator(op::OR, &[plain("logical_or", "bool, bool -> bool")], unreachable),
    operator(op::NOT, &[plain("logical_not", "bool -> bool")], not),
    operator(op::NOT_STRICTLY_FALSE, &[plain("not_strictly_false", "bool -> bool")], unreachable),
    operator(op::EQUALS, &[plain("equals", "A, A -> bool")], unreachable),
    operator(op::NOT_EQUALS, &[plain("not_equals", "A, A -> bool")], unreachable),
    operator(
        op::ADD,
        &[
            plain("add_bytes", "bytes, bytes -> bytes"),
            plain("add_double", "double, double -> double"),
            plain("add_duration_duration", "duration, duration -> duration"),
            plain("add_duration_timestamp", "duration, timestamp -> timestamp"),
            plain("add_timestamp_duration", "timestamp, duration -> timestamp"),
            plain("add_int64", "int, int -> int"),
            plain("add_list", "list(A), list(A) -> list(A)"),
            plain("add_string", "string, string -> string"),
            plain("add_uint64", "uint, uint -> uint"),
        ],
        |_, args| ops::add(&args[0], &args[1]),
    ),
    operator(
        op::DIVIDE,
        &[
            plain("divide_double", "double, double -> double"),
            plain("divide_int64", "int, int -> int"),
            plain("divide_uint64", "uint, uint -> uint"),
        ],
        |_, args| ops::divide(&args[0], &args[1]),
    ),
    operator(
        op::MODULO,
        &[plain("modulo_int64", "int, int -> int"), plain("modulo_uint64", "uint, uint -> uint")],
        |_, args| ops::modulo(&args[0], &args[1]),
    ),
    operator(
        op::MULTIPLY,
        &[
            plain("multiply_double", "double, double -> double"),
            plain("multiply_int64", "int, int -> int"),
            plain("multiply_uint64", "uint, uint -> uint"),
        ],
        |_, args| ops::multiply(&args[0], &args[1]),
    ),
    operator(
        op::NEGATE,
        &[plain("negate_double", "double -> double"), plain("negate_int64", "int -> int")],
        |_, args| ops::negate(&args[0]),
    ),
    operator(
        op::SUBTRACT,
        &[
            plain("subtract_double", "double, double -> double"),
            plain("subtract_duration_duration", "duration, duration -> duration"),
            plain("subtract_int64", "int, int -> int"),
            plain("subtract_timestamp_duration", "timestamp, duration -> timestamp"),
            plain("subtract_timestamp_timestamp", "timestamp, timestamp -> duration"),
            plain("subtract_uint64", "uint, uint -> uint"),
        ],
        |_, args| ops::subtract(&args[0], &args[1]),
    ),
    operator(
        op::LESS,
        &[
            plain("less_bool", "bool, bool -> bool"),
            plain("less_int64", "int, int -> bool"),
            plain("less_int64_double", "int, double -> bool"),
            plain("less_int64_uint64", "int, uint -> bool"),
            plain("less_uint64", "uint, uint -> bool"),
            plain("less_uint64_double", "uint, double -> bool"),
            plain("less_uint64_int64", "uint, int -> bool"),
            plain("less_double", "double, double -> bool"),
            plain("less_double_int64", "double, int -> bool"),
            plain("less_double_uint64", "double, uint -> bool"),
            plain("less_string", "string, string -> bool"),
            plain("less_bytes", "bytes, bytes -> bool"),
            plain("less_timestamp", "timestamp, timestamp -> bool"),
            plain("less_duration", "duration, duration -> bool"),
        ],
        |context, args| ordered(context, args, |order| order.is_lt()),
    ),
    operator(
        op::LESS_EQUALS,
        &[
            plain("less_equals_bool", "bool, bool -> bool"),
            plain("less_equals_int64", "int, int -> bool"),
            plain("less_equals_int64_double", "int, double -> bool"),
            plain("less_equals_int64_uint64", "int, uint -> bool"),
            plain("less_equals_uint64", "uint, uint -> bool"),
            plain("less_equals_uint64_double", "uint, double -> bool"),
            plain("less_equals_uint64_int64", "uint, int -> bool"),
            plain("less_equals_double", "double, double -> bool"),
            plain("less_equals_double_int64", "double, int -> bool"),
            plain("less_equals_double_uint64", "double, uint -> bool"),
            plain("less_equals_string", "string, string -> bool"),
            plain("less_equals_bytes", "bytes, bytes -> bool"),
            plain("less_equals_timestamp", "timestamp, timestamp -> bool"),
            plain("less_equals_duration", "duration, duration -> bool"),
        ],
        |context, args| ordered(context, args, |order| order.is_le()),
    ),
    operator(
        op::GREATER,
        &[
            plain("greater_bool", "bool, bool -> bool"),
            plain("greater_int64", "int, int -> bool"),
            plain("greater_int64_double", "int, double -> bool"),
            plain("greater_int64_uint64", "int, uint -> bool"),
            plain("greater_uint64", "uint, uint -> bool"),
            plain("greater_uint64_double", "uint, double -> bool"),
            plain("greater_uint64_int64", "uint, int -> bool"),
            plain("greater_double", "double, double -> bool"),
            plain("greater_double_int64", "double, int -> bool"),
            plain("greater_double_uint64", "double, uint -> bool"),
            plain("greater_string", "string, string -> bool"),
            plain("greater_bytes", "bytes, bytes -> bool"),
            plain("greater_timestamp", "timestamp, timestamp -> bool"),
            plain("greater_duration", "duration, duration -> bool"),
        ],
        |context, args| ordered(context, args, |order| order.is_gt()),
    ),
    operator(
        op::GREATER_EQUALS,
        &[
            plain("greater_equals_bool", "bool, bool -> bool"),
            plain("greater_equals_int64", "int, int -> bool"),
            plain("greater_equals_int64_double", "int, double -> bool"),
            plain("greater_equals_int64_uint64", "int, uint -> bool"),
            plain("greater_equals_uint64", "uint, uint -> bool"),
            plain("greater_equals_uint64_double", "uint, double -> bool"),
            plain("greater_equals_uint64_int64", "uint, int -> bool"),
            plain("greater_equals_double", "double, double -> bool"),
            plain("greater_equals_double_int64", "double, int -> bool"),
            plain("greater_equals_double_uint64", "double, uint -> bool"),
            plain("greater_equals_string", "string, string -> bool"),
            plain("greater_equals_bytes", "bytes, bytes -> bool"),
            plain("greater_equals_timestamp", "timestamp, timestamp -> bool"),
            plain("greater_equals_duration", "duration, duration -> bool"),
        ],
        |context, args| ordered(context, args, |order| order.is_ge()),
    ),
    operator(
        op::INDEX,
        &[plain("index_list", "list(A), int -> A"), plain("index_map", "map(A, B), A -> B")],
        unreachable,
    ),
    operator(
        op::IN,
        &[plain("in_list", "A, list(A) -> bool"), plain("in_map", "A, map(A, B) -> bool")],
        |_, args| ops::contains(&args[1], &args[0]).map(Value::Bool),
    ),
    operator(
        "size",
        &[
            plain("size_bytes", "bytes -> int"),
            member("bytes_size", "bytes -> int"),
            plain("size_list", "list(A) -> int"),
            member("list_size", "list(A) -> int"),
            plain("size_map", "map(A, B) -> int"),
            member("map_size", "map(A, B) -> int"),
            plain("size_string", "string -> int"),
            member("string_size", "string -> int"),
        ],
        |_, args| args[0].size().map(Value::Int).ok_or_else(|| Fault::new("no such overload: size")),
    ),
    operator("type", &[plain("type", "A -> type(A)")], |_, args| {
        Ok(Value::Type(Arc::new(args[0].type_of())))
    }),
    function(
        "bool",
        &[plain("bool_to_bool", "bool -> bool"), plain("string_to_bool", "string -> bool")],
        to_bool,
    ),
    function(
        "bytes",
        &[plain("bytes_to_bytes", "bytes -> bytes"), plain("string_to_bytes", "string -> bytes")],
        to_bytes,
    ),
    function(
        "double",
        &[
            plain("double_to_double", "double -> double"),
            plain("int64_to_double", "int -> double"),
            plain("string_to_double", "string -> double"),
            plain("uint64_to_double", "uint -> double"),
        ],
        to_double,
    ),
    function(
        "duration",
        &[
            plain("duration_to_duration", "duration -> duration"),
            plain("int64_to_duration", "int -> duration"),
            plain("string_to_duration", "string -> duration"),
        ],
        to_duration,
    ),
    operator("dyn", &[plain("to_dyn", "A -> dyn")], |_, args| Ok(args[0].clone())),
    function(
        "int",
        &[
            plain("int64_to_int64", "int -> int"),
            plain("double_to_int64", "double -> int"),
            plain("duration_to_int64", "duration -> int"),
            plain("string_to_int64", "string -> int"),
            plain("timestamp_to_int64", "timestamp -> int"),
            plain("uint64_to_int64", "uint -> int"),
        ],
        to_int,
    ),
    function(
        "string",
        &[
            plain("string_to_string", "string -> string"),
            plain("bool_to_string", "bool -> string"),
            plain("bytes_to_string", "bytes -> string"),
            plain("double_to_string", "double -> string"),
            plain("duration_to_string", "duration -> string"),
            plain("int64_to_string", "int -> string"),
            plain("timestamp_to_string", "timestamp -> string"),
            plain("uint64_to_string", "uint -> string"),
        ],
        to_string,
    ),
    function(
        "timestamp",
        &[
            plain("timestamp_to_timestamp", "timestamp -> timestamp"),
            plain("int64_to_timestamp", "int -> timestamp"),
            plain("string_to_timestamp", "string -> timestamp"),
        ],
        to_timestamp,
    ),
    function(
        "uint",
        &[
            plain("uint64_to_uint64", "uint -> uint"),
            plain("double_to_uint64", "double -> uint"),
            plain("int64_to_uint64", "int -> uint"),
            plain("string_to_uint64", "string -> uint"),
        ],
        to_uint,
    ),
    operator("contains", &[member("contains_string", "string, string -> bool")], |_, args| {
        texts(args, |text, part| text.contains(part))
    }),
    operator("endsWith", &[member("ends_with_string", "string, string -> bool")], |_, args| {
        texts(args, |text, part| text.ends_with(part))
    }),
    operator("startsWith", &[member("starts_with_string", "string, string -> bool")], |_, args| {
        texts(args, |text, part| text.starts_with(part))
    }),
    operator(
        "matches",
        &[plain("matches", "string, string -> bool"), member("matches_string", "string, string -> bool")],
        regex::matches,
    ),
    function(
        "getFullYear",
        &[
            member("timestamp_to_year", "timestamp -> int"),
            member("timestamp_to_year_with_tz", "timestamp, string -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.year()), 1),
    ),
    function(
        "getMonth",
        &[
            member("timestamp_to_month", "timestamp -> int"),
            member("timestamp_to_month_with_tz", "timestamp, string -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.month()) - 1, 1),
    ),
    function(
        "getDayOfYear",
        &[
            member("timestamp_to_day_of_year", "timestamp -> int"),
            member("timestamp_to_day_of_year_with_tz", "timestamp, string -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.day_of_year()) - 1, 1),
    ),
    function(
        "getDayOfMonth",
        &[
            member("timestamp_to_day_of_month", "timestamp -> int"),
            member("timestamp_to_day_of_month_with_tz", "timestamp, string -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.day()) - 1, 1),
    ),
    function(
        "getDate",
        &[
            member("timestamp_to_day_of_month_1_based", "timestamp -> int"),
            member("timestamp_to_day_of_month_1_based_with_tz", "timestamp, string -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.day()), 1),
    ),
    function(
        "getDayOfWeek",
        &[
            member("timestamp_to_day_of_week", "timestamp -> int"),
            member("timestamp_to_day_of_week_with_tz", "timestamp, string -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.weekday().to_sunday_zero_offset()), 1),
    ),
    function(
        "getHours",
        &[
            member("timestamp_to_hours", "timestamp -> int"),
            member("timestamp_to_hours_with_tz", "timestamp, string -> int"),
            member("duration_to_hours", "duration -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.hour()), 3_600_000_000_000),
    ),
    function(
        "getMinutes",
        &[
            member("timestamp_to_minutes", "timestamp -> int"),
            member("timestamp_to_minutes_with_tz", "timestamp, string -> int"),
            member("duration_to_minutes", "duration -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.minute()), 60_000_000_000),
    ),
    function(
        "getSeconds",
        &[
            member("timestamp_to_seconds", "timestamp -> int"),
            member("timestamp_to_seconds_tz", "timestamp, string -> int"),
            member("duration_to_seconds", "duration -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.second()), 1_000_000_000),
    ),
    function(
        "getMilliseconds",
        &[
            member("timestamp_to_milliseconds", "timestamp -> int"),
            member("timestamp_to_milliseconds_with_tz", "timestamp, string -> int"),
            member("duration_to_milliseconds", "duration -> int"),
        ],
        |_, args| time_part(args, |t| i64::from(t.subsec_nanosecond() / 1_000_000), 1_000_000),
    ),
];

/// Operators that are evaluated by themselves, not called.
fn unreachable<'a>(context: &Context<'_>, _: &[Value<'a>]) -> Evaluated<'a> {
    Err(Fault::new(format!("no such overload: {}", context.function)))
}

fn not<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Bool(value) => Ok(Value::Bool(!value)),
        _ => Err(Fault::no_such_overload()),
    }
}

fn ordered<'a>(context: &Context<'_>, args: &[Value<'a>], holds: fn(Ordering) -> bool) -> Evaluated<'a> {
    ops::compare(context.function, &args[0], &args[1]).map(|order| Value::Bool(holds(order)))
}

fn texts<'a>(args: &[Value<'a>], holds: fn(&str, &str) -> bool) -> Evaluated<'a> {
    match args {
        [Value::String(text), Value::String(part)] => Ok(Value::Bool(holds(text, part))),
        _ => Err(Fault::no_such_overload()),
    }
}

/// A value that cannot be converted.
fn unconvertible<'a>(value: &Value<'_>, to: &Type) -> Evaluated<'a> {
    let from = value.type_of();
    Err(Fault::new(format!("type conversion error from '{}' to '{}'", from.name(), to.name())))
}

fn to_bool<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Bool(value) => Ok(Value::Bool(*value)),
        Value::String(text) => match &**text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Value::Bool(false)),
            _ => unconvertible(&args[0], &Type::Bool),
        },
        other => unconvertible(other, &Type::Bool),
    }
}

fn to_bytes<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
        Value::String(text) => Ok(Value::Bytes(text.as_bytes().into())),
        other => unconvertible(other, &Type::Bytes),
    }
}

fn to_double<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Double(value) => Ok(Value::Double(*value)),
        Value::Int(value) => Ok(Value::Double(*value as f64)),
        Value::Uint(value) => Ok(Value::Double(*value as f64)),
        Value::String(text) => match parse_double(text) {
            Some(value) => Ok(Value::Double(value)),
            None => unconvertible(&args[0], &Type::Double),
        },
        other => unconvertible(other, &Type::Double),
    }
}

/// A floating-point number as Go reads it.
fn parse_double(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['+', '-']);
    let value: f64 = text.parse().ok()?;
    // Too large a number is an error, not infinity.
    let written = digits.starts_with(|c: char| c.is_ascii_alphabetic());
    (value.is_finite() || written).then_some(value)
}

fn to_duration<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Duration(nanos) => Ok(Value::Duration(*nanos)),
        Value::String(text) => match crate::schema::parse_duration(text) {
            Ok(nanos) => Ok(Value::Duration(nanos)),
            Err(_) => unconvertible(&args[0], &Type::Duration),
        },
        other => unconvertible(other, &Type::Duration),
    }
}

fn to_int<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Int(value) | Value::Duration(value) => Ok(Value::Int(*value)),
        Value::Uint(value) => {
            i64::try_from(*value).map(Value::Int).map_err(|_| Fault::new("integer overflow"))
        }
        Value::Double(value) => double_to_int(*value).map(Value::Int),
        Value::Timestamp(moment) => Ok(Value::Int(moment.seconds)),
        Value::String(text) => match text.parse::<i64>() {
            Ok(value) => Ok(Value::Int(value)),
            Err(_) => unconvertible(&args[0], &Type::Int),
        },
        other => unconvertible(other, &Type::Int),
    }
}

fn to_uint<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Uint(value) => Ok(Value::Uint(*value)),
        Value::Int(value) => {
            u64::try_from(*value).map(Value::Uint).map_err(|_| Fault::new("unsigned integer overflow"))
        }
        Value::Double(value) => double_to_uint(*value).map(Value::Uint),
        Value::String(text) => match text.parse::<u64>() {
            Ok(value) if !text.starts_with('+') => Ok(Value::Uint(value)),
            _ => unconvertible(&args[0], &Type::Uint),
        },
        other => unconvertible(other, &Type::Uint),
    }
}

fn to_string<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Err(Fault::new("invalid UTF-8 in bytes, cannot convert to string")),
        },
        Value::Double(value) => Ok(Value::text(format_double(*value))),
        Value::String(_) => Ok(args[0].clone()),
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Duration(_) | Value::Timestamp(_) => {
            Ok(Value::text(args[0].to_string()))
        }
        other => unconvertible(other, &Type::String),
    }
}

fn to_timestamp<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Timestamp(moment) => Ok(Value::Timestamp(*moment)),
        Value::Int(seconds) => Timestamp::new(*seconds, 0, 0).map(Value::Timestamp),
        Value::String(text) => Timestamp::parse(text).map(Value::Timestamp),
        other => unconvertible(other, &Type::Timestamp),
    }
}

/// A part of a point in time, or a span of time in units of so many nanoseconds.
fn time_part<'a>(args: &[Value<'a>], part: fn(jiff::Zoned) -> i64, unit: i64) -> Evaluated<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit)),
        [Value::Timestamp(moment)] => moment.in_zone(None).map(part).map(Value::Int),
        [Value::Timestamp(moment), Value::String(zone)] => {
            moment.in_zone(Some(zone)).map(part).map(Value::Int)
        }
        _ => Err(Fault::no_such_overload()),
    }
}
