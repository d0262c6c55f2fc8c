//! Removing what a cluster made: pods, rules, bridge, control groups, mounts, files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use kubelet::runtime::Runtime;
use rustix::process::Signal;
use tokio::process::Command;
use tracing::warn;

use crate::layout::Layout;
use crate::settings::Settings;
use crate::{containerd, processes};

const CALL_PATIENCE: Duration = Duration::from_secs(30);
const END_PATIENCE: Duration = Duration::from_secs(10);
const SHIM: &str = "containerd-shim-runc-v2";

/// Removes everything below `layout` and everything it left elsewhere on this machine. The server must have
/// stopped.
///
/// # Errors
/// Files cannot be removed. What cannot be undone otherwise is reported and left.
pub async fn everything(layout: &Layout, keep_data: bool, progress: &(dyn Fn(&str) + Sync)) -> Result<()> {
    progress("removing pods");
    let settings = Settings::read(layout).ok();
    node(layout).await?;
    progress("removing packet rules and the pod network");
    for outcome in [proxy::kernel::cleanup().await, network::apply::cleanup().await] {
        if let Err(error) = outcome {
            warn!(error = %format!("{error:#}"), "rules could not all be removed");
        }
    }
    if let Some(settings) = &settings {
        let delete =
            Command::new("ip").args(["link", "delete", &settings.bridge]).stderr(Stdio::null()).status();
        // It may never have been made.
        let _ = delete.await;
    }
    if !keep_data {
        progress("removing data");
        remove_folder(&layout.data)?;
    }
    Ok(())
}

/// Removes the pods, their control groups and mounts, and what does not survive a reboot anyway.
///
/// # Errors
/// Files cannot be removed.
pub async fn node(layout: &Layout) -> Result<()> {
    if layout.containerd_config().exists()
        && let Err(error) = remove_pods(layout).await
    {
        warn!(error = %format!("{error:#}"), "containerd could not be asked to remove pods");
    }
    end_shims(&layout.containerd_socket()).await?;
    if let Ok(settings) = Settings::read(layout) {
        remove_cgroups(&settings.cgroup_root);
    }
    unmount_below(&[&layout.data, &layout.run]);
    remove_folder(&layout.run)
}

async fn remove_pods(layout: &Layout) -> Result<()> {
    let mut child = containerd::start(layout).await?;
    let removed = ask_to_remove_pods(&layout.containerd_socket()).await;
    child.start_kill()?;
    child.wait().await?;
    removed
}

/// Asks containerd to remove all pods; one that it cannot remove does not save the others.
async fn ask_to_remove_pods(socket: &Path) -> Result<()> {
    let runtime = Runtime::connect(socket, socket, CALL_PATIENCE).await.context("reach containerd")?;
    for sandbox in runtime.list_pod_sandboxes(None).await? {
        let removed = async {
            runtime.stop_pod_sandbox(&sandbox.id).await?;
            runtime.remove_pod_sandbox(&sandbox.id).await
        };
        if let Err(error) = removed.await {
            warn!(sandbox = sandbox.id, %error, "containerd could not remove a pod");
        }
    }
    Ok(())
}

/// Ends the shims of this containerd that are left, and the containers they watch over.
async fn end_shims(socket: &Path) -> Result<()> {
    // Containers first: one without a shim would be nobody's.
    let left = || {
        let shims = processes::told_of(SHIM, socket);
        let containers: Vec<_> = shims.iter().flat_map(|shim| processes::children(*shim)).collect();
        containers.into_iter().chain(shims).collect()
    };
    processes::end(left, Signal::KILL, END_PATIENCE).await.context("end containers")
}

/// Removes mounts below these folders, the deepest first.
fn unmount_below(folders: &[&Path]) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = text.lines().filter_map(|line| line.split(' ').nth(4)).map(|p| p.replace("\\040", " "));
    let mut points: Vec<_> = points.filter(|p| folders.iter().any(|f| Path::new(p).starts_with(f))).collect();
    points.sort();
    for point in points.iter().rev() {
        if let Err(error) = rustix::mount::unmount(point.as_str(), rustix::mount::UnmountFlags::DETACH) {
            warn!(point, %error, "could not be unmounted");
        }
    }
}

/// Removes the empty groups of pods in every hierarchy.
fn remove_cgroups(root: &str) {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().filter_map(Result::ok).map(|e| e.path());
    for hierarchy in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
        let pods = hierarchy.join(root.trim_matches('/')).join("kubepods");
        if pods.is_dir() {
            remove_groups(&pods);
        }
        if !root.trim_matches('/').is_empty() {
            // Fails while others use it, as it should.
            let _ = fs::remove_dir(hierarchy.join(root.trim_matches('/')));
        }
    }
}

fn remove_groups(group: &Path) {
    let below = fs::read_dir(group).into_iter().flatten().filter_map(Result::ok).map(|e| e.path());
    for child in below.filter(|path| path.is_dir()) {
        remove_groups(&child);
    }
    // Fails while a process is in it; a later try removes it.
    let _ = fs::remove_dir(group);
}

fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
