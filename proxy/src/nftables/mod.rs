//! The other way to write the rules (`--proxy-mode nftables`): one table `kube-proxy` of our own, in which maps lead
//! from an address and port to the chain of its service at once, however many services there are. Names and layout are
//! upstream's.
//!
//! [`render`] says what the table should be (pure), [`apply`] brings the kernel's in step. Node ports are not reached
//! on loopback addresses in this mode.

pub mod apply;
mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use apply::{Applier, cleanup};
pub use render::render;

/// Name of the table, in the families `ip` and `ip6`.
pub const TABLE: &str = "kube-proxy";

/// A set or map: its declaration, and its elements. A set's elements have no values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collection {
    /// `set` or `map`.
    pub kind: &'static str,
    /// What stands between its braces.
    pub declaration: String,
    /// Its elements; none are given for those that the rules themselves fill.
    pub elements: BTreeMap<String, String>,
}

/// All that is in the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Sets and maps, by name.
    pub collections: BTreeMap<String, Collection>,
    /// Where the kernel begins: chain to hook.
    pub hooks: BTreeMap<&'static str, &'static str>,
    /// The rules of each chain.
    pub chains: BTreeMap<String, Vec<String>>,
}
