//! Finds a node for every pod (upstream kube-scheduler).
//!
//! One task takes pods from the [`queue`], most important first, and decides over a [`snapshot`] of the cluster:
//! the [`framework`] filters nodes and scores those that are left by its [`plugins`]. The choice is assumed in the
//! [`cache`] at once and bound in a task of its own, so that the next pod need not wait for the API server. A pod
//! that fits nowhere waits until an event that one of the plugins that refused it asked for.

pub mod cache;
pub mod flags;
pub mod framework;
pub mod node_info;
pub mod plugins;
pub mod queue;
pub mod resources;
pub mod scheduler;
pub mod snapshot;

pub use flags::{Config, Flags};
pub use scheduler::run;
