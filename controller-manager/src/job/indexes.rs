//! Sets of completion indexes, written like `1,3-5`.

use crate::common::meta;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use std::fmt;

/// The annotation, label and environment source of a pod's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// A set of indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(BTreeSet<i32>);

impl Indexes {
    /// Reads the written form; what is beyond `completions` or unreadable is left out.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut set = BTreeSet::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                set.extend(first..=last.min(completions - 1));
            }
        }
        set.retain(|index| (0..completions).contains(index));
        Self(set)
    }

    /// Adds indexes.
    pub fn extend(&mut self, indexes: impl IntoIterator<Item = i32>) {
        self.0.extend(indexes);
    }

    /// Whether the index is in the set.
    pub fn contains(&self, index: i32) -> bool {
        self.0.contains(&index)
    }

    /// How many there are.
    pub fn len(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// How many are in both.
    pub fn overlap(&self, other: &Self) -> i32 {
        i32::try_from(self.0.intersection(&other.0).count()).unwrap_or(i32::MAX)
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub fn first_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        (0..completions).filter(|index| !self.contains(*index)).take(count).collect()
    }
}

/// Two neighbours are written with a comma, three with a dash.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(i32, i32)> = Vec::new();
        for index in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *index => *last = *index,
                _ => ranges.push((*index, *index)),
            }
        }
        for (position, (first, last)) in ranges.into_iter().enumerate() {
            let comma = if position > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

/// The index of a pod.
pub fn of(pod: &Pod) -> Option<i32> {
    meta::annotation(&pod.metadata, INDEX)?.parse().ok().filter(|index| *index >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_form() {
        for (text, completions, expected, len) in [
            ("", 5, "", 0),
            ("1", 5, "1", 1),
            ("1,2", 5, "1,2", 2),
            ("0-2,4", 5, "0-2,4", 4),
            ("1,3-9", 6, "1,3-5", 4),
            ("2,x,3,4", 9, "2-4", 3),
        ] {
            let indexes = Indexes::parse(text, completions);
            assert_eq!((indexes.to_string().as_str(), indexes.len()), (expected, len), "{text}");
        }
        assert_eq!(Indexes::parse("0,2-3", 9).first_missing(3, 6), [1, 4, 5]);
    }
}
