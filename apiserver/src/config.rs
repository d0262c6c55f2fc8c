//! What the server is told: one typed value, made from flags or by the program that runs the server in process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::audit::AuditConfig;
use crate::authn::structured::OidcFlags;
use crate::authn::webhook::WebhookConfig;
use crate::authz::setup::AuthorizationConfig;
use crate::server::tls::TlsConfig;

/// Where objects live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// Several apiservers may share an etcd.
    Etcd {
        /// URLs of the members.
        servers: Vec<String>,
        /// CA bundle for the members' certificates.
        ca_file: Option<PathBuf>,
        /// Client certificate.
        cert_file: Option<PathBuf>,
        /// Key of the client certificate.
        key_file: Option<PathBuf>,
    },
    /// The embedded store, in a directory of its own.
    Embedded {
        /// The directory; made if absent.
        data_dir: PathBuf,
    },
}

/// The certificate the server shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServingCert {
    /// PEM files.
    Files {
        /// Certificate chain.
        cert: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// `apiserver.crt` and `apiserver.key` in a directory; made, self-signed, if absent.
    Directory(PathBuf),
}

/// How the front proxy of an aggregator names the user it speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeaderConfig {
    /// CA of the proxy's client certificate; without it these headers are ignored.
    pub client_ca_file: Option<PathBuf>,
    /// Common names the proxy may have; empty means any.
    pub allowed_names: Vec<String>,
    /// Headers that hold the user name.
    pub username_headers: Vec<String>,
    /// Headers that hold the uid.
    pub uid_headers: Vec<String>,
    /// Headers that hold groups.
    pub group_headers: Vec<String>,
    /// Prefixes of headers that hold extra values.
    pub extra_headers_prefix: Vec<String>,
}

/// Who may be believed.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationConfig {
    /// CA bundle that client certificates are verified against.
    pub client_ca_file: Option<PathBuf>,
    /// Whether requests without credentials are let through as `system:anonymous`.
    pub anonymous: bool,
    /// Whether somebody has said so; a configuration file must not say it again.
    pub anonymous_given: bool,
    /// File with the `AuthenticationConfiguration`.
    pub configuration_file: Option<PathBuf>,
    /// The issuer that flags name.
    pub oidc: Option<OidcFlags>,
    /// The webhook that knows tokens.
    pub webhook: Option<WebhookConfig>,
    /// CSV file of static bearer tokens.
    pub token_auth_file: Option<PathBuf>,
    /// Whether bootstrap tokens (Secrets in kube-system) authenticate.
    pub bootstrap_tokens: bool,
    /// Keys that verify service account tokens.
    pub service_account_key_files: Vec<PathBuf>,
    /// Key that signs service account tokens.
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Issuers of service account tokens; the first one signs.
    pub service_account_issuers: Vec<String>,
    /// The `jwks_uri` of the discovery document, if it differs from the issuer's.
    pub service_account_jwks_uri: Option<String>,
    /// Audiences of this API; the issuers if empty.
    pub api_audiences: Vec<String>,
    /// Whether a token lives no longer than its Secret or bound object.
    pub service_account_lookup: bool,
    /// Whether injected tokens live for a year rather than an hour.
    pub service_account_extend_token_expiration: bool,
    /// Longest life a token may be asked for.
    pub service_account_max_token_expiration: Option<Duration>,
    /// The front proxy of an aggregator.
    pub request_header: RequestHeaderConfig,
}

/// How the server reaches kubelets.
#[derive(Clone, Debug, Default)]
pub struct KubeletClientConfig {
    /// Client certificate.
    pub client_certificate: Option<PathBuf>,
    /// Key of the client certificate.
    pub client_key: Option<PathBuf>,
    /// CA bundle for kubelets' serving certificates; without it they are not verified.
    pub certificate_authority: Option<PathBuf>,
    /// Node address types, in order of preference.
    pub preferred_address_types: Vec<String>,
}

/// A range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub base: u16,
    /// How many.
    pub size: u16,
}

/// A block of addresses, as in `10.0.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The network address.
    pub address: IpAddr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

