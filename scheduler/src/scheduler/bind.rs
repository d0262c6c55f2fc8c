//! From the choice of a node to the bound pod.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use client::{EventType, Tasks};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::refuse::Room;
use super::{Shared, pod_name};
use crate::framework::{ClusterEvent, Diagnosis, Framework, Permit, Rejection};
use crate::measure;
use crate::node_info::NodeInfo;
use crate::pod_info::on_node;
use crate::preemption::Nomination;
use crate::queue::Waiting;

const BIND_PATIENCE: Duration = Duration::from_secs(30);

const CANCELLABLE: u8 = 0;
const BEYOND_RECALL: u8 = 1;
const CANCELLED: u8 = 2;

/// What plugins say of a pod that they let wait.
type Allowed = Result<(), Rejection>;

/// A pod that waits to be allowed, or for what must be there before it is bound. Until then it can be called back.
pub(super) struct Binding {
    stage: AtomicU8,
    cancelled: CancellationToken,
    /// Why it was called back.
    reason: Mutex<String>,
    /// To be told by plugins that let it wait.
    waits: Mutex<Option<oneshot::Sender<Allowed>>>,
}

impl Binding {
    fn cancel(&self, reason: &str) -> bool {
        let swap = self.stage.compare_exchange(CANCELLABLE, CANCELLED, Ordering::SeqCst, Ordering::SeqCst);
        if swap.is_ok() {
            reason.clone_into(&mut self.reason.lock());
            self.cancelled.cancel();
        }
        swap.is_ok()
    }

