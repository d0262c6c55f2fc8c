//! Looks at the literals of checked expressions: durations, times, regular expressions and formats that can never
//! work, and lists of mixed types.

use super::ast::{Expr, ExprId, ExprKind, Literal};
use super::checker::Checked;
use super::env::Environment;
use super::eval::Context;
use super::library::{regex, text_format};
use super::plan::literal_value;
use super::source::{Issues, Source};
use super::ty::Type;

use text_format::Clause;

/// Checks the literals of an expression.
///
/// # Errors
/// With all that is wrong.
pub(crate) fn validate(checked: &Checked, env: &Environment, source: &Source) -> Result<(), Issues> {
    let mut validator = Validator { checked, env, issues: Issues::new(source.clone()) };
    validator.literals(&checked.ast.root);
    validator.aggregates(&checked.ast.root);
    validator.formats(&checked.ast.root);
    if validator.issues.is_empty() { Ok(()) } else { Err(validator.issues) }
}

struct Validator<'v> {
    checked: &'v Checked,
    env: &'v Environment,
    issues: Issues,
}

impl Validator<'_> {
    fn report(&mut self, id: ExprId, message: String) {
        self.issues.report_at(self.checked.ast.offset(id), message);
    }

    fn literals(&mut self, root: &Expr) {
        root.walk(&mut |expr| {
            let ExprKind::Call { function, args, .. } = &expr.kind else { return };
            let Some(Expr { id, kind: ExprKind::Literal(literal) }) = args.first() else { return };
            let good = match (function.as_str(), literal) {
                ("duration" | "timestamp", literal) => self.converts(function, literal),
                ("matches", Literal::String(pattern)) => regex::compile(pattern).is_ok(),
                _ => true,
            };
            if !good {
                self.report(*id, format!("invalid {function} argument"));
            }
        });
    }

    fn converts(&self, function: &str, literal: &Literal) -> bool {
        let args = [literal_value(literal)];
        let overloads = self.env.overloads(function).unwrap_or_default();
        let context = Context { function, regex: None };
        overloads
            .iter()
            .find(|overload| overload.accepts(&args))
            .is_some_and(|overload| (overload.apply)(&context, &args).is_ok())
    }

    /// Elements of lists and maps are of one type, except in arguments to `format`.
    fn aggregates(&mut self, expr: &Expr) {
        match &expr.kind {
            ExprKind::Call { function, .. } if function == "format" => return,
            ExprKind::List { elements, optionals } => {
                let types: Vec<(ExprId, Type)> = elements
                    .iter()
                    .enumerate()
                    .map(|(at, element)| (element.id, self.element_type(element, optionals.contains(&at))))
                    .collect();
                if let Some((id, ty)) = types.iter().find(|(_, ty)| *ty != types[0].1) {
                    self.mismatch(*id, &types[0].1, ty);
                }
            }
            ExprKind::Map(entries) => {
                let types: Vec<_> = entries
                    .iter()
                    .map(|entry| {
                        let key = self.element_type(&entry.key, false);
                        let value = self.element_type(&entry.value, entry.optional);
                        (entry.key.id, key, entry.value.id, value)
                    })
                    .collect();
                for (key_id, key, value_id, value) in &types {
                    if *key != types[0].1 {
                        self.mismatch(*key_id, &types[0].1, key);
                    }
                    if *value != types[0].3 {
                        self.mismatch(*value_id, &types[0].3, value);
                    }
                }
            }
            _ => {}
        }
        expr.children(&mut |child| self.aggregates(child));
    }

    fn element_type(&self, element: &Expr, optional: bool) -> Type {
        let ty = self.checked.ty(element.id);
        match ty.unwrap_optional() {
            Some(inner) if optional => inner.clone(),
            _ => ty,
        }
    }

    fn mismatch(&mut self, id: ExprId, expected: &Type, found: &Type) {
        self.report(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn formats(&mut self, root: &Expr) {
        root.walk(&mut |expr| {
            let ExprKind::Call { target: Some(target), function, args } = &expr.kind else { return };
            let (ExprKind::Literal(Literal::String(format)), [args]) = (&target.kind, args.as_slice()) else {
                return;
            };
            let ExprKind::List { elements, .. } = &args.kind else { return };
            let overloads = self.checked.overloads(expr.id);
            if function == "format" && (overloads.is_empty() || overloads.contains(&"string_format")) {
                self.format(expr.id, format, elements);
            }
        });
    }

    fn format(&mut self, id: ExprId, format: &str, args: &[Expr]) {
        let checked = self.checked;
        let mut state = (0, id);
        let check = |state: &mut (usize, ExprId), clause: Clause, index: usize| {
            state.0 += 1;
            match unfit(checked, clause, &args[index]) {
                Some(bad) => {
                    state.1 = bad;
                    Err(clause.refusal(checked.ty(bad).name()))
                }
                None => Ok(()),
            }
        };
        match text_format::walk(format, args.len(), &mut state, |_, _| {}, check) {
            Err(message) => self.report(state.1, message),
            Ok(()) if args.len() > state.0 => {
                let (expected, found) = (state.0, args.len());
                let message = format!(
                    "too many arguments supplied to string.format (expected {expected}, got {found})"
                );
                self.report(id, message);
            }
            Ok(()) => {}
        }
    }
}

/// The expression that does not fit a clause.
fn unfit(checked: &Checked, clause: Clause, arg: &Expr) -> Option<ExprId> {
    let ty = checked.ty(arg.id);
    let fits = match clause {
        Clause::String => {
            !matches!(ty, Type::Struct(_) | Type::Opaque(..) | Type::Param(_) | Type::Any | Type::Error)
        }
        Clause::Decimal | Clause::Octal => matches!(ty, Type::Int | Type::Uint | Type::Dyn),
        Clause::Fixed(_) | Clause::Scientific(_) => matches!(ty, Type::Double | Type::String | Type::Dyn),
        Clause::Binary => matches!(ty, Type::Int | Type::Uint | Type::Bool | Type::Dyn),
        Clause::Hex { .. } => matches!(ty, Type::Int | Type::Uint | Type::String | Type::Bytes | Type::Dyn),
    };
    if !fits {
        return Some(arg.id);
    }
    match (&arg.kind, clause) {
        (ExprKind::List { elements, .. }, Clause::String) => {
            elements.iter().find_map(|element| unfit(checked, clause, element))
        }
        (ExprKind::Map(entries), Clause::String) => entries.iter().find_map(|entry| {
            unfit(checked, clause, &entry.key).or_else(|| unfit(checked, clause, &entry.value))
        }),
        _ => None,
    }
}
