//! Network policies, ingresses and endpoint slices (upstream `networking/validation`, `discovery/validation`).

use api::names::GroupVersionKind;
use serde_json::{Value, json};

use super::creates;

#[test]
fn network_policies() {
    let kind = GroupVersionKind::new("networking.k8s.io", "v1", "NetworkPolicy");
    let base = json!({"metadata": {"name": "foo", "namespace": "bar"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}});
    let spec = |spec: Value| json!({"spec": spec});
    let port = |port: Value| spec(json!({"ingress": [{"ports": [port]}]}));
    let from = |peer: Value| spec(json!({"ingress": [{"from": [peer]}]}));
    let to = |peer: Value| spec(json!({"egress": [{"to": [peer]}]}));
    let (at, peer) = ("spec.ingress[0].ports[0]", "spec.ingress[0].from[0]");
    creates(
        &kind,
        &base,
        &[
            (json!({}), ""),
            (port(json!({"protocol": "SCTP", "port": "dns"})), ""),
            (port(json!({"port": 32000, "endPort": 32768})), ""),
            (from(json!({"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.3.0/24"]}})), ""),
            (from(json!({"podSelector": {}, "namespaceSelector": {}})), ""),
            (to(json!({})), "spec.egress[0].to[0]: Required value: must specify a peer"),
            (
                from(json!({"ipBlock": {"cidr": "192.168.0.0/16"}, "podSelector": {}})),
                &format!("{peer}: Forbidden: may not specify both ipBlock and another peer"),
            ),
            (
                spec(json!({"podSelector": {"matchLabels": {"a b": "c"}}})),
                "spec.podSelector.matchLabels: Invalid value: \"a b\"",
            ),
            (
                port(json!({"port": 123_456_789})),
                &format!("{at}.port: Invalid value: 123456789: must be between 1 and 65535, inclusive"),
            ),
            (port(json!({"port": "!@#$"})), &format!("{at}.port: Invalid value: \"!@#$\"")),
            (
                port(json!({"protocol": "EIGRP", "port": 1})),
                &format!(
                    "{at}.protocol: Unsupported value: \"EIGRP\": supported values: \"TCP\", \"UDP\", \"SCTP\""
                ),
            ),
            (
                port(json!({"port": "dns", "endPort": 32768})),
                &format!(
                    "{at}.endPort: Invalid value: 32768: may not be specified when `port` is non-numeric"
                ),
            ),
            (
                port(json!({"endPort": 32768})),
                &format!(
                    "{at}.endPort: Invalid value: 32768: may not be specified when `port` is not specified"
                ),
            ),
            (
                port(json!({"port": 32768, "endPort": 32700})),
                &format!("{at}.endPort: Invalid value: 32768: must be greater than or equal to `port`"),
            ),
            (
                port(json!({"port": 30000, "endPort": 65537})),
                &format!("{at}.endPort: must be between 1 and 65535"),
            ),
            (from(json!({"ipBlock": {"cidr": ""}})), &format!("{peer}.ipBlock.cidr: Required value")),
            (
                from(json!({"ipBlock": {"cidr": "192.168.5.6"}})),
                &format!("{peer}.ipBlock.cidr: Invalid value: \"192.168.5.6\""),
            ),
            (
                from(json!({"ipBlock": {"cidr": "192.168.8.0/24", "except": ["192.168.9.0/24"]}})),
                &format!(
                    "{peer}.ipBlock.except[0]: Invalid value: \"192.168.9.0/24\": must be a strict subset of `cidr`"
                ),
            ),
            (
                from(json!({"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.0.0/16"]}})),
                &format!("{peer}.ipBlock.except[0]: must be a strict subset of `cidr`"),
            ),
            (spec(json!({"policyTypes": ["foo", "bar"]})), "spec.policyTypes[0]: Unsupported value: \"foo\""),
            (
                spec(json!({"policyTypes": ["foo", "bar", "baz"]})),
                "spec.policyTypes: Invalid value: [\"foo\",\"bar\",\"baz\"]: may not specify more than two policyTypes",
            ),
        ],
    );
}

