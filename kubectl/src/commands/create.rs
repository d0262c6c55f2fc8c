//! `kubectl create`: from files, and the common kinds from flags.

use std::collections::BTreeMap;

use base64::Engine;
use clap::Subcommand;
use serde_json::{Value, json};

use super::{DryRun, connect, object_namespace, report, text, with_query};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::Output;
use crate::server::Connection;

/// Flags of `create`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = false)]
pub struct Args {
    #[command(flatten)]
    files: Files,
    /// Output format.
    #[arg(long, short = 'o', global = true)]
    output: Option<String>,
    /// Only show, or let the server only try.
    #[arg(long, global = true, num_args = 0..=1, default_missing_value = "unchanged", value_parser = DryRun::parse, require_equals = true)]
    dry_run: Option<DryRun>,
    /// Save the configuration in the annotation that apply uses.
    #[arg(long, global = true)]
    save_config: bool,
    /// How unknown fields are treated: strict, warn, ignore.
    #[arg(long, global = true, num_args = 0..=1, default_missing_value = "strict", default_value = "strict", require_equals = true)]
    validate: String,
    #[command(subcommand)]
    kind: Option<Kind>,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// Create a namespace with the specified name.
    #[command(alias = "ns")]
    Namespace {
        /// Its name.
        name: String,
    },
    /// Create a config map from a file, directory or literal value.
    #[command(alias = "cm")]
    Configmap {
        /// Its name.
        name: String,
        #[command(flatten)]
        data: Data,
    },
    /// Create a secret using a specified subcommand.
    Secret {
        #[command(subcommand)]
        kind: SecretKind,
    },
    /// Create a service account with the specified name.
    #[command(alias = "sa")]
    Serviceaccount {
        /// Its name.
        name: String,
    },
    /// Create a deployment with the specified name.
    #[command(alias = "deploy")]
    Deployment {
        /// Its name.
        name: String,
        /// Image names to run; several make several containers.
        #[arg(long, required = true, value_delimiter = ',')]
        image: Vec<String>,
        /// Number of replicas to create.
        #[arg(long, short = 'r', default_value_t = 1)]
        replicas: i32,
        /// The port that this container exposes.
        #[arg(long)]
        port: Option<u16>,
        /// Command of the container.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Create a job with the specified name.
    Job {
        /// Its name.
        name: String,
        /// Image name to run.
        #[arg(long)]
        image: String,
        /// Command of the container.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Request a service account token.
    Token {
        /// Name of the service account.
        name: String,
        /// Audience of the requested token.
        #[arg(long)]
        audience: Vec<String>,
        /// Requested lifetime of the issued token.
        #[arg(long)]
        duration: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum SecretKind {
    /// Create a secret from a local file, directory, or literal value.
    Generic {
        /// Its name.
        name: String,
        /// The type of secret to create.
        #[arg(long = "type")]
        secret_type: Option<String>,
        #[command(flatten)]
        data: Data,
    },
}

/// Where values come from.
#[derive(Clone, Debug, Default, clap::Args)]
struct Data {
    /// A key and literal value to insert: key=value.
    #[arg(long)]
    from_literal: Vec<String>,
    /// A file, key=file or directory to take values from.
    #[arg(long)]
    from_file: Vec<String>,
    /// A file of lines key=value.
    #[arg(long)]
    from_env_file: Vec<String>,
}

impl Data {
    fn read(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut values = BTreeMap::new();
        for literal in &self.from_literal {
            let (key, value) =
                literal.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
                    Failure::local(format!("invalid literal source {literal}, expected key=value"))
                })?;
            values.insert(key.to_owned(), value.as_bytes().to_vec());
        }
        for source in &self.from_file {
            let (key, path) = source.split_once('=').map_or((None, source.as_str()), |(k, p)| (Some(k), p));
            let path = std::path::Path::new(path);
            let mut files = vec![path.to_owned()];
            if path.is_dir() {
                files = std::fs::read_dir(path)?
                    .filter_map(|e| e.ok().map(|e| e.path()))
                    .filter(|p| p.is_file())
                    .collect();
            }
            for file in files {
                let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let bytes = std::fs::read(&file)
                    .map_err(|e| Failure::local(format!("error reading {}: {e}", file.display())))?;
                values.insert(key.map_or(name, str::to_owned), bytes);
            }
        }
        for file in &self.from_env_file {
            for line in std::fs::read_to_string(file)?
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
            {
                let (key, value) = line.split_once('=').unwrap_or((line, ""));
                values.insert(key.to_owned(), value.as_bytes().to_vec());
            }
        }
        Ok(values)
    }
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    if let Some(Kind::Token { name, audience, duration }) = &args.kind {
        return token(connection, name, audience, duration.as_deref()).await;
    }
    let objects = match &args.kind {
        Some(kind) => vec![made(kind)?],
        None if args.files.filenames.is_empty() => {
            return Err(Failure::local("must specify one of -f and -k"));
        }
        None => args.files.read()?,
    };
    let output = Output::parse(args.output.as_deref(), false)?;
    let dry_run = args.dry_run.unwrap_or_default();
    let (server, resources) = connect(connection).await?;
    let mut failures = vec![];
    for object in objects {
        let outcome = async {
            let resource = resources.of(&object)?;
            let namespace = object_namespace(&server, resource, &object)?;
            let validation =
                if args.validate == "false" || args.validate == "ignore" { "Ignore" } else { "Strict" };
            let query =
                ["fieldManager=kubectl-create", &format!("fieldValidation={validation}"), dry_run.query()];
            let mut created = object.clone();
            if dry_run != DryRun::Client {
                created =
                    server.post(&with_query(&resource.path(Some(&namespace), None), &query), &object).await?;
            }
            let name = format!("{}/{}", resource.prefix(), text(&created, "/metadata/name"));
            report(&output, &name, &format!("created{}", dry_run.suffix()), &created)
        };
        if let Err(failure) = outcome.await {
            failures.push(failure);
        }
    }
    super::all_or_failure(failures)
}

fn made(kind: &Kind) -> Result<Value> {
    let encode = |bytes: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
    Ok(match kind {
        Kind::Namespace { name } => {
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        }
        Kind::Serviceaccount { name } => {
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
        }
        Kind::Configmap { name, data } => {
            let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
            for (key, bytes) in data.read()? {
                match String::from_utf8(bytes) {
                    Ok(text) => object["data"][key] = text.into(),
                    Err(error) => object["binaryData"][key] = encode(error.into_bytes().as_ref()).into(),
                }
            }
            object
        }
        Kind::Secret { kind: SecretKind::Generic { name, secret_type, data } } => {
            let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
            for (key, bytes) in data.read()? {
                object["data"][key] = encode(&bytes).into();
            }
            if let Some(secret_type) = secret_type {
                object["type"] = secret_type.clone().into();
            }
            object
        }
        Kind::Deployment { name, image, replicas, port, command } => {
            let containers = image.iter().map(|image| container(image, *port, command)).collect::<Vec<_>>();
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": name}},
                   "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}}})
        }
        Kind::Job { name, image, command } => {
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container(image, None, command)]}}}})
        }
        Kind::Token { .. } => return Err(Failure::local("a token is requested, not created")),
    })
}

/// A container named after its image.
#[must_use]
pub fn container(image: &str, port: Option<u16>, command: &[String]) -> Value {
    let name = image.rsplit('/').next().unwrap_or(image).split([':', '@']).next().unwrap_or(image);
    let mut container = json!({"name": name, "image": image});
    if let Some(port) = port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if !command.is_empty() {
        container["command"] = json!(command);
    }
    container
}

async fn token(connection: &Connection, name: &str, audience: &[String], duration: Option<&str>) -> Result {
    let (server, resources) = connect(connection).await?;
    let accounts = resources.find("serviceaccounts")?;
    let mut request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": audience}});
    if let Some(duration) = duration {
        let seconds = client::leader::parse_duration(duration).map_err(Failure::Local)?.as_secs();
        request["spec"]["expirationSeconds"] = seconds.into();
    }
    let answer = server
        .post(&format!("{}/token", accounts.path(Some(&server.namespace), Some(name))), &request)
        .await?;
    println!("{}", text(&answer, "/status/token"));
    Ok(())
}
