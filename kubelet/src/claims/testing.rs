//! A scripted driver of devices on a real socket, which speaks both versions.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use proto::dra::health::dra_resource_health_server::{DraResourceHealth, DraResourceHealthServer};
use proto::dra::health::{
    DeviceHealth, DeviceIdentifier, HealthStatus, NodeWatchResourcesRequest, NodeWatchResourcesResponse,
};
use proto::dra::v1::dra_plugin_server::{DraPlugin, DraPluginServer};
use proto::dra::v1::*;
use proto::dra::v1beta1;
use proto::dra::v1beta1::dra_plugin_server::{DraPlugin as OldPlugin, DraPluginServer as OldServer};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// What the driver does and was asked.
#[derive(Clone, Default)]
pub(crate) struct Script {
    /// Calls so far, with the claims' names.
    pub(crate) calls: Arc<Mutex<Vec<String>>>,
    /// Claims that fail, by name; `skip` leaves it out of the answer.
    pub(crate) failing: Arc<Mutex<HashMap<String, &'static str>>>,
    /// The claims it has prepared, by name.
    pub(crate) prepared: Arc<Mutex<BTreeSet<String>>>,
    /// The next answer does not arrive.
    pub(crate) lost: Arc<AtomicBool>,
    /// What it tells of its devices.
    devices: watch::Sender<Vec<DeviceHealth>>,
    ended: CancellationToken,
}

/// A running driver; it ends with this.
pub(crate) struct Plugin {
    pub(crate) script: Script,
    pub(crate) socket: PathBuf,
    _stop: DropGuard,
}

impl Plugin {
    /// Serves a driver in this directory.
    pub(crate) fn start(directory: &Path) -> Self {
        Self::start_at(directory.join(format!("{:08x}.sock", rand::random::<u32>())))
    }

    /// Serves a driver on this socket, which one that ended may have left behind.
    pub(crate) fn start_at(socket: PathBuf) -> Self {
        // It may not be there.
        let _ = std::fs::remove_file(&socket);
        let listener = tokio::net::UnixListener::bind(&socket).expect("bind");
        let token = CancellationToken::new();
        let script = Script { ended: token.clone(), ..Script::default() };
        let (service, stop) = (script.clone(), token.clone());
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder()
                .add_service(DraPluginServer::new(service.clone()))
                .add_service(DraResourceHealthServer::new(service.clone()))
                .add_service(OldServer::new(service));
            let incoming = UnixListenerStream::new(listener);
            server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await.expect("serves");
        });
        Self { script, socket, _stop: token.drop_guard() }
    }

    /// Ends it, and leaves its socket behind.
    pub(crate) fn stop(&self) {
        self.script.ended.cancel();
    }

    /// Tells how its devices are, of the pool `pool`.
    pub(crate) fn tell(&self, told: &str) {
        self.script.devices.send_replace(health(told));
    }

    /// The calls since the last look.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.script.calls.lock())
    }
}

impl Script {
    /// Whether an answer arrives.
    fn answer(&self) -> Result<(), Status> {
        if self.lost.swap(false, Ordering::SeqCst) { Err(Status::unavailable("lost")) } else { Ok(()) }
    }

    /// What is said of each claim: nothing, an error, or that it is left out.
    fn call(&self, what: &str, names: &[(String, String)]) -> HashMap<String, String> {
        let mut listed: Vec<_> = names.iter().map(|(_, name)| name.as_str()).collect();
        listed.sort_unstable();
        self.calls.lock().push(format!("{what} {}", listed.join(" ")));
        let failing = self.failing.lock();
        let said = names.iter().filter_map(|(uid, name)| match failing.get(name) {
            Some(&"skip") => None,
            Some(error) => Some((uid.clone(), (*error).to_owned())),
            None => Some((uid.clone(), String::new())),
        });
        said.collect()
    }
}

