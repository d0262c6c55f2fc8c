//! What an expression can cost at most, before it runs.
//!
//! Walks the checked expression as the evaluator will, with ranges in place of values: how many elements or
//! characters something has at least and at most. Sizes of data come from the caller, by path
//! (`self`, `items`, `@items`, `name`), usually from the limits of a schema.

use std::collections::HashMap;
use std::ops::Add;

use super::ast::{Comprehension, Expr, ExprId, ExprKind, Literal};
use super::checker::Checked;
use super::declared::Declared;
use super::meter::{LIST_COST, MAP_COST, STRUCT_COST};
use super::stack::with_room;
use super::ty::Type;

mod calls;

/// From how much to how much: sizes and costs alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// At least.
    pub min: u64,
    /// At most.
    pub max: u64,
}

impl Range {
    /// Anything.
    pub const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

    /// Exactly this.
    #[must_use]
    pub const fn exactly(value: u64) -> Self {
        Self { min: value, max: value }
    }

    fn times(self, other: Self) -> Self {
        Self { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    /// Multiplied and rounded up.
    fn scaled(self, factor: f64) -> Self {
        let scale = |value: u64| (value as f64 * factor).ceil() as u64;
        Self { min: scale(self.min), max: scale(self.max) }
    }

    fn union(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl Add for Range {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }
}

/// Knows how large data can be.
pub trait Sizes: Sync {
    /// The size of what is at `path`, the first step of which is a variable.
    fn size(&self, path: &[&str]) -> Option<Range>;
}

/// Nothing is known of any data.
impl Sizes for () {
    fn size(&self, _: &[&str]) -> Option<Range> {
        None
    }
}

/// Every variable is of this type.
impl Sizes for Declared {
    fn size(&self, path: &[&str]) -> Option<Range> {
        let max = self.max_elements_at(path.get(1..)?.iter().copied())?;
        Some(Range { min: 0, max: max as u64 })
    }
}

/// What `checked` costs when evaluated, at least and at most.
#[must_use]
pub fn estimate(checked: &Checked, sizes: &dyn Sizes) -> Range {
    with_room(checked.deep, || Coster::new(checked, sizes).cost(&checked.ast.root))
}

impl<'c> Coster<'c> {
    fn new(checked: &'c Checked, sizes: &'c dyn Sizes) -> Self {
        Self {
            checked,
            sizes,
            paths: HashMap::new(),
            locals: Vec::new(),
            computed: HashMap::new(),
            entries: HashMap::new(),
        }
    }
}

type Path = Vec<String>;

/// Sizes of the keys or indexes and of the values of a container.
#[derive(Clone, Copy)]
struct Entry {
    is_list: bool,
    key: Range,
    value: Range,
}

impl Entry {
    fn union(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        let (a, b) = (a?, b?);
        Some(Self { is_list: a.is_list, key: a.key.union(b.key), value: a.value.union(b.value) })
    }
}

/// A variable of a loop.
struct Local {
    name: String,
    path: Path,
    size: Option<Range>,
    entry: Option<Entry>,
}

struct Coster<'c> {
    checked: &'c Checked,
    sizes: &'c dyn Sizes,
    paths: HashMap<ExprId, Path>,
    locals: Vec<Local>,
    computed: HashMap<ExprId, Range>,
    entries: HashMap<ExprId, Entry>,
}

/// An argument of a call, as far as it matters.
struct Arg<'e> {
    expr: &'e Expr,
    ty: Type,
    path: Path,
    size: Option<Range>,
    cost: Range,
}

impl Coster<'_> {
    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rev().find(|local| local.name == name)
    }

    fn path(&self, expr: &Expr) -> Path {
        if let ExprKind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.path.clone();
        }
        self.paths.get(&expr.id).cloned().unwrap_or_default()
    }

    fn path_below(&self, expr: &Expr, step: &str) -> Path {
        let mut path = self.path(expr);
        path.push(step.to_owned());
        path
    }

    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            ExprKind::Unspecified | ExprKind::Literal(_) => Range::default(),
            ExprKind::Ident(name) => {
                let path = self.local(name).map_or_else(|| vec![name.clone()], |local| local.path.clone());
                self.paths.insert(expr.id, path);
                Range::exactly(1)
            }
            // Asking for presence costs no more than its operand.
            ExprKind::Select { operand, test_only: true, .. } => self.cost(operand),
            ExprKind::Select { operand, field, .. } => {
                let mut sum = self.cost(operand);
                if matches!(self.checked.ty(operand.id), Type::Map(_) | Type::Struct(_) | Type::Param(_)) {
                    sum = sum + Range::exactly(1);
                }
                let path = self.path_below(operand, field);
                self.paths.insert(expr.id, path);
                sum
            }
            ExprKind::Call { .. } => self.call(expr),
            ExprKind::List { elements, .. } => {
                let mut sum = Range::exactly(LIST_COST);
                let mut size = none_yet(elements.is_empty());
                for element in elements {
                    sum = sum + self.cost(element);
                    size = size.union(self.size_or_unknown(element));
                }
                self.entries.insert(expr.id, Entry { is_list: true, key: Range::exactly(1), value: size });
                sum
            }
            ExprKind::Map(entries) => {
                let mut sum = Range::exactly(MAP_COST);
                let (mut keys, mut values) = (none_yet(entries.is_empty()), none_yet(entries.is_empty()));
                for entry in entries {
                    sum = sum + self.cost(&entry.key) + self.cost(&entry.value);
                    keys = keys.union(self.size_or_unknown(&entry.key));
                    values = values.union(self.size_or_unknown(&entry.value));
                }
                self.entries.insert(expr.id, Entry { is_list: false, key: keys, value: values });
                sum
            }
            ExprKind::Struct { fields, .. } => {
                fields.iter().fold(Range::exactly(STRUCT_COST), |sum, field| sum + self.cost(&field.value))
            }
            ExprKind::Comprehension(fold) if is_binding(fold) => self.binding(expr, fold),
            ExprKind::Comprehension(fold) => self.comprehension(expr, fold),
        }
    }

    fn push(&mut self, name: &str, path: Path, size: Option<Range>, entry: Option<Entry>) {
        self.locals.push(Local { name: name.to_owned(), path, size, entry });
    }

    fn push_bound(&mut self, name: &str, init: &Expr) {
        let (path, size, entry) = (self.path(init), self.size(init), self.entry(init));
        self.push(name, path, size, entry);
    }

    fn binding(&mut self, expr: &Expr, fold: &Comprehension) -> Range {
        let sum = self.cost(&fold.range) + self.cost(&fold.init);
        self.push_bound(&fold.accu, &fold.init);
        let sum = sum + self.cost(&fold.result);
        self.locals.pop();
        self.copy_sizes(expr.id, &fold.result);
        sum
    }

    fn comprehension(&mut self, expr: &Expr, fold: &Comprehension) -> Range {
        let mut sum = self.cost(&fold.range) + self.cost(&fold.init);
        self.push_bound(&fold.accu, &fold.init);
        let entry = self.entry(&fold.range);
        let is_list = match entry {
            Some(entry) => entry.is_list,
            None => matches!(self.checked.ty(fold.range.id), Type::List(_)),
        };
        let (keys, values) = if is_list { ("@indices", "@items") } else { ("@keys", "@values") };
        let (key, value) = (entry.map(|entry| entry.key), entry.map(|entry| entry.value));
        let outside = self.locals.len();
        match &fold.var2 {
            Some(var2) => {
                let path = self.path_below(&fold.range, keys);
                self.push(&fold.var, path, key, None);
                let path = self.path_below(&fold.range, values);
                self.push(var2, path, value, None);
            }
            None if is_list => {
                let path = self.path_below(&fold.range, values);
                self.push(&fold.var, path, value, None);
            }
            None => {
                let path = self.path_below(&fold.range, keys);
                self.push(&fold.var, path, key, None);
            }
        }
        let round = self.cost(&fold.condition) + self.cost(&fold.step);
        self.locals.truncate(outside);
        sum = sum + self.cost(&fold.result);
        self.locals.pop();
        let count = self.size_or_unknown(&fold.range);
        sum = sum + count.times(round);
        match &fold.init.kind {
            ExprKind::Literal(_) => {
                if let Some(size) = self.size(&fold.init) {
                    self.computed.insert(expr.id, size);
                }
            }
            ExprKind::List { .. } | ExprKind::Map(_) => {
                self.computed.insert(expr.id, count);
                if let Some(entry) = self.entry(&fold.step) {
                    self.entries.insert(expr.id, entry);
                }
            }
            _ => {}
        }
        sum
    }

    fn copy_sizes(&mut self, to: ExprId, from: &Expr) {
        if let Some(size) = self.size(from) {
            self.computed.insert(to, size);
        }
        if let Some(entry) = self.entry(from) {
            self.entries.insert(to, entry);
        }
    }

    fn size(&mut self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.computed.get(&expr.id) {
            return Some(*size);
        }
        if let Some(size) = own_size(expr) {
            return Some(Range::exactly(size));
        }
        if let Some(size) = self.data_size(&self.path(expr)) {
            self.computed.insert(expr.id, size);
            return Some(size);
        }
        if is_scalar(&self.checked.ty(expr.id)) {
            return Some(Range::exactly(1));
        }
        match &expr.kind {
            ExprKind::Ident(name) => self.local(name).and_then(|local| local.size),
            _ => None,
        }
    }

    /// The size of data at a path; accumulators are no data.
    fn data_size(&self, path: &[String]) -> Option<Range> {
        if path.is_empty() {
            return None;
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        self.sizes.size(&path)
    }

    fn size_or_unknown(&mut self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn entry(&self, expr: &Expr) -> Option<Entry> {
        if let Some(entry) = self.entries.get(&expr.id) {
            return Some(*entry);
        }
        match &expr.kind {
            ExprKind::Ident(name) => self.local(name).and_then(|local| local.entry),
            _ => None,
        }
    }
}

/// The size of elements before any has been seen.
fn none_yet(empty: bool) -> Range {
    Range { min: if empty { 0 } else { u64::MAX }, max: 0 }
}

/// Whether a loop never runs and only sets a variable.
fn is_binding(fold: &Comprehension) -> bool {
    matches!(&fold.range.kind, ExprKind::List { elements, .. } if elements.is_empty())
        && fold.condition.kind == ExprKind::Literal(Literal::Bool(false))
}

/// The size an expression has by itself.
fn own_size(expr: &Expr) -> Option<u64> {
    Some(match &expr.kind {
        ExprKind::Literal(Literal::String(text)) => text.chars().count() as u64,
        ExprKind::Literal(Literal::Bytes(bytes)) => bytes.len() as u64,
        ExprKind::Literal(_) => 1,
        ExprKind::List { elements, .. } => elements.len() as u64,
        ExprKind::Map(entries) => entries.len() as u64,
        _ => return None,
    })
}

fn is_scalar(ty: &Type) -> bool {
    match ty {
        Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
        other => other.unwrap_optional().is_some_and(is_scalar),
    }
}
