//! How health checks went, as `/metrics/slis` tells it (upstream's component-base/metrics/prometheus/slis).

use std::collections::BTreeMap;
use std::fmt::Write;

use parking_lot::Mutex;

/// The outcomes of checks, by name and by the endpoint that was asked (`healthz`, `livez`, `readyz`).
#[derive(Default)]
pub(super) struct Outcomes(Mutex<BTreeMap<(&'static str, String), Outcome>>);

#[derive(Default)]
struct Outcome {
    passed_last: bool,
    passed: u64,
    failed: u64,
}

impl Outcomes {
    /// A check passed or failed.
    pub(super) fn observe(&self, kind: &str, check: &'static str, passed: bool) {
        let mut outcomes = self.0.lock();
        let outcome = outcomes.entry((check, kind.to_owned())).or_default();
        outcome.passed_last = passed;
        let count = if passed { &mut outcome.passed } else { &mut outcome.failed };
        *count += 1;
    }

    /// Forgets them all.
    pub(super) fn reset(&self) {
        self.0.lock().clear();
    }

    /// All of them, in the text format of Prometheus.
    pub(super) fn render(&self) -> String {
        let (mut last, mut total) = (String::new(), String::new());
        for ((name, kind), outcome) in &*self.0.lock() {
            let passed = u8::from(outcome.passed_last);
            // Writing to a string does not fail.
            let _ = writeln!(last, "kubernetes_healthcheck{{name=\"{name}\",type=\"{kind}\"}} {passed}");
            for (status, count) in [("error", outcome.failed), ("success", outcome.passed)] {
                if count > 0 {
                    let _ = writeln!(
                        total,
                        "kubernetes_healthchecks_total{{name=\"{name}\",status=\"{status}\",type=\"{kind}\"}} {count}"
                    );
                }
            }
        }
        if last.is_empty() {
            return String::new();
        }
        format!(
            "# HELP kubernetes_healthcheck [STABLE] This metric records the result of a single healthcheck.\n\
             # TYPE kubernetes_healthcheck gauge\n{last}\
             # HELP kubernetes_healthchecks_total [STABLE] This metric records the results of all healthcheck.\n\
             # TYPE kubernetes_healthchecks_total counter\n{total}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_counts_until_it_is_forgotten() {
        let outcomes = Outcomes::default();
        assert_eq!(outcomes.render(), "");
        for (kind, check, passed) in [
            ("healthz", "lease", true),
            ("healthz", "lease", false),
            ("livez", "lease", true),
            ("healthz", "a", true),
        ] {
            outcomes.observe(kind, check, passed);
        }
        let text = outcomes.render();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "kubernetes_healthcheck{name=\"a\",type=\"healthz\"} 1",
                "kubernetes_healthcheck{name=\"lease\",type=\"healthz\"} 0",
                "kubernetes_healthcheck{name=\"lease\",type=\"livez\"} 1",
                "kubernetes_healthchecks_total{name=\"a\",status=\"success\",type=\"healthz\"} 1",
                "kubernetes_healthchecks_total{name=\"lease\",status=\"error\",type=\"healthz\"} 1",
                "kubernetes_healthchecks_total{name=\"lease\",status=\"success\",type=\"healthz\"} 1",
                "kubernetes_healthchecks_total{name=\"lease\",status=\"success\",type=\"livez\"} 1",
            ]
        );
        outcomes.reset();
        assert_eq!(outcomes.render(), "");
    }
}
