//! Calls that go wrong between a client and the runtime, for tests: lost, doubled, or never answered.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::fake::State;

/// How a call may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not arrive.
    CallLost,
    /// It is done, and the answer does not arrive.
    AnswerLost,
    /// It arrives twice; the client hears the second answer.
    Twice,
    /// It is never answered, nor done.
    Hangs,
    /// It is done, and never answered.
    HangsWhenDone,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::CallLost, Self::AnswerLost, Self::Twice, Self::Hangs, Self::HangsWhenDone];
}

/// Calls that change nothing; they do not count.
const READING: [&str; 4] = ["List", "Status", "Version", "Stats"];

/// Puts the fault that the state asks for into the call that it is for.
#[derive(Clone)]
pub struct Faults(pub Arc<Mutex<State>>);

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty { inner, state: self.0.clone() }
    }
}

/// A runtime some of whose calls go wrong.
#[derive(Clone)]
pub struct Faulty<S> {
    inner: S,
    state: Arc<Mutex<State>>,
}

impl<S> Faulty<S> {
    /// The fault of this call, if it is its turn.
    fn fault(&self, path: &str) -> Option<Fault> {
        let method = path.rsplit('/').next().unwrap_or_default();
        if READING.iter().any(|reading| method.contains(reading)) {
            return None;
        }
        let mut state = self.state.lock();
        let (left, fault) = state.fault?;
        state.fault = left.checked_sub(1).map(|left| (left, fault));
        (left == 0).then(|| {
            state.faults_met += 1;
            fault
        })
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl<S> Service<http::Request<Body>> for Faulty<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let fault = self.fault(request.uri().path());
        let spare = self.inner.clone();
        // The one that was said to be ready, as Service wants it.
        let mut inner = std::mem::replace(&mut self.inner, spare);
        Box::pin(async move {
            let lost = || Ok(Status::unavailable("lost").into_http());
            match fault {
                None => inner.call(request).await,
                Some(Fault::CallLost) => lost(),
                Some(Fault::Hangs) => std::future::pending().await,
                Some(Fault::AnswerLost) => {
                    done(&mut inner, request).await;
                    lost()
                }
                Some(Fault::HangsWhenDone) => {
                    done(&mut inner, request).await;
                    std::future::pending().await
                }
                Some(Fault::Twice) => {
                    let (parts, body) = request.into_parts();
                    let bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                    let again = http::Request::from_parts(parts.clone(), whole(bytes.clone()));
                    done(&mut inner, http::Request::from_parts(parts, whole(bytes))).await;
                    inner.call(again).await
                }
            }
        })
    }
}

fn whole(bytes: Bytes) -> Body {
    Body::new(Full::new(bytes))
}

/// Has a call done, to its end.
async fn done<S>(inner: &mut S, request: http::Request<Body>)
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    let Ok(answer) = inner.call(request).await;
    // Nobody hears it.
    drop(answer.into_body().collect().await);
}
