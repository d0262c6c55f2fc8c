//! One ValidatingAdmissionPolicy, compiled (upstream `policy/validating/validator.go`).

use api::cel::Value;
use api::cel::admission::{
    BUDGET, Compiled, Compiler, Evaluation, Input, MAX_MESSAGE, OutOfBudget, Returns, Scope,
};
use k8s_openapi::api::admissionregistration::v1::{AuditAnnotation, ValidatingAdmissionPolicy, Validation};

use crate::admission::matching::{Conditions, Met};

/// A policy, compiled.
pub(crate) struct Validator {
    fails: bool,
    variables: Vec<(String, Compiled)>,
    conditions: Conditions,
    validations: Vec<Rule>,
    annotations: Vec<(String, Compiled)>,
}

struct Rule {
    condition: Compiled,
    message_expression: Option<Compiled>,
    message: String,
    reason: Option<String>,
}

/// What a policy says to one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// By validations, or one that could not be made.
    pub decisions: Vec<Decision>,
    /// For the audit log, by key.
    pub notes: Vec<(String, Note)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Admit,
    Deny { message: String, reason: Option<String> },
}

/// What is said in the audit log under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    Publish(String),
    /// That could not be found out, and the policy is to fail.
    Error(String),
    Exclude,
}

/// A request as expressions see it.
#[derive(Clone, Copy)]
pub(super) struct Request<'a>(pub Input<'a>);

impl Validator {
    pub fn compile(policy: &ValidatingAdmissionPolicy) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let mut compiler = Compiler::composed();
        let quiet = Scope { params: spec.param_kind.is_some(), ..Scope::default() };
        let scope = Scope { authorizer: true, ..quiet };
        for variable in spec.variables.iter().flatten() {
            compiler.variable(&variable.name, &variable.expression, scope);
        }
        let conditions = spec.match_conditions.unwrap_or_default();
        let failure_policy = spec.failure_policy.as_deref();
        let conditions = Conditions::compile(&mut compiler, &conditions, scope, failure_policy);
        let validations = spec.validations.iter().flatten();
        let validations = validations.map(|one| Rule::compile(&mut compiler, one, scope, quiet)).collect();
        let annotation = |one: &AuditAnnotation| {
            (one.key.clone(), compiler.compile(&one.value_expression, Returns::TextOrNull, scope))
        };
        let annotations = spec.audit_annotations.iter().flatten().map(annotation).collect();
        Self {
            fails: failure_policy != Some("Ignore"),
            conditions,
            validations,
            annotations,
            variables: compiler.into_variables(),
        }
    }

    /// Whether a request is refused for which the policy cannot be decided.
    pub fn fails(&self) -> bool {
        self.fails
    }

    fn undecided(&self, message: String) -> Decision {
        if self.fails { Decision::Deny { message, reason: None } } else { Decision::Admit }
    }

    fn only(&self, message: String) -> Outcome {
        Outcome { decisions: vec![self.undecided(message)], notes: Vec::new() }
    }

    /// What the policy says to a request.
    pub(super) fn validate(&self, Request(input): Request<'_>) -> Outcome {
        match self.conditions.check(input, &self.variables) {
            Met::Yes => {}
            Met::No => return Outcome::default(),
            Met::Error(why) => return self.only(why),
        }
        let mut evaluation = Evaluation::new(input, &self.variables, BUDGET);
        let results = self.validations.iter().map(|rule| evaluation.evaluate(&rule.condition));
        let results = match results.collect::<Result<Vec<_>, OutOfBudget>>() {
            Ok(results) => results,
            Err(over) => return self.only(over.to_string()),
        };
        // Nobody can ask the authorizer from here on.
        let input = Input { authorizer: None, ..input };
        let messages = self.messages(input, evaluation.budget());
        let decide = |(at, (rule, result)): (usize, (&Rule, &Result<Value<'_>, String>))| {
            let message = messages.as_ref().map(|all| all.get(at).and_then(Option::as_deref));
            self.decide(rule, result, message)
        };
        let decisions = self.validations.iter().zip(&results).enumerate().map(decide).collect();
        match self.notes(input) {
            Ok(notes) => Outcome { decisions, notes },
            Err(over) => self.only(over.to_string()),
        }
    }

    /// What message expressions give, whether it is needed or not.
    fn messages(&self, input: Input<'_>, budget: u64) -> Result<Vec<Option<String>>, OutOfBudget> {
        let mut evaluation = Evaluation::new(input, &self.variables, budget);
        let text = |value: Value<'_>| {
            value.as_str().map(str::trim).filter(|text| is_message(text)).map(str::to_owned)
        };
        let message = |rule: &Rule| match &rule.message_expression {
            None => Ok(None),
            Some(expression) => Ok(evaluation.evaluate(expression)?.ok().and_then(text)),
        };
        self.validations.iter().map(message).collect()
    }

    fn decide(
        &self,
        rule: &Rule,
        result: &Result<Value<'_>, String>,
        message: Result<Option<&str>, &OutOfBudget>,
    ) -> Decision {
        let passed = match result {
            Ok(value) => value.as_bool() == Some(true),
            Err(why) => return self.undecided(why.clone()),
        };
        let message = match message {
            Ok(message) => message,
            Err(over) => return self.undecided(format!("failed messageExpression: {over}")),
        };
        if passed {
            return Decision::Admit;
        }
        let reason = Some(rule.reason.clone().unwrap_or_else(|| "Invalid".to_owned()));
        Decision::Deny { message: rule.message(message), reason }
    }

    fn notes(&self, input: Input<'_>) -> Result<Vec<(String, Note)>, OutOfBudget> {
        let mut evaluation = Evaluation::new(input, &self.variables, BUDGET);
        let note = |(key, expression): &(String, Compiled)| {
            let note = match evaluation.evaluate(expression)? {
                Ok(value) => match value.as_str().map(str::trim) {
                    None | Some("") => Note::Exclude,
                    Some(text) => Note::Publish(text.to_owned()),
                },
                Err(why) if self.fails => Note::Error(why),
                Err(_) => Note::Exclude,
            };
            Ok((key.clone(), note))
        };
        self.annotations.iter().map(note).collect()
    }
}

