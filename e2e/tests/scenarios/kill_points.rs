//! Whoever is killed, at whatever point of a pod's life: the pod comes to what it was to be, and leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::Cluster;
use e2e::inventory::Inventory;
use e2e::kubectl::Kubectl;
use e2e::wait;
use rustix::process::{Signal, kill_process};

use super::failure::shim_of;
use super::streams::pipe;
use super::{Env, pod_status, ready_pods};

/// A point of a pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// The API has it.
    Accepted,
    /// So many milliseconds after it got its node: its sandbox, its network, its volumes are being made.
    Underway(u64),
    /// Its first container runs.
    Init,
    /// It serves.
    Ready,
    /// It was told to go.
    Deleted,
    /// Its hook runs, before its processes are told.
    Ending,
    /// So many milliseconds after it was told to go, about when the hook has run: all that was made is taken down.
    Leaving(u64),
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Process(&'static str),
    /// The process that watches over the pod's containers.
    Shim,
}

/// All that are tried, and how often at most the pod's container may be started.
const POINTS: &[(Victim, Point, i32)] = &[
    (KUBELET, Point::Accepted, 1),
    (KUBELET, Point::Underway(50), 1),
    (KUBELET, Point::Underway(200), 1),
    (KUBELET, Point::Underway(400), 1),
    (KUBELET, Point::Init, 1),
    (KUBELET, Point::Ready, 1),
    (KUBELET, Point::Deleted, 1),
    (KUBELET, Point::Ending, 1),
    (KUBELET, Point::Leaving(2200), 1),
    (KUBELET, Point::Leaving(2500), 1),
    (CONTAINERD, Point::Accepted, 1),
    (CONTAINERD, Point::Underway(50), 1),
    (CONTAINERD, Point::Underway(200), 1),
    (CONTAINERD, Point::Underway(400), 1),
    (CONTAINERD, Point::Init, 1),
    (CONTAINERD, Point::Ready, 1),
    (CONTAINERD, Point::Deleted, 1),
    (CONTAINERD, Point::Ending, 1),
    (CONTAINERD, Point::Leaving(2200), 1),
    (CONTAINERD, Point::Leaving(2500), 1),
    (Victim::Shim, Point::Init, 2),
    (Victim::Shim, Point::Ready, 2),
    (Victim::Shim, Point::Ending, 1),
    (Victim::Process("kube-proxy"), Point::Init, 1),
    (Victim::Process("pod-network"), Point::Underway(50), 1),
    (Victim::Process("pod-network"), Point::Deleted, 1),
];

const KUBELET: Victim = Victim::Process("kubelet");
const CONTAINERD: Victim = Victim::Process("containerd");

/// It has mounts of every kind, a first container that takes a moment, and a hook.
fn pod(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"victim"}}}},"spec":{{
        "terminationGracePeriodSeconds":4,
        "initContainers":[{{"name":"first","image":"docker.io/library/busybox:1.36","imagePullPolicy":"Never","command":["sleep","2"]}}],
        "containers":[{{"name":"c","image":"docker.io/library/busybox:1.36","imagePullPolicy":"Never",
        "command":["sh","-c","echo started >> /data/starts; trap 'exit 0' TERM; httpd -p 8080; while true; do sleep 0.2; done"],
        "readinessProbe":{{"tcpSocket":{{"port":8080}},"periodSeconds":1}},
        "lifecycle":{{"preStop":{{"exec":{{"command":["sh","-c","touch /data/ending; sleep 2"]}}}}}},
        "volumeMounts":[{{"name":"data","mountPath":"/data"}},{{"name":"memory","mountPath":"/memory"}}]}}],
        "volumes":[{{"name":"data","emptyDir":{{}}}},{{"name":"memory","emptyDir":{{"medium":"Memory"}}}}]}}}}"#
    )
}

pub async fn whoever_is_killed_no_pod_is_lost_and_nothing_is_left(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("kill-points").await?;
    let mut cluster = env.cluster.write().await;
    let before = quiet(&cluster, &kubectl).await?;
    eprintln!("before: {before}");
    for (number, (victim, point, starts)) in POINTS.iter().enumerate() {
        let row = format!("{victim:?} killed at {point:?}");
        let name = format!("victim-{number}");
        one(&mut cluster, &kubectl, &name, (*victim, *point), *starts).await.with_context(|| row.clone())?;
        let left = wait::until("nothing is left", || async {
            let now = Inventory::take(&cluster).await?;
            let left = now.beyond(&before);
            ensure!(left.is_empty(), "{}", left.join("; "));
            Ok(Some(now))
        });
        eprintln!("{row}: {}", left.await.with_context(|| row.clone())?);
    }
    drop(cluster);
    env.done(&kubectl).await
}

