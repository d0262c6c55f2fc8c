//! Prepares checked expressions for evaluation.
//!
//! What is constant is computed once: lists and maps of constants, conversions of constants, regular expressions,
//! sets for `in`. Selections become chains of qualifiers on a base, because upstream charges for them so. Each
//! variable of a loop gets a register of its own.

use std::collections::HashSet;
use std::sync::Arc;

use regex::Regex;

use super::ast::{Comprehension, Expr, ExprKind, Literal, MapEntry, operators as op};
use super::checker::{Checked, Reference};
use super::env::Environment;
use super::eval::{Context, Fault};
use super::function::{Guard, Overload};
use super::library::regex as re;
use super::macros::ACCUMULATOR;
use super::ty::Type;
use super::value::{Entries, Key, List, Map, Value};

/// A step of evaluation.
pub(crate) enum Node {
    Const(Value<'static>),
    Attr(Attr),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Equal(Box<[Node; 2]>, bool),
    Call(Call),
    /// Whether a value is one of a few constants.
    InSet(Box<Node>, HashSet<Key>),
    /// `a.or(b)`, or `a.orValue(b)`.
    OptionalOr(Box<[Node; 2]>, bool),
    List(Vec<Element>),
    Map(Vec<(Node, Element)>),
    Struct(Arc<str>, Vec<(String, Element)>),
    Fold(Box<Fold>),
}

/// An element, entry or field that is perhaps optional.
pub(crate) struct Element {
    pub node: Node,
    pub optional: bool,
}

/// Something and what is selected from it, step by step.
pub(crate) struct Attr {
    pub base: Base,
    pub qualifiers: Vec<Qualifier>,
    /// Whether only presence is asked for.
    pub test_only: bool,
}

/// What a selection begins with.
pub(crate) enum Base {
    /// A variable of the activation.
    Variable(String),
    /// A variable of a loop.
    Register(usize),
    /// Any other expression.
    Node(Box<Node>),
    /// One of two.
    Conditional(Box<Node>, Box<Attr>, Box<Attr>),
}

/// One step of a selection.
pub(crate) struct Qualifier {
    pub key: QualifierKey,
    pub optional: bool,
}

/// By what something is selected.
pub(crate) enum QualifierKey {
    Const(Value<'static>),
    Attr(Attr),
    Node(Node),
}

/// A function call.
pub(crate) struct Call {
    pub function: Arc<str>,
    /// The one overload that can be meant, if there is only one.
    pub overload: &'static str,
    pub candidates: Vec<Overload>,
    pub args: Vec<Node>,
    pub regex: Option<Regex>,
    /// Whether the first argument is the accumulator of the loop, about to be replaced by the result.
    pub takes_accumulator: Option<usize>,
}

/// A loop.
pub(crate) struct Fold {
    pub range: Node,
    pub var: usize,
    pub var2: Option<usize>,
    pub accu: usize,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

/// A whole expression, prepared.
pub(crate) struct Plan {
    pub root: Node,
    /// How each register gets its first value; only accumulators have one.
    pub registers: Vec<Option<Arc<Node>>>,
}

type Planned<T = Node> = Result<T, Fault>;

/// Prepares an expression.
///
/// # Errors
/// When something constant in it cannot be computed.
pub(crate) fn plan(checked: &Checked, env: &Environment) -> Result<Plan, Fault> {
    let mut planner = Planner { checked, env, registers: Vec::new(), scopes: Vec::new() };
    let root = planner.plan(&checked.ast.root)?;
    Ok(Plan { root, registers: planner.registers })
}

struct Planner<'p> {
    checked: &'p Checked,
    env: &'p Environment,
    registers: Vec<Option<Arc<Node>>>,
    scopes: Vec<(String, usize)>,
}

pub(crate) fn literal_value(literal: &Literal) -> Value<'static> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(value) => Value::Int(*value),
        Literal::Uint(value) => Value::Uint(*value),
        Literal::Double(value) => Value::Double(*value),
        Literal::String(text) => Value::text(text.clone()),
        Literal::Bytes(bytes) => Value::Bytes(bytes.clone()),
    }
}

impl Node {
    fn constant(&self) -> Option<&Value<'static>> {
        match self {
            Node::Const(value) => Some(value),
            _ => None,
        }
    }

    /// It as something to select from.
    fn into_attr(self) -> Attr {
        match self {
            Node::Attr(attr) if !attr.test_only => attr,
            node => Attr { base: Base::Node(Box::new(node)), qualifiers: Vec::new(), test_only: false },
        }
    }
}

