//! What the API server has counted: `apiserver_request_total`, which upstream's has too.

use std::collections::BTreeMap;

/// Numbers of requests by what was asked for: `PATCH pods/status`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted(BTreeMap<String, f64>);

impl Counted {
    /// Reads the metrics of an API server; nothing if it does not count its requests. Watches are left out (they do
    /// not come with objects), leases (they come with time), and what is about no resource.
    #[must_use]
    pub fn read(metrics: &str) -> Option<Self> {
        let mut all = BTreeMap::new();
        let mut found = false;
        for line in metrics.lines() {
            let Some((labels, value)) =
                line.strip_prefix("apiserver_request_total{").and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            found = true;
            let label = |name: &str| {
                let from = labels.split(',').find_map(|pair| pair.strip_prefix(name)?.strip_prefix("=\""));
                from.and_then(|value| value.strip_suffix('"')).unwrap_or_default()
            };
            let (verb, resource, subresource) = (label("verb"), label("resource"), label("subresource"));
            if matches!(verb, "WATCH" | "WATCHLIST" | "CONNECT") || matches!(resource, "" | "leases") {
                continue;
            }
            let slash = if subresource.is_empty() { "" } else { "/" };
            // A value may be followed by a time.
            let value =
                value.split(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or_default();
            *all.entry(format!("{verb} {resource}{slash}{subresource}")).or_default() += value;
        }
        found.then_some(Self(all))
    }

    /// Those that came after `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let more = self
            .0
            .iter()
            .map(|(what, count)| (what.clone(), count - before.0.get(what).copied().unwrap_or_default()));
        Self(more.filter(|(_, count)| *count > 0.0).collect())
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.0.values().sum()
    }

    /// What was asked for most often, first.
    #[must_use]
    pub fn most(&self, count: usize) -> Vec<(&str, f64)> {
        let mut all: Vec<_> = self.0.iter().map(|(what, count)| (what.as_str(), *count)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_what_they_are_about() {
        let metrics = "# HELP apiserver_request_total Counter of requests.\n\
            # TYPE apiserver_request_total counter\n\
            apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"POST\",version=\"v1\"} 5\n\
            apiserver_request_total{code=\"409\",resource=\"pods\",subresource=\"\",verb=\"POST\"} 2\n\
            apiserver_request_total{code=\"200\",resource=\"pods\",subresource=\"status\",verb=\"PATCH\"} 1e1 1790000000\n\
            apiserver_request_total{code=\"200\",resource=\"leases\",subresource=\"\",verb=\"PUT\"} 100\n\
            apiserver_request_total{code=\"200\",resource=\"pods\",subresource=\"\",verb=\"WATCH\"} 100\n\
            apiserver_request_total{code=\"200\",resource=\"\",subresource=\"/metrics\",verb=\"GET\"} 100\n\
            apiserver_request_duration_seconds_count{resource=\"pods\",verb=\"POST\"} 100\n";
        let after = Counted::read(metrics).expect("there are some");
        assert_eq!(after.most(9), [("PATCH pods/status", 10.0), ("POST pods", 7.0)]);
        let before = Counted::read(
            "apiserver_request_total{code=\"201\",resource=\"pods\",subresource=\"\",verb=\"POST\"} 7\n",
        );
        let since = after.since(&before.expect("there are some"));
        assert_eq!((since.most(1), since.total()), (vec![("PATCH pods/status", 10.0)], 10.0));
        assert_eq!(Counted::read("process_cpu_seconds_total 1\n"), None);
    }
}
