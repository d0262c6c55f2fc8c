//! `coxswain`: a whole cluster, or any part of it, from one binary.
//!
//! [`layout`] says where files are, [`settings`] what was chosen, [`prepare`] makes what must be there before
//! ([`pki`], [`kubeconfig`]), [`images`] makes container images, [`containerd`] runs the container runtime,
//! [`components`] says with which flags each component runs, [`server`] runs them in one process, and [`up`] keeps
//! that process in the background.

pub mod addons;
pub mod cleanup;
pub mod cli;
pub mod components;
pub mod containerd;
pub mod images;
pub mod kubeconfig;
pub mod layout;
pub mod pki;
pub mod prepare;
pub mod processes;
pub mod server;
pub mod settings;
pub mod up;
