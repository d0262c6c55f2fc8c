//! Values through every provider and back, rotation, and what must be refused.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proto::kms::key_management_service_server::{KeyManagementService, KeyManagementServiceServer};
use proto::kms::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};
use store::embedded::Embedded;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status};

use super::reload::{Keeper, Source, encrypted};
use super::*;

const SECRET: &str = "/registry/secrets/ns/a";
const VALUE: &[u8] = b"{\"kind\":\"Secret\"}";

struct Place {
    directory: tempfile::TempDir,
    plain: Arc<dyn Store>,
}

impl Place {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let plain = Arc::new(Embedded::open(&directory.path().join("data")).await.expect("a store"));
        Self { directory, plain }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("encryption.yaml")
    }

    fn write(&self, rules: &str) {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n";
        std::fs::write(self.path(), format!("{head}{rules}")).expect("written");
    }

    /// The store with these rules; each is the resources, and the providers.
    async fn encrypted(&self, rules: &str) -> (Arc<dyn Store>, Arc<Keeper>) {
        self.write(rules);
        let source = Source { path: self.path(), reload: true };
        encrypted(Arc::clone(&self.plain), "/registry", &source).await.expect("a configuration")
    }

    /// What is really stored.
    async fn stored(&self, key: &str) -> Bytes {
        self.plain.get(key).await.expect("read").0.expect("stored").value
    }
}

fn rule(resources: &str, providers: &str) -> String {
    format!("- {{resources: [{resources}], providers: [{providers}]}}\n")
}

fn keys(provider: &str, names: &[&str]) -> String {
    let key = |name: &&str| format!("{{name: {name}, secret: {}}}", STANDARD.encode(&name.repeat(32)[..32]));
    let keys: Vec<String> = names.iter().map(key).collect();
    format!("{{{provider}: {{keys: [{}]}}}}", keys.join(", "))
}

async fn put(store: &Arc<dyn Store>, key: &str, expect: Expect) -> Revision {
    store.put(key, Bytes::from_static(VALUE), expect, None).await.expect("written")
}

