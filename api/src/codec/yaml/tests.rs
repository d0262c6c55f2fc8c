//! Cases for reading and writing YAML.

use serde_json::{Value, json};

use super::*;

#[test]
fn scalars_read_as_go_yaml_reads_them() {
    for (text, value) in [
        ("", Value::Null),
        ("~", Value::Null),
        ("yes", json!(true)),
        ("n", json!(false)),
        ("Off", json!(false)),
        ("'yes'", json!("yes")),
        ("nope", json!("nope")),
        ("0400", json!(256)),
        ("0o17", json!(15)),
        ("0x1F", json!(31)),
        ("0b101", json!(5)),
        ("08", json!(8)),
        ("1_000", json!(1000)),
        ("-12", json!(-12)),
        ("+12", json!(12)),
        ("1.0", json!(1)),
        ("1.50", json!(1.5)),
        (".5", json!(0.5)),
        ("1e3", json!(1000)),
        ("1.2.3", json!("1.2.3")),
        ("10.0.0.1", json!("10.0.0.1")),
        ("100m", json!("100m")),
        ("18446744073709551615", json!(18_446_744_073_709_551_615u64)),
        ("2024-05-01", json!("2024-05-01")),
        ("!!str 5", json!("5")),
        ("!!binary YWJj", json!("abc")),
        ("\"\\ud83d\\ude00\"", json!("\u{1F600}")),
        ("|\n  a\n  b\n", json!("a\nb\n")),
        (">-\n  a\n  b\n", json!("a b")),
    ] {
        assert_eq!(decode(format!("v: {text}").as_bytes()), Ok(json!({"v": value})), "{text}");
    }
}

#[test]
fn documents_anchors_and_merges() {
    assert_eq!(decode(b""), Ok(Value::Null));
    assert_eq!(decode(b"a: 1\n---\nb: 2\n"), Ok(json!({"a": 1})));
    assert_eq!(
        decode_documents(b"---\na: 1\n---\n---\n# nothing\n---\nb: 2\n"),
        Ok(vec![json!({"a": 1}), json!({"b": 2})])
    );
    assert_eq!(
        decode(b"x: &l {a: b}\nw: *l\nz: {<<: *l, c: d}"),
        Ok(json!({"x": {"a": "b"}, "w": {"a": "b"}, "z": {"a": "b", "c": "d"}}))
    );
    assert_eq!(decode(b"{yes: '1', 2: '3', 1.5: x}"), Ok(json!({"true": "1", "2": "3", "1.5": "x"})));
    assert_eq!(decode(br#"{"a": [1, {"b": null}]}"#), Ok(json!({"a": [1, {"b": null}]})));
}

#[test]
fn comments_mean_nothing() {
    let text =
        b"# one\na: 1 # two\n# three\nb: # four\n  - x # five\n  # six\n  - z\nc: |\n  # text\n# seven\n";
    assert_eq!(decode(text), Ok(json!({"a": 1, "b": ["x", "z"], "c": "# text\n"})));
}

#[test]
fn duplicate_keys_are_noted_with_their_line() {
    let loaded = load(b"kind: A\ndata:\n  k: one\n  k: two\nkind: B\nno: 1\nfalse: 2\n").unwrap();
    assert_eq!(loaded.value, json!({"kind": "B", "data": {"k": "two"}, "false": 2}));
    assert_eq!(
        loaded.strict_error().unwrap(),
        "yaml: unmarshal errors:\n  line 4: key \"k\" already set in map\n  line 5: key \"kind\" already set in map\n  \
         line 7: key false already set in map"
    );
}

#[test]
fn faults_read_as_go_yaml_writes_them() {
    for (text, message) in [
        ("a: b: c", "yaml: mapping values are not allowed in this context"),
        ("a: v1\nb: c\nd:\n\tname: a\n", "yaml: line 4: found character that cannot start any token"),
        ("a: *nothing", "yaml: unknown anchor 'nothing' referenced"),
        ("a: &x [*x]", "yaml: anchor value contains itself"),
        ("a: {null: x}", "unsupported map key of type: %!s(<nil>), key: <nil>, value: \"x\""),
        ("~:", "unsupported map key of type: %!s(<nil>), key: <nil>, value: <nil>"),
        (
            "? \n: {a: [1, null]}",
            "unsupported map key of type: %!s(<nil>), key: <nil>, value: map[interface {}]interface {}{\"a\":[]interface {}{1, interface {}(nil)}}",
        ),
        ("a: -.inf", "json: unsupported value: -Inf"),
    ] {
        assert_eq!(decode(text.as_bytes()).map_err(|e| e.to_string()), Err(message.to_owned()), "{text}");
    }
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        bomb += &format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(","));
    }
    assert_eq!(
        decode(bomb.as_bytes()).map_err(|e| e.to_string()),
        Err("yaml: document contains excessive aliasing".into())
    );
    assert!(decode("[".repeat(500).as_bytes()).is_err());
}

