//! `kubectl wait`

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Found, Selection, connect, find};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::jsonpath::{Template, show};
use crate::server::{Connection, Server};

const POLL: Duration = Duration::from_millis(200);

/// Flags of `wait`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Type and names.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// The condition to wait on: delete, create, condition=NAME[=VALUE], jsonpath=PATH[=VALUE].
    #[arg(long = "for")]
    condition: String,
    /// The length of time to wait before giving up; zero means check once, negative means a week.
    #[arg(long, default_value = "30s")]
    timeout: String,
    /// Selector (label query) to filter on.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Select all resources in the namespace of the specified resource types.
    #[arg(long)]
    all: bool,
    /// In all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let patience = if args.timeout.starts_with('-') {
        Duration::from_secs(7 * 86_400)
    } else {
        client::leader::parse_duration(&args.timeout).map_err(Failure::Local)?
    };
    let (server, resources) = connect(connection).await?;
    let selection = Selection {
        words: &args.words,
        files: Some(&args.files),
        selector: args.selector.as_deref(),
        all: args.all,
        all_namespaces: args.all_namespaces,
        ..Selection::default()
    };
    let began = Instant::now();
    let objects = loop {
        match find(&server, &resources, &selection).await {
            Ok(objects) => break objects,
            Err(failure) if failure.is_not_found() && args.condition == "delete" => return Ok(()),
            Err(failure)
                if failure.is_not_found() && args.condition == "create" && began.elapsed() < patience =>
            {
                tokio::time::sleep(POLL).await;
            }
            Err(failure) => return Err(failure),
        }
    };
    if objects.is_empty() && args.condition != "delete" {
        return Err(Failure::local("no matching resources found"));
    }
    for found in objects {
        one(&server, &found, &args.condition, began, patience).await?;
    }
    Ok(())
}

async fn one(
    server: &Server,
    found: &Found<'_>,
    condition: &str,
    began: Instant,
    patience: Duration,
) -> Result {
    loop {
        let object = match server.get(&found.path).await {
            Ok(object) => Some(object),
            Err(failure) if failure.is_not_found() && condition == "delete" => None,
            Err(failure) => return Err(failure),
        };
        let met = match &object {
            None => true,
            Some(object) if condition == "delete" => {
                object["metadata"]["uid"] != found.object["metadata"]["uid"]
            }
            Some(object) => is_met(object, condition)?,
        };
        if met {
            let verb = if condition == "delete" { "deleted" } else { "condition met" };
            println!("{} {verb}", found.name());
            return Ok(());
        }
        if began.elapsed() >= patience {
            return Err(Failure::local(format!("timed out waiting for the condition on {}", found.name())));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_met(object: &Value, condition: &str) -> Result<bool> {
    let (kind, rest) = condition.split_once('=').unwrap_or((condition, ""));
    match kind {
        "create" => Ok(true),
        "condition" => {
            let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            Ok(conditions.into_iter().flatten().any(|c| {
                let text = |field: &str| c[field].as_str().unwrap_or_default();
                text("type").eq_ignore_ascii_case(name) && text("status").eq_ignore_ascii_case(value)
            }))
        }
        "jsonpath" => {
            let rest = rest.trim_matches('\'');
            let (path, value) = match rest.find("}=") {
                Some(at) => (&rest[..=at], Some(&rest[at + 2..])),
                None => (rest, None),
            };
            let found = Template::parse(path)?.find(object)?;
            Ok(match value {
                Some(value) => found.iter().any(|v| show(v) == value),
                None => !found.is_empty(),
            })
        }
        other => Err(Failure::local(format!("unrecognized condition: {other:?}"))),
    }
}
