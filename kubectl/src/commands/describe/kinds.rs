//! What is said of each kind; other kinds are shown field by field.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::super::{Found, number, text};
use super::writer::Writer;

/// Writes a description.
pub fn describe(writer: &mut Writer, found: &Found<'_>, related: &[Value]) {
    let object = &found.object;
    match found.resource.plural.as_str() {
        "pods" => pod(writer, object),
        "nodes" => node(writer, object, related),
        "services" => service(writer, object, related),
        "deployments" | "replicasets" | "replicationcontrollers" | "statefulsets" | "daemonsets" | "jobs" => {
            workload(writer, found, related);
        }
        "configmaps" => config_map(writer, object),
        "secrets" => secret(writer, object),
        _ => generic(writer, found),
    }
}

fn heading(writer: &mut Writer, object: &Value) {
    writer.field(0, "Name", text(object, "/metadata/name"));
    writer.some(0, "Namespace", text(object, "/metadata/namespace"));
}

/// `Labels:` with one pair a line.
fn pairs(writer: &mut Writer, level: usize, name: &str, map: Option<&Value>) {
    let map = map.and_then(Value::as_object);
    let mut first = true;
    for (key, value) in
        map.into_iter().flatten().filter(|(k, _)| *k != "kubectl.kubernetes.io/last-applied-configuration")
    {
        let separator = if name == "Annotations" { ": " } else { "=" };
        let line = format!("{key}{separator}{}", value.as_str().unwrap_or_default().replace('\n', " "));
        let label = if first { format!("{name}:") } else { String::new() };
        writer.line(level, format!("{label}\t{line}"));
        first = false;
    }
    if first {
        writer.field(level, name, "<none>");
    }
}

fn labels_and_annotations(writer: &mut Writer, object: &Value) {
    pairs(writer, 0, "Labels", object.pointer("/metadata/labels"));
    pairs(writer, 0, "Annotations", object.pointer("/metadata/annotations"));
}

fn selector_text(value: Option<&Value>) -> String {
    let map = value.and_then(Value::as_object);
    let pairs: Vec<_> =
        map.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "<none>" } else { text }
}

fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn pod(writer: &mut Writer, object: &Value) {
    heading(writer, object);
    writer.field(0, "Priority", number(object, "/spec/priority"));
    writer.some(0, "Priority Class Name", text(object, "/spec/priorityClassName"));
    writer.field(0, "Service Account", or_none(text(object, "/spec/serviceAccountName")));
    let (node, host) = (text(object, "/spec/nodeName"), text(object, "/status/hostIP"));
    writer.field(0, "Node", if node.is_empty() { "<none>".to_owned() } else { format!("{node}/{host}") });
    writer.some(0, "Start Time", text(object, "/status/startTime"));
    labels_and_annotations(writer, object);
    let leaving = text(object, "/metadata/deletionTimestamp");
    if leaving.is_empty() {
        writer.field(0, "Status", or_none(text(object, "/status/phase")));
    } else {
        writer.field(0, "Status", format!("Terminating (since {leaving})"));
        writer.field(
            0,
            "Termination Grace Period",
            format!("{}s", number(object, "/metadata/deletionGracePeriodSeconds")),
        );
    }
    writer.some(0, "Reason", text(object, "/status/reason"));
    writer.some(0, "Message", text(object, "/status/message"));
    writer.field(0, "IP", text(object, "/status/podIP"));
    writer.line(0, "IPs:");
    for ip in list(object, "/status/podIPs") {
        writer.field(1, "IP", text(ip, "/ip"));
    }
    if let Some(owner) = list(object, "/metadata/ownerReferences").iter().find(|o| o["controller"] == true) {
        writer.field(0, "Controlled By", format!("{}/{}", text(owner, "/kind"), text(owner, "/name")));
    }
    containers(
        writer,
        "Init Containers",
        list(object, "/spec/initContainers"),
        list(object, "/status/initContainerStatuses"),
    );
    containers(
        writer,
        "Containers",
        list(object, "/spec/containers"),
        list(object, "/status/containerStatuses"),
    );
    writer.line(0, "Conditions:");
    writer.line(1, "Type\tStatus");
    for condition in list(object, "/status/conditions") {
        writer.line(1, format!("{}\t{}", text(condition, "/type"), text(condition, "/status")));
    }
    volumes(writer, list(object, "/spec/volumes"));
    writer.field(0, "QoS Class", or_none(text(object, "/status/qosClass")));
    writer.field(0, "Node-Selectors", selector_text(object.pointer("/spec/nodeSelector")));
    let tolerations: Vec<_> = list(object, "/spec/tolerations").iter().map(toleration).collect();
    for (i, toleration) in tolerations.iter().enumerate() {
        writer.line(0, format!("{}\t{toleration}", if i == 0 { "Tolerations:" } else { "" }));
    }
    if tolerations.is_empty() {
        writer.field(0, "Tolerations", "<none>");
    }
}

