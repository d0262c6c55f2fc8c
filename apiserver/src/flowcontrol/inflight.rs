//! The plain limits of requests that are served at once, for servers without flow control (upstream
//! `server/filters/maxinflight.go`).

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refused;
use crate::authn::{MASTERS, User};
use crate::request::RequestInfo;

/// Places for requests.
pub struct InFlight {
    reading: Option<Arc<Semaphore>>,
    writing: Option<Arc<Semaphore>>,
}

impl InFlight {
    /// So many at once; 0 for any number.
    #[must_use]
    pub fn new(reading: usize, writing: usize) -> Self {
        let places =
            |count: usize| (count > 0).then(|| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))));
        Self { reading: places(reading), writing: places(writing) }
    }

    /// A place for a request that is not long-running; `None` if it needs none. Who may do everything always gets an
    /// answer.
    pub fn enter(&self, user: &User, info: &RequestInfo) -> Result<Option<OwnedSemaphorePermit>, Refused> {
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch");
        let places = if reads { &self.reading } else { &self.writing };
        let Some(places) = places else { return Ok(None) };
        match Arc::clone(places).try_acquire_owned() {
            Ok(place) => Ok(Some(place)),
            Err(_) if user.in_group(MASTERS) => Ok(None),
            Err(_) => Err(Refused { retry_after: 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_and_writing_have_places_of_their_own() {
        let limits = InFlight::new(1, 0);
        let info = |verb: &str| RequestInfo { verb: verb.to_owned(), ..RequestInfo::default() };
        let (anybody, root) = (User::default(), User::loopback());
        let first = limits.enter(&anybody, &info("get")).expect("a place");
        assert!(first.is_some());
        assert_eq!(limits.enter(&anybody, &info("list")).err(), Some(Refused { retry_after: 1 }));
        assert!(limits.enter(&root, &info("list")).expect("let in").is_none());
        assert!(limits.enter(&anybody, &info("create")).expect("no limit").is_none());
        drop(first);
        assert!(limits.enter(&anybody, &info("list")).expect("a place").is_some());
    }
}
