//! The cluster's own containerd: its configuration, its process, and what is imported into it. Another containerd
//! on the same machine is neither used nor touched.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kubelet::runtime::Runtime;
use rustix::process::Signal;
use rustix::thread::{disable_transparent_huge_pages, transparent_huge_pages_are_disabled};
use tokio::process::{Child, Command};

use crate::layout::Layout;
use crate::processes;

/// The image of every pod's sandbox.
pub const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.10.2";

const START_PATIENCE: Duration = Duration::from_secs(60);

/// Writes the configuration.
///
/// # Errors
/// The disk refuses.
pub fn write_config(layout: &Layout) -> Result<()> {
    for folder in [layout.containerd_root(), layout.containerd_state(), layout.cni_config()] {
        fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let text = render(layout, cni_plugins(), !may_lower_oom_score());
    Ok(fs::write(layout.containerd_config(), text)?)
}

/// Where the CNI plugins are: Debian's place, else the common one.
fn cni_plugins() -> &'static str {
    if Path::new("/usr/lib/cni/bridge").exists() { "/usr/lib/cni" } else { "/opt/cni/bin" }
}

/// Whether this process has CAP_SYS_RESOURCE, without which no `oom_score_adj` can be lowered.
fn may_lower_oom_score() -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << CAP_SYS_RESOURCE) != 0
}

fn render(layout: &Layout, cni_plugins: &str, restrict_oom_score: bool) -> String {
    format!(
        r#"version = 2
root = {root:?}
state = {state:?}
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt"]

[grpc]
  address = {socket:?}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{SANDBOX_IMAGE}"
  restrict_oom_score_adj = {restrict_oom_score}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_plugins}"
    conf_dir = {cni:?}
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"#,
        root = layout.containerd_root(),
        state = layout.containerd_state(),
        socket = layout.containerd_socket(),
        cni = layout.cni_config(),
    )
}

/// Starts containerd and waits until it answers. Containers of an earlier run go on under it; the containerd of a
/// server that was killed ends first, as two cannot have one state.
///
/// # Errors
/// It cannot be started, or does not answer within a minute.
pub async fn start(layout: &Layout) -> Result<Child> {
    let log = layout.log("containerd");
    fs::create_dir_all(log.parent().unwrap_or(Path::new("/")))?;
    let log_file = fs::File::options().create(true).append(true).open(&log)?;
    let config = layout.containerd_config();
    let earlier = || processes::told_of("containerd", &config);
    processes::end(earlier, Signal::TERM, START_PATIENCE).await.context("end an earlier containerd")?;
    let mut command = Command::new("containerd");
    command.arg("--config").arg(layout.containerd_config());
    command.stdin(Stdio::null()).stdout(log_file.try_clone()?).stderr(log_file);
    // Signals meant for us (an interrupt from the terminal) must not reach it.
    command.process_group(0);
    let mut child = spawn(command).context("start containerd (is the package containerd installed?)")?;
    let socket = layout.containerd_socket();
    let answered = tokio::time::timeout(START_PATIENCE, async {
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("containerd ended at once ({status}); see {}", log.display());
            }
            // It answers before its CRI plugin does.
            if Runtime::connect(&socket, &socket, START_PATIENCE).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    match answered.await {
        Ok(outcome) => outcome?,
        Err(_) => bail!("containerd does not answer after {START_PATIENCE:?}; see {}", log.display()),
    }
    Ok(child)
}

/// Starts containerd with huge pages as the machine has them. Our own processes do without (`mimalloc`), and what is
/// started by one inherits that, down to the processes of pods.
fn spawn(mut command: Command) -> io::Result<Child> {
    let disabled = transparent_huge_pages_are_disabled()?;
    disable_transparent_huge_pages(false)?;
    let child = command.spawn();
    disable_transparent_huge_pages(disabled)?;
    child
}

fn ctr(layout: &Layout) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(layout.containerd_socket()).args(["--namespace", "k8s.io"]);
    command
}

/// Imports the archives that have changed since they were imported last.
///
/// # Errors
/// An archive cannot be read, or containerd refuses it.
pub async fn import(layout: &Layout, archives: &[PathBuf], progress: &(dyn Fn(&str) + Sync)) -> Result<()> {
    for archive in archives {
        let marker = layout.containerd_root().join("imported").join(archive.file_name().unwrap_or_default());
        let modified = fs::metadata(archive).and_then(|m| m.modified());
        let modified = modified.with_context(|| format!("read {}", archive.display()))?;
        let stamp = format!("{} {modified:?}", archive.display());
        if fs::read_to_string(&marker).is_ok_and(|old| old == stamp) {
            continue;
        }
        progress(&format!("importing {}", archive.display()));
        let output = ctr(layout).args(["images", "import", "--no-unpack"]).arg(archive).output().await;
        let output = output.context("run ctr")?;
        ensure!(
            output.status.success(),
            "{} cannot be imported: {}",
            archive.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        fs::create_dir_all(marker.parent().unwrap_or(Path::new("/")))?;
        fs::write(marker, stamp)?;
    }
    Ok(())
}
