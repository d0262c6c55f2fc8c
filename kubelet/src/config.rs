//! `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1): upstream's names and defaults.
//!
//! Read from `--config`, then overridden by flags, then validated as a whole before anything binds.

mod drop_in;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};

use crate::cpus::CpuSet;
use crate::duration::GoDuration;
use crate::memory::Reservation;
use crate::{shutdown, topology};

/// The `apiVersion` this file has.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// Configuration of a kubelet, as its file spells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "the fields are upstream's and documented there under the same names")]
pub struct KubeletConfiguration {
    pub api_version: String,
    pub kind: String,
    pub enable_server: bool,
    pub static_pod_path: String,
    pub pod_logs_dir: String,
    pub sync_frequency: GoDuration,
    pub file_check_frequency: GoDuration,
    pub address: String,
    pub port: u16,
    pub read_only_port: u16,
    pub tls_cert_file: String,
    pub tls_private_key_file: String,
    pub rotate_certificates: bool,
    #[serde(rename = "serverTLSBootstrap")]
    pub server_tls_bootstrap: bool,
    pub authentication: Authentication,
    pub authorization: Authorization,
    #[serde(rename = "registryPullQPS")]
    pub registry_pull_qps: i32,
    pub registry_burst: i32,
    #[serde(rename = "eventRecordQPS")]
    pub event_record_qps: i32,
    pub event_burst: i32,
    pub enable_debugging_handlers: bool,
    pub healthz_port: u16,
    pub healthz_bind_address: String,
    pub oom_score_adj: i32,
    pub cluster_domain: String,
    #[serde(rename = "clusterDNS")]
    pub cluster_dns: Vec<String>,
    pub streaming_connection_idle_timeout: GoDuration,
    pub node_status_update_frequency: GoDuration,
    pub node_status_report_frequency: GoDuration,
    pub node_lease_duration_seconds: i32,
    #[serde(rename = "imageMinimumGCAge")]
    pub image_minimum_gc_age: GoDuration,
    #[serde(rename = "imageMaximumGCAge")]
    pub image_maximum_gc_age: GoDuration,
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: u8,
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: u8,
    pub volume_stats_agg_period: GoDuration,
    pub kubelet_cgroups: String,
    pub system_cgroups: String,
    pub cgroup_root: String,
    #[serde(rename = "cgroupsPerQOS")]
    pub cgroups_per_qos: bool,
    pub cgroup_driver: String,
    pub runtime_request_timeout: GoDuration,
    pub cpu_manager_policy: String,
    pub cpu_manager_policy_options: BTreeMap<String, String>,
    pub cpu_manager_reconcile_period: GoDuration,
    pub memory_manager_policy: String,
    pub topology_manager_policy: String,
    pub topology_manager_scope: String,
    pub topology_manager_policy_options: BTreeMap<String, String>,
    #[serde(rename = "reservedSystemCPUs")]
    pub reserved_system_cpus: String,
    pub reserved_memory: Vec<Reservation>,
    pub max_pods: i32,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    pub pod_pids_limit: i64,
    pub resolv_conf: String,
    #[serde(rename = "cpuCFSQuota")]
    pub cpu_cfs_quota: bool,
    #[serde(rename = "cpuCFSQuotaPeriod")]
    pub cpu_cfs_quota_period: GoDuration,
    pub node_status_max_images: i32,
    pub serialize_image_pulls: bool,
    pub max_parallel_image_pulls: Option<i32>,
    pub eviction_hard: BTreeMap<String, String>,
    pub eviction_soft: BTreeMap<String, String>,
    pub eviction_soft_grace_period: BTreeMap<String, String>,
    pub eviction_pressure_transition_period: GoDuration,
    pub eviction_max_pod_grace_period: i32,
    pub eviction_minimum_reclaim: BTreeMap<String, String>,
    pub pods_per_core: i32,
    pub enable_controller_attach_detach: bool,
    pub protect_kernel_defaults: bool,
    pub feature_gates: BTreeMap<String, bool>,
    pub fail_swap_on: bool,
    pub memory_swap: MemorySwap,
    pub container_log_max_size: String,
    pub container_log_max_files: i32,
    pub container_log_max_workers: i32,
    pub container_log_monitor_interval: GoDuration,
    pub system_reserved: BTreeMap<String, String>,
    pub kube_reserved: BTreeMap<String, String>,
    pub enforce_node_allocatable: Vec<String>,
    pub allowed_unsafe_sysctls: Vec<String>,
    pub volume_plugin_dir: String,
    #[serde(rename = "providerID")]
    pub provider_id: String,
    pub shutdown_grace_period: GoDuration,
    pub shutdown_grace_period_critical_pods: GoDuration,
    pub shutdown_grace_period_by_pod_priority: Vec<shutdown::Period>,
    pub crash_loop_back_off: CrashLoopBackOffConfig,
    pub seccomp_default: bool,
    pub register_with_taints: Vec<Taint>,
    pub register_node: bool,
    pub container_runtime_endpoint: String,
    pub image_service_endpoint: String,
    /// Fields of upstream's that have no effect here, kept so that a file with them is still accepted and reported.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// `authentication`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs, reason = "upstream's names")]
pub struct Authentication {
    pub x509: X509Authentication,
    pub webhook: WebhookAuthentication,
    pub anonymous: AnonymousAuthentication,
}

/// `authentication.x509`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct X509Authentication {
    /// Bundle whose client certificates are accepted.
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

/// `authentication.webhook`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookAuthentication {
    /// Ask the API about bearer tokens.
    pub enabled: bool,
    /// How long an answer holds.
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: GoDuration,
}

