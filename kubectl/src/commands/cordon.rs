//! `kubectl cordon` and `kubectl uncordon`, and what they share with `kubectl drain`: which nodes are meant.

use serde_json::{Value, json};

use super::{DryRun, connect, items, selector_query, text, with_query};
use crate::failure::{Failure, Result};
use crate::server::{Connection, Server};

/// Which nodes are meant, and whether anything is done.
#[derive(Debug, Default, clap::Args)]
pub struct Nodes {
    /// Names of the nodes.
    nodes: Vec<String>,
    /// Selector (label query) to filter on.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Only show, or let the server only try.
    #[arg(long, num_args = 0..=1, default_missing_value = "unchanged", value_parser = DryRun::parse, require_equals = true)]
    dry_run: Option<DryRun>,
}

/// Flags of `cordon` and `uncordon`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    nodes: Nodes,
}

/// Runs them.
pub async fn run(connection: &Connection, args: Args, cordon: bool) -> Result {
    args.nodes.check(if cordon { "cordon" } else { "uncordon" })?;
    let (server, _) = connect(connection).await?;
    let nodes = args.nodes.find(&server).await?;
    let failures = mark(&server, &nodes, cordon, args.nodes.dry_run(), &|line| println!("{line}")).await;
    for failure in failures {
        eprintln!("{failure}");
    }
    Ok(())
}

impl Nodes {
    /// Whether anything is done.
    #[must_use]
    pub fn dry_run(&self) -> DryRun {
        self.dry_run.unwrap_or_default()
    }

    /// Refuses what does not say which nodes are meant, or says it twice.
    pub fn check(&self, command: &str) -> Result {
        let help = format!("See 'kubectl {command} -h' for help and examples");
        if self.nodes.is_empty() && self.selector.is_none() {
            return Err(Failure::local(format!("USAGE: {command} NODE [flags]\n{help}")));
        }
        if !self.nodes.is_empty() && self.selector.as_ref().is_some_and(|selector| !selector.is_empty()) {
            let text = format!("error: cannot specify both a node name and a --selector option\n{help}");
            return Err(Failure::Plain(text));
        }
        Ok(())
    }

    /// Reads them from the server.
    pub async fn find(&self, server: &Server) -> Result<Vec<Value>> {
        let mut found = vec![];
        for word in &self.nodes {
            let name = match word.split_once('/') {
                None => word,
                Some(("node" | "nodes" | "no", name)) => name,
                Some((other, _)) => {
                    return Err(Failure::local(format!(
                        "error: expected resource of type node, got {other:?}"
                    )));
                }
            };
            found.push(server.get(&path(name)).await?);
        }
        if self.nodes.is_empty() {
            let query = selector_query("labelSelector", self.selector.as_deref());
            found = items(server.get(&with_query("/api/v1/nodes", &[&query])).await?);
        }
        Ok(found)
    }
}

fn path(node: &str) -> String {
    format!("/api/v1/nodes/{}", crate::resource::encode(node))
}

/// Lets no new pods come to nodes, or lets them again; says what became of each. What failed does not keep others from
/// being marked.
pub async fn mark(
    server: &Server,
    nodes: &[Value],
    cordon: bool,
    dry_run: DryRun,
    say: &(dyn Fn(String) + Sync),
) -> Vec<Failure> {
    let verb = if cordon { "cordon" } else { "uncordon" };
    let mut failures = vec![];
    for node in nodes {
        let name = text(node, "/metadata/name");
        let suffix = dry_run.suffix();
        if (node["spec"]["unschedulable"] == true) == cordon {
            say(format!("node/{name} already {verb}ed{suffix}"));
            continue;
        }
        let patch = json!({"spec": {"unschedulable": if cordon { json!(true) } else { Value::Null }}});
        let path = with_query(&path(name), &[dry_run.query()]);
        if dry_run != DryRun::Client
            && let Err(failure) = server.patch(&path, "application/strategic-merge-patch+json", &patch).await
        {
            let why = failure.message();
            failures.push(Failure::Plain(format!("error: unable to {verb} node {name:?}: {why}")));
            continue;
        }
        say(format!("node/{name} {verb}ed{suffix}"));
    }
    failures
}
