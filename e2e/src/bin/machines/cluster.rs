//! Three machines and the cluster on them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use client::{Api, Client, ConnectOptions};
use deploy::{processes, up};
use e2e::cluster::{binaries, condition, repository};
use e2e::kubectl::Kubectl;
use e2e::network::Segment;
use e2e::wait::until_within;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use rustix::process::Signal;

use crate::image::{Image, supplies};
use crate::machine::{Machine, PATIENCE};

/// Of the segments that tests have, the last.
const SEGMENT: u8 = 15;
const INSTALL: &str = "mount -o ro /dev/vdb /supplies && mkdir -p /var/lib/coxswain/images \
    && cp /supplies/images/* /var/lib/coxswain/images/ && cp /supplies/coxswain /usr/local/bin/ && umount /supplies";

/// The machines. The first has the control plane. They are switched off when this is dropped.
pub struct Cluster {
    /// The machines.
    pub machines: Vec<Machine>,
    /// Our kubectl, on this machine.
    pub kubectl: Kubectl,
    /// A client with all rights.
    pub client: Client,
    // After the machines, which are plugged into it.
    segment: Segment,
}

/// Machines that have booted, without a cluster.
pub struct Booted {
    machines: Vec<Machine>,
    segment: Segment,
    folder: PathBuf,
}

impl Booted {
    /// Builds what is missing in `folder`, and boots three machines.
    ///
    /// # Errors
    /// Something cannot be built, or a machine does not boot.
    pub async fn boot(
        folder: &Path,
        program: Option<&Path>,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Self> {
        let image = Image::build(folder, progress)?;
        let supplies = supplies(folder, program, progress)?;
        end_leftovers(folder).await?;
        let segment = Segment::create(SEGMENT)?;
        let start = |number| Machine::start(&image, &supplies, &segment, number);
        let machines = (0..3).map(start).collect::<Result<Vec<_>>>()?;
        progress("booting three machines");
        try_join_all(machines.iter().map(Machine::booted)).await?;
        Ok(Self { machines, segment, folder: folder.to_owned() })
    }

    /// Makes the first a cluster, and lets the others join.
    ///
    /// # Errors
    /// A command fails; the error says which and how.
    pub async fn bring_up(self, progress: &(dyn Fn(&str) + Sync)) -> Result<Cluster> {
        progress("installing the program");
        try_join_all(self.machines.iter().map(|machine| machine.run(INSTALL))).await?;
        let (first, others) = self.machines.split_first().context("there are machines")?;
        progress("coxswain up");
        // It may be repeated: what takes longer than it waits goes on meanwhile.
        let ready = first.run("coxswain up || coxswain up || coxswain up").await?;
        ensure!(ready.contains("The cluster is ready"), "coxswain up said {ready:?}");
        let join = first.run("coxswain token create --print-join-command").await?;
        progress("coxswain join, on two machines");
        let join = join.trim();
        let join = format!("{join} || {join} || {join}");
        try_join_all(others.iter().map(|machine| machine.run(&join))).await?;
        let kubeconfig = first.run("cat /root/.kube/config").await?;
        std::fs::write(self.folder.join("kubeconfig"), kubeconfig)?;
        Cluster::of(self.machines, self.segment, &self.folder).await
    }
}

impl Cluster {
    /// The machines that an earlier run has left running.
    ///
    /// # Errors
    /// There are none.
    pub async fn existing(folder: &Path) -> Result<Self> {
        let image = Image::build(folder, &|_| ())?;
        let segment = Segment::existing(SEGMENT);
        let machines = (0..3).map(|number| Machine::existing(&image, &segment, number)).collect();
        Self::of(machines, segment, folder).await
    }

    async fn of(machines: Vec<Machine>, segment: Segment, folder: &Path) -> Result<Self> {
        let kubeconfig = folder.join("kubeconfig");
        let options = ConnectOptions {
            kubeconfig: Some(kubeconfig.clone()),
            user_agent: "machines".into(),
            master: None,
        };
        let client = client::connect(&options).await?;
        let kubectl = Kubectl::new(&binaries()?.join("kubectl"), &kubeconfig);
        Ok(Self { machines, kubectl, client, segment })
    }

    /// Leaves the machines running.
    pub fn keep(self) {
        self.machines.into_iter().for_each(Machine::keep);
        std::mem::forget(self.segment);
    }

