//! Leaders over an API in memory: who leads, for how long, and what gets through when nobody may.

use super::*;

use std::sync::atomic::{AtomicBool, Ordering};

/// A server with one lease.
struct Server {
    lease: Mutex<Option<Lease>>,
    calls: Mutex<Vec<String>>,
    /// It says, once, that somebody else was faster.
    conflict: AtomicBool,
    /// It does not answer any more.
    silent: AtomicBool,
}

fn server() -> (Client, Arc<Server>) {
    let server = Arc::new(Server {
        lease: Mutex::default(),
        calls: Mutex::default(),
        conflict: AtomicBool::new(false),
        silent: AtomicBool::new(false),
    });
    let held = server.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let server = held.clone();
        async move {
            if server.silent.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.unwrap_or_default();
            Ok::<_, std::convert::Infallible>(server.answer(&method, &body))
        }
    });
    (Client::new(service, "default"), server)
}

impl Server {
    fn answer(&self, method: &http::Method, body: &[u8]) -> http::Response<kube::client::Body> {
        self.calls.lock().push(method.to_string());
        let refused = |code: u16, reason: &str| {
            let status = serde_json::json!({ "status": "Failure", "code": code, "reason": reason,
                                             "message": reason });
            (code, status.to_string())
        };
        let (code, text) = if *method == http::Method::GET {
            match &*self.lease.lock() {
                Some(lease) => (200, serde_json::to_string(lease).expect("a lease")),
                None => refused(404, "NotFound"),
            }
        } else if self.conflict.swap(false, Ordering::SeqCst) {
            refused(409, "Conflict")
        } else {
            *self.lease.lock() = Some(serde_json::from_slice(body).expect("a lease"));
            (200, String::from_utf8_lossy(body).into_owned())
        };
        http::Response::builder().status(code).body(text.into_bytes().into()).expect("a response")
    }

    fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock())
    }
}

fn election() -> LeaderElection {
    LeaderElection {
        namespace: "kube-system".to_owned(),
        name: "component".to_owned(),
        identity: "us".to_owned(),
        lease: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
        renewed: Arc::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn lease_is_read_only_when_it_is_not_known() {
    let (client, server) = server();
    let election = election();
    let mut candidate =
        Candidate { election: &election, api: Api::namespaced(client, "kube-system"), observed: None };
    assert!(candidate.try_hold().await.expect("it is free"));
    assert_eq!(server.take_calls(), ["GET", "POST"]);
    tokio::time::advance(election.retry_period).await;
    assert!(candidate.try_hold().await.expect("it is ours"));
    assert_eq!(server.take_calls(), ["PUT"], "what we wrote is what is there");
    server.conflict.store(true, Ordering::SeqCst);
    assert!(candidate.try_hold().await.expect("it is ours"));
    assert_eq!(server.take_calls(), ["PUT", "GET", "PUT"]);
    tokio::time::advance(election.lease).await;
    assert!(candidate.try_hold().await.expect("nobody took it"));
    assert_eq!(server.take_calls(), ["GET", "PUT"], "it has expired, so somebody else may have it");
}

#[tokio::test(start_paused = true)]
async fn lease_of_another_is_left_until_it_expires() {
    let (client, server) = server();
    let spec = LeaseSpec {
        holder_identity: Some("them".to_owned()),
        lease_duration_seconds: Some(15),
        ..Default::default()
    };
    *server.lease.lock() = Some(Lease { spec: Some(spec), ..Default::default() });
    let election = election();
    let mut candidate =
        Candidate { election: &election, api: Api::namespaced(client, "kube-system"), observed: None };
    assert!(!candidate.try_hold().await.expect("it is read"));
    tokio::time::advance(Duration::from_secs(14)).await;
    assert!(!candidate.try_hold().await.expect("it is read"));
    assert_eq!(server.take_calls(), ["GET", "GET"]);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(candidate.try_hold().await.expect("it has expired"));
    let transitions = server.lease.lock().as_ref().and_then(|lease| lease.spec.as_ref()?.lease_transitions);
    assert_eq!(transitions, Some(1));
}

#[tokio::test(start_paused = true)]
async fn work_gets_nothing_through_once_others_may_lead() {
    let (client, server) = server();
    let (election, began) = (election(), Instant::now());
    let (sender, hanging) = tokio::sync::oneshot::channel();
    let work = |lead: Lead| async move {
        server.silent.store(true, Ordering::SeqCst);
        let api: Api<Lease> = Api::namespaced(lead.client, "kube-system");
        let write = async move { api.replace("other", &PostParams::default(), &Lease::default()).await };
        let _ = sender.send(tokio::spawn(write));
        lead.token.cancelled().await;
        assert_eq!(began.elapsed(), Duration::from_secs(10), "it is told to stop at the deadline");
        std::future::pending().await
    };
    let outcome = election.run(client, CancellationToken::new(), work).await;
    assert!(outcome.is_err(), "the lease is lost");
    assert_eq!(began.elapsed(), Duration::from_secs(15), "it is not waited for longer than the lease lasts");
    let answer = hanging.await.expect("the work began").await.expect("it did not panic");
    let error = chain(&answer.expect_err("it does not get through"));
    assert!(error.contains("no longer the leader"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn leader_that_cannot_renew_is_unhealthy_in_the_end() {
    let election = election();
    let check = election.check();
    assert_eq!(check(), Ok(()), "who does not lead is healthy");
    *election.renewed.lock() = Some(Instant::now());
    tokio::time::advance(Duration::from_secs(35)).await;
    assert_eq!(check(), Ok(()));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(check(), Err("failed election to renew leadership on lease component".to_owned()));
    election.leads(false);
    assert_eq!(check(), Ok(()));
}

#[test]
fn go_durations_are_read() {
    for (text, millis) in [("15s", 15_000), ("1m30s", 90_000), ("500ms", 500), ("1.5h", 5_400_000), ("0", 0)]
    {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "15", "s", "1d", "1m 30s"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}
