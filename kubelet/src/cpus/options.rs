//! What `cpuManagerPolicyOptions` say.

use std::collections::BTreeMap;

use super::layout::{Layout, Level};
use super::take::Manner;
use crate::topology::{Policy, parse_bool};

/// Finer points of the static policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whole cores, or the pod is refused.
    pub full_pcpus_only: bool,
    /// The same number from each NUMA node, where one has not enough.
    pub distribute: bool,
    /// What lies on one socket is close enough.
    pub align_by_socket: bool,
    /// Rather one CPU of many cores than all of few.
    pub spread: bool,
    /// Nobody else runs on reserved CPUs either.
    pub strict_reservation: bool,
    /// Rather CPUs that share a cache of the last level.
    pub by_uncore: bool,
}

const FULL: &str = "full-pcpus-only";
const DISTRIBUTE: &str = "distribute-cpus-across-numa";
const BY_SOCKET: &str = "align-by-socket";
const SPREAD: &str = "distribute-cpus-across-cores";
const STRICT: &str = "strict-cpu-reservation";
const BY_UNCORE: &str = "prefer-align-cpus-by-uncorecache";

impl Options {
    /// Reads the options; `alpha` lets those in that are not yet for everybody. The text of an error is upstream's.
    pub fn parse(options: &BTreeMap<String, String>, alpha: bool) -> Result<Self, String> {
        let mut read = Self::default();
        for (name, value) in options {
            if matches!(name.as_str(), BY_SOCKET | SPREAD) && !alpha {
                return Err(format!(
                    "CPU Manager Policy Alpha-level Options not enabled, but option {name:?} provided"
                ));
            }
            let option = match name.as_str() {
                FULL => &mut read.full_pcpus_only,
                DISTRIBUTE => &mut read.distribute,
                BY_SOCKET => &mut read.align_by_socket,
                SPREAD => &mut read.spread,
                STRICT => &mut read.strict_reservation,
                BY_UNCORE => &mut read.by_uncore,
                _ => return Err(format!("unknown CPU Manager Policy option: {name:?}")),
            };
            *option = parse_bool(name, value)?;
        }
        let exclusive = [
            (read.full_pcpus_only && read.spread, FULL, SPREAD),
            (read.distribute && read.spread, DISTRIBUTE, SPREAD),
            (read.by_uncore && read.spread, BY_UNCORE, SPREAD),
            (read.by_uncore && read.distribute, BY_UNCORE, DISTRIBUTE),
        ];
        match exclusive.into_iter().find(|(both, ..)| *both) {
            Some((_, a, b)) => {
                Err(format!("static policy options {a} and {b} can not be used at the same time"))
            }
            None => Ok(read),
        }
    }

    /// Whether they can be had on this machine.
    pub fn check(&self, layout: &Layout, topology: Policy) -> Result<(), String> {
        if !self.align_by_socket {
            return Ok(());
        }
        if topology == Policy::SingleNumaNode {
            return Err(format!(
                "Topolgy manager single-numa-node policy is incompatible with CPUManager {BY_SOCKET} policy option"
            ));
        }
        if layout.all(Level::Socket).len() > layout.all(Level::Numa).len() {
            return Err(
                "Align by socket is not compatible with hardware where number of sockets are more than \
                        number of NUMA"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// How CPUs are taken.
    #[must_use]
    pub fn manner(&self) -> Manner {
        Manner { spread: self.spread, by_uncore: self.by_uncore }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_upstreams() {
        let read = |pairs: &[(&str, &str)], alpha| {
            Options::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(), alpha)
        };
        let strict = Options { strict_reservation: true, full_pcpus_only: true, ..Options::default() };
        assert_eq!(read(&[(STRICT, "true"), (FULL, "1"), (DISTRIBUTE, "false")], false), Ok(strict));
        assert!(read(&[(SPREAD, "true")], true).is_ok());
        type Case<'a> = (&'a [(&'a str, &'a str)], bool, &'a str);
        let cases: [Case<'_>; 6] = [
            (&[("x", "true")], true, "unknown CPU Manager Policy option: \"x\""),
            (&[(FULL, "yes")], false, "bad value for option \"full-pcpus-only\": strconv.ParseBool"),
            (&[(SPREAD, "true")], false, "CPU Manager Policy Alpha-level Options not enabled"),
            (
                &[(SPREAD, "true"), (FULL, "true")],
                true,
                "full-pcpus-only and distribute-cpus-across-cores can not",
            ),
            (
                &[(SPREAD, "true"), (BY_UNCORE, "true")],
                true,
                "prefer-align-cpus-by-uncorecache and distribute",
            ),
            (
                &[(DISTRIBUTE, "true"), (BY_UNCORE, "true")],
                false,
                "uncorecache and distribute-cpus-across-numa can",
            ),
        ];
        for (options, alpha, message) in cases {
            let error = read(options, alpha).expect_err(message);
            assert!(error.contains(message), "{error}");
        }
    }
}
