//! Questions and answers as text.

use std::sync::Arc;

use serde_json::{Value, json};

use super::*;

/// Services and slices from memory.
pub struct Facts {
    services: Vec<Arc<Service>>,
    slices: Vec<Arc<EndpointSlice>>,
}

fn is_named(
    object: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    namespace: &str,
    name: &str,
) -> bool {
    object.namespace.as_deref() == Some(namespace) && object.name.as_deref() == Some(name)
}

impl Source for Facts {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.iter().find(|s| is_named(&s.metadata, namespace, name)).cloned()
    }
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let of_service = |s: &&Arc<EndpointSlice>| {
            s.metadata.namespace.as_deref() == Some(namespace)
                && s.metadata
                    .labels
                    .as_ref()
                    .is_some_and(|l| l.get(SERVICE_NAME).is_some_and(|n| n == service))
        };
        self.slices.iter().filter(of_service).cloned().collect()
    }
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.iter().filter(|s| cluster_ips(s).contains(&ip)).cloned().collect()
    }
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let holds = |s: &&Arc<EndpointSlice>| {
            s.endpoints.iter().flatten().any(|e| e.addresses.contains(&ip.to_string()))
        };
        self.slices.iter().filter(holds).cloned().collect()
    }
    fn has_namespace(&self, name: &str) -> bool {
        name == "ns"
    }
}

fn service(name: &str, spec: Value) -> Arc<Service> {
    let object = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    Arc::new(serde_json::from_value(object).expect("a service"))
}

fn alias(name: &str, to: &str) -> Arc<Service> {
    service(name, json!({"type": "ExternalName", "externalName": format!("{to}.ns.svc.cluster.local")}))
}

/// Those that all tests begin with.
#[must_use]
pub fn facts() -> Facts {
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let slice = json!({"metadata": {"name": "db-1", "namespace": "ns", "labels": {SERVICE_NAME: "db"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.0.5"], "hostname": "db-0", "conditions": {"ready": true}},
                      {"addresses": ["10.244.0.6"], "conditions": {"ready": true}},
                      {"addresses": ["10.244.0.7"], "hostname": "db-2", "conditions": {"ready": false}}]});
    let many: Vec<_> = (1..=60).map(|i| json!({"addresses": [format!("10.244.3.{i}")]})).collect();
    let many = json!({"metadata": {"name": "many-1", "namespace": "ns", "labels": {SERVICE_NAME: "many"}},
        "addressType": "IPv4", "ports": [], "endpoints": many});
    let pair = |kind: &str, address: &str| {
        json!({"metadata": {"name": format!("pair-{kind}"), "namespace": "ns", "labels": {SERVICE_NAME: "pair"}},
            "addressType": kind, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address], "hostname": "pair-0", "conditions": {"ready": true}}]})
    };
    Facts {
        services: vec![
            service(
                "web",
                json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"], "ports": ports}),
            ),
            service("db", json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports})),
            service("away", json!({"type": "ExternalName", "externalName": "example.com"})),
            alias("inside", "web"),
            alias("chain", "inside"),
            alias("self", "self"),
            service("many", json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports})),
            service("pair", json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": ports})),
        ],
        slices: [slice, many, pair("IPv4", "10.244.0.9"), pair("IPv6", "fd00:244::9")]
            .into_iter()
            .map(|s| Arc::new(serde_json::from_value(s).expect("a slice")))
            .collect(),
    }
}

/// The answer as `CODE: data, data`; `not ours` if the question is to be forwarded.
fn ask(name: &str, kind: RecordType) -> String {
    let zone = Zone::new("cluster.local", 5).expect("a domain");
    let name = Name::from_ascii(format!("{name}.")).expect("a name");
    let Some(answer) = zone.answer(&facts(), &name, kind) else { return "not ours".into() };
    let data: Vec<_> = answer.answers.iter().map(|r| r.data.to_string()).collect();
    assert_eq!(answer.answers.is_empty(), !answer.authorities.is_empty(), "no answer, then the authority");
    format!("{:?}: {}", answer.code, data.join(", "))
}

