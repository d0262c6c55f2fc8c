//! Cases on the wire: committed bytes, envelopes, lists, watch events, and a property over generated objects.

use proptest::prelude::*;
use proptest::test_runner::TestRng;
use serde_json::{Map, Value, json};

use super::*;
use crate::schema::{Node, NodeRef, Raw, SchemaOr, kinds};

fn ty(group: &'static str, version: &'static str, kind: &'static str) -> TypeRef<'static> {
    schema::type_for(&GroupVersionKind::new(group, version, kind)).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_config_map_is_written_byte_for_byte() {
    let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"b": "2", "a": "1"}});
    let bytes = encode(&value, ty("", "v1", "ConfigMap")).unwrap();
    let expected = concat!(
        "6b387300", // magic
        "0a0f0a02763112",
        "09",
        "436f6e6669674d6170", // v1 ConfigMap
        "1223",               // message
        "0a11",
        "0a0161",
        "1200",
        "1a00",
        "2200",
        "2a00",
        "3200",
        "3800",
        "4200", // metadata, zeros too
        "1206",
        "0a0161",
        "120131",
        "1206",
        "0a0162",
        "120132",
        "1a00",
        "2200",
    );
    assert_eq!(hex(&bytes), expected);
    assert_eq!(decode(&bytes).unwrap(), value);
}

#[test]
fn pointers_and_values_differ_on_the_wire() {
    let pdb = ty("policy", "v1", "PodDisruptionBudget");
    let port = schema::type_named("io.k8s.api.core.v1.ServicePort").unwrap();
    let mut out = Vec::new();
    encode_message(&mut out, &json!({"port": 80, "targetPort": "http"}), port).unwrap();
    // name, protocol, port, targetPort {type 1, 0, "http"}, nodePort; appProtocol is a pointer and absent
    assert_eq!(hex(&out), concat!("0a00", "1200", "1850", "220a", "0801", "1000", "1a0468747470", "2800"));
    let spec = json!({"metadata": {}, "spec": {"minAvailable": "50%"}});
    let mut out = Vec::new();
    encode_message(&mut out, &spec, pdb).unwrap();
    let decoded = decode_message(&out, pdb).unwrap();
    assert_eq!(decoded["spec"], json!({"minAvailable": "50%"}));
    assert_eq!(decoded["status"]["currentHealthy"], json!(0));
}

#[test]
fn a_list_from_parts_equals_a_list_at_once() {
    let (item, list) = (ty("", "v1", "ConfigMap"), ty("", "v1", "ConfigMapList"));
    let items: Vec<Value> = (0..3)
        .map(|i| json!({"metadata": {"name": format!("c{i}")}, "data": {"k": "v".repeat(i * 90)}}))
        .collect();
    let metadata = json!({"resourceVersion": "7", "continue": "x"});
    let whole = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": metadata, "items": items});
    let messages: Vec<Vec<u8>> = items
        .iter()
        .map(|value| {
            let mut out = Vec::new();
            encode_message(&mut out, value, item).unwrap();
            out
        })
        .collect();
    let lengths = messages.iter().map(Vec::len);
    let mut parts = ListWriter::new("v1", "ConfigMapList", &metadata, lengths).unwrap().head;
    for message in &messages {
        parts.extend(ListWriter::item_prefix(message.len()));
        parts.extend(message);
    }
    parts.extend(ListWriter::TAIL);
    assert_eq!(parts, encode(&whole, list).unwrap());
}

#[test]
fn watch_events_are_framed() {
    let object =
        encode(&json!({"apiVersion": "v1", "kind": "Namespace"}), ty("", "v1", "Namespace")).unwrap();
    let event = watch_event("ADDED", &object);
    let (length, message) = event.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, message.len());
    assert_eq!(read_watch_event(message), Ok(("ADDED", object.as_slice())));
    assert_eq!(frame(message), event);
}

