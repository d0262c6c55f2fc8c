//! Events: what components tell people about objects (core/v1 `Event`).
//!
//! Recording never waits: events go through a bounded channel to one task, and are dropped when it is full.
//! Like upstream's correlator (`client-go/tools/record`), a repeated event raises the count of the first, many
//! alike ones for an object are combined, and each object has a budget (25 at once, then one in five minutes).

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::object::Object;
use crate::tasks::Tasks;
use crate::{Api, Client, chain};

const QUEUE: usize = 1000;
const REMEMBERED: usize = 4096;
const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const COMBINE_AFTER: usize = 10;
const COMBINE_WINDOW: Duration = Duration::from_secs(600);

/// Whether people should worry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Information.
    Normal,
    /// Something that might need a look.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events of one component; clones share it.
#[derive(Clone)]
pub struct EventRecorder {
    sender: mpsc::Sender<Occurrence>,
}

struct Occurrence {
    about: ObjectReference,
    kind: EventType,
    reason: String,
    message: String,
    at: Timestamp,
}

/// A reference to `object`, as events and owner-like fields hold it.
pub fn reference<K: Object>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl EventRecorder {
    /// Records in the name of `component` on `host` (empty: none); its task belongs to `tasks`.
    #[must_use]
    pub fn new(client: Client, component: &str, host: &str, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = Writer {
            client,
            source: EventSource {
                component: Some(component.to_owned()),
                host: Some(host.to_owned()).filter(|h| !h.is_empty()),
            },
            seen: HashMap::new(),
            alike: HashMap::new(),
            budgets: HashMap::new(),
        };
        tasks.spawn("events", |token| async move {
            tokio::select! { () = token.cancelled() => {} () = writer.run(receiver) => {} }
        });
        Self { sender }
    }

    /// Records an event about the object that `about` names.
    pub fn event(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let (about, reason) = (about.clone(), reason.to_owned());
        let occurrence = Occurrence { about, kind, reason, message: message.into(), at: Timestamp::now() };
        if self.sender.try_send(occurrence).is_err() {
            metrics::counter!("events_dropped_total").increment(1);
        }
    }

    /// Records an event about `object`.
    pub fn object_event<K: Object>(
        &self,
        object: &K,
        kind: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.event(&reference(object), kind, reason, message);
    }
}

/// What makes two events the same.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    namespace: String,
    kind: String,
    name: String,
    uid: String,
    field_path: String,
    event_type: &'static str,
    reason: String,
    message: String,
}

struct Written {
    namespace: String,
    name: String,
    count: i32,
}

struct Budget {
    tokens: f64,
    at: Instant,
}

struct Writer {
    client: Client,
    source: EventSource,
    seen: HashMap<Identity, Written>,
    /// Messages seen of late for an identity without its message.
    alike: HashMap<Identity, (Instant, Vec<String>)>,
    budgets: HashMap<(String, String, String), Budget>,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Occurrence>) {
        while let Some(occurrence) = receiver.recv().await {
            self.forget_if_many();
            if let Err(error) = self.record(occurrence).await {
                debug!(error = %chain(&error), "could not write event");
            }
        }
    }

    /// Memory stays bounded: beyond the limit everything is forgotten, at the cost of some repeated events.
    fn forget_if_many(&mut self) {
        if self.seen.len() > REMEMBERED {
            self.seen.clear();
        }
        if self.alike.len() > REMEMBERED {
            self.alike.clear();
        }
        if self.budgets.len() > REMEMBERED {
            self.budgets.clear();
        }
    }

    async fn record(&mut self, mut occurrence: Occurrence) -> kube::Result<()> {
        let mut identity = identity(&occurrence);
        if self.combine(&identity, Instant::now()) {
            occurrence.message = format!("(combined from similar events): {}", occurrence.message);
            identity.message.clear();
        }
        if !self.within_budget(&identity, Instant::now()) {
            return Ok(());
        }
        if let Some(written) = self.seen.get_mut(&identity) {
            written.count += 1;
            let patch = json!({"count": written.count, "message": occurrence.message,
                               "lastTimestamp": Time(occurrence.at)});
            let api: Api<Event> = Api::namespaced(self.client.clone(), &written.namespace);
            let result = api.patch(&written.name, &PatchParams::default(), &Patch::Merge(patch)).await;
            match result {
                Err(error) if crate::is_not_found(&error) => {
                    self.seen.remove(&identity);
                }
                other => return other.map(drop),
            }
        }
        self.create(identity, occurrence).await
    }

    async fn create(&mut self, identity: Identity, occurrence: Occurrence) -> kube::Result<()> {
        let namespace =
            if identity.namespace.is_empty() { "default" } else { &identity.namespace }.to_owned();
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.{:016x}", identity.name, occurrence.at.as_nanosecond())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            involved_object: occurrence.about,
            type_: Some(occurrence.kind.as_str().to_owned()),
            reason: Some(occurrence.reason),
            message: Some(occurrence.message),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(Time(occurrence.at)),
            last_timestamp: Some(Time(occurrence.at)),
            count: Some(1),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(created) => {
                let name = created.metadata.name.unwrap_or_default();
                self.seen.insert(identity, Written { namespace, name, count: 1 });
                Ok(())
            }
            // The namespace is going away: upstream gives such events up too.
            Err(error) if crate::is_status(&error, 403) || crate::is_not_found(&error) => Ok(()),
            Err(error) => {
                warn!(error = %chain(&error), reason = event.reason, "could not write event");
                Ok(())
            }
        }
    }

    /// Whether so many different messages came for this identity that they are to be combined.
    fn combine(&mut self, identity: &Identity, now: Instant) -> bool {
        let mut key = identity.clone();
        key.message.clear();
        let (at, messages) = self.alike.entry(key).or_insert_with(|| (now, Vec::new()));
        if now.duration_since(*at) > COMBINE_WINDOW {
            messages.clear();
        }
        *at = now;
        if !messages.contains(&identity.message) && messages.len() < COMBINE_AFTER {
            messages.push(identity.message.clone());
        }
        messages.len() >= COMBINE_AFTER
    }

    fn within_budget(&mut self, identity: &Identity, now: Instant) -> bool {
        let key = (identity.namespace.clone(), identity.kind.clone(), identity.name.clone());
        let budget = self.budgets.entry(key).or_insert(Budget { tokens: BURST, at: now });
        let refill = now.duration_since(budget.at).as_secs_f64() * REFILL_PER_SECOND;
        budget.tokens = (budget.tokens + refill).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }
}

fn identity(occurrence: &Occurrence) -> Identity {
    let about = &occurrence.about;
    Identity {
        namespace: about.namespace.clone().unwrap_or_default(),
        kind: about.kind.clone().unwrap_or_default(),
        name: about.name.clone().unwrap_or_default(),
        uid: about.uid.clone().unwrap_or_default(),
        field_path: about.field_path.clone().unwrap_or_default(),
        event_type: occurrence.kind.as_str(),
        reason: occurrence.reason.clone(),
        message: occurrence.message.clone(),
    }
}
