//! Probes against real sockets on loopback, and the life of a worker against statuses given.

use super::*;
use crate::events::EventSink;
use crate::probes::worker::{Look, Memory, Worker, add_up};
use client::EventType;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

struct Exec(i32, &'static str);

#[async_trait::async_trait]
impl ContainerExec for Exec {
    async fn exec_sync(
        &self,
        _: &str,
        command: &[String],
        _: Duration,
    ) -> Result<ExecOutput, runtime::Error> {
        if self.0 < 0 {
            return Err(runtime::Error { op: "ExecSync", status: tonic::Status::deadline_exceeded("late") });
        }
        let stdout = if self.1.is_empty() { command.join(" ") } else { self.1.to_owned() };
        Ok(ExecOutput { stdout: stdout.into_bytes(), stderr: Vec::new(), exit_code: self.0 })
    }
}

struct NoStatus;

impl PodStatusSource for NoStatus {
    fn pod_status(&self, _: &str) -> Option<Arc<PodStatus>> {
        None
    }
}

struct NoEvents;

impl EventSink for NoEvents {
    fn record(&self, _: &ObjectReference, _: EventType, _: &str, _: String) {}
}

fn manager() -> Arc<ProbeManager> {
    ProbeManager::new(Deps {
        exec: Arc::new(Exec(0, "")),
        status: Arc::new(NoStatus),
        events: Events::new(NoEvents),
        tasks: Tasks::new(),
    })
}

async fn attempt(exec: &Exec, probe: serde_json::Value, ip: &str) -> Outcome {
    let probe: Probe = serde_json::from_value(probe).unwrap();
    let container = Container {
        name: "c".to_owned(),
        env: serde_json::from_value(serde_json::json!([{"name": "A", "value": "1"}])).unwrap(),
        ports: serde_json::from_value(serde_json::json!([{"name": "web", "containerPort": 1}])).unwrap(),
        ..Container::default()
    };
    Attempt { exec, probe: &probe, container: &container, container_id: "containerd://id", pod_ip: ip }
        .run()
        .await
}

#[tokio::test]
async fn commands_succeed_fail_and_time_out() {
    let probe = || serde_json::json!({"exec": {"command": ["cat", "$(A)"]}});
    assert_eq!(attempt(&Exec(0, ""), probe(), "").await, Outcome::Success);
    assert_eq!(attempt(&Exec(1, ""), probe(), "").await, Outcome::Failure("cat 1".to_owned()));
    assert_eq!(
        attempt(&Exec(-1, ""), probe(), "").await,
        Outcome::Failure("command \"cat 1\" timed out".to_owned())
    );
}

/// Answers every connection with `answer`, and hands out what it was asked.
async fn serve(answer: &'static str) -> (u16, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = vec![0; 4096];
            let n = stream.read(&mut asked).await.unwrap_or_default();
            let _ = sender.send(String::from_utf8_lossy(&asked[..n]).into_owned()).await;
            let _ = stream.write_all(answer.replace("PORT", &port.to_string()).as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, receiver)
}

#[tokio::test]
async fn http_answers_decide() {
    for (answer, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Outcome::Success),
        (
            "HTTP/1.1 399 Odd\r\nContent-Length: 2\r\n\r\nok",
            Outcome::Warning("Probe terminated redirects, Response body: ok".to_owned()),
        ),
        (
            "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n",
            Outcome::Failure("HTTP probe failed with statuscode: 404".to_owned()),
        ),
        (
            "HTTP/1.1 302 Away\r\nLocation: http://elsewhere.test/\r\nContent-Length: 1\r\n\r\nx",
            Outcome::Warning("Probe terminated redirects, Response body: x".to_owned()),
        ),
    ] {
        let (port, mut asked) = serve(answer).await;
        let probe = serde_json::json!({"timeoutSeconds": 5, "httpGet": {"path": "/h?x=1", "port": port, "httpHeaders": [{"name": "X-A", "value": "b"}, {"name": "Host", "value": "me"}]}});
        assert_eq!(attempt(&Exec(0, ""), probe, "127.0.0.1").await, want, "{answer}");
        let request = asked.recv().await.unwrap().to_lowercase();
        assert!(request.starts_with("get /h?x=1 http/1.1\r\n"), "{request}");
        for line in ["host: me\r\n", "x-a: b\r\n", "user-agent: kube-probe/1.36\r\n", "accept: */*\r\n"] {
            assert!(request.contains(line), "{line} in {request}");
        }
    }
}

