//! How many seats a request takes (upstream `flowcontrol/request`).

use std::time::Duration;

use super::work::{SeatSeconds, WorkEstimate};
use crate::query::{Query, is_true};
use crate::request::RequestInfo;

/// Bytes of memory that are worth a seat.
const BYTES_PER_SEAT: u64 = 100_000;
/// A list is sent in pieces that share the cache's bytes, so that no list takes more memory than this at once.
const MOST_LISTED: u64 = 1_000_000;
/// The most seats of a list.
const WIDEST_LIST: u64 = 100;
/// The most seats of a write, and of the watchers that hear of it.
const WIDEST_WRITE: u64 = 10;
/// So many watchers are worth a seat ...
const WATCHES_PER_SEAT: f64 = 10.0;
/// ... for so long.
const TIME_OF_AN_EVENT: Duration = Duration::from_millis(5);

/// The objects of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// How many.
    pub objects: u64,
    /// Their size on average, in bytes.
    pub size: u64,
}

/// What is known of the resource that a request is for.
pub trait Facts {
    /// Its objects; `None` if there is no such resource here.
    fn stock(&self, info: &RequestInfo) -> Option<Stock>;
    /// The watches that hear of it if the request changes something.
    fn watches(&self, info: &RequestInfo) -> u64;
}

/// The estimate for a request, and how many watches it takes into account. `widest` is the most that the level
/// allows; 0 if it does not say.
#[must_use]
pub fn estimate(
    info: &RequestInfo,
    query: &Query,
    widest: u64,
    facts: &impl Facts,
) -> (WorkEstimate, Option<u64>) {
    match info.verb.as_str() {
        "list" | "watch" => (WorkEstimate::seats(list(info, query, widest, facts)), None),
        "create" | "update" | "patch" | "delete" => write(info, widest, facts),
        _ => (WorkEstimate::seats(1), None),
    }
}

fn capped(widest: u64, most: u64) -> u64 {
    if widest == 0 { most } else { widest.min(most) }
}

fn list(info: &RequestInfo, query: &Query, widest: u64, facts: &impl Facts) -> u64 {
    let widest = capped(widest, WIDEST_LIST);
    let first = |name| query.first(name).filter(|text| !text.is_empty());
    // What cannot be read will be refused: upstream asks for the most.
    let Ok(limit) = first("limit").map(str::parse::<i64>).transpose() else { return widest };
    if info.verb == "watch" {
        let asked = first("sendInitialEvents").is_some_and(is_true);
        let from_the_start = matches!(first("resourceVersion"), None | Some("0"));
        if !asked && !from_the_start {
            return 1;
        }
    }
    let Some(stock) = facts.stock(info) else { return 1 };
    let limit = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0);
    let objects = if info.name.is_empty() { limit.unwrap_or(u64::MAX).min(stock.objects) } else { 1 };
    // Every list is from the cache here, as those are upstream that need not go to the store.
    let bytes = objects.saturating_mul(stock.size).min(MOST_LISTED);
    bytes.div_ceil(BYTES_PER_SEAT).clamp(1, widest)
}

