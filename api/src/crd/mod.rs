//! Custom resources: what a CustomResourceDefinition means.
//!
//! A definition is validated ([`validation`]), its conditions are decided ([`conditions`]), and each of its versions
//! becomes a [`Version`]: how objects of that version are read, defaulted, checked, selected and shown. For structured
//! merge a version's schema is compiled into the same [`crate::schema::Schema`] that built-in types have ([`compile`]).
//! Reading is not done by that schema but as upstream does it, without types and by pruning afterwards: a value of a
//! wrong type is an error of validation here, with a path, and not one of decoding.

mod columns;
mod compile;
pub mod conditions;
pub mod conversion;
mod correlate;
mod defaulting;
mod email;
mod formats;
mod list_types;
mod metadata;
mod number;
mod props;
mod prune;
mod rules;
mod structural;
pub(crate) mod validation;
mod value;
mod version;
pub mod versions;

pub use columns::Columns;
pub use props::Props;
pub use rules::Verdict;
pub use version::{Definition, Scale, Version};
