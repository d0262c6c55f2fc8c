//! `coxswain server`: components in one process, over a containerd of their own.

use std::time::Duration;

use anyhow::{Context, Result};
use client::{Client, Tasks};
use tokio::sync::watch;
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
    let imported = components.contains(&Component::Kubelet).then(|| spawn_containerd(&tasks, &layout));
    let client = admin(&layout).await?;
    let stopped = tasks.token();
    tokio::select! {
        () = stopped.cancelled() => {}
        () = ready(&client) => info!("API server is ready"),
    }
    for component in components.into_iter().filter(|c| *c != Component::KubeApiserver) {
        match &imported {
            Some(imported) if component == Component::Kubelet => {
                spawn_after(imported.clone(), &tasks, component, &layout, &settings);
            }
            _ => spawn(&tasks, component, &layout, &settings),
        }
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

/// Spawns a component that starts when the images are there.
fn spawn_after(
    mut imported: watch::Receiver<bool>,
    tasks: &Tasks,
    component: Component,
    layout: &Layout,
    settings: &Settings,
) {
    let (layout, settings) = (layout.clone(), settings.clone());
    tasks.spawn_critical(component.name(), |token| async move {
        if wait_for_images(&mut imported, &token).await {
            return component.run(&layout, &settings, token).await.with_context(|| component.name());
        }
        Ok(())
    });
}

/// Runs containerd; the answer becomes true when the images are imported.
pub fn spawn_containerd(tasks: &Tasks, layout: &Layout) -> watch::Receiver<bool> {
    let (told, imported) = watch::channel(false);
    let layout = layout.clone();
    tasks.spawn_critical("containerd", |token| supervise_containerd(layout, told, token));
    imported
}

/// Waits for the images: a pod whose sandbox's image is not there yet would fail and be tried again only later. False if
/// `token` is cancelled before.
pub async fn wait_for_images(imported: &mut watch::Receiver<bool>, token: &CancellationToken) -> bool {
    tokio::select! {
        () = token.cancelled() => false,
        // An error says that containerd has failed for good, and then the token is about to be cancelled.
        outcome = imported.wait_for(|done| *done) => outcome.is_ok(),
    }
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
async fn supervise_containerd(
    layout: Layout,
    imported: watch::Sender<bool>,
    token: CancellationToken,
) -> Result<()> {
    loop {
        let mut child = containerd::start(&layout).await?;
        let archives = prepare::archives(&layout.images());
        containerd::import(&layout, &archives, &|step| info!("{step}")).await?;
        imported.send_replace(true);
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
