//! Command line of the kubelet: upstream's flag names. A flag wins over the configuration file.

mod ignored;
mod placement;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use client::ConnectOptions;
use k8s_openapi::api::core::v1::Taint;

use crate::config::KubeletConfiguration;
use crate::duration::GoDuration;
use crate::node_status::machine::{check_given_addresses, machine};
pub use ignored::Ignored;
pub use placement::Placement;

/// The kubelet is the primary node agent: it runs the pods assigned to its node and reports on them.
#[derive(Clone, Debug, Default, clap::Parser)]
#[command(name = "kubelet", version = crate::node_status::setters::VERSION)]
pub struct Flags {
    /// Path to a kubeconfig file, specifying how to connect to the API server. Omitting it enables standalone mode.
    #[arg(long)]
    pub kubeconfig: Option<PathBuf>,
    /// Path to a kubeconfig file that will be used to get a client certificate when --kubeconfig does not exist.
    #[arg(long)]
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Address of the API server; overrides the one in the kubeconfig.
    #[arg(long)]
    pub master: Option<String>,
    /// The kubelet will load its initial configuration from this file.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Directory of files that are merged into the configuration, in the order of their names.
    #[arg(long)]
    pub config_dir: Option<PathBuf>,
    /// File that says which programs provide credentials for images.
    #[arg(long)]
    pub image_credential_provider_config: Option<PathBuf>,
    /// Directory of the programs that provide credentials for images.
    #[arg(long)]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// Directory path for managing kubelet files (volume mounts, etc).
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// The directory where the TLS certs are located.
    #[arg(long, default_value = "/var/lib/kubelet/pki")]
    pub cert_dir: PathBuf,
    /// If non-empty, will use this string as identification instead of the actual hostname.
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// IP address (or comma-separated dual-stack IP addresses) of the node.
    #[arg(long, value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Labels to add when registering the node: key=value pairs separated by ','.
    #[arg(long, value_delimiter = ',')]
    pub node_labels: Vec<String>,
    /// Register the node with the given list of taints: `<key>=<value>:<effect>`, separated by ','.
    #[arg(long, value_delimiter = ',')]
    pub register_with_taints: Vec<String>,
    /// Register the node with the API server.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub register_node: Option<bool>,
    /// The endpoint of container runtime service, `unix:///path/to/runtime.sock`.
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// The endpoint of container image service; the runtime's by default.
    #[arg(long)]
    pub image_service_endpoint: Option<String>,
    /// Comma-separated list of DNS server IP addresses for containers.
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<String>,
    /// Domain for this cluster.
    #[arg(long)]
    pub cluster_domain: Option<String>,
    /// Path to the directory containing static pod files to run.
    #[arg(long)]
    pub pod_manifest_path: Option<String>,
    /// Directory of pod logs.
    #[arg(long)]
    pub pod_logs_dir: Option<String>,
    /// Driver that the kubelet uses to manipulate cgroups on the host: cgroupfs or systemd.
    #[arg(long)]
    pub cgroup_driver: Option<String>,
    /// Root cgroup to use for pods.
    #[arg(long)]
    pub cgroup_root: Option<String>,
    /// Enable creation of QoS cgroup hierarchy.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cgroups_per_qos: Option<bool>,
    /// Comma-separated list of levels of node allocatable enforcement: none, pods, system-reserved, kube-reserved.
    #[arg(long, value_delimiter = ',')]
    pub enforce_node_allocatable: Option<Vec<String>>,
    /// Resources reserved for the system, for example cpu=200m,memory=500Mi.
    #[arg(long, value_delimiter = ',')]
    pub system_reserved: Vec<String>,
    /// Resources reserved for Kubernetes components.
    #[arg(long, value_delimiter = ',')]
    pub kube_reserved: Vec<String>,
    #[command(flatten)]
    /// What containers are given for themselves.
    pub placement: Placement,
    /// Eviction thresholds, for example memory.available<1Gi.
    #[arg(long, value_delimiter = ',')]
    pub eviction_hard: Option<Vec<String>>,
    /// Soft eviction thresholds.
    #[arg(long, value_delimiter = ',')]
    pub eviction_soft: Option<Vec<String>>,
    /// Grace periods of soft eviction thresholds, for example memory.available=1m30s.
    #[arg(long, value_delimiter = ',')]
    pub eviction_soft_grace_period: Option<Vec<String>>,
    /// Number of pods that can run on this kubelet.
    #[arg(long)]
    pub max_pods: Option<i32>,
    /// Maximum number of processes per pod; -1 for no limit.
    #[arg(long)]
    pub pod_max_pids: Option<i64>,
    /// If set, requests presenting a client certificate signed by one of these authorities are authenticated.
    #[arg(long)]
    pub client_ca_file: Option<String>,
    /// File containing the x509 certificate used for serving HTTPS; a self-signed one is made by default.
    #[arg(long)]
    pub tls_cert_file: Option<String>,
    /// File containing the x509 private key matching --tls-cert-file.
    #[arg(long)]
    pub tls_private_key_file: Option<String>,
    /// Get the serving certificate from the API server by a certificate signing request.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rotate_server_certificates: Option<bool>,
    /// Rotate the client certificate before it expires.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rotate_certificates: Option<bool>,
    /// The IP address to serve on.
    #[arg(long)]
    pub address: Option<String>,
    /// The port to serve on.
    #[arg(long)]
    pub port: Option<u16>,
    /// The read-only port to serve on without authentication; 0 to disable.
    #[arg(long)]
    pub read_only_port: Option<u16>,
    /// The port of the localhost healthz endpoint; 0 to disable.
    #[arg(long)]
    pub healthz_port: Option<u16>,
    /// The IP address of the healthz server.
    #[arg(long)]
    pub healthz_bind_address: Option<String>,
    /// Enables anonymous requests to the kubelet server.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub anonymous_auth: Option<bool>,
    /// Use the TokenReview API to authenticate bearer tokens.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub authentication_token_webhook: Option<bool>,
    /// Authorization mode of the kubelet server: AlwaysAllow or Webhook.
    #[arg(long)]
    pub authorization_mode: Option<String>,
    /// Makes the kubelet fail to start if swap is enabled on the node.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub fail_swap_on: Option<bool>,
    /// Resolver configuration file used as the basis for the container DNS resolution configuration.
    #[arg(long)]
    pub resolv_conf: Option<String>,
    /// Max period between synchronizing running containers and config.
    #[arg(long)]
    pub sync_frequency: Option<GoDuration>,
    /// Duration between checking config files for new data.
    #[arg(long)]
    pub file_check_frequency: Option<GoDuration>,
    /// How often the kubelet posts node status.
    #[arg(long)]
    pub node_status_update_frequency: Option<GoDuration>,
    /// Timeout of runtime requests except long running ones.
    #[arg(long)]
    pub runtime_request_timeout: Option<GoDuration>,
    /// Pull images one at a time.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub serialize_image_pulls: Option<bool>,
    /// Disk usage in percent above which image garbage collection is always run.
    #[arg(long)]
    pub image_gc_high_threshold: Option<u8>,
    /// Disk usage in percent below which image garbage collection is never run.
    #[arg(long)]
    pub image_gc_low_threshold: Option<u8>,
    /// Maximum size of a container log file before it is rotated, for example 10Mi.
    #[arg(long)]
    pub container_log_max_size: Option<String>,
    /// Maximum number of container log files per container.
    #[arg(long)]
    pub container_log_max_files: Option<i32>,
    /// Use RuntimeDefault as the seccomp profile of workloads that have none.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub seccomp_default: Option<bool>,
    /// Unsafe sysctls allowed, patterns ending in * included.
    #[arg(long, value_delimiter = ',')]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Unique identifier for identifying the node in a machine database.
    #[arg(long)]
    pub provider_id: Option<String>,
    /// The CIDR to use for pod addresses, only used in standalone mode.
    #[arg(long)]
    pub pod_cidr: Option<String>,
    /// The oom-score-adj value for the kubelet process.
    #[arg(long)]
    pub oom_score_adj: Option<i32>,
    /// Features on or off: key=true|false pairs.
    #[arg(long, value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    /// Name of the cloud provider; only empty and `external` have a meaning, and both mean none here.
    #[arg(long)]
    pub cloud_provider: Option<String>,
    /// Deprecated; the sandbox image is the runtime's business.
    #[arg(long)]
    pub pod_infra_container_image: Option<String>,
    /// Enable CPU CFS quota enforcement for containers that specify CPU limits.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub cpu_cfs_quota: Option<bool>,
    /// CPU CFS quota period, cpu.cfs_period_us.
    #[arg(long)]
    pub cpu_cfs_quota_period: Option<GoDuration>,
    /// Let the attach/detach controller manage volumes of this node.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub enable_controller_attach_detach: Option<bool>,
    /// Maximum number of images in the node's status; -1 for all.
    #[arg(long)]
    pub node_status_max_images: Option<i32>,
    /// Number of pods per core; 0 for no such limit.
    #[arg(long)]
    pub pods_per_core: Option<i32>,
    /// Minimum age of an unused image before it is collected.
    #[arg(long)]
    pub minimum_image_ttl_duration: Option<GoDuration>,
    /// Longest grace of pods that go for a soft eviction threshold.
    #[arg(long)]
    pub eviction_max_pod_grace_period: Option<i32>,
    /// How long pressure is reported after it has passed.
    #[arg(long)]
    pub eviction_pressure_transition_period: Option<GoDuration>,
    /// Maximum time a streaming connection can be idle.
    #[arg(long)]
    pub streaming_connection_idle_timeout: Option<GoDuration>,
    /// Flags of upstream's without effect.
    #[command(flatten)]
    pub ignored: Ignored,
    /// Log level verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: u8,
}

