//! Removes tokens in Secrets that were made for service accounts long ago and that nobody uses.
//! As upstream's legacy_serviceaccount_token_cleaner.go.
//!
//! Such a token is first marked as invalid, which its users would notice, and deleted only when it has been so for as
//! long again. Tokens that people made themselves (accounts do not list them) stay.

use crate::clock::Clock;
use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::Context;
use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use client::{Api, Informer, ObjectKey};
use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, ToSpan};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, ServiceAccount, Volume};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "legacy-serviceaccount-token-cleaner-controller";
const TYPE: &str = "kubernetes.io/service-account-token";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const PERIOD: Duration = Duration::from_hours(24);

/// What to do about a token.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Keep,
    /// Mark it as invalid from today on.
    Invalidate(String),
    Delete,
}

/// The day of a label.
fn day(text: &str) -> Option<Date> {
    text.parse().ok()
}

/// When tokens began to be watched, at the latest: the end of the day that is written down.
fn tracked_since(map: &ConfigMap) -> Option<Timestamp> {
    let since = day(map.data.as_ref()?.get("since")?)?;
    let next = since.checked_add(1.day()).ok()?;
    next.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|time| time.timestamp())
}

fn plan(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    mounted: bool,
    unused_for: SignedDuration,
    now: Timestamp,
) -> Plan {
    let Ok(since) = now.checked_sub(unused_for) else { return Plan::Keep };
    let date = |time: Timestamp| time.to_zoned(jiff::tz::TimeZone::UTC).date();
    let old = secret.metadata.creation_timestamp.as_ref().is_some_and(|created| created.0 < since);
    if secret.type_.as_deref() != Some(TYPE) || !old || meta::is_deleting(&secret.metadata) {
        return Plan::Keep;
    }
    if let Some(used) = meta::label(&secret.metadata, LAST_USED)
        && day(used).is_none_or(|used| used >= date(since))
    {
        return Plan::Keep;
    }
    let uid = meta::annotation(&secret.metadata, "kubernetes.io/service-account.uid").unwrap_or_default();
    let same = |account: &&ServiceAccount| uid.is_empty() || uid == meta::uid(&account.metadata);
    let listed = account.filter(same).and_then(|account| account.secrets.as_deref()).unwrap_or_default();
    if mounted || !listed.iter().any(|listed| listed.name == secret.metadata.name) {
        return Plan::Keep;
    }
    match meta::label(&secret.metadata, INVALID_SINCE).and_then(day) {
        None => Plan::Invalidate(date(now).to_string()),
        Some(invalid) if invalid >= date(since) => Plan::Keep,
        Some(_) => Plan::Delete,
    }
}

/// The secrets that a pod names. As upstream's VisitPodSecretNames.
fn secrets_of(pod: &Pod) -> BTreeSet<String> {
    let Some(spec) = &pod.spec else { return BTreeSet::new() };
    let pull = spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone());
    let of_container = |container: &Container| {
        let from = container.env_from.iter().flatten();
        let from = from.filter_map(|from| Some(from.secret_ref.as_ref()?.name.clone()));
        let env = container.env.iter().flatten();
        let env = env.filter_map(|env| Some(env.value_from.as_ref()?.secret_key_ref.as_ref()?.name.clone()));
        from.chain(env).collect::<Vec<_>>()
    };
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let mut names: BTreeSet<_> = pull.chain(containers.flat_map(of_container)).collect();
    names.extend(spec.volumes.iter().flatten().flat_map(secrets_of_volume));
    names.remove("");
    names
}

