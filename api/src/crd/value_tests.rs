//! Values against schemas, with go-openapi's sentences.

use serde_json::json;

use super::*;

fn problems(schema: Value, value: Value) -> Vec<String> {
    let schema: Props = serde_json::from_value(schema).expect("a schema");
    Checker::new(&schema).check(&value, &Path::root()).iter().map(ToString::to_string).collect()
}

#[test]
fn keywords_hold_or_say_why_not() {
    let spec = |inner: Value| json!({"type": "object", "properties": {"a": inner}});
    for (inner, good, bad) in [
        (json!({"type": "string"}), json!("x"), json!(1)),
        (json!({"type": "integer"}), json!(1), json!(1.5)),
        (json!({"type": "boolean"}), json!(true), json!("true")),
        (json!({"type": "integer", "minimum": 2}), json!(2), json!(1)),
        (json!({"type": "integer", "maximum": 2, "exclusiveMaximum": true}), json!(1), json!(2)),
        (json!({"type": "integer", "multipleOf": 5}), json!(10), json!(11)),
        (json!({"type": "string", "minLength": 2}), json!("ab"), json!("a")),
        (json!({"type": "string", "maxLength": 1}), json!("a"), json!("ab")),
        (json!({"type": "string", "pattern": "^a+$"}), json!("aa"), json!("b")),
        (json!({"type": "string", "enum": ["x", "y"]}), json!("x"), json!("z")),
        (json!({"type": "string", "format": "ipv4"}), json!("1.2.3.4"), json!("::1")),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a"]),
            json!(["a", "b"]),
        ),
        (json!({"type": "object", "required": ["k"]}), json!({"k": 1}), json!({})),
        (json!({"x-kubernetes-int-or-string": true}), json!("1"), json!(true)),
        (json!({"type": "string", "nullable": true}), Value::Null, json!(1)),
        (json!({"type": "integer", "oneOf": [{"minimum": 5}, {"maximum": 3}]}), json!(6), json!(4)),
        (json!({"type": "integer", "not": {"minimum": 5}}), json!(4), json!(5)),
    ] {
        assert_eq!(problems(spec(inner.clone()), json!({"a": good})), Vec::<String>::new(), "{inner}");
        assert!(!problems(spec(inner.clone()), json!({"a": bad})).is_empty(), "{inner}");
    }
}

#[test]
fn problems_have_upstreams_words() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}, "s": {"type": "string"}}});
    assert_eq!(
        problems(schema.clone(), json!({"n": 1})),
        [r#"n: Invalid value: 1: n in body should be greater than or equal to 3"#]
    );
    assert_eq!(
        problems(schema, json!({"s": 1})),
        [r#"s: Invalid value: "integer": s in body must be of type string: "integer""#]
    );
}
