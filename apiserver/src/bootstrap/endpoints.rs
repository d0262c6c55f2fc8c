//! The endpoints of the `kubernetes` Service: one address for each server that runs (upstream
//! `pkg/controlplane/reconcilers/lease.go`).
//!
//! Every server keeps a record with a time to live in the store; the endpoints are the records that live. A server
//! that stops removes its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::status::ApiError;
use bytes::Bytes;
use client::Client;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use store::{Expect, Range, Store};
use tokio_util::sync::CancellationToken;

use crate::authz::from_client;

/// How long a record lives without being renewed.
const TIME_TO_LIVE: Duration = Duration::from_secs(15);
/// How often it is renewed and the endpoints are compared.
const INTERVAL: Duration = Duration::from_secs(10);
const NAME: &str = "kubernetes";
const NAMESPACE: &str = "default";

/// The address a server is reached at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertised {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

/// This server as one of the endpoints.
pub struct Member {
    store: Arc<dyn Store>,
    client: Client,
    /// The prefix of the records, for example `/registry/masterleases/`.
    prefix: String,
    own: Advertised,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The records cannot be read or written.
    #[error("server records")]
    Store(#[from] store::Error),
    /// The API does not take the endpoints.
    #[error("endpoints of the kubernetes Service")]
    Api(#[from] ApiError),
}

impl Member {
    /// `storage_prefix`: what every key begins with.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, client: Client, storage_prefix: &str, own: Advertised) -> Self {
        Self { store, client, prefix: format!("{}/masterleases/", storage_prefix.trim_end_matches('/')), own }
    }

    /// Keeps the endpoints right until `token` is cancelled, then takes this server out.
    pub async fn run(self, token: CancellationToken) {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => break,
                _ = interval.tick() => {}
            }
            if let Err(error) = self.join().await {
                tracing::warn!(error = %error_chain(&error), "could not refresh the kubernetes endpoints, will retry");
            }
        }
        let left = tokio::time::timeout(INTERVAL, self.leave()).await;
        if !matches!(left, Ok(Ok(()))) {
            tracing::warn!("could not remove this server from the kubernetes endpoints");
        }
    }

    /// Renews this server's record and brings the endpoints up to date.
    pub async fn join(&self) -> Result<(), Error> {
        self.renew().await?;
        let addresses = self.addresses().await?;
        self.write(&addresses).await
    }

    /// Removes this server. When it is the last one its address stays: the Service must not be empty while it
    /// restarts.
    pub async fn leave(&self) -> Result<(), Error> {
        match self.store.delete(&self.key(), None).await {
            Ok(_) | Err(store::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let addresses = self.addresses().await?;
        if addresses.is_empty() {
            return Ok(());
        }
        self.write(&addresses).await
    }

    fn key(&self) -> String {
        format!("{}{}", self.prefix, self.own.address)
    }

    async fn renew(&self) -> Result<(), Error> {
        let value = serde_json::json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {},
            "subsets": [{"addresses": [{"ip": self.own.address}]}]});
        let key = self.key();
        let (current, _) = self.store.get(&key).await?;
        let expect = current.map_or(Expect::Absent, |current| Expect::At(current.modified));
        let value = Bytes::from(value.to_string());
        self.store.put(&key, value, expect, Some(TIME_TO_LIVE)).await?;
        Ok(())
    }

    /// The addresses of all servers that live, sorted.
    async fn addresses(&self) -> Result<Vec<IpAddr>, Error> {
        let found = self.store.range(Range::prefix(&self.prefix)).await?;
        let names = found.items.iter().filter_map(|item| item.key.strip_prefix(&self.prefix));
        let mut addresses: Vec<IpAddr> = names.filter_map(|name| name.parse().ok()).collect();
        addresses.sort();
        Ok(addresses)
    }

    async fn write(&self, addresses: &[IpAddr]) -> Result<(), Error> {
        let endpoints = Api::<Endpoints>::namespaced(self.client.clone(), NAMESPACE);
        let slices = Api::<EndpointSlice>::namespaced(self.client.clone(), NAMESPACE);
        let params = PostParams::default();
        let wanted = plan_endpoints(addresses, self.own.port);
        match endpoints.get_opt(NAME).await.map_err(from_client)? {
            None => drop(endpoints.create(&params, &wanted).await.map_err(from_client)?),
            Some(existing) => {
                if let Some(new) = changed_endpoints(existing, wanted) {
                    endpoints.replace(NAME, &params, &new).await.map_err(from_client)?;
                }
            }
        }
        let wanted = plan_slice(addresses, self.own.port);
        match slices.get_opt(NAME).await.map_err(from_client)? {
            None => drop(slices.create(&params, &wanted).await.map_err(from_client)?),
            Some(existing) if existing.address_type != wanted.address_type => {
                slices.delete(NAME, &DeleteParams::default()).await.map_err(from_client)?;
                slices.create(&params, &wanted).await.map_err(from_client)?;
            }
            Some(existing) => {
                let same = existing.endpoints == wanted.endpoints
                    && existing.ports == wanted.ports
                    && existing.metadata.labels == wanted.metadata.labels;
                if !same {
                    let metadata = ObjectMeta { labels: wanted.metadata.labels.clone(), ..existing.metadata };
                    slices
                        .replace(NAME, &params, &EndpointSlice { metadata, ..wanted })
                        .await
                        .map_err(from_client)?;
                }
            }
        }
        Ok(())
    }
}