fn toleration(value: &Value) -> String {
    let mut line = text(value, "/key").to_owned();
    if !text(value, "/value").is_empty() {
        line.push_str(&format!("={}", text(value, "/value")));
    }
    if !text(value, "/effect").is_empty() {
        line.push_str(&format!(":{}", text(value, "/effect")));
    }
    if text(value, "/operator") == "Exists" {
        line.push_str(if line.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = value["tolerationSeconds"].as_i64() {
        line.push_str(&format!(" for {seconds}s"));
    }
    line
}

fn containers(writer: &mut Writer, title: &str, specs: &[Value], statuses: &[Value]) {
    if specs.is_empty() {
        return;
    }
    writer.line(0, format!("{title}:"));
    for spec in specs {
        let name = text(spec, "/name");
        let status = statuses.iter().find(|s| s["name"] == name);
        writer.line(1, format!("{name}:"));
        if let Some(status) = status {
            writer.field(2, "Container ID", text(status, "/containerID"));
        }
        writer.field(2, "Image", text(spec, "/image"));
        if let Some(status) = status {
            writer.field(2, "Image ID", text(status, "/imageID"));
        }
        let ports: Vec<_> = list(spec, "/ports")
            .iter()
            .map(|p| format!("{}/{}", p["containerPort"], p["protocol"].as_str().unwrap_or("TCP")))
            .collect();
        writer.field(2, "Port", or_none(&ports.join(", ")));
        for (title, pointer) in [("Command", "/command"), ("Args", "/args")] {
            let words = list(spec, pointer);
            if !words.is_empty() {
                writer.line(2, format!("{title}:"));
                for line in words.iter().filter_map(Value::as_str).flat_map(str::lines) {
                    writer.line(3, line);
                }
            }
        }
        if let Some(status) = status {
            state(writer, "State", &status["state"]);
            if status["lastState"].as_object().is_some_and(|s| !s.is_empty()) {
                state(writer, "Last State", &status["lastState"]);
            }
            writer.field(2, "Ready", if status["ready"] == true { "True" } else { "False" });
            writer.field(2, "Restart Count", number(status, "/restartCount"));
        }
        for (title, pointer) in [("Limits", "/resources/limits"), ("Requests", "/resources/requests")] {
            if let Some(amounts) = spec.pointer(pointer).and_then(Value::as_object).filter(|a| !a.is_empty())
            {
                writer.line(2, format!("{title}:"));
                for (name, amount) in amounts {
                    writer.field(3, name, amount.as_str().unwrap_or_default());
                }
            }
        }
        environment(writer, spec);
        writer.line(2, "Mounts:");
        for mount in list(spec, "/volumeMounts") {
            let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
            writer.line(3, format!("{} from {} ({mode})", text(mount, "/mountPath"), text(mount, "/name")));
        }
    }
}

fn environment(writer: &mut Writer, spec: &Value) {
    let from: Vec<_> = list(spec, "/envFrom")
        .iter()
        .filter_map(|source| {
            let map = source.pointer("/configMapRef/name").map(|n| (n, "ConfigMap"));
            let (name, kind) = map.or_else(|| source.pointer("/secretRef/name").map(|n| (n, "Secret")))?;
            Some(format!("{}\t{kind}\tOptional: {}", name.as_str()?, false))
        })
        .collect();
    if !from.is_empty() {
        writer.line(2, "Environment Variables from:");
        from.iter().for_each(|line| writer.line(3, line));
    }
    let env = list(spec, "/env");
    if env.is_empty() {
        writer.field(2, "Environment", "<none>");
        return;
    }
    writer.line(2, "Environment:");
    for variable in env {
        let value = match variable.get("valueFrom") {
            None => text(variable, "/value").to_owned(),
            Some(from) => {
                let of = |kind: &str| {
                    format!(
                        "<set to the key '{}' in {}>",
                        text(from, &format!("/{kind}/key")),
                        text(from, &format!("/{kind}/name"))
                    )
                };
                if from.get("secretKeyRef").is_some() {
                    of("secretKeyRef")
                } else if from.get("configMapKeyRef").is_some() {
                    of("configMapKeyRef")
                } else {
                    format!("({})", text(from, "/fieldRef/fieldPath"))
                }
            }
        };
        writer.field(3, text(variable, "/name"), value);
    }
}

fn state(writer: &mut Writer, title: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        writer.field(2, title, "Running");
        writer.field(3, "Started", text(running, "/startedAt"));
    } else if let Some(ended) = state.get("terminated") {
        writer.field(2, title, "Terminated");
        writer.some(3, "Reason", text(ended, "/reason"));
        writer.some(3, "Message", text(ended, "/message"));
        writer.field(3, "Exit Code", number(ended, "/exitCode"));
        writer.field(3, "Started", text(ended, "/startedAt"));
        writer.field(3, "Finished", text(ended, "/finishedAt"));
    } else {
        writer.field(2, title, "Waiting");
        writer.some(3, "Reason", text(state, "/waiting/reason"));
    }
}

fn volumes(writer: &mut Writer, volumes: &[Value]) {
    if volumes.is_empty() {
        writer.field(0, "Volumes", "<none>");
        return;
    }
    writer.line(0, "Volumes:");
    for volume in volumes {
        writer.line(1, format!("{}:", text(volume, "/name")));
        for (kind, source) in volume.as_object().into_iter().flatten().filter(|(k, _)| *k != "name") {
            let mut title = kind.clone();
            if let Some(first) = title.get_mut(..1) {
                first.make_ascii_uppercase();
            }
            writer.field(2, "Type", title);
            for (name, value) in source
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, v)| v.is_string() || v.is_number() || v.is_boolean())
            {
                writer.field(2, name, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            }
        }
    }
}

