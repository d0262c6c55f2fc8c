//! The kubelet's end of the container runtime interface (CRI v1).
//!
//! One lazily opened, self-reconnecting channel per socket; every call has a deadline. Cheap to clone.

mod connect;
mod convert;
#[cfg(test)]
pub mod fake;
#[cfg(test)]
pub mod faults;
mod observe;
mod version;

use std::time::Duration;

use proto::cri;
use proto::cri::image_service_client::ImageServiceClient;
use proto::cri::runtime_service_client::RuntimeServiceClient;
use tonic::transport::Channel;

pub use connect::{ConnectError, unix_channel};
pub use convert::{container_state, pod_status, timestamp};
pub use observe::Look;
pub use version::RuntimeVersion;

/// A call to the runtime failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", rpc_message(status))]
pub struct Error {
    /// The call, for example `RunPodSandbox`.
    pub op: &'static str,
    /// What the runtime answered.
    pub status: tonic::Status,
}

/// A failure as Go prints it.
#[must_use]
pub fn rpc_message(status: &tonic::Status) -> String {
    format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message())
}

/// gRPC codes as Go prints them, which is how people know these messages.
fn code_name(code: tonic::Code) -> String {
    format!("{code:?}").replace("Ok", "OK")
}

impl Error {
    /// The thing asked about does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status.code() == tonic::Code::NotFound
    }

    /// The call took too long.
    #[must_use]
    pub fn is_deadline(&self) -> bool {
        matches!(self.status.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled)
    }

    /// The runtime has no such call.
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        self.status.code() == tonic::Code::Unimplemented
    }

    /// The runtime cannot be reached.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        self.status.code() == tonic::Code::Unavailable
    }
}

type Result<T> = std::result::Result<T, Error>;

/// What a command run in a container left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit code.
    pub exit_code: i32,
}

/// Client of one runtime and its image service.
#[derive(Clone, Debug)]
pub struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// Deadline of ordinary calls.
    timeout: Duration,
}

macro_rules! call {
    ($self:ident . $service:ident . $method:ident ( $request:expr ), $op:literal, $timeout:expr) => {{
        let mut request = tonic::Request::new($request);
        request.set_timeout($timeout);
        let mut client = $self.$service.clone();
        match tokio::time::timeout($timeout, client.$method(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Error { op: $op, status }),
            Err(_) => {
                Err(Error { op: $op, status: tonic::Status::deadline_exceeded("context deadline exceeded") })
            }
        }
    }};
    ($self:ident . $service:ident . $method:ident ( $request:expr ), $op:literal) => {
        call!($self.$service.$method($request), $op, $self.timeout)
    };
}

impl Runtime {
    /// What the runtime calls itself.
    pub async fn version(&self) -> Result<RuntimeVersion> {
        let answer =
            call!(self.runtime.version(cri::VersionRequest { version: "0.1.0".to_owned() }), "Version")?;
        Ok(RuntimeVersion {
            name: answer.runtime_name,
            version: answer.runtime_version,
            api_version: answer.runtime_api_version,
        })
    }

    /// Starts a sandbox; answers its identifier. Takes up to twice the ordinary time, as upstream allows.
    pub async fn run_pod_sandbox(
        &self,
        config: cri::PodSandboxConfig,
        runtime_handler: &str,
    ) -> Result<String> {
        let request =
            cri::RunPodSandboxRequest { config: Some(config), runtime_handler: runtime_handler.to_owned() };
        Ok(call!(self.runtime.run_pod_sandbox(request), "RunPodSandbox", self.timeout * 2)?.pod_sandbox_id)
    }

