//! Services and their rules.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use e2e::wait;

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
