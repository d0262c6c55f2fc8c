//! The node agent: keeps the pods assigned to this node running through a CRI runtime and reports what it sees.
//!
//! One worker per pod (`pod_workers`) drives a pure plan (`sync::plan`) against the runtime (`runtime`); `pleg` and the
//! API watch tell the workers when to look; `status` and `node_status` report. Nothing that runs is disturbed when
//! this process stops or starts: all state is read back from the runtime and the disk.

pub mod admission;
pub mod agent;
pub mod allocation;
pub mod cgroups;
pub mod config;
pub mod containers;
pub mod credentials;
pub mod csi;
pub mod dns;
pub mod duration;
pub mod env;
pub mod events;
pub mod eviction;
pub mod facts;
#[cfg(test)]
mod fake_api;
pub mod flags;
pub mod hosts;
pub mod images;
pub mod layout;
pub mod node_status;
pub mod pleg;
pub mod plugins;
pub mod pod_workers;
pub mod pods;
pub mod qos;
pub mod quantity;
pub mod run;
pub mod runtime;
pub mod static_pods;
pub mod status;
pub mod sync;
pub mod types;

pub mod objects;

pub use flags::{Config, Flags};
pub use run::run;
pub mod certificates;
mod checkpoint;
pub mod claims;
pub mod cpus;
pub mod devices;
pub mod logs;
pub mod memory;
pub mod placement;
pub mod pod_resources;
pub mod probes;
pub mod server;
pub mod shutdown;
pub mod topology;
pub mod volumes;
pub mod watching;