impl Default for WebhookAuthentication {
    fn default() -> Self {
        Self { enabled: true, cache_ttl: GoDuration::from_secs(120) }
    }
}

/// `authentication.anonymous`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnonymousAuthentication {
    /// Let requests without credentials in as `system:anonymous`.
    pub enabled: bool,
}

/// `authorization`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Authorization {
    /// `Webhook` or `AlwaysAllow`.
    pub mode: String,
    /// Lifetimes of the API's answers.
    pub webhook: WebhookAuthorization,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { mode: "Webhook".to_owned(), webhook: WebhookAuthorization::default() }
    }
}

/// `authorization.webhook`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WebhookAuthorization {
    /// How long a yes holds.
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: GoDuration,
    /// How long a no holds.
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: GoDuration,
}

impl Default for WebhookAuthorization {
    fn default() -> Self {
        Self {
            cache_authorized_ttl: GoDuration::from_secs(300),
            cache_unauthorized_ttl: GoDuration::from_secs(30),
        }
    }
}

/// `memorySwap`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemorySwap {
    /// `NoSwap` (default) or `LimitedSwap`.
    pub swap_behavior: String,
}

/// `crashLoopBackOff`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CrashLoopBackOffConfig {
    /// Longest wait before a crashing container is started again.
    pub max_container_restart_period: Option<GoDuration>,
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

