//! A CRI runtime in memory, served on a unix socket in this process, for tests of what talks to one.
//!
//! It keeps sandboxes, containers and images, writes down every call that changes something, and fails on request.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proto::cri::image_service_server::{ImageService, ImageServiceServer};
use proto::cri::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use proto::cri::*;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

use super::Runtime;
use super::faults::{Fault, Faults};

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the runtime holds.
#[derive(Default)]
pub struct State {
    /// Sandboxes by identifier.
    pub sandboxes: BTreeMap<String, PodSandboxStatus>,
    /// Containers by identifier, with their sandbox.
    pub containers: BTreeMap<String, (String, ContainerStatus)>,
    /// What containers were created with.
    pub configs: BTreeMap<String, ContainerConfig>,
    /// What sandboxes were created with.
    pub sandbox_configs: BTreeMap<String, PodSandboxConfig>,
    /// Images by name.
    pub images: BTreeMap<String, Image>,
    /// Calls that changed something, in order.
    pub calls: Vec<String>,
    /// Containers that were started, by name, in order.
    pub started: Vec<String>,
    /// Calls that fail, by name of the call or `Call NAME`; once each when listed once.
    pub failures: HashMap<String, Vec<Status>>,
    /// Answers to commands, by the command's first word.
    pub exec: HashMap<String, ExecSyncResponse>,
    /// Bytes of memory that containers use, by name.
    pub memory: HashMap<String, u64>,
    /// After so many calls more, the client is dead: nothing it asks for is done.
    pub dies_after: Option<usize>,
    /// After so many calls more, one goes wrong in this way.
    pub fault: Option<(usize, Fault)>,
    /// How many calls went wrong so.
    pub faults_met: usize,
    /// Containers that end with this code as soon as they start, by name.
    pub ends_at_once: HashMap<String, i32>,
    /// By how much its clock differs from this process's, in nanoseconds.
    ahead: i64,
    clock: i64,
}

impl State {
    fn tick(&mut self) -> i64 {
        // A runtime's times are real times; each is later than the one before.
        let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
        self.clock = (now + self.ahead).max(self.clock + 1);
        self.clock
    }

    fn call(&mut self, op: &str, what: &str) -> Result<(), Status> {
        if let Some(left) = &mut self.dies_after {
            *left = left.checked_sub(1).ok_or_else(|| Status::unavailable("nobody is there"))?;
        }
        self.calls.push(format!("{op} {what}"));
        for key in [format!("{op} {what}"), op.to_owned()] {
            if let Some(failures) = self.failures.get_mut(&key)
                && !failures.is_empty()
            {
                return Err(failures.remove(0));
            }
        }
        Ok(())
    }

    /// Sets its clock, forward or back.
    pub fn set_clock(&mut self, ahead: i64) {
        (self.ahead, self.clock) = (ahead, 0);
    }

    /// Ends a running container by name.
    pub fn end(&mut self, name: &str, code: i32) {
        let now = self.tick();
        let running = ContainerState::ContainerRunning as i32;
        for (_, status) in self.containers.values_mut() {
            let same = status.metadata.as_ref().is_some_and(|m| m.name == name);
            if same && status.state == running {
                end(status, code, now);
            }
        }
    }
}

fn end(status: &mut ContainerStatus, code: i32, now: i64) {
    status.state = ContainerState::ContainerExited as i32;
    status.exit_code = code;
    status.finished_at = now;
    status.reason = if code == 0 { "Completed" } else { "Error" }.to_owned();
}

/// A running fake; stops when dropped.
pub struct FakeRuntime {
    /// What it holds.
    pub state: Arc<Mutex<State>>,
    /// Its socket.
    pub socket: PathBuf,
    _stop: DropGuard,
}

