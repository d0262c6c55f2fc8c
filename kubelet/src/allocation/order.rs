//! In which order resizes that wait are tried: what grows nothing first, then by priority, class, and time waited.

use std::cmp::Ordering;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use crate::qos::{self, QosClass};
use crate::types;

/// One resize that waits.
pub struct Waiting<'a> {
    /// The pod as wished.
    pub pod: &'a Pod,
    /// The pod as allocated.
    pub allocated: &'a Pod,
    /// Since when it waits, if it was tried before.
    pub since: Option<Timestamp>,
}

impl Waiting<'_> {
    fn grows(&self) -> bool {
        let (old, new) = (qos::pod_requests(self.allocated), qos::pod_requests(self.pod));
        ["cpu", "memory"].iter().any(|name| new.get(*name) > old.get(*name))
    }

    fn priority(&self) -> i32 {
        types::spec(self.pod).priority.unwrap_or_default()
    }

    fn guaranteed(&self) -> bool {
        qos::pod_qos(self.pod) == QosClass::Guaranteed
    }
}

/// Which of two is tried first.
#[must_use]
pub fn compare(a: &Waiting<'_>, b: &Waiting<'_>) -> Ordering {
    let since = |w: &Waiting<'_>| w.since.unwrap_or(Timestamp::MAX);
    a.grows()
        .cmp(&b.grows())
        .then(b.priority().cmp(&a.priority()))
        .then(b.guaranteed().cmp(&a.guaranteed()))
        .then(since(a).cmp(&since(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, priority: i32, cpu: &str, guaranteed: bool) -> Pod {
        let limits =
            if guaranteed { format!(", limits: {{cpu: {cpu}, memory: 1Mi}}") } else { String::new() };
        serde_saphyr::from_str(&format!(
            "metadata: {{name: {name}}}\nspec: {{priority: {priority}, containers: [{{name: c, resources: \
             {{requests: {{cpu: {cpu}, memory: 1Mi}}{limits}}}}}]}}"
        ))
        .expect("valid")
    }

    #[test]
    fn shrinking_goes_first_then_priority_class_and_time() {
        let at = |s| Timestamp::from_second(s).ok();
        let all = [
            (pod("late", 0, "2", false), pod("late", 0, "1", false), at(9)),
            (pod("new", 0, "2", false), pod("new", 0, "1", false), None),
            (pod("early", 0, "2", false), pod("early", 0, "1", false), at(1)),
            (pod("guaranteed", 0, "2", true), pod("guaranteed", 0, "1", true), at(9)),
            (pod("important", 7, "2", false), pod("important", 7, "1", false), at(9)),
            (pod("shrinks", 0, "1", false), pod("shrinks", 0, "2", false), at(9)),
        ];
        let mut waiting: Vec<_> =
            all.iter().map(|(pod, allocated, since)| Waiting { pod, allocated, since: *since }).collect();
        waiting.sort_by(compare);
        let names: Vec<_> = waiting.iter().map(|w| types::name(w.pod)).collect();
        assert_eq!(names, ["shrinks", "important", "guaranteed", "early", "late", "new"]);
    }
}
