//! Pods whose devices are written down, waited for, and given back.

use super::*;

const CLAIMS: &str = "/apis/resource.k8s.io/v1/resourceclaims";

fn with_devices(devices: Value) -> Running {
    let running = Running::start();
    running.node("n1");
    let selector = json!({"cel": {"expression": "device.driver == 'd'"}});
    running.api.put(
        "/apis/resource.k8s.io/v1/deviceclasses",
        "/gpu",
        json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu", "selectors": [selector]}}),
    );
    running.api.put(
        "/apis/resource.k8s.io/v1/resourceslices",
        "/n1",
        json!({"metadata": {"name": "n1", "uid": "n1"}, "spec": {"driver": "d", "nodeName": "n1", "devices": devices,
               "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}}}),
    );
    running
}

impl Running {
    /// Waits until the only claim is so.
    async fn claim_until<T>(&self, what: impl Fn(&Value) -> Option<T>) -> T {
        let only = |objects: &Objects| {
            let mut claims = objects.objects.iter().filter(|((collection, _), _)| collection == CLAIMS);
            claims.next().map(|(_, claim)| claim.clone()).filter(|_| claims.next().is_none())
        };
        self.api.until(|objects| what(&only(objects)?)).await
    }

    /// The driver says something of the claim's device.
    fn say(&self, claim: &Value, condition: &str) {
        let mut claim = claim.clone();
        let condition = json!({"type": condition, "status": "True", "reason": "r", "message": "m",
                               "lastTransitionTime": "2026-01-01T00:00:00Z"});
        claim["status"]["devices"] =
            json!([{"driver": "d", "pool": "n1", "device": "d1", "conditions": [condition]}]);
        let name = claim["metadata"]["name"].as_str().expect("a name").to_owned();
        self.api.put(CLAIMS, &format!("ns/{name}"), claim);
    }
}

fn users(claim: &Value) -> usize {
    claim["status"]["reservedFor"].as_array().map_or(0, Vec::len)
}

#[tokio::test(start_paused = true)]
async fn an_extended_resource_becomes_a_claim() {
    let running = with_devices(json!([{"name": "d1"}]));
    running.api.objects.lock().refuse_bindings = 1;
    let requests = json!({"example.com/gpu": "1"});
    running.pod("p", json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}}));
    assert_eq!(running.bound_to("p").await, "n1");
    let claim = running.claim_until(|claim| Some(claim.clone())).await;
    assert_eq!(users(&claim), 1);
    assert_eq!(claim["metadata"]["ownerReferences"][0]["uid"], "p");
    assert_eq!(claim["metadata"]["finalizers"], json!(["resource.kubernetes.io/delete-protection"]));
    assert_eq!(claim["status"]["allocation"]["devices"]["results"][0]["device"], "d1");
    let told =
        running.pod_until("p", |pod| Some(pod?["status"]["extendedResourceClaimStatus"].clone())).await;
    let mapping = json!([{"containerName": "c", "resourceName": "example.com/gpu", "requestName": "container-0-request-0"}]);
    assert_eq!(told["requestMappings"], mapping);
    assert_eq!(told["resourceClaimName"], claim["metadata"]["name"]);
    let deleted = running.api.objects.lock().deleted.clone();
    assert_eq!(deleted.len(), 1, "the claim of the attempt that failed is gone: {deleted:?}");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_until_its_devices_are_ready_and_gets_others_if_they_fail() {
    let running = with_devices(
        json!([{"name": "d1", "bindingConditions": ["Ready"], "bindingFailureConditions": ["Failed"]}]),
    );
    let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}}]);
    let claim = json!({"metadata": {"name": "x", "namespace": "ns", "uid": "x"}, "spec": {"devices": {"requests": requests}}});
    running.api.put(CLAIMS, "ns/x", claim);
    running.pod("p", json!({"spec": {"resourceClaims": [{"name": "c", "resourceClaimName": "x"}]}}));
    let is_reserved = |claim: &Value| (users(claim) == 1).then(|| claim.clone());
    let first = running.claim_until(is_reserved).await;
    assert!(first["status"]["allocation"]["allocationTimestamp"].is_string());
    running.say(&first, "Failed");
    running.claim_until(|claim| claim["status"]["allocation"].is_null().then_some(())).await;
    let second = running.claim_until(is_reserved).await;
    let bound = running.pod_until("p", |pod| Some(pod?["spec"]["nodeName"].is_string())).await;
    assert!(!bound, "its devices are not ready");
    running.say(&second, "Ready");
    assert_eq!(running.bound_to("p").await, "n1");
    running.end().await;
}
