//! Channels over unix sockets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use proto::cri::image_service_client::ImageServiceClient;
use proto::cri::runtime_service_client::RuntimeServiceClient;
use tonic::transport::{Channel, Endpoint};

use super::{Error, Runtime};

/// Answers of a node with many containers are large; upstream allows the same.
const MAX_MESSAGE: usize = 16 << 20;

/// The runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It does not answer.
    #[error("validate CRI v1 runtime API for endpoint {socket:?}")]
    Unreachable {
        /// Socket that was tried.
        socket: PathBuf,
        /// What it answered.
        #[source]
        source: Error,
    },
}

impl Runtime {
    /// Names the runtime behind `socket` and the image service behind `image_socket`. Opens nothing yet: the first
    /// call connects, and so does the first call after a connection broke.
    #[must_use]
    pub fn lazy(socket: &Path, image_socket: &Path, timeout: Duration) -> Self {
        let runtime = unix_channel(socket);
        let images = if socket == image_socket { runtime.clone() } else { unix_channel(image_socket) };
        Self {
            runtime: RuntimeServiceClient::new(runtime).max_decoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(images).max_decoding_message_size(MAX_MESSAGE),
            timeout,
        }
    }

    /// Like [`Runtime::lazy`], and checks that the runtime speaks CRI v1.
    pub async fn connect(
        socket: &Path,
        image_socket: &Path,
        timeout: Duration,
    ) -> Result<Self, ConnectError> {
        let runtime = Self::lazy(socket, image_socket, timeout);
        match runtime.version().await {
            Ok(_) => Ok(runtime),
            Err(source) => Err(ConnectError::Unreachable { socket: socket.to_owned(), source }),
        }
    }
}

/// A channel over the unix socket at this path; the first call opens it.
#[must_use]
pub fn unix_channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The address is never looked at: the connector below always opens the socket.
    Endpoint::from_static("http://localhost")
        .connect_timeout(Duration::from_secs(15))
        .connect_with_connector_lazy(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { tokio::net::UnixStream::connect(socket).await.map(TokioIo::new) }
        }))
}
