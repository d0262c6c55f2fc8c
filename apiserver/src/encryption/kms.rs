//! Keys that a service encrypts: KMS v2 (upstream `storage/value/encrypt/envelope/kmsv2` and the probe in
//! `encryptionconfig/config.go`).
//!
//! The service encrypts one seed of the server's, which is kept beside every value; each value has a key of its own
//! that is derived from the seed. So the service is asked once for each seed, and values are read and written without
//! it. A task asks how the service is; when it has another key, there is a new seed. If it does not answer, writing goes
//! on for three minutes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use proto::kms::key_management_service_client::KeyManagementServiceClient;
use proto::kms::{
    DecryptRequest, EncryptRequest, EncryptedDekSourceType, EncryptedObject, StatusRequest, StatusResponse,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::ciphers::{Gcm, Seed};
use super::config::KmsConfiguration;
use super::providers::{Failure, Transformed};

/// How often a service that works is asked.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often a service that does not work is asked.
const RETRY: Duration = Duration::from_secs(10);
/// How long is written with a seed when nothing is heard of the service.
const PATIENCE: Duration = Duration::from_secs(3 * 60);
/// How long keys are kept that nobody reads with.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// The most bytes of a key's name, and of a seed that was encrypted.
const MOST: usize = 1024;
/// The most bytes of all annotations.
const MOST_ANNOTATIONS: usize = 32 * 1024;

/// A key service, and the keys that it keeps.
pub struct Kms {
    name: String,
    timeout: Duration,
    client: KeyManagementServiceClient<Channel>,
    current: RwLock<Option<Arc<Current>>>,
    version: Mutex<String>,
    /// Why the service does not work, if it does not.
    trouble: RwLock<Option<String>>,
    opened: Mutex<HashMap<Source, (Instant, Arc<DataKey>)>>,
}

/// What values are written with.
struct Current {
    key: Arc<DataKey>,
    source: Source,
    expires: Instant,
}

/// A seed or key in the form in which the service can read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Source {
    kind: i32,
    key_id: String,
    encrypted: Bytes,
    annotations: BTreeMap<String, Bytes>,
}

/// A seed or key that values are read with.
enum DataKey {
    Seed(Seed),
    Key(Gcm),
}

impl DataKey {
    fn new(kind: i32, bytes: &[u8]) -> Option<Self> {
        match EncryptedDekSourceType::try_from(kind).ok()? {
            EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed => Seed::new(bytes).map(Self::Seed),
            EncryptedDekSourceType::AesGcmKey => Gcm::new(bytes).map(Self::Key),
        }
    }

    fn open(&self, stored: &[u8], path: &[u8]) -> Result<Vec<u8>, super::ciphers::Error> {
        match self {
            Self::Seed(seed) => seed.open(stored, path),
            Self::Key(key) => key.open(stored, path),
        }
    }

    fn seal(&self, plain: &[u8], path: &[u8]) -> Result<Vec<u8>, super::ciphers::Error> {
        match self {
            Self::Seed(seed) => seed.seal(plain, path),
            Self::Key(key) => key.seal(plain, path),
        }
    }
}

/// Why the service cannot be used.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("failed to perform status section of the healthz check for KMS Provider {name}, error: {why}")]
    Status { name: String, why: String },
    #[error("kmsv2 Provider {name} is not healthy, error: {why}")]
    Unhealthy { name: String, why: String },
}

