//! `kubectl rollout`

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Found, Selection, connect, find, items, number, text};
use crate::failure::{Failure, Result};
use crate::resource::Resources;
use crate::server::{Connection, Server};

const POLL: Duration = Duration::from_millis(300);
const REVISION: &str = "/metadata/annotations/deployment.kubernetes.io~1revision";
const CHANGE_CAUSE: &str = "/metadata/annotations/kubernetes.io~1change-cause";

/// Subcommands of `rollout`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show the status of the rollout.
    Status {
        /// Type and name.
        words: Vec<String>,
        /// Watch the status of the rollout until it's done.
        #[arg(long, short = 'w', num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
        watch: bool,
        /// The length of time to wait before ending watch, zero means never.
        #[arg(long, default_value = "0s")]
        timeout: String,
    },
    /// View rollout history.
    History {
        /// Type and name.
        words: Vec<String>,
        /// See the details of this revision.
        #[arg(long, default_value_t = 0)]
        revision: i64,
    },
    /// Undo a previous rollout.
    Undo {
        /// Type and name.
        words: Vec<String>,
        /// The revision to roll back to; the one before if 0.
        #[arg(long, default_value_t = 0)]
        to_revision: i64,
    },
    /// Restart a resource.
    Restart {
        /// Type and name.
        words: Vec<String>,
    },
    /// Mark the provided resource as paused.
    Pause {
        /// Type and name.
        words: Vec<String>,
    },
    /// Resume a paused resource.
    Resume {
        /// Type and name.
        words: Vec<String>,
    },
}

/// Runs it.
pub async fn run(connection: &Connection, args: Args) -> Result {
    let (server, resources) = connect(connection).await?;
    let (words, action) = match &args.action {
        Action::Status { words, .. }
        | Action::History { words, .. }
        | Action::Undo { words, .. }
        | Action::Restart { words }
        | Action::Pause { words }
        | Action::Resume { words } => (words, &args.action),
    };
    for found in find(&server, &resources, &Selection { words, ..Selection::default() }).await? {
        match action {
            Action::Status { watch, timeout, .. } => status(&server, &found, *watch, timeout).await?,
            Action::History { revision, .. } => history(&server, &resources, &found, *revision).await?,
            Action::Undo { to_revision, .. } => undo(&server, &resources, &found, *to_revision).await?,
            Action::Restart { .. } => {
                let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                let annotations = json!({"kubectl.kubernetes.io/restartedAt": now});
                let patch = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
                change(&server, &found, &patch, "restarted").await?;
            }
            Action::Pause { .. } => pause(&server, &found, true).await?,
            Action::Resume { .. } => pause(&server, &found, false).await?,
        }
    }
    Ok(())
}

async fn change(server: &Server, found: &Found<'_>, patch: &Value, verb: &str) -> Result {
    server.patch(&found.path, "application/strategic-merge-patch+json", patch).await?;
    println!("{} {verb}", found.name());
    Ok(())
}

async fn pause(server: &Server, found: &Found<'_>, paused: bool) -> Result {
    if found.resource.plural != "deployments" {
        let verb = if paused { "pausing" } else { "resuming" };
        return Err(Failure::local(format!("{} {verb} is not supported", found.name())));
    }
    if (found.object["spec"]["paused"] == true) == paused {
        let state = if paused { "is already paused" } else { "is not paused" };
        return Err(Failure::local(format!("{} {state}", found.name())));
    }
    let patch = json!({"spec": {"paused": if paused { json!(true) } else { Value::Null }}});
    change(server, found, &patch, if paused { "paused" } else { "resumed" }).await
}