impl Default for KubeletConfiguration {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: "KubeletConfiguration".to_owned(),
            enable_server: true,
            static_pod_path: String::new(),
            pod_logs_dir: "/var/log/pods".to_owned(),
            sync_frequency: GoDuration::from_secs(60),
            file_check_frequency: GoDuration::from_secs(20),
            address: "0.0.0.0".to_owned(),
            port: 10250,
            read_only_port: 0,
            tls_cert_file: String::new(),
            tls_private_key_file: String::new(),
            rotate_certificates: false,
            server_tls_bootstrap: false,
            authentication: Authentication::default(),
            authorization: Authorization::default(),
            registry_pull_qps: 5,
            registry_burst: 10,
            event_record_qps: 50,
            event_burst: 100,
            enable_debugging_handlers: true,
            healthz_port: 10248,
            healthz_bind_address: "127.0.0.1".to_owned(),
            oom_score_adj: -999,
            cluster_domain: String::new(),
            cluster_dns: Vec::new(),
            streaming_connection_idle_timeout: GoDuration::from_secs(4 * 3600),
            node_status_update_frequency: GoDuration::from_secs(10),
            node_status_report_frequency: GoDuration::from_secs(300),
            node_lease_duration_seconds: 40,
            image_minimum_gc_age: GoDuration::from_secs(120),
            image_maximum_gc_age: GoDuration::from_secs(0),
            image_gc_high_threshold_percent: 85,
            image_gc_low_threshold_percent: 80,
            volume_stats_agg_period: GoDuration::from_secs(60),
            kubelet_cgroups: String::new(),
            system_cgroups: String::new(),
            cgroup_root: String::new(),
            cgroups_per_qos: true,
            cgroup_driver: "cgroupfs".to_owned(),
            runtime_request_timeout: GoDuration::from_secs(120),
            cpu_manager_policy: "none".to_owned(),
            cpu_manager_policy_options: BTreeMap::new(),
            cpu_manager_reconcile_period: GoDuration::from_secs(10),
            memory_manager_policy: "None".to_owned(),
            topology_manager_policy: "none".to_owned(),
            topology_manager_scope: "container".to_owned(),
            topology_manager_policy_options: BTreeMap::new(),
            reserved_system_cpus: String::new(),
            reserved_memory: Vec::new(),
            max_pods: 110,
            pod_cidr: String::new(),
            pod_pids_limit: -1,
            resolv_conf: "/etc/resolv.conf".to_owned(),
            cpu_cfs_quota: true,
            cpu_cfs_quota_period: GoDuration(std::time::Duration::from_millis(100)),
            node_status_max_images: 50,
            serialize_image_pulls: true,
            max_parallel_image_pulls: None,
            eviction_hard: strings([
                ("memory.available", "100Mi"),
                ("nodefs.available", "10%"),
                ("nodefs.inodesFree", "5%"),
                ("imagefs.available", "15%"),
                ("imagefs.inodesFree", "5%"),
            ]),
            eviction_soft: BTreeMap::new(),
            eviction_soft_grace_period: BTreeMap::new(),
            eviction_pressure_transition_period: GoDuration::from_secs(300),
            eviction_max_pod_grace_period: 0,
            eviction_minimum_reclaim: BTreeMap::new(),
            pods_per_core: 0,
            enable_controller_attach_detach: true,
            protect_kernel_defaults: false,
            feature_gates: BTreeMap::new(),
            fail_swap_on: true,
            memory_swap: MemorySwap::default(),
            container_log_max_size: "10Mi".to_owned(),
            container_log_max_files: 5,
            container_log_max_workers: 1,
            container_log_monitor_interval: GoDuration::from_secs(10),
            system_reserved: BTreeMap::new(),
            kube_reserved: BTreeMap::new(),
            enforce_node_allocatable: vec!["pods".to_owned()],
            allowed_unsafe_sysctls: Vec::new(),
            volume_plugin_dir: "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/".to_owned(),
            provider_id: String::new(),
            shutdown_grace_period: GoDuration::from_secs(0),
            shutdown_grace_period_critical_pods: GoDuration::from_secs(0),
            shutdown_grace_period_by_pod_priority: Vec::new(),
            crash_loop_back_off: CrashLoopBackOffConfig::default(),
            seccomp_default: false,
            register_with_taints: Vec::new(),
            register_node: true,
            container_runtime_endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            image_service_endpoint: String::new(),
            other: BTreeMap::new(),
        }
    }
}

/// Fields of upstream's file that are accepted and have no effect here.
const WITHOUT_EFFECT: &[&str] = &[
    "httpCheckFrequency",
    "staticPodURL",
    "staticPodURLHeader",
    "tlsCipherSuites",
    "tlsCurvePreferences",
    "tlsMinVersion",
    "imagePullCredentialsVerificationPolicy",
    "preloadedImagesVerificationAllowlist",
    "enableContentionProfiling",
    "singleProcessOOMKill",
    "qosReserved",
    "hairpinMode",
    "runOnce",
    "maxOpenFiles",
    "contentType",
    "kubeAPIQPS",
    "kubeAPIBurst",
    "mergeDefaultEvictionSettings",
    "makeIPTablesUtilChains",
    "iptablesMasqueradeBit",
    "iptablesDropBit",
    "configMapAndSecretChangeDetectionStrategy",
    "showHiddenMetricsForVersion",
    "systemReservedCgroup",
    "kubeReservedCgroup",
    "kernelMemcgNotification",
    "logging",
    "enableSystemLogHandler",
    "enableSystemLogQuery",
    "enableProfilingHandler",
    "enableDebugFlagsHandler",
    "memoryThrottlingFactor",
    "memoryReservationPolicy",
    "tracing",
    "localStorageCapacityIsolation",
    "userNamespaces",
];

