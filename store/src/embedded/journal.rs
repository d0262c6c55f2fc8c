//! The journal: a file to which batches of changes are appended, each as a frame that is whole or not there.
//!
//! A frame is: marker, length of what follows the checksum, CRC32C of it, revision of the first change, the changes.
//! Revisions go up by one from change to change, and so from frame to frame. A journal is written anew from its
//! beginning once everything in it stands elsewhere, so behind its last frame there may be remains of older ones: their
//! revisions are lower. A frame is on disk before the next one is begun; so at most the last one can be torn, and a
//! sound newer frame behind one that is not sound means damage.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::memory::Change;
use crate::{Error, Revision};

/// Stands before each frame. No value has these bytes: JSON has neither of them.
const MARKER: [u8; 4] = [0xff, 0x00, b'J', b'1'];
/// Marker, length, checksum.
const HEAD: usize = 12;
/// A buffer that one large batch has made larger than this is not kept.
const KEPT_BUFFER: usize = 1 << 20;
/// The length that stands for no value: the key was deleted.
const DELETED: u32 = u32::MAX;

/// A journal that is written.
pub(super) struct Journal {
    file: File,
    end: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens the file, or makes it. It is written from its beginning.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        Ok(Self { file, end: 0, buffer: Vec::new() })
    }

    /// Appends changes; they survive whatever happens next. After an error nobody knows what is on disk.
    pub(super) fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        self.buffer.clear();
        write_frame(&mut self.buffer, changes)?;
        self.file.write_all_at(&self.buffer, self.end)?;
        self.file.sync_data()?;
        self.end += self.buffer.len() as u64;
        if self.buffer.capacity() > KEPT_BUFFER {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// How many bytes are in use.
    pub(super) fn len(&self) -> u64 {
        self.end
    }

    /// Begins anew. What was there must stand elsewhere.
    pub(super) fn rewind(&mut self) {
        self.end = 0;
    }
}

fn write_frame(out: &mut Vec<u8>, changes: &[Change]) -> io::Result<()> {
    let length = |bytes: &[u8]| {
        u32::try_from(bytes.len()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "too long"))
    };
    out.extend([0; HEAD]);
    let first = changes.first().map_or(0, |change| change.revision.0);
    out.extend(first.to_le_bytes());
    for change in changes {
        out.extend(change.created.0.to_le_bytes());
        out.extend(change.expires.unwrap_or(0).to_le_bytes());
        out.extend(length(change.key.as_bytes())?.to_le_bytes());
        out.extend(change.value.as_deref().map_or(Ok(DELETED), length)?.to_le_bytes());
        out.extend_from_slice(change.key.as_bytes());
        out.extend_from_slice(change.value.as_deref().unwrap_or_default());
    }
    let body = &out[HEAD..];
    let (length, sum) = (length(body)?, crc32c::crc32c(body));
    out[..4].copy_from_slice(&MARKER);
    out[4..8].copy_from_slice(&length.to_le_bytes());
    out[8..HEAD].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// The changes in a journal, in order; none if there is no such file. `kept` is the revision up to which everything
/// stands elsewhere: older remains do not count.
///
/// # Errors
/// The file cannot be read, or a frame before the last is damaged.
pub(super) fn read(path: &Path, kept: Revision) -> Result<Vec<Change>, Error> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(super::disk::unusable(path, error)),
    }
    let bytes = Bytes::from(bytes);
    let (mut changes, mut at): (Vec<Change>, usize) = (Vec::new(), 0);
    while let Some((frame, length)) = frame(&bytes, at) {
        let follows =
            |last: &Change| frame.first().is_some_and(|first| first.revision == last.revision.next());
        if !changes.last().is_none_or(follows) {
            break;
        }
        changes.extend(frame);
        at += length;
    }
    let newest = changes.last().map_or(kept, |change| change.revision.max(kept));
    if newer_frame(&bytes, at, newest) {
        return Err(Error::Damaged {
            reason: format!("{}: a record at byte {at} is damaged", path.display()),
        });
    }
    changes.retain(|change| change.revision > kept);
    Ok(changes)
}

/// Whether there is a sound frame with newer changes than `newest` anywhere behind a place.
fn newer_frame(bytes: &Bytes, from: usize, newest: Revision) -> bool {
    let places = bytes.get(from..).unwrap_or_default().windows(MARKER.len()).enumerate();
    let mut starts = places.filter(|(_, window)| *window == MARKER).map(|(at, _)| from + at);
    starts.any(|at| {
        let last = frame(bytes, at).and_then(|(changes, _)| changes.last().map(|last| last.revision));
        last.is_some_and(|last| last > newest)
    })
}

