//! The controllers that move a cluster from its observed to its desired state.
//!
//! Each module is one controller: `start` registers its caches and workers, `reconcile` looks at one key, a pure
//! `plan` decides, and writes carry it out. Controllers never talk to each other; they meet in the API. An object at
//! rest causes no write. `registry` lists them all, `run` starts those selected while this process leads.

mod admissionpolicy;
mod autoscaler;
mod bootstrap;
mod clock;
mod clusterrole_aggregation;
pub mod common;
mod context;
mod credentials;
mod cronjob;
mod csr;
mod daemonset;
mod deployment;
mod devicetaints;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod garbagecollector;
mod job;
mod legacy_tokens;
mod namespace;
mod nodeipam;
mod nodelifecycle;
mod options;
mod podgc;
mod protection;
mod quota;
mod registry;
mod replicaset;
mod resourceclaim;
mod root_ca;
mod run;
mod serviceaccount;
mod serviceaccount_tokens;
mod servicecidr;
mod statefulset;
mod tainteviction;
mod ttl;
mod ttlafterfinished;
mod volumes;

pub use clock::Clock;
pub use options::{Concurrency, Config, Flags};
pub use registry::{CONTROLLERS, Registration};
pub use run::run;
