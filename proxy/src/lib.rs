//! Services become packet rules (upstream kube-proxy, iptables mode).
//!
//! [`model`] reads Services and EndpointSlices into service ports and endpoints, [`rules`] renders from them the
//! rules this node should have (a pure function), [`iptables`] applies the difference to what was applied last with
//! one `iptables-restore --noflush` (a transaction for each table), [`conntrack`] ends UDP flows whose endpoint is gone
//! and TCP connections that were begun before anybody answered, and [`proxier`] runs them whenever something changed.
//! Chains of other owners are never touched.

pub mod conntrack;
pub mod flags;
pub mod iptables;
pub mod model;
pub mod proxier;
pub mod rules;

pub use flags::{Config, Flags};
pub use proxier::run;
