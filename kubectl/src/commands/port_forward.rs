//! `kubectl port-forward`

use std::net::IpAddr;

use client::Api;
use client::k8s_openapi::api::core::v1::Pod;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::logs::pod_of;
use super::{connect, text};
use crate::failure::{Failure, Result};
use crate::server::Connection;

/// Flags of `port-forward`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pod, or type/name whose pod is meant.
    target: String,
    /// Ports: LOCAL:REMOTE, PORT, or :REMOTE for any local port.
    #[arg(required = true)]
    ports: Vec<String>,
    /// Addresses to listen on.
    #[arg(long, value_delimiter = ',', default_value = "localhost")]
    address: Vec<String>,
}

/// Runs it until it is interrupted.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (server, resources) = connect(connection).await?;
    let pod = pod_of(&server, &resources, &args.target).await?;
    let name = text(&pod, "/metadata/name").to_owned();
    let service = match args.target.split_once('/') {
        Some((kind, name)) if resources.find(kind).is_ok_and(|r| r.plural == "services") => {
            Some(server.get(&resources.find("services")?.path(Some(&server.namespace), Some(name))).await?)
        }
        _ => None,
    };
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), &server.namespace);
    let mut set = JoinSet::new();
    for port in &args.ports {
        let (local, remote) = split(port)?;
        let remote = target_port(service.as_ref(), &pod, remote);
        for address in addresses(&args.address)? {
            let listener = TcpListener::bind((address, local))
                .await
                .map_err(|error| Failure::local(format!("unable to listen on port {local}: {error}")))?;
            println!("Forwarding from {} -> {remote}", listener.local_addr()?);
            let (pods, name) = (pods.clone(), name.clone());
            set.spawn(async move { accept(listener, pods, name, remote).await });
        }
    }
    while let Some(ended) = set.join_next().await {
        ended.map_err(|error| Failure::local(error.to_string()))??;
    }
    Ok(())
}

fn split(port: &str) -> Result<(u16, u16)> {
    let wrong =
        || Failure::local(format!("error parsing port {port:?}: expected LOCAL:REMOTE, PORT or :REMOTE"));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    match port.split_once(':') {
        None => Ok((number(port)?, number(port)?)),
        Some(("", remote)) => Ok((0, number(remote)?)),
        Some((local, remote)) => Ok((number(local)?, number(remote)?)),
    }
}

fn addresses(names: &[String]) -> Result<Vec<IpAddr>> {
    let mut found = vec![];
    for name in names {
        if name == "localhost" {
            found.push(IpAddr::from([127, 0, 0, 1]));
        } else {
            found.push(name.parse().map_err(|_| Failure::local(format!("{name} is not a valid IP")))?);
        }
    }
    Ok(found)
}

/// A service's port is that of its pods which it leads to.
fn target_port(service: Option<&Value>, pod: &Value, port: u16) -> u16 {
    let ports = service.and_then(|s| s.pointer("/spec/ports")).and_then(Value::as_array);
    let Some(found) = ports.into_iter().flatten().find(|p| p["port"] == port) else { return port };
    match &found["targetPort"] {
        Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()).unwrap_or(port),
        Value::String(name) => {
            let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
            let ports = containers
                .into_iter()
                .flatten()
                .flat_map(|c| c["ports"].as_array().cloned().unwrap_or_default());
            let named = ports.into_iter().find(|p| p["name"] == name.as_str());
            named.and_then(|p| u16::try_from(p["containerPort"].as_u64()?).ok()).unwrap_or(port)
        }
        _ => port,
    }
}

async fn accept(listener: TcpListener, pods: Api<Pod>, name: String, remote: u16) -> Result {
    let local = listener.local_addr()?.port();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                println!("Handling connection for {local}");
                let (pods, name) = (pods.clone(), name.clone());
                connections.spawn(async move {
                    if let Err(failure) = forward(stream, &pods, &name, remote).await {
                        eprintln!("{failure}");
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn forward(mut local: TcpStream, pods: &Api<Pod>, name: &str, remote: u16) -> Result {
    let mut forwarder = pods.portforward(name, &[remote]).await.map_err(Failure::from)?;
    let Some(mut stream) = forwarder.take_stream(remote) else {
        return Err(Failure::local("the server opened no stream"));
    };
    // An end of either side is the end of the connection, not a failure.
    let _ = tokio::io::copy_bidirectional(&mut local, &mut stream).await;
    drop(stream);
    forwarder
        .join()
        .await
        .map_err(|error| Failure::local(format!("an error occurred forwarding {remote}: {error}")))
}
