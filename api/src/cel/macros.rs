//! Macros: calls that are written out as loops and conditions before anything else looks at them.

use super::ast::{Comprehension, Expr, ExprId, ExprKind, Literal, MapEntry, StructField, operators as op};

/// Name of the accumulator of most macros, which no expression can mention.
pub(crate) const ACCUMULATOR: &str = "@result";
/// Its name before it could be hidden; still not allowed for a variable.
const OLD_ACCUMULATOR: &str = "__result__";
const UNUSED: &str = "#unused";
/// What `sortBy` calls the list it sorts.
const SORT_INPUT: &str = "@__sortBy_input__";
/// Inserts into the map that a loop builds.
pub(crate) const MAP_INSERT: &str = "cel.@mapInsert";

/// Which macros are known besides the standard ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Macros {
    /// `optMap`, `optFlatMap`, and the syntax of optionals.
    pub optionals: bool,
    /// `all`, `exists` and the like with two variables, `transformList`, `transformMap`.
    pub two_variables: bool,
    /// `cel.bind`.
    pub bindings: bool,
    /// `sortBy`.
    pub sort_by: bool,
}

/// Hands out identities for new expressions.
pub(crate) trait Ids {
    /// A new identity for something at `offset`.
    fn id(&mut self, offset: u32) -> ExprId;
    /// Where an expression stands.
    fn offset(&self, id: ExprId) -> u32;
}

/// A call that may be a macro.
pub(crate) struct Call {
    pub function: String,
    pub target: Option<Box<Expr>>,
    pub args: Vec<Expr>,
}

/// What became of a call.
pub(crate) enum Expansion {
    /// It is a macro and stands for this.
    Expr(Expr),
    /// It is a macro, wrongly used: where and why.
    Wrong(u32, String),
    /// It is no macro.
    Call(Call),
}

type Expanded = Result<Expr, (ExprId, String)>;

/// Expands a call at `offset` if it is one of the `known` macros.
pub(crate) fn expand(ids: &mut dyn Ids, offset: u32, call: Call, known: Macros) -> Expansion {
    let Some(shape) = shape(&call, known) else { return Expansion::Call(call) };
    let mut make = Make { ids, offset };
    match make.expand(shape, call) {
        Ok(expr) => Expansion::Expr(expr),
        Err((at, message)) => Expansion::Wrong(make.ids.offset(at), message),
    }
}

/// The macros.
#[derive(Clone, Copy)]
enum Shape {
    Has,
    Quantifier(Quantifier, bool),
    Map,
    Filter,
    OptMap { flat: bool },
    TransformList,
    TransformMap,
    TransformMapEntry,
    Bind,
    SortBy,
}

#[derive(Clone, Copy)]
enum Quantifier {
    All,
    Exists,
    One,
}

fn shape(call: &Call, known: Macros) -> Option<Shape> {
    let count = call.args.len();
    let Some(target) = &call.target else {
        return (call.function == "has" && count == 1).then_some(Shape::Has);
    };
    let quantifier = match call.function.as_str() {
        "all" => Some(Quantifier::All),
        "exists" => Some(Quantifier::Exists),
        "exists_one" | "existsOne" => Some(Quantifier::One),
        _ => None,
    };
    if let Some(quantifier) = quantifier {
        return match count {
            2 => Some(Shape::Quantifier(quantifier, false)),
            3 if known.two_variables => Some(Shape::Quantifier(quantifier, true)),
            _ => None,
        };
    }
    match (call.function.as_str(), count) {
        ("map", 2 | 3) => Some(Shape::Map),
        ("filter", 2) => Some(Shape::Filter),
        ("sortBy", 2) if known.sort_by => Some(Shape::SortBy),
        ("optMap", 2) if known.optionals => Some(Shape::OptMap { flat: false }),
        ("optFlatMap", 2) if known.optionals => Some(Shape::OptMap { flat: true }),
        ("transformList", 3 | 4) if known.two_variables => Some(Shape::TransformList),
        ("transformMap", 3 | 4) if known.two_variables => Some(Shape::TransformMap),
        ("transformMapEntry", 3 | 4) if known.two_variables => Some(Shape::TransformMapEntry),
        ("bind", 3) if known.bindings && matches!(&target.kind, ExprKind::Ident(name) if name == "cel") => {
            Some(Shape::Bind)
        }
        _ => None,
    }
}

