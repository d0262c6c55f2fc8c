//! `kubectl config`

use std::path::PathBuf;

use clap::Subcommand;
use kube::config::Kubeconfig;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};
use crate::print::table::Table;
use crate::print::{Output, pretty_json, yaml};
use crate::server::{Connection, read_kubeconfig};

/// Subcommands of `config`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Display merged kubeconfig settings or a specified kubeconfig file.
    View {
        /// Display raw byte data and sensitive data.
        #[arg(long)]
        raw: bool,
        /// Remove all information not used by current-context from the output.
        #[arg(long)]
        minify: bool,
        /// Output format: yaml, json, jsonpath=...
        #[arg(long, short = 'o')]
        output: Option<String>,
    },
    /// Display the current-context.
    CurrentContext,
    /// Describe one or many contexts.
    GetContexts {
        /// Only this one.
        name: Option<String>,
        /// When using the default output, don't print headers.
        #[arg(long)]
        no_headers: bool,
        /// Output format: name.
        #[arg(long, short = 'o')]
        output: Option<String>,
    },
    /// Display clusters defined in the kubeconfig.
    GetClusters,
    /// Display users defined in the kubeconfig.
    GetUsers,
    /// Set the current-context in a kubeconfig file.
    #[command(alias = "use")]
    UseContext {
        /// Its name.
        name: String,
    },
    /// Set a context entry in kubeconfig.
    SetContext {
        /// Its name.
        name: Option<String>,
        /// Modify the current context.
        #[arg(long)]
        current: bool,
    },
    /// Delete the specified context from the kubeconfig.
    DeleteContext {
        /// Its name.
        name: String,
    },
}

/// Runs it.
pub fn run(connection: &Connection, args: Args) -> Result {
    let config = read_kubeconfig(connection.kubeconfig.as_ref())?;
    match args.action {
        Action::View { raw, minify, output } => view(&config, raw, minify, output.as_deref()),
        Action::CurrentContext => match &config.current_context {
            Some(name) if !name.is_empty() => {
                println!("{name}");
                Ok(())
            }
            _ => Err(Failure::local("current-context is not set")),
        },
        Action::GetContexts { name, no_headers, output } => {
            contexts(&config, name.as_deref(), no_headers, output.as_deref())
        }
        Action::GetClusters => list("Name", config.clusters.iter().map(|c| c.name.clone())),
        Action::GetUsers => list("Name", config.auth_infos.iter().map(|u| u.name.clone())),
        Action::UseContext { name } => {
            if !config.contexts.iter().any(|c| c.name == name) {
                return Err(Failure::local(format!("no context exists with the name: \"{name}\"")));
            }
            edit(connection, |file| file["current-context"] = name.clone().into())?;
            println!("Switched to context \"{name}\".");
            Ok(())
        }
        Action::SetContext { name, current } => set_context(connection, &config, name, current),
        Action::DeleteContext { name } => {
            if !config.contexts.iter().any(|c| c.name == name) {
                return Err(Failure::local(format!("cannot delete context {name}, not in the kubeconfig")));
            }
            edit(connection, |file| {
                if let Some(contexts) = file["contexts"].as_array_mut() {
                    contexts.retain(|c| c["name"] != name.as_str());
                }
            })?;
            println!("deleted context {name}");
            Ok(())
        }
    }
}

fn list(header: &str, names: impl Iterator<Item = String>) -> Result {
    let table = Table { headers: vec![header.into()], rows: names.map(|n| vec![n]).collect() };
    print!("{}", table.render(false, &mut vec![]));
    Ok(())
}