#[test]
fn bad_bodies_are_refused() {
    for (body, error) in [
        (&b""[..], Error::Empty),
        (b"{}", Error::NoPrefix),
        (b"k8s\0\x0a\x05\x0a", Error::Truncated),
        (
            b"k8s\0\x0a\x04\x0a\x00\x12\x00",
            Error::UnknownKind { kind: String::new(), version: String::new() },
        ),
    ] {
        assert_eq!(decode(body), Err(error));
    }
    let pod = ty("", "v1", "Pod");
    let error = encode(&json!({"spec": {"priority": "high"}}), pod).unwrap_err();
    assert_eq!(error.to_string(), "proto: spec.priority: string where an integer should be");
    // A message nested into itself without end.
    let props =
        schema::type_named("io.k8s.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
            .unwrap();
    let mut deep = Vec::new();
    for _ in 0..300 {
        let inner = std::mem::take(&mut deep);
        wire::bytes(&mut deep, props.field("not").unwrap().tag, &inner);
    }
    assert_eq!(decode_message(&deep, props), Err(Error::Malformed("nested too deeply")));
}

/// A value that fits `node`, in the form a decoder would leave it.
fn generate(node: NodeRef<'_>, rng: &mut TestRng, depth: usize) -> Value {
    const WORDS: &[&str] = &["a", "b-1", "käse", "", "0", "x/y", "\u{1F600}"];
    let word = |rng: &mut TestRng| WORDS[rng.random_range(0..WORDS.len())];
    match node.node() {
        Node::String => Value::from(word(rng)),
        Node::Int32 => Value::from(rng.random::<i32>() >> rng.random_range(0..31)),
        Node::Int64 => Value::from(rng.random::<i64>() >> rng.random_range(0..63)),
        Node::Double => Value::from(f64::from(rng.random::<i32>()) / 8.0 + 0.0625),
        Node::Bool => Value::from(rng.random::<bool>()),
        Node::Bytes => Value::from(["", "YQ==", "/+8=", "YWJj"][rng.random_range(0..4)]),
        Node::Quantity => Value::from(["0", "100m", "1Gi", "1500", "2k"][rng.random_range(0..5)]),
        Node::Time => Value::from(schema::format_time(rng.random_range(-5_000_000_000..5_000_000_000))),
        Node::MicroTime => {
            let micros = rng.random_range(0..1_000_000) * 1000;
            Value::from(schema::format_micro_time(rng.random_range(0..5_000_000_000), micros))
        }
        Node::Duration => Value::from(["0s", "1m30s", "-1.5s"][rng.random_range(0..3)]),
        Node::IntOrString => [json!(80), json!("http"), json!(""), json!(0)][rng.random_range(0..4)].clone(),
        Node::Raw(Raw::Any | Raw::Unstructured) => Value::Null,
        Node::Raw(_) => json!({"kind": "K", "l": [1, {"m": word(rng)}, null]}),
        Node::SchemaOr { .. } if depth == 0 => Value::Null,
        Node::SchemaOr { flavour, ty } => {
            let mut object = || Value::Object(generate_object(node.schema().ty(*ty), rng, depth - 1));
            let (first, second) = (object(), object());
            match (flavour, rng.random::<bool>()) {
                (_, false) => first,
                (SchemaOr::Bool, true) => Value::from(rng.random::<bool>()),
                (SchemaOr::Array, true) => json!([first, second]),
                (SchemaOr::StringArray, true) => json!(["a", word(rng)]),
            }
        }
        Node::Object { ty, .. } => Value::Object(generate_object(node.schema().ty(*ty), rng, depth)),
        Node::List { .. } | Node::Map { .. } if depth == 0 => Value::Null,
        Node::List { item, .. } => {
            let item = node.schema().node(*item);
            (0..rng.random_range(0..3)).map(|_| generate(item, rng, depth - 1)).collect()
        }
        Node::Map { value, .. } => {
            let shape = node.schema().node(*value);
            let entries =
                (0..rng.random_range(0..3)).map(|_| (word(rng).to_owned(), generate(shape, rng, depth - 1)));
            // A list of nothing and no list at all are the same on the wire when they stand in a map.
            Value::Object(entries.filter(|(_, value)| !value.is_null()).collect())
        }
    }
}

fn generate_object(ty: TypeRef<'_>, rng: &mut TestRng, depth: usize) -> Map<String, Value> {
    let mut map = Map::new();
    if depth == 0 {
        return map;
    }
    for field in ty.fields() {
        let on_wire =
            field.tag != 0 || ty.wire().iter().any(|w| matches!(w.to, crate::schema::WireTo::Inline(_)));
        if on_wire && !["apiVersion", "kind"].contains(&field.name.as_ref()) && rng.random_bool(0.5) {
            map.insert(field.name.to_string(), generate(ty.node(field), rng, depth - 1));
        }
    }
    map
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_to_protobuf_to_json_changes_nothing(at in 0..kinds().len(), seed in any::<[u8; 32]>()) {
        let kind = kinds()[at];
        prop_assume!(kind.kind != "Table" && kind.group != "metrics.k8s.io");
        let ty = schema::builtin().ty(kind.ty);
        let mut rng = TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &seed);
        let mut value = ty.decode_value(Value::Object(generate_object(ty, &mut rng, 5))).unwrap().value;
        ty.forget_empty_lists(&mut value);
        let mut message = Vec::new();
        encode_message(&mut message, &value, ty).unwrap();
        let back = Value::Object(decode_message(&message, ty).unwrap());
        prop_assert_eq!(&back, &value, "{}", ty.name());
        let mut again = Vec::new();
        encode_message(&mut again, &back, ty).unwrap();
        prop_assert_eq!(again, message);
    }
}
