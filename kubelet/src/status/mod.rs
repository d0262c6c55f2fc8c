//! What is reported about pods: generation from observation, and delivery to the API.

pub mod addresses;
pub mod conditions;
pub mod containers;
pub mod generate;
pub mod manager;
pub mod patch;
pub mod phase;
pub mod resources;
pub mod terminate;

pub use generate::{PREEMPTING, StatusInput, Verdict, generate};
pub use manager::StatusManager;
