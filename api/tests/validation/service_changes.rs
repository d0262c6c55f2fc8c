//! Changed services and what load balancers say of them (upstream `core/validation`).

use api::names::GroupVersionKind;
use api::validation;
use serde_json::{Value, json};

use super::services::{balancer, base, port, spec};
use super::{changes, counts, decoded, with};

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Service")
}

/// Puts all cases to the validation of changed services: before, after, and how many things are wrong (twice as many
/// with the metadata, which are looked at for all kinds alike and again for services).
fn updates(cases: &[(Value, Value, usize)]) {
    let mut base = base();
    base["metadata"]["resourceVersion"] = "1".into();
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(before, after, expected)| {
            let (old, new) = (decoded(&kind(), with(&base, before)), decoded(&kind(), with(&base, after)));
            let errors = validation::validate_update(&kind(), &new, &old);
            let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
            (found.len() != *expected).then(|| {
                format!("{before} -> {after}: {expected} expected, found:\n    {}", found.join("\n    "))
            })
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn ip(ip: &str) -> Value {
    json!({"clusterIP": ip, "clusterIPs": [ip]})
}

/// A service of the type with the address, none if that is empty.
fn typed(kind: &str, address: &str) -> Value {
    let fields = match kind {
        "LoadBalancer" => json!({"externalTrafficPolicy": "Cluster", "allocateLoadBalancerNodePorts": true}),
        "NodePort" => json!({"externalTrafficPolicy": "Cluster"}),
        _ => json!({}),
    };
    let fields = with(&fields, &json!({"type": kind}));
    spec(if address.is_empty() { fields } else { with(&fields, &ip(address)) })
}

#[test]
fn metadata_and_addresses() {
    let meta = |meta: Value| json!({"metadata": meta});
    let mut cases = vec![
        (json!({}), json!({}), 0),
        (json!({}), meta(json!({"name": "valid2"})), 2),
        (json!({}), meta(json!({"namespace": "valid2"})), 2),
        (json!({}), meta(json!({"labels": {"key": "other-value"}})), 0),
        (json!({}), meta(json!({"labels": {"key2": "value2"}})), 0),
        (spec(ip("1.2.3.4")), spec(ip("8.6.7.5")), 1),
        (spec(ip("1.2.3.4")), json!({}), 1),
        (spec(ip("None")), spec(ip("1.2.3.4")), 1),
        (spec(ip("None")), json!({}), 1),
        (spec(ip("1.2.3.4")), spec(ip("None")), 1),
        (
            json!({}),
            spec(
                json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 90}}}),
            ),
            0,
        ),
        (json!({}), spec(json!({"sessionAffinity": ""})), 1),
        (json!({}), typed("LoadBalancer", ""), 0),
        (json!({}), spec(json!({"type": ""})), 1),
        (json!({}), typed("NodePort", ""), 0),
        (json!({}), typed("LoadBalancer", "None"), 1),
        (
            meta(json!({"name": "1-test-service"})),
            meta(json!({"name": "1-test-service", "labels": {"foo": "bar"}})),
            0,
        ),
        (
            json!({}),
            meta(json!({"annotations": {
                "service.kubernetes.io/topology-aware-hints": "original",
                "service.kubernetes.io/topology-mode": "different",
            }})),
            1,
        ),
    ];
    for before in ["ClusterIP", "NodePort", "LoadBalancer"] {
        for after in ["ClusterIP", "NodePort", "LoadBalancer"] {
            cases.push((typed(before, "1.2.3.4"), typed(after, "1.2.3.5"), 1));
            cases.push((typed(before, ""), typed(after, "1.2.3.5"), 0));
        }
    }
    cases.push((typed("ExternalName", ""), typed("ClusterIP", "1.2.3.5"), 0));
    cases.push((typed("ExternalName", "1.2.3.4"), typed("ClusterIP", "1.2.3.5"), 0));
    let numbered = json!([port("p", 8675), with(&port("q", 1), &json!({"nodePort": 1}))]);
    let before = with(&typed("NodePort", ""), &spec(json!({"ports": numbered})));
    cases.push((before.clone(), with(&before, &spec(ip("None"))), 1));
    updates(&cases);
}

