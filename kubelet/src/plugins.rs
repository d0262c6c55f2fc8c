//! Plugins that make themselves known: sockets in a directory that is watched. Drivers of volumes (CSI) are the one kind
//! that is known here; others are told so.
//!
//! One task looks at the directory, at once when it changes and now and then by itself. A socket that was replaced counts
//! as another; one that is gone takes its plugin with it. After a restart everything is found anew.

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use notify::{RecursiveMode, Watcher};
use proto::plugin_registration::registration_client::RegistrationClient;
use proto::plugin_registration::{InfoRequest, PluginInfo, RegistrationStatus};
use tokio::sync::Notify;
use tonic::Request;

use crate::csi::Csi;
use crate::runtime::unix_channel;

/// How long a plugin may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(10);
/// A plugin that could not be registered is asked again after this.
const RETRY: Duration = Duration::from_secs(2);

/// What a socket is told apart by.
type Identity = (u64, i64, i64);

/// Registers the plugins whose sockets are in `directory`.
pub fn run(directory: PathBuf, csi: Csi, tasks: &Tasks) {
    tasks.spawn("plugins", |token| async move {
        let changed = Arc::new(Notify::new());
        let _watch = watch(&directory, &changed);
        let mut known = HashMap::new();
        loop {
            let whole = tokio::select! {
                () = token.cancelled() => return,
                whole = look(&directory, &csi, &mut known) => whole,
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = changed.notified() => {}
                () = tokio::time::sleep(if whole { LOOK } else { RETRY }) => {}
            }
        }
    });
}

/// Watches as long as the answer lives; without a watch, looking now and then must do.
fn watch(directory: &Path, changed: &Arc<Notify>) -> Option<notify::RecommendedWatcher> {
    if let Err(error) = std::fs::create_dir_all(directory) {
        tracing::error!(path = %directory.display(), %error, "no directory for plugins");
    }
    let changed = changed.clone();
    let made = notify::recommended_watcher(move |_: notify::Result<notify::Event>| changed.notify_one());
    let watching = made.and_then(|mut watcher| {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watching
        .inspect_err(|error| tracing::warn!(path = %directory.display(), %error, "plugins are not watched"))
        .ok()
}

/// Brings what is registered to what is there. Whether all of it could be.
async fn look(directory: &Path, csi: &Csi, known: &mut HashMap<PathBuf, (Identity, String)>) -> bool {
    let there = sockets(directory);
    let gone: Vec<PathBuf> = known
        .iter()
        .filter(|(path, (identity, _))| there.get(*path) != Some(identity))
        .map(|(path, _)| path.clone())
        .collect();
    for path in gone {
        if let Some((_, name)) = known.remove(&path) {
            csi.deregister(&name).await;
        }
    }
    let mut whole = true;
    for (path, identity) in there {
        if known.contains_key(&path) {
            continue;
        }
        match register(&path, csi).await {
            Ok(name) => {
                known.insert(path, (identity, name));
            }
            Err(error) => {
                tracing::warn!(socket = %path.display(), error, "plugin could not be registered, will retry");
                whole = false;
            }
        }
    }
    whole
}

fn sockets(directory: &Path) -> HashMap<PathBuf, Identity> {
    let Ok(entries) = std::fs::read_dir(directory) else { return HashMap::new() };
    let entries = entries.flatten().filter(|e| !e.file_name().to_string_lossy().starts_with('.'));
    let found = entries.filter_map(|entry| {
        let metadata = std::fs::metadata(entry.path()).ok()?;
        let identity = (metadata.ino(), metadata.ctime(), metadata.ctime_nsec());
        metadata.file_type().is_socket().then(|| (entry.path(), identity))
    });
    found.collect()
}

async fn register(socket: &Path, csi: &Csi) -> Result<String, String> {
    let mut plugin = RegistrationClient::new(unix_channel(socket));
    let mut request = Request::new(InfoRequest {});
    request.set_timeout(TIMEOUT);
    let info = tokio::time::timeout(TIMEOUT, plugin.get_info(request)).await;
    let info = info.map_err(|_| "no answer".to_owned())?.map_err(|s| s.message().to_owned())?.into_inner();
    let result = accept(socket, csi, &info).await;
    let error = result.as_ref().err().cloned().unwrap_or_default();
    let told = RegistrationStatus { plugin_registered: result.is_ok(), error };
    let answered = tokio::time::timeout(TIMEOUT, plugin.notify_registration_status(told)).await;
    if !matches!(answered, Ok(Ok(_))) {
        tracing::warn!(socket = %socket.display(), "plugin does not take the answer to its registration");
    }
    result.map(|()| info.name)
}

async fn accept(socket: &Path, csi: &Csi, info: &PluginInfo) -> Result<(), String> {
    if info.r#type != "CSIPlugin" {
        return Err(format!(
            "no handler registered for plugin type: {} at socket {}",
            info.r#type,
            socket.display()
        ));
    }
    let endpoint = if info.endpoint.is_empty() { socket } else { Path::new(&info.endpoint) };
    csi.register(&info.name, endpoint, &info.supported_versions).await
}
