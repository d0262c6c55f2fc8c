//! Calls to one driver.

use std::path::Path;
use std::time::Duration;

use proto::csi::node_client::NodeClient;
use proto::csi::node_service_capability::{Type, rpc::Type as Capability};
use proto::csi::*;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::runtime::{rpc_message, unix_channel};

/// As upstream: a driver has two minutes for anything.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A driver refused or failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", rpc_message(.0))]
pub struct Error(pub Status);

/// A driver, with what it can do.
#[derive(Clone, Debug)]
pub struct DriverClient {
    node: NodeClient<Channel>,
    capabilities: Vec<Capability>,
}

async fn answer<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Error> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Error(status)),
        Err(_) => Err(Error(Status::deadline_exceeded("context deadline exceeded"))),
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(TIMEOUT);
    request
}

impl DriverClient {
    /// The driver behind a socket; opens nothing yet.
    pub fn new(endpoint: &Path) -> Self {
        Self { node: NodeClient::new(unix_channel(endpoint)), capabilities: Vec::new() }
    }

    /// The same, having asked what it can do.
    pub async fn with_capabilities(mut self) -> Result<Self, Error> {
        let asked = self.node.clone().node_get_capabilities(request(NodeGetCapabilitiesRequest {})).await;
        let all = asked.map_err(Error)?.into_inner().capabilities;
        let known = all.into_iter().filter_map(|c| match c.r#type? {
            Type::Rpc(rpc) => Capability::try_from(rpc.r#type).ok(),
        });
        self.capabilities = known.collect();
        Ok(self)
    }

    /// How the driver knows this node.
    pub async fn info(&self) -> Result<NodeGetInfoResponse, Error> {
        answer(self.node.clone().node_get_info(request(NodeGetInfoRequest {}))).await
    }

    /// Volumes are staged once for the node, before they are published to pods.
    pub fn stages(&self) -> bool {
        self.capabilities.contains(&Capability::StageUnstageVolume)
    }

    /// Volumes that have grown must be told so on the node.
    pub fn expands(&self) -> bool {
        self.capabilities.contains(&Capability::ExpandVolume)
    }

    /// The driver gives volumes to a group itself.
    pub fn sets_group(&self) -> bool {
        self.capabilities.contains(&Capability::VolumeMountGroup)
    }

    /// The access mode in the driver's terms.
    pub fn access_mode(&self, mode: &str) -> volume_capability::access_mode::Mode {
        use volume_capability::access_mode::Mode;
        let fine = self.capabilities.contains(&Capability::SingleNodeMultiWriter);
        match (mode, fine) {
            ("ReadWriteOnce", true) => Mode::SingleNodeMultiWriter,
            ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
            ("ReadWriteOnce" | "ReadWriteOncePod", false) => Mode::SingleNodeWriter,
            ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
            ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
            _ => Mode::Unknown,
        }
    }

    /// Stages a volume. Repeatable.
    pub async fn stage(&self, message: NodeStageVolumeRequest) -> Result<(), Error> {
        answer(self.node.clone().node_stage_volume(request(message))).await.map(drop)
    }

    /// Undoes staging. Repeatable.
    pub async fn unstage(&self, volume_id: &str, staging_target_path: String) -> Result<(), Error> {
        let message = NodeUnstageVolumeRequest { volume_id: volume_id.to_owned(), staging_target_path };
        answer(self.node.clone().node_unstage_volume(request(message))).await.map(drop)
    }

    /// Publishes a volume to a pod. Repeatable.
    pub async fn publish(&self, message: NodePublishVolumeRequest) -> Result<(), Error> {
        answer(self.node.clone().node_publish_volume(request(message))).await.map(drop)
    }

    /// Undoes publishing. Repeatable.
    pub async fn unpublish(&self, volume_id: &str, target_path: String) -> Result<(), Error> {
        let message = NodeUnpublishVolumeRequest { volume_id: volume_id.to_owned(), target_path };
        answer(self.node.clone().node_unpublish_volume(request(message))).await.map(drop)
    }

    /// Lets a volume grow. Repeatable.
    pub async fn expand(&self, message: NodeExpandVolumeRequest) -> Result<(), Error> {
        answer(self.node.clone().node_expand_volume(request(message))).await.map(drop)
    }
}
