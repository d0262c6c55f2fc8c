//! One device plugin, as it is called.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use proto::device_plugin as api;
use proto::device_plugin::device_plugin_client::DevicePluginClient;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::runtime::{rpc_message, unix_channel};

/// How long a plugin may take to say what it can do.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PRE_START_TIMEOUT: Duration = Duration::from_secs(30);
/// Many devices make long lists.
const MAX_MESSAGE: usize = 16 << 20;

/// A plugin that registered. Clones share its connection.
#[derive(Clone, Debug)]
pub(super) struct Plugin {
    client: DevicePluginClient<Channel>,
    pub(super) options: api::DevicePluginOptions,
    /// Which registration this is; a plugin that registers again is another.
    pub(super) generation: u64,
}

impl Plugin {
    /// Asks the plugin behind `socket` what it can do.
    pub(super) async fn connect(socket: &Path, generation: u64) -> Result<Self, String> {
        let client = DevicePluginClient::new(unix_channel(socket)).max_decoding_message_size(MAX_MESSAGE);
        let mut plugin = Self { client, options: api::DevicePluginOptions::default(), generation };
        let asked = plugin.client.get_device_plugin_options(Request::new(api::Empty {}));
        let answer = tokio::time::timeout(CONNECT_TIMEOUT, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")));
        let options =
            answer.map_err(|e| format!("failed to get device plugin options: {}", rpc_message(&e)))?;
        plugin.options = options.into_inner();
        Ok(plugin)
    }

    /// The lists of devices, one after the other.
    pub(super) async fn lists(&self) -> Result<Streaming<api::ListAndWatchResponse>, Status> {
        let mut client = self.client.clone();
        client.list_and_watch(api::Empty {}).await.map(tonic::Response::into_inner)
    }

    /// Which devices the plugin would give; none where it does not say.
    pub(super) async fn preferred(
        &self,
        available: &BTreeSet<String>,
        chosen: &BTreeSet<String>,
        size: usize,
    ) -> Result<BTreeSet<String>, String> {
        if !self.options.get_preferred_allocation_available {
            return Ok(BTreeSet::new());
        }
        let wish = api::ContainerPreferredAllocationRequest {
            available_device_i_ds: available.iter().cloned().collect(),
            must_include_device_i_ds: chosen.iter().cloned().collect(),
            allocation_size: i32::try_from(size).unwrap_or(i32::MAX),
        };
        let request = api::PreferredAllocationRequest { container_requests: vec![wish] };
        let answer = self.client.clone().get_preferred_allocation(request).await.map_err(|e| {
            format!("device plugin GetPreferredAllocation rpc failed with err: {}", rpc_message(&e))
        })?;
        let first = answer.into_inner().container_responses.into_iter().next();
        Ok(first.map(|c| c.device_i_ds.into_iter().collect()).unwrap_or_default())
    }

    /// Prepares devices for a container; answers what it needs to use them.
    pub(super) async fn allocate(
        &self,
        devices: &BTreeSet<String>,
    ) -> Result<api::ContainerAllocateResponse, String> {
        let wish = api::ContainerAllocateRequest { devices_ids: devices.iter().cloned().collect() };
        let request = api::AllocateRequest { container_requests: vec![wish] };
        let answer = self.client.clone().allocate(request).await.map_err(|e| rpc_message(&e))?;
        let first = answer.into_inner().container_responses.into_iter().next();
        first.ok_or_else(|| "no containers return in allocation response {}".to_owned())
    }

    /// Tells the plugin that a container is about to start.
    pub(super) async fn pre_start(&self, devices: &BTreeSet<String>) -> Result<(), String> {
        let request = api::PreStartContainerRequest { devices_ids: devices.iter().cloned().collect() };
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(PRE_START_TIMEOUT, client.pre_start_container(request)).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")));
        answer
            .map(drop)
            .map_err(|e| format!("device plugin PreStartContainer rpc failed with err: {}", rpc_message(&e)))
    }
}
