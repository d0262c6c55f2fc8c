//! Registers the nodes and keeps them alive: reports and leases, each at its own time, spread over all nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::controller::Action;
use client::kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use client::{Api, Client, Event, Informer, ObjectKey, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use kubelet::node_status::lease::{self, NAMESPACE};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::addresses::Range;
use crate::node::{LABEL, Names, Shape, is_well, until_next};
use crate::record::NodeRecord;

/// How long a lease lasts, in seconds; it is renewed four times in that time.
const LEASE_SECONDS: i32 = 40;
const RENEWAL: Duration = Duration::from_secs(10);
/// How often a node says that it is well though nothing has changed.
const REPORT: Duration = Duration::from_secs(300);

/// The nodes; clones share them.
#[derive(Clone)]
pub struct Nodes {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    names: Names,
    shape: Shape,
    records: Informer<NodeRecord>,
    states: Mutex<Vec<State>>,
    registered: watch::Sender<u32>,
    began: Instant,
    /// Whether the last lease that was to be renewed was not.
    in_trouble: AtomicBool,
    reports: WorkQueue<ObjectKey>,
    renewals: WorkQueue<ObjectKey>,
}

/// How far a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// Not in the API yet, as far as is known.
    New,
    /// In the API, with this UID; whether its lease is there.
    Registered { uid: String, leased: bool },
    /// Somebody has deleted it. As a machine that was taken away, it does not come back.
    Gone,
}

impl Nodes {
    /// The nodes, of which none is registered yet.
    #[must_use]
    pub fn new(client: Client, names: Names, shape: Shape, records: Informer<NodeRecord>) -> Self {
        let states = Mutex::new(vec![State::New; names.count as usize]);
        let (reports, renewals) = (WorkQueue::new("simulated_nodes"), WorkQueue::new("simulated_leases"));
        let (registered, began, in_trouble) = (watch::Sender::new(0), Instant::now(), AtomicBool::new(false));
        let inner =
            Inner { client, names, shape, records, states, registered, began, in_trouble, reports, renewals };
        Self { inner: Arc::new(inner) }
    }

    /// Names of nodes that are to be registered or to report.
    #[must_use]
    pub fn reports(&self) -> &WorkQueue<ObjectKey> {
        &self.inner.reports
    }

    /// Names of nodes whose leases are to be renewed.
    #[must_use]
    pub fn renewals(&self) -> &WorkQueue<ObjectKey> {
        &self.inner.renewals
    }

