//! Evaluates expressions of admission for one request (upstream `plugin/cel/activation.go` and `composition.go`).

use std::sync::{Mutex, PoisonError};

use serde_json::Value as Json;

use super::{
    AUTHORIZER, CALL_LIMIT, Compiled, NAMESPACE, OBJECT, OLD_OBJECT, PARAMS, REQUEST, REQUEST_RESOURCE,
    VARIABLES, VARIABLES_TYPE,
};
use crate::cel::eval::{Activation, Evaluated, Fault, Limits, Outcome};
use crate::cel::library::authorizer::Check;
use crate::cel::stack::with_room;
use crate::cel::value::Value;

/// With more variables than this, each of which may use the one before, a stack may become deep.
const FEW_VARIABLES: usize = 16;

/// The data of one request. Null stands for what is not there.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The object.
    pub object: &'a Json,
    /// What it was before.
    pub old_object: &'a Json,
    /// The parameters, or null.
    pub params: &'a Json,
    /// The request itself.
    pub request: &'a Json,
    /// The namespace of the request, or null.
    pub namespace: &'a Json,
    /// Where questions about authorization begin: any, and those about the object of the request.
    pub authorizer: Option<(&'a Check, &'a Check)>,
}

/// The expressions evaluated so far cost too much together; no more are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("validation failed due to running out of cost budget, no further validation rules will be run")]
pub struct OutOfBudget;

/// Evaluates expressions on the data of one request.
pub struct Evaluation<'a> {
    data: Data<'a>,
    budget: u64,
}

struct Data<'a> {
    input: Input<'a>,
    variables: &'a [(String, Compiled)],
    known: Mutex<Variables<'a>>,
}

struct Variables<'a> {
    values: Vec<Option<Evaluated<'a>>>,
    cost: u64,
}

impl<'a> Evaluation<'a> {
    /// Within `budget`. Each of `variables` is evaluated when it is first asked for, and once only.
    #[must_use]
    pub fn new(input: Input<'a>, variables: &'a [(String, Compiled)], budget: u64) -> Self {
        let known = Mutex::new(Variables { values: vec![None; variables.len()], cost: 0 });
        Self { data: Data { input, variables, known }, budget }
    }

    /// What may still be spent.
    #[must_use]
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// The value of an expression, or why it has none.
    ///
    /// # Errors
    /// When the budget is spent.
    pub fn evaluate(&mut self, compiled: &Compiled) -> Result<Result<Value<'a>, String>, OutOfBudget> {
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let data = &self.data;
        let deep = data.variables.len() > FEW_VARIABLES;
        let Outcome { value, cost } = with_room(deep, || program.evaluate(data, limits()));
        let of_variables = std::mem::take(&mut data.lock().cost);
        self.budget = self.budget.checked_sub(of_variables).ok_or(OutOfBudget)?;
        self.budget = self.budget.checked_sub(cost).ok_or(OutOfBudget)?;
        Ok(value.map_err(|why| format!("expression '{}' resulted in error: {why}", compiled.expression)))
    }
}

fn limits<'l>() -> Limits<'l> {
    Limits { cost: Some(CALL_LIMIT), interrupted: None }
}

impl<'a> Data<'a> {
    fn lock(&self) -> std::sync::MutexGuard<'_, Variables<'a>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn variable(&self, at: usize) -> Evaluated<'a> {
        let (name, compiled) = &self.variables[at];
        let name = crate::field::quote(name);
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => {
                return Err(Fault::new(format!("composited variable {name} fails to compile: {why}")));
            }
        };
        let Outcome { value, cost } = program.evaluate(self, limits());
        let mut known = self.lock();
        known.cost = known.cost.saturating_add(cost);
        value.map_err(|why| Fault::new(format!("composited variable {name} fails to evaluate: {why}")))
    }
}

impl<'a> Activation<'a> for Data<'a> {
    fn resolve(&self, name: &str) -> Option<Evaluated<'a>> {
        let input = &self.input;
        Some(Ok(match name {
            OBJECT => Value::from_json(input.object),
            OLD_OBJECT => Value::from_json(input.old_object),
            PARAMS => Value::from_json(input.params),
            REQUEST => Value::from_json(input.request),
            NAMESPACE => Value::from_json(input.namespace),
            VARIABLES => Value::Fields(VARIABLES_TYPE),
            AUTHORIZER => input.authorizer?.0.clone().value(),
            REQUEST_RESOURCE => input.authorizer?.1.clone().value(),
            _ => return None,
        }))
    }

    fn field(&self, object: &str, name: &str) -> Option<Evaluated<'a>> {
        let at =
            self.variables.iter().position(|(variable, _)| variable == name && object == VARIABLES_TYPE)?;
        if let Some(known) = &self.lock().values[at] {
            return Some(known.clone());
        }
        let value = self.variable(at);
        self.lock().values[at] = Some(value.clone());
        Some(value)
    }
}
