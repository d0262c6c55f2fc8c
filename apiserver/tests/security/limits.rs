//! What clients may not do: send endless headers, keep silent, stay for ever.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::support::Cluster;

/// A connection over which nothing was sent but TLS.
async fn connect(cluster: &Cluster, protocol: &str) -> TlsStream<TcpStream> {
    let mut config = ClientConfig::builder_with_provider(client::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(client::tls::anybody())
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let socket = TcpStream::connect(cluster.running.address()).await.unwrap();
    connector.connect(ServerName::try_from("localhost").unwrap(), socket).await.unwrap()
}

/// The first line of the answer to a request with so many bytes of headers.
async fn status_line(cluster: &Cluster, size: usize) -> String {
    let mut stream = connect(cluster, "http/1.1").await;
    let request = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(size));
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let mut line = [0; 12];
    // Whoever sends too much is answered before everything was sent.
    let (_, read) = tokio::join!(writer.write_all(request.as_bytes()), reader.read_exact(&mut line));
    read.unwrap();
    String::from_utf8_lossy(&line).into_owned()
}

#[tokio::test]
async fn headers_have_a_limit() {
    let cluster = Cluster::start().await;
    assert_eq!(status_line(&cluster, 900_000).await, "HTTP/1.1 200");
    assert_eq!(status_line(&cluster, 1_200_000).await, "HTTP/1.1 431");
    assert_eq!(status_line(&cluster, 3_000_000).await, "HTTP/1.1 431");
    cluster.stop().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What begins a connection of HTTP/2.
fn preface() -> Vec<u8> {
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[])].concat()
}

/// Sends until the server takes no more; gives how much it took. Whatever it says meanwhile is read.
async fn flood(cluster: &Cluster, parts: impl Iterator<Item = Vec<u8>>) -> usize {
    let stream = connect(cluster, "h2").await;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let reading = tokio::spawn(async move {
        let mut buffer = [0; 16 * 1024];
        while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    let mut sent = 0;
    let sending = async {
        for part in std::iter::once(preface()).chain(parts) {
            if reading.is_finished() || writer.write_all(&part).await.is_err() {
                return;
            }
            sent += part.len();
        }
        let _ = writer.flush().await;
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), sending).await;
    reading.abort();
    assert!(ended.is_ok(), "the server neither reads nor closes");
    sent
}

#[tokio::test]
async fn floods_of_frames_do_not_keep_others_out() {
    let cluster = Cluster::start().await;
    let root = cluster.with_token("secret-of-root");
    // Headers without end: the connection ends before they do.
    let header = [&[0x00, 0x01, b'a', 0x7f, 0x81, 0x7c][..], &[b'x'; 16_000][..]].concat();
    let begin = frame(1, 0, 1, &[0x82, 0x87, 0x84, 0x41, 0x01, b'x']);
    let parts = std::iter::once(begin).chain((0..10_000).map(|_| frame(9, 0, 1, &header)));
    let sent = flood(&cluster, parts).await;
    assert!(sent < 64 * 1024 * 1024, "{sent} bytes of headers were taken");
    assert_eq!(root.get("/api/v1/namespaces").await.0, 200);
    // Requests that are taken back at once.
    let request = |i: u32| {
        let stream = 2 * i + 1;
        let headers = frame(1, 5, stream, &[0x82, 0x87, 0x84, 0x41, 0x01, b'x']);
        [headers, frame(3, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    let (flooded, answered) = tokio::join!(flood(&cluster, (0..20_000).map(request)), async {
        let begin = std::time::Instant::now();
        for _ in 0..50 {
            assert_eq!(root.get("/api/v1/namespaces").await.0, 200);
        }
        begin.elapsed()
    });
    assert!(flooded > 0 && answered < Duration::from_secs(20), "{answered:?}");
    // Settings and pings that want to be answered, by one who does not read.
    let ping = |_| [frame(4, 0, 0, &[]), frame(6, 0, 0, &[0; 8])].concat();
    flood(&cluster, (0..50_000).map(ping)).await;
    assert_eq!(root.get("/livez").await.0, 200);
    cluster.stop().await;
}

/// Whether the server ends an HTTP/2 connection after a request.
async fn is_sent_away(chance: f64) -> bool {
    let cluster = Cluster::with(|config, _| config.goaway_chance = chance).await;
    let io = TokioIo::new(connect(&cluster, "h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("https://{}/livez", cluster.running.address());
    let request = Request::get(uri).body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response);
    let ended = tokio::time::timeout(Duration::from_millis(500), connection).await.is_ok();
    drop(sender);
    cluster.stop().await;
    ended
}

#[tokio::test]
async fn answers_to_head_are_headers_in_http2_too() {
    let cluster = Cluster::start().await;
    let io = TokioIo::new(connect(&cluster, "h2").await);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    // Who may get health may not ask for its headers: that is another verb.
    for (method, path, status, empty) in
        [("HEAD", "/livez", 403, true), ("GET", "/livez", 200, false), ("GET", "/api", 403, false)]
    {
        let uri = format!("https://{}{path}", cluster.running.address());
        let request = Request::builder().method(method).uri(uri).body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.is_empty(), empty, "{method} {path}");
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn clients_are_sent_elsewhere_by_chance() {
    assert!(is_sent_away(1.0).await);
    assert!(!is_sent_away(0.0).await);
}

#[tokio::test]
async fn who_asks_nothing_is_let_go() {
    let cluster = Cluster::start().await;
    for (protocol, sent) in
        [("http/1.1", ""), ("http/1.1", "GET / HTTP/1.1\r\nHost:"), ("h2", "PRI * HTTP/2")]
    {
        let mut stream = connect(&cluster, protocol).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // From here on time passes as soon as there is nothing to do.
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        let mut answer = Vec::new();
        // Whether the connection is shut or cut does not matter.
        let _ = stream.read_to_end(&mut answer).await;
        let waited = began.elapsed();
        tokio::time::resume();
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent}");
        let bounds = Duration::from_secs(30)..Duration::from_secs(40);
        assert!(bounds.contains(&waited), "{sent:?} for {waited:?}");
    }
    cluster.stop().await;
}
