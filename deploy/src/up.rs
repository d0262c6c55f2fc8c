//! `coxswain up`, `down` and `status`: a cluster in the background of this machine.
//!
//! Where systemd runs, a unit keeps the server going and starts it after a reboot; elsewhere it is a process of
//! its own session, and `up` starts it again.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use client::Api;
use k8s_openapi::api::core::v1::Node;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};

use crate::layout::Layout;
use crate::settings::Settings;
use crate::{cleanup, containerd, kubeconfig, prepare, server};

const UNIT: &str = "/etc/systemd/system/coxswain.service";
/// As kubeadm has it.
const START_PATIENCE: Duration = Duration::from_secs(240);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Starts the cluster unless it runs already from the same binary, and waits until its node is ready.
///
/// # Errors
/// It cannot be prepared or started, or does not become ready.
pub async fn up(layout: &Layout, settings: &Settings, progress: &(dyn Fn(&str) + Sync)) -> Result<()> {
    prepare::prepare(layout, settings)?;
    let wanted = fingerprint(settings)?;
    let running = running_pid(layout).is_some();
    let mut server = None;
    let marker = layout.run.join("started-as");
    if running && fs::read_to_string(&marker).is_ok_and(|as_it_was| as_it_was == wanted) {
        progress("the cluster runs already");
        // The server imports what is there when it starts; some images may be newer.
        containerd::import(layout, &prepare::archives(&layout.images()), progress).await?;
    } else {
        if running {
            progress("restarting the cluster: it changed; pods go on");
            stop(layout).await?;
        }
        progress("starting the cluster");
        server = start(layout, settings).await?;
        fs::write(&marker, wanted)?;
    }
    let log = layout.log("coxswain");
    tokio::select! {
        ready = wait_until_ready(layout, settings, progress) => ready?,
        why = end_of(server, &log) => bail!(why),
    }
    if settings.joined { Ok(()) } else { install_kubeconfig(layout, progress) }
}

/// Changes with the binary and with the settings.
fn fingerprint(settings: &Settings) -> Result<String> {
    let exe = std::env::current_exe()?;
    let modified = fs::metadata(&exe)?.modified()?;
    Ok(format!("{} {modified:?} {}", exe.display(), serde_json::to_string(settings)?))
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Starts the server; its process, unless it is systemd's to start it again when it ends.
async fn start(layout: &Layout, settings: &Settings) -> Result<Option<Child>> {
    let exe = std::env::current_exe()?;
    let mut arguments: Vec<String> = vec![
        "server".into(),
        format!("--data-dir={}", layout.data.display()),
        format!("--run-dir={}", layout.run.display()),
    ];
    arguments.extend(server_flags(settings));
    let log = layout.log("coxswain");
    if has_systemd() {
        fs::write(UNIT, unit(&exe, &arguments, &log)).with_context(|| format!("write {UNIT}"))?;
        systemctl(&["daemon-reload"]).await?;
        systemctl(&["enable", "coxswain.service"]).await?;
        systemctl(&["restart", "coxswain.service"]).await?;
        return Ok(None);
    }
    let file = fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| log.display().to_string())?;
    let mut command = Command::new("setsid");
    command.arg(&exe).args(&arguments).current_dir("/");
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    Ok(Some(command.spawn().context("start the server")?))
}

/// Waits until the server ends, which it should not; what it said last.
async fn end_of(server: Option<Child>, log: &Path) -> String {
    let Some(mut server) = server else { return std::future::pending().await };
    let how = match server.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let said = fs::read_to_string(log).unwrap_or_default();
    let last = said.lines().next_back().unwrap_or_default();
    format!("the cluster ended ({how}): {last}; see {}", log.display())
}

/// The settings as flags of `coxswain server`.
#[must_use]
pub fn server_flags(settings: &Settings) -> Vec<String> {
    let Settings {
        node_name,
        node_ip,
        secure_port,
        cluster_cidr,
        service_cluster_ip_range,
        cluster_domain,
        etcd_servers,
        bridge,
        pod_network_backend,
        cgroup_root,
        max_pods,
        verbosity,
        joined,
    } = settings;
    let mut flags = vec![
        format!("--node-name={node_name}"),
        format!("--secure-port={secure_port}"),
        format!("--cluster-cidr={cluster_cidr}"),
        format!("--service-cluster-ip-range={service_cluster_ip_range}"),
        format!("--cluster-domain={cluster_domain}"),
        format!("--etcd-servers={etcd_servers}"),
        format!("--bridge={bridge}"),
        format!("--pod-network-backend={pod_network_backend}"),
        format!("--cgroup-root={cgroup_root}"),
        format!("--max-pods={max_pods}"),
        format!("--v={verbosity}"),
    ];
    flags.extend(node_ip.iter().map(|ip| format!("--node-ip={ip}")));
    flags.extend(joined.then(|| "--joined".to_owned()));
    flags
}

/// Stopping the unit leaves containers and containerd's shims alone. What it says goes where all logs are.
fn unit(exe: &Path, arguments: &[String], log: &Path) -> String {
    format!(
        "[Unit]\nDescription=Coxswain, a Kubernetes cluster\nAfter=network-online.target\nWants=network-online.target\n\n\
         [Service]\nExecStart={} {}\nRestart=always\nRestartSec=1\nKillMode=process\nDelegate=yes\n\
         LimitNOFILE=1048576\nTasksMax=infinity\nStandardOutput=append:{log}\nStandardError=append:{log}\n\n\
         [Install]\nWantedBy=multi-user.target\n",
        exe.display(),
        arguments.join(" "),
        log = log.display(),
    )
}

