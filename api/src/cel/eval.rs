//! Evaluates expressions and counts what it costs, as upstream counts it.
//!
//! Errors are values: `&&`, `||` and loops may absorb them. Running out of budget or being interrupted is not.

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use super::ast::operators as op;
use super::meter;
use super::plan::{Attr, Base, Call, Element, Fold, Node, Plan, Qualifier, QualifierKey};
use super::value::{Entries, List, Map, Object, Value, ops};

/// After how many rounds of loops it is asked whether to go on.
const INTERRUPT_EVERY: u32 = 100;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The expression failed on these data.
    Error(Arc<str>),
    /// It cost more than it may.
    CostLimit,
    /// It was told to stop.
    Interrupted,
}

impl Fault {
    /// A failure with this message.
    #[must_use]
    pub fn new(message: impl Into<Arc<str>>) -> Self {
        Self::Error(message.into())
    }

    pub(crate) fn no_such_overload() -> Self {
        Self::new("no such overload")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error(message) => message,
            Self::CostLimit => "operation cancelled: actual cost limit exceeded",
            Self::Interrupted => "operation interrupted",
        })
    }
}

impl std::error::Error for Fault {}

/// A value, or why there is none.
pub type Evaluated<'a> = Result<Value<'a>, Fault>;

/// What functions know besides their arguments.
pub(crate) struct Context<'c> {
    pub function: &'c str,
    /// The second argument as a regular expression, if it is constant.
    pub regex: Option<&'c Regex>,
}

/// Gives variables their values.
pub trait Activation<'a>: Sync {
    /// The value of a variable, if there is such a variable.
    fn resolve(&self, name: &str) -> Option<Evaluated<'a>>;

    /// The value of a field of an object that is found out field by field ([`Value::Fields`]), if there is such a
    /// field. `object` is the name of its type.
    fn field(&self, _object: &str, _name: &str) -> Option<Evaluated<'a>> {
        None
    }
}

/// Variables and their values.
#[derive(Clone, Default)]
pub struct Bindings<'a> {
    values: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Bindings<'a> {
    /// No variables.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more variable.
    #[must_use]
    pub fn bind(mut self, name: &'a str, value: Value<'a>) -> Self {
        self.values.push((name, value));
        self
    }
}

impl<'a> Activation<'a> for Bindings<'a> {
    fn resolve(&self, name: &str) -> Option<Evaluated<'a>> {
        self.values.iter().rev().find(|(variable, _)| *variable == name).map(|(_, value)| Ok(value.clone()))
    }
}

/// How far evaluation may go.
#[derive(Clone, Copy, Default)]
pub struct Limits<'l> {
    /// The most it may cost.
    pub cost: Option<u64>,
    /// Asked now and then; when it says yes, evaluation ends.
    pub interrupted: Option<&'l (dyn Fn() -> bool + Sync)>,
}

/// What came of an evaluation.
#[derive(Clone, Debug)]
pub struct Outcome<'a> {
    /// The value.
    pub value: Evaluated<'a>,
    /// What it cost, success or not.
    pub cost: u64,
}

/// One evaluation.
pub(crate) struct Run<'r, 'a> {
    plan: &'r Plan,
    activation: &'r dyn Activation<'a>,
    limits: Limits<'r>,
    cost: u64,
    rounds: u32,
    registers: Vec<Option<Evaluated<'a>>>,
}

impl<'r, 'a> Run<'r, 'a> {
    pub(crate) fn new(plan: &'r Plan, activation: &'r dyn Activation<'a>, limits: Limits<'r>) -> Self {
        let registers = vec![None; plan.registers.len()];
        Self { plan, activation, limits, cost: 0, rounds: 0, registers }
    }

