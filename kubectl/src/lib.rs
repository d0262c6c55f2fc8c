//! The command-line client (upstream kubectl).
//!
//! [`cli`] reads the command line, [`server`] talks to the API with plain JSON values, [`resource`] finds types by
//! whatever name a user gives them, [`manifest`] reads files, [`print`] writes results, and each command is a
//! module of [`commands`].

pub mod cli;
pub mod commands;
pub mod failure;
pub mod manifest;
pub mod print;
pub mod resource;
pub mod server;
