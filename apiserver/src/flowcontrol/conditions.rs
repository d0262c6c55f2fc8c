//! Says of every FlowSchema whether the priority level it names exists (upstream `apf_controller.go`:
//! `presyncFlowSchemaStatus`).

use anyhow::Context as _;
use client::controller::{Action, run_workers};
use client::informer::Informer;
use client::{Api, Client, ObjectKey, SharedInformerFactory, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// Who the server is in `managedFields` of flow schemas.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";
const DANGLING: &str = "Dangling";

/// Writes the conditions of flow schemas.
#[derive(Clone)]
pub struct FlowSchemas {
    client: Client,
    schemas: Informer<FlowSchema>,
    levels: Informer<PriorityLevelConfiguration>,
    queue: WorkQueue<ObjectKey>,
}

impl FlowSchemas {
    /// Watches flow schemas and priority levels.
    #[must_use]
    pub fn new(client: Client, informers: &SharedInformerFactory) -> Self {
        let schemas: Informer<FlowSchema> = informers.informer();
        let levels: Informer<PriorityLevelConfiguration> = informers.informer();
        let queue = WorkQueue::new("flow-schemas");
        let added = queue.clone();
        schemas.subscribe(move |event| added.add(ObjectKey::of(event.object().as_ref())));
        let (added, store) = (queue.clone(), schemas.clone());
        levels.subscribe(move |event| {
            let level = event.object().metadata.name.as_deref().unwrap_or_default();
            let concerned = store.store().list().into_iter().filter(|schema| level_of(schema) == level);
            concerned.for_each(|schema| added.add(ObjectKey::of(schema.as_ref())));
        });
        Self { client, schemas, levels, queue }
    }

    /// Works until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = async { tokio::join!(self.schemas.synced(), self.levels.synced()); } => {}
        }
        let queue = self.queue.clone();
        run_workers("flow-schemas", queue, 1, token, move |key| {
            let this = self.clone();
            async move { this.reconcile(&key).await }
        })
        .await;
    }

    async fn reconcile(&self, key: &ObjectKey) -> anyhow::Result<Action> {
        let Some(schema) = self.schemas.store().get(key) else { return Ok(Action::Done) };
        let level = self.levels.store().get(&ObjectKey::new("", level_of(&schema)));
        let Some(condition) = plan(&schema, level.is_some(), Timestamp::now()) else {
            return Ok(Action::Done);
        };
        let body = json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
            "metadata": {"name": key.name}, "status": {"conditions": [condition]},
        });
        let api: Api<FlowSchema> = Api::all(self.client.clone());
        let params = PatchParams::apply(MANAGER).force();
        match api.patch_status(&key.name, &params, &Patch::Apply(&body)).await {
            Ok(_) => Ok(Action::Done),
            Err(error) if client::is_not_found(&error) => Ok(Action::Done),
            Err(error) => Err(error).context("write the condition of a flow schema"),
        }
    }
}

fn level_of(schema: &FlowSchema) -> &str {
    schema.spec.as_ref().map_or("", |spec| spec.priority_level_configuration.name.as_str())
}

/// The condition to be written; `None` if it is there already.
fn plan(schema: &FlowSchema, exists: bool, now: Timestamp) -> Option<Value> {
    let level = api::field::quote(level_of(schema));
    let subject = format!("This FlowSchema references the PriorityLevelConfiguration object named {level}");
    let (status, reason, message) = match exists {
        true => ("False", "Found", format!("{subject} and it exists")),
        false => ("True", "NotFound", format!("{subject} but there is no such object")),
    };
    let conditions =
        schema.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is_written = conditions.iter().any(|condition| {
        condition.type_.as_deref() == Some(DANGLING)
            && condition.status.as_deref() == Some(status)
            && condition.reason.as_deref() == Some(reason)
            && condition.message.as_deref() == Some(message.as_str())
    });
    if is_written {
        return None;
    }
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
    Some(json!({
        "type": DANGLING, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_written_when_it_is_not_there() {
        let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().expect("time");
        let mut value = json!({
            "metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}, "matchingPrecedence": 1}});
        let schema = |value: &Value| serde_json::from_value::<FlowSchema>(value.clone()).expect("schema");
        let found = plan(&schema(&value), true, now).expect("a condition");
        assert_eq!(
            found,
            json!({"type": "Dangling", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z",
                "reason": "Found", "message":
                "This FlowSchema references the PriorityLevelConfiguration object named \"l\" and it exists"})
        );
        value["status"] = json!({"conditions": [found]});
        assert_eq!(plan(&schema(&value), true, now), None);
        let missing = plan(&schema(&value), false, now).expect("a condition");
        assert_eq!(
            missing["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object"
        );
        assert_eq!((&missing["status"], &missing["reason"]), (&json!("True"), &json!("NotFound")));
    }
}