    /// Applies a sample.
    ///
    /// # Errors
    /// It is refused.
    pub async fn sample(&self, name: &str) -> Result<()> {
        let path = repository().join("deploy/samples").join(name);
        self.kubectl.run(&format!("apply -f {}", path.display())).await.map(drop)
    }

    /// The pods of the namespace `default` that a selector finds.
    ///
    /// # Errors
    /// The API server does not answer.
    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        Ok(pods.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Waits until there are just so many pods, all of them ready.
    ///
    /// # Errors
    /// It does not come about.
    pub async fn ready_pods(&self, selector: &str, count: usize) -> Result<Vec<Pod>> {
        until_within(PATIENCE, &format!("{count} pods of {selector:?} are ready"), || async {
            let pods = self.pods(selector).await?;
            let ready = pods.iter().filter(|pod| condition(pod, "Ready")).count();
            ensure!(ready == count && pods.len() == count, "{ready} of {} pods are ready", pods.len());
            Ok(Some(pods))
        })
        .await
    }

    /// Waits until the machine's node is ready, or is not.
    ///
    /// # Errors
    /// It does not come about.
    pub async fn node_is_ready(&self, machine: &Machine, ready: bool) -> Result<Node> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let what = format!("{} is {}", machine.name, if ready { "ready" } else { "not ready" });
        until_within(PATIENCE, &what, || async {
            let node = nodes.get(&machine.name).await?;
            Ok((up::is_ready(&node) == ready).then_some(node))
        })
        .await
    }

    /// Waits until no service has a ready endpoint on the machine, or until all have that have pods there.
    ///
    /// # Errors
    /// It does not come about.
    pub async fn endpoints_are_ready(&self, machine: &Machine, ready: bool) -> Result<Instant> {
        let slices: Api<EndpointSlice> = Api::default_namespaced(self.client.clone());
        let what = format!("endpoints on {} are {}", machine.name, if ready { "ready" } else { "not ready" });
        until_within(PATIENCE, &what, || async {
            let slices = slices.list(&ListParams::default()).await?;
            let there = slices.items.iter().flat_map(|slice| slice.endpoints.iter().flatten());
            let mut there = there.filter(|endpoint| endpoint.node_name.as_deref() == Some(&machine.name));
            let is_ready = |condition: Option<bool>| condition.unwrap_or(true);
            let all = there.all(|e| is_ready(e.conditions.as_ref().and_then(|c| c.ready)) == ready);
            Ok(all.then(Instant::now))
        })
        .await
    }

    /// Where a node port is on a machine.
    ///
    /// # Errors
    /// The service has none.
    pub async fn node_port(&self, service: &str, machine: &Machine) -> Result<SocketAddr> {
        let path = "jsonpath={.spec.ports[0].nodePort}";
        let port = self.kubectl.run(&format!("get service {service} -o {path}")).await?;
        Ok(SocketAddr::new(machine.address.into(), port.trim().parse()?))
    }

    /// The ends of consoles and logs, for failure messages.
    pub async fn last_words(&self) -> String {
        let mut all = String::new();
        for machine in &self.machines {
            let log = machine.run("tail -n 25 /var/lib/coxswain/log/coxswain.log").await;
            all += &machine.last_words();
            all += &log.unwrap_or_else(|error| format!("{error:#}\n"));
        }
        let pods = self.kubectl.run("get pods -A -o wide").await;
        all + &pods.unwrap_or_else(|error| format!("{error:#}\n"))
    }
}

/// A pod's name, place and how often its containers were started anew.
pub fn places(pods: &[Pod]) -> BTreeMap<String, (String, i32)> {
    let place = |pod: &Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        (node, statuses.map(|status| status.restart_count).sum())
    };
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    pods.iter()
        .map(|pod| (format!("{} {}", pod.metadata.name.as_deref().unwrap_or(""), uid(pod)), place(pod)))
        .collect()
}

/// Machines of an earlier run that was killed or left them.
async fn end_leftovers(folder: &Path) -> Result<()> {
    for number in 1..=3 {
        let disk = folder.join(format!("machine-{number}.img"));
        let of_it = || {
            let all = processes::all().filter(|pid| {
                let words = processes::words(*pid);
                words.first().is_some_and(|program| program.contains("qemu-system"))
                    && words.iter().any(|word| word.contains(&disk.display().to_string()))
            });
            all.collect::<Vec<_>>()
        };
        processes::end(of_it, Signal::TERM, std::time::Duration::from_secs(10)).await?;
    }
    Ok(())
}
