//! Clients with many threads each, over simulated time: does each get the seats it is due? The cases are those of
//! upstream's `queueset_test.go`.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use super::{Dealer, Discipline, Passenger, QueueSet, Queuing, Started, Ticket, Time, WorkEstimate};
use crate::flowcontrol::demand::Integrator;

const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);

/// Threads that ask, think, and ask again.
#[derive(Clone, Copy)]
struct Client {
    hash: u64,
    threads: u64,
    calls: u64,
    takes: Duration,
    /// In nanoseconds; less than zero if the next call comes before the answer.
    thinks: i64,
    /// Half of the threads begin in the middle.
    split: bool,
    estimate: WorkEstimate,
}

impl Client {
    fn new(hash: u64, threads: u64, calls: u64, takes: Duration, thinks: Duration) -> Self {
        let estimate = WorkEstimate { final_seats: 1, ..WorkEstimate::seats(1) };
        Self { hash, threads, calls, takes, thinks: thinks.as_nanos() as i64, split: false, estimate }
    }

    fn wide(mut self, seats: u64) -> Self {
        self.estimate.initial_seats = seats;
        self
    }

    fn padded(mut self, final_seats: u64, additional_latency: Duration) -> Self {
        self.estimate = WorkEstimate { final_seats, additional_latency, ..self.estimate };
        self
    }

    fn hasty(mut self) -> Self {
        self.thinks = -1;
        self
    }

    fn split(mut self) -> Self {
        self.split = true;
        self
    }

    fn wants(&self, threads: u64) -> f64 {
        let takes = self.takes.as_nanos() as f64;
        (threads * self.estimate.initial_seats) as f64 * takes / (takes + self.thinks as f64)
    }
}

type Call = (usize, u64, u64);

/// Says when it is dispatched.
struct Caller {
    call: Call,
    dispatched: Rc<RefCell<Vec<Call>>>,
}

impl Passenger for Caller {
    fn dispatched(&mut self, _: u64) {
        self.dispatched.borrow_mut().push(self.call);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Calls(Call),
    Ends(Call),
    WantsNoMore(u64),
}

struct Simulation {
    clients: Vec<Client>,
    set: QueueSet<Caller>,
    dispatched: Rc<RefCell<Vec<Call>>>,
    tickets: HashMap<Call, Ticket>,
    agenda: BinaryHeap<Reverse<(Time, u64, Happening)>>,
    steps: u64,
    seats: Vec<Integrator>,
    in_use: Vec<u64>,
    demand: Integrator,
    wanted: u64,
    refused: u64,
}

impl Simulation {
    fn new(clients: &[Client], discipline: Discipline, limit: u64, span: Duration) -> Self {
        let mut simulation = Self {
            set: QueueSet::new(Time::ZERO, discipline, limit),
            dispatched: Rc::default(),
            tickets: HashMap::new(),
            agenda: BinaryHeap::new(),
            steps: 0,
            seats: vec![Integrator::new(Time::ZERO); clients.len()],
            in_use: vec![0; clients.len()],
            demand: Integrator::new(Time::ZERO),
            wanted: 0,
            refused: 0,
            clients: clients.to_vec(),
        };
        for (i, client) in clients.iter().enumerate() {
            for thread in 0..client.threads {
                let late = client.split && thread >= client.threads / 2;
                let delay = Duration::from_nanos(90 * thread + 20 * i as u64);
                // Whoever begins late ends after half as many calls.
                let first = if late { client.calls / 2 } else { 0 };
                let at = if late { delay + span / 2 } else { delay };
                simulation.plan(at, Happening::Calls((i, thread, first)));
            }
        }
        simulation
    }

    fn plan(&mut self, at: Time, what: Happening) {
        self.steps += 1;
        self.agenda.push(Reverse((at, self.steps, what)));
    }

    fn run(&mut self, until: Time) {
        loop {
            let next = self.agenda.peek().map(|Reverse((at, ..))| *at);
            let release = self.set.next_release();
            let Some(at) = next.into_iter().chain(release).min().filter(|at| *at <= until) else { break };
            if next == Some(at) {
                let Some(Reverse((_, _, what))) = self.agenda.pop() else { break };
                self.happen(at, what);
            } else {
                self.set.advance(at);
            }
            self.follow(at);
        }
    }

