//! Numbers: comparing them across types, converting and printing them as Go does.

use std::cmp::Ordering;

use crate::cel::eval::Fault;

use super::Value;

const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

/// The order of two numbers of any types; `None` when one of them is not a number of these.
pub(super) fn compare(a: &Value<'_>, b: &Value<'_>) -> Option<Result<Ordering, Fault>> {
    let double = |a: f64, b: f64| a.partial_cmp(&b).ok_or_else(|| Fault::new("NaN values cannot be ordered"));
    Some(match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a.cmp(b)),
        (Value::Uint(a), Value::Uint(b)) => Ok(a.cmp(b)),
        (Value::Double(a), Value::Double(b)) => double(*a, *b),
        (Value::Int(a), Value::Uint(b)) => Ok(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Uint(a), Value::Int(b)) => Ok(i128::from(*a).cmp(&i128::from(*b))),
        (Value::Double(a), Value::Int(b)) => double(*a, *b as f64),
        (Value::Int(a), Value::Double(b)) => double(*a as f64, *b),
        (Value::Double(a), Value::Uint(b)) => double(*a, *b as f64),
        (Value::Uint(a), Value::Double(b)) => double(*a as f64, *b),
        _ => return None,
    })
}

/// The whole part, unless out of range.
pub(crate) fn double_to_int(value: f64) -> Result<i64, Fault> {
    match value.is_finite() && value > i64::MIN as f64 && value < i64::MAX as f64 {
        true => Ok(value as i64),
        false => Err(Fault::new("integer overflow")),
    }
}

/// The whole part, unless out of range.
pub(crate) fn double_to_uint(value: f64) -> Result<u64, Fault> {
    match value.is_finite() && (0.0..TWO_TO_64).contains(&value) {
        true => Ok(value as u64),
        false => Err(Fault::new("unsigned integer overflow")),
    }
}

/// A number as Go's `%g` prints it: shortest digits, with an exponent below 1e-4 and from 1e6 on.
pub(crate) fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_print_as_in_go() {
        let cases = [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (100_000.0, "100000"),
            (1_000_000.0, "1e+06"),
            (123_456_789.0, "1.23456789e+08"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e100, "1e+100"),
            (f64::INFINITY, "+Inf"),
        ];
        for (value, want) in cases {
            assert_eq!(format_double(value), want);
        }
    }
}