/// Everything the server is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where objects live.
    pub storage: StorageConfig,
    /// Where it is said how which resources are encrypted in the store.
    pub encryption: Option<crate::encryption::reload::Source>,
    /// What every key begins with (upstream's default: `/registry`).
    pub storage_prefix: String,
    /// How often history is compacted; zero for never.
    pub compaction_interval: Duration,
    /// File that says through which proxies this server's own connections go out.
    pub egress_file: Option<PathBuf>,
    /// Where to listen.
    pub bind_address: SocketAddr,
    /// The address other members of the cluster reach the server at; found by itself if absent.
    pub advertise_address: Option<IpAddr>,
    /// The host name for generated URLs.
    pub external_hostname: Option<String>,
    /// The certificate the server shows.
    pub serving_cert: ServingCert,
    /// What else there is to say about TLS.
    pub tls: TlsConfig,
    /// Blocks that Service addresses come from; the first one is the default family.
    pub service_cluster_ip_ranges: Vec<Cidr>,
    /// Ports that NodePort Services get.
    pub service_node_ports: PortRange,
    /// If not zero, the `kubernetes` Service is of type NodePort on this port.
    pub kubernetes_service_node_port: u16,
    /// Who may be believed.
    pub authentication: AuthenticationConfig,
    /// Who decides what they may.
    pub authorization: AuthorizationConfig,
    /// Admission plugins beyond the default set.
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins of the default set that are off.
    pub disable_admission_plugins: Vec<String>,
    /// File with what admission plugins are told.
    pub admission_file: Option<PathBuf>,
    /// Whether privileged containers may be asked for.
    pub allow_privileged: bool,
    /// How the server reaches kubelets.
    pub kubelet_client: KubeletClientConfig,
    /// Client certificate and key that webhooks and aggregated servers see.
    pub proxy_client: Option<(PathBuf, PathBuf)>,
    /// How long events are kept.
    pub event_ttl: Duration,
    /// Shortest default duration of a watch.
    pub min_request_timeout: Duration,
    /// Longest duration of a request that is not long-running.
    pub request_timeout: Duration,
    /// Whether requests are queued by priority and fairness, in as many seats as the two limits allow together.
    pub priority_and_fairness: bool,
    /// How likely an HTTP/2 client is sent elsewhere after a request.
    pub goaway_chance: f64,
    /// Reading requests served at once; zero for no limit.
    pub max_requests_inflight: usize,
    /// Writing requests served at once; zero for no limit.
    pub max_mutating_requests_inflight: usize,
    /// `--runtime-config`: API versions switched on or off.
    pub runtime_config: Vec<(String, bool)>,
    /// `--feature-gates`.
    pub feature_gates: Vec<(String, bool)>,
    /// What is written down of requests, and where.
    pub audit: AuditConfig,
    /// How long requests in flight may take to end on shutdown.
    pub shutdown_grace: Duration,
    /// Default seconds a pod tolerates a node that is not ready.
    pub default_not_ready_toleration_seconds: i64,
    /// Default seconds a pod tolerates a node that is unreachable.
    pub default_unreachable_toleration_seconds: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            storage: StorageConfig::Embedded { data_dir: PathBuf::from("/var/lib/coxswain/apiserver") },
            encryption: None,
            storage_prefix: "/registry".to_owned(),
            compaction_interval: Duration::from_secs(300),
            egress_file: None,
            bind_address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 6443),
            advertise_address: None,
            external_hostname: None,
            serving_cert: ServingCert::Directory(PathBuf::from("/var/run/kubernetes")),
            tls: TlsConfig::default(),
            service_cluster_ip_ranges: vec![Cidr {
                address: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)),
                prefix: 24,
            }],
            service_node_ports: PortRange { base: 30000, size: 2768 },
            kubernetes_service_node_port: 0,
            authentication: AuthenticationConfig {
                anonymous: true,
                service_account_lookup: true,
                service_account_extend_token_expiration: true,
                ..AuthenticationConfig::default()
            },
            authorization: AuthorizationConfig::default(),
            enable_admission_plugins: Vec::new(),
            disable_admission_plugins: Vec::new(),
            admission_file: None,
            allow_privileged: true,
            kubelet_client: KubeletClientConfig {
                preferred_address_types: [
                    "Hostname",
                    "InternalDNS",
                    "InternalIP",
                    "ExternalDNS",
                    "ExternalIP",
                ]
                .map(str::to_owned)
                .to_vec(),
                ..KubeletClientConfig::default()
            },
            proxy_client: None,
            event_ttl: Duration::from_secs(3600),
            min_request_timeout: Duration::from_secs(1800),
            request_timeout: Duration::from_secs(60),
            priority_and_fairness: true,
            goaway_chance: 0.0,
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            runtime_config: Vec::new(),
            feature_gates: Vec::new(),
            audit: AuditConfig::default(),
            shutdown_grace: Duration::from_secs(10),
            default_not_ready_toleration_seconds: 300,
            default_unreachable_toleration_seconds: 300,
        }
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not an address block such as 10.96.0.0/16");
        let (address, prefix) = text.trim().split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix > bits {
            return Err(bad());
        }
        Ok(Self { address, prefix }.masked())
    }
}

impl Cidr {
    /// The block with the host bits cleared.
    fn masked(self) -> Self {
        let address = match self.address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
        };
        Self { address, prefix: self.prefix }
    }

    /// The address `offset` above the network address.
    #[must_use]
    pub fn nth(&self, offset: u64) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4).wrapping_add(offset as u32))),
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6).wrapping_add(u128::from(offset))).into()),
        }
    }

    /// Whether the block holds `address`.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && Self { address, prefix: self.prefix }.masked().address == self.masked().address
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl std::str::FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a port range such as 30000-32767");
        let (first, last) = match text.trim().split_once('-') {
            Some((first, last)) => {
                (first.parse::<u16>().map_err(|_| bad())?, last.parse::<u16>().map_err(|_| bad())?)
            }
            None => {
                let (first, size) = text.trim().split_once('+').ok_or_else(bad)?;
                let first: u16 = first.parse().map_err(|_| bad())?;
                let size: u16 = size.parse().map_err(|_| bad())?;
                (first, first.checked_add(size).ok_or_else(bad)?)
            }
        };
        if first == 0 || last < first {
            return Err(bad());
        }
        Ok(Self { base: first, size: last - first + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_read_and_masked() {
        let block: Cidr = "10.96.3.7/16".parse().expect("a block");
        assert_eq!(block.to_string(), "10.96.0.0/16");
        assert_eq!(block.nth(1).to_string(), "10.96.0.1");
        assert!(block.contains("10.96.255.1".parse().expect("an address")));
        assert!(!block.contains("10.97.0.1".parse().expect("an address")));
        assert!("10.96.0.0".parse::<Cidr>().is_err());
        assert!("fd00::/108".parse::<Cidr>().is_ok());
    }

    #[test]
    fn port_ranges_are_read() {
        assert_eq!("30000-32767".parse(), Ok(PortRange { base: 30000, size: 2768 }));
        assert!("5-4".parse::<PortRange>().is_err());
        assert!("x".parse::<PortRange>().is_err());
    }
}