fn node(writer: &mut Writer, object: &Value, pods: &[Value]) {
    writer.field(0, "Name", text(object, "/metadata/name"));
    let role = "node-role.kubernetes.io/";
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let roles: Vec<_> = labels.into_iter().flatten().filter_map(|(k, _)| k.strip_prefix(role)).collect();
    writer.field(0, "Roles", or_none(&roles.join(",")));
    labels_and_annotations(writer, object);
    writer.field(0, "CreationTimestamp", text(object, "/metadata/creationTimestamp"));
    let taints: Vec<_> = list(object, "/spec/taints").iter().map(toleration).collect();
    writer.field(0, "Taints", or_none(&taints.join(", ")));
    writer.field(0, "Unschedulable", object["spec"]["unschedulable"] == true);
    writer.line(0, "Conditions:");
    writer.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    writer.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for c in list(object, "/status/conditions") {
        let cells = ["/type", "/status", "/lastHeartbeatTime", "/lastTransitionTime", "/reason", "/message"]
            .map(|p| text(c, p));
        writer.line(1, cells.join("\t"));
    }
    writer.line(0, "Addresses:");
    for address in list(object, "/status/addresses") {
        writer.field(1, text(address, "/type"), text(address, "/address"));
    }
    for (title, pointer) in [("Capacity", "/status/capacity"), ("Allocatable", "/status/allocatable")] {
        writer.line(0, format!("{title}:"));
        for (name, amount) in object.pointer(pointer).and_then(Value::as_object).into_iter().flatten() {
            writer.field(1, name, amount.as_str().unwrap_or_default());
        }
    }
    writer.line(0, "System Info:");
    for (name, value) in object.pointer("/status/nodeInfo").and_then(Value::as_object).into_iter().flatten() {
        writer.field(1, name, value.as_str().unwrap_or_default());
    }
    writer.some(0, "PodCIDR", text(object, "/spec/podCIDR"));
    let live: Vec<_> =
        pods.iter().filter(|p| !matches!(text(p, "/status/phase"), "Succeeded" | "Failed")).collect();
    writer.line(0, format!("Non-terminated Pods:\t({} in total)", live.len()));
    writer.line(1, "Namespace\tName\tAge");
    writer.line(1, "---------\t----\t---");
    for pod in live {
        let age = age(text(pod, "/metadata/creationTimestamp"));
        writer
            .line(1, format!("{}\t{}\t{age}", text(pod, "/metadata/namespace"), text(pod, "/metadata/name")));
    }
}

