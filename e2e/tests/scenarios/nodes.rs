//! Several machines: one joins with a token, and pods of both are one network.

use std::future::Future;
use std::sync::Arc;

use anyhow::{Result, ensure};
use e2e::cluster::Cluster;
use e2e::joined::Joined;
use e2e::kubectl::Kubectl;
use e2e::wait;

use super::families::{addresses, at};
use super::policies::hears;
use super::streams::{apply_each, pipe};
use super::{Env, ready_pods};

/// A pod on each node that serves its name, and all behind one service.
const WEB: &str = r#"{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"web"},"spec":{
    "selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{
    "terminationGracePeriodSeconds":1,"containers":[{"name":"web","image":"docker.io/library/busybox:1.36",
    "imagePullPolicy":"Never","command":["sh","-c","echo it is $NODE > /var/www/index.html; exec httpd -f -v -h /var/www -p 8080"],
    "env":[{"name":"NODE","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}}],
    "readinessProbe":{"httpGet":{"path":"/","port":8080},"periodSeconds":1}}]}}}}
---
{"apiVersion":"v1","kind":"Service","metadata":{"name":"web"},"spec":{"type":"NodePort","selector":{"app":"web"},
    "ports":[{"port":80,"targetPort":8080}]}}"#;

pub async fn a_machine_joins_and_pods_of_both_nodes_are_one_network(env: Arc<Env>) -> Result<()> {
    let mut cluster = env.cluster.write().await;
    let mut joined = Joined::start(&cluster, 1).await?;
    let kubectl = env.namespace("nodes").await?;
    let mut outcome = with_two_nodes(&cluster, &mut joined, &kubectl).await;
    if outcome.is_ok() {
        outcome = in_a_tunnel(&env, &mut cluster, &mut joined, &kubectl).await;
    }
    let name = joined.settings.node_name.clone();
    let left = joined.leave().await;
    env.kubectl.run(&format!("delete node {name}")).await?;
    outcome?;
    left?;
    env.done(&kubectl).await
}

async fn with_two_nodes(cluster: &Cluster, joined: &mut Joined, kubectl: &Kubectl) -> Result<()> {
    let names = [cluster.settings.node_name.clone(), joined.settings.node_name.clone()];
    apply_each(kubectl, WEB).await?;
    let pods = ready_pods(kubectl, "app=web", 2).await?;
    for pod in &pods {
        // A kubelet that is new is not believed before its certificate has been issued.
        wait::until("the node's kubelet is reached", || async {
            kubectl.run(&format!("exec {pod} -- true")).await.map(Some)
        })
        .await?;
        let on = kubectl.run(&format!("get pod {pod} -o jsonpath={{.spec.nodeName}}")).await?;
        for other in &pods {
            let there = kubectl.run(&format!("get pod {other} -o jsonpath={{.spec.nodeName}}")).await?;
            for address in addresses(kubectl, &format!("pod {other}"), "status.podIPs[*].ip").await? {
                let said = ask(kubectl, pod, &format!("http://{}", at(address, "8080"))).await?;
                ensure!(
                    said == format!("it is {there}"),
                    "a pod of {on} heard {said:?} from one of {there} at {address}"
                );
            }
        }
        // Its name is answered by the DNS of one node, its address leads to both.
        both_answer(&names, || ask(kubectl, pod, "http://web")).await?;
        let log = kubectl.run(&format!("logs {pod}")).await?;
        ensure!(log.contains("response:200"), "the log on {on} is {log:?}");
    }
    let port = kubectl.run("get service web -o jsonpath={.spec.ports[0].nodePort}").await?;
    for address in [cluster.address(), joined.address().into()] {
        let url = format!("http://{address}:{port}");
        both_answer(&names, || ask(kubectl, &pods[0], &url)).await?;
    }
    policies_reach_across(kubectl, &pods).await?;
    a_card_goes_down_and_up(joined, cluster.has_both_families(), kubectl, &pods).await?;
    joined.kill_and_restart()?;
    let counts =
        kubectl.run("get pods -l app=web -o jsonpath={.items[*].status.containerStatuses[*].restartCount}");
    let counts = counts.await?;
    ensure!(counts.split_whitespace().all(|count| count == "0"), "restarts: {counts}");
    Ok(())
}

/// Each pod's node enforces what its pods may hear.
async fn policies_reach_across(kubectl: &Kubectl, pods: &[String]) -> Result<()> {
    let deny = r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"deny"},
        "spec":{"podSelector":{}}}"#;
    let other = addresses(kubectl, &format!("pod {}", pods[1]), "status.podIPs[*].ip").await?;
    let heard = |expected: bool| {
        let (one, other) = (&pods[0], &other);
        async move {
            for address in other {
                hears(kubectl, one, &at(*address, "8080"), expected).await?;
            }
            anyhow::Ok(())
        }
    };
    heard(true).await?;
    pipe(kubectl, "apply -f -", deny).await?;
    heard(false).await?;
    kubectl.run("delete networkpolicy deny").await?;
    heard(true).await
}

