//! Services (upstream `core/validation`, whose tables say how many errors there are).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::counts;

pub(super) fn base() -> Value {
    json!({
        "metadata": {"name": "valid", "namespace": "valid", "labels": {}, "annotations": {}},
        "spec": {
            "selector": {"key": "val"}, "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster",
            "ports": [port("p", 8675)],
        },
    })
}

pub(super) fn port(name: &str, port: i32) -> Value {
    json!({"name": name, "protocol": "TCP", "port": port, "targetPort": port})
}

pub(super) fn balancer(changes: Value) -> Value {
    let mut spec = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true,
    });
    api::patch::merge::apply(&mut spec, changes);
    json!({"spec": spec})
}

pub(super) fn spec(spec: Value) -> Value {
    json!({"spec": spec})
}

fn services(cases: &[(Value, usize)]) {
    counts(&GroupVersionKind::new("", "v1", "Service"), &base(), cases);
}

#[test]
fn names_and_metadata_of_services() {
    let meta = |meta: Value| json!({"metadata": meta});
    services(&[
        (json!({}), 0),
        (meta(json!({"namespace": ""})), 1),
        (meta(json!({"namespace": "-123"})), 1),
        (meta(json!({"name": ""})), 1),
        (meta(json!({"name": "-123"})), 1),
        (meta(json!({"name": "a".repeat(64)})), 1),
        (meta(json!({"generateName": "-123"})), 1),
        (meta(json!({"generateName": "a".repeat(64)})), 1),
        (meta(json!({"labels": {"NoUppercaseOrSpecialCharsLike=Equals": "bar"}})), 1),
        (meta(json!({"annotations": {"NoSpecialCharsLike=Equals": "bar"}})), 1),
        (
            meta(json!({"annotations": {
                "service.kubernetes.io/topology-aware-hints": "original",
                "service.kubernetes.io/topology-mode": "different"}})),
            1,
        ),
    ]);
}

#[test]
fn ports_of_services() {
    let ports = |ports: Value| spec(json!({"ports": ports}));
    let one = |changes: Value| {
        let mut one = port("p", 8675);
        api::patch::merge::apply(&mut one, changes);
        spec(json!({"ports": [one]}))
    };
    services(&[
        (spec(json!({"selector": {"NoSpecialCharsLike=Equals": "bar"}})), 1),
        (spec(json!({"sessionAffinity": ""})), 1),
        (spec(json!({"type": ""})), 1),
        (spec(json!({"ports": null})), 1),
        (spec(json!({"ports": null, "clusterIP": "None", "clusterIPs": ["None"]})), 0),
        (ports(json!([port("p", 8675), port("", 12345)])), 1),
        (ports(json!([port("", 8675), port("p", 12345)])), 1),
        (ports(json!([port("p", 8675), port("p", 12345)])), 1),
        (ports(json!([port("p", 8675), port("q", 12345), port("r", 12345)])), 1),
        (one(json!({"name": "INVALID"})), 1),
        (one(json!({"protocol": ""})), 1),
        (one(json!({"protocol": "INVALID"})), 1),
        (one(json!({"port": 0})), 1),
        (one(json!({"port": 65536})), 1),
        (one(json!({"targetPort": 65536})), 1),
        (one(json!({"targetPort": "http"})), 0),
        (one(json!({"appProtocol": "example.com/protocol_with{invalid}[characters]"})), 1),
        (one(json!({"nodePort": 12345})), 1),
        (spec(json!({"internalTrafficPolicy": null})), 1),
        (spec(json!({"internalTrafficPolicy": "invalid"})), 1),
        (spec(json!({"trafficDistribution": "Random"})), 1),
        (spec(json!({"trafficDistribution": "PreferSameNode"})), 0),
        (
            spec(
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": -1}}}),
            ),
            1,
        ),
        (balancer(json!({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90}}})), 1),
    ]);
}