fn contexts(config: &Kubeconfig, only: Option<&str>, no_headers: bool, output: Option<&str>) -> Result {
    let chosen: Vec<_> = config.contexts.iter().filter(|c| only.is_none_or(|o| o == c.name)).collect();
    if let (Some(only), true) = (only, chosen.is_empty()) {
        return Err(Failure::local(format!("context {only} not found")));
    }
    if output == Some("name") {
        chosen.iter().for_each(|c| println!("{}", c.name));
        return Ok(());
    }
    let headers = ["Current", "Name", "Cluster", "AuthInfo", "Namespace"].map(Into::into).into();
    let rows = chosen.iter().map(|named| {
        let context = named.context.clone();
        let mark = if config.current_context.as_deref() == Some(&named.name) { "*" } else { "" };
        let (cluster, user, namespace) =
            context.map_or_else(Default::default, |c| (c.cluster, c.user, c.namespace));
        vec![
            mark.to_owned(),
            named.name.clone(),
            cluster,
            user.unwrap_or_default(),
            namespace.unwrap_or_default(),
        ]
    });
    print!("{}", Table { headers, rows: rows.collect() }.render(no_headers, &mut vec![]));
    Ok(())
}

fn view(config: &Kubeconfig, raw: bool, minify: bool, output: Option<&str>) -> Result {
    let mut value = serde_json::to_value(config)?;
    value["apiVersion"] = "v1".into();
    value["kind"] = "Config".into();
    if minify {
        let current = config.current_context.clone().unwrap_or_default();
        let context = config.contexts.iter().find(|c| c.name == current).and_then(|c| c.context.clone());
        let (cluster, user) =
            context.map_or_else(Default::default, |c| (c.cluster, c.user.unwrap_or_default()));
        for (field, name) in [("contexts", current), ("clusters", cluster), ("users", user)] {
            if let Some(entries) = value[field].as_array_mut() {
                entries.retain(|e| e["name"] == name.as_str());
            }
        }
    }
    if !raw {
        redact(&mut value);
    }
    match output {
        None | Some("yaml") => print!("{}", yaml::render(&value)),
        Some("json") => println!("{}", pretty_json(&value)?),
        other => Output::parse(other, false)?.print(&value, "")?,
    }
    Ok(())
}

/// Secrets are not shown unless asked for.
fn redact(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            for (key, inner) in map.iter_mut() {
                match key.as_str() {
                    "certificate-authority-data" | "client-certificate-data" | "client-key-data" => {
                        *inner = "DATA+OMITTED".into()
                    }
                    "token" | "password" => *inner = "REDACTED".into(),
                    _ => redact(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        _ => {}
    }
}

fn set_context(connection: &Connection, config: &Kubeconfig, name: Option<String>, current: bool) -> Result {
    let name = match (name, current) {
        (Some(name), false) => name,
        (None, true) => {
            config.current_context.clone().ok_or_else(|| Failure::local("no current context is set"))?
        }
        _ => return Err(Failure::local("you must specify a non-empty context name or --current")),
    };
    let existed = config.contexts.iter().any(|c| c.name == name);
    edit(connection, |file| {
        if !file["contexts"].is_array() {
            file["contexts"] = json!([]);
        }
        let Some(contexts) = file["contexts"].as_array_mut() else { return };
        if !contexts.iter().any(|c| c["name"] == name.as_str()) {
            contexts.push(json!({"name": name, "context": {"cluster": "", "user": ""}}));
        }
        let Some(entry) = contexts.iter_mut().find(|c| c["name"] == name.as_str()) else { return };
        for (field, value) in [
            ("namespace", &connection.namespace),
            ("cluster", &connection.cluster),
            ("user", &connection.user),
        ] {
            if let Some(value) = value {
                entry["context"][field] = value.clone().into();
            }
        }
    })?;
    println!("Context \"{name}\" {}.", if existed { "modified" } else { "created" });
    Ok(())
}

/// Changes the file that is in force: the flag's, the first of KUBECONFIG, or the usual one.
fn edit(connection: &Connection, change: impl FnOnce(&mut Value)) -> Result {
    let from_env = || std::env::var("KUBECONFIG").ok()?.split(':').find(|p| !p.is_empty()).map(PathBuf::from);
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config"));
    let path = connection.kubeconfig.clone().or_else(from_env).or_else(usual);
    let path = path.ok_or_else(|| Failure::local("there is no kubeconfig file to change"))?;
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned());
    let mut file: Value =
        serde_saphyr::from_str(&text).map_err(|e| Failure::local(format!("{}: {e}", path.display())))?;
    change(&mut file);
    Ok(std::fs::write(&path, yaml::render(&file))?)
}
