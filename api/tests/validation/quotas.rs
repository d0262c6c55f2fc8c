//! Limit ranges and resource quotas (upstream `core/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes, creates};

fn kind(kind: &'static str) -> GroupVersionKind {
    GroupVersionKind::new("", "v1", kind)
}

fn compute(cpu: &str, memory: &str) -> Value {
    json!({"cpu": cpu, "memory": memory})
}

#[test]
fn limit_ranges() {
    let cpu = |cpu: &str| json!({"cpu": cpu});
    let memory = |memory: &str| json!({"memory": memory});
    let local = |size: &str| json!({"ephemeral-storage": size});
    let storage = |size: &str| json!({"storage": size});
    let container = |max: Value, min: Value, default: Value, request: Value, ratio: Value| {
        json!({
            "type": "Container", "max": max, "min": min, "default": default, "defaultRequest": request,
            "maxLimitRequestRatio": ratio,
        })
    };
    let third_party = |kind: &str| {
        json!([{
            "type": kind, "max": storage("10000T"), "min": storage("100Mi"), "default": storage("500Mi"),
            "defaultRequest": storage("200Mi"),
        }])
    };
    let full = container(
        compute("100m", "10000Mi"),
        compute("5m", "100Mi"),
        compute("50m", "500Mi"),
        compute("10m", "200Mi"),
        cpu("10"),
    );
    let none = json!({});
    let pod = |changes: Value| {
        let pod = json!({"type": "Pod", "max": compute("100m", "10000m"), "min": compute("0m", "100m")});
        json!([super::with(&pod, &changes)])
    };
    let claims = |changes: Value| json!([super::with(&json!({"type": "PersistentVolumeClaim"}), &changes)]);
    let cases = [
        (
            json!([
                {"type": "Pod", "max": compute("100m", "10000Mi"), "min": compute("5m", "100Mi"), "maxLimitRequestRatio": cpu("10")},
                full,
                {"type": "PersistentVolumeClaim", "max": storage("10Gi"), "min": storage("5Gi")},
            ]),
            "",
        ),
        (
            json!([
                {"type": "Pod", "max": local("10000Mi"), "min": local("100Mi")},
                container(local("10000Mi"), local("100Mi"), local("500Mi"), local("200Mi"), none.clone()),
            ]),
            "",
        ),
        (claims(json!({"min": storage("5Gi")})), ""),
        (claims(json!({"max": storage("10Gi")})), ""),
        (json!([super::with(&full, &json!({"max": compute("100m", "10000T")}))]), ""),
        (json!([super::with(&full, &json!({"type": "thirdparty.com/foo"}))]), ""),
        (third_party("thirdparty.com/foo"), ""),
        (
            json!([{"type": "Pod", "min": cpu("0m")}, {"type": "Pod", "min": cpu("0m")}]),
            "[1].type: Duplicate value: \"Pod\"",
        ),
        (
            pod(json!({"default": compute("10m", "100m")})),
            "[0].default: Forbidden: may not be specified when `type` is 'Pod'",
        ),
        (
            pod(json!({"defaultRequest": compute("10m", "100m")})),
            "[0].defaultRequest: Forbidden: may not be specified when `type` is 'Pod'",
        ),
        (
            json!([{"type": "Pod", "max": cpu("10m"), "min": cpu("100m")}]),
            "[0].min[cpu]: Invalid value: \"100m\": min value 100m is greater than max value 10m",
        ),
        (
            json!([container(cpu("1"), cpu("100m"), cpu("2000m"), none.clone(), none.clone())]),
            "[0].default[cpu]: Invalid value: \"1\": default value 2 is greater than max value 1",
        ),
        (
            json!([container(cpu("1"), cpu("100m"), none.clone(), cpu("2000m"), none.clone())]),
            "[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than max value 1",
        ),
        (
            json!([container(cpu("2"), cpu("100m"), cpu("500m"), cpu("800m"), none.clone())]),
            "[0].defaultRequest[cpu]: Invalid value: \"800m\": default request value 800m is greater than default limit value 500m",
        ),
        (
            json!([container(cpu("2"), cpu("100m"), cpu("50m"), none.clone(), none.clone())]),
            "[0].default[cpu]: Invalid value: \"100m\": min value 100m is greater than default value 50m",
        ),
        (
            json!([{"type": "Pod", "maxLimitRequestRatio": cpu("800m")}]),
            "[0].maxLimitRequestRatio[cpu]: Invalid value: \"800m\": ratio 800m is less than 1",
        ),
        (
            json!([container(memory("2Gi"), memory("512Mi"), none.clone(), none, memory("10"))]),
            "[0].maxLimitRequestRatio[memory]: Invalid value: \"10\": ratio 10 is greater than max/min = 4.000000",
        ),
        (
            third_party("foo"),
            "[0].type: Invalid value: \"foo\": must be a standard limit type or fully qualified",
        ),
        (
            claims(json!({})),
            "[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
        ),
        (
            claims(json!({"min": storage("10Gi"), "max": storage("1Gi")})),
            "[0].min[storage]: Invalid value: \"10Gi\": min value 10Gi is greater than max value 1Gi",
        ),
    ];
    let base = json!({"metadata": {"name": "abc", "namespace": "foo"}, "spec": {"limits": []}});
    let place = |limits: &Value| json!({"spec": {"limits": limits}});
    below(&kind("LimitRange"), &base, "spec.limits", place, &cases);
    creates(&kind("LimitRange"), &base, &names());
}

fn names() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"metadata": {"name": ""}}), "metadata.name: name or generateName is required"),
        (
            json!({"metadata": {"name": "^Invalid"}}),
            "metadata.name: a lowercase RFC 1123 subdomain must consist of",
        ),
        (json!({"metadata": {"namespace": ""}}), "metadata.namespace: Required value"),
        (
            json!({"metadata": {"namespace": "^Invalid"}}),
            "metadata.namespace: a lowercase RFC 1123 label must consist of",
        ),
    ]
}