    pub(crate) fn finish(mut self) -> Outcome<'a> {
        let plan = self.plan;
        let value = self.node(&plan.root);
        Outcome { value, cost: self.cost }
    }

    fn charge(&mut self, cost: u64) -> Result<(), Fault> {
        self.cost = self.cost.saturating_add(cost);
        match self.limits.cost {
            Some(limit) if self.cost > limit => Err(Fault::CostLimit),
            _ => Ok(()),
        }
    }

    fn node(&mut self, node: &'r Node) -> Evaluated<'a> {
        match node {
            Node::Const(value) => Ok(value.clone()),
            Node::Attr(attr) => self.attr(attr),
            Node::And(terms) => self.logical(terms, false),
            Node::Or(terms) => self.logical(terms, true),
            Node::Equal(sides, wanted) => self.equal(sides, *wanted),
            Node::Call(call) => self.call(call),
            Node::InSet(value, set) => {
                let value = self.node(value)?;
                Ok(Value::Bool(value.key().is_some_and(|key| set.contains(&key))))
            }
            Node::OptionalOr(sides, unwrap) => match self.node(&sides[0])? {
                Value::Optional(Some(value)) if *unwrap => Ok(Value::clone(&value)),
                Value::Optional(None) => self.node(&sides[1]),
                other => Ok(other),
            },
            Node::List(elements) => self.list(elements),
            Node::Map(entries) => self.map(entries),
            Node::Struct(type_name, fields) => self.construction(type_name, fields),
            Node::Fold(fold) => self.fold(fold),
        }
    }

    fn attr(&mut self, attr: &'r Attr) -> Evaluated<'a> {
        let value = self.resolve(attr);
        match (&attr.base, attr.test_only) {
            (Base::Conditional(..), false) => {}
            (Base::Conditional(..), true) => self.cost = self.cost.saturating_sub(1),
            // Asking for presence costs no more than the steps there.
            (_, true) => {}
            (_, false) => self.charge(1)?,
        }
        value
    }

    /// The value of a selection, without what is charged for the whole.
    fn resolve(&mut self, attr: &'r Attr) -> Evaluated<'a> {
        let base = match &attr.base {
            Base::Variable(name) => match self.activation.resolve(name) {
                Some(value) => value?,
                None => return Err(Fault::new(format!("no such attribute(s): {name}"))),
            },
            Base::Register(register) => self.register(*register)?,
            Base::Node(node) => self.node(node)?,
            Base::Conditional(condition, then, otherwise) => match self.node(condition)? {
                Value::Bool(true) => self.resolve(then)?,
                Value::Bool(false) => self.resolve(otherwise)?,
                _ => return Err(Fault::no_such_overload()),
            },
        };
        self.qualify(base, attr)
    }

    fn qualify(&mut self, base: Value<'a>, attr: &'r Attr) -> Evaluated<'a> {
        let (mut value, mut optional) = match base {
            Value::Optional(None) if attr.test_only => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => (Value::clone(&inner), true),
            value => (value, false),
        };
        for (at, qualifier) in attr.qualifiers.iter().enumerate() {
            optional |= qualifier.optional;
            let last = at + 1 == attr.qualifiers.len();
            if attr.test_only && last {
                let found = self.step(&value, qualifier, true);
                self.charge(u64::from(!optional || matches!(found, Ok(Some(_)))))?;
                return Ok(Value::Bool(found?.is_some()));
            }
            match self.step(&value, qualifier, optional) {
                Ok(None) => {
                    return Ok(if attr.test_only { Value::Bool(false) } else { Value::Optional(None) });
                }
                Ok(Some(next)) => {
                    self.charge(1)?;
                    value = next;
                }
                Err(fault) => {
                    self.charge(u64::from(!optional))?;
                    return Err(fault);
                }
            }
        }
        Ok(if optional { Value::some(value) } else { value })
    }

    /// One step of a selection; what is missing is an error unless it `may_miss`.
    fn step(
        &mut self,
        value: &Value<'a>,
        qualifier: &'r Qualifier,
        may_miss: bool,
    ) -> Result<Option<Value<'a>>, Fault> {
        let computed;
        let key: &Value<'_> = match &qualifier.key {
            QualifierKey::Const(key) => key,
            QualifierKey::Attr(attr) => {
                computed = self.resolve(attr)?;
                &computed
            }
            QualifierKey::Node(node) => {
                computed = self.node(node)?;
                &computed
            }
        };
        let found = match (value, key) {
            (Value::Fields(object), Value::String(name)) => {
                self.activation.field(object, name).transpose()?
            }
            _ => ops::element(value, key)?,
        };
        match found {
            Some(found) => Ok(Some(found)),
            None if may_miss => Ok(None),
            None if matches!(value, Value::List(_)) => Err(Fault::new(format!("index out of bounds: {key}"))),
            None => Err(Fault::new(format!("no such key: {key}"))),
        }
    }

    fn register(&mut self, register: usize) -> Evaluated<'a> {
        if let Some(value) = &self.registers[register] {
            return value.clone();
        }
        let plan = self.plan;
        let value = match &plan.registers[register] {
            Some(init) => keep(self.node(init))?,
            None => Err(Fault::new("no such attribute")),
        };
        self.registers[register] = Some(value.clone());
        value
    }

    fn logical(&mut self, terms: &'r [Node; 2], decisive: bool) -> Evaluated<'a> {
        let mut fault = None;
        for term in terms {
            match self.node(term) {
                Ok(Value::Bool(value)) if value == decisive => return Ok(Value::Bool(decisive)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => fault = fault.or(Some(Fault::no_such_overload())),
                Err(error @ Fault::Error(_)) => fault = fault.or(Some(error)),
                Err(stop) => return Err(stop),
            }
        }
        fault.map_or(Ok(Value::Bool(!decisive)), Err)
    }

    /// The values of arguments, those that failed too; anything but a failure ends evaluation.
    fn arguments(&mut self, nodes: &'r [Node]) -> Result<Vec<Evaluated<'a>>, Fault> {
        let mut values = Vec::with_capacity(nodes.len());
        for node in nodes {
            values.push(keep(self.node(node))?);
            // With more than two arguments, the first that fails ends the call.
            if nodes.len() > 2 && values.last().is_some_and(Result::is_err) {
                break;
            }
        }
        Ok(values)
    }

    fn equal(&mut self, sides: &'r [Node; 2], wanted: bool) -> Evaluated<'a> {
        let args = self.arguments(sides)?;
        let function = if wanted { op::EQUALS } else { op::NOT_EQUALS };
        let overload = if wanted { "equals" } else { "not_equals" };
        self.charge(meter::call_cost(function, overload, &args, &Ok(Value::Null)))?;
        let (a, b) = (args[0].as_ref(), args[1].as_ref());
        let (a, b) = (a.map_err(Clone::clone)?, b.map_err(Clone::clone)?);
        match ops::equal(a, b) {
            Ok(equal) => Ok(Value::Bool(equal == wanted)),
            // What cannot be compared is not equal.
            Err(Fault::Error(_)) if !wanted => Ok(Value::Bool(true)),
            Err(fault) => Err(fault),
        }
    }

    fn call(&mut self, call: &'r Call) -> Evaluated<'a> {
        if &*call.function == op::NOT_STRICTLY_FALSE {
            let arg = keep(self.node(&call.args[0]))?;
            self.charge(1)?;
            return Ok(Value::Bool(!matches!(arg, Ok(Value::Bool(false)))));
        }
        let args = match call.takes_accumulator {
            Some(accu) => self.accumulator_arguments(call, accu)?,
            None => self.arguments(&call.args)?,
        };
        let complete = args.len() == call.args.len();
        let failed = args.iter().find_map(|arg| arg.as_ref().err().cloned());
        if let Some(fault) = failed {
            if complete {
                let cost = meter::call_cost(&call.function, call.overload, &args, &Err(fault.clone()));
                self.charge(cost)?;
            }
            return Err(fault);
        }
        // What the accumulator costs to add to does not depend on its elements.
        if call.takes_accumulator.is_some() && call.overload == "add_list" {
            self.charge(1)?;
            return append(args);
        }
        // As much as possible is charged before the work is done.
        let late = meter::depends_on_result(&call.function, call.overload);
        if !late {
            self.charge(meter::call_cost(&call.function, call.overload, &args, &Ok(Value::Null)))?;
        }
        let values: Vec<Value<'a>> = args.into_iter().flatten().collect();
        let result = call.apply(&values);
        if late {
            let args: Vec<Evaluated<'a>> = values.into_iter().map(Ok).collect();
            self.charge(meter::call_cost(&call.function, call.overload, &args, &result))?;
        }
        result
    }

    /// Arguments of a call whose first is the accumulator, taken out of its register so that it can be changed.
    fn accumulator_arguments(&mut self, call: &'r Call, accu: usize) -> Result<Vec<Evaluated<'a>>, Fault> {
        let value = keep(self.register(accu))?;
        self.charge(1)?;
        self.registers[accu] = None;
        let mut args = vec![value];
        for node in &call.args[1..] {
            let value = keep(self.node(node))?;
            let failed = value.is_err();
            args.push(value);
            if failed && call.args.len() > 2 {
                break;
            }
        }
        Ok(args)
    }

    /// The value of an element; `None` if it is optional and not there.
    fn element(
        &mut self,
        element: &'r Element,
        wrong: impl FnOnce(&Value<'a>) -> String,
    ) -> Result<Option<Value<'a>>, Fault> {
        let value = self.node(&element.node)?;
        if !element.optional {
            return Ok(Some(value));
        }
        match value {
            Value::Optional(inner) => Ok(inner.map(|value| Value::clone(&value))),
            other => Err(Fault::new(wrong(&other))),
        }
    }

    fn list(&mut self, elements: &'r [Element]) -> Evaluated<'a> {
        let mut values = Vec::with_capacity(elements.len());
        for element in elements {
            let wrong = |value: &Value<'a>| {
                format!("cannot initialize optional list element from non-optional value {value}")
            };
            values.extend(self.element(element, wrong)?);
        }
        self.charge(meter::LIST_COST)?;
        Ok(Value::list(values))
    }

    fn map(&mut self, entries: &'r [(Node, Element)]) -> Evaluated<'a> {
        let mut map = Entries::default();
        for (key, element) in entries {
            let key = self.node(key)?;
            let wrong = |value: &Value<'a>| {
                format!("cannot initialize optional entry '{key}' from non-optional value {value}")
            };
            if let Some(value) = self.element(element, wrong)? {
                map.set(key, value)?;
            }
        }
        self.charge(meter::MAP_COST)?;
        Ok(Value::Map(Map::Values(Arc::new(map))))
    }

    fn construction(&mut self, type_name: &'r Arc<str>, fields: &'r [(String, Element)]) -> Evaluated<'a> {
        let mut set = Vec::with_capacity(fields.len());
        for (name, element) in fields {
            let wrong = |value: &Value<'a>| {
                format!("cannot initialize optional entry '{name}' from non-optional value {value}")
            };
            if let Some(value) = self.element(element, wrong)? {
                set.push((name.clone(), value));
            }
        }
        self.charge(meter::STRUCT_COST)?;
        Ok(Value::Object(Arc::new(Object { type_name: type_name.clone(), fields: set })))
    }

    fn fold(&mut self, fold: &'r Fold) -> Evaluated<'a> {
        let range = self.node(&fold.range)?;
        self.registers[fold.accu] = None;
        match &range {
            Value::List(list) => {
                for at in 0..list.len() {
                    let item = keep(list.get(at))?;
                    match fold.var2 {
                        Some(var2) => {
                            self.registers[fold.var] = Some(Ok(Value::Int(at as i64)));
                            self.registers[var2] = Some(item);
                        }
                        None => self.registers[fold.var] = Some(item),
                    }
                    if !self.round(fold)? {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    if let Some(var2) = fold.var2 {
                        let value = map.find(&key)?.unwrap_or(Value::Null);
                        self.registers[var2] = Some(Ok(value));
                    }
                    self.registers[fold.var] = Some(Ok(key));
                    if !self.round(fold)? {
                        break;
                    }
                }
            }
            other => {
                let ty = other.type_of();
                return Err(Fault::new(match fold.var2 {
                    Some(_) => format!("unsupported comprehension range type: {}", ty.name()),
                    None => format!("got '{}', expected iterable type", ty.name()),
                }));
            }
        }
        self.node(&fold.result)
    }

    /// One round of a loop; false when it has ended.
    fn round(&mut self, fold: &'r Fold) -> Result<bool, Fault> {
        if let Ok(Value::Bool(false)) = keep(self.node(&fold.condition))? {
            return Ok(false);
        }
        let next = keep(self.node(&fold.step))?;
        self.registers[fold.accu] = Some(next);
        self.rounds += 1;
        if self.rounds.is_multiple_of(INTERRUPT_EVERY) && self.limits.interrupted.is_some_and(|stop| stop()) {
            return Err(Fault::Interrupted);
        }
        Ok(true)
    }
}

/// A failure as a value; whatever else ends evaluation stays an error.
fn keep<'a>(value: Evaluated<'a>) -> Result<Evaluated<'a>, Fault> {
    match value {
        Err(stop @ (Fault::CostLimit | Fault::Interrupted)) => Err(stop),
        value => Ok(value),
    }
}

/// The second list behind the first, which nothing else holds.
fn append<'a>(args: Vec<Evaluated<'a>>) -> Evaluated<'a> {
    let mut args = args.into_iter().flatten();
    match (args.next(), args.next()) {
        (Some(Value::List(mut list)), Some(Value::List(more))) => {
            if let List::Values(values, None) = &mut list {
                let values = Arc::make_mut(values);
                for item in more.iter() {
                    values.push(item?);
                }
                return Ok(Value::List(list));
            }
            ops::join(list, &more).map(Value::List)
        }
        (Some(a), Some(b)) => ops::add(&a, &b),
        _ => Err(Fault::no_such_overload()),
    }
}
