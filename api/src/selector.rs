//! Selectors: over labels ([`LabelSelector`], upstream `apimachinery/pkg/labels`) and over a few fields of each kind
//! ([`FieldSelector`], upstream `apimachinery/pkg/fields`).

mod field;
pub(crate) mod kinds;
mod label;
mod lexer;
mod parser;

pub use field::{FieldRequirement, FieldSelector, Fields, field_label_error};
pub(crate) use kinds::FieldSelectors;
pub use kinds::{canonical_label, extract, parse_for_kind};
pub use label::{LabelSelector, Labels, Operator, Requirement};
