//! Optional values.

use crate::cel::ast::operators as op;
use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member, operator, plain};
use crate::cel::value::{List, Value};

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function("optional.of", &[plain("optional_of", "V -> optional(V)")], |_, args| {
        Ok(Value::some(args[0].clone()))
    }),
    function(
        "optional.ofNonZeroValue",
        &[plain("optional_ofNonZeroValue", "V -> optional(V)")],
        |_, args| Ok(if args[0].is_zero() { Value::Optional(None) } else { Value::some(args[0].clone()) }),
    ),
    function("optional.none", &[plain("optional_none", "-> optional(V)")], |_, _| Ok(Value::Optional(None))),
    function("value", &[member("optional_value", "optional(V) -> V")], |_, args| match &args[0] {
        Value::Optional(Some(value)) => Ok(Value::clone(value)),
        _ => Err(Fault::new("optional.none() dereference")),
    }),
    function("hasValue", &[member("optional_hasValue", "optional(V) -> bool")], |_, args| {
        Ok(Value::Bool(matches!(&args[0], Value::Optional(Some(_)))))
    }),
    function("or", &[member("optional_or_optional", "optional(V), optional(V) -> optional(V)")], unreachable),
    function("orValue", &[member("optional_orValue_value", "optional(V), V -> V")], unreachable),
    operator(op::OPT_SELECT, &[plain("select_optional_field", "dyn, string -> optional(V)")], unreachable),
    operator(
        op::OPT_INDEX,
        &[
            plain("list_optindex_optional_int", "list(V), int -> optional(V)"),
            plain("optional_list_optindex_optional_int", "optional(list(V)), int -> optional(V)"),
            plain("map_optindex_optional_value", "map(K, V), K -> optional(V)"),
            plain("optional_map_optindex_optional_value", "optional(map(K, V)), K -> optional(V)"),
        ],
        unreachable,
    ),
    operator(
        op::INDEX,
        &[
            plain("optional_list_index_int", "optional(list(V)), int -> optional(V)"),
            plain("optional_map_index_value", "optional(map(K, V)), K -> optional(V)"),
        ],
        unreachable,
    ),
    function("last", &[member("list_last", "list(V) -> optional(V)")], |_, args| {
        element(&args[0], |list| list.len().checked_sub(1))
    }),
    function("first", &[member("list_first", "list(V) -> optional(V)")], |_, args| {
        element(&args[0], |list| (!list.is_empty()).then_some(0))
    }),
    function("optional.unwrap", &[plain("optional_unwrap", "list(optional(V)) -> list(V)")], unwrap),
    function("unwrapOpt", &[member("optional_unwrapOpt", "list(optional(V)) -> list(V)")], unwrap),
];

/// What is evaluated by itself, not called.
fn unreachable<'a>(context: &Context<'_>, _: &[Value<'a>]) -> Evaluated<'a> {
    Err(Fault::new(format!("no such overload: {}", context.function)))
}

fn element<'a>(list: &Value<'a>, at: impl FnOnce(&List<'a>) -> Option<usize>) -> Evaluated<'a> {
    match list {
        Value::List(list) => match at(list) {
            Some(at) => list.get(at).map(Value::some),
            None => Ok(Value::Optional(None)),
        },
        _ => Err(Fault::no_such_overload()),
    }
}

fn unwrap<'a>(_: &Context<'_>, args: &[Value<'a>]) -> Evaluated<'a> {
    let Value::List(list) = &args[0] else { return Err(Fault::no_such_overload()) };
    let mut values = Vec::new();
    for item in list.iter() {
        match item? {
            Value::Optional(value) => values.extend(value.map(|value| Value::clone(&value))),
            other => return Err(Fault::new(format!("value {other} is not optional"))),
        }
    }
    Ok(Value::list(values))
}
