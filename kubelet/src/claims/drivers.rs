//! Drivers that registered, and the devices of those that are away: a driver none of whose plugins can be reached for a
//! while has no devices any more (upstream's `DRAPluginManager`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use client::Api;
use client::kube::api::{DeleteParams, ListParams};
use k8s_openapi::api::resource::v1::ResourceSlice;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::Claims;
use super::driver::Driver;

/// A driver that is away for so long has no devices any more.
const WIPE: Duration = Duration::from_secs(30);
/// A driver that stopped telling of its devices is asked again after this.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
const WIPE_RETRY: Duration = Duration::from_secs(1);
const WIPE_RETRY_MAX: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Drivers {
    /// Plugins by driver, in the order they registered.
    plugins: BTreeMap<String, Vec<Driver>>,
    /// Drivers whose devices are about to be forgotten, or were.
    leaving: BTreeMap<String, CancellationToken>,
}

impl Drivers {
    /// The plugin to be called: the last that registered, and of several rather one that is connected.
    fn best(&self, name: &str) -> Option<&Driver> {
        let plugins = self.plugins.get(name)?;
        plugins.iter().rev().find(|plugin| plugin.is_connected()).or(plugins.last())
    }

    fn is_usable(&self, name: &str) -> bool {
        self.best(name).is_some_and(Driver::is_connected)
    }
}

impl Claims {
    /// Takes in a plugin of a driver; the text of a refusal is upstream's.
    pub(crate) fn register(&self, name: &str, endpoint: &Path, services: &[String]) -> Result<(), String> {
        let driver = Driver::new(name, endpoint, services)?;
        let mut drivers = self.inner.drivers.lock();
        let plugins = drivers.plugins.entry(name.to_owned()).or_default();
        if plugins.iter().any(|plugin| plugin.endpoint == endpoint) {
            let endpoint = endpoint.display();
            return Err(format!("endpoint {endpoint} already registered for DRA driver plugin {name}"));
        }
        plugins.push(driver.clone());
        drop(drivers);
        tracing::info!(driver = name, "driver of devices registered");
        let (this, own) = (self.clone(), driver.clone());
        self.inner.tasks.spawn("driver-connection", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = own.gone.cancelled() => {}
                () = this.follow(&own) => {}
            }
        });
        let this = self.clone();
        self.inner.tasks.spawn("driver-health", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = driver.gone.cancelled() => {}
                () = this.listen(&driver) => {}
            }
            this.tell(&driver.name, &this.inner.health.lock().forget(&driver.name));
        });
        Ok(())
    }

    /// Looks after the driver's devices whenever a plugin of it is connected or no longer is.
    async fn follow(&self, driver: &Driver) {
        let mut connections = driver.connections.clone();
        loop {
            let connected = *connections.borrow_and_update() > 0;
            tracing::debug!(driver = driver.name, connected, "connection to a driver of devices");
            self.look_after(&driver.name);
            if connections.changed().await.is_err() {
                return;
            }
        }
    }

    /// Hears how a driver's devices are, for as long as it is there. Each attempt connects anew where that is needed, so
    /// that a driver that was away is noticed when it is back.
    async fn listen(&self, driver: &Driver) {
        loop {
            match driver.health().await {
                Ok(mut stream) => {
                    while let Ok(Some(told)) = stream.message().await {
                        let changed =
                            self.inner.health.lock().take_in(&driver.name, told.devices, Instant::now());
                        self.tell(&driver.name, &changed);
                    }
                    let changed = self.inner.health.lock().forget(&driver.name);
                    self.tell(&driver.name, &changed);
                }
                // It does not tell, but it was there to say so.
                Err(status) if status.code() == Code::Unimplemented => driver.disconnected().await,
                Err(status) => {
                    let error = client::chain(&status);
                    tracing::debug!(driver = driver.name, error, "driver does not tell of its devices");
                }
            }
            tokio::time::sleep(LISTEN_AGAIN).await;
        }
    }

    /// A plugin of a driver is gone.
    pub(crate) fn deregister(&self, name: &str, endpoint: &Path) {
        let mut drivers = self.inner.drivers.lock();
        let Some(plugins) = drivers.plugins.get_mut(name) else { return };
        for plugin in plugins.iter().filter(|plugin| plugin.endpoint == endpoint) {
            plugin.gone.cancel();
        }
        plugins.retain(|plugin| plugin.endpoint != endpoint);
        if plugins.is_empty() {
            drivers.plugins.remove(name);
        }
        drop(drivers);
        self.look_after(name);
    }

    /// If no plugin of a driver can be reached, and none can be for a while, the driver's devices are forgotten.
    fn look_after(&self, name: &str) {
        let mut drivers = self.inner.drivers.lock();
        if drivers.is_usable(name) {
            if let Some(leaving) = drivers.leaving.remove(name) {
                leaving.cancel();
            }
            return;
        }
        if drivers.leaving.contains_key(name) {
            // The time began when it was found to be away.
            return;
        }
        let stay = CancellationToken::new();
        drivers.leaving.insert(name.to_owned(), stay.clone());
        drop(drivers);
        let (this, name) = (self.clone(), name.to_owned());
        self.inner.tasks.spawn("driver-leaves", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = stay.cancelled() => {}
                () = async {
                    tokio::time::sleep(WIPE).await;
                    this.wipe(Some(&name)).await;
                } => {}
            }
        });
    }

    /// Deletes what a driver, or any, published of this node's devices.
    pub(super) async fn wipe(&self, driver: Option<&str>) {
        let Some(client) = self.inner.client.clone() else { return };
        let driver_is = driver.map(|name| format!("spec.driver={name},")).unwrap_or_default();
        let fields = format!("{driver_is}spec.nodeName={}", self.inner.node_name);
        let slices: Api<ResourceSlice> = Api::all(client);
        let mut wait = WIPE_RETRY;
        loop {
            let list = ListParams::default().fields(&fields);
            match slices.delete_collection(&DeleteParams::default(), &list).await {
                Ok(_) => return,
                Err(error) if client::is_not_found(&error) => return,
                Err(error) => {
                    let error = client::chain(&error);
                    tracing::debug!(driver, error, "devices of a driver that is gone are not forgotten yet");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WIPE_RETRY_MAX);
        }
    }

    pub(super) fn driver(&self, name: &str) -> Result<Driver, String> {
        let drivers = self.inner.drivers.lock();
        drivers.best(name).cloned().ok_or_else(|| format!("DRA driver {name} is not registered"))
    }

    /// Waits until the plugin that would be called is connected, or is not.
    #[cfg(test)]
    pub(super) async fn reached(&self, name: &str, expected: bool) {
        let mut connections = self.driver(name).expect("registered").connections;
        connections.wait_for(|count| (*count > 0) == expected).await.expect("it is there");
    }
}
