//! Named formats of text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member, plain};
use crate::cel::value::Value;
use crate::format;

use super::extension::Extension;
use super::url::Url;

/// A named format.
pub struct Format {
    /// Its name.
    pub name: &'static str,
    /// What it is found under.
    key: &'static str,
    /// What is wrong with a text.
    validate: fn(&str) -> Vec<String>,
    /// The length of its regular expression, or of one as complex.
    max_regex_size: usize,
}

impl Format {
    pub(crate) fn max_regex_size(&self) -> usize {
        self.max_regex_size
    }
}

const fn named(
    key: &'static str,
    name: &'static str,
    max_regex_size: usize,
    validate: fn(&str) -> Vec<String>,
) -> Format {
    Format { name, key, validate, max_regex_size }
}

static FORMATS: [Format; 13] = [
    named("dns1123Label", "DNS1123Label", 30, |text| format::name_is_label(text, false)),
    named("dns1123Subdomain", "DNS1123Subdomain", 60, |text| format::name_is_subdomain(text, false)),
    named("dns1035Label", "DNS1035Label", 30, |text| format::name_is_1035_label(text, false)),
    named("qualifiedName", "QualifiedName", 60, format::label_key),
    named("dns1123LabelPrefix", "DNS1123LabelPrefix", 30, |text| format::name_is_label(text, true)),
    named("dns1123SubdomainPrefix", "DNS1123SubdomainPrefix", 60, |text| {
        format::name_is_subdomain(text, true)
    }),
    named("dns1035LabelPrefix", "DNS1035LabelPrefix", 30, |text| format::name_is_1035_label(text, true)),
    named("labelValue", "LabelValue", 40, format::label_value),
    named("uri", "URI", 1103, |text| Url::check(text).err().into_iter().collect()),
    named("uuid", "uuid", 70, |text| unless(is_uuid(text), "does not match the UUID format")),
    named("byte", "byte", 84, |text| {
        unless(!text.is_empty() && STANDARD.decode(text).is_ok(), "invalid base64")
    }),
    named("date", "date", 71, |text| unless(is_date(text), "invalid date")),
    named("datetime", "datetime", 71, |text| unless(is_date_time(text), "invalid datetime")),
];

fn unless(holds: bool, message: &str) -> Vec<String> {
    if holds { Vec::new() } else { vec![message.to_owned()] }
}

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function(
        "validate",
        &[member("format-validate", "kubernetes.NamedFormat, string -> optional(list(string))")],
        validate,
    ),
    function(
        "format.named",
        &[plain("format-named", "string -> optional(kubernetes.NamedFormat)")],
        |_, args| Ok(find(args[0].as_str().unwrap_or_default()).map_or(Value::Optional(None), Value::some)),
    ),
    function("format.dns1123Label", &[plain("format.dns1123Label", "-> kubernetes.NamedFormat")], constant),
    function(
        "format.dns1123Subdomain",
        &[plain("format.dns1123Subdomain", "-> kubernetes.NamedFormat")],
        constant,
    ),
    function("format.dns1035Label", &[plain("format.dns1035Label", "-> kubernetes.NamedFormat")], constant),
    function("format.qualifiedName", &[plain("format.qualifiedName", "-> kubernetes.NamedFormat")], constant),
    function(
        "format.dns1123LabelPrefix",
        &[plain("format.dns1123LabelPrefix", "-> kubernetes.NamedFormat")],
        constant,
    ),
    function(
        "format.dns1123SubdomainPrefix",
        &[plain("format.dns1123SubdomainPrefix", "-> kubernetes.NamedFormat")],
        constant,
    ),
    function(
        "format.dns1035LabelPrefix",
        &[plain("format.dns1035LabelPrefix", "-> kubernetes.NamedFormat")],
        constant,
    ),
    function("format.labelValue", &[plain("format.labelValue", "-> kubernetes.NamedFormat")], constant),
    function("format.uri", &[plain("format.uri", "-> kubernetes.NamedFormat")], constant),
    function("format.uuid", &[plain("format.uuid", "-> kubernetes.NamedFormat")], constant),
    function("format.byte", &[plain("format.byte", "-> kubernetes.NamedFormat")], constant),
    function("format.date", &[plain("format.date", "-> kubernetes.NamedFormat")], constant),
    function("format.datetime", &[plain("format.datetime", "-> kubernetes.NamedFormat")], constant),
];

fn find<'a>(key: &str) -> Option<Value<'a>> {
    let format = FORMATS.iter().find(|format| format.key == key)?;
    Some(Value::extension(Extension::Format(format)))
}

/// The format the function is named after.
fn constant<'a>(context: &Context<'_>, _: &[Value<'a>]) -> Evaluated<'a> {
    let key = context.function.strip_prefix("format.").unwrap_or_default();
    find(key).ok_or_else(Fault::no_such_overload)
}

fn validate<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let (Value::Extension(format), Value::String(text)) = (&args[0], &args[1]) else {
        return Err(Fault::no_such_overload());
    };
    let Extension::Format(format) = **format else { return Err(Fault::no_such_overload()) };
    let wrong = (format.validate)(text);
    Ok(match wrong.is_empty() {
        true => Value::Optional(None),
        false => Value::some(Value::list(wrong.into_iter().map(Value::text).collect())),
    })
}

/// Hexadecimal digits in groups of 8, 4, 4, 4 and 12, with or without hyphens between.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (at, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if at > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        match rest.get(..length) {
            Some(group) if group.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest = &rest[length..],
            _ => return false,
        }
    }
    rest.is_empty()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && crate::schema::parse_time(&format!("{text}T00:00:00Z")).is_ok()
}

/// A day, `t`, and a time of day with a zone.
fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    let field = |at: usize, most: u32| {
        time.get(at..at + 2)
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|digits| digits.parse::<u32>().ok())
            .is_some_and(|number| number <= most)
    };
    let colons = time.get(2..3) == Some(":") && time.get(5..6) == Some(":");
    if !is_date(date) || !colons || !field(0, 23) || !field(3, 59) || !field(6, 59) {
        return false;
    }
    let mut zone = &time[8..];
    if let Some(fraction) = zone.strip_prefix('.') {
        let digits = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        if digits == 0 {
            return false;
        }
        zone = &fraction[digits..];
    }
    let offset = |text: &str| {
        let bytes = text.as_bytes();
        bytes.len() == 5 && bytes[2] == b':' && [0, 1, 3, 4].iter().all(|at| bytes[*at].is_ascii_digit())
    };
    zone == "z" || zone.strip_prefix(['+', '-']).is_some_and(offset)
}
