//! `PodSecurityConfiguration`: what namespaces demand that demand nothing themselves, and who is exempt (upstream
//! `pod-security-admission/admission/api`).

use std::collections::BTreeSet;

use api::field::{Error, ErrorList, Path};
use serde::Deserialize;

use super::policy::{Level, LevelVersion, Policy, Version};
use crate::config_file;

const GROUP: &str = "pod-security.admission.config.k8s.io";

/// What is configured; by default nothing is demanded and nobody is exempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub(super) defaults: Policy,
    pub(super) namespaces: BTreeSet<String>,
    pub(super) users: BTreeSet<String>,
    pub(super) runtime_classes: BTreeSet<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct File {
    defaults: Defaults,
    exemptions: Exemptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

impl Settings {
    /// Reads a configuration.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::admission) fn parse(text: &[u8]) -> Result<Self, String> {
        let versions = ["v1", "v1beta1", "v1alpha1"].map(|version| format!("{GROUP}/{version}"));
        let versions = versions.each_ref().map(String::as_str);
        let (_, file): (_, File) = config_file::decode_of(text, "PodSecurityConfiguration", &versions)
            .map_err(|error| error.to_string())?;
        let mut errors = ErrorList::new();
        let given = &file.defaults;
        let path = Path::new("defaults");
        let defaults = Policy {
            enforce: demand(&path, "enforce", &given.enforce, &given.enforce_version, &mut errors),
            warn: demand(&path, "warn", &given.warn, &given.warn_version, &mut errors),
            audit: demand(&path, "audit", &given.audit, &given.audit_version, &mut errors),
        };
        let path = Path::new("exemptions");
        let given = file.exemptions;
        let settings = Self {
            defaults,
            namespaces: exempt(&path.child("namespaces"), given.namespaces, &mut errors, |name| {
                api::format::dns1123_label(name).join(", ")
            }),
            runtime_classes: exempt(
                &path.child("runtimeClasses"),
                given.runtime_classes,
                &mut errors,
                |name| api::format::dns1123_subdomain(name).join(", "),
            ),
            users: exempt(&path.child("usernames"), given.usernames, &mut errors, |name| {
                if name.is_empty() { "username must not be empty".to_owned() } else { String::new() }
            }),
        };
        if errors.is_empty() { Ok(settings) } else { Err(crate::authn::setup::joined(&errors)) }
    }
}

/// A level and its version; what is left out demands nothing.
fn demand(path: &Path, mode: &str, level: &str, version: &str, errors: &mut ErrorList) -> LevelVersion {
    let mut demand = LevelVersion::default();
    if !level.is_empty() {
        match Level::parse(level) {
            Some(level) => demand.level = level,
            None => {
                let why = "must be one of privileged, baseline, restricted";
                errors.push(Error::invalid(&path.child(mode), level, why));
            }
        }
    }
    if !version.is_empty() {
        match Version::parse(version) {
            Some(version) => demand.version = version,
            None => {
                let why = "must be \"latest\" or \"v1.x\"";
                errors.push(Error::invalid(&path.child(&format!("{mode}-version")), version, why));
            }
        }
    }
    demand
}

fn exempt(
    path: &Path,
    names: Vec<String>,
    errors: &mut ErrorList,
    wrong: impl Fn(&str) -> String,
) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for (i, name) in names.into_iter().enumerate() {
        let why = wrong(&name);
        if !why.is_empty() {
            errors.push(Error::invalid(&path.index(i), name, why));
        } else if known.contains(&name) {
            errors.push(Error::duplicate(&path.index(i), name));
        } else {
            known.insert(name);
        }
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        let head = format!("apiVersion: {GROUP}/v1\nkind: PodSecurityConfiguration\n");
        Settings::parse(format!("{head}{text}").as_bytes())
    }

    #[test]
    fn settings_are_read() {
        let settings = parse(
            "defaults: {enforce: baseline, enforce-version: v1.30, warn: restricted}\n\
             exemptions: {usernames: [jane], namespaces: [kube-system], runtimeClasses: [kata]}",
        );
        let settings = settings.expect("a configuration");
        assert_eq!(settings.defaults.enforce.to_string(), "baseline:v1.30");
        assert_eq!(settings.defaults.warn.to_string(), "restricted:latest");
        assert_eq!(settings.defaults.audit, LevelVersion::default());
        assert!(settings.users.contains("jane") && settings.runtime_classes.contains("kata"));
        assert_eq!(parse(""), Ok(Settings::default()));
    }

    /// Cases of upstream's `TestValidatePodSecurityConfiguration`.
    #[test]
    fn what_is_wrong_is_told() {
        for (text, expected) in [
            (
                "defaults: {enforce: baselin, audit-version: v.1}",
                "[defaults.enforce: Invalid value: \"baselin\": must be one of privileged, baseline, restricted, \
                 defaults.audit-version: Invalid value: \"v.1\": must be \"latest\" or \"v1.x\"]",
            ),
            (
                "exemptions: {usernames: ['']}",
                "exemptions.usernames[0]: Invalid value: \"\": username must not be empty",
            ),
            ("exemptions: {namespaces: [a, b, a]}", "exemptions.namespaces[2]: Duplicate value: \"a\""),
            (
                "exemptions: {runtimeClasses: ['x y']}",
                "exemptions.runtimeClasses[0]: Invalid value: \"x y\": ",
            ),
            ("exempt: {}", "strict decoding error: unknown field `exempt`"),
        ] {
            let why = parse(text).expect_err("refused");
            assert!(why.starts_with(expected), "{why}");
        }
    }
}
