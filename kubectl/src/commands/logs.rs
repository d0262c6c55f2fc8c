//! `kubectl logs`

use futures::StreamExt;
use serde_json::Value;
use tokio::task::JoinSet;

use super::{connect, items, selector_query, text, with_query};
use crate::failure::{Failure, Result};
use crate::resource::{Resources, encode, targets};
use crate::server::{Connection, Server};

/// Flags of `logs`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Pod, or type/name whose pod is meant, and container.
    words: Vec<String>,
    /// Print the logs of this container.
    #[arg(long, short = 'c')]
    container: Option<String>,
    /// Specify if the logs should be streamed.
    #[arg(long, short = 'f')]
    follow: bool,
    /// If true, print the logs for the previous instance of the container in a pod if it exists.
    #[arg(long, short = 'p')]
    previous: bool,
    /// Get all containers' logs in the pod(s).
    #[arg(long)]
    all_containers: bool,
    /// Lines of recent log file to display.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// Only return logs newer than a relative duration like 5s, 2m, or 3h.
    #[arg(long)]
    since: Option<String>,
    /// Only return logs after a specific date (RFC3339).
    #[arg(long)]
    since_time: Option<String>,
    /// Include timestamps on each line in the log output.
    #[arg(long)]
    timestamps: bool,
    /// Maximum bytes of logs to return.
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Prefix each log line with the log source (pod name and container name).
    #[arg(long)]
    prefix: bool,
    /// Selector (label query) to filter on.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Maximum number of concurrent logs to follow when using by a selector.
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    /// If watching / following pod logs, allow for any errors that occur to be non-fatal.
    #[arg(long)]
    ignore_errors: bool,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (server, resources) = connect(connection).await?;
    let pods = pods(&server, &resources, &args).await?;
    let container = args.container.as_deref().or_else(|| {
        args.words
            .get(1)
            .filter(|_| !args.words[0].contains('/') || args.words.len() == 2)
            .map(String::as_str)
    });
    let mut sources = vec![];
    for pod in &pods {
        let pod_name = text(pod, "/metadata/name").to_owned();
        for container in containers(pod, container, &args)? {
            sources.push((pod_name.clone(), container));
        }
    }
    if args.follow && sources.len() > args.max_log_requests {
        return Err(Failure::local(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            sources.len(),
            args.max_log_requests
        )));
    }
    let query = query(&args)?;
    if !args.follow {
        for (pod, container) in sources {
            copy(&server, &pod, &container, &query, args.prefix).await?;
        }
        return Ok(());
    }
    let mut set = JoinSet::new();
    for (pod, container) in sources {
        let (server, query, prefix) = (server.clone(), query.clone(), args.prefix);
        set.spawn(async move { copy(&server, &pod, &container, &query, prefix).await });
    }
    while let Some(ended) = set.join_next().await {
        let outcome = ended.map_err(|error| Failure::local(error.to_string()))?;
        if !args.ignore_errors {
            outcome?;
        }
    }
    Ok(())
}

/// The pods whose logs are meant.
async fn pods(server: &Server, resources: &Resources, args: &Args) -> Result<Vec<Value>> {
    let kind = resources.find("pods")?;
    if let Some(selector) = &args.selector {
        return list(server, resources, selector).await;
    }
    let Some(first) = args.words.first() else {
        return Err(Failure::local(
            "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
        ));
    };
    if !first.contains('/') {
        return Ok(vec![server.get(&kind.path(Some(&server.namespace), Some(first))).await?]);
    }
    let pod = pod_of(server, resources, first).await?;
    Ok(vec![pod])
}

