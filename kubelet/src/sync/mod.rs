//! One pod's way from its spec to running containers: a pure plan and the calls that carry it out.

pub mod backoff;
mod environment;
mod hook_tls;
pub mod hooks;
mod image_volumes;
mod kill;
pub mod plan;
pub mod reasons;
pub mod resize;
mod resize_apply;
pub mod restart;
pub mod runner;
mod start;
pub mod termination;

pub use plan::{PodPlan, plan_pod};
pub use runner::{Outcome, PodEnvironment, PodRuntime};
