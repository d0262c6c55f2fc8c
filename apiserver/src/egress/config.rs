//! `EgressSelectorConfiguration` and whether it makes sense.

use std::collections::BTreeSet;
use std::path::Path as FilePath;

use api::field::{Error, ErrorList, Path};
use serde::Deserialize;
use serde_json::json;

use crate::config_file;

const VERSIONS: [&str; 2] = ["apiserver.k8s.io/v1alpha1", "apiserver.k8s.io/v1beta1"];
const NETWORKS: [&str; 3] = ["cluster", "controlplane", "etcd"];
const PROTOCOLS: [&str; 3] = ["Direct", "GRPC", "HTTPConnect"];

/// How connections to each network are opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Configuration {
    pub egress_selections: Vec<Selection>,
}

/// How they are to one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Selection {
    /// `cluster`, `controlplane` or `etcd`.
    pub name: String,
    pub connection: Connection,
}

/// How a connection is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Connection {
    /// `Direct`, `HTTPConnect` or `GRPC`.
    pub proxy_protocol: String,
    pub transport: Option<Transport>,
}

/// How a proxy is reached: one of both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Transport {
    pub tcp: Option<Tcp>,
    pub uds: Option<Uds>,
}

/// A proxy at a URL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Tcp {
    pub url: String,
    pub tls_config: Option<TlsConfig>,
}

/// A proxy at a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Uds {
    pub uds_name: String,
}

/// Files with what TLS needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct TlsConfig {
    pub ca_bundle: String,
    pub client_key: String,
    pub client_cert: String,
    pub tls_server_name: String,
}

impl Configuration {
    pub(super) fn parse(text: &[u8]) -> Result<Self, config_file::Error> {
        let (_, read) = config_file::decode_of(text, "EgressSelectorConfiguration", &VERSIONS)?;
        Ok(read)
    }

    /// What is wrong; the paths are upstream's, which do not tell one selection from another.
    pub(super) fn validate(&self) -> ErrorList {
        let (mut errors, path) = (ErrorList::new(), Path::new("service").child("connection"));
        for selection in &self.egress_selections {
            selection.connection.validate(&path, &mut errors);
        }
        let mut seen = BTreeSet::new();
        for (i, selection) in self.egress_selections.iter().enumerate() {
            let name = selection.name.to_lowercase();
            if !seen.insert(name.clone()) {
                errors.push(Error::duplicate(&path.index(i), name));
            } else if !NETWORKS.contains(&name.as_str()) {
                errors.push(Error::not_supported(&path, name, &NETWORKS));
            }
        }
        errors
    }
}

impl Connection {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        let protocol = self.proxy_protocol.as_str();
        match (protocol, &self.transport) {
            ("Direct", None) => {}
            ("Direct", Some(_)) => {
                let why = "config must be absent for direct connect";
                errors.push(Error::invalid(&path.child("transport"), "direct", why));
            }
            ("HTTPConnect" | "GRPC", None) => {
                let why = format!("transport must be set for {protocol}");
                errors.push(Error::required(&path.child("transport"), why));
            }
            ("HTTPConnect", Some(transport)) => transport.validate(path, errors),
            ("GRPC", Some(Transport { uds: Some(uds), .. })) => uds.validate(path, errors),
            ("GRPC", Some(_)) => {
                errors.push(Error::required(&path.child("uds"), "UDS must be set with GRPC"));
            }
            _ => errors.push(Error::not_supported(&path.child("protocol"), protocol, &PROTOCOLS)),
        }
    }
}

impl Transport {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        match (&self.tcp, &self.uds) {
            (Some(tcp), Some(_)) => {
                let given = json!({"URL": tcp.url});
                errors.push(Error::invalid(&path.child("tcp"), given, "TCP and UDS cannot both be set"));
            }
            (None, None) => {
                errors.push(Error::required(&path.child("tcp"), "One of TCP or UDS must be set"));
            }
            (Some(tcp), None) => tcp.validate(path, errors),
            (None, Some(uds)) => uds.validate(path, errors),
        }
    }
}

impl Uds {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        if self.uds_name.is_empty() {
            let why = "must be present for UDS connections";
            errors.push(Error::invalid(&path.child("udsName"), "nil", why));
        }
    }
}

impl Tcp {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        let at = path.child("tlsConfig");
        if self.url.starts_with("http://") {
            if self.tls_config.is_some() {
                errors.push(Error::invalid(&at, "nil", "config must not be present when using HTTP"));
            }
        } else if self.url.starts_with("https://") {
            match &self.tls_config {
                Some(tls) => tls.validate(&at, errors),
                None => errors.push(Error::required(&at, "TLSConfig must be present when using HTTPS")),
            }
        } else {
            let why = "supported connection protocols are http:// and https://";
            errors.push(Error::invalid(&path.child("url"), self.url.clone(), why));
        }
    }
}

impl TlsConfig {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        let mut file = |field: &str, file: &str, needed: Option<&str>, missing: &str| {
            let at = path.child(field);
            if file.is_empty() {
                errors.extend(needed.map(|why| Error::invalid(&at, "nil", why)));
            } else if !FilePath::new(file).exists() {
                errors.push(Error::invalid(&at, file, missing));
            }
        };
        file("caBundle", &self.ca_bundle, None, "TLS config ca bundle does not exist");
        let needed = Some("Using TLS requires clientCert");
        file("clientCert", &self.client_cert, needed, "TLS client cert does not exist");
        // The word stands twice upstream, too.
        let needed = Some("Using TLS requires requires clientKey");
        file("clientKey", &self.client_key, needed, "TLS client key does not exist");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(selections: serde_json::Value) -> Vec<String> {
        let config: Configuration =
            serde_json::from_value(json!({"egressSelections": selections})).expect("a configuration");
        config.validate().iter().map(ToString::to_string).collect()
    }