fn write(info: &RequestInfo, widest: u64, facts: &impl Facts) -> (WorkEstimate, Option<u64>) {
    // A token is made for a service account, which does not change.
    if info.resource == "serviceaccounts" && info.subresource == "token" {
        return (WorkEstimate::seats(1), None);
    }
    let watches = facts.watches(info);
    if (watches as f64) < WATCHES_PER_SEAT {
        return (WorkEstimate::seats(1), Some(watches));
    }
    let seats = (watches as f64 / WATCHES_PER_SEAT).ceil() as u64;
    let work = SeatSeconds::taking(seats, TIME_OF_AN_EVENT);
    let final_seats = seats.min(capped(widest, WIDEST_WRITE));
    let additional_latency = work.spread_over(final_seats);
    (WorkEstimate { initial_seats: 1, final_seats, additional_latency }, Some(watches))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    struct Known(Option<Stock>, u64);

    impl Facts for Known {
        fn stock(&self, _: &RequestInfo) -> Option<Stock> {
            self.0
        }

        fn watches(&self, _: &RequestInfo) -> u64 {
            self.1
        }
    }

    fn asked(method: &Method, url: &str, widest: u64, known: &Known) -> WorkEstimate {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = Query::parse(query);
        let info = RequestInfo::parse(method, path, &query).expect("a path");
        estimate(&info, &query, widest, known).0
    }

    // After those cases of upstream's TestWorkEstimator that are lists from the cache.
    #[test]
    fn lists_take_seats_for_their_memory() {
        for (query, objects, size, widest, seats) in [
            ("", 799, 1_000, 100, 8),
            ("limit=500&resourceVersion=0", 799, 1_000, 100, 5),
            ("limit=0", 799, 1_000, 100, 8),
            ("limit=1", 799, 1_000, 100, 1),
            ("", 0, 0, 100, 1),
            ("", 1_999, 10_000, 100, 10),
            ("", 1_999, 10_000, 6, 6),
            ("", 1_999, 10_000, 0, 10),
            ("limit=banana", 1, 1, 100, 100),
            ("limit=banana", 1, 1, 20, 20),
            ("fieldSelector=metadata.name%3Dtest&limit=500&resourceVersion=0", 799, 200_000, 100, 2),
            ("fieldSelector=metadata.name%3Dtest", 799, 1_500_000, 100, 10),
            ("resourceVersion=0&labelSelector=app%3Dtest", 799, 10_000, 100, 10),
            ("resourceVersion=0&labelSelector=app%3Dtest&limit=29", 799, 10_000, 100, 3),
            ("watch=true", 799, 1_000, 100, 8),
            ("watch=true&resourceVersion=0", 799, 1_000, 100, 8),
            ("watch=true&resourceVersion=1", 799, 1_000, 100, 1),
            ("watch=true&sendInitialEvents=false", 799, 1_000, 100, 8),
            ("watch=true&sendInitialEvents=false&resourceVersion=1", 799, 1_000, 100, 1),
            ("watch=true&sendInitialEvents=true&resourceVersion=1", 799, 1_000, 100, 8),
        ] {
            let known = Known(Some(Stock { objects, size }), 0);
            let found = asked(&Method::GET, &format!("/apis/foo.bar/v1/events?{query}"), widest, &known);
            assert_eq!(found, WorkEstimate::seats(seats), "{query} of {objects} of {size} up to {widest}");
        }
        let unknown = Known(None, 0);
        assert_eq!(asked(&Method::GET, "/apis/foo.bar/v1/events", 10, &unknown), WorkEstimate::seats(1));
        let many = Known(Some(Stock { objects: 9999, size: 9999 }), 0);
        assert_eq!(asked(&Method::GET, "/apis/foo.bar/v1/events/one", 10, &many), WorkEstimate::seats(1));
        assert_eq!(asked(&Method::GET, "/healthz", 10, &many), WorkEstimate::seats(1));
    }

    // After upstream's TestWorkEstimator.
    #[test]
    fn writes_take_seats_for_those_who_watch() {
        let foo = "/apis/foo.bar/v1/foos/myfoo";
        for (method, url, watches, widest, final_seats, millis) in [
            (Method::POST, "/apis/foo.bar/v1/foos", 0, 10, 0, 0),
            (Method::POST, "/apis/foo.bar/v1/foos", 29, 10, 3, 5),
            (Method::POST, "/apis/foo.bar/v1/foos", 5, 10, 0, 0),
            (Method::POST, "/apis/foo.bar/v1/foos", 199, 10, 10, 10),
            (Method::PUT, foo, 0, 10, 0, 0),
            (Method::PUT, foo, 29, 10, 3, 5),
            (Method::PATCH, foo, 29, 10, 3, 5),
            (Method::PATCH, foo, 100, 5, 5, 10),
            (Method::DELETE, foo, 0, 10, 0, 0),
            (Method::DELETE, foo, 29, 10, 3, 5),
            (Method::POST, "/api/v1/namespaces/foo/serviceaccounts/default/token", 5777, 10, 0, 0),
            (Method::POST, "/api/v1/namespaces/foo/serviceaccounts", 1000, 20, 10, 50),
        ] {
            let found = asked(&method, url, widest, &Known(None, watches));
            let additional_latency = Duration::from_millis(millis);
            let expected = WorkEstimate { initial_seats: 1, final_seats, additional_latency };
            assert_eq!(found, expected, "{method} {url} with {watches} watches");
        }
    }
}
