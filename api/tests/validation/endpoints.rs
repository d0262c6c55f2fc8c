//! Endpoints and their slices (upstream `core/validation`, `discovery/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::{below, changes, creates, wholly, with};

const IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

fn endpoints() -> Value {
    json!({"metadata": {"name": "mysvc", "namespace": "namespace"}})
}

fn port(name: &str, number: i32) -> Value {
    json!({"name": name, "port": number, "protocol": "TCP"})
}

fn kind() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Endpoints")
}

#[test]
fn subsets() {
    let subset = |addresses: &[&str], ports: Value| {
        let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        json!({"addresses": addresses, "ports": ports})
    };
    let ip = |ip: &str| json!([subset(&[ip], json!([port("a", 93)]))]);
    let ports = |ports: Value| json!([subset(&["10.10.1.1"], ports)]);
    let one = |changes: Value| ports(json!([with(&port("a", 93), &changes)]));
    let wrong = |ip: &str, why: &str| format!("[0].addresses[0].ip: Invalid value: \"{ip}\": {why}");
    let bracketed = wrong("[2001:0db8:85a3:0042:1000:8a2e:0370:7334]", IP);
    let legacy = wrong("001.002.003.004", "must not have leading 0s");
    let mapped = wrong("::ffff:10.10.3.3", "must not be an IPv4-mapped IPv6 address");
    let loopback = wrong("127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    let local = wrong("169.254.169.254", "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    let multicast =
        wrong("224.0.0.1", "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    let empty =
        format!("{} | [0].addresses[0].ip: Invalid value: \"\": must be a valid IP address", wrong("", IP));
    let bracketed = format!(
        "{bracketed} | {}",
        wrong("[2001:0db8:85a3:0042:1000:8a2e:0370:7334]", "must be a valid IP address")
    );
    let range = "must be between 1 and 65535, inclusive";
    let (large, none) = (
        format!("[0].ports[0].port: Invalid value: 66000: {range}"),
        format!("[0].ports[0].port: Invalid value: 0: {range}"),
    );
    let cases = [
        (
            json!([
                subset(&["10.10.1.1", "10.10.2.2"], json!([port("a", 8675), port("b", 309)])),
                subset(&["10.10.3.3"], json!([port("a", 93), port("b", 76)])),
            ]),
            "",
        ),
        (json!(null), ""),
        (ports(json!([{"port": 8675, "protocol": "TCP"}])), ""),
        (one(json!({"appProtocol": "HTTP"})), ""),
        (ports(json!(null)), ""),
        (
            json!([{"ports": [port("a", 93)]}]),
            "[0]: Required value: must specify `addresses` or `notReadyAddresses`",
        ),
        (ip("[2001:0db8:85a3:0042:1000:8a2e:0370:7334]"), &bracketed),
        (ip("001.002.003.004"), &legacy),
        (ip("::ffff:10.10.3.3"), &mapped),
        (ip(""), &empty),
        (ip("127.0.0.1"), &loopback),
        (ip("169.254.169.254"), &local),
        (ip("224.0.0.1"), &multicast),
        (
            ports(json!([{"port": 8675, "protocol": "TCP"}, port("b", 309)])),
            "[0].ports[0].name: Required value",
        ),
        (one(json!({"port": 66000})), &large),
        (one(json!({"port": 0})), &none),
        (
            one(json!({"protocol": "Protocol"})),
            "[0].ports[0].protocol: Unsupported value: \"Protocol\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (one(json!({"protocol": null})), "[0].ports[0].protocol: Required value"),
        (
            one(json!({"appProtocol": "lots-of[invalid]-{chars}"})),
            "[0].ports[0].appProtocol: Invalid value: \"lots-of[invalid]-{chars}\": name part must consist of",
        ),
    ];
    below(&kind(), &endpoints(), "subsets", |subsets| json!({"subsets": subsets}), &cases);
    creates(
        &kind(),
        &endpoints(),
        &[
            (json!({"metadata": {"namespace": ""}}), "metadata.namespace: Required value"),
            (json!({"metadata": {"name": ""}}), "metadata.name: Required value"),
            (
                json!({"metadata": {"namespace": "no@#invalid.;chars\"allowed"}}),
                "metadata.namespace: a lowercase RFC 1123 label must consist of",
            ),
            (
                json!({"metadata": {"name": "-_Invliad^&Characters"}}),
                "metadata.name: a lowercase RFC 1123 subdomain must consist of",
            ),
        ],
    );
}

#[test]
fn changed_subsets() {
    let of = |ip: &str, port: Value| json!({"subsets": [{"addresses": [{"ip": ip}], "ports": [port]}]});
    let named = |protocol: &str| of("10.1.2.3", with(&port("a", 8675), &json!({"appProtocol": protocol})));
    let plain = of("10.1.2.3", port("a", 8675));
    let old = of("010.001.002.003", port("a", 8675));
    changes(
        &kind(),
        "",
        &endpoints(),
        &[
            (plain.clone(), named("https"), ""),
            (
                plain.clone(),
                named("~https"),
                "subsets[0].ports[0].appProtocol: Invalid value: \"~https\": name part must consist of",
            ),
            (old.clone(), old.clone(), ""),
            (old.clone(), with(&old, &json!({"metadata": {"labels": {"a": "b"}}})), ""),
            (
                plain,
                old,
                "subsets[0].addresses[0].ip: Invalid value: \"010.001.002.003\": must not have leading 0s",
            ),
        ],
    );
}

fn slice_kind() -> GroupVersionKind {
    GroupVersionKind::new("discovery.k8s.io", "v1", "EndpointSlice")
}

fn slice() -> Value {
    json!({
        "metadata": {"name": "hello", "namespace": "world"}, "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.1.2.0"], "hostname": "valid-123"}],
    })
}

