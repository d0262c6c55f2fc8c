//! Two documents: the merge patch made of them leads from one to the other.

#![no_main]

use api::patch::merge;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A merge patch cannot set anything to null.
fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(has_null),
        Value::Object(map) => map.values().any(has_null),
        _ => false,
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((original, modified)) = fuzz::halves(input) else { return };
    if let (Some(mut document), Ok(patch)) = (fuzz::value(original), merge::decode(modified)) {
        merge::apply(&mut document, patch.patch);
    }
    let (Some(original), Some(modified)) = (fuzz::value(original), fuzz::value(modified)) else { return };
    if !original.is_object() || !modified.is_object() || has_null(&original) || has_null(&modified) {
        return;
    }
    let patch = merge::create(&original, &modified);
    let mut patched = original.clone();
    merge::apply(&mut patched, patch.clone());
    assert_eq!(patched, modified, "{original} with {patch}");
});
