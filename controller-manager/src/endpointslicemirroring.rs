//! Mirrors Endpoints that people write for Services without selectors into EndpointSlices.
//! As upstream's pkg/controller/endpointslicemirroring.

use crate::common::errors::{self, IgnoreGone};
use crate::common::{meta, pods, services, written::Written};
use crate::context::{Context, states};
use crate::endpointslice::{self, MANAGED_BY, SERVICE_NAME};
use crate::replicaset::STALE;
use client::controller::Action;
use client::events::{EventRecorder, EventType};
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Client, Informer, ObjectKey, WorkQueue};
use k8s_openapi::api::core::v1::{EndpointAddress, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

const CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const NOT_MIRRORED: [&str; 2] = [services::TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration"];

struct Controller {
    client: Client,
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    recorder: EventRecorder,
    written: Written,
    max: usize,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let (endpoints, services) = (cx.informer::<Endpoints>(), cx.informer::<Service>());
    let slices = endpointslice::slices(cx);
    let queue = WorkQueue::new("endpoint_slice_mirroring");
    let (keys, batch) = (queue.clone(), cx.config.flags.mirroring_endpointslice_updates_batch_period);
    endpoints.subscribe(move |event| {
        // Those of Services with selectors have slices of their own, and change often.
        if states(event).into_iter().any(|endpoints| is_mirrored(endpoints)) {
            keys.add_after(meta::key(&event.object().metadata), batch);
        }
    });
    let keys = queue.clone();
    services.subscribe(move |event| keys.add(meta::key(&event.object().metadata)));
    let keys = queue.clone();
    slices.subscribe(move |event| {
        for slice in states(event) {
            if meta::label(&slice.metadata, MANAGED_BY) == Some(CONTROLLER) {
                endpointslice::service_of(slice).into_iter().for_each(|key| keys.add(key));
            }
        }
    });
    let controller = Arc::new(Controller {
        client: cx.client.clone(),
        recorder: cx.recorder("endpoint-slice-mirroring-controller"),
        written: Written::new().follow(&slices),
        max: cx.config.flags.mirroring_max_endpoints_per_subset.max(1),
        endpoints: endpoints.clone(),
        services: services.clone(),
        slices: slices.clone(),
    });
    let synced = async move {
        endpoints.synced().await;
        services.synced().await;
        slices.synced().await;
    };
    cx.work(
        "endpointslice-mirroring-controller",
        queue,
        cx.config.concurrent.mirroring,
        synced,
        move |key| {
            let controller = controller.clone();
            async move { controller.reconcile(key).await }
        },
    );
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    meta::label(&endpoints.metadata, SKIP) != Some("true")
        && meta::annotation(&endpoints.metadata, "control-plane.alpha.kubernetes.io/leader").is_none()
        && meta::label(&endpoints.metadata, "endpoints.kubernetes.io/managed-by")
            != Some("endpoint-controller")
}

impl Controller {
    async fn reconcile(&self, key: ObjectKey) -> anyhow::Result<Action> {
        if !self.written.caught_up(&key) {
            return Ok(Action::RequeueAfter(STALE));
        }
        let existing = endpointslice::managed(&self.slices, &key, CONTROLLER);
        let service = self.services.store().get(&key).filter(|service| services::selector(service).is_none());
        let endpoints = self.endpoints.store().get(&key).filter(|endpoints| is_mirrored(endpoints));
        let wanted = match (service, &endpoints) {
            (Some(_), Some(endpoints)) => {
                let wanted = wanted(endpoints, self.max);
                self.say_skipped(endpoints, &wanted);
                wanted.slices
            }
            _ => Vec::new(),
        };
        let (create, update, delete) = plan(wanted, &existing);
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for slice in create {
            match api.create(&PostParams::default(), &slice).await {
                Ok(created) => self.written.wrote(&key, &created),
                Err(error) if errors::is_namespace_terminating(&error) => return Ok(Action::Done),
                Err(error) => return Err(error.into()),
            }
        }
        for slice in update {
            let written = api.replace(meta::name(&slice.metadata), &PostParams::default(), &slice).await?;
            self.written.wrote(&key, &written);
        }
        for slice in delete {
            let exactly = Preconditions { uid: slice.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
            api.delete(meta::name(&slice.metadata), &params).await.ignore_gone()?;
            self.written.deleted(&key, &*slice);
        }
        if endpoints.is_none() && existing.is_empty() {
            self.written.forget(&key);
        }
        Ok(Action::Done)
    }
}

impl Controller {
    fn say_skipped(&self, endpoints: &Endpoints, wanted: &Wanted) {
        let say = |reason: &str, message: String| {
            self.recorder.object_event(endpoints, EventType::Warning, reason, message);
        };
        let (invalid, skipped, max) = (wanted.invalid, wanted.skipped, self.max);
        if invalid > 0 {
            let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
            say("InvalidIPAddress", message);
        }
        if skipped > invalid {
            let message = format!(
                "A max of {max} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
            );
            say("TooManyAddressesToMirror", message);
        }
    }
}

type Key = (String, Vec<(String, i32, String)>);

fn key(slice: &EndpointSlice) -> Key {
    let port = |port: &EndpointPort| {
        (
            port.name.clone().unwrap_or_default(),
            port.port.unwrap_or(0),
            port.protocol.clone().unwrap_or_default(),
        )
    };
    let mut ports: Vec<_> = slice.ports.iter().flatten().map(port).collect();
    ports.sort();
    (slice.address_type.clone(), ports)
}

/// What is mirrored, and how much is not.
struct Wanted {
    slices: Vec<EndpointSlice>,
    /// Addresses that are none.
    invalid: usize,
    /// Addresses that are not mirrored, for whatever reason.
    skipped: usize,
}

/// One slice for each set of ports and kind of addresses.
fn wanted(endpoints: &Endpoints, max: usize) -> Wanted {
    let (mut invalid, mut skipped) = (0, 0);
    let mut slices: BTreeMap<Key, EndpointSlice> = BTreeMap::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Vec<_> = subset
            .ports
            .iter()
            .flatten()
            .map(|port| EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(port.port),
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let unready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        let (mut added, mut all) = (0, 0);
        for (address, ready) in ready.chain(unready) {
            all += 1;
            if added >= max {
                continue;
            }
            let Some((address_type, endpoint)) = endpoint(address, ready) else {
                invalid += 1;
                continue;
            };
            added += 1;
            let empty = slice(endpoints, address_type, ports.clone());
            let slice = slices.entry(key(&empty)).or_insert(empty);
            slice.endpoints.get_or_insert_default().push(endpoint);
        }
        skipped += all - added;
    }
    Wanted { slices: slices.into_values().collect(), invalid, skipped }
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        hostname: address.hostname.clone().filter(|hostname| !hostname.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Default::default()
    };
    Some((if ip.is_ipv6() { "IPv6" } else { "IPv4" }, endpoint))
}

fn slice(endpoints: &Endpoints, address_type: &str, ports: Vec<EndpointPort>) -> EndpointSlice {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.to_owned(), meta::name(&endpoints.metadata).to_owned());
    labels.insert(MANAGED_BY.to_owned(), CONTROLLER.to_owned());
    let mut annotations = endpoints.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|name, _| !NOT_MIRRORED.contains(&name.as_str()));
    EndpointSlice {
        metadata: ObjectMeta {
            generate_name: Some(pods::name_prefix(meta::name(&endpoints.metadata))),
            namespace: endpoints.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
            owner_references: Some(vec![meta::controller_reference(endpoints)]),
            ..Default::default()
        },
        address_type: address_type.to_owned(),
        endpoints: Some(Vec::new()),
        ports: Some(ports),
    }
}

type Changes = (Vec<EndpointSlice>, Vec<EndpointSlice>, Vec<Arc<EndpointSlice>>);

/// Slices to create, to overwrite and to delete.
fn plan(wanted: Vec<EndpointSlice>, existing: &[Arc<EndpointSlice>]) -> Changes {
    let mut left: Vec<_> = existing.to_vec();
    let (mut create, mut update) = (Vec::new(), Vec::new());
    for slice in wanted {
        let Some(index) = left.iter().position(|held| key(held) == key(&slice)) else {
            create.push(slice);
            continue;
        };
        let held = left.swap_remove(index);
        let same = held.endpoints == slice.endpoints
            && held.metadata.labels == slice.metadata.labels
            && held.metadata.annotations == slice.metadata.annotations
            && held.metadata.owner_references == slice.metadata.owner_references;
        if !same {
            let metadata = ObjectMeta {
                labels: slice.metadata.labels.clone(),
                annotations: slice.metadata.annotations.clone(),
                owner_references: slice.metadata.owner_references.clone(),
                ..held.metadata.clone()
            };
            update.push(EndpointSlice { metadata, ..slice });
        }
    }
    (create, update, left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{EndpointPort as Port, EndpointSubset};

    fn endpoints(ips: &[&str]) -> Endpoints {
        let address = |ip: &&str| EndpointAddress { ip: (*ip).into(), ..Default::default() };
        let mut endpoints = Endpoints::default();
        endpoints.metadata.name = Some("db".into());
        endpoints.metadata.annotations = Some([(services::TRIGGER_TIME.to_owned(), "now".to_owned())].into());
        endpoints.subsets = Some(vec![EndpointSubset {
            addresses: Some(ips.iter().map(address).collect()),
            ports: Some(vec![Port { port: 5432, ..Default::default() }]),
            ..Default::default()
        }]);
        endpoints
    }

    #[test]
    fn slices_follow_the_endpoints() {
        let (create, ..) = plan(wanted(&endpoints(&["10.0.0.1", "fd00::1", "nonsense"]), 1000).slices, &[]);
        let kinds: Vec<_> = create.iter().map(|slice| slice.address_type.as_str()).collect();
        assert_eq!(kinds, ["IPv4", "IPv6"]);
        assert_eq!(meta::label(&create[0].metadata, SERVICE_NAME), Some("db"));
        assert_eq!(create[0].metadata.annotations, None);
        let existing: Vec<_> = create.into_iter().map(Arc::new).collect();
        let (create, update, delete) = plan(wanted(&endpoints(&["10.0.0.2"]), 1000).slices, &existing);
        assert_eq!((create.len(), update.len(), delete.len()), (0, 1, 1));
        let again = plan(wanted(&endpoints(&["10.0.0.1", "fd00::1"]), 1000).slices, &existing);
        assert!(again.0.is_empty() && again.1.is_empty() && again.2.is_empty());
    }

    #[test]
    fn what_is_not_mirrored_is_counted() {
        for (ips, max, mirrored, invalid, skipped) in [
            (vec!["10.0.0.1", "nonsense", "10.0.0.2"], 2, 2, 1, 1),
            (vec!["10.0.0.1", "10.0.0.2", "10.0.0.3"], 2, 2, 0, 1),
            (vec!["10.0.0.1"], 2, 1, 0, 0),
        ] {
            let wanted = wanted(&endpoints(&ips), max);
            let count =
                wanted.slices.iter().map(|slice| slice.endpoints.as_ref().map_or(0, Vec::len)).sum::<usize>();
            assert_eq!((count, wanted.invalid, wanted.skipped), (mirrored, invalid, skipped), "{ips:?}");
        }
    }
}