async fn value(store: &Arc<dyn Store>, key: &str) -> Result<Bytes, String> {
    match store.get(key).await {
        Ok((found, _)) => Ok(found.expect("there").value),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn values_are_encrypted_below_and_plain_above() {
    for provider in ["aesgcm", "aescbc", "secretbox"] {
        let place = Place::new().await;
        let (store, _) = place.encrypted(&rule("secrets", &keys(provider, &["k"]))).await;
        let now = store.current_revision().await.expect("a revision");
        let mut watch = store.watch("/registry/", now.next()).await.expect("a watch");
        let revision = put(&store, SECRET, Expect::Absent).await;
        put(&store, "/registry/configmaps/ns/a", Expect::Absent).await;
        let stored = place.stored(SECRET).await;
        assert!(stored.starts_with(format!("k8s:enc:{provider}:v1:k:").as_bytes()), "{stored:?}");
        assert!(!stored.windows(6).any(|part| part == b"Secret"), "{stored:?}");
        assert_eq!(place.stored("/registry/configmaps/ns/a").await, VALUE);
        assert_eq!(value(&store, SECRET).await.as_deref(), Ok(VALUE));
        let found = store.range(Range::prefix("/registry/")).await.expect("a range");
        assert!(found.items.iter().all(|kv| kv.value == VALUE), "{found:?}");
        let event = watch.next().await.expect("a batch").expect("events").remove(0);
        assert!(matches!(&event, Event::Put(current) if current.value == VALUE), "{event:?}");
        match store.put(SECRET, Bytes::new(), Expect::Absent, None).await {
            Err(Error::Conflict { current: Some(current), .. }) => assert_eq!(current.value, VALUE),
            other => panic!("{other:?}"),
        }
        let (last, _) = store.delete(SECRET, Some(revision)).await.expect("deleted");
        assert_eq!(last.value, VALUE);
    }
}

#[tokio::test]
async fn keys_are_rotated() {
    let place = Place::new().await;
    let (old, _) = place.encrypted(&rule("secrets", &keys("aescbc", &["one"]))).await;
    let revision = put(&old, SECRET, Expect::Absent).await;
    assert_eq!(old.is_outdated(SECRET).await.ok(), Some(false));
    // The new key comes second at first, so that all servers can read it, then it writes.
    let second = rule("secrets", &keys("aescbc", &["one", "two"]));
    assert_eq!(place.encrypted(&second).await.0.is_outdated(SECRET).await.ok(), Some(false));
    for providers in [
        keys("aescbc", &["two", "one"]),
        format!("{}, {}", keys("aesgcm", &["one"]), keys("aescbc", &["one"])),
        format!("{}, {}", keys("aescbc", &["two"]), keys("aescbc", &["one"])),
        format!("{{identity: {{}}}}, {}", keys("aescbc", &["one"])),
    ] {
        let (store, _) = place.encrypted(&rule("secrets", &providers)).await;
        assert_eq!(value(&store, SECRET).await.as_deref(), Ok(VALUE), "{providers}");
        assert_eq!(store.is_outdated(SECRET).await.ok(), Some(true), "{providers}");
    }
    let both = format!("{}, {}", keys("secretbox", &["x"]), keys("aescbc", &["one"]));
    let (store, _) = place.encrypted(&rule("secrets", &both)).await;
    put(&store, SECRET, Expect::At(revision)).await;
    assert!(place.stored(SECRET).await.starts_with(b"k8s:enc:secretbox:v1:x:"));
    assert_eq!(store.is_outdated(SECRET).await.ok(), Some(false));
    assert!(value(&old, SECRET).await.is_err());
}

#[tokio::test]
async fn what_was_changed_or_moved_is_no_value() {
    let place = Place::new().await;
    let (store, _) = place.encrypted(&rule("secrets", &keys("aesgcm", &["k"]))).await;
    put(&store, SECRET, Expect::Absent).await;
    let stored = place.stored(SECRET).await;
    let mut changed = stored.to_vec();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    for (key, bytes) in [
        ("/registry/secrets/ns/changed", Bytes::from(changed)),
        ("/registry/secrets/ns/moved", stored.clone()),
        ("/registry/secrets/ns/cut", stored.slice(..30)),
        ("/registry/secrets/ns/unknown", Bytes::from_static(b"k8s:enc:aesgcm:v1:other:0123456789abcdef")),
        // Nothing says how these are read.
        ("/registry/configmaps/ns/encrypted", stored.clone()),
    ] {
        place.plain.put(key, bytes, Expect::Absent, None).await.expect("written");
        let found = value(&store, key).await;
        assert!(
            found.as_ref().is_err_and(|error| error.contains("unable to transform key")),
            "{key}: {found:?}"
        );
    }
    // The others of a range can be read still.
    let found = store.range(Range::prefix("/registry/secrets/")).await.expect("a range");
    assert_eq!(found.items.iter().filter(|kv| kv.value == VALUE).count(), 1);
    let plain = "/registry/secrets/ns/plain";
    place.plain.put(plain, Bytes::from_static(VALUE), Expect::Absent, None).await.expect("written");
    assert!(value(&store, plain).await.is_err(), "there is no identity provider");
}

#[tokio::test]
async fn rules_are_for_resources_and_groups() {
    let place = Place::new().await;
    let one = |name| keys("aesgcm", &[name]);
    let rules = [
        rule("events", "{identity: {}}"),
        rule("deployments.apps", &one("exact")),
        rule("'*.apps'", &one("group")),
        rule("'*.'", &one("core")),
        rule("'*.*'", &one("all")),
    ];
    let (store, _) = place.encrypted(&rules.concat()).await;
    for (key, name) in [
        ("/registry/events/ns/a", None),
        ("/registry/deployments/ns/a", Some("exact")),
        ("/registry/replicasets/ns/a", Some("group")),
        ("/registry/services/specs/ns/a", Some("core")),
        ("/registry/services/endpoints/ns/a", Some("core")),
        ("/registry/minions/a", Some("core")),
        ("/registry/ingress/ns/a", Some("all")),
        ("/registry/apiextensions.k8s.io/customresourcedefinitions/a", Some("all")),
        ("/registry/stable.example.com/crontabs/ns/a", Some("all")),
        // These are no objects.
        ("/registry/ranges/serviceips", None),
        ("/registry/masterleases/192.0.2.7", None),
        ("compact_rev_key", None),
    ] {
        put(&store, key, Expect::Absent).await;
        let stored = place.stored(key).await;
        match name {
            None => assert_eq!(stored, VALUE, "{key}"),
            Some(name) => {
                let start = format!("k8s:enc:aesgcm:v1:{name}:");
                assert!(stored.starts_with(start.as_bytes()), "{key}: {stored:?}");
            }
        }
        assert_eq!(value(&store, key).await.as_deref(), Ok(VALUE), "{key}");
    }
    for masked in ["secrets", "deployments.apps", "'*.apps'"] {
        place.write(&(rule("'*.*'", &one("all")) + &rule(masked, &one("late"))));
        let source = Source { path: place.path(), reload: false };
        let refused = encrypted(Arc::clone(&place.plain), "/registry", &source).await;
        let why = refused.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(why.contains("is masked by earlier rule \"*.*\""), "{why}");
    }
}

#[tokio::test]
async fn a_changed_file_is_taken_over() {
    let place = Place::new().await;
    let (store, keeper) = place.encrypted(&rule("secrets", &keys("aesgcm", &["one"]))).await;
    put(&store, SECRET, Expect::Absent).await;
    assert!(!keeper.look().await.expect("unchanged"));
    place.write(&rule("secrets", &keys("aesgcm", &["two", "one"])));
    assert!(keeper.look().await.expect("taken over"));
    assert_eq!(store.is_outdated(SECRET).await.ok(), Some(true));
    place.write("- nonsense\n");
    assert!(keeper.look().await.is_err());
    assert_eq!(value(&store, SECRET).await.as_deref(), Ok(VALUE), "what was is kept");
}

/// A key service that turns bytes around.
#[derive(Clone)]
struct Service(Arc<parking_lot::Mutex<State>>);

#[derive(Default)]
struct State {
    key_id: String,
    healthz: String,
    encrypted: usize,
    decrypted: usize,
}

fn turned(bytes: &Bytes) -> Bytes {
    bytes.iter().rev().copied().collect::<Vec<_>>().into()
}

#[tonic::async_trait]
impl KeyManagementService for Service {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let state = self.0.lock();
        let (healthz, key_id) = (state.healthz.clone(), state.key_id.clone());
        Ok(Response::new(StatusResponse { version: "v2".to_owned(), healthz, key_id }))
    }

    async fn encrypt(&self, request: Request<EncryptRequest>) -> Result<Response<EncryptResponse>, Status> {
        let mut state = self.0.lock();
        state.encrypted += 1;
        let annotations = [("version.example.com".to_owned(), Bytes::from_static(b"1"))].into();
        let ciphertext = turned(&request.into_inner().plaintext);
        Ok(Response::new(EncryptResponse { ciphertext, key_id: state.key_id.clone(), annotations }))
    }

    async fn decrypt(&self, request: Request<DecryptRequest>) -> Result<Response<DecryptResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.0.lock();
        state.decrypted += 1;
        if !request.annotations.contains_key("version.example.com") || state.healthz != "ok" {
            return Err(Status::internal("cannot"));
        }
        Ok(Response::new(DecryptResponse { plaintext: turned(&request.ciphertext) }))
    }
}