fn secrets_of_volume(volume: &Volume) -> Vec<String> {
    let mut names = Vec::new();
    let mut local = |reference: Option<&k8s_openapi::api::core::v1::LocalObjectReference>| {
        names.extend(reference.map(|reference| reference.name.clone()));
    };
    local(volume.cephfs.as_ref().and_then(|source| source.secret_ref.as_ref()));
    local(volume.cinder.as_ref().and_then(|source| source.secret_ref.as_ref()));
    local(volume.csi.as_ref().and_then(|source| source.node_publish_secret_ref.as_ref()));
    local(volume.flex_volume.as_ref().and_then(|source| source.secret_ref.as_ref()));
    local(volume.iscsi.as_ref().and_then(|source| source.secret_ref.as_ref()));
    local(volume.rbd.as_ref().and_then(|source| source.secret_ref.as_ref()));
    local(volume.scale_io.as_ref().map(|source| &source.secret_ref));
    local(volume.storageos.as_ref().and_then(|source| source.secret_ref.as_ref()));
    names.extend(volume.azure_file.as_ref().map(|source| source.secret_name.clone()));
    names.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
    let projected =
        volume.projected.as_ref().and_then(|source| source.sources.as_deref()).unwrap_or_default();
    names.extend(projected.iter().filter_map(|source| Some(source.secret.as_ref()?.name.clone())));
    names
}

struct Cleaner {
    secrets: Informer<Secret>,
    accounts: Informer<ServiceAccount>,
    pods: Informer<Pod>,
    client: client::Client,
    clock: Clock,
    unused_for: SignedDuration,
}

/// Starts the controller.
pub fn start(cx: &Context) {
    let unused_for = cx.config.flags.legacy_service_account_token_clean_up_period;
    let cleaner = Cleaner {
        secrets: cx.informer(),
        accounts: cx.informer(),
        pods: cx.pods(),
        client: cx.client.clone(),
        clock: cx.config.clock,
        unused_for: SignedDuration::try_from(unused_for).unwrap_or(SignedDuration::MAX),
    };
    cx.tasks.spawn(NAME, move |token| async move {
        tokio::select! { () = token.cancelled() => {} () = cleaner.run() => {} }
    });
}

impl Cleaner {
    async fn run(self) {
        self.secrets.synced().await;
        self.accounts.synced().await;
        self.pods.synced().await;
        let mut ticks = tokio::time::interval(PERIOD);
        loop {
            ticks.tick().await;
            if let Err(error) = self.look(self.clock.now()).await {
                tracing::warn!(error = %format!("{error:#}"), "could not look at old tokens, will retry");
            }
        }
    }

