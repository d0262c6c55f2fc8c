//! Functions that expressions can call, in tables.

pub mod authorizer;
pub(crate) mod comprehensions;
pub mod extension;
pub(crate) mod format;
pub(crate) mod json_patch;
pub(crate) mod lists;
pub(crate) mod net;
pub(crate) mod optional;
pub(crate) mod quantity;
pub(crate) mod regex;
pub(crate) mod semver;
pub(crate) mod sets;
pub(crate) mod standard;
pub(crate) mod strings;
pub(crate) mod text_format;
pub(crate) mod url;