fn quota() -> Value {
    json!({"metadata": {"name": "abc", "namespace": "foo"}, "spec": {"hard": {}}})
}

#[test]
fn quotas() {
    let scoped = |hard: Value, scopes: &[&str]| json!({"hard": hard, "scopes": scopes});
    let negative = |name: &str, value: &str| {
        format!("hard[{name}]: Invalid value: \"{value}\": must be greater than or equal to 0")
    };
    let all_negative = [
        negative("configmaps", "-10"),
        negative("cpu", "-100"),
        negative("memory", "-10k"),
        negative("pods", "-10"),
        negative("replicationcontrollers", "-10"),
        negative("resourcequotas", "-10"),
        negative("secrets", "-10"),
        negative("services", "-10"),
    ]
    .join(" | ");
    let fraction =
        |name: &str, value: &str| format!("hard[{name}]: Invalid value: \"{value}\": must be an integer");
    let fractions = [
        fraction("pods", "100m"),
        fraction("replicationcontrollers", "1250m"),
        fraction("resourcequotas", "2500m"),
        fraction("services", "500m"),
    ]
    .join(" | ");
    let select = |scope: &str, operator: &str, values: &[&str]| json!({"scopeSelector": {"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]}});
    let at = "scopeSelector.matchExpressions";
    let exists = format!(
        "{at}.operator: Invalid value: \"In\": must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
    );
    let valued = format!(
        "{at}.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
    );
    let unvalued = format!(
        "{at}.values: Invalid value: [\"a\"]: must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
    );
    let cases = [
        (
            json!({"hard": {
                "cpu": "100", "memory": "10000", "requests.cpu": "100", "requests.memory": "10000", "limits.cpu": "100",
                "limits.memory": "10000", "pods": "10", "services": "0", "replicationcontrollers": "10",
                "resourcequotas": "10", "configmaps": "10", "secrets": "10", "count/resourceclaims.resource.k8s.io": "1",
                "gold.deviceclass.resource.k8s.io/devices": "1",
            }}),
            "",
        ),
        (json!({"hard": {"cpu": "100m"}}), ""),
        (scoped(json!({"cpu": "100", "limits.cpu": "200"}), &["Terminating"]), ""),
        (scoped(json!({"cpu": "100"}), &["NotTerminating"]), ""),
        (scoped(json!({"pods": "100"}), &["BestEffort"]), ""),
        (scoped(json!({"cpu": "100", "limits.cpu": "200"}), &["CrossNamespacePodAffinity"]), ""),
        (select("PriorityClass", "In", &["cluster-services"]), ""),
        (scoped(json!({"cpu": "100"}), &["NotBestEffort"]), ""),
        (
            json!({"hard": {
                "cpu": "-100", "memory": "-10000", "pods": "-10", "services": "-10", "replicationcontrollers": "-10",
                "resourcequotas": "-10", "configmaps": "-10", "secrets": "-10",
            }}),
            all_negative.as_str(),
        ),
        (
            json!({"hard": {
                "pods": ".1", "services": ".5", "replicationcontrollers": "1.25", "resourcequotas": "2.5",
            }}),
            &fractions,
        ),
        (
            json!({"hard": {"storage": "10"}}),
            "hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
        ),
        (
            scoped(json!({"cpu": "100"}), &["Terminating", "NotTerminating"]),
            "scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
        ),
        (
            scoped(json!({"pods": "100"}), &["BestEffort", "NotBestEffort"]),
            "scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes",
        ),
        (scoped(json!({"cpu": "100"}), &["foo"]), "scopes: Invalid value: [\"foo\"]: unsupported scope"),
        (
            scoped(json!({"cpu": "100"}), &["BestEffort"]),
            "scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
        ),
        (select("CrossNamespacePodAffinity", "In", &["cluster-services"]), &exists),
        (select("PriorityClass", "In", &[]), &valued),
        (select("PriorityClass", "Exists", &["a"]), &unvalued),
    ];
    below(&kind("ResourceQuota"), &quota(), "spec.", |spec| json!({"spec": spec}), &cases);
    creates(&kind("ResourceQuota"), &quota(), &names());
}

#[test]
fn quota_changes() {
    let spec = |spec: Value| json!({"spec": spec});
    changes(
        &kind("ResourceQuota"),
        "",
        &quota(),
        &[
            (json!({}), spec(json!({"hard": {"cpu": "1"}})), ""),
            (
                json!({}),
                spec(json!({"scopes": ["Terminating"]})),
                "spec.scopes: Invalid value: [\"Terminating\"]: field is immutable",
            ),
            (
                spec(json!({"scopes": ["BestEffort", "Terminating"]})),
                spec(json!({"scopes": ["Terminating", "BestEffort"]})),
                "",
            ),
            (
                json!({}),
                spec(json!({"hard": {"storage": "1"}})),
                "spec.hard[storage]: Invalid value: \"storage\": must be a standard resource for quota",
            ),
        ],
    );
    changes(
        &kind("ResourceQuota"),
        "status",
        &quota(),
        &[
            (json!({}), json!({"status": {"hard": {"cpu": "1"}, "used": {"cpu": "1m"}}}), ""),
            (
                json!({}),
                json!({"status": {"hard": {"pods": "1.5"}, "used": {"pods": "-1"}}}),
                "status.hard[pods]: Invalid value: \"1500m\": must be an integer | status.used[pods]: Invalid value: \"-1\": must be greater than or equal to 0",
            ),
        ],
    );
}
