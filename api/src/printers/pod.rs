//! Pods and pod templates.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::{AGE, Column, Doc, NAME, Table, age, deleted, labels, name, or, since};

const SPEC: &str = "io.k8s.api.core.v1.PodSpec";
const STATUS: &str = "io.k8s.api.core.v1.PodStatus";
pub(crate) const CONTAINERS: Column =
    Column::string("Containers", Doc::Text("Names of each container in the template."));
pub(crate) const IMAGES: Column =
    Column::string("Images", Doc::Text("Images referenced by each container in the template."));

pub(crate) static POD: Table = Table {
    columns: &[
        NAME,
        Column::string(
            "Ready",
            Doc::Text("The aggregate readiness state of this pod for accepting traffic."),
        ),
        Column::string("Status", Doc::Text("The aggregate status of the containers in this pod.")),
        Column::string(
            "Restarts",
            Doc::Text(
                "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
            ),
        ),
        AGE,
        Column::string("IP", Doc::Field(STATUS, "podIP")).wide(),
        Column::string("Node", Doc::Field(SPEC, "nodeName")).wide(),
        Column::string("Nominated Node", Doc::Field(STATUS, "nominatedNodeName")).wide(),
        Column::string("Readiness Gates", Doc::Field(SPEC, "readinessGates")).wide(),
    ],
    cells: pod,
    conditions: pod_conditions,
    order: None,
};

pub(crate) static POD_TEMPLATE: Table = Table::new(
    &[NAME, CONTAINERS, IMAGES, Column::string("Pod Labels", Doc::Text("The labels for the pod template."))],
    |object, _| {
        let template = object.object("template");
        let [names, images] = containers(template.and_then(|t| t.object("spec")));
        let pod_labels = template.and_then(|t| t.object("metadata")).and_then(|m| m.object("labels"));
        vec![name(object), names, images, json!(labels(pod_labels))]
    },
);

/// Names and images of the containers of a pod spec.
pub(crate) fn containers(spec: Option<&Object>) -> [Value; 2] {
    let join = |key: &str| {
        let all = spec.into_iter().flat_map(|s| s.each("containers"));
        json!(all.map(|c| c.text(key)).collect::<Vec<_>>().join(","))
    };
    [join("name"), join("image")]
}

fn pod_conditions(pod: &Object) -> Vec<Value> {
    let phase = pod.object("status").map(|s| s.text("phase")).unwrap_or_default();
    let message = match phase {
        "Succeeded" => "The pod has completed successfully.",
        "Failed" => "The pod failed.",
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": phase, "message": message})]
}

/// What is found while looking at the containers of a pod.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    restarts: i64,
    last_restart: String,
}

impl Summary {
    fn restarted(&mut self, container: &Object) {
        self.restarts += container.int("restartCount");
        let finished =
            state(container, "lastState", "terminated").map(|t| t.text("finishedAt")).unwrap_or_default();
        // Times of the API compare as text.
        if finished > self.last_restart.as_str() {
            finished.clone_into(&mut self.last_restart);
        }
    }
}

fn state<'a>(container: &'a Object, which: &str, kind: &str) -> Option<&'a Object> {
    container.object(which)?.object(kind)
}