async fn status(server: &Server, found: &Found<'_>, watch: bool, timeout: &str) -> Result {
    let patience = client::leader::parse_duration(timeout).map_err(Failure::Local)?;
    let (began, mut last) = (Instant::now(), String::new());
    loop {
        let object = server.get(&found.path).await?;
        let (message, done) = progress(&found.resource.plural, &object)?;
        if message != last {
            println!("{message}");
            last = message;
        }
        if done || !watch {
            return Ok(());
        }
        if !patience.is_zero() && began.elapsed() > patience {
            return Err(Failure::local("timed out waiting for the condition"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How far a rollout is, in upstream's words, and whether it is done.
fn progress(plural: &str, object: &Value) -> Result<(String, bool)> {
    let name = text(object, "/metadata/name");
    let n = |pointer: &str| number(object, pointer);
    let observed = n("/status/observedGeneration") >= n("/metadata/generation");
    match plural {
        "deployments" => {
            if !observed {
                return Ok(("Waiting for deployment spec update to be observed...".into(), false));
            }
            let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
            let late = conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded");
            if late {
                return Err(Failure::local(format!("deployment {name:?} exceeded its progress deadline")));
            }
            let (wanted, updated) = (
                object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1),
                n("/status/updatedReplicas"),
            );
            let (all, available) = (n("/status/replicas"), n("/status/availableReplicas"));
            let waiting = format!("Waiting for deployment {name:?} rollout to finish:");
            Ok(if updated < wanted {
                (format!("{waiting} {updated} out of {wanted} new replicas have been updated..."), false)
            } else if all > updated {
                (format!("{waiting} {} old replicas are pending termination...", all - updated), false)
            } else if available < updated {
                (format!("{waiting} {available} of {updated} updated replicas are available..."), false)
            } else {
                (format!("deployment {name:?} successfully rolled out"), true)
            })
        }
        "daemonsets" => {
            if !observed {
                return Ok(("Waiting for daemon set spec update to be observed...".into(), false));
            }
            let (wanted, updated) =
                (n("/status/desiredNumberScheduled"), n("/status/updatedNumberScheduled"));
            let available = n("/status/numberAvailable");
            let waiting = format!("Waiting for daemon set {name:?} rollout to finish:");
            Ok(if updated < wanted {
                (format!("{waiting} {updated} out of {wanted} new pods have been updated..."), false)
            } else if available < wanted {
                (format!("{waiting} {available} of {wanted} updated pods are available..."), false)
            } else {
                (format!("daemon set {name:?} successfully rolled out"), true)
            })
        }
        "statefulsets" => {
            if !observed {
                return Ok(("Waiting for statefulset spec update to be observed...".into(), false));
            }
            let wanted = object.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
            let ready = n("/status/readyReplicas");
            if ready < wanted {
                return Ok((format!("Waiting for {} pods to be ready...", wanted - ready), false));
            }
            let partition = n("/spec/updateStrategy/rollingUpdate/partition");
            if partition > 0 {
                let updated = n("/status/updatedReplicas");
                return Ok(if updated < wanted - partition {
                    (
                        format!(
                            "Waiting for partitioned roll out to finish: {updated} out of {} new pods have been updated...",
                            wanted - partition
                        ),
                        false,
                    )
                } else {
                    (format!("partitioned roll out complete: {updated} new pods have been updated..."), true)
                });
            }
            let (current, update) =
                (text(object, "/status/currentRevision"), text(object, "/status/updateRevision"));
            Ok(if current == update {
                (
                    format!(
                        "statefulset rolling update complete {} pods at revision {current}...",
                        n("/status/currentReplicas")
                    ),
                    true,
                )
            } else {
                (
                    format!(
                        "waiting for statefulset rolling update to complete {} pods at revision {update}...",
                        n("/status/updatedReplicas")
                    ),
                    false,
                )
            })
        }
        other => Err(Failure::local(format!("no status viewer has been implemented for {other}"))),
    }
}

/// The revisions of an object and where each is kept: ReplicaSets of a Deployment, ControllerRevisions of others.
async fn revisions(
    server: &Server,
    resources: &Resources,
    found: &Found<'_>,
) -> Result<BTreeMap<i64, Value>> {
    let is_deployment = found.resource.plural == "deployments";
    let kept = if is_deployment { "replicasets" } else { "controllerrevisions" };
    let path = resources.find(kept)?.path(Some(text(&found.object, "/metadata/namespace")), None);
    let uid = text(&found.object, "/metadata/uid");
    let owned = |object: &Value| {
        object
            .pointer("/metadata/ownerReferences")
            .and_then(Value::as_array)
            .is_some_and(|o| o.iter().any(|o| o["uid"] == uid))
    };
    let revision = |object: &Value| {
        if is_deployment { text(object, REVISION).parse().unwrap_or(0) } else { number(object, "/revision") }
    };
    Ok(items(server.get(&path).await?).into_iter().filter(owned).map(|o| (revision(&o), o)).collect())
}

async fn history(server: &Server, resources: &Resources, found: &Found<'_>, wanted: i64) -> Result {
    let revisions = revisions(server, resources, found).await?;
    if wanted > 0 {
        let Some(revision) = revisions.get(&wanted) else {
            return Err(Failure::local("unable to find the specified revision"));
        };
        let template = revision.pointer("/spec/template").or_else(|| revision.pointer("/data/spec/template"));
        println!("{} with revision #{wanted}", found.name());
        println!("Pod Template:");
        for line in crate::print::yaml::render(template.unwrap_or(&Value::Null)).lines() {
            println!("  {line}");
        }
        return Ok(());
    }
    println!("{} ", found.name());
    let mut table =
        crate::print::table::Table { headers: vec!["Revision".into(), "Change-Cause".into()], rows: vec![] };
    for (number, object) in &revisions {
        let cause = Some(text(object, CHANGE_CAUSE)).filter(|c| !c.is_empty()).unwrap_or("<none>");
        table.rows.push(vec![number.to_string(), cause.to_owned()]);
    }
    println!("{}", table.render(false, &mut vec![]).replace("   ", "  "));
    Ok(())
}

async fn undo(server: &Server, resources: &Resources, found: &Found<'_>, to: i64) -> Result {
    if found.object["spec"]["paused"] == true {
        return Err(Failure::local(format!(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume {}' and try again",
            found.name()
        )));
    }
    let revisions = revisions(server, resources, found).await?;
    let wanted = if to > 0 {
        revisions
            .get(&to)
            .ok_or_else(|| Failure::local(format!("unable to find specified revision {to} in history")))?
    } else {
        let before = revisions.values().rev().nth(1);
        before.ok_or_else(|| Failure::local(format!("no rollout history found for {}", found.name())))?
    };
    if found.resource.plural == "deployments" {
        let mut template = wanted["spec"]["template"].clone();
        if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
            labels.remove("pod-template-hash");
        }
        if template == found.object["spec"]["template"] {
            println!("{} skipped rollback (current template already matches revision {to})", found.name());
            return Ok(());
        }
        let patch = json!([{"op": "replace", "path": "/spec/template", "value": template}]);
        server.patch(&found.path, "application/json-patch+json", &patch).await?;
    } else {
        server.patch(&found.path, "application/strategic-merge-patch+json", &wanted["data"]).await?;
    }
    println!("{} rolled back", found.name());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deployment_progress_in_upstreams_words() {
        let at = |status: Value| {
            let object = json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status});
            progress("deployments", &object).expect("a deployment")
        };
        let cases = [
            (json!({"observedGeneration": 1}), "Waiting for deployment spec update to be observed...", false),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 1}),
                "Waiting for deployment \"web\" rollout to finish: 1 out of 3 new replicas have been updated...",
                false,
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 4}),
                "Waiting for deployment \"web\" rollout to finish: 1 old replicas are pending termination...",
                false,
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 2}),
                "Waiting for deployment \"web\" rollout to finish: 2 of 3 updated replicas are available...",
                false,
            ),
            (
                json!({"observedGeneration": 2, "updatedReplicas": 3, "replicas": 3, "availableReplicas": 3}),
                "deployment \"web\" successfully rolled out",
                true,
            ),
        ];
        for (status, message, done) in cases {
            assert_eq!(at(status), (message.to_owned(), done));
        }
    }
}
