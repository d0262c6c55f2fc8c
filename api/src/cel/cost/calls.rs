//! What calls can cost.

use crate::cel::ast::{Expr, ExprKind, Literal};
use crate::cel::macros::ACCUMULATOR;
use crate::cel::meter::{AUTHORIZATION, LIST_COST, REGEX_LENGTH, STRUCT_COST, TRAVERSAL};
use crate::cel::ty::Type;

use super::{Arg, Coster, Entry, Range};

/// Formats are no longer than this.
const MAX_FORMAT: u64 = 64;
/// The longest regular expression behind a named format.
const MAX_FORMAT_REGEX: f64 = 128.0;

/// The cost of a call and the size of its result, if it has one.
type Estimate = (Range, Option<Range>);

/// A call being estimated.
struct Call<'e> {
    function: &'e str,
    overload: &'static str,
    target: Option<&'e Arg<'e>>,
    args: &'e [Arg<'e>],
}

impl Coster<'_> {
    pub(super) fn call(&mut self, expr: &Expr) -> Range {
        let ExprKind::Call { target, function, args } = &expr.kind else { return Range::default() };
        if let ("dyn", [arg]) = (function.as_str(), args.as_slice()) {
            let cost = self.cost(arg);
            self.copy_sizes(expr.id, arg);
            return Range::exactly(1) + cost;
        }
        let args: Vec<Arg<'_>> = args.iter().map(|arg| self.argument(arg)).collect();
        let checked = self.checked;
        let overloads = checked.overloads(expr.id);
        if overloads.is_empty() {
            return Range::default();
        }
        let target = target.as_deref().map(|target| self.argument(target));
        let sum = target.as_ref().map_or_else(Range::default, |target| target.cost);
        let arguments = args.iter().fold(Range::default(), |sum, arg| sum + arg.cost);
        let mut cost = Range { min: u64::MAX, max: 0 };
        let mut result: Option<Range> = None;
        for overload in overloads {
            let call = Call { function, overload, target: target.as_ref(), args: &args };
            let (one, size) = match extension(self, &call).or_else(|| library(self, &call)) {
                Some((one, size)) => (one + arguments, size),
                None => self.standard(expr, &call, arguments),
            };
            cost = cost.union(one);
            if let Some(size) = size {
                result = Some(result.map_or(size, |result| result.union(size)));
            }
            let step = match *overload {
                "index_list" => "@items",
                "index_map" => "@values",
                _ => "",
            };
            if let (Some(first), false) = (args.first(), step.is_empty()) {
                result = self.entry(first.expr).map(|entry| entry.value);
                let path = self.path_below(first.expr, step);
                self.paths.insert(expr.id, path);
            }
            if result.is_none() {
                result = self.size(expr);
            }
        }
        if let Some(size) = result {
            self.computed.insert(expr.id, size);
        }
        sum + cost
    }

    fn argument<'e>(&mut self, expr: &'e Expr) -> Arg<'e> {
        let cost = self.cost(expr);
        let mut path = self.path(expr);
        if path.first().is_some_and(|root| root == ACCUMULATOR) {
            path.clear();
        }
        Arg { expr, ty: self.checked.ty(expr.id), path, size: self.size(expr), cost }
    }

    fn standard(&mut self, expr: &Expr, call: &Call<'_>, arguments: Range) -> Estimate {
        let size = |arg: Option<&Arg<'_>>| arg.and_then(|arg| arg.size).unwrap_or(Range::UNKNOWN);
        let (target, args) = (call.target, call.args);
        let at = |index: usize| size(args.get(index));
        match (call.overload, args.len()) {
            ("string_format", _) if target.is_some() => (size(target).scaled(TRAVERSAL) + arguments, None),
            ("string_to_bytes", 1) => {
                let result = Range { min: at(0).min, max: at(0).max.wrapping_mul(4) };
                (at(0).scaled(TRAVERSAL) + arguments, Some(result))
            }
            ("bytes_to_string", 1) => {
                let result = Range { min: at(0).min / 4, max: at(0).max };
                (at(0).scaled(TRAVERSAL) + arguments, Some(result))
            }
            ("strings_quote", 1) => {
                let result =
                    Range { min: at(0).min.wrapping_add(2), max: at(0).max.wrapping_mul(2).wrapping_add(2) };
                (at(0).scaled(TRAVERSAL) + arguments, Some(result))
            }
            ("starts_with_string" | "ends_with_string", 1) => (at(0).scaled(TRAVERSAL) + arguments, None),
            ("in_list", 2) => (at(1) + arguments, None),
            ("matches_string", 1) if target.is_some() => (matching(size(target), at(0)) + arguments, None),
            ("contains_string", 1) if target.is_some() => {
                (size(target).scaled(TRAVERSAL).times(at(0).scaled(TRAVERSAL)) + arguments, None)
            }
            ("logical_or" | "logical_and", 2) => {
                let (left, both) = (args[0].cost, args[0].cost + args[1].cost);
                (Range { min: left.min, max: both.max }, None)
            }
            ("conditional", 3) => {
                let entry = Entry::union(self.entry(args[1].expr), self.entry(args[2].expr));
                if let Some(entry) = entry {
                    self.entries.insert(expr.id, entry);
                }
                (args[0].cost + args[1].cost.union(args[2].cost), Some(at(1).union(at(2))))
            }
            ("add_string" | "add_bytes" | "add_list", 2) => {
                let result = at(0) + at(1);
                let entry = Entry::union(self.entry(args[0].expr), self.entry(args[1].expr));
                if let Some(entry) = entry {
                    self.entries.insert(expr.id, entry);
                }
                let cost = match call.overload {
                    "add_list" => Range::exactly(1),
                    _ => result.scaled(TRAVERSAL),
                };
                (cost + arguments, Some(result))
            }
            (overload, 2) if compares_sizes(overload) => {
                let smaller = at(0).max.min(at(1).max);
                let compared = Range { min: u64::from(smaller > 0), max: smaller };
                (compared.scaled(TRAVERSAL) + arguments, None)
            }
            _ => (Range::exactly(1) + arguments, None),
        }
    }
}

