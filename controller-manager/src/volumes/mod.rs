//! Persistent volumes and claims: what binds, makes, grows and attaches them.

pub mod attach;
pub mod binder;
pub mod claims;
pub mod ephemeral;
pub mod expand;
mod in_tree;
pub mod local_path;
mod matching;
pub mod selinux;
