//! The life of pods under a scripted syncer, from the first sync to the end.

use std::collections::VecDeque;

use tokio::sync::Semaphore;

use super::*;

/// Writes down every step and answers as scripted; a step waits for a permit when told to.
struct Scripted {
    log: Mutex<Vec<String>>,
    sync: Mutex<VecDeque<Result<Synced, SyncError>>>,
    kill_gate: Option<Semaphore>,
}

impl Scripted {
    fn new(sync: Vec<Result<Synced, SyncError>>, gate: bool) -> Arc<Self> {
        let kill_gate = gate.then(|| Semaphore::new(0));
        Arc::new(Self { log: Mutex::default(), sync: Mutex::new(sync.into()), kill_gate })
    }

    fn note(&self, line: String) {
        self.log.lock().push(line);
    }
}

#[async_trait]
impl PodSyncer for Scripted {
    async fn sync_pod(&self, pod: &Arc<Pod>, stop: &CancellationToken) -> Result<Synced, SyncError> {
        self.note(format!("sync {}", types::uid(pod)));
        let next = self.sync.lock().pop_front();
        match next {
            Some(result) => result,
            None if types::name(pod) == "slow" => {
                stop.cancelled().await;
                Err(SyncError::from("stopped".to_owned()))
            }
            None => Ok(Synced::default()),
        }
    }

    async fn sync_terminating_pod(
        &self,
        pod: &Arc<Pod>,
        grace: Option<Duration>,
        verdict: Option<Verdict>,
        interrupt: &CancellationToken,
    ) -> Result<(), SyncError> {
        let verdict = verdict.map(|v| v.reason).unwrap_or_default();
        self.note(format!("terminating {} {:?} {verdict}", types::uid(pod), grace.map(|g| g.as_secs())));
        let Some(gate) = &self.kill_gate else { return Ok(()) };
        tokio::select! {
            () = interrupt.cancelled() => Err(SyncError::from("interrupted".to_owned())),
            permit = gate.acquire() => { permit.expect("open").forget(); Ok(()) }
        }
    }

    async fn sync_terminating_runtime_pod(&self, uid: &str) -> Result<(), SyncError> {
        self.note(format!("terminating-runtime {uid}"));
        Ok(())
    }

    async fn sync_terminated_pod(&self, pod: &Arc<Pod>) -> Result<(), SyncError> {
        self.note(format!("terminated {}", types::uid(pod)));
        Ok(())
    }
}

fn pod(name: &str, uid: &str, rest: &str) -> Arc<Pod> {
    Arc::new(
        serde_saphyr::from_str(&format!("metadata:\n  name: {name}\n  namespace: ns\n  uid: {uid}\n{rest}"))
            .expect("valid pod"),
    )
}

const DELETED: &str = "  deletionTimestamp: '2026-01-01T00:00:00Z'\n  deletionGracePeriodSeconds: ";

fn deleted(name: &str, uid: &str, grace: u32) -> Arc<Pod> {
    pod(name, uid, &format!("{DELETED}{grace}\n"))
}

fn workers(syncer: &Arc<Scripted>) -> PodWorkers {
    PodWorkers::new(syncer.clone(), Intervals::default(), Tasks::new())
}

