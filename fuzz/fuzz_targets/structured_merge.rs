//! Apply: two configurations of the same object, one after the other.

#![no_main]

use api::structured::{Shape, compare, field_set, merge};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((_, ty, rest)) = fuzz::kind(input) else { return };
    let Some((live, config)) = fuzz::halves(rest) else { return };
    let (Ok(live), Ok(config)) = (ty.decode_slice(live), ty.decode_slice(config)) else { return };
    let shape = Shape::of_type(ty);
    let Ok(merged) = merge(shape, &live.value, &config.value) else { return };
    let again = merge(shape, &merged, &config.value).expect("what was merged can be merged");
    assert_eq!(again, merged, "applying twice is applying once");
    let applied = field_set(shape, &config.value);
    if let Ok(comparison) = compare(shape, &merged, &merged) {
        assert!(comparison.is_same());
    }
    drop(applied);
});
