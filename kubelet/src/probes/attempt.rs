//! One run of a probe.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::worker::seconds;
use super::{ContainerExec, grpc, http};
use crate::env::expand;

/// Longest output of a command that is kept.
const MAX_OUTPUT: usize = 10 << 10;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Success,
    /// Well, but somebody should know.
    Warning(String),
    /// Badly.
    Failure(String),
    /// The probe could not be made.
    Error(String),
}

/// What one run needs.
pub struct Attempt<'a> {
    /// Runs commands.
    pub exec: &'a dyn ContainerExec,
    /// The probe.
    pub probe: &'a Probe,
    /// Its container.
    pub container: &'a Container,
    /// The container's identity.
    pub container_id: &'a str,
    /// Address of the pod.
    pub pod_ip: &'a str,
}

impl Attempt<'_> {
    /// Probes once.
    pub async fn run(&self) -> Outcome {
        let timeout = seconds(self.probe.timeout_seconds, 1);
        if let Some(action) = &self.probe.exec {
            return self.exec(action.command.as_deref().unwrap_or_default(), timeout).await;
        }
        if let Some(action) = &self.probe.http_get {
            return self.http(action, timeout).await;
        }
        if let Some(action) = &self.probe.tcp_socket {
            let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(self.pod_ip);
            return match resolve_port(&action.port, self.container) {
                Ok(port) => tcp(host, port, timeout).await,
                Err(error) => Outcome::Error(error),
            };
        }
        if let Some(action) = &self.probe.grpc {
            let port = u16::try_from(action.port).unwrap_or_default();
            return grpc::check(self.pod_ip, port, action.service.as_deref().unwrap_or_default(), timeout)
                .await;
        }
        Outcome::Error(format!("missing probe handler for {}", self.container.name))
    }

    async fn exec(&self, command: &[String], timeout: Duration) -> Outcome {
        let literals: Vec<(String, String)> = self
            .container
            .env
            .iter()
            .flatten()
            .filter(|variable| variable.value_from.is_none())
            .map(|variable| (variable.name.clone(), variable.value.clone().unwrap_or_default()))
            .collect();
        let command: Vec<String> = command.iter().map(|word| expand(word, &literals)).collect();
        let id = self.container_id.split_once("://").map_or(self.container_id, |(_, id)| id);
        match self.exec.exec_sync(id, &command, timeout).await {
            Ok(output) if output.exit_code == 0 => Outcome::Success,
            Ok(output) => {
                let mut all = output.stdout;
                all.extend(output.stderr);
                all.truncate(MAX_OUTPUT);
                Outcome::Failure(String::from_utf8_lossy(&all).into_owned())
            }
            Err(error) if error.is_deadline() => {
                Outcome::Failure(format!("command {:?} timed out", command.join(" ")))
            }
            Err(error) => Outcome::Error(client::chain(&error)),
        }
    }

    async fn http(&self, action: &HTTPGetAction, timeout: Duration) -> Outcome {
        let port = match resolve_port(&action.port, self.container) {
            Ok(port) => port,
            Err(error) => return Outcome::Error(error),
        };
        let request = http::Get {
            scheme: action.scheme.as_deref().unwrap_or("HTTP").to_lowercase(),
            host: action
                .host
                .clone()
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| self.pod_ip.to_owned()),
            port,
            path: action.path.clone().unwrap_or_default(),
            headers: action
                .http_headers
                .iter()
                .flatten()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
            user_agent: "kube-probe/1.36",
        };
        match request.send(timeout).await {
            Err(error) => Outcome::Failure(error),
            Ok(response) => match response.status {
                200..300 => Outcome::Success,
                300..400 => Outcome::Warning(format!(
                    "Probe terminated redirects, Response body: {}",
                    response.text()
                )),
                status => Outcome::Failure(format!("HTTP probe failed with statuscode: {status}")),
            },
        }
    }
}

/// The number of a port given by number or by name.
pub fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            match (named, name.parse::<i64>()) {
                (Some(port), _) => i64::from(port.container_port),
                (None, Ok(number)) => number,
                (None, Err(_)) => {
                    return Err(format!("couldn't find port: {name} in container {}", container.name));
                }
            }
        }
    };
    u16::try_from(number)
        .ok()
        .filter(|number| *number > 0)
        .ok_or_else(|| format!("invalid port number: {number}"))
}

async fn tcp(host: &str, port: u16, timeout: Duration) -> Outcome {
    match http::dial(host, port, timeout).await {
        Ok(stream) => {
            close_at_once(&stream);
            Outcome::Success
        }
        Err(error) => Outcome::Failure(error),
    }
}

/// A probe's connection leaves nothing behind in TIME-WAIT.
pub fn close_at_once(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::trace!(%error, "cannot set the linger time of a probe's connection");
    }
}
