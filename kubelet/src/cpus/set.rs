//! Sets of CPUs (or of cores, sockets, NUMA nodes), written as the kernel writes them: `0-3,8`.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A set of CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuSet(BTreeSet<usize>);

/// A text is no list of CPUs; said as Go says it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCpuSet {
    /// Some part is no number.
    #[error("strconv.Atoi: parsing {0:?}: invalid syntax")]
    Number(String),
    /// A range ends before it begins.
    #[error("invalid range {0:?} ({1} > {2})")]
    Range(String, usize, usize),
}

impl CpuSet {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one is among them.
    #[must_use]
    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.0.iter().copied()
    }

    /// Those of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }

    /// Those of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    /// Those that are not of the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// None is of the other.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.0.is_disjoint(&other.0)
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<T: IntoIterator<Item = usize>>(cpus: T) -> Self {
        Self(cpus.into_iter().collect())
    }
}

impl FromStr for CpuSet {
    type Err = NoCpuSet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut set = BTreeSet::new();
        let number = |text: &str| text.parse().map_err(|_| NoCpuSet::Number(text.to_owned()));
        for part in text.split(',').filter(|_| !text.is_empty()) {
            match part.split_once('-') {
                None => drop(set.insert(number(part)?)),
                Some((first, last)) => {
                    let (first, last) = (number(first)?, number(last)?);
                    if first > last {
                        return Err(NoCpuSet::Range(part.to_owned(), first, last));
                    }
                    set.extend(first..=last);
                }
            }
        }
        Ok(Self(set))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        for cpu in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == cpu => *last = cpu,
                _ => ranges.push((cpu, cpu)),
            }
        }
        let texts = ranges
            .into_iter()
            .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") });
        f.write_str(&texts.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_read_and_print_alike() {
        for text in ["", "5", "1-3", "0,2-4,9", "1,3,5-7"] {
            assert_eq!(text.parse::<CpuSet>().expect(text).to_string(), text);
        }
        assert_eq!("3,2,1".parse::<CpuSet>().expect("valid").to_string(), "1-3");
        for (text, error) in [
            ("asd", "strconv.Atoi: parsing \"asd\": invalid syntax"),
            ("1.3", "strconv.Atoi: parsing \"1.3\": invalid syntax"),
            ("1,", "strconv.Atoi: parsing \"\": invalid syntax"),
            ("3-1", "invalid range \"3-1\" (3 > 1)"),
        ] {
            assert_eq!(text.parse::<CpuSet>().expect_err(text).to_string(), error);
        }
    }
}
