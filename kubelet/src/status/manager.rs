//! Delivers generated statuses to the API, and deletes pods that have ended here and are to go.
//!
//! One writer per pod at a time (the work queue sees to that); a newer status replaces an undelivered one. Nothing
//! here waits for the API: callers set a status and go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use client::{Api, Client, Tasks, WorkQueue};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;

use super::conditions::PASSING;
use super::patch::status_patch;
use crate::types;

const WRITERS: usize = 8;

#[derive(Clone, Debug)]
struct Entry {
    pod: Arc<Pod>,
    status: Arc<PodStatus>,
    version: u64,
    delivered: u64,
    /// Version of the API's object that our last write made; what the watch shows from before it says nothing.
    written: u64,
    /// The pod has ended here and all it used is released: it may be deleted.
    finished: bool,
    /// Conditions that come and go, as last written.
    passing: Vec<&'static str>,
}

/// Newest statuses of this node's pods; clones share them.
#[derive(Clone)]
pub struct StatusManager {
    inner: Arc<Inner>,
}

struct Inner {
    client: Option<Client>,
    entries: Mutex<HashMap<String, Entry>>,
    queue: WorkQueue<String>,
}

impl StatusManager {
    /// Delivers to `client`, or nowhere when there is no API.
    #[must_use]
    pub fn new(client: Option<Client>) -> Self {
        let queue = WorkQueue::new("pod_status");
        Self { inner: Arc::new(Inner { client, entries: Mutex::default(), queue }) }
    }

    /// Starts delivering.
    pub fn run(&self, tasks: &Tasks) {
        for _ in 0..WRITERS {
            let this = self.clone();
            tasks.spawn("pod-status", |token| async move {
                loop {
                    let uid = tokio::select! {
                        () = token.cancelled() => break,
                        key = this.inner.queue.get() => match key { Some(uid) => uid, None => break },
                    };
                    this.deliver(&uid).await;
                    this.inner.queue.done(&uid);
                }
            });
        }
        let queue = self.inner.queue.clone();
        tasks.spawn("pod-status-stop", |token| async move {
            token.cancelled().await;
            queue.shut_down();
        });
    }

    /// The newest status generated for a pod.
    #[must_use]
    pub fn pod_status(&self, uid: &str) -> Option<Arc<PodStatus>> {
        self.inner.entries.lock().get(uid).map(|e| e.status.clone())
    }

    /// Publishes a status. `pod` is the API object that carries it: for a static pod, its mirror.
    pub fn set(&self, uid: &str, pod: &Arc<Pod>, status: PodStatus) {
        let mut entries = self.inner.entries.lock();
        match entries.get_mut(uid) {
            Some(entry) => {
                let same = *entry.status == status && types::uid(&entry.pod) == types::uid(pod);
                entry.pod = pod.clone();
                if same {
                    return;
                }
                entry.status = Arc::new(status);
                entry.version += 1;
            }
            None => {
                let unchanged = pod.status.as_ref() == Some(&status);
                let delivered = u64::from(unchanged);
                let entry = Entry {
                    pod: pod.clone(),
                    status: Arc::new(status),
                    version: 1,
                    delivered,
                    written: 0,
                    finished: false,
                    passing: Vec::new(),
                };
                entries.insert(uid.to_owned(), entry);
                if unchanged {
                    return;
                }
            }
        }
        drop(entries);
        self.inner.queue.add(uid.to_owned());
    }

    /// The pod has ended and released all it used. It is deleted from the API as soon as that is asked for.
    pub fn finish(&self, uid: &str, pod: &Arc<Pod>) {
        let mut entries = self.inner.entries.lock();
        if let Some(entry) = entries.get_mut(uid) {
            entry.finished = true;
            entry.pod = pod.clone();
        } else {
            let status = Arc::new(pod.status.clone().unwrap_or_default());
            let entry = Entry {
                pod: pod.clone(),
                status,
                version: 1,
                delivered: 1,
                written: 0,
                finished: true,
                passing: Vec::new(),
            };
            entries.insert(uid.to_owned(), entry);
        }
        drop(entries);
        self.inner.queue.add(uid.to_owned());
    }

