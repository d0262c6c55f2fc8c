//! Flow control's part in the way of a request.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Body as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::body::{self, Body};
use crate::config::Config;
use crate::flowcontrol::inflight::InFlight;
use crate::flowcontrol::level::Flow;
use crate::flowcontrol::{FlowControl, Pass, Refused, Request, hold_while_sending};
use crate::registry::Registry;

/// What keeps the server from doing too much at once.
pub enum Protection {
    /// Priority and fairness.
    Fair(Arc<FlowControl>),
    /// Plain limits.
    Plain(InFlight),
}

/// A refusal is held back until the request has been here so long: whoever asks again at once would keep the server
/// busy with refusing. It is little beside the second that the refusal says to wait.
const REFUSED_AFTER: Duration = Duration::from_millis(250);

/// Answers up to this size are as good as sent.
const SMALL: u64 = 16 << 10;

/// How a request was classified, once it has been.
pub(super) type Classified = OnceLock<Arc<Flow>>;

/// What a request has while it is served.
pub(super) enum Held {
    Nothing,
    Place { _place: OwnedSemaphorePermit },
    Seat(Pass),
}

impl Protection {
    /// As configured.
    pub(super) fn new(config: &Config, registry: &Arc<Registry>) -> anyhow::Result<Self> {
        let (reading, writing) = (config.max_requests_inflight, config.max_mutating_requests_inflight);
        if !config.priority_and_fairness {
            return Ok(Self::Plain(InFlight::new(reading, writing)));
        }
        let seats = reading.saturating_add(writing);
        anyhow::ensure!(
            seats > 0,
            "invalid configuration: MaxRequestsInFlight={reading} and MaxMutatingRequestsInFlight={writing}; \
             they must add up to something positive"
        );
        let seats = u64::from(u32::try_from(seats).unwrap_or(u32::MAX));
        Ok(Self::Fair(Arc::new(FlowControl::new(seats, Arc::clone(registry)))))
    }

    /// Lets a request in, or answers it.
    pub(super) async fn enter(
        &self,
        request: Request<'_>,
        limit: Duration,
        classified: &Classified,
    ) -> Result<Held, Response<Body>> {
        let watch = request.info.verb == "watch";
        let long_running = request.info.is_long_running();
        let earliest = Instant::now() + REFUSED_AFTER;
        match self {
            // What goes on for long is not counted; watches are, while they begin.
            Self::Fair(_) if long_running && !watch => Ok(Held::Nothing),
            Self::Plain(_) if long_running => Ok(Held::Nothing),
            Self::Fair(control) => {
                let Some(flow) = control.classify(request.user, request.info) else {
                    return Ok(Held::Nothing);
                };
                let flow = classified.get_or_init(|| flow);
                let entered = control.enter(request, flow, limit).await;
                match entered {
                    Ok(pass) => Ok(Held::Seat(pass)),
                    Err(refused) => Err(too_many_requests(refused, earliest).await),
                }
            }
            Self::Plain(limits) => match limits.enter(request.user, request.info) {
                Ok(place) => Ok(place.map_or(Held::Nothing, |place| Held::Place { _place: place })),
                Err(refused) => Err(too_many_requests(refused, earliest).await),
            },
        }
    }
}

impl Held {
    /// Lets go of what was held, or lets the answer hold it: sending a list is work as well.
    pub(super) fn answer(self, response: Response<Body>, watch: bool) -> Response<Body> {
        let lasting = watch && response.status().is_success();
        let large = || response.body().size_hint().exact().is_none_or(|size| size > SMALL);
        match self {
            Self::Seat(pass) if lasting || large() => hold_while_sending(response, pass),
            _ => response,
        }
    }
}

async fn too_many_requests(refused: Refused, earliest: Instant) -> Response<Body> {
    tokio::time::sleep_until(earliest).await;
    let mut response = Response::new(body::full("Too many requests, please try again later.\n"));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert(RETRY_AFTER, HeaderValue::from(refused.retry_after));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_are_held_back_but_not_those_that_have_waited() {
        for (waited, held) in [(Duration::ZERO, REFUSED_AFTER), (REFUSED_AFTER * 4, Duration::ZERO)] {
            let earliest = Instant::now() + REFUSED_AFTER;
            tokio::time::advance(waited).await;
            let before = Instant::now();
            let response = too_many_requests(Refused { retry_after: 3 }, earliest).await;
            assert_eq!(before.elapsed(), held);
            assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(response.headers()[RETRY_AFTER], "3");
        }
    }
}
