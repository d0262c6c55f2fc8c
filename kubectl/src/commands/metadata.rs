//! `kubectl label` and `kubectl annotate`

use serde_json::{Map, Value, json};

use super::{Found, Selection, connect, find, report};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::Output;
use crate::server::{Connection, Server};

/// Flags that both have.
#[derive(Debug, clap::Args)]
struct Common {
    /// Type, names, and changes: key=value, or key- to remove.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Selector (label query) to filter on.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Select all resources, in the namespace of the specified resource types.
    #[arg(long)]
    all: bool,
    /// In all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// If true, allow to overwrite.
    #[arg(long)]
    overwrite: bool,
    /// Output format.
    #[arg(long, short = 'o')]
    output: Option<String>,
}

/// Flags of `label`.
#[derive(Debug, clap::Args)]
pub struct LabelArgs {
    #[command(flatten)]
    common: Common,
}

/// Flags of `annotate`.
#[derive(Debug, clap::Args)]
pub struct AnnotateArgs {
    #[command(flatten)]
    common: Common,
}

/// Runs `label`.
pub async fn label(connection: &Connection, args: LabelArgs) -> Result {
    change(connection, args.common, "labels", "labeled").await
}

/// Runs `annotate`.
pub async fn annotate(connection: &Connection, args: AnnotateArgs) -> Result {
    change(connection, args.common, "annotations", "annotated").await
}

async fn change(connection: &Connection, args: Common, field: &str, done: &str) -> Result {
    let is_change = |word: &&String| word.contains('=') || word.ends_with('-');
    let changes: Vec<_> = args.words.iter().filter(is_change).cloned().collect();
    let words: Vec<_> = args.words.iter().filter(|w| !is_change(w)).cloned().collect();
    if changes.is_empty() {
        return Err(Failure::local(format!(
            "at least one {} update is required",
            field.trim_end_matches('s')
        )));
    }
    let (server, resources) = connect(connection).await?;
    let output = Output::parse(args.output.as_deref(), false)?;
    let selection = Selection {
        words: &words,
        files: Some(&args.files),
        selector: args.selector.as_deref(),
        all: args.all,
        all_namespaces: args.all_namespaces,
        ..Selection::default()
    };
    for found in find(&server, &resources, &selection).await? {
        change_one(&server, &found, &changes, field, done, args.overwrite, &output).await?;
    }
    Ok(())
}

async fn change_one(
    server: &Server,
    found: &Found<'_>,
    changes: &[String],
    field: &str,
    done: &str,
    overwrite: bool,
    output: &Output,
) -> Result {
    let now = found.object["metadata"][field].as_object().cloned().unwrap_or_default();
    let patch = patch(&now, changes, overwrite)?;
    if patch.is_empty() {
        return report(output, &found.name(), "not labeled", &found.object);
    }
    let only_removed = patch.values().all(Value::is_null);
    let verb = if only_removed && field == "labels" { "unlabeled" } else { done };
    let body = json!({"metadata": {field: patch}});
    let changed = server.patch(&found.path, "application/merge-patch+json", &body).await?;
    report(output, &found.name(), verb, &changed)
}

/// What changes, and a refusal if it would overwrite without being told to.
fn patch(now: &Map<String, Value>, changes: &[String], overwrite: bool) -> Result<Map<String, Value>> {
    let mut patch = Map::new();
    for change in changes {
        if let Some((key, value)) = change.split_once('=') {
            match now.get(key).and_then(Value::as_str) {
                Some(old) if old == value => {}
                Some(old) if !overwrite => {
                    return Err(Failure::local(format!(
                        "'{key}' already has a value ({old}), and --overwrite is false"
                    )));
                }
                _ => drop(patch.insert(key.to_owned(), value.into())),
            }
        } else if let Some(key) = change.strip_suffix('-').filter(|key| now.contains_key(*key)) {
            patch.insert(key.to_owned(), Value::Null);
        }
    }
    Ok(patch)
}
