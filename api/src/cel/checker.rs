//! Finds the type of every expression, or what is wrong with it.

use super::ast::{
    Ast, Comprehension, Expr, ExprId, ExprKind, Literal, MapEntry, StructField, operators as op,
};
use super::env::Environment;
use super::function::Overload;
use super::source::{Issues, Source};
use super::ty::Type;

mod unify;

use unify::Mapping;

/// Trees this high are worked on without taking care of the stack.
const SHALLOW: usize = 24;

/// An expression whose types are known.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The expression. Names are resolved: `a.b` that is one variable is one identifier.
    pub ast: Ast,
    pub(crate) types: Vec<Option<Type>>,
    pub(crate) references: Vec<Reference>,
    /// Whether it nests so deeply that working on it takes room.
    pub(crate) deep: bool,
}

/// What an expression refers to.
#[derive(Clone, Debug, Default)]
pub(crate) enum Reference {
    /// Nothing.
    #[default]
    None,
    /// A variable.
    Variable,
    /// A type.
    Type,
    /// Overloads of a function, of which one will be called.
    Overloads(Vec<&'static str>),
}

impl Checked {
    /// The type of the whole.
    #[must_use]
    pub fn output_type(&self) -> Type {
        self.ty(self.ast.root.id)
    }

    pub(crate) fn ty(&self, id: ExprId) -> Type {
        self.types.get(id as usize).cloned().flatten().unwrap_or(Type::Dyn)
    }

    pub(crate) fn overloads(&self, id: ExprId) -> &[&'static str] {
        match self.references.get(id as usize) {
            Some(Reference::Overloads(ids)) => ids,
            _ => &[],
        }
    }

    /// Whether a variable of this name is used.
    #[must_use]
    pub fn uses(&self, variable: &str) -> bool {
        let mut found = false;
        self.ast.root.walk(&mut |expr| {
            let refers = matches!(self.references.get(expr.id as usize), Some(Reference::Variable));
            found |= refers && matches!(&expr.kind, ExprKind::Ident(name) if name == variable);
        });
        found
    }
}

/// Checks a parsed expression.
///
/// # Errors
/// With all that is wrong.
pub(crate) fn check(ast: Ast, source: &Source, env: &Environment) -> Result<Checked, Issues> {
    let Ast { mut root, offsets } = ast;
    let mut checker = Checker {
        env,
        types: vec![None; offsets.len()],
        references: vec![Reference::None; offsets.len()],
        offsets: &offsets,
        issues: Issues::new(source.clone()),
        mapping: Mapping::default(),
        scopes: Vec::new(),
        free_variables: 0,
    };
    checker.check(&mut root);
    let Checker { mut types, references, issues, mapping, .. } = checker;
    for ty in types.iter_mut().flatten() {
        *ty = mapping.substitute(ty, true);
    }
    match issues.is_empty() {
        true => {
            let deep = root.height() > SHALLOW;
            Ok(Checked { ast: Ast { root, offsets }, types, references, deep })
        }
        false => Err(issues),
    }
}

struct Checker<'e> {
    env: &'e Environment,
    types: Vec<Option<Type>>,
    references: Vec<Reference>,
    offsets: &'e [u32],
    issues: Issues,
    mapping: Mapping,
    /// Variables of loops, innermost last.
    scopes: Vec<(String, Type)>,
    free_variables: u32,
}

/// What a name stands for.
enum Named {
    Variable(String, Type),
    Type(String, Type),
}

