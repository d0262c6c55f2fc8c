//! Namespaces, secrets, config maps, service accounts (upstream `core/validation`).

use api::names::GroupVersionKind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{changes, wholly};

fn kind(kind: &'static str) -> GroupVersionKind {
    GroupVersionKind::new("", "v1", kind)
}

const ODD: &str = "NoUppercaseOrSpecialCharsLike=Equals";
const FROZEN: &str = "Forbidden: field is immutable when `immutable` is set";

/// What is wrong with names and namespaces of objects that have them as most objects do.
fn names() -> Vec<(Value, &'static str)> {
    vec![
        (json!({}), ""),
        (
            json!({"metadata": {"name": ""}}),
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            json!({"metadata": {"name": ODD}}),
            "metadata.name: Invalid value: \"NoUppercaseOrSpecialCharsLike=Equals\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (json!({"metadata": {"namespace": ""}}), "metadata.namespace: Required value"),
        (
            json!({"metadata": {"namespace": ODD}}),
            "metadata.namespace: Invalid value: \"NoUppercaseOrSpecialCharsLike=Equals\": a lowercase RFC 1123 label must consist of",
        ),
    ]
}

#[test]
fn namespaces() {
    let finalizers = |names: &[&str]| json!({"spec": {"finalizers": names}});
    let kind = kind("Namespace");
    let base = json!({"metadata": {"name": "abc"}});
    let unknown =
        "Invalid value: \"Foo\": name is neither a standard finalizer name nor is it fully qualified";
    let created = format!("spec.finalizers: {unknown}");
    wholly(
        &kind,
        &base,
        &[
            (json!({"metadata": {"labels": {"a": "b"}}}), ""),
            (finalizers(&["example.com/something", "example.com/other"]), ""),
            (finalizers(&["Foo"]), &created),
            (
                json!({"metadata": {"name": ""}}),
                "metadata.name: Required value: name or generateName is required",
            ),
            (
                json!({"metadata": {"name": "a.b"}}),
                "metadata.name: Invalid value: \"a.b\": must not contain dots",
            ),
            (
                json!({"metadata": {"namespace": "makesnosense"}}),
                "metadata.namespace: Forbidden: not allowed on this type",
            ),
            (
                json!({"metadata": {"labels": {ODD: "b"}}}),
                "metadata.labels: Invalid value: \"NoUppercaseOrSpecialCharsLike=Equals\": name part must consist of",
            ),
        ],
    );
    let labels = |labels: Value| json!({"metadata": {"labels": labels}});
    changes(
        &kind,
        "",
        &base,
        &[
            (json!({}), json!({}), ""),
            (
                json!({}),
                json!({"metadata": {"name": "bar"}}),
                "metadata.name: Invalid value: \"bar\": field is immutable | metadata.name: Invalid value: \"bar\": field is immutable",
            ),
            (labels(json!({"foo": "bar"})), labels(json!({"foo": "baz"})), ""),
            (json!({}), labels(json!({"foo": "baz"})), ""),
            (labels(json!({"bar": "foo"})), labels(json!({"foo": "baz"})), ""),
            (labels(json!({"foo": "baz"})), labels(json!({"Foo": "baz"})), ""),
            (
                json!({}),
                json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}}),
                "",
            ),
        ],
    );
    let added = format!("spec.finalizers[0]: {unknown}");
    changes(
        &kind,
        "finalize",
        &base,
        &[
            (json!({}), json!({}), ""),
            (json!({}), finalizers(&["Foo"]), &added),
            (finalizers(&["foo.com/bar"]), finalizers(&["foo.com/bar", "what.com/bar"]), ""),
            (
                finalizers(&["foo.com/bar"]),
                finalizers(&["", "foo.com/bar"]),
                "spec.finalizers[0]: Invalid value: \"\": name part must be non-empty | spec.finalizers[0]: Invalid value: \"\": name part must consist of | spec.finalizers[0]: Invalid value: \"\": name is neither a standard",
            ),
        ],
    );
    let phase = |phase: &str| json!({"status": {"phase": phase}});
    let deleted = |phase: &str| json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}, "status": {"phase": phase}});
    let active =
        "status.Phase: Invalid value: \"Terminating\": may only be 'Active' if `deletionTimestamp` is empty";
    changes(
        &kind,
        "status",
        &base,
        &[
            (json!({}), phase("Active"), ""),
            (
                json!({}),
                deleted("Terminating"),
                "metadata.deletionTimestamp: Invalid value: \"2020-01-01T00:00:00Z\": field is immutable | metadata.deletionTimestamp: Invalid value: \"2020-01-01T00:00:00Z\": field is immutable",
            ),
            (deleted("Active"), deleted("Terminating"), ""),
            (
                deleted("Active"),
                deleted("Active"),
                "status.Phase: Invalid value: \"Active\": may only be 'Terminating' if `deletionTimestamp` is not empty",
            ),
            (json!({}), phase("Terminating"), active),
        ],
    );
}

