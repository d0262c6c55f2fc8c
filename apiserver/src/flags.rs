//! The command line: upstream's flag names and defaults (upstream `cmd/kube-apiserver/app/options`).
//!
//! Flags that other installations pass and that mean nothing here (because what they tune does not exist) are
//! accepted and reported once; see [`WITHOUT_EFFECT`]. Any other unknown flag is an error.

mod audit;
mod authentication;
mod authorization;
mod protection;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};

use self::audit::AuditFlags;
use self::authentication::AuthenticationFlags;
use self::authorization::AuthorizationFlags;
use self::protection::ProtectionFlags;
use crate::config::{Cidr, Config, KubeletClientConfig, PortRange, ServingCert, StorageConfig};
use crate::server::tls;

/// Flags of kube-apiserver.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kube-apiserver",
    version,
    about = "The Kubernetes API server: validates and stores the objects of the API and serves them over REST",
    disable_help_subcommand = true,
    next_line_help = true
)]
pub struct Flags {
    /// URLs of the etcd members (scheme://host:port), separated by commas. Without it the state is kept in --data-dir
    #[arg(long, value_delimiter = ',')]
    etcd_servers: Vec<String>,
    /// CA bundle for the etcd members' certificates
    #[arg(long)]
    etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd
    #[arg(long)]
    etcd_certfile: Option<PathBuf>,
    /// Key of the client certificate for etcd
    #[arg(long)]
    etcd_keyfile: Option<PathBuf>,
    /// What every key in the store begins with
    #[arg(long, default_value = "/registry")]
    etcd_prefix: String,
    /// How often history in the store is compacted; 0 for never
    #[arg(long, default_value = "5m", value_parser = duration)]
    etcd_compaction_interval: Duration,
    /// Directory of the embedded store, used when --etcd-servers is not given
    #[arg(long, default_value = "/var/lib/coxswain/apiserver")]
    data_dir: PathBuf,
    /// Port to serve HTTPS on
    #[arg(long, default_value_t = 6443)]
    secure_port: u16,
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0")]
    bind_address: IpAddr,
    /// Address by which members of the cluster reach this server
    #[arg(long)]
    advertise_address: Option<IpAddr>,
    /// Host name for URLs that the server hands out
    #[arg(long)]
    external_hostname: Option<String>,
    /// Serving certificate (chain), PEM
    #[arg(long, requires = "tls_private_key_file")]
    tls_cert_file: Option<PathBuf>,
    /// Key of the serving certificate, PEM
    #[arg(long, requires = "tls_cert_file")]
    tls_private_key_file: Option<PathBuf>,
    /// The oldest version of TLS that is spoken: VersionTLS12 or VersionTLS13 (older names mean VersionTLS12)
    #[arg(long, default_value = "VersionTLS12")]
    tls_min_version: tls::Version,
    /// Suites of TLS 1.2 that are spoken, by Go's names; all if not given
    #[arg(long, value_delimiter = ',')]
    tls_cipher_suites: Vec<String>,
    /// certificate,key or certificate,key:name,*.name for clients that ask for a name; may be given more than once
    #[arg(long)]
    tls_sni_cert_key: Vec<tls::SniCert>,
    /// Where a self-signed serving certificate is kept when --tls-cert-file is not given
    #[arg(long, default_value = "/var/run/kubernetes")]
    cert_dir: PathBuf,
    #[command(flatten)]
    authentication: AuthenticationFlags,
    /// Address block (or two of different families, separated by a comma) for Services
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24")]
    service_cluster_ip_range: Vec<Cidr>,
    /// Ports for Services of type NodePort
    #[arg(long, default_value = "30000-32767", value_parser = clap::value_parser!(PortRange))]
    service_node_port_range: PortRange,
    /// If not 0, the kubernetes Service is of type NodePort on this port
    #[arg(long, default_value_t = 0)]
    kubernetes_service_node_port: u16,
    /// Client certificate for kubelets
    #[arg(long)]
    kubelet_client_certificate: Option<PathBuf>,
    /// Key of the client certificate for kubelets
    #[arg(long)]
    kubelet_client_key: Option<PathBuf>,
    /// CA bundle for kubelets' serving certificates
    #[arg(long)]
    kubelet_certificate_authority: Option<PathBuf>,
    /// Node address types in order of preference
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    kubelet_preferred_address_types: Vec<String>,
    #[command(flatten)]
    authorization: AuthorizationFlags,
    /// Admission plugins to add to the default set
    #[arg(long, value_delimiter = ',', alias = "admission-control")]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins to take out of the default set
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// File with the AdmissionConfiguration: what plugins are told
    #[arg(long)]
    admission_control_config_file: Option<PathBuf>,
    /// File with the EgressSelectorConfiguration: through which proxies the server's own connections go out
    #[arg(long)]
    egress_selector_config_file: Option<PathBuf>,
    /// Whether privileged containers may be asked for
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    allow_privileged: bool,
    /// Client certificate shown to aggregated servers and webhooks
    #[arg(long, requires = "proxy_client_key_file")]
    proxy_client_cert_file: Option<PathBuf>,
    /// Key of --proxy-client-cert-file
    #[arg(long, requires = "proxy_client_cert_file")]
    proxy_client_key_file: Option<PathBuf>,
    /// How long events are kept
    #[arg(long, default_value = "1h", value_parser = duration)]
    event_ttl: Duration,
    /// Shortest default duration of a watch, in seconds; the actual one is drawn between it and its double
    #[arg(long, default_value_t = 1800)]
    min_request_timeout: u64,
    /// Longest duration of a request that is neither a watch nor a stream
    #[arg(long, default_value = "1m", value_parser = duration)]
    request_timeout: Duration,
    #[command(flatten)]
    protection: ProtectionFlags,
    /// Reading requests served at once; 0 for no limit
    #[arg(long, default_value_t = 400)]
    max_requests_inflight: usize,
    /// Writing requests served at once; 0 for no limit
    #[arg(long, default_value_t = 200)]
    max_mutating_requests_inflight: usize,
    /// API versions to switch on or off, for example batch/v1=false,api/all=true
    #[arg(long, value_delimiter = ',', value_parser = switch)]
    runtime_config: Vec<(String, bool)>,
    /// Feature gates, for example A=true,B=false
    #[arg(long, value_delimiter = ',', value_parser = switch)]
    feature_gates: Vec<(String, bool)>,
    #[command(flatten)]
    audit: AuditFlags,
    /// How long the server goes on serving after it was asked to stop
    #[arg(long, default_value = "0s", value_parser = duration)]
    shutdown_delay_duration: Duration,
    /// Default seconds a pod tolerates a node that is not ready
    #[arg(long, default_value_t = 300)]
    default_not_ready_toleration_seconds: i64,
    /// Default seconds a pod tolerates a node that is unreachable
    #[arg(long, default_value_t = 300)]
    default_unreachable_toleration_seconds: i64,
    /// Log verbosity
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// Flags that are accepted for the sake of existing installations: what they tune does not exist here.
pub const WITHOUT_EFFECT: &[&str] = &[
    "allow-metric-labels",
    "apiserver-count",
    "audit-log-compress",
    "audit-log-format",
    "cloud-config",
    "cloud-provider",
    "contention-profiling",
    "cors-allowed-origins",
    "default-watch-cache-size",
    "delete-collection-workers",
    "emulated-version",
    "enable-aggregator-routing",
    "enable-garbage-collector",
    "enable-logs-handler",
    "endpoint-reconciler-type",
    "etcd-count-metric-poll-period",
    "etcd-db-metric-poll-interval",
    "etcd-healthcheck-timeout",
    "etcd-readycheck-timeout",
    "etcd-servers-overrides",
    "http2-max-streams-per-connection",
    "kubelet-port",
    "kubelet-read-only-port",
    "kubelet-timeout",
    "lease-reuse-duration-seconds",
    "livez-grace-period",
    "log-flush-frequency",
    "logging-format",
    "logtostderr",
    "master-service-namespace",
    "max-connection-bytes-per-sec",
    "permit-address-sharing",
    "permit-port-sharing",
    "peer-advertise-ip",
    "peer-advertise-port",
    "peer-ca-file",
    "profiling",
    "shutdown-send-retry-after",
    "show-hidden-metrics-for-version",
    "storage-backend",
    "storage-media-type",
    "strict-transport-security-directives",
    "tracing-config-file",
    "vmodule",
    "watch-cache",
    "watch-cache-sizes",
    "insecure-port",
    "insecure-bind-address",
    "debug-socket-path",
    "coordinated-leadership-lease-duration",
    "aggregator-reject-forwarding-redirects",
    "alsologtostderr",
    "log-dir",
    "stderrthreshold",
];

fn duration(text: &str) -> Result<Duration, String> {
    crate::query::parse_duration(text)
}

fn switch(text: &str) -> Result<(String, bool), String> {
    match text.split_once('=') {
        Some((name, "true" | "")) => Ok((name.to_owned(), true)),
        Some((name, "false")) => Ok((name.to_owned(), false)),
        Some((_, other)) => Err(format!("{other:?} is neither true nor false")),
        None => Ok((text.to_owned(), true)),
    }
}

impl Flags {
    /// Reads a command line. The error is for [`clap::Error::exit`] or to be shown by its first line.
    pub fn try_parse_args<I, T>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let mut command = Self::command();
        for name in WITHOUT_EFFECT {
            command = command.arg(
                clap::Arg::new(*name)
                    .long(*name)
                    .num_args(0..=1)
                    .action(clap::ArgAction::Append)
                    .default_missing_value("true")
                    .hide(true),
            );
        }
        let matches = command.try_get_matches_from(args)?;
        let given: Vec<_> = WITHOUT_EFFECT.iter().filter(|name| matches.contains_id(name)).collect();
        if !given.is_empty() {
            tracing::info!(flags = ?given, "flags without effect here");
        }
        Self::from_arg_matches(&matches)
    }

