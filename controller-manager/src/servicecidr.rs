//! ServiceCIDRs: held by a finalizer while addresses of Services lie in them, and marked ready.
//! As upstream's pkg/controller/servicecidrs.

use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::{Context, enqueue_all, states};
use crate::nodeipam::Cidr;
use client::controller::Action;
use client::kube::api::{Patch, PatchParams, PostParams};
use client::{Api, Informer, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// API servers need a moment to see that a range is going, and to give no more of its addresses.
const GRACE: Duration = Duration::from_secs(10);

/// Starts the controller.
pub fn start(cx: &Context) {
    let (ranges, addresses) = (cx.informer::<ServiceCIDR>(), cx.informer::<IPAddress>());
    let queue = WorkQueue::new("ipaddresses");
    enqueue_all(&ranges, &queue);
    let (all, keys) = (ranges.clone(), queue.clone());
    ranges.subscribe(move |event| {
        // Another range that covers a going one may come or go.
        for range in states(event) {
            let overlapping = all.store().list().into_iter().filter(|other| overlap(range, other));
            overlapping.for_each(|other| keys.add(meta::key(&other.metadata)));
        }
    });
    let (all, keys) = (ranges.clone(), queue.clone());
    addresses.subscribe(move |event| {
        if !matches!(event, client::Event::Deleted(_)) {
            return;
        }
        let going = all.store().list().into_iter().filter(|range| meta::is_deleting(&range.metadata));
        going.for_each(|range| keys.add(meta::key(&range.metadata)));
    });
    let (client, clock) = (cx.client.clone(), cx.config.clock);
    let both = (ranges.clone(), addresses.clone());
    let synced = async move {
        both.0.synced().await;
        both.1.synced().await;
    };
    cx.work("service-cidr-controller", queue, 1, synced, move |key| {
        let (client, ranges, addresses) = (client.clone(), ranges.clone(), addresses.clone());
        async move {
            let Some(range) = ranges.store().get(&key) else { return Ok(Action::Done) };
            let api: Api<ServiceCIDR> = Api::all(client);
            let now = clock.now();
            if let Some(deleted) = &range.metadata.deletion_timestamp {
                if !may_go(&range, &ranges, &addresses) {
                    set_ready(&api, &range, blocked(now)).await?;
                    return Ok(Action::Done);
                }
                let past =
                    Duration::from_secs(u64::try_from(now.as_second() - deleted.0.as_second()).unwrap_or(0));
                let left = GRACE.saturating_sub(past);
                if !left.is_zero() {
                    return Ok(Action::RequeueAfter(left));
                }
                if meta::has_finalizer(&range.metadata, FINALIZER) {
                    let left: Vec<_> =
                        meta::finalizers(&range.metadata).iter().filter(|held| *held != FINALIZER).collect();
                    patch(&api, &range, json!(left)).await?;
                }
                return Ok(Action::Done);
            }
            if !meta::has_finalizer(&range.metadata, FINALIZER) {
                let mut finalizers = meta::finalizers(&range.metadata).to_vec();
                finalizers.push(FINALIZER.to_owned());
                patch(&api, &range, json!(finalizers)).await?;
                // The change itself brings the range back here.
                return Ok(Action::Done);
            }
            set_ready(&api, &range, ready(now)).await?;
            Ok(Action::Done)
        }
    });
}

async fn patch(
    api: &Api<ServiceCIDR>,
    range: &ServiceCIDR,
    finalizers: serde_json::Value,
) -> anyhow::Result<()> {
    let patch = Patch::Merge(json!({ "metadata": {
        "uid": range.metadata.uid,
        "resourceVersion": range.metadata.resource_version,
        "finalizers": finalizers,
    }}));
    api.patch(meta::name(&range.metadata), &PatchParams::default(), &patch).await.ignore_not_found()?;
    Ok(())
}

fn condition(status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(now),
        observed_generation: None,
    }
}

fn ready(now: Timestamp) -> Condition {
    condition("True", "", "Kubernetes Service CIDR is ready", now)
}

fn blocked(now: Timestamp) -> Condition {
    let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
    condition("False", "Terminating", message, now)
}

async fn set_ready(api: &Api<ServiceCIDR>, range: &ServiceCIDR, condition: Condition) -> anyhow::Result<()> {
    let held = range.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let same = |held: &&Condition| {
        held.type_ == condition.type_
            && held.status == condition.status
            && held.reason == condition.reason
            && held.message == condition.message
    };
    if held.iter().any(|held| same(&held)) {
        return Ok(());
    }
    let mut changed = range.clone();
    let list = changed.status.get_or_insert_default().conditions.get_or_insert_default();
    list.retain(|held| held.type_ != condition.type_);
    list.push(condition);
    api.replace_status(meta::name(&range.metadata), &PostParams::default(), &changed).await?;
    Ok(())
}

fn cidrs(range: &ServiceCIDR) -> Vec<Cidr> {
    let texts = range.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
    texts.iter().filter_map(|text| Cidr::parse(text)).collect()
}

fn overlap(a: &ServiceCIDR, b: &ServiceCIDR) -> bool {
    cidrs(a).iter().any(|one| cidrs(b).iter().any(|other| one.overlaps(*other)))
}

/// Whether the range may go: another covers it, or no address lies in it alone.
fn may_go(range: &ServiceCIDR, ranges: &Informer<ServiceCIDR>, addresses: &Informer<IPAddress>) -> bool {
    let addresses: Vec<_> = addresses.store().list().iter().filter_map(|address| alone(address)).collect();
    decide(range, &ranges.store().list(), &addresses)
}

/// The address as a range of its own.
fn alone(address: &IPAddress) -> Option<Cidr> {
    let name = meta::name(&address.metadata);
    let prefix = if name.contains(':') { 128 } else { 32 };
    Cidr::parse(&format!("{name}/{prefix}"))
}

fn decide(range: &ServiceCIDR, ranges: &[Arc<ServiceCIDR>], addresses: &[Cidr]) -> bool {
    let others: Vec<_> = ranges
        .iter()
        .filter(|other| other.metadata.name != range.metadata.name && !meta::is_deleting(&other.metadata))
        .flat_map(|other| cidrs(other))
        .collect();
    let within = |address: &Cidr, list: &[Cidr]| list.iter().any(|range| range.overlaps(*address));
    let own = cidrs(range);
    addresses.iter().all(|address| !within(address, &own) || within(address, &others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::networking::v1::ServiceCIDRSpec;

    fn range(name: &str, cidr: &str) -> Arc<ServiceCIDR> {
        let mut range = ServiceCIDR::default();
        range.metadata.name = Some(name.into());
        range.spec = Some(ServiceCIDRSpec { cidrs: Some(vec![cidr.into()]) });
        Arc::new(range)
    }

    #[test]
    fn addresses_hold_the_range_unless_another_has_them() {
        let address = |text: &str| Cidr::parse(&format!("{text}/32")).expect("valid");
        let small = range("small", "10.0.0.0/24");
        for (others, addresses, expected) in [
            (vec![], vec![], true),
            (vec![], vec!["10.0.0.7"], false),
            (vec![], vec!["10.0.1.7"], true),
            (vec![range("large", "10.0.0.0/16")], vec!["10.0.0.7"], true),
            (vec![range("half", "10.0.0.0/25")], vec!["10.0.0.7", "10.0.0.200"], false),
        ] {
            let addresses: Vec<_> = addresses.into_iter().map(address).collect();
            assert_eq!(decide(&small, &others, &addresses), expected);
        }
    }
}
