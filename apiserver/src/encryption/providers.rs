//! Which resources are transformed how (upstream `storage/value/transformer.go` and `encryptionconfig/config.go`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::ciphers::{Cbc, Cipher, Gcm};
use super::config::{EncryptionConfiguration, GroupResource, KeysConfiguration, ProviderConfiguration};
use super::kms::Kms;

/// What encrypted values begin with.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// Why a value could not be transformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It never will be, as things are.
    #[error("{0}")]
    Undecryptable(String),
    /// A key service did not answer. Try again.
    #[error("{0}")]
    Unavailable(String),
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transformed {
    /// The plain value.
    pub value: Bytes,
    /// Whether it would be stored in another way today.
    pub outdated: bool,
}

/// One way to store values.
enum Provider {
    /// As they are.
    Identity,
    /// With one of these keys, whose names follow the prefix.
    Ciphers { prefix: &'static str, keys: Vec<(String, Cipher)> },
    /// With keys that a service encrypts.
    Kms { prefix: String, kms: Arc<Kms> },
}

/// The providers of some resources; the first one writes.
type Chain = Arc<[Arc<Provider>]>;

/// The providers of all resources.
#[derive(Default)]
pub struct Providers {
    chains: HashMap<GroupResource, Chain>,
    services: Vec<Arc<Kms>>,
}

impl Providers {
    /// As configured. The error says what a later rule has that an earlier one hides.
    pub fn new(config: &EncryptionConfiguration) -> anyhow::Result<Self> {
        let mut chains: HashMap<GroupResource, Vec<Arc<Provider>>> = HashMap::new();
        let mut services = Vec::new();
        for rule in &config.resources {
            let made = rule.providers.iter().map(|own| provider(own, &mut services).map(Arc::new));
            let providers: Vec<_> = made.collect::<anyhow::Result<_>>()?;
            for name in &rule.resources {
                let own = GroupResource::parse(name);
                for masks in [star(&own.group), star("*")] {
                    anyhow::ensure!(
                        own == masks || !chains.contains_key(&masks),
                        "resource {:?} is masked by earlier rule {:?}",
                        shown(&own),
                        shown(&masks)
                    );
                }
                chains.entry(own).or_default().extend(providers.iter().cloned());
            }
        }
        let chains = chains.into_iter().map(|(resource, chain)| (resource, chain.into())).collect();
        Ok(Self { chains, services })
    }

    /// The key services that are used.
    #[must_use]
    pub fn services(&self) -> &[Arc<Kms>] {
        &self.services
    }

    fn chain(&self, resource: &GroupResource) -> Option<&Chain> {
        let all_of_group = || self.chains.get(&star(&resource.group));
        self.chains.get(resource).or_else(all_of_group).or_else(|| self.chains.get(&star("*")))
    }

    /// What is stored of a value at `key`.
    pub async fn seal(&self, resource: &GroupResource, key: &str, value: Bytes) -> Result<Bytes, Failure> {
        let Some(provider) = self.chain(resource).and_then(|chain| chain.first()) else { return Ok(value) };
        let began = Instant::now();
        let sealed = provider.seal(key, value).await;
        measure(resource, "to_storage", provider.prefix(), began, sealed.as_ref().err());
        sealed
    }

