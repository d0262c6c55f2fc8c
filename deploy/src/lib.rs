//! `coxswain`: a whole cluster, or any part of it, from one binary.
//!
//! [`layout`] says where files are, [`pki`] and [`kubeconfig`] make identities, [`images`] makes container images,
//! [`containerd`] runs the container runtime.

pub mod cli;
pub mod containerd;
pub mod images;
pub mod kubeconfig;
pub mod layout;
pub mod pki;
