//! The REST front of the store (upstream kube-apiserver).
//!
//! A request passes: TLS → [`request`] (what is asked for) → [`authn`] (who asks) → [`authz`] (may they) →
//! `handlers` → [`admission`] → registry strategy → store; reads are served from the `cacher`.

pub mod admission;
pub mod aggregator;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod body;
pub mod bootstrap;
pub mod cacher;
pub mod codec;
pub mod config;
pub mod config_file;
pub mod egress;
pub mod encryption;
pub mod extensions;
pub mod flags;
pub mod flowcontrol;
pub mod handlers;
pub mod metrics;
pub mod negotiate;
pub mod object;
pub mod openapi;
pub mod query;
pub mod registry;
pub mod remote;
pub mod request;
pub mod server;
pub mod streaming;
pub mod ttl_cache;
pub mod url;
pub mod webhook;

pub use config::Config;
pub use flags::Flags;
pub use server::{Running, run, start};
