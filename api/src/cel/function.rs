//! Functions: what they are called with and what carries them out.
//!
//! Libraries are tables of [`Function`]s. Signatures are written as text, `list(A), A -> bool`, in which single
//! capital letters stand for any type.

use std::sync::Arc;

use super::eval::{Context, Evaluated};
use super::ty::Type;
use super::value::Value;

/// What carries a function out.
pub(crate) type Apply = for<'a> fn(&Context<'_>, &[Value<'a>]) -> Evaluated<'a>;

/// A function of a library.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    /// Its name; operators have names too.
    pub name: &'static str,
    /// Ways to call it.
    pub overloads: &'static [Signature],
    /// What carries it out.
    pub apply: Apply,
    /// Who sees to it that the values fit.
    pub guard: Guard,
}

/// Who sees to it that values fit a signature, when types are known only at run time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The caller, before it calls.
    Caller,
    /// The function itself, for all its overloads.
    Callee,
}

/// One way to call a function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signature {
    /// Identity of the overload.
    pub id: &'static str,
    /// Whether the first argument is a receiver.
    pub member: bool,
    /// Types of the arguments and of the result.
    pub types: &'static str,
}

/// A way to call it as `f(…)`.
pub(crate) const fn plain(id: &'static str, types: &'static str) -> Signature {
    Signature { id, member: false, types }
}

/// A way to call it as `x.f(…)`.
pub(crate) const fn member(id: &'static str, types: &'static str) -> Signature {
    Signature { id, member: true, types }
}

/// A function whose caller checks that the values fit.
pub(crate) const fn function(name: &'static str, overloads: &'static [Signature], apply: Apply) -> Function {
    Function { name, overloads, apply, guard: Guard::Caller }
}

/// A function that sees for itself whether the values fit.
pub(crate) const fn operator(name: &'static str, overloads: &'static [Signature], apply: Apply) -> Function {
    Function { name, overloads, apply, guard: Guard::Callee }
}

/// An overload as the checker sees it.
#[derive(Clone)]
pub(crate) struct Overload {
    pub id: &'static str,
    pub member: bool,
    pub args: Arc<[Type]>,
    pub result: Type,
    pub params: Arc<[Arc<str>]>,
    pub apply: Apply,
    pub guard: Guard,
}

impl Overload {
    pub(crate) fn new(function: &Function, signature: &Signature) -> Self {
        let (args, result) = signature.types.split_once("->").unwrap_or(("", signature.types));
        let args = TypeReader { text: args }.list();
        let result = TypeReader { text: result }.one();
        let mut params = Vec::new();
        args.iter().chain([&result]).for_each(|ty| collect_params(ty, &mut params));
        Self {
            id: signature.id,
            member: signature.member,
            args: args.into(),
            result,
            params: params.into(),
            apply: function.apply,
            guard: function.guard,
        }
    }

    /// Whether these values can be its arguments, as far as can be seen.
    pub(crate) fn accepts(&self, values: &[Value<'_>]) -> bool {
        self.args.len() == values.len() && self.args.iter().zip(values).all(|(ty, value)| value.is_of(ty))
    }
}

fn collect_params(ty: &Type, params: &mut Vec<Arc<str>>) {
    if let Type::Param(name) = ty
        && !params.contains(name)
    {
        params.push(name.clone());
    }
    ty.params().into_iter().for_each(|param| collect_params(param, params));
}

/// Reads types written as text; only for the tables of libraries, whose texts a test reads.
struct TypeReader<'t> {
    text: &'t str,
}

impl TypeReader<'_> {
    fn list(&mut self) -> Vec<Type> {
        let mut types = Vec::new();
        while !self.text.trim_start().is_empty() && !self.text.trim_start().starts_with(')') {
            types.push(self.one());
            self.text = self.text.trim_start().strip_prefix(',').unwrap_or(self.text);
        }
        types
    }

    fn one(&mut self) -> Type {
        self.text = self.text.trim_start();
        let end = self
            .text
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.'))
            .unwrap_or(self.text.len());
        let (name, rest) = self.text.split_at(end);
        self.text = rest;
        let mut params = Vec::new();
        if let Some(inner) = self.text.strip_prefix('(') {
            self.text = inner;
            params = self.list();
            self.text = self.text.trim_start().strip_prefix(')').unwrap_or(self.text);
        }
        named(name, params)
    }
}

fn named(name: &str, params: Vec<Type>) -> Type {
    let mut params = params.into_iter();
    match name {
        "dyn" => Type::Dyn,
        "any" => Type::Any,
        "null" => Type::Null,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "uint" => Type::Uint,
        "double" => Type::Double,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "duration" => Type::Duration,
        "timestamp" => Type::Timestamp,
        "list" => Type::list(params.next().unwrap_or(Type::Dyn)),
        "map" => Type::map(params.next().unwrap_or(Type::Dyn), params.next().unwrap_or(Type::Dyn)),
        "optional" => Type::optional(params.next().unwrap_or(Type::Dyn)),
        "type" => Type::Type(params.next().map(Arc::new)),
        _ if name.len() == 1 => Type::Param(name.into()),
        _ if name.starts_with("net.") => Type::opaque(name),
        _ => Type::object(name),
    }
}