    fn happen(&mut self, now: Time, what: Happening) {
        match what {
            Happening::Calls(call @ (i, _, k)) => {
                let client = self.clients[i];
                if k >= client.calls {
                    return;
                }
                self.want(now, client.estimate.max_seats() as i64);
                let caller = Caller { call, dispatched: Rc::clone(&self.dispatched) };
                match self.set.start(now, client.hash, client.estimate, caller) {
                    Started::Executing(ticket) | Started::Waiting(ticket) => {
                        self.tickets.insert(call, ticket);
                    }
                    Started::Rejected(_) => {
                        self.refused += 1;
                        self.want(now, -(client.estimate.max_seats() as i64));
                    }
                }
            }
            Happening::Ends(call) => {
                let client = self.clients[call.0];
                let ticket = self.tickets.remove(&call).expect("it was dispatched");
                assert!(self.set.leave(now, ticket));
                self.use_seats(now, call.0, -(client.estimate.initial_seats as i64));
                let over = now + client.estimate.additional_latency;
                self.plan(over, Happening::WantsNoMore(client.estimate.max_seats()));
            }
            Happening::WantsNoMore(seats) => self.want(now, -(seats as i64)),
        }
    }

    /// Those who were dispatched have a next call and an end.
    fn follow(&mut self, now: Time) {
        let dispatched = std::mem::take(&mut *self.dispatched.borrow_mut());
        for (i, thread, k) in dispatched {
            let client = self.clients[i];
            self.use_seats(now, i, client.estimate.initial_seats as i64);
            let ends = now + client.takes;
            let calls = (ends.as_nanos() as i64 + client.thinks) as u64;
            self.plan(Duration::from_nanos(calls), Happening::Calls((i, thread, k + 1)));
            self.plan(ends, Happening::Ends((i, thread, k)));
        }
    }

    fn want(&mut self, now: Time, seats: i64) {
        self.wanted = self.wanted.checked_add_signed(seats).expect("not below zero");
        self.demand.set(now, self.wanted as f64);
    }

    fn use_seats(&mut self, now: Time, client: usize, seats: i64) {
        self.in_use[client] = self.in_use[client].checked_add_signed(seats).expect("not below zero");
        self.seats[client].set(now, self.in_use[client] as f64);
    }
}

/// Gives out `capacity` so that nobody gets more than is wanted, and nobody less than another who wants as much.
fn fair(wants: &[f64], capacity: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by(|a, b| wants[*a].total_cmp(&wants[*b]));
    let (mut shares, mut left) = (vec![0.0; wants.len()], capacity);
    for (done, i) in order.iter().enumerate() {
        shares[*i] = wants[*i].min(left / (wants.len() - done) as f64);
        left -= shares[*i];
    }
    shares
}

/// Clients, seats, and what is expected of each part of the time.
struct Scenario<'a> {
    name: &'a str,
    clients: &'a [Client],
    discipline: Discipline,
    limit: u64,
    span: Duration,
    /// Whether the shares are within this margin of what is due.
    expected: &'a [(bool, f64)],
    /// What is due, if not a fair share.
    averages: Option<&'a [f64]>,
    refusals: bool,
}

impl Scenario<'_> {
    fn check(&self) {
        let mut simulation = Simulation::new(self.clients, self.discipline, self.limit, self.span);
        let parts = self.expected.len() as u32;
        for (part, expected) in (1..).zip(self.expected) {
            let until = self.span * part / parts;
            simulation.run(until);
            simulation.set.advance(until);
            self.check_shares(&mut simulation, until, part == parts, *expected);
            let seen = simulation.set.demand().observed(until);
            let wanted = simulation.demand.observed(until);
            assert!(close(seen.average, wanted.average), "{}: {seen:?}, not {wanted:?}", self.name);
            assert!(close(seen.deviation, wanted.deviation), "{}: {seen:?}, not {wanted:?}", self.name);
        }
        simulation.run(Duration::MAX);
        simulation.set.advance(self.span * 1000);
        assert_eq!(simulation.refused > 0, self.refusals, "{}: refused {}", self.name, simulation.refused);
        assert!(simulation.set.is_idle(), "{}", self.name);
        assert_eq!((simulation.set.seats_in_use, simulation.set.seats_waiting), (0, 0), "{}", self.name);
        assert_eq!(simulation.set.active, 0, "{}", self.name);
    }

    fn check_shares(
        &self,
        simulation: &mut Simulation,
        now: Time,
        last: bool,
        (fairly, margin): (bool, f64),
    ) {
        let wants: Vec<f64> = self
            .clients
            .iter()
            .map(|client| {
                client.wants(if client.split && !last { client.threads / 2 } else { client.threads })
            })
            .collect();
        let due = self.averages.map_or_else(|| fair(&wants, self.limit as f64), <[f64]>::to_vec);
        for (i, due) in due.into_iter().enumerate() {
            let got = simulation.seats[i].reset(now).average;
            let off = (got - due).abs() / due;
            assert_eq!(off <= margin + 1e-9, fairly, "{}: client {i} got {got}, was due {due}", self.name);
        }
    }
}

