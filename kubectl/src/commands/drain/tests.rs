//! Draining nodes of a scripted server, and which pods leave.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::json;

use super::filters::Fate;
use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(words: &str) -> Args {
    Command::try_parse_from(std::iter::once("drain").chain(words.split_whitespace())).expect("words").args
}

/// A pod of `ns` on `n1`: what controls it, its phase, and whether it has an emptyDir.
fn pod(name: &str, controller: &str, phase: &str, local: bool) -> Value {
    let (kind, owner) = controller.split_once('/').unwrap_or_default();
    let version = if kind == "ReplicationController" { "v1" } else { "apps/v1" };
    let owners = if kind.is_empty() {
        json!([])
    } else {
        json!([{"apiVersion": version, "kind": kind, "name": owner, "controller": true}])
    };
    let volumes = if local { json!([{"name": "v", "emptyDir": {}}]) } else { json!([]) };
    json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-{name}"), "ownerReferences": owners},
           "spec": {"nodeName": "n1", "volumes": volumes}, "status": {"phase": phase}})
}

#[test]
fn some_pods_leave_and_some_must_not() {
    let fatal = |text: &str| Fate::Refuse(text.to_owned());
    let (set, rs) = ("DaemonSet/ds", "ReplicaSet/rs");
    let missing = Set::Missing("daemonsets.apps \"ds\" not found".to_owned());
    let there = Some(&Set::There);
    let daemon_fatal = fatal("DaemonSet-managed Pods (use --ignore-daemonsets to ignore)");
    let local_fatal = fatal("Pods with local storage (use --delete-emptydir-data to override)");
    let bare_fatal = fatal("Pods that declare no controller (use --force to override)");
    let bare_warning = Fate::LeaveWith("deleting Pods that declare no controller");
    for (what, words, pod, set, expected) in [
        ("of a ReplicaSet", "n1", pod("p", rs, "Running", false), None, Fate::Leave),
        (
            "of a ReplicationController",
            "n1",
            pod("p", "ReplicationController/rc", "Running", false),
            None,
            Fate::Leave,
        ),
        ("of a DaemonSet", "n1", pod("p", set, "Running", false), there, daemon_fatal.clone()),
        ("of a DaemonSet, forced", "n1 --force", pod("p", set, "Running", false), there, daemon_fatal),
        (
            "of a DaemonSet, ignored",
            "n1 --ignore-daemonsets",
            pod("p", set, "Running", true),
            there,
            Fate::StayWith("ignoring DaemonSet-managed Pods"),
        ),
        (
            "of a DaemonSet that is gone",
            "n1 --ignore-daemonsets",
            pod("p", set, "Running", false),
            Some(&missing),
            fatal("daemonsets.apps \"ds\" not found"),
        ),
        (
            "of a DaemonSet that is gone, forced",
            "n1 --force",
            pod("p", set, "Running", false),
            Some(&missing),
            Fate::Leave,
        ),
        ("of a DaemonSet, ended", "n1", pod("p", set, "Succeeded", false), None, Fate::Leave),
        ("nobody's", "n1", pod("p", "", "Running", false), None, bare_fatal),
        ("nobody's, forced", "n1 --force", pod("p", "", "Running", false), None, bare_warning.clone()),
        ("nobody's, ended", "n1", pod("p", "", "Failed", false), None, Fate::Leave),
        ("with data", "n1", pod("p", rs, "Running", true), None, local_fatal.clone()),
        ("with data, forced", "n1 --force", pod("p", "", "Running", true), None, local_fatal),
        ("with data, allowed", "n1 --delete-emptydir-data", pod("p", rs, "Running", true), None, Fate::Leave),
        (
            "with data, allowed and forced",
            "n1 --delete-emptydir-data --force",
            pod("p", "", "Running", true),
            None,
            bare_warning,
        ),
        ("with data, ended", "n1", pod("p", rs, "Succeeded", true), None, Fate::Leave),
    ] {
        assert_eq!(filters::fate(&pod, &rules(&args(words)), set), expected, "{what}");
    }
    let mut mirror = pod("p", "", "Running", true);
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    assert_eq!(filters::fate(&mirror, &rules(&args("n1")), None), Fate::Stay);
}

