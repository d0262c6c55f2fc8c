//! Expressions of admission, alone.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::*;
use crate::cel::library::authorizer::{Authorized, Authorizer, Check, Question, Resource, Target};

const ALL: Scope = Scope { params: true, authorizer: true, patches: false };

struct Only(&'static str);

impl Authorizer for Only {
    fn authorize(&self, question: &Question) -> Authorized {
        let name = match &question.target {
            Target::Path(path) => path.clone(),
            Target::Resource(resource) => resource.name.clone(),
        };
        Authorized { allowed: name == self.0, ..Authorized::default() }
    }
}

/// Evaluates expressions one after the other, with variables.
fn run(variables: &[(&str, &str)], expressions: &[&str], budget: u64) -> Vec<String> {
    let data = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"n": 3}});
    let request = json!({"name": "a", "operation": "CREATE", "dryRun": false});
    let namespace = json!({"metadata": {"name": "ns"}});
    let params = json!({"max": 2});
    let any = Check::new(Arc::new(Only("a")));
    let own = Check::of_resource(Arc::new(Only("a")), Resource { name: "a".into(), ..Resource::default() });
    let input = Input {
        object: &data,
        old_object: &Json::Null,
        params: &params,
        request: &request,
        namespace: &namespace,
        authorizer: Some((&any, &own)),
    };
    let mut compiler = Compiler::composed();
    for (name, expression) in variables {
        compiler.variable(name, expression, ALL);
    }
    let compiled: Vec<_> =
        expressions.iter().map(|expression| compiler.compile(expression, Returns::Any, ALL)).collect();
    let variables = compiler.into_variables();
    let mut evaluation = Evaluation::new(input, &variables, budget);
    compiled
        .iter()
        .map(|compiled| match evaluation.evaluate(compiled) {
            Ok(Ok(value)) => value.to_string(),
            Ok(Err(why)) => why,
            Err(over) => over.to_string(),
        })
        .collect()
}

#[test]
fn expressions_see_the_request() {
    let cases = [
        ("object.metadata.labels.x", "y"),
        ("oldObject == null", "true"),
        ("params.max < object.spec.n", "true"),
        ("request.operation", "CREATE"),
        ("has(request.namespace)", "false"),
        ("request.namespace", "expression 'request.namespace' resulted in error: no such key: namespace"),
        ("namespaceObject.metadata.name", "ns"),
        ("authorizer.path('/x').check('get').allowed()", "false"),
        ("authorizer.requestResource.check('create').allowed()", "true"),
        ("authorizer.group('').resource('pods').name('a').check('get').allowed()", "true"),
    ];
    for (expression, wanted) in cases {
        assert_eq!(run(&[], &[expression], BUDGET), [wanted], "{expression}");
    }
}

#[test]
fn variables_are_composed() {
    let variables = [
        ("n", "object.spec.n + 1"),
        ("twice", "variables.n * 2"),
        ("absent", "object.spec.nothing"),
        ("broken", "object.("),
        ("early", "variables.late"),
        ("late", "1"),
    ];
    let cases = [
        ("variables.twice", "8"),
        ("[1, 2].map(x, x + variables.n)", "[5, 6]"),
        (
            "variables.absent",
            "expression 'variables.absent' resulted in error: composited variable \"absent\" fails to evaluate: \
             no such key: nothing",
        ),
        (
            "variables.early",
            "expression 'variables.early' resulted in error: composited variable \"early\" fails to compile: \
             compilation failed: ERROR: <input>:1:10: undefined field 'late'\n | variables.late\n | .........^",
        ),
    ];
    for (expression, wanted) in cases {
        assert_eq!(run(&variables, &[expression], BUDGET), [wanted], "{expression}");
    }
    let unknown = &run(&variables, &["variables.unknown"], BUDGET)[0];
    assert!(unknown.starts_with("compilation error: compilation failed: ERROR"), "{unknown}");
}

#[test]
fn a_variable_costs_once() {
    let variables = [("sum", "[1, 2, 3, 4, 5, 6, 7, 8, 9].map(x, x * 2).size()")];
    let twice = ["variables.sum", "variables.sum"];
    let over = OutOfBudget.to_string();
    let least = (1..BUDGET).find(|budget| run(&variables, &twice[..1], *budget)[0] == "9").expect("a budget");
    assert_eq!(run(&variables, &twice, least), ["9", over.as_str()]);
    assert_eq!(run(&variables, &twice, least + 5), ["9", "9"]);
    assert_eq!(run(&variables, &twice, least - 1)[0], over);
}

#[test]
fn one_expression_has_a_limit_of_its_own() {
    let many = "[1,2,3,4,5,6,7,8,9,10]";
    let expression = format!(
        "{many}.all(a, {many}.all(b, {many}.all(c, {many}.all(d, {many}.all(e, {many}.all(f, a+b+c+d+e+f > 0))))))"
    );
    let found = &run(&[], &[&expression], BUDGET)[0];
    assert!(found.ends_with("resulted in error: operation cancelled: actual cost limit exceeded"), "{found}");
}

#[test]
fn many_variables_upon_each_other_find_room() {
    let names: Vec<String> = (0..2000).map(|i| format!("v{i}")).collect();
    let texts: Vec<String> =
        (0..2000).map(|i| if i == 0 { "1".into() } else { format!("variables.v{}", i - 1) }).collect();
    let variables: Vec<(&str, &str)> =
        names.iter().zip(&texts).map(|(name, text)| (name.as_str(), text.as_str())).collect();
    assert_eq!(run(&variables, &["variables.v1999"], BUDGET), ["1"]);
}

#[test]
fn what_an_expression_must_be_is_told() {
    let patches = Scope { patches: true, ..ALL };
    let none = Scope::default();
    let cases = [
        ("1", Returns::Bool, none, Some("must evaluate to bool but got int")),
        ("object", Returns::Bool, none, Some("must evaluate to bool but got dyn")),
        ("[1]", Returns::Text, none, Some("must evaluate to string but got list(int)")),
        ("1", Returns::TextOrNull, none, Some("must evaluate to one of [string null_type] but got int")),
        ("null", Returns::TextOrNull, none, None),
        ("Object{}", Returns::Object, patches, None),
        ("{'a': 1}", Returns::Object, patches, Some("must evaluate to Object but got map(string, int)")),
        ("[JSONPatch{op: 'add', path: '/a'}]", Returns::Patches, patches, None),
        ("[]", Returns::Patches, patches, Some("must evaluate to list(JSONPatch) but got list(dyn)")),
        ("authorizer.path('/x').check('get').allowed()", Returns::Bool, ALL, None),
    ];
    for (expression, returns, scope, wanted) in cases {
        let compiled = Compiler::composed().compile(expression, returns, scope);
        assert_eq!(compiled.program.err().map(|why| why.to_string()).as_deref(), wanted, "{expression}");
    }
    for undeclared in ["params", "authorizer.path('/')", "Object{}"] {
        let compiled = Compiler::composed().compile(undeclared, Returns::Any, Scope::default());
        assert!(compiled.program.is_err(), "{undeclared}");
    }
    assert!(Compiler::plain().compile("variables.a", Returns::Any, ALL).program.is_err());
}
