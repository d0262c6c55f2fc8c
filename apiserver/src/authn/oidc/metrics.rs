//! What is counted of tokens that others sign, under upstream's names.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use sha2::{Digest, Sha256};

/// A name that tells nothing of what it stands for.
fn hashed(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A token of an issuer has been believed or not.
pub(super) fn authenticated(issuer: &str, success: bool, took: Duration) {
    let result = if success { "success" } else { "failure" };
    histogram!("apiserver_authentication_jwt_authenticator_latency_seconds",
        "result" => result, "jwt_issuer_hash" => hashed(issuer))
    .record(took.as_secs_f64());
}

/// A new configuration has come into effect or not.
pub(super) fn reloaded(success: bool) {
    let status = if success { "success" } else { "failure" };
    counter!("apiserver_authentication_config_controller_automatic_reloads_total", "status" => status)
        .increment(1);
    gauge!("apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds",
        "status" => status)
    .set(jiff::Timestamp::now().as_second() as f64);
}