    async fn look(&self, now: Timestamp) -> anyhow::Result<()> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let Some(map) = api.get(TRACKING).await.ignore_not_found()? else { return Ok(()) };
        let watched = tracked_since(&map).and_then(|since| since.checked_add(self.unused_for).ok());
        if watched.is_none_or(|long_enough| now < long_enough) {
            return Ok(());
        }
        for secret in self.secrets.store().list() {
            let namespace = meta::namespace(&secret.metadata);
            let name = meta::annotation(&secret.metadata, "kubernetes.io/service-account.name");
            let account = name.and_then(|name| self.accounts.store().get(&ObjectKey::new(namespace, name)));
            let mounted = || {
                let pods = self.pods.store().list_namespace(namespace);
                pods.iter().any(|pod| secrets_of(pod).contains(meta::name(&secret.metadata)))
            };
            let mut decided = plan(&secret, account.as_deref(), false, self.unused_for, now);
            if decided != Plan::Keep && mounted() {
                decided = Plan::Keep;
            }
            self.carry_out(decided, &secret).await?;
        }
        Ok(())
    }

    async fn carry_out(&self, plan: Plan, secret: &Arc<Secret>) -> anyhow::Result<()> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), meta::namespace(&secret.metadata));
        let name = meta::name(&secret.metadata);
        match plan {
            Plan::Keep => {}
            Plan::Invalidate(since) => {
                tracing::info!(object = name, since, "marked an unused token as invalid");
                let metadata = json!({ "uid": secret.metadata.uid, "labels": { INVALID_SINCE: since } });
                let patch = Patch::Merge(json!({ "metadata": metadata }));
                api.patch(name, &PatchParams::default(), &patch).await.ignore_not_found()?;
            }
            Plan::Delete => {
                tracing::info!(object = name, "deleted an unused token");
                let version = secret.metadata.resource_version.clone();
                let preconditions = Preconditions { resource_version: version, uid: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..Default::default() };
                api.delete(name, &params).await.ignore_gone()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn secret(kind: &str, created: &str, labels: Value) -> Secret {
        serde_json::from_value(json!({
            "metadata": {
                "name": "token", "namespace": "ns", "creationTimestamp": created, "labels": labels,
                "annotations": { "kubernetes.io/service-account.uid": "u" },
            },
            "type": kind,
        }))
        .unwrap()
    }

    fn account(uid: &str, secrets: &[&str]) -> ServiceAccount {
        let secrets: Vec<_> = secrets.iter().map(|name| json!({ "name": name })).collect();
        serde_json::from_value(json!({ "metadata": { "name": "a", "uid": uid }, "secrets": secrets }))
            .unwrap()
    }

    #[test]
    fn unused_tokens_are_invalid_for_a_year_before_they_go() {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let old = "2024-01-01T00:00:00Z";
        let listed = || Some(account("u", &["token"]));
        let invalid = || Plan::Invalidate("2026-06-01".to_owned());
        let used = |day: &str| json!({ LAST_USED: day });
        for (secret, account, mounted, expected) in [
            (secret(TYPE, old, json!({})), listed(), false, invalid()),
            (secret("Opaque", old, json!({})), listed(), false, Plan::Keep),
            (secret(TYPE, "2026-01-01T00:00:00Z", json!({})), listed(), false, Plan::Keep),
            (secret(TYPE, old, used("2026-05-01")), listed(), false, Plan::Keep),
            (secret(TYPE, old, used("nonsense")), listed(), false, Plan::Keep),
            (secret(TYPE, old, used("2024-05-01")), listed(), false, invalid()),
            (secret(TYPE, old, json!({})), listed(), true, Plan::Keep),
            (secret(TYPE, old, json!({})), None, false, Plan::Keep),
            (secret(TYPE, old, json!({})), Some(account("other", &["token"])), false, Plan::Keep),
            (secret(TYPE, old, json!({})), Some(account("u", &["else"])), false, Plan::Keep),
            (secret(TYPE, old, json!({ INVALID_SINCE: "2026-01-01" })), listed(), false, Plan::Keep),
            (secret(TYPE, old, json!({ INVALID_SINCE: "2025-01-01" })), listed(), false, Plan::Delete),
            (secret(TYPE, old, json!({ INVALID_SINCE: "nonsense" })), listed(), false, invalid()),
        ] {
            let year = SignedDuration::from_hours(24 * 365);
            assert_eq!(
                plan(&secret, account.as_ref(), mounted, year, now),
                expected,
                "{secret:?} {account:?}"
            );
        }
    }

    #[test]
    fn tracking_counts_from_the_next_day() {
        let map: ConfigMap = serde_json::from_value(json!({ "data": { "since": "2026-01-31" } })).unwrap();
        assert_eq!(tracked_since(&map), "2026-02-01T00:00:00Z".parse().ok());
        assert_eq!(tracked_since(&ConfigMap::default()), None);
    }

    #[test]
    fn secrets_are_named_in_many_places() {
        let pod: Pod = serde_json::from_value(json!({ "spec": {
            "imagePullSecrets": [{ "name": "pull" }],
            "containers": [{ "name": "c", "envFrom": [{ "secretRef": { "name": "all" } }] }],
            "initContainers": [{ "name": "i", "env": [
                { "name": "E", "valueFrom": { "secretKeyRef": { "name": "one", "key": "k" } } }] }],
            "volumes": [
                { "name": "a", "secret": { "secretName": "volume" } },
                { "name": "b", "projected": { "sources": [{ "secret": { "name": "projected" } }] } },
                { "name": "c", "csi": { "driver": "d", "nodePublishSecretRef": { "name": "csi" } } },
            ],
        } }))
        .unwrap();
        let names: Vec<_> = secrets_of(&pod).into_iter().collect();
        assert_eq!(names, ["all", "csi", "one", "projected", "pull", "volume"]);
    }
}
