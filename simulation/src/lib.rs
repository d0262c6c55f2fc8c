//! Nodes that only exist in the API: as many as are asked for, without machines, runtimes or networks. What upstream
//! has kubemark's hollow nodes for.
//!
//! To everybody else they are nodes: they register, renew their leases, report what they are, and the pods bound to
//! them go through a pod's states. A pod's status is what the kubelet's own code makes of what a runtime would show;
//! the runtime is a formula ([`pod::life`]): what it shows follows from the pod, what its status says already, and the
//! time. So nothing is kept that the API does not hold, and a simulation that is started again goes on where the last
//! one stopped.
//!
//! Decided purely: [`pod::plan()`] what a pod needs, [`node`] what nodes are and when they report. Carried out: [`nodes`]
//! and [`pods`], each a queue of names with a bounded number of workers, however many nodes there are. One watch
//! brings all pods, which are kept whole only while something of them is still to be written ([`record`]).
//!
//! Not simulated: volumes, images, probes (what runs is ready), logs and exec, evictions, and events.

pub mod addresses;
pub mod config;
pub mod node;
pub mod nodes;
pub mod pod;
pub mod pods;
pub mod record;
mod run;

pub use config::{Config, Flags};
pub use run::run;