/// A service at a socket, and the rule that uses it.
fn key_service(place: &Place) -> (Service, String) {
    let state = State { key_id: "key-1".to_owned(), healthz: "ok".to_owned(), ..State::default() };
    let service = Service(Arc::new(parking_lot::Mutex::new(state)));
    let socket = place.directory.path().join("kms.sock");
    let listener = tokio::net::UnixListener::bind(&socket).expect("a socket");
    let server = KeyManagementServiceServer::new(service.clone());
    let serving = tonic::transport::Server::builder().add_service(server);
    // Ends with the test's runtime.
    tokio::spawn(serving.serve_with_incoming(UnixListenerStream::new(listener)));
    let endpoint = format!("unix://{}", socket.display());
    let provider = format!("{{kms: {{apiVersion: v2, name: mine, endpoint: '{endpoint}', timeout: 1s}}}}");
    (service, rule("secrets", &provider))
}

#[tokio::test]
async fn a_service_keeps_the_key() {
    let place = Place::new().await;
    let (service, rule) = key_service(&place);
    let (store, keeper) = place.encrypted(&rule).await;
    assert_eq!(keeper.trouble(), None);
    for key in [SECRET, "/registry/secrets/ns/b"] {
        put(&store, key, Expect::Absent).await;
        let stored = place.stored(key).await;
        assert!(stored.starts_with(b"k8s:enc:kms:v2:mine:"), "{stored:?}");
        assert!(!stored.windows(6).any(|part| part == b"Secret"), "{stored:?}");
        assert_eq!(value(&store, key).await.as_deref(), Ok(VALUE));
    }
    let counts = || {
        let state = service.0.lock();
        (state.encrypted, state.decrypted)
    };
    assert_eq!(counts(), (1, 0), "one seed, and it is known");

    // Another server has the seed decrypted, once.
    let (other, _) = place.encrypted(&rule).await;
    assert_eq!(value(&other, SECRET).await.as_deref(), Ok(VALUE));
    assert_eq!(value(&other, "/registry/secrets/ns/b").await.as_deref(), Ok(VALUE));
    assert_eq!(counts(), (2, 1));
    assert_eq!(other.is_outdated(SECRET).await.ok(), Some(false), "the same key, though another seed");

    // The service has another key: what was written before is to be written anew.
    service.0.lock().key_id = "key-2".to_owned();
    let (third, _) = place.encrypted(&rule).await;
    assert_eq!(third.is_outdated(SECRET).await.ok(), Some(true));

    // It does not work: what is known can be read, anything else is tried again.
    service.0.lock().healthz = "broken".to_owned();
    let (fourth, keeper) = place.encrypted(&rule).await;
    assert!(keeper.trouble().is_some_and(|why| why.contains("got unexpected healthz status: broken")));
    assert!(matches!(fourth.get(SECRET).await, Err(Error::Unavailable { .. })));
    let range = fourth.range(Range::prefix("/registry/secrets/")).await;
    assert!(matches!(range, Err(Error::Unavailable { .. })), "the range is tried again");
    let written = fourth.put("/registry/secrets/ns/c", Bytes::new(), Expect::Absent, None).await;
    assert!(matches!(written, Err(Error::Unavailable { .. })));
    assert_eq!(value(&third, SECRET).await.as_deref(), Ok(VALUE));
}
