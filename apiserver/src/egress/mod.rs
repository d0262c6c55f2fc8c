//! Where this server's own connections go out (upstream `apiserver/pkg/server/egressselector`): straight, or through a
//! proxy for each of the networks that it speaks to.

mod config;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use self::config::{Configuration, Connection, TlsConfig};
use crate::config_file::{self, go_error};
use crate::remote::{Dialer, Identity, Listens, Protocol, Proxy, Trust};

/// How connections to each network are opened. Cheap to clone.
#[derive(Clone, Default)]
pub struct Egress {
    configured: bool,
    cluster: Option<Dialer>,
    control_plane: Option<Dialer>,
    etcd: Option<Dialer>,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such file.
    #[error("unable to read egress selector configuration from {path:?} [open {path}: {why}]", path = .path.display().to_string())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        why: String,
    },
    /// The file is no such configuration.
    #[error(transparent)]
    Unreadable(#[from] config_file::Error),
    /// It makes no sense.
    #[error("failed to validate egress selector configuration: {0}")]
    Invalid(String),
    /// A proxy cannot be used.
    #[error(
        "failed to setup egress selector with config: failed to create dialer for egressSelection {name:?}: {why}"
    )]
    Selection {
        /// Of which network.
        name: String,
        /// Why not.
        why: String,
    },
}

impl Egress {
    /// To nodes, pods and Services: kubelets, proxied requests, webhooks and API servers in the cluster.
    #[must_use]
    pub fn cluster(&self) -> Dialer {
        self.cluster.clone().unwrap_or_default()
    }

    /// To what stands beside this server: webhooks by URL or kubeconfig.
    #[must_use]
    pub fn control_plane(&self) -> Dialer {
        self.control_plane.clone().unwrap_or_default()
    }

    /// To etcd.
    #[must_use]
    pub fn etcd(&self) -> Dialer {
        self.etcd.clone().unwrap_or_default()
    }

    /// To the network that an issuer of tokens is in; straight if it says nothing. As upstream, what it says must be
    /// configured.
    ///
    /// # Errors
    /// When it is not.
    pub fn of_issuer(&self, network: &str) -> Result<Dialer, String> {
        let found = match network {
            "" => return Ok(Dialer::Direct),
            _ if !self.configured => {
                return Err(format!("oidc: egress lookup required with egress selector type {network:?}"));
            }
            "cluster" => &self.cluster,
            _ => &self.control_plane,
        };
        found.clone().ok_or_else(|| format!("oidc: egress lookup for {network:?} is not configured"))
    }

    /// Reads the file; without one all connections go straight.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self::default()) };
        let failed = |error| Error::File { path: path.to_owned(), why: go_error(&error) };
        Self::parse(&std::fs::read(path).map_err(failed)?)
    }

    fn parse(text: &[u8]) -> Result<Self, Error> {
        let config = Configuration::parse(text)?;
        let errors = config.validate();
        if !errors.is_empty() {
            return Err(Error::Invalid(crate::authn::setup::joined(&errors)));
        }
        let mut egress = Self { configured: true, ..Self::default() };
        for selection in &config.egress_selections {
            let name = selection.name.to_lowercase();
            let dialer =
                dialer(&selection.connection).map_err(|why| Error::Selection { name: name.clone(), why })?;
            match name.as_str() {
                "cluster" => egress.cluster = Some(dialer),
                "etcd" => egress.etcd = Some(dialer),
                _ => egress.control_plane = Some(dialer),
            }
        }
        Ok(egress)
    }
}

fn dialer(connection: &Connection) -> Result<Dialer, String> {
    let protocol = match connection.proxy_protocol.as_str() {
        "Direct" => return Ok(Dialer::Direct),
        "GRPC" => Protocol::Grpc,
        _ => Protocol::HttpConnect,
    };
    let transport = connection.transport.as_ref();
    let (listens, tls) = match transport.map(|transport| (&transport.tcp, &transport.uds)) {
        Some((_, Some(uds))) => (Listens::Unix(PathBuf::from(&uds.uds_name)), None),
        Some((Some(tcp), None)) => {
            let (host, port) = address(&tcp.url)?;
            let tls = match &tcp.tls_config {
                Some(config) => Some(tls(config, &host)?),
                None => None,
            };
            (Listens::Tcp { host, port, through: Dialer::Direct }, tls)
        }
        _ => return Err("Either a TCP or UDS transport must be specified".to_owned()),
    };
    // As upstream, which does not tell the proxy's name.
    let host = Some("127.0.0.1");
    let proxy = Proxy { protocol, listens, tls, login: None, host, counted: true };
    Ok(Dialer::Proxy(Arc::new(proxy)))
}

