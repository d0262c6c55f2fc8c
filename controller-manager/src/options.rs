//! Flags, by upstream's names, and the configuration they make.

mod accepted;
mod signing;

use crate::clock::Clock;
use crate::registry;
use accepted::Accepted;
use client::ClientFlags;
use client::component::BadConfiguration;
use client::leader::{LeaderElection, LeaderFlags, parse_duration};
pub use signing::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY_UNKNOWN, Pair, Signing};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Watches the shared state of the cluster through the API server and moves the current state towards the desired
/// state.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "kube-controller-manager", version, next_line_help = true)]
pub struct Flags {
    /// Where the API server is.
    #[command(flatten)]
    pub client: ClientFlags,
    /// Whether and how a leader is elected.
    #[command(flatten)]
    pub leader: LeaderFlags,
    /// How many workers each controller has.
    #[command(flatten)]
    pub concurrent: Concurrency,
    /// How horizontal autoscaling works.
    #[command(flatten)]
    pub autoscaling: Autoscaling,
    /// Controllers to enable: `*` for all that are on by default, `foo` for one, `-foo` for all but one.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    /// Address on which health and metrics are served.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port on which health and metrics are served; 0 for not at all.
    #[arg(long, default_value_t = 10257)]
    pub secure_port: u16,
    /// CIDR ranges of pods, separated by a comma.
    #[arg(long, default_value = "")]
    pub cluster_cidr: String,
    /// Give each node a part of the cluster CIDR.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub allocate_node_cidrs: bool,
    /// Mask size of a node's CIDR.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size: u8,
    /// Mask size of a node's IPv4 CIDR in a dual-stack cluster.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size_ipv4: u8,
    /// Mask size of a node's IPv6 CIDR in a dual-stack cluster.
    #[arg(long, default_value_t = 0)]
    pub node_cidr_mask_size_ipv6: u8,
    /// CIDR ranges of Services, separated by a comma; no node is given a part of them.
    #[arg(long, default_value = "")]
    pub service_cluster_ip_range: String,
    /// Root certificate authority, published to every namespace and put into service account tokens.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// Private key that signs service account tokens kept in Secrets.
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,
    /// What certificates are signed with.
    #[command(flatten)]
    pub signing: Signing,
    /// Run each controller with a service account of its own.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub use_service_account_credentials: bool,
    /// How often the status of nodes is looked at.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub node_monitor_period: Duration,
    /// How long a node may be silent before it counts as unhealthy.
    #[arg(long, default_value = "50s", value_parser = parse_duration)]
    pub node_monitor_grace_period: Duration,
    /// How long a starting node may be silent before it counts as unhealthy.
    #[arg(long, default_value = "1m", value_parser = parse_duration)]
    pub node_startup_grace_period: Duration,
    /// Nodes per second from which pods are evicted when a node is unhealthy.
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f32,
    /// The same when many nodes of the zone are unhealthy.
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f32,
    /// Part of unhealthy nodes that makes a zone unhealthy.
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f32,
    /// Size up to which a cluster stops evicting when a zone is unhealthy.
    #[arg(long, default_value_t = 50)]
    pub large_cluster_size_threshold: usize,
    /// Number of ended pods that may exist before the oldest are deleted; 0 or less for no limit.
    #[arg(long, default_value_t = 12500)]
    pub terminated_pod_gc_threshold: i64,
    /// Most endpoints in one EndpointSlice.
    #[arg(long, default_value_t = 100)]
    pub max_endpoints_per_slice: usize,
    /// Most endpoints mirrored from one subset of an Endpoints object.
    #[arg(long, default_value_t = 1000)]
    pub mirroring_max_endpoints_per_subset: usize,
    /// How long pod changes are collected before Endpoints are written.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub endpoint_updates_batch_period: Duration,
    /// How long pod changes are collected before EndpointSlices are written.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub endpointslice_updates_batch_period: Duration,
    /// How long changes of Endpoints are collected before they are mirrored into EndpointSlices.
    #[arg(long, default_value = "0s", value_parser = parse_duration)]
    pub mirroring_endpointslice_updates_batch_period: Duration,
    /// Delete objects whose owners are gone.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_garbage_collector: bool,
    /// How often quota usage is computed anew without a change.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    pub resource_quota_sync_period: Duration,
    /// How often namespaces are looked at without a change.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    pub namespace_sync_period: Duration,
    /// For how long a token in a Secret must not have been used before it is marked as invalid, and then deleted.
    #[arg(long, default_value = "8760h", value_parser = parse_duration)]
    pub legacy_service_account_token_clean_up_period: Duration,
    /// Have volumes made for claims whose class has a provisioner.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub enable_dynamic_provisioning: bool,
    /// After how long a claim or volume that waits for pods is looked at again.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub pvclaimbinder_sync_period: Duration,
    /// Never make a node that is not ready let go of a volume, however long it takes.
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub disable_force_detach_on_timeout: bool,
    /// Verbosity of the log.
    #[arg(short, long, default_value_t = 0)]
    pub v: u8,
    #[command(flatten)]
    accepted: Accepted,
}

