//! Simulated nodes on a control plane of ours: what a user sees of them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use client::{Api, Client};
use e2e::control_plane::{ControlPlane, simulate};
use e2e::{cluster, wait};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

const NODES: u32 = 3;

fn template(labels: &Value, annotations: &Value, policy: &str) -> Value {
    json!({"metadata": {"labels": labels, "annotations": annotations},
           "spec": {"restartPolicy": policy, "initContainers": [{"name": "i", "image": "init:1"}],
                    "containers": [{"name": "c", "image": "web:1",
                                    "resources": {"requests": {"cpu": "100m"}}}]}})
}

async fn nodes_are_ready(client: &Client) -> Result<Vec<Node>> {
    let nodes: Api<Node> = Api::all(client.clone());
    wait::until("all nodes are ready, have a range and take pods", || async {
        let list = nodes.list(&ListParams::default()).await?.items;
        let is_good = |node: &Node| {
            let spec = node.spec.clone().unwrap_or_default();
            deploy::up::is_ready(node)
                && spec.pod_cidr.is_some()
                && spec.taints.unwrap_or_default().is_empty()
        };
        let good = list.len() == NODES as usize && list.iter().all(is_good);
        Ok(good.then_some(list))
    })
    .await
}

async fn pods(client: &Client, app: &str) -> Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    Ok(pods.list(&ListParams::default().labels(&format!("app={app}"))).await?.items)
}

async fn are_gone(client: &Client, app: &str) -> Result<()> {
    wait::until("the pods are gone", || async { Ok(pods(client, app).await?.is_empty().then_some(())) }).await
}

async fn create_deployment(client: &Client, replicas: u32) -> Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let labels = json!({"app": "web"});
    let web = json!({"metadata": {"name": "web"}, "spec": {"replicas": replicas,
                     "selector": {"matchLabels": labels}, "template": template(&labels, &json!({}), "Always")}});
    deployments.create(&PostParams::default(), &serde_json::from_value(web)?).await?;
    Ok(())
}

async fn is_available(client: &Client, replicas: i32) -> Result<()> {
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    wait::until("the Deployment is available", || async {
        let status = deployments.get("web").await?.status.unwrap_or_default();
        Ok((status.available_replicas == Some(replicas)).then_some(()))
    })
    .await
}

