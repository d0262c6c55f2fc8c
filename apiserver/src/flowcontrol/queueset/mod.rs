//! The fair queues of one priority level (upstream `fairqueuing/queueset`).
//!
//! Pure: a clock reading comes with every call, nothing waits and nothing is spawned. Requests are told what becomes
//! of them through [`Passenger`]. Seats that a request keeps after its handler has ended are given back when the
//! next call finds that their time is over; [`QueueSet::next_release`] says when that is, for callers that have
//! others waiting.
//!
//! Fairness is that of "fair queuing" with seats for bits: a meter R advances by the seat-seconds that each active
//! queue is due. A queue knows at which R its next request would begin (`next_r`) if all queues were served in
//! parallel, and the request that would end first is dispatched first. How long a request takes is guessed when it is
//! dispatched and set right when it has ended.

mod dispatch;
mod dump;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::dealer::Dealer;
use super::demand::Integrator;
use super::ratio::{self, Ratios};
use super::work::{SeatSeconds, WorkEstimate};

pub use dump::{Dump, QueueDump, Row};

/// A reading of the clock: time since any one moment.
pub type Time = Duration;

/// How long a request is expected to take until it is known.
const EXPECTED: Duration = Duration::from_millis(3);

/// What a level does with requests that find no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discipline {
    /// All are served at once.
    Exempt,
    /// They are refused.
    Reject,
    /// They wait in queues.
    Queue(Queuing),
}

/// The queues of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    /// How many.
    pub queues: usize,
    /// How many may wait in each.
    pub length_limit: usize,
    /// Chooses the queue of a flow.
    pub dealer: Dealer,
}

/// A request in the eyes of its level, which tells it what happens.
pub trait Passenger {
    /// It waits, with so many in its queue, itself included.
    fn enqueued(&mut self, _seats: u64, _length: usize) {}
    /// It waits no longer.
    fn left_queue(&mut self, _seats: u64) {}
    /// It has its seats.
    fn dispatched(&mut self, _seats: u64) {}
    /// Its handler has ended.
    fn finished(&mut self) {}
    /// It has given back its seats.
    fn released(&mut self, _seats: u64) {}
    /// Its turn has come, but there are not as many free seats as it needs.
    fn not_accommodated(&mut self) {}
}

/// A request that is waiting, served, or still has seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(usize);

/// What became of a request that has just come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// It has its seats.
    Executing(Ticket),
    /// It waits for them.
    Waiting(Ticket),
    /// There is no place for it.
    Rejected(Rejection),
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// The queue is as long as it may be.
    QueueFull,
    /// All seats are taken, and the level has no queues.
    ConcurrencyLimit,
    /// It has waited as long as it may.
    TimeOut,
}

impl Rejection {
    /// As metrics call it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue-full",
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::TimeOut => "time-out",
        }
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waiting,
    Executing { since: Time },
    Lingering,
}

struct Request<P> {
    passenger: P,
    estimate: WorkEstimate,
    total: SeatSeconds,
    arrival: Time,
    arrival_r: SeatSeconds,
    queue: Option<usize>,
    phase: Phase,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Ticket>,
    /// The sum over those that wait.
    work: SeatSeconds,
    executing: usize,
    seats_in_use: u64,
    next_r: SeatSeconds,
}

impl Queue {
    fn is_active(&self) -> bool {
        !self.waiting.is_empty() || self.executing > 0
    }
}

/// Requests that were counted, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Served.
    pub dispatched: u64,
    /// Refused, for whatever reason.
    pub rejected: u64,
    /// Refused because they had waited too long, or left by themselves.
    pub cancelled: u64,
}

/// The requests of one level.
pub struct QueueSet<P> {
    discipline: Discipline,
    limit: u64,
    queues: Vec<Queue>,
    requests: Vec<Option<Request<P>>>,
    free: Vec<usize>,
    lingering: BinaryHeap<Reverse<(Time, Ticket)>>,
    now: Time,
    r: SeatSeconds,
    /// The queue that was dispatched from last.
    robin: usize,
    /// The queue that a request was put into last.
    newest: usize,
    waiting: usize,
    executing: usize,
    seats_waiting: u64,
    seats_in_use: u64,
    active: usize,
    enqueued: usize,
    counts: Counts,
    demand: Integrator,
    ratios: Ratios,
    meters: Meters,
}

/// Readings for metrics, in seat-seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meters {
    /// R at the last dispatch.
    pub dispatch_r: f64,
    /// Where the request that was dispatched last began.
    pub latest_s: f64,
    /// The least and the greatest beginning of the queues with a waiting request, at the last dispatch.
    pub next_s: (f64, f64),
    /// The same, less the work that is under way.
    pub next_discounted_s: (f64, f64),
}

impl<P: Passenger> QueueSet<P> {
    /// A level with so many seats.
    #[must_use]
    pub fn new(now: Time, discipline: Discipline, limit: u64) -> Self {
        let mut set = Self {
            discipline,
            limit,
            queues: Vec::new(),
            requests: Vec::new(),
            free: Vec::new(),
            lingering: BinaryHeap::new(),
            now,
            r: SeatSeconds::ZERO,
            robin: 0,
            newest: 0,
            waiting: 0,
            executing: 0,
            seats_waiting: 0,
            seats_in_use: 0,
            active: 0,
            enqueued: 0,
            counts: Counts::default(),
            demand: Integrator::new(now),
            ratios: Ratios::new(now),
            meters: Meters::default(),
        };
        set.configure(now, discipline, limit);
        set
    }

