//! Rules, selectors and conditions, alone.

use api::cel::admission::{Compiler, Input, Scope};
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, NamedRuleWithOperations};
use serde_json::{Value, json};

use super::rules::{self, Rule};
use super::*;
use crate::admission::Operation;
use crate::admission::testing::Write;

fn rule(rule: Value) -> Rule {
    Rule::named(&serde_json::from_value::<NamedRuleWithOperations>(rule).expect("a rule"))
}

#[test]
fn rules_name_operations_and_resources() {
    let base =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]});
    let with = |field: &str, value: Value| {
        let mut rule = base.clone();
        rule[field] = value;
        rule
    };
    let pods = Write::new("", "Pod", "pods");
    let cases = [
        (base.clone(), Operation::Create, "", true),
        (base.clone(), Operation::Update, "", false),
        (base.clone(), Operation::Create, "status", false),
        (with("operations", json!(["*"])), Operation::Connect, "", true),
        (with("operations", json!(["UPDATE", "DELETE"])), Operation::Delete, "", true),
        (with("apiGroups", json!(["*"])), Operation::Create, "", true),
        (with("apiGroups", json!(["apps"])), Operation::Create, "", false),
        (with("apiVersions", json!(["v2", "*"])), Operation::Create, "", true),
        (with("apiVersions", json!(["v2"])), Operation::Create, "", false),
        (with("resources", json!(["*"])), Operation::Create, "", true),
        (with("resources", json!(["*"])), Operation::Create, "status", false),
        (with("resources", json!(["pods/*"])), Operation::Create, "status", true),
        (with("resources", json!(["pods/*"])), Operation::Create, "", true),
        (with("resources", json!(["*/status"])), Operation::Create, "status", true),
        (with("resources", json!(["*/status"])), Operation::Create, "", false),
        (with("resources", json!(["*/*"])), Operation::Create, "exec", true),
        (with("scope", json!("Namespaced")), Operation::Create, "", true),
        (with("scope", json!("Cluster")), Operation::Create, "", false),
        (with("scope", json!("*")), Operation::Create, "", true),
        (with("resourceNames", json!(["web"])), Operation::Create, "", true),
        (with("resourceNames", json!(["other"])), Operation::Create, "", false),
    ];
    for (case, operation, subresource, wanted) in cases {
        let attributes = pods.attributes(operation, subresource, "web");
        let found = rules::matches(&[rule(case.clone())], &attributes, true, &Registry::default());
        assert_eq!(found.expect("a verdict").is_some(), wanted, "{case} {operation:?} {subresource:?}");
    }
}

#[test]
fn a_namespace_is_not_within_itself() {
    let namespaces = Write::new("", "Namespace", "namespaces");
    let attributes = namespaces.attributes(Operation::Create, "", "ns");
    for (scope, wanted) in [("Cluster", true), ("Namespaced", false), ("*", true)] {
        let rule =
            rule(json!({"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"],
            "scope": scope}));
        let found = rules::matches(&[rule], &attributes, true, &Registry::default());
        assert_eq!(found.expect("a verdict").is_some(), wanted, "{scope}");
    }
}

#[test]
fn objects_are_selected_by_what_they_are_or_were() {
    let criteria = Criteria::of_policy(
        &serde_json::from_value(
            json!({"namespaceSelector": {}, "objectSelector": {"matchLabels": {"a": "b"}}}),
        )
        .expect("criteria"),
    );
    let (with, without) = (json!({"metadata": {"labels": {"a": "b"}}}), json!({"metadata": {}}));
    let cases = [
        (&with, None, true),
        (&without, None, false),
        (&without, Some(&with), true),
        (&Value::Null, Some(&with), true),
        (&Value::Null, Some(&without), false),
    ];
    for (object, old, wanted) in cases {
        assert_eq!(object_matches(object, old, &criteria).ok(), Some(wanted), "{object} {old:?}");
    }
}

#[test]
fn conditions_decide_together() {
    const TRUE: &str = "true";
    const FALSE: &str = "object.metadata.name != 'a'";
    const WRONG: &str = "object.spec.x == 1";
    let error = "expression 'object.spec.x == 1' resulted in error: no such key: spec";
    let object = json!({"metadata": {"name": "a"}});
    let input = Input {
        object: &object,
        old_object: &Value::Null,
        params: &Value::Null,
        request: &Value::Null,
        namespace: &Value::Null,
        authorizer: None,
    };
    let cases: [(&[&str], &str, Met); 7] = [
        (&[], "Fail", Met::Yes),
        (&[TRUE, TRUE], "Fail", Met::Yes),
        (&[TRUE, FALSE], "Fail", Met::No),
        (&[WRONG, FALSE], "Fail", Met::No),
        (&[TRUE, WRONG], "Fail", Met::Error(error.to_owned())),
        (&[WRONG, WRONG], "Fail", Met::Error(error.to_owned())),
        (&[TRUE, WRONG], "Ignore", Met::No),
    ];
    for (expressions, policy, wanted) in cases {
        let conditions: Vec<MatchCondition> = expressions
            .iter()
            .map(|expression| MatchCondition { name: "c".into(), expression: (*expression).to_owned() })
            .collect();
        let mut compiler = Compiler::plain();
        let compiled = Conditions::compile(&mut compiler, &conditions, Scope::default(), Some(policy));
        assert_eq!(compiled.check(input, &[]), wanted, "{expressions:?} {policy}");
    }
}
