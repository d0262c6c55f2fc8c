//! Rules against objects, and against definitions.

use serde_json::json;

use super::*;
use crate::crd::Props;

fn schema(spec: Json) -> Props {
    let value = json!({"type": "object", "properties": {"spec": spec}});
    serde_json::from_value(value).expect("a schema")
}

/// What is wrong, and what is warned of.
fn verdict(spec: Json, new: Json, old: Option<Json>) -> (Vec<String>, Vec<String>) {
    let schema = schema(spec);
    let rules = Rules::of_resource(&schema).expect("rules");
    let object =
        |spec: Json| json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, "spec": spec});
    let (new, old) = (object(new), old.map(object));
    let found = rules.check(&new, old.as_ref(), &schema);
    (found.errors.iter().map(ToString::to_string).collect(), found.warnings)
}

fn errors(spec: Json, new: Json, old: Option<Json>) -> Vec<String> {
    verdict(spec, new, old).0
}

#[test]
fn a_rule_that_does_not_hold_is_told_in_its_words() {
    let numbers = |rule: Json| {
        json!({"type": "object", "x-kubernetes-validations": [rule],
               "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}}})
    };
    let data = json!({"min": 3, "max": 2});
    let cases = [
        (json!({}), "spec: Invalid value: failed rule: self.min <= self.max"),
        (json!({"message": " too small "}), "spec: Invalid value: too small"),
        (json!({"messageExpression": "'max is ' + string(self.max)"}), "spec: Invalid value: max is 2"),
        // What an expression cannot say, the message says.
        (json!({"message": "m", "messageExpression": "'a\\nb'"}), "spec: Invalid value: m"),
        (json!({"message": "m", "messageExpression": "' '"}), "spec: Invalid value: m"),
        (json!({"message": "m", "reason": "FieldValueForbidden"}), "spec: Forbidden: m"),
        (json!({"message": "m", "reason": "FieldValueRequired"}), "spec: Required value: m"),
        (json!({"message": "m", "reason": "FieldValueDuplicate"}), "spec: Duplicate value"),
        (json!({"message": "m", "fieldPath": ".max"}), "spec.max: Invalid value: m"),
    ];
    for (parts, wanted) in cases {
        let mut rule = json!({"rule": "self.min <= self.max"});
        rule.as_object_mut().expect("an object").extend(parts.as_object().expect("an object").clone());
        assert_eq!(errors(numbers(rule.clone()), data.clone(), None), [wanted], "{rule}");
        assert!(errors(numbers(rule), json!({"min": 1, "max": 2}), None).is_empty());
    }
}

#[test]
fn faults_name_their_rule() {
    let spec = |rule: &str| {
        json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}], "properties": {
            "m": {"type": "object", "additionalProperties": {"type": "integer"}},
            "p": {"x-kubernetes-int-or-string": true}}})
    };
    assert_eq!(
        errors(spec("self.m['a'] == 1"), json!({"m": {}}), None),
        ["spec: Invalid value: \"object\": no such key: a evaluating rule: self.m['a'] == 1"]
    );
    let rule = "self.p > 'a'";
    let wanted = format!(
        "spec: Invalid value: \"object\": 'no such overload': call arguments did not match a supported operator, \
         function or macro signature for rule: {rule}"
    );
    assert_eq!(errors(spec(rule), json!({"p": 1}), None), [wanted]);
    let wrong = errors(spec("self.nope == 1"), json!({"m": {}}), None);
    assert!(
        wrong[0]
            .starts_with("spec: Invalid value: \"object\": rule compile error: compilation failed: ERROR"),
        "{wrong:?}"
    );
}

#[test]
fn transitions_need_an_old_value() {
    let spec = json!({"type": "object", "properties": {
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "is fixed"}]},
        "first": {"type": "string", "x-kubernetes-validations": [
            {"rule": "oldSelf.hasValue() || self == 'a'", "message": "begins with a", "optionalOldSelf": true}]},
        "list": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
            "type": "object", "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "shrinks"}]}}}});
    assert!(errors(spec.clone(), json!({"fixed": "x", "first": "a"}), None).is_empty());
    let wrong = errors(spec.clone(), json!({"first": "b"}), None);
    assert_eq!(wrong, ["spec.first: Invalid value: \"b\": begins with a"]);
    let wrong =
        errors(spec.clone(), json!({"fixed": "y", "first": "b"}), Some(json!({"fixed": "x", "first": "a"})));
    assert_eq!(wrong, ["spec.fixed: Invalid value: \"y\": is fixed"]);
    let item = |k: &str, v: i64| json!({"k": k, "v": v});
    let new = json!({"list": [item("b", 1), item("c", 0), item("a", 5)]});
    let old = json!({"list": [item("a", 4), item("b", 2)]});
    assert_eq!(errors(spec, new, Some(old)), ["spec.list[0]: Invalid value: shrinks"]);
}

#[test]
fn what_was_wrong_before_is_only_warned_of() {
    let spec = json!({"type": "object", "properties": {
        "a": {"type": "string", "x-kubernetes-validations": [{"rule": "self == 'good'", "message": "be good"}]},
        "b": {"type": "integer"}}});
    let (wrong, warned) =
        verdict(spec.clone(), json!({"a": "bad", "b": 2}), Some(json!({"a": "bad", "b": 1})));
    assert_eq!((wrong.len(), warned), (0, vec!["spec.a: Invalid value: \"bad\": be good".to_owned()]));
    let (wrong, warned) = verdict(spec, json!({"a": "worse"}), Some(json!({"a": "bad"})));
    assert_eq!((wrong.len(), warned.len()), (1, 0));
}

#[test]
fn all_rules_of_an_object_share_a_budget() {
    let item = json!({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [
        {"rule": "self.all(x, self.all(y, x + y >= 0))"}]});
    let spec = json!({"type": "object", "properties": {"lists": {"type": "array", "items": item}}});
    let lists = |count: usize, length: usize| json!({"lists": vec![vec![1; length]; count]});
    assert!(errors(spec.clone(), lists(2, 50), None).is_empty());
    // One that costs too much by itself ...
    let wrong = errors(spec.clone(), lists(2, 2000), None);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(
        wrong[0].contains("'operation cancelled: actual cost limit exceeded': no further validation rules"),
        "{wrong:?}"
    );
    // ... and many that do together.
    let wrong = errors(spec, lists(200, 150), None);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(
        wrong[0].ends_with("running out of cost budget, no further validation rules will be run"),
        "{wrong:?}"
    );
}

#[test]
fn schemas_without_rules_cost_nothing() {
    assert!(Rules::of_resource(&schema(json!({"type": "object"}))).is_none());
}
