//! Checks expressions against types (upstream `policy/validating/typechecking.go`). Pure.

use api::cel::Declared;
use api::cel::admission::{Compiler, Failure, Known, Returns, Scope};
use api::names::GroupVersionKind;
use k8s_openapi::api::admissionregistration::v1::{ExpressionWarning, ValidatingAdmissionPolicySpec};
use std::sync::Arc;

/// What a policy is about, as far as that is known.
#[derive(Debug, Default)]
pub struct Types {
    /// Kinds of objects, in order.
    pub objects: Vec<(GroupVersionKind, Arc<Declared>)>,
    /// The kind of its parameters.
    pub params: Option<Arc<Declared>>,
}

/// What is wrong with the validations of a policy.
pub fn check(spec: &ValidatingAdmissionPolicySpec, types: &Types) -> Vec<ExpressionWarning> {
    let scope = Scope { params: spec.param_kind.is_some(), authorizer: true, patches: false };
    let mut compilers: Vec<(&GroupVersionKind, Compiler)> =
        types.objects.iter().map(|(kind, declared)| (kind, compiler(spec, declared, types, scope))).collect();
    let mut warnings = Vec::new();
    for (at, validation) in spec.validations.iter().flatten().enumerate() {
        let message = validation.message_expression.as_deref().filter(|message| !message.is_empty());
        let expressions =
            [("expression", Some(validation.expression.as_str())), ("messageExpression", message)];
        for (field, expression) in expressions {
            let Some(expression) = expression else { continue };
            let told: Vec<String> = compilers
                .iter_mut()
                .filter_map(|(kind, compiler)| {
                    let issues = issues(compiler, expression, scope)?;
                    Some(format!("{kind}: {issues}\n"))
                })
                .collect();
            if !told.is_empty() {
                let field_ref = format!("spec.validations[{at}].{field}");
                warnings.push(ExpressionWarning { field_ref, warning: told.join("\n") });
            }
        }
    }
    warnings
}

/// Compiles expressions about objects of one type, with the variables of the policy.
fn compiler(
    spec: &ValidatingAdmissionPolicySpec,
    object: &Arc<Declared>,
    types: &Types,
    scope: Scope,
) -> Compiler {
    let known = Known { object: Some(Arc::clone(object)), params: types.params.clone() };
    let mut compiler = Compiler::typed(known);
    for variable in spec.variables.iter().flatten() {
        compiler.variable(&variable.name, &variable.expression, scope);
    }
    compiler
}

/// What the compiler finds wrong with an expression; what it evaluates to does not matter here.
fn issues(compiler: &mut Compiler, expression: &str, scope: Scope) -> Option<String> {
    match compiler.compile(expression, Returns::Any, scope).program {
        Err(Failure::Issues(issues)) => Some(issues.to_string()),
        Ok(_) | Err(Failure::Type(_) | Failure::Program(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn warnings(spec: Value, kinds: &[&str]) -> Vec<(String, String)> {
        let kind = |kind: &&str| {
            let gvk = GroupVersionKind::new("apps", "v1", (*kind).to_owned());
            let ty = api::schema::type_for(&gvk).expect("a type");
            (gvk, Arc::new(Declared::of_type(ty).named(kind)))
        };
        let types = Types { objects: kinds.iter().map(kind).collect(), params: None };
        let spec = serde_json::from_value(spec).expect("a spec");
        check(&spec, &types).into_iter().map(|warning| (warning.field_ref, warning.warning)).collect()
    }

    #[test]
    fn expressions_that_fit_are_not_warned_of() {
        let spec = json!({"variables": [{"name": "n", "expression": "object.spec.replicas"}], "validations": [
            {"expression": "variables.n > 1 && object.metadata.name.startsWith('a')",
             "messageExpression": "'has ' + string(variables.n)"},
            {"expression": "request.operation == 'CREATE' && namespaceObject.metadata.name == 'x'"},
            {"expression": "object.spec.template.spec.containers.all(c, c.image.contains('/'))"}]});
        assert_eq!(warnings(spec, &["Deployment", "ReplicaSet"]), []);
    }

    #[test]
    fn expressions_that_do_not_fit_are_warned_of_by_kind() {
        let spec = json!({"validations": [
            {"expression": "object.spec.replicas > '1'", "messageExpression": "object.nothing"},
            {"expression": "object.spec.strategy.type == 'x'"}]});
        let found = warnings(spec, &["Deployment", "StatefulSet"]);
        let overload = "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n \
            | object.spec.replicas > '1'\n | .....................^\n";
        let nothing = "ERROR: <input>:1:7: undefined field 'nothing'\n | object.nothing\n | ......^\n";
        let of_both =
            |why: &str| format!("apps/v1, Kind=Deployment: {why}\napps/v1, Kind=StatefulSet: {why}");
        assert_eq!(found[0], ("spec.validations[0].expression".to_owned(), of_both(overload)));
        assert_eq!(found[1], ("spec.validations[0].messageExpression".to_owned(), of_both(nothing)));
        assert_eq!(found[2].0, "spec.validations[1].expression");
        assert!(
            found[2]
                .1
                .starts_with("apps/v1, Kind=StatefulSet: ERROR: <input>:1:12: undefined field 'strategy'")
        );
        assert_eq!(found.len(), 3);
    }
}