/// The pod that `type/name` means: itself, or one that the object selects, a ready one if there is any.
pub async fn pod_of(server: &Server, resources: &Resources, word: &str) -> Result<Value> {
    let words = [if word.contains('/') { word.to_owned() } else { format!("pod/{word}") }];
    let (resource, name) =
        targets(resources, &words)?.into_iter().next().ok_or_else(|| Failure::local("no pod named"))?;
    let object = server.get(&resource.path(Some(&server.namespace), name.as_deref())).await?;
    if resource.plural == "pods" {
        return Ok(object);
    }
    let labels = object.pointer("/spec/selector/matchLabels").or_else(|| object.pointer("/spec/selector"));
    let labels = labels.and_then(Value::as_object).ok_or_else(|| {
        Failure::local(format!("cannot attach to {}: selector for it is not known", resource.qualified()))
    })?;
    let selector: Vec<_> =
        labels.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    let mut pods = list(server, resources, &selector.join(",")).await?;
    let ready = |pod: &Value| {
        let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    };
    pods.sort_by_key(|pod| !ready(pod));
    pods.into_iter().next().ok_or_else(|| Failure::local(format!("no pods found for {word}")))
}

async fn list(server: &Server, resources: &Resources, selector: &str) -> Result<Vec<Value>> {
    let path = resources.find("pods")?.path(Some(&server.namespace), None);
    Ok(items(server.get(&with_query(&path, &[&selector_query("labelSelector", Some(selector))])).await?))
}

/// The names of a pod's containers, init containers first.
fn all_containers(pod: &Value) -> Vec<String> {
    let of = |field: &str| pod["spec"][field].as_array().cloned().unwrap_or_default();
    let all = of("initContainers").into_iter().chain(of("containers")).chain(of("ephemeralContainers"));
    all.map(|c| text(&c, "/name").to_owned()).collect()
}

fn containers(pod: &Value, wanted: Option<&str>, args: &Args) -> Result<Vec<String>> {
    if args.all_containers {
        return Ok(all_containers(pod));
    }
    if let Some(wanted) = wanted {
        if !all_containers(pod).iter().any(|c| c == wanted) {
            let name = text(pod, "/metadata/name");
            return Err(Failure::local(format!("container {wanted} is not valid for pod {name}")));
        }
        return Ok(vec![wanted.to_owned()]);
    }
    Ok(vec![default_container(pod)])
}

/// The container that is meant when none is named: the annotated one, else the first. Says so if there are others.
pub fn default_container(pod: &Value) -> String {
    let annotated = text(pod, "/metadata/annotations/kubectl.kubernetes.io~1default-container");
    if !annotated.is_empty() {
        return annotated.to_owned();
    }
    let first = text(pod, "/spec/containers/0/name").to_owned();
    let all = all_containers(pod);
    if all.len() > 1 {
        eprintln!("Defaulted container \"{first}\" out of: {}", all.join(", "));
    }
    first
}

fn query(args: &Args) -> Result<Vec<String>> {
    let mut query = vec![];
    for (name, on) in [("follow", args.follow), ("previous", args.previous), ("timestamps", args.timestamps)]
    {
        if on {
            query.push(format!("{name}=true"));
        }
    }
    let tail = if args.tail < 0 && args.selector.is_some() { 10 } else { args.tail };
    if tail >= 0 {
        query.push(format!("tailLines={tail}"));
    }
    if let Some(since) = &args.since {
        let seconds = client::leader::parse_duration(since).map_err(Failure::Local)?.as_secs().max(1);
        query.push(format!("sinceSeconds={seconds}"));
    }
    query.extend(args.since_time.iter().map(|time| format!("sinceTime={}", encode(time))));
    query.extend(args.limit_bytes.iter().map(|bytes| format!("limitBytes={bytes}")));
    Ok(query)
}

async fn copy(server: &Server, pod: &str, container: &str, query: &[String], prefix: bool) -> Result {
    use std::io::Write;
    let path = format!("/api/v1/namespaces/{}/pods/{}/log", encode(&server.namespace), encode(pod));
    let container_query = format!("container={}", encode(container));
    let mut parameters: Vec<_> = query.iter().map(String::as_str).collect();
    parameters.push(&container_query);
    let lines = server.lines(&with_query(&path, &parameters), "*/*").await?;
    futures::pin_mut!(lines);
    while let Some(line) = lines.next().await {
        let line = line?;
        let mut out = std::io::stdout().lock();
        if prefix {
            write!(out, "[pod/{pod}/{container}] ")?;
        }
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    Ok(())
}
