//! Flags about what is written down of requests (upstream `apiserver/pkg/server/options/audit.go`).

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::duration;
use crate::audit::backend::{BackendConfig, Batch, Mode, Truncate};
use crate::audit::log::LogConfig;
use crate::audit::{AuditConfig, WebhookConfig};

/// What is written down of requests, and where.
#[derive(Clone, Debug, Args)]
pub(super) struct AuditFlags {
    /// File with the policy that says what of which requests is written to the audit log
    #[arg(long)]
    audit_policy_file: Option<PathBuf>,
    /// The audit log; - for the standard output
    #[arg(long)]
    audit_log_path: Option<PathBuf>,
    /// Days that old audit logs are kept; 0 for ever
    #[arg(long, default_value_t = 366)]
    audit_log_maxage: u64,
    /// Old audit logs that are kept; 0 for all
    #[arg(long, default_value_t = 100)]
    audit_log_maxbackup: usize,
    /// Megabytes at which an audit log is put aside; 0 for 100
    #[arg(long, default_value_t = 100)]
    audit_log_maxsize: u64,
    /// When events are written to the log: batch, blocking, blocking-strict
    #[arg(long, default_value = "blocking", value_parser = MODES)]
    audit_log_mode: String,
    /// Events that may wait for being written, in batch mode
    #[arg(long, default_value_t = 10_000)]
    audit_log_batch_buffer_size: usize,
    /// Events that are written together, in batch mode
    #[arg(long, default_value_t = 1)]
    audit_log_batch_max_size: usize,
    /// How long it is waited for so many, in batch mode
    #[arg(long, default_value = "0s", value_parser = duration)]
    audit_log_batch_max_wait: Duration,
    /// Whether batches are throttled
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    audit_log_batch_throttle_enable: bool,
    /// Batches in a second
    #[arg(long, default_value_t = 0.0)]
    audit_log_batch_throttle_qps: f32,
    /// Batches at once after a quiet time
    #[arg(long, default_value_t = 0)]
    audit_log_batch_throttle_burst: u32,
    /// Whether large events lose their bodies
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    audit_log_truncate_enabled: bool,
    /// Bytes from which on they do
    #[arg(long, default_value_t = EVENT)]
    audit_log_truncate_max_event_size: usize,
    /// Bytes of events that are written together
    #[arg(long, default_value_t = BATCH)]
    audit_log_truncate_max_batch_size: usize,
    /// kubeconfig file that names a webhook which hears of events
    #[arg(long)]
    audit_webhook_config_file: Option<PathBuf>,
    /// How long it is waited before the webhook is called again after a failure
    #[arg(long, default_value = "10s", value_parser = duration)]
    audit_webhook_initial_backoff: Duration,
    /// When events are sent to the webhook: batch, blocking, blocking-strict
    #[arg(long, default_value = "batch", value_parser = MODES)]
    audit_webhook_mode: String,
    /// Events that may wait for being sent, in batch mode
    #[arg(long, default_value_t = 10_000)]
    audit_webhook_batch_buffer_size: usize,
    /// Events that are sent together, in batch mode
    #[arg(long, default_value_t = 400)]
    audit_webhook_batch_max_size: usize,
    /// How long it is waited for so many, in batch mode
    #[arg(long, default_value = "30s", value_parser = duration)]
    audit_webhook_batch_max_wait: Duration,
    /// Whether batches are throttled
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    audit_webhook_batch_throttle_enable: bool,
    /// Batches in a second
    #[arg(long, default_value_t = 10.0)]
    audit_webhook_batch_throttle_qps: f32,
    /// Batches at once after a quiet time
    #[arg(long, default_value_t = 15)]
    audit_webhook_batch_throttle_burst: u32,
    /// Whether large events lose their bodies
    #[arg(long, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    audit_webhook_truncate_enabled: bool,
    /// Bytes from which on they do
    #[arg(long, default_value_t = EVENT)]
    audit_webhook_truncate_max_event_size: usize,
    /// Bytes of events that are sent together
    #[arg(long, default_value_t = BATCH)]
    audit_webhook_truncate_max_batch_size: usize,
}

const MODES: [&str; 3] = ["batch", "blocking", "blocking-strict"];
const EVENT: usize = 100 * 1024;
const BATCH: usize = 10 * 1024 * 1024;

/// The flags of one backend.
struct Given {
    name: &'static str,
    mode: String,
    buffer: usize,
    most: usize,
    wait: Duration,
    throttle: bool,
    qps: f32,
    burst: u32,
    truncate: bool,
    event: usize,
    batch: usize,
}

