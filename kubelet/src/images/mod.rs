//! Images: presence, pull policies, pulls one after the other with backoff, and collection of unused ones.

pub mod credentials;
pub mod gc;
pub mod name;
pub mod providers;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use parking_lot::Mutex;
use proto::cri;
use tokio::sync::Semaphore;

use providers::Providers;

use crate::containers::security::ImageUser;
use crate::duration::GoDuration;
use crate::events::Events;
use crate::runtime::{self, Runtime};
use crate::sync::backoff::Backoff;
use crate::types;

/// Why a container has no image. The word is the waiting reason of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A pull failed.
    ErrImagePull,
    /// A pull failed before and is not yet tried again.
    ImagePullBackOff,
    /// The image is not here and the policy forbids pulling.
    ErrImageNeverPull,
    /// The runtime could not be asked.
    ImageInspectError,
    /// No image can have that name.
    InvalidImageName,
    /// The registry does not answer.
    RegistryUnavailable,
    /// The image is not signed as it should be.
    SignatureValidationFailed,
}

impl Reason {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ErrImagePull => "ErrImagePull",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::ImageInspectError => "ImageInspectError",
            Self::InvalidImageName => "InvalidImageName",
            Self::RegistryUnavailable => "RegistryUnavailable",
            Self::SignatureValidationFailed => "SignatureValidationFailed",
        }
    }
}

/// An image is not to be had now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", reason.as_str())]
pub struct Error {
    /// Kind of failure.
    pub reason: Reason,
    /// Text for the container's status.
    pub message: String,
    /// How long until a retry makes sense, when that is known.
    pub retry: Option<Duration>,
}

/// An image that is on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// As containers are created from it.
    pub image_ref: String,
    /// Who it runs as.
    pub user: ImageUser,
}

/// An image that is asked for, and by what.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its container; none for an image that is a volume.
    pub container: Option<&'a str>,
    /// The image as it is named.
    pub image: &'a str,
    /// When it is pulled.
    pub policy: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    /// The image of a container.
    #[must_use]
    pub fn by(pod: &'a Pod, container: &'a Container) -> Self {
        Self {
            pod,
            container: Some(&container.name),
            image: container.image.as_deref().unwrap_or_default(),
            policy: container.image_pull_policy.as_deref(),
        }
    }

    fn normal(&self, events: &Events, reason: &str, message: String) {
        match self.container {
            Some(container) => events.container_normal(self.pod, container, reason, message),
            None => events.normal(self.pod, reason, message),
        }
    }

    fn warning(&self, events: &Events, reason: &str, message: String) {
        match self.container {
            Some(container) => events.container_warning(self.pod, container, reason, message),
            None => events.warning(self.pod, reason, message),
        }
    }
}

/// Gets images; clones share the queue and the backoff.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    runtime: Runtime,
    events: Events,
    backoff: Backoff,
    previous: Mutex<HashMap<String, String>>,
    pulls: Semaphore,
    providers: Option<Providers>,
}

impl Images {
    /// Pulls at most `parallel` images at a time (one for serial pulls; `None` for no limit).
    #[must_use]
    pub fn new(runtime: Runtime, events: Events, parallel: Option<usize>) -> Self {
        Self::with_providers(runtime, events, parallel, None)
    }

