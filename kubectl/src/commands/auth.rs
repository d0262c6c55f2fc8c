//! `kubectl auth can-i` and `kubectl auth whoami`

use clap::Subcommand;
use serde_json::json;

use super::{connect, text};
use crate::failure::{Failure, Result};
use crate::server::Connection;

/// Subcommands of `auth`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check whether an action is allowed.
    CanI {
        /// Verb, then type, type/name or URL.
        words: Vec<String>,
        /// SubResource such as pod/log or deployment/scale.
        #[arg(long, default_value = "")]
        subresource: String,
        /// In all namespaces.
        #[arg(long, short = 'A')]
        all_namespaces: bool,
        /// If true, suppress output and just return the exit code.
        #[arg(long, short = 'q')]
        quiet: bool,
    },
    /// Check self subject attributes.
    Whoami,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (server, resources) = connect(connection).await?;
    match args.action {
        Action::CanI { words, subresource, all_namespaces, quiet } => {
            let [verb, target] = words.as_slice() else {
                return Err(Failure::local(
                    "you must specify two arguments: verb resource or verb resource/resourceName.",
                ));
            };
            let spec = if target.starts_with('/') {
                json!({"nonResourceAttributes": {"verb": verb, "path": target}})
            } else {
                let (kind, name) = target.split_once('/').unwrap_or((target, ""));
                let (group, plural) = match resources.find(kind) {
                    Ok(resource) => (resource.group.clone(), resource.plural.clone()),
                    Err(_) => {
                        eprintln!("Warning: the server doesn't have a resource type '{kind}'");
                        (String::new(), kind.to_owned())
                    }
                };
                let namespace = if all_namespaces { "" } else { server.namespace.as_str() };
                json!({"resourceAttributes": {"verb": verb, "group": group, "resource": plural, "name": name,
                                              "subresource": subresource, "namespace": namespace}})
            };
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": spec});
            let answer =
                server.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await?;
            let allowed = answer["status"]["allowed"] == true;
            if !quiet {
                println!("{}", if allowed { "yes" } else { "no" });
            }
            if allowed { Ok(()) } else { std::process::exit(1) }
        }
        Action::Whoami => {
            let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
            let answer = server.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review).await?;
            let groups = answer["status"]["userInfo"]["groups"].as_array().cloned().unwrap_or_default();
            let groups: Vec<_> = groups.iter().filter_map(|g| g.as_str()).collect();
            println!("ATTRIBUTE   VALUE");
            println!("Username    {}", text(&answer, "/status/userInfo/username"));
            println!("Groups      [{}]", groups.join(" "));
            Ok(())
        }
    }
}
