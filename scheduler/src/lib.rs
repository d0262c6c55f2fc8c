//! Finds a node for every pod (upstream kube-scheduler).
//!
//! One task takes pods from the [`queue`], most important first, and decides over a [`snapshot`] of the cluster
//! ([`cycle`]): the [`framework`] filters nodes and scores those that are left by its [`plugins`]. The choice is
//! assumed in the [`cache`] at once and bound in a task of its own, so that the next pod need not wait for the API
//! server. For a pod that fits nowhere, less important ones may have to go ([`preemption`]); else it waits until
//! something happens that one of the plugins that refused it finds worth another try.

pub mod cache;
pub mod config;
pub mod cycle;
pub mod extender;
pub mod flags;
pub mod framework;
pub mod listers;
mod measure;
pub mod node_info;
pub mod parallel;
pub mod plugins;
pub mod pod_info;
pub mod preemption;
pub mod profiles;
pub mod queue;
pub mod resources;
pub mod scheduler;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod volumes;

pub use flags::{Config, Flags};
pub use scheduler::run;
