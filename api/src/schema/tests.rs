//! Tables of cases for decoding against the schema.

use serde_json::{Value, json};

use super::*;
use crate::names::GroupVersionKind;

fn ty(group: &'static str, version: &'static str, kind: &'static str) -> TypeRef<'static> {
    type_for(&GroupVersionKind::new(group, version, kind)).unwrap()
}

fn config_map() -> TypeRef<'static> {
    ty("", "v1", "ConfigMap")
}

fn deployment() -> TypeRef<'static> {
    ty("apps", "v1", "Deployment")
}

fn strict(ty: TypeRef<'_>, text: &str) -> Vec<String> {
    ty.decode_slice(text.as_bytes()).unwrap().strict_errors
}

#[test]
fn duplicate_fields_are_found_in_document_order() {
    let text = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","name":"b"},"data":{"k":"1","k":"2","k":"3"}}"#;
    assert_eq!(
        strict(config_map(), text),
        [r#"duplicate field "metadata.name""#, r#"duplicate field "data.k""#]
    );
    let text = r#"{"spec":{"replicas":1,"replicas":2,"template":{"spec":{"containers":[{"image":"i:1","image":"i:2"}]}}}}"#;
    assert_eq!(
        strict(deployment(), text),
        [r#"duplicate field "spec.replicas""#, r#"duplicate field "spec.template.spec.containers[0].image""#]
    );
}

#[test]
fn a_field_given_twice_is_merged() {
    let text = r#"{"metadata":{"name":"g","labels":{"a":"b"}},"metadata":{"name":"h","annotations":{"c":"d"}},"data":null,"data":{"k":"v"}}"#;
    let value = config_map().decode_slice(text.as_bytes()).unwrap().value;
    assert_eq!(
        value,
        json!({"metadata": {"name": "h", "labels": {"a": "b"}, "annotations": {"c": "d"}}, "data": {"k": "v"}})
    );
}

#[test]
fn unknown_fields_are_dropped_and_named() {
    let text = r#"{"metadata":{"name":"j","bogus":1,"bogus":2},"x":1,"data":{"k":"v"}}"#;
    let decoded = config_map().decode_slice(text.as_bytes()).unwrap();
    assert_eq!(decoded.value, json!({"metadata": {"name": "j"}, "data": {"k": "v"}}));
    assert_eq!(decoded.strict_errors, [r#"unknown field "metadata.bogus""#, r#"unknown field "x""#]);
    assert_eq!(
        strict_message(&decoded.strict_errors),
        r#"strict decoding error: unknown field "metadata.bogus", unknown field "x""#
    );
    let text = r#"{"spec":{"replica":3,"template":{"spec":{"nodeSelektor":{},"containers":[{"ports":[{"hostport":1}]}]}}}}"#;
    assert_eq!(
        strict(deployment(), text),
        [
            r#"unknown field "spec.replica""#,
            r#"unknown field "spec.template.spec.nodeSelektor""#,
            r#"unknown field "spec.template.spec.containers[0].ports[0].hostport""#,
        ]
    );
    // Names are matched exactly.
    assert_eq!(strict(config_map(), r#"{"Data":{"k":"v"}}"#), [r#"unknown field "Data""#]);
}

#[test]
fn type_errors_read_as_upstream_writes_them() {
    let secret = ty("", "v1", "Secret");
    let pod = ty("", "v1", "Pod");
    for (ty, text, message) in [
        (
            config_map(),
            r#"{"metadata":[]}"#,
            "json: cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.ObjectMeta",
        ),
        (
            config_map(),
            r#"{"metadata":"x"}"#,
            "json: cannot unmarshal string into Go struct field ConfigMap.metadata of type v1.ObjectMeta",
        ),
        (
            config_map(),
            r#"{"data":{"k":true}}"#,
            "json: cannot unmarshal bool into Go struct field ConfigMap.data of type string",
        ),
        (
            config_map(),
            r#"{"data":{"k":1}}"#,
            "json: cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            config_map(),
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (config_map(), "[]", "json: cannot unmarshal array into Go value of type v1.ConfigMap"),
        (
            secret,
            r#"{"data":{"k":5}}"#,
            "json: cannot unmarshal number into Go struct field Secret.data of type []uint8",
        ),
        (secret, r#"{"data":{"k":"_-8="}}"#, "illegal base64 data at input byte 0"),
        (
            pod,
            r#"{"spec":[]}"#,
            "json: cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec",
        ),
        (
            pod,
            r#"{"metadata":{"creationTimestamp":5}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            pod,
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
        ),
        (
            deployment(),
            r#"{"spec":{"replicas":"3"}}"#,
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            deployment(),
            r#"{"spec":{"replicas":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            deployment(),
            r#"{"spec":{"template":{"spec":{"containers":"c"}}}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
    ] {
        assert_eq!(ty.decode_slice(text.as_bytes()), Err(DecodeError::Type(message.to_owned())), "{text}");
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(ty.decode_value(value), Err(DecodeError::Type(message.to_owned())), "{text}, as a value");
    }
    assert_eq!(
        config_map().decode_slice(b"{"),
        Err(DecodeError::Syntax("unexpected end of JSON input".to_owned()))
    );
}

#[test]
fn values_take_the_form_upstream_writes() {
    for (ty, text, expected) in [
        (
            config_map(),
            r#"{"metadata":{"name":"a","creationTimestamp":null,"ownerReferences":null,"labels":{}},"data":{}}"#,
            json!({"metadata": {"name": "a"}}),
        ),
        (
            ty("", "v1", "Secret"),
            r#"{"data":{"k":null,"l":"","m":"YWJj\nZGVm"}}"#,
            json!({"metadata": {}, "data": {"k": "", "l": "", "m": "YWJjZGVm"}}),
        ),
        (
            ty("rbac.authorization.k8s.io", "v1", "Role"),
            r#"{"rules":[]}"#,
            json!({"metadata": {}, "rules": []}),
        ),
        (ty("rbac.authorization.k8s.io", "v1", "Role"), r#"{}"#, json!({"metadata": {}, "rules": null})),
        (ty("", "v1", "ResourceQuota"), r#"{}"#, json!({"metadata": {}, "spec": {}, "status": {}})),
        (
            ty("networking.k8s.io", "v1", "Ingress"),
            r#"{"metadata":{"creationTimestamp":"2024-01-01T01:00:00+01:00"},"spec":{"rules":[{}]}}"#,
            json!({"metadata": {"creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": {"rules": [{}]}, "status": {"loadBalancer": {}}}),
        ),
        (
            deployment(),
            r#"{"spec":{"replicas":0,"paused":false,"template":{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}},"env":[{"name":"A","value":""}]}],"hostNetwork":false}}}}"#,
            json!({
                "metadata": {},
                "spec": {
                    "replicas": 0,
                    "selector": null,
                    "strategy": {},
                    "template": {
                        "metadata": {},
                        "spec": {"containers": [{
                            "name": "c",
                            "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                            "env": [{"name": "A"}],
                        }]},
                    },
                },
                "status": {},
            }),
        ),
        (
            ty("", "v1", "Pod"),
            r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#,
            json!({
                "metadata": {},
                "spec": {"containers": null},
                "status": {"conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null}]},
            }),
        ),
    ] {
        let decoded = ty.decode_slice(text.as_bytes()).unwrap();
        assert_eq!(decoded.value, expected, "{text}");
        assert_eq!(ty.decode_value(decoded.value).unwrap().value, expected, "{text}, once more");
    }
}

#[test]
fn schemas_inside_definitions_are_pruned_leniently() {
    let crd = ty("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let text = r#"{"spec":{"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{
        "type":"object","bogus":1,"additionalProperties":{"type":"string","bogus":2},
        "properties":{"l":{"type":"array","items":{"type":"integer","bogus":3}},"d":{"default":{"a":[1]}}}}}}]}}"#;
    let decoded = crd.decode_slice(text.as_bytes()).unwrap();
    assert_eq!(decoded.strict_errors, [r#"unknown field "spec.versions[0].schema.openAPIV3Schema.bogus""#]);
    assert_eq!(
        decoded.value["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        json!({
            "type": "object",
            "additionalProperties": {"type": "string"},
            "properties": {"l": {"type": "array", "items": {"type": "integer"}}, "d": {"default": {"a": [1]}}},
        })
    );
}

#[test]
fn a_schema_made_at_run_time_works_like_the_built_in_one() {
    let nodes = vec![
        Node::String,
        Node::Object { ty: TypeId(1), atomic: None },
        Node::List { item: NodeId(1), semantics: ListType::Atomic, wrapped: false },
    ];
    let mut with_default = Field::custom("mode", NodeId(0));
    with_default.default = Some("\"fast\"".into());
    let def = |name: &'static str, fields: Vec<Field>| TypeDef {
        name: name.into(),
        atomic: false,
        preserve_unknown: false,
        fields: fields.into(),
        wire: vec![].into(),
        present: vec![].into(),
    };
    let schema = Schema::new(
        vec![
            def("example.com.v1.Gadget", vec![Field::custom("parts", NodeId(2))]),
            def("example.com.v1.Part", vec![with_default, Field::custom("name", NodeId(0))]),
        ],
        nodes,
    );
    let gadget = schema.ty(TypeId(0));
    let mut decoded = gadget.decode_slice(br#"{"parts":[{"name":"a","x":1},{"mode":"slow"}]}"#).unwrap();
    assert_eq!(decoded.strict_errors, [r#"unknown field "parts[0].x""#]);
    gadget.apply_defaults(&mut decoded.value);
    assert_eq!(decoded.value, json!({"parts": [{"name": "a", "mode": "fast"}, {"mode": "slow"}]}));
}

#[test]
fn unstructured_values_show_their_duplicates() {
    let decoded =
        decode_unstructured(br#"{"spec":{"a":1,"a":2,"l":[{"n":1.0,"n":2.5}]},"big":1e3}"#).unwrap();
    assert_eq!(decoded.strict_errors, [r#"duplicate field "spec.a""#, r#"duplicate field "spec.l[0].n""#]);
    assert_eq!(decoded.value, json!({"spec": {"a": 2, "l": [{"n": 2.5}]}, "big": 1000}));
}