    /// The API's object changed: what others undid is written again, and a deletion asked for is carried out.
    pub fn observe(&self, uid: &str, pod: &Arc<Pod>) {
        let mut entries = self.inner.entries.lock();
        let Some(entry) = entries.get_mut(uid) else { return };
        entry.pod = pod.clone();
        let current =
            entry.delivered == entry.version && client::object::resource_version(&**pod) >= entry.written;
        let undone = current && !carries(pod.status.as_ref(), &entry.status);
        if undone {
            entry.delivered = entry.version - 1;
        }
        let delete = entry.finished && pod.metadata.deletion_timestamp.is_some();
        drop(entries);
        if undone || delete {
            self.inner.queue.add(uid.to_owned());
        }
    }

    /// Forgets a pod that is gone from API and node.
    pub fn forget(&self, uid: &str) {
        self.inner.entries.lock().remove(uid);
    }

    /// Forgets all pods but these.
    pub fn retain(&self, keep: impl Fn(&str) -> bool) {
        self.inner.entries.lock().retain(|uid, _| keep(uid));
    }

    async fn deliver(&self, uid: &str) {
        let Some(client) = &self.inner.client else { return };
        let Some(entry) = self.inner.entries.lock().get(uid).cloned() else { return };
        let pod = &entry.pod;
        let api: Api<Pod> = Api::namespaced(client.clone(), types::namespace(pod));
        let result = self.write(&api, uid, &entry).await;
        match result {
            Ok(()) => self.inner.queue.forget(&uid.to_owned()),
            // The pod is gone, or another one has its name: this status is about nothing any more.
            Err(error) if client::is_not_found(&error) || client::is_conflict(&error) => {
                tracing::debug!(pod = types::format_pod(pod), %error, "pod of this status is gone");
                self.inner.queue.forget(&uid.to_owned());
            }
            Err(error) => {
                tracing::warn!(
                    pod = types::format_pod(pod),
                    error = client::chain(&error),
                    "failed to update status for pod"
                );
                let retries = self.inner.queue.retries(&uid.to_owned());
                if retries < 8 {
                    self.inner.queue.add_rate_limited(uid.to_owned());
                } else {
                    self.inner.queue.add_after(uid.to_owned(), Duration::from_secs(10));
                }
            }
        }
    }

    async fn write(&self, api: &Api<Pod>, uid: &str, entry: &Entry) -> Result<(), client::kube::Error> {
        let pod = &entry.pod;
        let (name, api_uid) = (types::name(pod), types::uid(pod));
        if entry.delivered < entry.version {
            let patch = status_patch(api_uid, &entry.status, &stale(entry));
            let written = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
            if let Some(now) = self.inner.entries.lock().get_mut(uid) {
                now.delivered = now.delivered.max(entry.version);
                now.written = client::object::resource_version(&written);
                now.passing = passing(Some(&entry.status));
            }
        }
        let is_static = types::annotation(pod, "kubernetes.io/config.mirror").is_some();
        if entry.finished && pod.metadata.deletion_timestamp.is_some() && !is_static {
            let parameters = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(api_uid.to_owned()), resource_version: None }),
                ..DeleteParams::default()
            };
            api.delete(name, &parameters).await?;
            tracing::info!(pod = types::format_pod(pod), "pod fully terminated and removed from the API");
        }
        Ok(())
    }
}

/// Which of the conditions that come and go a status has.
fn passing(status: Option<&PodStatus>) -> Vec<&'static str> {
    let has = |kind: &str| status.is_some_and(|s| s.conditions.iter().flatten().any(|c| c.type_ == kind));
    PASSING.into_iter().filter(|kind| has(kind)).collect()
}

/// Conditions that the API has, or had when last written to, and should not have any more.
fn stale(entry: &Entry) -> Vec<&'static str> {
    let (wanted, shown) = (passing(Some(&entry.status)), passing(entry.pod.status.as_ref()));
    PASSING
        .into_iter()
        .filter(|kind| !wanted.contains(kind) && (shown.contains(kind) || entry.passing.contains(kind)))
        .collect()
}

