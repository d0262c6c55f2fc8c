//! How many seats each level has: what its configuration says, and what it lends to and borrows from others for now
//! (upstream `apf_controller.go`: `finishQueueSetReconfigsLocked`, `updateBorrowingLocked`).

use k8s_openapi::api::flowcontrol::v1::{PriorityLevelConfiguration, PriorityLevelConfigurationSpec};

use super::allocation::{self, Item};
use super::dealer::Dealer;
use super::demand::Demand;
use super::queueset::{Discipline, Queuing};

/// The part of a level's seats that one request may take at most.
const WIDEST: f64 = 0.15;

/// A level as its object describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// What is done with requests that find no seat.
    pub discipline: Discipline,
    /// The level's part of the server, against those of other levels.
    pub shares: f64,
    /// The part of its seats that others may have.
    pub lendable_percent: f64,
    /// How much it may have of others, in parts of its own seats; all there is if absent.
    pub borrowing_percent: Option<f64>,
    /// The size of hands, where there are queues.
    pub hand_size: Option<u64>,
}

/// The name of the level that is exempt, and of the schema that leads to it.
pub const EXEMPT: &str = "exempt";
/// The name of the level, and of the schema, for what no other schema matches.
pub const CATCH_ALL: &str = "catch-all";

/// Reads an object; `None` if it contradicts itself.
#[must_use]
pub fn settings(object: &PriorityLevelConfiguration) -> Option<Settings> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let spec = object.spec.as_ref()?;
    let PriorityLevelConfigurationSpec { type_, limited, exempt } = spec;
    let is_exempt = type_ == "Exempt";
    // A level never changes between exempt and limited, as upstream does not cope with that either.
    if is_exempt != exempt.is_some()
        || (type_ == "Limited") != limited.is_some()
        || is_exempt != (name == EXEMPT)
    {
        return None;
    }
    let percent = |value: Option<i32>| value.map(f64::from);
    let Some(limited) = limited else {
        let exempt = exempt.as_ref()?;
        return Some(Settings {
            discipline: Discipline::Exempt,
            shares: percent(exempt.nominal_concurrency_shares).unwrap_or(0.0),
            lendable_percent: percent(exempt.lendable_percent).unwrap_or(0.0),
            borrowing_percent: None,
            hand_size: None,
        });
    };
    let response = limited.limit_response.as_ref()?;
    if (response.type_ == "Reject") == response.queuing.is_some() {
        return None;
    }
    let (discipline, hand_size) = match &response.queuing {
        None => (Discipline::Reject, None),
        Some(queuing) => {
            // Upstream's defaults.
            let number = |value: Option<i32>, default| usize::try_from(value.unwrap_or(default)).ok();
            let (queues, hand) = (number(queuing.queues, 64)?, number(queuing.hand_size, 8)?);
            let length_limit = number(queuing.queue_length_limit, 50)?;
            let dealer = Dealer::new(queues, hand)?;
            (Discipline::Queue(Queuing { queues, length_limit, dealer }), Some(hand as u64))
        }
    };
    Some(Settings {
        discipline,
        shares: f64::from(limited.nominal_concurrency_shares.unwrap_or(30)),
        lendable_percent: percent(limited.lendable_percent).unwrap_or(0.0),
        borrowing_percent: percent(limited.borrowing_limit_percent),
        hand_size,
    })
}

/// The seats of a level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// What it has by its shares.
    pub nominal: u64,
    /// What others cannot take from it.
    pub min: u64,
    /// The most it can have.
    pub max: u64,
    /// The most seats one of its requests takes; 0 if that is not limited.
    pub widest: u64,
}

