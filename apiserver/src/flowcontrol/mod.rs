//! API Priority and Fairness: no one keeps the others from being served (KEP-1040, upstream `util/flowcontrol`).
//!
//! A request is classified by the first FlowSchema that matches it (`matching`), which leads to a priority level. Each
//! level has its part of the server's seats (`limits`), lends what it does not use and borrows what it needs, divided
//! anew every ten seconds. A request takes as many seats as it is expected to be work (`estimate`); without a free
//! seat it waits in one of the level's queues, which are served fairly (`queueset`, pure), or is refused with 429.
//!
//! The configuration is read from watch caches and compiled (`configuration`); a request without contention costs two
//! short locks of its level. Requests of the exempt level never wait, and take one seat each, which only counts as
//! demand. A seat is given back when the answer is made; that of a watch when what was there at its start has been
//! sent.
//!
//! Tasks: `controller` takes in changed objects, divides seats and lets those go on who wait for seats that come
//! back by themselves; `conditions` writes whether schemas lead anywhere.

pub mod allocation;
pub mod conditions;
pub mod configuration;
mod controller;
pub mod dealer;
pub mod debug;
pub mod demand;
pub mod estimate;
pub mod inflight;
pub mod level;
pub mod limits;
pub mod matching;
mod metrics;
pub mod queueset;
pub mod ratio;
pub mod retry_after;
mod sending;
pub mod statistics;
pub mod watches;
pub mod work;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::authn::User;
use crate::query::Query;
use crate::registry::Registry;
use crate::request::RequestInfo;
use configuration::Configuration;
use estimate::{Facts, Stock};
use level::{Asked, Details, Flow, Seat, distinguisher, take_seats};
pub use sending::hold_while_sending;
use watches::{Registered, Watches};
use work::WorkEstimate;

/// No request waits longer than this in a queue.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

static SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Flow control of one server.
pub struct FlowControl {
    flows: RwLock<Arc<[Arc<Flow>]>>,
    configuration: Mutex<Configuration>,
    watches: Arc<Watches>,
    registry: Arc<Registry>,
    waits: Arc<Notify>,
    /// Tells flows apart in a way that clients cannot foresee.
    hasher: RandomState,
}

/// A request that is let in.
pub struct Pass {
    /// The seats it has.
    pub seat: Seat,
    /// Counts it among the watches, if it is one.
    pub watch: Option<Registered>,
}

/// A request that is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Seconds after which it may come again.
    pub retry_after: u64,
}

/// Who asks for what.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Who.
    pub user: &'a Arc<User>,
    /// For what.
    pub info: &'a Arc<RequestInfo>,
    /// With which options.
    pub query: &'a Query,
}

impl FlowControl {
    /// For a server that serves so much at once.
    #[must_use]
    pub fn new(seats: u64, registry: Arc<Registry>) -> Self {
        let waits: Arc<Notify> = Arc::default();
        let (configuration, flows) = Configuration::new(seats, Arc::clone(&waits));
        Self {
            flows: RwLock::new(flows.into()),
            configuration: Mutex::new(configuration),
            watches: Arc::default(),
            registry,
            waits,
            hasher: RandomState::new(),
        }
    }

    /// The flow that a request belongs to.
    #[must_use]
    pub fn classify(&self, user: &User, info: &RequestInfo) -> Option<Arc<Flow>> {
        let flows = self.flows.read();
        let found = flows.iter().find(|flow| matching::matches(&flow.spec, user, info));
        // This one is for everything, whatever its object says.
        found.or_else(|| flows.iter().find(|flow| flow.schema == limits::CATCH_ALL)).cloned()
    }

    /// Lets a request in as soon as its level has seats for it. `limit` is how long the whole request may take.
    pub async fn enter(
        &self,
        request: Request<'_>,
        flow: &Arc<Flow>,
        limit: Duration,
    ) -> Result<Pass, Refused> {
        let Request { user, info, query } = request;
        let estimate = self.estimate(request, flow);
        let details = Details { user: Arc::clone(user), info: Arc::clone(info) };
        // Upstream hashes with SHA-256, for the same end.
        let hash = self.hasher.hash_one((&flow.schema, distinguisher(flow, &details)));
        let patience = (limit / 4).min(MOST_PATIENCE);
        let asked = Asked { flow, details, hash, estimate, patience };
        match take_seats(asked).await {
            Ok(seat) => {
                let watch = (info.verb == "watch").then(|| self.watches.register(info, query)).flatten();
                Ok(Pass { seat, watch })
            }
            Err(_) => Err(Refused { retry_after: flow.level.retry_after() }),
        }
    }

    fn estimate(&self, request: Request<'_>, flow: &Flow) -> WorkEstimate {
        if flow.level.name == limits::EXEMPT {
            return WorkEstimate::seats(1);
        }
        let (estimate, watches) = estimate::estimate(request.info, request.query, flow.widest, self);
        flow.statistics.estimated.observe(estimate.max_seats() as f64);
        if let Some(watches) = watches {
            flow.statistics.watches.observe(watches as f64);
        }
        estimate
    }
}

impl Facts for FlowControl {
    fn stock(&self, info: &RequestInfo) -> Option<Stock> {
        let resource = self.registry.find(&info.group, &info.version, &info.resource)?;
        let cache = resource.cache.as_ref()?;
        Some(Stock { objects: cache.len() as u64, size: cache.average_size() as u64 })
    }

    fn watches(&self, info: &RequestInfo) -> u64 {
        self.watches.interested(info)
    }
}

/// Says in an answer how its request was classified.
pub fn mark(headers: &mut HeaderMap, flow: &Flow) {
    headers.insert(&LEVEL_UID, flow.level_uid.clone());
    headers.insert(&SCHEMA_UID, flow.schema_uid.clone());
}
