//! The cache against scripted servers.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::{Client, ObjectKey, Tasks};

fn pod(name: &str, uid: &str, version: u64, node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": node, "containers": []},
           "metadata": {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": version.to_string()}})
}

fn list(version: u64, items: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": version.to_string()},
           "items": items})
    .to_string()
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

/// A server that gives the answers in turn, lists and watches each from their own script; when a script is at its
/// end it answers 503.
fn server(lists: Vec<String>, watches: Vec<String>) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let scripts = Arc::new(Mutex::new((lists.into_iter(), watches.into_iter())));
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let answer = {
            let mut scripts = scripts.lock();
            if query.contains("watch=true") { scripts.1.next() } else { scripts.0.next() }
        };
        log.lock().push(query);
        async move {
            let (code, body) = answer.map_or((503, String::new()), |body| (200, body));
            Response::builder().status(code).body(Full::new(Bytes::from(body)))
        }
    });
    (Client::new(service, "default"), asked)
}

/// What subscribers were told, as text.
fn record(informer: &Informer<Pod>) -> (Arc<Mutex<Vec<String>>>, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (told, heard) = tokio::sync::mpsc::unbounded_channel();
    let log = seen.clone();
    informer.subscribe(move |event| {
        let text = match event {
            Event::Added(pod) => format!("+{}", ObjectKey::of(&**pod).name),
            Event::Updated { new, .. } => format!("~{}", ObjectKey::of(&**new).name),
            Event::Deleted(pod) => format!("-{}", ObjectKey::of(&**pod).name),
        };
        log.lock().push(text);
        let _ = told.send(());
    });
    (seen, heard)
}

#[tokio::test(start_paused = true)]
async fn relist_after_expiry_reports_the_difference_and_keeps_indexes() {
    let expired = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                         "message": "too old resource version", "reason": "Expired", "code": 410});
    let lists = vec![
        list(5, &[pod("a", "1", 1, "n1"), pod("b", "2", 2, "n1"), pod("c", "3", 3, "n1")]),
        list(9, &[pod("a", "1", 1, "n1"), pod("b", "2b", 8, "n2"), pod("d", "4", 9, "n1")]),
    ];
    let watches = vec![event("MODIFIED", &pod("c", "3", 6, "n2")) + &event("ERROR", &expired)];
    let (client, asked) = server(lists, watches);
    let tasks = Tasks::new();
    let informer = SharedInformerFactory::new(client, &tasks).informer::<Pod>();
    informer.add_index("node", |pod| pod.spec.iter().filter_map(|s| s.node_name.clone()).collect());
    let (seen, mut heard) = record(&informer);
    for _ in 0..8 {
        heard.recv().await.expect("the informer goes on");
    }
    assert_eq!(*seen.lock(), ["+a", "+b", "+c", "~c", "-b", "+b", "+d", "-c"]);
    let on = |node: &str| {
        informer.store().indexed("node", node).iter().map(|p| ObjectKey::of(&**p).name).collect()
    };
    let (n1, n2): (Vec<_>, Vec<_>) = (on("n1"), on("n2"));
    assert_eq!((n1, n2), (vec!["a".to_owned(), "d".to_owned()], vec!["b".to_owned()]));
    assert_eq!(informer.store().resource_version(), 9);
    assert!(asked.lock()[1].contains("resourceVersion=5"), "the watch begins where the list ended");
    assert!(tasks.shut_down().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn broken_watch_resumes_after_the_last_event_and_deletes_carry_the_last_state() {
    let lists = vec![list(5, &[pod("a", "1", 1, "n1")])];
    let watches = vec![
        event("ADDED", &pod("b", "2", 6, "n1")),
        event("DELETED", &pod("a", "1", 7, "n9")) + &event("ADDED", &pod("c", "3", 8, "n1")),
    ];
    let (client, asked) = server(lists, watches);
    let tasks = Tasks::new();
    let factory = SharedInformerFactory::new(client, &tasks);
    let informer = factory.informer::<Pod>();
    let (seen, mut heard) = record(&informer);
    for _ in 0..4 {
        heard.recv().await.expect("the informer goes on");
    }
    assert_eq!(*seen.lock(), ["+a", "+b", "-a", "+c"]);
    assert!(asked.lock()[2].contains("resourceVersion=6"));
    assert!(factory.wait_for_sync(&tasks.token()).await);
    let late = record(&informer).0;
    assert_eq!(*late.lock(), ["+b", "+c"], "a late subscriber is told of what is there");
    assert!(tasks.shut_down().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn times_that_were_never_set_stop_no_cache() {
    use k8s_openapi::api::core::v1::Service;
    let service = |version: u64| {
        json!({"apiVersion": "v1", "kind": "Service", "spec": {},
               "metadata": {"name": "a", "namespace": "ns", "uid": "1", "resourceVersion": version.to_string()},
               "status": {"conditions": [{"type": "A", "status": "True", "reason": "B", "message": "",
                                          "lastTransitionTime": null}]}})
    };
    // What cannot be read is asked for once more.
    let lists = vec![list(5, &[]), list(6, &[service(6)]), list(6, &[service(6)])];
    let (client, _) = server(lists, vec![event("ADDED", &service(6))]);
    let tasks = Tasks::new();
    let informer = SharedInformerFactory::new(client, &tasks).informer::<Service>();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    informer.subscribe(move |event| {
        let _ = told.send(ObjectKey::of(&**event.object()).name);
    });
    assert_eq!(heard.recv().await.as_deref(), Some("a"));
    assert!(tasks.shut_down().await.is_ok());
}
