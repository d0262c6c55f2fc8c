//! `kubectl api-resources`, `api-versions` and `cluster-info`

use super::{connect, items, text};
use crate::failure::Result;
use crate::print::table::Table;
use crate::server::Connection;

/// Flags of `api-resources`.
#[derive(Debug, clap::Args)]
pub struct ResourcesArgs {
    /// Limit to resources in the specified API group.
    #[arg(long)]
    api_group: Option<String>,
    /// If false, non-namespaced resources will be returned, otherwise returning namespaced resources by default.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Limit to resources that support the specified verbs.
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Limit to resources that belong to the specified categories.
    #[arg(long, value_delimiter = ',')]
    categories: Vec<String>,
    /// When using the default or custom-column output format, don't print headers.
    #[arg(long)]
    no_headers: bool,
    /// Output format: wide, name.
    #[arg(long, short = 'o')]
    output: Option<String>,
}

/// Runs `api-resources`.
pub async fn resources(connection: &Connection, args: ResourcesArgs) -> Result {
    let (_, resources) = connect(connection).await?;
    let mut table = Table {
        headers: ["Name", "Shortnames", "APIVersion", "Namespaced", "Kind"].map(Into::into).into(),
        rows: vec![],
    };
    let wide = args.output.as_deref() == Some("wide");
    if wide {
        table.headers.extend(["Verbs".to_owned(), "Categories".to_owned()]);
    }
    let mut seen = std::collections::BTreeSet::new();
    let mut chosen: Vec<_> = resources
        .all
        .iter()
        .filter(|r| seen.insert(r.qualified()))
        .filter(|r| args.api_group.as_ref().is_none_or(|g| *g == r.group))
        .filter(|r| args.namespaced.is_none_or(|n| n == r.namespaced))
        .filter(|r| args.verbs.iter().all(|v| r.verbs.contains(v)))
        .filter(|r| args.categories.iter().all(|c| r.categories.contains(c)))
        .collect();
    chosen.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
    for resource in chosen {
        if args.output.as_deref() == Some("name") {
            println!("{}", resource.qualified());
            continue;
        }
        let mut row = vec![
            resource.plural.clone(),
            resource.short_names.join(","),
            resource.api_version(),
            resource.namespaced.to_string(),
            resource.kind.clone(),
        ];
        if wide {
            row.extend([resource.verbs.join(","), resource.categories.join(",")]);
        }
        table.rows.push(row);
    }
    if args.output.as_deref() != Some("name") {
        print!("{}", table.render(args.no_headers, &mut vec![]));
    }
    Ok(())
}

/// Runs `api-versions`.
pub async fn versions(connection: &Connection) -> Result {
    let (_, resources) = connect(connection).await?;
    let versions: std::collections::BTreeSet<_> =
        resources.all.iter().map(crate::resource::Resource::api_version).collect();
    for version in versions {
        println!("{version}");
    }
    Ok(())
}

/// Runs `cluster-info`.
pub async fn cluster_info(connection: &Connection) -> Result {
    let (server, resources) = connect(connection).await?;
    let url = server_url(connection).await?;
    println!("Kubernetes control plane is running at {url}");
    let services = resources.find("services")?.path(Some("kube-system"), None);
    let list =
        server.get(&format!("{services}?labelSelector=kubernetes.io%2Fcluster-service%3Dtrue")).await?;
    for service in items(list) {
        let name = text(&service, "/metadata/name");
        let label = text(&service, "/metadata/labels/kubernetes.io~1name");
        let port = text(&service, "/spec/ports/0/name");
        let port = if port.is_empty() { String::new() } else { format!(":{port}") };
        let shown = if label.is_empty() { name } else { label };
        println!("{shown} is running at {url}/api/v1/namespaces/kube-system/services/{name}{port}/proxy");
    }
    println!("\nTo further debug and diagnose cluster problems, use 'kubectl cluster-info dump'.");
    Ok(())
}

async fn server_url(connection: &Connection) -> Result<String> {
    if let Some(server) = &connection.server {
        return Ok(server.clone());
    }
    let kubeconfig = crate::server::read_kubeconfig(connection.kubeconfig.as_ref())?;
    let current = connection.context.clone().or(kubeconfig.current_context).unwrap_or_default();
    let context = kubeconfig.contexts.iter().find(|c| c.name == current).and_then(|c| c.context.clone());
    let cluster = connection.cluster.clone().or(context.map(|c| c.cluster)).unwrap_or_default();
    let found =
        kubeconfig.clusters.iter().find(|c| c.name == cluster).and_then(|c| c.cluster.clone()?.server);
    Ok(found.unwrap_or_else(|| "http://localhost:8080".to_owned()))
}
