//! A scripted device plugin on a real socket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;
use proto::device_plugin::device_plugin_server::{DevicePlugin, DevicePluginServer};
use proto::device_plugin::registration_client::RegistrationClient;
use proto::device_plugin::*;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::{UnixListenerStream, WatchStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

use super::Devices;
use crate::runtime::unix_channel;

type Answer<T> = Result<Response<T>, Status>;

/// What the plugin does and was asked.
#[derive(Clone)]
pub(crate) struct Script {
    /// Calls so far.
    pub(crate) calls: Arc<Mutex<Vec<String>>>,
    /// Calls that fail, by name.
    pub(crate) failing: Arc<Mutex<HashMap<&'static str, &'static str>>>,
    /// Devices it prefers; none of its own will.
    pub(crate) preferred: Arc<Mutex<Vec<String>>>,
    options: DevicePluginOptions,
    devices: watch::Sender<Vec<Device>>,
    ended: CancellationToken,
}

/// A running plugin; it ends with this.
pub(crate) struct Plugin {
    pub(crate) script: Script,
    socket: PathBuf,
    _stop: DropGuard,
}

/// `ID[:health][@NODE+NODE]`.
pub(crate) fn device(text: &str) -> Device {
    let (id, numa) = text.split_once('@').map_or((text, None), |(id, numa)| (id, Some(numa)));
    let (id, health) = id.split_once(':').unwrap_or((id, "Healthy"));
    let node = |n: &str| NumaNode { id: n.parse().expect("a number") };
    let topology = numa.map(|numa| TopologyInfo { nodes: numa.split('+').map(node).collect() });
    Device { id: id.to_owned(), health: health.to_owned(), topology }
}

fn devices(text: &str) -> Vec<Device> {
    text.split_whitespace().map(device).collect()
}

impl Plugin {
    /// Starts a plugin with these devices on a socket in the directory of `devices`, and registers it.
    pub(crate) async fn start(house: &Devices, resource: &str, has: &str) -> Self {
        Self::with(house, resource, has, DevicePluginOptions::default()).await
    }

    pub(crate) async fn with(
        house: &Devices,
        resource: &str,
        has: &str,
        options: DevicePluginOptions,
    ) -> Self {
        let directory = &house.inner.directory;
        // Paths of sockets are short.
        let name = format!("{:08x}.sock", rand::random::<u32>());
        let socket = directory.join(&name);
        let listener = tokio::net::UnixListener::bind(&socket).expect("bind");
        let token = CancellationToken::new();
        let script = Script {
            calls: Arc::default(),
            failing: Arc::default(),
            preferred: Arc::default(),
            options,
            devices: watch::Sender::new(devices(has)),
            ended: token.clone(),
        };
        let (service, stop) = (DevicePluginServer::new(script.clone()), token.clone());
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            let incoming = UnixListenerStream::new(listener);
            server.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await.expect("serves");
        });
        let plugin = Self { script, socket, _stop: token.drop_guard() };
        let request = RegisterRequest {
            version: "v1beta1".into(),
            endpoint: name,
            resource_name: resource.into(),
            options: None,
        };
        register(directory, request).await.expect("registered");
        plugin
    }

    /// Tells of other devices.
    pub(crate) fn tell(&self, has: &str) {
        self.script.devices.send_replace(devices(has));
    }

    /// The calls since the last look.
    pub(crate) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.script.calls.lock())
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.socket));
    }
}

/// Registers at the kubelet whose directory this is; the text of a refusal.
pub(crate) async fn register(directory: &Path, request: RegisterRequest) -> Result<(), String> {
    let mut client = RegistrationClient::new(unix_channel(&directory.join("kubelet.sock")));
    client.register(request).await.map(drop).map_err(|status| status.message().to_owned())
}

impl Script {
    fn call(&self, name: &'static str, ids: &[String]) -> Result<(), Status> {
        let mut ids = ids.to_vec();
        ids.sort();
        self.calls.lock().push(format!("{name} {}", ids.join(" ")).trim_end().to_owned());
        self.failing.lock().get(name).map_or(Ok(()), |why| Err(Status::unknown(*why)))
    }
}

#[tonic::async_trait]
impl DevicePlugin for Script {
    type ListAndWatchStream = Pin<Box<dyn Stream<Item = Result<ListAndWatchResponse, Status>> + Send>>;

    async fn get_device_plugin_options(&self, _: Request<Empty>) -> Answer<DevicePluginOptions> {
        Ok(Response::new(self.options))
    }

    async fn list_and_watch(&self, _: Request<Empty>) -> Answer<Self::ListAndWatchStream> {
        let lists = WatchStream::new(self.devices.subscribe());
        let lists = lists.map(|devices| Ok(ListAndWatchResponse { devices }));
        Ok(Response::new(Box::pin(lists.take_until(self.ended.clone().cancelled_owned()))))
    }

    async fn get_preferred_allocation(
        &self,
        request: Request<PreferredAllocationRequest>,
    ) -> Answer<PreferredAllocationResponse> {
        let wish = request.into_inner().container_requests.remove(0);
        self.call("prefer", &wish.available_device_i_ds)?;
        let device_i_ds = self.preferred.lock().clone();
        let container_responses = vec![ContainerPreferredAllocationResponse { device_i_ds }];
        Ok(Response::new(PreferredAllocationResponse { container_responses }))
    }

    async fn allocate(&self, request: Request<AllocateRequest>) -> Answer<AllocateResponse> {
        let mut ids = request.into_inner().container_requests.remove(0).devices_ids;
        self.call("allocate", &ids)?;
        ids.sort();
        let node = |id: &String| DeviceSpec {
            container_path: format!("/dev/{id}"),
            host_path: format!("/dev/host-{id}"),
            permissions: "rw".into(),
        };
        let response = ContainerAllocateResponse {
            envs: [("DONGLES".to_owned(), ids.join(","))].into(),
            mounts: vec![Mount {
                container_path: "/lib/dongle".into(),
                host_path: "/opt/dongle".into(),
                read_only: true,
            }],
            devices: ids.iter().map(node).collect(),
            annotations: [("example.com/dongles".to_owned(), ids.join(","))].into(),
            cdi_devices: ids
                .iter()
                .map(|id| CdiDevice { name: format!("example.com/dongle={id}") })
                .collect(),
        };
        Ok(Response::new(AllocateResponse { container_responses: vec![response] }))
    }

    async fn pre_start_container(
        &self,
        request: Request<PreStartContainerRequest>,
    ) -> Answer<PreStartContainerResponse> {
        self.call("prestart", &request.into_inner().devices_ids)?;
        Ok(Response::new(PreStartContainerResponse {}))
    }
}

/// Waits until it is so.
pub(crate) async fn until(devices: &Devices, so: impl Fn(&Devices) -> bool) {
    while !so(devices) {
        devices.inner.poke.notified().await;
    }
}
