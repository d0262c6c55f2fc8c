//! What those feel whom the cluster depends on, while one user asks for much more than the server can do.
//!
//! The user lists pods on many connections and never waits. Meanwhile a node renews its lease and a controller its own,
//! at a steady pace, on a thread of their own. Both act through impersonation, so that one kubeconfig is enough: the
//! server classifies them as if they were there themselves (`node-high` and `leader-election` of upstream's defaults).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Settings;
use crate::connection::{Connection, Content, Identity};
use crate::figures::{Figure, Requests};
use crate::target::Target;

const NODE: Identity = Identity { user: "system:node:flooded", group: "system:nodes" };
const MANAGER: Identity = Identity { user: "system:kube-controller-manager", group: "system:authenticated" };
const FLOODER: Identity = Identity { user: "flooder", group: "flooders" };

/// Their leases.
const LEASES: [(&str, &str); 2] =
    [("kube-node-lease", "flooded"), ("kube-system", "kube-controller-manager")];
/// Renewals a second, of each of the two.
const PACE: u32 = 25;

/// The latency of renewals without a flood.
pub async fn calm(target: Target, settings: Settings) -> Result<Figure> {
    prepare(&target).await?;
    renewals(target, settings.seconds).await
}

/// The latency of renewals in a flood.
pub async fn flooded(target: Target, settings: Settings) -> Result<Figure> {
    prepare(&target).await?;
    let (stop, stopped) = watch::channel(false);
    // The flood is one of requests: that many handshakes at once would be another.
    let mut connections = Vec::new();
    for _ in 0..settings.flooders {
        connections.push(Connection::open(&target).await?);
    }
    let flood = |connection| tokio::spawn(flood(connection, target.clone(), stopped.clone()));
    let flooders: Vec<_> = connections.into_iter().map(flood).collect();
    let figure = renewals(target.clone(), settings.seconds).await;
    stop.send_replace(true);
    let (mut served, mut refused) = (0, 0);
    for flooder in flooders {
        let (more, less) = flooder.await??;
        served += more;
        refused += less;
    }
    eprintln!("the flood: {served} lists answered, {refused} refused");
    figure
}

/// The leases, and the right of the user to list pods.
async fn prepare(target: &Target) -> Result<()> {
    target.grant(FLOODER.group, &["list"]).await?;
    let mut connection = Connection::open(target).await?;
    let leases = "/apis/coordination.k8s.io/v1/namespaces";
    for (namespace, name) in LEASES {
        let (path, object) = (format!("{leases}/{namespace}/leases"), json!({"metadata": {"name": name}}));
        let body = object.to_string();
        let content = Content { body: &body, ..Content::default() };
        let (status, _) = connection.count(Method::POST, &path, content).await?;
        ensure!(status.is_success() || status == StatusCode::CONFLICT, "{path}: {status}");
    }
    Ok(())
}

/// Renews both leases on a thread of their own, which does not wait for the flood's tasks.
async fn renewals(target: Target, seconds: u64) -> Result<Figure> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("renewals".into()).spawn(move || {
        let run = || -> Result<Requests> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let node = renew(&target, NODE, LEASES[0], seconds);
                let manager = renew(&target, MANAGER, LEASES[1], seconds);
                let (mut all, manager) = tokio::try_join!(node, manager)?;
                all.absorb(manager);
                Ok(all)
            })
        };
        // Whoever waited has gone.
        let _ = done.send(run());
    })?;
    Ok(Figure::Requests(outcome.await.context("the thread ended")??))
}

async fn renew(
    target: &Target,
    identity: Identity,
    (namespace, name): (&str, &str),
    seconds: u64,
) -> Result<Requests> {
    let mut connection = Connection::open(target).await?;
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}");
    // As they do themselves: what was answered is changed and sent back.
    let as_oneself = Content { identity: Some(identity), ..Content::default() };
    let mut lease: Value = serde_json::from_str(&connection.text(Method::GET, &path, as_oneself).await?)?;
    let mut pace = tokio::time::interval(Duration::from_secs(1) / PACE);
    let mut outcome = Requests { paced: true, ..Requests::default() };
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        pace.tick().await;
        lease["spec"] = json!({"holderIdentity": name, "renewTime": now()});
        let body = lease.to_string();
        let content = Content { body: &body, ..as_oneself };
        let sent = Instant::now();
        match connection.text(Method::PUT, &path, content).await {
            Ok(answer) => {
                outcome.latencies.push(sent.elapsed());
                outcome.bytes += answer.len();
                lease = serde_json::from_str(&answer)?;
            }
            Err(_) => outcome.errors += 1,
        }
    }
    outcome.elapsed = began.elapsed();
    Ok(outcome)
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Lists without a pause until it is told to stop; returns how many lists were answered and how many refused.
async fn flood(
    mut connection: Connection,
    target: Target,
    stopped: watch::Receiver<bool>,
) -> Result<(usize, usize)> {
    let path = format!("{}/pods?limit=500", target.namespace);
    let (mut served, mut refused) = (0, 0);
    while !*stopped.borrow() {
        let content = Content { identity: Some(FLOODER), ..Content::default() };
        match connection.count(Method::GET, &path, content).await {
            Ok((status, _)) if status.is_success() => served += 1,
            Ok(_) => refused += 1,
            // A server may close the connection of one that it refuses.
            Err(_) => {
                refused += 1;
                connection = Connection::open(&target).await?;
            }
        }
    }
    Ok((served, refused))
}
