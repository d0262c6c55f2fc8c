//! How the devices of claims are, as their drivers tell. Values only. A driver that is listened to tells of all devices
//! first, so nothing of this is kept on disk.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::dra::health::{DeviceHealth, HealthStatus};
use tokio::time::Instant;

use super::cache::Device;

/// After so long without news it is not known how a device is, unless its driver says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How a device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

impl State {
    /// As a pod's status has it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Healthy => "Healthy",
            Self::Unhealthy => "Unhealthy",
        }
    }
}

/// The longest text that is passed on, in bytes.
const LONGEST: usize = 1024;

#[derive(Clone, Debug)]
struct Told {
    state: State,
    message: String,
    heard: Instant,
    timeout: Duration,
}

impl Told {
    fn at(&self, now: Instant) -> State {
        if now.duration_since(self.heard) > self.timeout { State::Unknown } else { self.state }
    }
}

/// A device by its pool and its name.
pub(super) type Id = (String, String);

/// What drivers told.
#[derive(Debug, Default)]
pub(super) struct Health(BTreeMap<String, BTreeMap<Id, Told>>);

impl Health {
    /// Takes in what a driver tells of all its devices. Those that are otherwise than before; of one that is not told of
    /// any more, what was told counts for as long as it would have.
    pub(super) fn take_in(&mut self, driver: &str, devices: Vec<DeviceHealth>, now: Instant) -> Vec<Id> {
        let known = self.0.entry(driver.to_owned()).or_default();
        let mut changed = Vec::new();
        known.retain(|id, told| {
            let lapsed = told.at(now) != told.state;
            if lapsed {
                changed.push(id.clone());
            }
            !lapsed
        });
        for device in devices {
            let state = match device.health() {
                HealthStatus::Healthy => State::Healthy,
                HealthStatus::Unhealthy => State::Unhealthy,
                HealthStatus::Unknown => State::Unknown,
            };
            let seconds = u64::try_from(device.health_check_timeout_seconds).unwrap_or_default();
            let timeout = if seconds == 0 { TIMEOUT } else { Duration::from_secs(seconds) };
            let id = device.device.unwrap_or_default();
            let id = (id.pool_name, id.device_name);
            let told = Told { state, message: shorten(device.message), heard: now, timeout };
            let same = match known.get(&id) {
                Some(before) => (before.state, &before.message) == (state, &told.message),
                None => state == State::Unknown && told.message.is_empty(),
            };
            known.insert(id.clone(), told);
            if !same && !changed.contains(&id) {
                changed.push(id);
            }
        }
        changed
    }

    /// Nothing is known of a driver's devices any more. Those of which something was.
    pub(super) fn forget(&mut self, driver: &str) -> Vec<Id> {
        let known = self.0.remove(driver).into_iter().flatten();
        known.filter(|(_, told)| told.state != State::Unknown).map(|(id, _)| id).collect()
    }

    /// How a device is, and what its driver says about it.
    pub(super) fn of(&self, driver: &str, device: &Device, now: Instant) -> (State, Option<String>) {
        let id = (device.pool_name.clone(), device.device_name.clone());
        let told = self.0.get(driver).and_then(|known| known.get(&id));
        let told = told.filter(|told| now.duration_since(told.heard) <= told.timeout);
        let message = |told: &Told| (!told.message.is_empty()).then(|| told.message.clone());
        told.map(|told| (told.state, message(told))).unwrap_or_default()
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > LONGEST {
        message.truncate(message.floor_char_boundary(LONGEST - 3));
        message.push_str("...");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::super::testing::health;
    use super::*;

    #[test]
    fn what_is_told_counts_until_it_is_old() {
        let mut known = Health::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let device =
            |name: &str| Device { pool_name: "pool".into(), device_name: name.into(), ..Device::default() };
        let hear = |known: &mut Health, seconds, told: &str| -> String {
            let mut devices = health(told);
            if let Some(quick) =
                devices.iter_mut().find(|d| d.device.as_ref().is_some_and(|d| d.device_name == "quick"))
            {
                quick.health_check_timeout_seconds = 5;
                quick.message = "é".repeat(600);
            }
            let changed = known.take_in("d", devices, after(seconds));
            let changed: Vec<_> = changed.into_iter().map(|(_, name)| name).collect();
            changed.join(" ")
        };
        let of = |known: &Health, name, seconds| known.of("d", &device(name), after(seconds)).0.word();
        assert_eq!(of(&known, "a", 0), "Unknown");
        assert_eq!(hear(&mut known, 0, "a:Healthy b:Unhealthy c:Unknown quick:Healthy"), "a b quick");
        assert_eq!(
            [of(&known, "a", 30), of(&known, "b", 30), of(&known, "quick", 5), of(&known, "quick", 6)],
            ["Healthy", "Unhealthy", "Healthy", "Unknown"]
        );
        assert_eq!(of(&known, "a", 31), "Unknown");
        assert_eq!(known.of("other", &device("a"), start).0.word(), "Unknown");
        let told = known.of("d", &device("quick"), after(5)).1.expect("told");
        assert_eq!((told.len(), told.ends_with("é...")), (1023, true));
        assert_eq!(
            (known.of("d", &device("quick"), after(6)).1, known.of("d", &device("a"), start).1),
            (None, None)
        );
        // What lapsed meanwhile is told of, what is merely left out is not yet.
        assert_eq!(hear(&mut known, 20, "a:Unhealthy"), "quick a");
        assert_eq!(hear(&mut known, 40, "a:Unhealthy"), "b");
        assert_eq!(hear(&mut known, 90, "a:Healthy"), "a");
        let forgotten = known.forget("d");
        assert_eq!(forgotten, [("pool".to_owned(), "a".to_owned())]);
        assert_eq!((of(&known, "a", 90), known.forget("d")), ("Unknown", Vec::new()));
    }
}
