//! What clients may not do: send endless headers, keep silent, stay for ever.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::Empty;
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