    /// The value that is stored at `key`.
    pub async fn open(
        &self,
        resource: &GroupResource,
        key: &str,
        stored: Bytes,
    ) -> Result<Transformed, Failure> {
        let Some(chain) = self.chain(resource) else {
            let why =
                || Failure::Undecryptable("identity transformer tried to read encrypted data".to_owned());
            return plain(stored).ok_or_else(why);
        };
        let mut failures = Vec::new();
        for (i, provider) in chain.iter().enumerate() {
            let began = Instant::now();
            let Some(opened) = provider.open(key, &stored).await else { continue };
            let name = if provider.prefix().is_empty() { "identity" } else { provider.prefix() };
            measure(resource, "from_storage", name, began, opened.as_ref().err());
            match opened {
                Ok(opened) => {
                    return Ok(Transformed { outdated: opened.outdated || i > 0, ..opened });
                }
                // The same provider may come again with other keys.
                Err(why) => failures.push(why),
            }
        }
        let nobody = failures.is_empty();
        let why = all_of(failures, "no matching prefix found");
        if nobody {
            measure(resource, "from_storage", "unknown", Instant::now(), Some(&why));
        }
        Err(why)
    }
}

/// Counts one transformation, and if it succeeded, how long it took, under upstream's names (`value/metrics.go`).
fn measure(
    resource: &GroupResource,
    kind: &'static str,
    prefix: &str,
    began: Instant,
    failure: Option<&Failure>,
) {
    let status = match failure {
        None => "OK",
        Some(Failure::Unavailable(_)) => "Unavailable",
        Some(Failure::Undecryptable(_)) => "unknown-non-grpc",
    };
    let resource = resource.to_string();
    let prefix = prefix.to_owned();
    metrics::counter!(
        "apiserver_storage_transformation_operations_total",
        "resource" => resource, "transformation_type" => kind, "transformer_prefix" => prefix.clone(), "status" => status
    )
    .increment(1);
    if failure.is_none() {
        let name = "apiserver_storage_transformation_duration_seconds";
        let took = began.elapsed().as_secs_f64();
        metrics::histogram!(name, "transformation_type" => kind, "transformer_prefix" => prefix).record(took);
    }
}

fn all_of(mut failures: Vec<Failure>, none: &str) -> Failure {
    if let Some(unavailable) = failures.iter().find(|why| matches!(why, Failure::Unavailable(_))) {
        return unavailable.clone();
    }
    match failures.len() {
        0 => Failure::Undecryptable(none.to_owned()),
        1 => failures.remove(0),
        _ => {
            let texts: Vec<String> = failures.iter().map(Failure::to_string).collect();
            Failure::Undecryptable(format!("[{}]", texts.join(", ")))
        }
    }
}

fn star(group: &str) -> GroupResource {
    GroupResource { group: group.to_owned(), resource: "*".to_owned() }
}

fn shown(own: &GroupResource) -> String {
    match (own.resource.as_str(), own.group.as_str()) {
        ("*", "") => "*.".to_owned(),
        (resource, "") => resource.to_owned(),
        (resource, group) => format!("{resource}.{group}"),
    }
}

/// A value that is stored as it is.
fn plain(stored: Bytes) -> Option<Transformed> {
    (!stored.starts_with(ENCRYPTED)).then_some(Transformed { value: stored, outdated: false })
}

fn provider(config: &ProviderConfiguration, services: &mut Vec<Arc<Kms>>) -> anyhow::Result<Provider> {
    let gcm = |key: &[u8]| Gcm::new(key).map(Cipher::Gcm);
    let cbc = |key: &[u8]| Cbc::new(key).map(|cbc| Cipher::Cbc(Box::new(cbc)));
    if let Some(own) = &config.aesgcm {
        return ciphers("k8s:enc:aesgcm:v1:", own, gcm);
    }
    if let Some(own) = &config.aescbc {
        return ciphers("k8s:enc:aescbc:v1:", own, cbc);
    }
    if let Some(own) = &config.secretbox {
        return ciphers("k8s:enc:secretbox:v1:", own, Cipher::secretbox);
    }
    if let Some(own) = &config.kms {
        let kms = Arc::new(Kms::new(own)?);
        services.push(Arc::clone(&kms));
        return Ok(Provider::Kms { prefix: format!("k8s:enc:kms:v2:{}:", own.name), kms });
    }
    Ok(Provider::Identity)
}

fn ciphers(
    prefix: &'static str,
    config: &KeysConfiguration,
    cipher: impl Fn(&[u8]) -> Option<Cipher>,
) -> anyhow::Result<Provider> {
    let keys = config.keys.iter().map(|key| {
        let made = key.bytes().and_then(|bytes| cipher(&bytes));
        let made =
            made.ok_or_else(|| anyhow::anyhow!("error while creating cipher for named key {}", key.name))?;
        Ok((format!("{}:", key.name), made))
    });
    Ok(Provider::Ciphers { prefix, keys: keys.collect::<anyhow::Result<_>>()? })
}

impl Provider {
    async fn seal(&self, path: &str, value: Bytes) -> Result<Bytes, Failure> {
        let path = path.as_bytes();
        match self {
            Self::Identity => Ok(value),
            Self::Ciphers { prefix, keys } => {
                let Some((name, cipher)) = keys.first() else { return Err(undecryptable("there is no key")) };
                let sealed = cipher.seal(&value, path).map_err(undecryptable)?;
                Ok([prefix.as_bytes(), name.as_bytes(), &sealed].concat().into())
            }
            Self::Kms { prefix, kms } => {
                let sealed = kms.seal(&value, path)?;
                Ok([prefix.as_bytes(), &sealed].concat().into())
            }
        }
    }

    /// What the values it has stored begin with.
    fn prefix(&self) -> &str {
        match self {
            Self::Identity => "",
            Self::Ciphers { prefix, .. } => prefix,
            Self::Kms { prefix, .. } => prefix,
        }
    }

    /// `None` if the value was stored by another provider.
    async fn open(&self, path: &str, stored: &Bytes) -> Option<Result<Transformed, Failure>> {
        let path = path.as_bytes();
        match self {
            Self::Identity => plain(stored.clone()).map(Ok),
            Self::Ciphers { prefix, keys } => {
                let rest = stored.strip_prefix(prefix.as_bytes())?;
                Some(open_with(keys, rest, path))
            }
            Self::Kms { prefix, kms } => {
                let rest = stored.strip_prefix(prefix.as_bytes())?;
                Some(kms.open(rest, path).await)
            }
        }
    }
}

fn open_with(keys: &[(String, Cipher)], stored: &[u8], path: &[u8]) -> Result<Transformed, Failure> {
    let mut failures = Vec::new();
    for (i, (name, cipher)) in keys.iter().enumerate() {
        let Some(sealed) = stored.strip_prefix(name.as_bytes()) else { continue };
        match cipher.open(sealed, path) {
            Ok(value) => return Ok(Transformed { value: value.into(), outdated: i > 0 }),
            Err(why) => failures.push(undecryptable(why)),
        }
    }
    Err(all_of(failures, "no matching key was found for the provided transformer"))
}

fn undecryptable(why: impl std::fmt::Display) -> Failure {
    Failure::Undecryptable(why.to_string())
}
