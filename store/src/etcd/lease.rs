//! Leases: how keys get a time to live. One lease serves many keys, so that a cluster's events do not need a lease
//! each (upstream's `etcd3/lease_manager.go`): it is granted for a little longer, and given to everything that must
//! live about as long while that surplus lasts.

use std::sync::Arc;
use std::time::Duration;

use proto::etcd::etcdserverpb::LeaseGrantRequest;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client::{self, Client, Retry};
use super::error;
use crate::Error;

/// Keys that share one lease at most: revoking it deletes all of them at once.
const MOST_KEYS: usize = 1000;
/// A lease is given to later keys for at most this long ...
const MOST_SURPLUS: u64 = 60;
/// ... and at most this part of its time to live.
const SURPLUS_PERCENT: u64 = 5;
/// A lease is given out only while this much of the promised time is certain to be left.
const MARGIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    id: i64,
    /// Seconds to live of the keys it is for.
    ttl: u64,
    expires: Instant,
    keys: usize,
}

/// The leases of one connection.
pub(super) struct Leases {
    client: Arc<Client>,
    last: Mutex<Option<Lease>>,
}

impl Leases {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self { client, last: Mutex::new(None) }
    }

    /// A lease that lasts for `ttl` from now, and not much longer.
    pub(super) async fn lease_for(&self, ttl: Duration) -> Result<i64, Error> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let mut last = self.last.lock().await;
        if let Some(lease) = last.as_mut().filter(|lease| fits(lease, seconds, Instant::now())) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let granted = seconds + surplus(seconds);
        let request = LeaseGrantRequest { ttl: i64::try_from(granted).unwrap_or(i64::MAX), id: 0 };
        let send = |channel, request| async move { client::lease(channel).lease_grant(request).await };
        let asked = Instant::now();
        // One that was granted without our hearing of it runs out by itself.
        let answer = self.client.call(Retry::Always, request, send).await;
        let answer = answer.map_err(|status| error::of(&status))?;
        if !answer.error.is_empty() {
            return Err(Error::Unavailable { reason: format!("etcd grants no lease: {}", answer.error) });
        }
        let expires = asked + Duration::from_secs(granted);
        *last = Some(Lease { id: answer.id, ttl: seconds, expires, keys: 1 });
        Ok(answer.id)
    }
}

/// How much longer than its keys a lease lives.
fn surplus(ttl: u64) -> u64 {
    (ttl * SURPLUS_PERCENT / 100).min(MOST_SURPLUS)
}

fn fits(lease: &Lease, ttl: u64, now: Instant) -> bool {
    lease.keys < MOST_KEYS && lease.ttl == ttl && lease.expires >= now + Duration::from_secs(ttl) + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_shared_while_its_surplus_lasts() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        // An hour, as events have: three minutes more would be 5 %, one minute is the most.
        assert_eq!((surplus(3600), surplus(100), surplus(2)), (60, 5, 0));
        let lease = Lease { id: 1, ttl: 3600, expires: after(3660), keys: 1 };
        for (what, lease, ttl, at, wanted) in [
            ("at once", lease, 3600, now, true),
            ("near the end of the surplus", lease, 3600, after(58), true),
            ("after the surplus", lease, 3600, after(60), false),
            ("another time to live", lease, 600, now, false),
            ("full", Lease { keys: MOST_KEYS, ..lease }, 3600, now, false),
        ] {
            assert_eq!(fits(&lease, ttl, at), wanted, "{what}");
        }
    }
}