/// How horizontal autoscaling works.
#[derive(Clone, Debug, clap::Args)]
pub struct Autoscaling {
    /// How often each autoscaler looks at its metrics.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub horizontal_pod_autoscaler_sync_period: Duration,
    /// For how long the number of pods does not fall below what was recommended.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    pub horizontal_pod_autoscaler_downscale_stabilization: Duration,
    /// How far, as a fraction, usage may be from its target before anything is changed.
    #[arg(long, default_value_t = 0.1)]
    pub horizontal_pod_autoscaler_tolerance: f64,
    /// For how long after the start of a pod its use of CPU may be left out.
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    pub horizontal_pod_autoscaler_cpu_initialization_period: Duration,
    /// For how long after the start of a pod a change of its readiness counts as the first.
    #[arg(long, default_value = "30s", value_parser = parse_duration)]
    pub horizontal_pod_autoscaler_initial_readiness_delay: Duration,
}

/// How many keys each controller reconciles at once.
#[derive(Clone, Debug, clap::Args)]
pub struct Concurrency {
    /// How many Deployments are looked at at once.
    #[arg(long = "concurrent-deployment-syncs", default_value_t = 5)]
    pub deployments: usize,
    /// How many ReplicaSets are looked at at once.
    #[arg(long = "concurrent-replicaset-syncs", default_value_t = 5)]
    pub replicasets: usize,
    /// How many ReplicationControllers are looked at at once.
    #[arg(long = "concurrent-rc-syncs", alias = "concurrent_rc_syncs", default_value_t = 5)]
    pub replication_controllers: usize,
    /// How many StatefulSets are looked at at once.
    #[arg(long = "concurrent-statefulset-syncs", default_value_t = 5)]
    pub statefulsets: usize,
    /// How many DaemonSets are looked at at once.
    #[arg(long = "concurrent-daemonset-syncs", default_value_t = 2)]
    pub daemonsets: usize,
    /// How many Jobs are looked at at once.
    #[arg(long = "concurrent-job-syncs", default_value_t = 5)]
    pub jobs: usize,
    /// How many CronJobs are looked at at once.
    #[arg(long = "concurrent-cron-job-syncs", default_value_t = 5)]
    pub cronjobs: usize,
    /// How many Services for Endpoints are looked at at once.
    #[arg(long = "concurrent-endpoint-syncs", default_value_t = 5)]
    pub endpoints: usize,
    /// How many Services for EndpointSlices are looked at at once.
    #[arg(long = "concurrent-service-endpoint-syncs", default_value_t = 5)]
    pub service_endpoints: usize,
    /// How many Endpoints mirrored into EndpointSlices are looked at at once.
    #[arg(long = "mirroring-concurrent-service-endpoint-syncs", default_value_t = 5)]
    pub mirroring: usize,
    /// How many objects for garbage collection are looked at at once.
    #[arg(long = "concurrent-gc-syncs", default_value_t = 20)]
    pub gc: usize,
    /// How many Namespaces are looked at at once.
    #[arg(long = "concurrent-namespace-syncs", default_value_t = 10)]
    pub namespaces: usize,
    /// How many ResourceQuotas are looked at at once.
    #[arg(long = "concurrent-resource-quota-syncs", default_value_t = 5)]
    pub quotas: usize,
    /// How many service account tokens are looked at at once.
    #[arg(long = "concurrent-serviceaccount-token-syncs", default_value_t = 5)]
    pub service_account_tokens: usize,
    /// How many admission policies are checked at once.
    #[arg(long = "concurrent-validating-admission-policy-status-syncs", default_value_t = 5)]
    pub admission_policies: usize,
    /// How many claims for devices, and pods that name them, are looked at at once.
    #[arg(long = "concurrent-resourceclaim-syncs", default_value_t = 50)]
    pub resource_claims: usize,
    /// How many pods that use tainted devices are looked at at once.
    #[arg(long = "concurrent-device-taint-eviction-syncs", default_value_t = 8)]
    pub device_taints: usize,
    /// How many autoscalers are looked at at once.
    #[arg(long = "concurrent-horizontal-pod-autoscaler-syncs", default_value_t = 5)]
    pub autoscalers: usize,
    /// How many pods with ephemeral volumes are looked at at once.
    #[arg(long = "concurrent-ephemeralvolume-syncs", default_value_t = 5)]
    pub ephemeral_volumes: usize,
    /// How many finished Jobs are looked at at once.
    #[arg(long = "concurrent-ttl-after-finished-syncs", default_value_t = 5)]
    pub ttl_after_finished: usize,
}

