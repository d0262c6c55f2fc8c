//! What benchmarks measure: times of many things of one kind, and the memory of processes.

use std::time::Duration;

/// Requests, or anything else that was done many times.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Latencies of those that succeeded.
    pub latencies: Vec<Duration>,
    /// How many failed.
    pub errors: usize,
    /// Bytes of the answers.
    pub bytes: usize,
    /// How long it all took.
    pub elapsed: Duration,
    /// Whether the latency says more than the rate, which the case itself sets.
    pub paced: bool,
}

impl Requests {
    /// Adds another's outcome that went on at the same time.
    pub fn absorb(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.errors += other.errors;
        self.bytes += other.bytes;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.paced |= other.paced;
    }

    /// Those done in a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The latency that a share (0 to 1) of them did not exceed, in milliseconds.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |d| d.as_secs_f64() * 1000.0)
    }
}

/// Resident memory of a process now, and the most it ever was, in megabytes.
#[must_use]
pub fn memory(pid: i32) -> Option<(f64, f64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok().map(|kilobytes| kilobytes / 1000.0)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_latencies_that_were_measured() {
        let all = |milliseconds: &[u64]| Requests {
            latencies: milliseconds.iter().map(|ms| Duration::from_millis(*ms)).collect(),
            elapsed: Duration::from_secs(2),
            ..Requests::default()
        };
        let hundred: Vec<u64> = (1..=100).rev().collect();
        for (latencies, share, expected) in [
            (&hundred[..], 0.5, 50.0),
            (&hundred[..], 0.99, 99.0),
            (&hundred[..], 1.0, 100.0),
            (&[7], 0.5, 7.0),
        ] {
            assert_eq!(all(latencies).quantile(share), expected, "{share}");
        }
        assert!(all(&[]).quantile(0.5).is_nan());
        assert_eq!(all(&hundred).rate(), 50.0);
        let mut sum = all(&[1]);
        sum.absorb(Requests { errors: 2, elapsed: Duration::from_secs(3), ..all(&[3, 5]) });
        assert_eq!((sum.latencies.len(), sum.errors, sum.elapsed), (3, 2, Duration::from_secs(3)));
    }

    #[test]
    fn this_process_has_memory() {
        let own = i32::try_from(std::process::id()).expect("a process id");
        let (now, peak) = memory(own).expect("this process is there");
        assert!(now > 0.0 && peak >= now);
        assert_eq!(memory(-1), None);
    }
}