impl KubeletConfiguration {
    /// Reads a configuration file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("failed to load kubelet config file, path: {}", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("failed to load kubelet config file, path: {}", path.display()))
    }

    /// Reads a configuration from YAML or JSON; names that upstream does not have are refused.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = serde_saphyr::from_str(text)?;
        anyhow::ensure!(
            config.kind == "KubeletConfiguration" && config.api_version == API_VERSION,
            "no kind {:?} is registered for version {:?}",
            config.kind,
            config.api_version
        );
        config.check_fields()?;
        Ok(config)
    }

    fn check_fields(&self) -> anyhow::Result<()> {
        for field in self.other.keys() {
            anyhow::ensure!(
                WITHOUT_EFFECT.contains(&field.as_str()),
                "strict decoding error: unknown field {field:?}"
            );
            tracing::warn!(field, "configuration field has no effect");
        }
        Ok(())
    }

    /// Whether the whole can work; the text names every fault, as upstream's validation does.
    pub fn validate(&self) -> anyhow::Result<()> {
        let mut faults = Vec::new();
        if !matches!(self.cgroup_driver.as_str(), "cgroupfs" | "systemd") {
            faults.push(format!("cgroupDriver {:?} must be cgroupfs or systemd", self.cgroup_driver));
        }
        if !self.cgroups_per_qos && self.enforce_node_allocatable.iter().any(|e| e != "none") {
            faults.push(
                "enforceNodeAllocatable (--enforce-node-allocatable) is not supported unless cgroupsPerQOS \
                 (--cgroups-per-qos) is set to true"
                    .to_owned(),
            );
        }
        if self.image_gc_low_threshold_percent >= self.image_gc_high_threshold_percent {
            faults.push(format!(
                "imageGCLowThresholdPercent (--image-gc-low-threshold) {} must be less than \
                 imageGCHighThresholdPercent (--image-gc-high-threshold) {}",
                self.image_gc_low_threshold_percent, self.image_gc_high_threshold_percent
            ));
        }
        if self.image_gc_high_threshold_percent > 100 {
            faults.push("imageGCHighThresholdPercent must be between 0 and 100, inclusive".to_owned());
        }
        if self.max_pods < 0 {
            faults.push(format!("maxPods (--max-pods) {} must not be a negative number", self.max_pods));
        }
        if self.node_lease_duration_seconds <= 0 {
            faults.push(format!(
                "nodeLeaseDurationSeconds must be greater than 0, but got {}",
                self.node_lease_duration_seconds
            ));
        }
        if self.container_log_max_files < 2 {
            faults.push("containerLogMaxFiles must be greater than 1".to_owned());
        }
        if !matches!(self.authorization.mode.as_str(), "Webhook" | "AlwaysAllow") {
            faults.push(format!(
                "authorization mode {:?} must be Webhook or AlwaysAllow",
                self.authorization.mode
            ));
        }
        for address in &self.cluster_dns {
            if address.parse::<IpAddr>().is_err() {
                faults.push(format!("clusterDNS {address:?} is no IP address"));
            }
        }
        if self.container_runtime_endpoint.is_empty() {
            faults.push("the containerRuntimeEndpoint was not specified or empty".to_owned());
        }
        self.check_placement(&mut faults);
        self.check_shutdown(&mut faults);
        anyhow::ensure!(faults.is_empty(), "invalid kubelet configuration: {}", faults.join("; "));
        Ok(())
    }

    /// What is said of CPUs, memory and where they come from.
    fn check_placement(&self, faults: &mut Vec<String>) {
        if topology::Policy::named(&self.topology_manager_policy).is_err() {
            faults.push(format!(
                "topologyManagerPolicy (--topology-manager-policy) {:?} must be one of: [\"none\" \"best-effort\" \
                 \"restricted\" \"single-numa-node\"]",
                self.topology_manager_policy
            ));
        }
        if topology::Scope::named(&self.topology_manager_scope).is_err() {
            faults.push(format!(
                "topologyManagerScope (--topology-manager-scope) {:?} must be one of: \"container\", or \"pod\"",
                self.topology_manager_scope
            ));
        }
        if let Err(error) = self.reserved_system_cpus.parse::<CpuSet>() {
            faults.push(format!(
                "unable to parse reservedSystemCPUs (--reserved-cpus) {}, error: {error}",
                self.reserved_system_cpus
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        for reservation in &self.reserved_memory {
            for kind in reservation.limits.keys() {
                if kind != "memory" && !kind.starts_with("hugepages-") {
                    faults.push(format!(
                        "the limit type {kind:?} for NUMA node {} is not supported, only [memory \
                         hugepages-<HugePageSize>] is accepted",
                        reservation.numa_node
                    ));
                }
                if !seen.insert((reservation.numa_node, kind)) {
                    faults.push(format!(
                        "the reserved memory has a duplicate value for NUMA node {} and resource {kind:?}",
                        reservation.numa_node
                    ));
                }
            }
        }
    }

    fn check_shutdown(&self, faults: &mut Vec<String>) {
        let (whole, critical) = (self.shutdown_grace_period, self.shutdown_grace_period_critical_pods);
        if critical.0 > whole.0 {
            faults.push(format!(
                "shutdownGracePeriodCriticalPods {critical} must be <= shutdownGracePeriod {whole}"
            ));
        }
        for (name, period) in [("shutdownGracePeriod", whole), ("shutdownGracePeriodCriticalPods", critical)]
        {
            if !period.0.is_zero() && period.0 < std::time::Duration::from_secs(1) {
                faults.push(format!("{name} {period} must be either zero or otherwise >= 1 sec"));
            }
        }
        if !self.shutdown_grace_period_by_pod_priority.is_empty() && !whole.0.is_zero() {
            faults.push(
                "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
                    .to_owned(),
            );
        }
    }

    /// How long pods may take when the node shuts down, from the lowest priority on; none where nobody waits for them.
    #[must_use]
    pub fn shutdown_periods(&self) -> Vec<shutdown::Period> {
        shutdown::periods(
            &self.shutdown_grace_period_by_pod_priority,
            self.shutdown_grace_period.0,
            self.shutdown_grace_period_critical_pods.0,
        )
    }

    /// CPUs that are kept back by number; none where only their amount matters.
    #[must_use]
    pub fn reserved_cpus(&self) -> CpuSet {
        self.reserved_system_cpus.parse().unwrap_or_default()
    }

    /// Addresses of the cluster's DNS servers.
    #[must_use]
    pub fn cluster_dns_addresses(&self) -> Vec<IpAddr> {
        self.cluster_dns.iter().filter_map(|a| a.parse().ok()).collect()
    }

    /// Directory of static pod manifests, when there is one.
    #[must_use]
    pub fn static_pods(&self) -> Option<PathBuf> {
        (!self.static_pod_path.is_empty()).then(|| PathBuf::from(&self.static_pod_path))
    }

    /// Socket of the runtime.
    #[must_use]
    pub fn runtime_socket(&self) -> PathBuf {
        socket_path(&self.container_runtime_endpoint)
    }

    /// Socket of the image service: the runtime's unless told otherwise.
    #[must_use]
    pub fn image_socket(&self) -> PathBuf {
        match self.image_service_endpoint.as_str() {
            "" => self.runtime_socket(),
            endpoint => socket_path(endpoint),
        }
    }
}

fn socket_path(endpoint: &str) -> PathBuf {
    PathBuf::from(endpoint.strip_prefix("unix://").unwrap_or(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_file_is_read() {
        let config = KubeletConfiguration::parse(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nclusterDNS: [10.96.0.10]\n\
             cgroupDriver: systemd\nimageGCHighThresholdPercent: 90\nnodeStatusUpdateFrequency: 5s\n\
             authentication:\n  anonymous: {enabled: false}\n  x509: {clientCAFile: /ca.crt}\nlogging: {format: json}\n",
        )
        .expect("valid");
        assert_eq!(config.cluster_dns, ["10.96.0.10"]);
        assert_eq!(config.cgroup_driver, "systemd");
        assert_eq!(config.image_gc_high_threshold_percent, 90);
        assert_eq!(config.node_status_update_frequency, GoDuration::from_secs(5));
        assert_eq!(config.authentication.x509.client_ca_file, "/ca.crt");
        assert!(config.authentication.webhook.enabled);
        config.validate().expect("valid");
    }

    #[test]
    fn wrong_files_are_refused() {
        let cases = [
            ("kind: Pod\napiVersion: v1\n", "no kind"),
            ("kind: KubeletConfiguration\nnoSuchField: 1\n", "unknown field \"noSuchField\""),
        ];
        for (text, message) in cases {
            let error = format!("{:#}", KubeletConfiguration::parse(text).expect_err(text));
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn impossible_settings_are_named() {
        let mut config = KubeletConfiguration { cgroup_driver: "x".to_owned(), ..Default::default() };
        config.cgroups_per_qos = false;
        config.topology_manager_policy = "all".to_owned();
        config.reserved_system_cpus = "1-".to_owned();
        config.shutdown_grace_period_critical_pods = GoDuration::from_secs(1);
        let error = config.validate().expect_err("invalid").to_string();
        for part in [
            "cgroupDriver",
            "--enforce-node-allocatable",
            "--topology-manager-policy",
            "--reserved-cpus",
            "<= shutdownGracePeriod",
        ] {
            assert!(error.contains(part), "{error}");
        }
    }
}