    /// The number of a node that is there.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u32> {
        let number = self.inner.names.number(name)?;
        (self.state(number) != State::Gone).then_some(number)
    }

    /// Where a node's pods have their addresses.
    #[must_use]
    pub fn ranges(&self, number: u32) -> Vec<Range> {
        let record = self.inner.records.store().get(&self.key(number));
        let given = record.map(|record| record.ranges.to_vec()).unwrap_or_default();
        if given.is_empty() { vec![Range::fallback(number)] } else { given }
    }

    /// Has all nodes registered, and follows what others do to them.
    pub fn begin(&self) {
        (0..self.inner.names.count).for_each(|number| self.inner.reports.add(self.key(number)));
        let this = self.clone();
        self.inner.records.subscribe(move |event| this.observe(event));
    }

    /// Waits until all nodes are registered.
    pub async fn all_registered(&self) {
        let count = self.inner.names.count;
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.inner.registered.subscribe().wait_for(|registered| *registered >= count).await;
    }

    fn key(&self, number: u32) -> ObjectKey {
        ObjectKey::new("", self.inner.names.name(number))
    }

    fn state(&self, number: u32) -> State {
        self.inner.states.lock().get(number as usize).cloned().unwrap_or(State::Gone)
    }

    fn set_state(&self, number: u32, state: State) {
        if let Some(place) = self.inner.states.lock().get_mut(number as usize) {
            *place = state;
        }
    }

    fn observe(&self, event: &Event<NodeRecord>) {
        let (record, key) = (event.object(), ObjectKey::of(&**event.object()));
        let Some(number) = self.inner.names.number(&key.name) else { return };
        match event {
            Event::Deleted(_) => {
                if matches!(self.state(number), State::Registered { uid, .. } if uid == record.uid()) {
                    tracing::info!(node = key.name, "node was deleted, and is simulated no more");
                    self.set_state(number, State::Gone);
                }
            }
            Event::Added(_) | Event::Updated { .. } => {
                let was = matches!(event, Event::Updated { old, .. } if old.is_out_of_step);
                if !is_well(&record.conditions) || (record.is_out_of_step && !was) {
                    self.inner.reports.add(key);
                }
            }
        }
    }

    /// Registers a node, or has it say that it is well.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn report(&self, key: ObjectKey) -> Result<Action> {
        let Some(number) = self.inner.names.number(&key.name) else { return Ok(Action::Done) };
        match self.state(number) {
            State::Gone => return Ok(Action::Done),
            State::New => {
                let uid = self.register(number).await.context("register the node")?;
                self.set_state(number, State::Registered { uid, leased: false });
                self.inner.registered.send_modify(|registered| *registered += 1);
                self.inner.renewals.add(key);
            }
            State::Registered { .. } => self.beat(number).await.context("report the node's status")?,
        }
        Ok(self.again(number, REPORT))
    }

    fn again(&self, number: u32, interval: Duration) -> Action {
        let elapsed = self.inner.began.elapsed();
        Action::RequeueAfter(until_next(number, self.inner.names.count, interval, elapsed))
    }

    async fn register(&self, number: u32) -> Result<String> {
        let (names, shape, nodes) = (&self.inner.names, &self.inner.shape, self.api());
        let wanted = shape.node(names, number, Timestamp::now());
        match nodes.create(&PostParams::default(), &wanted).await {
            Ok(node) => return node.metadata.uid.context("a node without a UID"),
            Err(error) if client::is_already_exists(&error) => {}
            Err(error) => return Err(error.into()),
        }
        let name = names.name(number);
        let there = nodes.get(&name).await?;
        let labels = there.metadata.labels.unwrap_or_default();
        if labels.get(LABEL) != Some(&names.prefix) {
            bail!("a node named {name} is there already, and is none of these");
        }
        let labels = json!({ "metadata": { "labels": wanted.metadata.labels } });
        nodes.patch(&name, &PatchParams::default(), &Patch::Merge(labels)).await?;
        let before = there.status.and_then(|status| status.conditions).unwrap_or_default();
        let report = shape.full_report(names, number, &before, Timestamp::now());
        nodes.patch_status(&name, &PatchParams::default(), &Patch::Strategic(report)).await?;
        there.metadata.uid.context("a node without a UID")
    }

    async fn beat(&self, number: u32) -> Result<()> {
        let record = self.inner.records.store().get(&self.key(number));
        let (names, shape, now) = (&self.inner.names, &self.inner.shape, Timestamp::now());
        let beat = if record.as_ref().is_some_and(|record| record.is_out_of_step) {
            let Some(node) = self.api().get_opt(&names.name(number)).await? else { return Ok(()) };
            shape.offer(names, number, node, now)
        } else {
            let before = record.map(|record| record.conditions.clone()).unwrap_or_default();
            shape.heartbeat(names, number, &before, now)
        };
        let written = self
            .api()
            .patch_status(&names.name(number), &PatchParams::default(), &Patch::Strategic(beat))
            .await;
        match written {
            // The watch will say so too.
            Err(error) if client::is_not_found(&error) => Ok(()),
            written => Ok(written.map(drop)?),
        }
    }

    /// Renews the lease of a node, which is made the first time. What fails waits for its next turn: a lease lasts for
    /// four of them, and a server in trouble is not helped by thousands that try again at once.
    pub async fn renew(&self, key: ObjectKey) -> Action {
        let Some(number) = self.inner.names.number(&key.name) else { return Action::Done };
        let State::Registered { uid, leased } = self.state(number) else { return Action::Done };
        let renewed = self.renew_now(number, &key.name, uid, leased).await;
        let was_in_trouble = self.inner.in_trouble.swap(renewed.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (&renewed, was_in_trouble) {
            tracing::warn!(node = key.name, error = %format!("{error:#}"), "leases are not renewed, will retry");
        }
        self.again(number, RENEWAL)
    }

    async fn renew_now(&self, number: u32, name: &str, uid: String, leased: bool) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.inner.client.clone(), NAMESPACE);
        if !leased {
            let lease = lease::lease(name, LEASE_SECONDS, Some(lease::owned_by(name, uid)));
            let made = leases.create(&PostParams::default(), &lease).await;
            self.set_leased(number, made.is_ok() || made.as_ref().is_err_and(client::is_already_exists));
            match made {
                Err(error) if client::is_already_exists(&error) => {}
                made => return made.map(drop).context("make the lease"),
            }
        }
        let renewal = Patch::Merge(lease::renewal(name, LEASE_SECONDS));
        let renewed = leases.patch(name, &PatchParams::default(), &renewal).await;
        if renewed.as_ref().is_err_and(client::is_not_found) {
            self.set_leased(number, false);
        }
        renewed.map(drop).context("renew the lease")
    }

    fn set_leased(&self, number: u32, now: bool) {
        if let Some(State::Registered { leased, .. }) = self.inner.states.lock().get_mut(number as usize) {
            *leased = now;
        }
    }

    /// Deletes all nodes. Their leases belong to them, their pods are for the pod garbage collector.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn remove(&self) -> Result<()> {
        let selected = ListParams::default().labels(&self.inner.names.selector());
        self.api()
            .delete_collection(&DeleteParams::default(), &selected)
            .await
            .context("delete the nodes")?;
        Ok(())
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.inner.client.clone())
    }
}
