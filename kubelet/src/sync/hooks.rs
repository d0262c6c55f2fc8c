//! Lifecycle hooks: commands, HTTP requests and sleeps after a start and before a stop.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::runtime::Runtime;

/// A hook did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The command could not be run.
    #[error(transparent)]
    Exec(#[from] crate::runtime::Error),
    /// The command failed.
    #[error("command '{command}' exited with {code}: {output}")]
    Exit {
        /// The command.
        command: String,
        /// Its exit code.
        code: i32,
        /// What it wrote.
        output: String,
    },
    /// The request failed.
    #[error("HTTP lifecycle hook ({url}) for container {container:?} failed: {why}")]
    Http {
        /// What was asked.
        url: String,
        /// For which container.
        container: String,
        /// Why it failed.
        why: String,
    },
    /// The port is named and the container has none of that name.
    #[error("couldn't find port: {0}")]
    NoPort(String),
    /// The hook says nothing.
    #[error("invalid handler: {0}")]
    Empty(String),
}

/// Runs `handler` for the container `id`.
pub async fn run(
    runtime: &Runtime,
    id: &str,
    container: &Container,
    pod_ip: Option<&str>,
    handler: &LifecycleHandler,
) -> Result<(), HookError> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = runtime.exec_sync(id, &command, Duration::ZERO).await?;
        if output.exit_code != 0 {
            let text = [output.stdout, output.stderr].concat();
            return Err(HookError::Exit {
                command: command.join(" "),
                code: output.exit_code,
                output: String::from_utf8_lossy(&text).into_owned(),
            });
        }
        return Ok(());
    }
    if let Some(get) = &handler.http_get {
        return http(get, container, pod_ip).await;
    }
    if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default())).await;
        return Ok(());
    }
    Err(HookError::Empty(format!("{handler:?}")))
}

/// The number of a port that may be given by name.
pub fn resolve_port(port: &IntOrString, ports: Option<&Vec<ContainerPort>>) -> Result<u16, HookError> {
    let fail = || HookError::NoPort(format!("{port:?}"));
    match port {
        IntOrString::Int(number) => u16::try_from(*number).map_err(|_| fail()),
        IntOrString::String(name) => {
            let named = ports.into_iter().flatten().find(|p| p.name.as_deref() == Some(name));
            match named {
                Some(found) => u16::try_from(found.container_port).map_err(|_| fail()),
                None => name.parse().map_err(|_| fail()),
            }
        }
    }
}

/// One plain request. As upstream, any answer at all is a success, and the certificate of HTTPS is not looked at.
async fn http(get: &HTTPGetAction, container: &Container, pod_ip: Option<&str>) -> Result<(), HookError> {
    let host = get.host.as_deref().filter(|h| !h.is_empty()).or(pod_ip).unwrap_or_default().to_owned();
    // As upstream: a hook without a port goes to 80.
    let port = match &get.port {
        IntOrString::String(name) if name.is_empty() => 80,
        port => resolve_port(port, container.ports.as_ref())?,
    };
    let path = get.path.as_deref().unwrap_or_default();
    let slash = if path.starts_with('/') { "" } else { "/" };
    let scheme = get.scheme.as_deref().unwrap_or("HTTP");
    let url = format!("{}://{}:{port}{slash}{path}", scheme.to_ascii_lowercase(), bracketed(&host));
    let fail = |why: String| HookError::Http { url: url.clone(), container: container.name.clone(), why };
    let mut request =
        format!("GET {slash}{path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-lifecycle/1.36\r\n");
    let mut has_host = false;
    for header in get.http_headers.iter().flatten() {
        has_host |= header.name.eq_ignore_ascii_case("host");
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    if !has_host {
        request.push_str(&format!("Host: {}:{port}\r\n", bracketed(&host)));
    }
    request.push_str("Accept: */*\r\n\r\n");
    let answer = if scheme.eq_ignore_ascii_case("HTTPS") {
        crate::sync::hook_tls::exchange(&host, port, request.as_bytes()).await
    } else {
        plain(&host, port, request.as_bytes()).await
    };
    let answer = answer.map_err(|e| fail(e.to_string()))?;
    if answer.starts_with(b"HTTP/") { Ok(()) } else { Err(fail("malformed HTTP response".to_owned())) }
}

async fn plain(host: &str, port: u16, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = tokio::net::TcpStream::connect((host, port)).await?;
    exchange(&mut stream, request).await
}

/// Sends a request and reads the head of the answer.
pub(super) async fn exchange<S>(stream: &mut S, request: &[u8]) -> std::io::Result<Vec<u8>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(request).await?;
    let mut answer = vec![0; 1024];
    let mut filled = 0;
    while filled < 5 {
        let n = stream.read(&mut answer[filled..]).await?;
        if n == 0 {
            break;
        }
        filled += n;
    }
    answer.truncate(filled);
    Ok(answer)
}

fn bracketed(host: &str) -> String {
    if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn http_hook_reaches_the_named_port() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let port = listener.local_addr().expect("bound").port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut request = vec![0; 1024];
            let n = stream.read(&mut request).await.expect("read");
            stream.write_all(b"HTTP/1.1 500 No\r\n\r\n").await.expect("write");
            String::from_utf8_lossy(&request[..n]).into_owned()
        });
        let container: Container = serde_saphyr::from_str(&format!(
            "name: c\nports: [{{name: http, containerPort: {port}}}]\n\
             lifecycle: {{postStart: {{httpGet: {{path: ready, port: http, httpHeaders: [{{name: X-A, value: b}}]}}}}}}"
        ))
        .expect("valid");
        let get =
            container.lifecycle.clone().and_then(|l| l.post_start).and_then(|h| h.http_get).expect("set");
        http(&get, &container, Some("127.0.0.1")).await.expect("any answer is a success");
        let request = server.await.expect("served");
        assert!(
            request.starts_with("GET /ready HTTP/1.1\r\n") && request.contains("X-A: b\r\n"),
            "{request}"
        );
    }

    #[test]
    fn ports_resolve_by_name_or_number() {
        let ports =
            vec![ContainerPort { name: Some("http".into()), container_port: 8080, ..Default::default() }];
        let resolve = |p| resolve_port(&p, Some(&ports)).ok();
        assert_eq!(resolve(IntOrString::Int(80)), Some(80));
        assert_eq!(resolve(IntOrString::String("http".into())), Some(8080));
        assert_eq!(resolve(IntOrString::String("90".into())), Some(90));
        assert_eq!(resolve(IntOrString::String("nope".into())), None);
        assert_eq!(resolve(IntOrString::Int(70_000)), None);
    }
}
