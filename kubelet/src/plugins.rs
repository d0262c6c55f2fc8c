//! Plugins that make themselves known: sockets in a directory that is watched. Drivers of volumes (CSI) and of dynamic
//! resources (DRA), and device plugins are known here; others are told so.
//!
//! One task looks at the directory, at once when it changes and now and then by itself. A socket that was replaced counts
//! as another; one that is gone takes its plugin with it. After a restart everything is found anew.

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use proto::plugin_registration::registration_client::RegistrationClient;
use proto::plugin_registration::{InfoRequest, PluginInfo, RegistrationStatus};
use tokio::sync::Notify;
use tonic::Request;

use crate::claims::Claims;
use crate::csi::Csi;
use crate::devices::Devices;
use crate::runtime::unix_channel;
use crate::watching;

/// How long a plugin may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(10);
/// A plugin that could not be registered is asked again after this.
const RETRY: Duration = Duration::from_secs(2);

/// What a socket is told apart by.
type Identity = (u64, i64, i64);

/// Who takes in plugins, by their kind.
#[derive(Clone)]
pub struct Handlers {
    /// `CSIPlugin`.
    pub csi: Csi,
    /// `DevicePlugin`.
    pub devices: Devices,
    /// `DRAPlugin`.
    pub claims: Claims,
}

/// A plugin that was taken in.
#[derive(Clone, Debug)]
struct Known {
    identity: Identity,
    kind: Kind,
    name: String,
    endpoint: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Csi,
    Device,
    Dra,
}

impl Handlers {
    async fn take_in(&self, socket: &Path, info: &PluginInfo) -> Result<Kind, String> {
        let endpoint = &endpoint(socket, info);
        match info.r#type.as_str() {
            "CSIPlugin" => {
                self.csi.register(&info.name, endpoint, &info.supported_versions).await.map(|()| Kind::Csi)
            }
            "DevicePlugin" => {
                Devices::validate(&info.name, &info.supported_versions)?;
                self.devices.connect(&info.name, endpoint).await.map(|()| Kind::Device)
            }
            "DRAPlugin" => {
                self.claims.register(&info.name, endpoint, &info.supported_versions).map(|()| Kind::Dra)
            }
            other => {
                let socket = socket.display();
                Err(format!("no handler registered for plugin type: {other} at socket {socket}"))
            }
        }
    }

    async fn let_go(&self, plugin: &Known) {
        match plugin.kind {
            Kind::Csi => self.csi.deregister(&plugin.name).await,
            Kind::Device => self.devices.disconnect(&plugin.name),
            Kind::Dra => self.claims.deregister(&plugin.name, &plugin.endpoint),
        }
    }
}

/// Where a plugin is called: on the socket it registered by, unless it names another.
fn endpoint(socket: &Path, info: &PluginInfo) -> PathBuf {
    if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) }
}

/// Registers the plugins whose sockets are in `directory`.
pub fn run(directory: PathBuf, handlers: Handlers, tasks: &Tasks) {
    tasks.spawn("plugins", |token| async move {
        let changed = Arc::new(Notify::new());
        if let Err(error) = tokio::fs::create_dir_all(&directory).await {
            tracing::error!(path = %directory.display(), %error, "no directory for plugins");
        }
        let _watcher = watching::watch_all(&directory, changed.clone());
        let mut known = HashMap::new();
        loop {
            let whole = tokio::select! {
                () = token.cancelled() => return,
                whole = look(&directory, &handlers, &mut known) => whole,
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = changed.notified() => {}
                () = tokio::time::sleep(if whole { LOOK } else { RETRY }) => {}
            }
        }
    });
}

