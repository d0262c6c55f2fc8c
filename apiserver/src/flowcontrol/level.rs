//! A priority level at work: requests take seats, wait for them, and give them back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1::FlowSchemaSpec;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::limits::{Limits, Settings};
use super::queueset::{Discipline, Passenger, QueueSet, Rejection, Started, Ticket, Time};
use super::retry_after::RetryAfter;
use super::statistics::{Statistics, add};
use super::work::WorkEstimate;
use crate::authn::User;
use crate::request::RequestInfo;

/// The requests that a schema sends to a level. Made anew when the configuration changes; the statistics stay.
pub struct Flow {
    /// Name of the FlowSchema.
    pub schema: String,
    /// What is said of the schema in answers: its uid.
    pub schema_uid: HeaderValue,
    /// What is said of the level in answers: its uid.
    pub level_uid: HeaderValue,
    /// What the schema says.
    pub spec: FlowSchemaSpec,
    /// Which requests of the schema belong together.
    pub distinguisher: Distinguisher,
    /// The most seats that a request may take; 0 if that is not limited.
    pub widest: u64,
    /// Where the requests go.
    pub level: Arc<Level>,
    /// What was counted of them.
    pub statistics: Arc<Statistics>,
}

/// What tells flows apart within a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distinguisher {
    /// Nothing: all is one flow.
    None,
    /// Who asks.
    User,
    /// The namespace.
    Namespace,
}

/// What the dump of requests shows of one. It costs two counters while nobody looks.
pub struct Details {
    /// Who asks.
    pub user: Arc<User>,
    /// What for.
    pub info: Arc<RequestInfo>,
}

/// A request as its level knows it.
pub struct Rider {
    /// Its flow.
    pub flow: Arc<Flow>,
    /// Who asks for what.
    pub details: Details,
    wake: Option<oneshot::Sender<()>>,
}

impl Rider {
    /// What tells its flow apart from others of the schema.
    #[must_use]
    pub fn distinguisher(&self) -> &str {
        distinguisher(&self.flow, &self.details)
    }
}

/// What tells a request's flow apart from others of the schema.
#[must_use]
pub fn distinguisher<'a>(flow: &Flow, details: &'a Details) -> &'a str {
    match flow.distinguisher {
        Distinguisher::None => "",
        Distinguisher::User => &details.user.name,
        Distinguisher::Namespace => &details.info.namespace,
    }
}

impl Passenger for Rider {
    fn enqueued(&mut self, seats: u64, length: usize) {
        add(&self.flow.statistics.waiting, 1);
        add(&self.flow.statistics.seats_waiting, seats as i64);
        self.flow.statistics.queue_length.observe(length as f64);
    }

    fn left_queue(&mut self, seats: u64) {
        add(&self.flow.statistics.waiting, -1);
        add(&self.flow.statistics.seats_waiting, -(seats as i64));
    }

    fn dispatched(&mut self, seats: u64) {
        add(&self.flow.statistics.executing, 1);
        add(&self.flow.statistics.seats, seats as i64);
        self.flow.statistics.dispatched.fetch_add(1, Ordering::Relaxed);
        if let Some(wake) = self.wake.take() {
            // Whoever has gone meanwhile leaves the level by itself.
            let _ = wake.send(());
        }
    }

    fn finished(&mut self) {
        add(&self.flow.statistics.executing, -1);
    }

    fn released(&mut self, seats: u64) {
        add(&self.flow.statistics.seats, -(seats as i64));
    }

    fn not_accommodated(&mut self) {
        self.flow.statistics.not_accommodated.fetch_add(1, Ordering::Relaxed);
    }
}

/// A priority level.
pub struct Level {
    /// Its name.
    pub name: String,
    began: Instant,
    set: Mutex<QueueSet<Rider>>,
    refusals: Mutex<RetryAfter>,
    /// Told when somebody waits for seats that come back by themselves.
    waits: Arc<Notify>,
}

impl Level {
    /// A level that begins with the seats that its limits say.
    #[must_use]
    pub fn new(name: &str, settings: &Settings, limits: &Limits, waits: Arc<Notify>) -> Self {
        Self {
            name: name.to_owned(),
            began: Instant::now(),
            set: Mutex::new(QueueSet::new(Time::ZERO, settings.discipline, limits.initial())),
            refusals: Mutex::default(),
            waits,
        }
    }

    /// The level's clock.
    #[must_use]
    pub fn now(&self) -> Time {
        self.began.elapsed()
    }

    /// Looks at the queues, or changes them.
    pub fn with<R>(&self, work: impl FnOnce(&mut QueueSet<Rider>, Time) -> R) -> R {
        let mut set = self.set.lock();
        // Read with the lock held: the clock of a set never goes back.
        let now = self.now();
        set.advance(now);
        let result = work(&mut set, now);
        drop(set);
        result
    }

    /// What is done with requests that find no seat, and how many seats there are.
    pub fn configure(&self, discipline: Discipline, seats: u64) {
        self.with(|set, now| set.configure(now, discipline, seats));
        self.waits.notify_one();
    }