fn service(writer: &mut Writer, object: &Value, slices: &[Value]) {
    heading(writer, object);
    labels_and_annotations(writer, object);
    writer.field(0, "Selector", selector_text(object.pointer("/spec/selector")));
    writer.field(0, "Type", text(object, "/spec/type"));
    writer.some(0, "IP Family Policy", text(object, "/spec/ipFamilyPolicy"));
    writer.field(0, "IP", or_none(text(object, "/spec/clusterIP")));
    writer.some(0, "External Name", text(object, "/spec/externalName"));
    for port in list(object, "/spec/ports") {
        let name = Some(text(port, "/name")).filter(|n| !n.is_empty()).unwrap_or("<unset>");
        let protocol = text(port, "/protocol");
        writer.field(0, "Port", format!("{name}  {}/{protocol}", port["port"]));
        let target =
            port["targetPort"].as_str().map_or_else(|| port["targetPort"].to_string(), str::to_owned);
        writer.field(0, "TargetPort", format!("{target}/{protocol}"));
        if number(port, "/nodePort") != 0 {
            writer.field(0, "NodePort", format!("{name}  {}/{protocol}", port["nodePort"]));
        }
        writer.field(0, "Endpoints", endpoints(slices, text(port, "/name")));
    }
    writer.field(0, "Session Affinity", or_none(text(object, "/spec/sessionAffinity")));
    writer.some(0, "External Traffic Policy", text(object, "/spec/externalTrafficPolicy"));
    writer.some(0, "Internal Traffic Policy", text(object, "/spec/internalTrafficPolicy"));
}

/// The first three ready addresses, and how many more there are.
fn endpoints(slices: &[Value], port: &str) -> String {
    let mut found = vec![];
    for slice in slices {
        let number =
            list(slice, "/ports").iter().find(|p| text(p, "/name") == port).map(|p| p["port"].clone());
        let Some(number) = number else { continue };
        let ready = list(slice, "/endpoints")
            .iter()
            .filter(|e| e.pointer("/conditions/ready") != Some(&Value::Bool(false)));
        found.extend(ready.filter_map(|e| Some(format!("{}:{number}", e["addresses"][0].as_str()?))));
    }
    match found.len() {
        0 => String::new(),
        count if count > 3 => format!("{} + {} more...", found[..3].join(","), count - 3),
        _ => found.join(","),
    }
}

