//! What the Kubernetes API *is*: names, schema, codecs, patches, selectors, defaults, validation, tables.
//!
//! Values only: this crate never does I/O and starts no task.

pub mod cel;
pub mod codec;
pub mod convert;
pub mod crd;
pub mod defaults;
pub mod field;
pub mod format;
mod gofmt;
pub mod json;
pub mod jsonpath;
mod kinds;
pub mod managed_fields;
pub mod names;
pub mod patch;
pub mod pod;
pub mod printers;
pub mod quantity;
pub mod quota;
pub mod regexp;
pub mod registry;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategy;
pub mod structured;
pub mod validation;
pub use json::semantic_eq;
