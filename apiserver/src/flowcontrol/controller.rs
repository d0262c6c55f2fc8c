//! Keeps the configuration as the objects say, and divides the seats.

use std::sync::Arc;
use std::time::Duration;

use client::SharedInformerFactory;
use client::informer::Informer;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::FlowControl;

/// How often seats are divided.
const PERIOD: Duration = Duration::from_secs(10);

/// Takes in objects, and does what time demands.
pub struct Controller {
    control: Arc<FlowControl>,
    schemas: Informer<FlowSchema>,
    levels: Informer<PriorityLevelConfiguration>,
    changed: Arc<Notify>,
}

impl FlowControl {
    /// What keeps the configuration current; to be run.
    #[must_use]
    pub fn controller(self: &Arc<Self>, informers: &SharedInformerFactory) -> Controller {
        let (schemas, levels) = (informers.informer(), informers.informer());
        let changed: Arc<Notify> = Arc::default();
        let note = Arc::clone(&changed);
        schemas.subscribe(move |_: &client::Event<FlowSchema>| note.notify_one());
        let note = Arc::clone(&changed);
        levels.subscribe(move |_: &client::Event<PriorityLevelConfiguration>| note.notify_one());
        Controller { control: Arc::clone(self), schemas, levels, changed }
    }

    /// Gives back the seats whose time is over; says when the next ones come back that somebody waits for.
    fn turn(&self) -> Option<Instant> {
        self.configuration.lock().entries().filter_map(|entry| entry.level.turn()).min()
    }
}

impl Controller {
    /// Works until `token` is cancelled.
    pub async fn run(self, token: CancellationToken) {
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = async { tokio::join!(self.schemas.synced(), self.levels.synced()); } => {}
        }
        self.digest();
        let mut period = interval(PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        period.tick().await;
        loop {
            let due = self.control.turn();
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.changed.notified() => self.digest(),
                _ = period.tick() => self.divide(),
                () = self.control.waits.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }

    fn digest(&self) {
        let (levels, schemas) = (self.levels.store().list(), self.schemas.store().list());
        let flows = self.control.configuration.lock().digest(&levels, &schemas);
        *self.control.flows.write() = flows.into();
    }

    fn divide(&self) {
        let reap = {
            let mut configuration = self.control.configuration.lock();
            configuration.divide();
            configuration.is_to_be_reaped()
        };
        if reap {
            self.digest();
        }
    }
}
