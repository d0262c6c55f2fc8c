//! What expressions are estimated to cost and what they do cost.

use std::sync::Arc;

use serde_json::json;

use crate::cel::library::authorizer::{Authorized, Authorizer, Check, Question};
use crate::cel::{Bindings, Declared, Environment, Limits, Range, Shape, Type, Value, estimate};

struct AlwaysAllow;

impl Authorizer for AlwaysAllow {
    fn authorize(&self, _: &Question) -> Authorized {
        Authorized { allowed: true, ..Authorized::default() }
    }
}

#[test]
fn library_calls_cost_what_they_cost_upstream() {
    let mut env = Environment::kubernetes()
        .with_variable("authorizer", Type::object("kubernetes.authorization.Authorizer"));
    env.folds = false;
    let mut wrong = Vec::new();
    for line in include_str!("cost.txt").lines().filter(|line| !line.starts_with('#')) {
        let mut parts = line.splitn(4, ' ');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).expect("a number");
        let (min, max, counted) = (number(), number(), number());
        let expression = parts.next().expect("an expression");
        let checked = match env.compile(expression) {
            Ok(checked) => checked,
            Err(issues) => {
                wrong.push(issues.to_string());
                continue;
            }
        };
        let estimated = estimate(&checked, &());
        if estimated != (Range { min, max }) {
            wrong.push(format!("{expression}: estimated {estimated:?}, not {min}..{max}"));
        }
        let program = env.program(&checked).expect("a program");
        let variables = Bindings::new().bind("authorizer", Check::new(Arc::new(AlwaysAllow)).value());
        let outcome = program.evaluate(&variables, Limits::default());
        if outcome.cost != counted || outcome.value.is_err() {
            wrong.push(format!("{expression}: {:?} for {}, not {counted}", outcome.value, outcome.cost));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn limits_of_schemas_bound_estimates() {
    let schema = json!({"type": "object", "properties": {
        "names": {"type": "array", "maxItems": 10, "items": {"type": "string", "maxLength": 5}},
        "free": {"type": "array", "items": {"type": "string"}},
    }});
    let declared = Arc::new(Declared::of_schema(&schema, false).expect("a type").named("self"));
    let env = Environment::kubernetes().with_declared("self", &declared);
    let cases = [
        ("self.names.all(n, n.startsWith('x'))", Range { min: 3, max: 53 }),
        ("self.names.size() < 5", Range { min: 4, max: 4 }),
        ("self.free.all(n, n == 'x')", Range { min: 3, max: 5_242_878 }),
    ];
    for (expression, want) in cases {
        let checked = env.compile(expression).expect(expression);
        assert_eq!(estimate(&checked, &*declared), want, "{expression}");
    }
}

#[test]
fn rules_of_schemas_are_estimated_as_upstream_estimates_them() {
    let mut wrong = Vec::new();
    let mut declared = Arc::new(Declared::scalar("int", Type::Int, 1, 0));
    for line in include_str!("schema_cost.txt").lines() {
        if let Some(schema) = line.strip_prefix("# ") {
            let schema: serde_json::Value = serde_json::from_str(schema).expect("a schema");
            declared = Arc::new(Declared::of_schema(&schema, false).expect("a type").named("selfType"));
            continue;
        }
        let (want, rule) = line.split_once(' ').expect("a cost and a rule");
        let env = Environment::kubernetes().with_declared("self", &declared);
        match env.compile(rule) {
            Ok(checked) => {
                let found = estimate(&checked, &*declared).max.to_string();
                if found != want {
                    wrong.push(format!("{rule}: {found}, not {want}"));
                }
            }
            Err(issues) => wrong.push(issues.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rules_cost_what_they_cost_upstream() {
    let mut wrong = Vec::new();
    let (mut schema, mut data) = (json!({}), json!({}));
    for line in include_str!("rule_cost.txt").lines() {
        if let Some((first, second)) = line.strip_prefix("# ").and_then(|line| line.split_once('\t')) {
            schema = serde_json::from_str(first).expect("a schema");
            data = serde_json::from_str(second).expect("data");
            continue;
        }
        let (want, rule) = line.split_once(' ').expect("a cost and a rule");
        let declared = Arc::new(Declared::of_schema(&schema, false).expect("a type").named("selfType"));
        let env = Environment::kubernetes().with_declared("self", &declared);
        let shape = Shape::of_schema(&schema);
        let variables = Bindings::new().bind("self", Value::from_shaped(&data, &shape).expect("a value"));
        match env.compile(rule) {
            Ok(checked) => {
                let program = env.program(&checked).expect("a program");
                let outcome = program.evaluate(&variables, Limits::default());
                let good = outcome.value.as_ref().is_ok_and(|value| value.as_bool() == Some(true));
                if outcome.cost.to_string() != want || !good {
                    wrong.push(format!("{rule}: {:?} for {}, not {want}", outcome.value, outcome.cost));
                }
            }
            Err(issues) => wrong.push(issues.to_string()),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