impl Kms {
    /// A service at a socket. It is not asked yet.
    pub fn new(config: &KmsConfiguration) -> anyhow::Result<Self> {
        let socket = config.socket().map(str::to_owned);
        let socket = socket.ok_or_else(|| anyhow::anyhow!("{:?} is no path of a socket", config.endpoint))?;
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let socket = socket.clone();
                async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
            }),
        );
        Ok(Self {
            name: config.name.clone(),
            timeout: config.timeout().unwrap_or(Duration::from_secs(3)),
            client: KeyManagementServiceClient::new(channel),
            current: RwLock::default(),
            version: Mutex::default(),
            trouble: RwLock::new(Some("the service was not asked yet".to_owned())),
            opened: Mutex::default(),
        })
    }

    /// Why the service does not work, if it does not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.read().clone()
    }

    /// Asks how the service is, and takes a new seed if it has a new key.
    pub async fn probe(&self) {
        let outcome = self.check().await;
        if let Err(trouble) = &outcome {
            tracing::warn!(error = %trouble, "a key service does not work");
        }
        *self.trouble.write() = outcome.err().map(|trouble| trouble.to_string());
    }

    /// Asks again and again until `token` is cancelled.
    pub async fn run(self: Arc<Self>, token: CancellationToken) {
        loop {
            let pause = if self.trouble.read().is_some() { RETRY } else { INTERVAL };
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = self.probe() => {}
            }
        }
    }

    async fn check(&self) -> Result<(), Trouble> {
        let unheard = |why: String| Trouble::Status { name: self.name.clone(), why };
        let status = self.ask(self.client.clone().status(StatusRequest {})).await.map_err(unheard)?;
        let mut problems = self.problems(&status);
        if problems.is_empty()
            && let Err(why) = self.renew(&status.key_id).await
        {
            problems.push(why);
        }
        match problems.is_empty() {
            true => Ok(()),
            false => Err(Trouble::Unhealthy { name: self.name.clone(), why: problems.join(", ") }),
        }
    }

    fn problems(&self, status: &StatusResponse) -> Vec<String> {
        let mut problems = Vec::new();
        if status.healthz != "ok" {
            problems.push(format!("got unexpected healthz status: {}", status.healthz));
        }
        let mut version = self.version.lock();
        match status.version.as_str() {
            "v2" | "v2beta1" if version.is_empty() => version.clone_from(&status.version),
            "v2" | "v2beta1" if *version == status.version => {}
            "v2" | "v2beta1" => problems.push(format!(
                "KMSv2 API version should not change after the initial status response version {}, got {}",
                *version, status.version
            )),
            other => problems.push(format!("expected KMSv2 API version v2, got {other}")),
        }
        if let Err(why) = check_key_id(&status.key_id) {
            problems.push(format!("got invalid KMSv2 KeyID: {why}"));
        }
        problems
    }

    /// Goes on with the seed if the service has the same key still; otherwise takes another one.
    async fn renew(&self, key_id: &str) -> Result<(), String> {
        // Counted from before the service is asked.
        let expires = Instant::now() + PATIENCE;
        let known = self.current.read().clone().filter(|own| own.source.key_id == key_id);
        let next = match known {
            Some(own) => Current { key: Arc::clone(&own.key), source: own.source.clone(), expires },
            None => self.new_seed(key_id, expires).await?,
        };
        *self.current.write() = Some(Arc::new(next));
        Ok(())
    }

    async fn new_seed(&self, key_id: &str, expires: Instant) -> Result<Current, String> {
        let seed = Seed::random().map_err(|error| error.to_string())?;
        let request = EncryptRequest {
            plaintext: Bytes::copy_from_slice(seed.bytes()),
            uid: uuid::Uuid::new_v4().to_string(),
        };
        let answer = self.ask(self.client.clone().encrypt(request)).await;
        let answer = answer.map_err(|why| format!("failed to encrypt DEK, error: {why}"))?;
        if answer.key_id != key_id {
            return Err("failed to rotate DEK: the key of the status is not the one that was used".to_owned());
        }
        let source = Source {
            kind: EncryptedDekSourceType::HkdfSha256XnonceAesGcmSeed.into(),
            key_id: answer.key_id,
            encrypted: answer.ciphertext,
            annotations: answer.annotations.into_iter().collect(),
        };
        source.check()?;
        let key = Arc::new(DataKey::Seed(seed));
        self.keep(source.clone(), Arc::clone(&key));
        Ok(Current { key, source, expires })
    }

    async fn ask<T>(
        &self,
        answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, String> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }

    /// Keeps a key to read with, and forgets those that were not used for long.
    fn keep(&self, source: Source, key: Arc<DataKey>) {
        let now = Instant::now();
        let mut opened = self.opened.lock();
        opened.retain(|_, (used, _)| now.duration_since(*used) < KEPT);
        opened.insert(source, (now, key));
    }

    fn kept(&self, source: &Source) -> Option<Arc<DataKey>> {
        let mut opened = self.opened.lock();
        let (used, key) = opened.get_mut(source)?;
        *used = Instant::now();
        Some(Arc::clone(key))
    }

    /// What is stored of a value at `path`.
    pub fn seal(&self, plain: &[u8], path: &[u8]) -> Result<Vec<u8>, Failure> {
        let current = self.current.read().clone();
        let current =
            current.ok_or_else(|| Failure::Unavailable("there is no key to encrypt with".to_owned()))?;
        if Instant::now() > current.expires {
            let why = format!("the key of KMS provider {} has expired", self.name);
            return Err(Failure::Unavailable(why));
        }
        let sealed = current.key.seal(plain, path).map_err(|why| Failure::Undecryptable(why.to_string()))?;
        let Source { kind, key_id, encrypted, annotations } = current.source.clone();
        let object = EncryptedObject {
            encrypted_data: sealed.into(),
            key_id,
            encrypted_dek_source: encrypted,
            annotations: annotations.into_iter().collect(),
            encrypted_dek_source_type: kind,
        };
        Ok(object.encode_to_vec())
    }

    /// Reads what is stored at `path`.
    pub async fn open(&self, stored: &[u8], path: &[u8]) -> Result<Transformed, Failure> {
        let malformed = |why: String| Failure::Undecryptable(why);
        let object = EncryptedObject::decode(stored).map_err(|error| malformed(error.to_string()))?;
        if object.encrypted_data.is_empty() {
            return Err(malformed("encrypted data is empty".to_owned()));
        }
        let source = Source {
            kind: object.encrypted_dek_source_type,
            key_id: object.key_id,
            encrypted: object.encrypted_dek_source,
            annotations: object.annotations.into_iter().collect(),
        };
        source.check().map_err(malformed)?;
        let key = match self.kept(&source) {
            Some(key) => key,
            None => self.fetch(&source).await?,
        };
        let plain = key.open(&object.encrypted_data, path).map_err(|why| malformed(why.to_string()))?;
        let current = self.current.read();
        let outdated = current.as_ref().is_some_and(|current| {
            (current.source.kind, &current.source.key_id) != (source.kind, &source.key_id)
        });
        Ok(Transformed { value: plain.into(), outdated })
    }

    async fn fetch(&self, source: &Source) -> Result<Arc<DataKey>, Failure> {
        let request = DecryptRequest {
            ciphertext: source.encrypted.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: source.key_id.clone(),
            annotations: source.annotations.clone().into_iter().collect(),
        };
        let answer = self.ask(self.client.clone().decrypt(request)).await;
        let answer =
            answer.map_err(|why| Failure::Unavailable(format!("failed to decrypt DEK, error: {why}")))?;
        let key = DataKey::new(source.kind, &answer.plaintext).map(Arc::new);
        let key = key.ok_or_else(|| Failure::Undecryptable("what the service gave is no key".to_owned()))?;
        self.keep(source.clone(), Arc::clone(&key));
        Ok(key)
    }
}

