//! The Common Expression Language as Kubernetes uses it.
//!
//! ```
//! use api::cel::{Bindings, Environment, Limits, Type, Value};
//!
//! let env = Environment::kubernetes().with_variable("self", Type::map(Type::String, Type::Dyn));
//! let checked = env.compile("self.replicas <= 5 && self.name.startsWith('web')")?;
//! assert_eq!(checked.output_type(), Type::Bool);
//! let program = env.program(&checked)?;
//!
//! let data = serde_json::json!({"replicas": 3, "name": "web-1"});
//! let variables = Bindings::new().bind("self", Value::from_json(&data));
//! let outcome = program.evaluate(&variables, Limits { cost: Some(1_000_000), ..Limits::default() });
//! assert_eq!(outcome.value?.as_bool(), Some(true));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! An [`Environment`] says what expressions know: the functions of Kubernetes as of some version, variables, types
//! that a schema has [`Declared`]. It compiles text to a [`Checked`] expression, whose type is known, or says what is
//! wrong in the words of upstream's compiler ([`Issues`]). A [`Program`] made of it evaluates with values given to the
//! variables ([`Activation`]), within [`Limits`], to a [`Value`] or a [`Fault`], and says what that cost. Data is JSON
//! that values borrow; with a [`Shape`] it is read as its schema says, else as it looks.
//!
//! What an expression can cost at most is known before it runs ([`estimate`]).
//!
//! Everything is exact against upstream's compiler and evaluator as far as that can be observed: messages, places,
//! types, the order of evaluation, what each step costs.

pub mod admission;
mod ast;
mod checker;
mod cost;
mod declared;
pub mod device;
mod env;
mod escape;
mod eval;
mod function;
mod lexer;
pub mod library;
mod macros;
mod meter;
mod parser;
mod plan;
mod shape;
mod source;
mod stack;
mod syntax;
mod ty;
mod unescape;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use ast::{Ast, Comprehension, Expr, ExprId, ExprKind, Literal, MapEntry, StructField};
pub use checker::Checked;
pub use cost::{Range, Sizes, estimate};
pub use declared::{Declared, MAX_REQUEST_BYTES, Parts};
pub use env::{CURRENT, Environment, Program};
pub use escape::{escape, is_reserved, unescape};
pub use eval::{Activation, Bindings, Evaluated, Fault, Limits, Outcome};
pub use shape::{ListKind, ListShape, Shape, ShapeKind, StringFormat};
pub use source::{Issue, Issues, Location, Source};
pub use ty::Type;
pub use value::{Entries, List, Map, Object, Text, Timestamp, Value};
