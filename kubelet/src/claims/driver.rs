//! One plugin of a driver, as it is called: version 1, or version 1 beta 1 for those that know no other.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proto::dra::health::dra_resource_health_client::DraResourceHealthClient;
use proto::dra::health::{NodeWatchResourcesRequest, NodeWatchResourcesResponse};
use proto::dra::v1::dra_plugin_client::DraPluginClient;
use proto::dra::v1beta1::dra_plugin_client::DraPluginClient as OldClient;
use proto::dra::{v1, v1beta1};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::cache::Device;
use super::connection::watched_channel;
use crate::runtime::rpc_message;

const PREPARE: &str = "NodePrepareResources";
const UNPREPARE: &str = "NodeUnprepareResources";
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(45);
/// Services that are spoken, the better first.
const SERVICES: [&str; 2] = ["v1.DRAPlugin", "v1beta1.DRAPlugin"];

/// A plugin that registered. Clones share its connection.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    pub(super) name: String,
    pub(super) endpoint: PathBuf,
    /// Cancelled when it is gone.
    pub(super) gone: CancellationToken,
    /// How many connections it has: one or none.
    pub(super) connections: watch::Receiver<usize>,
    client: Client,
    health: DraResourceHealthClient<Channel>,
}

#[derive(Clone, Debug)]
enum Client {
    V1(DraPluginClient<Channel>),
    V1beta1(OldClient<Channel>),
}

/// A claim by what a driver knows it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) name: String,
}

/// What came of a claim, by its UID: its devices, or why not.
pub(super) type Prepared = HashMap<String, Result<Vec<Device>, String>>;

impl Driver {
    /// The plugin of a driver behind a socket; the text of a refusal is upstream's.
    pub(super) fn new(name: &str, endpoint: &Path, services: &[String]) -> Result<Self, String> {
        let (channel, connections) = watched_channel(endpoint);
        let client = match choose(services) {
            Ok("v1.DRAPlugin") => Client::V1(DraPluginClient::new(channel.clone())),
            Ok(_) => Client::V1beta1(OldClient::new(channel.clone())),
            Err(error) => {
                return Err(format!(
                    "invalid supported gRPC versions of DRA driver plugin {name} at endpoint {}: {error}",
                    endpoint.display()
                ));
            }
        };
        Ok(Self {
            name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            gone: CancellationToken::new(),
            connections,
            client,
            health: DraResourceHealthClient::new(channel),
        })
    }

