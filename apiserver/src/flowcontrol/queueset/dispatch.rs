//! Who is next, and what that changes.

use std::cmp::Reverse;

use super::{Discipline, EXPECTED, Meters, Passenger, Phase, Queue, QueueSet, Request, Ticket, Time};
use crate::flowcontrol::dealer::Dealer;
use crate::flowcontrol::work::SeatSeconds;

impl<P: Passenger> QueueSet<P> {
    /// The queue of a flow's hand with the least work waiting. Hands are looked at from another card on each time, so
    /// that flows whose hands overlap do not all prefer the same queue.
    pub(super) fn choose(&mut self, dealer: Dealer, hash: u64) -> usize {
        let hand = dealer.deal(hash);
        let cards = hand.cards();
        let offset = self.enqueued % cards.len();
        self.enqueued = self.enqueued.wrapping_add(1);
        let mut best = (cards[offset], SeatSeconds::MAX);
        for i in 0..cards.len() {
            let card = cards[(offset + i) % cards.len()];
            let work = self.queues[card].work;
            if work < best.1 {
                best = (card, work);
            }
        }
        best.0
    }

    pub(super) fn enqueue(&mut self, queue: usize, mut request: Request<P>) -> Ticket {
        let (seats, total) = (request.estimate.max_seats(), request.total);
        request.queue = Some(queue);
        let ticket = self.keep(request);
        let now_r = self.r;
        let own = &mut self.queues[queue];
        if !own.is_active() {
            own.next_r = now_r;
            self.active += 1;
        }
        own.waiting.push_back(ticket);
        own.work += total;
        let length = own.waiting.len();
        self.waiting += 1;
        self.seats_waiting += seats;
        if let Some(passenger) = self.passenger_mut(ticket) {
            passenger.enqueued(seats, length);
        }
        self.bound(queue);
        self.newest = queue;
        ticket
    }

    /// Dispatches until no seat is free, nobody waits, or who is next needs more seats than there are.
    pub(super) fn dispatch(&mut self) {
        while self.waiting > 0 && self.seats_in_use < self.limit && self.dispatch_one() {}
    }

    fn dispatch_one(&mut self) -> bool {
        let Some(ticket) = self.next() else { return false };
        let Some(request) = self.get_mut(ticket) else { return false };
        let (seats, total, queue) = (request.estimate.max_seats(), request.total, request.queue);
        request.passenger.left_queue(seats);
        self.waiting -= 1;
        self.seats_waiting -= seats;
        if let Some(queue) = queue {
            let own = &mut self.queues[queue];
            own.executing += 1;
            own.next_r += total;
            self.bound(queue);
        }
        self.narrow(ticket);
        self.execute(ticket);
        true
    }

    /// Takes the request out of its queue that would end first. `None` if there is none, or it has to go on waiting.
    pub(super) fn next(&mut self) -> Option<Ticket> {
        let (index, ticket) = self.first_to_end()?;
        let seats = self.get(ticket)?.estimate.max_seats();
        if !self.can_accommodate(seats) {
            self.passenger_mut(ticket)?.not_accommodated();
            return None;
        }
        self.robin = index;
        let total = self.get(ticket)?.total;
        let queue = &mut self.queues[index];
        queue.waiting.pop_front();
        queue.work -= total;
        self.meters.dispatch_r = self.r.as_f64();
        self.meters.latest_s = queue.next_r.as_f64();
        Some(ticket)
    }

    /// The queue whose first request would end first if all were served in parallel, beginning after the queue that
    /// was served last.
    fn first_to_end(&mut self) -> Option<(usize, Ticket)> {
        let count = self.queues.len();
        // Mostly there is just the request that has come in right now.
        let start = if self.waiting == 1 { self.newest + count - 1 } else { self.robin };
        let mut best: Option<(usize, Ticket, SeatSeconds)> = None;
        let mut bounds = Bounds::default();
        let mut left = self.waiting;
        for step in 1..=count {
            let index = (start + step) % count;
            let queue = &self.queues[index];
            let Some(ticket) = queue.waiting.front().copied() else { continue };
            left -= queue.waiting.len();
            bounds.see(queue);
            let total = self.get(ticket).map_or(SeatSeconds::ZERO, |request| request.total);
            let end = queue.next_r + total;
            if best.is_none_or(|(_, _, least)| end < least) {
                best = Some((index, ticket, end));
            }
            if left == 0 {
                break;
            }
        }
        let (index, ticket, _) = best?;
        bounds.tell(&mut self.meters);
        Some((index, ticket))
    }

    /// Whether a request of so many seats can have them now. One that is wider than the level is served alone.
    pub(super) fn can_accommodate(&self, seats: u64) -> bool {
        if self.discipline == Discipline::Exempt {
            return true;
        }
        if seats > self.limit { self.executing == 0 } else { self.seats_in_use + seats <= self.limit }
    }