impl Planner<'_> {
    fn plan(&mut self, expr: &Expr) -> Planned {
        match &expr.kind {
            ExprKind::Unspecified => Err(Fault::new("unsupported expression")),
            ExprKind::Literal(literal) => Ok(Node::Const(literal_value(literal))),
            ExprKind::Ident(name) => Ok(self.ident(expr, name)),
            ExprKind::Select { operand, field, test_only } => {
                let mut attr = self.plan(operand)?.into_attr();
                let key = QualifierKey::Const(Value::text(field.as_str()));
                attr.qualifiers.push(Qualifier { key, optional: false });
                attr.test_only = *test_only;
                Ok(Node::Attr(attr))
            }
            ExprKind::Call { target, function, args } => self.call(expr, target.as_deref(), function, args),
            ExprKind::List { elements, optionals } => {
                let elements = elements
                    .iter()
                    .enumerate()
                    .map(|(at, element)| self.element(element, optionals.contains(&at)))
                    .collect::<Planned<Vec<_>>>()?;
                Ok(if self.env.folds { fold_list(elements) } else { Node::List(elements) })
            }
            ExprKind::Map(entries) => self.map(entries),
            ExprKind::Struct { type_name, fields } => {
                if !self.env.can_construct(type_name) {
                    return Err(Fault::new(format!("unknown type: {type_name}")));
                }
                let fields = fields
                    .iter()
                    .map(|field| Ok((field.name.clone(), self.element(&field.value, field.optional)?)))
                    .collect::<Planned<Vec<_>>>()?;
                Ok(Node::Struct(type_name.as_str().into(), fields))
            }
            ExprKind::Comprehension(fold) => self.fold(fold),
        }
    }

    fn element(&mut self, expr: &Expr, optional: bool) -> Planned<Element> {
        Ok(Element { node: self.plan(expr)?, optional })
    }

    fn ident(&self, expr: &Expr, name: &str) -> Node {
        if matches!(self.checked.references.get(expr.id as usize), Some(Reference::Type))
            && let Type::Type(Some(ty)) = self.checked.ty(expr.id)
        {
            return Node::Const(Value::Type(ty));
        }
        let base = match self.scopes.iter().rev().find(|(variable, _)| variable == name) {
            Some((_, register)) => Base::Register(*register),
            None => Base::Variable(name.to_owned()),
        };
        Node::Attr(Attr { base, qualifiers: Vec::new(), test_only: false })
    }

    fn map(&mut self, entries: &[MapEntry]) -> Planned {
        let mut planned = Vec::with_capacity(entries.len());
        for entry in entries {
            planned.push((self.plan(&entry.key)?, self.element(&entry.value, entry.optional)?));
        }
        let mut constant = Entries::default();
        for (key, value) in &planned {
            match (key.constant(), value.node.constant()) {
                (Some(key), Some(value)) => constant.set(key.clone(), value.clone())?,
                _ => return Ok(Node::Map(planned)),
            }
        }
        match !self.env.folds || entries.iter().any(|entry| entry.optional) {
            true => Ok(Node::Map(planned)),
            false => Ok(Node::Const(Value::Map(Map::Values(Arc::new(constant))))),
        }
    }

    fn call(&mut self, expr: &Expr, target: Option<&Expr>, function: &str, args: &[Expr]) -> Planned {
        let mut nodes =
            target.into_iter().chain(args).map(|arg| self.plan(arg)).collect::<Planned<Vec<_>>>()?;
        let overload = match self.checked.overloads(expr.id) {
            [only] => *only,
            _ => "",
        };
        let pair = |nodes: Vec<Node>| -> Planned<Box<[Node; 2]>> {
            let pair = nodes.try_into().map_err(|_| Fault::new(format!("no such overload: {function}")))?;
            Ok(Box::new(pair))
        };
        match function {
            op::AND => Ok(Node::And(pair(nodes)?)),
            op::OR => Ok(Node::Or(pair(nodes)?)),
            op::EQUALS => Ok(Node::Equal(pair(nodes)?, true)),
            op::NOT_EQUALS => Ok(Node::Equal(pair(nodes)?, false)),
            op::INDEX | op::OPT_INDEX | op::OPT_SELECT => {
                let [target, index] = *pair(nodes)?;
                Ok(index_node(target, index, function != op::INDEX))
            }
            op::CONDITIONAL => {
                let otherwise = nodes.pop().map(Node::into_attr);
                let then = nodes.pop().map(Node::into_attr);
                match (nodes.pop(), then, otherwise) {
                    (Some(condition), Some(then), Some(otherwise)) => {
                        let base =
                            Base::Conditional(Box::new(condition), Box::new(then), Box::new(otherwise));
                        Ok(Node::Attr(Attr { base, qualifiers: Vec::new(), test_only: false }))
                    }
                    _ => Err(Fault::no_such_overload()),
                }
            }
            "or" if matches!(overload, "" | "optional_or_optional") && nodes.len() == 2 => {
                Ok(Node::OptionalOr(pair(nodes)?, false))
            }
            "orValue" if matches!(overload, "" | "optional_orValue_value") && nodes.len() == 2 => {
                Ok(Node::OptionalOr(pair(nodes)?, true))
            }
            _ => self.function(function, overload, nodes),
        }
    }

    fn function(&mut self, function: &str, overload: &'static str, mut args: Vec<Node>) -> Planned {
        if overload == "in_list"
            && let [_, Node::Const(Value::List(list))] = args.as_slice()
            && let Some(set) = constant_set(list)
        {
            let value = args.swap_remove(0);
            return Ok(match set.is_empty() {
                true => Node::Const(Value::Bool(false)),
                false => Node::InSet(Box::new(value), set),
            });
        }
        let all = self.env.overloads(function).unwrap_or_default();
        let named: Vec<Overload> = all.iter().filter(|candidate| candidate.id == overload).cloned().collect();
        let candidates = if named.is_empty() { all.to_vec() } else { named };
        let regex = match (function, args.as_slice()) {
            ("matches" | "find" | "findAll", [_, Node::Const(Value::String(pattern)), ..]) => {
                Some(re::compile(pattern)?)
            }
            _ => None,
        };
        let call =
            Call { function: function.into(), overload, candidates, args, regex, takes_accumulator: None };
        if self.env.folds
            && is_conversion(function)
            && let [Node::Const(value)] = call.args.as_slice()
        {
            return Ok(Node::Const(call.apply(std::slice::from_ref(value))?));
        }
        Ok(Node::Call(call))
    }

    fn register(&mut self, init: Option<Arc<Node>>) -> usize {
        self.registers.push(init);
        self.registers.len() - 1
    }

    fn fold(&mut self, fold: &Comprehension) -> Planned {
        let init = self.plan(&fold.init)?;
        let range = self.plan(&fold.range)?;
        let accu = self.register(Some(Arc::new(init)));
        let var = self.register(None);
        let var2 = fold.var2.as_ref().map(|_| self.register(None));
        let outside = self.scopes.len();
        // The accumulator hides a variable of the same name.
        if let (Some(name), Some(register)) = (&fold.var2, var2) {
            self.scopes.push((name.clone(), register));
        }
        self.scopes.push((fold.var.clone(), var));
        self.scopes.push((fold.accu.clone(), accu));
        let condition = self.plan(&fold.condition)?;
        let mut step = self.plan(&fold.step)?;
        self.scopes.truncate(outside);
        if fold.accu == ACCUMULATOR {
            take_accumulator(&mut step, accu);
        }
        self.scopes.push((fold.accu.clone(), accu));
        let result = self.plan(&fold.result)?;
        self.scopes.truncate(outside);
        Ok(Node::Fold(Box::new(Fold { range, var, var2, accu, condition, step, result })))
    }
}

