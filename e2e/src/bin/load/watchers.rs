//! Many clients that watch the same objects.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::future::try_join_all;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::Settings;
use crate::connection::{Connection, Content};
use crate::figures::{Figure, Requests};
use crate::target::Target;

/// How long a watcher waits for an event before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Patches one object at a steady pace; each watcher says when it saw which change. The latency is from the moment
/// before the patch was sent.
pub async fn fan_out(target: Target, settings: Settings) -> Result<Figure> {
    let (mut writer, namespace) = (Connection::open(&target).await?, target.namespace.clone());
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "watched"}}).to_string();
    let content = Content { body: &body, ..Content::default() };
    writer.count(Method::POST, &format!("{namespace}/configmaps"), content).await?;
    let path = format!("{namespace}/configmaps?fieldSelector=metadata.name%3Dwatched");
    let list: Value = serde_json::from_str(&writer.text(Method::GET, &path, Content::default()).await?)?;
    let revision = list["metadata"]["resourceVersion"].as_str().context("a list without a revision")?;
    let path = format!("{path}&watch=true&resourceVersion={revision}");

    let rounds = u64::from(settings.events) * settings.seconds;
    let began = Instant::now();
    let opened = (0..settings.watchers).map(|_| open(target.clone(), path.clone()));
    let watchers: Vec<_> = try_join_all(opened).await?;
    let tasks: Vec<_> =
        watchers.into_iter().map(|watcher| tokio::spawn(watch(watcher, rounds, began))).collect();

    let sent = patch_steadily(&mut writer, &namespace, &settings, rounds, began).await?;
    let sent: Arc<[Duration]> = sent.into();
    let mut sum = Requests { paced: true, ..Requests::default() };
    for seen in try_join_all(tasks).await? {
        sum.errors += sent.len() - seen.len().min(sent.len());
        sum.latencies.extend(seen.iter().filter_map(|(round, at)| at.checked_sub(*sent.get(*round)?)));
    }
    let first = sent.first().copied().unwrap_or_default();
    sum.elapsed = sent.last().copied().unwrap_or_default() - first;
    Ok(Figure::Requests(sum))
}

/// When each change was sent, counted from `began`.
async fn patch_steadily(
    writer: &mut Connection,
    namespace: &str,
    settings: &Settings,
    rounds: u64,
    began: Instant,
) -> Result<Vec<Duration>> {
    let mut pace = tokio::time::interval(Duration::from_secs(1) / settings.events.max(1));
    let mut sent = vec![];
    for round in 0..rounds {
        pace.tick().await;
        let body = json!({"data": {"round": round.to_string()}}).to_string();
        let content =
            Content { content_type: "application/merge-patch+json", body: &body, ..Content::default() };
        sent.push(began.elapsed());
        writer.text(Method::PATCH, &format!("{namespace}/configmaps/watched"), content).await?;
    }
    Ok(sent)
}

/// A connection, and the events that come over it.
async fn open(target: Target, path: String) -> Result<(Connection, Incoming)> {
    let mut connection = Connection::open(&target).await?;
    let response = connection.begin(Method::GET, &path, Content::default()).await?;
    anyhow::ensure!(response.status().is_success(), "watch: {}", response.status());
    Ok((connection, response.into_body()))
}

/// Which change was seen when, until all have been.
async fn watch(
    (_connection, mut events): (Connection, Incoming),
    rounds: u64,
    began: Instant,
) -> Vec<(usize, Duration)> {
    let mut seen = vec![];
    let mut line = Vec::new();
    while seen.len() < rounds as usize {
        let Ok(Some(Ok(frame))) = timeout(PATIENCE, events.frame()).await else { break };
        let at = began.elapsed();
        let data = frame.into_data().unwrap_or_else(|_| Bytes::new());
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                seen.extend(round_of(&line).map(|round| (round, at)));
                line.clear();
            }
        }
    }
    seen
}

/// The number in an event's data, found without decoding the event.
fn round_of(line: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(line).ok()?;
    let rest = &text[text.find("\"round\":\"")? + 9..];
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}