/// Everything a kubelet needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Configuration, flags applied.
    pub kubelet: KubeletConfiguration,
    /// Name of the node.
    pub node_name: String,
    /// Host name.
    pub hostname: String,
    /// Addresses given by hand.
    pub node_ips: Vec<IpAddr>,
    /// Labels of the node.
    pub node_labels: BTreeMap<String, String>,
    /// Directory of the kubelet's files.
    pub root_dir: PathBuf,
    /// Directory of links to container logs.
    pub container_logs_dir: PathBuf,
    /// Directory of certificates.
    pub cert_dir: PathBuf,
    /// Kubeconfig, when the API was reached by one: it is kept up to date with rotated certificates.
    pub kubeconfig: Option<PathBuf>,
    /// Kubeconfig to bootstrap from.
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// Programs that provide credentials for images: their configuration and their directory.
    pub credential_providers: Option<(PathBuf, PathBuf)>,
}

fn pairs(list: &[String], what: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) =
            text.split_once('=').with_context(|| format!("{what}: {text:?} is not key=value"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    list.iter().filter(|t| !t.is_empty()).map(pair).collect()
}

/// Reads `signal<amount`.
fn thresholds(list: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (signal, amount) = text.split_once('<').with_context(|| {
            format!("invalid eviction threshold syntax {text}, expected <signal><operator><value>")
        })?;
        Ok((signal.to_owned(), amount.to_owned()))
    };
    list.iter().filter(|t| !t.is_empty()).map(pair).collect()
}