    /// Changes the number of seats and what is done when there are none. Queues that are no longer wanted stay until
    /// they are empty.
    pub fn configure(&mut self, now: Time, discipline: Discipline, limit: u64) {
        self.advance(now);
        self.discipline = discipline;
        self.limit = limit;
        if let Discipline::Queue(queuing) = discipline
            && self.queues.len() < queuing.queues
        {
            self.queues.resize_with(queuing.queues, Queue::default);
        }
        self.dispatch();
        self.note();
    }

    /// A request comes in. `hash` says which flow it is of.
    pub fn start(&mut self, now: Time, hash: u64, estimate: WorkEstimate, passenger: P) -> Started {
        self.advance(now);
        let request = Request {
            passenger,
            estimate,
            total: estimate.total_work(EXPECTED),
            arrival: now,
            arrival_r: self.r,
            queue: None,
            phase: Phase::Waiting,
        };
        let Discipline::Queue(queuing) = self.discipline else {
            if !self.can_accommodate(estimate.max_seats()) {
                self.counts.rejected += 1;
                return Started::Rejected(Rejection::ConcurrencyLimit);
            }
            let ticket = self.keep(request);
            self.execute(ticket);
            self.note();
            return Started::Executing(ticket);
        };
        let queue = self.choose(queuing.dealer, hash);
        if self.seats_in_use >= self.limit && self.queues[queue].waiting.len() >= queuing.length_limit {
            self.bound(queue);
            self.counts.rejected += 1;
            return Started::Rejected(Rejection::QueueFull);
        }
        let ticket = self.enqueue(queue, request);
        self.dispatch();
        self.note();
        match self.get(ticket).map(|request| request.phase) {
            Some(Phase::Executing { .. }) => Started::Executing(ticket),
            _ => Started::Waiting(ticket),
        }
    }

    /// The request wants to be no longer here: its handler has ended, or it does not wait any longer. Returns whether
    /// it had been dispatched.
    pub fn leave(&mut self, now: Time, ticket: Ticket) -> bool {
        self.advance(now);
        let Some(phase) = self.get(ticket).map(|request| request.phase) else { return false };
        match phase {
            Phase::Waiting => self.withdraw(ticket),
            Phase::Executing { since } => self.finish(ticket, since),
            Phase::Lingering => {}
        }
        self.dispatch();
        self.note();
        matches!(phase, Phase::Executing { .. })
    }

    /// Brings everything up to a time.
    pub fn advance(&mut self, now: Time) {
        while let Some(Reverse((due, ticket))) = self.lingering.peek().copied()
            && due <= now
        {
            self.lingering.pop();
            self.pass(due);
            self.release(ticket);
            self.dispatch();
            self.note();
        }
        self.pass(now);
    }

    /// When seats will be given back without any call, if somebody waits for them.
    #[must_use]
    pub fn next_release(&self) -> Option<Time> {
        let Reverse((due, _)) = self.lingering.peek()?;
        (self.waiting > 0).then_some(*due)
    }

    /// What the request was made with.
    pub fn passenger_mut(&mut self, ticket: Ticket) -> Option<&mut P> {
        Some(&mut self.requests.get_mut(ticket.0)?.as_mut()?.passenger)
    }

    /// Whether nothing waits and nothing is served.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting == 0 && self.executing == 0
    }

    /// Whether nothing ever waits.
    #[must_use]
    pub fn is_exempt(&self) -> bool {
        self.discipline == Discipline::Exempt
    }

    /// The seats there are.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The demand for seats; see [`Integrator::reset`].
    pub fn demand(&mut self) -> &mut Integrator {
        &mut self.demand
    }

    /// How busy the level was, until now.
    #[must_use]
    pub fn ratios_until(&mut self, now: Time) -> Ratios {
        self.advance(now);
        self.note();
        self.ratios.clone()
    }

    /// R, and readings at the last dispatch.
    #[must_use]
    pub fn meters(&self) -> (f64, Meters) {
        (self.r.as_f64(), self.meters)
    }

    /// Lets time pass in which nothing changes. R advances as fast as a queue is served that gets its due.
    fn pass(&mut self, now: Time) {
        let elapsed = now.saturating_sub(self.now);
        self.now = self.now.max(now);
        if self.active > 0 && !elapsed.is_zero() {
            let wanted = (self.seats_in_use + self.seats_waiting) as f64;
            let rate = wanted.min(self.limit as f64) / self.active as f64;
            self.r += SeatSeconds::of(rate, elapsed.as_nanos() as f64);
        }
    }

    /// Tells the observers of demand and use what they are now.
    fn note(&mut self) {
        let wanted = self.seats_in_use + self.seats_waiting;
        self.demand.set(self.now, wanted as f64);
        let places = match self.discipline {
            Discipline::Queue(queuing) => queuing.queues * queuing.length_limit.max(1),
            _ => 1,
        };
        self.ratios.set(
            self.now,
            ratio::Readings {
                limit: self.limit,
                places: places as u64,
                seats: self.seats_in_use,
                executing: self.executing as u64,
                waiting: self.waiting as u64,
                demand: wanted,
            },
        );
    }

    fn get(&self, ticket: Ticket) -> Option<&Request<P>> {
        self.requests.get(ticket.0)?.as_ref()
    }

    fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Request<P>> {
        self.requests.get_mut(ticket.0)?.as_mut()
    }

    fn keep(&mut self, request: Request<P>) -> Ticket {
        match self.free.pop() {
            Some(place) => {
                self.requests[place] = Some(request);
                Ticket(place)
            }
            None => {
                self.requests.push(Some(request));
                Ticket(self.requests.len() - 1)
            }
        }
    }
}
