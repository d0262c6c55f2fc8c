//! Cables, power, reboots and drains, while visitors ask the services through machines that are left alone.
//!
//! What upstream promises is what is asked for: endpoints of a machine that is silent leave when the node monitor's
//! grace period is over, and a drain of pods that end with grace loses nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::Api;
use e2e::wait::until_within;
use futures::future::try_join_all;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PostParams;
use serde_json::json;

use crate::cluster::{Cluster, places};
use crate::machine::{Machine, PATIENCE};
use crate::samples::{self, HELLOS};
use crate::visitor::{HELLO, STRINGS, Visitor, Visits};

/// The node monitor's grace period, as upstream has it.
const GRACE: Duration = Duration::from_secs(50);
/// How long pods tolerate a node that is not reachable, as admission lets them.
const TOLERATED: Duration = Duration::from_secs(300);
/// What emulated machines need on top of that, to notice and to change their rules.
const SLOWNESS: Duration = Duration::from_secs(40);
/// How long all is watched after it is well again.
const CALM: Duration = Duration::from_secs(40);
/// What emulated machines take from an endpoint's change to that of their rules.
const SETTLING: Duration = Duration::from_secs(20);

/// Prints what a node has made.
const LEFT: &str = "ls -d /etc/systemd/system/coxswain.service /var/lib/coxswain /run/coxswain /sys/fs/cgroup/kubepods \
    2>/dev/null; ip -br link show type bridge; ip route | grep 'proto 88'; ip6tables-save | grep KUBE; \
    iptables-save | grep -i -e KUBE -e coxswain -e CNI-; mount | grep -e coxswain -e kubepods; pgrep -a containerd; true";

/// Those who ask all services through some machines.
struct Visitors {
    visitors: Vec<Visitor>,
    event: Instant,
}

