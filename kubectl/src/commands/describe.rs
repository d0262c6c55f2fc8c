//! `kubectl describe`: what people look at when something is wrong.

mod kinds;
mod writer;

use serde_json::Value;

use super::{Found, Selection, connect, find, items, text, with_query};
use crate::failure::Result;
use crate::manifest::Files;
use crate::resource::{Resources, encode, targets};
use crate::server::{Connection, Server};
use writer::Writer;

/// Flags of `describe`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Types and names (or beginnings of names).
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Selector (label query) to filter on.
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// In all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// If true, display events related to the described object.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    show_events: bool,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (server, resources) = connect(connection).await?;
    let named = args.words.iter().any(|w| w.contains('/')) || args.words.len() > 1;
    let selection = Selection {
        words: &args.words,
        files: Some(&args.files),
        selector: args.selector.as_deref(),
        all: !named,
        all_namespaces: args.all_namespaces,
        ..Selection::default()
    };
    let found = match find(&server, &resources, &selection).await {
        Err(failure) if failure.is_not_found() && named => {
            let found = by_prefix(&server, &resources, &args.words).await?;
            if found.is_empty() {
                return Err(failure);
            }
            found
        }
        other => other?,
    };
    if found.is_empty() {
        eprintln!("No resources found in {} namespace.", server.namespace);
    }
    for (i, one) in found.iter().enumerate() {
        if i > 0 {
            println!("\n");
        }
        let events = if args.show_events { events(&server, &one.object).await } else { vec![] };
        let mut writer = Writer::default();
        kinds::describe(&mut writer, one, &related(&server, &resources, one).await);
        if args.show_events {
            kinds::events(&mut writer, &events);
        }
        print!("{}", writer.finish());
    }
    Ok(())
}

/// The objects whose names begin with a word that is no object's whole name.
async fn by_prefix<'a>(
    server: &Server,
    resources: &'a Resources,
    words: &[String],
) -> Result<Vec<Found<'a>>> {
    let mut found = vec![];
    for (resource, prefix) in targets(resources, words)? {
        let prefix = prefix.unwrap_or_default();
        for mut object in items(server.get(&resource.path(Some(&server.namespace), None)).await?) {
            if text(&object, "/metadata/name").starts_with(&prefix) {
                object["kind"] = resource.kind.clone().into();
                let path = resource.path(Some(&server.namespace), Some(text(&object, "/metadata/name")));
                found.push(Found { resource, path, object });
            }
        }
    }
    Ok(found)
}

/// The events about an object, oldest first; none if they cannot be had.
async fn events(server: &Server, object: &Value) -> Vec<Value> {
    let namespace = text(object, "/metadata/namespace");
    let (name, uid) = (text(object, "/metadata/name"), text(object, "/metadata/uid"));
    let uid = if text(object, "/kind") == "Node" { "" } else { uid };
    let mut selector = format!("involvedObject.name={name}");
    if !uid.is_empty() {
        selector.push_str(&format!(",involvedObject.uid={uid}"));
    }
    let path = if namespace.is_empty() {
        "/api/v1/events".to_owned()
    } else {
        format!("/api/v1/namespaces/{}/events", encode(namespace))
    };
    let query = format!("fieldSelector={}", encode(&selector));
    let mut events = server.get(&with_query(&path, &[&query])).await.map(items).unwrap_or_default();
    events.sort_by_key(|e| text(e, "/lastTimestamp").to_owned());
    events
}

/// What a description needs beyond the object: the pods of a node, the endpoints of a service, the replica sets of
/// a deployment.
async fn related(server: &Server, resources: &Resources, found: &Found<'_>) -> Vec<Value> {
    let (name, namespace) =
        (text(&found.object, "/metadata/name"), text(&found.object, "/metadata/namespace"));
    let (plural, query) = match found.resource.plural.as_str() {
        "nodes" => ("pods", format!("fieldSelector={}", encode(&format!("spec.nodeName={name}")))),
        "services" => (
            "endpointslices",
            format!("labelSelector={}", encode(&format!("kubernetes.io/service-name={name}"))),
        ),
        "deployments" => ("replicasets", String::new()),
        _ => return vec![],
    };
    let Ok(resource) = resources.find(plural) else { return vec![] };
    let namespace = Some(namespace).filter(|n| !n.is_empty());
    let list = server.get(&with_query(&resource.path(namespace, None), &[&query])).await;
    let owner = text(&found.object, "/metadata/uid");
    let mut objects = list.map(items).unwrap_or_default();
    if plural == "replicasets" {
        objects.retain(|o| o.pointer("/metadata/ownerReferences/0/uid").is_some_and(|uid| uid == owner));
    }
    objects
}