fn secret() -> Value {
    json!({"metadata": {"name": "foo", "namespace": "bar"}, "data": {"data-1": "YmFy"}})
}

#[test]
fn secrets() {
    let data = |data: Value| json!({"data": data});
    let mut cases = names();
    cases.extend([
        (
            data(json!({"over": STANDARD.encode(vec![0; (1 << 20) + 1])})),
            "data: Too long: may not be more than 1048576 bytes",
        ),
        (
            data(json!({"a*b": "YQ=="})),
            "data[a*b]: Invalid value: \"a*b\": a valid config key must consist of alphanumeric characters",
        ),
        (data(json!({".key": "YQ=="})), ""),
        (data(json!({".": "YQ=="})), "data[.]: Invalid value: \".\": must not be '.'"),
        (data(json!({"..": "YQ=="})), "data[..]: Invalid value: \"..\": must not be '..'"),
    ]);
    wholly(&kind("Secret"), &secret(), &cases);
}

#[test]
fn typed_secrets() {
    let of = |kind: &str, data: Value| {
        let data: serde_json::Map<String, Value> = data
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| (key.clone(), STANDARD.encode(value.as_str().unwrap()).into()))
            .collect();
        json!({"type": format!("kubernetes.io/{kind}"), "data": data})
    };
    let token = |name: Value| {
        json!({
            "type": "kubernetes.io/service-account-token",
            "metadata": {"annotations": {"kubernetes.io/service-account.name": name}},
        })
    };
    let unnamed = "metadata.annotations[kubernetes.io/service-account.name]: Required value";
    let auth = r#"{"https://index.docker.io/v1/": {"auth": "Y2x1ZWRyb29sZXIwMDAxOnBhc3N3b3Jk","email": "fake@example.com"}}"#;
    let auths = format!(r#"{{"auths":{auth}}}"#);
    let redacted = "Invalid value: \"<secret contents redacted>\": ";
    let old_style = format!("data[.dockercfg]: {redacted}unexpected end of JSON input");
    let old_bad = format!("data[.dockercfg]: {redacted}invalid character 'b' looking for beginning of value");
    let empty = format!("data[.dockerconfigjson]: {redacted}unexpected end of JSON input");
    let bad =
        format!("data[.dockerconfigjson]: {redacted}invalid character 'b' looking for beginning of value");
    wholly(
        &kind("Secret"),
        &secret(),
        &[
            (token("foo".into()), ""),
            (token("".into()), unnamed),
            (token(json!(null)), unnamed),
            (json!({"type": "kubernetes.io/service-account-token"}), unnamed),
            (of("dockercfg", json!({".dockercfg": auth})), ""),
            (of("dockercfg", json!({})), "data[.dockercfg]: Required value"),
            (of("dockercfg", json!({".dockercfg": ""})), &old_style),
            (of("dockercfg", json!({".dockercfg": "bad"})), &old_bad),
            (of("dockerconfigjson", json!({".dockerconfigjson": auths})), ""),
            (of("dockerconfigjson", json!({})), "data[.dockerconfigjson]: Required value"),
            (of("dockerconfigjson", json!({".dockerconfigjson": ""})), &empty),
            (of("dockerconfigjson", json!({".dockerconfigjson": "bad"})), &bad),
            (of("basic-auth", json!({"username": "username", "password": "password"})), ""),
            (of("basic-auth", json!({"username": ""})), ""),
            (of("basic-auth", json!({})), "data[username]: Required value | data[password]: Required value"),
            (of("ssh-auth", json!({"ssh-privatekey": "foo-bar-baz"})), ""),
            (of("ssh-auth", json!({})), "data[ssh-privatekey]: Required value"),
            (of("ssh-auth", json!({"ssh-privatekey": ""})), "data[ssh-privatekey]: Required value"),
            (of("tls", json!({"tls.crt": "public key", "tls.key": "private key"})), ""),
            (of("tls", json!({"tls.crt": "public key"})), "data[tls.key]: Required value"),
            (of("tls", json!({"tls.key": "private key"})), "data[tls.crt]: Required value"),
        ],
    );
}