/// Lets every ready task run. Time is paused, so this waits for nothing real.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_lives_and_is_deleted() {
    let syncer = Scripted::new(vec![], false);
    let workers = workers(&syncer);
    workers.update(&pod("p", "u", ""));
    settle().await;
    workers.update(&deleted("p", "u", 30));
    settle().await;
    assert_eq!(*syncer.log.lock(), ["sync u", "terminating u Some(30) ", "terminated u"]);
    assert_eq!(workers.view("u").map(|v| v.stage), Some(Stage::Finished));
    assert!(workers.content_may_go("u"));
    assert_eq!(workers.sync_known(&HashSet::new()), ["u"]);
    assert!(workers.view("u").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_by_itself_is_terminated_without_being_asked() {
    let syncer = Scripted::new(vec![Ok(Synced { terminal: true, again: None })], false);
    let workers = workers(&syncer);
    workers.update(&pod("p", "u", ""));
    settle().await;
    assert_eq!(*syncer.log.lock(), ["sync u", "terminating u None ", "terminated u"]);
    assert!(!workers.content_may_go("u"), "the API still has it");
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_after_their_own_time() {
    let fail = |retry| Err(SyncError { message: "no".to_owned(), retry });
    let syncer = Scripted::new(vec![fail(Some(Duration::from_secs(3))), fail(None)], false);
    let workers = workers(&syncer);
    workers.update(&pod("p", "u", ""));
    let mut counts = Vec::new();
    for seconds in [1, 3, 9, 2, 61] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        counts.push(syncer.log.lock().len());
    }
    assert_eq!(counts, [1, 2, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_interrupts_a_sync() {
    let syncer = Scripted::new(vec![], false);
    let workers = workers(&syncer);
    workers.update(&pod("slow", "u", ""));
    settle().await;
    workers.update(&deleted("slow", "u", 5));
    settle().await;
    assert_eq!(*syncer.log.lock(), ["sync u", "terminating u Some(5) ", "terminated u"]);
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_starts_the_stop_again_and_a_longer_does_not() {
    let syncer = Scripted::new(vec![], true);
    let workers = workers(&syncer);
    workers.update(&pod("p", "u", ""));
    settle().await;
    for grace in [30, 60, 0] {
        workers.update(&deleted("p", "u", grace));
        settle().await;
    }
    syncer.kill_gate.as_ref().expect("gated").add_permits(1);
    settle().await;
    assert_eq!(
        *syncer.log.lock(),
        ["sync u", "terminating u Some(30) ", "terminating u Some(1) ", "terminated u"]
    );
}

#[tokio::test(start_paused = true)]
async fn an_eviction_carries_its_verdict() {
    let syncer = Scripted::new(vec![], false);
    let workers = workers(&syncer);
    workers.update(&pod("p", "u", ""));
    settle().await;
    let verdict =
        Verdict { reason: "Evicted".to_owned(), message: "low on memory".to_owned(), disruption: true };
    workers.kill("u", &KillOptions { grace: None, verdict: Some(verdict), evict: true });
    settle().await;
    assert_eq!(*syncer.log.lock(), ["sync u", "terminating u None Evicted", "terminated u"]);
    assert!(workers.content_may_go("u"));
}

#[tokio::test(start_paused = true)]
async fn terminal_pods_never_sync() {
    let syncer = Scripted::new(vec![], false);
    let workers = workers(&syncer);
    workers.update(&pod("p", "u", "status: {phase: Succeeded}\n"));
    settle().await;
    assert_eq!(*syncer.log.lock(), ["terminating u None ", "terminated u"]);
}

#[tokio::test(start_paused = true)]
async fn orphans_of_the_runtime_are_stopped_and_forgotten() {
    let syncer = Scripted::new(vec![], false);
    let workers = workers(&syncer);
    workers.kill_runtime_pod("u");
    settle().await;
    assert_eq!(*syncer.log.lock(), ["terminating-runtime u"]);
    assert_eq!(workers.sync_known(&HashSet::new()), ["u"]);
}

#[tokio::test(start_paused = true)]
async fn a_static_pod_waits_for_its_namesake() {
    let source = "  annotations: {kubernetes.io/config.source: file}\n";
    let syncer = Scripted::new(vec![], true);
    let workers = workers(&syncer);
    workers.update(&pod("s", "old", source));
    settle().await;
    workers.update(&pod("s", "new", source));
    workers.remove("old");
    settle().await;
    assert_eq!(*syncer.log.lock(), ["sync old", "terminating old None "]);
    syncer.kill_gate.as_ref().expect("gated").add_permits(1);
    settle().await;
    assert_eq!(*syncer.log.lock(), ["sync old", "terminating old None ", "terminated old", "sync new"]);
}

#[tokio::test(start_paused = true)]
async fn pods_wanted_no_longer_are_stopped() {
    let syncer = Scripted::new(vec![], false);
    let workers = workers(&syncer);
    workers.update(&pod("p", "u", ""));
    settle().await;
    assert!(workers.could_run("unknown"), "nothing is known yet");
    assert!(workers.sync_known(&HashSet::new()).is_empty());
    settle().await;
    assert_eq!(*syncer.log.lock(), ["sync u", "terminating u None ", "terminated u"]);
    assert!(!workers.could_run("unknown") && !workers.could_run("u"));
}
