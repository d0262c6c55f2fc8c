//! Figures for the README: what a user waits for and what an idle cluster costs. Nothing is asserted.

use std::time::{Duration, Instant};

use anyhow::Result;
use client::Api;
use deploy::processes;
use e2e::cluster::{Cluster, Form, condition};
use e2e::wait;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use rustix::process::Pid;
use serde_json::json;

const IDLE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    client::connect::install_crypto_provider();
    let cluster = Cluster::start(Form::OneProcess, 3, false).await?;
    let outcome = measure(&cluster).await;
    cluster.stop().await?;
    outcome
}

async fn measure(cluster: &Cluster) -> Result<()> {
    println!("start to /readyz: {:.2} s", cluster.ready_after.as_secs_f64());
    println!("one-container pod, apply to Ready: {:.2} s", replicas_to_ready(cluster, "one", 1).await?);
    println!("second pod, apply to Ready: {:.2} s", replicas_to_ready(cluster, "two", 1).await?);
    println!("30 replicas to Ready: {:.2} s", replicas_to_ready(cluster, "thirty", 30).await?);
    let groups = groups(cluster);
    let before: Vec<Vec<_>> = groups
        .iter()
        .map(|(_, pids)| pids.iter().map(|pid| processes::cpu_seconds(*pid)).collect())
        .collect();
    let began = Instant::now();
    tokio::time::sleep(IDLE).await;
    let elapsed = began.elapsed().as_secs_f64();
    for ((name, pids), before) in groups.iter().zip(before) {
        // A process that ended meanwhile belonged to a pod that was on its way out.
        let spent = |(pid, before): (&Pid, f64)| processes::cpu_seconds(*pid).max(before) - before;
        let share = pids.iter().zip(before).map(spent).sum::<f64>() / elapsed * 100.0;
        println!("idle, {name}: {share:.2} % of a core, {:.1} MB resident", resident(pids));
    }
    Ok(())
}

async fn replicas_to_ready(cluster: &Cluster, name: &str, count: usize) -> Result<f64> {
    let deployments: Api<Deployment> = Api::default_namespaced(cluster.client.clone());
    let pods: Api<Pod> = Api::default_namespaced(cluster.client.clone());
    let container = json!({"name": "c", "image": "docker.io/library/busybox:1.36", "imagePullPolicy": "Never",
                           "command": ["sleep", "3600"]});
    let template = json!({"metadata": {"labels": {"app": name}},
                          "spec": {"containers": [container], "terminationGracePeriodSeconds": 0}});
    let deployment = json!({"metadata": {"name": name}, "spec": {"replicas": count,
                            "selector": {"matchLabels": {"app": name}}, "template": template}});
    let began = Instant::now();
    deployments.create(&PostParams::default(), &serde_json::from_value(deployment)?).await?;
    let selected = ListParams::default().labels(&format!("app={name}"));
    wait::until("all replicas are ready", || async {
        let ready = pods.list(&selected).await?.items.iter().filter(|p| condition(p, "Ready")).count();
        Ok((ready == count).then_some(()))
    })
    .await?;
    let seconds = began.elapsed().as_secs_f64();
    deployments.delete(name, &DeleteParams::background()).await?;
    wait::until("the replicas are gone", || async {
        Ok(pods.list(&selected).await?.items.is_empty().then_some(()))
    })
    .await?;
    Ok(seconds)
}

/// The processes of the cluster itself, of its container runtime, and of the pods it needs (DNS).
fn groups(cluster: &Cluster) -> [(&'static str, Vec<Pid>); 3] {
    let own: Vec<_> = cluster.pids().map(|(_, pid)| pid).collect();
    let socket = cluster.layout.containerd_socket().display().to_string();
    let config = cluster.layout.containerd_config().display().to_string();
    let (mut runtime, mut pods) = (vec![], vec![]);
    for pid in processes::all().filter(|pid| !own.contains(pid)) {
        let (words, cgroup) = (processes::read(pid, "cmdline"), processes::read(pid, "cgroup"));
        if cgroup.contains(&format!("{}/kubepods", cluster.settings.cgroup_root)) {
            pods.push(pid);
        } else if words.contains(&config) || words.contains(&socket) {
            runtime.push(pid);
        }
    }
    [("the cluster", own), ("containerd and its shims", runtime), ("its own pods (DNS)", pods)]
}

/// Resident memory of processes, in megabytes; pages that they share count for each.
fn resident(pids: &[Pid]) -> f64 {
    let of = |pid: &Pid| {
        let status = processes::read(*pid, "status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1000.0
    };
    pids.iter().map(of).sum()
}