    /// Gives back seats whose time is over; says when the next ones come back that somebody waits for.
    pub fn turn(&self) -> Option<Instant> {
        self.with(|set, _| set.next_release()).map(|due| self.began + due)
    }

    /// Says, in seconds, when a request that has just been refused is to come back.
    pub fn retry_after(&self) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.refusals.lock().refused(now)
    }
}

/// Seats, until this is dropped.
pub struct Seat {
    flow: Arc<Flow>,
    ticket: Ticket,
    since: Instant,
    watch: bool,
    limited: bool,
}

impl Seat {
    /// Whether it is of a level that limits its requests.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.limited
    }
}

/// A place in a queue.
struct Place {
    flow: Arc<Flow>,
    ticket: Option<Ticket>,
    turn: oneshot::Receiver<()>,
}

/// What a request asks of its level.
pub struct Asked<'a> {
    /// Its flow.
    pub flow: &'a Arc<Flow>,
    /// Who asks for what.
    pub details: Details,
    /// Which queues are those of its flow.
    pub hash: u64,
    /// What it is expected to take.
    pub estimate: WorkEstimate,
    /// How long it may wait.
    pub patience: Duration,
}

/// Takes seats; waits for them if need be.
pub async fn take_seats(asked: Asked<'_>) -> Result<Seat, Rejection> {
    let Asked { flow, details, hash, estimate, patience } = asked;
    let watch = details.info.verb == "watch";
    let came = Instant::now();
    let entered = flow.level.enter(flow, details, hash, estimate);
    let limited = !matches!(entered, Entered::Seated { exempt: true, .. });
    let seat = |ticket| Seat { flow: Arc::clone(flow), ticket, since: Instant::now(), watch, limited };
    let outcome = match entered {
        Entered::Seated { ticket, .. } => Ok(seat(ticket)),
        Entered::Refused(why) => Err(why),
        Entered::Waits(mut place) => match tokio::time::timeout_at(came + patience, &mut place.turn).await {
            Ok(Ok(())) => place.ticket.take().map(seat),
            _ => place.give_up().map(seat),
        }
        .ok_or(Rejection::TimeOut),
    };
    let statistics = &flow.statistics;
    match &outcome {
        Ok(_) if limited => statistics.waited.observe(came.elapsed().as_secs_f64()),
        Ok(_) => {}
        Err(why) => {
            statistics.reject(*why);
            statistics.waited_in_vain.observe(came.elapsed().as_secs_f64());
        }
    }
    outcome
}

enum Entered {
    Seated { ticket: Ticket, exempt: bool },
    Waits(Place),
    Refused(Rejection),
}

impl Level {
    fn enter(&self, flow: &Arc<Flow>, details: Details, hash: u64, estimate: WorkEstimate) -> Entered {
        let rider = Rider { flow: Arc::clone(flow), details, wake: None };
        let mut set = self.set.lock();
        let now = self.now();
        let entered = match set.start(now, hash, estimate, rider) {
            Started::Executing(ticket) => Entered::Seated { ticket, exempt: set.is_exempt() },
            Started::Rejected(why) => Entered::Refused(why),
            Started::Waiting(ticket) => {
                let (wake, turn) = oneshot::channel();
                if let Some(rider) = set.passenger_mut(ticket) {
                    rider.wake = Some(wake);
                }
                Entered::Waits(Place { flow: Arc::clone(flow), ticket: Some(ticket), turn })
            }
        };
        let lingers = set.next_release().is_some();
        drop(set);
        if lingers {
            self.waits.notify_one();
        }
        entered
    }

    fn leave(&self, ticket: Ticket) -> bool {
        let mut set = self.set.lock();
        let now = self.now();
        let served = set.leave(now, ticket);
        let lingers = set.next_release().is_some();
        drop(set);
        if lingers {
            self.waits.notify_one();
        }
        served
    }
}

impl Place {
    /// Waits no longer. The ticket comes back if it was this one's turn just now.
    fn give_up(&mut self) -> Option<Ticket> {
        let ticket = self.ticket.take()?;
        if self.turn.try_recv().is_ok() {
            return Some(ticket);
        }
        self.flow.level.leave(ticket);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The client has gone: its place, or its seats, are for others.
        if let Some(ticket) = self.ticket.take() {
            self.flow.statistics.reject(Rejection::TimeOut);
            self.flow.level.leave(ticket);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flow.level.leave(self.ticket);
        self.flow.statistics.executed(self.since.elapsed(), self.watch);
    }
}

/// Everything that one level has, and what its object says.
pub struct Entry {
    /// The level.
    pub level: Arc<Level>,
    /// What its object says.
    pub settings: Settings,
    /// The uid of its object; empty if there is none.
    pub uid: String,
    /// Its seats.
    pub limits: Limits,
    /// Its demand, smoothed.
    pub demand: super::demand::Demand,
    /// What it was aiming at when seats were divided last.
    pub target: f64,
    /// Whether it has no object any more, and only ends what it has begun.
    pub quiescing: bool,
}