#[tokio::test]
async fn redirects_within_the_host_end_after_ten() {
    let (port, _asked) =
        serve("HTTP/1.1 302 Again\r\nLocation: http://127.0.0.1:PORT/\r\nContent-Length: 0\r\n\r\n").await;
    let probe = serde_json::json!({"timeoutSeconds": 5, "httpGet": {"path": "/", "port": port}});
    let want = format!("Get \"http://127.0.0.1:{port}/\": stopped after 10 redirects");
    assert_eq!(attempt(&Exec(0, ""), probe, "127.0.0.1").await, Outcome::Failure(want));
}

#[tokio::test]
async fn nobody_listening_is_a_failure() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    for (probe, want) in [
        (
            serde_json::json!({"tcpSocket": {"port": port}}),
            format!("dial tcp 127.0.0.1:{port}: connect: connection refused"),
        ),
        (
            serde_json::json!({"httpGet": {"path": "/", "port": port}}),
            format!(
                "Get \"http://127.0.0.1:{port}/\": dial tcp 127.0.0.1:{port}: connect: connection refused"
            ),
        ),
    ] {
        assert_eq!(attempt(&Exec(0, ""), probe, "127.0.0.1").await, Outcome::Failure(want));
    }
    let named = serde_json::json!({"tcpSocket": {"port": "nope"}});
    assert_eq!(
        attempt(&Exec(0, ""), named, "").await,
        Outcome::Error("couldn't find port: nope in container c".to_owned())
    );
}

#[test]
fn thresholds_count_outcomes_in_a_row() {
    let probe: Probe =
        serde_json::from_value(serde_json::json!({"successThreshold": 2, "failureThreshold": 3})).unwrap();
    let mut memory = Memory::default();
    let outcomes = [true, true, false, false, true, false, false, false, false];
    let results: Vec<_> = outcomes.into_iter().map(|success| add_up(&mut memory, success, &probe)).collect();
    assert_eq!(results, [None, Some(true), None, None, None, None, None, Some(false), Some(false)]);
}

fn status(text: serde_json::Value) -> PodStatus {
    serde_json::from_value(text).unwrap()
}

fn worker(probes: &ProbeManager, kind: ProbeKind, delay: i32) -> Worker {
    let pod: Pod = serde_json::from_value(serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"uid": "u"}, "spec": {"restartPolicy": "Never", "containers": []}})).unwrap();
    let probe = Probe { initial_delay_seconds: Some(delay), ..Probe::default() };
    let container = Container { name: "c".to_owned(), ..Container::default() };
    Worker::new(probes.shared.clone(), Arc::new(pod), container, kind, probe)
}

