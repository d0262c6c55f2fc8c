//! `kubectl drain`: lets no new pods come to nodes, and has those that are there leave (upstream's `pkg/drain`).
//!
//! `filters` decides which pods are to leave (pure), `leave` evicts or deletes them and waits until they are gone.

mod filters;
mod leave;
#[cfg(test)]
mod tests;

use serde_json::Value;

use super::cordon::{Nodes, mark};
use super::{DryRun, connect, items, selector_query, text, with_query};
use crate::failure::{Failure, Result};
use crate::server::{Connection, Server};
use filters::{Found, Rules, Set};

/// Flags of `drain`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    #[command(flatten)]
    nodes: Nodes,
    /// Continue even if there are pods that do not declare a controller.
    #[arg(long)]
    force: bool,
    /// Ignore DaemonSet-managed pods.
    #[arg(long)]
    ignore_daemonsets: bool,
    /// Continue even if there are pods using emptyDir (local data that will be deleted when the node is drained).
    #[arg(long)]
    delete_emptydir_data: bool,
    /// Period of time in seconds given to each pod to terminate gracefully. If negative, the default value specified in
    /// the pod will be used.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// The length of time to wait before giving up, zero means infinite.
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Label selector to filter pods on the node.
    #[arg(long)]
    pod_selector: Option<String>,
    /// Force drain to use delete, even if eviction is supported. This will bypass checking PodDisruptionBudgets, use with
    /// caution.
    #[arg(long)]
    disable_eviction: bool,
    /// If pod DeletionTimestamp older than N seconds, skip waiting for the pod. Seconds must be greater than 0 to skip.
    #[arg(long, default_value_t = 0)]
    skip_wait_for_delete_timeout: i64,
    /// Return large lists in chunks rather than all at once. Pass 0 to disable.
    #[arg(long, default_value_t = 500)]
    chunk_size: u32,
}

impl Args {
    fn rules(&self, now: jiff::Timestamp) -> Rules {
        Rules {
            force: self.force,
            ignore_daemon_sets: self.ignore_daemonsets,
            delete_local_data: self.delete_emptydir_data,
            skip_deleted_for: self.skip_wait_for_delete_timeout,
            now,
        }
    }
}

/// A line of what the command says.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    /// Of its progress.
    Out(String),
    /// Of what goes wrong.
    Err(String),
}

/// Where lines go.
type Say<'a> = &'a (dyn Fn(Line) + Sync);

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    args.nodes.check("drain")?;
    let (server, _) = connect(connection).await?;
    drain(&server, &args, &|line| match line {
        Line::Out(text) => println!("{text}"),
        Line::Err(text) => eprintln!("{text}"),
    })
    .await
}

async fn drain(server: &Server, args: &Args, say: Say<'_>) -> Result {
    let nodes = args.nodes.find(server).await?;
    let dry_run = args.nodes.dry_run();
    for failure in mark(server, &nodes, true, dry_run, &|text| say(Line::Out(text))).await {
        say(Line::Err(failure.to_string()));
    }
    let (mut failed, mut left) = (vec![], vec![]);
    for node in &nodes {
        let name = text(node, "/metadata/name");
        match one(server, args, name, say).await {
            Ok(()) => say(Line::Out(format!("node/{name} drained{}", dry_run.suffix()))),
            Err(errors) => {
                let why = aggregate(&errors);
                say(Line::Err(format!(
                    "error: unable to drain node {name:?} due to error: {why}, continuing command..."
                )));
                failed.extend(errors);
                left.push(name);
            }
        }
    }
    if left.is_empty() {
        return Ok(());
    }
    say(Line::Err("There are pending nodes to be drained:".to_owned()));
    for name in left {
        say(Line::Err(format!(" {name}")));
    }
    Err(Failure::Plain(failed.join("\n")))
}

/// Several errors as one text.
fn aggregate(errors: &[String]) -> String {
    match errors {
        [only] => only.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// Has the pods of one node leave.
async fn one(server: &Server, args: &Args, node: &str, say: Say<'_>) -> std::result::Result<(), Vec<String>> {
    let found = pods(server, args, node).await?;
    let warnings = filters::warnings(&found);
    if !warnings.is_empty() {
        say(Line::Err(format!("Warning: {warnings}")));
    }
    let leaving = leaving(&found);
    if args.nodes.dry_run() == DryRun::Client {
        for pod in &leaving {
            let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
            say(Line::Out(format!("evicting pod {namespace}/{name} (dry run)")));
        }
        return Ok(());
    }
    let Err(errors) = leave::all(server, args, leaving, say).await else { return Ok(()) };
    tell_of_the_rest(server, args, node, &errors, say).await;
    Err(errors)
}

/// Says which pods are still there.
async fn tell_of_the_rest(server: &Server, args: &Args, node: &str, errors: &[String], say: Say<'_>) {
    match pods(server, args, node).await {
        Ok(found) => {
            let pending = leaving(&found);
            if !pending.is_empty() {
                let why = aggregate(errors);
                say(Line::Err(format!(
                    "There are pending pods in node {node:?} when an error occurred: {why}"
                )));
            }
            for pod in pending {
                say(Line::Err(format!("pod/{}", text(&pod, "/metadata/name"))));
            }
        }
        Err(errors) => say(Line::Err(format!(
            "Following errors occurred while getting the list of pods to delete:\n{}",
            aggregate(&errors)
        ))),
    }
}

fn leaving(found: &[Found]) -> Vec<Value> {
    found.iter().filter(|found| found.fate.leaves()).map(|found| found.pod.clone()).collect()
}

/// The pods of a node, and what is to become of each; or why that must not be.
async fn pods(server: &Server, args: &Args, node: &str) -> std::result::Result<Vec<Found>, Vec<String>> {
    let rules = args.rules(jiff::Timestamp::now());
    let mut found = vec![];
    for pod in list(server, args, node).await.map_err(|failure| vec![failure.message()])? {
        let set = match filters::daemon_set(&pod) {
            Some(name) => Some(daemon_set(server, text(&pod, "/metadata/namespace"), name).await),
            None => None,
        };
        let fate = filters::fate(&pod, &rules, set.as_ref());
        found.push(Found { pod, fate });
    }
    let errors = filters::errors(&found);
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// Whether the DaemonSet of a pod is there.
async fn daemon_set(server: &Server, namespace: &str, name: &str) -> Set {
    let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{}", crate::resource::encode(name));
    match server.get(&path).await {
        Ok(_) => Set::There,
        Err(failure) if failure.is_not_found() => Set::Missing(failure.message()),
        Err(failure) => Set::Unknown(failure.message()),
    }
}

async fn list(server: &Server, args: &Args, node: &str) -> Result<Vec<Value>> {
    let fields = selector_query("fieldSelector", Some(&format!("spec.nodeName={node}")));
    let labels = selector_query("labelSelector", args.pod_selector.as_deref());
    let limit = if args.chunk_size > 0 { format!("limit={}", args.chunk_size) } else { String::new() };
    let (mut found, mut next) = (vec![], String::new());
    loop {
        let page = server.get(&with_query("/api/v1/pods", &[&fields, &labels, &limit, &next])).await?;
        let token = text(&page, "/metadata/continue").to_owned();
        found.extend(items(page));
        if token.is_empty() {
            return Ok(found);
        }
        next = format!("continue={}", crate::resource::encode(&token));
    }
}
