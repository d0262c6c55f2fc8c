//! What `topologyManagerPolicy`, `topologyManagerScope` and `topologyManagerPolicyOptions` say.

use std::collections::BTreeMap;

/// More NUMA nodes make too many combinations, unless the options allow them.
pub const DEFAULT_MAX_NODES: usize = 8;

/// Which alignments are good enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Alignment is of no interest.
    #[default]
    None,
    /// The best there is.
    BestEffort,
    /// The best for every resource, or the pod is refused.
    Restricted,
    /// One NUMA node for all, or the pod is refused.
    SingleNumaNode,
}

impl Policy {
    /// The policy of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "none" | "" => Ok(Self::None),
            "best-effort" => Ok(Self::BestEffort),
            "restricted" => Ok(Self::Restricted),
            "single-numa-node" => Ok(Self::SingleNumaNode),
            other => Err(format!("unknown policy: {other:?}")),
        }
    }
}

/// What is aligned as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Each container for itself.
    #[default]
    Container,
    /// All containers of a pod together.
    Pod,
}

impl Scope {
    /// The scope of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        match name {
            "container" | "" => Ok(Self::Container),
            "pod" => Ok(Self::Pod),
            other => Err(format!("unknown scope: {other:?}")),
        }
    }
}

/// `topologyManagerPolicyOptions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Of as many NUMA nodes, take those that are close to each other.
    pub prefer_closest: bool,
    /// Most NUMA nodes of a machine.
    pub max_nodes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { prefer_closest: false, max_nodes: DEFAULT_MAX_NODES }
    }
}

impl Options {
    /// Reads the options; the text of an error is upstream's.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut read = Self::default();
        for (name, value) in options {
            match name.as_str() {
                "prefer-closest-numa-nodes" => read.prefer_closest = parse_bool(name, value)?,
                "max-allowable-numa-nodes" => read.max_nodes = parse_count(name, value)?,
                _ => return Err(format!("unknown Topology Manager Policy option: {name:?}")),
            }
        }
        Ok(read)
    }
}

/// A truth as Go's `strconv.ParseBool` reads it.
pub(crate) fn parse_bool(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "bad value for option {name:?}: strconv.ParseBool: parsing {value:?}: invalid syntax"
        )),
    }
}

fn parse_count(name: &str, value: &str) -> Result<usize, String> {
    let count: i64 = value.parse().map_err(|_| {
        format!("unable to convert policy option to integer {name:?}: strconv.Atoi: parsing {value:?}: invalid syntax")
    })?;
    match usize::try_from(count) {
        Ok(count) if count >= DEFAULT_MAX_NODES => Ok(count),
        _ => Err(format!("the minimum value of {name:?} should not be less than {DEFAULT_MAX_NODES}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_upstreams() {
        let read =
            |name: &str, value: &str| Options::parse(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        let good = [
            ("prefer-closest-numa-nodes", "true", Options { prefer_closest: true, max_nodes: 8 }),
            ("prefer-closest-numa-nodes", "0", Options::default()),
            ("max-allowable-numa-nodes", "9", Options { prefer_closest: false, max_nodes: 9 }),
        ];
        for (name, value, expected) in good {
            assert_eq!(read(name, value), Ok(expected), "{name} {value}");
        }
        let bad = [
            ("prefer-closest-numa-nodes", "not a boolean", "bad value for option"),
            ("max-allowable-numa-nodes", "not an integer", "unable to convert policy option to integer"),
            ("max-allowable-numa-nodes", "7", "should not be less than 8"),
            ("max-allowable-numa-nodes", "-8", "should not be less than 8"),
            ("unknown-option", "true", "unknown Topology Manager Policy option: \"unknown-option\""),
        ];
        for (name, value, expected) in bad {
            let error = read(name, value).expect_err(value);
            assert!(error.contains(expected), "{error}");
        }
    }
}