impl FakeRuntime {
    /// Starts a fake with these images.
    pub async fn start(images: &[&str]) -> Self {
        let socket = std::env::temp_dir().join(format!("cri-{}.sock", uuid::Uuid::new_v4()));
        let listener = tokio::net::UnixListener::bind(&socket).expect("bind the socket");
        let state = Arc::new(Mutex::new(State::default()));
        for name in images {
            let image = Image {
                id: format!("sha256:{name}"),
                repo_tags: vec![(*name).to_owned()],
                size: 10,
                ..Default::default()
            };
            state.lock().images.insert((*name).to_owned(), image);
        }
        let (service, faults) = (Service(state.clone()), Faults(state.clone()));
        let token = CancellationToken::new();
        let stop = token.clone();
        tokio::spawn(async move {
            let server = tonic::transport::Server::builder()
                .layer(faults)
                .add_service(RuntimeServiceServer::new(service.clone()))
                .add_service(ImageServiceServer::new(service))
                .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned());
            server.await.expect("the fake runtime serves");
        });
        Self { state, socket, _stop: token.drop_guard() }
    }

    /// A client of it.
    pub fn client(&self) -> Runtime {
        Runtime::lazy(&self.socket, &self.socket, Duration::from_secs(10))
    }

    /// The calls since the last look.
    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().calls)
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.socket));
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

fn not_found(id: &str) -> Status {
    Status::not_found(format!("{id:?} not found"))
}

