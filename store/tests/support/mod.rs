//! Backends to run the contract against.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use store::Store;
use store::embedded::Embedded;
use store::etcd::{Config, Etcd};

/// A backend that can be stopped and opened again with the same data.
#[allow(async_fn_in_trait, reason = "used by these tests alone")]
pub trait Backend {
    /// The store it opens.
    type Store: Store;

    /// A fresh, empty one.
    async fn new() -> Self;

    /// Opens the store.
    async fn open(&mut self) -> Self::Store;

    /// Closes `store` and whatever is below it.
    async fn close(&mut self, store: Self::Store);
}

/// The embedded store in a directory of its own.
pub struct EmbeddedBackend(tempfile::TempDir);

impl Backend for EmbeddedBackend {
    type Store = Embedded;

    async fn new() -> Self {
        Self(tempfile::tempdir().expect("temp dir"))
    }

    async fn open(&mut self) -> Embedded {
        Embedded::open(self.0.path()).await.expect("open")
    }

    async fn close(&mut self, store: Embedded) {
        store.shut_down().await;
    }
}

/// A real etcd server, one member, on a loopback address of its own.
pub struct EtcdBackend {
    dir: tempfile::TempDir,
    /// Where it listens.
    pub address: Ipv4Addr,
    client_port: u16,
    peer_port: u16,
    server: Option<Child>,
    /// `http` or `https` for clients.
    pub scheme: &'static str,
    /// More flags for the server.
    pub flags: Vec<String>,
    /// Settings of the client, beyond the endpoint.
    pub config: Config,
}

/// A loopback address that nothing else uses. A port found free on the common one may be gone to somebody's connection
/// before the server takes it.
fn own_address() -> Ipv4Addr {
    static USED: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, USED.fetch_add(1, Ordering::Relaxed))
}

fn free_port(address: Ipv4Addr) -> u16 {
    let listener = TcpListener::bind((address, 0)).expect("a free port");
    listener.local_addr().expect("address").port()
}

fn etcd_binary() -> PathBuf {
    std::env::var_os("ETCD").map_or_else(|| "etcd".into(), PathBuf::from)
}

impl EtcdBackend {
    /// The address clients use.
    pub fn endpoint(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.address, self.client_port)
    }

    /// Starts the server.
    pub fn start(&mut self) {
        let peer = format!("http://{}:{}", self.address, self.peer_port);
        let log = std::fs::File::create(self.dir.path().join("log")).expect("log");
        let mut command = Command::new(etcd_binary());
        command
            .args(["--name", "one", "--data-dir"])
            .arg(self.dir.path().join("data"))
            .args(["--listen-client-urls", &self.endpoint(), "--advertise-client-urls", &self.endpoint()])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("one={peer}"), "--heartbeat-interval", "20"])
            .args(["--election-timeout", "200"])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log);
        let server =
            command.spawn().expect("etcd is installed (Debian: etcd-server), or ETCD names its binary");
        self.server = Some(server);
    }

    /// Kills the server without warning.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().expect("kill etcd");
            server.wait().expect("etcd ends");
        }
    }

    /// Connects, as soon as the server answers.
    pub async fn connect(&self) -> Etcd {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let config = Config { endpoints: vec![self.endpoint()], ..self.config.clone() };
            match Etcd::connect(config).await {
                Ok(store) => return store,
                Err(error) if Instant::now() > deadline => {
                    let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                    panic!("{error}\n{log}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for EtcdBackend {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Backend for EtcdBackend {
    type Store = Etcd;

    async fn new() -> Self {
        let config = Config {
            compaction_interval: None,
            progress_interval: Duration::from_millis(300),
            ..Config::new([""])
        };
        let address = own_address();
        Self {
            dir: tempfile::tempdir().expect("temp dir"),
            address,
            client_port: free_port(address),
            peer_port: free_port(address),
            server: None,
            scheme: "http",
            flags: Vec::new(),
            config,
        }
    }

    async fn open(&mut self) -> Etcd {
        if self.server.is_none() {
            self.start();
        }
        self.connect().await
    }

    async fn close(&mut self, store: Etcd) {
        drop(store);
        self.kill();
    }
}