fn error_chain(error: &Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

fn meta(label: (&str, &str)) -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(NAMESPACE.to_owned()),
        labels: Some(BTreeMap::from([(label.0.to_owned(), label.1.to_owned())])),
        ..ObjectMeta::default()
    }
}

fn plan_endpoints(addresses: &[IpAddr], port: u16) -> Endpoints {
    let addresses: Vec<_> = addresses
        .iter()
        .map(|ip| EndpointAddress { ip: ip.to_string(), ..EndpointAddress::default() })
        .collect();
    let port = EndpointPort {
        name: Some("https".to_owned()),
        port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..EndpointPort::default()
    };
    let subset =
        EndpointSubset { addresses: Some(addresses), not_ready_addresses: None, ports: Some(vec![port]) };
    Endpoints {
        metadata: meta(("endpointslice.kubernetes.io/skip-mirror", "true")),
        subsets: Some(vec![subset]),
    }
}

/// What to write over `existing`; `None` if it is right.
fn changed_endpoints(existing: Endpoints, wanted: Endpoints) -> Option<Endpoints> {
    let labels = wanted.metadata.labels.unwrap_or_default();
    let own = existing.metadata.labels.clone().unwrap_or_default();
    let labelled = labels.iter().all(|(key, value)| own.get(key) == Some(value));
    if labelled && existing.subsets == wanted.subsets {
        return None;
    }
    let mut metadata = existing.metadata;
    metadata.labels.get_or_insert_default().extend(labels);
    Some(Endpoints { metadata, subsets: wanted.subsets })
}

fn plan_slice(addresses: &[IpAddr], port: u16) -> EndpointSlice {
    let endpoint = |ip: &IpAddr| Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    };
    let v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let port = SlicePort {
        name: Some("https".to_owned()),
        port: Some(i32::from(port)),
        protocol: Some("TCP".to_owned()),
        ..SlicePort::default()
    };
    EndpointSlice {
        metadata: meta(("kubernetes.io/service-name", NAME)),
        address_type: if v6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: Some(addresses.iter().map(endpoint).collect()),
        ports: Some(vec![port]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|a| a.parse().expect("address")).collect()
    }

    #[test]
    fn endpoints_hold_every_server() {
        let endpoints = plan_endpoints(&addresses(&["10.1.1.1", "10.1.1.2"]), 6443);
        let subset = &endpoints.subsets.as_ref().expect("subsets")[0];
        assert_eq!(subset.addresses.as_ref().expect("addresses").len(), 2);
        assert!(changed_endpoints(endpoints.clone(), endpoints.clone()).is_none());
        let fewer = plan_endpoints(&addresses(&["10.1.1.1"]), 6443);
        let changed = changed_endpoints(endpoints, fewer.clone()).expect("changed");
        assert_eq!(changed.subsets, fewer.subsets);
    }

    #[test]
    fn the_slice_has_the_family_of_the_addresses() {
        assert_eq!(plan_slice(&addresses(&["10.1.1.1"]), 1).address_type, "IPv4");
        assert_eq!(plan_slice(&addresses(&["fd00::1"]), 1).address_type, "IPv6");
    }
}
