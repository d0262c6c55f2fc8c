//! Resources: what does not fit, and where it fits best.

mod fit;
mod scoring;

pub use fit::Fit;
pub use scoring::BalancedAllocation;
