//! Nothing an expression does runs without bounds, and nothing makes the compiler or the evaluator fall over.

use proptest::prelude::*;

use crate::cel::{Bindings, Environment, Fault, Limits, Type, Value};

const BUDGET: u64 = 1_000_000;

/// Compiles and evaluates, whatever comes of it.
fn run(expression: &str) -> Option<Result<String, Fault>> {
    let env = Environment::kubernetes().with_bindings().with_variable("x", Type::Dyn);
    let checked = env.compile(expression).ok()?;
    let program = match env.program(&checked) {
        Ok(program) => program,
        Err(fault) => return Some(Err(fault)),
    };
    let data = serde_json::json!({"a": [1, 2, {"b": "c"}], "d": "text"});
    let variables = Bindings::new().bind("x", Value::from_json(&data));
    let limits = Limits { cost: Some(BUDGET), ..Limits::default() };
    Some(program.evaluate(&variables, limits).value.map(|value| value.to_string()))
}

#[test]
fn deep_nesting_is_refused_or_works() {
    let nest = |open: &str, inner: &str, close: &str, depth: usize| {
        [open.repeat(depth), inner.to_owned(), close.repeat(depth)].concat()
    };
    for depth in [10, 100, 240, 249, 251, 1000, 20_000] {
        for (open, inner, close) in [
            ("(", "1", ")"),
            ("[", "1", "]"),
            ("{1: ", "1", "}"),
            ("x[", "'a'", "]"),
            ("[1].map(i, ", "1", ")"),
            ("[1].all(i, ", "true", ")"),
            ("cel.bind(v, 1, ", "1", ")"),
            ("optional.of(1).optMap(v, ", "v", ")"),
            ("true ? 1 : ", "1", ""),
            ("1 + (", "1", ")"),
            ("dyn(", "1", ")"),
            ("!", "true", ""),
            ("-", "1u", ""),
            ("", "x", ".a"),
            ("", "x", "[0]"),
            ("", "1", " + 1"),
            ("", "true", " && true"),
            ("", "x", ".f("),
            ("[{", "", ""),
        ] {
            let expression = nest(open, inner, close, depth);
            if expression.len() <= 100_000 {
                let _ = run(&expression);
            }
        }
    }
}

#[test]
fn what_grows_without_end_is_stopped() {
    let double = |start: &str, twice: &str| {
        (0..60).fold(start.to_owned(), |inner, _| format!("cel.bind(v, {inner}, {twice})"))
    };
    let cases = [
        double("[1, 2, 3]", "v + v"),
        double("'abc'", "v + v"),
        double("'abc'", "'%s%s'.format([v, v])"),
        double("'abc'", "v.replace('', v)"),
        "lists.range(9223372036854775807)".to_owned(),
        "lists.range(3000).all(a, lists.range(3000).all(b, true))".to_owned(),
    ];
    for expression in cases {
        let short: String = expression.chars().take(60).collect();
        assert_eq!(run(&expression), Some(Err(Fault::CostLimit)), "{short}");
    }
}

#[test]
fn evaluation_can_be_interrupted() {
    let env = Environment::kubernetes();
    let checked = env.compile("lists.range(1000).all(a, true)").expect("an expression");
    let limits = Limits { cost: None, interrupted: Some(&|| true) };
    let outcome = env.program(&checked).expect("a program").evaluate(&Bindings::new(), limits);
    assert_eq!(outcome.value.map(drop), Err(Fault::Interrupted));
}

fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "x", "1", "2.5", "'s'", "b'y'", "true", "null", "(", ")", "[", "]", "{", "}", ".", ",", ":", "?",
        "+", "-", "*", "/", "%", "==", "<", "in", "&&", "||", "!", "a", "has", "size", "map", "all", "i",
        ".?a", "[?0]", "'%d'", "format", "matches", "duration", "\"", "'", "`", "\\", " ", "é", "0x", "1u",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..24).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn any_text_compiles_or_is_refused(text in "\\PC{0,40}") {
        let _ = run(&text);
    }

    #[test]
    fn any_tokens_compile_or_are_refused(text in pieces()) {
        let _ = run(&text);
    }
}
