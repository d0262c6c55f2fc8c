//! One cluster of one node.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use client::{Api, Client};
use deploy::components::Component;
use deploy::images::{self, Workshop};
use deploy::layout::Layout;
use deploy::settings::Settings;
use deploy::{addons, cleanup, containerd, prepare, server, up};
use k8s_openapi::api::core::v1::Node;
use rustix::process::Pid;

use crate::disk::Disk;
use crate::network::{Namespace, Segment};
use crate::process::Process;
use crate::wait;

/// How the cluster runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `coxswain server`: everything in one process, on the embedded store.
    OneProcess,
    /// The classic manual bring-up: etcd, and each component in a process of its own.
    Separate,
}

/// What a cluster has beside the usual.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Folders of images that are made for it.
    pub images: Vec<PathBuf>,
    /// The size of a disk of its own for what pods need (containers, volumes, logs), in MiB.
    pub disk: Option<u64>,
    /// Keep the state in the embedded store, although each component is in a process of its own.
    pub embedded: bool,
}

/// A running cluster. It is gone when this is dropped.
pub struct Cluster {
    /// How it runs.
    pub form: Form,
    /// Its files.
    pub layout: Layout,
    /// What it was told.
    pub settings: Settings,
    /// A client with all rights.
    pub client: Client,
    /// From the first process's start to the API server being ready.
    pub ready_after: Duration,
    processes: BTreeMap<&'static str, Process>,
    network: Option<(Namespace, Segment)>,
    disk: Option<Disk>,
    root: PathBuf,
}

/// The folder of the binaries under test: that of this test program, or the one above it.
///
/// # Errors
/// This program does not know where it is.
pub fn binaries() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let folder = exe.parent().context("a program is in a folder")?;
    let folder =
        if folder.ends_with("deps") { folder.parent().context("deps is in a folder")? } else { folder };
    Ok(folder.to_owned())
}

