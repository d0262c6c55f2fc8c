//! `kubectl patch`

use serde_json::Value;

use super::{DryRun, Selection, connect, find, report, text, with_query};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::Output;
use crate::server::Connection;

/// Flags of `patch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Type and name.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// The patch to be applied to the resource, JSON or YAML.
    #[arg(long, short = 'p')]
    patch: Option<String>,
    /// A file containing a patch to be applied to the resource.
    #[arg(long)]
    patch_file: Option<std::path::PathBuf>,
    /// The type of patch being provided; one of json, merge, strategic.
    #[arg(long = "type", default_value = "strategic")]
    kind: String,
    /// The subresource of the requested resource.
    #[arg(long)]
    subresource: Option<String>,
    /// Output format.
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Only show, or let the server only try.
    #[arg(long, num_args = 0..=1, default_missing_value = "unchanged", value_parser = DryRun::parse, require_equals = true)]
    dry_run: Option<DryRun>,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let kind = match args.kind.as_str() {
        "json" => "application/json-patch+json",
        "merge" => "application/merge-patch+json",
        "strategic" => "application/strategic-merge-patch+json",
        other => {
            return Err(Failure::local(format!(
                "--type must be one of [json merge strategic], not \"{other}\""
            )));
        }
    };
    let patch = match (&args.patch, &args.patch_file) {
        (Some(patch), _) => patch.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)?,
        (None, None) => {
            return Err(Failure::local(
                "must specify --patch or --patch-file containing the contents of the patch",
            ));
        }
    };
    let patch: Value = serde_saphyr::from_str(&patch)
        .map_err(|e| Failure::local(format!("unable to parse \"{patch}\": {e}")))?;
    let (server, resources) = connect(connection).await?;
    let output = Output::parse(args.output.as_deref(), false)?;
    let dry_run = args.dry_run.unwrap_or_default();
    let selection = Selection { words: &args.words, files: Some(&args.files), ..Selection::default() };
    for found in find(&server, &resources, &selection).await? {
        let mut path = found.path.clone();
        if let Some(subresource) = &args.subresource {
            path.push_str(&format!("/{subresource}"));
        }
        let url = with_query(&path, &["fieldManager=kubectl-patch", dry_run.query()]);
        let patched = server.patch(&url, kind, &patch).await?;
        let version = |object: &Value| text(object, "/metadata/resourceVersion").to_owned();
        let change =
            if version(&patched) == version(&found.object) { "patched (no change)" } else { "patched" };
        report(&output, &found.name(), &format!("{change}{}", dry_run.suffix()), &patched)?;
    }
    Ok(())
}
