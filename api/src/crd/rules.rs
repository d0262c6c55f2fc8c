//! Rules of a schema (`x-kubernetes-validations`): compiled once with what they can cost, then checked against objects
//! (upstream `apiserver/schema/cel`).

mod check;

use std::sync::{Arc, OnceLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use serde_json::Value as Json;

use super::props::{Props, text};
use super::validation::field_path;
use crate::cel::{Declared, Environment, MAX_REQUEST_BYTES, Program, Type, estimate};

pub(crate) use check::Rules;
pub use check::Verdict;

/// What one expression may cost when it is evaluated.
pub(super) const CALL_LIMIT: u64 = 1_000_000;
/// What all rules together may cost for one object.
pub(crate) const BUDGET: u64 = 10_000_000;

const SELF: &str = "self";
const OLD_SELF: &str = "oldSelf";

/// A rule whose expressions are known.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    /// The rule itself; none if it is empty or wrong.
    pub(crate) program: Option<Program>,
    /// Why the rule cannot be used.
    pub(crate) error: Option<String>,
    /// Whether it speaks of the old value.
    pub(crate) uses_old: bool,
    /// What it costs at most.
    pub(crate) max_cost: u64,
    /// How often the data it is about can be in a request at most.
    pub(crate) max_cardinality: u64,
    pub(crate) message: Option<Program>,
    pub(crate) message_error: Option<String>,
    pub(crate) message_cost: u64,
    /// Where it is said to be wrong, below the value that it is about.
    pub(crate) field: Option<String>,
}

/// Data of a schema as expressions see it; `None` if they do not. `root`: the root of a resource.
pub(crate) fn declared(schema: &Props, root: bool) -> Option<Arc<Declared>> {
    let schema = serde_json::to_value(schema).unwrap_or(Json::Null);
    Some(Arc::new(Declared::of_schema(&schema, root)?.named("selfType")))
}

/// Compiles the rules of one schema, which is `schema`, whose data are `declared`.
pub(crate) fn compile(rules: &[ValidationRule], schema: &Props, declared: &Arc<Declared>) -> Vec<Compiled> {
    if rules.is_empty() {
        return Vec::new();
    }
    let environments = Environments::new(declared);
    rules.iter().map(|rule| compile_one(rule, schema, declared, &environments)).collect()
}

struct Environments {
    plain: Environment,
    optional: Environment,
}

impl Environments {
    fn new(declared: &Arc<Declared>) -> Self {
        static BASE: OnceLock<Environment> = OnceLock::new();
        let base = BASE.get_or_init(Environment::kubernetes).clone().with_declared(SELF, declared);
        let optional = base.clone().with_variable(OLD_SELF, Type::optional(declared.ty.clone()));
        Self { plain: base.with_declared(OLD_SELF, declared), optional }
    }
}

fn compile_one(
    rule: &ValidationRule,
    schema: &Props,
    declared: &Arc<Declared>,
    environments: &Environments,
) -> Compiled {
    let mut compiled = Compiled::default();
    if rule.rule.trim().is_empty() {
        return compiled;
    }
    let optional = rule.optional_old_self == Some(true);
    let env = if optional { &environments.optional } else { &environments.plain };
    match expression(env, &rule.rule, declared, &Type::Bool) {
        Ok(found) => {
            compiled.program = Some(found.program);
            compiled.uses_old = found.uses_old;
            compiled.max_cost = found.cost;
            compiled.max_cardinality = cardinality(declared.min_size);
        }
        Err((why, uses_old)) => {
            compiled.uses_old = uses_old;
            compiled.error = Some(match why {
                Wrong::Issues(issues) => format!("compilation failed: {issues}"),
                Wrong::Type => "cel expression must evaluate to a bool".to_owned(),
                Wrong::Program(why) => format!("program instantiation failed: {why}"),
            });
            return compiled;
        }
    }
    let message = text(&rule.message_expression);
    if !message.is_empty() {
        match expression(env, message, declared, &Type::String) {
            Ok(found) => (compiled.message, compiled.message_cost) = (Some(found.program), found.cost),
            Err((why, _)) => {
                compiled.message_error = Some(match why {
                    Wrong::Issues(issues) => format!("messageExpression compilation failed: {issues}"),
                    Wrong::Type => "messageExpression must evaluate to a string".to_owned(),
                    Wrong::Program(why) => format!("messageExpression instantiation failed: {why}"),
                });
                return compiled;
            }
        }
    }
    let field = text(&rule.field_path);
    if !field.is_empty() {
        compiled.field = field_path(field, schema, true).ok().map(|(path, _)| path.as_str().to_owned());
    }
    compiled
}

struct Expression {
    program: Program,
    uses_old: bool,
    cost: u64,
}

enum Wrong {
    Issues(String),
    Type,
    Program(String),
}

/// Compiles one expression of a type; the error also says whether it uses the old value, as far as that is known.
fn expression(
    env: &Environment,
    source: &str,
    declared: &Declared,
    wanted: &Type,
) -> Result<Expression, (Wrong, bool)> {
    let checked = env.compile(source).map_err(|issues| (Wrong::Issues(issues.to_string()), false))?;
    if checked.output_type() != *wanted {
        return Err((Wrong::Type, false));
    }
    let uses_old = checked.uses(OLD_SELF);
    let program = env.program(&checked).map_err(|why| (Wrong::Program(why.to_string()), uses_old))?;
    Ok(Expression { program, uses_old, cost: estimate(&checked, declared).max })
}

/// How often data of at least this size can be in a request, with a comma between them.
fn cardinality(min_size: i64) -> u64 {
    u64::try_from(MAX_REQUEST_BYTES / (min_size + 1)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
