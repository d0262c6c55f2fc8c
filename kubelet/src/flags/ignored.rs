//! Flags of upstream's that are accepted, so that command lines for it work, and have no effect here.

/// Flags without effect.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Accepted without effect")]
#[allow(missing_docs, reason = "upstream documents them; here they do nothing")]
pub struct Ignored {
    #[arg(long, hide = true)]
    event_qps: Option<String>,
    #[arg(long, hide = true)]
    event_burst: Option<String>,
    #[arg(long, hide = true)]
    kube_api_qps: Option<String>,
    #[arg(long, hide = true)]
    kube_api_burst: Option<String>,
    #[arg(long, hide = true)]
    kube_api_content_type: Option<String>,
    #[arg(long, hide = true)]
    registry_qps: Option<String>,
    #[arg(long, hide = true)]
    registry_burst: Option<String>,
    #[arg(long, hide = true)]
    hairpin_mode: Option<String>,
    #[arg(long, hide = true)]
    max_open_files: Option<String>,
    #[arg(long, hide = true)]
    tls_cipher_suites: Option<String>,
    #[arg(long, hide = true)]
    tls_min_version: Option<String>,
    #[arg(long, hide = true)]
    runtime_cgroups: Option<String>,
    #[arg(long, hide = true)]
    kubelet_cgroups: Option<String>,
    #[arg(long, hide = true)]
    system_cgroups: Option<String>,
    #[arg(long, hide = true)]
    system_reserved_cgroup: Option<String>,
    #[arg(long, hide = true)]
    kube_reserved_cgroup: Option<String>,
    #[arg(long, hide = true)]
    qos_reserved: Option<String>,
    #[arg(long, hide = true)]
    volume_plugin_dir: Option<String>,
    #[arg(long, hide = true)]
    volume_stats_agg_period: Option<String>,
    #[arg(long, hide = true)]
    eviction_minimum_reclaim: Option<String>,
    #[arg(long, hide = true)]
    http_check_frequency: Option<String>,
    #[arg(long, hide = true)]
    manifest_url: Option<String>,
    #[arg(long, hide = true)]
    manifest_url_header: Option<String>,
    #[arg(long, hide = true)]
    cloud_config: Option<String>,
    #[arg(long, hide = true)]
    logging_format: Option<String>,
    #[arg(long, hide = true)]
    log_flush_frequency: Option<String>,
    #[arg(long, hide = true)]
    vmodule: Option<String>,
    #[arg(long, hide = true)]
    lock_file: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    exit_on_lock_contention: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    make_iptables_util_chains: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    protect_kernel_defaults: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    local_storage_capacity_isolation: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    contention_profiling: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    enable_debugging_handlers: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    kernel_memcg_notification: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    experimental_allocatable_ignore_eviction: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    runonce: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    alsologtostderr: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    logtostderr: Option<bool>,
}

impl Ignored {
    /// Whether any of these flags was given.
    #[must_use]
    pub fn any(&self) -> bool {
        // Derived formatting shows what is set; nothing else needs to look at the fields.
        format!("{self:?}").contains("Some(")
    }
}
