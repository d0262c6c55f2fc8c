//! The samples, as a user applies them, and the answers that come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::wait;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Env, ready_pods, sample};

/// The node port of the string service: fixed in the manifests, so the two forms of it take turns.
const NODE_PORT: u16 = 30002;
static NODE_PORT_IN_USE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub async fn deployment_serves_behind_its_service(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("hello").await?;
    kubectl.run(&format!("apply -f {}", sample("deploy.yaml"))).await?;
    let pods = ready_pods(&kubectl, "app=hello", 2).await?;
    let answer = wait::until("the service answers by its name", || async {
        kubectl.run(&format!("exec {} -- wget -q -O - http://hello", pods[0])).await.map(Some)
    })
    .await?;
    ensure!(pods.iter().any(|pod| answer.contains(pod.as_str())), "answered {answer:?}, not by {pods:?}");
    let wide = kubectl.run("get pods -o wide").await?;
    ensure!(wide.starts_with("NAME") && wide.matches("Running").count() == 2, "{wide}");
    env.done(&kubectl).await
}

pub async fn string_service_of_replication_controllers_answers(env: Arc<Env>) -> Result<()> {
    string_service(env, "replication-controllers", "create").await
}

pub async fn string_service_of_deployments_answers(env: Arc<Env>) -> Result<()> {
    string_service(env, "deployments", "apply").await
}

async fn string_service(env: Arc<Env>, form: &str, verb: &str) -> Result<()> {
    let _turn = NODE_PORT_IN_USE.lock().await;
    let kubectl = env.namespace(&form[..6]).await?;
    let manifest = sample(&format!("string-service/{form}.yaml"));
    kubectl.run(&format!("{verb} -f {manifest}")).await?;
    for (app, count) in [("upper", 2), ("reversi", 2), ("tcpserver", 3)] {
        ready_pods(&kubectl, &format!("app={app}"), count).await?;
    }
    let server = SocketAddr::new(env.address, NODE_PORT);
    let answer =
        wait::until("the string service answers", || async { ask(server, "hello").await.map(Some) }).await?;
    ensure!(answer == "OLLEH", "answered {answer:?}");
    kubectl.run(&format!("delete -f {manifest} --wait=false")).await?;
    wait::until("the node port is free again", || async {
        Ok(kubectl.run("get services -o name").await?.trim().is_empty().then_some(()))
    })
    .await?;
    env.done(&kubectl).await
}

pub async fn consumer_gets_what_the_producer_makes(env: Arc<Env>) -> Result<()> {
    let kubectl = env.namespace("queue").await?;
    kubectl.run(&format!("apply -f {}", sample("queue/queue.yaml"))).await?;
    for app in ["queue", "producer", "consumer"] {
        ready_pods(&kubectl, &format!("app={app}"), 1).await?;
    }
    wait::until("a job has come through the queue", || async {
        let consumed = kubectl.run("logs deployment/consumer").await?;
        let produced = kubectl.run("logs deployment/producer").await?;
        let jobs = consumed.lines().filter_map(|line| line.strip_prefix("consumed "));
        let known = jobs.filter(|job| produced.lines().any(|line| line == format!("produced {job}"))).count();
        ensure!(known > 0, "produced {produced:?}, consumed {consumed:?}");
        Ok(Some(()))
    })
    .await?;
    env.done(&kubectl).await
}

async fn ask(server: SocketAddr, line: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await?;
        anyhow::Ok(answer.trim().to_owned())
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), exchange).await??;
    ensure!(!answer.is_empty(), "no answer");
    Ok(answer)
}
