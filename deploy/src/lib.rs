//! `coxswain`: a whole cluster, or any part of it, from one binary.
//!
//! [`layout`] says where files are, [`settings`] what was chosen, [`prepare`] makes what must be there before
//! ([`pki`], [`kubeconfig`]), [`images`] makes container images, [`containerd`] runs the container runtime,
//! [`components`] says with which flags each component runs, [`server`] runs them in one process, and [`up`] keeps
//! that process in the background. Other machines become nodes by [`join`], with a [`token`] by which they know the
//! cluster ([`discovery`]).

pub mod addons;
pub mod approver;
pub mod cleanup;
pub mod cli;
pub mod components;
pub mod containerd;
pub mod discovery;
pub mod images;
pub mod join;
pub mod kubeconfig;
pub mod layout;
pub mod node;
pub mod pki;
pub mod prepare;
pub mod processes;
pub mod server;
pub mod settings;
pub mod token;
pub mod up;