impl Given {
    fn backend(self) -> anyhow::Result<BackendConfig> {
        let name = self.name;
        let mode = match self.mode.as_str() {
            "batch" => {
                anyhow::ensure!(
                    self.buffer > 0,
                    "invalid audit batch {name} buffer size {}, must be a positive number",
                    self.buffer
                );
                anyhow::ensure!(
                    self.most > 0,
                    "invalid audit batch {name} max batch size {}, must be a positive number",
                    self.most
                );
                anyhow::ensure!(
                    !self.throttle || self.qps > 0.0,
                    "invalid audit batch {name} throttle QPS {}, must be a positive number",
                    self.qps
                );
                anyhow::ensure!(
                    !self.throttle || self.burst > 0,
                    "invalid audit batch {name} throttle burst {}, must be a positive number",
                    self.burst
                );
                let throttle = self.throttle.then_some((self.qps, self.burst));
                Mode::Batch(Batch { buffer: self.buffer, most: self.most, wait: self.wait, throttle })
            }
            "blocking-strict" => Mode::BlockingStrict,
            _ => Mode::Blocking,
        };
        if self.truncate {
            anyhow::ensure!(
                self.event > 0,
                "invalid audit truncate {name} max event size {}, must be a positive number",
                self.event
            );
            anyhow::ensure!(
                self.batch >= self.event,
                "invalid audit truncate {name} max batch size {}, must be greater than max event size ({})",
                self.batch,
                self.event
            );
        }
        Ok(BackendConfig { mode, truncate: self.truncate.then_some(Truncate { event: self.event }) })
    }
}

impl AuditFlags {
    /// The configuration they make.
    pub fn into_config(self) -> anyhow::Result<AuditConfig> {
        let log = Given {
            name: "log",
            mode: self.audit_log_mode,
            buffer: self.audit_log_batch_buffer_size,
            most: self.audit_log_batch_max_size,
            wait: self.audit_log_batch_max_wait,
            throttle: self.audit_log_batch_throttle_enable,
            qps: self.audit_log_batch_throttle_qps,
            burst: self.audit_log_batch_throttle_burst,
            truncate: self.audit_log_truncate_enabled,
            event: self.audit_log_truncate_max_event_size,
            batch: self.audit_log_truncate_max_batch_size,
        };
        let webhook = Given {
            name: "webhook",
            mode: self.audit_webhook_mode,
            buffer: self.audit_webhook_batch_buffer_size,
            most: self.audit_webhook_batch_max_size,
            wait: self.audit_webhook_batch_max_wait,
            throttle: self.audit_webhook_batch_throttle_enable,
            qps: self.audit_webhook_batch_throttle_qps,
            burst: self.audit_webhook_batch_throttle_burst,
            truncate: self.audit_webhook_truncate_enabled,
            event: self.audit_webhook_truncate_max_event_size,
            batch: self.audit_webhook_truncate_max_batch_size,
        };
        let (log_backend, webhook_backend) = (log.backend()?, webhook.backend()?);
        Ok(AuditConfig {
            policy_file: self.audit_policy_file,
            log: self.audit_log_path.map(|path| LogConfig {
                path,
                max_size: self.audit_log_maxsize,
                max_backup: self.audit_log_maxbackup,
                max_age: self.audit_log_maxage,
            }),
            log_backend,
            webhook: self.audit_webhook_config_file.map(|file| WebhookConfig {
                file,
                initial_backoff: self.audit_webhook_initial_backoff,
                backend: webhook_backend,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use super::*;

    #[test]
    fn backends_have_upstreams_defaults() {
        let audit = parse("--audit-webhook-config-file=/f").expect("valid").audit;
        assert_eq!(audit.log_backend, BackendConfig::default());
        let webhook = audit.webhook.expect("a webhook");
        let wait = Duration::from_secs(30);
        let batch = Batch { buffer: 10_000, most: 400, wait, throttle: Some((10.0, 15)) };
        assert_eq!(webhook.backend, BackendConfig { mode: Mode::Batch(batch), truncate: None });
        let log =
            parse("--audit-log-mode=batch --audit-log-truncate-enabled").expect("valid").audit.log_backend;
        let batch = Batch { buffer: 10_000, most: 1, wait: Duration::ZERO, throttle: None };
        let truncate = Some(Truncate { event: 102_400 });
        assert_eq!(log, BackendConfig { mode: Mode::Batch(batch), truncate });
        for (line, why) in [
            ("--audit-webhook-mode=later", "invalid value 'later'"),
            ("--audit-webhook-batch-max-size=0", "max batch size 0, must be a positive number"),
            ("--audit-webhook-batch-throttle-qps=0", "throttle QPS 0, must be a positive number"),
            (
                "--audit-log-truncate-enabled --audit-log-truncate-max-batch-size=1",
                "must be greater than max event size (102400)",
            ),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{error}");
        }
    }
}