/// Brings what is registered to what is there. Whether all of it could be.
async fn look(directory: &Path, handlers: &Handlers, known: &mut HashMap<PathBuf, Known>) -> bool {
    let there = sockets(directory);
    let gone: Vec<PathBuf> = known
        .iter()
        .filter(|(path, plugin)| there.get(*path) != Some(&plugin.identity))
        .map(|(path, _)| path.clone())
        .collect();
    for path in gone {
        if let Some(plugin) = known.remove(&path) {
            handlers.let_go(&plugin).await;
        }
    }
    let mut whole = true;
    for (path, identity) in there {
        if known.contains_key(&path) {
            continue;
        }
        match register(&path, handlers).await {
            Ok((kind, info)) => {
                let endpoint = endpoint(&path, &info);
                known.insert(path, Known { identity, kind, name: info.name, endpoint });
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

async fn register(socket: &Path, handlers: &Handlers) -> Result<(Kind, PluginInfo), String> {
    let mut plugin = RegistrationClient::new(unix_channel(socket));
    let mut request = Request::new(InfoRequest {});
    request.set_timeout(TIMEOUT);
    let info = tokio::time::timeout(TIMEOUT, plugin.get_info(request)).await;
    let info = info.map_err(|_| "no answer".to_owned())?.map_err(|s| s.message().to_owned())?.into_inner();
    let result = handlers.take_in(socket, &info).await;
    let error = result.as_ref().err().cloned().unwrap_or_default();
    let told = RegistrationStatus { plugin_registered: result.is_ok(), error };
    let answered = tokio::time::timeout(TIMEOUT, plugin.notify_registration_status(told)).await;
    if !matches!(answered, Ok(Ok(_))) {
        tracing::warn!(socket = %socket.display(), "plugin does not take the answer to its registration");
    }
    result.map(|kind| (kind, info))
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use proto::csi::node_server::NodeServer;
    use proto::plugin_registration::RegistrationStatusResponse;
    use proto::plugin_registration::registration_server::{Registration, RegistrationServer};
    use serde_json::json;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::{Response, Status};

    use super::*;
    use crate::csi::tests::Driver;
    use crate::fake_api::FakeApi;
    use crate::layout::Layout;

    /// A plugin that keeps what it is told of its registration.
    #[derive(Clone, Default)]
    struct Plugin {
        kind: &'static str,
        told: Arc<Mutex<Vec<String>>>,
    }

    #[tonic::async_trait]
    impl Registration for Plugin {
        async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
            Ok(Response::new(PluginInfo {
                r#type: self.kind.to_owned(),
                name: "d.example".to_owned(),
                endpoint: String::new(),
                supported_versions: vec!["1.0.0".to_owned()],
            }))
        }

        async fn notify_registration_status(
            &self,
            request: Request<RegistrationStatus>,
        ) -> Result<Response<RegistrationStatusResponse>, Status> {
            let told = request.into_inner();
            self.told.lock().push(format!("{} {}", told.plugin_registered, told.error));
            Ok(Response::new(RegistrationStatusResponse {}))
        }
    }

    /// Serves a plugin, which is a driver too, on this socket.
    fn serve(socket: &Path, kind: &'static str) -> Plugin {
        let listener = tokio::net::UnixListener::bind(socket).expect("bind");
        let plugin = Plugin { kind, ..Plugin::default() };
        let server = tonic::transport::Server::builder()
            .add_service(RegistrationServer::new(plugin.clone()))
            .add_service(NodeServer::new(Driver::default()));
        // Ends with the runtime of the test.
        tokio::spawn(server.serve_with_incoming(UnixListenerStream::new(listener)));
        plugin
    }

    #[tokio::test]
    async fn sockets_come_and_go_with_their_plugins() {
        let root = std::env::temp_dir().join(format!("plugins-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&root).expect("create");
        let api = FakeApi::default();
        let csi = Csi::new(crate::csi::Deps {
            client: Some(api.client()),
            node_name: "n1".into(),
            layout: Layout::new(root.join("lib"), root.join("logs"), root.join("links")),
            node: Arc::new(|| None),
            poke: Arc::default(),
            recorder: None,
        });
        let tasks = Tasks::new();
        let devices = Devices::new(crate::devices::Deps {
            directory: root.join("device-plugins"),
            numa: vec![0],
            poke: Arc::default(),
            tasks: tasks.clone(),
        });
        let claims = Claims::open(None, "n1".into(), &root, &tasks).expect("opened");
        let handlers = Handlers { csi, devices, claims };
        let mut known = HashMap::new();
        assert!(look(&root, &handlers, &mut known).await, "nothing is there");

        let other = serve(&root.join("other.sock"), "OtherPlugin");
        assert!(!look(&root, &handlers, &mut known).await);
        assert!(other.told.lock()[0].starts_with("false no handler registered for plugin type: OtherPlugin"));
        std::fs::remove_file(root.join("other.sock")).expect("remove");

        let driver = serve(&root.join("driver.sock"), "CSIPlugin");
        std::fs::write(root.join("file"), "no socket").expect("write");
        let node = json!({"metadata": {"name": "n1", "uid": "u"}});
        let drivers = json!({"metadata": {"name": "n1"}, "spec": {"drivers": []}});
        for answer in [&node, &node, &drivers, &drivers] {
            api.answer(200, answer.clone());
        }
        assert!(look(&root, &handlers, &mut known).await);
        assert_eq!(*driver.told.lock(), ["true "]);
        assert!(look(&root, &handlers, &mut known).await);
        assert_eq!(driver.told.lock().len(), 1, "it is known");

        std::fs::remove_file(root.join("driver.sock")).expect("remove");
        let ids = json!({"metadata": {"name": "n1", "annotations": {
            "csi.volume.kubernetes.io/nodeid": r#"{"d.example":"id-of-n1"}"#,
        }}});
        let told = json!({"metadata": {"name": "n1"}, "spec": {"drivers": [{"name": "d.example", "nodeID": "id-of-n1"}]}});
        for answer in [&ids, &node, &told, &drivers] {
            api.answer(200, answer.clone());
        }
        assert!(look(&root, &handlers, &mut known).await);
        assert!(known.is_empty());
        let asked = api.asked(8).await;
        assert_eq!(
            (asked[7].what.as_str(), &asked[7].body["spec"]["drivers"]),
            ("PUT /apis/storage.k8s.io/v1/csinodes/n1", &json!([]))
        );
        std::fs::remove_dir_all(root).expect("remove");
    }
}
