//! What the server counts, under Kubernetes' metric names (upstream `apiserver/pkg/endpoints/metrics`).
//!
//! Handles are looked up once per combination of labels and kept, so that counting costs an atomic addition.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::RwLock;

use crate::request::RequestInfo;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

struct Handles {
    labels: Labels,
    codes: RwLock<HashMap<u16, Counter>>,
    duration: Histogram,
    long_running: Gauge,
}

/// The request metrics.
#[derive(Default)]
pub struct RequestMetrics {
    handles: RwLock<HashMap<Labels, Arc<Handles>>>,
    reading: Arc<AtomicI64>,
    writing: Arc<AtomicI64>,
}

/// One request under way.
pub struct Record {
    handles: Option<Arc<Handles>>,
    inflight: Option<(Arc<AtomicI64>, Gauge)>,
    long_running: bool,
}

/// Distinct label sets kept; beyond it requests are counted as `other`.
const LIMIT: usize = 4096;

impl RequestMetrics {
    /// Notes the beginning of a request.
    pub fn begin(&self, info: &RequestInfo, method: &Method) -> Record {
        let long_running = info.is_long_running();
        let handles = self.handles(labels(info));
        let inflight = (!long_running).then(|| {
            let reading = matches!(*method, Method::GET | Method::HEAD);
            let (count, kind) =
                if reading { (&self.reading, "readOnly") } else { (&self.writing, "mutating") };
            let gauge = gauge!("apiserver_current_inflight_requests", "request_kind" => kind);
            gauge.set(count.fetch_add(1, Ordering::Relaxed) as f64 + 1.0);
            (Arc::clone(count), gauge)
        });
        if let (true, Some(handles)) = (long_running, &handles) {
            handles.long_running.increment(1.0);
        }
        Record { handles, inflight, long_running }
    }

    fn handles(&self, labels: Labels) -> Option<Arc<Handles>> {
        if let Some(found) = self.handles.read().get(&labels) {
            return Some(Arc::clone(found));
        }
        let mut all = self.handles.write();
        if all.len() >= LIMIT {
            return None;
        }
        let made = Arc::new(Handles::new(labels.clone()));
        Some(Arc::clone(all.entry(labels).or_insert(made)))
    }
}

fn labels(info: &RequestInfo) -> Labels {
    let scope = match (info.is_resource, info.name.is_empty(), info.namespace.is_empty()) {
        (false, ..) => "",
        (true, false, _) => "resource",
        (true, true, false) => "namespace",
        (true, true, true) => "cluster",
    };
    // The paths of requests that are not for resources are not bounded in number: they are not told apart.
    let verb = match info.verb.as_str() {
        "get" => "GET",
        "list" => "LIST",
        "watch" => "WATCH",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" => "DELETE",
        "deletecollection" => "DELETECOLLECTION",
        "connect" | "proxy" => "CONNECT",
        _ => "other",
    };
    Labels {
        verb: verb.to_owned(),
        group: info.group.clone(),
        version: info.version.clone(),
        resource: info.resource.clone(),
        subresource: info.subresource.clone(),
        scope,
    }
}

impl Handles {
    fn new(labels: Labels) -> Self {
        let l = labels.clone();
        let duration = histogram!("apiserver_request_duration_seconds",
            "verb" => l.verb, "group" => l.group, "version" => l.version, "resource" => l.resource,
            "subresource" => l.subresource, "scope" => l.scope, "component" => "apiserver", "dry_run" => "");
        let l = labels.clone();
        let long_running = gauge!("apiserver_longrunning_requests",
            "verb" => l.verb, "group" => l.group, "version" => l.version, "resource" => l.resource,
            "subresource" => l.subresource, "scope" => l.scope, "component" => "apiserver");
        Self { labels, codes: RwLock::default(), duration, long_running }
    }

    fn count(&self, code: u16) {
        if let Some(counter) = self.codes.read().get(&code) {
            return counter.increment(1);
        }
        let l = self.labels.clone();
        let counter = counter!("apiserver_request_total",
            "verb" => l.verb, "group" => l.group, "version" => l.version, "resource" => l.resource,
            "subresource" => l.subresource, "scope" => l.scope, "component" => "apiserver", "dry_run" => "",
            "code" => code.to_string());
        counter.increment(1);
        self.codes.write().insert(code, counter);
    }
}

impl Record {
    /// Notes the answer.
    pub fn end(self, status: StatusCode, elapsed: Duration) {
        if let Some(handles) = &self.handles {
            handles.count(status.as_u16());
            if !self.long_running {
                handles.duration.record(elapsed.as_secs_f64());
            }
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some((count, gauge)) = &self.inflight {
            gauge.set(count.fetch_sub(1, Ordering::Relaxed) as f64 - 1.0);
        }
        if let (true, Some(handles)) = (self.long_running, &self.handles) {
            handles.long_running.decrement(1.0);
        }
    }
}

/// Facts of the process, in Prometheus' own names.
#[must_use]
pub fn process() -> String {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = |index: usize| statm.split(' ').nth(index).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |index: usize| {
        after_name.split_whitespace().nth(index).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
    };
    let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    format!(
        "# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {}\n\
         # TYPE process_virtual_memory_bytes gauge\nprocess_virtual_memory_bytes {}\n\
         # TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total {:.2}\n\
         # TYPE process_open_fds gauge\nprocess_open_fds {files}\n",
        pages(1) * 4096,
        pages(0) * 4096,
        (ticks(11) + ticks(12)) as f64 / 100.0,
    )
}
