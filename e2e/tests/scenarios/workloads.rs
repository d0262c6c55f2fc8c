//! Pods and workloads at work.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::kubectl::Kubectl;
use e2e::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::streams::pipe;
use super::{Env, pod_status, ready_pods, sample};

pub async fn deleted_pod_is_replaced_and_scaling_scales(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("replace").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    let before = ready_pods(&kubectl, "app=hello", 2).await?;
    kubectl.run(&format!("delete pod {} --wait=false", before[0])).await?;
    wait::until("another pod replaces the deleted one", || async {
        let now = ready_pods(&kubectl, "app=hello", 2).await?;
        Ok((!now.contains(&before[0])).then_some(()))
    })
    .await?;
    kubectl.run("scale deployment hello --replicas=4").await?;
    ready_pods(&kubectl, "app=hello", 4).await?;
    kubectl.run("scale deployment hello --replicas=1").await?;
    ready_pods(&kubectl, "app=hello", 1).await?;
    env.done(&kubectl).await
}

pub async fn rolling_update_loses_no_request(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("rolling").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    ready_pods(&kubectl, "app=hello", 2).await?;
    kubectl
        .run("expose deployment hello --name=outside --type=NodePort --port=80 --target-port=8080")
        .await?;
    let port = kubectl.run("get service outside -o jsonpath={.spec.ports[0].nodePort}").await?;
    let server = std::net::SocketAddr::new(env.address, port.trim().parse().context("a node port")?);
    wait::until("the node port answers", || async { get(server).await.map(Some) }).await?;
    let stop = tokio_util::sync::CancellationToken::new();
    let stopped = stop.clone();
    let requests = tokio::spawn(async move {
        let mut answered = 0_u32;
        while !stopped.is_cancelled() {
            get(server).await.with_context(|| format!("after {answered} answered requests"))?;
            answered += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(answered)
    });
    kubectl.run("set env deployment/hello VERSION=2").await.or(patch_template(&kubectl).await)?;
    kubectl.run("rollout status deployment/hello --timeout=120s").await?;
    stop.cancel();
    let answered = requests.await??;
    ensure!(answered > 20, "only {answered} requests were made");
    env.done(&kubectl).await
}

/// For clients without `kubectl set`.
async fn patch_template(kubectl: &Kubectl) -> Result<String> {
    let patch = r#"{"spec":{"template":{"metadata":{"annotations":{"version":"2"}}}}}"#;
    kubectl.run(&format!("patch deployment hello -p {patch}")).await
}

async fn get(server: std::net::SocketAddr) -> Result<()> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(b"GET / HTTP/1.0\r\nHost: hello\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.contains("hello from"), "answered {answer:?}");
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(5), exchange).await?
}

pub async fn memory_hog_is_killed_and_restarted(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("hog").await?;
    let manifest = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"hog"},"spec":{"containers":[{"name":"hog",
        "image":"docker.io/library/busybox:1.36","imagePullPolicy":"Never","command":["sh","-c","sleep 1; tail /dev/zero"],
        "resources":{"limits":{"memory":"24Mi"}}}]}}"#;
    pipe(&kubectl, "apply -f -", manifest).await?;
    wait::until("the hog was killed for its memory and restarted", || async {
        let pod: k8s_openapi::api::core::v1::Pod =
            serde_json::from_str(&kubectl.run("get pod hog -o json").await?)?;
        let status =
            pod.status.and_then(|s| s.container_statuses?.into_iter().next()).context("no status yet")?;
        let ended = status.last_state.and_then(|s| s.terminated).or(status.state.and_then(|s| s.terminated));
        let reason = ended.and_then(|t| t.reason).unwrap_or_default();
        ensure!(reason == "OOMKilled", "it ended by {reason:?}");
        Ok((status.restart_count >= 1).then_some(()))
    })
    .await?;
    env.done(&kubectl).await
}