impl Limits {
    /// The seats of a level with such settings, on a server of so many seats, where all shares have this sum.
    #[must_use]
    pub fn of(settings: &Settings, server: u64, share_sum: f64) -> Self {
        // Rounded up, so that the levels may have a little more together than the server has.
        let nominal = (server as f64 * settings.shares / share_sum.max(1.0)).ceil() as u64;
        let part = |percent: f64| (nominal as f64 * percent / 100.0).round() as u64;
        let widest = settings.hand_size.map_or(0, |hand| {
            let fits = (nominal as f64 * WIDEST).ceil() as u64;
            fits.min(nominal / hand.max(1)).max(1)
        });
        Self {
            nominal,
            min: nominal.saturating_sub(part(settings.lendable_percent)),
            max: nominal + settings.borrowing_percent.map_or(server, part),
            widest,
        }
    }

    /// What a level begins with.
    #[must_use]
    pub fn initial(&self) -> u64 {
        self.nominal - (self.nominal - self.min) / 2
    }
}

/// A level, when seats are divided anew.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// Whether it takes what it needs.
    pub exempt: bool,
    /// Its seats by configuration.
    pub limits: Limits,
    /// What it has wanted.
    pub demand: Demand,
    /// What it has now.
    pub current: u64,
}

/// A division of the seats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Division {
    /// The seats of each level, in the order of the levels.
    pub current: Vec<u64>,
    /// What each level was aiming at.
    pub targets: Vec<f64>,
    /// The fraction of its target that a level gets.
    pub fair_fraction: f64,
}