/// Whether the API's status says what was generated, as far as the kubelet owns it.
fn carries(api: Option<&PodStatus>, generated: &PodStatus) -> bool {
    let Some(api) = api else { return false };
    api.phase == generated.phase
        && api.reason == generated.reason
        && api.message == generated.message
        && api.pod_ip == generated.pod_ip
        && passing(Some(api)) == passing(Some(generated))
        && generated.conditions.iter().flatten().all(|want| {
            api.conditions
                .iter()
                .flatten()
                .any(|has| has.type_ == want.type_ && has.status == want.status && has.reason == want.reason)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api::FakeApi;

    fn pod(status: &str) -> Arc<Pod> {
        Arc::new(
            serde_saphyr::from_str(&format!(
                "metadata: {{name: p, namespace: ns, uid: u}}\nstatus: {status}"
            ))
            .expect("valid"),
        )
    }

    fn status(text: &str) -> PodStatus {
        serde_saphyr::from_str(text).expect("valid")
    }

    #[tokio::test]
    async fn only_changes_are_queued() {
        let manager = StatusManager::new(None);
        let pod = pod("{phase: Running}");
        manager.set("u", &pod, status("{phase: Running}"));
        assert_eq!(manager.inner.queue.len(), 0, "the API says so already");
        manager.set("u", &pod, status("{phase: Failed}"));
        manager.set("u", &pod, status("{phase: Failed}"));
        assert_eq!(manager.inner.queue.len(), 1);
        assert_eq!(manager.pod_status("u").and_then(|s| s.phase.clone()).as_deref(), Some("Failed"));
    }

    #[test]
    fn an_undone_status_is_noticed() {
        let generated = status("{phase: Running, conditions: [{type: Ready, status: 'True'}]}");
        let cases = [
            (
                "{phase: Running, conditions: [{type: Ready, status: 'True'}, {type: x, status: 'False'}]}",
                true,
            ),
            ("{phase: Pending}", false),
            ("{phase: Running, conditions: [{type: Ready, status: 'False'}]}", false),
        ];
        for (api, expected) in cases {
            assert_eq!(carries(pod(api).status.as_ref(), &generated), expected, "{api}");
        }
    }

    #[tokio::test]
    async fn a_finished_pod_is_reported_once_more_and_deleted() {
        let api = FakeApi::default();
        let manager = StatusManager::new(Some(api.client()));
        let tasks = Tasks::new();
        manager.run(&tasks);
        let running = pod("{phase: Running}");
        manager.set("u", &running, status("{phase: Succeeded}"));
        assert_eq!(api.asked(1).await[0].what, "PATCH /api/v1/namespaces/ns/pods/p/status");
        manager.finish("u", &running);
        let mut deleting = (*running).clone();
        deleting.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        deleting.status = Some(status("{phase: Succeeded}"));
        manager.observe("u", &Arc::new(deleting));
        let asked = api.asked(2).await;
        assert_eq!(asked[1].what, "DELETE /api/v1/namespaces/ns/pods/p");
        assert_eq!(asked[1].body["gracePeriodSeconds"], 0);
        assert_eq!(asked[1].body["preconditions"]["uid"], "u");
        tasks.shut_down().await.expect("no failure");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_tried_again_and_gone_pods_are_not() {
        let api = FakeApi::default();
        api.refuse(500, "InternalError");
        let manager = StatusManager::new(Some(api.client()));
        let tasks = Tasks::new();
        manager.run(&tasks);
        let pod = pod("{}");
        manager.set("u", &pod, status("{phase: Running}"));
        api.asked(2).await;
        api.refuse(404, "NotFound");
        manager.set("u", &pod, status("{phase: Failed}"));
        api.asked(3).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(api.asked(3).await.len(), 3);
        tasks.shut_down().await.expect("no failure");
    }
}
