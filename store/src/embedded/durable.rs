//! What makes changes durable: they are appended to a journal, which is cheap, and are taken over into the file of
//! records behind it, many together.
//!
//! There are two journals. When the one that is written is long enough, the keeper's thread takes what is in it into
//! the file of records, while the other one is written; so the one that is changed to is never needed any more. On
//! opening, what the journals have more than the file of records is taken over first.
//!
//! Tasks: the keeper's thread, which ends with its [`Durable`].

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use tracing::error;

use super::disk::{Disk, Loaded, unusable};
use super::journal::{self, Journal};
use super::memory::Change;
use crate::{Error, Revision};

/// A journal may become so many times as long as it should, while the keeper is busy; then writers wait for it.
const PATIENCE: u64 = 8;

/// The files of a store.
pub(super) fn files(dir: &Path) -> [PathBuf; 3] {
    ["store.redb", "journal-a", "journal-b"].map(|name| dir.join(name))
}

/// The journals, and what is behind them.
pub(super) struct Durable {
    journals: [Journal; 2],
    /// The journal that is written.
    active: usize,
    /// How long it may become, in bytes.
    enough: u64,
    /// The last change of every key in it.
    pending: HashMap<String, Change>,
    keeper: Keeper,
}

/// Hands changes to the thread that has the file of records.
struct Keeper {
    work: Option<Sender<Vec<Change>>>,
    done: Receiver<Result<(), Error>>,
    /// Whether it has something to do.
    busy: bool,
    thread: Option<JoinHandle<()>>,
}

impl Durable {
    /// Opens or makes the files in `dir`, whose journals are to be `enough` bytes long.
    pub(super) fn open(dir: &Path, enough: u64) -> Result<(Self, Loaded), Error> {
        let [records, first, second] = files(dir);
        let (mut disk, mut loaded) = Disk::open(&records)?;
        let missing = recover([&first, &second], loaded.revision)?;
        if !missing.is_empty() {
            disk.commit(&missing)?;
            loaded = disk.load()?;
        }
        let open = |path: &PathBuf| Journal::open(path).map_err(|error| unusable(path, error));
        let journals = [open(&first)?, open(&second)?];
        // The files themselves must survive, too.
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| unusable(dir, error))?;
        let keeper = Keeper::start(disk).map_err(|error| unusable(dir, error))?;
        Ok((Self { journals, active: 0, enough, pending: HashMap::new(), keeper }, loaded))
    }

    /// Writes changes so that they survive whatever happens next. After an error nobody knows what is on disk.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        self.keeper.look()?;
        let journal = &mut self.journals[self.active];
        journal.append(changes).map_err(|error| Error::Unavailable { reason: error.to_string() })?;
        let length = journal.len();
        for change in changes {
            self.pending.insert(change.key.clone(), change.clone());
        }
        if length >= self.enough.saturating_mul(PATIENCE) {
            self.keeper.wait()?;
        }
        if length >= self.enough && !self.keeper.busy {
            self.keep()?;
            self.active = 1 - self.active;
            self.journals[self.active].rewind();
        }
        Ok(())
    }

    /// Gives the keeper what is in the journal.
    fn keep(&mut self) -> Result<(), Error> {
        let mut changes: Vec<Change> = std::mem::take(&mut self.pending).into_values().collect();
        // Neighbours share pages.
        changes.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.keeper.give(changes)
    }

    fn close(&mut self) -> Result<(), Error> {
        self.keeper.wait()?;
        if !self.pending.is_empty() {
            self.keep()?;
            self.keeper.wait()?;
        }
        Ok(())
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        if let Err(failure) = self.close() {
            error!(error = %failure, "what is in the journal of the store waits there for the next start");
        }
        self.keeper.work = None;
        if let Some(thread) = self.keeper.thread.take() {
            // It does not panic; if it did, that was told already.
            let _ = thread.join();
        }
    }
}

/// The changes that the journals have beyond `kept`, in order.
fn recover(journals: [&Path; 2], kept: Revision) -> Result<Vec<Change>, Error> {
    let mut found = Vec::new();
    for path in journals {
        found.extend(journal::read(path, kept)?);
    }
    found.sort_by_key(|change| change.revision);
    let mut expected = kept;
    for change in &found {
        expected = expected.next();
        if change.revision != expected {
            let reason = format!("the journals lack revision {expected}, but have {}", change.revision);
            return Err(Error::Damaged { reason });
        }
    }
    Ok(found)
}

impl Keeper {
    fn start(mut disk: Disk) -> std::io::Result<Self> {
        let (work, todo) = channel::<Vec<Change>>();
        let (tell, done) = channel();
        let thread = std::thread::Builder::new().name("store-keeper".to_owned()).spawn(move || {
            for changes in todo {
                let outcome = disk.commit(&changes);
                let failed = outcome.is_err();
                if tell.send(outcome).is_err() || failed {
                    return;
                }
            }
        })?;
        Ok(Self { work: Some(work), done, busy: false, thread: Some(thread) })
    }

    /// At most one piece of work is given at a time.
    fn give(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        self.busy = true;
        self.work.as_ref().and_then(|work| work.send(changes).ok()).ok_or_else(gone)
    }

    /// Takes note of work that is done.
    fn look(&mut self) -> Result<(), Error> {
        match self.done.try_recv() {
            Ok(outcome) => {
                self.busy = false;
                outcome
            }
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => Err(gone()),
        }
    }

    /// Waits until there is nothing to do.
    fn wait(&mut self) -> Result<(), Error> {
        if !self.busy {
            return Ok(());
        }
        self.busy = false;
        self.done.recv().map_err(|_| gone())?
    }
}

fn gone() -> Error {
    Error::Unavailable { reason: "the file of records cannot be written any more".to_owned() }
}
