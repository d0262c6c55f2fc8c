//! exec, attach and port-forward: asks the runtime where it streams, and joins the client to it.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Pod;
use proto::cri;

use super::query::Query;
use super::respond::{Body, full, text, with_type};
use super::target::{Target, ready_sandbox, running_container};
use super::{Server, translate, upgrade};

const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// What of a process the client wants to be joined to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Its input.
    pub stdin: bool,
    /// Its output.
    pub stdout: bool,
    /// Its errors; with a terminal they are part of the output.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl Streams {
    fn parse(query: &Query) -> Result<Self, String> {
        // The API server's names, and those of its own API for those who come directly.
        let on = |names: [&str; 2]| names.iter().any(|name| matches!(query.first(name), Some("1" | "true")));
        let tty = on(["tty", "tty"]);
        let streams = Self {
            stdin: on(["input", "stdin"]),
            stdout: on(["output", "stdout"]),
            stderr: on(["error", "stderr"]) && !tty,
            tty,
        };
        if !streams.stdin && !streams.stdout && !streams.stderr {
            return Err("you must specify at least 1 of stdin, stdout, stderr".to_owned());
        }
        Ok(streams)
    }
}

fn refuse(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    text(status, message)
}

#[expect(clippy::result_large_err, reason = "an answer is what every caller needs")]
fn find(server: &Server, target: &Target) -> Result<Arc<Pod>, Response<Body>> {
    target.find(server).ok_or_else(|| refuse(StatusCode::NOT_FOUND, "pod does not exist"))
}

/// Runs a command in a container.
pub async fn exec(
    server: &Arc<Server>,
    target: Target,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let streams = match Streams::parse(query) {
        Ok(streams) => streams,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, message),
    };
    let pod = match find(server, &target) {
        Ok(pod) => pod,
        Err(response) => return response,
    };
    let container_id = match running_container(server, &pod, &target.container).await {
        Ok(id) => id,
        Err(message) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    let Streams { stdin, stdout, stderr, tty } = streams;
    let cmd = query.all("command").to_vec();
    let url =
        server.deps.runtime.exec(cri::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr }).await;
    join(server, url, streams, request).await
}

/// Joins a process that runs already.
pub async fn attach(
    server: &Arc<Server>,
    target: Target,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let mut streams = match Streams::parse(query) {
        Ok(streams) => streams,
        Err(message) => return refuse(StatusCode::BAD_REQUEST, message),
    };
    let pod = match find(server, &target) {
        Ok(pod) => pod,
        Err(response) => return response,
    };
    let container_id = match running_container(server, &pod, &target.container).await {
        Ok(id) => id,
        Err(message) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    // Whether there is a terminal is the container's matter, not the client's.
    let declared = crate::types::find_container(crate::types::spec(&pod), &target.container);
    streams.tty = declared.is_some_and(|(_, container)| container.tty == Some(true));
    streams.stderr = streams.stderr && !streams.tty;
    let Streams { stdin, stdout, stderr, tty } = streams;
    let url =
        server.deps.runtime.attach(cri::AttachRequest { container_id, stdin, tty, stdout, stderr }).await;
    join(server, url, streams, request).await
}

async fn join(
    server: &Arc<Server>,
    url: Result<String, crate::runtime::Error>,
    streams: Streams,
    request: Request<Incoming>,
) -> Response<Body> {
    let url = match url {
        Ok(url) => url,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, client::chain(&error)),
    };
    match translate::wanted(request.headers()) {
        Some(translate::Protocol::Channels(name)) => {
            translate::channels(server, &url, streams, name, request).await
        }
        Some(translate::Protocol::Tunnel) | None => upgrade::proxy(server, &url, request).await,
    }
}

/// Joins the client to ports of a pod.
pub async fn port_forward(
    server: &Arc<Server>,
    target: Target,
    query: &Query,
    request: Request<Incoming>,
) -> Response<Body> {
    let pod = match find(server, &target) {
        Ok(pod) => pod,
        Err(response) => return response,
    };
    let mut port = Vec::new();
    for text in query.all("port").iter().chain(query.all("ports")).flat_map(|list| list.split(',')) {
        match text.parse::<u16>() {
            Ok(number) if number > 0 => port.push(i32::from(number)),
            _ => return refuse(StatusCode::BAD_REQUEST, format!("invalid port {text:?}")),
        }
    }
    let pod_sandbox_id = match ready_sandbox(server, &pod).await {
        Ok(id) => id,
        Err(message) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    let url = match server.deps.runtime.port_forward(cri::PortForwardRequest { pod_sandbox_id, port }).await {
        Ok(url) => url,
        Err(error) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, client::chain(&error)),
    };
    match translate::wanted(request.headers()) {
        Some(translate::Protocol::Tunnel) => translate::tunnel(server, &url, request).await,
        _ => upgrade::proxy(server, &url, request).await,
    }
}

/// Runs a command to its end and answers with its output.
pub async fn run(server: &Arc<Server>, target: Target, query: &Query) -> Response<Body> {
    let pod = match find(server, &target) {
        Ok(pod) => pod,
        Err(response) => return response,
    };
    let id = match running_container(server, &pod, &target.container).await {
        Ok(id) => id,
        Err(message) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, message),
    };
    let command: Vec<String> = query.first("cmd").unwrap_or_default().split(' ').map(str::to_owned).collect();
    match server.deps.runtime.exec_sync(&id, &command, RUN_TIMEOUT).await {
        Ok(output) => {
            let mut all = output.stdout;
            all.extend(output.stderr);
            with_type(StatusCode::OK, "text/plain", full(all))
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, client::chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read_from_the_query() {
        let on = |stdin, stdout, stderr, tty| Streams { stdin, stdout, stderr, tty };
        for (query, want) in [
            ("input=1&output=1&error=1", Some(on(true, true, true, false))),
            ("input=1&output=1&error=1&tty=1", Some(on(true, true, false, true))),
            ("stdout=true&stdin=false", Some(on(false, true, false, false))),
            ("command=ls", None),
        ] {
            assert_eq!(Streams::parse(&Query::parse(query)).ok(), want, "{query}");
        }
    }
}
