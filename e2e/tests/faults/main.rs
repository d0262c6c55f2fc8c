//! Disks that are full or slow, and clocks that jump: no pod is lost, none is run twice, nothing is left over.
//!
//! One cluster of separate processes, whose node keeps what pods need on a small disk of its own; the scenarios have it
//! one after the other.

mod clock;
mod disk;

use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Beside, Cluster, Form, binaries};
use e2e::inventory::Inventory;
use e2e::kubectl::{Kubectl, pipe};
use e2e::pods::pods;
use e2e::wait;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

const NUMBER: u8 = 5;
/// Of the disk, in MiB.
const DISK: u64 = 2048;

/// What a scenario works with.
pub struct Env {
    /// The cluster.
    pub cluster: Cluster,
    /// kubectl.
    pub kubectl: Kubectl,
}

type Run = for<'a> fn(&'a mut Env, Kubectl) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$((stringify!($name), |env, kubectl| Box::pin($module::$name(env, kubectl)))),*]
    };
}

/// Their names are what they promise.
const SCENARIOS: &[(&str, Run)] = scenarios![
    disk::a_pod_that_fills_the_disk_goes_and_no_other,
    disk::pods_come_back_when_a_full_disk_has_room_again,
    disk::a_pod_begun_on_a_full_disk_is_run_once,
    disk::a_pod_on_a_slow_disk_is_run_once_and_the_node_stays_ready,
    clock::no_pod_notices_that_the_clock_jumps,
];

fn main() -> ExitCode {
    client::connect::install_crypto_provider();
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let runtime = Runtime::new().expect("a runtime");
    let started = if arguments.list { None } else { Some(runtime.block_on(start()).expect("a cluster")) };
    let env = Arc::new(Mutex::new(started));
    let trials = SCENARIOS.iter().map(|(name, scenario)| {
        let (env, handle) = (env.clone(), runtime.handle().clone());
        Trial::test(*name, move || {
            let mut env = env.lock().unwrap_or_else(PoisonError::into_inner);
            let env = env.as_mut().ok_or("only listed")?;
            handle.block_on(one(env, name, *scenario)).map_err(|error| Failed::from(format!("{error:#}")))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let ended = env.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(Env { cluster, .. }) = ended {
        if conclusion.has_failed() {
            eprintln!("{}", cluster.log_tails());
        }
        runtime.block_on(cluster.stop()).expect("the cluster is removed");
    }
    conclusion.exit_code()
}

async fn start() -> Result<Env> {
    let beside = Beside { disk: Some(DISK), embedded: true, ..Beside::default() };
    let cluster = Cluster::start_with(Form::Separate, NUMBER, false, &beside).await?;
    let kubectl = Kubectl::new(&binaries()?.join("kubectl"), &cluster.layout.kubeconfig("admin"));
    Ok(Env { cluster, kubectl })
}

/// In a namespace of its own; what the node has of pods must be the same before and after.
async fn one(env: &mut Env, name: &str, scenario: Run) -> Result<()> {
    let namespace = name.split('_').take(5).collect::<Vec<_>>().join("-");
    env.kubectl.run(&format!("create namespace {namespace}")).await?;
    let before = Inventory::take(&env.cluster).await?;
    let kubectl = env.kubectl.in_namespace(&namespace);
    let outcome = scenario(env, kubectl).await;
    // Whatever came of it, the next one has a sound node.
    env.cluster.disk()?.free()?;
    env.cluster.disk()?.limit(0)?;
    env.cluster.restart_with("kubelet", &[])?;
    let removed = removed(&env.kubectl, &namespace).await;
    outcome?;
    removed?;
    let left = wait::until("nothing is left", || async {
        let now = Inventory::take(&env.cluster).await?;
        let left = now.beyond(&before);
        ensure!(left.is_empty(), "{}", left.join("; "));
        Ok(Some(now))
    });
    eprintln!("before: {before}; after: {}", left.await?);
    Ok(())
}

async fn removed(kubectl: &Kubectl, namespace: &str) -> Result<()> {
    kubectl.run(&format!("delete namespace {namespace} --wait=false")).await?;
    wait::until("the namespace is gone", || async {
        let all = kubectl.run("get namespaces -o name").await?;
        Ok((!all.lines().any(|name| name == format!("namespace/{namespace}"))).then_some(()))
    })
    .await
}

/// Two pods of a Deployment that are put on any node, with what is to be said of their containers.
pub async fn keepers(kubectl: &Kubectl) -> Result<()> {
    let manifest = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"keep"},"spec":{"replicas":2,
        "selector":{"matchLabels":{"app":"keep"}},"template":{"metadata":{"labels":{"app":"keep"}},"spec":{
        "terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"docker.io/library/busybox:1.36",
        "command":["sh","-c","echo started >> /data/starts; exec sleep 3600"],
        "volumeMounts":[{"name":"data","mountPath":"/data"}]}],"volumes":[{"name":"data","emptyDir":{}}]}}}}"#;
    pipe(kubectl, "apply -f -", manifest).await
}

/// The node.
pub async fn node(kubectl: &Kubectl) -> Result<Node> {
    let mut list: serde_json::Value = serde_json::from_str(&kubectl.run("get nodes -o json").await?)?;
    Ok(serde_json::from_value(list["items"][0].take())?)
}

/// A condition of the node.
pub fn condition_of(node: &Node, kind: &str) -> Result<NodeCondition> {
    let all = node.status.as_ref().and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    all.into_iter().find(|c| c.type_ == kind).cloned().with_context(|| format!("no condition {kind}"))
}

/// Waits until the node says that its disk is short, or is not, and nothing keeps pods away that should not.
pub async fn until_pressure(kubectl: &Kubectl, expected: bool) -> Result<()> {
    wait::until(&format!("disk pressure: {expected}"), || async {
        let node = node(kubectl).await?;
        let said = condition_of(&node, "DiskPressure")?.status;
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
        let tainted = taints.into_iter().any(|taint| taint.key == "node.kubernetes.io/disk-pressure");
        ensure!(
            said == if expected { "True" } else { "False" } && tainted == expected,
            "{said}, tainted: {tainted}"
        );
        Ok(Some(()))
    })
    .await
}

/// Pods of a selector that have not failed, once all of them run.
pub async fn running(kubectl: &Kubectl, selector: &str, count: usize) -> Result<Vec<Pod>> {
    wait::until(&format!("{count} pods of {selector} run"), || async {
        let mut live = pods(kubectl, selector).await?;
        live.retain(|pod| pod.metadata.deletion_timestamp.is_none() && phase(pod) != "Failed");
        let ready = live.iter().filter(|pod| e2e::cluster::condition(pod, "Ready")).count();
        ensure!(live.len() == count && ready == count, "{ready} of {} are ready", live.len());
        Ok(Some(live))
    })
    .await
}

/// Its phase, or nothing.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Its name and what makes it this one; how often its containers were restarted.
pub fn identity(pod: &Pod) -> (String, String, i32) {
    let metadata = pod.metadata.clone();
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    let restarts = statuses.into_iter().map(|status| status.restart_count).sum();
    (metadata.name.unwrap_or_default(), metadata.uid.unwrap_or_default(), restarts)
}
