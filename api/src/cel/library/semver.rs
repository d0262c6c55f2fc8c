//! Semantic versions.

use std::cmp::Ordering;
use std::fmt;

use crate::cel::eval::{Evaluated, Fault};
use crate::cel::function::{Function, function, member, plain};
use crate::cel::value::Value;
use crate::schema::scalar::go_quote;

use super::extension::Extension;

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<Pre>,
    build: Vec<String>,
}

/// A part of a pre-release.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pre {
    Number(u64),
    Text(String),
}

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function(
        "semver",
        &[
            plain("string_to_semver", "string -> kubernetes.Semver"),
            plain("string_bool_to_semver", "string, bool -> kubernetes.Semver"),
        ],
        |_, args| parse(args).map(Value::extension).map_err(Fault::new),
    ),
    function(
        "isSemver",
        &[
            plain("is_semver_string", "string -> bool"),
            plain("is_semver_string_bool", "string, bool -> bool"),
        ],
        |_, args| Ok(Value::Bool(parse(args).is_ok())),
    ),
    function(
        "isGreaterThan",
        &[member("semver_is_greater_than", "kubernetes.Semver, kubernetes.Semver -> bool")],
        |_, args| compare(args).map(|order| Value::Bool(order.is_gt())),
    ),
    function(
        "isLessThan",
        &[member("semver_is_less_than", "kubernetes.Semver, kubernetes.Semver -> bool")],
        |_, args| compare(args).map(|order| Value::Bool(order.is_lt())),
    ),
    function(
        "compareTo",
        &[member("semver_compare_to", "kubernetes.Semver, kubernetes.Semver -> int")],
        |_, args| compare(args).map(|order| Value::Int(order as i64)),
    ),
    function("major", &[member("semver_major", "kubernetes.Semver -> int")], |_, args| number(args, 0)),
    function("minor", &[member("semver_minor", "kubernetes.Semver -> int")], |_, args| number(args, 1)),
    function("patch", &[member("semver_patch", "kubernetes.Semver -> int")], |_, args| number(args, 2)),
];

fn version<'v>(value: &'v Value<'_>) -> Result<&'v Version, Fault> {
    match value {
        Value::Extension(extension) => match &**extension {
            Extension::Semver(version) => Ok(version),
            _ => Err(Fault::no_such_overload()),
        },
        _ => Err(Fault::no_such_overload()),
    }
}

fn compare(args: &[Value<'_>]) -> Result<Ordering, Fault> {
    Ok(version(&args[0])?.cmp(version(&args[1])?))
}

fn number<'a>(args: &[Value<'a>], at: usize) -> Evaluated<'a> {
    Ok(Value::Int(version(&args[0])?.numbers[at] as i64))
}

fn parse(args: &[Value<'_>]) -> Result<Version, String> {
    let text = args[0].as_str().unwrap_or_default();
    match args.get(1) {
        Some(Value::Bool(true)) => Version::parse(&normalize(text)?),
        _ => Version::parse(text),
    }
}

/// Without a leading `v` and leading zeros, and with all three numbers.
fn normalize(text: &str) -> Result<String, String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let mut parts: Vec<String> = text
        .splitn(3, '.')
        .map(|part| {
            let short = part.trim_start_matches('0');
            match part.len() > 1 {
                true if short.starts_with(|c: char| c.is_ascii_digit()) => short.to_owned(),
                true => format!("0{short}"),
                false => part.to_owned(),
            }
        })
        .collect();
    if parts.len() < 3 && parts.last().is_some_and(|last| last.contains(['+', '-'])) {
        return Err("short version cannot contain PreRelease/Build meta data".to_owned());
    }
    parts.resize(3, "0".to_owned());
    Ok(parts.join("."))
}

fn is_identifier(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

impl Version {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let numbers = [part(major, "major", "Major")?, part(minor, "minor", "Minor")?];
        let (rest, build) = match rest.split_once('+') {
            Some((rest, build)) => (rest, build.split('.').collect()),
            None => (rest, Vec::new()),
        };
        let (patch, pre) = match rest.split_once('-') {
            Some((patch, pre)) => (patch, pre.split('.').collect()),
            None => (rest, Vec::new()),
        };
        let patch = part(patch, "patch", "Patch")?;
        let pre = pre.into_iter().map(Pre::parse).collect::<Result<_, _>>()?;
        for part in &build {
            if part.is_empty() {
                return Err("Build meta data is empty".to_owned());
            }
            if !is_identifier(part) {
                return Err(format!("Invalid character(s) found in build meta data {}", go_quote(part)));
            }
        }
        let build = build.into_iter().map(str::to_owned).collect();
        Ok(Self { numbers: [numbers[0], numbers[1], patch], pre, build })
    }
}

/// One of the three numbers.
fn part(text: &str, name: &str, capital: &str) -> Result<u64, String> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {name} number {}", go_quote(text)));
    }
    if text.len() > 1 && text.starts_with('0') {
        return Err(format!("{capital} number must not contain leading zeroes {}", go_quote(text)));
    }
    unsigned(text)
}

fn unsigned(text: &str) -> Result<u64, String> {
    let why = if text.is_empty() { "invalid syntax" } else { "value out of range" };
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {}: {why}", go_quote(text)))
}

impl Pre {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("Prerelease is empty".to_owned());
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            if text.len() > 1 && text.starts_with('0') {
                let quoted = go_quote(text);
                return Err(format!("Numeric PreRelease version must not contain leading zeroes {quoted}"));
            }
            return unsigned(text).map(Self::Number);
        }
        match is_identifier(text) {
            true => Ok(Self::Text(text.to_owned())),
            false => Err(format!("Invalid character(s) found in prerelease {}", go_quote(text))),
        }
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        // A pre-release comes before the release.
        let released = |version: &Self| version.pre.is_empty();
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| released(self).cmp(&released(other)))
            .then_with(|| self.pre.cmp(&other.pre))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        for (at, pre) in self.pre.iter().enumerate() {
            f.write_str(if at == 0 { "-" } else { "." })?;
            match pre {
                Pre::Number(number) => write!(f, "{number}")?,
                Pre::Text(text) => f.write_str(text)?,
            }
        }
        for (at, build) in self.build.iter().enumerate() {
            write!(f, "{}{build}", if at == 0 { "+" } else { "." })?;
        }
        Ok(())
    }
}