/// What there is when all other scenarios' pods have gone.
async fn quiet(cluster: &Cluster, kubectl: &Kubectl) -> Result<Inventory> {
    wait::until("the node is quiet", || async {
        let pods = kubectl.run("get pods -A -o jsonpath={.items[*].metadata.namespace}").await?;
        let others: Vec<_> =
            pods.split_whitespace().filter(|namespace| *namespace != "kube-system").collect();
        ensure!(others.is_empty(), "pods in {others:?}");
        let now = Inventory::take(cluster).await?;
        let count = pods.split_whitespace().count();
        // What ended before is collected now and then.
        ensure!((now.folders.len(), now.groups.len()) == (count, count), "{now} of {count} pods");
        Ok(Some(now))
    })
    .await
}

async fn one(
    cluster: &mut Cluster,
    kubectl: &Kubectl,
    name: &str,
    (victim, point): (Victim, Point),
    starts: i32,
) -> Result<()> {
    pipe(kubectl, "apply -f -", &pod(name)).await?;
    let at_start = !matches!(point, Point::Deleted | Point::Ending | Point::Leaving(_));
    if at_start {
        reach(kubectl, name, point).await?;
        kill(cluster, kubectl, name, victim).await?;
    }
    ready_pods(kubectl, "app=victim", 1).await?;
    let counted = wait::until("the container says how often it was started", || async {
        // It may be on its way back while its status is still that from before.
        Ok(Some(kubectl.run(&format!("exec {name} -- cat /data/starts")).await?))
    })
    .await?;
    let counted = i32::try_from(counted.lines().count())?;
    ensure!((1..=starts).contains(&counted), "the container was started {counted} times");
    kubectl.run(&format!("delete pod {name} --wait=false")).await?;
    if !at_start {
        reach(kubectl, name, point).await?;
        kill(cluster, kubectl, name, victim).await?;
    }
    wait::until("the pod is gone", || async {
        let output = kubectl.output(&format!("get pod {name}")).await?;
        Ok(String::from_utf8_lossy(&output.stderr).contains("NotFound").then_some(()))
    })
    .await
}

/// Waits until the pod has come so far.
async fn reach(kubectl: &Kubectl, name: &str, point: Point) -> Result<()> {
    match point {
        Point::Accepted | Point::Deleted => Ok(()),
        Point::Ready => ready_pods(kubectl, "app=victim", 1).await.map(drop),
        Point::Underway(milliseconds) => {
            wait::until("the pod has a node", || async {
                let node = kubectl.run(&format!("get pod {name} -o jsonpath={{.spec.nodeName}}")).await?;
                Ok((!node.is_empty()).then_some(()))
            })
            .await?;
            moment(milliseconds).await
        }
        Point::Leaving(milliseconds) => moment(milliseconds).await,
        Point::Init => {
            wait::until("the first container runs", || async {
                let status = pod_status(kubectl, name).await?;
                let states = status.init_container_statuses.into_iter().flatten();
                Ok(states.into_iter().find_map(|s| s.state?.running).map(drop))
            })
            .await
        }
        Point::Ending => {
            wait::until("the hook runs", || async {
                kubectl.run(&format!("exec {name} -- test -e /data/ending")).await.map(|_| Some(()))
            })
            .await
        }
    }
}

/// Not to wait for something, but to hit a moment that nothing tells of.
async fn moment(milliseconds: u64) -> Result<()> {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    Ok(())
}

async fn kill(cluster: &mut Cluster, kubectl: &Kubectl, name: &str, victim: Victim) -> Result<()> {
    if let Victim::Process(process) = victim {
        return cluster.kill_and_restart(process);
    }
    let status = pod_status(kubectl, name).await?;
    let all = status.init_container_statuses.into_iter().chain(status.container_statuses).flatten();
    let running = all.into_iter().filter(|s| s.state.as_ref().is_some_and(|state| state.running.is_some()));
    let id = running.into_iter().find_map(|s| s.container_id).context("no container runs")?;
    let shim = shim_of(id.rsplit('/').next().unwrap_or_default())?;
    Ok(kill_process(shim, Signal::KILL)?)
}
