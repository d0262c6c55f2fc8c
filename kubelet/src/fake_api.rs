//! An API in a closure, for tests: answers requests and writes them down.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use client::Client;
use client::kube::client::Body;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// One request: method and path, and its body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `PATCH /api/v1/...`, without the query.
    pub(crate) what: String,
    /// The body; null when there was none.
    pub(crate) body: Value,
}

/// The API. Scripted answers come first, then every request succeeds with the object it sent.
#[derive(Clone, Default)]
pub(crate) struct FakeApi {
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    changed: Arc<Notify>,
}

impl FakeApi {
    /// Answers the next request that is not yet scripted.
    pub(crate) fn answer(&self, code: u16, body: Value) {
        self.answers.lock().push_back((code, body));
    }

    /// Refuses the next request that is not yet scripted, as the API does.
    pub(crate) fn refuse(&self, code: u16, reason: &str) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": reason, "reason": reason, "code": code,
        });
        self.answer(code, status);
    }

    /// Waits for so many requests and answers them.
    pub(crate) async fn asked(&self, count: usize) -> Vec<Asked> {
        loop {
            let changed = self.changed.notified();
            let asked = self.asked.lock().clone();
            if asked.len() >= count {
                return asked;
            }
            changed.await;
        }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let this = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let this = this.clone();
            async move { Ok::<_, Infallible>(this.serve(request).await) }
        });
        Client::new(service, "default")
    }

    async fn serve(&self, request: http::Request<Body>) -> http::Response<Body> {
        let what = format!("{} {}", request.method(), request.uri().path());
        let bytes = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        self.asked.lock().push(Asked { what, body: body.clone() });
        let (code, answer) = self.answers.lock().pop_front().unwrap_or_else(|| (200, applied(body)));
        self.changed.notify_waiters();
        let text = serde_json::to_vec(&answer).expect("JSON");
        let response = http::Response::builder().status(code).header("content-type", "application/json");
        response.body(Body::from(text)).expect("a response")
    }
}

/// What a patch leaves behind: itself, without its directives.
fn applied(mut value: Value) -> Value {
    match &mut value {
        Value::Array(list) => {
            list.retain(|item| item.get("$patch").is_none());
            list.iter_mut().for_each(|item| *item = applied(item.take()));
        }
        Value::Object(map) => map.values_mut().for_each(|item| *item = applied(item.take())),
        _ => {}
    }
    value
}
