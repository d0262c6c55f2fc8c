//! How components talk to the API.
//!
//! Requests go through the `kube` crate's client over any transport: HTTPS, or the apiserver's own service in
//! the same process. Everything above requests is here: shared informers with indexes ([`informer`]), the work
//! queue ([`workqueue`]) and the workers on it ([`controller`]), leader election ([`leader`]), events
//! ([`events`]), and what every component's process has in common ([`component`], [`serving`], [`tasks`]).
//!
//! `kube-runtime` was tried and rejected: its shared reflectors drop deletes, have no indexes and let the slowest
//! subscriber hold up all others.

pub mod component;
pub mod connect;
pub mod controller;
pub mod events;
pub mod informer;
pub mod leader;
pub mod object;
pub mod observability;
pub mod serving;
pub mod tasks;
pub mod tls;
pub mod workqueue;

pub use connect::{ClientFlags, ConnectOptions, connect, connect_anonymous};
pub use events::{EventRecorder, EventType};
pub use informer::{Event, Informer, PartialObject, Selection, SharedInformerFactory, Store};
pub use k8s_openapi;
pub use kube;
pub use kube::Api;
pub use object::{Object, ObjectKey};
pub use tasks::Tasks;
pub use workqueue::WorkQueue;

/// The client every component uses; clones share connections.
pub type Client = kube::Client;

/// Whether the API answered with this HTTP code.
#[must_use]
pub fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// 404: the object does not exist.
#[must_use]
pub fn is_not_found(error: &kube::Error) -> bool {
    is_status(error, 404)
}

/// 409 of any reason: the object exists already or was modified.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    is_status(error, 409)
}

/// 409 because the name is taken.
#[must_use]
pub fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409 && status.reason == "AlreadyExists")
}

/// An error with its causes, outermost first, on one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
