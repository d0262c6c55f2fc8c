//! Leader election over a Lease: of several copies of a component one works (upstream
//! `client-go/tools/leaderelection`).
//!
//! Clocks of different machines are never compared: a lease counts as expired when it has not changed for its
//! duration by our own clock.

mod lead;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use lead::Lead;

use crate::{Api, Client, chain};

/// How long after the end of its lease a leader that still works is called unhealthy.
const TOLERANCE: Duration = Duration::from_secs(20);

const STATUS: &str = "leader_election_master_status";
const SLOW_PATH: &str = "leader_election_slowpath_total";

/// Which lease to hold, as whom, and how patiently. Clones stand for the same candidate.
#[derive(Clone, Debug)]
pub struct LeaderElection {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are; must differ between the copies.
    pub identity: String,
    /// How long others wait after the last renewal before they take over.
    pub lease: Duration,
    /// How long a leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    /// Time between tries.
    pub retry_period: Duration,
    /// When the lease that we hold was last renewed.
    renewed: Arc<Mutex<Option<Instant>>>,
}

/// We led, and lost the lease to somebody else or to a server that did not answer in time.
#[derive(Debug, thiserror::Error)]
#[error("leader election lost for {name}")]
pub struct Lost {
    /// Name of the Lease.
    pub name: String,
}

/// The flags by which a component is told whether and how to elect a leader.
#[derive(Clone, Debug, clap::Args)]
pub struct LeaderFlags {
    /// Start a leader election client and gain leadership before executing the main loop.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub leader_elect: bool,
    /// How long non-leaders wait, in seconds with the suffix s, before they take over.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub leader_elect_lease_duration: Duration,
    /// How long the leader tries to renew before it stops leading.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub leader_elect_renew_deadline: Duration,
    /// How long to wait between tries.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub leader_elect_retry_period: Duration,
    /// Name of the Lease.
    #[arg(long)]
    pub leader_elect_resource_name: Option<String>,
    /// Namespace of the Lease.
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
}

impl LeaderFlags {
    /// The election these flags stand for; none if switched off.
    #[must_use]
    pub fn election(&self, default_name: &str) -> Option<LeaderElection> {
        self.leader_elect.then(|| LeaderElection {
            namespace: self.leader_elect_resource_namespace.clone(),
            name: self.leader_elect_resource_name.clone().unwrap_or_else(|| default_name.to_owned()),
            identity: identity(),
            lease: self.leader_elect_lease_duration,
            renew_deadline: self.leader_elect_renew_deadline,
            retry_period: self.leader_elect_retry_period,
            renewed: Arc::default(),
        })
    }
}

/// A Go-style duration such as `1m30s` or `500ms`.
///
/// # Errors
/// The text is not such a duration; the error says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 15s, 1m30s or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_len = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit_len] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
        rest = &rest[unit_len..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Host name and a random part, as upstream identifies a candidate.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), uuid::Uuid::new_v4())
}

/// Says what each metric means.
pub(crate) fn describe() {
    metrics::describe_gauge!(
        STATUS,
        "1 while this process leads by the lease of that name, 0 while it does not."
    );
    metrics::describe_counter!(SLOW_PATH, "Renewals that had to read the lease before.");
}

impl LeaderElection {
    /// A health check, by upstream's name `leaderElection`: fails if we lead on although the lease has long expired.
    pub fn check(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let (renewed, name, patience) = (self.renewed.clone(), self.name.clone(), self.lease + TOLERANCE);
        move || match *renewed.lock() {
            Some(at) if at.elapsed() > patience => {
                Err(format!("failed election to renew leadership on lease {name}"))
            }
            _ => Ok(()),
        }
    }

    fn leads(&self, leads: bool) {
        metrics::gauge!(STATUS, "name" => self.name.clone()).set(if leads { 1.0 } else { 0.0 });
        if !leads {
            *self.renewed.lock() = None;
        }
    }

    /// Waits to become leader, then runs `work` until the lease is lost, the work ends, or `token` is cancelled.
    /// Work that must stop is told so, and dropped when others may lead. Else the lease is given back on the way out.
    ///
    /// # Errors
    /// The lease was lost.
    pub async fn run<F, Fut>(&self, client: Client, token: CancellationToken, work: F) -> Result<(), Lost>
    where
        F: FnOnce(Lead) -> Fut,
        Fut: Future<Output = ()>,
    {
        let api: Api<Lease> = Api::namespaced(client.clone(), &self.namespace);
        let mut candidate = Candidate { election: self, api, observed: None };
        self.leads(false);
        tokio::select! {
            biased;
            () = token.cancelled() => return Ok(()),
            () = candidate.acquire() => {}
        }
        self.leads(true);
        info!(lease = self.name, identity = self.identity, "became leader");
        let leading = token.child_token();
        let (lead, over) = Lead::under_lease(client, leading.clone());
        let lost = {
            let work = work(lead);
            tokio::pin!(work);
            tokio::select! {
                () = &mut work => false,
                () = token.cancelled() => { work.await; false }
                until = candidate.keep() => {
                    leading.cancel();
                    if tokio::time::timeout_at(until, work).await.is_err() {
                        warn!(lease = self.name, "work goes on although the lease has run out, leaving it");
                    }
                    true
                }
            }
        };
        drop(over);
        leading.cancel();
        self.leads(false);
        if lost {
            return Err(Lost { name: self.name.clone() });
        }
        candidate.release().await;
        Ok(())
    }
}

