//! Services and their rules.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::wait;

use super::policies::hears;
use super::streams::pipe;
use super::{Env, ready_pods, sample};

/// An address for a service, far from those that are given out by themselves.
const ADDRESS: &str = "10.96.213.77";

/// A client may be faster than the rules of the service it wants. Its first packet then goes nowhere; sent again, it
/// must find the way, or the client hangs for minutes. (It may be refused while the service has no endpoints yet, and
/// tries again.)
pub async fn a_connection_older_than_its_service_gets_through(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("early").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    ready_pods(&kubectl, "app=hello", 2).await?;
    let client = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"early"}},"spec":{{"restartPolicy":"Never",
        "terminationGracePeriodSeconds":1,"containers":[{{"name":"c","image":"docker.io/library/busybox:1.36",
        "imagePullPolicy":"Never","command":["sh","-c","until wget -q -O - http://{ADDRESS}; do sleep 1; done"]}}]}}}}"#
    );
    pipe(&kubectl, "apply -f -", &client).await?;
    wait::until("the first packet is on its way", || async {
        let flows = env.on_node(&format!("conntrack -L -p tcp --orig-dst {ADDRESS}")).output().await?;
        Ok(String::from_utf8_lossy(&flows.stdout).contains("SYN_SENT").then_some(()))
    })
    .await?;
    let service = format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"late"}},"spec":{{"clusterIP":"{ADDRESS}",
        "selector":{{"app":"hello"}},"ports":[{{"port":80,"targetPort":8080}}]}}}}"#
    );
    pipe(&kubectl, "apply -f -", &service).await?;
    let answer = wait::until("the client has its answer", || async {
        let phase = kubectl.run("get pod early -o jsonpath={.status.phase}").await?;
        ensure!(phase != "Failed", "the client gave up");
        Ok((phase == "Succeeded").then_some(()))
    })
    .await;
    answer.context("a connection begun before its service")?;
    let said = kubectl.run("logs early").await?;
    ensure!(said.contains("hello from"), "answered {said:?}");
    env.done(&kubectl).await
}

/// The controller of Endpoints writes those of Services; what users made without a Service is theirs.
pub async fn endpoints_without_a_service_stay(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("endpoints").await?;
    let manifest = r#"{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"own"},
        "subsets":[{"addresses":[{"ip":"192.0.2.7"}],"ports":[{"port":80}]}]}"#;
    pipe(&kubectl, "apply -f -", manifest).await?;
    // The controller has seen the first when it has made what it heard of later.
    let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"other"},
        "spec":{"selector":{"app":"nobody"},"ports":[{"port":80}]}}"#;
    pipe(&kubectl, "apply -f -", service).await?;
    wait::until("the endpoints of a service", || async {
        kubectl.run("get endpoints other -o name").await.map(Some)
    })
    .await?;
    let address = kubectl.run("get endpoints own -o jsonpath={.subsets[0].addresses[0].ip}").await?;
    ensure!(address.trim() == "192.0.2.7", "{address:?}");
    env.done(&kubectl).await
}

/// The other way to write rules: it takes over from the first, and gives way to it again.
pub async fn services_work_in_nftables_too(env: Arc<Env>) -> Result<()> {
    // Before it makes pods: one that waits for a node without pods may have the cluster.
    let mut cluster = env.cluster.write().await;
    let kubectl = env.namespace("nftables").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    let pods = ready_pods(&kubectl, "app=hello", 2).await?;
    kubectl
        .run("expose deployment hello --name=outside --type=NodePort --port=80 --target-port=8080")
        .await?;
    let port = kubectl.run("get service outside -o jsonpath={.spec.ports[0].nodePort}").await?;
    let outside = format!("{}:{port}", env.address);
    for mode in ["nftables", "iptables"] {
        cluster.restart_with("kube-proxy", &[&format!("--proxy-mode={mode}")])?;
        wait::until(&format!("{mode} alone has the rules"), || async {
            let (tables, chains) =
                (printed(&env, "nft list tables").await?, printed(&env, "iptables-save").await?);
            let (in_tables, in_chains) =
                (tables.contains("table ip kube-proxy"), chains.contains("KUBE-SVC-"));
            Ok(((in_tables, in_chains) == (mode == "nftables", mode == "iptables")).then_some(()))
        })
        .await?;
        for to in ["hello", &outside] {
            hears(&kubectl, &pods[0], to, true).await.with_context(|| format!("in {mode}"))?;
        }
        kubectl.run("patch service hello -p {\"spec\":{\"selector\":{\"app\":\"nobody\"}}}").await?;
        wait::until("a service without endpoints refuses", || async {
            let output =
                kubectl.output(&format!("exec {} -- timeout 5 wget -q -O - http://hello", pods[0])).await?;
            Ok(String::from_utf8_lossy(&output.stderr).contains("refused").then_some(()))
        })
        .await
        .with_context(|| format!("in {mode}"))?;
        kubectl.run("patch service hello -p {\"spec\":{\"selector\":{\"app\":\"hello\"}}}").await?;
        hears(&kubectl, &pods[0], "hello", true).await.with_context(|| format!("in {mode}"))?;
    }
    drop(cluster);
    env.done(&kubectl).await
}

async fn printed(env: &Env, words: &str) -> Result<String> {
    let output = env.on_node(words).output().await.with_context(|| words.to_owned())?;
    ensure!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
