//! The file that says how which resources are stored: `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`
//! (upstream `apis/apiserver/v1/types_encryption.go` and `validation_encryption.go`).

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::config_file;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncryptionConfiguration {
    /// In order: what comes first counts.
    pub resources: Vec<ResourceConfiguration>,
}

/// How some resources are stored.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceConfiguration {
    /// `resource`, `resource.group`, `*.group`, `*.` (the core group) or `*.*`.
    pub resources: Vec<String>,
    /// The first one writes, all read.
    pub providers: Vec<ProviderConfiguration>,
}

/// One way to store; one of the fields is there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderConfiguration {
    /// AES in Galois counter mode.
    pub aesgcm: Option<KeysConfiguration>,
    /// AES in cipher block chaining.
    pub aescbc: Option<KeysConfiguration>,
    /// NaCl's secret box.
    pub secretbox: Option<KeysConfiguration>,
    /// As it is.
    pub identity: Option<IdentityConfiguration>,
    /// With keys that a service encrypts.
    pub kms: Option<KmsConfiguration>,
}

/// Keys; the first one writes, all read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeysConfiguration {
    /// The keys.
    pub keys: Vec<Key>,
}

/// Nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfiguration {}

/// A key.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Key {
    /// Stands before what was written with it.
    pub name: String,
    /// Base64.
    pub secret: String,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Name: {}, Secret: [REDACTED]", self.name)
    }
}

impl Key {
    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.secret).ok()
    }
}

/// A service that keeps keys.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct KmsConfiguration {
    /// `v2`; the first version is not served.
    pub api_version: Option<String>,
    /// Stands before what was written with it.
    pub name: String,
    /// Of the first version.
    pub cachesize: Option<i32>,
    /// `unix://` and the path of a socket.
    pub endpoint: String,
    /// How long it may take to answer.
    pub timeout: Option<String>,
}

const PATIENCE: Duration = Duration::from_secs(3);

impl KmsConfiguration {
    /// How long it may take to answer.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        match &self.timeout {
            None => Some(PATIENCE),
            Some(text) => crate::query::parse_duration(text).ok().filter(|time| !time.is_zero()),
        }
    }

    /// The path of the socket.
    #[must_use]
    pub fn socket(&self) -> Option<&str> {
        self.endpoint.strip_prefix("unix://").filter(|path| !path.is_empty())
    }
}

/// A resource of a group, either of which may be a star.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupResource {
    /// Empty for the core group.
    pub group: String,
    /// Plural.
    pub resource: String,
}

impl GroupResource {
    /// As in the file: `resource.group`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group: group.to_owned(), resource: resource.to_owned() }
    }
}

impl std::fmt::Display for GroupResource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("error reading encryption provider configuration file {path:?}: {source}")]
    Unreadable {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is empty.
    #[error("encryption provider configuration file {0:?} is empty")]
    Empty(String),
    /// It is no such configuration.
    #[error("error decoding encryption provider configuration file {path:?}: {source}")]
    Malformed {
        /// Which file.
        path: String,
        /// Why.
        source: config_file::Error,
    },
    /// It says what cannot be.
    #[error("{0}")]
    Invalid(String),
}

/// Reads a file's text.
pub fn parse(path: &str, text: &[u8], reload: bool) -> Result<EncryptionConfiguration, Error> {
    if text.is_empty() {
        return Err(Error::Empty(path.to_owned()));
    }
    let decoded = config_file::decode(text, "EncryptionConfiguration", &["v1"]);
    let (_, config) = decoded.map_err(|source| Error::Malformed { path: path.to_owned(), source })?;
    let mut errors = Vec::new();
    check(&config, reload, &mut errors);
    match errors.as_slice() {
        [] => Ok(config),
        [one] => Err(Error::Invalid(one.clone())),
        many => Err(Error::Invalid(format!("[{}]", many.join(", ")))),
    }
}

