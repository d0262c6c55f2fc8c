//! Access, admission, apply, the machinery of the API, Services' addresses, streaming and the published API, asked of a whole server over TLS or its loopback client.

#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod admission;
mod aggregation;
mod apply;
mod attacks;
mod audit;
mod authorizers;
mod conversion;
mod custom;
mod encryption;
mod flow_control;
mod hook;
mod limits;
mod machinery;
mod openapi;
mod patches;
mod policies;
mod services;
mod streaming;
mod support;
mod tokens;
mod transport;
mod ways;
mod webhooks;
