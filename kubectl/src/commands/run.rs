//! `kubectl run`

use serde_json::json;

use super::create::container;
use super::{DryRun, report, with_query};
use crate::failure::Result;
use crate::print::Output;
use crate::resource::encode;
use crate::server::{Connection, Server};

/// Flags of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod.
    name: String,
    /// The image for the container to run.
    #[arg(long)]
    image: String,
    /// The image pull policy for the container.
    #[arg(long)]
    image_pull_policy: Option<String>,
    /// Environment variables to set in the container: NAME=value.
    #[arg(long)]
    env: Vec<String>,
    /// The port that this container exposes.
    #[arg(long)]
    port: Option<u16>,
    /// Comma separated labels to apply to the pod.
    #[arg(long, short = 'l')]
    labels: Option<String>,
    /// The restart policy for this pod: Always, OnFailure, Never.
    #[arg(long, default_value = "Always")]
    restart: String,
    /// Use the extra arguments as the 'command' field in the container, rather than the 'args' field.
    #[arg(long)]
    command: bool,
    /// Output format.
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Only show, or let the server only try.
    #[arg(long, num_args = 0..=1, default_missing_value = "unchanged", value_parser = DryRun::parse, require_equals = true)]
    dry_run: Option<DryRun>,
    /// Arguments of the container.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let mut made = container(&args.image, args.port, if args.command { &args.arguments } else { &[] });
    made["name"] = args.name.clone().into();
    if !args.command && !args.arguments.is_empty() {
        made["args"] = json!(args.arguments);
    }
    if let Some(policy) = &args.image_pull_policy {
        made["imagePullPolicy"] = policy.clone().into();
    }
    if !args.env.is_empty() {
        let env = args
            .env
            .iter()
            .filter_map(|e| e.split_once('='))
            .map(|(name, value)| json!({"name": name, "value": value}));
        made["env"] = env.collect();
    }
    let labels = args.labels.clone().unwrap_or_else(|| format!("run={}", args.name));
    let labels: serde_json::Map<_, _> =
        labels.split(',').filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.into())).collect();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": args.name, "labels": labels},
                     "spec": {"containers": [made], "restartPolicy": args.restart}});
    let output = Output::parse(args.output.as_deref(), false)?;
    let dry_run = args.dry_run.unwrap_or_default();
    let mut created = pod.clone();
    if dry_run != DryRun::Client {
        let server = Server::connect(connection).await?;
        let path = format!("/api/v1/namespaces/{}/pods", encode(&server.namespace));
        created =
            server.post(&with_query(&path, &["fieldManager=kubectl-run", dry_run.query()]), &pod).await?;
    }
    report(&output, &format!("pod/{}", args.name), &format!("created{}", dry_run.suffix()), &created)
}
