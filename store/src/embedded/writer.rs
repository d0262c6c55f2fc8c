//! The one writer: decides, commits, makes visible, acknowledges.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::Shared;
use super::durable::Durable;
use super::memory::Change;
use crate::{Error, Expect, KeyValue, Revision};

/// At most this many writes share one commit.
const BATCH: usize = 512;

/// The answer to a write.
pub(super) type Outcome<T> = oneshot::Sender<Result<T, Error>>;

/// What the writer is asked to do.
pub(super) enum Command {
    Put { key: String, value: Bytes, expect: Expect, expires: Option<u64>, answer: Outcome<Revision> },
    Delete { key: String, expect: Option<Revision>, answer: Outcome<(KeyValue, Revision)> },
    Stop { done: oneshot::Sender<()> },
}

/// Milliseconds since the epoch.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Runs until it is told to stop or nobody can ask any more.
pub(super) fn run(
    mut durable: Option<Durable>,
    shared: &Weak<Shared>,
    mut commands: mpsc::Receiver<Command>,
) {
    let mut broken = false;
    while let Some(first) = commands.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < BATCH
            && let Ok(next) = commands.try_recv()
        {
            batch.push(next);
        }
        let Some(shared) = shared.upgrade() else { return };
        let mut stop = None;
        let mut decided = Batch::default();
        for command in batch {
            match command {
                Command::Stop { done } => stop = Some(done),
                command => decided.decide(&shared, command),
            }
        }
        if !broken {
            broken = decided.carry_out(durable.as_mut(), &shared);
        } else {
            decided.fail("an earlier write could not be made durable");
        }
        if let Some(done) = stop {
            // The file is free before anybody hears of it.
            drop(durable);
            let _ = done.send(());
            return;
        }
    }
}

/// The answers that are sent once the batch is durable.
enum Answer {
    Put(Outcome<Revision>, Result<Revision, Error>),
    Delete(Outcome<(KeyValue, Revision)>, Result<(KeyValue, Revision), Error>),
}

/// Decided writes that are not yet visible. Later ones of a batch see earlier ones.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    overlay: HashMap<String, Option<KeyValue>>,
    answers: Vec<Answer>,
}

impl Batch {
    fn decide(&mut self, shared: &Shared, command: Command) {
        match command {
            Command::Put { key, value, expect, expires, answer } => {
                let outcome = self.put(shared, key, value, expect, expires);
                self.answers.push(Answer::Put(answer, outcome));
            }
            Command::Delete { key, expect, answer } => {
                let outcome = self.delete(shared, key, expect);
                self.answers.push(Answer::Delete(answer, outcome));
            }
            Command::Stop { .. } => {}
        }
    }

    fn present(&self, shared: &Shared, key: &str) -> Option<KeyValue> {
        self.overlay.get(key).cloned().unwrap_or_else(|| shared.memory.read().get(key))
    }

    fn next_revision(&self, shared: &Shared) -> Revision {
        self.changes.last().map_or_else(|| shared.memory.read().revision(), |last| last.revision).next()
    }

    fn put(
        &mut self,
        shared: &Shared,
        key: String,
        value: Bytes,
        expect: Expect,
        expires: Option<u64>,
    ) -> Result<Revision, Error> {
        let current = self.present(shared, &key);
        let as_expected = match (expect, &current) {
            (Expect::Absent, None) => true,
            (Expect::At(revision), Some(kv)) => kv.modified == revision,
            _ => false,
        };
        if !as_expected {
            return Err(Error::Conflict { key, current });
        }
        let revision = self.next_revision(shared);
        let created = current.map_or(revision, |kv| kv.created);
        let kv = KeyValue { key: key.clone(), value: value.clone(), created, modified: revision };
        self.overlay.insert(key.clone(), Some(kv));
        self.changes.push(Change { key, revision, created, value: Some(value), expires });
        Ok(revision)
    }

    fn delete(
        &mut self,
        shared: &Shared,
        key: String,
        expect: Option<Revision>,
    ) -> Result<(KeyValue, Revision), Error> {
        let current = self.present(shared, &key);
        let Some(kv) = current.clone().filter(|kv| expect.is_none_or(|revision| kv.modified == revision))
        else {
            return Err(Error::Conflict { key, current });
        };
        let revision = self.next_revision(shared);
        self.overlay.insert(key.clone(), None);
        self.changes.push(Change { key, revision, created: kv.created, value: None, expires: None });
        Ok((kv, revision))
    }

    /// True if the disk refused: nothing may be written any more, because what is on disk is uncertain.
    fn carry_out(self, durable: Option<&mut Durable>, shared: &Shared) -> bool {
        if let Some(durable) = durable
            && let Err(failure) = durable.commit(&self.changes)
        {
            error!(error = %failure, "store cannot write; it takes no more writes");
            self.fail(&failure.to_string());
            return true;
        }
        shared.memory.write().apply(self.changes);
        for answer in self.answers {
            // Nobody waits for an answer any more when the asker is gone.
            match answer {
                Answer::Put(to, outcome) => drop(to.send(outcome)),
                Answer::Delete(to, outcome) => drop(to.send(outcome)),
            }
        }
        false
    }

    fn fail(self, reason: &str) {
        let failure = || Error::Unavailable { reason: reason.to_owned() };
        for answer in self.answers {
            match answer {
                Answer::Put(to, _) => drop(to.send(Err(failure()))),
                Answer::Delete(to, _) => drop(to.send(Err(failure()))),
            }
        }
    }
}
