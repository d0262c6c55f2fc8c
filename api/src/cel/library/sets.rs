//! Lists as sets.

use crate::cel::eval::{Evaluated, Fault};
use crate::cel::function::{Function, function, plain};
use crate::cel::value::{List, Value, ops};

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function("sets.contains", &[plain("list_sets_contains_list", "list(T), list(T) -> bool")], |_, args| {
        lists(args, contains)
    }),
    function(
        "sets.equivalent",
        &[plain("list_sets_equivalent_list", "list(T), list(T) -> bool")],
        |_, args| lists(args, |a, b| Ok(contains(a, b)? && contains(b, a)?)),
    ),
    function(
        "sets.intersects",
        &[plain("list_sets_intersects_list", "list(T), list(T) -> bool")],
        |_, args| lists(args, intersects),
    ),
];

fn lists<'a>(args: &[Value<'a>], holds: fn(&List<'a>, &List<'a>) -> Result<bool, Fault>) -> Evaluated<'a> {
    match args {
        [Value::List(a), Value::List(b)] => holds(a, b).map(Value::Bool),
        _ => Err(Fault::no_such_overload()),
    }
}

/// Whether all elements of `part` are in `list`.
fn contains(list: &List<'_>, part: &List<'_>) -> Result<bool, Fault> {
    let list = Value::List(list.clone());
    for item in part.iter() {
        if !ops::contains(&list, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects(a: &List<'_>, b: &List<'_>) -> Result<bool, Fault> {
    let b = Value::List(b.clone());
    for item in a.iter() {
        if ops::contains(&b, &item?).unwrap_or_default() {
            return Ok(true);
        }
    }
    Ok(false)
}
