//! YAML: reading never panics and costs little; what was read survives being written.

#![no_main]

use api::codec::yaml;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Whether two values are the same when numbers are only numbers: `3e16` is written as an integer, as in Go.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

fuzz_target!(|input: &[u8]| {
    let _ = yaml::decode_documents(input);
    let Ok(loaded) = yaml::load(input) else { return };
    let text = yaml::encode(&loaded.value);
    let again = yaml::decode(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert!(same(&again, &loaded.value), "{text:?}: {again} is not {}", loaded.value);
});