fn check(config: &EncryptionConfiguration, reload: bool, errors: &mut Vec<String>) {
    if config.resources.is_empty() {
        errors.push(required("resources", "resources"));
    }
    let mut services = BTreeSet::new();
    for (i, rule) in config.resources.iter().enumerate() {
        let resources = format!("resources[{i}].resources");
        let providers = format!("resources[{i}].providers");
        if rule.resources.is_empty() {
            errors.push(required(&resources, &resources));
        }
        check_overlap(&rule.resources, &resources, errors);
        for (j, name) in rule.resources.iter().enumerate() {
            if let Some(why) = wrong_resource(name) {
                errors.push(format!("{resources}[{j}]: Invalid value: {name:?}: {why}"));
            }
        }
        if rule.providers.is_empty() {
            errors.push(required(&providers, &providers));
        }
        for (j, provider) in rule.providers.iter().enumerate() {
            check_provider(provider, &format!("{providers}[{j}]"), reload, &mut services, errors);
        }
    }
}

fn required(field: &str, what: &str) -> String {
    format!("{field}: Required value: at least one {what} is required")
}

fn check_overlap(resources: &[String], field: &str, errors: &mut Vec<String>) {
    let parsed: Vec<_> = resources.iter().map(|name| GroupResource::parse(name)).collect();
    let pairs = || parsed.iter().enumerate().flat_map(|(i, a)| parsed[i + 1..].iter().map(move |b| (a, b)));
    let star = |own: &GroupResource| own.resource == "*";
    let all = |own: &GroupResource| star(own) && own.group == "*";
    let overlaps = |a: &GroupResource, b: &GroupResource| {
        a != b && (all(a) || all(b) || a.group == b.group && (star(a) || star(b)))
    };
    let shown = format!("{resources:?}");
    if pairs().any(|(a, b)| a == b) {
        let why = "the same resource cannot be specified multiple times";
        errors.push(format!("{field}: Invalid value: {shown}: {why}"));
    }
    if pairs().any(|(a, b)| overlaps(a, b)) {
        let why = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as \
                   they will be masked";
        errors.push(format!("{field}: Invalid value: {shown}: {why}"));
    }
}

fn wrong_resource(name: &str) -> Option<&'static str> {
    let GroupResource { group, resource } = GroupResource::parse(name);
    if name.chars().any(char::is_uppercase) {
        return Some("resource name should not contain capital letters");
    }
    if name == "*" {
        return Some(
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        );
    }
    if matches!(name, "apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations") {
        return Some("resources which do not have REST API/s cannot be encrypted");
    }
    match (group.as_str(), resource.as_str()) {
        ("events.k8s.io", _) => Some(
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the \
             config file",
        ),
        ("extensions", _) => Some("'extensions' group has been removed and cannot be used for encryption"),
        ("*", resource) if resource != "*" => {
            Some("encrypting the same resource across groups is not supported")
        }
        _ => None,
    }
}

