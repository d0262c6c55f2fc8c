//! When pods began to end with their node, and when all had: told by metrics, also once the machine is up again. The file is
//! upstream's.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::checkpoint;

/// Go's time of what never was.
const NEVER: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// Where it is written down.
#[derive(Clone, Debug)]
pub struct Times {
    path: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    start_time: Timestamp,
    end_time: Timestamp,
}

impl Times {
    /// In the kubelet's directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { path: directory.join("graceful_node_shutdown_state") }
    }

    /// Tells of the last time, where there was one.
    pub(super) fn tell(&self) {
        if let Some(noted) = self.read() {
            noted.tell();
        }
    }

    /// Pods begin to end.
    pub(super) fn begin(&self, now: Timestamp) {
        self.note(Noted { start_time: now, end_time: NEVER });
    }

    /// All pods have ended, or their time was over.
    pub(super) fn end(&self, now: Timestamp) {
        let start_time = self.read().map_or(now, |noted| noted.start_time);
        self.note(Noted { start_time, end_time: now });
    }

    fn note(&self, noted: Noted) {
        noted.tell();
        if let Err(error) = checkpoint::write(&self.path, &noted) {
            tracing::error!(error = client::chain(&error), "failed to store graceful shutdown state");
        }
    }

    fn read(&self) -> Option<Noted> {
        let read = checkpoint::read(&self.path);
        let failed =
            |error| tracing::error!(error = client::chain(&error), "graceful shutdown state is lost");
        read.map_err(failed).ok().flatten()
    }
}

impl Noted {
    fn tell(self) {
        #[expect(clippy::cast_precision_loss, reason = "seconds are counted in floats")]
        let seconds = |time: Timestamp| if time == NEVER { 0.0 } else { time.as_second() as f64 };
        metrics::gauge!("kubelet_graceful_shutdown_start_time_seconds").set(seconds(self.start_time));
        metrics::gauge!("kubelet_graceful_shutdown_end_time_seconds").set(seconds(self.end_time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volumes::testing::Scratch;

    #[test]
    fn a_shutdown_that_did_not_end_is_known_as_such() {
        let scratch = Scratch::new();
        let times = Times::new(scratch.path());
        assert_eq!(times.read(), None);
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        times.begin(at("2026-01-02T03:04:05Z"));
        let text = std::fs::read_to_string(&times.path).expect("written");
        assert_eq!(text, r#"{"startTime":"2026-01-02T03:04:05Z","endTime":"0001-01-01T00:00:00Z"}"#);
        times.end(at("2026-01-02T03:04:06Z"));
        let text = std::fs::read_to_string(&times.path).expect("written");
        assert_eq!(text, r#"{"startTime":"2026-01-02T03:04:05Z","endTime":"2026-01-02T03:04:06Z"}"#);
        // As upstream writes it elsewhere than in Greenwich.
        std::fs::write(
            &times.path,
            r#"{"startTime":"2026-01-02T04:04:05.5+01:00","endTime":"0001-01-01T00:00:00Z"}"#,
        )
        .expect("written");
        let noted = times.read().expect("there");
        assert_eq!((noted.start_time, noted.end_time), (at("2026-01-02T03:04:05.5Z"), NEVER));
        std::fs::write(&times.path, "{").expect("written");
        assert_eq!(times.read(), None);
        times.tell();
    }
}
