//! Real programs on two nodes: a web service that keeps what it is told in MariaDB, Redis and RabbitMQ, and nginx
//! before it. They find each other by name. Debian's packages are what their images are made of (`e2e/programs`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::cluster::{Beside, Cluster, Form, binaries, repository};
use e2e::joined::Joined;
use e2e::kubectl::{Kubectl, pipe};
use e2e::network::has_ipv6;
use e2e::pods::{pods, ready_pods};
use e2e::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const NUMBER: u8 = 4;
/// One request must not take as long as that.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two requests of a connection: these machines are small.
const PAUSE: Duration = Duration::from_millis(30);
const STORES: [&str; 3] = ["database", "cache", "broker"];

#[tokio::test(flavor = "multi_thread")]
async fn programs_keep_their_data_and_an_update_under_load_loses_no_request() {
    client::connect::install_crypto_provider();
    let beside = Beside { images: vec![folder("images")], ..Beside::default() };
    let cluster = Cluster::start_with(Form::OneProcess, NUMBER, has_ipv6(), &beside).await;
    let cluster = cluster.expect("a cluster");
    let joined = Joined::start(&cluster, 1).await.expect("a second node");
    let outcome = run(&cluster, &joined).await;
    if outcome.is_err() {
        eprintln!("{}", cluster.log_tails());
    }
    joined.leave().await.expect("the second node is removed");
    cluster.stop().await.expect("the cluster is removed");
    outcome.expect("programs");
}

fn folder(name: &str) -> std::path::PathBuf {
    repository().join("e2e/programs").join(name)
}

async fn run(cluster: &Cluster, joined: &Joined) -> Result<()> {
    let kubectl = Kubectl::new(&binaries()?.join("kubectl"), &cluster.layout.kubeconfig("admin"));
    kubectl.run("create namespace programs").await?;
    let kubectl = kubectl.in_namespace("programs");
    for manifest in ["stores.yaml", "web.yaml"] {
        let path = folder("manifests").join(manifest);
        kubectl.run(&format!("apply -f {}", path.display())).await?;
    }
    for (app, count) in STORES.map(|store| (store, 1)).into_iter().chain([("web", 3), ("front", 2)]) {
        ready_pods(&kubectl, &format!("app={app}"), count).await?;
        eprintln!("{app} is ready");
    }
    let nodes = [cluster.settings.node_name.as_str(), joined.settings.node_name.as_str()];
    for app in ["web", "front"] {
        let on = nodes_of(&kubectl, app).await?;
        ensure!(on.iter().eq(&nodes), "{app} is on {on:?}");
    }
    let port = kubectl.run("get service front -o jsonpath={.spec.ports[0].nodePort}").await?;
    let port = port.trim().parse().context("a node port")?;
    let fronts = [SocketAddr::new(cluster.address(), port), SocketAddr::new(joined.address().into(), port)];
    let mut expected = BTreeMap::new();
    for number in 0..10 {
        let version = post(fronts[number % 2], &format!("first-{number}")).await?;
        *expected.entry(version).or_default() += 1;
    }
    counted(fronts[0], &expected).await?;
    stores_keep_what_they_have(&kubectl, fronts, &expected).await?;
    update_under_load(&kubectl, fronts, nodes, &mut expected).await?;
    counted(fronts[1], &expected).await
}

/// The nodes that an app's pods are on.
async fn nodes_of(kubectl: &Kubectl, app: &str) -> Result<std::collections::BTreeSet<String>> {
    let pods = pods(kubectl, &format!("app={app}")).await?;
    Ok(pods.into_iter().filter_map(|pod| pod.spec?.node_name).collect())
}

/// Their pods are deleted; those that take their places have the same names and claims.
async fn stores_keep_what_they_have(
    kubectl: &Kubectl,
    fronts: [SocketAddr; 2],
    expected: &BTreeMap<String, u64>,
) -> Result<()> {
    for store in STORES {
        let words = format!("get pod {store}-0 -o jsonpath={{.metadata.uid}}");
        let before = kubectl.run(&words).await?;
        kubectl.run(&format!("delete pod {store}-0")).await?;
        ready_pods(kubectl, &format!("app={store}"), 1).await?;
        ensure!(kubectl.run(&words).await? != before, "{store} was not deleted");
    }
    for front in fronts {
        wait::until("the stores answer again", || async { counted(front, expected).await.map(Some) }).await?;
    }
    Ok(())
}

