//! What the work of a leader is given, and how it is kept from writing when others lead.

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::Client;

/// The right to work, for as long as we lead.
///
/// Work is asked to stop through [`Lead::token`]. Whatever of it still goes on when others may lead finds that none of
/// its requests get through: a call that hung while the lease ran out must not be followed by another.
#[derive(Clone)]
pub struct Lead {
    /// Requests go through here.
    pub client: Client,
    /// Cancelled when the work is to stop.
    pub token: CancellationToken,
    /// Cancelled when somebody else may lead; `None` where there is nobody else.
    over: Option<CancellationToken>,
}

impl Lead {
    /// Work without an election.
    #[must_use]
    pub fn alone(client: Client, token: CancellationToken) -> Self {
        Self { client, token, over: None }
    }

    /// Work under a lease; it ends for good when the guard is dropped.
    pub(super) fn under_lease(client: Client, token: CancellationToken) -> (Self, DropGuard) {
        let over = CancellationToken::new();
        let lead = Self { client: fenced(client, over.clone()), token, over: Some(over.clone()) };
        (lead, over.drop_guard())
    }

    /// Another client, whose requests get through no longer than ours.
    #[must_use]
    pub fn fence(&self, client: Client) -> Client {
        match &self.over {
            Some(over) => fenced(client, over.clone()),
            None => client,
        }
    }
}

/// The request was given up: somebody else may lead by now.
#[derive(Debug, thiserror::Error)]
#[error("no longer the leader")]
struct Fenced;

fn fenced(client: Client, over: CancellationToken) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (client, over) = (client.clone(), over.clone());
        async move {
            tokio::select! {
                biased;
                () = over.cancelled() => Err(kube::Error::Service(Box::new(Fenced))),
                answer = client.send(request) => answer,
            }
        }
    });
    Client::new(service, namespace)
}
