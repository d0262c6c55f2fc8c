//! What the process tells about itself over HTTP.

use super::harness::Cluster;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A port that is free, as a flag.
async fn free_port() -> (u16, &'static [&'static str]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let flag: &'static str = format!("--secure-port={port}").leak();
    (port, vec!["--bind-address=127.0.0.1", "--controllers=ttl,job,-cronjob", flag].leak())
}

/// Status line and body of the answer to a request.
async fn ask(port: u16, path: &str) -> (String, String) {
    let mut stream = loop {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

#[tokio::test]
async fn every_running_controller_is_a_check_and_its_queue_is_measured() {
    client::observability::metrics_handle();
    let (port, flags) = free_port().await;
    let cluster = Cluster::start(flags).await;
    // The TTL controller has looked at the node: everything has started.
    cluster
        .wait("an annotation", |cluster| {
            let node = cluster.get("v1", "nodes", "n1");
            node["metadata"]["annotations"]["node.alpha.kubernetes.io/ttl"] == "0"
        })
        .await;
    let ok = "HTTP/1.1 200 OK".to_owned();
    assert_eq!(ask(port, "/healthz").await, (ok.clone(), "ok".to_owned()));
    let (status, body) = ask(port, "/healthz?verbose").await;
    assert_eq!(status, ok);
    assert_eq!(body, "[+]job-controller ok\n[+]ttl-controller ok\nhealthz check passed\n");
    assert_eq!(ask(port, "/healthz/job-controller").await, (ok, "ok".to_owned()));
    let (status, _) = ask(port, "/healthz/cronjob-controller").await;
    assert_eq!(status, "HTTP/1.1 404 Not Found");
    let (_, metrics) = ask(port, "/metrics").await;
    // How much there is to do is not asked: the clusters of other tests have queues of the same names.
    for metric in
        ["workqueue_depth", "workqueue_unfinished_work_seconds", "workqueue_work_duration_seconds_count"]
    {
        let line = format!("{metric}{{name=\"ttlcontroller\"}} ");
        assert!(metrics.lines().any(|held| held.starts_with(&line)), "{line} is not among {metrics}");
    }
    let (_, slis) = ask(port, "/metrics/slis").await;
    // Asked as a whole twice.
    let line = "kubernetes_healthchecks_total{name=\"job-controller\",status=\"success\",type=\"healthz\"} 2";
    assert!(slis.lines().any(|held| held == line), "{line} is not among {slis}");
    cluster.stop().await;
}