fn workload(writer: &mut Writer, found: &Found<'_>, replica_sets: &[Value]) {
    let object = &found.object;
    heading(writer, object);
    writer.field(0, "CreationTimestamp", text(object, "/metadata/creationTimestamp"));
    labels_and_annotations(writer, object);
    let selector = object.pointer("/spec/selector/matchLabels").or_else(|| object.pointer("/spec/selector"));
    writer.field(0, "Selector", selector_text(selector));
    let n = |pointer: &str| number(object, pointer);
    match found.resource.plural.as_str() {
        "deployments" => {
            let (all, available) = (n("/status/replicas"), n("/status/availableReplicas"));
            writer.field(
                0,
                "Replicas",
                format!(
                    "{} desired | {} updated | {all} total | {available} available | {} unavailable",
                    n("/spec/replicas"),
                    n("/status/updatedReplicas"),
                    n("/status/unavailableReplicas")
                ),
            );
            writer.field(0, "StrategyType", text(object, "/spec/strategy/type"));
            writer.field(0, "MinReadySeconds", n("/spec/minReadySeconds"));
            if let Some(rolling) = object.pointer("/spec/strategy/rollingUpdate") {
                let show = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let line = format!(
                    "{} max unavailable, {} max surge",
                    show(&rolling["maxUnavailable"]),
                    show(&rolling["maxSurge"])
                );
                writer.field(0, "RollingUpdateStrategy", line);
            }
        }
        "daemonsets" => {
            writer.field(0, "Desired Number of Nodes Scheduled", n("/status/desiredNumberScheduled"));
            writer.field(0, "Current Number of Nodes Scheduled", n("/status/currentNumberScheduled"));
            writer.field(
                0,
                "Number of Nodes Scheduled with Up-to-date Pods",
                n("/status/updatedNumberScheduled"),
            );
        }
        "jobs" => {
            writer.field(0, "Parallelism", n("/spec/parallelism"));
            writer.field(0, "Completions", n("/spec/completions"));
            writer.field(
                0,
                "Pods Statuses",
                format!(
                    "{} Active / {} Succeeded / {} Failed",
                    n("/status/active"),
                    n("/status/succeeded"),
                    n("/status/failed")
                ),
            );
        }
        _ => writer.field(
            0,
            "Replicas",
            format!("{} current / {} desired", n("/status/replicas"), n("/spec/replicas")),
        ),
    }
    writer.line(0, "Pod Template:");
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    pairs(writer, 1, "Labels", template.pointer("/metadata/labels"));
    let mut inner = Writer::default();
    containers(&mut inner, "Init Containers", list(template, "/spec/initContainers"), &[]);
    containers(&mut inner, "Containers", list(template, "/spec/containers"), &[]);
    volumes(&mut inner, list(template, "/spec/volumes"));
    inner.finish().lines().for_each(|line| writer.line(1, line));
    let conditions = list(object, "/status/conditions");
    if !conditions.is_empty() {
        writer.line(0, "Conditions:");
        writer.line(1, "Type\tStatus\tReason");
        writer.line(1, "----\t------\t------");
        for c in conditions {
            writer.line(1, format!("{}\t{}\t{}", text(c, "/type"), text(c, "/status"), text(c, "/reason")));
        }
    }
    if found.resource.plural == "deployments" {
        let of = |wanted: bool| -> String {
            let newest = replica_sets.iter().map(revision).max().unwrap_or(0);
            let chosen = replica_sets.iter().filter(|rs| {
                (revision(rs) == newest) == wanted && (wanted || number(rs, "/spec/replicas") > 0)
            });
            let lines: Vec<_> = chosen
                .map(|rs| {
                    format!(
                        "{} ({}/{} replicas created)",
                        text(rs, "/metadata/name"),
                        number(rs, "/status/replicas"),
                        number(rs, "/spec/replicas")
                    )
                })
                .collect();
            or_none(&lines.join(", ")).to_owned()
        };
        writer.field(0, "OldReplicaSets", of(false));
        writer.field(0, "NewReplicaSet", of(true));
    }
}

fn revision(replica_set: &Value) -> i64 {
    text(replica_set, "/metadata/annotations/deployment.kubernetes.io~1revision").parse().unwrap_or(0)
}

