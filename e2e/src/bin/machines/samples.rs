//! The samples on three machines: who answers where, what limits of pods are in the control groups.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use e2e::wait::until_within;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::cluster::{Cluster, places};
use crate::machine::PATIENCE;
use crate::visitor::{HELLO, Question, STRINGS, ask};

/// Two on each machine.
pub const HELLOS: usize = 6;
/// All pods of the samples.
pub const PODS: usize = HELLOS + 10;

/// All samples run, and those that are many are on every machine.
pub async fn run(cluster: &Cluster) -> Result<String> {
    for sample in ["deploy.yaml", "string-service/deployments.yaml", "queue/queue.yaml"] {
        cluster.sample(sample).await?;
    }
    let kubectl = &cluster.kubectl;
    kubectl.run(&format!("scale deployment hello --replicas={HELLOS}")).await?;
    let outside = "expose deployment hello --name=hello-outside --type=NodePort --port=80 --target-port=http";
    kubectl.run(outside).await?;
    for (app, count) in [("upper", 2), ("reversi", 2), ("queue", 1), ("producer", 1), ("consumer", 1)] {
        cluster.ready_pods(&format!("app={app}"), count).await?;
    }
    let mut told = vec![];
    for (app, count) in [("hello", HELLOS), ("tcpserver", 3)] {
        let pods = cluster.ready_pods(&format!("app={app}"), count).await?;
        let places = places(&pods);
        let on = |name: &str| places.values().filter(|(node, _)| node == name).count();
        let counts: Vec<_> = cluster.machines.iter().map(|machine| on(&machine.name)).collect();
        ensure!(counts.iter().all(|count| *count > 0), "{app}: {counts:?} pods on the machines");
        told.push(format!("{app} {counts:?}"));
    }
    Ok(told.join(", "))
}

/// Every machine reaches the services by their cluster addresses, and this one by every machine's node port.
pub async fn answer_everywhere(cluster: &Cluster) -> Result<String> {
    let address = cluster.kubectl.run("get service hello -o jsonpath={.spec.clusterIP}").await?;
    for machine in &cluster.machines {
        let said = machine.run(&format!("timeout 30 busybox wget -q -O - http://{address}")).await?;
        ensure!(said.starts_with("hello from hello-"), "{} heard {said:?} at {address}", machine.name);
        for (service, question) in [("hello-outside", HELLO), ("tcpserver", STRINGS)] {
            answers(question, cluster.node_port(service, machine).await?).await?;
        }
    }
    Ok(format!("{address} and node ports"))
}

async fn answers(question: Question, at: SocketAddr) -> Result<()> {
    let what = format!("{} answers at {at}", question.of);
    until_within(PATIENCE, &what, || async { ask(question, at).await.map(Some) }).await
}

/// What the producer made has come out at the consumer.
pub async fn queue_moves(cluster: &Cluster) -> Result<String> {
    let before = consumed(cluster).await?;
    until_within(PATIENCE, "the consumer gets more", || async {
        let now = consumed(cluster).await?;
        Ok((now > before).then(|| format!("job {now} was consumed")))
    })
    .await
}

/// The number of the last job that was consumed.
async fn consumed(cluster: &Cluster) -> Result<u64> {
    let log = cluster.kubectl.run("logs deployment/consumer --tail=20").await?;
    let jobs = log.lines().filter_map(|line| line.strip_prefix("consumed job-")?.parse().ok());
    Ok(jobs.max().unwrap_or(0))
}

/// A pod of each machine reaches one of each other at its own address.
pub async fn pods_are_one_network(cluster: &Cluster) -> Result<String> {
    let pods = cluster.ready_pods("app=hello", HELLOS).await?;
    let of = |node: &str| pods.iter().find(|pod| node_of(pod) == Some(node));
    let mut pairs = 0;
    for from in &cluster.machines {
        let asking = of(&from.name).and_then(name_of).with_context(|| format!("no pod on {}", from.name))?;
        for to in cluster.machines.iter().filter(|to| to.name != from.name) {
            let asked = of(&to.name).with_context(|| format!("no pod on {}", to.name))?;
            let ip =
                asked.status.as_ref().and_then(|s| s.pod_ip.as_deref()).context("a pod has an address")?;
            let words = format!("exec {asking} -- timeout 20 wget -q -O - http://{ip}:8080");
            let what = format!("a pod of {} hears one of {}", from.name, to.name);
            let said =
                until_within(PATIENCE, &what, || async { cluster.kubectl.run(&words).await.map(Some) });
            let said = said.await?;
            ensure!(
                said.trim() == format!("hello from {}", name_of(asked).unwrap_or("")),
                "{what}: {said:?}"
            );
            pairs += 1;
        }
    }
    Ok(format!("{pairs} pairs of machines"))
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}