/// Host and port of a proxy's URL.
fn address(url: &str) -> Result<(String, u16), String> {
    let failed = |why: &str| format!("invalid proxy server url {url:?}: {why}");
    let uri: http::Uri = url.parse().map_err(|error: http::uri::InvalidUri| failed(&error.to_string()))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| failed("missing host"))?;
    // As upstream, there is no usual port.
    let port = uri.port_u16().ok_or_else(|| failed("missing port in address"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

fn tls(config: &TlsConfig, host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    let (certificate, key) = (&config.client_cert, &config.client_key);
    let identity = Identity::load(Path::new(certificate), Path::new(key))
        .map_err(|error| format!("failed to read key pair {certificate} & {key}, got {error}"))?;
    let bundle = match config.ca_bundle.as_str() {
        "" => Vec::new(),
        path => std::fs::read(path).map_err(|error| {
            format!("failed to read cert file {path}, got open {path}: {}", go_error(&error))
        })?,
    };
    let mut client = Trust::Bundle(bundle).client(Some(&identity))?;
    // The proxy is spoken to before HTTP is.
    client.alpn_protocols.clear();
    let name = if config.tls_server_name.is_empty() { host } else { config.tls_server_name.as_str() };
    let name = ServerName::try_from(name.to_owned()).map_err(|error| format!("{name:?}: {error}"))?;
    Ok((TlsConnector::from(Arc::new(client)), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_way() {
        let text = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
                    - name: Cluster\n  connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: /s}}}\n\
                    - name: etcd\n  connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'http://a:1'}}}\n\
                    - name: controlplane\n  connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /g}}}\n";
        let egress = Egress::parse(text.as_bytes()).expect("a configuration");
        let shown = |dialer: &Dialer| match dialer {
            Dialer::Direct => "direct".to_owned(),
            Dialer::Proxy(proxy) => proxy.to_string(),
        };
        let ways = [egress.cluster(), egress.etcd(), egress.control_plane()];
        assert_eq!(ways.each_ref().map(shown), ["/s", "a:1", "/g"]);
        let of_issuer = |egress: &Egress, network: &str| egress.of_issuer(network).map(|way| shown(&way));
        assert_eq!(of_issuer(&egress, "cluster"), Ok("/s".to_owned()));
        let part = text.split("- name: controlplane").next().expect("a beginning");
        let part = Egress::parse(part.as_bytes()).expect("a configuration");
        let unknown = "oidc: egress lookup for \"controlplane\" is not configured";
        assert_eq!(of_issuer(&part, "controlplane"), Err(unknown.to_owned()));
        let none = Egress::load(None).expect("none");
        assert_eq!(of_issuer(&none, ""), Ok("direct".to_owned()));
        let unknown = "oidc: egress lookup required with egress selector type \"cluster\"";
        assert_eq!(of_issuer(&none, "cluster"), Err(unknown.to_owned()));
    }

    #[test]
    fn what_cannot_be_used_is_told() {
        let missing = Egress::load(Some(Path::new("/no/such/file"))).err().expect("refused");
        assert_eq!(
            missing.to_string(),
            "unable to read egress selector configuration from \"/no/such/file\" [open /no/such/file: no such file \
             or directory]"
        );
        let head =
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n";
        for (selection, expected) in [
            (
                "- {name: x, connection: {proxyProtocol: Direct}}",
                "failed to validate egress selector configuration: service.connection: Unsupported value: \"x\": \
                 supported values: \"cluster\", \"controlplane\", \"etcd\"",
            ),
            (
                "- {name: etcd, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: 'http://a'}}}}",
                "failed to setup egress selector with config: failed to create dialer for egressSelection \
                 \"etcd\": invalid proxy server url \"http://a\": missing port in address",
            ),
        ] {
            let error = Egress::parse(format!("{head}{selection}").as_bytes()).err().expect("refused");
            assert_eq!(error.to_string(), expected);
        }
    }
}
