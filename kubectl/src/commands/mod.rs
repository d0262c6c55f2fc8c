//! One module a command, and what several of them share.

pub mod apply;
pub mod auth;
pub mod config;
pub mod cordon;
pub mod create;
pub mod delete;
pub mod describe;
pub mod discovery;
pub mod drain;
pub mod exec;
pub mod expose;
pub mod get;
pub mod logs;
pub mod metadata;
pub mod patch;
pub mod port_forward;
pub mod replace;
pub mod rollout;
pub mod run;
pub mod scale;
pub mod set;
pub mod version;
pub mod wait;

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::Output;
use crate::resource::{Resource, Resources, encode, targets};
use crate::server::{Connection, Server};

/// `--dry-run`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DryRun {
    /// Do it.
    #[default]
    None,
    /// Only show what would be sent.
    Client,
    /// Let the server say what it would do.
    Server,
}

impl DryRun {
    /// Reads the flag; bare it means `client`.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        match text {
            "none" | "false" => Ok(Self::None),
            "client" | "true" | "" | "unchanged" => Ok(Self::Client),
            "server" => Ok(Self::Server),
            other => {
                Err(format!("invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."))
            }
        }
    }

    /// What a result line says of it.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Client => " (dry run)",
            Self::Server => " (server dry run)",
        }
    }

    /// What a path says of it.
    #[must_use]
    pub fn query(self) -> &'static str {
        if self == Self::Server { "dryRun=All" } else { "" }
    }
}

/// Joins a path and query parameters that are not empty.
#[must_use]
pub fn with_query(path: &str, parameters: &[&str]) -> String {
    let query: Vec<_> = parameters.iter().filter(|p| !p.is_empty()).copied().collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// A selector as a query parameter; nothing if there is none.
#[must_use]
pub fn selector_query(name: &str, selector: Option<&str>) -> String {
    selector.filter(|s| !s.is_empty()).map(|s| format!("{name}={}", encode(s))).unwrap_or_default()
}

/// A connection with all its types.
pub async fn connect(connection: &Connection) -> Result<(Server, Resources)> {
    let server = Server::connect(connection).await?;
    let resources = Resources::discover(&server).await?;
    Ok((server, resources))
}

/// An object with its type.
pub struct Found<'a> {
    /// Its type.
    pub resource: &'a Resource,
    /// Where it is served.
    pub path: String,
    /// The object.
    pub object: Value,
}

impl Found<'_> {
    /// As results name it: `deployment.apps/web`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.resource.prefix(), text(&self.object, "/metadata/name"))
    }
}

/// What words, files and selectors name.
#[derive(Clone, Debug, Default)]
pub struct Selection<'a> {
    /// `type name`, `type/name`.
    pub words: &'a [String],
    /// Files.
    pub files: Option<&'a Files>,
    /// Label selector.
    pub selector: Option<&'a str>,
    /// Field selector.
    pub fields: Option<&'a str>,
    /// All objects of the types.
    pub all: bool,
    /// In all namespaces.
    pub all_namespaces: bool,
}

/// Reads all objects that are named from the server; those of files by the names they have there.
pub async fn find<'a>(
    server: &Server,
    resources: &'a Resources,
    selection: &Selection<'_>,
) -> Result<Vec<Found<'a>>> {
    let mut found = vec![];
    if let Some(files) = selection.files.filter(|f| !f.filenames.is_empty()) {
        for object in files.read()? {
            let resource = resources.of(&object)?;
            let path = object_path(server, resource, &object)?;
            found.push(Found { resource, object: server.get(&path).await?, path });
        }
        return Ok(found);
    }
    for (resource, name) in targets(resources, selection.words)? {
        let namespace = (!selection.all_namespaces).then_some(server.namespace.as_str());
        if let Some(name) = name {
            let path = resource.path(namespace, Some(&name));
            found.push(Found { resource, object: server.get(&path).await?, path });
            continue;
        }
        if !selection.all && selection.selector.is_none() && selection.fields.is_none() {
            return Err(Failure::local("resource(s) were provided, but no name was specified"));
        }
        let query = [
            selector_query("labelSelector", selection.selector),
            selector_query("fieldSelector", selection.fields),
        ];
        let list = server.get(&with_query(&resource.path(namespace, None), &[&query[0], &query[1]])).await?;
        for mut object in items(list) {
            object["apiVersion"] = resource.api_version().into();
            object["kind"] = resource.kind.clone().into();
            let path = resource
                .path(Some(text(&object, "/metadata/namespace")), Some(text(&object, "/metadata/name")));
            found.push(Found { resource, object, path });
        }
    }
    Ok(found)
}

/// The items of a list.
#[must_use]
pub fn items(mut list: Value) -> Vec<Value> {
    match list["items"].take() {
        Value::Array(items) => items,
        _ => vec![],
    }
}

/// A string in an object by its JSON pointer; empty if there is none.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number in an object by its JSON pointer; 0 if there is none.
#[must_use]
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The path of an object of a file; its namespace must not contradict the one in force.
pub fn object_path(server: &Server, resource: &Resource, object: &Value) -> Result<String> {
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        return Err(Failure::local("resource name may not be empty"));
    }
    Ok(resource.path(Some(&object_namespace(server, resource, object)?), Some(name)))
}

/// The namespace of an object of a file.
pub fn object_namespace(server: &Server, resource: &Resource, object: &Value) -> Result<String> {
    let own = text(object, "/metadata/namespace");
    if resource.namespaced && server.namespace_given && !own.is_empty() && own != server.namespace {
        return Err(Failure::local(format!(
            "the namespace from the provided object \"{own}\" does not match the namespace \"{}\". You must pass '--namespace={own}' to perform this operation.",
            server.namespace
        )));
    }
    Ok(if own.is_empty() { server.namespace.clone() } else { own.to_owned() })
}

/// Prints `name verb`, or the object as `-o` asks.
pub fn report(output: &Output, name: &str, verb: &str, object: &Value) -> Result {
    match output {
        Output::Table { .. } => {
            println!("{name} {verb}");
            Ok(())
        }
        other => other.print(object, name),
    }
}

/// One failure for several, each on a line.
pub fn all_or_failure(failures: Vec<Failure>) -> Result {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok(()) };
    let rest: Vec<_> = failures.collect();
    if rest.is_empty() {
        return Err(first);
    }
    eprintln!("{first}");
    for failure in &rest[..rest.len() - 1] {
        eprintln!("{failure}");
    }
    Err(rest.into_iter().next_back().unwrap_or(first))
}
