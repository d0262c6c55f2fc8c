//! The core group but pods and workloads, and the networking and discovery groups.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::{AGE, Column, Doc, NAME, Table, age, labels, name, or, selector, since, some_of};

const SERVICE_SPEC: &str = "io.k8s.api.core.v1.ServiceSpec";
const NODE_STATUS: &str = "io.k8s.api.core.v1.NodeStatus";
const NODE_INFO: &str = "io.k8s.api.core.v1.NodeSystemInfo";
const EVENT: &str = "io.k8s.api.core.v1.Event";
const SLICE: &str = "io.k8s.api.discovery.v1.EndpointSlice";

fn text(object: &Object, key: &str) -> Value {
    json!(object.text(key))
}

/// A section of an object, empty if it is not there.
fn section<'a>(object: &'a Object, key: &str, empty: &'a Object) -> &'a Object {
    object.object(key).unwrap_or(empty)
}

pub(crate) static SERVICE: Table = Table::new(
    &[
        NAME,
        Column::string("Type", Doc::Field(SERVICE_SPEC, "type")),
        Column::string("Cluster-IP", Doc::Field(SERVICE_SPEC, "clusterIP")),
        Column::string("External-IP", Doc::Field(SERVICE_SPEC, "externalIPs")),
        Column::string("Port(s)", Doc::Field(SERVICE_SPEC, "ports")),
        AGE,
        Column::string("Selector", Doc::Field(SERVICE_SPEC, "selector")).wide(),
    ],
    |object, now| {
        let empty = Object::new();
        let spec = section(object, "spec", &empty);
        let internal = spec.list("clusterIPs").first().and_then(Value::as_str).unwrap_or("<none>");
        let port = |port: &Object| match port.int("nodePort") {
            node if node > 0 => format!("{}:{node}/{}", port.int("port"), port.text("protocol")),
            _ => format!("{}/{}", port.int("port"), port.text("protocol")),
        };
        let ports = spec.each("ports").map(port).collect::<Vec<_>>().join(",");
        vec![
            name(object),
            text(spec, "type"),
            json!(internal),
            json!(external_ip(object, spec)),
            json!(or(&ports, "<none>")),
            age(object, now),
            json!(labels(spec.object("selector"))),
        ]
    },
);

/// Addresses of a load balancer, sorted.
fn balancer(object: &Object) -> Vec<String> {
    let status = object.object("status").and_then(|s| s.object("loadBalancer"));
    let point = |p: &Object| or(p.text("ip"), p.text("hostname")).to_owned();
    let points: BTreeSet<String> =
        status.into_iter().flat_map(|s| s.each("ingress")).map(point).filter(|p| !p.is_empty()).collect();
    points.into_iter().collect()
}

