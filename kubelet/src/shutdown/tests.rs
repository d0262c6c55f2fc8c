//! Shutdowns that a scripted login manager announces.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::*;
use crate::events::testing::Recorded;
use crate::types;
use crate::volumes::testing::Scratch;

/// What happened, in order.
#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<String>>>, Arc<Notify>);

impl Story {
    fn note(&self, what: String) {
        self.0.lock().push(what);
        self.1.notify_waiters();
    }

    /// Waits for so many lines.
    async fn lines(&self, count: usize) -> Vec<String> {
        loop {
            let changed = self.1.notified();
            let lines = self.0.lock().clone();
            if lines.len() >= count {
                return lines;
            }
            changed.await;
        }
    }
}

struct Lock(Story);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.note("let go".into());
    }
}

/// Announces what it is told to; one that ends is there again.
struct Scripted {
    story: Story,
    announce: Mutex<Option<mpsc::UnboundedReceiver<bool>>>,
}

#[async_trait]
impl LoginManager for Scripted {
    async fn allow(&self, delay: Duration) -> Result<(), String> {
        self.story.note(format!("allow {}", delay.as_secs()));
        Ok(())
    }

    async fn inhibit(&self) -> Result<Inhibitor, String> {
        self.story.note("inhibit".into());
        Ok(Box::new(Lock(self.story.clone())))
    }

    async fn announcements(&self) -> Result<BoxStream<'static, bool>, String> {
        let announced = self.announce.lock().take().ok_or("gone")?;
        Ok(UnboundedReceiverStream::new(announced).boxed())
    }
}

/// Pods that end when they are told, but for the stubborn ones.
struct Pods {
    story: Story,
    pods: Vec<Arc<Pod>>,
    stubborn: HashSet<String>,
    told: watch::Sender<HashSet<String>>,
}

#[async_trait]
impl Ending for Pods {
    fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.clone()
    }

    fn end(&self, pod: &Pod, grace: Duration) {
        self.story.note(format!("end {} {}", types::name(pod), grace.as_secs()));
        self.told.send_modify(|told| {
            told.insert(types::name(pod).to_owned());
        });
    }

    async fn ended(&self, pod: &Pod) {
        let name = types::name(pod);
        if self.stubborn.contains(name) {
            std::future::pending::<()>().await;
        }
        self.told.subscribe().wait_for(|told| told.contains(name)).await.expect("alive");
    }
}

fn pod(name: &str, priority: i32) -> Arc<Pod> {
    let text = format!(
        "metadata: {{name: {name}}}\nspec: {{priority: {priority}, terminationGracePeriodSeconds: 30, containers: []}}"
    );
    Arc::new(serde_saphyr::from_str(&text).expect("valid"))
}

#[tokio::test(start_paused = true)]
async fn pods_end_in_order_and_then_the_machine_may() {
    let (story, events, tasks) = (Story::default(), Recorded::default(), Tasks::new());
    let (announce, announced) = mpsc::unbounded_channel();
    let state = ShuttingDown::default();
    let ending = Pods {
        story: story.clone(),
        pods: vec![pod("critical", 2_000_000_000), pod("web", 0), pod("stubborn", 5)],
        stubborn: ["stubborn".to_owned()].into(),
        told: watch::Sender::default(),
    };
    let poke = Arc::new(Notify::new());
    let scratch = Scratch::new();
    let shutdown = Shutdown {
        times: Times::new(scratch.path()),
        login: Arc::new(Scripted { story: story.clone(), announce: Mutex::new(Some(announced)) }),
        periods: periods(&[], Duration::from_secs(30), Duration::from_secs(10)),
        ending: Arc::new(ending),
        state: state.clone(),
        events: Events::new(events.clone()),
        node: ObjectReference::default(),
        poke: poke.clone(),
    };
    shutdown.run(&tasks);
    assert_eq!(story.lines(2).await, ["allow 30", "inhibit"]);
    assert!(state.admit().is_ok() && state.fault().is_none());

    announce.send(true).expect("listened to");
    let lines = story.lines(6).await;
    assert_eq!(lines[2..], ["end web 20", "end stubborn 20", "end critical 10", "let go"]);
    assert_eq!(state.fault().as_deref(), Some("node is shutting down"));
    let refused = state.admit().expect_err("the node shuts down");
    assert_eq!(
        (refused.reason.as_str(), refused.message.as_str()),
        ("NodeShutdown", "Pod was rejected as the node is shutting down.")
    );
    poke.notified().await;
    assert!(scratch.path().join("graceful_node_shutdown_state").exists());

    announce.send(false).expect("listened to");
    assert_eq!(story.lines(7).await[6], "inhibit");
    assert!(state.admit().is_ok(), "it was called off");
    assert_eq!(
        events.lines(),
        [
            "NodeShutdown: Shutdown manager detected shutdown event",
            "NodeShutdown: Shutdown manager detected shutdown cancellation"
        ]
    );
    drop(announce);
    let lines = story.lines(9).await;
    assert_eq!(lines[7..], ["let go", "allow 30"], "the login manager went away and is asked again");
    tasks.shut_down().await.expect("no failure");
}