/// Divides the seats of all levels by what they have wanted lately.
#[must_use]
pub fn divide(parties: &[Party]) -> Division {
    let total: u64 = parties.iter().map(|party| party.limits.nominal).sum();
    let least = |party: &Party| match party.exempt {
        true => party.limits.min.max(party.demand.high_watermark),
        false => party.limits.min.max(party.limits.nominal.min(party.demand.high_watermark)),
    };
    let limited = || parties.iter().filter(|party| !party.exempt);
    let taken: u64 = parties.iter().filter(|party| party.exempt).map(least).sum();
    let left = total.saturating_sub(taken);
    let min_sum: u64 = limited().map(|party| party.limits.min).sum();
    let least_sum: u64 = limited().map(least).sum();
    let target = |party: &Party| (least(party) as f64).max(party.demand.smoothed);
    let targets = parties.iter().map(target).collect();
    let each = |seats: &mut dyn FnMut(&Party) -> u64| -> Vec<u64> {
        parties.iter().map(|party| if party.exempt { least(party) } else { seats(party) }).collect()
    };
    if left <= min_sum {
        return Division { current: each(&mut |party| party.limits.min), targets, fair_fraction: 0.0 };
    }
    if left <= least_sum {
        let part = (left - min_sum) as f64 / (least_sum - min_sum).max(1) as f64;
        let current = each(&mut |party| {
            party.limits.min + ((least(party) - party.limits.min) as f64 * part).round() as u64
        });
        return Division { current, targets, fair_fraction: 0.0 };
    }
    let item = |party: &Party| Item {
        target: target(party),
        lower: least(party) as f64,
        upper: party.limits.max as f64,
    };
    let items: Vec<Item> = limited().map(item).collect();
    // As upstream, which divides all seats here, also those that exempt requests have.
    match allocation::divide(total, &items) {
        Ok((parts, fair_fraction)) => {
            let mut parts = parts.into_iter();
            let current = each(&mut |_| parts.next().unwrap_or_default().round() as u64);
            Division { current, targets, fair_fraction }
        }
        Err(error) => {
            tracing::warn!(%error, "seats of priority levels are not divided anew");
            Division { current: each(&mut |party| party.current), targets, fair_fraction: 0.0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(name: &str, spec: Value) -> Option<Settings> {
        let object = json!({"metadata": {"name": name}, "spec": spec});
        settings(&serde_json::from_value(object).expect("an object"))
    }

    #[test]
    fn objects_that_contradict_themselves_are_no_levels() {
        let queue = |queues: i32, hand: i32| {
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 5, "limitResponse": {
                "type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 7}}}})
        };
        let reject = json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}});
        let exempt =
            json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 3, "lendablePercent": 50}});
        let found = read("a", queue(64, 6)).expect("a level");
        assert_eq!((found.shares, found.hand_size), (5.0, Some(6)));
        assert!(matches!(found.discipline, Discipline::Queue(q) if q.queues == 64 && q.length_limit == 7));
        assert_eq!(read("a", reject).map(|level| level.discipline), Some(Discipline::Reject));
        assert_eq!(read("exempt", exempt.clone()).map(|level| level.shares), Some(3.0));
        for (name, spec) in [
            ("a", queue(4, 6)),
            ("a", queue(512, 9)),
            ("a", exempt),
            ("exempt", queue(64, 6)),
            ("a", json!({"type": "Limited"})),
            ("a", json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}})),
            (
                "a",
                json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject", "queuing": {}}}}),
            ),
        ] {
            assert_eq!(read(name, spec.clone()), None, "{name}: {spec}");
        }
    }

    #[test]
    fn seats_are_what_shares_are_worth() {
        let level = |shares: f64, lendable: f64, borrowing, hand| Settings {
            discipline: Discipline::Reject,
            shares,
            lendable_percent: lendable,
            borrowing_percent: borrowing,
            hand_size: hand,
        };
        // The suggested levels on a server of 600 seats; their shares sum to 245.
        for (settings, nominal, min, max, widest) in [
            (level(30.0, 33.0, None, Some(6)), 74, 50, 674, 12),
            (level(40.0, 25.0, None, Some(6)), 98, 73, 698, 15),
            (level(10.0, 0.0, None, Some(4)), 25, 25, 625, 4),
            (level(5.0, 0.0, Some(50.0), None), 13, 13, 20, 0),
            (level(0.0, 0.0, None, None), 0, 0, 600, 0),
        ] {
            let limits = Limits::of(&settings, 600, 245.0);
            assert_eq!(limits, Limits { nominal, min, max, widest }, "{settings:?}");
        }
        let limits = Limits { nominal: 74, min: 50, max: 674, widest: 0 };
        assert_eq!(limits.initial(), 62);
    }

    fn party(nominal: u64, min: u64, max: u64, high_watermark: u64, smoothed: f64) -> Party {
        let demand = Demand { high_watermark, smoothed, ..Demand::default() };
        Party { exempt: false, limits: Limits { nominal, min, max, widest: 0 }, demand, current: nominal }
    }

    #[test]
    fn who_wants_more_gets_what_others_do_not_need() {
        let divided = |parties: &[Party]| divide(parties).current;
        // After upstream's TestBorrowing: two levels of 6 seats that lend half and borrow all, one of them idle.
        assert_eq!(divided(&[party(6, 3, 18, 20, 20.0), party(6, 3, 18, 0, 0.0)]), [9, 3]);
        assert_eq!(divided(&[party(6, 3, 18, 20, 20.0), party(6, 3, 18, 20, 20.0)]), [6, 6]);
        // One that may not borrow.
        assert_eq!(divided(&[party(6, 3, 6, 20, 20.0), party(6, 3, 18, 0, 0.0)]), [6, 6]);
        // Nobody wants anything: by what cannot be taken from them.
        assert_eq!(divided(&[party(6, 3, 18, 0, 0.0), party(6, 6, 18, 0, 0.0)]), [4, 8]);
        let exempt = |watermark| Party { exempt: true, ..party(0, 0, 0, watermark, 0.0) };
        // After upstream's TestExemptBorrowing: what exempt requests take is taken from the others.
        assert_eq!(divided(&[exempt(9), party(6, 3, 18, 20, 20.0), party(6, 3, 18, 20, 20.0)]), [9, 3, 3]);
        assert_eq!(divided(&[exempt(3), party(6, 3, 18, 6, 6.0), party(6, 3, 18, 4, 4.0)]), [3, 5, 4]);
        assert_eq!(divided(&[exempt(1), party(6, 3, 18, 6, 6.0), party(6, 3, 18, 4, 4.0)]), [1, 7, 5]);
    }
}