/// What may not change once the data are immutable: a key of the data before, after, and one more.
fn freezing(kind: &GroupVersionKind, base: &Value, key: &str, value: &str) {
    let immutable = |immutable: Value| json!({"immutable": immutable});
    let frozen = |data: Value| json!({"immutable": true, "data": data});
    let data = |data: Value| json!({"data": data});
    let (fixed, flag) = (format!("data: {FROZEN}"), format!("immutable: {FROZEN}"));
    changes(
        kind,
        "",
        base,
        &[
            (json!({}), json!({}), ""),
            (json!({}), immutable(json!(true)), ""),
            (immutable(json!(true)), json!({}), &flag),
            (immutable(json!(true)), immutable(json!(false)), &flag),
            (json!({}), data(json!({"data-2": value})), ""),
            (immutable(json!(true)), frozen(json!({"data-2": value})), &fixed),
            (json!({}), data(json!({key: value})), ""),
            (immutable(json!(true)), frozen(json!({key: value})), &fixed),
            (immutable(json!(true)), json!({"immutable": true, "metadata": {"labels": {"a": "b"}}}), ""),
        ],
    );
}

#[test]
fn secret_changes() {
    freezing(&kind("Secret"), &secret(), "data-1", "Zm9v");
    changes(
        &kind("Secret"),
        "",
        &secret(),
        &[(
            json!({"type": "Opaque"}),
            json!({"type": "example.com/other"}),
            "type: Invalid value: \"example.com/other\": field is immutable",
        )],
    );
}

fn config_map() -> Value {
    json!({"metadata": {"name": "validname", "namespace": "validns"}, "data": {"key": "value"}})
}

#[test]
fn config_maps() {
    let data = |key: &str, value: &str| json!({"data": {key: value}});
    let bytes = |key: &str, value: &[u8]| json!({"binaryData": {key: STANDARD.encode(value)}});
    let (longest, longer) = ("a".repeat(253), "a".repeat(254));
    let too_long = |field: &str| {
        format!("{field}[{longer}]: Invalid value: \"{longer}\": must be no more than 253 characters")
    };
    let (text_key, bytes_key) = (too_long("data"), too_long("binaryData"));
    let whole = "[]: Too long: may not be more than 1048576 bytes";
    let bad = "a valid config key must consist of alphanumeric characters";
    let (bad_text, bad_bytes) = (
        format!("data[a*b]: Invalid value: \"a*b\": {bad}"),
        format!("binaryData[a*b]: Invalid value: \"a*b\": {bad}"),
    );
    let big = "a".repeat((1 << 20) + 1);
    let mut cases = names();
    cases.extend([
        (bytes("bin", b"value"), ""),
        (data(&longest, "value"), ""),
        (data(".ab", "value"), ""),
        (data("a*b", "value"), &bad_text),
        (data(".", "value"), "data[.]: Invalid value: \".\": must not be '.'"),
        (data("..", "value"), "data[..]: Invalid value: \"..\": must not be '..'"),
        (data(&longer, "value"), &text_key),
        (data("key", &big), whole),
        (
            bytes("key", b"value2"),
            "data[key]: Invalid value: \"key\": duplicate of key present in binaryData",
        ),
        (bytes("a*b", b"value"), &bad_bytes),
        (bytes(".ab", b"value"), ""),
        (bytes(".", b"value"), "binaryData[.]: Invalid value: \".\": must not be '.'"),
        (bytes("..", b"value"), "binaryData[..]: Invalid value: \"..\": must not be '..'"),
        (bytes(&longer, b"value"), &bytes_key),
        (bytes("bin", big.as_bytes()), whole),
        (bytes("bin", &[0, 0xFE, 0, 0xFF]), ""),
    ]);
    wholly(&kind("ConfigMap"), &config_map(), &cases);
}

#[test]
fn config_map_changes() {
    freezing(&kind("ConfigMap"), &config_map(), "key", "foo");
    let binary = |value: &str| json!({"immutable": true, "binaryData": {"bin": value}});
    let fixed = format!("binaryData: {FROZEN}");
    changes(
        &kind("ConfigMap"),
        "",
        &config_map(),
        &[
            (
                json!({}),
                json!({"metadata": {"resourceVersion": ""}}),
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update | metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
            ),
            (binary("YQ=="), binary("Yg=="), &fixed),
        ],
    );
}

#[test]
fn service_accounts() {
    let base = json!({"metadata": {"name": "a", "namespace": "b"}});
    wholly(&kind("ServiceAccount"), &base, &names());
}
