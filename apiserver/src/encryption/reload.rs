//! From the file to providers, again when the file changes (upstream `encryptionconfig/controller`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::{join_all, pending};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use store::Store;
use tokio_util::sync::CancellationToken;

use super::Encrypted;
use super::config::{self, Error};
use super::providers::Providers;

/// How often the file is looked at. Upstream looks every minute, and at once when it hears of a change.
const INTERVAL: Duration = Duration::from_secs(10);

/// Where it is said how resources are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// Whether changes of the file are taken over.
    pub reload: bool,
}

/// Keeps providers as the file says, and asks key services how they are.
pub struct Keeper {
    source: Source,
    digest: Mutex<[u8; 32]>,
    providers: Arc<RwLock<Arc<Providers>>>,
}

/// The store with what the file says about it. Key services are asked once.
pub async fn encrypted(
    store: Arc<dyn Store>,
    prefix: &str,
    source: &Source,
) -> anyhow::Result<(Arc<dyn Store>, Arc<Keeper>)> {
    let (providers, digest) = load(source).await.context("error while parsing file")?;
    for service in providers.services() {
        service.probe().await;
    }
    let providers = Arc::new(RwLock::new(Arc::new(providers)));
    let store = Arc::new(Encrypted::new(store, prefix, Arc::clone(&providers)));
    Ok((store, Arc::new(Keeper { source: source.clone(), digest: Mutex::new(digest), providers })))
}

async fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let text = tokio::fs::read(path).await;
    text.map_err(|source| Error::Unreadable { path: path.display().to_string(), source })
}

async fn load(source: &Source) -> anyhow::Result<(Providers, [u8; 32])> {
    let text = read(&source.path).await?;
    let config = config::parse(&source.path.display().to_string(), &text, source.reload)?;
    Ok((Providers::new(&config)?, Sha256::digest(&text).into()))
}

impl Keeper {
    /// Works until `token` is cancelled.
    pub async fn run(self: Arc<Self>, token: CancellationToken) {
        loop {
            let services = self.providers.read().services().to_vec();
            let asking = async {
                join_all(services.into_iter().map(|service| service.run(token.child_token()))).await;
                pending::<()>().await;
            };
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                () = asking => {}
                // The services of before are asked no more.
                () = self.changed() => {}
            }
        }
    }

    /// Returns when another file was taken over.
    async fn changed(&self) {
        if !self.source.reload {
            return pending().await;
        }
        loop {
            tokio::time::sleep(INTERVAL).await;
            match self.look().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = %client::chain(error.as_ref()), "the encryption configuration stays as it was");
                }
            }
        }
    }

    /// Takes the file over if it has changed and its key services work; says whether it has.
    pub async fn look(&self) -> anyhow::Result<bool> {
        let digest: [u8; 32] = Sha256::digest(read(&self.source.path).await?).into();
        if digest == *self.digest.lock() {
            return Ok(false);
        }
        let (providers, digest) = load(&self.source).await?;
        for service in providers.services() {
            service.probe().await;
            if let Some(trouble) = service.trouble() {
                anyhow::bail!(trouble);
            }
        }
        *self.providers.write() = Arc::new(providers);
        *self.digest.lock() = digest;
        tracing::info!(path = %self.source.path.display(), "the encryption configuration was taken over");
        Ok(true)
    }

    /// Whether health checks speak of key services.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.source.reload || !self.providers.read().services().is_empty()
    }

    /// Why a key service does not work, if one does not.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.providers.read().services().iter().find_map(|service| service.trouble())
    }
}
