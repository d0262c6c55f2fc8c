//! The objects of one resource in key order, as a structure whose copies are cheap: chunks behind `Arc`s. Nothing
//! is copied while nobody holds a snapshot; with a snapshot alive a change copies one chunk and the spine.

use std::sync::Arc;

use super::object::CachedObject;

/// A chunk is split when it grows beyond this.
const MOST: usize = 128;
/// A chunk is merged with its neighbour when both together are not more than this.
const FEW: usize = 48;
/// So many objects are enough to guess the size of all.
const SAMPLES: usize = 16;

type Chunk = Vec<Arc<CachedObject>>;

/// Objects in the order of their keys. A clone is a snapshot.
#[derive(Clone, Default)]
pub(super) struct Ordered {
    chunks: Arc<Vec<Arc<Chunk>>>,
    len: usize,
}

impl Ordered {
    /// Takes objects in any order, no key twice.
    pub(super) fn build(mut objects: Vec<Arc<CachedObject>>) -> Self {
        objects.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let len = objects.len();
        let chunks = objects.chunks(MOST / 2).map(|chunk| Arc::new(chunk.to_vec())).collect();
        Self { chunks: Arc::new(chunks), len }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The chunk that holds `key`, or would.
    fn chunk_of(&self, key: &str) -> usize {
        self.chunks.partition_point(|chunk| chunk[0].key() <= key).saturating_sub(1)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<CachedObject>> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let found = chunk.binary_search_by(|object| object.key().cmp(key)).ok()?;
        Some(&chunk[found])
    }

    /// Puts an object in; returns the one it replaces.
    pub(super) fn insert(&mut self, object: Arc<CachedObject>) -> Option<Arc<CachedObject>> {
        let at = self.chunk_of(object.key());
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![object]));
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|known| known.key().cmp(object.key())) {
            Ok(found) => Some(std::mem::replace(&mut chunk[found], object)),
            Err(place) => {
                chunk.insert(place, object);
                self.len += 1;
                if chunk.len() > MOST {
                    // Keys that only grow fill chunks to the end instead of leaving all of them half empty.
                    let appended = place + 1 == chunk.len();
                    let upper = chunk.split_off(if appended { MOST } else { MOST / 2 });
                    chunks.insert(at + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Takes an object out.
    pub(super) fn remove(&mut self, key: &str) -> Option<Arc<CachedObject>> {
        let at = self.chunk_of(key);
        let found = self.chunks.get(at)?.binary_search_by(|object| object.key().cmp(key)).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let removed = chunk.remove(found);
        self.len -= 1;
        if chunk.is_empty() {
            chunks.remove(at);
        } else if at + 1 < chunks.len() && chunks[at].len() + chunks[at + 1].len() <= FEW {
            let upper = chunks.remove(at + 1);
            Arc::make_mut(&mut chunks[at]).extend(upper.iter().cloned());
        }
        Some(removed)
    }

    /// All objects.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<CachedObject>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The size of an object in bytes, on average over the first ones of a few chunks.
    pub(super) fn average_size(&self) -> usize {
        let step = (self.chunks.len() / SAMPLES).max(1);
        let (mut count, mut bytes) = (0, 0);
        for object in self.chunks.iter().step_by(step).filter_map(|chunk| chunk.first()) {
            count += 1;
            bytes += object.json_len();
        }
        bytes / count.max(1)
    }

    /// How many keys are smaller than `key`.
    pub(super) fn rank(&self, key: &str) -> usize {
        let at = self.chunk_of(key);
        let before: usize = self.chunks[..at.min(self.chunks.len())].iter().map(|chunk| chunk.len()).sum();
        before + self.chunks.get(at).map_or(0, |chunk| chunk.partition_point(|object| object.key() < key))
    }

    /// The objects from `start` (inclusive) to `end` (exclusive; `None`: to the last), as a snapshot.
    pub(super) fn cursor(&self, start: &str, end: Option<String>) -> Cursor {
        let chunk = self.chunk_of(start);
        let place = self.chunks.get(chunk).map_or(0, |c| c.partition_point(|object| object.key() < start));
        Cursor { objects: self.clone(), chunk, place, end }
    }
}

/// Walks over a snapshot.
pub(super) struct Cursor {
    objects: Ordered,
    chunk: usize,
    place: usize,
    end: Option<String>,
}

impl Iterator for Cursor {
    type Item = Arc<CachedObject>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let chunk = self.objects.chunks.get(self.chunk)?;
            let Some(object) = chunk.get(self.place) else {
                self.chunk += 1;
                self.place = 0;
                continue;
            };
            if self.end.as_deref().is_some_and(|end| object.key() >= end) {
                return None;
            }
            self.place += 1;
            return Some(Arc::clone(object));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use store::{KeyValue, Revision};

    use super::super::{ResourceSpec, ingest};
    use super::*;

    fn object(key: &str, revision: u64) -> Arc<CachedObject> {
        let prefix = "/r/".to_owned();
        let spec = ResourceSpec { prefix, namespaced: false, fields: None, node_index: false, decode: None };
        let value = Bytes::from_static(br#"{"metadata":{}}"#);
        let modified = Revision(revision);
        let kv = KeyValue { key: format!("/r/{key}"), value, created: modified, modified };
        Arc::new(ingest(&spec, kv).expect("valid"))
    }

    fn contents(objects: &Ordered) -> Vec<(String, u64)> {
        objects.cursor("", None).map(|object| (object.key().to_owned(), object.revision.0)).collect()
    }

    #[test]
    fn it_behaves_as_a_map_and_snapshots_do_not_change() {
        let mut random = StdRng::seed_from_u64(7);
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        let mut objects = Ordered::default();
        let mut snapshots = Vec::new();
        for step in 0..6000_u64 {
            let key = format!("{:04}", random.random_range(0..900));
            // Grows first, shrinks later, so that chunks are split and merged.
            if random.random_range(0..6000) > step {
                let old = objects.insert(object(&key, step)).map(|object| object.revision.0);
                assert_eq!(old, model.insert(key, step));
            } else {
                let old = objects.remove(&key).map(|object| object.revision.0);
                assert_eq!(old, model.remove(&key));
            }
            assert_eq!(objects.len(), model.len());
            if step % 500 == 0 {
                snapshots.push((objects.clone(), model.clone()));
            }
            if step % 100 == 0 {
                let probe = format!("{:04}", random.random_range(0..900));
                assert_eq!(objects.get(&probe).map(|o| o.revision.0), model.get(&probe).copied());
                assert_eq!(objects.rank(&probe), model.range(..probe.clone()).count());
                let end = format!("{:04}", random.random_range(0..900));
                let found: Vec<_> =
                    objects.cursor(&probe, Some(end.clone())).map(|o| o.key().to_owned()).collect();
                let wanted: Vec<_> = model.keys().filter(|k| **k >= probe && **k < end).cloned().collect();
                assert_eq!(found, wanted);
            }
        }
        for (objects, model) in snapshots {
            assert_eq!(contents(&objects), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn building_sorts() {
        let objects = Ordered::build((0..1000).rev().map(|n| object(&format!("{n:04}"), n)).collect());
        assert_eq!(objects.len(), 1000);
        let keys: Vec<_> = contents(&objects).into_iter().map(|(key, _)| key).collect();
        assert!(keys.is_sorted());
    }
}