/// Makes expressions at the place of the macro.
struct Make<'a> {
    ids: &'a mut dyn Ids,
    offset: u32,
}

impl Make<'_> {
    fn expand(&mut self, shape: Shape, call: Call) -> Expanded {
        let Call { target, mut args, .. } = call;
        let target = target.map(|target| *target);
        match (shape, target) {
            (Shape::Has, None) => self.has(args.remove(0)),
            (Shape::Quantifier(quantifier, two), Some(range)) => {
                self.quantifier(quantifier, two, range, args)
            }
            (Shape::Map, Some(range)) => self.map(range, args),
            (Shape::Filter, Some(range)) => self.filter(range, args),
            (Shape::OptMap { flat }, Some(target)) => self.opt_map(flat, target, args),
            (Shape::TransformList, Some(range)) => self.transform_list(range, args),
            (Shape::TransformMap, Some(range)) => self.transform_map(range, args, true),
            (Shape::TransformMapEntry, Some(range)) => self.transform_map(range, args, false),
            (Shape::Bind, Some(_)) => self.bind(args),
            (Shape::SortBy, Some(target)) => self.sort_by(target, args),
            (_, target) => Err((target.map_or(0, |target| target.id), "not a macro".to_owned())),
        }
    }

    fn make(&mut self, kind: ExprKind) -> Expr {
        let id = self.ids.id(self.offset);
        Expr::new(id, kind)
    }

    fn bool(&mut self, value: bool) -> Expr {
        self.make(ExprKind::Literal(Literal::Bool(value)))
    }

    fn int(&mut self, value: i64) -> Expr {
        self.make(ExprKind::Literal(Literal::Int(value)))
    }

    fn ident(&mut self, name: &str) -> Expr {
        self.make(ExprKind::Ident(name.to_owned()))
    }

    fn accu(&mut self) -> Expr {
        self.ident(ACCUMULATOR)
    }

    fn list(&mut self, elements: Vec<Expr>) -> Expr {
        self.make(ExprKind::List { elements, optionals: Vec::new() })
    }

    fn call(&mut self, function: &str, args: Vec<Expr>) -> Expr {
        self.make(ExprKind::Call { target: None, function: function.to_owned(), args })
    }

    fn member(&mut self, function: &str, target: Expr) -> Expr {
        let target = Some(Box::new(target));
        self.make(ExprKind::Call { target, function: function.to_owned(), args: Vec::new() })
    }

    fn fold(&mut self, fold: Comprehension) -> Expr {
        self.make(ExprKind::Comprehension(Box::new(fold)))
    }

    fn has(&mut self, arg: Expr) -> Expanded {
        match arg.kind {
            ExprKind::Select { operand, field, .. } => {
                Ok(self.make(ExprKind::Select { operand, field, test_only: true }))
            }
            _ => Err((arg.id, "invalid argument to has() macro".to_owned())),
        }
    }

    fn quantifier(
        &mut self,
        quantifier: Quantifier,
        two: bool,
        range: Expr,
        mut args: Vec<Expr>,
    ) -> Expanded {
        let vars = if two {
            two_vars(&args)?
        } else {
            (variable(&args[0], "argument must be a simple name")?, None)
        };
        let predicate = args.remove(args.len() - 1);
        let (init, condition, step, result) = match quantifier {
            Quantifier::All => {
                let init = self.bool(true);
                let accu = self.accu();
                let condition = self.call(op::NOT_STRICTLY_FALSE, vec![accu]);
                let accu = self.accu();
                let step = self.call(op::AND, vec![accu, predicate]);
                (init, condition, step, self.accu())
            }
            Quantifier::Exists => {
                let init = self.bool(false);
                let accu = self.accu();
                let not = self.call(op::NOT, vec![accu]);
                let condition = self.call(op::NOT_STRICTLY_FALSE, vec![not]);
                let accu = self.accu();
                let step = self.call(op::OR, vec![accu, predicate]);
                (init, condition, step, self.accu())
            }
            Quantifier::One => {
                let init = self.int(0);
                let condition = self.bool(true);
                let sum = vec![self.accu(), self.int(1)];
                let sum = self.call(op::ADD, sum);
                let accu = self.accu();
                let step = self.call(op::CONDITIONAL, vec![predicate, sum, accu]);
                let equal = vec![self.accu(), self.int(1)];
                (init, condition, step, self.call(op::EQUALS, equal))
            }
        };
        let (var, var2) = vars;
        let accu = ACCUMULATOR.to_owned();
        Ok(self.fold(Comprehension { range, var, var2, accu, init, condition, step, result }))
    }

    fn map(&mut self, range: Expr, mut args: Vec<Expr>) -> Expanded {
        let var = variable(&args[0], "argument is not an identifier")?;
        let transform = args.remove(args.len() - 1);
        let filter = (args.len() == 2).then(|| args.remove(1));
        Ok(self.collect(range, (var, None), transform, filter))
    }

    fn filter(&mut self, range: Expr, mut args: Vec<Expr>) -> Expanded {
        let var = variable(&args[0], "argument is not an identifier")?;
        let filter = args.remove(1);
        Ok(self.collect(range, (var, None), args.remove(0), Some(filter)))
    }

    fn transform_list(&mut self, range: Expr, mut args: Vec<Expr>) -> Expanded {
        let vars = two_vars(&args)?;
        let transform = args.remove(args.len() - 1);
        let filter = (args.len() == 3).then(|| args.remove(2));
        Ok(self.collect(range, vars, transform, filter))
    }

    /// A loop that makes a list.
    fn collect(
        &mut self,
        range: Expr,
        vars: (String, Option<String>),
        item: Expr,
        filter: Option<Expr>,
    ) -> Expr {
        let init = self.list(Vec::new());
        let accu = self.accu();
        let item = self.list(vec![item]);
        let step = self.call(op::ADD, vec![accu, item]);
        self.gather(range, vars, init, step, filter)
    }

    fn transform_map(&mut self, range: Expr, mut args: Vec<Expr>, keep_key: bool) -> Expanded {
        let vars = two_vars(&args)?;
        let transform = args.remove(args.len() - 1);
        let filter = (args.len() == 3).then(|| args.remove(2));
        let init = self.make(ExprKind::Map(Vec::new()));
        let accu = self.accu();
        let insert = match keep_key {
            true => vec![accu, self.ident(&vars.0), transform],
            false => vec![accu, transform],
        };
        let step = self.call(MAP_INSERT, insert);
        Ok(self.gather(range, vars, init, step, filter))
    }

    fn gather(
        &mut self,
        range: Expr,
        (var, var2): (String, Option<String>),
        init: Expr,
        mut step: Expr,
        filter: Option<Expr>,
    ) -> Expr {
        let condition = self.bool(true);
        if let Some(filter) = filter {
            let accu = self.accu();
            step = self.call(op::CONDITIONAL, vec![filter, step, accu]);
        }
        let (accu, result) = (ACCUMULATOR.to_owned(), self.accu());
        self.fold(Comprehension { range, var, var2, accu, init, condition, step, result })
    }

    fn opt_map(&mut self, flat: bool, target: Expr, mut args: Vec<Expr>) -> Expanded {
        let ExprKind::Ident(var) = &args[0].kind else {
            let name = if flat { "optFlatMap" } else { "optMap" };
            return Err((args[0].id, format!("{name}() variable name must be a simple identifier")));
        };
        let var = var.clone();
        let copy = self.copy(&target);
        let present = self.member("hasValue", target);
        let value = self.member("value", copy);
        let mut mapped = self.let_in(&var, value, args.remove(1));
        if !flat {
            mapped = self.call("optional.of", vec![mapped]);
        }
        let none = self.call("optional.none", Vec::new());
        Ok(self.call(op::CONDITIONAL, vec![present, mapped, none]))
    }

    fn bind(&mut self, mut args: Vec<Expr>) -> Expanded {
        let ExprKind::Ident(var) = &args[0].kind else {
            return Err((args[0].id, "cel.bind() variable names must be simple identifiers".to_owned()));
        };
        let var = var.clone();
        let result = args.remove(2);
        Ok(self.let_in(&var, args.remove(1), result))
    }

    /// Binds the list, computes a key for each element, and sorts by the keys.
    fn sort_by(&mut self, target: Expr, args: Vec<Expr>) -> Expanded {
        if matches!(target.kind, ExprKind::Literal(_) | ExprKind::Map(_) | ExprKind::Struct { .. }) {
            let message =
                "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Err((target.id, message.to_owned()));
        }
        let range = self.ident(SORT_INPUT);
        let keys = self.map(range, args)?;
        let input = Some(Box::new(self.ident(SORT_INPUT)));
        let function = "@sortByAssociatedKeys".to_owned();
        let sorted = self.make(ExprKind::Call { target: input, function, args: vec![keys] });
        Ok(self.let_in(SORT_INPUT, target, sorted))
    }

    /// A loop that never runs: its accumulator is a variable, set when first used.
    fn let_in(&mut self, var: &str, value: Expr, result: Expr) -> Expr {
        let range = self.list(Vec::new());
        let condition = self.bool(false);
        let step = self.ident(var);
        self.fold(Comprehension {
            range,
            var: UNUSED.to_owned(),
            var2: None,
            accu: var.to_owned(),
            init: value,
            condition,
            step,
            result,
        })
    }

    /// The same expression with identities of its own.
    fn copy(&mut self, expr: &Expr) -> Expr {
        let id = self.again(expr.id);
        let kind = match &expr.kind {
            kind @ (ExprKind::Unspecified | ExprKind::Literal(_) | ExprKind::Ident(_)) => kind.clone(),
            ExprKind::Select { operand, field, test_only } => ExprKind::Select {
                operand: Box::new(self.copy(operand)),
                field: field.clone(),
                test_only: *test_only,
            },
            ExprKind::Call { target, function, args } => ExprKind::Call {
                target: target.as_ref().map(|target| Box::new(self.copy(target))),
                function: function.clone(),
                args: args.iter().map(|arg| self.copy(arg)).collect(),
            },
            ExprKind::List { elements, optionals } => ExprKind::List {
                elements: elements.iter().map(|element| self.copy(element)).collect(),
                optionals: optionals.clone(),
            },
            ExprKind::Map(entries) => {
                ExprKind::Map(entries.iter().map(|entry| self.copy_entry(entry)).collect())
            }
            ExprKind::Struct { type_name, fields } => ExprKind::Struct {
                type_name: type_name.clone(),
                fields: fields.iter().map(|field| self.copy_field(field)).collect(),
            },
            ExprKind::Comprehension(fold) => ExprKind::Comprehension(Box::new(Comprehension {
                range: self.copy(&fold.range),
                var: fold.var.clone(),
                var2: fold.var2.clone(),
                accu: fold.accu.clone(),
                init: self.copy(&fold.init),
                condition: self.copy(&fold.condition),
                step: self.copy(&fold.step),
                result: self.copy(&fold.result),
            })),
        };
        Expr::new(id, kind)
    }

    fn copy_entry(&mut self, entry: &MapEntry) -> MapEntry {
        let id = self.again(entry.id);
        let (key, value) = (self.copy(&entry.key), self.copy(&entry.value));
        MapEntry { id, key, value, optional: entry.optional }
    }

    fn copy_field(&mut self, field: &StructField) -> StructField {
        let id = self.again(field.id);
        StructField { id, name: field.name.clone(), value: self.copy(&field.value), optional: field.optional }
    }

    fn again(&mut self, id: ExprId) -> ExprId {
        let offset = self.ids.offset(id);
        self.ids.id(offset)
    }
}

fn variable(expr: &Expr, message: &str) -> Result<String, (ExprId, String)> {
    match &expr.kind {
        ExprKind::Ident(name) if name == ACCUMULATOR || name == OLD_ACCUMULATOR => {
            Err((expr.id, "iteration variable overwrites accumulator variable".to_owned()))
        }
        ExprKind::Ident(name) => Ok(name.clone()),
        _ => Err((expr.id, message.to_owned())),
    }
}

fn two_vars(args: &[Expr]) -> Result<(String, Option<String>), (ExprId, String)> {
    let names: Vec<&str> = args
        .iter()
        .take(2)
        .map(|arg| match &arg.kind {
            ExprKind::Ident(name) => Ok(name.as_str()),
            _ => Err((arg.id, "argument must be a simple name".to_owned())),
        })
        .collect::<Result<_, _>>()?;
    if names[0] == names[1] {
        return Err((args[1].id, format!("duplicate variable name: {}", names[0])));
    }
    let first = variable(&args[0], "")?;
    Ok((first, Some(variable(&args[1], "")?)))
}
