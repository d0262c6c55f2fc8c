//! `kubectl scale`

use serde_json::json;

use super::{Selection, connect, find, number, report};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::Output;
use crate::server::Connection;

/// Flags of `scale`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Type and names.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// The new desired number of replicas.
    #[arg(long)]
    replicas: i64,
    /// Precondition for current size.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    current_replicas: i64,
    /// Selector (label query) to filter on.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Select all resources in the namespace of the specified resource types.
    #[arg(long)]
    all: bool,
    /// Output format.
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// The length of time to wait before giving up on a scale operation; accepted for compatibility.
    #[arg(long)]
    timeout: Option<String>,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (server, resources) = connect(connection).await?;
    let output = Output::parse(args.output.as_deref(), false)?;
    let selection = Selection {
        words: &args.words,
        files: Some(&args.files),
        selector: args.selector.as_deref(),
        all: args.all,
        ..Selection::default()
    };
    for found in find(&server, &resources, &selection).await? {
        let now = number(&found.object, "/spec/replicas");
        if args.current_replicas >= 0 && now != args.current_replicas {
            return Err(Failure::local(format!(
                "Expected replicas to be {}, was {now}",
                args.current_replicas
            )));
        }
        let patch = json!({"spec": {"replicas": args.replicas}});
        let scaled =
            server.patch(&format!("{}/scale", found.path), "application/merge-patch+json", &patch).await?;
        report(&output, &found.name(), "scaled", &scaled)?;
    }
    Ok(())
}
