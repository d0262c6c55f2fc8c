//! `coxswain server`: components in one process, over a containerd of their own.

use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, Tasks};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::components::Component;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::{addons, approver, containerd, kubeconfig, node, prepare};

const POLL: Duration = Duration::from_millis(50);
const RESTART: Duration = Duration::from_secs(1);

/// Runs `components` until `token` is cancelled or one of them fails for good. Containers outlive it.
///
/// # Errors
/// Something cannot be prepared or started, or a component failed.
pub async fn run(
    layout: Layout,
    settings: Settings,
    components: Vec<Component>,
    token: CancellationToken,
) -> Result<()> {
    prepare::prepare(&layout, &settings)?;
    if settings.joined {
        return node::run(layout, settings, token).await;
    }
    let tasks = Tasks::child_of(&token);
    let with_api = components.contains(&Component::KubeApiserver);
    if with_api {
        spawn(&tasks, Component::KubeApiserver, &layout, &settings);
    }
    if components.contains(&Component::Kubelet) {
        let layout = layout.clone();
        tasks.spawn_critical("containerd", |token| supervise_containerd(layout, token));
    }
    let client = admin(&layout).await?;
    let stopped = tasks.token();
    tokio::select! {
        () = stopped.cancelled() => {}
        () = ready(&client) => info!("API server is ready"),
    }
    for component in components.into_iter().filter(|c| *c != Component::KubeApiserver) {
        spawn(&tasks, component, &layout, &settings);
    }
    if with_api {
        let approving = client.clone();
        tasks.spawn_critical("approver", |token| approver::run(approving, token));
        tasks.spawn("addons", |token| async move {
            tokio::select! { () = token.cancelled() => {} () = install_addons(&client, &layout, &settings) => {} }
        });
    }
    Ok(tasks.wait().await?)
}

fn spawn(tasks: &Tasks, component: Component, layout: &Layout, settings: &Settings) {
    let (layout, settings) = (layout.clone(), settings.clone());
    tasks.spawn_critical(component.name(), |token| async move {
        component.run(&layout, &settings, token).await.with_context(|| component.name())
    });
}

/// A client with all rights.
///
/// # Errors
/// The admin's kubeconfig cannot be used.
pub async fn admin(layout: &Layout) -> Result<Client> {
    kubeconfig::connect(layout, "admin").await
}

/// Waits until the API server says that it is ready.
pub async fn ready(client: &Client) {
    loop {
        let request = http::Request::get("/readyz").body(vec![]);
        if let Ok(request) = request
            && client.request_text(request).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn install_addons(client: &Client, layout: &Layout, settings: &Settings) {
    while let Err(error) = addons::apply(client, layout, settings).await {
        warn!(error = %format!("{error:#}"), "addons could not be installed, will retry");
        tokio::time::sleep(RESTART).await;
    }
}

/// Keeps containerd running, imports images at its first start. At the end containerd is stopped; its containers
/// go on.
///
/// # Errors
/// containerd cannot be started, or refuses an image.
pub async fn supervise_containerd(layout: Layout, token: CancellationToken) -> Result<()> {
    loop {
        let mut child = containerd::start(&layout).await?;
        let archives = prepare::archives(&layout.images());
        containerd::import(&layout, &archives, &|step| info!("{step}")).await?;
        tokio::select! {
            () = token.cancelled() => {
                if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw) {
                    rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
                }
                child.wait().await?;
                return Ok(());
            }
            ended = child.wait() => warn!(status = ?ended?, "containerd ended, starting it again"),
        }
        tokio::time::sleep(RESTART).await;
    }
}
