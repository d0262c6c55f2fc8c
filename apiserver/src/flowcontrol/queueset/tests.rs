//! Single steps of a set of queues; whole stories are in `scenarios`.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use super::*;

fn seconds(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

fn one_queue(length_limit: usize) -> Discipline {
    queued(1, length_limit)
}

fn queued(queues: usize, length_limit: usize) -> Discipline {
    Discipline::Queue(Queuing { queues, length_limit, dealer: Dealer::new(queues, 1).expect("possible") })
}

/// Writes down what it is told.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Vec<String>>>, &'static str);

impl Told {
    fn named(&self, name: &'static str) -> Self {
        Self(Rc::clone(&self.0), name)
    }

    fn note(&self, text: String) {
        self.0.borrow_mut().push(format!("{} {text}", self.1));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.borrow_mut())
    }
}

impl Passenger for Told {
    fn enqueued(&mut self, seats: u64, length: usize) {
        self.note(format!("enqueued {seats} of {length}"));
    }

    fn left_queue(&mut self, _: u64) {
        self.note("left".to_owned());
    }

    fn dispatched(&mut self, seats: u64) {
        self.note(format!("dispatched {seats}"));
    }

    fn finished(&mut self) {
        self.note("finished".to_owned());
    }

    fn released(&mut self, seats: u64) {
        self.note(format!("released {seats}"));
    }

    fn not_accommodated(&mut self) {
        self.note("blocked".to_owned());
    }
}

fn ticket(started: Started) -> Ticket {
    match started {
        Started::Executing(ticket) | Started::Waiting(ticket) => ticket,
        Started::Rejected(why) => panic!("rejected: {why:?}"),
    }
}

// After upstream's TestFindDispatchQueueLocked.
#[test]
fn the_request_that_would_end_first_is_next() {
    // (where the queue begins, seats of its request)...; seats of the level, seats in use at each attempt; the queue.
    type Case<'a> = (&'a [(u64, u64)], u64, &'a [(u64, Option<usize>)]);
    let cases: [Case<'_>; 5] = [
        (&[(200, 1), (100, 1)], 1, &[(0, Some(1))]),
        (&[(200, 1)], 1, &[(1, None)]),
        (&[(200, 50), (100, 25)], 50, &[(25, Some(1))]),
        (&[(200, 10), (100, 25)], 50, &[(26, None), (26, None), (26, None)]),
        (&[(200, 10), (100, 25)], 50, &[(26, None), (26, None), (25, Some(1))]),
    ];
    for (queues, limit, attempts) in cases {
        let mut set = QueueSet::new(Time::ZERO, queued(queues.len(), 10), 0);
        for (i, (begins, seats)) in queues.iter().enumerate() {
            set.start(Time::ZERO, i as u64, WorkEstimate::seats(*seats), Told::default());
            set.queues[i].next_r = SeatSeconds::taking(1, seconds(*begins));
        }
        set.limit = limit;
        for (in_use, expected) in attempts {
            set.seats_in_use = *in_use;
            let next = set.next().and_then(|ticket| set.get(ticket)?.queue);
            assert_eq!(next, *expected, "{queues:?} with {in_use} of {limit} in use");
        }
    }
}

// After upstream's TestFinishRequestLocked.
#[test]
fn seats_are_given_back_when_their_time_is_over() {
    let told = Told::default();
    let mut set = QueueSet::new(Time::ZERO, one_queue(10), 30);
    let other = set.start(Time::ZERO, 0, WorkEstimate::seats(5), told.named("other"));
    let estimate =
        WorkEstimate { initial_seats: 1, final_seats: 10, additional_latency: Duration::from_secs(60) };
    let lingers = ticket(set.start(Time::ZERO, 0, estimate, told.named("lingers")));
    let ends = ticket(set.start(Time::ZERO, 0, WorkEstimate::seats(10), told.named("ends")));
    assert!(matches!(other, Started::Executing(_)));
    assert_eq!((set.executing, set.seats_in_use), (3, 25));
    assert!(set.leave(seconds(1), ends));
    assert_eq!((set.executing, set.seats_in_use), (2, 15));
    told.take();
    assert!(set.leave(seconds(1), lingers));
    assert_eq!((set.executing, set.seats_in_use, set.queues[0].seats_in_use), (1, 15, 15));
    assert_eq!(told.take(), ["lingers finished"]);
    assert_eq!(set.next_release(), None, "nobody waits for it");
    set.advance(seconds(61) - Duration::from_nanos(1));
    assert_eq!(set.seats_in_use, 15);
    set.advance(seconds(61));
    assert_eq!((set.seats_in_use, set.queues[0].seats_in_use), (5, 5));
    assert_eq!(told.take(), ["lingers released 10"]);
    assert!(!set.leave(seconds(61), lingers), "it has left before");
}

