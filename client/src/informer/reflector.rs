//! Keeps one cache in step with the server: list, watch, resume, list again when history is gone.

use std::time::Duration;

use futures::StreamExt;
use kube::api::{ListParams, VersionMatch, WatchParams};
use kube::core::{ObjectList, Request, WatchEvent};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::store::Change;
use super::{Cached, Informer, Target, lenient};
use crate::object::resource_version;
use crate::{Client, chain};

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(10);

/// Why a watch ended.
enum Ended {
    /// The server closed it in good order, or the connection broke: go on from the last version.
    Resume,
    /// The history is gone: list again.
    Expired,
}

/// Runs until `token` is cancelled.
pub(super) async fn run<K: Cached>(
    client: Client,
    target: Target,
    informer: Informer<K>,
    token: CancellationToken,
) {
    tokio::select! {
        () = token.cancelled() => {}
        () = follow(&client, &target, &informer) => {}
    }
}

async fn follow<K: Cached>(client: &Client, target: &Target, informer: &Informer<K>) {
    let mut retry = FIRST_RETRY;
    let mut from_cache = true;
    loop {
        match list::<K>(client, target, from_cache).await {
            Ok((objects, version)) => {
                retry = FIRST_RETRY;
                informer.apply(Change::Replace(objects, version));
                informer.shared.synced.send_replace(true);
                watch_until_expired(client, target, informer, version).await;
                from_cache = false;
            }
            Err(error) => {
                if retry > Duration::from_secs(1) {
                    warn!(resource = target.what, error = %chain(&error), "list failed, will retry");
                } else {
                    debug!(resource = target.what, error = %chain(&error), "list failed, will retry");
                }
                pause(&mut retry).await;
            }
        }
    }
}

/// Watches from `version` on, through any number of broken connections, until the server has forgotten it.
async fn watch_until_expired<K: Cached>(
    client: &Client,
    target: &Target,
    informer: &Informer<K>,
    mut version: u64,
) {
    let mut retry = FIRST_RETRY;
    loop {
        let before = version;
        match watch(client, target, informer, &mut version).await {
            Ok(Ended::Expired) => return,
            Ok(Ended::Resume) => {
                if version == before {
                    pause(&mut retry).await;
                }
            }
            Err(error) if crate::is_status(&error, 410) => return,
            Err(error) => {
                debug!(resource = target.what, error = %chain(&error), "watch failed, will retry");
                pause(&mut retry).await;
            }
        }
        if version != before {
            retry = FIRST_RETRY;
        }
    }
}

async fn list<K: Cached>(client: &Client, target: &Target, from_cache: bool) -> kube::Result<(Vec<K>, u64)> {
    let mut params = ListParams {
        label_selector: target.selection.labels.clone(),
        field_selector: target.selection.fields.clone(),
        ..ListParams::default()
    };
    if from_cache {
        params.resource_version = Some("0".to_owned());
        params.version_match = Some(VersionMatch::NotOlderThan);
    }
    let request = || {
        let request = Request::new(target.url.as_str());
        let request =
            if target.metadata_only { request.list_metadata(&params) } else { request.list(&params) };
        request.map_err(kube::Error::BuildRequest)
    };
    let list: ObjectList<K> = match client.request(request()?).await {
        Err(kube::Error::SerdeError(_)) => lenient::unwrapped(client.request(request()?).await?),
        answer => answer?,
    };
    let version = list.metadata.resource_version.as_deref().and_then(|rv| rv.parse().ok()).unwrap_or(0);
    Ok((list.items, version))
}

async fn watch<K: Cached>(
    client: &Client,
    target: &Target,
    informer: &Informer<K>,
    version: &mut u64,
) -> kube::Result<Ended> {
    let params = WatchParams {
        label_selector: target.selection.labels.clone(),
        field_selector: target.selection.fields.clone(),
        timeout: Some(rand::random_range(240..290)),
        bookmarks: true,
        send_initial_events: false,
    };
    let request = Request::new(target.url.as_str());
    let from = version.to_string();
    let request = if target.metadata_only {
        request.watch_metadata(&params, &from)
    } else {
        request.watch(&params, &from)
    };
    let request = request.map_err(kube::Error::BuildRequest)?;
    let stream = client.request_events::<K>(request).await?;
    futures::pin_mut!(stream);
    while let Some(event) = stream.next().await {
        let event = match event {
            // A list is read more leniently.
            Err(error) if is_unreadable(&error) => return Ok(Ended::Expired),
            event => event?,
        };
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                *version = resource_version(&object).max(*version);
                informer.apply(Change::Put(object));
            }
            WatchEvent::Deleted(object) => {
                *version = resource_version(&object).max(*version);
                informer.apply(Change::Delete(object));
            }
            WatchEvent::Bookmark(bookmark) => {
                if let Ok(reached) = bookmark.metadata.resource_version.parse() {
                    *version = reached;
                    informer.apply(Change::Progress(reached));
                }
            }
            WatchEvent::Error(status) if status.code == 410 => return Ok(Ended::Expired),
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    Ok(Ended::Resume)
}

/// Whether an event did not fit its type. The client library takes such lines for errors that say nothing.
fn is_unreadable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0 && status.reason.is_empty() && status.message.is_empty(),
        _ => false,
    }
}

/// Waits before another try, longer each time, with jitter.
async fn pause(retry: &mut Duration) {
    tokio::time::sleep(retry.mul_f64(rand::random_range(0.8..1.2))).await;
    *retry = (*retry * 2).min(LONGEST_RETRY);
}
