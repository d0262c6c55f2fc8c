//! Which objects a reader wants, and which watchers an event concerns.

use std::collections::HashMap;
use std::sync::Arc;

use store::Revision;
use tokio::sync::mpsc;

use super::NODE_NAME_FIELD;
use super::event::{Event, Kind};
use super::object::CachedObject;

/// Decides about one object: label and field selectors beyond what [`Filter`] names itself.
pub type MatchFn = dyn Fn(&CachedObject) -> bool + Send + Sync;

/// Which objects are wanted; the default is all of them.
#[derive(Clone, Default)]
pub struct Filter {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// Only this `spec.nodeName` (resources with a node index).
    pub node_name: Option<String>,
    /// Only what this accepts.
    pub matches: Option<Arc<MatchFn>>,
}

impl Filter {
    /// Whether an object is wanted.
    #[must_use]
    pub fn wants(&self, object: &CachedObject) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == object.namespace())
            && self.name.as_deref().is_none_or(|name| name == object.name())
            && self.node_name.as_deref().is_none_or(|node| object.field(NODE_NAME_FIELD) == Some(node))
            && self.matches.as_ref().is_none_or(|matches| matches(object))
    }

    /// What `event` is to whoever watches through this filter; `None`: nothing.
    pub(crate) fn sees(&self, event: &Event) -> Option<Kind> {
        let before = event.previous.as_deref().is_some_and(|object| self.wants(object));
        let after = event.current.as_deref().is_some_and(|object| self.wants(object));
        match (before, after) {
            (false, true) => Some(Kind::Added),
            (true, true) => Some(Kind::Modified),
            (true, false) => Some(Kind::Deleted),
            (false, false) => None,
        }
    }

    /// The one key that is wanted, if only one can be.
    pub(super) fn single_key(&self, namespaced: bool) -> Option<String> {
        match (namespaced, &self.namespace, &self.name) {
            (true, Some(namespace), Some(name)) => Some(format!("{namespace}/{name}")),
            (false, None, Some(name)) => Some(name.clone()),
            _ => None,
        }
    }

    /// Whether only the place in key order decides.
    pub(super) fn is_range(&self) -> bool {
        self.name.is_none() && self.node_name.is_none() && self.matches.is_none()
    }

    fn scope(&self, namespaced: bool) -> Scope {
        if let Some(key) = self.single_key(namespaced) {
            Scope::Object(key)
        } else if let Some(node) = &self.node_name {
            Scope::Node(node.clone())
        } else if let Some(namespace) = &self.namespace {
            Scope::Namespace(namespace.clone())
        } else {
            Scope::All
        }
    }
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("node_name", &self.node_name)
            .field("matches", &self.matches.is_some())
            .finish()
    }
}

/// The index of watchers: each stands in one place, and an event looks only where it may matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Scope {
    All,
    Namespace(String),
    Object(String),
    Node(String),
}

/// An event on its way to one watcher.
pub(super) type Delivery = (Kind, Arc<Event>);

struct Entry {
    id: u64,
    filter: Filter,
    /// Events up to here are the watcher's own concern.
    after: Revision,
    sender: mpsc::Sender<Delivery>,
}

/// The watchers of one resource.
#[derive(Default)]
pub(super) struct Watchers {
    entries: HashMap<Scope, Vec<Entry>>,
    last_id: u64,
}

impl Watchers {
    /// Adds a watcher of events after `after`; returns the id it is removed by.
    pub(super) fn add(
        &mut self,
        namespaced: bool,
        filter: Filter,
        after: Revision,
        sender: mpsc::Sender<Delivery>,
    ) -> u64 {
        self.last_id += 1;
        let entry = Entry { id: self.last_id, filter, after, sender };
        self.entries.entry(entry.filter.scope(namespaced)).or_default().push(entry);
        self.last_id
    }

    /// Removes a watcher; it may be gone already.
    pub(super) fn remove(&mut self, namespaced: bool, filter: &Filter, id: u64) {
        self.retain(&filter.scope(namespaced), |entry| entry.id != id);
    }

    /// Cuts all watchers off.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }

    /// Sends an event to whom it concerns. One that has no room left is cut off; it goes on from the history.
    pub(super) fn dispatch(&mut self, event: &Arc<Event>) {
        if self.entries.is_empty() {
            return;
        }
        let deliver = |entry: &mut Entry| {
            if event.revision <= entry.after {
                return true;
            }
            match entry.filter.sees(event) {
                Some(kind) => entry.sender.try_send((kind, Arc::clone(event))).is_ok(),
                None => true,
            }
        };
        let object = event.any();
        self.retain(&Scope::All, deliver);
        self.retain(&Scope::Object(object.key().to_owned()), deliver);
        if !object.namespace().is_empty() {
            self.retain(&Scope::Namespace(object.namespace().to_owned()), deliver);
        }
        let node = |state: &Option<Arc<CachedObject>>| {
            let node = state.as_ref().and_then(|object| object.field(NODE_NAME_FIELD));
            node.filter(|node| !node.is_empty()).map(str::to_owned)
        };
        let (before, after) = (node(&event.previous), node(&event.current));
        if let Some(before) = before.filter(|before| Some(before) != after.as_ref()) {
            self.retain(&Scope::Node(before), deliver);
        }
        if let Some(after) = after {
            self.retain(&Scope::Node(after), deliver);
        }
    }

    fn retain(&mut self, scope: &Scope, keep: impl FnMut(&mut Entry) -> bool) {
        if let Some(entries) = self.entries.get_mut(scope) {
            entries.retain_mut(keep);
            if entries.is_empty() {
                self.entries.remove(scope);
            }
        }
    }
}
