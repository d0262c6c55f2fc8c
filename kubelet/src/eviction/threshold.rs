//! Thresholds of resources and whether they are met. Pure; as upstream's `eviction/helpers.go`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::duration::GoDuration;
use crate::quantity;

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory that could be given to pods now.
    MemoryAvailable,
    /// Space on the kubelet's file system.
    NodeFsAvailable,
    /// Inodes on the kubelet's file system.
    NodeFsInodesFree,
    /// Space on the file system of images.
    ImageFsAvailable,
    /// Inodes on the file system of images.
    ImageFsInodesFree,
    /// Process numbers.
    PidAvailable,
}

const ALL: [Signal; 6] = [
    Signal::MemoryAvailable,
    Signal::NodeFsAvailable,
    Signal::NodeFsInodesFree,
    Signal::ImageFsAvailable,
    Signal::ImageFsInodesFree,
    Signal::PidAvailable,
];

impl Signal {
    /// By upstream's name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        ALL.into_iter().find(|signal| signal.name() == name)
    }

    /// Upstream's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory.available",
            Self::NodeFsAvailable => "nodefs.available",
            Self::NodeFsInodesFree => "nodefs.inodesFree",
            Self::ImageFsAvailable => "imagefs.available",
            Self::ImageFsInodesFree => "imagefs.inodesFree",
            Self::PidAvailable => "pid.available",
        }
    }

    /// The resource that is short when the signal is.
    #[must_use]
    pub fn resource(self) -> &'static str {
        match self {
            Self::MemoryAvailable => "memory",
            Self::NodeFsAvailable | Self::ImageFsAvailable => "ephemeral-storage",
            Self::NodeFsInodesFree | Self::ImageFsInodesFree => "inodes",
            Self::PidAvailable => "pids",
        }
    }
}

/// An amount, or a share of what there is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many bytes (or inodes, or numbers).
    Absolute(u64),
    /// A share of the capacity, from 0 to 1.
    Share(f64),
}

impl Amount {
    /// The amount for a given capacity.
    #[must_use]
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Absolute(amount) => amount,
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a size needs no more precision, and is never negative"
            )]
            Self::Share(share) => (capacity as f64 * share) as u64,
        }
    }
}

/// Below this amount, pods have to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What is watched.
    pub signal: Signal,
    /// How much must be left.
    pub amount: Amount,
    /// How long less may be left; zero for not at all.
    pub grace: Duration,
}

/// A threshold cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such signal.
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    /// No amount.
    #[error("invalid eviction threshold {0}: {1}")]
    Amount(String, String),
    /// A soft threshold without its time.
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGrace(String),
}

/// Reads hard thresholds and soft ones with their grace.
pub fn parse(
    hard: &BTreeMap<String, String>,
    soft: &BTreeMap<String, String>,
    graces: &BTreeMap<String, String>,
) -> Result<Vec<Threshold>, Error> {
    let mut all = Vec::new();
    for (name, text) in hard {
        all.extend(one(name, text, Duration::ZERO)?);
    }
    for (name, text) in soft {
        let grace = graces.get(name).ok_or_else(|| Error::NoGrace(name.clone()))?;
        let grace: GoDuration = grace.parse().map_err(|_| Error::Amount(name.clone(), grace.clone()))?;
        all.extend(one(name, text, grace.0)?);
    }
    Ok(all)
}

fn one(name: &str, text: &str, grace: Duration) -> Result<Option<Threshold>, Error> {
    let signal = match Signal::parse(name) {
        Some(signal) => signal,
        // Signals of runtimes that keep container layers apart from images; there is nothing to watch here.
        None if name.starts_with("containerfs.") || name == "allocatableMemory.available" => return Ok(None),
        None => return Err(Error::Signal(name.to_owned())),
    };
    let wrong = || Error::Amount(name.to_owned(), text.to_owned());
    let amount = if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.parse().map_err(|_| wrong())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(wrong());
        }
        // As upstream: 0% and 100% switch a threshold off.
        if percent == 0.0 || percent == 100.0 {
            return Ok(None);
        }
        Amount::Share(percent / 100.0)
    } else {
        let amount = quantity::parse(text).ok_or_else(wrong)?;
        let bytes = u64::try_from(amount.value()).map_err(|_| wrong())?;
        if bytes == 0 {
            return Err(wrong());
        }
        Amount::Absolute(bytes)
    };
    Ok(Some(Threshold { signal, amount, grace }))
}

/// How much of something there is and how much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// In all.
    pub capacity: u64,
    /// Left.
    pub available: u64,
}

/// What was observed.
pub type Observations = BTreeMap<Signal, Observation>;

/// The thresholds that are met now.
#[must_use]
pub fn met<'a>(thresholds: &'a [Threshold], observed: &Observations) -> Vec<&'a Threshold> {
    let is_met =
        |t: &&Threshold| observed.get(&t.signal).is_some_and(|o| o.available < t.amount.of(o.capacity));
    thresholds.iter().filter(is_met).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn thresholds_are_read() {
        let all = parse(
            &map(&[("memory.available", "100Mi"), ("nodefs.available", "10%"), ("imagefs.available", "0%")]),
            &map(&[("memory.available", "200Mi")]),
            &map(&[("memory.available", "1m30s")]),
        )
        .expect("valid");
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].amount, Amount::Absolute(100 << 20));
        assert_eq!(all[1].amount.of(1000), 100);
        assert_eq!(all[2].grace, Duration::from_secs(90));
        let none = map(&[]);
        for (hard, soft) in [
            (map(&[("cpu.available", "1")]), none.clone()),
            (map(&[("memory.available", "x")]), none.clone()),
            (map(&[("memory.available", "101%")]), none.clone()),
            (none.clone(), map(&[("memory.available", "1Gi")])),
        ] {
            assert!(parse(&hard, &soft, &none).is_err(), "{hard:?} {soft:?}");
        }
    }

    #[test]
    fn less_than_the_threshold_is_met() {
        let thresholds =
            parse(&map(&[("memory.available", "100"), ("pid.available", "10%")]), &map(&[]), &map(&[]));
        let thresholds = thresholds.expect("valid");
        let observe = |memory, pids| {
            BTreeMap::from([
                (Signal::MemoryAvailable, Observation { capacity: 1000, available: memory }),
                (Signal::PidAvailable, Observation { capacity: 1000, available: pids }),
            ])
        };
        let names = |o: &Observations| met(&thresholds, o).iter().map(|t| t.signal).collect::<Vec<_>>();
        assert!(names(&observe(100, 100)).is_empty());
        assert_eq!(names(&observe(99, 100)), [Signal::MemoryAvailable]);
        assert_eq!(names(&observe(99, 99)), [Signal::MemoryAvailable, Signal::PidAvailable]);
        assert!(names(&BTreeMap::new()).is_empty(), "what is not observed is not short");
    }
}
