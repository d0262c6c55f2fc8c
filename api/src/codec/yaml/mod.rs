//! YAML as `sigs.k8s.io/yaml` reads and writes it: YAML 1.1 scalars, and JSON underneath.
//!
//! Events come from the parser that serde-saphyr is built on; what they mean (which plain scalars are numbers or
//! truth values, which keys are duplicates, how much aliases may expand) is decided here, as go-yaml v2 does.

mod emit;
mod load;
mod resolve;

#[cfg(test)]
mod tests;

pub use emit::encode;
pub use load::{Error, Loaded, decode, decode_documents, load};
