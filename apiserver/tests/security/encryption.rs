//! Objects that are encrypted in the store.

use std::path::Path;
use std::time::Duration;

use apiserver::config::{Config, StorageConfig};
use apiserver::encryption::reload::Source;
use apiserver::start;
use base64::Engine;
use serde_json::json;
use store::Store;
use store::embedded::Embedded;
use tokio_util::sync::CancellationToken;

use super::support::{Cluster, namespace};

const SECRETS: &str = "/api/v1/namespaces/app/secrets";

/// A configuration that encrypts secrets with these keys, the first one writing.
fn write(path: &Path, keys: &[&str]) {
    let key = |name: &&str| {
        let secret = base64::engine::general_purpose::STANDARD.encode(name.repeat(32));
        format!("{{name: {name}, secret: {secret}}}")
    };
    let keys: Vec<String> = keys.iter().map(key).collect();
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - {{resources: [secrets], providers: [{{aesgcm: {{keys: [{}]}}}}]}}\n",
        keys.join(", ")
    );
    std::fs::write(path, text).unwrap();
}

async fn encrypted(data: &Path, keys: &[&str]) -> (Cluster, Config) {
    let mut kept = None;
    let cluster = Cluster::with(|config, folder| {
        let path = folder.join("encryption.yaml");
        write(&path, keys);
        config.storage = StorageConfig::Embedded { data_dir: data.to_owned() };
        config.encryption = Some(Source { path, reload: false });
        kept = Some(config.clone());
    })
    .await;
    (cluster, kept.unwrap())
}

/// A copy of what a server has left: it holds its own until the process ends.
fn copy(data: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(data).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// What is really in the store.
async fn stored(data: &Path, name: &str) -> Vec<u8> {
    let copy = copy(data);
    let store = Embedded::open(copy.path()).await.unwrap();
    let (found, _) = store.get(&format!("/registry/secrets/app/{name}")).await.unwrap();
    store.shut_down().await;
    found.expect("it is stored").value.to_vec()
}

#[tokio::test]
async fn secrets_are_encrypted_and_written_anew_with_another_key() {
    let data = tempfile::tempdir().unwrap();
    let (cluster, _) = encrypted(data.path(), &["a"]).await;
    let admin = cluster.admin();
    namespace(&admin, "app").await;
    let object = json!({"metadata": {"name": "s"}, "stringData": {"k": "do not tell"}});
    let created = admin.create(SECRETS, &object).await;
    admin.create(SECRETS, &json!({"metadata": {"name": "untouched"}})).await;
    let path = format!("{SECRETS}/s");
    assert_eq!(admin.get(&path).await.1["data"]["k"], "ZG8gbm90IHRlbGw=");
    // Nothing changes, and nothing is to be encrypted in another way: it is not written.
    let (_, again) = admin.put(&path, &created).await;
    assert_eq!(again["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    drop(admin);
    cluster.stop().await;
    let before = stored(data.path(), "s").await;
    assert!(before.starts_with(b"k8s:enc:aesgcm:v1:a:"));
    assert!(!before.windows(6).any(|part| part == b"ZG8gbm"));

    let data = copy(data.path());
    let (cluster, config) = encrypted(data.path(), &["b", "a"]).await;
    let admin = cluster.admin();
    let (status, same) = admin.get(&path).await;
    assert_eq!((status, &same["data"]), (200, &created["data"]));
    let (_, again) = admin.put(&path, &same).await;
    assert_ne!(again["metadata"]["resourceVersion"], same["metadata"]["resourceVersion"]);
    drop(admin);
    cluster.stop().await;
    assert!(stored(data.path(), "s").await.starts_with(b"k8s:enc:aesgcm:v1:b:"));
    assert!(stored(data.path(), "untouched").await.starts_with(b"k8s:enc:aesgcm:v1:a:"));

    // A configuration that says nothing keeps the server from starting.
    let path = data.path().join("empty.yaml");
    std::fs::write(&path, "").unwrap();
    let fresh = StorageConfig::Embedded { data_dir: data.path().join("fresh") };
    let config = Config { storage: fresh, encryption: Some(Source { path, reload: false }), ..config };
    let started =
        tokio::time::timeout(Duration::from_secs(20), start(config, CancellationToken::new())).await;
    assert!(started.expect("an answer").is_err());
}
