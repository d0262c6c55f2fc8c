//! Admission policies and their bindings, over HTTP.

use serde_json::{Value, json};

use super::support::{Answer, Asker, Cluster, eventually, is_counted, message, namespace};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";

/// A policy about something that is in one namespace, and its binding.
async fn policy(admin: &Asker, name: &str, namespace: &str, spec: Value, binding: Value) {
    let mutating = spec.get("mutations").is_some();
    let kind = if mutating { "mutating" } else { "validating" };
    admin
        .create(
            &format!("{GROUP}/{kind}admissionpolicies"),
            &json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await;
    let mut bound = json!({"policyName": name, "matchResources": {"namespaceSelector": {"matchLabels":
        {"kubernetes.io/metadata.name": namespace}}}});
    if !mutating {
        bound["validationActions"] = json!(["Deny"]);
    }
    for (field, value) in binding.as_object().into_iter().flatten() {
        bound[field] = value.clone();
    }
    let bound = json!({"metadata": {"name": name}, "spec": bound});
    admin.create(&format!("{GROUP}/{kind}admissionpolicybindings"), &bound).await;
}

fn rules(group: &str, resources: &[&str]) -> Value {
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["*"],
        "resources": resources}]})
}

fn writes(group: &str, resources: &[&str]) -> Value {
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
        "resources": resources}]})
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

/// Asks (without storing anything) until the answer has this status.
async fn until(asker: &Asker, path: &str, body: &Value, status: u16) -> Answer {
    let path = format!("{path}?dryRun=All");
    eventually("the policy is in effect", || asker.post(&path, body), |answer: &Answer| answer.0 == status)
        .await
}

#[tokio::test]
async fn a_policy_denies_what_its_expressions_refuse() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    namespace(&admin, "free").await;
    let spec = json!({
        "matchConstraints": rules("", &["configmaps"]),
        "matchConditions": [{"name": "not-exempt", "expression": "object == null || object.metadata.name != 'exempt'"}],
        "variables": [{"name": "data", "expression": "object != null && has(object.data) ? object.data : {}"},
            {"name": "size", "expression": "size(variables.data)"}],
        "validations": [
            {"expression": "variables.size < 3", "messageExpression": "'has ' + string(variables.size) + ' entries'"},
            {"expression": "request.operation != 'DELETE' || has(oldObject.data)", "message": "keep it",
                "reason": "Forbidden"},
            {"expression": "namespaceObject.metadata.name == 'shop'"},
            {"expression": "!('ask' in variables.data) || authorizer.group('').resource('secrets').namespace('shop')\
                .check('list').allowed()", "message": "may not list secrets"},
        ],
    });
    policy(&admin, "sizes", "shop", spec, json!({})).await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    let many = config_map("many", json!({"a": "1", "b": "2", "c": "3"}));
    let denied = until(&admin, maps, &many, 422).await;
    assert_eq!(
        message(&denied),
        "configmaps \"many\" is forbidden: ValidatingAdmissionPolicy 'sizes' with binding 'sizes' denied request: has 3 entries"
    );
    assert_eq!(denied.1["reason"], "Invalid");
    assert_eq!(
        denied.1["details"]["causes"][0]["message"],
        "ValidatingAdmissionPolicy 'sizes' with binding 'sizes' denied request: has 3 entries"
    );
    let labels = [("policy", "sizes"), ("policy_binding", "sizes"), ("enforcement_action", "deny")];
    assert!(is_counted("apiserver_validating_admission_policy_check_total", &labels));
    // Elsewhere, and of other names, it says nothing.
    admin.create("/api/v1/namespaces/free/configmaps", &many).await;
    admin.create(maps, &config_map("exempt", json!({"a": "1", "b": "2", "c": "3"}))).await;
    admin.create(maps, &json!({"metadata": {"name": "empty"}})).await;
    let kept = admin.delete(&format!("{maps}/empty")).await;
    assert_eq!((kept.0, kept.1["reason"].as_str()), (403, Some("Forbidden")));
    let bob = cluster.user("bob", &["system:authenticated"]);
    let role = json!({"metadata": {"name": "maps"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"],
        "verbs": ["*"]}]});
    admin.create("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles", &role).await;
    let bound = json!({"metadata": {"name": "maps"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io",
        "kind": "Role", "name": "maps"}, "subjects": [{"kind": "User", "name": "bob"}]});
    admin.create("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings", &bound).await;
    let asks = config_map("asks", json!({"ask": "1"}));
    let refused = until(&bob, maps, &asks, 422).await;
    assert!(message(&refused).ends_with("denied request: may not list secrets"), "{refused:?}");
    admin.create(maps, &asks).await;
    cluster.stop().await;
}

