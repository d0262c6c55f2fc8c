//! Values as Go's `fmt` prints them: they stand in messages that clients see.

use serde_json::{Number, Value};

use crate::schema::scalar::go_quote;

/// A number as floating point.
pub(crate) fn number(number: &Number) -> f64 {
    number.as_f64().unwrap_or(0.0)
}

/// A number as `%v` prints it.
pub(crate) fn number_text(value: &Number) -> String {
    if !value.is_f64() {
        return value.to_string();
    }
    let value = number(value);
    if value == 0.0 {
        return "0".to_owned();
    }
    let exponent = value.abs().log10().floor();
    if (-4.0..21.0).contains(&exponent) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, power)) => {
            let (sign, power) = power.strip_prefix('-').map_or(("+", power), |power| ("-", power));
            format!("{digits}e{sign}{power:0>2}")
        }
        None => text,
    }
}

/// `%v` of a value.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number_text(number),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", plain(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
    }
}

/// `%#v` of a value.
pub(crate) fn syntax(value: &Value) -> String {
    syntax_with_keys(value, "string")
}

/// `%#v` of a value whose maps have keys of this type: a YAML document has no other than `interface {}`.
pub(crate) fn syntax_with_keys(value: &Value, keys: &str) -> String {
    let syntax = |value: &Value| syntax_with_keys(value, keys);
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number_text(number),
        Value::String(text) => go_quote(text),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{}:{}", go_quote(key), syntax(value))).collect();
            format!("map[{keys}]interface {{}}{{{}}}", fields.join(", "))
        }
    }
}

/// `%T` of a value: the Go type that JSON of this kind is decoded into.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_go_prints_them() {
        let value = json!({"b": [1, "x", null], "a": {"c": 1.5}});
        assert_eq!(plain(&value), "map[a:map[c:1.5] b:[1 x <nil>]]");
        assert_eq!(
            syntax(&value),
            r#"map[string]interface {}{"a":map[string]interface {}{"c":1.5}, "b":[]interface {}{1, "x", interface {}(nil)}}"#
        );
        let numbers = json!([0.5, 1e21, 1e-7, 1.0, 123456789.0, 7]);
        assert_eq!(
            plain(&numbers),
            "[0.5 1e+21 1e-07 1 1.23456789e+08 7]".replace("1.23456789e+08", "123456789")
        );
    }
}