/// The kernel forgets the routes that lead through a card that goes down, and no Node tells of it.
async fn a_card_goes_down_and_up(
    joined: &Joined,
    both: bool,
    kubectl: &Kubectl,
    pods: &[String],
) -> Result<()> {
    if both {
        // Addresses of this family would be gone for good, as nobody gives them again here.
        inside(joined, "echo 1 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down").await?;
    }
    let default = inside(joined, "ip route show default").await?;
    let again = format!("ip link set eth0 down && ip link set eth0 up && ip route replace {default}");
    inside(joined, &again).await?;
    for (from, to) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
        for address in addresses(kubectl, &format!("pod {to}"), "status.podIPs[*].ip").await? {
            hears(kubectl, from, &at(address, "8080"), true).await?;
        }
    }
    Ok(())
}

/// Runs a shell's command in the network of the machine that joined.
async fn inside(joined: &Joined, command: &str) -> Result<String> {
    let mut words = joined.enter().into_iter().chain(["sh", "-c", command].map(str::to_owned));
    let output = tokio::process::Command::new(words.next().unwrap_or_default()).args(words).output().await?;
    ensure!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The same pods reach each other through a tunnel; the node is emptied at last.
async fn in_a_tunnel(env: &Env, cluster: &mut Cluster, joined: &mut Joined, kubectl: &Kubectl) -> Result<()> {
    let tunnel = ["--pod-network-backend=vxlan"];
    cluster.restart_with("coxswain", &tunnel)?;
    joined.restart_with(&tunnel)?;
    let tunnels: &[_] = if cluster.has_both_families() {
        &[("ip route", "dev flannel.1"), ("ip -6 route", "dev flannel-v6.1")]
    } else {
        &[("ip route", "dev flannel.1")]
    };
    for (routes, tunnel) in tunnels {
        wait::until(&format!("both nodes have routes to the other by {tunnel}"), || async {
            let here = env.on_node(routes).output().await?;
            let mut words = joined.enter().into_iter().chain(routes.split(' ').map(str::to_owned));
            let mut command = tokio::process::Command::new(words.next().unwrap_or_default());
            let there = command.args(words).output().await?;
            let has = |output: &[u8]| String::from_utf8_lossy(output).contains(tunnel);
            Ok((has(&here.stdout) && has(&there.stdout)).then_some(()))
        })
        .await?;
    }
    let pods = ready_pods(kubectl, "app=web", 2).await?;
    for (from, to) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
        for address in addresses(kubectl, &format!("pod {to}"), "status.podIPs[*].ip").await? {
            hears(kubectl, from, &at(address, "8080"), true).await?;
        }
    }
    drains(kubectl, &joined.settings.node_name).await?;
    cluster.restart_with("coxswain", &[])
}

/// The node takes a pod; drained, it is rid of it and takes no other.
async fn drains(kubectl: &Kubectl, node: &str) -> Result<()> {
    let movable = format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"movable"}},"spec":{{
        "selector":{{"matchLabels":{{"app":"movable"}}}},"template":{{"metadata":{{"labels":{{"app":"movable"}}}},"spec":{{
        "affinity":{{"nodeAffinity":{{"preferredDuringSchedulingIgnoredDuringExecution":[{{"weight":100,"preference":{{
        "matchExpressions":[{{"key":"kubernetes.io/hostname","operator":"In","values":["{node}"]}}]}}}}]}}}},
        "terminationGracePeriodSeconds":1,"containers":[{{"name":"c","image":"docker.io/library/busybox:1.36",
        "imagePullPolicy":"Never","command":["sleep","3600"]}}]}}}}}}}}"#
    );
    pipe(kubectl, "apply -f -", &movable).await?;
    let place =
        || async { kubectl.run("get pods -l app=movable -o jsonpath={.items[*].spec.nodeName}").await };
    ready_pods(kubectl, "app=movable", 1).await?;
    ensure!(place().await? == node, "the pod is not where it would rather be");
    let refused = kubectl.output(&format!("drain {node}")).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains("DaemonSet-managed Pods"), "drain: {said}");
    let said =
        kubectl.run(&format!("drain {node} --ignore-daemonsets --delete-emptydir-data --force")).await?;
    ensure!(said.trim_end().ends_with(&format!("node/{node} drained")), "drain: {said}");
    // It is gone from there: drain waits for that.
    ensure!(!place().await?.contains(node), "the pod is still there");
    ready_pods(kubectl, "app=movable", 1).await?;
    ensure!(!place().await?.contains(node), "a pod came to a node that takes none");
    kubectl.run(&format!("uncordon {node}")).await.map(drop)
}

/// What a pod is told at a URL.
async fn ask(kubectl: &Kubectl, pod: &str, url: &str) -> Result<String> {
    Ok(kubectl.run(&format!("exec {pod} -- timeout 5 wget -q -O - {url}")).await?.trim().to_owned())
}

/// Asks until every node has answered.
async fn both_answer<F, Fut>(names: &[String], ask: F) -> Result<()>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<String>>,
{
    let missing = std::sync::Mutex::new(names.to_vec());
    wait::until("both nodes answer", || async {
        let said = ask().await?;
        let mut missing = missing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        missing.retain(|name| said != format!("it is {name}"));
        Ok(missing.is_empty().then_some(()))
    })
    .await
}