#[test]
fn names_of_the_specification() {
    use RecordType::{A, AAAA, PTR, SRV, TXT};
    for (name, kind, expected) in [
        ("web.ns.svc.cluster.local", A, "NoError: 10.96.0.5"),
        ("WEB.ns.SVC.cluster.local", AAAA, "NoError: fd00::5"),
        ("web.ns.svc.cluster.local", TXT, "NoError: "),
        ("nothing.ns.svc.cluster.local", A, "NXDomain: "),
        ("ns.svc.cluster.local", A, "NoError: "),
        ("other.svc.cluster.local", A, "NXDomain: "),
        ("db.ns.svc.cluster.local", A, "NoError: 10.244.0.5, 10.244.0.6"),
        ("db-0.db.ns.svc.cluster.local", A, "NoError: 10.244.0.5"),
        ("10-244-0-6.db.ns.svc.cluster.local", A, "NoError: 10.244.0.6"),
        ("db-2.db.ns.svc.cluster.local", A, "NXDomain: "),
        ("away.ns.svc.cluster.local", A, "NoError: example.com."),
        ("_http._tcp.web.ns.svc.cluster.local", SRV, "NoError: 0 100 80 web.ns.svc.cluster.local."),
        (
            "_http._tcp.db.ns.svc.cluster.local",
            SRV,
            "NoError: 0 50 8080 10-244-0-6.db.ns.svc.cluster.local., 0 50 8080 db-0.db.ns.svc.cluster.local.",
        ),
        ("pair.ns.svc.cluster.local", A, "NoError: 10.244.0.9"),
        ("pair.ns.svc.cluster.local", AAAA, "NoError: fd00:244::9"),
        ("pair-0.pair.ns.svc.cluster.local", AAAA, "NoError: fd00:244::9"),
        (
            "_http._tcp.pair.ns.svc.cluster.local",
            SRV,
            "NoError: 0 100 8080 pair-0.pair.ns.svc.cluster.local.",
        ),
        (
            "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa",
            PTR,
            "NoError: web.ns.svc.cluster.local.",
        ),
        (
            "9.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.4.4.2.0.0.0.d.f.ip6.arpa",
            PTR,
            "NoError: pair-0.pair.ns.svc.cluster.local.",
        ),
        ("_http._udp.web.ns.svc.cluster.local", SRV, "NXDomain: "),
        ("1-2-3-4.ns.pod.cluster.local", A, "NoError: 1.2.3.4"),
        ("1-2-3-4.other.pod.cluster.local", A, "NXDomain: "),
        ("5.0.96.10.in-addr.arpa", PTR, "NoError: web.ns.svc.cluster.local."),
        ("5.0.244.10.in-addr.arpa", PTR, "NoError: db-0.db.ns.svc.cluster.local."),
        ("9.9.9.9.in-addr.arpa", PTR, "not ours"),
        ("example.com", A, "not ours"),
        ("dns-version.cluster.local", TXT, "NoError: 1.1.0"),
    ] {
        assert_eq!(ask(name, kind), expected, "{name} {kind}");
    }
}

#[test]
fn a_name_of_ports_comes_with_the_addresses_of_both_families() {
    let zone = Zone::new("cluster.local", 5).expect("a domain");
    for (name, expected) in [
        ("_http._tcp.pair.ns.svc.cluster.local.", ["10.244.0.9", "fd00:244::9"]),
        ("_http._tcp.web.ns.svc.cluster.local.", ["10.96.0.5", "fd00::5"]),
    ] {
        let name = Name::from_ascii(name).expect("a name");
        let answer = zone.answer(&facts(), &name, RecordType::SRV).expect("ours");
        let data: Vec<_> = answer.additionals.iter().map(|record| record.data.to_string()).collect();
        assert_eq!(data, expected);
    }
}
