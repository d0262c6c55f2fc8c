//! Opening the store, and forgetting its history.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use store::Store;
use store::embedded::Embedded;
use store::etcd::{Config, Connection, Dial, Etcd, Tls};
use tokio_util::sync::CancellationToken;

use crate::cacher::Cacher;
use crate::config::StorageConfig;
use crate::remote::Dialer;

/// How long an etcd may take to answer at first.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the store. `dialer`: how etcd is reached.
pub async fn open(config: &StorageConfig, dialer: Dialer) -> anyhow::Result<Arc<dyn Store>> {
    match config {
        StorageConfig::Embedded { data_dir } => {
            let store = Embedded::open(data_dir).await;
            Ok(Arc::new(store.with_context(|| format!("open the store in {}", data_dir.display()))?))
        }
        StorageConfig::Etcd { servers, ca_file, cert_file, key_file } => {
            let tls = Tls { ca: read(ca_file)?, cert: read(cert_file)?, key: read(key_file)? };
            // `compact` below sees to the history.
            let config = Config {
                tls: Some(tls),
                request_timeout: PATIENCE,
                compaction_interval: None,
                dial: dial(dialer),
                ..Config::new(servers.clone())
            };
            let store = Etcd::connect(config).await;
            Ok(Arc::new(store.with_context(|| format!("cannot reach etcd at {}", servers.join(",")))?))
        }
    }
}

/// Opens connections to etcd, if not straight.
fn dial(dialer: Dialer) -> Option<Dial> {
    if matches!(dialer, Dialer::Direct) {
        return None;
    }
    Some(Arc::new(move |host, port| {
        let dialer = dialer.clone();
        Box::pin(async move {
            let stream = dialer.dial(&host, port).await.map_err(std::io::Error::from)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }))
}

fn read(file: &Option<PathBuf>) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(file) = file else { return Ok(None) };
    std::fs::read(file).map(Some).with_context(|| format!("read {}", file.display()))
}

/// Forgets what is older than one interval, again and again.
pub async fn compact(cacher: Cacher, interval: Duration, token: CancellationToken) {
    if interval.is_zero() {
        return;
    }
    let mut previous = None;
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        if let Some(revision) = previous.take()
            && let Err(error) = cacher.compact(revision).await
        {
            // Another server may have done it.
            tracing::debug!(%error, "history was not compacted");
        }
        match cacher.store().current_revision().await {
            Ok(revision) => previous = Some(revision),
            Err(error) => tracing::warn!(%error, "could not ask for the store's revision"),
        }
    }
}
