//! `kubectl delete`: deletes, and waits until what was deleted is gone.

use std::time::Duration;

use serde_json::{Value, json};

use super::{DryRun, Found, Selection, connect, find, text};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::server::{Connection, Server};

const POLL: Duration = Duration::from_millis(200);

/// Flags of `delete`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Types and names.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Selector (label query) to filter on.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Selector (field query) to filter on.
    #[arg(long)]
    field_selector: Option<String>,
    /// Delete all resources, in the namespace of the specified resource types.
    #[arg(long)]
    all: bool,
    /// In all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Period of time in seconds given to the resource to terminate gracefully.
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// If true, immediately remove resources from API and bypass graceful deletion.
    #[arg(long)]
    force: bool,
    /// If true, resources are signaled for immediate shutdown (same as --grace-period=1).
    #[arg(long)]
    now: bool,
    /// If true, wait for resources to be gone before returning.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// The length of time to wait before giving up on a delete, zero means determine a timeout from the size of the object.
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Treat "resource not found" as a successful delete.
    #[arg(long)]
    ignore_not_found: bool,
    /// Must be "background", "orphan", or "foreground".
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "background", default_value = "background")]
    cascade: String,
    /// Output mode: name.
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Only show, or let the server only try.
    #[arg(long, num_args = 0..=1, default_missing_value = "unchanged", value_parser = DryRun::parse, require_equals = true)]
    dry_run: Option<DryRun>,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (server, resources) = connect(connection).await?;
    let patience = client::leader::parse_duration(&args.timeout).map_err(Failure::Local)?;
    let (mut failures, mut found) = (vec![], vec![]);
    for selection in selections(&args) {
        match find(&server, &resources, &selection).await {
            Ok(objects) => found.extend(objects),
            Err(failure) if failure.is_not_found() && (args.ignore_not_found || args.all) => {}
            Err(failure) => failures.push(failure),
        }
    }
    if args.force && args.grace_period < 1 {
        eprintln!(
            "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The resource may continue to run on the cluster indefinitely."
        );
    }
    if found.is_empty() && failures.is_empty() && !args.ignore_not_found {
        println!("No resources found");
    }
    let mut deleted = vec![];
    for object in found {
        match delete(&server, &args, &object).await {
            Ok(()) => deleted.push(object),
            Err(failure) if failure.is_not_found() && args.ignore_not_found => {}
            Err(failure) => failures.push(failure),
        }
    }
    if args.wait && args.dry_run.unwrap_or_default() == DryRun::None {
        for object in deleted {
            if let Err(failure) = wait_until_gone(&server, &object, patience).await {
                failures.push(failure);
            }
        }
    }
    super::all_or_failure(failures)
}

/// One selection a name, so that one that is missing does not hide the others.
fn selections(args: &Args) -> Vec<Selection<'_>> {
    let whole = Selection {
        words: &args.words,
        files: Some(&args.files),
        selector: args.selector.as_deref(),
        fields: args.field_selector.as_deref(),
        all: args.all,
        all_namespaces: args.all_namespaces,
    };
    if args.files.filenames.is_empty() && args.words.first().is_some_and(|w| w.contains('/')) {
        return args
            .words
            .iter()
            .map(|w| Selection { words: std::slice::from_ref(w), ..whole.clone() })
            .collect();
    }
    vec![whole]
}

async fn delete(server: &Server, args: &Args, found: &Found<'_>) -> Result {
    let dry_run = args.dry_run.unwrap_or_default();
    let propagation = match args.cascade.as_str() {
        "true" | "background" => "Background",
        "foreground" => "Foreground",
        "false" | "orphan" => "Orphan",
        other => {
            return Err(Failure::local(format!(
                "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
            )));
        }
    };
    let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation});
    let grace = if args.force && args.grace_period < 0 {
        0
    } else if args.now {
        1
    } else {
        args.grace_period
    };
    if grace >= 0 {
        options["gracePeriodSeconds"] = grace.into();
    }
    if dry_run == DryRun::Server {
        options["dryRun"] = json!(["All"]);
    }
    if dry_run != DryRun::Client {
        server.delete(&found.path, &options).await?;
    }
    if args.output.as_deref() == Some("name") {
        println!("{}", found.name());
        return Ok(());
    }
    let forced = if grace == 0 { " force" } else { "" };
    let namespace = text(&found.object, "/metadata/namespace");
    let place = if namespace.is_empty() { String::new() } else { format!(" from {namespace} namespace") };
    let name = text(&found.object, "/metadata/name");
    println!("{} \"{name}\"{forced} deleted{place}{}", found.resource.prefix(), dry_run.suffix());
    Ok(())
}

/// Gone, or another object of the same name.
async fn wait_until_gone(server: &Server, found: &Found<'_>, patience: Duration) -> Result {
    let uid = text(&found.object, "/metadata/uid");
    let began = std::time::Instant::now();
    loop {
        match server.get(&found.path).await {
            Err(failure) if failure.is_not_found() => return Ok(()),
            Ok(object) if text(&object, "/metadata/uid") != uid => return Ok(()),
            Ok(Value::Null) => return Ok(()),
            Ok(_) => {}
            Err(failure) => return Err(failure),
        }
        if !patience.is_zero() && began.elapsed() > patience {
            return Err(Failure::local(format!("timed out waiting for the condition on {}", found.name())));
        }
        tokio::time::sleep(POLL).await;
    }
}
