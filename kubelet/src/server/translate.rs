//! WebSocket clients before servers that speak SPDY.
//!
//! Two protocols: channels (`v5.channel.k8s.io` and `v4.channel.k8s.io`), whose messages are taken apart into SPDY streams,
//! and the tunnel of port-forward (`SPDY/3.1+portforward.k8s.io`), whose messages are SPDY already. Older channel
//! protocols are left to the runtime's server, which speaks them itself.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tracing::debug;

use super::Server;
use super::respond::{Body, text};
use super::spdy::{Connection, Stream};
use super::streaming::Streams;
use super::upgrade::{Answer, connect, pass_on, switching};

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Version 5: the next byte names a channel that the client closes.
const CLOSE: u8 = 255;

/// What is spoken through a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A channel number before every message; the name of the version.
    Channels(&'static str),
    /// SPDY as it is.
    Tunnel,
}

type Socket<S> = WebSocketStream<S>;

/// What a WebSocket client offers that is translated here; none for other clients and older protocols.
pub fn wanted(headers: &HeaderMap) -> Option<Protocol> {
    let websocket = headers.get(UPGRADE)?.to_str().ok()?.eq_ignore_ascii_case("websocket");
    let offered: Vec<&str> = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(',').map(str::trim))
        .collect();
    let best = [(TUNNEL, Protocol::Tunnel), (V5, Protocol::Channels(V5)), (V4, Protocol::Channels(V4))];
    let best = best.into_iter().find(|(name, _)| offered.contains(name));
    best.map(|(_, protocol)| protocol).filter(|_| websocket)
}

fn accept(request: &mut Request<Incoming>, protocol: &'static str) -> Option<(Response<Body>, OnUpgrade)> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY)?;
    let accepted = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
    let mut headers = HeaderMap::new();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Some((switching(headers), hyper::upgrade::on(request)))
}

async fn dial(server: &Server, url: &str, protocol: &'static str) -> io::Result<Answer> {
    let mut headers = HeaderMap::new();
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert("X-Stream-Protocol-Version", HeaderValue::from_static(protocol));
    connect(server, url, Method::POST, headers).await
}

async fn join<F, Fut>(
    server: &Arc<Server>,
    url: &str,
    protocol: (&'static str, &'static str),
    mut request: Request<Incoming>,
    talk: F,
) -> Response<Body>
where
    F: FnOnce(Socket<TokioIo<Upgraded>>, TokioIo<Upgraded>) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (to_client, to_server) = protocol;
    let backend = match dial(server, url, to_server).await {
        Ok(Answer::Upgraded(_, backend)) => backend,
        Ok(Answer::Refused(response)) => return pass_on(response),
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, format!("streaming server: {error}")),
    };
    let Some((response, client)) = accept(&mut request, to_client) else {
        return text(StatusCode::BAD_REQUEST, "websocket: 'Sec-WebSocket-Key' header is missing");
    };
    server.tasks.spawn("websocket", |token| async move {
        let client = match client.await {
            Ok(client) => TokioIo::new(client),
            Err(error) => return debug!(%error, "client did not upgrade"),
        };
        let socket = WebSocketStream::from_raw_socket(client, Role::Server, None).await;
        tokio::select! {
            () = token.cancelled() => {}
            () = talk(socket, backend) => {}
        }
    });
    response
}

/// Translates channels into streams.
pub async fn channels(
    server: &Arc<Server>,
    url: &str,
    streams: Streams,
    protocol: &'static str,
    request: Request<Incoming>,
) -> Response<Body> {
    let tasks = server.tasks.clone();
    join(server, url, (protocol, V4), request, move |socket, backend| async move {
        let (connection, reading) = Connection::client(backend);
        tasks.spawn("spdy", |token| async move {
            tokio::select! {
                () = token.cancelled() => {}
                ended = reading => if let Err(error) = ended {
                    debug!(%error, "streaming connection ended");
                },
            }
        });
        if let Err(error) = translate(socket, &connection, streams).await {
            debug!(%error, "translated stream ended");
        }
        connection.close().await;
    })
    .await
}

