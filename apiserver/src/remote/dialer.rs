//! How connections are opened: straight, or through a proxy, which is asked for a way on with CONNECT, by SOCKS or gRPC.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use metrics::{counter, histogram};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::failure::DialError;
use super::{konnectivity, socks};
use crate::streaming::authority;

/// The longest head of a proxy's answer, as Go's `http.DefaultMaxHeaderBytes`.
const MAX_HEAD: usize = 1 << 20;

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open connection.
pub type Stream = Box<dyn Duplex>;

/// Opens connections. Cheap to clone.
#[derive(Clone, Default)]
pub enum Dialer {
    /// To the first address of the host that answers.
    #[default]
    Direct,
    /// Through a proxy.
    Proxy(Arc<Proxy>),
}

impl Dialer {
    /// Connects to a host (name or address) and port.
    ///
    /// # Errors
    /// When nobody answers there, or the proxy has no way to it.
    pub async fn dial(&self, host: &str, port: u16) -> Result<Stream, DialError> {
        match self {
            Self::Direct => connect(host, port).await,
            Self::Proxy(proxy) => proxy.dial(host, port).await,
        }
    }
}

async fn connect(host: &str, port: u16) -> Result<Stream, DialError> {
    let unknown = |_| DialError::Lookup { host: host.to_owned() };
    let mut first = None;
    for address in tokio::net::lookup_host((host, port)).await.map_err(unknown)? {
        let connected = TcpStream::connect(address).await;
        match connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream)) {
            Ok(stream) => return Ok(Box::new(stream)),
            // As Go: the first failure is told.
            Err(error) => first = first.or(Some(DialError::connect(address.to_string(), error))),
        }
    }
    Err(first.unwrap_or_else(|| DialError::Lookup { host: host.to_owned() }))
}

/// Where a proxy listens.
pub enum Listens {
    /// At a host and port.
    Tcp {
        /// Its host.
        host: String,
        /// Its port.
        port: u16,
        /// How it is reached itself.
        through: Dialer,
    },
    /// At a socket of this machine.
    Unix(PathBuf),
}

/// What a proxy is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// CONNECT of HTTP/1.1.
    HttpConnect,
    /// SOCKS, version 5.
    Socks5,
    /// The tunnels of konnectivity; the proxy is at a socket.
    Grpc,
}

/// A proxy that opens connections.
pub struct Proxy {
    /// What it is asked with.
    pub protocol: Protocol,
    /// Where it is.
    pub listens: Listens,
    /// If it speaks TLS: how, and the name that its certificate must be for.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Who this server is to it: name and password.
    pub login: Option<(String, String)>,
    /// The header `Host`, if it is not the host that is asked for.
    pub host: Option<&'static str>,
    /// Whether what is opened is counted, as egress.
    pub counted: bool,
}

impl Proxy {
    async fn dial(&self, host: &str, port: u16) -> Result<Stream, DialError> {
        let begin = Instant::now();
        self.count("start_total", &[]);
        let target = authority(host, port);
        let connect_failed = |_: &DialError| self.count("failure_count", &["connect"]);
        let stream: Result<Stream, String> = match (self.protocol, &self.listens) {
            (Protocol::Grpc, Listens::Unix(path)) => {
                let channel = konnectivity::open(path).await.inspect_err(connect_failed)?;
                let tunnel = konnectivity::dial(channel, &target).await;
                tunnel.map(|tunnel| Box::new(tunnel) as Stream)
            }
            _ => {
                let mut stream = self.open().await.inspect_err(connect_failed)?;
                match self.protocol {
                    Protocol::Socks5 => {
                        let failed = |why| format!("socks connect tcp {self}->{target}: {why}");
                        socks::ask(&mut stream, host, port, self.login.as_ref()).await.map_err(failed)
                    }
                    _ => self.ask(&mut stream, &target).await,
                }
                .map(|()| stream)
            }
        };
        let stream = stream.inspect_err(|_| self.count("failure_count", &["proxy"]));
        let stream = stream.map_err(DialError::Proxy)?;
        if self.counted {
            let labels = [("protocol", self.protocol_name()), ("transport", self.transport())];
            histogram!("apiserver_egress_dialer_dial_duration_seconds", &labels)
                .record(begin.elapsed().as_secs_f64());
        }
        Ok(stream)
    }

    /// Counts a dial that begins, or has failed at a stage.
    fn count(&self, what: &str, stage: &[&'static str]) {
        if !self.counted {
            return;
        }
        let mut labels = vec![("protocol", self.protocol_name()), ("transport", self.transport())];
        labels.extend(stage.iter().map(|stage| ("stage", *stage)));
        counter!(format!("apiserver_egress_dialer_dial_{what}"), &labels).increment(1);
    }

    fn protocol_name(&self) -> &'static str {
        match self.protocol {
            Protocol::HttpConnect => "http_connect",
            Protocol::Socks5 => "socks5",
            Protocol::Grpc => "grpc",
        }
    }