#[test]
fn families() {
    let families = |policy: &str, families: &[&str], addresses: &[&str]| {
        let mut fields = json!({});
        if !policy.is_empty() {
            fields["ipFamilyPolicy"] = policy.into();
        }
        if !families.is_empty() {
            fields["ipFamilies"] = json!(families);
        }
        if let Some(first) = addresses.first() {
            fields["clusterIP"] = (*first).into();
            fields["clusterIPs"] = json!(addresses);
        }
        spec(fields)
    };
    let external =
        |service: Value| with(&service, &spec(json!({"type": "ExternalName", "externalName": "foo"})));
    let (single, prefer, require) = ("SingleStack", "PreferDualStack", "RequireDualStack");
    let (four, six, both): (&[&str], &[&str], &[&str]) = (&["IPv4"], &["IPv6"], &["IPv4", "IPv6"]);
    let flipped: &[&str] = &["IPv6", "IPv4"];
    let (one, two): (&[&str], &[&str]) = (&["1.2.3.4"], &["1.2.3.4", "2001::1"]);
    let was_single = families(single, four, one);
    let was_dual = families(require, both, two);
    let ten = families(single, four, &["10.0.0.10"]);
    updates(&[
        (spec(json!({"type": "ExternalName"})), json!({}), 0),
        (ten.clone(), external(ten.clone()), 3),
        (ten, external(json!({})), 0),
        (families("", four, &[]), families("", four, &[]), 0),
        (families("", four, &[]), families(single, four, &[]), 0),
        (families(single, four, &[]), families(require, four, &[]), 0),
        (families(require, four, &[]), families(require, both, &[]), 0),
        (external(json!({})), external(json!({})), 0),
        (json!({}), with(&families("", four, &[]), &spec(json!({"externalName": "somename"}))), 0),
        (json!({}), with(&families("", six, &[]), &spec(json!({"externalName": "somename"}))), 0),
        (families("", four, one), families("", six, one), 2),
        (families(require, four, one), families("", four, one), 0),
        (was_single.clone(), families(prefer, four, one), 0),
        (was_single.clone(), families(require, both, one), 0),
        (was_single.clone(), families(require, both, two), 0),
        (was_dual.clone(), was_single.clone(), 0),
        (families(require, both, &["None"]), families(require, flipped, &["None"]), 0),
        (families(single, four, &["None"]), families(require, flipped, &["None"]), 0),
        (families(require, both, &["None"]), families(single, six, &["None"]), 0),
        (was_dual.clone(), families(require, flipped, &["2001::1", "1.2.3.5"]), 4),
        (was_dual.clone(), families(require, both, &["1.2.3.5", "2001::1"]), 1),
        (was_dual.clone(), families(require, both, &["1.2.3.4", "2002::1"]), 1),
        (was_dual.clone(), families(single, both, one), 0),
        (was_dual.clone(), families(require, four, one), 2),
        (was_dual, families(single, four, &["1.2.3.5"]), 1),
        (was_single, families(require, both, &["1.2.3.5"]), 1),
    ]);
}