#[test]
fn who_waits_is_dispatched_when_lingering_seats_come_back() {
    let told = Told::default();
    let mut set = QueueSet::new(Time::ZERO, one_queue(10), 1);
    let estimate = WorkEstimate { final_seats: 1, additional_latency: seconds(2), ..WorkEstimate::seats(1) };
    let first = ticket(set.start(Time::ZERO, 0, estimate, told.named("first")));
    set.leave(seconds(1), first);
    let second = set.start(seconds(2), 0, WorkEstimate::seats(1), told.named("second"));
    assert!(matches!(second, Started::Waiting(_)));
    assert_eq!(set.next_release(), Some(seconds(3)));
    told.take();
    set.advance(seconds(3));
    assert_eq!(told.take(), ["first released 1", "second left", "second dispatched 1"]);
}

// After upstream's TestContextCancel.
#[test]
fn who_does_not_wait_any_longer_leaves_the_queue() {
    let told = Told::default();
    let mut set = QueueSet::new(Time::ZERO, queued(11, 11), 1);
    let first = ticket(set.start(Time::ZERO, 1, WorkEstimate::seats(1), told.named("one")));
    assert_eq!(told.take(), ["one enqueued 1 of 1", "one left", "one dispatched 1"]);
    let second = set.start(Time::ZERO, 2, WorkEstimate::seats(1), told.named("two"));
    assert!(matches!(second, Started::Waiting(_)));
    assert_eq!(told.take(), ["two enqueued 1 of 1"]);
    assert!(!set.leave(seconds(1), ticket(second)));
    assert_eq!(told.take(), ["two left"]);
    assert!(!set.is_idle());
    assert!(set.leave(seconds(2), first));
    assert!(set.is_idle());
    let counts = set.counts();
    assert_eq!((counts.dispatched, counts.rejected, counts.cancelled), (1, 1, 1));
}

#[test]
fn a_queue_takes_only_so_many() {
    let mut set = QueueSet::new(Time::ZERO, one_queue(2), 1);
    let mut start = |now| set.start(seconds(now), 0, WorkEstimate::seats(1), Told::default());
    let first = start(0);
    assert!(matches!(first, Started::Executing(_)));
    assert!(matches!(start(0), Started::Waiting(_)) && matches!(start(0), Started::Waiting(_)));
    assert_eq!(start(0), Started::Rejected(Rejection::QueueFull));
    set.leave(seconds(1), ticket(first));
    let after = set.start(seconds(1), 0, WorkEstimate::seats(1), Told::default());
    assert!(matches!(after, Started::Waiting(_)), "one place is free again");
}

#[test]
fn a_request_wider_than_the_level_is_served_alone() {
    let told = Told::default();
    let mut set = QueueSet::new(Time::ZERO, one_queue(9), 2);
    let small = ticket(set.start(Time::ZERO, 0, WorkEstimate::seats(1), told.named("small")));
    let estimate =
        WorkEstimate { initial_seats: 1, final_seats: 8, additional_latency: Duration::from_millis(5) };
    let wide = ticket(set.start(Time::ZERO, 0, estimate, told.named("wide")));
    assert_eq!(told.take().last().map(String::as_str), Some("wide blocked"));
    set.leave(seconds(1), small);
    // Its work after the answer is done by as many seats as there are, for longer.
    assert_eq!(told.take().last().map(String::as_str), Some("wide dispatched 2"));
    let behind = set.start(seconds(1), 0, WorkEstimate::seats(1), told.named("behind"));
    assert!(matches!(behind, Started::Waiting(_)));
    set.leave(seconds(1), wide);
    assert_eq!(set.next_release(), Some(seconds(1) + Duration::from_millis(20)));
    set.advance(seconds(2));
    assert_eq!(set.seats_in_use, 1);
}

#[test]
fn queues_too_many_go_when_they_are_empty() {
    let mut set = QueueSet::new(Time::ZERO, queued(3, 9), 1);
    let mut tickets = Vec::new();
    for hash in [0, 1, 2, 2] {
        tickets.push(ticket(set.start(Time::ZERO, hash, WorkEstimate::seats(1), Told::default())));
    }
    set.configure(Time::ZERO, queued(1, 9), 1);
    assert_eq!(set.queues.len(), 3);
    for (now, left) in (1..).zip([2, 2, 1, 1]) {
        let running = tickets.iter().copied().find(|ticket| {
            matches!(set.get(*ticket).map(|request| request.phase), Some(Phase::Executing { .. }))
        });
        assert!(set.leave(seconds(now), running.expect("one is served")));
        assert!(set.queues.len() >= left, "after {now}");
    }
    assert_eq!((set.queues.len(), set.waiting, set.active), (1, 0, 0));
}

#[test]
fn more_seats_are_used_at_once() {
    let told = Told::default();
    let mut set = QueueSet::new(Time::ZERO, one_queue(9), 1);
    for name in ["a", "b", "c"] {
        set.start(Time::ZERO, 0, WorkEstimate::seats(1), told.named(name));
    }
    told.take();
    set.configure(seconds(1), one_queue(9), 3);
    assert_eq!(told.take(), ["b left", "b dispatched 1", "c left", "c dispatched 1"]);
}
