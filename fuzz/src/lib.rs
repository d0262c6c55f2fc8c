//! What the targets share: choosing a type, and cutting an input in two.

use api::names::GroupVersionKind;
use api::schema::{self, TypeRef};
use serde_json::Value;

/// The kind that two bytes of the input choose, its type, and the rest of the input.
#[must_use]
pub fn kind(input: &[u8]) -> Option<(GroupVersionKind, TypeRef<'static>, &[u8])> {
    let (chosen, rest) = input.split_first_chunk::<2>()?;
    let kinds = schema::kinds();
    let kind = &kinds[usize::from(u16::from_le_bytes(*chosen)) % kinds.len()];
    Some((GroupVersionKind::new(kind.group, kind.version, kind.kind), schema::builtin().ty(kind.ty), rest))
}

/// The two texts before and after the first zero byte.
#[must_use]
pub fn halves(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = input.iter().position(|byte| *byte == 0)?;
    Some((&input[..at], &input[at + 1..]))
}

/// JSON, if it is JSON.
#[must_use]
pub fn value(json: &[u8]) -> Option<Value> {
    serde_json::from_slice(json).ok()
}
