//! Having pods leave: by eviction, which heeds disruption budgets, or by deletion; and waiting until they are gone.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::filters::is_ending_too_long;
use super::{Args, Line, Say};
use crate::commands::{DryRun, text};
use crate::failure::{Failure, Result};
use crate::server::Server;

/// After this an eviction that was refused for now is asked for again.
const AGAIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_secs(1);
/// Where nothing else was said: years.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// What is asked of all pods.
struct Leaving<'a> {
    server: &'a Server,
    args: &'a Args,
    say: Say<'a>,
    patience: Duration,
    until: Instant,
}

/// Has all of them leave, and waits until they are gone.
pub(super) async fn all(
    server: &Server,
    args: &Args,
    pods: Vec<Value>,
    say: Say<'_>,
) -> std::result::Result<(), Vec<String>> {
    if pods.is_empty() {
        return Ok(());
    }
    let patience = client::leader::parse_duration(&args.timeout).map_err(|error| vec![error])?;
    let patience = if patience.is_zero() { FOREVER } else { patience };
    let leaving = Leaving { server, args, say, patience, until: Instant::now() + patience };
    let evicts =
        !args.disable_eviction && can_evict(server).await.map_err(|failure| vec![failure.message()])?;
    if !evicts {
        return leaving.delete_all(pods).await.map_err(|error| vec![error]);
    }
    // As many at once as there are: budgets are the server's to keep.
    let outcomes = join_all(pods.iter().map(|pod| leaving.evict(pod))).await;
    let errors: Vec<_> = outcomes.into_iter().filter_map(std::result::Result::err).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Whether the server lets pods be evicted.
async fn can_evict(server: &Server) -> Result<bool> {
    let types = server.get("/api/v1").await?;
    let resources = types["resources"].as_array();
    Ok(resources.into_iter().flatten().any(|resource| {
        resource["name"] == "pods/eviction" && resource["kind"] == "Eviction" && resource["group"] == "policy"
    }))
}

fn place(pod: &Value) -> (&str, &str) {
    (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"))
}

fn path(pod: &Value) -> String {
    let (namespace, name) = place(pod);
    format!("/api/v1/namespaces/{namespace}/pods/{}", crate::resource::encode(name))
}

/// Whether an eviction was refused because the pod's namespace is going.
fn is_namespace_going(failure: &Failure) -> bool {
    let Failure::Server(status) = failure else { return false };
    let causes = status.details.as_ref().and_then(|details| details.causes.as_ref());
    failure.code() == 403
        && causes.into_iter().flatten().any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
}

impl Leaving<'_> {
    fn out(&self, text: String) {
        (self.say)(Line::Out(text));
    }

    fn options(&self) -> Value {
        let mut options = json!({});
        if self.args.grace_period >= 0 {
            options["gracePeriodSeconds"] = self.args.grace_period.into();
        }
        if self.args.nodes.dry_run() == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        options
    }

    async fn evict(&self, pod: &Value) -> std::result::Result<(), String> {
        let (namespace, name) = place(pod);
        let dry_run = self.args.nodes.dry_run();
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace}, "deleteOptions": self.options()});
        let path = format!("{}/eviction", path(pod));
        let mut now = pod.clone();
        loop {
            self.out(format!("evicting pod {namespace}/{name}{}", dry_run.suffix()));
            if Instant::now() >= self.until {
                let reached = format!("global timeout reached: {}", spoken(self.patience));
                return Err(format!("error when evicting pods/{name:?} -n {namespace:?}: {reached}"));
            }
            match self.server.post(&path, &eviction).await {
                Ok(_) => break,
                Err(failure) if failure.is_not_found() => return Ok(()),
                Err(failure) if failure.code() == 429 => {
                    self.again(format!("error when evicting pods/{name:?} -n {namespace:?}"), &failure).await;
                }
                // It will be gone without being evicted.
                Err(failure)
                    if is_namespace_going(&failure) && now["metadata"]["deletionTimestamp"].is_string() =>
                {
                    break;
                }
                Err(failure) if is_namespace_going(&failure) => {
                    let what =
                        format!("error when evicting pod {name:?} from terminating namespace {namespace:?}");
                    self.again(what, &failure).await;
                }
                Err(failure) => {
                    let why = failure.message();
                    return Err(format!("error when evicting pods/{name:?} -n {namespace:?}: {why}"));
                }
            }
            // If it cannot be had, the next eviction tells.
            now = self.server.get(&self::path(pod)).await.unwrap_or(now);
        }
        if dry_run == DryRun::Server {
            return Ok(());
        }
        let gone = self.wait(vec![now], true).await;
        gone.map_err(|error| {
            format!("error when waiting for pod {name:?} in namespace {namespace:?} to terminate: {error}")
        })
    }

    async fn again(&self, what: String, failure: &Failure) {
        let text = format!("{what} (will retry after {}): {}", spoken(AGAIN), failure.message());
        (self.say)(Line::Err(text));
        tokio::time::sleep(AGAIN).await;
    }

    async fn delete_all(&self, pods: Vec<Value>) -> std::result::Result<(), String> {
        for pod in &pods {
            match self.server.delete(&path(pod), &self.options()).await {
                Err(failure) if !failure.is_not_found() => return Err(failure.message()),
                _ => {}
            }
        }
        self.wait(pods, false).await
    }

    /// Waits until all of them are gone, or are others of the same names.
    async fn wait(&self, mut pods: Vec<Value>, evicted: bool) -> std::result::Result<(), String> {
        loop {
            let mut left = vec![];
            for pod in pods {
                if !self.is_gone(&pod, evicted).await? {
                    left.push(pod);
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            pods = left;
            if Instant::now() + POLL > self.until {
                tokio::time::sleep_until(self.until).await;
                return Err("context deadline exceeded".to_owned());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn is_gone(&self, pod: &Value, evicted: bool) -> std::result::Result<bool, String> {
        let (_, name) = place(pod);
        let (done, failed) =
            if evicted { ("evicted", "eviction failed") } else { ("deleted", "deletion failed") };
        let suffix = self.args.nodes.dry_run().suffix();
        let now = match self.server.get(&path(pod)).await {
            Ok(now) => now,
            Err(failure) if failure.is_not_found() => {
                self.out(format!("pod/{name} {done}{suffix}"));
                return Ok(true);
            }
            Err(failure) => {
                self.out(format!("pod/{name} {failed}{suffix}"));
                return Err(failure.message());
            }
        };
        if now["metadata"]["uid"] != pod["metadata"]["uid"] {
            self.out(format!("pod/{name} {done}{suffix}"));
            return Ok(true);
        }
        let seconds = self.args.skip_wait_for_delete_timeout;
        let skipped = is_ending_too_long(&now, seconds, Timestamp::now());
        if skipped {
            self.out(format!("pod {name:?} has DeletionTimestamp older than {seconds} seconds, skipping"));
        }
        Ok(skipped)
    }
}

/// A duration as Go writes it, in whole seconds.
fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}
