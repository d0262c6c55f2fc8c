//! Figures for the README: what a user waits for and what an idle cluster costs. Nothing is asserted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::Api;
use e2e::cluster::{Cluster, Form, condition};
use e2e::wait;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

const IDLE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<()> {
    client::connect::install_crypto_provider();
    let cluster = Cluster::start(Form::OneProcess, 3).await?;
    let outcome = measure(&cluster).await;
    cluster.stop().await?;
    outcome
}

async fn measure(cluster: &Cluster) -> Result<()> {
    println!("start to /readyz: {:.2} s", cluster.ready_after.as_secs_f64());
    println!("one-container pod, apply to Ready: {:.2} s", replicas_to_ready(cluster, "one", 1).await?);
    println!("second pod, apply to Ready: {:.2} s", replicas_to_ready(cluster, "two", 1).await?);
    println!("30 replicas to Ready: {:.2} s", replicas_to_ready(cluster, "thirty", 30).await?);
    let (before, began) = (cpu_seconds(cluster)?, Instant::now());
    tokio::time::sleep(IDLE).await;
    let share = (cpu_seconds(cluster)? - before) / began.elapsed().as_secs_f64();
    println!("idle CPU of everything but containerd: {:.2} % of a core", share * 100.0);
    println!("idle memory of everything but containerd: {:.1} MB", resident(cluster)?);
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

/// User and system time of the cluster's processes so far.
fn cpu_seconds(cluster: &Cluster) -> Result<f64> {
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let mut sum = 0.0;
    for (name, pid) in cluster.pids().filter(|(name, _)| *name != "containerd") {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).context(name)?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let time = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        sum += (time(11) + time(12)) / ticks;
    }
    Ok(sum)
}

/// Resident memory of the cluster's processes, in megabytes.
fn resident(cluster: &Cluster) -> Result<f64> {
    let mut sum = 0.0;
    for (name, pid) in cluster.pids().filter(|(name, _)| *name != "containerd") {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).context(name)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        sum += line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1000.0;
    }
    Ok(sum)
}