    fn goes_on(&self) -> bool {
        self.stage.compare_exchange(CANCELLABLE, BEYOND_RECALL, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

impl Shared {
    /// Calls a pod back that waits to be allowed, or for what must be there before it is bound.
    pub(super) fn call_back(&self, uid: &str, reason: &str) -> bool {
        let binding = self.binding.lock().get(uid).cloned();
        binding.is_some_and(|binding| binding.cancel(reason))
    }

    /// As [`Shared::call_back`], only if the pod waits to be allowed.
    pub(super) fn stop_waiting(&self, uid: &str, reason: &str) -> bool {
        let binding = self.binding.lock().get(uid).cloned();
        binding.is_some_and(|binding| binding.waits.lock().is_some() && binding.cancel(reason))
    }
}

/// Takes the node for the pod, and binds it in a task of its own.
pub(super) fn place(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    framework: &Arc<Framework>,
    waiting: Waiting,
    node: &Arc<NodeInfo>,
    started: std::time::Instant,
) {
    {
        let state = &mut *shared.state.lock();
        state.cache.assume(&waiting.pod, node.name());
        state.queue.nominator.remove(waiting.pod.uid());
    }
    let allowed = framework.run_reserve(&waiting.pod, node).and_then(|()| {
        let permitted = permit(framework, &waiting, node.name());
        if permitted.is_err() {
            framework.run_unreserve(&waiting.pod, node.name());
        }
        permitted
    });
    match allowed {
        Err(rejection) => {
            shared.state.lock().cache.forget(waiting.pod.uid());
            refused_there(shared, tasks, waiting, rejection, started);
        }
        Ok(permit) => {
            let job = Job { framework: framework.clone(), waiting, node: node.name().to_owned(), started };
            job.start(shared, tasks, permit);
        }
    }
}

fn permit(framework: &Framework, waiting: &Waiting, node: &str) -> Result<Permit, Rejection> {
    let mut longest = Permit::Now;
    for plugin in &framework.permit {
        if let Permit::Wait(time) = plugin.permit(&waiting.pod, node)? {
            longest = match longest {
                Permit::Wait(known) if known >= time => longest,
                _ => Permit::Wait(time),
            };
        }
    }
    Ok(longest)
}

/// The pod did not get the node after all.
fn refused_there(
    shared: &Arc<Shared>,
    tasks: &Tasks,
    waiting: Waiting,
    rejection: Rejection,
    started: std::time::Instant,
) {
    if rejection.code == crate::framework::Code::Error {
        return super::refuse::fail(shared, tasks, waiting, rejection.message(), started);
    }
    let mut diagnosis = Diagnosis::new(1);
    diagnosis.refuse(0, rejection);
    super::refuse::refuse(shared, tasks, waiting, diagnosis, Room::none(), started);
}

/// One pod on its way to its node.
struct Job {
    framework: Arc<Framework>,
    waiting: Waiting,
    node: String,
    started: std::time::Instant,
}

/// Why a pod was not bound.
enum Failure {
    /// It was not allowed to.
    Refused(Rejection),
    /// Something went wrong.
    Error(String),
}

impl Job {
    fn start(self, shared: &Arc<Shared>, tasks: &Tasks, permit: Permit) {
        let uid = self.waiting.pod.uid().to_owned();
        if permit == Permit::Now {
            // Nothing that happens from here on makes the pod unschedulable.
            shared.state.lock().queue.done(&uid);
        }
        let prepares = self.prepares();
        let binding = (permit != Permit::Now || prepares).then(|| {
            let (sender, receiver) = oneshot::channel();
            let waits = (permit != Permit::Now).then_some(sender);
            let binding = Arc::new(Binding {
                stage: AtomicU8::new(CANCELLABLE),
                cancelled: CancellationToken::new(),
                reason: Mutex::default(),
                waits: Mutex::new(waits),
            });
            shared.binding.lock().insert(uid.clone(), binding.clone());
            (binding, receiver)
        });
        let (shared, after) = (shared.clone(), tasks.clone());
        tasks.spawn("bind", move |token| async move {
            let work = self.run(&shared, permit, binding);
            let outcome = tokio::select! {
                biased;
                outcome = work => outcome,
                () = token.cancelled() => return,
            };
            shared.binding.lock().remove(&uid);
            match outcome {
                Ok(()) => self.bound(&shared),
                Err(failure) => self.failed(&shared, &after, failure).await,
            }
        });
    }

    fn prepares(&self) -> bool {
        self.framework.pre_bind.iter().any(|plugin| plugin.has_pre_bind(&self.waiting.pod, &self.node))
    }

    async fn run(
        &self,
        shared: &Arc<Shared>,
        permit: Permit,
        binding: Option<(Arc<Binding>, oneshot::Receiver<Allowed>)>,
    ) -> Result<(), Failure> {
        let _slot = match binding {
            None => shared.binds.acquire().await.map_err(|error| Failure::Error(error.to_string()))?,
            Some((binding, allowed)) => {
                self.expect_node(shared).await;
                let wait = self.wait_and_prepare(shared, permit, allowed);
                tokio::select! {
                    biased;
                    () = binding.cancelled.cancelled() => {
                        return Err(Failure::Error(binding.reason.lock().clone()));
                    }
                    prepared = wait => prepared?,
                }
                if !binding.goes_on() {
                    return Err(Failure::Error(binding.reason.lock().clone()));
                }
                shared.binds.acquire().await.map_err(|error| Failure::Error(error.to_string()))?
            }
        };
        let started = std::time::Instant::now();
        let bound = tokio::time::timeout(BIND_PATIENCE, self.bind(shared)).await;
        let bound = bound.unwrap_or_else(|_| Err("binding took too long".to_owned()));
        let status = if bound.is_ok() { "Success" } else { "Error" };
        measure::extension("Bind", &self.framework.scheduler_name, status, started);
        bound.map_err(Failure::Error)
    }

    /// Lets others know which node the pod will come to, as that may take a while.
    async fn expect_node(&self, shared: &Shared) {
        let pod = &self.waiting.pod.pod;
        let nomination = Nomination::Set(self.node.clone());
        if let Err(error) = super::write::status(&shared.client, pod, None, &nomination).await {
            debug!(pod = pod_name(pod), error = %client::chain(&error), "could not write nominated node");
        }
    }

    async fn wait_and_prepare(
        &self,
        shared: &Arc<Shared>,
        permit: Permit,
        allowed: oneshot::Receiver<Allowed>,
    ) -> Result<(), Failure> {
        if let Permit::Wait(time) = permit {
            let late = || Err(Rejection::new("Permit", "timed out waiting on permit"));
            let started = std::time::Instant::now();
            let said = tokio::time::timeout(time, allowed).await;
            let said = said.map_or_else(|_| late(), |said| said.unwrap_or_else(|_| late()));
            measure::permitted(said.is_ok(), started);
            said.map_err(Failure::Refused)?;
            shared.state.lock().queue.done(self.waiting.pod.uid());
        }
        for plugin in &self.framework.pre_bind {
            if !plugin.has_pre_bind(&self.waiting.pod, &self.node) {
                continue;
            }
            let pod = &self.waiting.pod.pod;
            if let Some((reason, message)) = plugin.waits_for(&self.waiting.pod, &self.node)
                && let Some(recorder) = shared.recorder(pod)
            {
                recorder.object_event(&**pod, EventType::Normal, reason, message);
            }
            plugin.pre_bind(&shared.client, &self.waiting.pod, &self.node).await.map_err(|rejection| {
                Failure::Error(format!("running PreBind plugin {:?}: {}", plugin.name(), rejection.message()))
            })?;
        }
        Ok(())
    }

    async fn bind(&self, shared: &Shared) -> Result<(), String> {
        let (pod, node) = (&self.waiting.pod, self.node.as_str());
        for extender in &shared.extenders {
            if !extender.is_binder() || !extender.is_interested(&pod.pod) {
                continue;
            }
            match extender.bind(pod, node).await {
                Err(error) if extender.is_ignorable() => {
                    debug!(extender = extender.name(), error, "extender failed, is ignored");
                }
                bound => return bound,
            }
        }
        for plugin in &self.framework.bind {
            if let Some(bound) = plugin.bind(&shared.client, pod, node) {
                return bound.await.map_err(|error| {
                    format!("running Bind plugin {:?}: {}", plugin.name(), client::chain(&error))
                });
            }
        }
        Err(format!("no bind plugin for pod {}", pod_name(&pod.pod)))
    }

    fn bound(&self, shared: &Shared) {
        let pod = &self.waiting.pod;
        let name = pod_name(&pod.pod);
        debug!(pod = name, node = self.node, "bound");
        super::attempts::attempted(&self.framework, "scheduled", self.started);
        measure::scheduled(&self.waiting);
        if let Some(recorder) = shared.recorder(&pod.pod) {
            let message = format!("Successfully assigned {name} to {}", self.node);
            recorder.object_event(&*pod.pod, EventType::Normal, "Scheduled", message);
        }
        self.framework.post_bind.iter().for_each(|plugin| plugin.post_bind(pod, &self.node));
    }

    /// Gives back what was taken, and the pod to the queue.
    async fn failed(self, shared: &Arc<Shared>, tasks: &Tasks, failure: Failure) {
        let pod = self.waiting.pod.clone();
        self.framework.run_unreserve(&pod, &self.node);
        self.framework.run_undo(&shared.client, &pod).await;
        {
            let state = &mut *shared.state.lock();
            if state.cache.is_assumed(pod.uid()) {
                state.cache.forget(pod.uid());
                let gone = ClusterEvent::pod_gone(Arc::new(on_node(&pod.pod, &self.node)));
                state.queue.happened_to(gone, |other| other.uid() != pod.uid(), Instant::now());
            }
        }
        shared.changed.notify_one();
        match failure {
            Failure::Refused(rejection) => {
                refused_there(shared, tasks, self.waiting, rejection, self.started)
            }
            Failure::Error(error) => {
                warn!(pod = pod_name(&pod.pod), node = self.node, error, "could not bind, will retry");
                super::refuse::fail(shared, tasks, self.waiting, error, self.started);
            }
        }
    }
}