#[test]
fn balancers() {
    let ranges = |ranges: &[&str]| balancer(json!({"loadBalancerSourceRanges": ranges}));
    let class = |class: Value| balancer(json!({"loadBalancerClass": class}));
    let classy =
        |kind: &str| with(&typed(kind, ""), &spec(json!({"loadBalancerClass": "test.com/test-old"})));
    let annotated = |text: &str| {
        with(
            &balancer(json!({})),
            &json!({"metadata": {"annotations": {"service.beta.kubernetes.io/load-balancer-source-ranges": text}}}),
        )
    };
    let labelled = |service: Value| with(&service, &json!({"metadata": {"labels": {"foo": "bar"}}}));
    let app =
        |protocol: &str| spec(json!({"ports": [with(&port("a", 443), &json!({"appProtocol": protocol}))]}));
    let plain = spec(json!({"ports": [port("a", 443)]}));
    updates(&[
        (balancer(json!({})), ranges(&["10.0.0.0/8"]), 0),
        (ranges(&["10.0.0.0/8"]), ranges(&["10.100.0.0/16"]), 0),
        (balancer(json!({})), balancer(json!({"allocateLoadBalancerNodePorts": false})), 0),
        (balancer(json!({"allocateLoadBalancerNodePorts": false})), balancer(json!({})), 0),
        (json!({}), spec(json!({"allocateLoadBalancerNodePorts": true})), 1),
        (class(json!("test.com/test-old")), class(json!("test.com/test-old")), 0),
        (class(json!("test.com/test-old")), class(json!("test.com/test-new")), 1),
        (class(json!("test.com/test-old")), class(json!(null)), 1),
        (class(json!(null)), class(json!("test.com/test-new")), 1),
        (json!({}), class(json!("test.com/test-load-balancer-class")), 0),
        (json!({}), class(json!(null)), 0),
        (json!({}), class(json!("Bad/LoadBalancerclass")), 2),
        (json!({}), classy("ClusterIP"), 2),
        (spec(json!({"type": "ExternalName"})), classy("ExternalName"), 3),
        (typed("NodePort", ""), classy("NodePort"), 2),
        (classy("LoadBalancer"), classy("ClusterIP"), 2),
        (classy("LoadBalancer"), classy("ExternalName"), 3),
        (classy("LoadBalancer"), classy("NodePort"), 2),
        (json!({}), spec(json!({"internalTrafficPolicy": "Local"})), 0),
        (spec(json!({"internalTrafficPolicy": "Local"})), json!({}), 0),
        (plain.clone(), app("https"), 0),
        (plain, app("~https"), 1),
        (ranges(&["010.0.0.0/8"]), labelled(ranges(&["010.0.0.0/8"])), 0),
        (ranges(&["010.0.0.0/8"]), ranges(&["1.2.3.0/24", "010.0.0.0/8"]), 0),
        (ranges(&["1.2.3.0/24", "010.0.0.0/8"]), ranges(&["010.0.0.0/8"]), 0),
        (ranges(&["010.0.0.0/8"]), ranges(&["10.0.0.0/8"]), 0),
        (balancer(json!({})), ranges(&["010.0.0.0/8"]), 1),
        (annotated("010.0.0.0/8"), labelled(annotated("010.0.0.0/8")), 0),
        (annotated("010.0.0.0/8"), annotated("10.0.0.0/8"), 0),
        (annotated("010.0.0.0/8"), annotated("010.0.0.0/8, 1.2.3.0/24"), 1),
        (balancer(json!({})), annotated("010.0.0.0/8, 1.2.3.0/24"), 1),
    ]);
}

#[test]
fn old_addresses() {
    let external = |ips: &[&str]| spec(json!({"externalTrafficPolicy": "Cluster", "externalIPs": ips}));
    let labelled = |service: Value| with(&service, &json!({"metadata": {"labels": {"foo": "bar"}}}));
    let single = spec(json!({
        "clusterIP": "1.2.3.04", "clusterIPs": ["1.2.3.04"], "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"],
    }));
    let dual = spec(json!({
        "clusterIP": "1.2.3.04", "clusterIPs": ["1.2.3.04", "2001:db8::4"], "ipFamilyPolicy": "RequireDualStack",
        "ipFamilies": ["IPv4", "IPv6"],
    }));
    updates(&[
        (spec(ip("1.2.3.04")), labelled(spec(ip("1.2.3.04"))), 0),
        (single.clone(), dual.clone(), 0),
        (dual, single, 0),
        (external(&["1.2.3.04"]), labelled(external(&["1.2.3.04"])), 0),
        (external(&["1.2.3.04"]), external(&["5.6.7.8", "1.2.3.04"]), 0),
        (external(&["5.6.7.8", "1.2.3.04"]), external(&["1.2.3.04"]), 0),
        (external(&["1.2.3.04"]), external(&["1.2.3.4"]), 0),
        (spec(json!({"externalTrafficPolicy": null})), external(&["1.2.3.04"]), 1),
    ]);
}

