//! The pod network between nodes.
//!
//! Each node has a range of pod addresses (`Node.spec.podCIDRs`), or one of each family. [`plan`] decides from the Node objects what this
//! node needs: the CNI configuration of a bridge for its own range, and for every other node's range a route through
//! that node if it is on this segment, else a way in a tunnel ([`overlay`], which speaks with flannel). [`apply`] makes
//! it so, and again when [`changes`] of others have undone it. Pods reach the world behind the node's address; among each other they see their own addresses. [`policy`]
//! turns NetworkPolicies into packet rules, [`iptables`] brings them into the kernel.

pub mod address;
pub mod apply;
pub mod changes;
pub mod flags;
pub mod iptables;
pub mod overlay;
pub mod plan;
pub mod pod;
pub mod policy;
pub mod worker;

pub use flags::{Config, Flags};
pub use worker::run;
