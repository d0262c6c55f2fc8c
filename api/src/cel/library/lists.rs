//! Functions on lists: Kubernetes' own, and those of the language's extension.

use std::cmp::Ordering;

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member, operator, plain};
use crate::cel::value::{List, Value, ops};

/// The longest list that is made; no budget allows for more.
const MAX_LENGTH: i64 = 10_000_000;

/// Kubernetes' own functions.
pub(crate) const FUNCTIONS: &[Function] = &[
    function(
        "isSorted",
        &[
            member("list_int_is_sorted_bool", "list(int) -> bool"),
            member("list_uint_is_sorted_bool", "list(uint) -> bool"),
            member("list_double_is_sorted_bool", "list(double) -> bool"),
            member("list_bool_is_sorted_bool", "list(bool) -> bool"),
            member("list_duration_is_sorted_bool", "list(duration) -> bool"),
            member("list_timestamp_is_sorted_bool", "list(timestamp) -> bool"),
            member("list_string_is_sorted_bool", "list(string) -> bool"),
            member("list_bytes_is_sorted_bool", "list(bytes) -> bool"),
        ],
        is_sorted,
    ),
    // With an empty list the type of the elements decides, so each has a row of its own.
    function("sum", &[member("list_int_sum_int", "list(int) -> int")], |_, args| {
        sum(&args[0], Value::Int(0))
    }),
    function("sum", &[member("list_uint_sum_uint", "list(uint) -> uint")], |_, args| {
        sum(&args[0], Value::Uint(0))
    }),
    function("sum", &[member("list_double_sum_double", "list(double) -> double")], |_, args| {
        sum(&args[0], Value::Double(0.0))
    }),
    function("sum", &[member("list_duration_sum_duration", "list(duration) -> duration")], |_, args| {
        sum(&args[0], Value::Duration(0))
    }),
    function(
        "max",
        &[
            member("list_int_max_int", "list(int) -> int"),
            member("list_uint_max_uint", "list(uint) -> uint"),
            member("list_double_max_double", "list(double) -> double"),
            member("list_bool_max_bool", "list(bool) -> bool"),
            member("list_duration_max_duration", "list(duration) -> duration"),
            member("list_timestamp_max_timestamp", "list(timestamp) -> timestamp"),
            member("list_string_max_string", "list(string) -> string"),
            member("list_bytes_max_bytes", "list(bytes) -> bytes"),
        ],
        |_, args| extreme(&args[0], "max", Ordering::Less),
    ),
    function(
        "min",
        &[
            member("list_int_min_int", "list(int) -> int"),
            member("list_uint_min_uint", "list(uint) -> uint"),
            member("list_double_min_double", "list(double) -> double"),
            member("list_bool_min_bool", "list(bool) -> bool"),
            member("list_duration_min_duration", "list(duration) -> duration"),
            member("list_timestamp_min_timestamp", "list(timestamp) -> timestamp"),
            member("list_string_min_string", "list(string) -> string"),
            member("list_bytes_min_bytes", "list(bytes) -> bytes"),
        ],
        |_, args| extreme(&args[0], "min", Ordering::Greater),
    ),
    function("indexOf", &[member("list_a_index_of_int", "list(A), A -> int")], |_, args| {
        search(&args[0], &args[1], |list| Box::new(0..list.len()))
    }),
    function("lastIndexOf", &[member("list_a_last_index_of_int", "list(A), A -> int")], |_, args| {
        search(&args[0], &args[1], |list| Box::new((0..list.len()).rev()))
    }),
];

/// The functions of the language's extension.
pub(crate) const EXTENSION: &[Function] = &[
    function("slice", &[member("list_slice", "list(T), int, int -> list(T)")], slice),
    operator(
        "flatten",
        &[
            member("list_flatten", "list(list(T)) -> list(T)"),
            member("list_flatten_int", "list(dyn), int -> list(dyn)"),
        ],
        flatten,
    ),
    operator(
        "sort",
        &[
            member("list_int_sort", "list(int) -> list(int)"),
            member("list_uint_sort", "list(uint) -> list(uint)"),
            member("list_double_sort", "list(double) -> list(double)"),
            member("list_bool_sort", "list(bool) -> list(bool)"),
            member("list_google.protobuf.Duration_sort", "list(duration) -> list(duration)"),
            member("list_google.protobuf.Timestamp_sort", "list(timestamp) -> list(timestamp)"),
            member("list_string_sort", "list(string) -> list(string)"),
            member("list_bytes_sort", "list(bytes) -> list(bytes)"),
        ],
        |_, args| sort(&args[0], &args[0]),
    ),
    operator(
        "@sortByAssociatedKeys",
        &[
            member("list_int_sortByAssociatedKeys", "list(T), list(int) -> list(T)"),
            member("list_uint_sortByAssociatedKeys", "list(T), list(uint) -> list(T)"),
            member("list_double_sortByAssociatedKeys", "list(T), list(double) -> list(T)"),
            member("list_bool_sortByAssociatedKeys", "list(T), list(bool) -> list(T)"),
            member(
                "list_google.protobuf.Duration_sortByAssociatedKeys",
                "list(T), list(duration) -> list(T)",
            ),
            member(
                "list_google.protobuf.Timestamp_sortByAssociatedKeys",
                "list(T), list(timestamp) -> list(T)",
            ),
            member("list_string_sortByAssociatedKeys", "list(T), list(string) -> list(T)"),
            member("list_bytes_sortByAssociatedKeys", "list(T), list(bytes) -> list(T)"),
        ],
        |_, args| sort(&args[0], &args[1]),
    ),
    function("lists.range", &[plain("lists_range", "int -> list(int)")], range),
    function("reverse", &[member("list_reverse", "list(T) -> list(T)")], reverse),
    function("distinct", &[member("list_distinct", "list(T) -> list(T)")], distinct),
];