#[test]
fn ingresses() {
    let kind = GroupVersionKind::new("networking.k8s.io", "v1", "Ingress");
    let service = json!({"service": {"name": "s", "port": {"number": 80}}});
    let base = json!({
        "metadata": {"name": "foo", "namespace": "default"},
        "spec": {
            "defaultBackend": service,
            "rules": [{"host": "foo.bar.com", "http": {"paths": [
                {"path": "/foo", "pathType": "ImplementationSpecific", "backend": service}]}}],
        },
    });
    let rule = |rule: Value| json!({"spec": {"rules": [rule]}});
    let path = |path: &str, kind: Value| {
        rule(json!({"http": {"paths": [{"path": path, "pathType": kind, "backend": service}]}}))
    };
    let backend = |backend: Value| json!({"spec": {"defaultBackend": backend, "rules": null}});
    let tls = |tls: Value| json!({"spec": {"tls": [tls]}});
    let at = "spec.rules[0].http.paths[0]";
    creates(
        &kind,
        &base,
        &[
            (json!({}), ""),
            (path("/a/b", json!("Exact")), ""),
            (path("", json!("ImplementationSpecific")), ""),
            (rule(json!({"host": "*.bar.com"})), ""),
            (tls(json!({"hosts": ["*.bar.com"], "secretName": "valid"})), ""),
            (
                json!({"spec": {"defaultBackend": null, "rules": null}}),
                "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
            ),
            (
                rule(json!({"host": "1.2.3.4"})),
                "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ),
            (
                rule(json!({"host": "foobar:80"})),
                "spec.rules[0].host: Invalid value: \"foobar:80\": a lowercase RFC 1123 subdomain",
            ),
            (
                rule(json!({"host": "foo.*.bar.com"})),
                "spec.rules[0].host: Invalid value: \"foo.*.bar.com\": a wildcard DNS-1123 subdomain",
            ),
            (rule(json!({"http": {"paths": []}})), "spec.rules[0].http.paths: Required value"),
            (
                path("/foo", Value::Null),
                &format!("{at}.pathType: Required value: pathType must be specified"),
            ),
            (
                path("/foo", json!("Odd")),
                &format!(
                    "{at}.pathType: Unsupported value: \"Odd\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\""
                ),
            ),
            (
                path("foo", json!("Prefix")),
                &format!("{at}.path: Invalid value: \"foo\": must be an absolute path"),
            ),
            (path("", json!("Exact")), &format!("{at}.path: Invalid value: \"\": must be an absolute path")),
            (path("/foo//bar", json!("Exact")), &format!("{at}.path: must not contain '//'")),
            (path("/foo/./bar", json!("Exact")), &format!("{at}.path: must not contain '/./'")),
            (path("/foo/../bar", json!("Exact")), &format!("{at}.path: must not contain '/../'")),
            (path("/foo%2fbar", json!("Prefix")), &format!("{at}.path: must not contain '%2f'")),
            (path("/foo/..", json!("Prefix")), &format!("{at}.path: cannot end with '/..'")),
            (path("foo", json!("ImplementationSpecific")), &format!("{at}.path: must be an absolute path")),
            (
                backend(json!({"service": null})),
                "spec.defaultBackend: Invalid value: \"\": resource or service backend is required",
            ),
            (
                backend(
                    json!({"service": {"name": "s", "port": {"number": 80}}, "resource": {"kind": "K", "name": "n"}}),
                ),
                "spec.defaultBackend: Invalid value: \"\": cannot set both resource and service backends",
            ),
            (
                backend(json!({"service": {"name": "", "port": {"number": 80}}})),
                "spec.defaultBackend.service.name: Required value",
            ),
            (
                backend(json!({"service": {"name": "s", "port": null}})),
                "spec.defaultBackend: Required value: port name or number is required",
            ),
            (
                backend(json!({"service": {"name": "s", "port": {"name": "http", "number": 80}}})),
                "spec.defaultBackend: Invalid value: \"\": cannot set both port name & port number",
            ),
            (
                backend(json!({"service": {"name": "s", "port": {"name": "", "number": 65536}}})),
                "spec.defaultBackend.service.port.number: Invalid value: 65536",
            ),
            (
                backend(json!({"service": null, "resource": {"name": "n"}})),
                "spec.defaultBackend.resource.kind: Required value",
            ),
            (
                backend(json!({"service": null, "resource": {"kind": "K"}})),
                "spec.defaultBackend.resource.name: Required value",
            ),
            (tls(json!({"hosts": ["foo.*.bar.com"]})), "spec.tls[0].hosts[0]: a wildcard DNS-1123 subdomain"),
            (tls(json!({"hosts": ["a:80"]})), "spec.tls[0].hosts[0]: a lowercase RFC 1123 subdomain"),
            (
                tls(json!({"secretName": "invalid name"})),
                "spec.tls[0].secretName: Invalid value: \"invalid name\"",
            ),
            (
                json!({"spec": {"ingressClassName": "foo_bar"}}),
                "spec.ingressClassName: Invalid value: \"foo_bar\"",
            ),
        ],
    );
}

#[test]
fn endpoint_slices() {
    let kind = GroupVersionKind::new("discovery.k8s.io", "v1", "EndpointSlice");
    let base = json!({
        "metadata": {"name": "hello", "namespace": "world"}, "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP"}],
        "endpoints": [{"addresses": ["1.2.3.4"], "hostname": "valid-123"}],
    });
    let ports = |ports: Value| json!({"ports": ports});
    let endpoint = |endpoint: Value| json!({"endpoints": [endpoint]});
    let many: Vec<Value> = (0..20_001).map(|i| json!({"name": format!("p{i}"), "protocol": "TCP"})).collect();
    creates(
        &kind,
        &base,
        &[
            (json!({}), ""),
            (ports(json!([{"name": "", "protocol": "TCP"}, {"name": "http", "protocol": "TCP"}])), ""),
            (ports(json!([{"name": "http", "protocol": "TCP", "appProtocol": "example.com/https"}])), ""),
            (endpoint(json!({"addresses": ["1.2.3.4"], "nodeName": "node-1.test"})), ""),
            (json!({"addressType": ""}), "addressType: Required value"),
            (
                json!({"addressType": "other"}),
                "addressType: Unsupported value: \"other\": supported values: \"FQDN\", \"IPv4\", \"IPv6\"",
            ),
            (
                ports(json!([{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "TCP"}])),
                "ports[1].name: Duplicate value: \"a\"",
            ),
            (
                ports(json!([{"name": "almost_valid", "protocol": "TCP"}])),
                "ports[0].name: Invalid value: \"almost_valid\"",
            ),
            (
                ports(json!([{"name": "a".repeat(64), "protocol": "TCP"}])),
                "ports[0].name: must be no more than 63 characters",
            ),
            (
                ports(json!([{"name": "http", "protocol": "foo"}])),
                "ports[0].protocol: Unsupported value: \"foo\"",
            ),
            (
                ports(json!([{"name": "http", "protocol": "TCP", "appProtocol": "--"}])),
                "ports[0].appProtocol: Invalid value: \"--\"",
            ),
            (ports(many.into()), "ports: Too many: 20001: must have at most 20000 items"),
            (
                endpoint(json!({"addresses": []})),
                "endpoints[0].addresses: Required value: must contain at least 1 address",
            ),
            (
                endpoint(json!({"addresses": vec!["1.2.3.4"; 101]})),
                "endpoints[0].addresses: Too many: 101: must have at most 100 items",
            ),
            (endpoint(json!({"addresses": ["--"]})), "endpoints[0].addresses[0]: Invalid value: \"--\""),
            (
                endpoint(json!({"addresses": ["2001::1"]})),
                "endpoints[0].addresses: Invalid value: \"2001::1\": must be an IPv4 address",
            ),
            (
                endpoint(json!({"addresses": ["127.0.0.1"]})),
                "endpoints[0].addresses[0]: may not be in the loopback range",
            ),
            (
                endpoint(json!({"addresses": ["1.2.3.4"], "hostname": "--INVALID"})),
                "endpoints[0].hostname: Invalid value",
            ),
            (
                endpoint(json!({"addresses": ["1.2.3.4"], "nodeName": "INVALID-node-name"})),
                "endpoints[0].nodeName: Invalid value",
            ),
        ],
    );
}
