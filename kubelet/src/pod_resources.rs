//! Tells agents of this node which devices, claims, CPUs and memory containers were given (upstream's pod resources API, v1).
//!
//! Served on `pod-resources/kubelet.sock` under the kubelet's directory, whose access rights are all the protection there is.

use std::path::Path;
use std::sync::Arc;

use client::Tasks;
use k8s_openapi::api::core::v1::{Container, Pod};
use proto::pod_resources as api;
use proto::pod_resources::pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use crate::claims::{Claims, Device, Used};
use crate::memory::Block;
use crate::placement::Placement;
use crate::pods::PodRegistry;
use crate::types;

/// Whether a pod runs, or is about to.
pub type IsActive = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The service; clones share what they tell of.
#[derive(Clone)]
pub struct PodResources {
    /// Pods of this node.
    pub pods: PodRegistry,
    /// What containers were given.
    pub placement: Placement,
    /// Claims for devices of drivers.
    pub claims: Claims,
    /// Pods that are told of.
    pub is_active: IsActive,
}

impl PodResources {
    /// Starts serving in `directory`.
    pub fn serve(self, directory: &Path, tasks: &Tasks) -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        let socket = directory.join("kubelet.sock");
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        tasks.spawn("pod-resources", |token| async move {
            let server = tonic::transport::Server::builder().add_service(PodResourcesListerServer::new(self));
            let incoming = UnixListenerStream::new(listener);
            let served = server.serve_with_incoming_shutdown(incoming, token.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(error = client::chain(&error), "pod resources are not told any more");
            }
        });
        Ok(())
    }

    fn of_pod(&self, pod: &Pod) -> api::PodResources {
        let spec = types::spec(pod);
        // Init containers that have ended have nothing any more.
        let sidecars = types::init_containers(spec).iter().filter(|c| types::is_restartable_init(c));
        api::PodResources {
            name: types::name(pod).to_owned(),
            namespace: types::namespace(pod).to_owned(),
            containers: sidecars.chain(&spec.containers).map(|c| self.of_container(pod, c)).collect(),
        }
    }

    fn of_container(&self, pod: &Pod, container: &Container) -> api::ContainerResources {
        let (uid, name) = (types::uid(pod), container.name.as_str());
        let given = self.placement.devices().of_container(uid, name);
        let devices = given.into_iter().flat_map(|(resource, by_numa)| {
            by_numa.into_iter().flat_map(move |(node, ids)| {
                let resource = resource.clone();
                ids.into_iter().map(move |id| device(&resource, id, (node >= 0).then_some(node)))
            })
        });
        let cpus = self.placement.cpus().exclusive(uid, name).unwrap_or_default();
        api::ContainerResources {
            name: name.to_owned(),
            devices: devices.collect(),
            cpu_ids: ids(cpus.iter()),
            memory: self.placement.memory().of_container(uid, name).into_iter().map(memory).collect(),
            dynamic_resources: self.claims.of_container(pod, container).into_iter().map(claim).collect(),
        }
    }
}

fn ids(cpus: impl Iterator<Item = usize>) -> Vec<i64> {
    cpus.filter_map(|cpu| i64::try_from(cpu).ok()).collect()
}

fn device(resource: &str, id: String, node: Option<i64>) -> api::ContainerDevices {
    api::ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: vec![id],
        topology: node.map(|id| api::TopologyInfo { nodes: vec![api::NumaNode { id }] }),
    }
}

fn claim(used: Used) -> api::DynamicResource {
    let device = |(driver_name, device): (String, Device)| {
        let names = device.cdi_device_ids.unwrap_or_default();
        api::ClaimResource {
            cdi_devices: names.into_iter().map(|name| api::CdiDevice { name }).collect(),
            driver_name,
            pool_name: device.pool_name,
            device_name: device.device_name,
            share_id: device.share_id,
        }
    };
    api::DynamicResource {
        claim_name: used.name,
        claim_namespace: used.namespace,
        claim_resources: used.devices.into_iter().map(device).collect(),
    }
}

fn memory(block: Block) -> api::ContainerMemory {
    let nodes = ids(block.numa_affinity.into_iter()).into_iter().map(|id| api::NumaNode { id });
    api::ContainerMemory {
        memory_type: block.kind,
        size: block.size,
        topology: Some(api::TopologyInfo { nodes: nodes.collect() }),
    }
}

fn count(method: &'static str) {
    metrics::counter!("kubelet_pod_resources_endpoint_requests_total", "server_api_version" => "v1")
        .increment(1);
    metrics::counter!(method, "server_api_version" => "v1").increment(1);
}

#[tonic::async_trait]
impl PodResourcesLister for PodResources {
    async fn list(
        &self,
        _: Request<api::ListPodResourcesRequest>,
    ) -> Result<Response<api::ListPodResourcesResponse>, Status> {
        count("kubelet_pod_resources_endpoint_requests_list");
        let mut pods = self.pods.pods();
        pods.retain(|pod| (self.is_active)(types::uid(pod)));
        pods.sort_by_key(|pod| types::full_name(pod));
        let pod_resources = pods.iter().map(|pod| self.of_pod(pod)).collect();
        Ok(Response::new(api::ListPodResourcesResponse { pod_resources }))
    }

    async fn get_allocatable_resources(
        &self,
        _: Request<api::AllocatableResourcesRequest>,
    ) -> Result<Response<api::AllocatableResourcesResponse>, Status> {
        count("kubelet_pod_resources_endpoint_requests_get_allocatable");
        let mut devices = Vec::new();
        for (resource, all) in self.placement.devices().allocatable() {
            for (id, numa) in all {
                if numa.is_empty() {
                    devices.push(device(&resource, id.clone(), None));
                }
                devices.extend(numa.into_iter().map(|node| device(&resource, id.clone(), Some(node))));
            }
        }
        Ok(Response::new(api::AllocatableResourcesResponse {
            devices,
            cpu_ids: ids(self.placement.cpus().allocatable().iter()),
            memory: self.placement.memory().allocatable().into_iter().map(memory).collect(),
        }))
    }

    async fn get(
        &self,
        request: Request<api::GetPodResourcesRequest>,
    ) -> Result<Response<api::GetPodResourcesResponse>, Status> {
        count("kubelet_pod_resources_endpoint_requests_get");
        let api::GetPodResourcesRequest { pod_name, pod_namespace } = request.into_inner();
        match self.pods.by_name(&pod_namespace, &pod_name) {
            Some(pod) => {
                let pod_resources = Some(self.of_pod(&pod));
                Ok(Response::new(api::GetPodResourcesResponse { pod_resources }))
            }
            None => {
                let method = "kubelet_pod_resources_endpoint_errors_get";
                metrics::counter!(method, "server_api_version" => "v1").increment(1);
                Err(Status::unknown(format!("pod {pod_name} in namespace {pod_namespace} not found")))
            }
        }
    }
}
