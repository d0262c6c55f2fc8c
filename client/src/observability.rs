//! Logs and metrics of a process.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Upper bounds, in seconds, of the buckets of every `*_seconds` histogram.
const SECONDS: [f64; 13] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// Sends logs to standard error. `verbosity` is upstream's `-v`: 0-1 shows INFO, 2-3 too, 4 and above DEBUG;
/// `RUST_LOG` overrides it. A second call changes nothing.
pub fn init(verbosity: u8) {
    let level = if verbosity >= 8 {
        "trace"
    } else if verbosity >= 4 {
        "debug"
    } else {
        "info"
    };
    let default = format!("{level},hyper=info,h2=info,rustls=info,tower=info,tonic=info,kube_client=info");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    // An error only says that logs have a subscriber already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    metrics_handle();
}

/// The metrics of this process; the first call installs the recorder.
pub fn metrics_handle() -> &'static PrometheusHandle {
    METRICS.get_or_init(|| {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .expect("the list of buckets is not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        // An error only says that another recorder is installed; ours then renders nothing.
        let _ = metrics::set_global_recorder(recorder);
        handle
    })
}