impl Rule {
    fn compile(compiler: &mut Compiler, validation: &Validation, scope: Scope, quiet: Scope) -> Self {
        let message = validation.message_expression.as_deref().filter(|text| !text.is_empty());
        Self {
            condition: compiler.compile(&validation.expression, Returns::Bool, scope),
            message_expression: message.map(|text| compiler.compile(text, Returns::Text, quiet)),
            message: validation.message.clone().unwrap_or_default(),
            reason: validation.reason.clone(),
        }
    }

    /// The message of a failure: that of its expression if there is one, else the fixed one, else the expression.
    fn message(&self, evaluated: Option<&str>) -> String {
        match (evaluated, self.message.trim()) {
            (Some(message), _) => message.to_owned(),
            (None, "") => format!("failed expression: {}", self.condition.expression.trim()),
            (None, message) => message.to_owned(),
        }
    }
}

/// Whether an expression may give this for a message.
fn is_message(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn validate(spec: Json, object: &Json) -> Outcome {
        let policy: ValidatingAdmissionPolicy =
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a policy");
        let request = json!({"operation": "CREATE"});
        let input = Input {
            object,
            old_object: &Json::Null,
            params: &Json::Null,
            request: &request,
            namespace: &Json::Null,
            authorizer: None,
        };
        Validator::compile(&policy).validate(Request(input))
    }

    fn deny(message: &str, reason: Option<&str>) -> Decision {
        Decision::Deny { message: message.to_owned(), reason: reason.map(str::to_owned) }
    }

    #[test]
    fn a_failure_has_the_best_message_there_is() {
        let long = format!("'{}'", "x".repeat(MAX_MESSAGE + 1));
        let cases = [
            (json!({"expression": " 1 > 2 "}), deny("failed expression: 1 > 2", Some("Invalid"))),
            (json!({"expression": "false", "message": " no "}), deny("no", Some("Invalid"))),
            (
                json!({"expression": "false", "message": "no", "messageExpression": "' n: ' + string(object.n)"}),
                deny("n: 3", Some("Invalid")),
            ),
            (
                json!({"expression": "false", "message": "no", "messageExpression": "object.x"}),
                deny("no", Some("Invalid")),
            ),
            (
                json!({"expression": "false", "message": "no", "messageExpression": "'a\\nb'"}),
                deny("no", Some("Invalid")),
            ),
            (
                json!({"expression": "false", "message": "no", "messageExpression": long}),
                deny("no", Some("Invalid")),
            ),
            (
                json!({"expression": "false", "reason": "Forbidden"}),
                deny("failed expression: false", Some("Forbidden")),
            ),
            (json!({"expression": "true"}), Decision::Admit),
            (
                json!({"expression": "object.x == 1"}),
                deny("expression 'object.x == 1' resulted in error: no such key: x", None),
            ),
            (json!({"expression": "1"}), deny("compilation error: must evaluate to bool but got int", None)),
        ];
        for (validation, wanted) in cases {
            let outcome = validate(json!({"validations": [validation.clone()]}), &json!({"n": 3}));
            assert_eq!(outcome.decisions, [wanted], "{validation}");
        }
    }

    #[test]
    fn what_cannot_be_decided_may_be_ignored() {
        let spec = json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.x == 1"},
            {"expression": "false"}], "auditAnnotations": [{"key": "k", "valueExpression": "object.x"}]});
        let outcome = validate(spec, &json!({}));
        assert_eq!(outcome.decisions, [Decision::Admit, deny("failed expression: false", Some("Invalid"))]);
        assert_eq!(outcome.notes, [("k".to_owned(), Note::Exclude)]);
    }

    #[test]
    fn conditions_come_first() {
        let with = |condition: &str| {
            json!({"matchConditions": [{"name": "c", "expression": condition}],
                "validations": [{"expression": "false"}]})
        };
        assert_eq!(validate(with("object.n != 3"), &json!({"n": 3})), Outcome::default());
        assert_eq!(validate(with("object.n == 3"), &json!({"n": 3})).decisions.len(), 1);
        let undecided = validate(with("object.x"), &json!({}));
        assert_eq!(undecided.decisions, [deny("compilation error: must evaluate to bool but got dyn", None)]);
    }

    #[test]
    fn the_audit_log_gets_text_or_nothing() {
        let annotations = [
            ("text", "' a '", Note::Publish("a".to_owned())),
            ("empty", "' '", Note::Exclude),
            ("null", "null", Note::Exclude),
            (
                "wrong",
                "string(object.x)",
                Note::Error("expression 'string(object.x)' resulted in error: no such key: x".to_owned()),
            ),
        ];
        for (key, expression, wanted) in annotations {
            let spec = json!({"auditAnnotations": [{"key": key, "valueExpression": expression}]});
            assert_eq!(validate(spec, &json!({})).notes, [(key.to_owned(), wanted)], "{expression}");
        }
    }
}
