//! A disk that is full, or slow.

use anyhow::{Result, ensure};
use e2e::kubectl::{Kubectl, pipe};
use e2e::pods::{pod_status, pods, ready_pods};
use e2e::wait;

use super::{Env, condition_of, identity, keepers, node, phase, running, until_pressure};

/// Pressure begins where a fifth is left, and is over as soon as it is seen no more.
const EAGER: [&str; 2] = [
    "--eviction-hard=nodefs.available<20%,imagefs.available<20%,nodefs.inodesFree<1%",
    "--eviction-pressure-transition-period=1s",
];
/// However full the disk is, nobody goes.
const NEVER: [&str; 1] = ["--eviction-hard=nodefs.available<0%,imagefs.available<0%,nodefs.inodesFree<0%"];

/// A pod that writes once how it was started, with mounts of several kinds.
fn pod(name: &str, more: &str, command: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","labels":{{"app":"{name}"}}}},"spec":{{{more}
        "terminationGracePeriodSeconds":1,"containers":[{{"name":"c","image":"docker.io/library/busybox:1.36",
        "command":["sh","-c","{command}"],"volumeMounts":[{{"name":"data","mountPath":"/data"}},
        {{"name":"memory","mountPath":"/memory"}}]}}],"volumes":[{{"name":"data","emptyDir":{{}}}},
        {{"name":"memory","emptyDir":{{"medium":"Memory"}}}}]}}}}"#
    )
}

/// What pods that are put to work do.
const STARTS: &str = "echo started >> /data/starts; exec sleep 3600";

pub async fn a_pod_that_fills_the_disk_goes_and_no_other(env: &mut Env, kubectl: Kubectl) -> Result<()> {
    env.cluster.restart_with("kubelet", &EAGER)?;
    keepers(&kubectl).await?;
    let before: Vec<_> = running(&kubectl, "app=keep", 2).await?.iter().map(identity).collect();
    let hog = pod("hog", "", "fallocate -l 1700M /data/file; exec sleep 3600");
    pipe(&kubectl, "apply -f -", &hog).await?;
    wait::until("the hog is evicted", || async {
        let status = pod_status(&kubectl, "hog").await?;
        let said = (status.phase.as_deref(), status.reason.as_deref());
        ensure!(said == (Some("Failed"), Some("Evicted")), "the hog is {said:?}");
        let message = status.message.unwrap_or_default();
        ensure!(message.starts_with("The node was low on resource: ephemeral-storage. "), "{message}");
        Ok(Some(()))
    })
    .await?;
    until_pressure(&kubectl, false).await?;
    // Then others may come, and those that were there have not noticed.
    pipe(&kubectl, "apply -f -", &pod("next", "", STARTS)).await?;
    ready_pods(&kubectl, "app=next", 1).await?;
    let after: Vec<_> = pods(&kubectl, "app=keep").await?.iter().map(identity).collect();
    ensure!(after == before, "{before:?} became {after:?}");
    Ok(())
}