#[test]
fn addresses_of_services() {
    let dual = |families: Value, ips: Value| {
        let first = ips[0].clone();
        let mut all = json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": first, "clusterIPs": ips});
        if !families.is_null() {
            all["ipFamilies"] = families;
        }
        spec(all)
    };
    let single = |families: Value, ip: &str| {
        spec(json!({"ipFamilies": families, "clusterIP": ip, "clusterIPs": [ip]}))
    };
    let external = |ip: &str| spec(json!({"externalTrafficPolicy": "Cluster", "externalIPs": [ip]}));
    services(&[
        (single(Value::Null, "1.2.3.4"), 0),
        (single(Value::Null, "invalid"), 1),
        (single(Value::Null, "001.002.003.004"), 1),
        (external("1.2.3.4"), 0),
        (external("127.0.0.1"), 1),
        (external("0.0.0.0"), 1),
        (external("myhost.mydomain"), 1),
        (external("001.002.003.004"), 1),
        (spec(json!({"ipFamilies": ["not-a-valid-ip-family"]})), 1),
        (
            spec(
                json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "not-a-valid-ip-family"]}),
            ),
            1,
        ),
        (spec(json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6", "IPv4"]})), 1),
        (spec(json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv6"]})), 1),
        (dual(Value::Null, json!(["garbage-ip", "garbage-second-ip"])), 2),
        (dual(Value::Null, json!(["garbage-ip", "2001::1"])), 1),
        (dual(Value::Null, json!(["2001::1", "garbage-ip"])), 1),
        (dual(Value::Null, json!(["None", "2001::1"])), 1),
        (dual(Value::Null, json!(["2001::1", "None"])), 1),
        (dual(Value::Null, json!(["", "2001::1"])), 2),
        (dual(Value::Null, json!(["2001::1", ""])), 1),
        (dual(json!(["IPv4", "IPv6"]), json!(["2001::1", "2001::4"])), 2),
        (dual(json!(["IPv4", "IPv6"]), json!(["10.0.0.1", "10.0.0.10"])), 2),
        (dual(json!(["IPv4", "IPv6"]), json!(["10.0.0.1", "2001::1", "10.0.0.10"])), 1),
        (single(json!(["IPv6"]), "10.0.0.1"), 1),
        (single(json!(["IPv4"]), "2001::1"), 1),
        (spec(json!({"clusterIP": "10.0.0.10", "clusterIPs": ["10.0.0.1"]})), 1),
        (
            spec(json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "10.0.0.10",
                "clusterIPs": ["10.0.0.1", "2001::1"]})),
            1,
        ),
    ]);
}

#[test]
fn services_of_other_types() {
    let annotation = |text: &str, spec: Value| {
        let mut service = balancer(spec);
        service["metadata"] =
            json!({"annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": text}});
        service
    };
    let ranges = |range: &str| balancer(json!({"loadBalancerSourceRanges": [range]}));
    let cluster =
        json!({"type": "ClusterIP", "externalTrafficPolicy": null, "allocateLoadBalancerNodePorts": null});
    let external = |changes: Value| {
        let mut spec = json!({"type": "ExternalName", "externalName": "foo.bar.example.com", "internalTrafficPolicy": null});
        api::patch::merge::apply(&mut spec, changes);
        json!({"spec": spec})
    };
    services(&[
        (balancer(json!({})), 0),
        (balancer(json!({"allocateLoadBalancerNodePorts": null})), 1),
        (balancer(json!({"externalTrafficPolicy": "invalid"})), 1),
        (balancer(json!({"externalTrafficPolicy": "Local", "healthCheckNodePort": -1})), 1),
        (balancer(json!({"clusterIP": "None", "clusterIPs": ["None"]})), 1),
        (balancer(json!({"loadBalancerClass": "Bad/LoadBalancerClass"})), 1),
        (spec(json!({"loadBalancerClass": "test.com/test-load-balancer-class"})), 1),
        (spec(json!({"allocateLoadBalancerNodePorts": true})), 1),
        (ranges("1.2.3.0/24"), 0),
        (ranges(" "), 1),
        (ranges("foo.bar"), 1),
        (ranges("1.2.3.4/33"), 1),
        (ranges("001.002.003.000/24"), 1),
        (spec(json!({"loadBalancerSourceRanges": ["1.2.3.0/24", "5.6.0.0/16"]})), 1),
        (annotation("1.2.3.0/24,5.6.0.0/16", json!({})), 0),
        (annotation("foo.bar", json!({})), 1),
        (annotation("1.2.3.4/33", json!({})), 1),
        (annotation("001.002.003.000/24", json!({})), 1),
        (annotation("1.2.3.0/24", cluster.clone()), 1),
        (annotation("", cluster), 1),
        (external(json!({})), 0),
        (external(json!({"clusterIP": "1.2.3.4", "clusterIPs": ["1.2.3.4"]})), 1),
        (external(json!({"clusterIP": "None", "clusterIPs": ["None"]})), 1),
        (external(json!({"externalName": "-123"})), 1),
    ]);
}
