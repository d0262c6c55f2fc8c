//! What calls cost when they are made.

use super::eval::Evaluated;
use super::library::extension::Extension;
use super::value::{List, Value};

/// Making a list.
pub(crate) const LIST_COST: u64 = 10;
/// Making a map.
pub(crate) const MAP_COST: u64 = 30;
/// Making an object.
pub(crate) const STRUCT_COST: u64 = 40;
/// Looking at one character of text.
pub(crate) const TRAVERSAL: f64 = 0.1;
/// One character of a regular expression.
pub(crate) const REGEX_LENGTH: f64 = 0.25;
/// A check of authorization.
pub(crate) const AUTHORIZATION: u64 = 350_000;

fn ceil(cost: f64) -> u64 {
    cost.ceil() as u64
}

fn size(arg: &Evaluated<'_>) -> u64 {
    arg.as_ref().ok().and_then(Value::size).map_or(1, |size| size as u64)
}

/// The size of a value, or of what an optional holds.
fn inner_size(arg: &Evaluated<'_>) -> u64 {
    match arg {
        Ok(Value::Optional(Some(value))) => inner_size(&Ok(Value::clone(value))),
        other => size(other),
    }
}

/// What a call with these arguments and this result costs. `overload` is empty if it was not known beforehand.
pub(crate) fn call_cost(
    function: &str,
    overload: &str,
    args: &[Evaluated<'_>],
    result: &Evaluated<'_>,
) -> u64 {
    extension_cost(overload, args, result)
        .or_else(|| library_cost(function, overload, args, result))
        .unwrap_or_else(|| standard_cost(overload, args))
}

/// Whether what a call costs is known only when it has been made.
pub(crate) fn depends_on_result(function: &str, overload: &str) -> bool {
    function == "join" || matches!(overload, "list_slice" | "lists_range" | "list_reverse")
}

/// Functions of the language's extensions that say themselves what they cost.
fn extension_cost(overload: &str, args: &[Evaluated<'_>], result: &Evaluated<'_>) -> Option<u64> {
    let at = |index: usize| args.get(index).map_or(1, size);
    let pair = |factor: u64| Some(at(0).saturating_mul(at(1)).saturating_mul(factor).saturating_add(1));
    let making = |cost: f64| Some((cost as u64).saturating_add(1 + LIST_COST));
    match overload {
        "list_sets_contains_list" | "list_sets_intersects_list" => pair(1),
        "list_sets_equivalent_list" => pair(2),
        "list_slice" | "lists_range" | "list_reverse" => making(size(result) as f64),
        "list_flatten" => making(at(0) as f64),
        "list_flatten_int" => match args.get(1) {
            Some(Ok(Value::Int(depth))) => making(at(0) as f64 * *depth as f64),
            _ => making(at(0) as f64),
        },
        "list_distinct" => making(self_compare(args.first()?)),
        _ if overload.ends_with("_sort") => making(self_compare(args.first()?)),
        _ if overload.ends_with("_sortByAssociatedKeys") => making(self_compare(args.get(1)?)),
        _ => None,
    }
}

/// Comparing all elements of a list with each other.
fn self_compare(list: &Evaluated<'_>) -> f64 {
    let Ok(Value::List(list)) = list else { return 0.0 };
    let length = list.len() as f64;
    let text = !list.is_empty() && matches!(list.get(0), Ok(Value::String(_) | Value::Bytes(_)));
    length * length * if text { 2.0 + TRAVERSAL } else { 2.0 }
}

fn standard_cost(overload: &str, args: &[Evaluated<'_>]) -> u64 {
    let sizes: Vec<u64> = args.iter().map(inner_size).collect();
    let at = |index: usize| sizes.get(index).copied().unwrap_or(1);
    match overload {
        "starts_with_string" | "ends_with_string" | "string_to_bytes" | "bytes_to_string"
        | "strings_quote" | "string_format" => ceil(at(0) as f64 * TRAVERSAL),
        "in_list" => at(1),
        "less_string"
        | "greater_string"
        | "less_equals_string"
        | "greater_equals_string"
        | "less_bytes"
        | "greater_bytes"
        | "less_equals_bytes"
        | "greater_equals_bytes"
        | "equals"
        | "not_equals" => ceil(at(0).min(at(1)) as f64 * TRAVERSAL),
        "add_string" | "add_bytes" => ceil((at(0) + at(1)) as f64 * TRAVERSAL),
        "matches_string" => matching(at(0), at(1) as f64),
        "contains_string" => ceil(at(0) as f64 * TRAVERSAL).saturating_mul(ceil(at(1) as f64 * TRAVERSAL)),
        _ => 1,
    }
}

/// Matching text against a regular expression.
fn matching(text: u64, regex: f64) -> u64 {
    ceil((1.0 + text as f64) * TRAVERSAL).saturating_mul(ceil(regex * REGEX_LENGTH))
}

/// Reading a selector: a list of requirements.
pub(crate) fn selector_cost(length: u64) -> u64 {
    let parse = ceil(length as f64 * TRAVERSAL);
    let requirements = ceil(length as f64 * 0.5).saturating_mul(LIST_COST + STRUCT_COST);
    LIST_COST.saturating_add(parse).saturating_add(requirements)
}

/// What functions of Kubernetes' own libraries cost, and of those whose cost it sets itself.
fn library_cost(
    function: &str,
    overload: &str,
    args: &[Evaluated<'_>],
    result: &Evaluated<'_>,
) -> Option<u64> {
    let first = args.first().map(size);
    let second = args.get(1).map(size);
    let traversal = |times: f64| first.map(|size| ceil(size as f64 * times * TRAVERSAL));
    match function {
        "check" => Some(AUTHORIZATION),
        "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name"
        | "allowed" | "reason" | "error" | "errored" => Some(1),
        "fieldSelector" | "labelSelector" => second.map(selector_cost),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
            Some(args.first().map_or(0, |arg| arg.as_ref().map_or(1, traversal_cost)))
        }
        "url"
        | "lowerAscii"
        | "upperAscii"
        | "substring"
        | "trim"
        | "jsonpatch.escapeKey"
        | "cidr"
        | "isIP"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver" => traversal(1.0),
        "ip" if overload == "cidr_ip" => Some(1),
        "ip" => traversal(1.0),
        "replace" | "split" | "ip.isCanonical" => traversal(2.0),
        "join" => first.map(|_| ceil(size(result) as f64 * 2.0 * TRAVERSAL)),
        "find" | "findAll" => first.zip(second).map(|(text, regex)| matching(text, regex as f64)),
        "masked"
        | "prefixLength"
        | "family"
        | "isUnspecified"
        | "isLoopback"
        | "isLinkLocalMulticast"
        | "isLinkLocalUnicast"
        | "isGlobalUnicast"
        | "format.named"
        | "sign"
        | "asInteger"
        | "isInteger"
        | "asApproximateFloat"
        | "isGreaterThan"
        | "isLessThan"
        | "compareTo"
        | "add"
        | "sub"
        | "major"
        | "minor"
        | "patch"
        | "getScheme"
        | "getHostname"
        | "getHost"
        | "getPort"
        | "getEscapedPath"
        | "getQuery" => Some(1),
        "containsIP" | "containsCIDR" => first.zip(second).map(|(range, other)| {
            let compare = ceil((range + range) as f64 * TRAVERSAL);
            let mask = if function == "containsCIDR" { ceil(range as f64 * TRAVERSAL) + 1 } else { 0 };
            let parse = match overload.ends_with("_string") {
                true => ceil(other as f64 * TRAVERSAL),
                false => 0,
            };
            compare + mask + parse
        }),
        "validate" => match args {
            [Ok(Value::Extension(format)), _] => match &**format {
                Extension::Format(format) => {
                    second.map(|text| matching(text, format.max_regex_size() as f64))
                }
                _ => None,
            },
            _ => None,
        },
        "_==_" => matches!(args.first(), Some(Ok(Value::Extension(_)))).then_some(1),
        _ => None,
    }
}

/// Looking at all of a value.
fn traversal_cost(value: &Value<'_>) -> u64 {
    let sum = |costs: &mut dyn Iterator<Item = u64>| costs.fold(0u64, u64::saturating_add);
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list_cost(list),
        Value::Map(map) => sum(&mut map.keys().iter().map(|key| {
            let value = map.find(key).ok().flatten();
            traversal_cost(key).saturating_add(value.map_or(1, |value| traversal_cost(&value)))
        })),
        _ => 1,
    }
}

fn list_cost(list: &List<'_>) -> u64 {
    let costs = list.iter().map(|item| item.map_or(1, |item| traversal_cost(&item)));
    costs.fold(0u64, u64::saturating_add)
}
