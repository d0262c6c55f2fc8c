//! What mutating policies need to write JSON patches.

use crate::cel::function::{Function, function, plain};
use crate::cel::value::Value;

/// The functions of this library.
pub(crate) const FUNCTIONS: &[Function] = &[function(
    "jsonpatch.escapeKey",
    &[plain("string_jsonpatch_escapeKey_string", "string -> string")],
    |_, args| Ok(Value::text(args[0].as_str().unwrap_or_default().replace('~', "~0").replace('/', "~1"))),
)];