fn check_key_id(key_id: &str) -> Result<(), String> {
    match key_id.len() {
        0 => Err("keyID is empty".to_owned()),
        1..=MOST => Ok(()),
        size => Err(format!("keyID is {size} bytes, which exceeds the max size of {MOST}")),
    }
}

impl Source {
    /// Whether it is what can be stored (upstream `ValidateEncryptedObject`).
    fn check(&self) -> Result<(), String> {
        if EncryptedDekSourceType::try_from(self.kind).is_err() {
            return Err(format!("unknown encryptedDEKSourceType: {}", self.kind));
        }
        match self.encrypted.len() {
            0 => {
                return Err(
                    "failed to validate encrypted DEK source: encrypted DEK source is empty".to_owned()
                );
            }
            1..=MOST => {}
            size => {
                return Err(format!(
                    "failed to validate encrypted DEK source: encrypted DEK source is {size} bytes, which exceeds the \
                     max size of {MOST}"
                ));
            }
        }
        check_key_id(&self.key_id).map_err(|why| format!("failed to validate key id: {why}"))?;
        let size: usize = self.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
        if size > MOST_ANNOTATIONS {
            return Err(format!(
                "failed to validate annotations: total size of annotations is {size}, which exceeds the max size of \
                 {MOST_ANNOTATIONS}"
            ));
        }
        let qualified = |name: &str| name.contains('.') && crate::authn::is_subdomain(name);
        match self.annotations.keys().find(|name| !qualified(name)) {
            Some(name) => Err(format!("failed to validate annotations: {name:?} is not fully qualified")),
            None => Ok(()),
        }
    }
}