/// Everything the component needs to know, checked.
#[derive(Clone)]
pub struct Config {
    /// Controllers to run, by their canonical names.
    pub controllers: Vec<&'static str>,
    /// The election of a leader; `None` to run without.
    pub election: Option<LeaderElection>,
    /// Where health and metrics are served, if anywhere.
    pub serve: Option<SocketAddr>,
    /// Workers per controller.
    pub concurrent: Concurrency,
    /// The root certificates, in PEM.
    pub root_ca: Option<String>,
    /// A client without credentials, when each controller is to run as a service account of its own.
    pub anonymous: Option<client::Client>,
    /// What time it is.
    pub clock: Clock,
    /// What each signer of certificates signs with.
    pub signers: BTreeMap<&'static str, Pair>,
    /// All other flags as they were given.
    pub flags: Flags,
}

impl Flags {
    /// Checks the flags and reads the files they name.
    pub fn into_config(self) -> anyhow::Result<Config> {
        let selection = registry::select(&self.controllers).map_err(|name| {
            BadConfiguration(format!("\"{name}\" is not in the list of known controllers (--controllers)"))
        })?;
        for (controller, why) in &selection.idle {
            tracing::info!(controller, why, "controller is asked for but does not run");
        }
        if self.allocate_node_cidrs && self.cluster_cidr.is_empty() {
            return Err(BadConfiguration("--allocate-node-cidrs needs --cluster-cidr".to_owned()).into());
        }
        let root_ca = match &self.root_ca_file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                BadConfiguration(format!("--root-ca-file {} cannot be read: {error}", path.display()))
            })?),
            None => None,
        };
        let signers = self.signing.pairs().map_err(BadConfiguration)?;
        if selection.run.contains(&crate::csr::SIGNING) {
            for pair in signers.values() {
                crate::csr::check(pair).map_err(BadConfiguration)?;
            }
        }
        Ok(Config {
            controllers: selection.run,
            election: self.leader.election("kube-controller-manager"),
            serve: (self.secure_port != 0).then(|| SocketAddr::new(self.bind_address, self.secure_port)),
            concurrent: self.concurrent.clone(),
            root_ca,
            anonymous: None,
            clock: Clock::System,
            signers,
            flags: self,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use clap::Parser;

    /// The configuration of a command line.
    pub fn config(arguments: &[&str]) -> anyhow::Result<Config> {
        let all = std::iter::once("kube-controller-manager").chain(arguments.iter().copied());
        Flags::try_parse_from(all)?.into_config()
    }

    #[test]
    fn usual_command_line_is_understood() {
        let config = config(&[
            "--kubeconfig=/etc/k",
            "--leader-elect=false",
            "--use-service-account-credentials=true",
            "--controllers=*,bootstrapsigner,-ttl",
            "--concurrent_rc_syncs=9",
            "--cluster-cidr=10.244.0.0/16",
            "--allocate-node-cidrs",
            "--authentication-kubeconfig=/etc/k",
            "--node-monitor-grace-period=16s",
            "--concurrent-horizontal-pod-autoscaler-syncs=7",
            "--horizontal-pod-autoscaler-tolerance=0.2",
            "--contention-profiling",
            "--permit-port-sharing",
            "--tls-cipher-suites=TLS_AES_128_GCM_SHA256,TLS_AES_256_GCM_SHA384",
            "--mirroring-endpointslice-updates-batch-period=1s",
            "--bind-address=127.0.0.1",
            "--v=2",
        ])
        .expect("valid");
        assert!(config.election.is_none() && config.flags.allocate_node_cidrs);
        assert_eq!((config.concurrent.replication_controllers, config.concurrent.autoscalers), (9, 7));
        assert_eq!(config.flags.node_monitor_grace_period, Duration::from_secs(16));
        assert_eq!(config.serve.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:10257"));
        assert!(config.controllers.contains(&"bootstrap-signer-controller"));
        assert!(!config.controllers.contains(&"ttl-controller"));
    }

    /// Every flag of upstream's that says how many workers a controller has.
    #[test]
    fn workers_are_counted_for_each_controller() {
        let number = |concurrent: &Concurrency, flag: &str| {
            let Concurrency {
                deployments,
                replicasets,
                replication_controllers,
                statefulsets,
                daemonsets,
                jobs,
                cronjobs,
                endpoints,
                service_endpoints,
                mirroring,
                gc,
                namespaces,
                quotas,
                service_account_tokens,
                admission_policies,
                resource_claims,
                device_taints,
                autoscalers,
                ephemeral_volumes,
                ttl_after_finished,
            } = concurrent;
            *match flag {
                "concurrent-deployment-syncs" => deployments,
                "concurrent-replicaset-syncs" => replicasets,
                "concurrent-rc-syncs" | "concurrent_rc_syncs" => replication_controllers,
                "concurrent-statefulset-syncs" => statefulsets,
                "concurrent-daemonset-syncs" => daemonsets,
                "concurrent-job-syncs" => jobs,
                "concurrent-cron-job-syncs" => cronjobs,
                "concurrent-endpoint-syncs" => endpoints,
                "concurrent-service-endpoint-syncs" => service_endpoints,
                "mirroring-concurrent-service-endpoint-syncs" => mirroring,
                "concurrent-gc-syncs" => gc,
                "concurrent-namespace-syncs" => namespaces,
                "concurrent-resource-quota-syncs" => quotas,
                "concurrent-serviceaccount-token-syncs" => service_account_tokens,
                "concurrent-validating-admission-policy-status-syncs" => admission_policies,
                "concurrent-resourceclaim-syncs" => resource_claims,
                "concurrent-device-taint-eviction-syncs" => device_taints,
                "concurrent-horizontal-pod-autoscaler-syncs" => autoscalers,
                "concurrent-ephemeralvolume-syncs" => ephemeral_volumes,
                "concurrent-ttl-after-finished-syncs" => ttl_after_finished,
                other => panic!("{other}"),
            }
        };
        for (flag, default) in [
            ("concurrent-deployment-syncs", 5),
            ("concurrent-replicaset-syncs", 5),
            ("concurrent-rc-syncs", 5),
            ("concurrent_rc_syncs", 5),
            ("concurrent-statefulset-syncs", 5),
            ("concurrent-daemonset-syncs", 2),
            ("concurrent-job-syncs", 5),
            ("concurrent-cron-job-syncs", 5),
            ("concurrent-endpoint-syncs", 5),
            ("concurrent-service-endpoint-syncs", 5),
            ("mirroring-concurrent-service-endpoint-syncs", 5),
            ("concurrent-gc-syncs", 20),
            ("concurrent-namespace-syncs", 10),
            ("concurrent-resource-quota-syncs", 5),
            ("concurrent-serviceaccount-token-syncs", 5),
            ("concurrent-validating-admission-policy-status-syncs", 5),
            ("concurrent-resourceclaim-syncs", 50),
            ("concurrent-device-taint-eviction-syncs", 8),
            ("concurrent-horizontal-pod-autoscaler-syncs", 5),
            ("concurrent-ephemeralvolume-syncs", 5),
            ("concurrent-ttl-after-finished-syncs", 5),
        ] {
            assert_eq!(number(&config(&[]).expect("valid").concurrent, flag), default, "{flag}");
            let changed = config(&[&format!("--{flag}=77")]).expect("valid");
            assert_eq!(number(&changed.concurrent, flag), 77, "{flag}");
        }
        // A cloud's; there is none.
        assert!(config(&["--concurrent-service-syncs=3"]).is_ok());
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            &["--controllers=nope"][..],
            &["--allocate-node-cidrs"],
            &["--root-ca-file=/does/not/exist"],
            &["--cluster-signing-legacy-unknown-cert-file=ca.crt"],
            &["--cluster-signing-cert-file=/does/not/exist", "--cluster-signing-key-file=/does/not/exist"],
        ] {
            let error = config(arguments).err().expect("refused");
            assert!(error.is::<BadConfiguration>(), "{error}");
        }
    }
}
