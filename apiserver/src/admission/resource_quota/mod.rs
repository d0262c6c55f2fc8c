//! ResourceQuota: what a namespace may use, counted when objects are written (upstream
//! `apiserver/pkg/admission/plugin/resourcequota`).
//!
//! Usage is kept in the status of the quota and changed by compare-and-swap, so that several servers never let more
//! in than the quota allows. Within one server the writes of a namespace that has quotas go one after the other.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::pod::{self, Resources};
use api::quantity::Quantity;
use api::quota::{self as usage, Counted, Devices};
use api::status::ApiError;
use client::informer::Informer;
use client::{Client, ObjectKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use serde_json::Value;

use super::{Attributes, Deps, Operation, Plugin, Verdict, decode};

/// A namespace found without quotas by asking the API is believed to have none for so long.
const BELIEVED: Duration = Duration::from_secs(30);
const REMEMBERED: usize = 10_000;
/// How often a status that somebody else changed is read again.
const ATTEMPTS: usize = 4;

/// Resources that are not counted: reviews are never stored, events come and go.
const IGNORED: [(&str, &str); 9] = [
    ("", "bindings"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// The plugin.
pub struct ResourceQuotas {
    client: Client,
    quotas: Informer<ResourceQuota>,
    /// Quotas as last written here: the cache may be behind.
    written: Mutex<HashMap<ObjectKey, Arc<ResourceQuota>>>,
    without: Mutex<HashMap<String, Instant>>,
    /// One writer for each namespace.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl ResourceQuotas {
    /// Watches quotas.
    pub fn new(deps: &Deps<'_>) -> Self {
        Self {
            client: deps.client.clone(),
            quotas: deps.informers.informer(),
            written: Mutex::default(),
            without: Mutex::default(),
            turns: Mutex::default(),
        }
    }

    /// Whether it is known that a namespace has no quotas.
    fn is_without(&self, namespace: &str) -> bool {
        self.without.lock().get(namespace).is_some_and(|until| *until > Instant::now())
            && self.quotas.store().list_namespace(namespace).is_empty()
    }

    /// The quotas of a namespace, in the newest state known.
    async fn of(&self, namespace: &str) -> Result<Vec<Arc<ResourceQuota>>, ApiError> {
        let known = self.quotas.store().list_namespace(namespace);
        if known.is_empty() {
            return self.listed(namespace).await;
        }
        let mut written = self.written.lock();
        let newest = |quota: Arc<ResourceQuota>| {
            let key = ObjectKey::of(&*quota);
            match written.get(&key) {
                Some(own) if version(own) > version(&quota) && own.uid() == quota.uid() => own.clone(),
                Some(_) => {
                    written.remove(&key);
                    quota
                }
                None => quota,
            }
        };
        Ok(known.into_iter().map(newest).collect())
    }

    async fn listed(&self, namespace: &str) -> Result<Vec<Arc<ResourceQuota>>, ApiError> {
        let api = Api::<ResourceQuota>::namespaced(self.client.clone(), namespace);
        let list = api.list(&ListParams::default()).await.map_err(crate::authz::from_client)?.items;
        if list.is_empty() {
            bounded(&mut self.without.lock()).insert(namespace.to_owned(), Instant::now() + BELIEVED);
        }
        Ok(list.into_iter().map(Arc::new).collect())
    }

    fn turn(&self, namespace: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        if turns.len() >= REMEMBERED {
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        turns.entry(namespace.to_owned()).or_default().clone()
    }

    /// Charges the quotas. Those that somebody else has changed are read and judged again.
    async fn charge(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        charge: &Charge,
    ) -> Result<(), ApiError> {
        let mut quotas = self.of(attributes.namespace).await?;
        let api = Api::<ResourceQuota>::namespaced(self.client.clone(), attributes.namespace);
        for attempt in 1..=ATTEMPTS {
            // Nothing is written before every quota has agreed.
            let mut changed = Vec::new();
            for quota in &quotas {
                match charge.plan(quota) {
                    Ok(Some(used)) => changed.push((quota.clone(), used)),
                    Ok(None) => {}
                    Err(why) => return Err(attributes.forbidden(object, &why)),
                }
            }
            if attributes.dry_run || changed.is_empty() {
                return Ok(());
            }
            let mut again = Vec::new();
            for (quota, used) in changed {
                let name = quota.name_any();
                let mut new = (*quota).clone();
                new.status.get_or_insert_default().used = Some(write(&used));
                match api.replace_status(&name, &PostParams::default(), &new).await {
                    Ok(stored) => {
                        let key = ObjectKey::of(&stored);
                        bounded(&mut self.written.lock()).insert(key, Arc::new(stored));
                    }
                    Err(kube::Error::Api(status)) if status.code == 409 && attempt < ATTEMPTS => {
                        again.push(name)
                    }
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(crate::authz::from_client(error)),
                }
            }
            if again.is_empty() {
                return Ok(());
            }
            quotas.clear();
            for name in again {
                let found = api.get_opt(&name).await.map_err(crate::authz::from_client)?;
                quotas.extend(found.map(Arc::new));
            }
        }
        Ok(())
    }
}

/// A map that is emptied before it grows without limit.
fn bounded<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>) -> &mut HashMap<K, V> {
    if map.len() >= REMEMBERED {
        map.clear();
    }
    map
}

fn version(quota: &ResourceQuota) -> u64 {
    quota.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn write(
    amounts: &Resources,
) -> std::collections::BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity> {
    amounts.iter().map(|(name, amount)| (name.clone(), amount.into())).collect()
}

/// What a write uses, now and before.
struct Charge {
    new: Counted<'static>,
    old: Option<Counted<'static>>,
    now: Timestamp,
}

impl Charge {
    /// How the use of `quota` will be; `None` if it does not change. The reason if it is too much.
    fn plan(&self, quota: &ResourceQuota) -> Result<Option<Resources>, String> {
        let limited = self.new.limited_by(quota);
        if limited.is_empty() {
            return Ok(None);
        }
        let name = quota.name_any();
        if let Some(complaint) = self.new.missing(&limited) {
            return Err(format!("failed quota: {name}: {complaint}"));
        }
        let ResourceQuotaStatus { hard, used } = quota.status.clone().unwrap_or_default();
        let (hard, used) = (pod::read(hard.as_ref()), pod::read(used.as_ref()));
        if limited.iter().any(|resource| !used.contains_key(resource)) {
            return Err(format!("status unknown for quota: {name}, resources: {}", limited.join(",")));
        }
        let mut delta = self.new.usage(self.now);
        let negative: Vec<&str> =
            delta.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name.as_str()).collect();
        if !negative.is_empty() {
            return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
        }
        if let Some(old) = self.old.as_ref().filter(|old| !old.limited_by(quota).is_empty()) {
            for (name, before) in old.usage(self.now) {
                if let Some(amount) = delta.get_mut(&name) {
                    amount.sub(&before);
                    if amount.sign() < 0 {
                        *amount = Quantity::default();
                    }
                }
            }
        }
        delta.retain(|name, amount| !amount.is_zero() && hard.contains_key(name));
        if delta.is_empty() {
            return Ok(None);
        }
        let mut new = used.clone();
        pod::add(&mut new, &delta);
        let exceeded: Vec<&String> = delta.keys().filter(|name| new.get(*name) > hard.get(*name)).collect();
        if exceeded.is_empty() {
            return Ok(Some(new));
        }
        let show = |amounts: &Resources| {
            let of = |name: &&String| amounts.get(*name).map(|amount| format!("{name}={amount}"));
            exceeded.iter().filter_map(of).collect::<Vec<_>>().join(",")
        };
        let (requested, before, limit) = (show(&delta), show(&used), show(&hard));
        Err(format!("exceeded quota: {name}, requested: {requested}, used: {before}, limited: {limit}"))
    }
}

fn counted(attributes: &Attributes<'_>, object: &Value) -> Result<Counted<'static>, ApiError> {
    let (group, resource) = (attributes.resource.group.as_ref(), attributes.resource.resource.as_ref());
    Ok(match (group, resource) {
        ("", "pods") => Counted::Pod(Cow::Owned(decode(object)?)),
        ("", "services") => Counted::Service(Cow::Owned(decode(object)?)),
        ("", "persistentvolumeclaims") => Counted::Claim(Cow::Owned(decode(object)?)),
        ("resource.k8s.io", "resourceclaims") => Counted::Devices(Devices::of(Cow::Owned(decode(object)?))),
        _ => Counted::Object {
            count: usage::count_name(group, resource),
            alias: usage::alias(group, resource),
        },
    })
}

/// Whether an update of a pod moves it from one scope to another.
fn changes_scope(object: &Value, old: &Value) -> bool {
    let (Ok(new), Ok(old)) = (decode::<Pod>(object), decode::<Pod>(old)) else { return false };
    usage::is_terminating(&new) != usage::is_terminating(&old)
}

impl Plugin for ResourceQuotas {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, attributes: &Attributes<'_>) -> bool {
        if attributes.namespace.is_empty() || attributes.is_any("", "namespaces") {
            return false;
        }
        if IGNORED.iter().any(|(group, resource)| attributes.is_any(group, resource)) {
            return false;
        }
        match attributes.operation {
            Operation::Create => attributes.subresource.is_empty(),
            Operation::Update => {
                attributes.is("", "pods")
                    || attributes.is("", "services")
                    || attributes.is("", "persistentvolumeclaims")
                    || (attributes.is_any("", "pods") && attributes.subresource == "resize")
            }
            _ => false,
        }
    }

    fn validate<'a>(
        &'a self,
        attributes: &'a Attributes<'_>,
        object: &'a Value,
        old: Option<&'a Value>,
        _: &'a mut Vec<String>,
    ) -> Verdict<'a> {
        if self.is_without(attributes.namespace) {
            return Verdict::PASS;
        }
        Verdict::later(async move {
            let old = old.filter(|_| attributes.operation == Operation::Update);
            if self.of(attributes.namespace).await?.is_empty() {
                return Ok(());
            }
            if attributes.is("", "pods") && old.is_some_and(|old| !changes_scope(object, old)) {
                return Ok(());
            }
            let stored = |old: &&Value| old["metadata"].get("resourceVersion").is_some();
            let charge = Charge {
                new: counted(attributes, object)?,
                old: old.filter(stored).map(|old| counted(attributes, old)).transpose()?,
                now: Timestamp::now(),
            };
            let turn = self.turn(attributes.namespace);
            let _mine = turn.lock().await;
            self.charge(attributes, object, &charge).await
        })
    }
}

#[cfg(test)]
mod tests;