    /// With programs that provide credentials.
    #[must_use]
    pub fn with_providers(
        runtime: Runtime,
        events: Events,
        parallel: Option<usize>,
        providers: Option<Providers>,
    ) -> Self {
        let inner = Inner {
            runtime,
            events,
            backoff: Backoff::new(Duration::from_secs(10), Duration::from_secs(300)),
            previous: Mutex::default(),
            pulls: Semaphore::new(parallel.unwrap_or(Semaphore::MAX_PERMITS)),
            providers,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Makes sure that an image is on this node, as its policy says.
    pub async fn ensure(
        &self,
        wanted: Wanted<'_>,
        secrets: &[Arc<Secret>],
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Present, Error> {
        let requested = wanted.image;
        let fail = |reason, message: String, event: &str| {
            wanted.warning(&self.inner.events, event, message.clone());
            Error { reason, message, retry: None }
        };
        let image = name::with_default_tag(requested).map_err(|error| {
            let message = format!("Failed to apply default image tag {requested:?}: {error}");
            fail(Reason::InvalidImageName, message, "InspectFailed")
        })?;
        let policy = pull_policy(wanted.policy, &image);
        if policy != "Always" {
            let found = self.find(&image).await.map_err(|error| {
                let message = format!("Failed to inspect image \"\": {error}");
                fail(Reason::ImageInspectError, message, "InspectFailed")
            })?;
            if let Some(present) = found {
                // As upstream since credentials are verified: every pod of this node may use what is here.
                let message = format!(
                    "Container image {requested:?} already present on machine and can be accessed by the pod"
                );
                wanted.normal(&self.inner.events, "Pulled", message);
                return Ok(present);
            }
            if policy == "Never" {
                let message =
                    format!("Container image {requested:?} is not present with pull policy of Never");
                return Err(fail(Reason::ErrImageNeverPull, message, "ErrImageNeverPull"));
            }
        }
        self.pull(wanted, &image, secrets, sandbox).await
    }

    async fn find(&self, image: &str) -> Result<Option<Present>, runtime::Error> {
        let found = self.inner.runtime.image_status(spec(image)).await?;
        Ok(found.map(|image| Present { user: user(&image), image_ref: image.id }))
    }

    async fn pull(
        &self,
        wanted: Wanted<'_>,
        image: &str,
        secrets: &[Arc<Secret>],
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<Present, Error> {
        let (inner, requested) = (&self.inner, wanted.image);
        let key = format!("{}_{requested}", types::uid(wanted.pod));
        if let Some(error) = self.backing_off(wanted, &key) {
            return Err(error);
        }
        wanted.normal(&inner.events, "Pulling", format!("Pulling image {requested:?}"));
        let asked = Instant::now();
        let _turn = inner.pulls.acquire().await;
        let started = Instant::now();
        match self.pull_with_credentials(image, secrets, sandbox).await {
            Ok(image_ref) => {
                inner.previous.lock().remove(&key);
                let found = inner.runtime.image_status(spec(image)).await.ok().flatten();
                let message = format!(
                    "Successfully pulled image {requested:?} in {} ({} including waiting). Image size: {} bytes.",
                    millis(started.elapsed()),
                    millis(asked.elapsed()),
                    found.as_ref().map(|i| i.size).unwrap_or_default()
                );
                wanted.normal(&inner.events, "Pulled", message);
                inner.backoff.collect(Timestamp::now());
                let user = found.as_ref().map(user).unwrap_or_default();
                Ok(Present { image_ref, user })
            }
            Err(error) => Err(self.pull_failed(wanted, &key, &error)),
        }
    }

    fn backing_off(&self, wanted: Wanted<'_>, key: &str) -> Option<Error> {
        let now = Timestamp::now();
        let updated = self.inner.backoff.updated(key)?;
        let retry = self.inner.backoff.remaining(key, updated, now)?;
        let mut message = format!("Back-off pulling image {:?}", wanted.image);
        wanted.normal(&self.inner.events, "BackOff", message.clone());
        if let Some(previous) = self.inner.previous.lock().get(key) {
            message = format!("{message}: {previous}");
        }
        Some(Error { reason: Reason::ImagePullBackOff, message, retry: Some(retry) })
    }

    fn pull_failed(&self, wanted: Wanted<'_>, key: &str, error: &runtime::Error) -> Error {
        let inner = &self.inner;
        let message = format!("Failed to pull image {:?}: {error}", wanted.image);
        wanted.warning(&inner.events, "Failed", message);
        let now = Timestamp::now();
        inner.backoff.next(key, now, now);
        let (reason, message) = explain(wanted.image, &error.to_string(), error.status.message());
        inner.previous.lock().insert(key.to_owned(), format!("{}: {message}", reason.as_str()));
        Error { reason, message, retry: inner.backoff.remaining(key, now, now) }
    }

    /// Tries every credential that fits, or none when none fits; answers the first success or the last failure.
    async fn pull_with_credentials(
        &self,
        image: &str,
        secrets: &[Arc<Secret>],
        sandbox: &cri::PodSandboxConfig,
    ) -> Result<String, runtime::Error> {
        let runtime = &self.inner.runtime;
        let mut result = None;
        let mut all = credentials::for_image(image, secrets);
        if let Some(providers) = &self.inner.providers {
            all.extend(providers.for_image(image).await);
        }
        for auth in all {
            match runtime.pull_image(spec(image), Some(auth), Some(sandbox.clone())).await {
                Ok(image_ref) => return Ok(image_ref),
                Err(error) => result = Some(error),
            }
        }
        match result {
            Some(error) => Err(error),
            None => runtime.pull_image(spec(image), None, Some(sandbox.clone())).await,
        }
    }
}

fn spec(image: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: image.to_owned(), ..Default::default() }
}

/// Who an image runs as; root when it does not say.
fn user(image: &cri::Image) -> ImageUser {
    match &image.uid {
        Some(uid) => ImageUser { uid: Some(uid.value), username: String::new() },
        None if !image.username.is_empty() => ImageUser { uid: None, username: image.username.clone() },
        None => ImageUser { uid: Some(0), username: String::new() },
    }
}

/// The policy asked for; without one (static pods) the default: always for `:latest`, else if not present.
fn pull_policy<'a>(asked: Option<&'a str>, image: &str) -> &'a str {
    match asked {
        Some(policy) if !policy.is_empty() => policy,
        _ if image.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

fn millis(duration: Duration) -> GoDuration {
    GoDuration(Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
}

fn explain(image: &str, error: &str, message: &str) -> (Reason, String) {
    let special = [
        ("RegistryUnavailable", Reason::RegistryUnavailable, "the registry is unavailable"),
        ("SignatureValidationFailed", Reason::SignatureValidationFailed, "the signature validation failed"),
    ];
    for (prefix, reason, text) in special {
        if let Some(rest) = message.strip_prefix(prefix) {
            return (reason, format!("image pull failed for {image} because {text}{rest}"));
        }
    }
    (Reason::ErrImagePull, error.to_owned())
}
