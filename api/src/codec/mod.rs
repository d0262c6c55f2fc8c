//! How values travel: media types, JSON, YAML, protobuf, and the frames of watch streams.
//!
//! Everything is driven by the schema and works on `serde_json::Value`; nothing is generated per type.

pub mod json;
pub mod kind;
pub mod media;
pub mod ordered;
pub mod protobuf;
pub mod verbatim;
pub mod yaml;
