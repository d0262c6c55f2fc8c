//! Match conditions (upstream `plugin/webhook/matchconditions`).

use api::cel::admission::{CONDITIONS_BUDGET, Compiled, Compiler, Evaluation, Input, Returns, Scope};
use k8s_openapi::api::admissionregistration::v1::MatchCondition;
use serde_json::Value;

/// The conditions of a webhook or a policy, compiled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    conditions: Vec<Compiled>,
    /// Whether what cannot be decided is an error; else it is no match.
    fails: bool,
}

/// Whether conditions are met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// All are.
    Yes,
    /// One is not, or that cannot be told and is to be ignored.
    No,
    /// That cannot be told.
    Error(String),
}

impl Conditions {
    /// Compiles conditions. `failure_policy` says what becomes of requests for which they cannot be decided.
    pub fn compile(
        compiler: &mut Compiler,
        conditions: &[MatchCondition],
        scope: Scope,
        failure_policy: Option<&str>,
    ) -> Self {
        let compile = |one: &MatchCondition| compiler.compile(&one.expression, Returns::Bool, scope);
        Self { conditions: conditions.iter().map(compile).collect(), fails: failure_policy != Some("Ignore") }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Decides them for a request, whose namespace they do not see.
    pub fn check(&self, input: Input<'_>, variables: &[(String, Compiled)]) -> Met {
        if self.conditions.is_empty() {
            return Met::Yes;
        }
        let input = Input { namespace: &Value::Null, ..input };
        let mut evaluation = Evaluation::new(input, variables, CONDITIONS_BUDGET);
        let outcomes: Result<Vec<_>, _> =
            self.conditions.iter().map(|compiled| evaluation.evaluate(compiled)).collect();
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(over) => return self.undecided(over.to_string()),
        };
        // One that is not met decides, whatever is wrong with others.
        if outcomes.iter().any(|outcome| matches!(outcome, Ok(value) if value.as_bool() == Some(false))) {
            return Met::No;
        }
        let errors: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
        match errors.as_slice() {
            [] => Met::Yes,
            _ => self.undecided(aggregate(errors)),
        }
    }

    fn undecided(&self, why: String) -> Met {
        if self.fails { Met::Error(why) } else { Met::No }
    }
}

/// Several errors as one (upstream `utilerrors.NewAggregate`): each message once.
fn aggregate(errors: Vec<String>) -> String {
    let mut distinct: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        if !distinct.contains(&error) {
            distinct.push(error);
        }
    }
    match distinct.as_slice() {
        [only] => only.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}
