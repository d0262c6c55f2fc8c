//! Connections through a konnectivity server at a socket of this machine (upstream
//! `apiserver-network-proxy/konnectivity-client`): one gRPC stream for each, whose packets carry its bytes.
//!
//! Nothing runs beside a connection: packets are taken and given when it is read and written. It is closed as a whole,
//! when it is dropped, by the end of its stream, after which the server closes what it has opened; the protocol cannot
//! end one direction alone.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream as _;
use hyper_util::rt::TokioIo;
use proto::konnectivity::packet::Payload;
use proto::konnectivity::proxy_service_client::ProxyServiceClient;
use proto::konnectivity::{Data, DialRequest, Packet, PacketType};
use rand::Rng as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::PollSender;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::failure::DialError;

/// Packets that wait for being sent; who writes more waits.
const QUEUE: usize = 16;
/// The most bytes of one packet.
const PART: usize = 32 * 1024;

/// Connects to the konnectivity server itself.
pub(super) async fn open(path: &Path) -> Result<Channel, DialError> {
    let failed = |source| DialError::Unix { path: path.to_owned(), source };
    let stream = UnixStream::connect(path).await.map_err(failed)?;
    let mut once = Some(stream);
    let connect = tower::service_fn(move |_| {
        let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream.map(TokioIo::new) }
    });
    // Where it is does not matter: the connection is there.
    let endpoint = Endpoint::from_static("http://konnectivity");
    let connected = endpoint.connect_with_connector(connect).await;
    connected.map_err(|error| DialError::Proxy(client::chain(&error)))
}

/// Has it connect to a host and port.
pub(super) async fn dial(channel: Channel, address: &str) -> Result<Tunnel, String> {
    let (outbound, packets) = mpsc::channel(QUEUE);
    // Half of all numbers, as upstream has it.
    let random = rand::rng().random_range(0..i64::MAX);
    let request = DialRequest { protocol: "tcp".to_owned(), address: address.to_owned(), random };
    let request = packet(PacketType::DialReq, Payload::DialRequest(request));
    outbound.try_send(request).map_err(|error| error.to_string())?;
    let answers = ProxyServiceClient::new(channel).proxy(ReceiverStream::new(packets)).await;
    let mut inbound = answers.map_err(|status| status.message().to_owned())?.into_inner();
    loop {
        let packet = inbound.message().await.map_err(|status| status.message().to_owned())?;
        match packet.and_then(|packet| packet.payload) {
            None => return Err("tunnel closed".to_owned()),
            Some(Payload::CloseDial(_)) => return Err("dial closed".to_owned()),
            Some(Payload::DialResponse(answer)) if answer.random == random => {
                if !answer.error.is_empty() {
                    return Err(answer.error);
                }
                let outbound = PollSender::new(outbound);
                return Ok(Tunnel { id: answer.connect_id, inbound, outbound, rest: Bytes::new() });
            }
            Some(_) => {}
        }
    }
}

fn packet(kind: PacketType, payload: Payload) -> Packet {
    Packet { r#type: kind.into(), payload: Some(payload) }
}

/// A connection.
pub(super) struct Tunnel {
    id: i64,
    inbound: Streaming<Packet>,
    outbound: PollSender<Packet>,
    /// What has come and has not been read.
    rest: Bytes,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            let packet = match ready!(Pin::new(&mut self.inbound).poll_next(cx)) {
                Some(Ok(packet)) => packet,
                Some(Err(status)) => return Poll::Ready(Err(io::Error::other(status))),
                None => return Poll::Ready(Ok(())),
            };
            match packet.payload {
                Some(Payload::Data(data)) if data.connect_id == self.id => self.rest = data.data,
                Some(Payload::CloseResponse(_)) => return Poll::Ready(Ok(())),
                _ => {}
            }
        }
        let size = self.rest.len().min(buffer.remaining());
        let part = self.rest.split_to(size);
        buffer.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        if ready!(self.outbound.poll_reserve(cx)).is_err() {
            return Poll::Ready(Err(closed()));
        }
        let part = &data[..data.len().min(PART)];
        let data = Data { connect_id: self.id, error: String::new(), data: Bytes::copy_from_slice(part) };
        let sent = self.outbound.send_item(packet(PacketType::Data, Payload::Data(data)));
        Poll::Ready(sent.map(|()| part.len()).map_err(|_| closed()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use futures::StreamExt as _;
    use parking_lot::Mutex;
    use proto::konnectivity::DialResponse;
    use proto::konnectivity::proxy_service_server::{ProxyService, ProxyServiceServer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;
    use tokio_stream::wrappers::UnixListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;

    /// A server whose connections all lead to an echo; `closed.example` does not.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<Vec<String>>>);

    #[tonic::async_trait]
    impl ProxyService for Server {
        type ProxyStream = ReceiverStream<Result<Packet, Status>>;

        async fn proxy(
            &self,
            request: Request<Streaming<Packet>>,
        ) -> Result<Response<Self::ProxyStream>, Status> {
            let (answers, stream) = mpsc::channel(4);
            let (mut packets, log) = (request.into_inner(), Arc::clone(&self.0));
            tokio::spawn(async move {
                while let Some(Ok(asked)) = packets.next().await {
                    let answer = match asked.payload {
                        Some(Payload::DialRequest(dial)) => {
                            log.lock().push(format!("{} {}", dial.protocol, dial.address));
                            let gone = dial.address.starts_with("closed.example");
                            let error = if gone { "connection refused" } else { "" }.to_owned();
                            let answer = DialResponse { error, connect_id: 7, random: dial.random };
                            packet(PacketType::DialRsp, Payload::DialResponse(answer))
                        }
                        Some(Payload::Data(data)) => packet(PacketType::Data, Payload::Data(data)),
                        _ => continue,
                    };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
                log.lock().push("end".to_owned());
            });
            Ok(Response::new(ReceiverStream::new(stream)))
        }
    }

    fn serve(path: PathBuf) -> Server {
        let server = Server::default();
        let incoming = UnixListenerStream::new(UnixListener::bind(path).expect("a socket"));
        let service = ProxyServiceServer::new(server.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        server
    }

    #[tokio::test]
    async fn tunnels_carry_connections() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let server = serve(path.clone());
        let mut tunnel =
            dial(open(&path).await.expect("a server"), "a.example:443").await.expect("a connection");
        let text: Vec<u8> = (0..200_000).map(|i: u32| i.to_le_bytes()[0]).collect();
        let (mut read, mut write) = tokio::io::split(&mut tunnel);
        let mut echo = vec![0; text.len()];
        let (sent, got) = tokio::join!(write.write_all(&text), read.read_exact(&mut echo));
        sent.expect("sent");
        got.expect("an echo");
        assert!(echo == text);
        drop(tunnel);
        let ended = async {
            while server.0.lock().last().is_none_or(|last| last != "end") {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), ended)
            .await
            .expect("the other end hears of it");
        assert_eq!(*server.0.lock(), ["tcp a.example:443", "end"]);
    }

    #[tokio::test]
    async fn what_cannot_be_reached_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let missing = open(&path).await.expect_err("nobody is there");
        let expected = format!("dial unix {}: connect: no such file or directory", path.display());
        assert_eq!(crate::remote::describe(&missing), expected);
        let _server = serve(path.clone());
        let refused = dial(open(&path).await.expect("a server"), "closed.example:1").await;
        assert_eq!(refused.err().as_deref(), Some("connection refused"));
    }
}