fn compares_sizes(overload: &str) -> bool {
    matches!(overload, "equals" | "not_equals")
        || (overload.starts_with("less_") || overload.starts_with("greater_"))
            && (overload.ends_with("_string") || overload.ends_with("_bytes"))
}

fn matching(text: Range, regex: Range) -> Range {
    (text + Range::exactly(1)).scaled(TRAVERSAL).times(regex.scaled(REGEX_LENGTH))
}

/// The size of an argument as Kubernetes' own estimator sees it.
fn size_of(coster: &Coster<'_>, arg: &Arg<'_>) -> Range {
    arg.size.or_else(|| coster.data_size(&arg.path)).unwrap_or(Range::UNKNOWN)
}

/// A whole number written as a literal.
fn literal_int(arg: &Arg<'_>) -> Option<i64> {
    match &arg.expr.kind {
        ExprKind::Literal(Literal::Int(value)) => Some(*value),
        _ => None,
    }
}

/// Functions of the language's extensions that say themselves what they cost.
fn extension(coster: &Coster<'_>, call: &Call<'_>) -> Option<Estimate> {
    let int = |arg: &Arg<'_>, default: u64| literal_int(arg).map_or(default, |value| value.max(0) as u64);
    let making = |factor: f64, size: Range| {
        Some((size.scaled(factor) + Range::exactly(1) + Range::exactly(LIST_COST), Some(size)))
    };
    let pair = |factor: f64| {
        let [a, b] = call.args else { return None };
        let product = size_of(coster, a).times(size_of(coster, b));
        Some((product.scaled(factor) + Range::exactly(1), None))
    };
    let target = call.target.map(|target| size_of(coster, target));
    match (call.overload, target, call.args) {
        ("list_sets_contains_list" | "list_sets_intersects_list", _, _) => pair(1.0),
        ("list_sets_equivalent_list", _, _) => pair(2.0),
        ("list_slice", Some(size), [start, end]) => {
            making(1.0, Range::exactly(int(end, size.max).wrapping_sub(int(start, 0))))
        }
        ("lists_range", None, [end]) => making(1.0, Range::exactly(int(end, u64::MAX))),
        ("list_reverse", Some(size), []) => making(1.0, size),
        ("list_flatten" | "list_flatten_int", Some(size), args) => {
            let depth = args.first().map_or(1, |depth| int(depth, u64::MAX));
            making(depth as f64, size)
        }
        ("list_distinct", Some(size), []) => making(2.0, size.times(size)),
        (sort, Some(size), []) if sort.ends_with("_sort") => making(sort_factor(sort), size.times(size)),
        (sort, Some(_), [keys]) if sort.ends_with("_sortByAssociatedKeys") => {
            let size = size_of(coster, keys);
            making(sort_factor(sort), size.times(size))
        }
        _ => None,
    }
}

fn sort_factor(overload: &str) -> f64 {
    match overload.starts_with("list_string_") || overload.starts_with("list_bytes_") {
        true => 2.0 + TRAVERSAL,
        false => 2.0,
    }
}

