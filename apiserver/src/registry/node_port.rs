//! Node ports (upstream `registry/core/service/portallocator`).
//!
//! One record in the store holds a bit for each port of the range; it is changed by compare-and-swap, so that several
//! servers never give out a port twice. Its form is upstream's RangeAllocation.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rand::Rng as _;
use serde_json::{Value, json};
use store::{Expect, KeyValue, Store};

use crate::config::PortRange;

/// So often a change is tried while others change the record too.
const ATTEMPTS: usize = 100;

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None is free.
    #[error("range is full")]
    Full,
    /// Somebody has it.
    #[error("provided port is already allocated")]
    Allocated,
    /// It is none of ours.
    #[error("provided port is not in the valid range. The range of valid ports is {0}")]
    NotInRange(String),
    /// The record cannot be read or written.
    #[error("{0}")]
    Store(#[from] store::Error),
    /// The record belongs to another range.
    #[error("the provided port range does not match the current port range")]
    Mismatched,
}

/// Gives out node ports.
pub struct NodePorts {
    store: Arc<dyn Store>,
    key: String,
    range: PortRange,
}

/// The ports in use, as offsets into the range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bitmap(Vec<u8>);

impl Bitmap {
    fn has(&self, offset: u16) -> bool {
        self.0.get(usize::from(offset / 8)).is_some_and(|byte| byte & (1 << (offset % 8)) != 0)
    }

    fn set(&mut self, offset: u16, used: bool) {
        let at = usize::from(offset / 8);
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        let bit = 1 << (offset % 8);
        if used { self.0[at] |= bit } else { self.0[at] &= !bit }
    }

    /// As upstream writes it: one big number, most significant byte first, without leading zeros.
    fn encode(&self) -> String {
        let mut bytes = self.0.clone();
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        bytes.reverse();
        STANDARD.encode(bytes)
    }

    fn decode(text: &str) -> Option<Self> {
        let mut bytes = STANDARD.decode(text).ok()?;
        bytes.reverse();
        Some(Self(bytes))
    }
}

/// How many ports at the start of the range are left for those who ask for a certain one, as long as others are free.
fn static_band(size: u16) -> u16 {
    if size <= 16 { 0 } else { (size / 32).clamp(16, 128) }
}

/// A free offset, starting the search at a random place of the upper band.
fn next_free(bitmap: &Bitmap, size: u16) -> Option<u16> {
    let band = static_band(size);
    let mut random = rand::rng();
    let mut search = |from: u16, to: u16| {
        let count = to.checked_sub(from).filter(|count| *count > 0)?;
        let start = random.random_range(0..count);
        (0..count).map(|i| from + (start + i) % count).find(|offset| !bitmap.has(*offset))
    };
    search(band, size).or_else(|| search(0, band))
}

