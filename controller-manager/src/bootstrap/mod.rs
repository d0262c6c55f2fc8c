//! Bootstrap tokens, with which new nodes join: the cluster's address is signed with each, and old ones are removed.
//! As upstream's pkg/controller/bootstrap.

mod token;

use crate::common::errors::IgnoreGone;
use crate::common::meta;
use crate::context::{Context, enqueue_all};
use client::controller::Action;
use client::kube::api::{DeleteParams, PostParams, Preconditions};
use client::{Api, Informer, ObjectKey, Selection, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use std::collections::BTreeMap;
use std::time::Duration;
use token::Token;

const MAP: (&str, &str) = ("kube-public", "cluster-info");
const SIGNATURE: &str = "jws-kubeconfig-";

fn secrets(cx: &Context) -> Informer<Secret> {
    let only = Selection {
        namespace: Some("kube-system".to_owned()),
        fields: Some(format!("type={}", token::TYPE)),
        ..Default::default()
    };
    cx.informers.informer_selected::<Secret>(only)
}

/// Starts the signer.
pub fn start_signer(cx: &Context) {
    let only = Selection {
        namespace: Some(MAP.0.to_owned()),
        fields: Some(format!("metadata.name={}", MAP.1)),
        ..Default::default()
    };
    let (maps, secrets) = (cx.informers.informer_selected::<ConfigMap>(only), secrets(cx));
    let queue = WorkQueue::new("bootstrap_signer_queue");
    enqueue_all(&maps, &queue);
    let keys = queue.clone();
    secrets.subscribe(move |_| keys.add(ObjectKey::new(MAP.0, MAP.1)));
    let (client, clock) = (cx.client.clone(), cx.config.clock);
    let both = (maps.clone(), secrets.clone());
    let synced = async move {
        both.0.synced().await;
        both.1.synced().await;
    };
    cx.work("bootstrap-signer-controller", queue, 1, synced, move |key| {
        let (client, maps, secrets) = (client.clone(), maps.clone(), secrets.clone());
        async move {
            let Some(map) = maps.store().get(&key) else { return Ok(Action::Done) };
            let now = clock.now();
            let held = secrets.store().list();
            let tokens: Vec<_> = held.iter().filter_map(|secret| Token::read(secret, now)).collect();
            if let Some(data) = sign(&map, &tokens) {
                let api: Api<ConfigMap> = Api::namespaced(client, MAP.0);
                let changed = ConfigMap { data: Some(data), ..ConfigMap::clone(&map) };
                api.replace(MAP.1, &PostParams::default(), &changed).await?;
            }
            let next = held.iter().filter_map(|secret| token::expires(secret)).filter(|at| *at > now).min();
            Ok(next.map_or(Action::Done, |at| Action::RequeueAfter(until(at, now))))
        }
    });
}

fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::from_millis(u64::try_from(at.as_millisecond() - now.as_millisecond()).unwrap_or(0) + 1)
}

/// The data with the right signatures; `None` when it has them.
fn sign(map: &ConfigMap, tokens: &[Token]) -> Option<BTreeMap<String, String>> {
    let before = map.data.clone().unwrap_or_default();
    let content = before.get("kubeconfig")?;
    let mut data = before.clone();
    data.retain(|name, _| !name.starts_with(SIGNATURE));
    for token in tokens.iter().filter(|token| token.signs) {
        data.insert(format!("{SIGNATURE}{}", token.id), token.sign(content)?);
    }
    (data != before).then_some(data)
}

/// Starts the cleaner.
pub fn start_cleaner(cx: &Context) {
    let secrets = secrets(cx);
    let queue = WorkQueue::new("token_cleaner");
    enqueue_all(&secrets, &queue);
    let (client, clock, synced) = (cx.client.clone(), cx.config.clock, secrets.clone());
    let synced = async move { synced.synced().await };
    cx.work("token-cleaner-controller", queue, 1, synced, move |key| {
        let (client, secrets) = (client.clone(), secrets.clone());
        async move {
            let Some(secret) = secrets.store().get(&key) else { return Ok(Action::Done) };
            let Some(at) = token::expires(&secret) else { return Ok(Action::Done) };
            let now = clock.now();
            if at > now {
                return Ok(Action::RequeueAfter(until(at, now)));
            }
            let api: Api<Secret> = Api::namespaced(client, &key.namespace);
            let exactly = Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(exactly), ..Default::default() };
            api.delete(meta::name(&secret.metadata), &params).await.ignore_gone()?;
            Ok(Action::Done)
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_follow_the_tokens() {
        let data: BTreeMap<_, _> = [
            ("kubeconfig".to_owned(), "content".to_owned()),
            ("jws-kubeconfig-gone00".to_owned(), "x".to_owned()),
        ]
        .into();
        let mut map = ConfigMap { data: Some(data), ..Default::default() };
        let token = Token { id: "abcdef".into(), secret: "0123456789abcdef".into(), signs: true };
        let signed = sign(&map, std::slice::from_ref(&token)).expect("one goes and one comes");
        let names: Vec<_> = signed.keys().map(String::as_str).collect();
        assert_eq!(names, ["jws-kubeconfig-abcdef", "kubeconfig"]);
        map.data = Some(signed);
        assert_eq!(sign(&map, &[token]), None);
        assert_eq!(sign(&ConfigMap::default(), &[]), None);
    }
}
