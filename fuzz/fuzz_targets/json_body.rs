//! A JSON body of any kind: reading never panics, and what was read survives a trip through every encoding.

#![no_main]

use api::codec::ordered::{self, Ordered};
use api::codec::{protobuf, yaml};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let _ = api::schema::decode_any(input);
    let _ = api::codec::kind::TypeMeta::of_json(input);
    let Some((kind, ty, json)) = fuzz::kind(input) else { return };
    let Ok(decoded) = ty.decode_slice(json) else { return };
    let mut value = decoded.value;
    api::defaults::apply(&kind, &mut value);

    let mut text = Vec::new();
    ordered::write(&mut text, &Ordered { value: &value, ty: Some(ty) });
    let again = ty.decode_slice(&text).expect("what was written can be read");
    assert!(again.strict_errors.is_empty(), "{:?}", again.strict_errors);
    assert_eq!(again.value, value);

    let from_yaml = yaml::decode(yaml::encode(&value).as_bytes()).expect("YAML that was written can be read");
    assert!(api::semantic_eq(Some(&from_yaml), Some(&value)), "{from_yaml} is not {value}");

    if let Ok(bytes) = protobuf::encode(&value, ty) {
        let unknown = protobuf::Unknown::open(&bytes).expect("an envelope that was written");
        let back = protobuf::decode_as(&unknown, ty).expect("protobuf that was written can be read");
        let bytes_again = protobuf::encode(&back, ty).expect("what was read can be written");
        assert_eq!(bytes_again, bytes, "{back} is not {value}");
    }
    if let Value::Object(_) = value {
        let _ = ty.unconvertible(&value);
    }
});