fn check_provider(
    provider: &ProviderConfiguration,
    field: &str,
    reload: bool,
    services: &mut BTreeSet<String>,
    errors: &mut Vec<String>,
) {
    let ProviderConfiguration { aesgcm, aescbc, secretbox, identity, kms } = provider;
    let given = [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
    match given.iter().filter(|given| **given).count() {
        0 => errors.push(format!(
            "{field}: Invalid value: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, \
             Secretbox, Identity"
        )),
        1 => {}
        _ => errors.push(format!(
            "{field}: Invalid value: more than one provider specified in a single element, should split into \
             different list elements"
        )),
    }
    const AES: &[usize] = &[16, 24, 32];
    for (name, keys, sizes) in
        [("aesgcm", aesgcm, AES), ("aescbc", aescbc, AES), ("secretbox", secretbox, &[32][..])]
    {
        if let Some(own) = keys {
            check_keys(&own.keys, &format!("{field}.{name}.keys"), sizes, errors);
        }
    }
    if let Some(kms) = kms {
        check_kms(kms, &format!("{field}.kms"), reload, services, errors);
    }
}

fn check_keys(keys: &[Key], field: &str, sizes: &[usize], errors: &mut Vec<String>) {
    if keys.is_empty() {
        errors.push(required(field, "keys"));
    }
    for (i, key) in keys.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if key.name.is_empty() {
            errors.push(format!("{field}.name: Required value: name is a mandatory field for a key"));
        }
        if key.secret.is_empty() {
            errors.push(format!("{field}.secret: Required value: secret is a mandatory field for a key"));
            continue;
        }
        // What is said of secrets never shows them.
        match key.bytes() {
            None => errors
                .push(format!("{field}.secret: Invalid value: \"REDACTED\": secrets must be base64 encoded")),
            Some(bytes) if !sizes.contains(&bytes.len()) => {
                let sizes = sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
                errors.push(format!(
                    "{field}.secret: Invalid value: \"REDACTED\": secret is not of the expected length, got {}, \
                     expected one of [{sizes}]",
                    bytes.len()
                ));
            }
            Some(_) => {}
        }
    }
}