/// The folder of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Cluster {
    /// Starts the cluster with this number (clusters of different numbers do not meet), and waits until its node
    /// and its DNS are ready. It has addresses of IPv4, or of both families.
    ///
    /// # Errors
    /// It cannot be started, or does not become ready; the error holds the ends of the logs.
    pub async fn start(form: Form, number: u8, both: bool) -> Result<Self> {
        Self::start_with(form, number, both, &Beside::default()).await
    }

    /// Starts it with something beside the usual.
    ///
    /// # Errors
    /// As above.
    pub async fn start_with(form: Form, number: u8, both: bool, beside: &Beside) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("coxswain-e2e-{number}"));
        let layout = Layout::new(&root.join("data"), &root.join("run"));
        remove_leftovers(&root).await?;
        let segment = Segment::create(number)?;
        let namespace = segment.machine(0)?;
        let settings = Settings {
            node_name: format!("node-{number}"),
            node_ip: namespace.addresses(both),
            secure_port: 6443,
            cluster_cidr: if both { "10.244.0.0/16,fd00:244::/56" } else { "10.244.0.0/16" }.into(),
            service_cluster_ip_range: if both { "10.96.0.0/16,fd00:96::/112" } else { "10.96.0.0/16" }.into(),
            cluster_domain: "cluster.local".into(),
            etcd_servers: if form == Form::Separate && !beside.embedded {
                "http://127.0.0.1:2379".into()
            } else {
                String::new()
            },
            bridge: "coxswain0".into(),
            pod_network_backend: deploy::settings::AUTO.into(),
            cgroup_root: format!("/coxswain-e2e-{number}"),
            max_pods: 60,
            verbosity: 2,
            joined: false,
        };
        prepare::prepare(&layout, &settings)?;
        let disk = beside.disk.map(|size| Disk::below(&layout, size)).transpose()?;
        let workshop = Workshop { cache: cache(), binaries: binaries()? };
        for described in [&repository().join("deploy/images")].into_iter().chain(&beside.images) {
            images::build_all(described, &layout.images(), &workshop, &|step| eprintln!("{step}"))?;
        }
        let client = server::admin(&layout).await?;
        let mut cluster = Self {
            form,
            layout,
            settings,
            client,
            ready_after: Duration::ZERO,
            processes: BTreeMap::new(),
            network: Some((namespace, segment)),
            disk,
            root,
        };
        match cluster.bring_up().await {
            Ok(()) => Ok(cluster),
            Err(error) => bail!("{error:#}\n{}", cluster.log_tails()),
        }
    }

    async fn bring_up(&mut self) -> Result<()> {
        let began = Instant::now();
        match self.form {
            Form::OneProcess => self.spawn_server()?,
            Form::Separate => self.spawn_separate().await?,
        }
        let ready = tokio::time::timeout(wait::PATIENCE, server::ready(&self.client)).await;
        ready.context("the API server is not ready")?;
        self.ready_after = began.elapsed();
        if self.form == Form::Separate {
            addons::apply(&self.client, &self.layout, &self.settings).await?;
        }
        let nodes: Api<Node> = Api::all(self.client.clone());
        let name = self.settings.node_name.clone();
        wait::until("the node is ready", || async {
            Ok(nodes.get_opt(&name).await?.filter(up::is_ready).map(drop))
        })
        .await?;
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), "kube-system");
        wait::until("DNS is ready", || async {
            let list = pods.list(&kube::api::ListParams::default().labels("k8s-app=kube-dns")).await?;
            let ready = list.items.iter().any(|pod| condition(pod, "Ready"));
            Ok(ready.then_some(()))
        })
        .await
    }

    fn spawn_server(&mut self) -> Result<()> {
        let mut words = vec![binaries()?.join("coxswain").display().to_string(), "server".into()];
        words.push(format!("--data-dir={}", self.layout.data.display()));
        words.push(format!("--run-dir={}", self.layout.run.display()));
        words.extend(up::server_flags(&self.settings));
        self.spawn("coxswain", words)
    }

    async fn spawn_separate(&mut self) -> Result<()> {
        if !self.settings.etcd_servers.is_empty() {
            let etcd = self.root.join("etcd");
            let words = format!("etcd --data-dir {} --log-level warn", etcd.display());
            self.spawn("etcd", words.split(' ').map(str::to_owned).collect())?;
        }
        let words = vec![
            "containerd".into(),
            "--config".into(),
            self.layout.containerd_config().display().to_string(),
        ];
        self.spawn("containerd", words)?;
        let archives = prepare::archives(&self.layout.images());
        let layout = self.layout.clone();
        wait::until("images are imported", || async {
            containerd::import(&layout, &archives, &|_| ()).await.map(Some)
        })
        .await?;
        for component in Component::ALL {
            let mut words = vec![binaries()?.join(component.name()).display().to_string()];
            words.extend(component.flags(&self.layout, &self.settings)?);
            self.spawn(component.name(), words)?;
        }
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, words: Vec<String>) -> Result<()> {
        let mut all = self.enter();
        all.extend(words);
        let logs = self.layout.log("x").parent().map(Path::to_owned).unwrap_or_default();
        std::fs::create_dir_all(&logs)?;
        self.processes.insert(name, Process::start(name, all, &logs)?);
        Ok(())
    }

    /// Kills a process without warning and starts it again.
    ///
    /// # Errors
    /// There is no such process, or it does not start.
    pub fn kill_and_restart(&mut self, name: &str) -> Result<()> {
        let process = self.processes.get_mut(name).with_context(|| format!("no process {name}"))?;
        ensure!(process.is_running(), "{name} does not run");
        process.kill()?;
        process.start_again()
    }

    /// Stops a process and starts it with these words after its own.
    ///
    /// # Errors
    /// There is no such process, or it does not start.
    pub fn restart_with(&mut self, name: &str, more: &[&str]) -> Result<()> {
        self.processes.get_mut(name).with_context(|| format!("no process {name}"))?.restart_with(more)
    }

    /// Stops a process and starts it with these variables in its environment.
    ///
    /// # Errors
    /// There is no such process, or it does not start.
    pub fn restart_in(&mut self, name: &str, environment: &[(&str, String)]) -> Result<()> {
        self.processes.get_mut(name).with_context(|| format!("no process {name}"))?.restart_in(environment)
    }

    /// The processes, by name.
    pub fn pids(&self) -> impl Iterator<Item = (&'static str, Pid)> {
        self.processes.iter().filter_map(|(name, process)| Some((*name, process.pid()?)))
    }

    /// The words that go before a command to run it in the node's network.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        self.network.as_ref().map(|(machine, _)| machine.enter()).unwrap_or_default()
    }

    /// Makes another machine beside the cluster's own, which has the number 0.
    ///
    /// # Errors
    /// The number is in use.
    pub fn machine(&self, number: u8) -> Result<Namespace> {
        let (_, segment) = self.network.as_ref().context("the cluster has stopped")?;
        segment.machine(number)
    }

    /// Where the machine of this number has its files.
    #[must_use]
    pub fn layout_of(&self, number: u8) -> Layout {
        let root = self.root.join(format!("machine-{number}"));
        Layout::new(&root.join("data"), &root.join("run"))
    }

    /// The address of the node.
    #[must_use]
    pub fn address(&self) -> std::net::IpAddr {
        self.settings.node_ip.first().copied().unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
    }

    /// Whether pods, services and nodes have addresses of both families.
    #[must_use]
    pub fn has_both_families(&self) -> bool {
        self.settings.node_ip.len() > 1
    }

    /// Its own disk.
    ///
    /// # Errors
    /// It was started without one.
    pub fn disk(&self) -> Result<&Disk> {
        self.disk.as_ref().context("the cluster has no disk of its own")
    }

    /// The ends of all logs, for failure messages.
    #[must_use]
    pub fn log_tails(&self) -> String {
        self.processes.values().map(Process::log_tail).collect()
    }

    /// Stops everything and removes what was made.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub async fn stop(mut self) -> Result<()> {
        // The node agent first, so that it does not start again what is removed.
        for name in ["coxswain", "kubelet"] {
            self.processes.remove(name);
        }
        for name in Component::ALL.map(Component::name) {
            self.processes.remove(name);
        }
        self.processes.clear();
        self.network.take();
        // Containers, which may use it, go with the leftovers.
        let disk = self.disk.take();
        let removed = remove_leftovers(&self.root).await;
        drop(disk);
        removed
    }
}

/// What an earlier run that was killed may have left.
async fn remove_leftovers(root: &Path) -> Result<()> {
    let below =
        std::fs::read_dir(root).into_iter().flatten().filter_map(|entry| entry.ok().map(|e| e.path()));
    for machine in below.chain([root.to_owned()]) {
        let layout = Layout::new(&machine.join("data"), &machine.join("run"));
        if layout.settings().exists() {
            cleanup::node(&layout).await?;
        }
    }
    match std::fs::remove_dir_all(root) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", root.display()))
        }
        _ => Ok(()),
    }
}

/// Packages and programs of images, kept from run to run beside the build.
fn cache() -> PathBuf {
    repository().join("target/images")
}

/// Whether a condition of the pod holds.
#[must_use]
pub fn condition(pod: &k8s_openapi::api::core::v1::Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
}
