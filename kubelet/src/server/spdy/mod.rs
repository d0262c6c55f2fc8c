//! SPDY/3.1, the client's side, as far as container runtimes speak it on their streaming servers.
//!
//! One task reads frames and hands out the data of the streams; writes go through one lock. Streams are opened by us
//! only. Header blocks we send are compressed without the protocol's dictionary, which readers must accept because a
//! zlib stream says itself whether it needs one; header blocks we receive carry nothing we need and are not decompressed.
//! There is no flow control: the runtimes' library neither keeps nor sends windows.

mod frame;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, mpsc};

pub use frame::{Frame, HeaderCompressor};

/// How many pieces of data of one stream may wait to be read; a slow reader then holds up the connection.
const PIECES: usize = 64;
const MAX_DATA: usize = 32 << 10;

type Streams = Arc<parking_lot::Mutex<HashMap<u32, mpsc::Sender<Bytes>>>>;

struct Shared<S> {
    writer: Mutex<(WriteHalf<S>, HeaderCompressor)>,
    streams: Streams,
    next: AtomicU32,
}

/// A connection.
pub struct Connection<S> {
    shared: Arc<Shared<S>>,
}

impl<S> Clone for Connection<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

/// One stream of a connection.
pub struct Stream<S> {
    shared: Arc<Shared<S>>,
    id: u32,
    data: Option<mpsc::Receiver<Bytes>>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection<S> {
    /// Takes over an upgraded connection. The future returned reads it and must be polled until it ends.
    pub fn client(io: S) -> (Self, impl Future<Output = io::Result<()>> + Send) {
        let (reader, writer) = tokio::io::split(io);
        let shared = Arc::new(Shared {
            writer: Mutex::new((writer, HeaderCompressor::new())),
            streams: Streams::default(),
            next: AtomicU32::new(1),
        });
        let read = read_frames(reader, shared.clone());
        (Self { shared }, read)
    }

    /// Opens a stream with these headers (lower-case names).
    pub async fn open(&self, headers: &[(&str, &str)]) -> io::Result<Stream<S>> {
        let (sender, data) = mpsc::channel(PIECES);
        let mut writer = self.shared.writer.lock().await;
        // Numbers grow in the order in which streams appear on the wire.
        let id = self.shared.next.fetch_add(2, Ordering::SeqCst);
        self.shared.streams.lock().insert(id, sender);
        let block = writer.1.compress(headers)?;
        let frame = Frame::SynStream { id, fin: false, block }.encode();
        writer.0.write_all(&frame).await?;
        writer.0.flush().await?;
        drop(writer);
        Ok(Stream { shared: self.shared.clone(), id, data: Some(data) })
    }

    /// Says goodbye and closes the connection.
    pub async fn close(&self) {
        let mut writer = self.shared.writer.lock().await;
        // The peer may be gone, which is what is wanted.
        let _ = writer.0.write_all(&Frame::GoAway { last: 0, status: 0 }.encode()).await;
        let _ = writer.0.shutdown().await;
    }
}

impl<S: AsyncWrite + Unpin> Stream<S> {
    /// The next piece of data; `None` at the stream's end.
    pub async fn read(&mut self) -> Option<Bytes> {
        self.data.as_mut()?.recv().await
    }

    /// The reading side alone, so that both directions can be used at once.
    pub fn take_reader(&mut self) -> Option<mpsc::Receiver<Bytes>> {
        self.data.take()
    }

    /// Sends data.
    pub async fn write(&self, data: &[u8]) -> io::Result<()> {
        for piece in data.chunks(MAX_DATA) {
            self.send(piece, false).await?;
        }
        Ok(())
    }

    /// Ends our side.
    pub async fn finish(&self) -> io::Result<()> {
        self.send(&[], true).await
    }

    async fn send(&self, data: &[u8], fin: bool) -> io::Result<()> {
        let frame = Frame::Data { id: self.id, fin, data: Bytes::copy_from_slice(data) }.encode();
        let mut writer = self.shared.writer.lock().await;
        writer.0.write_all(&frame).await?;
        writer.0.flush().await
    }
}

async fn read_frames<S: AsyncRead + AsyncWrite + Unpin>(
    mut reader: ReadHalf<S>,
    shared: Arc<Shared<S>>,
) -> io::Result<()> {
    let ended = loop {
        match read_frame(&mut reader).await {
            Ok(Some(frame)) => {
                if let Err(error) = handle(frame, &shared).await {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    shared.streams.lock().clear();
    ended
}

async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; frame::HEAD];
    match reader.read_exact(&mut head).await {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) =>
        {
            return Ok(None);
        }
        read => read?,
    };
    let mut body = vec![0; frame::length(&head)];
    reader.read_exact(&mut body).await?;
    Frame::decode(head, body).map(Some)
}

async fn handle<S: AsyncWrite + Unpin>(frame: Frame, shared: &Shared<S>) -> io::Result<()> {
    match frame {
        Frame::Data { id, fin, data } => {
            let stream = shared.streams.lock().get(&id).cloned();
            if let Some(stream) = stream.filter(|_| !data.is_empty()) {
                // A reader that is gone does not want the rest.
                let _ = stream.send(data).await;
            }
            if fin {
                shared.streams.lock().remove(&id);
            }
        }
        Frame::SynReply { id, fin: true } | Frame::Reset { id, .. } => {
            shared.streams.lock().remove(&id);
        }
        // Even numbers are the peer's own pings and are sent back.
        Frame::Ping { id } if id % 2 == 0 => {
            let mut writer = shared.writer.lock().await;
            writer.0.write_all(&Frame::Ping { id }.encode()).await?;
            writer.0.flush().await?;
        }
        Frame::GoAway { .. }
        | Frame::SynReply { .. }
        | Frame::SynStream { .. }
        | Frame::Ping { .. }
        | Frame::Other { .. } => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