    /// Cases of upstream's `TestValidateEgressSelectorConfiguration`.
    #[test]
    fn configurations_are_checked() {
        let tcp = |url: &str| json!({"tcp": {"url": url}});
        let uds = json!({"uds": {"udsName": "/s"}});
        let both = json!({"tcp": {"url": "http://a:1"}, "uds": {"udsName": "/s"}});
        let pems = |ca: &str, certificate: &str, key: &str| {
            let tls = json!({"caBundle": ca, "clientCert": certificate, "clientKey": key});
            json!({"tcp": {"url": "https://a:1", "tlsConfig": tls}})
        };
        for (protocol, transport, expected) in [
            ("Direct", None, vec![]),
            (
                "Direct",
                Some(uds.clone()),
                vec![
                    "service.connection.transport: Invalid value: \"direct\": config must be absent for direct connect",
                ],
            ),
            ("HTTPConnect", Some(tcp("http://a:1")), vec![]),
            ("HTTPConnect", Some(uds.clone()), vec![]),
            (
                "HTTPConnect",
                Some(tcp("https://a:1")),
                vec![
                    "service.connection.tlsConfig: Required value: TLSConfig must be present when using HTTPS",
                ],
            ),
            (
                "HTTPConnect",
                Some(tcp("socks5://a:1")),
                vec![
                    "service.connection.url: Invalid value: \"socks5://a:1\": supported connection protocols are \
                     http:// and https://",
                ],
            ),
            (
                "HTTPConnect",
                Some(both),
                vec![
                    "service.connection.tcp: Invalid value: {\"URL\":\"http://a:1\"}: TCP and UDS cannot both be set",
                ],
            ),
            (
                "HTTPConnect",
                Some(json!({})),
                vec!["service.connection.tcp: Required value: One of TCP or UDS must be set"],
            ),
            (
                "HTTPConnect",
                None,
                vec!["service.connection.transport: Required value: transport must be set for HTTPConnect"],
            ),
            (
                "HTTPConnect",
                Some(json!({"uds": {}})),
                vec![
                    "service.connection.udsName: Invalid value: \"nil\": must be present for UDS connections",
                ],
            ),
            (
                "HTTPConnect",
                Some(pems("/no/ca", "/no/crt", "")),
                vec![
                    "service.connection.tlsConfig.caBundle: Invalid value: \"/no/ca\": TLS config ca bundle does not \
                     exist",
                    "service.connection.tlsConfig.clientCert: Invalid value: \"/no/crt\": TLS client cert does not \
                     exist",
                    "service.connection.tlsConfig.clientKey: Invalid value: \"nil\": Using TLS requires requires \
                     clientKey",
                ],
            ),
            (
                "HTTPConnect",
                Some(json!({"tcp": {"url": "http://a:1", "tlsConfig": {}}})),
                vec![
                    "service.connection.tlsConfig: Invalid value: \"nil\": config must not be present when using HTTP",
                ],
            ),
            (
                "GRPC",
                Some(tcp("http://a:1")),
                vec!["service.connection.uds: Required value: UDS must be set with GRPC"],
            ),
            ("GRPC", Some(uds), vec![]),
            (
                "Odd",
                None,
                vec![
                    "service.connection.protocol: Unsupported value: \"Odd\": supported values: \"Direct\", \"GRPC\", \
                     \"HTTPConnect\"",
                ],
            ),
        ] {
            let mut connection = json!({"proxyProtocol": protocol});
            if let Some(transport) = &transport {
                connection["transport"] = transport.clone();
            }
            let found = errors(json!([{"name": "cluster", "connection": connection}]));
            assert_eq!(found, expected, "{protocol} {transport:?}");
        }
    }

    #[test]
    fn networks_are_known_and_named_once() {
        let direct = json!({"proxyProtocol": "Direct"});
        let names = |names: &[&str]| {
            let selection = |name: &&str| json!({"name": name, "connection": direct});
            errors(names.iter().map(selection).collect())
        };
        assert_eq!(names(&["controlplane", "Cluster", "etcd"]), Vec::<String>::new());
        let master = "service.connection: Unsupported value: \"master\": supported values: \"cluster\", \
                      \"controlplane\", \"etcd\"";
        assert_eq!(names(&["master"]), [master]);
        assert_eq!(names(&["etcd", "ETCD"]), ["service.connection[1]: Duplicate value: \"etcd\""]);
    }

    #[test]
    fn files_are_read_strictly() {
        let read = |version: &str, more: &str| {
            let text = format!(
                "apiVersion: {version}\nkind: EgressSelectorConfiguration\negressSelections:\n- name: etcd\n  \
                 connection: {{proxyProtocol: Direct}}\n{more}"
            );
            Configuration::parse(text.as_bytes()).map(|config| config.egress_selections.len())
        };
        assert_eq!(read("apiserver.k8s.io/v1beta1", ""), Ok(1));
        assert_eq!(read("apiserver.k8s.io/v1alpha1", ""), Ok(1));
        assert!(read("apiserver.k8s.io/v1beta1", "  foo: {bar: baz}\n").is_err());
        assert!(read("apiserver.k8s.io/v1beta1", "  name: cluster\n").is_err());
        assert!(read("apiserver.config.k8s.io/v1beta1", "").is_err());
        assert!(Configuration::parse(b"").is_err());
    }
}
