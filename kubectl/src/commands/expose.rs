//! `kubectl expose`

use serde_json::{Value, json};

use super::{DryRun, Selection, connect, find, report, text, with_query};
use crate::failure::{Failure, Result};
use crate::manifest::Files;
use crate::print::Output;
use crate::server::Connection;

/// Flags of `expose`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Type and name.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// The name for the newly created object.
    #[arg(long)]
    name: Option<String>,
    /// The port that the service should serve on; those of the resource if not given.
    #[arg(long)]
    port: Option<String>,
    /// Name or number for the port on the container that the service should direct traffic to.
    #[arg(long)]
    target_port: Option<String>,
    /// The network protocol for the service to be created.
    #[arg(long)]
    protocol: Option<String>,
    /// Type for this service: ClusterIP, NodePort, LoadBalancer, or ExternalName.
    #[arg(long = "type")]
    kind: Option<String>,
    /// A label selector to use for this service.
    #[arg(long)]
    selector: Option<String>,
    /// Labels to apply to the service created by this call.
    #[arg(long, short = 'l')]
    labels: Option<String>,
    /// If non-empty, set the session affinity for the service to this.
    #[arg(long)]
    session_affinity: Option<String>,
    /// ClusterIP to be assigned to the service; 'None' creates a headless service.
    #[arg(long)]
    cluster_ip: Option<String>,
    /// Output format.
    #[arg(long, short = 'o')]
    output: Option<String>,
    /// Only show, or let the server only try.
    #[arg(long, num_args = 0..=1, default_missing_value = "unchanged", value_parser = DryRun::parse, require_equals = true)]
    dry_run: Option<DryRun>,
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (server, resources) = connect(connection).await?;
    let output = Output::parse(args.output.as_deref(), false)?;
    let dry_run = args.dry_run.unwrap_or_default();
    let selection = Selection { words: &args.words, files: Some(&args.files), ..Selection::default() };
    for found in find(&server, &resources, &selection).await? {
        let service = service(&args, &found.object)?;
        let mut made = service.clone();
        if dry_run != DryRun::Client {
            let path = resources.find("services")?.path(Some(&server.namespace), None);
            made = server
                .post(&with_query(&path, &["fieldManager=kubectl-expose", dry_run.query()]), &service)
                .await?;
        }
        let name = format!("service/{}", text(&made, "/metadata/name"));
        report(&output, &name, &format!("exposed{}", dry_run.suffix()), &made)?;
    }
    Ok(())
}

fn pairs(text: &str) -> Value {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    Value::Object(pairs.map(|(k, v)| (k.to_owned(), v.into())).collect())
}

fn service(args: &Args, object: &Value) -> Result<Value> {
    let selector = match &args.selector {
        Some(selector) => pairs(selector),
        None => {
            let of_workload =
                object.pointer("/spec/selector/matchLabels").or_else(|| object.pointer("/spec/selector"));
            let own = object.pointer("/metadata/labels").filter(|_| object["kind"] == "Pod");
            of_workload.or(own).cloned().ok_or_else(|| {
                Failure::local("couldn't retrieve selectors via --selector flag or introspection: the object has no selector")
            })?
        }
    };
    let protocol = args.protocol.as_deref().unwrap_or("TCP");
    let numbers: Vec<i64> = match &args.port {
        Some(text) => {
            let read = text
                .split(',')
                .map(|p| p.trim().parse().map_err(|_| Failure::local(format!("invalid port {p:?}"))));
            read.collect::<Result<_>>()?
        }
        None => own_ports(object),
    };
    if numbers.is_empty() {
        return Err(Failure::local("couldn't find port via --port flag or introspection"));
    }
    let several = numbers.len() > 1;
    let ports = numbers.iter().enumerate().map(|(i, number)| {
        let target = match &args.target_port {
            Some(text) => text.parse::<i64>().map_or_else(|_| json!(text), |n| json!(n)),
            None => json!(number),
        };
        let mut port = json!({"port": number, "protocol": protocol, "targetPort": target});
        if several {
            port["name"] = format!("port-{}", i + 1).into();
        }
        port
    });
    let name = args.name.clone().unwrap_or_else(|| text(object, "/metadata/name").to_owned());
    let mut service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                             "spec": {"selector": selector, "ports": ports.collect::<Vec<_>>()}});
    let labels = args.labels.as_deref().map(pairs).or_else(|| object.pointer("/metadata/labels").cloned());
    if let Some(labels) = labels {
        service["metadata"]["labels"] = labels;
    }
    for (field, value) in
        [("type", &args.kind), ("sessionAffinity", &args.session_affinity), ("clusterIP", &args.cluster_ip)]
    {
        if let Some(value) = value {
            service["spec"][field] = value.clone().into();
        }
    }
    Ok(service)
}

fn own_ports(object: &Value) -> Vec<i64> {
    if let Some(ports) = object.pointer("/spec/ports").and_then(Value::as_array) {
        return ports.iter().filter_map(|p| p["port"].as_i64()).collect();
    }
    let containers =
        object.pointer("/spec/template/spec/containers").or_else(|| object.pointer("/spec/containers"));
    let ports = containers
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .flat_map(|c| c["ports"].as_array().cloned().unwrap_or_default());
    ports.filter_map(|p| p["containerPort"].as_i64()).collect()
}