fn external_ip(object: &Object, spec: &Object) -> String {
    let external: Vec<String> =
        spec.list("externalIPs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match spec.text("type") {
        "ClusterIP" | "NodePort" if external.is_empty() => "<none>".to_owned(),
        "ClusterIP" | "NodePort" => external.join(","),
        "LoadBalancer" => {
            let all = [balancer(object), external].concat();
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => spec.text("externalName").to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

pub(crate) static INGRESS: Table = Table::new(
    &[
        NAME,
        Column::string(
            "Class",
            Doc::Text(
                "The name of the IngressClass resource that should be used for additional configuration",
            ),
        ),
        Column::string(
            "Hosts",
            Doc::Text("Hosts that incoming requests are matched against before the ingress rule"),
        ),
        Column::string(
            "Address",
            Doc::Text("Address is a list containing ingress points for the load-balancer"),
        ),
        Column::string("Ports", Doc::Text("Ports of TLS configurations that open")),
        AGE,
    ],
    |object, now| {
        let empty = Object::new();
        let spec = section(object, "spec", &empty);
        let class = if spec.is_unset("ingressClassName") { "<none>" } else { spec.text("ingressClassName") };
        let ports = if spec.list("tls").is_empty() { "80" } else { "80, 443" };
        let address = balancer(object).join(",");
        vec![name(object), json!(class), json!(hosts(spec)), json!(address), json!(ports), age(object, now)]
    },
);

fn hosts(spec: &Object) -> String {
    let rules = spec.list("rules").len();
    let (mut shown, mut more) = (Vec::new(), false);
    for rule in spec.each("rules") {
        more |= shown.len() == 3;
        if !more && !rule.text("host").is_empty() {
            shown.push(rule.text("host"));
        }
    }
    match (shown.join(","), more) {
        (list, _) if list.is_empty() => "*".to_owned(),
        // As upstream, which counts all rules, also those without a host.
        (list, true) => format!("{list} + {} more...", rules - 3),
        (list, false) => list,
    }
}

pub(crate) static INGRESS_CLASS: Table = Table::new(
    &[
        NAME,
        Column::string("Controller", Doc::Text("Controller that is responsible for handling this class")),
        Column::string("Parameters", Doc::Text("A reference to a resource with additional parameters")),
        AGE,
    ],
    |object, now| {
        let empty = Object::new();
        let spec = section(object, "spec", &empty);
        let parameters = spec.object("parameters").map(|p| {
            let group =
                p.get("apiGroup").and_then(Value::as_str).map(|g| format!(".{g}")).unwrap_or_default();
            format!("{}{group}/{}", p.text("kind"), p.text("name"))
        });
        let shown = default_name(object, "ingressclass.kubernetes.io/is-default-class");
        let parameters = parameters.unwrap_or_else(|| "<none>".to_owned());
        vec![json!(shown), text(spec, "controller"), json!(parameters), age(object, now)]
    },
);

/// The name, marked if an annotation makes the class the default one.
pub(crate) fn default_name(object: &Object, annotation: &str) -> String {
    let meta = object.object("metadata");
    let annotations = meta.and_then(|m| m.object("annotations"));
    let mark = if annotations.is_some_and(|a| a.text(annotation) == "true") { " (default)" } else { "" };
    format!("{}{mark}", meta.map(|m| m.text("name")).unwrap_or_default())
}

pub(crate) static NETWORK_POLICY: Table = Table::new(
    &[
        NAME,
        Column::string(
            "Pod-Selector",
            Doc::Field("io.k8s.api.networking.v1.NetworkPolicySpec", "podSelector"),
        ),
        AGE,
    ],
    |object, now| {
        let empty = json!({});
        let pods = object.object("spec").and_then(|s| s.get("podSelector")).unwrap_or(&empty);
        vec![name(object), json!(selector(Some(pods))), age(object, now)]
    },
);

pub(crate) static SERVICE_CIDR: Table = Table::new(
    &[NAME, Column::string("CIDRs", Doc::Field("io.k8s.api.networking.v1.ServiceCIDRSpec", "cidrs")), AGE],
    |object, now| {
        let cidrs = object.object("spec").map(|s| s.list("cidrs")).unwrap_or_default();
        let cidrs: Vec<_> = cidrs.iter().filter_map(Value::as_str).collect();
        vec![name(object), json!(cidrs.join(",")), age(object, now)]
    },
);

/// As upstream: three cells under two columns.
pub(crate) static IP_ADDRESS: Table = Table::new(
    &[NAME, Column::string("ParentRef", Doc::Field("io.k8s.api.networking.v1.IPAddressSpec", "parentRef"))],
    |object, now| {
        let parent = object.object("spec").and_then(|s| s.object("parentRef")).map(|p| {
            let group =
                if p.text("group").is_empty() { String::new() } else { format!(".{}", p.text("group")) };
            let namespace = if p.text("namespace").is_empty() {
                String::new()
            } else {
                format!("/{}", p.text("namespace"))
            };
            format!(
                "{}{namespace}/{}",
                format!("{}{group}", p.text("resource")).to_lowercase(),
                p.text("name")
            )
        });
        vec![name(object), json!(parent.unwrap_or_else(|| "<none>".to_owned())), age(object, now)]
    },
);

pub(crate) static ENDPOINTS: Table = Table::new(
    &[NAME, Column::string("Endpoints", Doc::Field("io.k8s.api.core.v1.Endpoints", "subsets")), AGE],
    |object, now| vec![name(object), json!(endpoints(object)), age(object, now)],
);

fn endpoints(object: &Object) -> String {
    if object.list("subsets").is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in object.each("subsets") {
        let addresses = || subset.each("addresses").map(|a| a.text("ip"));
        if subset.list("ports").is_empty() {
            all.extend(addresses().map(str::to_owned));
        }
        for port in subset.each("ports").map(|p| p.int("port")) {
            let host =
                |ip: &str| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
            all.extend(addresses().map(host));
        }
    }
    some_of(&all, 3)
}

pub(crate) static ENDPOINT_SLICE: Table = Table::new(
    &[
        NAME,
        Column::string("AddressType", Doc::Field(SLICE, "addressType")),
        Column::string("Ports", Doc::Field(SLICE, "ports")),
        Column::string("Endpoints", Doc::Field(SLICE, "endpoints")),
        AGE,
    ],
    |object, now| {
        let port = |port: &Object| match port.get("port").and_then(Value::as_i64) {
            Some(number) => number.to_string(),
            None => port.get("name").and_then(Value::as_str).unwrap_or("*").to_owned(),
        };
        let ports: Vec<String> = object.each("ports").map(port).collect();
        let addresses = object.each("endpoints").flat_map(|e| e.list("addresses")).filter_map(Value::as_str);
        let addresses: Vec<String> = addresses.map(str::to_owned).collect();
        let shown = |list: &[String]| json!(or(&some_of(list, 3), "<unset>"));
        vec![name(object), text(object, "addressType"), shown(&ports), shown(&addresses), age(object, now)]
    },
);

pub(crate) static NODE: Table = Table::new(
    &[
        NAME,
        Column::string("Status", Doc::Text("The status of the node")),
        Column::string("Roles", Doc::Text("The roles of the node")),
        AGE,
        Column::string("Version", Doc::Field(NODE_INFO, "kubeletVersion")),
        Column::string("Internal-IP", Doc::Field(NODE_STATUS, "addresses")).wide(),
        Column::string("External-IP", Doc::Field(NODE_STATUS, "addresses")).wide(),
        Column::string("OS-Image", Doc::Field(NODE_INFO, "osImage")).wide(),
        Column::string("Kernel-Version", Doc::Field(NODE_INFO, "kernelVersion")).wide(),
        Column::string("Container-Runtime", Doc::Field(NODE_INFO, "containerRuntimeVersion")).wide(),
    ],
    |object, now| {
        let empty = Object::new();
        let (spec, status) = (section(object, "spec", &empty), section(object, "status", &empty));
        let info = section(status, "nodeInfo", &empty);
        let ready = status.each("conditions").filter(|c| c.text("type") == "Ready").last();
        let mut state = match ready.map(|c| c.text("status")) {
            Some("True") => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if spec.flag("unschedulable") {
            state.push_str(",SchedulingDisabled");
        }
        let address = |kind: &str| {
            let found = status.each("addresses").find(|a| a.text("type") == kind);
            json!(found.map_or("<none>", |a| a.text("address")))
        };
        let mut kernel = or(info.text("kernelVersion"), "<unknown>").to_owned();
        if !info.text("architecture").is_empty() {
            kernel = format!("{kernel} ({})", info.text("architecture"));
        }
        vec![
            name(object),
            json!(state),
            json!(or(&roles(object), "<none>")),
            age(object, now),
            text(info, "kubeletVersion"),
            address("InternalIP"),
            address("ExternalIP"),
            json!(or(info.text("osImage"), "<unknown>")),
            json!(kernel),
            json!(or(info.text("containerRuntimeVersion"), "<unknown>")),
        ]
    },
);

fn roles(node: &Object) -> String {
    let labels = node.object("metadata").and_then(|m| m.object("labels"));
    let role = |(key, value): (&String, &Value)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => value.as_str().map(str::to_owned),
        None => None,
    };
    let roles: BTreeSet<String> =
        labels.into_iter().flatten().filter_map(role).filter(|role| !role.is_empty()).collect();
    roles.into_iter().collect::<Vec<_>>().join(",")
}

pub(crate) static CORE_EVENT: Table = Table::new(
    &[
        Column::string("Last Seen", Doc::Field(EVENT, "lastTimestamp")),
        Column::string("Type", Doc::Field(EVENT, "type")),
        Column::string("Reason", Doc::Field(EVENT, "reason")),
        Column::string("Object", Doc::Field(EVENT, "involvedObject")),
        Column::string("Subobject", Doc::Field("io.k8s.api.core.v1.ObjectReference", "fieldPath")).wide(),
        Column::string("Source", Doc::Field(EVENT, "source")).wide(),
        Column::string("Message", Doc::Field(EVENT, "message")),
        Column::string("First Seen", Doc::Field(EVENT, "firstTimestamp")).wide(),
        Column::string("Count", Doc::Field(EVENT, "count")).wide(),
        NAME.wide(),
    ],
    event,
);

/// Events of either group.
fn event(object: &Object, now: jiff::Timestamp) -> Vec<Value> {
    let empty = Object::new();
    let either = |a: &'static str, b: &'static str| if object.contains_key(a) { a } else { b };
    let first_time = object.text(either("firstTimestamp", "deprecatedFirstTimestamp"));
    let last_time = object.text(either("lastTimestamp", "deprecatedLastTimestamp"));
    let first = since(or(first_time, object.text("eventTime")), now);
    let mut last = if last_time.is_empty() { first.clone() } else { since(last_time, now) };
    let mut count = object.int(either("count", "deprecatedCount")).max(1);
    if let Some(series) = object.object("series") {
        last = since(series.text("lastObservedTime"), now);
        count = series.int("count");
    }
    let about = section(object, either("involvedObject", "regarding"), &empty);
    let mut target = about.text("kind").to_lowercase();
    if !about.text("name").is_empty() {
        target = format!("{target}/{}", about.text("name"));
    }
    let source = section(object, either("source", "deprecatedSource"), &empty);
    let reporter = object.text(either("reportingComponent", "reportingController"));
    let component = or(source.text("component"), reporter);
    let host = or(source.text("host"), object.text("reportingInstance"));
    let source = if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") };
    vec![
        json!(last),
        text(object, "type"),
        text(object, "reason"),
        json!(target),
        text(about, "fieldPath"),
        json!(source),
        json!(object.text(either("message", "note")).trim()),
        json!(first),
        json!(count),
        name(object),
    ]
}

pub(crate) static NAMESPACE: Table = Table::new(
    &[NAME, Column::string("Status", Doc::Text("The status of the namespace")), AGE],
    |object, now| {
        let phase = object.object("status").map(|s| s.text("phase")).unwrap_or_default();
        vec![name(object), json!(phase), age(object, now)]
    },
);

pub(crate) static SECRET: Table = Table::new(
    &[
        NAME,
        Column::string("Type", Doc::Field("io.k8s.api.core.v1.Secret", "type")),
        Column::string("Data", Doc::Field("io.k8s.api.core.v1.Secret", "data")),
        AGE,
    ],
    |object, now| {
        let count = object.object("data").map_or(0, Object::len);
        vec![name(object), text(object, "type"), json!(count), age(object, now)]
    },
);

pub(crate) static CONFIG_MAP: Table = Table::new(
    &[NAME, Column::string("Data", Doc::Field("io.k8s.api.core.v1.ConfigMap", "data")), AGE],
    |object, now| {
        let count = |key: &str| object.object(key).map_or(0, Object::len);
        vec![name(object), json!(count("data") + count("binaryData")), age(object, now)]
    },
);

/// Name and age alone.
pub(crate) static NAME_AND_AGE: Table =
    Table::new(&[NAME, AGE], |object, now| vec![name(object), age(object, now)]);

pub(crate) static COMPONENT_STATUS: Table = Table::new(
    &[
        NAME,
        Column::string("Status", Doc::Text("Status of the component conditions")),
        Column::string("Message", Doc::Text("Message of the component conditions")),
        Column::string("Error", Doc::Text("Error of the component conditions")),
    ],
    |object, _| {
        let healthy = object.each("conditions").find(|c| c.text("type") == "Healthy");
        let state = match healthy.map(|c| c.text("status")) {
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
            None => "Unknown",
        };
        let of = |key| json!(healthy.map(|c| c.text(key)).unwrap_or_default());
        vec![name(object), json!(state), of("message"), of("error")]
    },
);

pub(crate) static RESOURCE_QUOTA: Table = Table::new(
    &[
        NAME,
        Column::string(
            "Request",
            Doc::Text("Request represents a minimum amount of cpu/memory that a container may consume."),
        ),
        Column::string(
            "Limit",
            Doc::Text(
                "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
            ),
        ),
        AGE,
    ],
    |object, now| {
        let empty = Object::new();
        let status = section(object, "status", &empty);
        let (hard, used) = (section(status, "hard", &empty), section(status, "used", &empty));
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (resource, amount) in hard {
            let entry = format!(
                "{resource}: {}/{}",
                or(used.text(resource), "0"),
                amount.as_str().unwrap_or_default()
            );
            if resource.starts_with("limits.") { limits.push(entry) } else { requests.push(entry) }
        }
        vec![name(object), json!(requests.join(", ")), json!(limits.join(", ")), age(object, now)]
    },
);
