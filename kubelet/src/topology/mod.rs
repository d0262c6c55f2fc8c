//! Which NUMA nodes a container's CPUs, memory and devices come from, so that they are close to each other.
//!
//! Those who give out resources say by [`Hints`] what they could do; [`merge`] finds what suits all of them. Pure values
//! and functions; `placement` asks and gives.

mod mask;
mod merge;
mod options;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use mask::NumaMask;
pub use merge::{NumaInfo, merge};
pub(crate) use options::parse_bool;
pub use options::{Options, Policy, Scope};

/// One way to serve a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// NUMA nodes it would come from; `None` where that makes no difference.
    pub affinity: Option<NumaMask>,
    /// There is no better way on this machine.
    pub preferred: bool,
}

/// Ways to serve each resource: `None` for any, an empty list for no way at all.
pub type Hints = BTreeMap<String, Option<Vec<Hint>>>;