#[test]
fn external_traffic_and_affinity() {
    let local = |kind: &str| with(&typed(kind, ""), &spec(json!({"externalTrafficPolicy": "Local"})));
    let health = |service: Value| with(&service, &spec(json!({"healthCheckNodePort": 34567})));
    let unset = |kind: &str| with(&typed(kind, ""), &spec(json!({"externalTrafficPolicy": null})));
    let external = |service: Value| with(&service, &spec(json!({"externalName": "foo.example.com"})));
    let affinity =
        |config: Value| spec(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config}));
    let lasting = |seconds: Value| affinity(json!({"clientIP": {"timeoutSeconds": seconds}}));
    counts(
        &kind(),
        &base(),
        &[
            (health(local("LoadBalancer")), 0),
            (local("NodePort"), 0),
            (health(typed("LoadBalancer", "")), 1),
            (health(local("NodePort")), 1),
            (health(local("ClusterIP")), 2),
            (external(local("ExternalName")), 1),
            (unset("NodePort"), 1),
            (unset("LoadBalancer"), 1),
            (spec(json!({"externalIPs": ["1.2.3.4"]})), 1),
            (lasting(json!(1)), 0),
            (lasting(json!(86399)), 0),
            (lasting(json!(86400)), 0),
            (affinity(json!(null)), 1),
            (affinity(json!({"clientIP": null})), 1),
            (lasting(json!(null)), 1),
            (lasting(json!(86401)), 1),
            (lasting(json!(-1)), 1),
            (lasting(json!(0)), 1),
        ],
    );
}

#[test]
fn statuses() {
    let ingress = |ingress: Value| {
        with(&balancer(json!({})), &json!({"status": {"loadBalancer": {"ingress": ingress}}}))
    };
    let one = |ip: &str, mode: &str| ingress(json!([{"ip": ip, "ipMode": mode}]));
    let at = "status.loadBalancer.ingress";
    let [foreign, mode, needed, no_address, legacy] = [
        format!("{at}: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"),
        format!("{at}[0].ipMode: Unsupported value: \"dummy\": supported values: \"Proxy\", \"VIP\""),
        format!("{at}[0].ipMode: Required value: must be specified when `ip` is set"),
        format!("{at}[0].ipMode: Forbidden: may not be specified when `ip` is not set"),
        format!("{at}[0].ip: Invalid value: \"001.002.003.004\": must not have leading 0s"),
    ];
    let elsewhere = json!({"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
    changes(
        &kind(),
        "status",
        &base(),
        &[
            (json!({}), elsewhere, &foreign),
            (balancer(json!({})), one("1.2.3.4", "VIP"), ""),
            (balancer(json!({})), one("1.2.3.4", "Proxy"), ""),
            (balancer(json!({})), one("1.2.3.4", "dummy"), &mode),
            (balancer(json!({})), ingress(json!([{"ip": "1.2.3.4"}])), &needed),
            (balancer(json!({})), ingress(json!([{"ipMode": "Proxy"}])), &no_address),
            (balancer(json!({})), one("001.002.003.004", "VIP"), &legacy),
            (one("1.2.3.04", "VIP"), one("1.2.3.04", "VIP"), ""),
            (
                one("1.2.3.04", "VIP"),
                ingress(json!([{"ip": "1.2.3.04", "ipMode": "VIP"}, {"ip": "5.6.7.8", "ipMode": "VIP"}])),
                "",
            ),
            (one("1.2.3.04", "VIP"), one("1.2.3.4", "VIP"), ""),
        ],
    );
}