struct Candidate<'a> {
    election: &'a LeaderElection,
    api: Api<Lease>,
    /// The lease as last seen, and when we first saw it like that.
    observed: Option<(Lease, Instant)>,
}

impl Candidate<'_> {
    async fn acquire(&mut self) {
        loop {
            match self.try_hold().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => debug!(error = %chain(&error), "could not acquire lease, will retry"),
            }
            let jitter = rand::random_range(1.0..2.2);
            tokio::time::sleep(self.election.retry_period.mul_f64(jitter)).await;
        }
    }

    /// Renews until that has failed for too long; until when nobody else can have taken the lease.
    async fn keep(&mut self) -> Instant {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.election.retry_period).await;
            let began = Instant::now();
            let left = self.election.renew_deadline.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_hold()).await {
                Ok(Ok(true)) => renewed = began,
                Ok(Ok(false)) => {
                    warn!(lease = self.election.name, "lease is held by somebody else");
                    return began;
                }
                Ok(Err(error)) => debug!(error = %chain(&error), "could not renew lease, will retry"),
                Err(_) => {
                    warn!(lease = self.election.name, "lease could not be renewed in time");
                    return renewed + self.election.lease;
                }
            }
        }
    }

    /// One try to take or renew the lease; false if somebody else holds it.
    async fn try_hold(&mut self) -> kube::Result<bool> {
        let now = Timestamp::now();
        if let Some(current) = self.held() {
            match self.write(current, now).await {
                Ok(()) => return Ok(true),
                Err(error) => debug!(error = %chain(&error), "lease is not what it was, reading it"),
            }
        }
        let Some(current) = self.api.get_opt(&self.election.name).await? else {
            let created = self.api.create(&PostParams::default(), &self.wanted(None, now)).await?;
            self.holds(created);
            return Ok(true);
        };
        if self.observed.as_ref().is_none_or(|(seen, _)| seen.spec != current.spec) {
            self.observed = Some((current.clone(), Instant::now()));
        }
        let spec = current.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.unwrap_or_default();
        let duration =
            Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0).unsigned_abs().into());
        let fresh = self.observed.as_ref().is_some_and(|(_, at)| at.elapsed() < duration);
        if !holder.is_empty() && holder != self.election.identity && fresh {
            return Ok(false);
        }
        if holder == self.election.identity {
            metrics::counter!(SLOW_PATH, "name" => self.election.name.clone()).increment(1);
        }
        self.write(current, now).await?;
        Ok(true)
    }

    /// The lease as we last wrote it, if it has not expired since: nobody else should have changed it.
    fn held(&self) -> Option<Lease> {
        let (lease, at) = self.observed.as_ref()?;
        let holder = lease.spec.as_ref()?.holder_identity.as_ref()?;
        (*holder == self.election.identity && at.elapsed() < self.election.lease).then(|| lease.clone())
    }

    async fn write(&mut self, current: Lease, now: Timestamp) -> kube::Result<()> {
        let wanted = self.wanted(Some(current), now);
        let updated = self.api.replace(&self.election.name, &PostParams::default(), &wanted).await?;
        self.holds(updated);
        Ok(())
    }

    fn holds(&mut self, lease: Lease) {
        let now = Instant::now();
        self.observed = Some((lease, now));
        *self.election.renewed.lock() = Some(now);
    }

    /// The lease as it should be when we hold it.
    fn wanted(&self, current: Option<Lease>, now: Timestamp) -> Lease {
        let mut lease = current.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.election.name.clone()),
                namespace: Some(self.election.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let old = lease.spec.take().unwrap_or_default();
        let ours = old.holder_identity.as_deref() == Some(&self.election.identity);
        let transitions = old.lease_transitions.unwrap_or(0);
        let seconds = i32::try_from(self.election.lease.as_secs()).unwrap_or(i32::MAX);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: Some(seconds),
            acquire_time: if ours { old.acquire_time } else { Some(MicroTime(now)) },
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours || old.holder_identity.is_none() {
                transitions
            } else {
                transitions + 1
            }),
            ..old
        });
        lease
    }

    /// Gives the lease back so that the next leader need not wait.
    async fn release(&mut self) {
        let Some((mut lease, _)) = self.observed.take() else { return };
        if let Some(spec) = lease.spec.as_mut() {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
            spec.renew_time = Some(MicroTime(Timestamp::now()));
        }
        let patience = self.election.retry_period;
        let params = PostParams::default();
        let write = self.api.replace(&self.election.name, &params, &lease);
        match tokio::time::timeout(patience, write).await {
            Ok(Ok(_)) => info!(lease = self.election.name, "gave the lease back"),
            Ok(Err(error)) => debug!(error = %chain(&error), "could not give the lease back"),
            Err(_) => debug!("could not give the lease back in time"),
        }
    }
}

#[cfg(test)]
mod tests;