pub async fn cpu_over_its_limit_is_throttled(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("throttle").await?;
    let manifest = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"spin"},"spec":{"containers":[{"name":"spin",
        "image":"docker.io/library/busybox:1.36","imagePullPolicy":"Never","command":["sh","-c","while :; do :; done"],
        "resources":{"limits":{"cpu":"50m"}}}],"terminationGracePeriodSeconds":0}}"#;
    pipe(&kubectl, "apply -f -", manifest).await?;
    // The container sees its own cgroup; on version 1 below the controller's name, so one of the files is missing.
    let read = "exec spin -- cat /sys/fs/cgroup/cpu/cpu.stat /sys/fs/cgroup/cpu.stat";
    wait::until("the container was throttled", || async {
        let output = kubectl.output(read).await?;
        let statistics = String::from_utf8_lossy(&output.stdout);
        let throttled = statistics.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        let periods: u64 = throttled.context("no statistics of its CPU")?.trim().parse()?;
        Ok((periods > 0).then_some(()))
    })
    .await?;
    // Our own processes have no huge pages; containers, which are started by one of them, have what anybody has here.
    let huge_pages = |status: &str| {
        status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).map(|value| value.trim().to_owned())
    };
    let container = kubectl.run("exec spin -- cat /proc/1/status").await?;
    let own = std::fs::read_to_string("/proc/self/status")?;
    ensure!(huge_pages(&container) == huge_pages(&own), "huge pages: {:?}", huge_pages(&container));
    env.done(&kubectl).await
}

/// Pods that keep more on disk than they may, by what they fill, and one that fills as much as it may.
const FILLERS: [(&str, &str, &str, Option<&str>); 3] = [
    ("volume", "/data/file", "", Some("Usage of EmptyDir volume \"data\" exceeds the limit \"2Mi\". ")),
    (
        "layer",
        "/root/file",
        r#""resources":{"limits":{"ephemeral-storage":"2Mi"}},"#,
        Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
    ),
    ("modest", "/root/file", r#""resources":{"limits":{"ephemeral-storage":"64Mi"}},"#, None),
];

pub async fn pods_that_fill_the_disk_are_evicted(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("fill").await?;
    for (name, file, limits, _) in FILLERS {
        let manifest = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{
            "terminationGracePeriodSeconds":1,"volumes":[{{"name":"data","emptyDir":{{"sizeLimit":"2Mi"}}}}],
            "containers":[{{"name":"c","image":"docker.io/library/busybox:1.36","imagePullPolicy":"Never",{limits}
            "command":["sh","-c","dd if=/dev/zero of={file} bs=1M count=4; sleep 3600"],
            "volumeMounts":[{{"name":"data","mountPath":"/data"}}]}}]}}}}"#
        );
        pipe(&kubectl, "apply -f -", &manifest).await?;
    }
    for (name, _, _, message) in FILLERS {
        let Some(message) = message else { continue };
        wait::until(&format!("{name} is evicted"), || async {
            let status = pod_status(&kubectl, name).await?;
            let said = (status.phase.as_deref(), status.reason.as_deref(), status.message.as_deref());
            ensure!(said == (Some("Failed"), Some("Evicted"), Some(message)), "{name} is {said:?}");
            Ok(Some(()))
        })
        .await?;
    }
    let modest = pod_status(&kubectl, "modest").await?;
    ensure!(modest.phase.as_deref() == Some("Running"), "the modest one is {:?}", modest.phase);
    env.done(&kubectl).await
}

/// What is counted of a new quota must not depend on what caches have heard of; in several namespaces, for luck.
pub async fn a_new_quota_counts_itself(env: Arc<Env>) -> Result<()> {
    for number in 0..5 {
        let kubectl = env.namespace(&format!("quota{number}")).await?;
        kubectl.run("create secret generic counted --from-literal=k=v").await?;
        let manifest = r#"{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"q"},"spec":{"hard":{
            "resourcequotas":"5","secrets":"5","count/replicasets.apps":"5"}}}"#;
        pipe(&kubectl, "apply -f -", manifest).await?;
        wait::until("the quota counts itself and the secret", || async {
            let used = kubectl.run("get resourcequota q -o jsonpath={.status.used}").await?;
            ensure!(!used.is_empty(), "nothing is counted");
            let used: serde_json::Value = serde_json::from_str(&used)?;
            let counted = used["resourcequotas"] == "1" && used["secrets"] == "1";
            ensure!(counted && used["count/replicasets.apps"] == "0", "{used}");
            Ok(Some(()))
        })
        .await?;
        env.done(&kubectl).await?;
    }
    Ok(())
}