fn check_kms(
    kms: &KmsConfiguration,
    field: &str,
    reload: bool,
    services: &mut BTreeSet<String>,
    errors: &mut Vec<String>,
) {
    let name = kms.name.as_str();
    if name.is_empty() {
        errors.push(format!("{field}.name: Required value: name is a mandatory field for a provider"));
    } else if name.contains(':') && (reload || kms.api_version.as_deref() != Some("v1")) {
        errors.push(format!(
            "{field}.name: Invalid value: {name:?}: invalid KMS provider name {name}, must not contain ':'"
        ));
    }
    if !services.insert(name.to_owned()) {
        errors.push(format!(
            "{field}.name: Invalid value: {name:?}: duplicate KMS provider name {name}, names must be unique"
        ));
    }
    match kms.api_version.as_deref() {
        Some("v2") => {}
        // The version where none is given.
        Some("v1") | None => errors.push(format!(
            "{field}.apiVersion: Invalid value: \"v1\": KMSv1 is deprecated and is not served. Use KMSv2 instead."
        )),
        Some(other) => errors.push(format!(
            "{field}.apiVersion: Invalid value: {other:?}: unsupported apiVersion {field}.apiVersion for KMS provider, \
             only v1 and v2 are supported"
        )),
    }
    if kms.cachesize.is_some() {
        errors.push(format!("{field}.cachesize: Invalid value: cachesize is not supported in v2"));
    }
    if kms.timeout().is_none() {
        let shown = kms.timeout.as_deref().unwrap_or_default();
        errors.push(format!(
            "{field}.timeout: Invalid value: {shown:?}: {field}.timeout should be a positive value"
        ));
    }
    if kms.endpoint.is_empty() {
        errors
            .push(format!("{field}.endpoint: Required value: endpoint is a mandatory field for a provider"));
    } else if kms.socket().is_none() {
        let (scheme, shown) = (kms.endpoint.split(':').next().unwrap_or_default(), &kms.endpoint);
        errors.push(format!(
            "{field}.endpoint: Invalid value: {shown:?}: unsupported scheme {scheme:?} for KMS provider, only unix is \
             supported"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(body: &str) -> String {
        let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n{body}");
        parse("f", text.as_bytes(), false).err().map(|error| error.to_string()).unwrap_or_default()
    }

    fn of_resources(resources: &str) -> String {
        problems(&format!("resources: [{{resources: {resources}, providers: [{{identity: {{}}}}]}}]"))
    }

    fn of_providers(providers: &str) -> String {
        problems(&format!("resources: [{{resources: [secrets], providers: {providers}}}]"))
    }

    // After cases of upstream's TestStructure, TestResourceOverlap and TestEncryptionConfigWildcard.
    #[test]
    fn resources_are_named_as_they_can_be() {
        for resources in ["[secrets]", "['*.']", "['*.*']", "['*.apps', secrets]", "[pandas.bears.example]"] {
            assert_eq!(of_resources(resources), "", "{resources}");
        }
        for (resources, why) in [
            ("[]", "at least one resources[0].resources is required"),
            ("[Secrets]", "capital letters"),
            ("['*']", "use '*.'"),
            ("[serviceipallocations]", "do not have REST API/s"),
            ("[events.events.k8s.io]", "Use 'events' instead"),
            ("['*.extensions']", "has been removed"),
            ("['secrets.*']", "across groups"),
            ("[secrets, secrets]", "specified multiple times"),
            ("[secrets, '*.']", "overlapping resources"),
            ("['*.*', '*.apps']", "overlapping resources"),
        ] {
            let found = of_resources(resources);
            assert!(found.contains(why), "{resources}: {found}");
        }
    }

    // After cases of upstream's TestKey, TestKMSEndpoint, TestKMSProviderName and others of that file.
    #[test]
    fn providers_have_what_they_need() {
        let secret = |size: usize| STANDARD.encode(vec![9; size]);
        for (name, sizes) in [("aesgcm", &[16, 24, 32][..]), ("aescbc", &[16, 24, 32]), ("secretbox", &[32])]
        {
            for size in [8, 16, 24, 32, 33] {
                let keys = format!("[{{{name}: {{keys: [{{name: a, secret: {}}}]}}}}]", secret(size));
                let found = of_providers(&keys);
                assert_eq!(found.is_empty(), sizes.contains(&size), "{name} {size}: {found}");
                assert!(!found.contains(&secret(size)), "{found}");
            }
        }
        let kms = "name: k, endpoint: unix:///tmp/kms.sock";
        for (providers, why) in [
            ("[]", "at least one resources[0].providers is required"),
            ("[{}]", "does not contain any of the expected providers"),
            ("[{identity: {}, aesgcm: {keys: []}}]", "more than one provider"),
            ("[{aescbc: {keys: []}}]", "at least one keys is required"),
            ("[{aescbc: {keys: [{secret: eHh4eHh4eHh4eHh4eHh4eA==}]}}]", "name is a mandatory field"),
            ("[{aescbc: {keys: [{name: a, secret: '!'}]}}]", "must be base64 encoded"),
            ("[{rot13: {}}]", "unknown field"),
            ("[{kms: {apiVersion: v2, endpoint: unix:///a}}]", "name is a mandatory field"),
            ("[{kms: {apiVersion: v2, name: 'a:b', endpoint: unix:///a}}]", "must not contain ':'"),
            ("[{kms: {apiVersion: v2, name: a, endpoint: tcp:///a}}]", "unsupported scheme"),
            ("[{kms: {apiVersion: v2, name: a}}]", "endpoint is a mandatory field"),
            ("[{kms: {apiVersion: v2, name: a, endpoint: unix:///a, timeout: 0s}}]", "a positive value"),
            (&format!("[{{kms: {{{kms}}}}}]"), "KMSv1"),
            (&format!("[{{kms: {{apiVersion: v3, {kms}}}}}]"), "unsupported apiVersion"),
            (
                &format!("[{{kms: {{apiVersion: v2, {kms}}}}}, {{kms: {{apiVersion: v2, {kms}}}}}]"),
                "duplicate",
            ),
        ] {
            let found = of_providers(providers);
            assert!(found.contains(why), "{providers}: {found}");
        }
        assert_eq!(of_providers(&format!("[{{kms: {{apiVersion: v2, timeout: 5s, {kms}}}}}]")), "");
    }

    #[test]
    fn another_file_is_refused() {
        assert!(parse("f", b"", false).is_err());
        assert!(parse("f", b"kind: Pod\napiVersion: v1", false).is_err());
    }
}
