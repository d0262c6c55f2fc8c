//! Servers that this one asks: webhooks and aggregated API servers (upstream `apiserver/pkg/util/{proxy,webhook}` and
//! `kube-aggregator`'s transports).
//!
//! A server is named by a URL or by a Service; a Service is resolved anew for each connection, from informers. Its
//! certificate is verified against a bundle of its own. Connections are kept and used again.

mod failure;
mod resolve;
mod transport;
mod trust;

pub use failure::describe;
pub use resolve::{Resolver, ServicePort, Unresolved};
pub use transport::{Target, Transport};
pub use trust::{Identity, Trust};