impl Checker<'_> {
    fn report(&mut self, id: ExprId, message: String) {
        let offset = self.offsets.get(id as usize).copied().unwrap_or_default();
        self.issues.report_at(offset, message);
    }

    fn set(&mut self, id: ExprId, ty: Type) {
        self.types[id as usize] = Some(ty);
    }

    fn get(&self, expr: &Expr) -> Type {
        self.types[expr.id as usize].clone().unwrap_or(Type::Error)
    }

    fn free_variable(&mut self) -> Type {
        self.free_variables += 1;
        Type::Param(format!("_var{}", self.free_variables - 1).into())
    }

    fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.mapping.assignable(&[a], &[b])
    }

    fn mismatch(&mut self, id: ExprId, expected: &Type, found: &Type) {
        self.report(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn undeclared(&mut self, id: ExprId, name: &str) {
        self.set(id, Type::Error);
        self.report(id, format!("undeclared reference to '{name}' (in container '')"));
    }

    fn check(&mut self, expr: &mut Expr) {
        let id = expr.id;
        match &mut expr.kind {
            ExprKind::Literal(literal) => {
                let ty = literal_type(literal);
                self.set(id, ty);
            }
            ExprKind::Ident(_) => self.ident(expr),
            ExprKind::Select { .. } => self.select(expr),
            ExprKind::Call { .. } => self.call(expr),
            ExprKind::List { elements, optionals } => self.list(id, elements, optionals),
            ExprKind::Map(entries) => self.map(id, entries),
            ExprKind::Struct { type_name, fields } => self.construction(id, type_name, fields),
            ExprKind::Comprehension(fold) => self.comprehension(id, fold),
            ExprKind::Unspecified => self.report(id, "unexpected unspecified type: Expr".to_owned()),
        }
    }

    fn lookup(&self, name: &str) -> Option<Named> {
        let name = name.strip_prefix('.').unwrap_or(name);
        if let Some((_, ty)) = self.scopes.iter().rev().find(|(variable, _)| variable == name) {
            return Some(Named::Variable(name.to_owned(), ty.clone()));
        }
        if let Some(ty) = self.env.variable_type(name) {
            return Some(Named::Variable(name.to_owned(), ty));
        }
        self.env.named_type(name).map(|ty| Named::Type(name.to_owned(), Type::type_of(ty)))
    }

    /// Makes `expr` the identifier its dotted name stands for, if it stands for one.
    fn resolve(&mut self, expr: &mut Expr, name: &str) -> bool {
        let (name, ty, reference) = match self.lookup(name) {
            Some(Named::Variable(name, ty)) => (name, ty, Reference::Variable),
            Some(Named::Type(name, ty)) => (name, ty, Reference::Type),
            None => return false,
        };
        self.set(expr.id, ty);
        self.references[expr.id as usize] = reference;
        expr.kind = ExprKind::Ident(name);
        true
    }

    fn ident(&mut self, expr: &mut Expr) {
        let ExprKind::Ident(name) = &expr.kind else { return };
        let name = name.clone();
        if !self.resolve(expr, &name) {
            self.undeclared(expr.id, &name);
        }
    }

    fn select(&mut self, expr: &mut Expr) {
        if let Some(name) = expr.qualified_name()
            && self.resolve(expr, &name)
        {
            return;
        }
        let id = expr.id;
        let ExprKind::Select { operand, field, test_only } = &mut expr.kind else { return };
        let mut ty = self.field(id, operand, field, false);
        if *test_only {
            ty = Type::Bool;
        }
        let ty = self.mapping.substitute(&ty, false);
        self.set(id, ty);
    }

    /// The type of a field of `operand`.
    fn field(&mut self, id: ExprId, operand: &mut Expr, field: &str, optional: bool) -> Type {
        self.check(operand);
        let operand_type = self.mapping.substitute(&self.get(operand), false);
        let inner = operand_type.unwrap_optional();
        let target = inner.unwrap_or(&operand_type);
        let result = match target {
            Type::Map(entry) => entry.1.clone(),
            Type::Struct(name) => self.field_type(id, name, field).unwrap_or(Type::Error),
            Type::Param(_) => {
                self.assignable(&Type::Dyn, target);
                Type::Dyn
            }
            _ => {
                if !target.is_dyn_or_error() {
                    self.report(id, format!("type '{target}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if inner.is_some() || optional { Type::optional(result) } else { result }
    }

    fn field_type(&mut self, id: ExprId, type_name: &str, field: &str) -> Option<Type> {
        if !self.env.has_struct(type_name) {
            self.report(id, format!("unexpected failed resolution of '{type_name}'"));
            return None;
        }
        let found = self.env.field_type(type_name, field);
        if found.is_none() {
            self.report(id, format!("undefined field '{field}'"));
        }
        found
    }

    fn call(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ExprKind::Call { target, function, args } = &mut expr.kind else { return };
        if function == op::OPT_SELECT {
            return self.optional_select(expr);
        }
        args.iter_mut().for_each(|arg| self.check(arg));
        let Some(receiver) = target else {
            let name = function.strip_prefix('.').unwrap_or(function).to_owned();
            if self.env.overloads(&name).is_none() {
                return self.undeclared(id, function);
            }
            function.clone_from(&name);
            return self.overloads(id, &name, None, args);
        };
        // `a.b.c()` is the function of that name, or the function `c` of the value `a.b`.
        if let Some(prefix) = receiver.qualified_name() {
            let name = format!("{prefix}.{function}");
            let name = name.strip_prefix('.').unwrap_or(&name).to_owned();
            if self.env.overloads(&name).is_some() {
                *target = None;
                function.clone_from(&name);
                return self.overloads(id, &name, None, args);
            }
        }
        self.check(receiver);
        let name = function.clone();
        if self.env.overloads(&name).is_none() {
            return self.undeclared(id, &name);
        }
        self.overloads(id, &name, Some(receiver), args);
    }

    fn optional_select(&mut self, expr: &mut Expr) {
        let id = expr.id;
        let ExprKind::Call { args, .. } = &mut expr.kind else { return };
        let [operand, field] = args.as_mut_slice() else { return };
        let ExprKind::Literal(Literal::String(name)) = &field.kind else { return };
        let name = name.clone();
        let field_id = field.id;
        self.set(field_id, Type::String);
        let ty = self.field(id, operand, &name, true);
        let ty = self.mapping.substitute(&ty, false);
        self.set(id, ty);
        self.references[id as usize] = Reference::Overloads(vec!["select_optional_field"]);
    }

    /// Finds the overloads of a function that these arguments fit.
    fn overloads(&mut self, id: ExprId, name: &str, target: Option<&Expr>, args: &[Expr]) {
        let found: Vec<Type> = target.into_iter().chain(args).map(|arg| self.get(arg)).collect();
        let env = self.env;
        let mut matching = Vec::new();
        let mut result: Option<Type> = None;
        for overload in env.overloads(name).into_iter().flatten() {
            if overload.member != target.is_some() {
                continue;
            }
            if name == op::AND || name == op::OR {
                return self.logical(id, overload, args, &found);
            }
            let (wanted, gives) = self.instantiate(overload);
            if !self.mapping.assignable(&found.iter().collect::<Vec<_>>(), &wanted.iter().collect::<Vec<_>>())
            {
                continue;
            }
            matching.push(overload.id);
            let gives = self.mapping.substitute(&gives, false);
            match &result {
                None => result = Some(gives),
                Some(first) if !first.is_dyn() && gives != *first => result = Some(Type::Dyn),
                Some(_) => {}
            }
        }
        match result {
            Some(ty) => {
                self.set(id, ty);
                self.references[id as usize] = Reference::Overloads(matching);
            }
            None => {
                let found: Vec<String> =
                    found.iter().map(|ty| self.mapping.substitute(ty, true).to_string()).collect();
                let signature = match target {
                    Some(_) => format!("{}.({})", found[0], found[1..].join(", ")),
                    None => format!("({})", found.join(", ")),
                };
                self.set(id, Type::Error);
                self.report(id, format!("found no matching overload for '{name}' applied to '{signature}'"));
            }
        }
    }

    fn logical(&mut self, id: ExprId, overload: &Overload, args: &[Expr], found: &[Type]) {
        let mut result = Type::Bool;
        for (arg, ty) in args.iter().zip(found) {
            if !self.assignable(ty, &Type::Bool) {
                self.mismatch(arg.id, &Type::Bool, ty);
                result = Type::Error;
            }
        }
        if result == Type::Bool {
            self.references[id as usize] = Reference::Overloads(vec![overload.id]);
        }
        self.set(id, result);
    }

    /// The types of an overload with fresh variables for its parameters.
    fn instantiate(&mut self, overload: &Overload) -> (Vec<Type>, Type) {
        if overload.params.is_empty() {
            return (overload.args.to_vec(), overload.result.clone());
        }
        let mut fresh = Mapping::default();
        for param in overload.params.iter() {
            let variable = self.free_variable();
            fresh.bind(param.clone(), variable);
        }
        let args = overload.args.iter().map(|ty| fresh.substitute(ty, false)).collect();
        (args, fresh.substitute(&overload.result, false))
    }

    /// The type of an element that is an optional of it.
    fn unwrap_element(&mut self, expr: &Expr, ty: Type) -> Type {
        if let Some(inner) = ty.unwrap_optional() {
            return inner.clone();
        }
        if !ty.is_dyn() {
            self.mismatch(expr.id, &Type::optional(ty.clone()), &ty);
        }
        ty
    }

    fn list(&mut self, id: ExprId, elements: &mut [Expr], optionals: &[usize]) {
        let mut joined = None;
        for (at, element) in elements.iter_mut().enumerate() {
            self.check(element);
            let mut ty = self.get(element);
            if optionals.contains(&at) {
                ty = self.unwrap_element(element, ty);
            }
            joined = Some(self.join(joined, ty));
        }
        let item = joined.unwrap_or_else(|| self.free_variable());
        self.set(id, Type::list(item));
    }

    fn map(&mut self, id: ExprId, entries: &mut [MapEntry]) {
        let mut joined = None;
        for entry in entries {
            let (keys, values): (Option<Type>, Option<Type>) = joined.unzip();
            self.check(&mut entry.key);
            let key = self.get(&entry.key);
            let key = self.join(keys, key);
            self.check(&mut entry.value);
            let mut value = self.get(&entry.value);
            if entry.optional {
                value = self.unwrap_element(&entry.value, value);
            }
            let value = self.join(values, value);
            joined = Some((key, value));
        }
        let (key, value) = joined.unwrap_or_else(|| (self.free_variable(), self.free_variable()));
        self.set(id, Type::map(key, value));
    }

    /// The common type of elements.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else { return current };
        if self.assignable(&previous, &current) {
            return unify::most_general(previous, current);
        }
        Type::Dyn
    }

    fn construction(&mut self, id: ExprId, type_name: &mut String, fields: &mut [StructField]) {
        let result = match self.lookup(type_name) {
            None => {
                let name = type_name.clone();
                return self.undeclared(id, &name);
            }
            Some(Named::Variable(_, ty)) => {
                if ty != Type::Error {
                    self.report(id, format!("'{}' is not a type", ty.name()));
                }
                Type::Error
            }
            Some(Named::Type(name, ty)) => {
                *type_name = name;
                self.references[id as usize] = Reference::Type;
                match ty.params().first() {
                    Some(Type::Struct(name)) => Type::Struct(name.clone()),
                    Some(other) => {
                        self.report(id, format!("'{}' is not a message type", other.name()));
                        Type::Error
                    }
                    None => Type::Error,
                }
            }
        };
        self.set(id, result.clone());
        for field in fields {
            self.check(&mut field.value);
            let wanted = match &result {
                Type::Struct(name) => self.field_type(field.id, name, &field.name).unwrap_or(Type::Error),
                _ => Type::Error,
            };
            let mut found = self.get(&field.value);
            if field.optional {
                found = self.unwrap_element(&field.value, found);
            }
            if !self.assignable(&wanted, &found) {
                let name = &field.name;
                let message =
                    format!("expected type of field '{name}' is '{wanted}' but provided type is '{found}'");
                self.report(field.id, message);
            }
        }
    }

    fn comprehension(&mut self, id: ExprId, fold: &mut Comprehension) {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.mapping.substitute(&self.get(&fold.range), false);
        let accu = self.get(&fold.init);
        let two = fold.var2.is_some();
        let (first, second) = match &range {
            Type::List(item) if two => (Type::Int, Type::clone(item)),
            Type::List(item) => (Type::clone(item), Type::Dyn),
            Type::Map(entry) => (entry.0.clone(), entry.1.clone()),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.report(fold.range.id, message);
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        self.scopes.push((fold.var.clone(), first));
        if let Some(var) = &fold.var2 {
            self.scopes.push((var.clone(), second));
        }
        self.check(&mut fold.condition);
        self.demand(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.demand(&fold.step, &accu);
        self.scopes.truncate(outside + 1);
        self.check(&mut fold.result);
        self.scopes.truncate(outside);
        let ty = self.mapping.substitute(&self.get(&fold.result), false);
        self.set(id, ty);
    }

    fn demand(&mut self, expr: &Expr, ty: &Type) {
        let found = self.get(expr);
        if !self.assignable(ty, &found) {
            self.mismatch(expr.id, ty, &found);
        }
    }
}

fn literal_type(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
