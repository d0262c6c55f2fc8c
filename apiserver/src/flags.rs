//! The command line: upstream's flag names and defaults (upstream `cmd/kube-apiserver/app/options`).
//!
//! Flags that other installations pass and that mean nothing here (because what they tune does not exist) are
//! accepted and reported once; see [`WITHOUT_EFFECT`]. Any other unknown flag is an error.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser};

use crate::audit::AuditConfig;
use crate::audit::log::LogConfig;
use crate::config::{
    AuthenticationConfig, Cidr, Config, KubeletClientConfig, PortRange, RequestHeaderConfig, ServingCert,
    StorageConfig,
};

/// Flags of kube-apiserver.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kube-apiserver",
    version,
    about = "The Kubernetes API server: validates and stores the objects of the API and serves them over REST",
    disable_help_subcommand = true
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
    /// Where a self-signed serving certificate is kept when --tls-cert-file is not given
    #[arg(long, default_value = "/var/run/kubernetes")]
    cert_dir: PathBuf,
    /// CA bundle that client certificates are verified against
    #[arg(long)]
    client_ca_file: Option<PathBuf>,
    /// Address block (or two of different families, separated by a comma) for Services
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24")]
    service_cluster_ip_range: Vec<Cidr>,
    /// Ports for Services of type NodePort
    #[arg(long, default_value = "30000-32767", value_parser = clap::value_parser!(PortRange))]
    service_node_port_range: PortRange,
    /// If not 0, the kubernetes Service is of type NodePort on this port
    #[arg(long, default_value_t = 0)]
    kubernetes_service_node_port: u16,
    /// Keys (PEM) that verify service account tokens; may be given more than once
    #[arg(long)]
    service_account_key_file: Vec<PathBuf>,
    /// Private key (PEM) that signs service account tokens
    #[arg(long)]
    service_account_signing_key_file: Option<PathBuf>,
    /// Issuer of service account tokens; may be given more than once, the first one signs
    #[arg(long)]
    service_account_issuer: Vec<String>,
    /// URI of the key set in the discovery document
    #[arg(long)]
    service_account_jwks_uri: Option<String>,
    /// Whether service account tokens are checked against the objects they are bound to
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    service_account_lookup: bool,
    /// Whether tokens injected into pods live longer than asked for, for clients that do not reload them
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    service_account_extend_token_expiration: bool,
    /// Longest life a service account token may be asked for
    #[arg(long, value_parser = duration)]
    service_account_max_token_expiration: Option<Duration>,
    /// Audiences of this API; the issuer if not given
    #[arg(long, value_delimiter = ',')]
    api_audiences: Vec<String>,
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
    /// Longest wait for a kubelet's answer
    #[arg(long, default_value = "5s", value_parser = duration)]
    kubelet_timeout: Duration,
    /// Authorizers, in order: Node, RBAC, AlwaysAllow, AlwaysDeny
    #[arg(long, value_delimiter = ',', default_value = "Node,RBAC")]
    authorization_mode: Vec<String>,
    /// Whether requests without credentials pass as system:anonymous
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    anonymous_auth: bool,
    /// CSV file of static tokens: token,user,uid,"group1,group2"
    #[arg(long)]
    token_auth_file: Option<PathBuf>,
    /// Whether bootstrap tokens authenticate
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    enable_bootstrap_token_auth: bool,
    /// Admission plugins to add to the default set
    #[arg(long, value_delimiter = ',', alias = "admission-control")]
    enable_admission_plugins: Vec<String>,
    /// Admission plugins to take out of the default set
    #[arg(long, value_delimiter = ',')]
    disable_admission_plugins: Vec<String>,
    /// Whether privileged containers may be asked for
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    allow_privileged: bool,
    /// CA bundle for the client certificate of a front proxy whose --requestheader-*-headers are believed
    #[arg(long)]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names a front proxy may have; any if empty
    #[arg(long, value_delimiter = ',')]
    requestheader_allowed_names: Vec<String>,
    /// Headers that hold the user name
    #[arg(long, value_delimiter = ',', default_value = "x-remote-user")]
    requestheader_username_headers: Vec<String>,
    /// Headers that hold the uid
    #[arg(long, value_delimiter = ',')]
    requestheader_uid_headers: Vec<String>,
    /// Headers that hold groups
    #[arg(long, value_delimiter = ',', default_value = "x-remote-group")]
    requestheader_group_headers: Vec<String>,
    /// Prefixes of headers that hold extra values
    #[arg(long, value_delimiter = ',', default_value = "x-remote-extra-")]
    requestheader_extra_headers_prefix: Vec<String>,
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
    /// File with the policy that says what of which requests is written to the audit log
    #[arg(long)]
    audit_policy_file: Option<PathBuf>,
    /// The audit log; - for the standard output
    #[arg(long)]
    audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept; 0 for ever
    #[arg(long, default_value_t = 0)]
    audit_log_maxage: u64,
    /// Old audit logs that are kept; 0 for all
    #[arg(long, default_value_t = 0)]
    audit_log_maxbackup: usize,
    /// Megabytes at which an audit log is put aside; 0 for 100
    #[arg(long, default_value_t = 0)]
    audit_log_maxsize: u64,
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
    "admission-control-config-file",
    "allow-metric-labels",
    "apiserver-count",
    "audit-log-batch-buffer-size",
    "audit-log-compress",
    "audit-log-format",
    "audit-log-mode",
    "audit-webhook-config-file",
    "authentication-token-webhook-cache-ttl",
    "authentication-token-webhook-version",
    "authorization-webhook-cache-authorized-ttl",
    "authorization-webhook-cache-unauthorized-ttl",
    "cloud-config",
    "cloud-provider",
    "contention-profiling",
    "cors-allowed-origins",
    "default-watch-cache-size",
    "delete-collection-workers",
    "egress-selector-config-file",
    "emulated-version",
    "enable-aggregator-routing",
    "enable-garbage-collector",
    "enable-logs-handler",
    "enable-priority-and-fairness",
    "encryption-provider-config",
    "encryption-provider-config-automatic-reload",
    "endpoint-reconciler-type",
    "etcd-count-metric-poll-period",
    "etcd-db-metric-poll-interval",
    "etcd-healthcheck-timeout",
    "etcd-readycheck-timeout",
    "etcd-servers-overrides",
    "goaway-chance",
    "http2-max-streams-per-connection",
    "kubelet-port",
    "kubelet-read-only-port",
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
    "tls-cipher-suites",
    "tls-min-version",
    "tls-sni-cert-key",
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
        const MODES: [&str; 4] = ["Node", "RBAC", "AlwaysAllow", "AlwaysDeny"];
        if let Some(mode) = self.authorization_mode.iter().find(|mode| !MODES.contains(&mode.as_str())) {
            anyhow::bail!("--authorization-mode: {mode:?} is not one of {}", MODES.join(", "));
        }
        if self.service_cluster_ip_range.len() > 2 {
            anyhow::bail!("--service-cluster-ip-range takes at most two blocks");
        }
        for file in
            [&self.client_ca_file, &self.tls_cert_file, &self.tls_private_key_file, &self.token_auth_file]
                .into_iter()
                .flatten()
        {
            anyhow::ensure!(file.exists(), "{}: no such file", file.display());
        }
        Ok(Config {
            storage: self.storage(),
            authentication: self.authentication(),
            serving_cert: match (self.tls_cert_file, self.tls_private_key_file) {
                (Some(cert), Some(key)) => ServingCert::Files { cert, key },
                _ => ServingCert::Directory(self.cert_dir),
            },
            storage_prefix: format!("/{}", self.etcd_prefix.trim_matches('/')),
            compaction_interval: self.etcd_compaction_interval,
            bind_address: SocketAddr::new(self.bind_address, self.secure_port),
            advertise_address: self.advertise_address,
            external_hostname: self.external_hostname,
            service_cluster_ip_ranges: self.service_cluster_ip_range,
            service_node_ports: self.service_node_port_range,
            kubernetes_service_node_port: self.kubernetes_service_node_port,
            authorization_modes: self.authorization_mode,
            enable_admission_plugins: self.enable_admission_plugins,
            disable_admission_plugins: self.disable_admission_plugins,
            allow_privileged: self.allow_privileged,
            kubelet_client: KubeletClientConfig {
                client_certificate: self.kubelet_client_certificate,
                client_key: self.kubelet_client_key,
                certificate_authority: self.kubelet_certificate_authority,
                preferred_address_types: self.kubelet_preferred_address_types,
                timeout: self.kubelet_timeout,
            },
            proxy_client: self.proxy_client_cert_file.zip(self.proxy_client_key_file),
            event_ttl: self.event_ttl,
            min_request_timeout: Duration::from_secs(self.min_request_timeout),
            request_timeout: self.request_timeout,
            max_requests_inflight: self.max_requests_inflight,
            max_mutating_requests_inflight: self.max_mutating_requests_inflight,
            runtime_config: self.runtime_config,
            feature_gates: self.feature_gates,
            audit: AuditConfig {
                policy_file: self.audit_policy_file,
                log: self.audit_log_path.map(|path| LogConfig {
                    path,
                    max_size: self.audit_log_maxsize,
                    max_backup: self.audit_log_maxbackup,
                    max_age: self.audit_log_maxage,
                }),
            },
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

    fn authentication(&self) -> AuthenticationConfig {
        AuthenticationConfig {
            client_ca_file: self.client_ca_file.clone(),
            anonymous: self.anonymous_auth,
            token_auth_file: self.token_auth_file.clone(),
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            service_account_key_files: self.service_account_key_file.clone(),
            service_account_signing_key_file: self.service_account_signing_key_file.clone(),
            service_account_issuers: self.service_account_issuer.clone(),
            service_account_jwks_uri: self.service_account_jwks_uri.clone(),
            api_audiences: self.api_audiences.clone(),
            service_account_lookup: self.service_account_lookup,
            service_account_extend_token_expiration: self.service_account_extend_token_expiration,
            service_account_max_token_expiration: self.service_account_max_token_expiration,
            request_header: RequestHeaderConfig {
                client_ca_file: self.requestheader_client_ca_file.clone(),
                allowed_names: self.requestheader_allowed_names.clone(),
                username_headers: self.requestheader_username_headers.clone(),
                uid_headers: self.requestheader_uid_headers.clone(),
                group_headers: self.requestheader_group_headers.clone(),
                extra_headers_prefix: self.requestheader_extra_headers_prefix.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Config, String> {
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
        assert!(parse("--authorization-mode=Nope").unwrap_err().contains("\"Nope\" is not one of"));
        assert!(parse("--service-cluster-ip-range=banana").unwrap_err().contains("is not an address block"));
    }
}
