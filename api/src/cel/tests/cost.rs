//! What expressions are estimated to cost and what they do cost.

use std::sync::Arc;

use serde_json::json;

use crate::cel::library::authorizer::{Authorized, Authorizer, Check, Question};
use crate::cel::{Bindings, Declared, Environment, Limits, Range, Type, estimate};

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
