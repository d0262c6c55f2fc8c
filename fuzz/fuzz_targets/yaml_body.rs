//! YAML: reading never panics and costs little; what was read survives being written.

#![no_main]

use api::codec::yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = yaml::decode_documents(input);
    let Ok(loaded) = yaml::load(input) else { return };
    let text = yaml::encode(&loaded.value);
    let again = yaml::decode(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    assert_eq!(again, loaded.value, "{text:?}");
});