    fn transport(&self) -> &'static str {
        if matches!(self.listens, Listens::Unix(_)) { "uds" } else { "tcp" }
    }

    /// Connects to the proxy itself.
    async fn open(&self) -> Result<Stream, DialError> {
        let stream: Stream = match &self.listens {
            // A proxy may have to be reached through another one.
            Listens::Tcp { host, port, through } => Box::pin(through.dial(host, *port)).await?,
            Listens::Unix(path) => {
                let failed = |source| DialError::Unix { path: path.clone(), source };
                Box::new(UnixStream::connect(path).await.map_err(failed)?)
            }
        };
        let Some((tls, name)) = &self.tls else { return Ok(stream) };
        Ok(Box::new(tls.connect(name.clone(), stream).await.map_err(DialError::Tls)?))
    }

    /// Asks for a way to `target`; whatever comes after that comes from there.
    async fn ask(&self, stream: &mut Stream, target: &str) -> Result<(), String> {
        let own = self.to_string();
        let failed = |why: String| {
            format!("reading HTTP response from CONNECT to {target} via proxy {own} failed: {why}")
        };
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {}\r\n", self.host.unwrap_or(target));
        if let Some((name, password)) = &self.login {
            let login = STANDARD.encode(format!("{name}:{password}"));
            request.push_str(&format!("Proxy-Authorization: Basic {login}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| failed(error.to_string()))?;
        let (head, more) = read_head(stream).await.map_err(failed)?;
        let (code, status) = status(&head).map_err(failed)?;
        if code != 200 {
            return Err(format!("proxy error from {own} while dialing {target}, code {code}: {status}"));
        }
        // The client speaks first: what is there already nobody has asked for.
        if more > 0 {
            return Err(format!("unexpected {more} bytes of buffered data from CONNECT proxy {own:?}"));
        }
        Ok(())
    }
}

impl std::fmt::Display for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.listens {
            Listens::Tcp { host, port, .. } => f.write_str(&authority(host, *port)),
            Listens::Unix(path) => path.display().fmt(f),
        }
    }
}

/// The head of an answer, and how many bytes have come after it.
async fn read_head(stream: &mut Stream) -> Result<(Vec<u8>, usize), String> {
    const END: &[u8] = b"\r\n\r\n";
    let (mut head, mut part) = (Vec::new(), [0; 2048]);
    loop {
        let read = stream.read(&mut part).await.map_err(|error| error.to_string())?;
        if read == 0 {
            return Err("unexpected EOF".to_owned());
        }
        let searched = head.len().saturating_sub(END.len() - 1);
        head.extend_from_slice(&part[..read]);
        if let Some(at) = head[searched..].windows(END.len()).position(|window| window == END) {
            let end = searched + at + END.len();
            let more = head.len() - end;
            head.truncate(end);
            return Ok((head, more));
        }
        if head.len() > MAX_HEAD {
            return Err("unexpected EOF".to_owned());
        }
    }
}

/// Code and status (`403 Forbidden`) of an answer's first line.
fn status(head: &[u8]) -> Result<(u16, String), String> {
    let text = String::from_utf8_lossy(head);
    let line = text.lines().next().unwrap_or_default();
    let malformed = || format!("malformed HTTP response {line:?}");
    let (version, status) = line.split_once(' ').ok_or_else(malformed)?;
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
        return Err(malformed());
    }
    let status = status.trim();
    let code = status.split(' ').next().filter(|code| code.len() == 3).and_then(|code| code.parse().ok());
    Ok((code.ok_or_else(malformed)?, status.to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::remote::describe;

    /// A proxy that answers one request with this text, and then echoes; what it was asked is given.
    async fn proxy(answer: &'static str) -> (u16, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let (mut asked, mut byte) = (Vec::new(), [0]);
            while !asked.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).await.expect("a request");
                asked.push(byte[0]);
            }
            // In two parts: the end is found where they meet, too.
            let (first, second) = answer.split_at(answer.len() / 2);
            stream.write_all(first.as_bytes()).await.expect("sent");
            stream.flush().await.expect("sent");
            tokio::task::yield_now().await;
            stream.write_all(second.as_bytes()).await.expect("sent");
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            String::from_utf8(asked).expect("text")
        });
        (port, task)
    }

    fn through(port: u16) -> Dialer {
        Dialer::Proxy(Arc::new(Proxy {
            protocol: Protocol::HttpConnect,
            listens: Listens::Tcp { host: "127.0.0.1".to_owned(), port, through: Dialer::Direct },
            tls: None,
            login: Some(("x".to_owned(), "y".to_owned())),
            host: None,
            counted: false,
        }))
    }

    #[tokio::test]
    async fn a_proxy_leads_to_where_it_is_asked_for() {
        let (port, task) = proxy("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").await;
        let mut stream = through(port).dial("fd00::1", 443).await.expect("a connection");
        stream.write_all(b"hello").await.expect("sent");
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).await.expect("an echo");
        assert_eq!(&echo, b"hello");
        drop(stream);
        let asked = task.await.expect("it ends");
        assert_eq!(
            asked,
            "CONNECT [fd00::1]:443 HTTP/1.1\r\nHost: [fd00::1]:443\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn what_a_proxy_refuses_is_told() {
        for (answer, expected) in [
            (
                "HTTP/1.1 403 Forbidden\r\n\r\n",
                "proxy error from 127.0.0.1:PORT while dialing a.b:1, code 403: 403 Forbidden",
            ),
            (
                "SSH-2.0-x\r\n\r\n",
                "reading HTTP response from CONNECT to a.b:1 via proxy 127.0.0.1:PORT failed: malformed HTTP \
                 response \"SSH-2.0-x\"",
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nx",
                "unexpected 1 bytes of buffered data from CONNECT proxy \"127.0.0.1:PORT\"",
            ),
        ] {
            let (port, _task) = proxy(answer).await;
            let error = through(port).dial("a.b", 1).await.err().expect("a refusal");
            assert_eq!(describe(&error), expected.replace("PORT", &port.to_string()));
        }
        let nowhere = Proxy {
            protocol: Protocol::HttpConnect,
            listens: Listens::Unix("/no/such/socket".into()),
            tls: None,
            login: None,
            host: None,
            counted: false,
        };
        let error = Dialer::Proxy(Arc::new(nowhere)).dial("a", 1).await.err().expect("a refusal");
        assert_eq!(describe(&error), "dial unix /no/such/socket: connect: no such file or directory");
    }
}
