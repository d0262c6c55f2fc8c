//! An expression: compiling never panics; evaluating keeps to its budget.

#![no_main]

use api::cel::{Bindings, Environment, Limits, Type, Value};
use libfuzzer_sys::fuzz_target;

const BUDGET: u64 = 100_000;

fuzz_target!(|text: &str| {
    let environment = Environment::kubernetes().with_variable("object", Type::Dyn);
    let Ok(checked) = environment.compile(text) else { return };
    let Ok(program) = environment.program(&checked) else { return };
    let object = serde_json::json!({"name": "a", "items": [1, 2, 3], "map": {"k": "v"}, "when": "2024-01-01T00:00:00Z"});
    let variables = Bindings::new().bind("object", Value::from_json(&object));
    let outcome = program.evaluate(&variables, Limits { cost: Some(BUDGET), interrupted: None });
    drop(outcome.value);
});
