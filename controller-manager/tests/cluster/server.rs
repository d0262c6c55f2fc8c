//! The HTTP side of the small API server: paths, verbs, watches, discovery.

use super::faults::Faults;
use super::store::{Key, Refused, Store, text};
use bytes::Bytes;
use client::Client;
use client::kube::client::Body;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::watch;

/// Group and version, kind, plural, whether in namespaces.
const RESOURCES: &[(&str, &str, &str, bool)] = &[
    ("v1", "Namespace", "namespaces", false),
    ("v1", "Node", "nodes", false),
    ("v1", "Pod", "pods", true),
    ("v1", "Service", "services", true),
    ("v1", "Endpoints", "endpoints", true),
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("v1", "ReplicationController", "replicationcontrollers", true),
    ("v1", "ResourceQuota", "resourcequotas", true),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("v1", "PersistentVolume", "persistentvolumes", false),
    ("v1", "Event", "events", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "ReplicaSet", "replicasets", true),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("apps/v1", "DaemonSet", "daemonsets", true),
    ("apps/v1", "ControllerRevision", "controllerrevisions", true),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    ("metrics.k8s.io/v1beta1", "PodMetrics", "pods", true),
    ("batch/v1", "Job", "jobs", true),
    ("batch/v1", "CronJob", "cronjobs", true),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", true),
    ("coordination.k8s.io/v1", "Lease", "leases", true),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    ("certificates.k8s.io/v1", "CertificateSigningRequest", "certificatesigningrequests", false),
    ("resource.k8s.io/v1", "ResourceClaim", "resourceclaims", true),
    ("resource.k8s.io/v1", "ResourceClaimTemplate", "resourceclaimtemplates", true),
    ("resource.k8s.io/v1", "ResourceSlice", "resourceslices", false),
    ("storage.k8s.io/v1", "StorageClass", "storageclasses", false),
    ("storage.k8s.io/v1", "VolumeAttachment", "volumeattachments", false),
    ("storage.k8s.io/v1", "VolumeAttributesClass", "volumeattributesclasses", false),
    ("storage.k8s.io/v1", "CSIDriver", "csidrivers", false),
    ("storage.k8s.io/v1", "CSINode", "csinodes", false),
    ("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", false),
    ("networking.k8s.io/v1", "IPAddress", "ipaddresses", false),
];

/// The write calls that were made: verb, path, and as whom.
pub type Log = Arc<Mutex<Vec<String>>>;

/// A token names its account and is valid for an hour.
fn token(store: &Store, account: &str) -> Value {
    let expires = store.clock.now() + jiff::SignedDuration::from_hours(1);
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "status": { "token": format!("token-of-{account}"), "expirationTimestamp": expires.to_string() },
    })
}

/// A client of the store, and the log of its writes. With faults, calls fail and watches lag and break. While there is
/// no `network`, nothing arrives: calls and watches hang, and go on when it is back.
pub fn connect(store: &Store, faults: Option<Faults>, network: watch::Receiver<bool>) -> (Client, Log) {
    let log = Log::default();
    let (store, calls, faults) = (store.clone(), log.clone(), faults.map(Arc::new));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (store, calls, faults) = (store.clone(), calls.clone(), faults.clone());
        let mut network = network.clone();
        async move {
            connected(&mut network).await;
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            if parts.method != Method::GET && !parts.uri.path().contains("/events") {
                let header = parts.headers.get("authorization").and_then(|value| value.to_str().ok());
                let who = header.map(|who| format!(" as {}", who.trim_start_matches("Bearer token-of-")));
                calls.lock().push(format!(
                    "{} {}{}",
                    parts.method,
                    parts.uri.path(),
                    who.unwrap_or_default()
                ));
            }
            let writes = parts.method != Method::GET;
            let Some(faults) = faults.filter(|_| !parts.uri.path().contains("/events")) else {
                return Ok::<_, Infallible>(answer(&store, &parts.method, &parts.uri, body, None, network));
            };
            tokio::time::sleep(faults.delay(50)).await;
            if writes && let Some(refused) = faults.refusal(&parts.method) {
                return Ok(refuse(refused));
            }
            // The answer to a create is not lost: who makes something without a name can only make another.
            let lost = writes && parts.method != Method::POST && faults.happens(0.05);
            let answer = answer(&store, &parts.method, &parts.uri, body, Some(&faults), network.clone());
            connected(&mut network).await;
            tokio::time::sleep(faults.delay(50)).await;
            Ok(if lost { refuse((504, "Timeout", "the answer was lost".to_owned())) } else { answer })
        }
    });
    (Client::new(service, "default"), log)
}