/// Requests from pods of both nodes by the service's name, and from outside by node ports through nginx, while every
/// pod of the web service is replaced, twice.
async fn update_under_load(
    kubectl: &Kubectl,
    fronts: [SocketAddr; 2],
    nodes: [&str; 2],
    expected: &mut BTreeMap<String, u64>,
) -> Result<()> {
    ready_pods(kubectl, "app=web", 3).await?;
    for (number, node) in nodes.into_iter().enumerate() {
        pipe(kubectl, "apply -f -", &client_pod(number, node)).await?;
    }
    let stop = CancellationToken::new();
    let outside: Vec<_> =
        (0..4).map(|number| tokio::spawn(outside_load(number, fronts[number % 2], stop.clone()))).collect();
    for number in 0..nodes.len() {
        wait::until("a client has its first answer", || async {
            let log = kubectl.run(&format!("logs inside-{number}")).await?;
            Ok(log.contains("the first answer is here").then_some(()))
        })
        .await?;
    }
    for change in ["env deployment/web VERSION=2", "image deployment/web web=docker.io/coxswain/web:2.0"] {
        kubectl.run(&format!("set {change}")).await?;
        kubectl.run("rollout status deployment/web --timeout=180s").await?;
        eprintln!("set {change}: rolled out");
    }
    stop.cancel();
    let mut all = vec![];
    for (number, load) in outside.into_iter().enumerate() {
        all.push((format!("outside {number}"), load.await?));
    }
    for number in 0..nodes.len() {
        all.push((format!("inside {number}"), end_client(kubectl, number).await?));
    }
    for (who, Outcome { answers, failures }) in all {
        eprintln!("{who}: {answers:?}");
        ensure!(failures.is_empty(), "{who}: {}", failures.join("; "));
        ensure!(answers.keys().eq(["1", "2"]), "{who} heard {answers:?}");
        for (version, count) in answers {
            *expected.entry(version).or_default() += count;
        }
    }
    // Those of before may still be on their way out.
    let mut now = pods(kubectl, "app=web").await?;
    now.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    let images = now.iter().filter_map(|pod| pod.spec.as_ref()?.containers.first()?.image.as_deref());
    let images: Vec<_> = images.collect();
    ensure!(images == ["docker.io/coxswain/web:2.0"; 3], "{images:?}");
    Ok(())
}

/// What came of many requests.
#[derive(Debug, Default, serde::Deserialize)]
struct Outcome {
    answers: BTreeMap<String, u64>,
    failures: Vec<String>,
}

fn client_pod(number: usize, node: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"inside-{number}"}},"spec":{{"nodeName":"{node}",
        "restartPolicy":"Never","terminationGracePeriodSeconds":1,"containers":[{{"name":"client",
        "image":"docker.io/coxswain/web:1.0","args":["/client.py","http://web","inside-{number}","3"]}}]}}}}"#
    )
}

/// Tells a client to end, and reads what it says.
async fn end_client(kubectl: &Kubectl, number: usize) -> Result<Outcome> {
    let stop = "/usr/bin/python3.11 -c open('/tmp/stop','w')";
    // It has ended already if nothing was left to ask.
    let _ = kubectl.output(&format!("exec inside-{number} -- {stop}")).await?;
    wait::until("a client ends", || async {
        let phase = kubectl.run(&format!("get pod inside-{number} -o jsonpath={{.status.phase}}")).await?;
        Ok(["Succeeded", "Failed"].contains(&phase.trim()).then_some(()))
    })
    .await?;
    let log = kubectl.run(&format!("logs inside-{number}")).await?;
    let last = log.lines().last().unwrap_or_default();
    serde_json::from_str(last).with_context(|| format!("the client said {log:?}"))
}

/// One request after the other from here.
async fn outside_load(number: usize, front: SocketAddr, stop: CancellationToken) -> Outcome {
    let mut outcome = Outcome::default();
    for request in 0_u64.. {
        if stop.is_cancelled() {
            break;
        }
        let key = format!("outside-{number}-{request}");
        match post(front, &key).await {
            Ok(version) => *outcome.answers.entry(version).or_default() += 1,
            Err(error) => {
                outcome.failures.push(format!("{key}: {error:#}"));
                break;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    outcome
}

/// What the stores count must be what was answered, neither more nor less.
async fn counted(front: SocketAddr, expected: &BTreeMap<String, u64>) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Counts {
        rows: BTreeMap<String, u64>,
        counted: u64,
        messages: u64,
    }
    let counts: Counts = serde_json::from_str(&ask(front, "GET", "counts").await?)?;
    let all = expected.values().sum::<u64>();
    ensure!(counts.rows == *expected, "rows {:?}, answers {expected:?}", counts.rows);
    ensure!(
        (counts.counted, counts.messages) == (all, all),
        "{} counted, {} messages, {all} answers",
        counts.counted,
        counts.messages
    );
    Ok(())
}

async fn post(front: SocketAddr, key: &str) -> Result<String> {
    ask(front, "POST", key).await
}

/// One request over a connection of its own; its answer must be one of success.
async fn ask(front: SocketAddr, method: &str, path: &str) -> Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(front).await.context("connect")?;
        let request = format!("{method} /{path} HTTP/1.0\r\nHost: front\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("ask")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.context("read")?;
        let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("answered {answer:?}"))?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "answered {answer:?}");
        Ok(body.to_owned())
    };
    tokio::time::timeout(PATIENCE, exchange).await.context("no answer in time")?
}