fn addresses(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("10.1.2.{}", i % 255)).collect()
}

fn many_ports(count: usize) -> Value {
    (0..count).map(|i| json!({"name": format!("http-{i}"), "protocol": "TCP"})).collect()
}

#[test]
fn slice_ports() {
    let named = |name: &str| json!([{"name": name, "protocol": "TCP"}]);
    let app = |protocol: &str| json!({"name": protocol.len().to_string(), "protocol": "TCP", "appProtocol": protocol});
    let label = "a lowercase RFC 1123 label must consist of";
    let (capital, chars) = (
        format!("[0].name: Invalid value: \"aCapital\": {label}"),
        format!("[0].name: Invalid value: \"almost_valid\": {label}"),
    );
    let long = "a".repeat(64);
    let long_name = format!("[0].name: Invalid value: \"{long}\": must be no more than 63 characters");
    let cases = [
        (
            json!([{"name": "tcp", "protocol": "TCP"}, {"name": "udp", "protocol": "UDP"}, {"name": "sctp", "protocol": "SCTP"}]),
            "",
        ),
        (json!([app("HTTP"), app("https"), app("my-protocol"), app("example.com/custom-protocol")]), ""),
        (json!([{"name": "", "protocol": "TCP"}, {"name": "http", "protocol": "TCP"}]), ""),
        (named(&long[..63]), ""),
        (json!([]), ""),
        (many_ports(20_000), ""),
        (
            json!([{"name": "", "protocol": "TCP"}, {"name": "", "protocol": "TCP"}]),
            "[1].name: Duplicate value: \"\"",
        ),
        (named("aCapital"), &capital),
        (named("almost_valid"), &chars),
        (named(&long), &long_name),
        (
            json!([{"name": "http", "protocol": "foo"}]),
            "[0].protocol: Unsupported value: \"foo\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (json!([{"name": "http", "protocol": null}]), "[0].protocol: Required value"),
        (many_ports(20_001), ": Too many: 20001: must have at most 20000 items"),
        (
            json!([{"name": "http", "protocol": "TCP", "appProtocol": "--"}]),
            "[0].appProtocol: Invalid value: \"--\": name part must consist of",
        ),
    ];
    below(&slice_kind(), &slice(), "ports", |ports| json!({"ports": ports}), &cases);
}

#[test]
fn slice_endpoints() {
    let endpoint = |changes: Value| json!({"endpoints": [with(&json!({"addresses": ["10.1.2.0"], "hostname": "valid-123"}), &changes)]});
    let typed = |kind: &str, addresses: &[&str]| json!({"addressType": kind, "endpoints": [{"addresses": addresses}]});
    let topology = |count: usize| {
        let all: serde_json::Map<_, _> =
            (0..count).map(|i| (format!("topology-{i}"), Value::from("example"))).collect();
        endpoint(json!({"deprecatedTopology": all}))
    };
    let hints = |key: &str, names: &[&str]| {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        endpoint(json!({"hints": {key: names}}))
    };
    let many = |count: usize| {
        let all: Vec<Value> =
            addresses(count).into_iter().map(|address| json!({"addresses": [address]})).collect();
        json!({"endpoints": all})
    };
    let wrong = |i: usize, ip: &str, why: &str| format!("[0].addresses[{i}]: Invalid value: \"{ip}\": {why}");
    let bad_ip = wrong(0, "123.456.789.012", IP);
    let bad_v4 =
        format!("{bad_ip} | [0].addresses: Invalid value: \"2001:4860:4860::8888\": must be an IPv4 address");
    let bad_v6 = format!("{bad_ip} | {}", wrong(1, "2001:4860:4860:defg", IP));
    let not_v6 = "[0].addresses: Invalid value: \"10.1.2.3\": must be an IPv6 address";
    let legacy = wrong(0, "012.034.056.078", "must not have leading 0s");
    let subdomain = "a lowercase RFC 1123 subdomain must consist of";
    let fqdns = ["foo.*", "FOO.example.com", "underscores_are_bad.example.com", "*.example.com"];
    let bad_names: Vec<String> =
        fqdns.iter().enumerate().map(|(i, name)| wrong(i, name, subdomain)).collect();
    let bad_names = bad_names.join(" | ");
    let loopback = wrong(0, "127.0.0.1", "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    let local = wrong(
        0,
        "fe80::9656:d028:8652:66b6",
        "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
    );
    let zones = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let cases = [
        (json!({}), ""),
        (typed("IPv6", &["a00:100::4"]), ""),
        (
            typed(
                "FQDN",
                &["foo.example.com", "example.com", "example.com.", "hyphens-are-good.example.com"],
            ),
            "",
        ),
        (json!({"endpoints": []}), ""),
        (many(1000), ""),
        (endpoint(json!({"addresses": addresses(100)})), ""),
        (topology(16), ""),
        (
            endpoint(json!({"hints": {"forZones": [{"name": "zone-a"}], "forNodes": [{"name": "node-1"}]}})),
            "",
        ),
        (endpoint(json!({"nodeName": "valid-node-name"})), ""),
        (many(1001), ": Too many: 1001: must have at most 1000 items"),
        (
            endpoint(json!({"addresses": []})),
            "[0].addresses: Required value: must contain at least 1 address",
        ),
        (
            endpoint(json!({"addresses": addresses(101)})),
            "[0].addresses: Too many: 101: must have at most 100 items",
        ),
        (
            endpoint(json!({"deprecatedTopology": {"--INVALID": "example"}})),
            "[0].deprecatedTopology: Invalid value: \"--INVALID\": name part must consist of",
        ),
        (topology(17), "[0].deprecatedTopology: Too many: 17: must have at most 16 items"),
        (
            endpoint(json!({"deprecatedTopology": {"topology.kubernetes.io/zone": "zone1"}})),
            "[0].deprecatedTopology[topology.kubernetes.io/zone]: Internal error: reserved key was not removed in conversion",
        ),
        (
            endpoint(json!({"hostname": "--INVALID"})),
            "[0].hostname: Invalid value: \"--INVALID\": a lowercase RFC 1123 label must consist of",
        ),
        (
            endpoint(json!({"nodeName": "INvalid-node-name"})),
            "[0].nodeName: Invalid value: \"INvalid-node-name\": a lowercase RFC 1123 subdomain must consist of",
        ),
        (typed("IPv4", &["123.456.789.012"]), &bad_ip),
        (typed("IPv4", &["012.034.056.078"]), &legacy),
        (typed("IPv4", &["123.456.789.012", "2001:4860:4860::8888"]), &bad_v4),
        (typed("IPv6", &["123.456.789.012", "2001:4860:4860:defg"]), &bad_v6),
        (typed("IPv6", &["10.1.2.3"]), not_v6),
        (typed("FQDN", &fqdns), &bad_names),
        (
            hints("forZones", &["inv@lid"]),
            "[0].hints.forZones[0].name: Invalid value: \"inv@lid\": a valid label must be",
        ),
        (
            hints("forZones", &["zone-a", "zone-b", "zone-a"]),
            "[0].hints.forZones[2].name: Duplicate value: \"zone-a\"",
        ),
        (hints("forZones", &zones), "[0].hints.forZones: Too many: 9: must have at most 8 items"),
        (
            hints("forNodes", &["!@#$!@", ""]),
            "[0].hints.forNodes[0].name: Invalid value: \"!@#$!@\": a lowercase RFC 1123 subdomain | [0].hints.forNodes[1].name: Invalid value: \"\": a lowercase RFC 1123 subdomain",
        ),
        (
            hints("forNodes", &["node-1", "node-2", "node-1"]),
            "[0].hints.forNodes[2].name: Duplicate value: \"node-1\"",
        ),
        (hints("forNodes", &zones), "[0].hints.forNodes: Too many: 9: must have at most 8 items"),
        (typed("IPv4", &["127.0.0.1"]), &loopback),
        (typed("IPv6", &["fe80::9656:d028:8652:66b6"]), &local),
    ];
    below(&slice_kind(), &slice(), "endpoints", Clone::clone, &cases);
    let types = "supported values: \"FQDN\", \"IPv4\", \"IPv6\"";
    let (deprecated, other) = (
        format!("addressType: Unsupported value: \"IP\": {types}"),
        format!("addressType: Unsupported value: \"other\": {types}"),
    );
    wholly(
        &slice_kind(),
        &slice(),
        &[
            (json!({"addressType": "IP"}), &deprecated),
            (json!({"addressType": "other"}), &other),
            (
                json!({"metadata": {"name": "*&^"}}),
                "metadata.name: Invalid value: \"*&^\": a lowercase RFC 1123 subdomain must consist of",
            ),
            (
                json!({"metadata": {"name": null, "namespace": null}, "addressType": "", "ports": null, "endpoints": null}),
                "metadata.name: Required value | metadata.namespace: Required value | addressType: Required value",
            ),
        ],
    );
}

#[test]
fn changed_slices() {
    let base = json!({"metadata": {"name": "es1", "namespace": "test"}, "addressType": "IPv4"});
    let typed = |kind: &str| json!({"addressType": kind});
    let address = |address: &str| json!({"endpoints": [{"addresses": [address]}]});
    changes(
        &slice_kind(),
        "",
        &base,
        &[
            (typed("IPv6"), typed("IPv6"), ""),
            (address("10.1.2.04"), address("10.1.2.04"), ""),
            (
                address("10.1.2.3"),
                json!({"endpoints": [{"addresses": ["10.1.2.3"], "nodeName": "INVALID foo"}]}),
                "endpoints[0].nodeName: Invalid value: \"INVALID foo\": a lowercase RFC 1123 subdomain",
            ),
            (typed("IP"), typed("IP"), "addressType: Unsupported value: \"IP\""),
            (typed("other"), typed("IPv4"), "addressType: Invalid value: \"IPv4\": field is immutable"),
            (
                json!({}),
                json!({"ports": [{"name": "", "protocol": "invalid"}]}),
                "ports[0].protocol: Unsupported value: \"invalid\"",
            ),
            (
                address("10.1.2.3"),
                address("10.1.2.03"),
                "endpoints[0].addresses[0]: Invalid value: \"10.1.2.03\": must not have leading 0s",
            ),
        ],
    );
}
