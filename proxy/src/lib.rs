//! Services become packet rules (upstream kube-proxy, modes iptables and nftables).
//!
//! [`model`] reads Services and EndpointSlices into service ports and endpoints, [`rules`] renders from them the
//! rules this node should have (a pure function), [`iptables`] applies the difference to what was applied last with
//! one `iptables-restore --noflush` (a transaction for each table), [`conntrack`] ends UDP flows whose endpoint is gone
//! and TCP connections that were begun before anybody answered, and [`proxier`] runs them whenever something changed.
//! Chains of other owners are never touched. [`nftables`] does the same in a table of its own, [`kernel`] is whichever of the
//! two was chosen. [`health`] answers load balancers. [`config`] is upstream's configuration file, [`local`] what it says of
//! addresses, [`sysctl`] of the kernel.

pub mod config;
pub mod conntrack;
pub mod flags;
pub mod health;
pub mod iptables;
pub mod kernel;
pub mod local;
pub mod model;
pub mod nftables;
pub mod proxier;
pub mod rules;
pub mod sysctl;

pub use config::Config;
pub use flags::Flags;
pub use proxier::run;
