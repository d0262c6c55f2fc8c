//! What is on disk: one redb file with the present state of every key, and a summary: the revision, how many
//! records there are, their checksums taken together. So a lost or stale record is noticed as well as a changed one.
//!
//! A record is: revision of the last change, revision of creation, expiry in milliseconds since the epoch (0:
//! none), CRC32C over key and all of the record but itself, value. redb keeps no checksum of values, so bit rot
//! would go unnoticed without ours.

use std::path::Path;

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::memory::Change;
use crate::{Error, KeyValue, Revision};

const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The parts of the summary, and a checksum of these.
const SUMMARY: [&str; 4] = ["revision", "count", "digest", "check"];
const HEADER: usize = 28;
const CACHE: usize = 4 << 20;

/// What was on disk: the revision, and every key with its expiry.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) revision: Revision,
    pub(super) items: Vec<(KeyValue, Option<u64>)>,
}

/// What all records together must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Summary {
    revision: u64,
    count: u64,
    /// All records' checksums, xored.
    digest: u64,
}

impl Summary {
    fn numbers(self) -> [u64; 4] {
        let parts = [self.revision, self.count, self.digest];
        let check = parts.iter().fold(0, |sum, part| crc32c::crc32c_append(sum, &part.to_le_bytes()));
        [self.revision, self.count, self.digest, u64::from(check)]
    }
}

/// The open file.
pub(super) struct Disk {
    database: Database,
    summary: Summary,
}

/// The directory or file cannot be used.
pub(super) fn unusable(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::Unavailable { reason: format!("{}: {error}", path.display()) }
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::Damaged { reason: error.to_string() }
}

impl Disk {
    pub(super) fn open(path: &Path) -> Result<(Self, Loaded), Error> {
        let database = Database::builder().set_cache_size(CACHE).create(path);
        let database = database.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => unusable(path, "another process uses this store"),
            redb::DatabaseError::Storage(redb::StorageError::Io(error)) => unusable(path, error),
            other => Error::Damaged { reason: format!("{}: {other}", path.display()) },
        })?;
        let mut disk = Self { database, summary: Summary::default() };
        let loaded = disk.load()?;
        Ok((disk, loaded))
    }

    /// Reads and checks all that is there.
    pub(super) fn load(&mut self) -> Result<Loaded, Error> {
        let create = self.database.begin_write().map_err(damaged)?;
        create.open_table(OBJECTS).map_err(damaged)?;
        create.open_table(META).map_err(damaged)?;
        create.commit().map_err(damaged)?;
        let read = self.database.begin_read().map_err(damaged)?;
        let meta = read.open_table(META).map_err(damaged)?;
        let mut written = [None; 4];
        for (part, name) in written.iter_mut().zip(SUMMARY) {
            *part = meta.get(name).map_err(damaged)?.map(|number| number.value());
        }
        let mut items = vec![];
        let mut found = Summary { revision: written[0].unwrap_or(1), ..Summary::default() };
        for entry in read.open_table(OBJECTS).map_err(damaged)?.iter().map_err(damaged)? {
            let (key, record) = entry.map_err(damaged)?;
            items.push(decode(key.value(), record.value())?);
            found.count += 1;
            found.digest ^= stored_sum(record.value());
        }
        let fresh = written == [None; 4] && items.is_empty();
        if !fresh && written != found.numbers().map(Some) {
            return Err(damaged("records are missing or stale: together they do not match their summary"));
        }
        self.summary = found;
        Ok(Loaded { revision: Revision(found.revision), items })
    }

    /// Writes changes so that they survive whatever happens next. Of a key that changed several times the last change
    /// is enough.
    pub(super) fn commit(&mut self, changes: &[Change]) -> Result<(), Error> {
        let Some(last) = changes.iter().map(|change| change.revision).max() else { return Ok(()) };
        let mut summary = Summary { revision: last.0, ..self.summary };
        let mut write = self.database.begin_write().map_err(damaged)?;
        write.set_durability(Durability::Immediate).map_err(damaged)?;
        {
            let mut objects = write.open_table(OBJECTS).map_err(damaged)?;
            for change in changes {
                let key = change.key.as_str();
                let old = match &change.value {
                    Some(value) => {
                        let record = encode(change, value);
                        summary.count += 1;
                        summary.digest ^= stored_sum(&record);
                        objects.insert(key, record.as_slice()).map_err(damaged)?
                    }
                    None => objects.remove(key).map_err(damaged)?,
                };
                if let Some(old) = old {
                    summary.count -= 1;
                    summary.digest ^= stored_sum(old.value());
                }
            }
            let mut meta = write.open_table(META).map_err(damaged)?;
            for (name, number) in SUMMARY.into_iter().zip(summary.numbers()) {
                meta.insert(name, number).map_err(damaged)?;
            }
        }
        write.commit().map_err(damaged)?;
        self.summary = summary;
        Ok(())
    }
}

fn encode(change: &Change, value: &Bytes) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEADER + value.len());
    record.extend(change.revision.0.to_le_bytes());
    record.extend(change.created.0.to_le_bytes());
    record.extend(change.expires.unwrap_or(0).to_le_bytes());
    let sum = checksum(&change.key, &record, value);
    record.extend(sum.to_le_bytes());
    record.extend_from_slice(value);
    record
}

/// The checksum that a record carries.
fn stored_sum(record: &[u8]) -> u64 {
    record.get(24..HEADER).unwrap_or_default().iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn checksum(key: &str, header: &[u8], value: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key.as_bytes()), header), value)
}

fn decode(key: &str, record: &[u8]) -> Result<(KeyValue, Option<u64>), Error> {
    let bad = || Error::Damaged { reason: format!("the record of {key} does not match its checksum") };
    let (header, value) = record.split_at_checked(HEADER).ok_or_else(bad)?;
    let number = |at: usize| header[at..at + 8].iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let sum = header[24..28].iter().rev().fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
    if sum != checksum(key, &header[..24], value) {
        return Err(bad());
    }
    let kv = KeyValue {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        modified: Revision(number(0)),
        created: Revision(number(8)),
    };
    Ok((kv, Some(number(16)).filter(|at| *at != 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let value = Bytes::from_static(b"{\"kind\":\"Pod\"}");
        let change = Change {
            key: "/registry/pods/a".into(),
            revision: Revision(7),
            created: Revision(3),
            value: Some(value.clone()),
            expires: Some(99),
        };
        let record = encode(&change, &value);
        let (kv, expires) = decode(&change.key, &record).expect("a sound record");
        assert_eq!((kv.modified, kv.created, expires, kv.value), (Revision(7), Revision(3), Some(99), value));
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&change.key, &bad).is_err(), "bit {bit}");
        }
        assert!(decode("/registry/pods/b", &record).is_err(), "a record under another key");
        assert!(decode(&change.key, &record[..20]).is_err(), "a cut record");
    }
}