/// Every pod is where it says, with an address of its own out of its node's range.
async fn addresses_are_good(client: &Client, nodes: &[Node], count: usize) -> Result<()> {
    let pods = pods(client, "web").await?;
    let mut seen = BTreeSet::new();
    for pod in &pods {
        let (spec, status) = (pod.spec.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
        let node = nodes.iter().find(|node| node.metadata.name == spec.node_name).context("its node")?;
        let range = node.spec.as_ref().and_then(|s| s.pod_cidr.clone()).context("a range")?;
        let address = status.pod_ip.context("an address")?;
        let network = |text: &str| text.rsplit_once('.').map(|(network, _)| network.to_owned());
        ensure!(network(&address) == network(&range), "{address} is not of {range}");
        ensure!(status.host_ip.is_some(), "it is on no host");
        ensure!(seen.insert(address.clone()), "{address} is used twice");
        ensure!(status.observed_generation == pod.metadata.generation, "its generation is not seen");
    }
    ensure!(pods.len() == count, "{} pods", pods.len());
    Ok(())
}

async fn run_job(client: &Client, name: &str, annotations: Value, ends: &str) -> Result<Job> {
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    let labels = json!({"app": name});
    let job = json!({"metadata": {"name": name}, "spec": {"completions": 4, "parallelism": 2, "backoffLimit": 0,
                     "template": template(&labels, &annotations, "Never")}});
    jobs.create(&PostParams::default(), &serde_json::from_value(job)?).await?;
    wait::until(&format!("{name} is {ends}"), || async {
        let job = jobs.get(name).await?;
        let conditions = job.status.iter().filter_map(|s| s.conditions.as_ref()).flatten();
        let has = conditions.into_iter().any(|c| c.type_ == ends && c.status == "True");
        Ok(has.then_some(job))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn simulated_nodes_run_what_controllers_make() {
    let plane = ControlPlane::start().await.expect("a control plane");
    let outcome = scenario(&plane.client).await;
    plane.stop().await.expect("it stops");
    outcome.expect("simulated nodes run what controllers make");
}

async fn scenario(client: &Client) -> Result<()> {
    let simulation = simulate(client, NODES, true);
    let nodes = nodes_are_ready(client).await?;
    create_deployment(client, 10).await?;
    is_available(client, 10).await?;
    addresses_are_good(client, &nodes, 10).await?;
    daemons_run_everywhere(client).await?;
    jobs_end(client).await?;
    simulation.shut_down().await?;

    // Another process goes on where this one stopped.
    let simulation = simulate(client, NODES, false);
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    let more = Patch::Merge(json!({"spec": {"replicas": 20}}));
    deployments.patch("web", &PatchParams::default(), &more).await?;
    is_available(client, 20).await?;
    addresses_are_good(client, &nodes, 20).await?;
    deployments.delete("web", &DeleteParams::foreground()).await?;
    are_gone(client, "web").await?;
    leases_are_held(client).await?;

    simulation.shut_down().await?;
    let left = Api::<Node>::all(client.clone()).list(&ListParams::default()).await?.items;
    ensure!(left.is_empty(), "{} nodes are left", left.len());
    Ok(())
}

async fn daemons_run_everywhere(client: &Client) -> Result<()> {
    let sets: Api<DaemonSet> = Api::default_namespaced(client.clone());
    let labels = json!({"app": "agent"});
    let set = json!({"metadata": {"name": "agent"}, "spec": {"selector": {"matchLabels": labels},
                     "template": template(&labels, &json!({}), "Always")}});
    sets.create(&PostParams::default(), &serde_json::from_value(set)?).await?;
    wait::until("a daemon runs on each node", || async {
        let status = sets.get("agent").await?.status.unwrap_or_default();
        Ok((status.number_available == Some(NODES as i32)).then_some(()))
    })
    .await?;
    let one = pods(client, "agent").await?.into_iter().next().context("a pod")?;
    ensure!(cluster::condition(&one, "Ready") && cluster::condition(&one, "Initialized"), "it is not ready");
    sets.delete("agent", &DeleteParams::default()).await?;
    are_gone(client, "agent").await
}

async fn jobs_end(client: &Client) -> Result<()> {
    let jobs: Api<Job> = Api::default_namespaced(client.clone());
    let done = run_job(client, "good", json!({}), "Complete").await?;
    ensure!(done.status.and_then(|s| s.succeeded) == Some(4), "not all have succeeded");
    let fails = json!({"coxswain.io/run-duration": "0s", "coxswain.io/exit-code": "7"});
    run_job(client, "bad", fails, "Failed").await?;
    // One that would go on for an hour: its pods are held by finalizers until the Job has counted them.
    let hour = json!({"coxswain.io/run-duration": "1h"});
    let labels = json!({"app": "long"});
    let long = json!({"metadata": {"name": "long"}, "spec": {"podReplacementPolicy": "Failed",
                      "template": template(&labels, &hour, "Never")}});
    jobs.create(&PostParams::default(), &serde_json::from_value(long)?).await?;
    let running = |pods: &[Pod]| pods.len() == 1 && pods.iter().all(|pod| cluster::condition(pod, "Ready"));
    let first = wait::until("it runs", || async {
        let pods = pods(client, "long").await?;
        Ok(running(&pods).then(|| pods[0].metadata.name.clone().unwrap_or_default()))
    })
    .await?;
    Api::<Pod>::default_namespaced(client.clone()).delete(&first, &DeleteParams::default()).await?;
    wait::until("another takes its place", || async {
        let pods = pods(client, "long").await?;
        let is_other = pods.first().is_some_and(|pod| pod.metadata.name.as_deref() != Some(&first));
        Ok((running(&pods) && is_other).then_some(()))
    })
    .await?;
    for name in ["good", "bad", "long"] {
        jobs.delete(name, &DeleteParams::background()).await?;
        are_gone(client, name).await?;
    }
    Ok(())
}

async fn leases_are_held(client: &Client) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let held = leases.list(&ListParams::default()).await?.items;
    let holder = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
    let owned = |lease: &Lease| lease.metadata.owner_references.as_ref().is_some_and(|o| o[0].kind == "Node");
    ensure!(held.len() == NODES as usize, "{} leases", held.len());
    ensure!(held.iter().all(|lease| holder(lease) == lease.metadata.name && owned(lease)), "{held:?}");
    Ok(())
}
