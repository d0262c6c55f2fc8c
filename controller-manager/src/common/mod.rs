//! What several controllers share: ownership, selectors, pods, hashes, revisions, read-your-writes.

pub mod batch;
pub mod conditions;
pub mod discovery;
pub mod disruption;
pub mod dump;
pub mod errors;
pub mod hash;
pub mod history;
pub mod meta;
pub mod nodes;
pub mod pod_control;
pub mod pods;
pub mod refs;
pub mod services;
pub mod written;

pub use api::selector::LabelSelector as Selector;
