//! A protobuf body: with its envelope, and a bare message of any type.

#![no_main]

use api::codec::protobuf;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let _ = protobuf::decode(input);
    let _ = protobuf::read_watch_event(input);
    let Some((kind, ty, message)) = fuzz::kind(input) else { return };
    let Ok(object) = protobuf::decode_message(message, ty) else { return };
    let texts = protobuf::texts(message, ty).expect("what can be read can be walked through");
    let mut value = Value::Object(object);
    let Ok(bytes) = protobuf::encode(&value, ty) else { return };
    let unknown = protobuf::Unknown::open(&bytes).expect("an envelope that was written");
    let again = protobuf::decode_message(unknown.raw, ty).expect("what was written can be read");
    let restored = protobuf::restore(unknown.raw, ty, &texts).expect("what was written can be walked through");
    assert!(protobuf::decode_message(&restored, ty).is_ok(), "texts do no harm");
    // An entry without a value is null, as in Go; written it is an empty list.
    let again = Value::Object(again);
    assert!(api::semantic_eq(Some(&again), Some(&value)), "{again} is not {value}");
    api::defaults::apply(&kind, &mut value);
});
