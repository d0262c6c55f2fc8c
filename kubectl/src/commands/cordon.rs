//! `kubectl cordon` and `kubectl uncordon`

use serde_json::{Value, json};

use super::connect;
use crate::failure::Result;
use crate::server::Connection;

/// Flags of both.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names of the nodes.
    #[arg(required = true)]
    nodes: Vec<String>,
}

/// Runs them.
pub async fn run(connection: &Connection, args: Args, cordon: bool) -> Result {
    let (server, resources) = connect(connection).await?;
    for node in &args.nodes {
        let path = resources.find("nodes")?.path(None, Some(node));
        let now = server.get(&path).await?;
        let verb = if cordon { "cordoned" } else { "uncordoned" };
        if (now["spec"]["unschedulable"] == true) == cordon {
            println!("node/{node} already {verb}");
            continue;
        }
        let patch = json!({"spec": {"unschedulable": if cordon { json!(true) } else { Value::Null }}});
        server.patch(&path, "application/strategic-merge-patch+json", &patch).await?;
        println!("node/{node} {verb}");
    }
    Ok(())
}
