//! `kubectl set image` and `kubectl set env`

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Found, Selection, connect, find};
use crate::failure::{Failure, Result};
use crate::server::{Connection, Server};

/// Subcommands of `set`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Update the image of a pod template.
    Image {
        /// Type and name, and container=image.
        words: Vec<String>,
    },
    /// Update environment variables on a pod template.
    Env {
        /// Type and name, and NAME=value or NAME- to remove.
        words: Vec<String>,
        /// Only this container.
        #[arg(long, short = 'c', default_value = "*")]
        containers: String,
    },
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (words, is_image) = match &args.what {
        What::Image { words } => (words, true),
        What::Env { words, .. } => (words, false),
    };
    let is_change = |word: &&String| word.contains('=') || (!is_image && word.ends_with('-'));
    let changes: Vec<_> = words.iter().filter(is_change).cloned().collect();
    let names: Vec<_> = words.iter().filter(|w| !is_change(w)).cloned().collect();
    if changes.is_empty() {
        return Err(Failure::local("at least one change is required, such as container=image or NAME=value"));
    }
    let (server, resources) = connect(connection).await?;
    for found in find(&server, &resources, &Selection { words: &names, ..Selection::default() }).await? {
        match &args.what {
            What::Image { .. } => image(&server, &found, &changes).await?,
            What::Env { containers, .. } => env(&server, &found, &changes, containers).await?,
        }
    }
    Ok(())
}

/// Where the pod spec is: in the template, or the object is a pod.
fn spec_pointer(object: &Value) -> &'static str {
    if object.pointer("/spec/template/spec").is_some() { "/spec/template/spec" } else { "/spec" }
}

fn container_names(object: &Value) -> Vec<String> {
    let containers =
        object.pointer(&format!("{}/containers", spec_pointer(object))).and_then(Value::as_array);
    containers.into_iter().flatten().filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
}

async fn send(server: &Server, found: &Found<'_>, containers: Vec<Value>, verb: &str) -> Result {
    let spec = json!({"containers": containers});
    let patch = if spec_pointer(&found.object) == "/spec" {
        json!({"spec": spec})
    } else {
        json!({"spec": {"template": {"spec": spec}}})
    };
    server.patch(&found.path, "application/strategic-merge-patch+json", &patch).await?;
    println!("{} {verb}", found.name());
    Ok(())
}

async fn image(server: &Server, found: &Found<'_>, changes: &[String]) -> Result {
    let names = container_names(&found.object);
    let mut containers = vec![];
    for (name, image) in changes.iter().filter_map(|c| c.split_once('=')) {
        if name != "*" && !names.iter().any(|n| n == name) {
            return Err(Failure::local(format!("unable to find container named \"{name}\"")));
        }
        let of = names.iter().filter(|n| name == "*" || *n == name);
        containers.extend(of.map(|n| json!({"name": n, "image": image})));
    }
    send(server, found, containers, "image updated").await
}

async fn env(server: &Server, found: &Found<'_>, changes: &[String], only: &str) -> Result {
    let variables: Vec<_> = changes
        .iter()
        .map(|change| match change.split_once('=') {
            Some((name, value)) => json!({"name": name, "value": value}),
            None => json!({"name": change.trim_end_matches('-'), "$patch": "delete"}),
        })
        .collect();
    let names = container_names(&found.object).into_iter().filter(|n| only == "*" || n == only);
    let containers = names.map(|n| json!({"name": n, "env": variables})).collect();
    send(server, found, containers, "env updated").await
}