    /// Stops a sandbox and all in it. Repeatable.
    pub async fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        call!(self.runtime.stop_pod_sandbox(request), "StopPodSandbox").map(drop)
    }

    /// Removes a stopped sandbox and its containers. Repeatable.
    pub async fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        call!(self.runtime.remove_pod_sandbox(request), "RemovePodSandbox").map(drop)
    }

    /// Everything about one sandbox.
    pub async fn pod_sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatusResponse> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        call!(self.runtime.pod_sandbox_status(request), "PodSandboxStatus")
    }

    /// Sandboxes that match.
    pub async fn list_pod_sandboxes(
        &self,
        filter: Option<cri::PodSandboxFilter>,
    ) -> Result<Vec<cri::PodSandbox>> {
        Ok(call!(self.runtime.list_pod_sandbox(cri::ListPodSandboxRequest { filter }), "ListPodSandbox")?
            .items)
    }

    /// Creates a container in a sandbox; answers its identifier.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(call!(self.runtime.create_container(request), "CreateContainer")?.container_id)
    }

    /// Starts a created container.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        call!(self.runtime.start_container(request), "StartContainer").map(drop)
    }

    /// Stops a container, by force after `grace`. Repeatable.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        call!(self.runtime.stop_container(request), "StopContainer", self.timeout.saturating_add(grace))
            .map(drop)
    }

    /// Removes a container. Repeatable.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        call!(self.runtime.remove_container(request), "RemoveContainer").map(drop)
    }

    /// Containers that match.
    pub async fn list_containers(&self, filter: Option<cri::ContainerFilter>) -> Result<Vec<cri::Container>> {
        Ok(call!(self.runtime.list_containers(cri::ListContainersRequest { filter }), "ListContainers")?
            .containers)
    }

    /// Everything about one container.
    pub async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        call!(self.runtime.container_status(request), "ContainerStatus")?.status.ok_or_else(|| Error {
            op: "ContainerStatus",
            status: tonic::Status::internal(format!("status of container {id:?} is empty")),
        })
    }

    /// Changes the limits of a running container.
    pub async fn update_container_resources(
        &self,
        id: &str,
        linux: cri::LinuxContainerResources,
    ) -> Result<()> {
        let request = cri::UpdateContainerResourcesRequest {
            container_id: id.to_owned(),
            linux: Some(linux),
            ..Default::default()
        };
        call!(self.runtime.update_container_resources(request), "UpdateContainerResources").map(drop)
    }

    /// Tells the runtime what a sandbox as a whole gets. Fails with `Unimplemented` where it does not want to know.
    pub async fn update_pod_sandbox_resources(
        &self,
        id: &str,
        resources: cri::LinuxContainerResources,
    ) -> Result<()> {
        let request = cri::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.to_owned(),
            overhead: None,
            resources: Some(resources),
        };
        call!(self.runtime.update_pod_sandbox_resources(request), "UpdatePodSandboxResources").map(drop)
    }

    /// Makes the runtime write a checkpoint of a container; a zero timeout means the ordinary one.
    pub async fn checkpoint_container(&self, request: cri::CheckpointContainerRequest) -> Result<()> {
        let extra = Duration::from_secs(u64::try_from(request.timeout).unwrap_or_default());
        let timeout = self.timeout.saturating_add(extra);
        call!(self.runtime.checkpoint_container(request), "CheckpointContainer", timeout).map(drop)
    }

    /// Makes the runtime write a container's log to a new file at the same path.
    pub async fn reopen_container_log(&self, id: &str) -> Result<()> {
        let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
        call!(self.runtime.reopen_container_log(request), "ReopenContainerLog").map(drop)
    }

    /// Runs a command in a container and waits for it; a zero timeout means the ordinary one.
    pub async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        };
        // The runtime enforces the timeout; the call itself may last a little longer.
        let answer =
            call!(self.runtime.exec_sync(request), "ExecSync", self.timeout.saturating_add(timeout))?;
        Ok(ExecOutput {
            stdout: answer.stdout.to_vec(),
            stderr: answer.stderr.to_vec(),
            exit_code: answer.exit_code,
        })
    }

    /// Prepares a streamed command; answers the URL that serves it.
    pub async fn exec(&self, request: cri::ExecRequest) -> Result<String> {
        Ok(call!(self.runtime.exec(request), "Exec")?.url)
    }

    /// Prepares attaching to a container; answers the URL that serves it.
    pub async fn attach(&self, request: cri::AttachRequest) -> Result<String> {
        Ok(call!(self.runtime.attach(request), "Attach")?.url)
    }

    /// Prepares forwarding to ports of a sandbox; answers the URL that serves it.
    pub async fn port_forward(&self, request: cri::PortForwardRequest) -> Result<String> {
        Ok(call!(self.runtime.port_forward(request), "PortForward")?.url)
    }

    /// Figures of one container.
    pub async fn container_stats(&self, id: &str) -> Result<Option<cri::ContainerStats>> {
        let request = cri::ContainerStatsRequest { container_id: id.to_owned() };
        Ok(call!(self.runtime.container_stats(request), "ContainerStats")?.stats)
    }

    /// Figures of containers that match.
    pub async fn list_container_stats(
        &self,
        filter: Option<cri::ContainerStatsFilter>,
    ) -> Result<Vec<cri::ContainerStats>> {
        Ok(call!(
            self.runtime.list_container_stats(cri::ListContainerStatsRequest { filter }),
            "ListContainerStats"
        )?
        .stats)
    }

    /// Figures of sandboxes that match.
    pub async fn list_pod_sandbox_stats(
        &self,
        filter: Option<cri::PodSandboxStatsFilter>,
    ) -> Result<Vec<cri::PodSandboxStats>> {
        let request = cri::ListPodSandboxStatsRequest { filter };
        Ok(call!(self.runtime.list_pod_sandbox_stats(request), "ListPodSandboxStats")?.stats)
    }

    /// Tells the runtime which addresses pods of this node get.
    pub async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        let runtime_config =
            cri::RuntimeConfig { network_config: Some(cri::NetworkConfig { pod_cidr: pod_cidr.to_owned() }) };
        let request = cri::UpdateRuntimeConfigRequest { runtime_config: Some(runtime_config) };
        call!(self.runtime.update_runtime_config(request), "UpdateRuntimeConfig").map(drop)
    }

    /// Whether the runtime and its network are ready, and which handlers it has.
    pub async fn status(&self) -> Result<cri::StatusResponse> {
        call!(self.runtime.status(cri::StatusRequest { verbose: false }), "Status")
    }

    /// Which cgroup driver the runtime uses.
    pub async fn runtime_config(&self) -> Result<cri::RuntimeConfigResponse> {
        call!(self.runtime.runtime_config(cri::RuntimeConfigRequest {}), "RuntimeConfig")
    }

    /// Changes of containers as they happen. Fails with `Unimplemented` where the runtime cannot tell.
    pub async fn container_events(&self) -> Result<tonic::Streaming<cri::ContainerEventResponse>> {
        let mut client = self.runtime.clone();
        let answer = client.get_container_events(cri::GetEventsRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| Error { op: "GetContainerEvents", status })
    }

    /// Images on this node.
    pub async fn list_images(&self) -> Result<Vec<cri::Image>> {
        Ok(call!(self.images.list_images(cri::ListImagesRequest { filter: None }), "ListImages")?.images)
    }

    /// The image of this name, when it is on this node.
    pub async fn image_status(&self, image: cri::ImageSpec) -> Result<Option<cri::Image>> {
        let request = cri::ImageStatusRequest { image: Some(image), verbose: false };
        Ok(call!(self.images.image_status(request), "ImageStatus")?.image)
    }

    /// Fetches an image; answers its reference. May take as long as it takes; cancelled by dropping.
    pub async fn pull_image(
        &self,
        image: cri::ImageSpec,
        auth: Option<cri::AuthConfig>,
        sandbox_config: Option<cri::PodSandboxConfig>,
    ) -> Result<String> {
        let mut client = self.images.clone();
        let request = cri::PullImageRequest { image: Some(image), auth, sandbox_config };
        match client.pull_image(request).await {
            Ok(answer) => Ok(answer.into_inner().image_ref),
            Err(status) => Err(Error { op: "PullImage", status }),
        }
    }

    /// Removes an image. Repeatable.
    pub async fn remove_image(&self, image: cri::ImageSpec) -> Result<()> {
        call!(self.images.remove_image(cri::RemoveImageRequest { image: Some(image) }), "RemoveImage")
            .map(drop)
    }

    /// File systems that hold images and containers.
    pub async fn image_fs_info(&self) -> Result<cri::ImageFsInfoResponse> {
        call!(self.images.image_fs_info(cri::ImageFsInfoRequest {}), "ImageFsInfo")
    }
}
