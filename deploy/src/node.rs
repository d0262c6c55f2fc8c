//! `coxswain server` on a machine that joined: what a node needs, all of it with the certificate of its kubelet.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use client::Tasks;
use kubelet::certificates;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::components::Component;
use crate::layout::Layout;
use crate::settings::Settings;
use crate::{join, server};

const COMPONENTS: [Component; 3] = [Component::PodNetwork, Component::KubeProxy, Component::Kubelet];
/// How often it is looked whether the certificate was renewed; the old one is good for weeks then.
const LOOK: Duration = Duration::from_secs(60);

/// Runs until `token` is cancelled or a component fails for good. Containers outlive it.
///
/// # Errors
/// There is no certificate to be had, or a component failed.
pub async fn run(layout: Layout, settings: Settings, token: CancellationToken) -> Result<()> {
    let tasks = Tasks::child_of(&token);
    let imported = server::spawn_containerd(&tasks, &layout);
    let (bootstrap, kubeconfig) = (layout.kubeconfig(join::BOOTSTRAP), layout.kubeconfig("kubelet"));
    let folder = layout.kubelet().join("pki");
    let stopped = tasks.token();
    tokio::select! {
        () = stopped.cancelled() => {}
        ready = certificates::bootstrap(&bootstrap, &kubeconfig, &folder, &settings.node_name) => {
            ready.context("get a certificate for this node")?;
            for component in COMPONENTS {
                let (layout, settings, mut imported) = (layout.clone(), settings.clone(), imported.clone());
                tasks.spawn_critical(component.name(), |token| async move {
                    if component == Component::Kubelet && !server::wait_for_images(&mut imported, &token).await {
                        return Ok(());
                    }
                    run_component(component, layout, settings, token).await.with_context(|| component.name())
                });
            }
        }
    }
    Ok(tasks.wait().await?)
}

/// Runs a component, and starts it over whenever the certificate was renewed. (The kubelet sees to itself.)
async fn run_component(
    component: Component,
    layout: Layout,
    settings: Settings,
    token: CancellationToken,
) -> Result<()> {
    if component == Component::Kubelet {
        return component.run(&layout, &settings, token).await;
    }
    while !token.is_cancelled() {
        let round = token.child_token();
        let (seen, end) = (certificate(&layout), round.clone());
        let renewed = async {
            while certificate(&layout) == seen {
                tokio::time::sleep(LOOK).await;
            }
            info!(component = component.name(), "certificate was renewed, starting over");
            end.cancel();
            std::future::pending().await
        };
        tokio::select! {
            ended = component.run(&layout, &settings, round) => ended?,
            () = renewed => {}
        }
    }
    Ok(())
}

/// The file of the certificate in use: a renewed one is another file.
fn certificate(layout: &Layout) -> Option<PathBuf> {
    std::fs::read_link(layout.kubelet().join("pki/kubelet-client-current.pem")).ok()
}