    /// What remains to be done after the handler is done by no more seats than there are, for longer.
    fn narrow(&mut self, ticket: Ticket) {
        let limit = self.limit;
        let Some(request) = self.get_mut(ticket) else { return };
        let before = request.estimate;
        if before.final_seats <= limit || limit == 0 {
            return;
        }
        request.estimate.final_seats = limit;
        request.estimate.additional_latency = before.final_work().spread_over(limit);
    }

    pub(super) fn execute(&mut self, ticket: Ticket) {
        let now = self.now;
        let Some(request) = self.get_mut(ticket) else { return };
        request.phase = Phase::Executing { since: now };
        let (seats, queue) = (request.estimate.max_seats(), request.queue);
        request.passenger.dispatched(seats);
        if let Some(queue) = queue {
            self.queues[queue].seats_in_use += seats;
        }
        self.executing += 1;
        self.seats_in_use += seats;
        self.counts.dispatched += 1;
    }

    pub(super) fn finish(&mut self, ticket: Ticket, since: Time) {
        let now = self.now;
        let Some(request) = self.get_mut(ticket) else { return };
        request.phase = Phase::Lingering;
        request.passenger.finished();
        let (estimate, queue) = (request.estimate, request.queue);
        self.executing -= 1;
        if let Some(queue) = queue {
            let took = now.saturating_sub(since).as_nanos() as f64;
            let own = &mut self.queues[queue];
            own.executing -= 1;
            // The queue was charged for what was expected: charge it for what it was.
            own.next_r -= SeatSeconds::of(estimate.initial_seats as f64, EXPECTED.as_nanos() as f64 - took);
            let ended = !own.is_active();
            self.active -= usize::from(ended);
            self.bound(queue);
        }
        if estimate.additional_latency.is_zero() {
            self.release(ticket);
        } else {
            self.lingering.push(Reverse((now + estimate.additional_latency, ticket)));
        }
    }

    pub(super) fn release(&mut self, ticket: Ticket) {
        let Some(mut request) = self.requests.get_mut(ticket.0).and_then(Option::take) else { return };
        self.free.push(ticket.0);
        let seats = request.estimate.max_seats();
        request.passenger.released(seats);
        self.seats_in_use -= seats;
        if let Some(queue) = request.queue {
            self.queues[queue].seats_in_use -= seats;
            self.drop_if_unwanted(queue);
        }
    }

    /// Takes a request out that does not wait any longer.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        let Some(mut request) = self.requests.get_mut(ticket.0).and_then(Option::take) else { return };
        self.free.push(ticket.0);
        let seats = request.estimate.max_seats();
        request.passenger.left_queue(seats);
        self.waiting -= 1;
        self.seats_waiting -= seats;
        self.counts.rejected += 1;
        self.counts.cancelled += 1;
        if let Some(queue) = request.queue {
            let own = &mut self.queues[queue];
            own.waiting.retain(|other| *other != ticket);
            own.work -= request.total;
            let ended = !own.is_active();
            self.active -= usize::from(ended);
            self.bound(queue);
            self.drop_if_unwanted(queue);
        }
    }

    /// A queue that could not use what it was due must not catch up later: its next request begins no earlier than
    /// it came (upstream's "anti-windup").
    pub(super) fn bound(&mut self, queue: usize) {
        let Some(first) = self.queues[queue].waiting.front().copied() else { return };
        let Some(arrival) = self.get(first).map(|request| request.arrival_r) else { return };
        let own = &mut self.queues[queue];
        own.next_r = own.next_r.max(arrival);
    }

    /// Takes out a queue that is one too many, once it is empty.
    fn drop_if_unwanted(&mut self, queue: usize) {
        let wanted = match self.discipline {
            Discipline::Queue(queuing) => queuing.queues,
            _ => 0,
        };
        if self.queues.len() <= wanted || self.queues[queue].is_active() {
            return;
        }
        self.queues.remove(queue);
        for request in self.requests.iter_mut().flatten() {
            request.queue = match request.queue {
                Some(other) if other == queue => None,
                Some(other) if other > queue => Some(other - 1),
                other => other,
            };
        }
        if self.robin >= queue {
            self.robin = self.robin.saturating_sub(1);
        }
    }
}

/// Over the queues with a waiting request.
#[derive(Default)]
struct Bounds {
    next: Option<(SeatSeconds, SeatSeconds)>,
    discounted: Option<(SeatSeconds, SeatSeconds)>,
}

impl Bounds {
    fn see(&mut self, queue: &Queue) {
        let widen = |bounds: &mut Option<(SeatSeconds, SeatSeconds)>, value: SeatSeconds| {
            let (least, most) = bounds.unwrap_or((value, value));
            *bounds = Some((least.min(value), most.max(value)));
        };
        widen(&mut self.next, queue.next_r);
        widen(&mut self.discounted, queue.next_r - SeatSeconds::taking(queue.seats_in_use, EXPECTED));
    }

    fn tell(&self, meters: &mut Meters) {
        let floats = |bounds: Option<(SeatSeconds, SeatSeconds)>| {
            bounds.map_or((0.0, 0.0), |(least, most)| (least.as_f64(), most.as_f64()))
        };
        meters.next_s = floats(self.next);
        meters.next_discounted_s = floats(self.discounted);
    }
}