/// Waits for the network. Nobody who could bring it back is as good as no interruption.
async fn connected(network: &mut watch::Receiver<bool>) {
    let _ = network.wait_for(|there| *there).await;
}

type Stream = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

fn respond(code: u16, value: &Value) -> Response<Stream> {
    let frame = Frame::data(Bytes::from(value.to_string()));
    let body = StreamBody::new(stream::once(async move { Ok(frame) }).boxed());
    Response::builder().status(code).body(body).expect("a response")
}

fn refuse((code, reason, message): Refused) -> Response<Stream> {
    let mut status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    if code == 403 {
        // The only thing that is ever forbidden here.
        status["details"] = json!({ "causes": [{ "reason": "NamespaceTerminating" }] });
    }
    respond(code, &status)
}

struct Path {
    group_version: String,
    plural: String,
    namespace: String,
    name: String,
    part: String,
}

/// `api` or `apis`, group and version, perhaps a namespace, resource, name, subresource.
fn parse(path: &str) -> Option<Path> {
    let mut words = path.trim_matches('/').split('/').map(str::to_owned);
    let group_version = match words.next()?.as_str() {
        "api" => words.next()?,
        "apis" => format!("{}/{}", words.next()?, words.next()?),
        _ => return None,
    };
    let rest: Vec<_> = words.collect();
    let (namespace, rest) = match rest.as_slice() {
        [first, namespace, plural, rest @ ..]
            if first == "namespaces" && !["status", "finalize"].contains(&plural.as_str()) =>
        {
            (namespace.clone(), [std::slice::from_ref(plural), rest].concat())
        }
        other => (String::new(), other.to_vec()),
    };
    let mut rest = rest.into_iter();
    let mut next = || rest.next().unwrap_or_default();
    Some(Path { group_version, plural: next(), namespace, name: next(), part: next() })
}

fn answer(
    store: &Store,
    method: &Method,
    uri: &http::Uri,
    body: Value,
    faults: Option<&Arc<Faults>>,
    network: watch::Receiver<bool>,
) -> Response<Stream> {
    if let Some(found) = discovery(uri.path()) {
        return respond(200, &found);
    }
    let Some(path) = parse(uri.path()) else {
        return refuse((404, "NotFound", "no such path".to_owned()));
    };
    let Some(resource) = RESOURCES.iter().find(|r| r.0 == path.group_version && r.2 == path.plural) else {
        return refuse((404, "NotFound", format!("no resource {}", path.plural)));
    };
    let query: HashMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.replace("%3D", "=").replace("%2F", "/")))
        .collect();
    let key: Key =
        (path.group_version.clone(), path.plural.clone(), path.namespace.clone(), path.name.clone());
    if *method == Method::GET && path.name.is_empty() {
        return if query.get("watch").is_some_and(|watch| watch == "true") {
            events(store, &path, &query, faults.cloned(), network)
        } else {
            respond(200, &list(store, resource, &path, &query))
        };
    }
    let done = match *method {
        Method::GET if path.part == "scale" => {
            store.get(&key).map(|object| scale(&object)).ok_or((404, "NotFound", "no such object".to_owned()))
        }
        Method::PUT if path.part == "scale" => {
            let version = &body["metadata"]["resourceVersion"];
            let replicas = &body["spec"]["replicas"];
            let patch =
                json!({ "metadata": { "resourceVersion": version }, "spec": { "replicas": replicas } });
            store.patch(&key, "", &patch).map(|object| scale(&object))
        }
        Method::GET => store.get(&key).ok_or((404, "NotFound", format!("{} not found", path.name))),
        Method::POST if path.part == "token" => match store.get(&key) {
            Some(_) => Ok(token(store, &path.name)),
            None => Err((404, "NotFound", format!("{} not found", path.name))),
        },
        Method::POST => {
            let name = text(&body, "/metadata/name").to_owned();
            store.create((key.0, key.1, key.2, name), body)
        }
        Method::PUT => store.update(&key, &path.part, body),
        Method::PATCH => store.patch(&key, &path.part, &body),
        Method::DELETE if path.name.is_empty() => {
            for object in store.list(&path.group_version, &path.plural, &path.namespace).1 {
                let name = text(&object, "/metadata/name").to_owned();
                let one = (key.0.clone(), key.1.clone(), key.2.clone(), name);
                let _ = store.delete(&one, &body);
            }
            Ok(json!({ "apiVersion": "v1", "kind": "Status", "status": "Success", "code": 200 }))
        }
        Method::DELETE => store.delete(&key, &body),
        _ => Err((405, "MethodNotAllowed", "no such verb".to_owned())),
    };
    match done {
        Ok(object) => respond(if *method == Method::POST { 201 } else { 200 }, &object),
        Err(refused) => refuse(refused),
    }
}