    /// Checks the flags against each other and makes the configuration of them.
    pub fn into_config(self) -> anyhow::Result<Config> {
        if self.service_cluster_ip_range.len() > 2 {
            anyhow::bail!("--service-cluster-ip-range takes at most two blocks");
        }
        let given = &self.authentication;
        for file in
            [&given.client_ca_file, &self.tls_cert_file, &self.tls_private_key_file, &given.token_auth_file]
                .into_iter()
                .flatten()
        {
            anyhow::ensure!(file.exists(), "{}: no such file", file.display());
        }
        if let Some(file) = &self.egress_selector_config_file {
            anyhow::ensure!(file.exists(), "egress-selector-config-file {} does not exist", file.display());
        }
        Ok(Config {
            storage: self.storage(),
            authentication: self.authentication.into_config(self.authorization.always_allow())?,
            serving_cert: match (self.tls_cert_file, self.tls_private_key_file) {
                (Some(cert), Some(key)) => ServingCert::Files { cert, key },
                _ => ServingCert::Directory(self.cert_dir),
            },
            tls: tls::TlsConfig {
                min_version: self.tls_min_version,
                suites: tls::Suites::named(self.tls_cipher_suites).map_err(anyhow::Error::msg)?,
                sni: self.tls_sni_cert_key,
            },
            encryption: self.protection.encryption()?,
            storage_prefix: format!("/{}", self.etcd_prefix.trim_matches('/')),
            compaction_interval: self.etcd_compaction_interval,
            egress_file: self.egress_selector_config_file,
            bind_address: SocketAddr::new(self.bind_address, self.secure_port),
            advertise_address: self.advertise_address,
            external_hostname: self.external_hostname,
            service_cluster_ip_ranges: self.service_cluster_ip_range,
            service_node_ports: self.service_node_port_range,
            kubernetes_service_node_port: self.kubernetes_service_node_port,
            authorization: self.authorization.into_config()?,
            enable_admission_plugins: self.enable_admission_plugins,
            disable_admission_plugins: self.disable_admission_plugins,
            admission_file: self.admission_control_config_file,
            allow_privileged: self.allow_privileged,
            kubelet_client: KubeletClientConfig {
                client_certificate: self.kubelet_client_certificate,
                client_key: self.kubelet_client_key,
                certificate_authority: self.kubelet_certificate_authority,
                preferred_address_types: self.kubelet_preferred_address_types,
            },
            proxy_client: self.proxy_client_cert_file.zip(self.proxy_client_key_file),
            event_ttl: self.event_ttl,
            min_request_timeout: Duration::from_secs(self.min_request_timeout),
            request_timeout: self.request_timeout,
            priority_and_fairness: self.protection.enable_priority_and_fairness,
            goaway_chance: self.protection.goaway_chance()?,
            max_requests_inflight: self.max_requests_inflight,
            max_mutating_requests_inflight: self.max_mutating_requests_inflight,
            runtime_config: self.runtime_config,
            feature_gates: self.feature_gates,
            audit: self.audit.into_config()?,
            shutdown_grace: Duration::from_secs(10),
            default_not_ready_toleration_seconds: self.default_not_ready_toleration_seconds,
            default_unreachable_toleration_seconds: self.default_unreachable_toleration_seconds,
        })
    }

