//! The language itself.

use serde_json::json;

use crate::cel::{Bindings, Environment, Limits, Type, Value};

/// The value of an expression as an expression, or its error.
pub(super) fn value_of(env: &Environment, expression: &str, variables: &Bindings<'_>) -> String {
    let checked = match env.compile(expression) {
        Ok(checked) => checked,
        Err(issues) => return issues.to_string(),
    };
    let program = match env.program(&checked) {
        Ok(program) => program,
        Err(fault) => return format!("plan: {fault}"),
    };
    match program.evaluate(variables, Limits::default()).value {
        Ok(value) => format!("{value:?}"),
        Err(fault) => format!("error: {fault}"),
    }
}

#[test]
fn expressions_have_values() {
    let data = json!({"name": "web", "replicas": 3, "ratio": 0.5, "labels": {"a-b": "x"}, "items": [1, 2, 3], "none": null});
    let variables = Bindings::new().bind("self", Value::from_json(&data));
    let env = Environment::kubernetes().with_variable("self", Type::Dyn);
    let cases = [
        ("1 + 2 * 3", "7"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("7 / 2 + 7 % 4", "6"),
        ("'a' + 'b'", "\"ab\""),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        ("dyn(1) == 1.0 || false", "true"),
        ("self.replicas > 2 && self.name == 'web'", "true"),
        ("has(self.name) && !has(self.missing)", "true"),
        ("self.missing", "error: no such key: missing"),
        ("self.items[5]", "error: index out of bounds: 5"),
        ("self.labels['a-b']", "\"x\""),
        ("self.items.all(i, i > 0)", "true"),
        ("self.items.exists(i, i > 2)", "true"),
        ("self.items.exists_one(i, i > 2)", "true"),
        ("self.items.map(i, i * 2)", "[2, 4, 6]"),
        ("self.items.map(i, i > 1, i * 2)", "[4, 6]"),
        ("self.items.filter(i, i > 1)", "[2, 3]"),
        ("[1, 2].map(i, [3, 4].map(j, i * j))", "[[3, 4], [6, 8]]"),
        ("self.?name.orValue('x')", "\"web\""),
        ("self.?missing.orValue('x')", "\"x\""),
        ("self.?missing.hasValue()", "false"),
        ("self.?name.optMap(n, n + '!')", "optional.of(\"web!\")"),
        ("[1, ?optional.none(), 2]", "[1, 2]"),
        ("{'a': 1, ?'b': optional.none()}", "{\"a\": 1}"),
        ("self.items.all(i, v, i < v)", "true"),
        ("['a', 'b'].transformMap(i, v, i == 1, v)", "{1: \"b\"}"),
        ("['a', 'b'].transformList(i, v, v + string(i))", "[\"a0\", \"b1\"]"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("true || 1 / 0 == 1", "true"),
        ("1 / 0 == 1 || true", "true"),
        ("dyn(1) + dyn('a')", "error: no such overload"),
        ("dyn('a') && true", "error: no such overload"),
        ("2 in [1, 2, 3]", "true"),
        ("'a' in {'a': 1}", "true"),
        ("size('größe') + 'ab'.size() + [1].size()", "8"),
        ("timestamp('2020-01-01T00:00:00Z') + duration('1h30m')", "timestamp(\"2020-01-01T01:30:00Z\")"),
        ("timestamp('2020-03-01T12:00:00Z').getDayOfYear()", "60"),
        ("timestamp('2020-03-01T02:00:00Z').getHours('-08:00')", "18"),
        ("string(duration('90s'))", "\"90s\""),
        ("type(1) == int && type(null) == null_type", "true"),
        ("true ? 1 : 2", "1"),
        ("(self.replicas > 5 ? self.labels : self).name", "\"web\""),
        ("'abc'.matches('^a.c$')", "true"),
        ("self.items.sum() + self.items.max()", "9"),
        ("b'a\\xff'", "b\"\\141\\377\""),
        ("0x1F + 1", "32"),
        ("'%s-%d'.format([dyn('a'), dyn(5)])", "\"a-5\""),
    ];
    for (expression, want) in cases {
        assert_eq!(value_of(&env, expression, &variables), want, "{expression}");
    }
}

#[test]
fn wrong_types_are_refused() {
    let env = Environment::kubernetes().with_variable("self", Type::map(Type::String, Type::Int));
    let cases = [
        (
            "1 + 'a'",
            "ERROR: <input>:1:3: found no matching overload for '_+_' applied to '(int, string)'\n | 1 + 'a'\n | ..^",
        ),
        ("x", "ERROR: <input>:1:1: undeclared reference to 'x' (in container '')\n | x\n | ^"),
        ("f(1)", "ERROR: <input>:1:2: undeclared reference to 'f' (in container '')\n | f(1)\n | .^"),
        ("1.f()", "ERROR: <input>:1:4: undeclared reference to 'f' (in container '')\n | 1.f()\n | ...^"),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("1 && true", "ERROR: <input>:1:1: expected type 'bool' but found 'int'\n | 1 && true\n | ^"),
        ("'a'.b", "ERROR: <input>:1:4: type 'string' does not support field selection\n | 'a'.b\n | ...^"),
        (
            "self.a.startsWith('x')",
            "ERROR: <input>:1:18: found no matching overload for 'startsWith' applied to 'int.(string)'\n | self.a.startsWith('x')\n | .................^",
        ),
        (
            "1.all(x, true)",
            "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)\n | 1.all(x, true)\n | ^",
        ),
        (
            "true ? 1 : 'a'",
            "ERROR: <input>:1:6: found no matching overload for '_?_:_' applied to '(bool, int, string)'\n | true ? 1 : 'a'\n | .....^",
        ),
        ("has(self)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(self)\n | ....^"),
        (
            "[1].map(x.y, 1)",
            "ERROR: <input>:1:10: argument is not an identifier\n | [1].map(x.y, 1)\n | .........^",
        ),
        ("namespace", "ERROR: <input>:1:1: reserved identifier: namespace\n | namespace\n | ^"),
        ("9223372036854775808", "ERROR: <input>:1:1: invalid int literal\n | 9223372036854775808\n | ^"),
        ("duration('x')", "ERROR: <input>:1:10: invalid duration argument\n | duration('x')\n | .........^"),
        (
            "'a'.matches('(')",
            "ERROR: <input>:1:13: invalid matches argument\n | 'a'.matches('(')\n | ............^",
        ),
        (
            "'%d'.format(['a'])",
            "ERROR: <input>:1:14: error during formatting: decimal clause can only be used on integers, was given string\n | '%d'.format(['a'])\n | .............^",
        ),
    ];
    for (expression, want) in cases {
        let found = env.compile(expression).map(|_| ()).map_err(|issues| issues.to_string());
        assert_eq!(found, Err(want.to_owned()), "{expression}");
    }
}
