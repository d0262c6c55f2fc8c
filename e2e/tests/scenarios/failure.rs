//! Processes that die, and pods that do not notice.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use deploy::processes;
use e2e::cluster::{Form, condition};
use e2e::kubectl::Kubectl;
use e2e::wait;
use k8s_openapi::api::core::v1::Pod;
use rustix::process::{Pid, Signal, kill_process};

use super::{Env, ready_pods, sample};

pub async fn killed_components_come_back_and_no_pod_notices(env: Arc<Env>) -> Result<()> {
    // Before it makes pods: one that waits for a node without pods may have the cluster.
    let mut cluster = env.cluster.write().await;
    let kubectl = env.namespace("killed").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    let before = ready_pods(&kubectl, "app=hello", 2).await?;
    let restarts = || async {
        kubectl.run("get pods -o jsonpath={.items[*].status.containerStatuses[*].restartCount}").await
    };
    let victims: &[&str] = match cluster.form {
        Form::OneProcess => &["coxswain"],
        Form::Separate => {
            &["kubelet", "kube-controller-manager", "kube-scheduler", "kube-apiserver", "kube-proxy"]
        }
    };
    for victim in victims {
        cluster.kill_and_restart(victim)?;
        wait::until(&format!("the cluster works after {victim} was killed"), || async {
            let name = format!("after-{victim}");
            let exists = kubectl.run(&format!("get configmap {name}")).await.is_ok();
            if !exists {
                kubectl.run(&format!("create configmap {name} --from-literal=a=b")).await?;
            }
            Ok(Some(()))
        })
        .await?;
    }
    drop(cluster);
    kubectl.run("scale deployment hello --replicas=3").await?;
    let after = ready_pods(&kubectl, "app=hello", 3).await?;
    ensure!(before.iter().all(|pod| after.contains(pod)), "{before:?} became {after:?}");
    let counts = restarts().await?;
    ensure!(counts.split_whitespace().all(|count| count == "0"), "restarts: {counts}");
    env.done(&kubectl).await
}

/// What goes with a shim are the processes of its pod: they are started again in the same pod, and no other pod
/// notices.
pub async fn pods_whose_shim_is_killed_come_back(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("shim").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    let pods = ready_pods(&kubectl, "app=hello", 2).await?;
    let (victim, other) = (&pods[0], &pods[1]);
    let before = (pod(&kubectl, victim).await?, pod(&kubectl, other).await?);
    let shim = shim_of(&before.0.container)?;
    kill_process(shim, Signal::KILL)?;
    wait::until("the pod without a shim is ready again", || async {
        let now = pod(&kubectl, victim).await?;
        ensure!(now.uid == before.0.uid, "another pod took its place");
        Ok((now.container != before.0.container && now.ready).then_some(()))
    })
    .await?;
    ensure!(ready_pods(&kubectl, "app=hello", 2).await? == pods, "pods were replaced");
    ensure!(pod(&kubectl, other).await? == before.1, "another pod noticed");
    env.done(&kubectl).await
}

#[derive(Debug, PartialEq)]
struct Seen {
    uid: String,
    container: String,
    restarts: i32,
    ready: bool,
}

async fn pod(kubectl: &Kubectl, name: &str) -> Result<Seen> {
    let pod: Pod = serde_json::from_str(&kubectl.run(&format!("get pod {name} -o json")).await?)?;
    let ready = condition(&pod, "Ready");
    let container = pod.status.and_then(|status| status.container_statuses?.into_iter().next());
    let container = container.context("no status yet")?;
    let id = container.container_id.context("no container yet")?;
    Ok(Seen {
        uid: pod.metadata.uid.context("no uid")?,
        container: id.rsplit('/').next().unwrap_or_default().to_owned(),
        restarts: container.restart_count,
        ready,
    })
}

/// The process that watches over a container: its parent.
pub fn shim_of(container: &str) -> Result<Pid> {
    let inside = processes::all().filter(|pid| processes::read(*pid, "cgroup").contains(container));
    let is_shim = |pid: &Pid| processes::read(*pid, "cmdline").contains("containerd-shim");
    inside.filter_map(processes::parent).find(is_shim).with_context(|| format!("no shim of {container}"))
}