    fn storage(&self) -> StorageConfig {
        if self.etcd_servers.is_empty() {
            StorageConfig::Embedded { data_dir: self.data_dir.clone() }
        } else {
            StorageConfig::Etcd {
                servers: self.etcd_servers.clone(),
                ca_file: self.etcd_cafile.clone(),
                cert_file: self.etcd_certfile.clone(),
                key_file: self.etcd_keyfile.clone(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parse(line: &str) -> Result<Config, String> {
        let args = std::iter::once("kube-apiserver").chain(line.split_whitespace());
        Flags::try_parse_args(args).map_err(|e| e.to_string())?.into_config().map_err(|e| e.to_string())
    }

    #[test]
    fn classic_bring_up_is_understood() {
        let config = parse(
            "--etcd-servers=http://127.0.0.1:2379,http://127.0.0.1:2380 --service-cluster-ip-range=10.96.0.0/16 \
             --anonymous-auth=false --allow-privileged --profiling=false --audit-log-path=- -v 2 \
             --authorization-mode=RBAC --enable-admission-plugins NodeRestriction,PodSecurity",
        )
        .expect("valid flags");
        let StorageConfig::Etcd { servers, .. } = config.storage else { panic!("etcd was asked for") };
        assert_eq!(servers.len(), 2);
        assert_eq!(config.service_cluster_ip_ranges[0].to_string(), "10.96.0.0/16");
        assert!(!config.authentication.anonymous && config.allow_privileged);
        assert_eq!(config.enable_admission_plugins, ["NodeRestriction", "PodSecurity"]);
    }

    #[test]
    fn wrong_flags_are_named() {
        assert!(parse("--no-such-flag=1").unwrap_err().contains("--no-such-flag"));
        assert!(parse("--authorization-mode=Nope").unwrap_err().contains("\"Nope\" is not a valid mode"));
        assert!(parse("--service-cluster-ip-range=banana").unwrap_err().contains("is not an address block"));
        let missing = parse("--egress-selector-config-file=/no/such").unwrap_err();
        assert_eq!(missing, "egress-selector-config-file /no/such does not exist");
        let config = parse("--admission-control-config-file=/f").expect("valid");
        assert!(config.admission_file.is_some() && config.egress_file.is_none());
    }
}