fn name_of(pod: &Pod) -> Option<&str> {
    pod.metadata.name.as_deref()
}

/// A pod's limits are in the files of control groups of version 2, follow a resize in place, and are enforced.
pub async fn limits_are_in_the_groups(cluster: &Cluster) -> Result<String> {
    let machine = &cluster.machines[1];
    let kind = machine.run("stat -f -c %T /sys/fs/cgroup").await?;
    ensure!(kind.trim() == "cgroup2fs", "/sys/fs/cgroup is a {kind}");
    let container = json!({"name": "c", "image": "docker.io/library/busybox:1.36", "imagePullPolicy": "Never",
        "command": ["sleep", "3600"], "resources": {"requests": {"cpu": "100m", "memory": "32Mi"},
        "limits": {"cpu": "250m", "memory": "64Mi"}}});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "limited", "labels": {"app": "limited"}},
        "spec": {"nodeName": machine.name, "terminationGracePeriodSeconds": 1, "containers": [container]}});
    let pods: client::Api<Pod> = client::Api::default_namespaced(cluster.client.clone());
    pods.create(&kube::api::PostParams::default(), &serde_json::from_value(pod)?).await?;
    let pod = cluster.ready_pods("app=limited", 1).await?.remove(0);
    let uid = pod.metadata.uid.as_deref().context("a pod has a uid")?;
    let group = format!("/sys/fs/cgroup/kubepods/burstable/pod{uid}");
    let id = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).next();
    let id = id.and_then(|status| status.container_id.as_deref()?.rsplit('/').next().map(str::to_owned));
    let container = format!("{group}/{}", id.context("a container has an id")?);
    let read = |group: String, file: &'static str| async move {
        Ok::<_, anyhow::Error>(machine.run(&format!("cat {group}/{file}")).await?.trim().to_owned())
    };
    // A hundredth of a CPU is a share of ten; version 2 counts in weights.
    for (group, file, expected) in [
        (&group, "cpu.max", "25000 100000"),
        (&group, "cpu.weight", "4"),
        (&group, "memory.max", "67108864"),
        (&container, "cpu.max", "25000 100000"),
        (&container, "cpu.weight", "4"),
        (&container, "memory.max", "67108864"),
        (&container, "memory.oom.group", "1"),
    ] {
        let found = read(group.clone(), file).await?;
        ensure!(found == expected, "{group}/{file} is {found:?}, not {expected:?}");
    }
    let larger =
        r#"{"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":"500m","memory":"96Mi"}}}]}}"#;
    let patch = format!("patch pod limited --subresource=resize -p {larger}");
    cluster.kubectl.run(&patch).await?;
    until_within(PATIENCE, "the groups are resized", || async {
        let mut found = vec![];
        for group in [&group, &container] {
            found.push(format!(
                "{} {}",
                read(group.clone(), "cpu.max").await?,
                read(group.clone(), "memory.max").await?
            ));
        }
        ensure!(found.iter().all(|found| found == "50000 100000 100663296"), "they are {found:?}");
        Ok(Some(()))
    })
    .await?;
    let hog = "exec limited -- sh -c";
    // Not `words`: the shell's are one.
    let mut fill = cluster.kubectl.command(hog);
    let filled = fill.arg("dd if=/dev/zero of=/dev/null bs=200M count=1").output().await?;
    ensure!(!filled.status.success(), "200 MB fit into 96");
    until_within(PATIENCE, "the container was killed and started anew", || async {
        let path = "jsonpath={.status.containerStatuses[0].lastState.terminated.reason}";
        let reason = cluster.kubectl.run(&format!("get pod limited -o {path}")).await?;
        ensure!(reason == "OOMKilled", "reason {reason:?}");
        Ok(Some(()))
    })
    .await?;
    cluster.kubectl.run("delete pod limited").await?;
    until_within(PATIENCE, "the pod's group is gone", || async {
        machine.run(&format!("test ! -e {group}")).await.map(Some)
    })
    .await?;
    Ok("version 2: limits, a resize in place, an out-of-memory kill, and nothing left".into())
}
