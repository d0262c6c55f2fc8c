//! Dumps and hashes compared with what Go made of the same templates, and the tables with the schema.

use super::super::hash::template_hash;
use super::*;
use std::path::Path;

fn hashes(template: &PodTemplateSpec) -> [String; 3] {
    [None, Some(0), Some(3)].map(|count| template_hash(template, count))
}

fn dump(template: &PodTemplateSpec) -> String {
    let mut text = String::new();
    super::template(template, &mut text).expect("a text takes everything");
    text
}

fn read(json: &str) -> PodTemplateSpec {
    serde_json::from_str(json).expect("the template is one")
}

#[test]
fn templates_have_the_hashes_that_upstream_gives_them() {
    let cases: Vec<_> = include_str!("cases.txt").split("\n== ").skip(1).collect();
    assert_eq!(cases.len(), 10);
    for case in cases {
        let (title, json) = case.split_once('\n').expect("a case has a title and a template");
        let (about, wanted) = title.split_once(": ").expect("a title has hashes");
        let template = read(json);
        assert_eq!(hashes(&template).join(" "), wanted, "{about}: {}", dump(&template));
    }
}

/// Upstream's fixture has every field of a template.
#[test]
fn template_with_every_field_has_the_hash_that_upstream_gives_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/upstream-data/api-testdata/v1.36/core.v1.PodTemplate.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no fixtures at {}", path.display());
        return;
    };
    let fixture: Value = serde_json::from_str(&text).expect("the fixture is JSON");
    let template: PodTemplateSpec =
        serde_json::from_value(fixture["template"].clone()).expect("the template is one");
    assert_eq!(hashes(&template), ["674974d7db", "5659674686", "7f87979549"]);
}

#[test]
fn what_is_empty_is_dumped_as_what_is_absent() {
    let absent = read(r#"{"spec": {"containers": [{"name": "c"}]}}"#);
    let empty = read(
        r#"{"metadata": {"labels": {}}, "spec": {"containers": [{"name": "c", "args": [], "env": [], "image": "",
            "resources": {"limits": {}}}], "volumes": [], "hostNetwork": false}}"#,
    );
    assert_eq!(dump(&absent), dump(&empty));
    let chosen = read(r#"{"spec": {"containers": [{"name": "c"}], "securityContext": {}}}"#);
    assert_ne!(dump(&absent), dump(&chosen));
}

fn amount(text: &str) -> String {
    let mut dumped = String::new();
    quantity::write(text, &mut dumped).expect("a text takes everything");
    dumped
}

/// As Go holds the amount: the scaled number, its scale, the words of a decimal and its scale, the text it keeps.
#[test]
fn amounts_are_kept_as_go_keeps_them() {
    let scaled = |value: &str, scale: &str, kept: &str, format: &str| {
        format!(
            "{{i:(resource.int64Amount){{value:(int64){value} scale:(resource.Scale){scale}}} \
             d:(resource.infDecAmount){{Dec:(*inf.Dec)<nil>}} s:(string){kept} Format:(resource.Format){format}}}"
        )
    };
    let decimal = |negative: bool, words: &str, scale: &str, format: &str| {
        format!(
            "{{i:(resource.int64Amount){{value:(int64)0 scale:(resource.Scale)0}} d:(resource.infDecAmount)\
             {{Dec:(*inf.Dec){{unscaled:(big.Int){{neg:(bool){negative} abs:(big.nat)[{words}]}} \
             scale:(inf.Scale){scale}}}}} s:(string) Format:(resource.Format){format}}}"
        )
    };
    let cases = [
        ("0", scaled("0", "0", "0", "DecimalSI")),
        ("1000", scaled("1", "3", "1k", "DecimalSI")),
        ("1.5", scaled("1500", "-3", "1500m", "DecimalSI")),
        ("-2", scaled("-2", "0", "-2", "DecimalSI")),
        ("12e6", scaled("12", "6", "12e6", "DecimalExponent")),
        ("1.5Gi", scaled("1610612736", "0", "", "BinarySI")),
        ("1025Mi", scaled("1074790400", "0", "1025Mi", "BinarySI")),
        ("100Ti", decimal(false, "8568098291072368640 5960", "9", "BinarySI")),
        ("7Ei", decimal(false, "0 437500000", "9", "BinarySI")),
        ("12345678901234567890", decimal(false, "5097733592002180096 669260594", "9", "DecimalSI")),
        ("-1Pi", decimal(true, "2882303761517117440 61035", "9", "BinarySI")),
    ];
    for (text, wanted) in cases {
        assert_eq!(amount(text), wanted, "{text}");
    }
}