fn list<'v, 'a>(value: &'v Value<'a>) -> Result<&'v List<'a>, Fault> {
    match value {
        Value::List(list) => Ok(list),
        _ => Err(Fault::no_such_overload()),
    }
}

fn is_sorted<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut previous: Option<Value<'a>> = None;
    for item in list(&args[0])?.iter() {
        let item = item?;
        if let Some(previous) = &previous
            && ops::compare("isSorted", previous, &item).is_ok_and(Ordering::is_gt)
        {
            return Ok(Value::Bool(false));
        }
        previous = Some(item);
    }
    Ok(Value::Bool(true))
}

fn sum<'a>(value: &Value<'a>, zero: Value<'a>) -> Evaluated<'a> {
    let mut total: Option<Value<'a>> = None;
    for item in list(value)?.iter() {
        let item = item?;
        total = Some(match total {
            // Rows are tried in order; the first element says which one it should have been.
            None if std::mem::discriminant(&item) != std::mem::discriminant(&zero) => item,
            None => ops::add(&zero, &item)?,
            Some(total) => ops::add(&total, &item)?,
        });
    }
    Ok(total.unwrap_or(zero))
}

fn extreme<'a>(value: &Value<'a>, name: &str, replace: Ordering) -> Evaluated<'a> {
    let mut best: Option<Value<'a>> = None;
    for item in list(value)?.iter() {
        let item = item?;
        let better = match &best {
            None => true,
            Some(best) => ops::compare(name, best, &item) == Ok(replace),
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| Fault::new(format!("{name} called on empty list")))
}

fn search<'a>(
    value: &Value<'a>,
    wanted: &Value<'a>,
    order: impl Fn(&List<'a>) -> Box<dyn Iterator<Item = usize>>,
) -> Evaluated<'a> {
    let list = list(value)?;
    for at in order(list) {
        if ops::equal(&list.get(at)?, wanted).unwrap_or_default() {
            return Ok(Value::Int(at as i64));
        }
    }
    Ok(Value::Int(-1))
}

fn slice<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let [Value::List(list), Value::Int(start), Value::Int(end)] = args else {
        return Err(Fault::no_such_overload());
    };
    let fail = |why: &str| Err(Fault::new(format!("cannot slice({start}, {end}), {why}")));
    let (Ok(from), Ok(to)) = (usize::try_from(*start), usize::try_from(*end)) else {
        return fail("negative indexes not supported");
    };
    if from > to {
        return fail("start index must be less than or equal to end index");
    }
    if to > list.len() {
        return fail(&format!("list is length {}", list.len()));
    }
    (from..to).map(|at| list.get(at)).collect::<Result<_, _>>().map(Value::list)
}

fn flatten<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let depth = match args.get(1) {
        None => 1,
        Some(Value::Int(depth)) => *depth,
        Some(_) => return Err(Fault::no_such_overload()),
    };
    if depth < 0 {
        return Err(Fault::new("level must be non-negative"));
    }
    let mut out = Vec::new();
    flatten_into(list(&args[0])?, depth, &mut out)?;
    Ok(Value::list(out))
}

fn flatten_into<'a>(list: &List<'a>, depth: i64, out: &mut Vec<Value<'a>>) -> Result<(), Fault> {
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => flatten_into(&inner, depth - 1, out)?,
            item => out.push(item),
        }
        if out.len() as i64 > MAX_LENGTH {
            return Err(Fault::CostLimit);
        }
    }
    Ok(())
}

fn sort<'a>(values: &Value<'a>, keys: &Value<'a>) -> Evaluated<'a> {
    let (values, keys) = (list(values)?, list(keys)?);
    if values.len() != keys.len() {
        return Err(Fault::new(format!(
            "@sortByAssociatedKeys() expected a list of the same size as the associated keys list, but got {} and {} elements respectively",
            values.len(),
            keys.len()
        )));
    }
    let mut pairs = Vec::with_capacity(values.len());
    for (value, key) in values.iter().zip(keys.iter()) {
        pairs.push((key?, value?));
    }
    let Some((first, _)) = pairs.first() else { return Ok(Value::List(values.clone())) };
    if matches!(ops::compare("sort", first, first), Err(Fault::Error(_)))
        && !matches!(first, Value::Double(_))
    {
        return Err(Fault::new("list elements must be comparable"));
    }
    let kind = std::mem::discriminant(first);
    if pairs.iter().any(|(key, _)| std::mem::discriminant(key) != kind) {
        return Err(Fault::new("list elements must have the same type"));
    }
    pairs.sort_by(|a, b| match (&a.0, &b.0) {
        (Value::Double(a), Value::Double(b)) => a.total_cmp(b),
        (a, b) => ops::compare("sort", a, b).unwrap_or(Ordering::Equal),
    });
    Ok(Value::list(pairs.into_iter().map(|(_, value)| value).collect()))
}

fn range<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    match &args[0] {
        Value::Int(end) if *end > MAX_LENGTH => Err(Fault::CostLimit),
        Value::Int(end) => Ok(Value::list((0..*end).map(Value::Int).collect())),
        _ => Err(Fault::no_such_overload()),
    }
}

fn reverse<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let list = list(&args[0])?;
    (0..list.len()).rev().map(|at| list.get(at)).collect::<Result<_, _>>().map(Value::list)
}

fn distinct<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let mut seen: Vec<Value<'a>> = Vec::new();
    for item in list(&args[0])?.iter() {
        let item = item?;
        if !seen.iter().any(|other| ops::equal(&item, other).unwrap_or_default()) {
            seen.push(item);
        }
    }
    Ok(Value::list(seen))
}
