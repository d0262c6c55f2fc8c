//! What was promised to a pod on its way to its node: devices for its claims.

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use tracing::debug;

use super::check::Check;
use super::extended::{Mappings, is_in_memory};
use super::{Devices, Pending, UNSEEN, allocation, binding, is_used_by, key_of, write};
use crate::framework::Rejection;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// One claim of the pod.
#[derive(Clone)]
struct Promised {
    /// As it is in the API; as it is to be, if it has to be made.
    claim: Arc<ResourceClaim>,
    /// What it gets; none if it has its devices.
    result: Option<AllocationResult>,
    /// Which containers use it, if it is for extended resources.
    mappings: Option<Mappings>,
}

/// All claims of a pod, and what they get.
#[derive(Clone)]
pub(super) struct Promise {
    claims: Vec<Promised>,
    /// Whether anything of it was written.
    written: bool,
}

fn uid(claim: &ResourceClaim) -> String {
    claim.metadata.uid.clone().unwrap_or_default()
}

impl Promise {
    /// From now on nobody else gets these devices.
    pub(super) fn make(devices: &Devices, check: &Check, node: &NodeInfo) -> Result<Self, Rejection> {
        let found = check.on(node)?;
        let mut claims: Vec<_> = check
            .allocated
            .iter()
            .map(|claim| Promised { claim: claim.clone(), result: None, mappings: None })
            .collect();
        let mut pending = devices.pending.lock();
        for (claim, result) in found.claims {
            let is_new = is_in_memory(&claim);
            let unseen_until = is_new.then(|| Instant::now() + Duration::from_secs(3600));
            let entry = Pending { claim: key_of(&claim), allocation: result.clone(), unseen_until };
            pending.insert(uid(&claim), entry);
            let mappings = found.mappings.clone().filter(|_| is_new);
            claims.push(Promised { claim, result: Some(result), mappings });
        }
        Ok(Self { claims, written: false })
    }

    /// Whether there is something to take back.
    pub(super) fn has_written(&self) -> bool {
        self.written
    }

    pub(super) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Whether any of the devices has to be made ready.
    pub(super) fn has_conditions(&self) -> bool {
        self.claims.iter().any(|promised| {
            let has = |result: &AllocationResult| binding::conditional(result).next().is_some();
            promised.result.as_ref().or_else(|| allocation(&promised.claim)).is_some_and(has)
        })
    }

    /// Others may get the devices. What was written stays with its claim, seen or not, unless the claim goes.
    pub(super) fn forget(&self, devices: &Devices) {
        let mut pending = devices.pending.lock();
        let free = |promised: &&Promised| {
            let written = allocation(&promised.claim).is_some();
            promised.result.is_some() && (!written || promised.mappings.is_some())
        };
        for promised in self.claims.iter().filter(free) {
            pending.remove(&uid(&promised.claim));
        }
    }

    /// Writes it down; `note` is told of every claim that was written.
    pub(super) async fn keep(
        &mut self,
        client: &Client,
        devices: &Devices,
        pod: &PodInfo,
        note: impl Fn(&Self),
    ) -> Result<(), String> {
        for at in 0..self.claims.len() {
            let promised = &self.claims[at];
            let result = promised.result.clone();
            if result.is_none() && is_used_by(&promised.claim, pod) {
                continue;
            }
            self.written = true;
            note(self);
            let promised = &self.claims[at];
            if is_in_memory(&promised.claim) {
                let made = write::create(client, &promised.claim).await?;
                self.made(at, made, devices);
                note(self);
            }
            let key = key_of(&self.claims[at].claim);
            let written = write::reserve(client, pod, &key, result.as_ref()).await?;
            self.claims[at].claim = Arc::new(written);
            note(self);
            if let Some(mappings) = &self.claims[at].mappings {
                write::tell_pod(client, pod, &self.claims[at].claim, mappings).await?;
            }
        }
        Ok(())
    }

    /// A claim that was only in memory is in the API now; its devices stay taken until it is seen with them.
    fn made(&mut self, at: usize, made: ResourceClaim, devices: &Devices) {
        let mut pending = devices.pending.lock();
        if let Some(mut known) = pending.remove(&uid(&self.claims[at].claim)) {
            known.claim = key_of(&made);
            known.unseen_until = Some(Instant::now() + UNSEEN);
            pending.insert(uid(&made), known);
        }
        self.claims[at].claim = Arc::new(made);
    }

    /// Waits for devices that have to be made ready.
    pub(super) async fn wait(&self, devices: &Devices, patience: Duration) -> Result<(), String> {
        if !self.has_conditions() {
            return Ok(());
        }
        let keys = self.claims.iter().map(|promised| (key_of(&promised.claim), promised.mappings.is_some()));
        let keys: Vec<_> = keys.collect();
        let mut changes = devices.changes.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if are_ready(devices, &keys, patience)? {
                    return Ok(());
                }
                if changes.changed().await.is_err() {
                    return Err("device binding: the scheduler stops".to_owned());
                }
            }
        };
        let late = || Err("device binding timeout: context deadline exceeded".to_owned());
        tokio::time::timeout(patience, wait).await.unwrap_or_else(|_| late())
    }

    /// Takes back what was written: the pod did not get its node after all.
    pub(super) async fn take_back(&self, client: &Client, pod: &PodInfo) {
        for promised in &self.claims {
            let claim = &promised.claim;
            let outcome = if is_in_memory(claim) {
                Ok(())
            } else if promised.mappings.is_some() {
                write::delete(client, claim).await
            } else if allocation(claim).is_some() && is_used_by(claim, pod) {
                write::unreserve(client, pod.uid(), claim).await
            } else {
                Ok(())
            };
            if let Err(error) = outcome {
                debug!(claim = %key_of(claim), error = %client::chain(&error), "could not take a claim back");
            }
        }
    }
}

/// Whether all devices are ready. Claims that were just made may not be seen yet.
fn are_ready(devices: &Devices, keys: &[(ObjectKey, bool)], patience: Duration) -> Result<bool, String> {
    for (key, is_new) in keys {
        let Some(claim) = devices.claims.get(key) else {
            if *is_new {
                return Ok(false);
            }
            return Err(format!("resourceclaim.resource.k8s.io {:?} not found", key.name));
        };
        if !binding::is_ready(&claim)? {
            if binding::is_late(&claim, Timestamp::now(), patience) {
                return Err(format!("device binding timeout: claim={}", key.name));
            }
            return Ok(false);
        }
    }
    Ok(true)
}