/// Opens the streams in the order the runtime's server expects of its clients, then moves data both ways.
async fn translate<C, B>(socket: Socket<C>, connection: &Connection<B>, streams: Streams) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin + Send,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let open = async |wanted: bool, name: &str| match wanted {
        true => connection.open(&[("streamtype", name)]).await.map(Some),
        false => Ok(None),
    };
    let mut error = open(true, "error").await?;
    let stdin = open(streams.stdin, "stdin").await?;
    let mut stdout = open(streams.stdout, "stdout").await?;
    let mut stderr = open(streams.stderr, "stderr").await?;
    let resize = open(streams.tty, "resize").await?;
    let (mut sink, source) = socket.split();
    // Tells the client, by the first channel it reads, that it is connected.
    let first = if streams.stdout {
        STDOUT
    } else if streams.stderr {
        STDERR
    } else {
        ERROR
    };
    send(&mut sink, first, &[]).await?;
    let (messages, outgoing) = mpsc::channel::<(u8, Bytes)>(16);
    let outputs = async {
        let forward = async |stream: &mut Option<Stream<B>>, channel: u8| {
            let Some(mut data) = stream.as_mut().and_then(Stream::take_reader) else { return };
            while let Some(piece) = data.recv().await {
                if messages.send((channel, piece)).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(forward(&mut stdout, STDOUT), forward(&mut stderr, STDERR));
        // The result comes after all output, as on the wire: some clients read nothing after it.
        forward(&mut error, ERROR).await;
    };
    tokio::select! {
        ended = read_client(source, stdin.as_ref(), resize.as_ref()) => ended,
        ended = write_client(&mut sink, outgoing, outputs) => ended,
    }
}

/// Sends what the process says; ends when all its streams have.
async fn write_client<C: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<Socket<C>, Message>,
    mut outgoing: mpsc::Receiver<(u8, Bytes)>,
    outputs: impl Future<Output = ()>,
) -> io::Result<()> {
    tokio::pin!(outputs);
    let mut running = true;
    loop {
        tokio::select! {
            biased;
            message = outgoing.recv() => match message {
                Some((channel, data)) => send(sink, channel, &data).await?,
                None => break,
            },
            () = &mut outputs, if running => {
                running = false;
                outgoing.close();
            }
        }
    }
    goodbye(sink).await
}

/// Clients take every other end for an error.
async fn goodbye<C: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<Socket<C>, Message>,
) -> io::Result<()> {
    let frame = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    sink.send(Message::Close(Some(frame))).await.map_err(io::Error::other)?;
    sink.close().await.map_err(io::Error::other)
}

async fn send<C: AsyncRead + AsyncWrite + Unpin>(
    sink: &mut SplitSink<Socket<C>, Message>,
    channel: u8,
    data: &[u8],
) -> io::Result<()> {
    let mut message = Vec::with_capacity(data.len() + 1);
    message.push(channel);
    message.extend_from_slice(data);
    sink.send(Message::Binary(message.into())).await.map_err(io::Error::other)
}

/// Takes in what the client says; ends when the client has gone.
async fn read_client<C, B>(
    mut source: SplitStream<Socket<C>>,
    stdin: Option<&Stream<B>>,
    resize: Option<&Stream<B>>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = source.next().await {
        let data = match message.map_err(io::Error::other)? {
            Message::Binary(data) => data,
            Message::Text(data) => Bytes::from(data),
            Message::Close(_) => return Ok(()),
            _ => continue,
        };
        match data.split_first() {
            Some((&STDIN, data)) => write(stdin, data).await?,
            Some((&RESIZE, data)) => write(resize, data).await?,
            Some((&CLOSE, [STDIN, ..])) => {
                if let Some(stdin) = stdin {
                    stdin.finish().await?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

async fn write<B: AsyncRead + AsyncWrite + Unpin>(stream: Option<&Stream<B>>, data: &[u8]) -> io::Result<()> {
    match stream {
        Some(stream) => stream.write(data).await,
        None => Ok(()),
    }
}

/// Passes SPDY through a WebSocket.
pub async fn tunnel(server: &Arc<Server>, url: &str, request: Request<Incoming>) -> Response<Body> {
    join(server, url, (TUNNEL, "portforward.k8s.io"), request, |socket, backend| async move {
        if let Err(error) = pass_through(socket, backend).await {
            debug!(%error, "tunnel ended");
        }
    })
    .await
}

async fn pass_through<C>(socket: Socket<C>, backend: impl AsyncRead + AsyncWrite) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let (mut read, mut write) = tokio::io::split(backend);
    let inwards = async {
        while let Some(message) = source.next().await {
            match message.map_err(io::Error::other)? {
                Message::Binary(data) => {
                    write.write_all(&data).await?;
                    write.flush().await?;
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        write.shutdown().await
    };
    let outwards = async {
        let mut buffer = vec![0; 32 << 10];
        loop {
            let n = read.read(&mut buffer).await?;
            if n == 0 {
                return goodbye(&mut sink).await;
            }
            let message = Message::Binary(Bytes::copy_from_slice(&buffer[..n]));
            sink.send(message).await.map_err(io::Error::other)?;
        }
    };
    tokio::select! {
        ended = inwards => ended,
        ended = outwards => ended,
    }
}

#[cfg(test)]
mod tests;
