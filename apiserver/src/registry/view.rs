//! Cached objects of a custom resource in the version that is served, where a webhook converts them.
//!
//! The cache keeps such objects in the version that each is stored in. What the webhook makes of them is kept beside
//! them, so that an object is converted once for all readers of a version. Selectors are applied afterwards: labels
//! and selectable fields may differ between versions.

use std::sync::Arc;

use api::crd::Version;
use store::KeyValue;

use super::conversion::Converter;
use super::storage::encode;
use crate::cacher::{
    self, CachedObject, Error, Event, Filter, ListOptions, Page, ReadAt, Resource as Cache, ResourceSpec,
    WatchEvent, WatchOptions, WatchStart, ingest,
};

/// How many objects are converted before it is known whether more are wanted.
const CHUNK: usize = 200;

/// The objects of one version.
pub struct View {
    converter: Arc<Converter>,
    version: Arc<Version>,
    /// The number of the version in its definition.
    number: u32,
    /// What the JSON of objects begins with that are of the version already.
    own: String,
    spec: ResourceSpec,
}

impl View {
    /// Objects of `version`, cached below `prefix`.
    pub(super) fn new(
        converter: Arc<Converter>,
        version: Arc<Version>,
        number: u32,
        spec: ResourceSpec,
    ) -> Self {
        let own = format!("{{\"apiVersion\":\"{}\",", version.api_version());
        let spec = ResourceSpec { decode: None, ..spec };
        Self { converter, version, number, own, spec }
    }

    /// Converts objects that are in no cache.
    pub fn converter(&self) -> &Converter {
        &self.converter
    }

    /// The objects in the version of the view, in their order.
    pub async fn show(&self, objects: Vec<Arc<CachedObject>>) -> Result<Vec<Arc<CachedObject>>, Error> {
        let mut shown = objects;
        let mut missing = Vec::new();
        for (index, object) in shown.iter_mut().enumerate() {
            if object.json_starts_with(&self.own) {
                continue;
            }
            match object.version(self.number) {
                Some(known) => *object = known,
                None => missing.push(index),
            }
        }
        if missing.is_empty() {
            return Ok(shown);
        }
        let values = missing.iter().map(|index| shown[*index].value()).collect::<Result<Vec<_>, _>>()?;
        let converted = self.converter.convert(values, &self.version).await.map_err(Error::Conversion)?;
        for (index, value) in missing.into_iter().zip(converted) {
            let original = Arc::clone(&shown[index]);
            let kv = KeyValue {
                key: format!("{}{}", self.spec.prefix, original.key()),
                value: encode(&value),
                created: original.revision,
                modified: original.revision,
            };
            shown[index] = original.keep_version(self.number, Arc::new(ingest(&self.spec, kv)?));
        }
        Ok(shown)
    }

    async fn show_one(&self, object: &Arc<CachedObject>) -> Result<Arc<CachedObject>, Error> {
        let mut shown = self.show(vec![Arc::clone(object)]).await?;
        shown.pop().ok_or(Error::NotReady)
    }

    /// As [`Cache::list`].
    pub async fn list(&self, cache: &Cache, options: ListOptions) -> Result<Page, Error> {
        let (unselected, limit) = (without_selectors(&options.filter), options.limit);
        if options.filter.matches.is_none() {
            let mut page = cache.list(options).await?;
            page.items = self.show(page.items).await?;
            return Ok(page);
        }
        let all = cache.list(ListOptions { filter: unselected, limit: 0, ..options.clone() }).await?;
        let mut page = Page { items: Vec::new(), next: None, remaining: None, ..all };
        for chunk in all.items.chunks(CHUNK) {
            for object in self.show(chunk.to_vec()).await? {
                if !options.filter.wants(&object) {
                    continue;
                }
                if limit != 0 && page.items.len() == limit {
                    page.next = Some(object.key().to_owned());
                    return Ok(page);
                }
                page.items.push(object);
            }
        }
        Ok(page)
    }

    /// Prepares a watch: what is already there is converted together. The options of the watch of the cache.
    pub async fn open(&self, cache: &Cache, options: WatchOptions) -> Result<WatchOptions, Error> {
        let filter = without_selectors(&options.filter);
        if let WatchStart::Initial(at) | WatchStart::InitialWithBookmark(at) = options.start {
            let at = if let ReadAt::Exact(revision) = at { ReadAt::AtLeast(revision) } else { at };
            let present = ListOptions { at, filter: filter.clone(), limit: 0, start: None };
            self.show(cache.list(present).await?.items).await?;
        }
        Ok(WatchOptions { filter, ..options })
    }

    /// An event as whoever watches through `filter` sees it; `None`: not at all.
    pub async fn event(&self, filter: &Filter, event: WatchEvent) -> Result<Option<WatchEvent>, Error> {
        match event {
            WatchEvent::Bookmark { .. } => Ok(Some(event)),
            WatchEvent::Initial(object) => {
                let shown = self.show_one(&object).await?;
                Ok(filter.wants(&shown).then_some(WatchEvent::Initial(shown)))
            }
            WatchEvent::Change { event, .. } => {
                let mut states = Vec::new();
                for state in [&event.current, &event.previous] {
                    states.push(match state {
                        Some(object) => Some(self.show_one(object).await?),
                        None => None,
                    });
                }
                let previous = states.pop().flatten();
                let shown = Event::new(event.revision, states.pop().flatten(), previous);
                let kind = filter.sees(&shown);
                Ok(kind.map(|kind| WatchEvent::Change { kind, event: Arc::new(shown) }))
            }
        }
    }
}

/// What the cache itself can decide.
fn without_selectors(filter: &Filter) -> Filter {
    Filter { matches: None, ..filter.clone() }
}

/// An object in the version that is served.
pub(super) async fn one(
    view: Option<&View>,
    found: Result<(Option<Arc<CachedObject>>, store::Revision), Error>,
) -> Result<Option<Arc<CachedObject>>, cacher::Error> {
    let (found, _) = found?;
    match (view, found) {
        (Some(view), Some(object)) => view.show_one(&object).await.map(Some),
        (_, found) => Ok(found),
    }
}