async fn systemctl(arguments: &[&str]) -> Result<()> {
    let output = Command::new("systemctl").args(arguments).output().await.context("run systemctl")?;
    ensure!(
        output.status.success(),
        "systemctl {} failed: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

async fn wait_until_ready(
    layout: &Layout,
    settings: &Settings,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<()> {
    let log = layout.log("coxswain");
    let late = |what: String| format!("{what} is not ready after {START_PATIENCE:?}; see {}", log.display());
    let client = if settings.joined {
        progress("waiting for the node's certificate");
        let kubeconfig = layout.kubeconfig("kubelet");
        tokio::time::timeout(START_PATIENCE, exists(&kubeconfig))
            .await
            .map_err(|_| anyhow!(late("the node's certificate".into())))?;
        kubeconfig::connect(layout, "kubelet").await?
    } else {
        progress("waiting for the API server");
        let client = server::admin(layout).await?;
        let patience = tokio::time::timeout(START_PATIENCE, server::ready(&client));
        patience.await.map_err(|_| anyhow!(late("the API server".into())))?;
        client
    };
    progress("waiting for the node");
    let nodes: Api<Node> = Api::all(client);
    let began = Instant::now();
    while began.elapsed() < START_PATIENCE {
        if let Ok(Some(node)) = nodes.get_opt(&settings.node_name).await
            && is_ready(&node)
        {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!(late(format!("the node {}", settings.node_name)))
}

async fn exists(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the node says that it is ready.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Makes the cluster root's own, unless root has another already.
fn install_kubeconfig(layout: &Layout, progress: &(dyn Fn(&str) + Sync)) -> Result<()> {
    let ours = layout.kubeconfig("admin");
    let Some(home) = std::env::var_os("HOME") else { return Ok(()) };
    let usual = Path::new(&home).join(".kube/config");
    if fs::symlink_metadata(&usual).is_ok() {
        if fs::read_link(&usual).is_ok_and(|target| target == ours) {
            return Ok(());
        }
        progress(&format!("{} is another cluster's: export KUBECONFIG={}", usual.display(), ours.display()));
        return Ok(());
    }
    fs::create_dir_all(usual.parent().unwrap_or(Path::new("/")))?;
    std::os::unix::fs::symlink(&ours, &usual).with_context(|| format!("link {}", usual.display()))
}

/// The server's process, by the file it keeps, if that process is there and is ours.
fn running_pid(layout: &Layout) -> Option<Pid> {
    let text = fs::read_to_string(layout.pid("coxswain")).ok()?;
    let pid: i32 = text.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let ours = command.windows(8).any(|w| w == b"coxswain");
    Pid::from_raw(pid).filter(|_| ours)
}

async fn stop(layout: &Layout) -> Result<()> {
    if has_systemd() && Path::new(UNIT).exists() {
        systemctl(&["stop", "coxswain.service"]).await?;
    }
    let Some(pid) = running_pid(layout) else { return Ok(()) };
    rustix::process::kill_process(pid, Signal::TERM)?;
    let began = Instant::now();
    while running_pid(layout).is_some() {
        if began.elapsed() > STOP_PATIENCE {
            rustix::process::kill_process(pid, Signal::KILL)?;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Stops the cluster and removes everything it made on this machine; nothing else.
///
/// # Errors
/// Something cannot be stopped or removed.
pub async fn down(layout: &Layout, keep_data: bool, progress: &(dyn Fn(&str) + Sync)) -> Result<()> {
    progress("stopping the cluster");
    stop(layout).await?;
    if has_systemd() && Path::new(UNIT).exists() {
        systemctl(&["disable", "coxswain.service"]).await?;
        fs::remove_file(UNIT)?;
        systemctl(&["daemon-reload"]).await?;
    }
    cleanup::everything(layout, keep_data, progress).await?;
    let home = std::env::var_os("HOME").unwrap_or_default();
    let usual = Path::new(&home).join(".kube/config");
    if fs::read_link(&usual).is_ok_and(|target| target == layout.kubeconfig("admin")) {
        fs::remove_file(&usual)?;
        // `up` makes the folder; whoever has put something into it keeps it.
        let _ = fs::remove_dir(usual.parent().unwrap_or(&usual));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_writes_the_log_that_messages_name() {
        let unit = unit(
            Path::new("/bin/coxswain"),
            &["server".into(), "--v=2".into()],
            Path::new("/data/log/coxswain.log"),
        );
        for line in [
            "ExecStart=/bin/coxswain server --v=2",
            "KillMode=process",
            "StandardOutput=append:/data/log/coxswain.log",
            "StandardError=append:/data/log/coxswain.log",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line} is not in {unit}");
        }
    }

    #[tokio::test]
    async fn a_server_that_ends_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        fs::write(&log, "starting\nno control groups are mounted\n").expect("a log");
        let server = Command::new("false").spawn().expect("it runs");
        let why = end_of(Some(server), &log).await;
        let expected = "the cluster ended (exit status: 1): no control groups are mounted; see ";
        assert!(why.starts_with(expected), "{why}");
    }
}