    /// Whether somebody is at the other end, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        *self.connections.borrow() > 0
    }

    /// Waits until nobody is at the other end.
    pub(super) async fn disconnected(&self) {
        // An error says that the channel itself is gone.
        drop(self.connections.clone().wait_for(|count| *count == 0).await);
    }

    /// What it tells of its devices, again and again. Not all drivers do.
    pub(super) async fn health(&self) -> Result<Streaming<NodeWatchResourcesResponse>, Status> {
        let answer = self.health.clone().node_watch_resources(NodeWatchResourcesRequest {}).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Prepares claims.
    pub(super) async fn prepare(&self, claims: &[Named]) -> Result<Prepared, String> {
        let answer = match &self.client {
            Client::V1(client) => {
                let request = v1::NodePrepareResourcesRequest { claims: claims.iter().map(named).collect() };
                let mut client = client.clone();
                self.timed("v1", PREPARE, client.node_prepare_resources(deadline(request))).await?
            }
            Client::V1beta1(client) => {
                let request =
                    v1beta1::NodePrepareResourcesRequest { claims: claims.iter().map(old_named).collect() };
                let mut client = client.clone();
                newer(self.timed("v1beta1", PREPARE, client.node_prepare_resources(deadline(request))).await?)
            }
        };
        let result = |answer: v1::NodePrepareResourceResponse| match answer.error {
            none if none.is_empty() => Ok(answer.devices.into_iter().map(device).collect()),
            error => Err(error),
        };
        Ok(answer.claims.into_iter().map(|(uid, answer)| (uid, result(answer))).collect())
    }

    /// Takes back what was prepared; answers what came of each claim.
    pub(super) async fn unprepare(
        &self,
        claims: &[Named],
    ) -> Result<HashMap<String, Result<(), String>>, String> {
        let result = |error: String| if error.is_empty() { Ok(()) } else { Err(error) };
        Ok(match &self.client {
            Client::V1(client) => {
                let request =
                    v1::NodeUnprepareResourcesRequest { claims: claims.iter().map(named).collect() };
                let mut client = client.clone();
                let answer =
                    self.timed("v1", UNPREPARE, client.node_unprepare_resources(deadline(request))).await?;
                answer.claims.into_iter().map(|(uid, answer)| (uid, result(answer.error))).collect()
            }
            Client::V1beta1(client) => {
                let request =
                    v1beta1::NodeUnprepareResourcesRequest { claims: claims.iter().map(old_named).collect() };
                let mut client = client.clone();
                let answer = self
                    .timed("v1beta1", UNPREPARE, client.node_unprepare_resources(deadline(request)))
                    .await?;
                answer.claims.into_iter().map(|(uid, answer)| (uid, result(answer.error))).collect()
            }
        })
    }

    /// The answer to a call, in time; how long it took is told.
    async fn timed<T>(
        &self,
        version: &str,
        method: &str,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, String> {
        let started = Instant::now();
        let answer = tokio::time::timeout(TIMEOUT, call).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")));
        let code = match answer.as_ref().err().map(Status::code) {
            None | Some(Code::Ok) => "OK".to_owned(),
            Some(Code::Cancelled) => "Canceled".to_owned(),
            Some(code) => format!("{code:?}"),
        };
        let labels = [
            ("driver_name", self.name.clone()),
            ("method_name", format!("/k8s.io.kubelet.pkg.apis.dra.{version}.DRAPlugin/{method}")),
            ("grpc_status_code", code),
        ];
        metrics::histogram!("kubelet_dra_grpc_operations_duration_seconds", &labels)
            .record(started.elapsed());
        answer.map(tonic::Response::into_inner).map_err(|status| rpc_message(&status))
    }
}

/// The first service of the plugin that is spoken here.
fn choose(services: &[String]) -> Result<&str, String> {
    if services.is_empty() {
        return Err("empty list of supported gRPC services (aka supported versions)".to_owned());
    }
    let quoted = |list: Vec<String>| format!("[{}]", list.join(" "));
    services.iter().map(String::as_str).find(|service| SERVICES.contains(service)).ok_or_else(|| {
        format!(
            "none of services supported by the plugin ({}) are supported by the kubelet ({})",
            quoted(services.iter().map(|s| format!("{s:?}")).collect()),
            quoted(SERVICES.iter().map(|s| format!("{s:?}")).collect())
        )
    })
}

fn deadline<T>(request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.set_timeout(TIMEOUT);
    request
}

fn named(claim: &Named) -> v1::Claim {
    let Named { namespace, uid, name } = claim.clone();
    v1::Claim { namespace, uid, name }
}

fn old_named(claim: &Named) -> v1beta1::Claim {
    let Named { namespace, uid, name } = claim.clone();
    v1beta1::Claim { namespace, uid, name }
}

fn newer(answer: v1beta1::NodePrepareResourcesResponse) -> v1::NodePrepareResourcesResponse {
    let device = |old: v1beta1::Device| v1::Device {
        request_names: old.request_names,
        pool_name: old.pool_name,
        device_name: old.device_name,
        cdi_device_ids: old.cdi_device_ids,
        share_id: None,
    };
    let claim = |old: v1beta1::NodePrepareResourceResponse| v1::NodePrepareResourceResponse {
        devices: old.devices.into_iter().map(device).collect(),
        error: old.error,
    };
    let claims = answer.claims.into_iter().map(|(uid, old)| (uid, claim(old))).collect();
    v1::NodePrepareResourcesResponse { claims }
}

fn device(device: v1::Device) -> Device {
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    Device {
        pool_name: device.pool_name,
        device_name: device.device_name,
        share_id: device.share_id,
        request_names: some(device.request_names),
        cdi_device_ids: some(device.cdi_device_ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_service_that_is_known_is_spoken() {
        let of = |services: &[&str]| {
            let services: Vec<String> = services.iter().map(|s| (*s).to_owned()).collect();
            choose(&services).map(str::to_owned)
        };
        assert_eq!(of(&["v1.DRAPlugin", "v1beta1.DRAPlugin"]).as_deref(), Ok("v1.DRAPlugin"));
        assert_eq!(of(&["v1beta1.DRAPlugin"]).as_deref(), Ok("v1beta1.DRAPlugin"));
        assert_eq!(of(&["v9.DRAPlugin", "v1.DRAPlugin"]).as_deref(), Ok("v1.DRAPlugin"));
        assert_eq!(
            of(&["1.0.0"]).expect_err("unknown"),
            "none of services supported by the plugin ([\"1.0.0\"]) are supported by the kubelet ([\"v1.DRAPlugin\" \
             \"v1beta1.DRAPlugin\"])"
        );
        assert_eq!(
            of(&[]).expect_err("none"),
            "empty list of supported gRPC services (aka supported versions)"
        );
    }
}
