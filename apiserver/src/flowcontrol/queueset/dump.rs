//! What can be seen of a level from outside.

use super::{Counts, Passenger, Phase, QueueSet, Request, Time};
use crate::flowcontrol::work::{SeatSeconds, WorkEstimate};

/// A level at one moment.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// Its queues.
    pub queues: Vec<QueueDump>,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are served.
    pub executing: usize,
    /// Ever since.
    pub counts: Counts,
}

/// A queue at one moment.
#[derive(Clone, Debug, Default)]
pub struct QueueDump {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are served.
    pub executing: usize,
    /// Seats that its requests have.
    pub seats_in_use: u64,
    /// Where its next request begins.
    pub next_r: SeatSeconds,
    /// Over those that wait.
    pub initial_seats: u64,
    /// Over those that wait.
    pub max_seats: u64,
    /// Over those that wait.
    pub work: SeatSeconds,
}

/// A request, and where it is.
pub struct Row<'a, P> {
    /// Its queue, if it went through one.
    pub queue: Option<usize>,
    /// Its place among those that wait in the queue.
    pub place: Option<usize>,
    /// What it was made with.
    pub passenger: &'a P,
    /// What it is expected to take.
    pub estimate: WorkEstimate,
    /// When it came.
    pub arrival: Time,
    /// When it was dispatched.
    pub since: Option<Time>,
}

impl<P: Passenger> QueueSet<P> {
    /// Numbers.
    #[must_use]
    pub fn dump(&self) -> Dump {
        let queues = self.queues.iter().map(|queue| {
            let estimates =
                || queue.waiting.iter().filter_map(|ticket| self.get(*ticket)).map(|r| r.estimate);
            QueueDump {
                waiting: queue.waiting.len(),
                executing: queue.executing,
                seats_in_use: queue.seats_in_use,
                next_r: queue.next_r,
                initial_seats: estimates().map(|estimate| estimate.initial_seats).sum(),
                max_seats: estimates().map(|estimate| estimate.max_seats()).sum(),
                work: queue.work,
            }
        });
        let queues = queues.collect();
        Dump { queues, waiting: self.waiting, executing: self.executing, counts: self.counts }
    }

    /// Shows each request that waits or is served: queue by queue, those that wait first, in order; then those that
    /// went through no queue.
    pub fn visit(&self, mut show: impl FnMut(Row<'_, P>)) {
        for (index, queue) in self.queues.iter().enumerate() {
            let waiting = queue.waiting.iter().filter_map(|ticket| self.get(*ticket));
            waiting.enumerate().for_each(|(place, request)| show(row(request, Some(place))));
            self.executing_of(Some(index)).for_each(|request| show(row(request, None)));
        }
        self.executing_of(None).for_each(|request| show(row(request, None)));
    }

    fn executing_of(&self, queue: Option<usize>) -> impl Iterator<Item = &Request<P>> {
        let all = self.requests.iter().flatten();
        all.filter(move |request| request.queue == queue && matches!(request.phase, Phase::Executing { .. }))
    }
}

fn row<P>(request: &Request<P>, place: Option<usize>) -> Row<'_, P> {
    Row {
        queue: request.queue,
        place,
        passenger: &request.passenger,
        estimate: request.estimate,
        arrival: request.arrival,
        since: match request.phase {
            Phase::Executing { since } => Some(since),
            _ => None,
        },
    }
}
