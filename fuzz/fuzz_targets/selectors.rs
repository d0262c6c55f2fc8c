//! Label and field selectors: what was read prints as something that is read as the same.

#![no_main]

use std::collections::BTreeMap;

use api::selector::{FieldSelector, LabelSelector};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(selector) = LabelSelector::parse(text) {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let printed = selector.to_string();
        let again = LabelSelector::parse(&printed).unwrap_or_else(|why| panic!("{printed:?}: {why}"));
        assert_eq!(again.to_string(), printed);
        assert_eq!(again.matches(&labels), selector.matches(&labels));
    }
    if let Ok(selector) = FieldSelector::parse(text) {
        let _ = selector.matches(|name| (name == "a").then_some("1"));
    }
});
