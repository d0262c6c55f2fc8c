//! A control plane without nodes, in this process, on loopback: for everything that needs no containers.

use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, Tasks};
use deploy::components::Component;
use deploy::layout::Layout;
use deploy::settings::Settings;
use deploy::{kubeconfig, pki, server};
use simulation::node::{Names, Shape};
use simulation::pod::Durations;
use tempfile::TempDir;

use crate::wait;

/// The components, with flags beside the usual ones: only the API server listens, so that others may run beside it.
const COMPONENTS: [(Component, &[&str]); 3] = [
    (Component::KubeApiserver, &[]),
    (Component::KubeControllerManager, &["--secure-port=0"]),
    (Component::KubeScheduler, &["--secure-port=0"]),
];

/// API server, controllers and scheduler over the embedded store.
pub struct ControlPlane {
    /// A client with all rights.
    pub client: Client,
    /// Its files.
    pub layout: Layout,
    tasks: Tasks,
    _folder: TempDir,
}

impl ControlPlane {
    /// Starts it and waits until the API server is ready.
    ///
    /// # Errors
    /// It cannot be started, or does not become ready.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts it with these flags of the scheduler beside the usual ones.
    ///
    /// # Errors
    /// It cannot be started, or does not become ready.
    pub async fn start_with(scheduler: &[&str]) -> Result<Self> {
        client::connect::install_crypto_provider();
        let folder = tempfile::tempdir()?;
        let layout = Layout::new(&folder.path().join("data"), &folder.path().join("run"));
        let settings = settings(free_port()?);
        pki::prepare(&layout, &settings.subjects()?)?;
        kubeconfig::prepare(&layout, &settings.url()?)?;
        let tasks = Tasks::new();
        for (component, more) in COMPONENTS {
            let (layout, settings) = (layout.clone(), settings.clone());
            let asked = if matches!(component, Component::KubeScheduler) { scheduler } else { &[] };
            let more: Vec<_> = more.iter().chain(asked).map(|flag| (*flag).to_owned()).collect();
            tasks.spawn_critical(component.name(), |token| async move {
                let more: Vec<_> = more.iter().map(String::as_str).collect();
                component.run_with(&layout, &settings, &more, token).await.with_context(|| component.name())
            });
        }
        let client = server::admin(&layout).await?;
        let plane = Self { client, layout, tasks, _folder: folder };
        let stopped = plane.tasks.token();
        tokio::select! {
            ready = tokio::time::timeout(wait::PATIENCE, server::ready(&plane.client)) => {
                ready.context("the API server is not ready")?;
                Ok(plane)
            }
            () = stopped.cancelled() => {
                plane.tasks.wait().await?;
                anyhow::bail!("the control plane stopped")
            }
        }
    }

    /// Stops it.
    ///
    /// # Errors
    /// A component has failed, or does not stop.
    pub async fn stop(self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let stopped = tokio::time::timeout(PATIENCE, self.tasks.shut_down()).await;
        Ok(stopped.context("the control plane does not stop")??)
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn settings(secure_port: u16) -> Settings {
    Settings {
        node_name: "none".into(),
        node_ip: vec![Ipv4Addr::LOCALHOST.into()],
        secure_port,
        cluster_cidr: "10.244.0.0/16".into(),
        service_cluster_ip_range: "10.96.0.0/16".into(),
        cluster_domain: "cluster.local".into(),
        etcd_servers: String::new(),
        bridge: String::new(),
        pod_network_backend: deploy::settings::AUTO.into(),
        cgroup_root: String::new(),
        max_pods: 0,
        verbosity: 0,
        joined: false,
    }
}

/// So many small nodes named `simulated-…` in three zones, whose pods start at once and run for a second; until the tasks
/// are cancelled. With `keep` they stay in the API after that.
#[must_use]
pub fn simulate(client: &Client, count: u32, keep: bool) -> Tasks {
    let shape = Shape {
        cpu: 8,
        memory: 16 << 30,
        ephemeral_storage: 100 << 30,
        max_pods: 110,
        resources: [].into(),
        labels: [].into(),
        zones: 3,
        taints: vec![],
    };
    let durations = Durations { start: Duration::ZERO, run: Duration::from_secs(1), stop: Duration::ZERO };
    let names = Names { prefix: "simulated".into(), count };
    let config = simulation::Config { names, shape, durations, concurrency: 8, keep };
    let (tasks, client) = (Tasks::new(), client.clone());
    tasks.spawn_critical("simulation", |token| simulation::run(config, client, token));
    tasks
}
