//! How many watches hear of a change (upstream `watch_tracker.go`).

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::query::Query;
use crate::request::RequestInfo;

/// The watches under way. Those for the same objects are counted together, under a hash of what they are for: two
/// that collide make an estimate a little worse.
#[derive(Default)]
pub struct Watches {
    hasher: RandomState,
    counts: Mutex<HashMap<u64, u64>>,
}

/// A watch that is counted until this is dropped.
pub struct Registered {
    watches: Arc<Watches>,
    key: u64,
}

impl Watches {
    /// Counts a watch. `None` if hardly any change concerns it: there is an index of pods by their node, so that
    /// only the watcher of that node is asked.
    pub fn register(self: &Arc<Self>, info: &RequestInfo, query: &Query) -> Option<Registered> {
        let selector = query.first("fieldSelector").unwrap_or_default();
        if info.resource == "pods" && selects_node(selector) {
            return None;
        }
        let key = self.key(info, &info.namespace, &info.name);
        *self.counts.lock().entry(key).or_default() += 1;
        Some(Registered { watches: Arc::clone(self), key })
    }

    /// The watches that a request which changes something concerns: of all objects, of those in its namespace, and
    /// of its object.
    #[must_use]
    pub fn interested(&self, info: &RequestInfo) -> u64 {
        let all = self.key(info, "", "");
        let namespace = (!info.namespace.is_empty()).then(|| self.key(info, &info.namespace, ""));
        let own = (!info.name.is_empty()).then(|| self.key(info, &info.namespace, &info.name));
        let counts = self.counts.lock();
        [Some(all), namespace, own].into_iter().flatten().filter_map(|key| counts.get(&key)).sum()
    }

    fn key(&self, info: &RequestInfo, namespace: &str, name: &str) -> u64 {
        self.hasher.hash_one((&info.group, &info.resource, namespace, name))
    }
}

fn selects_node(selector: &str) -> bool {
    let value =
        |term: &str| term.strip_prefix("spec.nodeName=").map(|rest| rest.trim_start_matches('=').len());
    selector.split(',').any(|term| value(term).is_some_and(|length| length > 0))
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut counts = self.watches.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn info(method: &Method, url: &str) -> (RequestInfo, Query) {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = Query::parse(query);
        (RequestInfo::parse(method, path, &query).expect("a path"), query)
    }

    // After upstream's TestRegisterWatch and TestGetInterestedWatchCount.
    #[test]
    fn a_change_concerns_those_who_watch_it() {
        let watches = Arc::new(Watches::default());
        let kept: Vec<Option<Registered>> = [
            "/api/v1/watch/pods",
            "/api/v1/watch/pods",
            "/api/v1/watch/namespaces/foo/pods",
            "/api/v1/namespaces/foo/pods?watch=true&fieldSelector=metadata.name%3Dmypod",
            "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3Dfoo",
            "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%3D",
            "/apis/group/v1/watch/pods",
            "/apis/group/v1/watch/namespaces/foo/widgets",
        ]
        .map(|url| {
            let (info, query) = info(&Method::GET, url);
            watches.register(&info, &query)
        })
        .into();
        assert_eq!(kept.iter().filter(|kept| kept.is_none()).count(), 1, "only that of a node");
        let concerned = |method: Method, url| watches.interested(&info(&method, url).0);
        for (method, url, count) in [
            (Method::POST, "/api/v1/namespaces/foo/pods", 4),
            (Method::PUT, "/api/v1/namespaces/foo/pods/mypod", 5),
            (Method::PUT, "/api/v1/namespaces/foo/pods/other", 4),
            (Method::DELETE, "/api/v1/namespaces/bar/pods/mypod", 3),
            (Method::POST, "/apis/group/v1/namespaces/foo/widgets", 1),
            (Method::POST, "/apis/group/v1/namespaces/bar/widgets", 0),
            (Method::POST, "/api/v1/namespaces", 0),
        ] {
            assert_eq!(concerned(method, url), count, "{url}");
        }
        drop(kept);
        assert_eq!(concerned(Method::PUT, "/api/v1/namespaces/foo/pods/mypod"), 0);
        assert!(watches.counts.lock().is_empty());
    }
}