#[tonic::async_trait]
impl DraPlugin for Script {
    async fn node_prepare_resources(
        &self,
        request: Request<NodePrepareResourcesRequest>,
    ) -> Answer<NodePrepareResourcesResponse> {
        let claims = request.into_inner().claims;
        let names: Vec<_> = claims.iter().map(|c| (c.uid.clone(), c.name.clone())).collect();
        let said = self.call("prepare", &names);
        self.prepared.lock().extend(names.iter().map(|(_, name)| name.clone()));
        self.answer()?;
        let answer = |(uid, name): &(String, String)| {
            let error = said.get(uid)?.clone();
            let device = |request: &str| Device {
                request_names: vec![request.to_owned()],
                pool_name: "pool".into(),
                device_name: format!("{name}-{request}"),
                cdi_device_ids: vec![format!("d.example/dev={name}-{request}")],
                share_id: None,
            };
            let devices = if error.is_empty() { vec![device("one"), device("two")] } else { Vec::new() };
            Some((uid.clone(), NodePrepareResourceResponse { devices, error }))
        };
        Ok(Response::new(NodePrepareResourcesResponse { claims: names.iter().filter_map(answer).collect() }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<NodeUnprepareResourcesRequest>,
    ) -> Answer<NodeUnprepareResourcesResponse> {
        let claims = request.into_inner().claims;
        let names: Vec<_> = claims.iter().map(|c| (c.uid.clone(), c.name.clone())).collect();
        let said = self.call("unprepare", &names).into_iter();
        self.prepared.lock().retain(|name| names.iter().all(|(_, gone)| gone != name));
        self.answer()?;
        let claims = said.map(|(uid, error)| (uid, NodeUnprepareResourceResponse { error })).collect();
        Ok(Response::new(NodeUnprepareResourcesResponse { claims }))
    }
}

#[tonic::async_trait]
impl DraResourceHealth for Script {
    type NodeWatchResourcesStream =
        Pin<Box<dyn Stream<Item = Result<NodeWatchResourcesResponse, Status>> + Send>>;

    async fn node_watch_resources(
        &self,
        _: Request<NodeWatchResourcesRequest>,
    ) -> Answer<Self::NodeWatchResourcesStream> {
        let lists = WatchStream::new(self.devices.subscribe());
        let lists = lists.map(|devices| Ok(NodeWatchResourcesResponse { devices }));
        Ok(Response::new(Box::pin(lists.take_until(self.ended.clone().cancelled_owned()))))
    }
}

#[tonic::async_trait]
impl OldPlugin for Script {
    async fn node_prepare_resources(
        &self,
        request: Request<v1beta1::NodePrepareResourcesRequest>,
    ) -> Answer<v1beta1::NodePrepareResourcesResponse> {
        let claims = request.into_inner().claims;
        let names: Vec<_> = claims.iter().map(|c| (c.uid.clone(), c.name.clone())).collect();
        let said = self.call("prepare-v1beta1", &names).into_iter();
        let device = v1beta1::Device {
            pool_name: "pool".into(),
            device_name: "old".into(),
            cdi_device_ids: vec!["d.example/dev=old".into()],
            ..v1beta1::Device::default()
        };
        let claims = said.map(|(uid, error)| {
            (uid, v1beta1::NodePrepareResourceResponse { devices: vec![device.clone()], error })
        });
        Ok(Response::new(v1beta1::NodePrepareResourcesResponse { claims: claims.collect() }))
    }

    async fn node_unprepare_resources(
        &self,
        request: Request<v1beta1::NodeUnprepareResourcesRequest>,
    ) -> Answer<v1beta1::NodeUnprepareResourcesResponse> {
        let claims = request.into_inner().claims;
        let names: Vec<_> = claims.iter().map(|c| (c.uid.clone(), c.name.clone())).collect();
        let said = self.call("unprepare-v1beta1", &names).into_iter();
        let claims =
            said.map(|(uid, error)| (uid, v1beta1::NodeUnprepareResourceResponse { error })).collect();
        Ok(Response::new(v1beta1::NodeUnprepareResourcesResponse { claims }))
    }
}

/// Devices and how they are: `a:Healthy b:Unknown`.
pub(crate) fn health(told: &str) -> Vec<DeviceHealth> {
    let one = |told: &str| {
        let (name, word) = told.split_once(':').expect("name:state");
        let health = match word {
            "Healthy" => HealthStatus::Healthy,
            "Unhealthy" => HealthStatus::Unhealthy,
            _ => HealthStatus::Unknown,
        };
        let device = DeviceIdentifier { pool_name: "pool".into(), device_name: name.into() };
        DeviceHealth { device: Some(device), health: health.into(), ..DeviceHealth::default() }
    };
    told.split_whitespace().map(one).collect()
}

/// A claim of the driver, allocated, for these pods; owned by the first.
pub(crate) fn claim(name: &str, pods: &[&str]) -> Value {
    let users: Vec<_> = pods.iter().map(|uid| json!({"resource": "pods", "name": uid, "uid": uid})).collect();
    let owner = pods
        .first()
        .map(|uid| json!({"apiVersion": "v1", "kind": "Pod", "name": uid, "uid": uid, "controller": true}));
    json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": format!("uid-{name}"),
            "ownerReferences": owner.into_iter().collect::<Vec<_>>(),
        },
        "spec": {},
        "status": {
            "reservedFor": users,
            "allocation": {"devices": {"results": [
                {"request": "one", "driver": "d.example", "pool": "pool", "device": "a"},
                {"request": "two", "driver": "d.example", "pool": "pool", "device": "b"},
            ]}},
        },
    })
}