impl NodePorts {
    /// `storage_prefix`: what every key begins with.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, storage_prefix: &str, range: PortRange) -> Self {
        let key = format!("{}/ranges/servicenodeports", storage_prefix.trim_end_matches('/'));
        Self { store, key, range }
    }

    fn shown(&self) -> String {
        format!("{}-{}", self.range.base, self.range.base + (self.range.size - 1))
    }

    fn offset(&self, port: i32) -> Option<u16> {
        let port = u16::try_from(port).ok()?;
        port.checked_sub(self.range.base).filter(|offset| *offset < self.range.size)
    }

    async fn load(&self) -> Result<(Bitmap, Option<KeyValue>), Error> {
        let (record, _) = self.store.get(&self.key).await?;
        let Some(record) = record else { return Ok((Bitmap::default(), None)) };
        let value: Value = serde_json::from_slice(&record.value).map_err(|_| Error::Mismatched)?;
        if value["range"].as_str() != Some(self.shown().as_str()) {
            // The range was configured anew: ports of the old one are no longer given out.
            return Ok((Bitmap::default(), Some(record)));
        }
        let bitmap = Bitmap::decode(value["data"].as_str().unwrap_or_default()).ok_or(Error::Mismatched)?;
        Ok((bitmap, Some(record)))
    }

    /// Changes the record; `change` gives the result, or an error that leaves the record as it is.
    async fn change<T>(&self, change: impl Fn(&mut Bitmap) -> Result<T, Error>) -> Result<T, Error> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (before, record) = self.load().await?;
            let mut bitmap = before.clone();
            let result = change(&mut bitmap)?;
            if bitmap == before && record.is_some() {
                return Ok(result);
            }
            let value = json!({
                "kind": "RangeAllocation", "apiVersion": "v1", "metadata": {},
                "range": self.shown(), "data": bitmap.encode()});
            let expect = record.map_or(Expect::Absent, |record| Expect::At(record.modified));
            match self.store.put(&self.key, Bytes::from(value.to_string()), expect, None).await {
                Ok(_) => return Ok(result),
                Err(error @ store::Error::Conflict { .. }) => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or(Error::Full, Error::Store))
    }

    /// Takes a certain port.
    pub async fn allocate(&self, port: i32) -> Result<(), Error> {
        let offset = self.offset(port).ok_or_else(|| Error::NotInRange(self.shown()))?;
        self.change(|bitmap| {
            if bitmap.has(offset) {
                return Err(Error::Allocated);
            }
            bitmap.set(offset, true);
            Ok(())
        })
        .await
    }

    /// Takes any port.
    pub async fn allocate_next(&self) -> Result<i32, Error> {
        let (size, base) = (self.range.size, self.range.base);
        self.change(|bitmap| {
            let offset = next_free(bitmap, size).ok_or(Error::Full)?;
            bitmap.set(offset, true);
            Ok(i32::from(base + offset))
        })
        .await
    }

    /// Whether the port is taken.
    pub async fn has(&self, port: i32) -> Result<bool, Error> {
        let (bitmap, _) = self.load().await?;
        Ok(self.offset(port).is_some_and(|offset| bitmap.has(offset)))
    }

    /// Gives ports back; those that are free or none of ours do not matter.
    pub async fn release(&self, ports: &[i32]) -> Result<(), Error> {
        let offsets: Vec<u16> = ports.iter().filter_map(|port| self.offset(*port)).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        self.change(|bitmap| {
            offsets.iter().for_each(|offset| bitmap.set(*offset, false));
            Ok(())
        })
        .await
    }

    /// Marks the ports that Services have, and returns those marked that no Service has. A port that stays in the
    /// result over several rounds has leaked and should be released.
    pub async fn repair(&self, in_use: &[i32]) -> Result<Vec<i32>, Error> {
        let used: Vec<u16> = in_use.iter().filter_map(|port| self.offset(*port)).collect();
        let (size, base) = (self.range.size, self.range.base);
        self.change(|bitmap| {
            used.iter().for_each(|offset| bitmap.set(*offset, true));
            let stray = (0..size).filter(|offset| bitmap.has(*offset) && !used.contains(offset));
            Ok(stray.map(|offset| i32::from(base + offset)).collect())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_is_upstreams() {
        let mut bitmap = Bitmap::default();
        for offset in [0, 1, 9] {
            bitmap.set(offset, true);
        }
        assert_eq!(bitmap.encode(), STANDARD.encode([0b10, 0b11]));
        assert_eq!(Bitmap::decode(&bitmap.encode()), Some(bitmap.clone()));
        bitmap.set(9, false);
        assert_eq!(bitmap.encode(), STANDARD.encode([0b11]));
    }

    #[test]
    fn the_upper_band_is_used_first() {
        for (size, band) in [(16, 0), (17, 16), (1024, 32), (2768, 86), (10000, 128)] {
            assert_eq!(static_band(size), band, "{size}");
        }
        let mut bitmap = Bitmap::default();
        for _ in 0..48 {
            let offset = next_free(&bitmap, 64).expect("free");
            assert!(offset >= 16);
            bitmap.set(offset, true);
        }
        assert!(next_free(&bitmap, 64).expect("lower band") < 16);
    }

    #[test]
    fn a_full_range_has_nothing() {
        let mut bitmap = Bitmap::default();
        (0..4).for_each(|offset| bitmap.set(offset, true));
        assert_eq!(next_free(&bitmap, 4), None);
    }

    fn ports(store: &Arc<dyn Store>, size: u16) -> NodePorts {
        NodePorts::new(store.clone(), "/registry", PortRange { base: 30000, size })
    }

    #[tokio::test]
    async fn a_port_is_given_out_once() {
        let store: Arc<dyn Store> = Arc::new(store::embedded::Embedded::in_memory());
        let (one, other) = (ports(&store, 100), ports(&store, 100));
        one.allocate(30001).await.expect("free");
        let error = other.allocate(30001).await.expect_err("taken").to_string();
        assert_eq!(error, "provided port is already allocated");
        let error = one.allocate(29999).await.expect_err("outside").to_string();
        assert_eq!(error, "provided port is not in the valid range. The range of valid ports is 30000-30099");
        assert!(other.has(30001).await.expect("read"));
        other.release(&[30001, 5]).await.expect("released");
        one.allocate(30001).await.expect("free again");
    }

    #[tokio::test]
    async fn servers_that_hurry_never_share_a_port() {
        let store: Arc<dyn Store> = Arc::new(store::embedded::Embedded::in_memory());
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let ports = ports(&store, 64);
                tokio::spawn(async move {
                    let mut taken = Vec::new();
                    for _ in 0..16 {
                        taken.push(ports.allocate_next().await.expect("free"));
                    }
                    taken
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("task"));
        }
        all.sort_unstable();
        assert_eq!(all, (30000..30064).collect::<Vec<_>>());
        assert_eq!(ports(&store, 64).allocate_next().await.expect_err("full").to_string(), "range is full");
    }

    #[tokio::test]
    async fn repair_marks_what_is_used_and_finds_what_is_not() {
        let store: Arc<dyn Store> = Arc::new(store::embedded::Embedded::in_memory());
        let ports = ports(&store, 64);
        ports.allocate(30001).await.expect("free");
        assert_eq!(ports.repair(&[30002]).await.expect("repaired"), [30001]);
        assert!(ports.has(30002).await.expect("read"));
    }
}