impl Visitors {
    async fn come(cluster: &Cluster, through: &[&Machine]) -> Result<Self> {
        let mut visitors = vec![];
        for machine in through {
            for (service, question) in [("hello-outside", HELLO), ("tcpserver", STRINGS)] {
                visitors.push(Visitor::come(question, cluster.node_port(service, machine).await?));
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(Self { visitors, event: Instant::now() })
    }

    /// What they saw, and it in words. Before the event all must have been well.
    async fn leave(self) -> Result<(Vec<Visits>, String)> {
        let all = try_join_all(self.visitors.into_iter().map(Visitor::leave)).await?;
        let told: Vec<_> =
            all.iter().map(|visits| format!("\n     {}", visits.told_since(self.event))).collect();
        let told = told.concat();
        let long_ago = self.event.checked_sub(PATIENCE).unwrap_or(self.event);
        let early: usize = all.iter().map(|visits| visits.failures(long_ago, self.event)).sum();
        ensure!(early == 0, "{early} questions failed before anything happened{told}");
        Ok((all, told))
    }
}

/// No question that was asked in this time failed.
fn all_well(all: &[Visits], from: Instant, until: Instant, when: &str, told: &str) -> Result<()> {
    let failures: usize = all.iter().map(|visits| visits.failures(from, until)).sum();
    ensure!(failures == 0, "{failures} questions failed {when}{told}");
    Ok(())
}

/// No question failed that was asked of pods that wait before they end, and are ready only when they answer: those of
/// the string service are not such.
fn graceful_well(all: &[Visits], from: Instant, until: Instant, when: &str, told: &str) -> Result<()> {
    let graceful = all.iter().filter(|visits| visits.of() == HELLO.of);
    let failures: usize = graceful.map(|visits| visits.failures(from, until)).sum();
    ensure!(failures == 0, "{failures} questions failed {when}{told}");
    Ok(())
}

/// The machines that are left alone go on: of the pods of a single service, most answer; of several in a row, some do.
fn goes_on(all: &[Visits], from: Instant, until: Instant, told: &str) -> Result<()> {
    for visits in all {
        let (failed, asked) = (visits.failures(from, until), visits.asked(from, until));
        let may_fail = if visits.of() == HELLO.of { asked * 2 / 3 } else { asked.saturating_sub(1) };
        ensure!(failed <= may_fail, "{failed} of {asked} questions to {} failed{told}", visits.of());
    }
    Ok(())
}

async fn calm() -> Instant {
    tokio::time::sleep(CALM).await;
    Instant::now()
}

async fn containers(machine: &Machine) -> Result<usize> {
    let tasks = "ctr --address /run/coxswain/containerd.sock --namespace k8s.io tasks ls -q | wc -l";
    Ok(machine.run(tasks).await?.trim().parse()?)
}

/// One machine's cable is pulled out, and put back in before its pods are given up.
pub async fn cable(cluster: &Cluster) -> Result<String> {
    let [first, second, cut] = &cluster.machines[..] else { unreachable!("there are three machines") };
    let before = (places(&cluster.pods("").await?), containers(cut).await?);
    let visitors = Visitors::come(cluster, &[first, second]).await?;
    let event = visitors.event;
    cut.plug(false).await?;
    cluster.node_is_ready(cut, false).await?;
    let noticed = event.elapsed();
    let gone = cluster.endpoints_are_ready(cut, false).await?;
    let calm_until = calm().await;
    cut.plug(true).await?;
    let mended = Instant::now();
    cluster.node_is_ready(cut, true).await?;
    let ready = mended.elapsed();
    let back = cluster.endpoints_are_ready(cut, true).await?;
    // A pod whose probes had no cable to go through may need a moment; its answers then count.
    samples::pods_are_one_network(cluster).await?;
    let end = calm().await;
    let (all, told) = visitors.leave().await?;
    let gone_after = gone - event;
    ensure!(gone_after <= GRACE + SLOWNESS, "endpoints left only after {gone_after:?}{told}");
    goes_on(&all, event, gone, &told)?;
    let when = format!("while the machine was out, endpoints left after {:.0} s", gone_after.as_secs_f64());
    // Rules follow endpoints; an answer to a question that was on its way may be lost.
    all_well(&all, gone + SETTLING, calm_until, &when, &told)?;
    all_well(&all, back + SETTLING, end, "after the machine was back", &told)?;
    let after = (places(&cluster.pods("").await?), containers(cut).await?);
    ensure!(before == after, "pods were {before:?}, are {after:?}");
    Ok(format!(
        "not ready after {:.0} s, endpoints gone after {:.0} s; ready {:.0} s after it was mended, endpoints after \
         {:.0} s; the same {} pods and {} containers{told}",
        noticed.as_secs_f64(),
        gone_after.as_secs_f64(),
        ready.as_secs_f64(),
        (back - mended).as_secs_f64(),
        after.0.len(),
        after.1,
    ))
}

/// A machine is booted anew; its pods are started again, the same ones.
pub async fn reboot(cluster: &Cluster) -> Result<String> {
    let [first, gone, third] = &cluster.machines[..] else { unreachable!("there are three machines") };
    comes_back(cluster, gone, &[first, third], gone.reboot()).await
}

/// A worker's power fails.
pub async fn power(cluster: &Cluster) -> Result<String> {
    let [first, second, gone] = &cluster.machines[..] else { unreachable!("there are three machines") };
    comes_back(cluster, gone, &[first, second], gone.cut_power()).await
}

/// The power of the machine with the control plane fails. What it has acknowledged is there afterwards, and meanwhile
/// the others go on with what they know.
pub async fn power_of_the_control_plane(cluster: &Cluster) -> Result<String> {
    let [gone, second, third] = &cluster.machines[..] else { unreachable!("there are three machines") };
    let failure = async {
        cluster.kubectl.run("create configmap acknowledged --from-literal=at=last").await?;
        gone.cut_power().await
    };
    let told = comes_back(cluster, gone, &[second, third], failure).await?;
    let kept = cluster.kubectl.run("get configmap acknowledged -o jsonpath={.data.at}").await?;
    ensure!(kept == "last", "the last write is {kept:?}");
    cluster.kubectl.run("delete configmap acknowledged").await?;
    Ok(told)
}

async fn comes_back(
    cluster: &Cluster,
    gone: &Machine,
    through: &[&Machine],
    going: impl Future<Output = Result<()>>,
) -> Result<String> {
    let (before, boot) = (places(&cluster.pods("").await?), gone.boot_id().await?);
    let visitors = Visitors::come(cluster, through).await?;
    let event = visitors.event;
    going.await?;
    until_within(PATIENCE, &format!("{} has booted again", gone.name), || async {
        Ok((gone.boot_id().await? != boot).then_some(()))
    })
    .await?;
    let booted = event.elapsed();
    let boot = gone.boot_id().await?;
    // Else the old state may be read, which has not yet been seen to be wrong.
    until_within(PATIENCE, &format!("the node {} has this boot", gone.name), || async {
        let node = cluster.node_is_ready(gone, true).await?;
        let info = node.status.and_then(|status| status.node_info).context("a node has information")?;
        Ok((info.boot_id == boot).then_some(()))
    })
    .await?;
    let ready = event.elapsed();
    // Pods stay as long as they tolerate that their node is silent.
    let stayed = ready < TOLERATED;
    until_within(PATIENCE, "its pods run again", || async {
        let now = places(&cluster.pods("").await?);
        let again = before.iter().all(|(pod, (node, count))| {
            now.get(pod).is_some_and(|(on, times)| on == node && (times > count) == (*node == gone.name))
        });
        ensure!((again || !stayed) && now.len() == before.len(), "pods were {before:?}, are {now:?}");
        Ok(Some(()))
    })
    .await?;
    cluster.ready_pods("app", before.len()).await?;
    // Nothing had loaded what has this setting when kube-proxy started.
    let most = gone.run("cat /proc/sys/net/netfilter/nf_conntrack_max").await?;
    ensure!(most.trim() == "131072", "kube-proxy has not set how many connections are followed: {most}");
    let back = cluster.endpoints_are_ready(gone, true).await?;
    let (end, settled) = (calm().await, back + SETTLING);
    let (all, told) = visitors.leave().await?;
    goes_on(&all, event, back, &told)?;
    all_well(&all, settled, end, "after the machine was back", &told)?;
    Ok(format!(
        "booted after {:.0} s, ready after {:.0} s, endpoints after {:.0} s; {} {} pods{told}",
        booted.as_secs_f64(),
        ready.as_secs_f64(),
        (back - event).as_secs_f64(),
        if stayed { "the same" } else { "as many" },
        before.len(),
    ))
}

/// A machine is drained: pods go elsewhere, a few at a time, and nobody notices. Then it takes pods again.
pub async fn drain(cluster: &Cluster) -> Result<String> {
    let [first, drained, third] = &cluster.machines[..] else { unreachable!("there are three machines") };
    let kubectl = &cluster.kubectl;
    let least = HELLOS - 1;
    let budget = json!({"metadata": {"name": "hello"},
        "spec": {"minAvailable": least, "selector": {"matchLabels": {"app": "hello"}}}});
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(cluster.client.clone());
    budgets.create(&PostParams::default(), &serde_json::from_value(budget)?).await?;
    let visitors = Visitors::come(cluster, &[first, third]).await?;
    let event = visitors.event;
    let words = format!("drain {} --ignore-daemonsets --delete-emptydir-data --timeout=900s", drained.name);
    let drain = kubectl.run(&words);
    tokio::pin!(drain);
    let mut fewest = HELLOS;
    let said = loop {
        tokio::select! {
            said = &mut drain => break said?,
            () = tokio::time::sleep(Duration::from_secs(1)) => fewest = fewest.min(healthy(cluster).await?),
        }
    };
    ensure!(fewest >= least, "{fewest} healthy pods, less than {least}");
    let took = event.elapsed();
    ensure!(said.contains("drained"), "kubectl drain said {said:?}");
    cluster.ready_pods("app", samples::PODS).await?;
    let end = calm().await;
    let (all, told) = visitors.leave().await?;
    graceful_well(&all, event, end, "while the machine was drained", &told)?;
    let left = on(cluster, drained).await?;
    ensure!(left == 0, "{} still has {left} pods", drained.name);
    kubectl.run(&format!("uncordon {}", drained.name)).await?;
    kubectl.run("delete poddisruptionbudget hello").await?;
    kubectl.run(&format!("scale deployment hello --replicas={}", HELLOS + 3)).await?;
    cluster.ready_pods("app=hello", HELLOS + 3).await?;
    let again = on(cluster, drained).await?;
    ensure!(again > 0, "{} takes no pods", drained.name);
    kubectl.run(&format!("scale deployment hello --replicas={HELLOS}")).await?;
    cluster.ready_pods("app=hello", HELLOS).await?;
    Ok(format!(
        "drained after {:.0} s, never less than {fewest} healthy; {again} new pods after it was uncordoned{told}",
        took.as_secs_f64()
    ))
}

/// How many pods the budget counts.
async fn healthy(cluster: &Cluster) -> Result<usize> {
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(cluster.client.clone());
    let status = budgets.get("hello").await?.status;
    // Before its controller has seen it, there is nothing to read.
    let healthy = status.filter(|status| status.expected_pods > Some(0)).and_then(|s| s.current_healthy);
    Ok(healthy.map_or(HELLOS, |healthy| usize::try_from(healthy).unwrap_or(0)))
}

/// How many pods are on the machine.
async fn on(cluster: &Cluster, machine: &Machine) -> Result<usize> {
    Ok(places(&cluster.pods("").await?).values().filter(|(node, _)| *node == machine.name).count())
}

/// A machine leaves the cluster for good: nothing of it stays there, and the others go on.
pub async fn leave(cluster: &Cluster) -> Result<String> {
    let [first, second, leaving] = &cluster.machines[..] else { unreachable!("there are three machines") };
    let visitors = Visitors::come(cluster, &[first, second]).await?;
    let event = visitors.event;
    let drain = format!("drain {} --ignore-daemonsets --delete-emptydir-data --timeout=900s", leaving.name);
    cluster.kubectl.run(&drain).await?;
    leaving.run("coxswain down").await?;
    cluster.kubectl.run(&format!("delete node {}", leaving.name)).await?;
    let left = leaving.run(LEFT).await?;
    ensure!(left.trim().is_empty(), "{} still has {left}", leaving.name);
    cluster.ready_pods("app", samples::PODS).await?;
    let end = calm().await;
    let (all, told) = visitors.leave().await?;
    graceful_well(&all, event, end, "while a machine left", &told)?;
    Ok(format!("nothing is left there{told}"))
}
