//! The environment of containers.

use serde_json::{Value, json};

use super::super::below;
use super::{base, changed, kind};

fn vars(cases: &[(Value, &str)]) {
    let place = |var: &Value| {
        let container = changed("ctr", &json!({"env": [var]}));
        json!({"spec": {"volumes": [{"name": "volume-name", "emptyDir": {}}], "containers": [container]}})
    };
    below(&kind(), &base(), "spec.containers[0].env[0]", place, cases);
}

const NAME: &str =
    ".name: a valid environment variable name must consist only of printable ASCII characters other than '='";

#[test]
fn names_of_variables() {
    let good = [
        "abc",
        "ABC",
        "AbC_123",
        "a.b.c",
        "a-b-c",
        "!\"#$%&'()",
        "* +,-./0123456789",
        ":;<>?@",
        "ABCDEFG",
        "abcdefghijklmn",
        "[\\]^_`{}|~",
        "ev!1",
    ];
    for name in good {
        vars(&[(json!({"name": name, "value": "value"}), ""), (json!({"name": name, "value": ""}), "")]);
    }
    vars(&[
        (json!({"name": "=abc"}), NAME),
        (json!({"name": "é"}), NAME),
        (json!({"name": ""}), ".name: Required value"),
    ]);
}

#[test]
fn sources_of_variables() {
    let from = |source: Value| json!({"name": "abc", "valueFrom": source});
    let field = |path: &str| from(json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}}));
    let resource =
        |resource: &str| from(json!({"resourceFieldRef": {"containerName": "c", "resource": resource}}));
    let known = "supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"";
    let unknown =
        |path: &str| format!(".valueFrom.fieldRef.fieldPath: Unsupported value: \"{path}\": {known}");
    let name = json!({"apiVersion": "v1", "fieldPath": "metadata.name"});
    let (secret, map) =
        (json!({"name": "a-secret", "key": "a-key"}), json!({"name": "some-config-map", "key": "some-key"}));
    let twice = ".valueFrom: Invalid value: \"\": may not have more than one field specified at a time";
    let subdomain = "a lowercase RFC 1123 subdomain must consist of";
    vars(&[
        (field("metadata.annotations['key']"), ""),
        (field("metadata.labels['key']"), ""),
        (field("metadata.name"), ""),
        (field("metadata.namespace"), ""),
        (field("metadata.uid"), ""),
        (field("spec.nodeName"), ""),
        (field("spec.serviceAccountName"), ""),
        (field("status.hostIP"), ""),
        (field("status.hostIPs"), ""),
        (field("status.podIP"), ""),
        (field("status.podIPs"), ""),
        (from(json!({"secretKeyRef": secret})), ""),
        (from(json!({"configMapKeyRef": map})), ""),
        (resource("limits.ephemeral-storage"), ""),
        (resource("requests.ephemeral-storage"), ""),
        (resource("limits.hugepages-2Mi"), ""),
        (resource("requests.hugepages-2Mi"), ""),
        (
            json!({"name": "abc", "value": "foo", "valueFrom": {"fieldRef": name}}),
            ".valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            from(json!({})),
            ".valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        ),
        (from(json!({"fieldRef": name, "secretKeyRef": secret})), twice),
        (from(json!({"fieldRef": name, "configMapKeyRef": map})), twice),
        (from(json!({"fieldRef": name, "secretKeyRef": secret, "configMapKeyRef": map})), twice),
        (
            from(json!({"secretKeyRef": {"name": "$%^&*#", "key": "a-key"}})),
            &format!(".valueFrom.secretKeyRef.name: {subdomain}"),
        ),
        (
            from(json!({"configMapKeyRef": {"name": "$%^&*#", "key": "some-key"}})),
            &format!(".valueFrom.configMapKeyRef.name: {subdomain}"),
        ),
        (from(json!({"fieldRef": {"apiVersion": "v1"}})), ".valueFrom.fieldRef.fieldPath: Required value"),
        (
            from(json!({"fieldRef": {"fieldPath": "metadata.name"}})),
            ".valueFrom.fieldRef.apiVersion: Required value",
        ),
        (
            field("metadata.whoops"),
            ".valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.whoops\": error converting fieldPath: field label not supported: metadata.whoops",
        ),
        (
            field("metadata.name['key']"),
            ".valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.name['key']\": error converting fieldPath: field label does not support subscript",
        ),
        (field("metadata.labels"), &unknown("metadata.labels")),
        (field("metadata.annotations"), &unknown("metadata.annotations")),
        (field("status.phase"), &unknown("status.phase")),
        (field("metadata.annotations['invalid~key']"), ".valueFrom.fieldRef: Invalid value: \"invalid~key\""),
        (
            field("metadata.labels['Www.k8s.io/test']"),
            ".valueFrom.fieldRef: Invalid value: \"Www.k8s.io/test\"",
        ),
    ]);
}