/// The changes of the frame at a place, and its length; `None` if no sound frame is there.
fn frame(bytes: &Bytes, at: usize) -> Option<(Vec<Change>, usize)> {
    let head = bytes.get(at..at + HEAD)?;
    let length = u32::from_le_bytes(head[4..8].try_into().ok()?) as usize;
    let sum = u32::from_le_bytes(head[8..].try_into().ok()?);
    let end = (at + HEAD).checked_add(length)?;
    if head[..4] != MARKER || bytes.len() < end {
        return None;
    }
    let mut rest = bytes.slice(at + HEAD..end);
    if crc32c::crc32c(&rest) != sum {
        return None;
    }
    let mut revision = Revision(take(&mut rest, 8)?.try_into().map(u64::from_le_bytes).ok()?);
    let mut changes = Vec::new();
    while !rest.is_empty() {
        changes.push(change(&mut rest, revision)?);
        revision = revision.next();
    }
    Some((changes, HEAD + length))
}

fn change(rest: &mut Bytes, revision: Revision) -> Option<Change> {
    let created = Revision(take(rest, 8)?.try_into().map(u64::from_le_bytes).ok()?);
    let expires: u64 = take(rest, 8)?.try_into().map(u64::from_le_bytes).ok()?;
    let key: u32 = take(rest, 4)?.try_into().map(u32::from_le_bytes).ok()?;
    let value: u32 = take(rest, 4)?.try_into().map(u32::from_le_bytes).ok()?;
    let key = String::from_utf8(take(rest, key as usize)?).ok()?;
    // Copied: a part of the file's text would keep all of it.
    let value = if value == DELETED { None } else { Some(Bytes::from(take(rest, value as usize)?)) };
    Some(Change { key, revision, created, value, expires: Some(expires).filter(|at| *at != 0) })
}

fn take(rest: &mut Bytes, count: usize) -> Option<Vec<u8>> {
    (count <= rest.len()).then(|| rest.split_to(count).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(revision: u64, text: Option<&str>) -> Change {
        Change {
            key: format!("/registry/{revision}"),
            revision: Revision(revision),
            created: Revision(revision / 2),
            value: text.map(|text| Bytes::copy_from_slice(text.as_bytes())),
            expires: revision.is_multiple_of(3).then_some(revision),
        }
    }

    fn batch(revisions: std::ops::RangeInclusive<u64>) -> Vec<Change> {
        revisions.map(|n| change(n, (n % 4 != 1).then_some("some text"))).collect()
    }

    fn revisions(changes: &[Change]) -> Vec<u64> {
        changes.iter().map(|change| change.revision.0).collect()
    }

    struct Written {
        _dir: tempfile::TempDir,
        path: std::path::PathBuf,
        journal: Journal,
        /// Where the last frame begins.
        last: usize,
    }

    fn journal(batches: &[std::ops::RangeInclusive<u64>]) -> Written {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path).expect("open");
        let mut last = 0;
        for revisions in batches {
            last = usize::try_from(journal.len()).expect("short");
            journal.append(&batch(revisions.clone())).expect("append");
        }
        Written { _dir: dir, path, journal, last }
    }

    #[test]
    fn what_was_appended_is_read() {
        let written = journal(&[1..=3, 4..=4, 5..=9]);
        let found = read(&written.path, Revision(0)).expect("sound");
        let expected = batch(1..=9);
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        assert_eq!(revisions(&read(&written.path, Revision(6)).expect("sound")), [7, 8, 9]);
        assert!(read(&written.path.with_extension("not"), Revision(0)).expect("no file").is_empty());
    }

    #[test]
    fn of_a_torn_end_nothing_is_read() {
        let written = journal(&[1..=3, 4..=6]);
        let whole = std::fs::read(&written.path).expect("read");
        for length in written.last..whole.len() {
            std::fs::write(&written.path, &whole[..length]).expect("write");
            assert_eq!(revisions(&read(&written.path, Revision(0)).expect("sound")), [1, 2, 3], "{length}");
            // The same with the rest of the frame not written, in a file that was longer before.
            let mut holes = whole.clone();
            holes[length..].fill(0);
            std::fs::write(&written.path, &holes).expect("write");
            let found = revisions(&read(&written.path, Revision(0)).expect("sound"));
            assert!(found == [1, 2, 3] || holes == whole, "{length}: {found:?}");
        }
    }

    #[test]
    fn every_flipped_bit_before_the_last_frame_is_damage() {
        let written = journal(&[1..=2, 3..=4]);
        let whole = std::fs::read(&written.path).expect("read");
        for bit in 0..written.last * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&written.path, &bad).expect("write");
            let found = read(&written.path, Revision(0));
            assert!(matches!(found, Err(Error::Damaged { .. })), "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn remains_of_what_stands_elsewhere_do_not_count() {
        let mut written = journal(&[1..=5, 6..=7, 8..=20]);
        written.journal.rewind();
        assert_eq!(written.journal.len(), 0);
        assert!(read(&written.path, Revision(20)).expect("sound").is_empty());
        written.journal.append(&batch(30..=31)).expect("append");
        written.journal.append(&batch(32..=32)).expect("append");
        assert_eq!(revisions(&read(&written.path, Revision(20)).expect("sound")), [30, 31, 32]);
    }
}
