//! Workloads.

use serde_json::{Value, json};

use crate::json::{Object, ObjectExt};

use super::pod::{CONTAINERS, IMAGES, containers};
use super::{
    AGE, Column, Doc, NAME, Table, age, deleted, duration, labels, name, selector, selector_text, since,
};

const RC_SPEC: &str = "io.k8s.api.core.v1.ReplicationControllerSpec";
const RC_STATUS: &str = "io.k8s.api.core.v1.ReplicationControllerStatus";
const RS_SPEC: &str = "io.k8s.api.apps.v1.ReplicaSetSpec";
const RS_STATUS: &str = "io.k8s.api.apps.v1.ReplicaSetStatus";
const DS_STATUS: &str = "io.k8s.api.apps.v1.DaemonSetStatus";
const DEPLOYMENT_STATUS: &str = "io.k8s.api.apps.v1.DeploymentStatus";
const JOB_SPEC: &str = "io.k8s.api.batch.v1.JobSpec";
const CRON_SPEC: &str = "io.k8s.api.batch.v1.CronJobSpec";
const CRON_STATUS: &str = "io.k8s.api.batch.v1.CronJobStatus";
const READY_PODS: Doc = Doc::Text("Number of the pod with ready state");

/// Spec, status and the spec of the pod template of a workload.
struct Parts<'a> {
    spec: Option<&'a Object>,
    status: Option<&'a Object>,
    pod: Option<&'a Object>,
}

impl<'a> Parts<'a> {
    fn of(object: &'a Object) -> Self {
        let spec = object.object("spec");
        let pod = spec.and_then(|s| s.object("template")).and_then(|t| t.object("spec"));
        Self { spec, status: object.object("status"), pod }
    }

    fn desired(&self) -> i64 {
        self.spec.map_or(0, |s| s.int("replicas"))
    }

    fn count(&self, key: &str) -> i64 {
        self.status.map_or(0, |s| s.int(key))
    }

    fn selector(&self) -> Value {
        json!(selector(self.spec.and_then(|s| s.get("selector"))))
    }
}

pub(crate) static REPLICATION_CONTROLLER: Table = Table::new(
    &[
        NAME,
        Column::integer("Desired", Doc::Field(RC_SPEC, "replicas")),
        Column::integer("Current", Doc::Field(RC_STATUS, "replicas")),
        Column::integer("Ready", Doc::Field(RC_STATUS, "readyReplicas")),
        AGE,
        CONTAINERS.wide(),
        IMAGES.wide(),
        Column::string("Selector", Doc::Field(RC_SPEC, "selector")).wide(),
    ],
    |object, now| {
        let parts = Parts::of(object);
        let [names, images] = containers(parts.pod);
        let selector = labels(parts.spec.and_then(|s| s.object("selector")));
        let (current, ready) = (parts.count("replicas"), parts.count("readyReplicas"));
        let counts = [json!(parts.desired()), json!(current), json!(ready)];
        [[name(object)].as_slice(), &counts, &[age(object, now), names, images, json!(selector)]].concat()
    },
);

pub(crate) static REPLICA_SET: Table = Table::new(
    &[
        NAME,
        Column::integer("Desired", Doc::Field(RS_SPEC, "replicas")),
        Column::integer("Current", Doc::Field(RS_STATUS, "replicas")),
        Column::integer("Ready", Doc::Field(RS_STATUS, "readyReplicas")),
        AGE,
        CONTAINERS.wide(),
        IMAGES.wide(),
        Column::string("Selector", Doc::Field(RS_SPEC, "selector")).wide(),
    ],
    |object, now| {
        let parts = Parts::of(object);
        let [names, images] = containers(parts.pod);
        let counts =
            [parts.desired(), parts.count("replicas"), parts.count("readyReplicas")].map(Value::from);
        [[name(object)].as_slice(), &counts, &[age(object, now), names, images, parts.selector()]].concat()
    },
);

pub(crate) static DAEMON_SET: Table = Table::new(
    &[
        NAME,
        Column::integer("Desired", Doc::Field(DS_STATUS, "desiredNumberScheduled")),
        Column::integer("Current", Doc::Field(DS_STATUS, "currentNumberScheduled")),
        Column::integer("Ready", Doc::Field(DS_STATUS, "numberReady")),
        Column::integer("Up-to-date", Doc::Field(DS_STATUS, "updatedNumberScheduled")),
        Column::integer("Available", Doc::Field(DS_STATUS, "numberAvailable")),
        Column::string("Node Selector", Doc::Field("io.k8s.api.core.v1.PodSpec", "nodeSelector")),
        AGE,
        CONTAINERS.wide(),
        IMAGES.wide(),
        Column::string("Selector", Doc::Field("io.k8s.api.apps.v1.DaemonSetSpec", "selector")).wide(),
    ],
    |object, now| {
        let parts = Parts::of(object);
        let [names, images] = containers(parts.pod);
        let keys = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "updatedNumberScheduled",
            "numberAvailable",
        ];
        let counts = keys.map(|key| json!(parts.count(key)));
        let nodes = json!(labels(parts.pod.and_then(|p| p.object("nodeSelector"))));
        [[name(object)].as_slice(), &counts, &[nodes, age(object, now), names, images, parts.selector()]]
            .concat()
    },
);

pub(crate) static STATEFUL_SET: Table = Table::new(
    &[NAME, Column::string("Ready", READY_PODS), AGE, CONTAINERS.wide(), IMAGES.wide()],
    |object, now| {
        let parts = Parts::of(object);
        let [names, images] = containers(parts.pod);
        let ready = json!(format!("{}/{}", parts.count("readyReplicas"), parts.desired()));
        vec![name(object), ready, age(object, now), names, images]
    },
);