#[test]
fn pods_that_have_been_ending_for_long_are_left_alone_if_that_is_asked_for() {
    let mut ending = pod("p", "", "Running", false);
    let since = jiff::Timestamp::now().checked_sub(Duration::from_secs(60)).expect("a time");
    ending["metadata"]["deletionTimestamp"] = json!(since.to_string());
    for (words, stays) in [
        ("n1 --force", false),
        ("n1 --force --skip-wait-for-delete-timeout=10", true),
        ("n1 --force --skip-wait-for-delete-timeout=600", false),
    ] {
        assert_eq!(filters::fate(&ending, &rules(&args(words)), None) == Fate::Stay, stays, "{words}");
    }
}

#[test]
fn what_is_said_alike_is_said_once() {
    let found = |name: &str, fate: Fate| Found { pod: pod(name, "", "Running", false), fate };
    let all = [
        found("a", Fate::LeaveWith("b")),
        found("c", Fate::StayWith("a")),
        found("d", Fate::LeaveWith("b")),
        found("e", Fate::Refuse("bad".into())),
        found("f", Fate::Refuse("bad".into())),
    ];
    assert_eq!(filters::warnings(&all), "a: ns/c; b: ns/a, ns/d");
    assert_eq!(filters::errors(&all), ["cannot delete bad: ns/e, ns/f"]);
}

/// A server with one node and its pods, which go when they are asked to.
#[derive(Clone, Default)]
struct Cluster(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pods: BTreeMap<String, Value>,
    asked: Vec<String>,
    /// What the next evictions are answered by: code and body.
    answers: Vec<(u16, Value)>,
    /// Pods that stay whatever is asked.
    stuck: bool,
    unevictable: bool,
}

impl Cluster {
    fn with(pods: Vec<Value>) -> Self {
        let named = pods.into_iter().map(|pod| (text(&pod, "/metadata/name").to_owned(), pod));
        Self(Arc::new(Mutex::new(State { pods: named.collect(), ..State::default() })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no panic")
    }

    fn server(&self) -> Server {
        let this = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let this = this.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = this.answer(parts.method.as_str(), parts.uri.path(), &body);
                let answer = serde_json::to_vec(&answer).expect("JSON");
                Ok::<_, Infallible>(
                    http::Response::builder().status(code).body(Body::from(answer)).expect("a response"),
                )
            }
        });
        Server::of(kube::Client::new(service, "default"))
    }

    fn answer(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let mut state = self.state();
        let dry_run = body.to_string().contains("dryRun");
        state.asked.push(format!("{method} {path}{}", if dry_run { " dry" } else { "" }));
        let parts: Vec<_> = path.trim_start_matches('/').split('/').collect();
        match (method, parts.as_slice()) {
            ("GET", ["api", "v1"]) => {
                let group = if state.unevictable { "" } else { "policy" };
                (200, json!({"resources": [{"name": "pods/eviction", "kind": "Eviction", "group": group}]}))
            }
            ("GET" | "PATCH", ["api", "v1", "nodes", "n1"]) => {
                (200, json!({"metadata": {"name": "n1"}, "spec": {}}))
            }
            ("GET", ["api", "v1", "pods"]) => {
                (200, json!({"metadata": {}, "items": state.pods.values().collect::<Vec<_>>()}))
            }
            ("GET", ["apis", "apps", "v1", "namespaces", "ns", "daemonsets", "ds"]) => (200, json!({})),
            ("GET", [.., "pods", name]) => match state.pods.get(*name) {
                Some(pod) => (200, pod.clone()),
                None => refusal(404, "NotFound", &format!("pods \"{name}\" not found"), ""),
            },
            ("POST", [.., "pods", name, "eviction"]) | ("DELETE", [.., "pods", name]) => {
                if method == "POST" && !state.answers.is_empty() {
                    return state.answers.remove(0);
                }
                if !state.stuck && !dry_run {
                    state.pods.remove(*name);
                }
                (201, json!({}))
            }
            other => panic!("nobody asks for {other:?}"),
        }
    }

    /// Drains `n1`: what was said, and what came of it.
    async fn drain(&self, words: &str) -> (Vec<String>, Option<String>) {
        let said = Mutex::new(vec![]);
        let outcome = drain(&self.server(), &args(words), &|line| {
            said.lock().expect("no panic").push(match line {
                Line::Out(text) => text,
                Line::Err(text) => format!("! {text}"),
            });
        })
        .await;
        (said.into_inner().expect("no panic"), outcome.err().map(|failure| failure.to_string()))
    }

    fn asked(&self) -> Vec<String> {
        self.state().asked.iter().filter(|asked| !asked.starts_with("GET")).cloned().collect()
    }
}