/// Functions of Kubernetes' own libraries, and those whose cost it sets itself.
fn library(coster: &Coster<'_>, call: &Call<'_>) -> Option<Estimate> {
    let args = call.args;
    let first = args.first().map(|arg| size_of(coster, arg));
    let target = call.target.map(|target| size_of(coster, target));
    let read = |times: f64| first.map(|size| (size.scaled(times * TRAVERSAL), None));
    let one = Some((Range::exactly(1), None));
    match call.function {
        "check" => Some((Range::exactly(AUTHORIZATION), None)),
        "serviceAccount" | "path" | "group" | "resource" | "subresource" | "namespace" | "name"
        | "allowed" | "reason" | "error" | "errored" => one,
        "fieldSelector" | "labelSelector" => first.map(|size| {
            let requirements = size.scaled(0.5).scaled((LIST_COST + STRUCT_COST) as f64);
            (Range::exactly(LIST_COST) + size.scaled(TRAVERSAL) + requirements, None)
        }),
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => search(coster, call.target?),
        "url" | "jsonpatch.escapeKey" if args.len() == 1 => {
            first.map(|size| (size.scaled(TRAVERSAL), Some(size)))
        }
        "lowerAscii" | "upperAscii" | "substring" | "trim" => {
            target.map(|size| (size.scaled(TRAVERSAL), Some(size)))
        }
        "replace" => replace(coster, target?, args),
        "split" => target.map(|size| {
            let most = args.get(1).and_then(literal_int).map_or(size.max, |limit| limit as u64);
            (size.scaled(2.0 * TRAVERSAL), Some(Range { min: 0, max: most }))
        }),
        "join" => join(coster, call.target?, args),
        "find" | "findAll" => target
            .zip(first)
            .map(|(text, regex)| (matching(text, regex), Some(Range { min: 0, max: text.max }))),
        "ip" if call.overload == "cidr_ip" => one,
        "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver" => read(1.0),
        "ip.isCanonical" => read(2.0),
        "containsIP" | "containsCIDR" => first.map(|size| {
            let bytes = Range { min: 4, max: 16 };
            let mut cost = (bytes + bytes).scaled(TRAVERSAL);
            if call.function == "containsCIDR" {
                cost = cost + bytes.scaled(TRAVERSAL) + Range::exactly(1);
            }
            if call.overload.ends_with("_string") {
                cost = cost + size.scaled(TRAVERSAL);
            }
            (cost, None)
        }),
        "validate" => {
            first.map(|size| (size.scaled(TRAVERSAL).scaled(MAX_FORMAT_REGEX * REGEX_LENGTH), None))
        }
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
        | "getQuery" => one,
        "_==_" => equality(args),
        _ => None,
    }
}

/// Looking at each element of a list, or at each character of text.
fn search(coster: &Coster<'_>, target: &Arg<'_>) -> Option<Estimate> {
    let size = size_of(coster, target);
    let Some((item, ty)) = element(coster, target) else { return Some((size.scaled(TRAVERSAL), None)) };
    let mut each = Range::exactly(1);
    if matches!(ty, Type::String | Type::Bytes) {
        each = each + item.scaled(TRAVERSAL);
    }
    Some((size.times(each), None))
}

/// The size and type of the elements of a list.
fn element(coster: &Coster<'_>, list: &Arg<'_>) -> Option<(Range, Type)> {
    let ty = list.ty.params().first().map(|ty| Type::clone(ty))?;
    let size = match list.path.is_empty() {
        true => None,
        false => {
            let mut path = list.path.clone();
            path.push("@items".to_owned());
            coster.data_size(&path)
        }
    };
    Some((size.unwrap_or(Range::UNKNOWN), ty))
}

fn replace(coster: &Coster<'_>, text: Range, args: &[Arg<'_>]) -> Option<Estimate> {
    let (old, new) = (size_of(coster, args.first()?), size_of(coster, args.get(1)?));
    let divide = |a: u64, b: u64| (a as f64 / b as f64).ceil() as u64;
    // How often something is replaced, and how much stays as it is.
    let (mut times, mut kept) = (Range::default(), Range::default());
    if old.min == 0 {
        (times.max, kept.max) = (text.max.saturating_add(1), text.max);
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        times.max = divide(text.max, old.min);
    }
    if old.max == 0 {
        (times.min, kept.min) = (text.min.saturating_add(1), text.min);
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        times.min = divide(text.min, old.max);
    }
    Some((text.scaled(2.0 * TRAVERSAL), Some(times.times(new) + kept)))
}

fn join(coster: &Coster<'_>, list: &Arg<'_>, args: &[Arg<'_>]) -> Option<Estimate> {
    let count = size_of(coster, list);
    let mut size = element(coster, list).map_or_else(Range::default, |(item, _)| count.times(item));
    if let Some(separator) = args.first() {
        let between = Range { min: count.min.saturating_sub(1), max: count.max.saturating_sub(1) };
        size = size + size_of(coster, separator).times(between);
    }
    Some((size.scaled(TRAVERSAL), Some(size)))
}

/// Comparing two values of one of Kubernetes' own types.
fn equality(args: &[Arg<'_>]) -> Option<Estimate> {
    let [a, b] = args else { return None };
    if a.ty != b.ty {
        return None;
    }
    let most = match (&a.ty, a.ty.name()) {
        (Type::Opaque(..), "net.IP" | "net.CIDR") => return Some((Range::exactly(1), None)),
        (Type::Struct(_), "kubernetes.NamedFormat") => MAX_FORMAT,
        (Type::Struct(_), "kubernetes.URL") => b.size.map_or(1, |size| size.max),
        (Type::Struct(_), name) if name.starts_with("kubernetes.") => return Some((Range::exactly(1), None)),
        _ => return None,
    };
    Some((Range { min: 1, max: most }.scaled(TRAVERSAL), None))
}