pub(crate) static DEPLOYMENT: Table = Table::new(
    &[
        NAME,
        Column::string("Ready", READY_PODS),
        Column::string("Up-to-date", Doc::Field(DEPLOYMENT_STATUS, "updatedReplicas")),
        Column::string("Available", Doc::Field(DEPLOYMENT_STATUS, "availableReplicas")),
        AGE,
        CONTAINERS.wide(),
        IMAGES.wide(),
        Column::string("Selector", Doc::Field("io.k8s.api.apps.v1.DeploymentSpec", "selector")).wide(),
    ],
    |object, now| {
        let parts = Parts::of(object);
        let [names, images] = containers(parts.pod);
        let selector = selector_text(parts.spec.and_then(|s| s.get("selector")));
        vec![
            name(object),
            json!(format!("{}/{}", parts.count("readyReplicas"), parts.desired())),
            json!(parts.count("updatedReplicas")),
            json!(parts.count("availableReplicas")),
            age(object, now),
            names,
            images,
            json!(selector.unwrap_or_else(|_| "<invalid>".to_owned())),
        ]
    },
);

pub(crate) static JOB: Table = Table::new(
    &[
        NAME,
        Column::string("Status", Doc::Text("Status of the job.")),
        Column::string("Completions", Doc::Field("io.k8s.api.batch.v1.JobStatus", "succeeded")),
        Column::string("Duration", Doc::Text("Time required to complete the job.")),
        AGE,
        CONTAINERS.wide(),
        IMAGES.wide(),
        Column::string("Selector", Doc::Field(JOB_SPEC, "selector")).wide(),
    ],
    |object, now| {
        let parts = Parts::of(object);
        let [names, images] = containers(parts.pod);
        let empty = Object::new();
        let (spec, status) = (parts.spec.unwrap_or(&empty), parts.status.unwrap_or(&empty));
        let completions = match (spec.get("completions").and_then(Value::as_i64), spec.int("parallelism")) {
            (Some(wanted), _) => format!("{}/{wanted}", status.int("succeeded")),
            (None, parallelism) if parallelism > 1 => {
                format!("{}/1 of {parallelism}", status.int("succeeded"))
            }
            (None, _) => format!("{}/1", status.int("succeeded")),
        };
        let time = |key: &str| status.text(key).parse::<jiff::Timestamp>().ok();
        let took = time("startTime")
            .map(|start| duration::human(time("completionTime").unwrap_or(now).duration_since(start)));
        vec![
            name(object),
            json!(job_status(object, status)),
            json!(completions),
            json!(took.unwrap_or_default()),
            age(object, now),
            names,
            images,
            parts.selector(),
        ]
    },
);

fn job_status(object: &Object, status: &Object) -> &'static str {
    let has = |kind: &str| {
        status.each("conditions").find(|c| c.text("type") == kind).is_some_and(|c| c.text("status") == "True")
    };
    match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if deleted(object) => "Terminating",
        () if has("Suspended") => "Suspended",
        () if has("FailureTarget") => "FailureTarget",
        () if has("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

pub(crate) static CRON_JOB: Table = Table::new(
    &[
        NAME,
        Column::string("Schedule", Doc::Field(CRON_SPEC, "schedule")),
        Column::string("Timezone", Doc::Field(CRON_SPEC, "timeZone")),
        Column::boolean("Suspend", Doc::Field(CRON_SPEC, "suspend")),
        Column::integer("Active", Doc::Field(CRON_STATUS, "active")),
        Column::string("Last Schedule", Doc::Field(CRON_STATUS, "lastScheduleTime")),
        AGE,
        CONTAINERS.wide(),
        IMAGES.wide(),
        Column::string("Selector", Doc::Field(JOB_SPEC, "selector")).wide(),
    ],
    |object, now| {
        let empty = Object::new();
        let (spec, status) =
            (object.object("spec").unwrap_or(&empty), object.object("status").unwrap_or(&empty));
        let job = spec.object("jobTemplate").and_then(|t| t.object("spec"));
        let pod = job.and_then(|j| j.object("template")).and_then(|t| t.object("spec"));
        let [names, images] = containers(pod);
        let suspend = match spec.get("suspend").and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let zone = if spec.is_unset("timeZone") { "<none>" } else { spec.text("timeZone") };
        let unscheduled = status.is_unset("lastScheduleTime");
        let last =
            if unscheduled { "<none>".to_owned() } else { since(status.text("lastScheduleTime"), now) };
        vec![
            name(object),
            json!(spec.text("schedule")),
            json!(zone),
            json!(suspend),
            json!(status.list("active").len()),
            json!(last),
            age(object, now),
            names,
            images,
            json!(selector(job.and_then(|j| j.get("selector")))),
        ]
    },
);

pub(crate) static CONTROLLER_REVISION: Table = Table::new(
    &[
        NAME,
        Column::string("Controller", Doc::Text("Controller of the object")),
        Column::string("Revision", Doc::Field("io.k8s.api.apps.v1.ControllerRevision", "revision")),
        AGE,
    ],
    |object, now| {
        let owners = object.object("metadata").into_iter().flat_map(|m| m.each("ownerReferences"));
        let controller = owners.into_iter().find(|o| o.flag("controller")).map(|owner| {
            let group = owner.text("apiVersion").split_once('/').map(|(group, _)| format!(".{group}"));
            format!("{}{}/{}", owner.text("kind"), group.unwrap_or_default(), "").to_lowercase()
                + owner.text("name")
        });
        let controller = controller.unwrap_or_else(|| "<none>".to_owned());
        vec![name(object), json!(controller), json!(object.int("revision")), age(object, now)]
    },
);