fn pod(pod: &Object, now: Timestamp) -> Vec<Value> {
    let empty = Object::new();
    let (spec, status) = (pod.object("spec").unwrap_or(&empty), pod.object("status").unwrap_or(&empty));
    let phase = status.text("phase");
    let mut summary = Summary { reason: or(status.text("reason"), phase).to_owned(), ..Summary::default() };
    let condition = |kind: &str| status.each("conditions").find(|c| c.text("type") == kind);
    if condition("PodScheduled").is_some_and(|c| c.text("reason") == "SchedulingGated") {
        summary.reason = "SchedulingGated".to_owned();
    }
    let sidecar = |name: &str| {
        spec.each("initContainers").any(|c| c.text("name") == name && c.text("restartPolicy") == "Always")
    };
    let total = spec.list("containers").len()
        + spec.each("initContainers").filter(|c| c.text("restartPolicy") == "Always").count();
    let mut sidecars = Summary::default();
    let initializing = init_containers(spec, status, &sidecar, &mut summary, &mut sidecars);
    if !initializing || condition("Initialized").is_some_and(|c| c.text("status") == "True") {
        (summary.restarts, summary.last_restart) = (sidecars.restarts, sidecars.last_restart);
        app_containers(status, condition("Ready").is_some_and(|c| c.text("status") == "True"), &mut summary);
    }
    if deleted(pod) {
        if status.text("reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if !matches!(phase, "Succeeded" | "Failed") {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    let restarts = match (summary.restarts, summary.last_restart.as_str()) {
        (0, _) | (_, "") => summary.restarts.to_string(),
        (count, last) => format!("{count} ({} ago)", since(last, now)),
    };
    let ip = status.each("podIPs").next().map(|ip| ip.text("ip")).unwrap_or_default();
    vec![
        name(pod),
        json!(format!("{}/{total}", summary.ready)),
        json!(summary.reason),
        json!(restarts),
        age(pod, now),
        json!(or(ip, "<none>")),
        json!(or(spec.text("nodeName"), "<none>")),
        json!(or(status.text("nominatedNodeName"), "<none>")),
        json!(readiness_gates(spec, status)),
    ]
}

fn readiness_gates(spec: &Object, status: &Object) -> String {
    let total = spec.list("readinessGates").len();
    if total == 0 {
        return "<none>".to_owned();
    }
    let met = |gate: &&Object| {
        let condition = status.each("conditions").find(|c| c.text("type") == gate.text("conditionType"));
        condition.is_some_and(|c| c.text("status") == "True")
    };
    format!("{}/{total}", spec.each("readinessGates").filter(met).count())
}

/// Looks at the init containers in order; true if one of them is what the pod waits for.
fn init_containers(
    spec: &Object,
    status: &Object,
    sidecar: &dyn Fn(&str) -> bool,
    summary: &mut Summary,
    sidecars: &mut Summary,
) -> bool {
    for (i, container) in status.each("initContainerStatuses").enumerate() {
        summary.restarted(container);
        let is_sidecar = sidecar(container.text("name"));
        if is_sidecar {
            sidecars.restarted(container);
        }
        let (terminated, waiting) =
            (state(container, "state", "terminated"), state(container, "state", "waiting"));
        if terminated.is_some_and(|t| t.int("exitCode") == 0) {
            continue;
        }
        if is_sidecar && container.flag("started") {
            summary.ready += usize::from(container.flag("ready"));
            continue;
        }
        let waits = waiting.map(|w| w.text("reason")).unwrap_or_default();
        summary.reason = match terminated {
            Some(ended) => format!("Init:{}", ended_reason(ended)),
            None if !waits.is_empty() && waits != "PodInitializing" => format!("Init:{waits}"),
            None => format!("Init:{i}/{}", spec.list("initContainers").len()),
        };
        return true;
    }
    false
}

fn ended_reason(ended: &Object) -> String {
    match (ended.text("reason"), ended.int("signal")) {
        ("", 0) => format!("ExitCode:{}", ended.int("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

/// Looks at the containers from the last to the first; the first of them that has something to say wins.
fn app_containers(status: &Object, pod_ready: bool, summary: &mut Summary) {
    let (mut running, mut failed) = (false, String::new());
    let containers: Vec<&Object> = status.each("containerStatuses").collect();
    for container in containers.into_iter().rev() {
        summary.restarted(container);
        let waits = state(container, "state", "waiting").map(|w| w.text("reason")).unwrap_or_default();
        if !waits.is_empty() {
            waits.clone_into(&mut summary.reason);
        } else if let Some(ended) = state(container, "state", "terminated") {
            summary.reason = ended_reason(ended);
            if ended.int("exitCode") != 0 {
                failed.clone_from(&summary.reason);
            }
        } else if container.flag("ready") && state(container, "state", "running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" {
        if running && pod_ready {
            "Running".clone_into(&mut summary.reason);
        } else if !failed.is_empty() {
            summary.reason = failed;
        } else if running {
            "NotReady".clone_into(&mut summary.reason);
        }
    }
}