fn refusal(code: u16, reason: &str, message: &str, cause: &str) -> (u16, Value) {
    let causes = if cause.is_empty() { json!([]) } else { json!([{"reason": cause}]) };
    (
        code,
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message,
                  "details": {"causes": causes}}),
    )
}

fn rules(args: &Args) -> Rules {
    args.rules(jiff::Timestamp::now())
}

#[tokio::test(start_paused = true)]
async fn pods_are_evicted_and_waited_for() {
    let cluster = Cluster::with(vec![
        pod("web", "ReplicaSet/rs", "Running", false),
        pod("agent", "DaemonSet/ds", "Running", false),
    ]);
    let (said, failure) = cluster.drain("n1 --ignore-daemonsets --grace-period=7").await;
    assert_eq!(
        said,
        [
            "node/n1 cordoned",
            "! Warning: ignoring DaemonSet-managed Pods: ns/agent",
            "evicting pod ns/web",
            "pod/web evicted",
            "node/n1 drained"
        ]
    );
    assert_eq!(failure, None);
    assert_eq!(cluster.asked(), ["PATCH /api/v1/nodes/n1", "POST /api/v1/namespaces/ns/pods/web/eviction"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_leaves_while_something_must_not() {
    let cluster = Cluster::with(vec![
        pod("web", "ReplicaSet/rs", "Running", true),
        pod("agent", "DaemonSet/ds", "Running", false),
    ]);
    let (said, failure) = cluster.drain("n1").await;
    let (daemon, local) = (
        "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): ns/agent",
        "cannot delete Pods with local storage (use --delete-emptydir-data to override): ns/web",
    );
    assert_eq!(
        said[1..],
        [
            format!(
                "! error: unable to drain node \"n1\" due to error: [{daemon}, {local}], continuing command..."
            ),
            "! There are pending nodes to be drained:".to_owned(),
            "!  n1".to_owned()
        ]
    );
    assert_eq!(failure, Some(format!("{daemon}\n{local}")));
    assert_eq!(cluster.asked(), ["PATCH /api/v1/nodes/n1"]);
}

#[tokio::test(start_paused = true)]
async fn a_budget_is_waited_for() {
    let cluster = Cluster::with(vec![pod("web", "ReplicaSet/rs", "Running", false)]);
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    cluster.state().answers = vec![refusal(429, "TooManyRequests", message, "DisruptionBudget")];
    let began = tokio::time::Instant::now();
    let (said, failure) = cluster.drain("n1").await;
    assert_eq!(failure, None);
    assert_eq!(
        said[2],
        format!("! error when evicting pods/\"web\" -n \"ns\" (will retry after 5s): {message}")
    );
    assert_eq!(said[3..], ["evicting pod ns/web", "pod/web evicted", "node/n1 drained"]);
    assert!(began.elapsed() >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn patience_has_an_end() {
    let cluster = Cluster::with(vec![pod("web", "ReplicaSet/rs", "Running", false)]);
    cluster.state().stuck = true;
    let (said, failure) = cluster.drain("n1 --timeout=90s").await;
    let why =
        "error when waiting for pod \"web\" in namespace \"ns\" to terminate: context deadline exceeded";
    assert_eq!(failure.as_deref(), Some(why));
    assert!(said.contains(&format!("! There are pending pods in node \"n1\" when an error occurred: {why}")));
    let refused = || refusal(429, "TooManyRequests", "budget", "");
    cluster.state().answers = std::iter::repeat_with(refused).take(100).collect();
    let (_, failure) = cluster.drain("n1 --timeout=90s").await;
    let reached = "error when evicting pods/\"web\" -n \"ns\": global timeout reached: 1m30s";
    assert_eq!(failure.as_deref(), Some(reached));
}

#[tokio::test(start_paused = true)]
async fn what_goes_with_its_namespace_needs_no_eviction() {
    let cluster = Cluster::with(vec![pod("web", "ReplicaSet/rs", "Running", false)]);
    let going = || refusal(403, "Forbidden", "namespace ns is being terminated", "NamespaceTerminating");
    cluster.state().answers = vec![going(), going(), refusal(404, "NotFound", "gone", "")];
    let (said, failure) = cluster.drain("n1").await;
    assert_eq!(failure, None);
    assert!(
        said[2]
            .starts_with("! error when evicting pod \"web\" from terminating namespace \"ns\" (will retry")
    );
    assert_eq!(said.iter().filter(|line| line.starts_with("evicting")).count(), 3);
    // One that is ending already is only waited for.
    let mut ending = pod("web", "ReplicaSet/rs", "Running", false);
    ending["metadata"]["deletionTimestamp"] = json!(jiff::Timestamp::now().to_string());
    let cluster = Cluster::with(vec![ending]);
    cluster.state().answers = vec![going()];
    let (_, failure) = cluster.drain("n1 --timeout=30s").await;
    assert!(failure.is_some_and(|failure| failure.contains("error when waiting for pod")));
    assert_eq!(cluster.asked().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn other_refusals_end_it() {
    let cluster = Cluster::with(vec![pod("web", "ReplicaSet/rs", "Running", false)]);
    cluster.state().answers = vec![refusal(500, "InternalError", "broken", "")];
    let (_, failure) = cluster.drain("n1").await;
    assert_eq!(failure.as_deref(), Some("error when evicting pods/\"web\" -n \"ns\": broken"));
}

#[tokio::test(start_paused = true)]
async fn pods_are_deleted_where_they_cannot_be_evicted_or_shall_not_be() {
    for (words, unevictable) in [("n1 --disable-eviction", false), ("n1", true)] {
        let cluster = Cluster::with(vec![pod("web", "ReplicaSet/rs", "Running", false)]);
        cluster.state().unevictable = unevictable;
        let (said, failure) = cluster.drain(words).await;
        assert_eq!(failure, None);
        assert_eq!(said[1..], ["pod/web deleted", "node/n1 drained"]);
        assert_eq!(cluster.asked()[1], "DELETE /api/v1/namespaces/ns/pods/web");
    }
}

#[tokio::test(start_paused = true)]
async fn dry_runs_change_nothing() {
    let cluster = Cluster::with(vec![pod("web", "ReplicaSet/rs", "Running", false)]);
    let (said, _) = cluster.drain("n1 --dry-run=client").await;
    let suffixed = |suffix: &str| {
        ["node/n1 cordoned", "evicting pod ns/web", "node/n1 drained"]
            .map(|line| format!("{line} ({suffix})"))
    };
    assert_eq!(said, suffixed("dry run"));
    assert!(cluster.asked().is_empty());
    let (said, _) = cluster.drain("n1 --dry-run=server").await;
    assert_eq!(said, suffixed("server dry run"));
    assert_eq!(cluster.asked()[1], "POST /api/v1/namespaces/ns/pods/web/eviction dry");
    assert_eq!(cluster.state().pods.len(), 1);
}

#[test]
fn nodes_are_named_or_selected() {
    for (words, expected) in [
        ("", "error: USAGE: drain NODE [flags]\nSee 'kubectl drain -h' for help and examples"),
        (
            "n1 -l a=b",
            "error: cannot specify both a node name and a --selector option\nSee 'kubectl drain -h' for help and examples",
        ),
    ] {
        assert_eq!(args(words).nodes.check("drain").expect_err("refused").to_string(), expected);
    }
    assert!(args("-l a=b").nodes.check("drain").is_ok() && args("n1 n2").nodes.check("drain").is_ok());
}
