//! Cases of upstream's `defaulting/algorithm_test.go`.

use serde_json::json;

use super::*;

#[test]
fn defaults_fill_what_is_missing() {
    let object = |properties: Value| json!({"type": "object", "properties": properties});
    let with = json!({"type": "string", "default": "A"});
    let nullable = json!({"type": "string", "default": "A", "nullable": true});
    for (schema, value, filled) in [
        (json!({"type": "object"}), json!({}), json!({})),
        (object(json!({"a": with})), json!({}), json!({"a": "A"})),
        (object(json!({"a": with})), json!({"a": "B"}), json!({"a": "B"})),
        (object(json!({"a": with})), json!({"a": null}), json!({"a": "A"})),
        (object(json!({"a": nullable})), json!({"a": null}), json!({"a": null})),
        (object(json!({"o": object(json!({"a": with}))})), json!({}), json!({})),
        (object(json!({"o": object(json!({"a": with}))})), json!({"o": {}}), json!({"o": {"a": "A"}})),
        (
            object(json!({"l": {"type": "array", "items": object(json!({"a": with}))}})),
            json!({"l": [{}, {"a": "B"}]}),
            json!({"l": [{"a": "A"}, {"a": "B"}]}),
        ),
        (
            json!({"type": "object", "additionalProperties": object(json!({"a": with}))}),
            json!({"k": {}, "m": {"a": "B"}}),
            json!({"k": {"a": "A"}, "m": {"a": "B"}}),
        ),
        (
            object(json!({"o": {"type": "object", "default": {}, "properties": {"a": with}}})),
            json!({}),
            json!({"o": {"a": "A"}}),
        ),
    ] {
        let schema: Props = serde_json::from_value(schema).expect("a schema");
        let mut value = value;
        apply(&mut value, &schema);
        assert_eq!(value, filled);
    }
}