impl Call {
    /// Carries the call out with these arguments.
    pub(crate) fn apply<'a>(&self, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
        let context = Context { function: &self.function, regex: self.regex.as_ref() };
        let fits = |candidate: &&Overload| candidate.guard == Guard::Callee || candidate.accepts(args);
        match self.candidates.iter().find(fits) {
            Some(candidate) => (candidate.apply)(&context, args),
            None => {
                let types: Vec<String> = args.iter().map(|arg| arg.type_of().name().to_owned()).collect();
                Err(Fault::new(format!("no such overload: {}({})", self.function, types.join(", "))))
            }
        }
    }
}

fn index_node(target: Node, index: Node, optional: bool) -> Node {
    let mut attr = target.into_attr();
    let key = match index {
        Node::Const(value) => QualifierKey::Const(value),
        Node::Attr(index) if !index.test_only => QualifierKey::Attr(index),
        node => QualifierKey::Node(node),
    };
    attr.qualifiers.push(Qualifier { key, optional });
    Node::Attr(attr)
}

fn fold_list(elements: Vec<Element>) -> Node {
    let constant = |element: &Element| match element.optional {
        true => None,
        false => element.node.constant().cloned(),
    };
    match elements.iter().map(constant).collect::<Option<Vec<_>>>() {
        Some(values) => Node::Const(Value::list(values)),
        None => Node::List(elements),
    }
}

/// The elements as a set, if they are all of types that can be looked up.
fn constant_set(list: &List<'static>) -> Option<HashSet<Key>> {
    list.iter()
        .map(|item| match item.ok()? {
            item
            @ (Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::String(_)) => {
                item.key()
            }
            _ => None,
        })
        .collect()
}

fn is_conversion(function: &str) -> bool {
    matches!(
        function,
        "bool" | "bytes" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "type" | "uint"
    )
}

/// Lets the step of a loop take its accumulator instead of copying it, where the step is to add to it.
fn take_accumulator(step: &mut Node, accu: usize) {
    match step {
        Node::Call(call) if matches!(&*call.function, op::ADD | super::macros::MAP_INSERT) => {
            if let Some(Node::Attr(Attr { base: Base::Register(register), qualifiers, .. })) =
                call.args.first()
                && *register == accu
                && qualifiers.is_empty()
            {
                call.takes_accumulator = Some(accu);
            }
        }
        Node::Attr(Attr { base: Base::Conditional(_, then, _), .. }) => {
            if let Base::Node(step) = &mut then.base {
                take_accumulator(step, accu);
            }
        }
        _ => {}
    }
}
