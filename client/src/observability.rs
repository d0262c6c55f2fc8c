//! Logs and metrics of a process.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::leader;
use crate::workqueue::metrics as queues;

/// Upper bounds, in seconds, of the buckets of every `*_seconds` histogram.
const SECONDS: [f64; 13] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// How often what histograms were given is added up when nobody reads them.
const UPKEEP: Duration = Duration::from_secs(10);

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

/// The metrics of this process, up to date; the first call installs the recorder.
pub fn metrics_handle() -> &'static PrometheusHandle {
    let handle = METRICS.get_or_init(|| {
        let full = |name: &str| Matcher::Full(name.to_owned());
        let builder = queues::HISTOGRAMS.iter().try_fold(PrometheusBuilder::new(), |builder, name| {
            builder.set_buckets_for_metric(full(name), &queues::BUCKETS)
        });
        let recorder = builder
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            })
            .expect("no list of buckets is empty")
            .build_recorder();
        let handle = recorder.handle();
        // An error only says that another recorder is installed; ours then renders nothing.
        let _ = metrics::set_global_recorder(recorder);
        queues::describe();
        leader::describe();
        handle
    });
    queues::observe();
    handle
}

/// Keeps what histograms were given from piling up where nobody reads the metrics. Never ends.
pub(crate) async fn upkeep() -> std::convert::Infallible {
    let mut every = tokio::time::interval(UPKEEP);
    loop {
        every.tick().await;
        if let Some(handle) = METRICS.get() {
            handle.run_upkeep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkQueue;

    #[tokio::test]
    async fn queues_are_told_about_by_upstreams_names() {
        metrics_handle();
        let queue = WorkQueue::new("rendered");
        queue.add("a");
        queue.add("a");
        queue.add("b");
        queue.get().await;
        queue.add_rate_limited("a");
        let text = metrics_handle().render();
        let value = |line: &str| {
            let found = text.lines().find_map(|held| held.strip_prefix(line)?.trim().parse::<f64>().ok());
            found.unwrap_or_else(|| panic!("no {line} in {text}"))
        };
        assert_eq!(value("workqueue_depth{name=\"rendered\"}"), 1.0);
        assert_eq!(value("workqueue_adds_total{name=\"rendered\"}"), 2.0);
        assert_eq!(value("workqueue_retries_total{name=\"rendered\"}"), 1.0);
        assert_eq!(value("workqueue_queue_duration_seconds_count{name=\"rendered\"}"), 1.0);
        assert_eq!(value("workqueue_queue_duration_seconds_bucket{name=\"rendered\",le=\"10\"}"), 1.0);
        assert!(value("workqueue_unfinished_work_seconds{name=\"rendered\"}") > 0.0);
        assert!(value("workqueue_longest_running_processor_seconds{name=\"rendered\"}") > 0.0);
        queue.done(&"a");
        let text = metrics_handle().render();
        for line in [
            "workqueue_work_duration_seconds_count{name=\"rendered\"} 1",
            "workqueue_unfinished_work_seconds{name=\"rendered\"} 0",
            "# TYPE workqueue_work_duration_seconds histogram",
        ] {
            assert!(text.lines().any(|held| held == line), "no {line} in {text}");
        }
    }
}
