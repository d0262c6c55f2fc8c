//! Levels, versions, and what a namespace's labels demand (upstream `pod-security-admission/api`).

use std::collections::BTreeMap;
use std::fmt;

use api::field;

/// How strict. Ordered from lax to strict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Everything is allowed.
    Privileged,
    /// Known privilege escalations are not.
    Baseline,
    /// Only hardened pods are.
    Restricted,
}

impl Level {
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// The minor version of the policy, `v1.x`; the last one is `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// Whatever is newest.
    pub const LATEST: Self = Self(u32::MAX);

    pub(super) fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::LATEST);
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        minor.parse().ok().filter(|_| plain).map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::LATEST { f.write_str("latest") } else { write!(f, "v1.{}", self.0) }
    }
}

/// A level at a version, shown as `baseline:latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LevelVersion {
    /// The level.
    pub level: Level,
    /// Its version.
    pub version: Version,
}

impl Default for LevelVersion {
    fn default() -> Self {
        Self { level: Level::Privileged, version: Version::LATEST }
    }
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What a namespace demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// What is refused.
    pub enforce: LevelVersion,
    /// What is noted in the audit log.
    pub audit: LevelVersion,
    /// What is warned of.
    pub warn: LevelVersion,
}

/// What labels, and annotations in the audit log, begin with.
pub const PREFIX: &str = "pod-security.kubernetes.io/";

impl Policy {
    /// Whether nothing is demanded.
    #[must_use]
    pub fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn].iter().all(|demand| demand.level == Level::Privileged)
    }

    /// Whether others demand the same: versions of nothing are alike.
    fn is_equivalent(&self, other: &Self) -> bool {
        let alike = |a: LevelVersion, b: LevelVersion| {
            a.level == b.level && (a.version == b.version || a.level == Level::Privileged)
        };
        alike(self.enforce, other.enforce) && alike(self.audit, other.audit) && alike(self.warn, other.warn)
    }
}

/// What is said of an exempt namespace whose labels demand something (upstream `exemptNamespaceWarning`).
#[must_use]
pub fn exempt_warning(
    namespace: &str,
    policy: &Policy,
    labels: Option<&BTreeMap<String, String>>,
    defaults: &Policy,
) -> Option<String> {
    if policy.is_privileged() || policy.is_equivalent(defaults) {
        return None;
    }
    let said = |mode: &str| {
        let has = |label: String| labels.is_some_and(|labels| labels.contains_key(&label));
        has(format!("{PREFIX}{mode}")) || has(format!("{PREFIX}{mode}-version"))
    };
    let modes = [("enforce", policy.enforce), ("audit", policy.audit), ("warn", policy.warn)];
    let shown = modes.iter().filter(|(mode, demand)| demand.level != Level::Privileged && said(mode));
    let shown: Vec<String> = shown.map(|(mode, demand)| format!("{mode}={demand}")).collect();
    let shown = shown.join(", ");
    Some(format!(
        "namespace {namespace:?} is exempt from Pod Security, and the policy ({shown}) will be ignored"
    ))
}

