//! An object of any kind and a strategic merge patch.

#![no_main]

use api::patch::strategic;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((_, ty, rest)) = fuzz::kind(input) else { return };
    let Some((document, patch)) = fuzz::halves(rest) else { return };
    let Ok(document) = ty.decode_slice(document) else { return };
    if let Ok(patch) = strategic::decode(patch)
        && let Ok(patched) = strategic::apply(&document.value, &patch.patch, ty)
    {
        let _ = ty.decode_value(patched);
    }
    // What is an object of the type can be reached by a patch.
    let Ok(modified) = ty.decode_slice(patch) else { return };
    if let Ok(patch) = strategic::create_two_way(&document.value, &modified.value, ty) {
        let _ = strategic::apply(&document.value, &patch, ty);
    }
});
