//! Servers that this one asks: webhooks and aggregated API servers (upstream `apiserver/pkg/util/{proxy,webhook}` and
//! `kube-aggregator`'s transports).
//!
//! A server is named by a URL or by a Service; a Service is resolved anew for each connection, from informers. Its
//! certificate is verified against a bundle of its own. Connections are kept and used again. They may have to be opened
//! through a proxy.

mod dialer;
mod failure;
mod konnectivity;
mod resolve;
mod socks;
mod transport;
mod trust;

pub use dialer::{Dialer, Listens, Protocol, Proxy, Stream};
pub use failure::{DialError, describe};
pub use resolve::{Resolver, ServicePort, Unresolved};
pub use transport::{Target, Transport};
pub use trust::{Identity, Trust};
