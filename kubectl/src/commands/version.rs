//! `kubectl version`

use serde_json::{Value, json};

use crate::failure::Result;
use crate::print::{Output, pretty_json, yaml};
use crate::server::{Connection, Server};

/// The version of Kubernetes this client is of.
const VERSION: &str = "v1.36.2";

/// Flags of `version`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// If true, shows client version only (no server required).
    #[arg(long)]
    client: bool,
    /// One of 'yaml' or 'json'.
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Accepted for compatibility with older clients.
    #[arg(long)]
    short: bool,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let platform = format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
    let mut versions =
        json!({"clientVersion": {"major": "1", "minor": "36", "gitVersion": VERSION, "platform": platform}});
    let mut failure = None;
    if !args.client {
        let answer = match Server::connect(connection).await {
            Ok(server) => server.get("/version").await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(server) => versions["serverVersion"] = server,
            Err(error) => failure = Some(error),
        }
    }
    match args.output.as_deref() {
        None | Some("") => {
            println!("Client Version: {VERSION}");
            if let Some(server) = versions["serverVersion"]["gitVersion"].as_str() {
                println!("Server Version: {server}");
            }
        }
        Some("json") => println!("{}", pretty_json(&versions)?),
        Some("yaml") => print!("{}", yaml::render(&versions)),
        other => return Output::parse(other, false).and_then(|o| o.print(&Value::Null, "")),
    }
    failure.map_or(Ok(()), Err)
}
