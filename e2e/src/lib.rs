//! Whole clusters for tests and benchmarks: real binaries, real containerd, in a network namespace of their own.
//!
//! [`cluster`] starts and stops them, [`joined`] adds nodes, [`network`] makes the namespace, [`process`] owns the
//! processes, [`kubectl`] runs command-line clients, [`wait`] waits for named conditions, [`pods`] for pods,
//! [`inventory`] counts what pods have on a machine, [`disk`] gives a machine a small disk. What needs no containers
//! has a [`control_plane`] without nodes, on loopback. [`measure`] is what benchmarks have in common.

pub mod cluster;
pub mod control_plane;
pub mod disk;
pub mod inventory;
pub mod joined;
pub mod kubectl;
pub mod measure;
pub mod network;
pub mod pods;
pub mod process;
pub mod wait;
