//! Expressions as trees, after macros have been expanded.

use std::sync::Arc;

/// Identifies an expression within its tree.
pub type ExprId = u32;

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// Its identity, by which types and places are found.
    pub id: ExprId,
    /// What it is.
    pub kind: ExprKind,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// Stands where something was wrong.
    Unspecified,
    /// A constant.
    Literal(Literal),
    /// A variable or a type.
    Ident(String),
    /// `operand.field`, or `has(operand.field)`.
    Select {
        /// What is selected from.
        operand: Box<Expr>,
        /// Name of the field.
        field: String,
        /// Whether only presence is asked for.
        test_only: bool,
    },
    /// A function call; operators are calls too.
    Call {
        /// The receiver, if called as a member.
        target: Option<Box<Expr>>,
        /// Name of the function.
        function: String,
        /// Arguments.
        args: Vec<Expr>,
    },
    /// `[a, ?b]`.
    List {
        /// Elements.
        elements: Vec<Expr>,
        /// Indexes of the elements that are optional.
        optionals: Vec<usize>,
    },
    /// `{k: v}`.
    Map(Vec<MapEntry>),
    /// `Type{field: value}`.
    Struct {
        /// Name of the type.
        type_name: String,
        /// Fields in the order given.
        fields: Vec<StructField>,
    },
    /// A loop that a macro expanded to.
    Comprehension(Box<Comprehension>),
}

/// An entry of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct MapEntry {
    /// Identity.
    pub id: ExprId,
    /// Key.
    pub key: Expr,
    /// Value.
    pub value: Expr,
    /// Whether the value is an optional that decides whether the entry exists.
    pub optional: bool,
}

/// A field of a constructed object.
#[derive(Clone, Debug, PartialEq)]
pub struct StructField {
    /// Identity.
    pub id: ExprId,
    /// Name.
    pub name: String,
    /// Value.
    pub value: Expr,
    /// Whether the value is an optional that decides whether the field is set.
    pub optional: bool,
}

/// A loop over a list or map with an accumulator.
#[derive(Clone, Debug, PartialEq)]
pub struct Comprehension {
    /// What is iterated over.
    pub range: Expr,
    /// The variable of the loop.
    pub var: String,
    /// A second variable: `var` is then the index or key and this the value.
    pub var2: Option<String>,
    /// Name of the accumulator.
    pub accu: String,
    /// First value of the accumulator.
    pub init: Expr,
    /// Goes on as long as this holds.
    pub condition: Expr,
    /// Next value of the accumulator.
    pub step: Expr,
    /// Result once the loop has ended.
    pub result: Expr,
}

/// A constant.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// `-3`.
    Int(i64),
    /// `3u`.
    Uint(u64),
    /// `3.0`.
    Double(f64),
    /// `"text"`.
    String(Arc<str>),
    /// `b"bytes"`.
    Bytes(Arc<[u8]>),
}

/// A parsed expression.
#[derive(Clone, Debug)]
pub struct Ast {
    /// The whole.
    pub root: Expr,
    /// Offset of each expression in the source, by identity.
    pub(crate) offsets: Vec<u32>,
}

impl Ast {
    pub(crate) fn offset(&self, id: ExprId) -> u32 {
        self.offsets.get(id as usize).copied().unwrap_or_default()
    }
}

/// Names of the functions behind operators.
pub mod operators {
    #![allow(missing_docs)] // each is named by its value
    pub const CONDITIONAL: &str = "_?_:_";
    pub const AND: &str = "_&&_";
    pub const OR: &str = "_||_";
    pub const NOT: &str = "!_";
    pub const EQUALS: &str = "_==_";
    pub const NOT_EQUALS: &str = "_!=_";
    pub const LESS: &str = "_<_";
    pub const LESS_EQUALS: &str = "_<=_";
    pub const GREATER: &str = "_>_";
    pub const GREATER_EQUALS: &str = "_>=_";
    pub const IN: &str = "@in";
    pub const ADD: &str = "_+_";
    pub const SUBTRACT: &str = "_-_";
    pub const MULTIPLY: &str = "_*_";
    pub const DIVIDE: &str = "_/_";
    pub const MODULO: &str = "_%_";
    pub const NEGATE: &str = "-_";
    pub const INDEX: &str = "_[_]";
    pub const OPT_INDEX: &str = "_[?_]";
    pub const OPT_SELECT: &str = "_?._";
    pub const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
}

impl Expr {
    pub(crate) fn new(id: ExprId, kind: ExprKind) -> Self {
        Self { id, kind }
    }

    /// `a.b.c` as a dotted name, if that is all it is.
    pub(crate) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            ExprKind::Ident(name) => Some(name.clone()),
            ExprKind::Select { operand, field, test_only: false } => {
                let mut name = operand.qualified_name()?;
                name.push('.');
                name.push_str(field);
                Some(name)
            }
            _ => None,
        }
    }

    /// How many expressions are one within the other.
    pub(crate) fn height(&self) -> usize {
        let mut below = 0;
        self.children(&mut |child| below = below.max(child.height()));
        below + 1
    }

    /// Calls `visit` for this expression and all below it, outer ones first.
    pub fn walk(&self, visit: &mut impl FnMut(&Expr)) {
        visit(self);
        self.children(&mut |child| child.walk(visit));
    }

    /// Calls `visit` for the expressions directly below, in order of evaluation.
    pub fn children<'e>(&'e self, visit: &mut impl FnMut(&'e Expr)) {
        match &self.kind {
            ExprKind::Unspecified | ExprKind::Literal(_) | ExprKind::Ident(_) => {}
            ExprKind::Select { operand, .. } => visit(operand),
            ExprKind::Call { target, args, .. } => {
                if let Some(target) = target {
                    visit(target);
                }
                args.iter().for_each(visit);
            }
            ExprKind::List { elements, .. } => elements.iter().for_each(visit),
            ExprKind::Map(entries) => {
                for entry in entries {
                    visit(&entry.key);
                    visit(&entry.value);
                }
            }
            ExprKind::Struct { fields, .. } => fields.iter().for_each(|field| visit(&field.value)),
            ExprKind::Comprehension(fold) => {
                for part in [&fold.range, &fold.init, &fold.condition, &fold.step, &fold.result] {
                    visit(part);
                }
            }
        }
    }
}