pub async fn pods_come_back_when_a_full_disk_has_room_again(env: &mut Env, kubectl: Kubectl) -> Result<()> {
    env.cluster.restart_with("kubelet", &EAGER)?;
    // It may not be evicted, and what it is made of is not removed.
    let critical = pod("critical", r#""priorityClassName":"system-node-critical","#, STARTS);
    pipe(&kubectl, "apply -f -", &critical).await?;
    keepers(&kubectl).await?;
    ready_pods(&kubectl, "app=critical", 1).await?;
    let critical = pods(&kubectl, "app=critical").await?.iter().map(identity).next();
    let before: Vec<_> = running(&kubectl, "app=keep", 2).await?.iter().map(identity).collect();
    env.cluster.disk()?.fill(64)?;
    until_pressure(&kubectl, true).await?;
    wait::until("all that may go have gone", || async {
        let all = pods(&kubectl, "app=keep").await?;
        let gone = |uid: &str| all.iter().any(|pod| identity(pod).1 == uid && phase(pod) == "Failed");
        ensure!(
            before.iter().all(|(_, uid, _)| gone(uid)),
            "{:?}",
            all.iter().map(phase).collect::<Vec<_>>()
        );
        Ok(Some(()))
    })
    .await?;
    ensure!(
        pods(&kubectl, "app=critical").await?.iter().map(identity).next() == critical,
        "the critical pod noticed"
    );
    env.cluster.disk()?.free()?;
    until_pressure(&kubectl, false).await?;
    for pod in running(&kubectl, "app=keep", 2).await? {
        started_once(&kubectl, &identity(&pod).0).await?;
    }
    ensure!(
        pods(&kubectl, "app=critical").await?.iter().map(identity).next() == critical,
        "the critical pod noticed"
    );
    Ok(())
}

/// Nothing can be written while it is begun, nor while another is to go.
pub async fn a_pod_begun_on_a_full_disk_is_run_once(env: &mut Env, kubectl: Kubectl) -> Result<()> {
    env.cluster.restart_with("kubelet", &NEVER)?;
    keepers(&kubectl).await?;
    let before: Vec<_> = running(&kubectl, "app=keep", 2).await?.iter().map(identity).collect();
    pipe(&kubectl, "apply -f -", &pod("leaves", "", STARTS)).await?;
    ready_pods(&kubectl, "app=leaves", 1).await?;
    let disk = env.cluster.disk()?;
    disk.fill(0)?;
    pipe(&kubectl, "apply -f -", &pod("comes", "", STARTS)).await?;
    wait::until("the pod cannot be begun", || async {
        // What others give back is not for it.
        disk.fill(0)?;
        let said = kubectl.run("get events -o jsonpath={.items[*].message}").await?;
        ensure!(
            said.contains("no space left on device") || said.contains("No space left on device"),
            "{said}"
        );
        Ok(Some(()))
    })
    .await?;
    kubectl.run("delete pod leaves --wait=false").await?;
    disk.fill(0)?;
    env.cluster.disk()?.free()?;
    ready_pods(&kubectl, "app=comes", 1).await?;
    started_once(&kubectl, "comes").await?;
    wait::until("the other is gone", || async {
        Ok(pods(&kubectl, "app=leaves").await?.is_empty().then_some(()))
    })
    .await?;
    let after: Vec<_> = pods(&kubectl, "app=keep").await?.iter().map(identity).collect();
    ensure!(after == before, "{before:?} became {after:?}");
    Ok(())
}

/// A few requests a second for all of containerd and the kubelet.
const SLOW: u32 = 12;

pub async fn a_pod_on_a_slow_disk_is_run_once_and_the_node_stays_ready(
    env: &mut Env,
    kubectl: Kubectl,
) -> Result<()> {
    if !env.cluster.disk()?.limit(SLOW)? {
        eprintln!("disks cannot be slowed down here");
        return Ok(());
    }
    let ready = condition_of(&node(&kubectl).await?, "Ready")?.last_transition_time;
    for name in ["one", "two"] {
        pipe(&kubectl, "apply -f -", &pod(name, "", STARTS)).await?;
    }
    for name in ["one", "two"] {
        ready_pods(&kubectl, &format!("app={name}"), 1).await?;
        started_once(&kubectl, name).await?;
    }
    kubectl.run("delete pod one two").await?;
    let now = condition_of(&node(&kubectl).await?, "Ready")?;
    ensure!(
        now.status == "True" && now.last_transition_time == ready,
        "the node was not ready all the time: {now:?}"
    );
    env.cluster.disk()?.limit(0).map(drop)
}

/// Its container was started once, and not restarted.
async fn started_once(kubectl: &Kubectl, name: &str) -> Result<()> {
    let starts = kubectl.run(&format!("exec {name} -- cat /data/starts")).await?;
    ensure!(starts.lines().count() == 1, "{name} was started {} times", starts.lines().count());
    let words = format!("get pod {name} -o jsonpath={{.status.containerStatuses[*].restartCount}}");
    let restarts = kubectl.run(&words).await?;
    ensure!(restarts.trim() == "0", "{name} was restarted {restarts} times");
    Ok(())
}
