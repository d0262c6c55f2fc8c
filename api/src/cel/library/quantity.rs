//! Amounts such as `100m` and `1Gi`.

use std::cmp::Ordering;

use crate::cel::eval::{Context, Evaluated, Fault};
use crate::cel::function::{Function, function, member, plain};
use crate::cel::value::Value;
use crate::quantity::{Format, Quantity};

use super::extension::Extension;

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[
    function("quantity", &[plain("string_to_quantity", "string -> kubernetes.Quantity")], |_, args| {
        match Quantity::parse(args[0].as_str().unwrap_or_default()) {
            Ok(quantity) => Ok(Value::extension(quantity)),
            Err(error) => Err(Fault::new(error.to_string())),
        }
    }),
    function("isQuantity", &[plain("is_quantity_string", "string -> bool")], |_, args| {
        Ok(Value::Bool(Quantity::parse(args[0].as_str().unwrap_or_default()).is_ok()))
    }),
    function("sign", &[plain("quantity_sign", "kubernetes.Quantity -> int")], |_, args| {
        Ok(Value::Int(i64::from(quantity(&args[0])?.sign())))
    }),
    function(
        "isGreaterThan",
        &[member("quantity_is_greater_than", "kubernetes.Quantity, kubernetes.Quantity -> bool")],
        |_, args| compare(args).map(|order| Value::Bool(order.is_gt())),
    ),
    function(
        "isLessThan",
        &[member("quantity_is_less_than", "kubernetes.Quantity, kubernetes.Quantity -> bool")],
        |_, args| compare(args).map(|order| Value::Bool(order.is_lt())),
    ),
    function(
        "compareTo",
        &[member("quantity_compare_to", "kubernetes.Quantity, kubernetes.Quantity -> int")],
        |_, args| compare(args).map(|order| Value::Int(order as i64)),
    ),
    function(
        "asApproximateFloat",
        &[member("quantity_get_float", "kubernetes.Quantity -> double")],
        |_, args| Ok(Value::Double(quantity(&args[0])?.as_f64())),
    ),
    function("asInteger", &[member("quantity_get_int", "kubernetes.Quantity -> int")], |_, args| {
        let whole = quantity(&args[0])?.as_i64();
        whole.map(Value::Int).ok_or_else(|| Fault::new("cannot convert value to integer"))
    }),
    function("isInteger", &[member("quantity_is_integer", "kubernetes.Quantity -> bool")], |_, args| {
        Ok(Value::Bool(quantity(&args[0])?.as_i64().is_some()))
    }),
    function(
        "add",
        &[
            member("quantity_add", "kubernetes.Quantity, kubernetes.Quantity -> kubernetes.Quantity"),
            member("quantity_add_int", "kubernetes.Quantity, int -> kubernetes.Quantity"),
        ],
        |context, args| combine(context, args, Quantity::add),
    ),
    function(
        "sub",
        &[
            member("quantity_sub", "kubernetes.Quantity, kubernetes.Quantity -> kubernetes.Quantity"),
            member("quantity_sub_int", "kubernetes.Quantity, int -> kubernetes.Quantity"),
        ],
        |context, args| combine(context, args, Quantity::sub),
    ),
];

fn quantity<'v>(value: &'v Value<'_>) -> Result<&'v Quantity, Fault> {
    match value {
        Value::Extension(extension) => match &**extension {
            Extension::Quantity(quantity) => Ok(quantity),
            _ => Err(Fault::no_such_overload()),
        },
        _ => Err(Fault::no_such_overload()),
    }
}

fn compare(args: &[Value<'_>]) -> Result<Ordering, Fault> {
    Ok(quantity(&args[0])?.cmp(quantity(&args[1])?))
}

fn combine<'a>(_: &Context<'_>, args: &[Value<'a>], with: fn(&mut Quantity, &Quantity)) -> Evaluated<'a> {
    let mut result = quantity(&args[0])?.clone();
    match &args[1] {
        Value::Int(number) => with(&mut result, &Quantity::new(*number, Format::DecimalExponent)),
        other => with(&mut result, quantity(other)?),
    }
    Ok(Value::extension(result))
}
