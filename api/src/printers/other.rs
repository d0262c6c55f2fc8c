//! The smaller groups.

use std::cmp::Ordering;

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::{AGE, Column, Doc, NAME, Table, age, deleted, name};

const PRIORITY_CLASS_TYPE: &str = "io.k8s.api.scheduling.v1.PriorityClass";
const FLOW_SPEC: &str = "io.k8s.api.flowcontrol.v1.FlowSchemaSpec";
const QUEUING: &str = "io.k8s.api.flowcontrol.v1.QueuingConfiguration";
const SLICE_SPEC: &str = "io.k8s.api.resource.v1.ResourceSliceSpec";

pub(crate) static LEASE: Table = Table::new(
    &[
        NAME,
        Column::string("Holder", Doc::Field("io.k8s.api.coordination.v1.LeaseSpec", "holderIdentity")),
        AGE,
    ],
    |object, now| {
        let holder = object.object("spec").map(|s| s.text("holderIdentity")).unwrap_or_default();
        vec![name(object), json!(holder), age(object, now)]
    },
);

pub(crate) static PRIORITY_CLASS: Table = Table::new(
    &[
        NAME,
        Column::integer("Value", Doc::Field(PRIORITY_CLASS_TYPE, "value")),
        Column::boolean("Global-Default", Doc::Field(PRIORITY_CLASS_TYPE, "globalDefault")),
        AGE,
        Column::string("PreemptionPolicy", Doc::Field(PRIORITY_CLASS_TYPE, "preemptionPolicy")),
    ],
    |object, now| {
        vec![
            name(object),
            json!(object.int("value")),
            json!(object.flag("globalDefault")),
            age(object, now),
            json!(object.text("preemptionPolicy")),
        ]
    },
);

pub(crate) static RUNTIME_CLASS: Table = Table::new(
    // As upstream, which looks the description up in the wrong type and finds none.
    &[NAME, Column::string("Handler", Doc::Text("")), AGE],
    |object, now| vec![name(object), json!(object.text("handler")), age(object, now)],
);

pub(crate) static FLOW_SCHEMA: Table = Table {
    columns: &[
        NAME,
        Column::string(
            "PriorityLevel",
            Doc::Field("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationReference", "name"),
        ),
        Column::string("MatchingPrecedence", Doc::Field(FLOW_SPEC, "matchingPrecedence")),
        Column::string("DistinguisherMethod", Doc::Field(FLOW_SPEC, "distinguisherMethod")),
        AGE,
        Column::string(
            "MissingPL",
            Doc::Text("references a broken or non-existent PriorityLevelConfiguration"),
        ),
    ],
    cells: |object, now| {
        let empty = Object::new();
        let (spec, status) =
            (object.object("spec").unwrap_or(&empty), object.object("status").unwrap_or(&empty));
        let level = spec.object("priorityLevelConfiguration").map(|l| l.text("name")).unwrap_or_default();
        let method = spec.object("distinguisherMethod").map_or("<none>", |m| m.text("type"));
        let dangling = status.each("conditions").find(|c| c.text("type") == "Dangling");
        vec![
            name(object),
            json!(level),
            json!(spec.int("matchingPrecedence")),
            json!(method),
            age(object, now),
            json!(dangling.map_or("?", |c| c.text("status"))),
        ]
    },
    conditions: |_| Vec::new(),
    order: Some(by_precedence),
};

fn by_precedence(a: &Value, b: &Value) -> Ordering {
    let key = |o: &Value| {
        (
            o["spec"]["matchingPrecedence"].as_i64().unwrap_or(0),
            o["metadata"]["name"].as_str().unwrap_or("").to_owned(),
        )
    };
    key(a).cmp(&key(b))
}

pub(crate) static PRIORITY_LEVEL: Table = Table::new(
    &[
        NAME,
        Column::string(
            "Type",
            Doc::Field("io.k8s.api.flowcontrol.v1.PriorityLevelConfigurationSpec", "type"),
        ),
        Column::string(
            "NominalConcurrencyShares",
            Doc::Field(
                "io.k8s.api.flowcontrol.v1.LimitedPriorityLevelConfiguration",
                "nominalConcurrencyShares",
            ),
        ),
        Column::string("Queues", Doc::Field(QUEUING, "queues")),
        Column::string("HandSize", Doc::Field(QUEUING, "handSize")),
        Column::string("QueueLengthLimit", Doc::Field(QUEUING, "queueLengthLimit")),
        AGE,
    ],
    |object, now| {
        let empty = Object::new();
        let spec = object.object("spec").unwrap_or(&empty);
        let limited = spec.object("limited");
        let queuing = limited.and_then(|l| l.object("limitResponse")).and_then(|r| r.object("queuing"));
        let of = |source: Option<&Object>, key: &str| source.map_or(json!("<none>"), |s| json!(s.int(key)));
        vec![
            name(object),
            json!(spec.text("type")),
            of(limited, "nominalConcurrencyShares"),
            of(queuing, "queues"),
            of(queuing, "handSize"),
            of(queuing, "queueLengthLimit"),
            age(object, now),
        ]
    },
);

pub(crate) static RESOURCE_CLAIM: Table = Table::new(
    &[
        NAME,
        Column::string(
            "State",
            Doc::Text("A summary of the current state (allocated, pending, reserved, etc.)."),
        ),
        AGE,
    ],
    |object, now| {
        let status = object.object("status");
        let mut states = Vec::new();
        if deleted(object) {
            states.push("deleted");
        }
        if status.is_none_or(|s| s.is_unset("allocation")) {
            if !deleted(object) {
                states.push("pending");
            }
        } else {
            states.push("allocated");
            if status.is_some_and(|s| !s.list("reservedFor").is_empty()) {
                states.push("reserved");
            }
        }
        vec![name(object), json!(states.join(",")), age(object, now)]
    },
);

pub(crate) static RESOURCE_SLICE: Table = Table::new(
    &[
        NAME,
        Column::string("Node", Doc::Field(SLICE_SPEC, "nodeName")),
        Column::string("Driver", Doc::Field(SLICE_SPEC, "driver")),
        Column::string("Pool", Doc::Field("io.k8s.api.resource.v1.ResourcePool", "name")),
        AGE,
    ],
    |object, now| {
        let empty = Object::new();
        let spec = object.object("spec").unwrap_or(&empty);
        let pool = spec.object("pool").map(|p| p.text("name")).unwrap_or_default();
        vec![
            name(object),
            json!(spec.text("nodeName")),
            json!(spec.text("driver")),
            json!(pool),
            age(object, now),
        ]
    },
);

/// Definitions are shown by the default columns; what the aggregator serves has columns of its own.
pub(crate) static API_SERVICE: Table = Table::new(
    &[
        NAME,
        Column::string("Service", Doc::Text("The reference to the service that hosts this API endpoint.")),
        Column::string("Available", Doc::Text("Whether this service is available.")),
        AGE,
    ],
    |object, now| {
        let service = object.object("spec").and_then(|s| s.object("service"));
        let service =
            service.map_or("Local".to_owned(), |s| format!("{}/{}", s.text("namespace"), s.text("name")));
        let conditions = object.object("status").into_iter().flat_map(|s| s.each("conditions"));
        let available = conditions.into_iter().find(|c| c.text("type") == "Available");
        let available = match available {
            Some(c) if c.text("status") == "True" => "True".to_owned(),
            Some(c) => format!("{} ({})", c.text("status"), c.text("reason")),
            None => "Unknown".to_owned(),
        };
        vec![name(object), json!(service), json!(available), age(object, now)]
    },
);