fn selects(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

macro_rules! unsupported {
    ($($method:ident($request:ty) -> $response:ty;)*) => {
        // Spelled out: the attribute that turns async methods into these does not look into macros.
        $(fn $method<'me, 'answer>(
            &'me self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Answer<$response>> + Send + 'answer>>
        where
            'me: 'answer,
            Self: 'answer,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($method))) })
        })*
    };
}

#[tonic::async_trait]
impl RuntimeService for Service {
    type StreamPodSandboxesStream = Streamed<StreamPodSandboxesResponse>;
    type StreamContainersStream = Streamed<StreamContainersResponse>;
    type StreamContainerStatsStream = Streamed<StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Streamed<StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = Streamed<ContainerEventResponse>;
    type StreamPodSandboxMetricsStream = Streamed<StreamPodSandboxMetricsResponse>;

    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.0".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let config = request.into_inner().config.unwrap_or_default();
        let metadata = config.metadata.clone().unwrap_or_default();
        let mut state = self.0.lock();
        state.call("RunPodSandbox", &format!("{}#{}", metadata.name, metadata.attempt))?;
        let created_at = state.tick();
        let id = format!("sandbox-{}-{}", metadata.name, metadata.attempt);
        if state.sandboxes.contains_key(&id) {
            return Err(Status::unknown(format!("failed to reserve sandbox name {id:?}: it is reserved")));
        }
        let options = config.linux.clone().and_then(|l| l.security_context).and_then(|c| c.namespace_options);
        let number = state.sandboxes.len() + 1;
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: PodSandboxState::SandboxReady as i32,
            created_at,
            network: Some(PodSandboxNetworkStatus { ip: format!("10.9.0.{number}"), ..Default::default() }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: config.labels.clone(),
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), status);
        state.sandbox_configs.insert(id.clone(), config);
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.0.lock();
        state.call("StopPodSandbox", &id)?;
        let now = state.tick();
        if let Some(sandbox) = state.sandboxes.get_mut(&id) {
            sandbox.state = PodSandboxState::SandboxNotready as i32;
        }
        for (owner, status) in state.containers.values_mut() {
            if *owner == id && status.state == ContainerState::ContainerRunning as i32 {
                end(status, 137, now);
            }
        }
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.0.lock();
        state.call("RemovePodSandbox", &id)?;
        state.sandboxes.remove(&id);
        state.containers.retain(|_, (owner, _)| *owner != id);
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let status = self.0.lock().sandboxes.get(&id).cloned().ok_or_else(|| not_found(&id))?;
        Ok(Response::new(PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Answer<ListPodSandboxResponse> {
        let selector = request.into_inner().filter.map(|f| f.label_selector).unwrap_or_default();
        let state = self.0.lock();
        let items = state.sandboxes.values().filter(|s| selects(&selector, &s.labels)).map(|s| PodSandbox {
            id: s.id.clone(),
            metadata: s.metadata.clone(),
            state: s.state,
            created_at: s.created_at,
            labels: s.labels.clone(),
            ..Default::default()
        });
        Ok(Response::new(ListPodSandboxResponse { items: items.collect() }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap_or_default();
        let metadata = config.metadata.clone().unwrap_or_default();
        let mut state = self.0.lock();
        state.call("CreateContainer", &metadata.name)?;
        let sandbox = &request.pod_sandbox_id;
        if state.containers.values().any(|(o, s)| o == sandbox && s.metadata.as_ref() == Some(&metadata)) {
            let name = format!("{}_{}", metadata.name, metadata.attempt);
            return Err(Status::unknown(format!(
                "failed to reserve container name {name:?}: it is reserved"
            )));
        }
        let created_at = state.tick();
        let id = format!("{}-{}", metadata.name, created_at);
        let status = ContainerStatus {
            id: id.clone(),
            metadata: Some(metadata),
            state: ContainerState::ContainerCreated as i32,
            created_at,
            image: config.image.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: config.log_path.clone(),
            resources: config
                .linux
                .as_ref()
                .map(|linux| ContainerResources { linux: linux.resources.clone(), windows: None }),
            ..Default::default()
        };
        state.containers.insert(id.clone(), (request.pod_sandbox_id, status));
        state.configs.insert(id.clone(), config);
        Ok(Response::new(CreateContainerResponse { container_id: id }))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.0.lock();
        let name = name_of(&state, &id)?;
        state.call("StartContainer", &name)?;
        let is_new = |(_, s): &(String, ContainerStatus)| s.state == ContainerState::ContainerCreated as i32;
        if !state.containers.get(&id).is_some_and(is_new) {
            return Err(Status::unknown(format!("failed to start container {id:?}: it was started before")));
        }
        state.started.push(name.clone());
        let now = state.tick();
        let ends = state.ends_at_once.get(&name).copied();
        if let Some((_, status)) = state.containers.get_mut(&id) {
            status.state = ContainerState::ContainerRunning as i32;
            status.started_at = now;
            if let Some(code) = ends {
                end(status, code, now + 1);
            }
        }
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let StopContainerRequest { container_id: id, timeout } = request.into_inner();
        let mut state = self.0.lock();
        let name = name_of(&state, &id)?;
        state.call("StopContainer", &format!("{name} {timeout}"))?;
        let now = state.tick();
        if let Some((_, status)) = state.containers.get_mut(&id)
            && status.state == ContainerState::ContainerRunning as i32
        {
            end(status, 143, now);
        }
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.0.lock();
        let name = name_of(&state, &id).unwrap_or_else(|_| id.clone());
        state.call("RemoveContainer", &name)?;
        state.containers.remove(&id);
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let selector = request.into_inner().filter.map(|f| f.label_selector).unwrap_or_default();
        let state = self.0.lock();
        let containers =
            state.containers.values().filter(|(_, s)| selects(&selector, &s.labels)).map(|(owner, s)| {
                Container {
                    id: s.id.clone(),
                    pod_sandbox_id: owner.clone(),
                    metadata: s.metadata.clone(),
                    image: s.image.clone(),
                    state: s.state,
                    created_at: s.created_at,
                    labels: s.labels.clone(),
                    annotations: s.annotations.clone(),
                    ..Default::default()
                }
            });
        Ok(Response::new(ListContainersResponse { containers: containers.collect() }))
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let state = self.0.lock();
        let (_, status) = state.containers.get(&id).cloned().ok_or_else(|| not_found(&id))?;
        Ok(Response::new(ContainerStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let mut state = self.0.lock();
        let name = name_of(&state, &request.container_id)?;
        let first = request.cmd.first().cloned().unwrap_or_default();
        state.call("ExecSync", &format!("{name} {first}"))?;
        Ok(Response::new(state.exec.get(&first).cloned().unwrap_or_default()))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let linux = request.linux.unwrap_or_default();
        let mut state = self.0.lock();
        let name = name_of(&state, &request.container_id)?;
        // Who says only where a container runs changes nothing else.
        if linux.cpu_shares == 0 && linux.memory_limit_in_bytes == 0 {
            state.call("UpdateContainerResources", &format!("{name} on {}", linux.cpuset_cpus))?;
            return Ok(Response::new(UpdateContainerResourcesResponse {}));
        }
        let what = format!("{name} {} {} {}", linux.cpu_shares, linux.cpu_quota, linux.memory_limit_in_bytes);
        state.call("UpdateContainerResources", &what)?;
        if let Some((_, status)) = state.containers.get_mut(&request.container_id) {
            status.resources = Some(ContainerResources { linux: Some(linux), windows: None });
        }
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        let id = request.into_inner().container_id;
        let state = self.0.lock();
        let name = name_of(&state, &id)?;
        let used = state.memory.get(&name).copied().unwrap_or_default();
        let memory = MemoryUsage { usage_bytes: Some(UInt64Value { value: used }), ..Default::default() };
        let stats = ContainerStats { memory: Some(memory), ..Default::default() };
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let condition =
            |kind: &str| RuntimeCondition { r#type: kind.into(), status: true, ..Default::default() };
        let status = RuntimeStatus { conditions: vec![condition("RuntimeReady"), condition("NetworkReady")] };
        Ok(Response::new(StatusResponse { status: Some(status), ..Default::default() }))
    }

    unsupported! {
        stream_pod_sandboxes(StreamPodSandboxesRequest) -> Self::StreamPodSandboxesStream;
        stream_containers(StreamContainersRequest) -> Self::StreamContainersStream;
        stream_container_stats(StreamContainerStatsRequest) -> Self::StreamContainerStatsStream;
        stream_pod_sandbox_stats(StreamPodSandboxStatsRequest) -> Self::StreamPodSandboxStatsStream;
        stream_pod_sandbox_metrics(StreamPodSandboxMetricsRequest) -> Self::StreamPodSandboxMetricsStream;
        get_container_events(GetEventsRequest) -> Self::GetContainerEventsStream;
        reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
        exec(ExecRequest) -> ExecResponse;
        attach(AttachRequest) -> AttachResponse;
        port_forward(PortForwardRequest) -> PortForwardResponse;
        list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
        pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
        list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
        update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
        checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
        list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
        list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
        runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
        update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse;
    }
}

fn name_of(state: &State, id: &str) -> Result<String, Status> {
    let (_, status) = state.containers.get(id).ok_or_else(|| not_found(id))?;
    Ok(status.metadata.clone().unwrap_or_default().name)
}

#[tonic::async_trait]
impl ImageService for Service {
    type StreamImagesStream = Streamed<StreamImagesResponse>;

    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        Ok(Response::new(ListImagesResponse { images: self.0.lock().images.values().cloned().collect() }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let state = self.0.lock();
        let image = state.images.values().find(|i| i.id == name || i.repo_tags.contains(&name)).cloned();
        Ok(Response::new(ImageStatusResponse { image, ..Default::default() }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.unwrap_or_default().image;
        let user = request.auth.map(|a| format!(" as {}", a.username)).unwrap_or_default();
        let mut state = self.0.lock();
        state.call("PullImage", &format!("{name}{user}"))?;
        let id = format!("sha256:{name}");
        let image = Image { id: id.clone(), repo_tags: vec![name.clone()], size: 10, ..Default::default() };
        state.images.insert(name, image);
        Ok(Response::new(PullImageResponse { image_ref: id }))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let mut state = self.0.lock();
        state.call("RemoveImage", &name)?;
        state.images.retain(|_, i| i.id != name && !i.repo_tags.contains(&name));
        Ok(Response::new(RemoveImageResponse {}))
    }

    unsupported! {
        stream_images(StreamImagesRequest) -> Self::StreamImagesStream;
        image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse;
    }
}