/// Reads the labels of a namespace; they demand more, or less, than `defaults`. A policy is always given: what cannot be
/// read counts as `restricted` for enforcing and as nothing for the rest.
#[must_use]
pub fn read(labels: Option<&BTreeMap<String, String>>, defaults: Policy) -> (Policy, field::ErrorList) {
    let mut policy = defaults;
    let mut errors = Vec::new();
    let Some(labels) = labels.filter(|labels| labels.keys().any(|key| key.starts_with(PREFIX))) else {
        return (policy, errors);
    };
    let path = |label: &str| field::Path::new("metadata").child("labels").key(label);
    let mut level = |mode: &str, target: &mut Level, fallback: Level| -> bool {
        let label = format!("{PREFIX}{mode}");
        let Some(text) = labels.get(&label) else { return false };
        let parsed = Level::parse(text);
        if parsed.is_none() {
            let why = "must be one of privileged, baseline, restricted";
            errors.push(field::Error::invalid(&path(&label), text.as_str(), why));
        }
        *target = parsed.unwrap_or(fallback);
        parsed.is_some()
    };
    let enforces = level("enforce", &mut policy.enforce.level, Level::Restricted);
    level("audit", &mut policy.audit.level, Level::Privileged);
    level("warn", &mut policy.warn.level, Level::Privileged);
    for (mode, target) in [
        ("enforce", &mut policy.enforce.version),
        ("audit", &mut policy.audit.version),
        ("warn", &mut policy.warn.version),
    ] {
        let label = format!("{PREFIX}{mode}-version");
        let Some(text) = labels.get(&label) else { continue };
        *target = Version::parse(text).unwrap_or_else(|| {
            errors.push(field::Error::invalid(
                &path(&label),
                text.as_str(),
                "must be \"latest\" or \"v1.x\"",
            ));
            Version::LATEST
        });
    }
    // In upstream's order: level and version of each mode.
    let order = |error: &field::Error| {
        let text = error.field.to_string();
        let mode =
            ["enforce", "audit", "warn"].iter().position(|mode| text.contains(&format!("{PREFIX}{mode}")));
        (mode, text.contains("-version"))
    };
    errors.sort_by_key(order);
    if !labels.contains_key(&format!("{PREFIX}warn")) && enforces && policy.enforce.level > policy.warn.level
    {
        policy.warn.level = policy.enforce.level;
        if !labels.contains_key(&format!("{PREFIX}warn-version")) {
            policy.warn.version = policy.enforce.version;
        }
    }
    (policy, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_are_read() {
        let (policy, errors) =
            read(Some(&labels(&[("enforce", "baseline"), ("audit", "restricted")])), Policy::default());
        assert!(errors.is_empty());
        assert_eq!(policy.enforce.to_string(), "baseline:latest");
        assert_eq!(policy.warn.to_string(), "baseline:latest", "warns of what is refused");
        let given =
            labels(&[("enforce", "restricted"), ("enforce-version", "v1.18"), ("warn", "privileged")]);
        let (policy, _) = read(Some(&given), Policy::default());
        assert_eq!(
            (policy.enforce.to_string(), policy.warn.level),
            ("restricted:v1.18".into(), Level::Privileged)
        );
        assert_eq!(read(None, Policy::default()).0, Policy::default());
    }

    #[test]
    fn labels_stand_before_defaults() {
        let defaults = Policy {
            enforce: LevelVersion { level: Level::Baseline, version: Version(30) },
            warn: LevelVersion { level: Level::Restricted, version: Version::LATEST },
            ..Policy::default()
        };
        assert_eq!(read(None, defaults).0, defaults);
        let given = labels(&[("enforce", "privileged"), ("audit", "baseline")]);
        let (policy, _) = read(Some(&given), defaults);
        let shown = [policy.enforce, policy.audit, policy.warn].map(|demand| demand.to_string());
        assert_eq!(shown, ["privileged:v1.30", "baseline:latest", "restricted:latest"]);
        let warning = exempt_warning("ns", &policy, Some(&given), &defaults);
        let expected = "namespace \"ns\" is exempt from Pod Security, and the policy (audit=baseline:latest) will be ignored";
        assert_eq!(warning.as_deref(), Some(expected));
        assert_eq!(exempt_warning("ns", &defaults, None, &defaults), None);
    }

    #[test]
    fn unreadable_labels_are_strict_and_told() {
        let (policy, errors) =
            read(Some(&labels(&[("enforce", "none"), ("audit-version", "x")])), Policy::default());
        assert_eq!(policy.enforce.level, Level::Restricted);
        let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"none\": must be one of privileged, \
                 baseline, restricted",
                "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"x\": must be \"latest\" or \
                 \"v1.x\"",
            ]
        );
        for text in ["1.2", "v1.02", "v2.0", "v1.x", ""] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
