//! The gRPC health check (`grpc.health.v1.Health/Check`), one call on one connection.
//!
//! Two messages of one field each do not need generated code.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::attempt::{Outcome, close_at_once};
use super::http::dial;

const UNIMPLEMENTED: &str = "12";
const DEADLINE_EXCEEDED: &str = "4";

struct Answer {
    code: String,
    message: String,
    body: Vec<u8>,
}

/// Asks `service` at `host` whether it is well.
pub async fn check(host: &str, port: u16, service: &str, timeout: Duration) -> Outcome {
    let address = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let stream = match dial(host, port, timeout).await {
        Ok(stream) => stream,
        Err(error) => {
            return Outcome::Failure(format!(
                "timeout: failed to connect service {address:?} within {}: {error}",
                go_seconds(timeout)
            ));
        }
    };
    close_at_once(&stream);
    let late =
        || Outcome::Failure(format!("timeout: health rpc did not complete within {}", go_seconds(timeout)));
    match tokio::time::timeout(timeout, call(TokioIo::new(stream), &address, service)).await {
        Err(_) => late(),
        Ok(Err(error)) => {
            Outcome::Failure(format!("error: health rpc probe failed: {}", client::chain(&error)))
        }
        Ok(Ok(answer)) => match answer.code.as_str() {
            "0" => judge(&answer.body),
            UNIMPLEMENTED => Outcome::Failure(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                answer.message
            )),
            DEADLINE_EXCEEDED => late(),
            code => Outcome::Failure(format!(
                "error: health rpc probe failed: rpc error: code = {} desc = {}",
                go_code(code),
                answer.message
            )),
        },
    }
}

/// The name of a status code as Go writes it.
fn go_code(code: &str) -> String {
    match tonic::Code::from_bytes(code.as_bytes()) {
        tonic::Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

fn go_seconds(timeout: Duration) -> String {
    format!("{}s", timeout.as_secs())
}

fn judge(body: &[u8]) -> Outcome {
    let name = match status_of(body) {
        1 => return Outcome::Success,
        0 => "UNKNOWN",
        2 => "NOT_SERVING",
        _ => "SERVICE_UNKNOWN",
    };
    Outcome::Failure(format!("service unhealthy (responded with {name:?})"))
}

/// Field 1, a varint below 128, of the first message in `body`.
fn status_of(body: &[u8]) -> u8 {
    match body.get(5..) {
        Some([0x08, status, ..]) => *status,
        _ => 0,
    }
}

/// One message with the string field 1, framed.
fn request_body(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
    framed.extend(message);
    framed
}

async fn call<S>(stream: S, address: &str, service: &str) -> Result<Answer, hyper::Error>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
    let request = http::Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36 grpc")
        .body(Full::new(Bytes::from(request_body(service))))
        .expect("the address has been connected to and is well-formed");
    let talk = async {
        let response = sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let collected = body.collect().await?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let header = |name: &str| {
            let value = trailers.get(name).or_else(|| head.headers.get(name));
            value.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (code, message) = (header("grpc-status"), header("grpc-message"));
        Ok(Answer { code, message, body: collected.to_bytes().to_vec() })
    };
    tokio::pin!(talk, connection);
    tokio::select! {
        biased;
        answer = &mut talk => answer,
        ended = &mut connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_and_read() {
        assert_eq!(request_body(""), [0, 0, 0, 0, 0]);
        assert_eq!(request_body("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        for (body, want) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Outcome::Success),
            (
                &[0, 0, 0, 0, 2, 8, 2],
                Outcome::Failure("service unhealthy (responded with \"NOT_SERVING\")".to_owned()),
            ),
            (&[0, 0, 0, 0, 0], Outcome::Failure("service unhealthy (responded with \"UNKNOWN\")".to_owned())),
        ] {
            assert_eq!(judge(body), want);
        }
    }
}
