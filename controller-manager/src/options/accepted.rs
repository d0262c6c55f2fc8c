//! What is taken and left.

use std::path::PathBuf;

/// Flags that upstream knows and that change nothing here: serving is plain and local, requests are not throttled.
#[derive(Clone, Debug, clap::Args)]
pub struct Accepted {
    #[arg(long, hide = true)]
    authentication_kubeconfig: Option<PathBuf>,
    #[arg(long, hide = true)]
    authorization_kubeconfig: Option<PathBuf>,
    #[arg(long, hide = true)]
    requestheader_client_ca_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    client_ca_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    tls_cert_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    tls_private_key_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    cert_dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    cluster_name: Option<String>,
    #[arg(long, hide = true)]
    cloud_provider: Option<String>,
    #[arg(long, hide = true)]
    feature_gates: Vec<String>,
    #[arg(long, hide = true)]
    kube_api_qps: Option<f32>,
    #[arg(long, hide = true)]
    kube_api_burst: Option<u32>,
    #[arg(long, hide = true)]
    kube_api_content_type: Option<String>,
    #[arg(long, hide = true)]
    min_resync_period: Option<String>,
    #[arg(long, hide = true)]
    pod_eviction_timeout: Option<String>,
    #[arg(long, hide = true)]
    profiling: Option<String>,
    #[arg(long, hide = true)]
    configure_cloud_routes: Option<String>,
    #[arg(long, hide = true)]
    route_reconciliation_period: Option<String>,
    #[arg(long, hide = true)]
    cidr_allocator_type: Option<String>,
    #[arg(long, hide = true)]
    cloud_config: Option<String>,
    #[arg(long, hide = true)]
    concurrent_service_syncs: Option<usize>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    contention_profiling: Option<String>,
    #[arg(long, hide = true)]
    controller_start_interval: Option<String>,
    #[arg(long, hide = true)]
    emulated_version: Option<String>,
    #[arg(long, hide = true)]
    flex_volume_plugin_dir: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    disable_attach_detach_reconcile_sync: Option<String>,
    #[arg(long, hide = true)]
    attach_detach_reconcile_sync_period: Option<String>,
    #[arg(long, hide = true)]
    authorization_always_allow_paths: Option<String>,
    #[arg(long, hide = true)]
    logging_format: Option<String>,
    #[arg(long, hide = true)]
    allow_metric_labels: Vec<String>,
    #[arg(long, hide = true)]
    allow_metric_labels_manifest: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    authentication_skip_lookup: Option<String>,
    #[arg(long, hide = true)]
    authentication_token_webhook_cache_ttl: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    authentication_tolerate_lookup_failure: Option<String>,
    #[arg(long, hide = true)]
    authorization_webhook_cache_authorized_ttl: Option<String>,
    #[arg(long, hide = true)]
    authorization_webhook_cache_unauthorized_ttl: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    disable_http2_serving: Option<String>,
    #[arg(long, hide = true)]
    disabled_metrics: Vec<String>,
    #[arg(long, hide = true)]
    http2_max_streams_per_connection: Option<String>,
    #[arg(long, hide = true)]
    leader_elect_resource_lock: Option<String>,
    #[arg(long, hide = true)]
    log_json_info_buffer_size: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    log_json_split_stream: Option<String>,
    #[arg(long, hide = true)]
    log_text_info_buffer_size: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    log_text_split_stream: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    permit_address_sharing: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    permit_port_sharing: Option<String>,
    #[arg(long, hide = true)]
    requestheader_allowed_names: Vec<String>,
    #[arg(long, hide = true)]
    requestheader_extra_headers_prefix: Vec<String>,
    #[arg(long, hide = true)]
    requestheader_group_headers: Vec<String>,
    #[arg(long, hide = true)]
    requestheader_uid_headers: Vec<String>,
    #[arg(long, hide = true)]
    requestheader_username_headers: Vec<String>,
    #[arg(long, hide = true)]
    show_hidden_metrics_for_version: Option<String>,
    #[arg(long, hide = true)]
    tls_cipher_suites: Vec<String>,
    #[arg(long, hide = true)]
    tls_curve_preferences: Vec<String>,
    #[arg(long, hide = true)]
    tls_min_version: Option<String>,
    #[arg(long, hide = true)]
    tls_sni_cert_key: Vec<String>,
    #[arg(long, hide = true)]
    vmodule: Vec<String>,
}
