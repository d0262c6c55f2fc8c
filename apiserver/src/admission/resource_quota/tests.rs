//! What quotas charge for an object, and what they refuse.

use serde_json::json;

use super::*;

fn quota(spec: Value, hard: Value, used: Value) -> ResourceQuota {
    let object = json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": used}});
    serde_json::from_value(object).expect("quota")
}

fn pod(spec: Value) -> Counted<'static> {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "c"}]);
    }
    Counted::Pod(Cow::Owned(serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("pod")))
}

fn with_resources(requests: Value, limits: Value) -> Value {
    json!({"containers": [{"name": "c", "resources": {"requests": requests, "limits": limits}}]})
}

fn plan(
    new: Counted<'static>,
    old: Option<Counted<'static>>,
    quota: &ResourceQuota,
) -> Result<Option<Value>, String> {
    let charge = Charge { new, old, now: Timestamp::UNIX_EPOCH };
    charge.plan(quota).map(|used| used.map(|used| json!(write(&used))))
}

#[test]
fn pods_are_charged_until_the_limit() {
    for (used, expected) in [
        ("1", Ok(Some(json!({"pods": "2"})))),
        ("2", Err("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2".to_owned())),
    ] {
        let quota = quota(json!({}), json!({"pods": "2"}), json!({"pods": used}));
        assert_eq!(plan(pod(json!({})), None, &quota), expected);
    }
}

#[test]
fn limited_compute_resources_must_be_asked_for() {
    let quota = quota(json!({}), json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "250m", "memory": "0"}));
    assert_eq!(
        plan(pod(json!({})), None, &quota),
        Err("failed quota: q: must specify cpu for: c; memory for: c".to_owned())
    );
    let spec = with_resources(json!({"cpu": "900m", "memory": "1Mi"}), json!({}));
    assert_eq!(
        plan(pod(spec), None, &quota),
        Err("exceeded quota: q, requested: cpu=900m, used: cpu=250m, limited: cpu=1".to_owned())
    );
    let spec = with_resources(json!({"cpu": "500m", "memory": "1Mi"}), json!({}));
    assert_eq!(plan(pod(spec), None, &quota), Ok(Some(json!({"cpu": "750m", "memory": "1Mi"}))));
}

#[test]
fn scopes_choose_the_pods() {
    let best = quota(json!({"scopes": ["BestEffort"]}), json!({"pods": "1"}), json!({"pods": "1"}));
    assert!(plan(pod(json!({})), None, &best).is_err());
    let burstable = with_resources(json!({"cpu": "1"}), json!({}));
    assert_eq!(plan(pod(burstable), None, &best), Ok(None));
    let ending = quota(json!({"scopes": ["Terminating"]}), json!({"pods": "0"}), json!({"pods": "0"}));
    assert!(plan(pod(json!({"activeDeadlineSeconds": 5})), None, &ending).is_err());
    assert_eq!(plan(pod(json!({})), None, &ending), Ok(None));
    let selector = json!({"scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}});
    let high = quota(selector, json!({"pods": "0"}), json!({"pods": "0"}));
    assert!(plan(pod(json!({"priorityClassName": "high"})), None, &high).is_err());
    assert_eq!(plan(pod(json!({"priorityClassName": "low"})), None, &high), Ok(None));
}

#[test]
fn a_quota_whose_use_is_unknown_lets_nothing_in() {
    let unknown = quota(json!({}), json!({"pods": "5"}), json!({}));
    assert_eq!(
        plan(pod(json!({})), None, &unknown),
        Err("status unknown for quota: q, resources: pods".to_owned())
    );
    let new: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}))
            .expect("quota");
    assert_eq!(plan(pod(json!({})), None, &new), Ok(None), "not looked at by the controller yet");
}

#[test]
fn claims_are_charged_by_class() {
    let claim = |class: &str, size: &str| {
        let spec = json!({"storageClassName": class, "resources": {"requests": {"storage": size}}});
        Counted::Claim(Cow::Owned(
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("claim"),
        ))
    };
    let fast = "fast.storageclass.storage.k8s.io/requests.storage";
    let quota = quota(
        json!({}),
        json!({fast: "2Gi", "requests.storage": "5Gi"}),
        json!({fast: "1Gi", "requests.storage": "4Gi"}),
    );
    assert_eq!(
        plan(claim("fast", "2Gi"), None, &quota),
        Err(format!(
            "exceeded quota: q, requested: {fast}=2Gi,requests.storage=2Gi, used: {fast}=1Gi,requests.storage=4Gi, limited: \
             {fast}=2Gi,requests.storage=5Gi"
        ))
    );
    let grown = plan(claim("slow", "3Gi"), Some(claim("slow", "2Gi")), &quota);
    assert_eq!(
        grown,
        Ok(Some(json!({fast: "1Gi", "requests.storage": "5Gi"}))),
        "only the growth is charged"
    );
    assert_eq!(plan(claim("slow", "1Gi"), Some(claim("slow", "2Gi")), &quota), Ok(None));
}

#[test]
fn services_and_other_objects_are_counted() {
    let service = |kind: &str| {
        let spec = json!({"type": kind, "ports": [{"port": 1}, {"port": 2}]});
        Counted::Service(Cow::Owned(
            serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("service"),
        ))
    };
    let hard = json!({"services": "9", "services.nodeports": "3"});
    let quota_of =
        |used: &str| quota(json!({}), hard.clone(), json!({"services": "1", "services.nodeports": used}));
    assert_eq!(
        plan(service("NodePort"), Some(service("ClusterIP")), &quota_of("1")),
        Ok(Some(json!({"services": "1", "services.nodeports": "3"})))
    );
    assert!(plan(service("NodePort"), None, &quota_of("2")).is_err());
    let secrets = quota(
        json!({}),
        json!({"secrets": "1", "count/secrets": "9"}),
        json!({"secrets": "0", "count/secrets": "0"}),
    );
    let secret =
        || Counted::Object { count: usage::count_name("", "secrets"), alias: usage::alias("", "secrets") };
    assert_eq!(plan(secret(), None, &secrets), Ok(Some(json!({"secrets": "1", "count/secrets": "1"}))));
    assert_eq!(usage::count_name("apps", "deployments"), "count/deployments.apps");
}
