//! Access, admission, Services' addresses and streaming, asked of a whole server over TLS or its loopback client.

#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod admission;
mod services;
mod streaming;
mod support;
