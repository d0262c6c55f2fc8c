//! A document and a JSON patch.

#![no_main]

use api::patch::json::JsonPatch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((document, patch)) = fuzz::halves(input) else { return };
    let Ok(patch) = JsonPatch::decode(patch) else { return };
    let Some(document) = fuzz::value(document) else { return };
    let _ = patch.patch.apply(&document);
});