#[test]
fn variables_read_from_files() {
    let file = |volume: &str, path: &str, key: &str| json!({"name": "foo", "valueFrom": {"fileKeyRef": {"volumeName": volume, "path": path, "key": key}}});
    let (volume, path, key) = ("volume-name", "path/to/file.env", "MY_VAR");
    let at = ".valueFrom.fileKeyRef";
    let mut valued = file(volume, path, key);
    valued["value"] = "some-value".into();
    let mut optional = file(volume, path, "");
    optional["valueFrom"]["fileKeyRef"]["optional"] = true.into();
    let required = |field: &str| format!("{at}.{field}: Required value");
    let lost = |name: &str| format!("{at}.volumeName: Not found: \"{name}\"");
    let key_wrong = format!("{at}.key: a valid environment variable name must consist");
    let name_wrong = format!("{at}.volumeName: a lowercase RFC 1123 label must consist");
    let backsteps = format!("{at}.path: must not contain '..'");
    vars(&[
        (file(volume, path, key), ""),
        (file(volume, path, ""), &required("key")),
        (optional, &required("key")),
        (file(volume, path, "bad=key"), &key_wrong),
        (valued, ".valueFrom: may not be specified when `value` is not empty"),
        (file("", path, key), &format!("{} | {}", required("volumeName"), lost(""))),
        (file("INVALID_NAME!", path, key), &format!("{name_wrong} | {}", lost("INVALID_NAME!"))),
        (file(volume, "", key), &required("path")),
        (file(volume, "../etc/passwd", key), &backsteps),
        (
            file("!badname", "../badpath", "bad=key"),
            &format!("{key_wrong} | {name_wrong} | {backsteps} | {}", lost("!badname")),
        ),
    ]);
}

#[test]
fn variables_from_whole_objects() {
    let place =
        |source: &Value| json!({"spec": {"containers": [changed("ctr", &json!({"envFrom": [source]}))]}});
    let map = |name: &str| json!({"configMapRef": {"name": name}});
    let secret = |name: &str| json!({"secretRef": {"name": name}});
    let prefixed = |prefix: &str, mut source: Value| {
        source["prefix"] = prefix.into();
        source
    };
    let wrong = "a lowercase RFC 1123 subdomain must consist of";
    below(
        &kind(),
        &base(),
        "spec.containers[0].envFrom",
        place,
        &[
            (map("abc"), ""),
            (prefixed("pre_", map("abc")), ""),
            (prefixed("a.b", map("abc")), ""),
            (prefixed("* +,-./0123456789", map("abc")), ""),
            (prefixed(":;<>?@", map("abc")), ""),
            (secret("abc"), ""),
            (prefixed("pre_", secret("abc")), ""),
            (prefixed("a.b", secret("abc")), ""),
            (prefixed("[\\]^_`{}|~", secret("abc")), ""),
            (
                prefixed("a=b", secret("abc")),
                "[0].prefix: Invalid value: \"a=b\": a valid environment variable name",
            ),
            (map(""), "[0].configMapRef.name: Required value"),
            (map("$"), &format!("[0].configMapRef.name: {wrong}")),
            (secret(""), "[0].secretRef.name: Required value"),
            (secret("&"), &format!("[0].secretRef.name: {wrong}")),
            (json!({}), ": Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"),
            (
                json!({"configMapRef": {"name": "abc"}, "secretRef": {"name": "abc"}}),
                ": Invalid value: \"\": may not have more than one field specified at a time",
            ),
        ],
    );
}
