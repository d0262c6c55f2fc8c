//! What only the etcd backend must cope with: servers that die and come back, members that are down, certificates,
//! passwords, shared leases, compaction on its own.

mod support;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::etcd::{Config, Connection, Dial, Etcd, Tls};
use store::{Error, Event, Expect, Range, Revision, Store};
use support::{Backend, EtcdBackend};

const PATIENCE: Duration = Duration::from_secs(30);

async fn create(store: &Etcd, key: &str) -> Revision {
    store.put(key, Bytes::from_static(b"x"), Expect::Absent, None).await.expect("created")
}

/// The next change of a watch; progress is left out.
async fn next(stream: &mut store::WatchStream) -> Event {
    loop {
        let batch = tokio::time::timeout(PATIENCE, stream.next()).await.expect("in time");
        let batch = batch.expect("open").expect("no error");
        let change = batch.into_iter().find(|event| !matches!(event, Event::Progress { .. }));
        if let Some(change) = change {
            return change;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_survives_the_death_of_the_server() {
    let mut backend = EtcdBackend::new().await;
    let store = backend.open().await;
    let first = create(&store, "/a/1").await;
    let mut watch = store.watch("/a/", first).await.expect("watch");
    assert_eq!(next(&mut watch).await.revision(), first);
    for round in 0..3 {
        backend.kill();
        let refused = tokio::time::timeout(PATIENCE, store.current_revision()).await.expect("in time");
        assert!(matches!(refused, Err(Error::Unavailable { .. })), "{refused:?}");
        backend.start();
        let other = backend.connect().await;
        let revision = create(&other, &format!("/a/again-{round}")).await;
        assert_eq!(next(&mut watch).await.revision(), revision);
        // The old connection mends itself as well.
        assert_eq!(store.current_revision().await.expect("revision"), revision);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_are_down_are_passed_over() {
    let mut backend = EtcdBackend::new().await;
    drop(backend.open().await);
    // Nothing listens on the discard port.
    let endpoints = ["http://127.0.0.1:9".to_owned(), backend.endpoint()];
    let store = Etcd::connect(Config { endpoints: endpoints.into(), ..backend.config.clone() })
        .await
        .expect("connect");
    let revision = create(&store, "/a").await;
    let mut watch = store.watch("/", revision).await.expect("watch");
    assert_eq!(next(&mut watch).await.revision(), revision);
    for n in 0..10 {
        create(&store, &format!("/b/{n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_opened_as_it_is_said() {
    let mut backend = EtcdBackend::new().await;
    drop(backend.open().await);
    let real = backend.endpoint().trim_start_matches("http://").to_owned();
    let (asked, mut wanted) = tokio::sync::mpsc::unbounded_channel();
    let dial: Dial = Arc::new(move |host, port| {
        let _ = asked.send(format!("{host} {port}"));
        let real = real.clone();
        Box::pin(async move {
            let stream = tokio::net::TcpStream::connect(real).await?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    });
    let endpoints = vec!["http://etcd.example:2379".to_owned()];
    let config = Config { endpoints, dial: Some(dial), ..backend.config.clone() };
    let store = Etcd::connect(config).await.expect("connect");
    create(&store, "/a").await;
    drop(store);
    assert_eq!(wanted.recv().await.as_deref(), Some("etcd.example 2379"));
}

#[tokio::test]
async fn an_unreachable_cluster_is_named() {
    let config = Config { request_timeout: Duration::from_secs(2), ..Config::new(["http://127.0.0.1:9"]) };
    let Err(Error::Unavailable { reason }) = Etcd::connect(config).await else { panic!("connected") };
    assert!(reason.to_lowercase().contains("refused"), "{reason}");
    let Err(error) = Etcd::connect(Config::new(["127.0.0.1:2379"])).await else { panic!("connected") };
    assert!(error.to_string().contains("127.0.0.1:2379"), "{error}");
    assert!(Etcd::connect(Config::new(Vec::<String>::new())).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_compacted_once_per_interval() {
    let mut backend = EtcdBackend::new().await;
    backend.config.compaction_interval = Some(Duration::from_millis(300));
    let store = backend.open().await;
    let second = backend.connect().await;
    let first = create(&store, "/a").await;
    let compacted = async {
        loop {
            match store.range(Range { revision: Some(first), ..Range::prefix("/") }).await {
                Ok(_) => {
                    create(&second, &format!("/b/{}", store.current_revision().await.expect("r"))).await;
                }
                Err(Error::Compacted { oldest, .. }) => return oldest,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let oldest = tokio::time::timeout(PATIENCE, compacted).await.expect("compacted");
    assert!(oldest > first && oldest <= store.current_revision().await.expect("revision"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_started_and_renewed() {
    let mut backend = EtcdBackend::new().await;
    // Sessions that end after a second.
    backend.flags = ["--auth-token=simple", "--auth-token-ttl=1"].map(str::to_owned).into();
    drop(backend.open().await);
    let etcdctl = |args: &[&str]| {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(backend.endpoint()).args(args);
        let output = command.output().expect("etcdctl is installed (Debian: etcd-client)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    etcdctl(&["user", "add", "root:secret"]);
    etcdctl(&["user", "grant-role", "root", "root"]);
    etcdctl(&["auth", "enable"]);
    let endpoint = backend.endpoint();
    assert!(
        Etcd::connect(Config { endpoints: vec![endpoint.clone()], ..backend.config.clone() }).await.is_err()
    );
    let auth = |password: &str| Some(("root".to_owned(), password.to_owned()));
    let config = Config { endpoints: vec![endpoint], auth: auth("wrong"), ..backend.config.clone() };
    assert!(Etcd::connect(config.clone()).await.is_err());
    let store = Etcd::connect(Config { auth: auth("secret"), ..config }).await.expect("connect");
    let revision = create(&store, "/a").await;
    let mut watch = store.watch("/", revision).await.expect("watch");
    assert_eq!(next(&mut watch).await.revision(), revision);
    // A new server knows none of the old sessions.
    backend.kill();
    backend.start();
    let again = async {
        loop {
            match store.put("/b", Bytes::new(), Expect::Absent, None).await {
                Ok(revision) => return revision,
                Err(Error::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let again = tokio::time::timeout(PATIENCE, again).await.expect("in time");
    assert_eq!(next(&mut watch).await.revision(), again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_shown_and_checked() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let mut backend = EtcdBackend::new().await;
    make_certificates(dir.path(), backend.address);
    backend.scheme = "https";
    backend.flags = vec![
        format!("--cert-file={}", path("server.crt")),
        format!("--key-file={}", path("server.key")),
        format!("--trusted-ca-file={}", path("ca.crt")),
        "--client-cert-auth".into(),
    ];
    let read = |name: &str| Some(std::fs::read(dir.path().join(name)).expect("read"));
    let good = Tls { ca: read("ca.crt"), cert: read("client.crt"), key: read("client.key") };
    backend.config.tls = Some(good.clone());
    let store = backend.open().await;
    let revision = create(&store, "/a").await;
    let mut watch = store.watch("/", revision).await.expect("watch");
    assert_eq!(next(&mut watch).await.revision(), revision);

    for (what, tls) in [
        ("no client certificate", Tls { cert: None, key: None, ..good.clone() }),
        ("another authority", Tls { ca: read("other.crt"), ..good }),
    ] {
        let endpoints = vec![backend.endpoint()];
        let config = Config {
            endpoints,
            tls: Some(tls),
            request_timeout: Duration::from_secs(2),
            ..backend.config.clone()
        };
        assert!(Etcd::connect(config).await.is_err(), "{what}");
    }
}

/// An authority `ca`, certificates `server` and `client` of it for an address, and an authority `other`.
fn make_certificates(dir: &Path, address: Ipv4Addr) {
    let script = "
        set -e
        key() { openssl ecparam -name prime256v1 -genkey -noout -out $1.key; }
        for ca in ca other; do
            key $ca
            openssl req -x509 -new -key $ca.key -subj /CN=$ca -days 2 -out $ca.crt
        done
        for name in server client; do
            key $name
            openssl req -new -key $name.key -subj /CN=$name -out $name.csr
            printf 'subjectAltName=IP:%s\\nextendedKeyUsage=serverAuth,clientAuth\\n' $ADDRESS > ext
            openssl x509 -req -in $name.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.crt
        done";
    let made = Command::new("sh")
        .args(["-c", script])
        .env("ADDRESS", address.to_string())
        .current_dir(dir)
        .output()
        .expect("run openssl");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