/// How large a Deployment is, for those who only want to know that.
fn scale(object: &Value) -> Value {
    let labels = object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
    let selector =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")));
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale",
        "metadata": {
            "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
            "uid": object["metadata"]["uid"], "resourceVersion": object["metadata"]["resourceVersion"],
        },
        "spec": { "replicas": object["spec"]["replicas"] },
        "status": {
            "replicas": object.pointer("/status/replicas").cloned().unwrap_or(json!(0)),
            "selector": selector.collect::<Vec<_>>().join(","),
        },
    })
}

fn selects(query: &HashMap<String, String>, object: &Value) -> bool {
    let Some((field, value)) = query.get("fieldSelector").and_then(|text| text.split_once('=')) else {
        return true;
    };
    text(object, &format!("/{}", field.replace('.', "/"))) == value
}

fn list(
    store: &Store,
    resource: &(&str, &str, &str, bool),
    path: &Path,
    query: &HashMap<String, String>,
) -> Value {
    let (version, mut items) = store.list(&path.group_version, &path.plural, &path.namespace);
    items.retain(|object| selects(query, object));
    json!({
        "apiVersion": resource.0, "kind": format!("{}List", resource.1),
        "metadata": { "resourceVersion": version.to_string() }, "items": items,
    })
}

/// Sends changes as they come, until the client goes.
fn events(
    store: &Store,
    path: &Path,
    query: &HashMap<String, String>,
    faults: Option<Arc<Faults>>,
    network: watch::Receiver<bool>,
) -> Response<Stream> {
    if faults.as_ref().is_some_and(|faults| faults.happens(0.02)) {
        return refuse((410, "Expired", "too old resource version".to_owned()));
    }
    let from: u64 = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or(0);
    let (store, query) = (store.clone(), query.clone());
    let of = (path.group_version.clone(), path.plural.clone(), path.namespace.clone());
    let head = store.head();
    let events = stream::unfold((from, head, network), move |(mut seen, mut head, mut network)| {
        let (store, query, of, faults) = (store.clone(), query.clone(), of.clone(), faults.clone());
        async move {
            head.wait_for(|version| *version > seen).await.ok()?;
            connected(&mut network).await;
            if let Some(faults) = &faults {
                tokio::time::sleep(faults.delay(500)).await;
                if faults.happens(0.02) {
                    return None;
                }
            }
            let mut changes = store.changes(seen);
            seen = changes.last().map_or(seen, |change| change.version);
            changes.retain(|change| {
                let key = &change.key;
                key.0 == of.0
                    && key.1 == of.1
                    && (of.2.is_empty() || key.2 == of.2)
                    && selects(&query, &change.object)
            });
            let changes = faults.map_or_else(|| changes.clone(), |faults| faults.delivered(&changes));
            let mut lines = String::new();
            for change in changes {
                lines.push_str(&json!({ "type": change.kind, "object": change.object }).to_string());
                lines.push('\n');
            }
            Some((Ok(Frame::data(Bytes::from(lines))), (seen, head, network)))
        }
    });
    Response::builder().status(200).body(StreamBody::new(events.boxed())).expect("a response")
}

fn discovery(path: &str) -> Option<Value> {
    let list = |group_version: &str| {
        let resources: Vec<_> = RESOURCES
            .iter()
            .filter(|resource| resource.0 == group_version)
            .map(|resource| {
                json!({
                    "name": resource.2, "singularName": "", "kind": resource.1, "namespaced": resource.3,
                    "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                })
            })
            .collect();
        json!({
            "apiVersion": "v1", "kind": "APIResourceList", "groupVersion": group_version, "resources": resources,
        })
    };
    let words: Vec<_> = path.trim_matches('/').split('/').collect();
    match words.as_slice() {
        ["api", "v1"] => Some(list("v1")),
        ["apis", group, version] => Some(list(&format!("{group}/{version}"))),
        ["apis"] => {
            let mut versions: Vec<_> =
                RESOURCES.iter().map(|resource| resource.0).filter(|v| *v != "v1").collect();
            versions.dedup();
            let group = |version: &&str| {
                let (name, short) = version.split_once('/').expect("a group");
                let version = json!({ "groupVersion": version, "version": short });
                json!({ "name": name, "versions": [version], "preferredVersion": version })
            };
            let groups: Vec<_> = versions.iter().map(group).collect();
            Some(json!({ "apiVersion": "v1", "kind": "APIGroupList", "groups": groups }))
        }
        _ => None,
    }
}
