//! One suspect against a server that says what it is told to say.

use super::*;
use crate::common::discovery::Resource;
use bytes::Bytes;
use client::events::EventRecorder;
use client::kube::client::Body;
use client::kube::core::ApiResource;
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

fn references(count: usize) -> Vec<OwnerReference> {
    (0..count).map(|i| OwnerReference { uid: format!("u{i}"), ..Default::default() }).collect()
}

#[test]
fn verdicts() {
    let delete = |policy| Verdict::Delete(policy);
    for (solid, dangling, waiting, dependents, cycle, finalizer, expected) in [
        (1, 0, 0, false, false, "", Verdict::Keep),
        (1, 1, 0, false, false, "", Verdict::Unlink(vec!["u0".into()])),
        (1, 0, 1, true, false, "", Verdict::Unlink(vec!["u0".into()])),
        (0, 0, 0, false, false, "", Verdict::Keep),
        (0, 1, 0, true, false, "", delete(PropagationPolicy::Background)),
        (0, 1, 1, true, false, "", Verdict::Foreground { unblock: false }),
        (0, 0, 1, true, true, "", Verdict::Foreground { unblock: true }),
        (0, 0, 1, false, false, "", delete(PropagationPolicy::Background)),
        (0, 1, 0, false, false, ORPHAN, delete(PropagationPolicy::Orphan)),
        (0, 1, 0, false, false, FOREGROUND, delete(PropagationPolicy::Foreground)),
    ] {
        let owners =
            Owners { solid: references(solid), dangling: references(dangling), waiting: references(waiting) };
        let metadata = ObjectMeta { finalizers: Some(vec![finalizer.to_owned()]), ..Default::default() };
        let decided = verdict(&owners, dependents, cycle, &metadata);
        assert_eq!(decided, expected, "{solid} {dangling} {waiting}");
    }
}

/// What was asked of the server: verb, name, and what came along.
type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A collector, and the server's log. The server gives these answers in turn.
fn collector(kinds: Vec<Resource>, answers: Vec<(u16, Value)>) -> (Collector, Asked) {
    let answers = Arc::new(Mutex::new(VecDeque::from(answers)));
    let asked = Asked::default();
    let log = asked.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (answers, log) = (answers.clone(), log.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let name = head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
            let body = serde_json::from_slice(&body).unwrap_or_default();
            log.lock().push((head.method.to_string(), name, body));
            let (code, answer) = answers.lock().pop_front().expect("an answer");
            http::Response::builder().status(code).body(Full::new(Bytes::from(answer.to_string())))
        }
    });
    let client = Client::new(service, "default");
    let tasks = client::Tasks::child_of(&CancellationToken::new());
    let recorder = EventRecorder::new(client.clone(), "garbage-collector-controller", "", &tasks);
    (Collector::new(client, Shared::new(recorder), Kinds::of(kinds)), asked)
}

fn config_maps() -> Resource {
    let api = ApiResource {
        group: String::new(),
        version: "v1".into(),
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        plural: "configmaps".into(),
    };
    Resource { api, namespaced: true, verbs: Vec::new() }
}

fn identity(namespace: &str) -> Identity {
    Identity {
        kind: "ConfigMap".into(),
        api_version: "v1".into(),
        namespace: namespace.into(),
        name: "child".into(),
        uid: "child".into(),
    }
}

fn owner(kind: &str, api_version: &str) -> OwnerReference {
    OwnerReference {
        kind: kind.into(),
        api_version: api_version.into(),
        name: "owner".into(),
        uid: "owner".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn owner_of_a_kind_that_is_gone_is_absent_if_its_end_was_seen() {
    let widget = owner("Widget", "example.com/v1");
    for namespace in ["ns", ""] {
        let (collector, asked) = collector(vec![], vec![]);
        let child = identity("ns");
        let unknown = collector.classify(&child, std::slice::from_ref(&widget)).await;
        assert!(unknown.is_err(), "of a kind that nobody knows nothing is said");
        collector.shared.graph.lock().remember_absent(Identity::of_owner(&widget, namespace));
        let owners = collector.classify(&child, std::slice::from_ref(&widget)).await;
        let owners = owners.expect("classified").expect("possible");
        assert_eq!(owners.dangling, std::slice::from_ref(&widget));
        assert!(asked.lock().is_empty());
    }
}

#[tokio::test]
async fn owner_in_a_namespace_of_an_object_in_none_is_not_acted_upon() {
    let (collector, asked) = collector(vec![config_maps()], vec![]);
    let owners = collector.classify(&identity(""), &[owner("ConfigMap", "v1")]).await;
    assert!(owners.expect("classified").is_none());
    assert!(collector.is_nowhere(&identity("")) && !collector.is_nowhere(&identity("ns")));
    assert!(asked.lock().is_empty());
}

#[tokio::test]
async fn object_that_changes_all_the_time_is_deleted_if_its_owners_stay() {
    let conflict = || {
        let status = json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict"});
        (409, status)
    };
    let metadata = |version: &str, owner: &str| ObjectMeta {
        name: Some("child".into()),
        uid: Some("child".into()),
        resource_version: Some(version.into()),
        owner_references: Some(vec![OwnerReference { uid: owner.into(), ..Default::default() }]),
        ..Default::default()
    };
    let live = |metadata: &ObjectMeta| {
        (200, json!({"apiVersion": "v1", "kind": "PartialObjectMetadata", "metadata": metadata}))
    };
    let policy = PropagationPolicy::Background;
    let deleted = (200, json!({"kind": "Status", "status": "Success"}));
    let answers = vec![conflict(), live(&metadata("2", "o")), deleted];
    let (first, asked) = collector(vec![config_maps()], answers);
    first.delete(&identity("ns"), &metadata("1", "o"), policy).await.expect("deleted");
    let preconditions = |at: usize| asked.lock()[at].2["preconditions"].clone();
    assert_eq!(preconditions(0), json!({"uid": "child", "resourceVersion": "1"}));
    assert_eq!(preconditions(2), json!({"uid": "child"}));

    let (second, asked) = collector(vec![config_maps()], vec![conflict(), live(&metadata("2", "p"))]);
    let outcome = second.delete(&identity("ns"), &metadata("1", "o"), PropagationPolicy::Background).await;
    assert!(outcome.is_err(), "it has other owners now");
    assert_eq!(asked.lock().len(), 2);
}