/// Reads `key=value:effect` or `key:effect`.
///
/// # Errors
/// It has another form, or the effect is none.
pub fn taint(text: &str) -> anyhow::Result<Taint> {
    let (key_value, effect) = text.rsplit_once(':').with_context(|| format!("invalid taint spec: {text}"))?;
    let (key, value) = key_value.split_once('=').unwrap_or((key_value, ""));
    ensure!(!key.is_empty(), "invalid taint spec: {text}");
    ensure!(
        matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute"),
        "invalid taint effect: {effect}, unsupported taint effect"
    );
    Ok(Taint {
        key: key.to_owned(),
        value: (!value.is_empty()).then(|| value.to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

impl Flags {
    /// How the API is reached; `None` in standalone mode.
    #[must_use]
    pub fn connect_options(&self) -> Option<ConnectOptions> {
        if self.kubeconfig.is_none() && self.master.is_none() {
            return None;
        }
        Some(ConnectOptions {
            kubeconfig: self.kubeconfig.clone(),
            master: self.master.clone(),
            user_agent: format!("kubelet/{}", crate::node_status::setters::VERSION),
        })
    }

    /// Reads the configuration file, applies the flags, and checks the whole.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let mut kubelet = match &self.config {
            Some(path) => KubeletConfiguration::read(path)?,
            None => KubeletConfiguration::default(),
        };
        if let Some(directory) = &self.config_dir {
            kubelet = kubelet.with_drop_ins(directory)?;
        }
        self.apply_names(&mut kubelet)?;
        self.apply_limits(&mut kubelet)?;
        self.placement.apply(&mut kubelet)?;
        self.apply_serving(&mut kubelet);
        kubelet.validate()?;
        if self.ignored.any() {
            tracing::warn!(flags = ?self.ignored, "some flags have no effect");
        }
        let hostname = match &self.hostname_override {
            Some(name) if !name.trim().is_empty() => name.trim().to_lowercase(),
            _ => machine().hostname,
        };
        ensure!(!hostname.is_empty(), "the hostname is empty and --hostname-override is not set");
        check_given_addresses(&self.node_ip).map_err(|why| anyhow::anyhow!("bad --node-ip: {why}"))?;
        let credential_providers = match (
            self.image_credential_provider_config,
            self.image_credential_provider_bin_dir,
        ) {
            (Some(config), Some(directory)) => Some((config, directory)),
            (None, None) => None,
            _ => anyhow::bail!(
                "--image-credential-provider-config and --image-credential-provider-bin-dir need each other"
            ),
        };
        // Relative to the root directory unless given.
        let moved = self.root_dir.as_path() != Path::new("/var/lib/kubelet");
        let default_certs = self.cert_dir.as_path() == Path::new("/var/lib/kubelet/pki");
        Ok(Config {
            kubelet,
            node_name: hostname.clone(),
            hostname,
            node_ips: self.node_ip,
            node_labels: pairs(&self.node_labels, "--node-labels")?,
            cert_dir: if moved && default_certs { self.root_dir.join("pki") } else { self.cert_dir },
            root_dir: self.root_dir,
            container_logs_dir: PathBuf::from("/var/log/containers"),
            kubeconfig: self.kubeconfig,
            bootstrap_kubeconfig: self.bootstrap_kubeconfig,
            credential_providers,
        })
    }

    fn apply_names(&self, kubelet: &mut KubeletConfiguration) -> anyhow::Result<()> {
        fn set<T: Clone>(slot: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                slot.clone_from(value);
            }
        }
        set(&mut kubelet.container_runtime_endpoint, &self.container_runtime_endpoint);
        set(&mut kubelet.image_service_endpoint, &self.image_service_endpoint);
        set(&mut kubelet.cluster_domain, &self.cluster_domain);
        set(&mut kubelet.static_pod_path, &self.pod_manifest_path);
        set(&mut kubelet.pod_logs_dir, &self.pod_logs_dir);
        set(&mut kubelet.resolv_conf, &self.resolv_conf);
        set(&mut kubelet.provider_id, &self.provider_id);
        set(&mut kubelet.pod_cidr, &self.pod_cidr);
        set(&mut kubelet.register_node, &self.register_node);
        set(&mut kubelet.sync_frequency, &self.sync_frequency);
        set(&mut kubelet.file_check_frequency, &self.file_check_frequency);
        set(&mut kubelet.node_status_update_frequency, &self.node_status_update_frequency);
        set(&mut kubelet.runtime_request_timeout, &self.runtime_request_timeout);
        if !self.cluster_dns.is_empty() {
            kubelet.cluster_dns.clone_from(&self.cluster_dns);
        }
        if !self.register_with_taints.is_empty() {
            kubelet.register_with_taints =
                self.register_with_taints.iter().map(|t| taint(t)).collect::<Result<_, _>>()?;
        }
        for (name, on) in pairs(&self.feature_gates, "--feature-gates")? {
            let on = on.parse().with_context(|| format!("invalid value of {name}: {on}"))?;
            kubelet.feature_gates.insert(name, on);
        }
        Ok(())
    }

    fn apply_limits(&self, kubelet: &mut KubeletConfiguration) -> anyhow::Result<()> {
        fn set<T: Clone>(slot: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                slot.clone_from(value);
            }
        }
        set(&mut kubelet.cpu_cfs_quota, &self.cpu_cfs_quota);
        set(&mut kubelet.cpu_cfs_quota_period, &self.cpu_cfs_quota_period);
        set(&mut kubelet.enable_controller_attach_detach, &self.enable_controller_attach_detach);
        set(&mut kubelet.node_status_max_images, &self.node_status_max_images);
        set(&mut kubelet.pods_per_core, &self.pods_per_core);
        set(&mut kubelet.image_minimum_gc_age, &self.minimum_image_ttl_duration);
        set(&mut kubelet.eviction_max_pod_grace_period, &self.eviction_max_pod_grace_period);
        set(&mut kubelet.eviction_pressure_transition_period, &self.eviction_pressure_transition_period);
        set(&mut kubelet.cgroup_driver, &self.cgroup_driver);
        set(&mut kubelet.cgroup_root, &self.cgroup_root);
        set(&mut kubelet.cgroups_per_qos, &self.cgroups_per_qos);
        set(&mut kubelet.max_pods, &self.max_pods);
        set(&mut kubelet.pod_pids_limit, &self.pod_max_pids);
        set(&mut kubelet.fail_swap_on, &self.fail_swap_on);
        set(&mut kubelet.serialize_image_pulls, &self.serialize_image_pulls);
        set(&mut kubelet.image_gc_high_threshold_percent, &self.image_gc_high_threshold);
        set(&mut kubelet.image_gc_low_threshold_percent, &self.image_gc_low_threshold);
        set(&mut kubelet.container_log_max_size, &self.container_log_max_size);
        set(&mut kubelet.container_log_max_files, &self.container_log_max_files);
        set(&mut kubelet.seccomp_default, &self.seccomp_default);
        set(&mut kubelet.oom_score_adj, &self.oom_score_adj);
        if let Some(levels) = &self.enforce_node_allocatable {
            kubelet.enforce_node_allocatable = levels.iter().filter(|l| !l.is_empty()).cloned().collect();
        }
        if let Some(list) = &self.eviction_hard {
            kubelet.eviction_hard = thresholds(list)?;
        }
        if let Some(list) = &self.eviction_soft {
            kubelet.eviction_soft = thresholds(list)?;
        }
        if let Some(list) = &self.eviction_soft_grace_period {
            kubelet.eviction_soft_grace_period = pairs(list, "--eviction-soft-grace-period")?;
        }
        if !self.system_reserved.is_empty() {
            kubelet.system_reserved = pairs(&self.system_reserved, "--system-reserved")?;
        }
        if !self.kube_reserved.is_empty() {
            kubelet.kube_reserved = pairs(&self.kube_reserved, "--kube-reserved")?;
        }
        if !self.allowed_unsafe_sysctls.is_empty() {
            kubelet.allowed_unsafe_sysctls.clone_from(&self.allowed_unsafe_sysctls);
        }
        Ok(())
    }

    fn apply_serving(&self, kubelet: &mut KubeletConfiguration) {
        fn set<T: Clone>(slot: &mut T, flag: &Option<T>) {
            if let Some(value) = flag {
                slot.clone_from(value);
            }
        }
        set(&mut kubelet.streaming_connection_idle_timeout, &self.streaming_connection_idle_timeout);
        set(&mut kubelet.address, &self.address);
        set(&mut kubelet.port, &self.port);
        set(&mut kubelet.read_only_port, &self.read_only_port);
        set(&mut kubelet.healthz_port, &self.healthz_port);
        set(&mut kubelet.healthz_bind_address, &self.healthz_bind_address);
        set(&mut kubelet.tls_cert_file, &self.tls_cert_file);
        set(&mut kubelet.tls_private_key_file, &self.tls_private_key_file);
        set(&mut kubelet.server_tls_bootstrap, &self.rotate_server_certificates);
        set(&mut kubelet.rotate_certificates, &self.rotate_certificates);
        set(&mut kubelet.authentication.x509.client_ca_file, &self.client_ca_file);
        set(&mut kubelet.authentication.anonymous.enabled, &self.anonymous_auth);
        set(&mut kubelet.authentication.webhook.enabled, &self.authentication_token_webhook);
        set(&mut kubelet.authorization.mode, &self.authorization_mode);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    fn config(flags: &[&str]) -> anyhow::Result<Config> {
        Flags::try_parse_from([&["kubelet", "--hostname-override=N1"], flags].concat())?.into_config()
    }

    #[test]
    fn flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn flags_win_over_defaults() {
        let c = config(&[
            "--cgroups-per-qos=false",
            "--enforce-node-allocatable=",
            "--eviction-hard=memory.available<5%,nodefs.available<1Gi",
            "--cluster-dns=10.96.0.10",
            "--node-labels=a=b,c=",
            "--register-with-taints=k=v:NoSchedule,x:NoExecute",
            "--node-ip=10.0.0.1,fd00::1",
            "--fail-swap-on=false",
            "-v=2",
            "--hairpin-mode=promiscuous-bridge",
            "--protect-kernel-defaults",
            "--reserved-cpus=0-1",
            "--cpu-manager-policy=static",
            "--cpu-manager-policy-options=full-pcpus-only=true",
            "--topology-manager-policy=restricted",
            "--reserved-memory=0:memory=1Gi,hugepages-2Mi=2Mi;1:memory=2Gi",
        ])
        .expect("valid");
        assert_eq!(c.node_name, "n1");
        assert!(!c.kubelet.cgroups_per_qos && !c.kubelet.fail_swap_on);
        assert_eq!(c.kubelet.eviction_hard["memory.available"], "5%");
        assert_eq!(c.kubelet.register_with_taints[1].effect, "NoExecute");
        assert_eq!((c.node_labels["a"].as_str(), c.node_labels["c"].as_str()), ("b", ""));
        assert_eq!(c.node_ips.len(), 2);
        assert_eq!(c.kubelet.reserved_cpus().len(), 2);
        assert_eq!(c.kubelet.cpu_manager_policy_options["full-pcpus-only"], "true");
        let reserved = &c.kubelet.reserved_memory;
        assert_eq!((reserved[0].limits["hugepages-2Mi"].as_str(), reserved[1].numa_node), ("2Mi", 1));
    }

    #[test]
    fn certificates_follow_the_root_directory() {
        assert_eq!(config(&[]).expect("valid").cert_dir, PathBuf::from("/var/lib/kubelet/pki"));
        assert_eq!(config(&["--root-dir=/x"]).expect("valid").cert_dir, PathBuf::from("/x/pki"));
        assert_eq!(config(&["--root-dir=/x", "--cert-dir=/c"]).expect("valid").cert_dir, PathBuf::from("/c"));
    }

    #[test]
    fn nonsense_is_refused() {
        for flags in [
            ["--register-with-taints=x"],
            ["--register-with-taints=x=y:Sometimes"],
            ["--eviction-hard=memory.available"],
            ["--node-labels=x"],
            ["--cgroup-driver=none"],
            ["--no-such-flag"],
            ["--cluster-dns=nope"],
            ["--reserved-cpus=all"],
            ["--reserved-memory=memory=1Gi"],
            ["--topology-manager-scope=node"],
            ["--node-ip=10.0.0.1,10.0.0.2"],
        ] {
            assert!(config(&flags).is_err(), "{flags:?}");
        }
    }
}
