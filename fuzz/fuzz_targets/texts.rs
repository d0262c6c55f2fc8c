//! Small languages in fields: quantities, JSON paths, regular expressions, times, durations.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(canonical) = api::quantity::canonicalize(text) {
        assert_eq!(api::quantity::canonicalize(&canonical).as_deref(), Ok(&*canonical));
    }
    let object = serde_json::json!({"items": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]});
    if let Ok(template) = api::jsonpath::Template::parse(text) {
        let _ = template.render(&object);
    }
    let _ = api::regexp::compile(text);
    let _ = api::schema::parse_time(text);
    let _ = api::schema::parse_duration(text);
    let _ = api::codec::media::parse_accept(text);
});