fn config_map(writer: &mut Writer, object: &Value) {
    heading(writer, object);
    labels_and_annotations(writer, object);
    writer.line(0, "\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        writer.line(0, format!("{key}:\n----\n{}\n", value.as_str().unwrap_or_default()));
    }
    writer.line(0, "\nBinaryData\n====");
    let sizes: BTreeMap<_, _> = object["binaryData"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| (k, v.as_str().unwrap_or_default().len() * 3 / 4))
        .collect();
    sizes.iter().for_each(|(key, size)| writer.line(0, format!("{key}: {size} bytes")));
}

fn secret(writer: &mut Writer, object: &Value) {
    heading(writer, object);
    labels_and_annotations(writer, object);
    writer.line(0, format!("\nType:\t{}", text(object, "/type")));
    writer.line(0, "\nData\n====");
    for (key, value) in object["data"].as_object().into_iter().flatten() {
        let encoded = value.as_str().unwrap_or_default();
        let size = encoded.trim_end_matches('=').len() * 3 / 4;
        writer.line(0, format!("{key}:\t{size} bytes"));
    }
}

/// Any other kind: its fields, with words for names.
fn generic(writer: &mut Writer, found: &Found<'_>) {
    heading(writer, &found.object);
    labels_and_annotations(writer, &found.object);
    writer.field(0, "API Version", found.resource.api_version());
    writer.field(0, "Kind", &found.resource.kind);
    writer.field(0, "Created", text(&found.object, "/metadata/creationTimestamp"));
    for (name, value) in found.object.as_object().into_iter().flatten() {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            fields(writer, 0, name, value);
        }
    }
}

fn fields(writer: &mut Writer, level: usize, name: &str, value: &Value) {
    let title = words(name);
    match value {
        Value::Object(map) => {
            writer.line(level, format!("{title}:"));
            map.iter().for_each(|(name, value)| fields(writer, level + 1, name, value));
        }
        Value::Array(items) => {
            writer.line(level, format!("{title}:"));
            for item in items {
                match item {
                    Value::Object(map) => {
                        map.iter().for_each(|(name, value)| fields(writer, level + 1, name, value))
                    }
                    other => writer
                        .line(level + 1, other.as_str().map_or_else(|| other.to_string(), str::to_owned)),
                }
            }
        }
        Value::String(text) => writer.field(level, &title, text),
        other => writer.field(level, &title, other),
    }
}

/// `podSelector` is `Pod Selector`.
fn words(name: &str) -> String {
    let mut out = String::new();
    for (i, c) in name.chars().enumerate() {
        if i == 0 {
            out.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() {
                out.push(' ');
            }
            out.push(c);
        }
    }
    out
}

/// Writes the events.
pub fn events(writer: &mut Writer, events: &[Value]) {
    if events.is_empty() {
        writer.field(0, "Events", "<none>");
        return;
    }
    writer.line(0, "Events:");
    writer.line(1, "Type\tReason\tAge\tFrom\tMessage");
    writer.line(1, "----\t------\t----\t----\t-------");
    for event in events {
        let last = text(event, "/lastTimestamp");
        let last = if last.is_empty() { text(event, "/eventTime") } else { last };
        let count = number(event, "/count");
        let age = if count > 1 {
            format!("{} (x{count} over {})", age(last), age(text(event, "/firstTimestamp")))
        } else {
            age(last)
        };
        let from = text(event, "/source/component");
        let from = if from.is_empty() { text(event, "/reportingComponent") } else { from };
        let message = text(event, "/message").trim();
        writer.line(
            1,
            format!("{}\t{}\t{age}\t{from}\t{message}", text(event, "/type"), text(event, "/reason")),
        );
    }
}

/// How long ago, in the unit that fits.
fn age(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = Timestamp::now().as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => format!("{}m{}s", seconds / 60, seconds % 60),
        600..10_800 => format!("{}m", seconds / 60),
        10_800..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