#[tokio::test]
async fn parameters_come_from_where_a_binding_says() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let crd = json!({"metadata": {"name": "limits.example.com"}, "spec": {"group": "example.com",
        "names": {"kind": "Limit", "plural": "limits"}, "scope": "Namespaced", "versions": [{"name": "v1",
        "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
        "x-kubernetes-preserve-unknown-fields": true}}}]}});
    admin.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await;
    let limits = "/apis/example.com/v1/namespaces/shop/limits";
    eventually("limits are served", || admin.get(limits), |answer: &Answer| answer.0 == 200).await;
    let spec = json!({
        "paramKind": {"apiVersion": "example.com/v1", "kind": "Limit"},
        "matchConstraints": writes("", &["configmaps"]),
        "validations": [{"expression": "size(object.data) <= params.most",
            "messageExpression": "'at most ' + string(params.most) + ' says ' + params.metadata.name"}],
    });
    let reference =
        json!({"paramRef": {"selector": {"matchLabels": {"on": "yes"}}, "parameterNotFoundAction": "Deny"}});
    policy(&admin, "limited", "shop", spec, reference).await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    let one = config_map("one", json!({"a": "1"}));
    let denied = until(&admin, maps, &one, 422).await;
    assert!(
        message(&denied).ends_with(
            "denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{denied:?}"
    );
    let limit = |name: &str, most: u32, on: &str| json!({"apiVersion": "example.com/v1", "kind": "Limit", "metadata": {"name": name, "labels": {"on": on}}, "most": most});
    admin.create(limits, &limit("off", 0, "no")).await;
    admin.create(limits, &limit("wide", 2, "yes")).await;
    until(&admin, maps, &one, 201).await;
    admin.create(limits, &limit("narrow", 0, "yes")).await;
    let denied = until(&admin, maps, &one, 422).await;
    assert!(message(&denied).ends_with("denied request: at most 0 says narrow"), "{denied:?}");
    // A kind that is not there is the policy's fault.
    let spec = json!({"paramKind": {"apiVersion": "example.com/v1", "kind": "Nothing"},
        "matchConstraints": writes("", &["secrets"]), "validations": [{"expression": "true"}]});
    policy(&admin, "lost", "shop", spec, json!({})).await;
    let secret = json!({"metadata": {"name": "s"}});
    let denied = until(&admin, "/api/v1/namespaces/shop/secrets", &secret, 422).await;
    assert_eq!(
        message(&denied),
        "secrets \"s\" is forbidden: ValidatingAdmissionPolicy 'lost' denied request: failed to configure policy: \
         failed to find resource referenced by paramKind: 'example.com/v1, Kind=Nothing'"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn rules_mean_equivalent_resources_too() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    // The policy knows v1 only; requests for v2 are converted for it.
    let spec = json!({
        "matchConstraints": {"resourceRules": [{"apiGroups": ["autoscaling"], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["horizontalpodautoscalers"]}]},
        "validations": [{"expression": "object.spec.targetCPUUtilizationPercentage < 90",
            "messageExpression": "request.kind.version + ' for ' + request.requestKind.version"}],
    });
    policy(&admin, "cool", "shop", spec, json!({})).await;
    let scaler = |load: u32| {
        json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment",
            "name": "web", "apiVersion": "apps/v1"}, "metrics": [{"type": "Resource", "resource": {"name": "cpu",
            "target": {"type": "Utilization", "averageUtilization": load}}}]}})
    };
    let scalers = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers";
    let denied = until(&admin, scalers, &scaler(95), 422).await;
    assert!(message(&denied).ends_with("denied request: v1 for v2"), "{denied:?}");
    admin.create(scalers, &scaler(50)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn objects_are_mutated_and_policies_run_again() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let label = |key: &str, value: &str| {
        json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            format!("Object{{metadata: Object.metadata{{labels: {{'{key}': {value}}}}}}}")}}])
    };
    // It counts the labels it sees: a second time, after the policy behind it has added one.
    let count = json!({"matchConstraints": writes("", &["configmaps"]), "reinvocationPolicy": "IfNeeded",
        "mutations": label("count", "string(has(object.metadata.labels) ? size(object.metadata.labels) : 0)")});
    policy(&admin, "a-count", "shop", count, json!({})).await;
    let add = json!({"matchConstraints": writes("", &["configmaps"]), "reinvocationPolicy": "Never", "mutations": [
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/x'), value: 'y'}]"}}]});
    policy(&admin, "b-add", "shop", add, json!({})).await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    let (dry, map) = (format!("{maps}?dryRun=All"), config_map("a", json!({})));
    let made = eventually(
        "the policies are in effect",
        || admin.post(&dry, &map),
        |answer: &Answer| answer.1["metadata"]["labels"].as_object().is_some_and(|labels| labels.len() == 2),
    )
    .await;
    assert_eq!(made.1["metadata"]["labels"], json!({"count": "2", "example.com/x": "y"}));
    let wrong = json!({"matchConstraints": writes("", &["secrets"]), "reinvocationPolicy": "Never", "mutations": [
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{nothing: 1}"}}]});
    policy(&admin, "wrong", "shop", wrong, json!({})).await;
    let denied =
        until(&admin, "/api/v1/namespaces/shop/secrets", &json!({"metadata": {"name": "s"}}), 403).await;
    assert_eq!(
        message(&denied),
        "policy 'wrong' with binding 'wrong' denied request: error applying patch: failed to convert patch object to \
         typed object: .nothing: field not declared in schema"
    );
    assert_eq!(denied.1["reason"], "Invalid");
    cluster.stop().await;
}

#[tokio::test]
async fn custom_objects_are_mutated() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    namespace(&admin, "shop").await;
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"}, "parts": {"type": "array", "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"], "items": {"type": "object", "required": ["name"], "properties": {
        "name": {"type": "string"}, "n": {"type": "integer", "default": 1}}}}}}}});
    let crd = json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com",
        "names": {"kind": "Thing", "plural": "things"}, "scope": "Namespaced", "versions": [{"name": "v1",
        "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    admin.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd).await;
    let things = "/apis/example.com/v1/namespaces/shop/things";
    eventually("things are served", || admin.get(things), |answer: &Answer| answer.0 == 200).await;
    let expression =
        "Object{spec: Object.spec{size: object.spec.size + 1, parts: [Object.spec.parts{name: 'b'}]}}";
    let spec = json!({"matchConstraints": writes("example.com", &["things"]), "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    policy(&admin, "grow", "shop", spec, json!({})).await;
    let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"},
        "spec": {"size": 1, "parts": [{"name": "a", "n": 5}]}});
    let dry = format!("{things}?dryRun=All");
    let made = eventually(
        "the policy is in effect",
        || admin.post(&dry, &thing),
        |answer: &Answer| answer.1["spec"]["size"] == 2,
    )
    .await;
    assert_eq!(made.1["spec"]["parts"], json!([{"name": "a", "n": 5}, {"name": "b", "n": 1}]));
    cluster.stop().await;
}

#[tokio::test]
async fn that_nothing_is_wrong_with_types_is_told_in_the_status() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin();
    let spec =
        json!({"matchConstraints": rules("", &["configmaps"]), "validations": [{"expression": "true"}]});
    policy(&admin, "fine", "shop", spec, json!({})).await;
    let path = format!("{GROUP}/validatingadmissionpolicies/fine/status?fieldManager=checker&force=true");
    let status = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "fine"}, "status": {"observedGeneration": 1, "typeChecking": {}}});
    let applied = admin.clone().header("Content-Type", "application/apply-patch+yaml");
    let (code, answer) = applied.ask("PATCH", &path, Some(&status)).await;
    assert_eq!(code, 200, "{answer}");
    assert_eq!(answer["status"], status["status"]);
    cluster.stop().await;
}