#[test]
fn values_are_written_as_go_yaml_writes_them() {
    let value = json!({
        "apiVersion": "v1",
        "data": {
            "a": "yes", "b": "", "c": "y", "d": "1", "e": "1.5", "f": "null", "g": "x: y", "h": "- x", "i": " x",
            "j": "it's", "k": "#x", "l": "a#b", "m": "l1\nl2\n", "n": "l1\nl2", "o": "tab\there", "p": "0x1f",
            "q": "12:30:45", "r": "2024-05-01T00:00:00Z", "s": "käse", "t": "\u{1F600}", "u": "~", "v": "a: ", "w": "{}",
            "x": "%a", "z": "l\n\n", "z1": "trailing \nspace",
        },
        "items": [1, -2.5, true, null, [], {}, [1, [2]], {"b": {"c": 1}, "a": []}, "text"],
        "m10": 1, "m9": 2, "m1a": 3,
    });
    let text = "apiVersion: v1\ndata:\n  a: \"yes\"\n  b: \"\"\n  c: \"y\"\n  d: \"1\"\n  e: \"1.5\"\n  f: \"null\"\n  g: 'x: y'\n  \
                h: '- x'\n  i: ' x'\n  j: it's\n  k: '#x'\n  l: a#b\n  m: |\n    l1\n    l2\n  \"n\": |-\n    l1\n    l2\n  \
                o: \"tab\\there\"\n  p: \"0x1f\"\n  q: \"12:30:45\"\n  r: \"2024-05-01T00:00:00Z\"\n  s: käse\n  \
                t: \"\\U0001F600\"\n  u: \"~\"\n  v: 'a: '\n  w: '{}'\n  x: '%a'\n  z: |+\n    l\n\n  \
                z1: \"trailing \\nspace\"\nitems:\n- 1\n- -2.5\n- true\n- null\n- []\n- {}\n- - 1\n  - - 2\n- a: []\n  b:\n    \
                c: 1\n- text\nm1a: 3\nm9: 2\nm10: 1\n";
    assert_eq!(encode(&value), text);
    assert_eq!(decode(text.as_bytes()), Ok(value));
}

#[test]
fn long_lines_are_folded() {
    let message = "only the following media types are accepted: application/json;stream=watch, \
                   application/vnd.kubernetes.protobuf;stream=watch";
    let text = "message: 'only the following media types are accepted: application/json;stream=watch,\n  \
                application/vnd.kubernetes.protobuf;stream=watch'\n";
    assert_eq!(encode(&json!({"message": message})), text);
    let plain = "word ".repeat(40).trim_end().to_owned();
    let value = json!({"a": [{"message": plain}], "q": format!("\"{plain}\t")});
    assert_eq!(decode(encode(&value).as_bytes()), Ok(value));
}

proptest::proptest! {
    #[test]
    fn any_text_alone_reads_back(text in "[ -~\n\t#:ä\u{85}]{0,120}") {
        let value = json!(text);
        let written = encode(&value);
        proptest::prop_assert_eq!(decode(written.as_bytes()), Ok(value), "{}", written);
    }

    #[test]
    fn any_text_reads_back(text in "[ -~\n\t#:äあ\u{1F600}\u{7f}\u{85}]{0,120}", key in "[ -~]{1,20}") {
        let value = json!({"a": {key: [text.clone(), {"b": text}]}});
        let written = encode(&value);
        proptest::prop_assert_eq!(decode(written.as_bytes()), Ok(value), "{}", written);
    }
}
