//! `/healthz`, `/livez`, `/readyz` with their individual checks (upstream `apiserver/pkg/server/healthz`).

use http::{Response, StatusCode};

use crate::body::Body;
use crate::server::{Context, Server, response};

/// The check of key services, where there are any.
const KEY_SERVICES: &str = "kms-providers";

/// Which of the three is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// `/healthz`
    Healthz,
    /// `/livez`
    Livez,
    /// `/readyz`
    Readyz,
}

impl Probe {
    /// The probe at a path, and the check named below it.
    #[must_use]
    pub fn of(path: &str) -> Option<(Self, &str)> {
        let rest = path.strip_prefix('/')?;
        let (name, check) = rest.split_once('/').unwrap_or((rest, ""));
        let probe = match name {
            "healthz" => Self::Healthz,
            "livez" => Self::Livez,
            "readyz" => Self::Readyz,
            _ => return None,
        };
        Some((probe, check))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Healthz => "healthz",
            Self::Livez => "livez",
            Self::Readyz => "readyz",
        }
    }

    fn checks(self) -> &'static [&'static str] {
        match self {
            Self::Healthz | Self::Livez => &["ping", "log", "etcd", "poststarthook/bootstrap"],
            Self::Readyz => &[
                "ping",
                "log",
                "etcd",
                "etcd-readiness",
                "informer-sync",
                "poststarthook/bootstrap",
                "shutdown",
            ],
        }
    }
}

/// The outcome of one check.
async fn run(server: &Server, probe: Probe, check: &str) -> bool {
    match check {
        "ping" | "log" => true,
        "etcd" | "etcd-readiness" => {
            let asked = server.cacher.store().current_revision();
            matches!(tokio::time::timeout(std::time::Duration::from_secs(2), asked).await, Ok(Ok(_)))
        }
        "informer-sync" => server.is_loaded(),
        // A server that is starting is alive.
        "poststarthook/bootstrap" => probe == Probe::Livez || server.is_bootstrapped(),
        "shutdown" => !server.token.is_cancelled(),
        KEY_SERVICES => server.encryption.as_ref().is_none_or(|keeper| keeper.trouble().is_none()),
        _ => false,
    }
}

/// Answers a probe.
pub async fn serve(cx: &Context, probe: Probe, only: &str) -> Response<Body> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let keys = cx.server.encryption.as_ref().is_some_and(|keeper| keeper.is_watched());
    let all = [probe.checks(), if keys { &[KEY_SERVICES] } else { &[] }].concat();
    let all = all.as_slice();
    if !only.is_empty() {
        if !all.contains(&only) {
            return crate::server::service::page_not_found();
        }
        return if run(&cx.server, probe, only).await {
            response::bytes(StatusCode::OK, TEXT, "ok")
        } else {
            response::bytes(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                "internal server error: reason withheld\n",
            )
        };
    }
    let excluded: Vec<&str> = cx.query.all("exclude").collect();
    let (mut text, mut failed) = (String::new(), false);
    for check in all {
        if excluded.contains(check) {
            text.push_str(&format!("[+]{check} excluded: ok\n"));
        } else if run(&cx.server, probe, check).await {
            text.push_str(&format!("[+]{check} ok\n"));
        } else {
            failed = true;
            text.push_str(&format!("[-]{check} failed: reason withheld\n"));
        }
    }
    for unknown in excluded.iter().filter(|name| !all.contains(name)) {
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {unknown:?}\n"));
    }
    let name = probe.name();
    if failed {
        text.push_str(&format!("{name} check failed\n"));
        return response::bytes(StatusCode::INTERNAL_SERVER_ERROR, TEXT, text);
    }
    if cx.query.first("verbose").is_some() {
        text.push_str(&format!("{name} check passed\n"));
        return response::bytes(StatusCode::OK, TEXT, text);
    }
    response::bytes(StatusCode::OK, TEXT, "ok")
}
