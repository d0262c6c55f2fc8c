//! Cases of upstream's `TestValidateAuthorizationConfiguration` and `TestLoadAndValidateData`.

use serde_json::Value;

use super::*;

fn errors(config: Value) -> Vec<String> {
    let config: AuthorizationConfiguration =
        serde_json::from_value(json!({"authorizers": config})).expect("a configuration");
    validate(&config).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// A webhook that is fine but for this.
fn webhook(file: &str, more: Value) -> Value {
    let mut webhook = json!({
        "timeout": "5s", "authorizedTTL": "60s", "unauthorizedTTL": "30s", "failurePolicy": "NoOpinion",
        "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": file},
    });
    if let (Some(webhook), Value::Object(more)) = (webhook.as_object_mut(), more) {
        webhook.extend(more);
    }
    json!({"type": "Webhook", "name": "default", "webhook": webhook})
}

#[test]
fn authorizers_are_named_and_known() {
    for (config, expected) in [
        (json!([{"type": "RBAC", "name": "rbac"}, {"type": "Node", "name": "node"}]), vec![]),
        (json!([{"type": "ABAC", "name": "abac"}]), vec![]),
        (json!([]), vec!["authorizers: Required value: at least one authorization mode must be defined"]),
        (json!([{"type": "", "name": "a"}]), vec!["authorizers[0].type: Required value"]),
        (
            json!([{"type": "Foo", "name": "foo"}]),
            vec![
                r#"authorizers[0].type: Unsupported value: "Foo": supported values: "ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook""#,
            ],
        ),
        (
            json!([{"type": "RBAC", "name": "rbac"}, {"type": "RBAC", "name": "other"}]),
            vec![r#"authorizers[1].type: Duplicate value: "RBAC""#],
        ),
        (json!([{"type": "RBAC"}]), vec!["authorizers[0].name: Required value"]),
        (
            json!([{"type": "RBAC", "name": "a"}, {"type": "Node", "name": "a"}]),
            vec![r#"authorizers[1].name: Duplicate value: "a""#],
        ),
        (
            json!([{"type": "Webhook", "name": "a"}]),
            vec!["authorizers[0].webhook: Required value: required when type=Webhook"],
        ),
        (
            json!([{"type": "RBAC", "name": "rbac", "webhook": {}}]),
            vec![
                r#"authorizers[0].webhook: Invalid value: "non-null": may only be specified when type=Webhook"#,
            ],
        ),
    ] {
        assert_eq!(errors(config.clone()), expected, "{config}");
    }
    let named = &errors(json!([{"type": "RBAC", "name": "mY!Webhook"}]))[0];
    assert!(
        named
            .starts_with(r#"authorizers[0].name: Invalid value: "mY!Webhook": authorizer name is invalid: "#)
    );
}

#[test]
fn webhooks_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kubeconfig");
    std::fs::write(&path, "").expect("written");
    let (file, directory) = (path.display().to_string(), folder.path().display().to_string());
    let missing = format!("{directory}/missing");
    let one = |file: &str, more: Value| errors(json!([webhook(file, more)]));
    assert_eq!(one(&file, json!({})), [""; 0]);
    for (more, expected) in [
        (json!({"timeout": "0s"}), "timeout: Required value"),
        (json!({"timeout": "31s"}), r#"timeout: Invalid value: "31s": must be > 0s and <= 30s"#),
        (json!({"timeout": "-1s"}), r#"timeout: Invalid value: "-1s": must be > 0s and <= 30s"#),
        (json!({"authorizedTTL": "-1s"}), r#"authorizedTTL: Invalid value: "-1s": must be > 0s"#),
        (json!({"unauthorizedTTL": "0s"}), "unauthorizedTTL: Required value"),
        (json!({"subjectAccessReviewVersion": ""}), "subjectAccessReviewVersion: Required value"),
        (
            json!({"subjectAccessReviewVersion": "v2beta1"}),
            r#"subjectAccessReviewVersion: Unsupported value: "v2beta1": supported values: "v1", "v1beta1""#,
        ),
        (
            json!({"matchConditionSubjectAccessReviewVersion": "v1beta1"}),
            r#"matchConditionSubjectAccessReviewVersion: Unsupported value: "v1beta1": supported values: "v1""#,
        ),
        (
            json!({"matchConditionSubjectAccessReviewVersion": "",
                   "matchConditions": [{"expression": "true"}]}),
            "matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified",
        ),
        (json!({"failurePolicy": ""}), "failurePolicy: Required value"),
        (
            json!({"failurePolicy": "AlwaysAllow"}),
            r#"failurePolicy: Unsupported value: "AlwaysAllow": supported values: "NoOpinion", "Deny""#,
        ),
        (json!({"connectionInfo": {}}), "connectionInfo.type: Required value"),
        (
            json!({"connectionInfo": {"type": "InClusterConfig", "kubeConfigFile": "/x"}}),
            r#"connectionInfo.kubeConfigFile: Invalid value: "/x": can only be set when type=KubeConfigFile"#,
        ),
        (
            json!({"connectionInfo": {"type": "KubeConfigFile"}}),
            "connectionInfo.kubeConfigFile: Required value",
        ),
        (
            json!({"connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "x"}}),
            r#"connectionInfo.kubeConfigFile: Invalid value: "x": must be an absolute path"#,
        ),
        (json!({"matchConditions": [{"expression": " "}]}), "matchConditions[0].expression: Required value"),
        (
            json!({"matchConditions": [{"expression": "true"}, {"expression": "true"}]}),
            r#"matchConditions[1].expression: Duplicate value: "true""#,
        ),
        (
            json!({"matchConditions": [{"expression": "request.user"}]}),
            r#"matchConditions[0].expression: Invalid value: "request.user": must evaluate to bool but got string"#,
        ),
        (
            json!({"matchConditions": vec![json!({"expression": "true"}); 65]}),
            "matchConditions: Too many: 65: must have at most 64 items",
        ),
    ] {
        assert_eq!(one(&file, more.clone()), [format!("authorizers[0].{expected}")], "{more}");
    }
    let at = "authorizers[0].connectionInfo.kubeConfigFile: Invalid value";
    assert_eq!(
        one(&missing, json!({})),
        [format!("{at}: \"{missing}\": error loading file: stat {missing}: no such file or directory")]
    );
    assert_eq!(one(&directory, json!({})), [format!("{at}: \"{directory}\": must be a regular file")]);
}

#[test]
fn names_follow_types_and_types_stay() {
    let config: AuthorizationConfiguration = serde_json::from_value(json!({"authorizers": [
        {"type": "RBAC", "name": "rbac"}, {"type": "Node", "name": "nodes"}, {"type": "Webhook", "name": "x"},
    ]}))
    .expect("a configuration");
    let required: BTreeSet<String> = ["AlwaysDeny", "RBAC"].map(str::to_owned).into();
    assert_eq!(
        validate_names(&config, &required).expect_err("wrong"),
        "[expected name node for authorizer Node instead of nodes, missing required types: [AlwaysDeny]]"
    );
}

#[test]
fn what_a_file_does_not_say_has_defaults() {
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n\
                - {type: Webhook, name: a, webhook: {timeout: 3s, cacheUnauthorizedRequests: false}}";
    let config = AuthorizationConfiguration::parse(text.as_bytes()).expect("a configuration");
    let webhook = config.authorizers[0].webhook.as_ref().expect("a webhook");
    assert_eq!(webhook.ttl(true), Duration::from_secs(300));
    assert_eq!(webhook.ttl(false), Duration::ZERO);
    assert_eq!(webhook.unauthorized_ttl.length, Duration::from_secs(30));
}
