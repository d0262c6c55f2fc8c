//! A channel to a driver that knows whether anybody is at the other end: a driver may die and leave its sockets behind.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

/// How long it may take to connect.
const PATIENCE: Duration = Duration::from_secs(15);

/// A channel over the unix socket at this path, which the first call opens, and how many connections it has: one or none.
pub(super) fn watched_channel(socket: &Path) -> (Channel, watch::Receiver<usize>) {
    let (open, connections) = watch::channel(0);
    let socket = socket.to_owned();
    // The address is never looked at: the connector below always opens the socket.
    let channel =
        Endpoint::from_static("http://localhost").connect_timeout(PATIENCE).connect_with_connector_lazy(
            tower::service_fn(move |_| {
                let (socket, open) = (socket.clone(), open.clone());
                async move {
                    UnixStream::connect(socket).await.map(|stream| TokioIo::new(Watched::new(stream, open)))
                }
            }),
        );
    (channel, connections)
}

/// A connection that counts while it is there. Whoever reads from it drops it when the other end is gone.
struct Watched {
    stream: UnixStream,
    open: watch::Sender<usize>,
}

impl Watched {
    fn new(stream: UnixStream, open: watch::Sender<usize>) -> Self {
        open.send_modify(|count| *count += 1);
        Self { stream, open }
    }

    fn stream(self: Pin<&mut Self>) -> Pin<&mut UnixStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.open.send_modify(|count| *count -= 1);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
