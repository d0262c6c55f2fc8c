//! Files that outlive the kubelet: JSON with a checksum, as upstream's, so that either kubelet may follow the other.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused.
    #[error("checkpoint file")]
    Io(#[from] io::Error),
    /// It is no checkpoint.
    #[error("checkpoint format")]
    Format(#[from] serde_json::Error),
    /// It was written halfway, or by another hand.
    #[error("checkpoint is corrupted")]
    Corrupt,
    /// It says what cannot be.
    #[error("{0}")]
    Nonsense(String),
}

/// What the file holds; `None` when there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file as a whole. It is not forced to disk: with the machine, everything it tells of has ended too.
pub fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::write(&new, serde_json::to_vec(value)?)?;
    Ok(std::fs::rename(new, path)?)
}

/// Whether a file says less than its owner knows, because the disk refused: then it is written again whenever the owner
/// looks, so that a restart once there is room finds all of it.
#[derive(Debug, Default)]
pub(crate) struct Behind(AtomicBool);

impl Behind {
    /// Notes whether the file was written; `what` is what it tells of.
    pub(crate) fn note(&self, written: Result<(), Error>, path: &Path, what: &str) {
        let failed = written.is_err();
        // Said once, not at every try.
        if self.0.swap(failed, Ordering::Relaxed) != failed {
            match written {
                Ok(()) => tracing::info!(path = %path.display(), "{what} is kept again"),
                Err(error) => {
                    tracing::error!(path = %path.display(), error = client::chain(&error), "cannot keep {what}");
                }
            }
        }
    }

    /// Whether it is.
    pub(crate) fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the file of a manager (`CPU`, `memory`) says, or in upstream's words why the node cannot go on with it.
pub(crate) fn restored<T>(state: Result<T, Error>, manager: &str, path: &Path) -> Result<T, String> {
    state.map_err(|error| {
        format!(
            "could not restore state from checkpoint: {}, please drain this node and delete the {manager} manager \
             checkpoint file {:?} before restarting Kubelet",
            client::chain(&error),
            path.display().to_string()
        )
    })
}

/// The containers, by UID of their pod and name, of pods that are not kept.
pub(crate) fn gone<T>(
    assignments: &BTreeMap<String, BTreeMap<String, T>>,
    keep: &dyn Fn(&str) -> bool,
) -> Vec<(String, String)> {
    let pods = assignments.iter().filter(|(uid, _)| !keep(uid));
    let containers = |uid: &String, pod: &BTreeMap<String, T>| -> Vec<_> {
        pod.keys().map(|container| (uid.clone(), container.clone())).collect()
    };
    pods.flat_map(|(uid, pod)| containers(uid, pod)).collect()
}

/// Whether a value is the one that its sum was made of; 0 is none, as upstream has it.
///
/// # Errors
/// It is not.
pub(crate) fn verify(sum: u64, shown: &str) -> Result<(), Error> {
    if sum == 0 || sum == checksum(shown) { Ok(()) } else { Err(Error::Corrupt) }
}

/// FNV-1a, 32 bits, of a value as Go's deep printer shows it.
#[must_use]
pub fn checksum(shown: &str) -> u64 {
    let fold = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    u64::from(shown.bytes().fold(0x811c_9dc5, fold))
}

/// A map as Go's deep printer shows it; keys must come sorted.
pub fn go_map(entries: impl IntoIterator<Item = (String, String)>) -> String {
    let entries: Vec<_> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("map[{}]", entries.join(" "))
}

/// A list as Go's deep printer shows it; one that was never made is none.
pub fn go_list(items: Option<Vec<String>>) -> String {
    items.map_or_else(|| "<nil>".to_owned(), |items| format!("[{}]", items.join(" ")))
}