#[test]
fn worker_waits_probes_or_ends() {
    let now = Timestamp::now().to_string();
    let running_since = |started: bool, at: &str| serde_json::json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": "containerd://x", "started": started, "state": {"running": {"startedAt": at}}}]});
    let running = |started| running_since(started, &now);
    // The clock was set back since it started.
    let later = (Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let ended = serde_json::json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": "containerd://x", "state": {"terminated": {"exitCode": 1}}}]});
    for (kind, delay, seen, want, result) in [
        (ProbeKind::Readiness, 0, serde_json::json!({"phase": "Failed"}), Look::End, None),
        (ProbeKind::Readiness, 0, serde_json::json!({"phase": "Pending"}), Look::Wait, None),
        (ProbeKind::Readiness, 0, running(true), Look::Probe, Some(false)),
        (ProbeKind::Readiness, 0, running(false), Look::Wait, Some(false)),
        (ProbeKind::Readiness, 100, running(true), Look::Wait, Some(false)),
        (ProbeKind::Readiness, 100, running_since(true, &later), Look::Probe, Some(false)),
        (ProbeKind::Liveness, 0, running(true), Look::Probe, Some(true)),
        (ProbeKind::Startup, 0, running(false), Look::Probe, None),
        (ProbeKind::Startup, 0, running(true), Look::Wait, None),
        (ProbeKind::Liveness, 0, ended, Look::End, Some(false)),
    ] {
        let probes = manager();
        let look = worker(&probes, kind, delay).look(&mut Memory::default(), &status(seen.clone()));
        assert_eq!((look, probes.result("x", kind)), (want, result), "{kind:?} {seen}");
    }
}

#[test]
fn new_results_are_told_once() {
    let probes = manager();
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = told.clone();
    probes.subscribe(move |update| list.lock().push(update.success));
    for success in [Some(false), Some(false), Some(true), None, Some(true)] {
        probes.shared.results.set("u", "containerd://x", ProbeKind::Readiness, success);
    }
    assert_eq!(*told.lock(), [false, true, true]);
    probes.remove_pod("u");
    assert_eq!(probes.result("x", ProbeKind::Readiness), None);
}

#[tokio::test]
async fn containers_without_probes_are_started_and_ready_when_they_run() {
    let probes = manager();
    let pod: Pod = serde_json::from_value(serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"uid": "u"}, "spec": {
        "containers": [{"name": "plain"}, {"name": "probed", "readinessProbe": {"tcpSocket": {"port": 1}}}, {"name": "slow", "startupProbe": {"tcpSocket": {"port": 1}}}]
    }})).unwrap();
    probes.add_pod(&Arc::new(pod.clone()));
    let container = |name: &str| serde_json::json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "containerID": format!("containerd://{name}"), "state": {"running": {"startedAt": Timestamp::now().to_string()}}});
    let mut seen = status(
        serde_json::json!({"containerStatuses": [container("plain"), container("probed"), container("slow")]}),
    );
    let show = |status: &PodStatus| {
        status.container_statuses.iter().flatten().map(|c| (c.started, c.ready)).collect::<Vec<_>>()
    };
    status::update(&probes, &pod, &mut seen);
    assert_eq!(show(&seen), [(Some(true), true), (Some(true), false), (Some(false), false)]);
    probes.shared.results.set("u", "probed", ProbeKind::Readiness, Some(true));
    probes.shared.results.set("u", "slow", ProbeKind::Startup, Some(true));
    status::update(&probes, &pod, &mut seen);
    assert_eq!(show(&seen), [(Some(true), true); 3]);
    probes.cleanup(&HashSet::new());
    assert!(!probes.has_worker("u", "probed", ProbeKind::Readiness));
}

/// A health service that answers every call with `status` and the trailer `grpc-status: CODE`.
async fn serve_grpc(status: u8, code: &'static str) -> u16 {
    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::body::Frame;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = hyper::service::service_fn(
                move |request: ::http::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let asked = request.into_body().collect().await.unwrap().to_bytes();
                    assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03svc");
                    let mut trailers = ::http::HeaderMap::new();
                    trailers.insert("grpc-status", code.parse().unwrap());
                    trailers.insert("grpc-message", "text".parse().unwrap());
                    let data = Full::new(bytes::Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]))
                        .collect()
                        .await
                        .unwrap()
                        .to_bytes();
                    let frames =
                        [Ok::<_, std::convert::Infallible>(Frame::data(data)), Ok(Frame::trailers(trailers))];
                    let body = StreamBody::new(futures::stream::iter(frames));
                    Ok::<_, std::convert::Infallible>(
                        ::http::Response::builder()
                            .header("content-type", "application/grpc")
                            .body(body)
                            .unwrap(),
                    )
                },
            );
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    port
}

#[tokio::test]
async fn grpc_health_decides() {
    for (status, code, want) in [
        (1, "0", Outcome::Success),
        (2, "0", Outcome::Failure("service unhealthy (responded with \"NOT_SERVING\")".to_owned())),
        (0, "12", Outcome::Failure("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): text".to_owned())),
        (0, "5", Outcome::Failure("error: health rpc probe failed: rpc error: code = NotFound desc = text".to_owned())),
    ] {
        let port = serve_grpc(status, code).await;
        let probe = serde_json::json!({"timeoutSeconds": 5, "grpc": {"port": port, "service": "svc"}});
        assert_eq!(attempt(&Exec(0, ""), probe, "127.0.0.1").await, want, "{status} {code}");
    }
}