/// One in which each client gets its fair share, and nobody is refused.
fn scenario(name: &str, clients: &[Client], discipline: Discipline, limit: u64, seconds: u64, margin: f64) {
    let span = Duration::from_secs(seconds);
    let expected = &[(true, margin)];
    Scenario { name, clients, discipline, limit, span, expected, averages: None, refusals: false }.check();
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

fn queues(queues: usize, length_limit: usize, hand: usize) -> Discipline {
    let dealer = Dealer::new(queues, hand).expect("possible");
    Discipline::Queue(Queuing { queues, length_limit, dealer })
}

#[test]
fn a_fair_share_is_not_more_than_is_wanted() {
    assert_eq!(fair(&[0.0, 0.0], 42.0), [0.0, 0.0]);
    assert_eq!(fair(&[47.0, 0.0], 42.0), [42.0, 0.0]);
    assert_eq!(fair(&[1.0, 47.0], 42.0), [1.0, 41.0]);
    assert_eq!(fair(&[3.0, 7.0, 9.0, 1.0], 14.0), [3.0, 5.0, 5.0, 1.0]);
    assert_eq!(fair(&[1.0, 9.0, 7.0, 3.0], 21.0), [1.0, 9.0, 7.0, 3.0]);
}

#[test]
fn flows_get_what_they_are_due() {
    const QUARTER: Duration = Duration::from_secs(91 * 24 * 3600);
    let almost = SECOND - NANO;
    let half = SECOND / 2;
    let (a, b) = (1_001_001_001, 2_002_002_002);
    let wide = |hash, seats| Client::new(hash, 15, 21, SECOND, almost).wide(seats);
    let too_wide = [
        wide(40_040_040_040_040, 2),
        wide(50_050_050_050_050, 2),
        wide(60_060_060_060_060, 2),
        wide(70_070_070_070_070, 2),
        wide(90_090_090_090_090, 7),
    ];
    let one = Client::new(a, 1, 21, SECOND, Duration::ZERO);
    scenario("baseline", &[one], queues(9, 8, 3), 1, 20, 0.0);
    let clients = [Client::new(a, 8, 20, SECOND, almost), Client::new(b, 8, 20, SECOND, almost)];
    scenario("hands of 1", &clients, queues(9, 8, 1), 4, 50, 0.01);
    let clients = [
        Client::new(400_900_100_100, 8, 30, SECOND, almost),
        Client::new(300_900_200_200, 8, 30, SECOND, almost),
    ];
    scenario("hands of 3", &clients, queues(8, 16, 3), 4, 60, 0.03);
    let clients = [Client::new(a, 8, 20, SECOND, SECOND), Client::new(b, 7, 30, SECOND, half)];
    scenario("equal shares", &clients, queues(9, 8, 1), 4, 40, 0.01);
    let clients = [
        Client::new(a, 8, 20, QUARTER, QUARTER).wide(500),
        Client::new(b, 7, 30, QUARTER, QUARTER / 2).wide(500),
    ];
    let years = QUARTER.as_secs() * 40;
    scenario("ten years", &clients, queues(9, 8, 1), 2000, years, 0.01);
    let clients = [Client::new(a, 4, 20, SECOND, almost), Client::new(b, 2, 20, SECOND, almost)];
    scenario("unequal shares", &clients, queues(9, 6, 1), 3, 20, 0.01);
    let clients = [
        Client::new(10_010_010_010_010, 13, 10, SECOND, almost),
        Client::new(20_020_020_020_020, 7, 10, SECOND, almost).wide(2),
    ];
    scenario("different widths", &clients, queues(64, 13, 7), 6, 20, 0.155);
    scenario("too wide", &too_wide, queues(64, 35, 7), 6, 225, 0.33);
}

/// A flow that cannot use all it is due for a while catches up somewhat, but not much: between the two margins.
#[test]
fn what_was_not_used_is_not_given_later() {
    let client = |hash| Client::new(hash, 2, 40, SECOND, Duration::ZERO).hasty();
    for second in [(true, 0.26), (false, 0.1)] {
        Scenario {
            name: "windup",
            clients: &[client(1_001_001_001), client(2_002_002_002).split()],
            discipline: queues(9, 6, 1),
            limit: 3,
            span: Duration::from_secs(40),
            expected: &[(true, 0.01), second],
            averages: None,
            refusals: false,
        }
        .check();
    }
}

#[test]
fn seats_are_kept_for_what_comes_after_the_answer() {
    let (none, half, second) = (Duration::ZERO, SECOND / 2, SECOND);
    for (think, pad, final_seats, limit, count, due) in [
        (second, none, 1, 1, 1, None),
        (second, none, 1, 2, 1, None),
        (second, none, 2, 2, 1, None),
        (second, none, 1, 1, 2, None),
        (second, none, 1, 2, 2, None),
        (second, none, 2, 2, 2, None),
        (none, second, 1, 1, 1, Some(0.5)),
        (none, second, 1, 2, 1, None),
        (none, second, 2, 2, 1, Some(0.5)),
        (none, second, 1, 1, 2, Some(0.25)),
        (none, second, 1, 2, 2, Some(0.5)),
        (none, second, 2, 2, 2, Some(0.25)),
        (second, half, 1, 1, 1, None),
        (second, half, 1, 2, 1, None),
        (second, half, 2, 2, 1, None),
        (second, half, 1, 1, 2, Some(1.0 / 3.0)),
        (second, half, 1, 2, 2, None),
        (second, half, 2, 2, 2, Some(1.0 / 3.0)),
        (half, second, 1, 1, 1, Some(0.5)),
        (half, second, 1, 2, 1, None),
        (half, second, 2, 2, 1, Some(0.5)),
        (half, second, 1, 1, 2, Some(0.25)),
        (half, second, 1, 2, 2, Some(0.5)),
        (half, second, 2, 2, 2, Some(0.25)),
    ] {
        let client = |hash| Client::new(hash, 1, 25, SECOND, think).padded(final_seats, pad);
        let averages = due.map(|due| vec![due; count]);
        Scenario {
            name: &format!("{count} clients think {think:?} and keep {final_seats} of {limit} for {pad:?}"),
            clients: &[client(1_001_001_001), client(2_002_002_002)][..count],
            discipline: queues(9, 8, 3),
            limit,
            span: Duration::from_secs(24),
            expected: &[(true, 0.0)],
            averages: averages.as_deref(),
            refusals: false,
        }
        .check();
    }
}

#[test]
fn without_queues_nothing_is_fair() {
    Scenario {
        name: "no queues",
        clients: &[
            Client::new(1_001_001_001, 6, 10, SECOND, Duration::from_millis(57)),
            Client::new(2_002_002_002, 4, 15, SECOND, Duration::from_millis(750)),
        ],
        discipline: Discipline::Reject,
        limit: 4,
        span: Duration::from_secs(13),
        expected: &[(false, 0.2)],
        averages: None,
        refusals: true,
    }
    .check();
}

#[test]
fn who_is_exempt_gets_everything() {
    for limit in [0, 2] {
        Scenario {
            name: "exempt",
            clients: &[Client::new(1_001_001_001, 5, 20, SECOND, SECOND).wide(3)],
            discipline: Discipline::Exempt,
            limit,
            span: Duration::from_secs(40),
            expected: &[(true, 1e-8)],
            averages: Some(&[7.5]),
            refusals: false,
        }
        .check();
    }
}
