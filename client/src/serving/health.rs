//! Whether a component is healthy: named checks, and what is answered about them (upstream's
//! `apiserver/pkg/server/healthz`).

use std::sync::Arc;

use http::StatusCode;
use parking_lot::RwLock;

use super::slis::Outcomes;

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Named checks that decide whether a component is healthy. Clones share them; checks may be added at any time.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<RwLock<Vec<(&'static str, Check)>>>,
    outcomes: Arc<Outcomes>,
}

impl Health {
    /// A component that is healthy while it runs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with a check more.
    #[must_use]
    pub fn with(
        self,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.add(name, check);
        self
    }

    /// Adds a check.
    pub fn add(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.checks.write().push((name, Arc::new(check)));
    }

    /// How the checks went so far.
    pub(super) fn outcomes(&self) -> &Outcomes {
        &self.outcomes
    }

    /// What to answer to a request for `kind` (`healthz`, `livez` or `readyz`), or for one check of it.
    /// `None` if there is no such check.
    pub(super) fn answer(
        &self,
        kind: &str,
        check: Option<&str>,
        query: Option<&str>,
    ) -> Option<(StatusCode, String)> {
        // Checks may take locks of their own; ours is not held meanwhile.
        let mut checks = self.checks.read().clone();
        if checks.is_empty() {
            checks.push(("ping", Arc::new(|| Ok(()))));
        }
        match check {
            None => Some(self.summary(kind, &checks, &Query::parse(query.unwrap_or_default()))),
            Some(name) => {
                let (_, check) = checks.iter().find(|(held, _)| *held == name)?;
                Some(match check() {
                    Ok(()) => (StatusCode::OK, "ok".to_owned()),
                    Err(why) => {
                        (StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
                    }
                })
            }
        }
    }

    /// 200 and `ok`, or 500 and the checks with their outcome. Why one failed is for the log: anybody may ask for this.
    fn summary(
        &self,
        kind: &str,
        checks: &[(&'static str, Check)],
        query: &Query<'_>,
    ) -> (StatusCode, String) {
        let (mut failed, mut lines) = (false, String::new());
        for (name, check) in checks {
            if query.excluded.contains(name) {
                lines.push_str(&format!("[+]{name} excluded: ok\n"));
                continue;
            }
            let outcome = check();
            self.outcomes.observe(kind, name, outcome.is_ok());
            match outcome {
                Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
                Err(reason) => {
                    failed = true;
                    tracing::info!(kind, check = name, reason, "unhealthy");
                    lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                }
            }
        }
        let mut unknown: Vec<_> =
            query.excluded.iter().filter(|name| !checks.iter().any(|(held, _)| held == *name)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if !unknown.is_empty() {
            let unknown: Vec<_> = unknown.iter().map(|name| format!("{name:?}")).collect();
            let unknown = unknown.join(",");
            lines.push_str(&format!(
                "warn: some health checks cannot be excluded: no matches for {unknown}\n"
            ));
        }
        match (failed, query.verbose) {
            (true, _) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{lines}{kind} check failed\n")),
            (false, true) => (StatusCode::OK, format!("{lines}{kind} check passed\n")),
            (false, false) => (StatusCode::OK, "ok".to_owned()),
        }
    }
}

/// What a request wants to know.
struct Query<'a> {
    verbose: bool,
    excluded: Vec<&'a str>,
}

impl<'a> Query<'a> {
    fn parse(text: &'a str) -> Self {
        let pairs = || text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self {
            verbose: pairs().any(|(key, _)| key == "verbose"),
            excluded: pairs().filter(|(key, _)| *key == "exclude").map(|(_, value)| value).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(health: &Health, path: &str) -> Option<(u16, String)> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let (kind, check) = path.split_once('/').map_or((path, None), |(kind, check)| (kind, Some(check)));
        health.answer(kind, check, query).map(|(status, body)| (status.as_u16(), body))
    }

    #[test]
    fn answers_are_upstreams() {
        let lists = "[+]good ok\n[-]bad failed: reason withheld\nhealthz check failed\n";
        let unknown = "warn: some health checks cannot be excluded: no matches for \"x\",\"y\"\n";
        let cases: &[(&[&'static str], &str, u16, &str)] = &[
            (&[], "healthz", 200, "ok"),
            (&[], "healthz?verbose", 200, "[+]ping ok\nhealthz check passed\n"),
            (&[], "healthz/ping", 200, "ok"),
            (&["good"], "healthz", 200, "ok"),
            (&["good"], "healthz?verbose=true", 200, "[+]good ok\nhealthz check passed\n"),
            (&["good"], "livez?verbose", 200, "[+]good ok\nlivez check passed\n"),
            (&["good"], "healthz/good", 200, "ok"),
            (&["good", "bad"], "healthz", 500, lists),
            (&["good", "bad"], "healthz?verbose", 500, lists),
            (&["good", "bad"], "healthz/good", 200, "ok"),
            (&["good", "bad"], "healthz/bad", 500, "internal server error: it is bad\n"),
            (&["good", "bad"], "healthz?exclude=bad", 200, "ok"),
            (
                &["good", "bad"],
                "healthz?exclude=bad&verbose",
                200,
                "[+]good ok\n[+]bad excluded: ok\nhealthz check passed\n",
            ),
            (
                &["good"],
                "healthz?exclude=y&verbose&exclude=x",
                200,
                &format!("[+]good ok\n{unknown}healthz check passed\n"),
            ),
        ];
        for (names, path, status, body) in cases {
            let health = names.iter().copied().fold(Health::new(), |health, name| {
                health.with(name, move || if name == "bad" { Err("it is bad".to_owned()) } else { Ok(()) })
            });
            assert_eq!(ask(&health, path), Some((*status, (*body).to_owned())), "{names:?} {path}");
        }
        assert_eq!(ask(&Health::new().with("good", || Ok(())), "healthz/ping"), None);
    }

    #[test]
    fn checks_may_come_later() {
        let health = Health::new().with("first", || Ok(()));
        let shared = health.clone();
        shared.add("second", || Err("not yet".to_owned()));
        assert_eq!(ask(&health, "healthz").map(|(status, _)| status), Some(500));
    }
}
