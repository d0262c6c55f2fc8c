//! Bodies of requests and responses: one boxed type in both directions, so that the same service answers the
//! network and the process itself.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use api::status::ApiError;
use bytes::buf::Reader;
use bytes::{Buf, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};

/// What may go wrong while a body is read or written.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Any body.
pub type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, BoxError>;

/// The largest body that is read (upstream's `MaxRequestBodyBytes`).
pub const MAX_REQUEST_BYTES: usize = 3 * 1024 * 1024;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// No body.
#[must_use]
pub fn empty() -> Body {
    full(Bytes::new())
}

/// A part of a body of many.
pub trait Piece: Send + Unpin + 'static {
    /// Its length in bytes.
    fn len(&self) -> usize;

    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);

    /// It as it is, where that costs nothing.
    fn whole(&self) -> Option<Bytes> {
        None
    }

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Piece for Bytes {
    fn len(&self) -> usize {
        Bytes::len(self)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn whole(&self) -> Option<Bytes> {
        Some(self.clone())
    }
}

/// A body of shared pieces, sent one after the other without all being joined. Small pieces are gathered so that a
/// frame is worth its header.
#[must_use]
pub fn segments<P: Piece>(pieces: impl IntoIterator<Item = P>) -> Body {
    let pieces: VecDeque<P> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    let remaining = pieces.iter().map(|piece| piece.len() as u64).sum();
    Segments { pieces, remaining }.map_err(|never: Infallible| match never {}).boxed_unsync()
}

struct Segments<P> {
    pieces: VecDeque<P>,
    remaining: u64,
}

/// Pieces smaller than this are copied together.
const GATHER: usize = 16 * 1024;

impl<P: Piece> http_body::Body for Segments<P> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(first) = self.pieces.pop_front() else { return Poll::Ready(None) };
        let alone = first.len() >= GATHER || self.pieces.is_empty();
        let data = match first.whole().filter(|_| alone) {
            Some(whole) => whole,
            None => {
                let mut joined = Vec::with_capacity(first.len().max(2 * GATHER));
                first.write(&mut joined);
                while joined.len() < GATHER {
                    let Some(next) = self.pieces.pop_front() else { break };
                    next.write(&mut joined);
                }
                joined.into()
            }
        };
        self.remaining -= data.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// As [`segments`], compressed on the way: a frame is made when the client takes it.
#[must_use]
pub fn gzip<P: Piece>(pieces: impl IntoIterator<Item = P>) -> Body {
    let pieces = pieces.into_iter().collect();
    let encoder = Some(GzEncoder::new(Vec::with_capacity(GATHER), Compression::fast()));
    Gzip { pieces, plain: Vec::new(), encoder }.boxed_unsync()
}

struct Gzip<P> {
    pieces: VecDeque<P>,
    /// Where a piece is written before it is compressed.
    plain: Vec<u8>,
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<P: Piece> http_body::Body for Gzip<P> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(mut encoder) = self.encoder.take() else { return Poll::Ready(None) };
        while encoder.get_ref().len() < GATHER {
            let Some(piece) = self.pieces.pop_front() else {
                let last = encoder.finish().map(|bytes| Frame::data(Bytes::from(bytes)));
                return Poll::Ready(Some(last.map_err(Into::into)));
            };
            self.plain.clear();
            piece.write(&mut self.plain);
            if let Err(error) = encoder.write_all(&self.plain) {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        let ready = std::mem::replace(encoder.get_mut(), Vec::with_capacity(GATHER));
        self.encoder = Some(encoder);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(ready)))))
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

/// What was compressed, uncompressed on the way; `length` bytes in all.
#[must_use]
pub fn gunzip(data: Bytes, length: u64) -> Body {
    Gunzip { decoder: GzDecoder::new(data.reader()), remaining: length }.boxed_unsync()
}

struct Gunzip {
    decoder: GzDecoder<Reader<Bytes>>,
    remaining: u64,
}

impl http_body::Body for Gunzip {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let size = usize::try_from(self.remaining).unwrap_or(GATHER).min(GATHER);
        if size == 0 {
            return Poll::Ready(None);
        }
        let mut piece = vec![0; size];
        let read = self.decoder.read_exact(&mut piece);
        self.remaining -= size as u64;
        Poll::Ready(Some(read.map(|()| Frame::data(piece.into())).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}

/// Why a body was not read whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is larger than allowed.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// The other side stopped sending.
    #[error("{0}")]
    Broken(BoxError),
}

/// Reads a whole body of at most `limit` bytes. One that comes in one piece is not copied.
pub async fn read_up_to(mut body: Body, limit: usize) -> Result<Bytes, ReadError> {
    let mut first: Option<Bytes> = None;
    let mut rest: Option<BytesMut> = None;
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ReadError::Broken)?.into_data() else { continue };
        size += data.len();
        if size > limit {
            return Err(ReadError::TooLarge(limit));
        }
        match (&first, &mut rest) {
            (None, _) => first = Some(data),
            (Some(_), Some(rest)) => rest.extend_from_slice(&data),
            (Some(one), None) => {
                let mut joined = BytesMut::with_capacity(size * 2);
                joined.extend_from_slice(one);
                joined.extend_from_slice(&data);
                rest = Some(joined);
            }
        }
    }
    Ok(rest.map(BytesMut::freeze).or(first).unwrap_or_default())
}

/// Reads a whole request body; 413 beyond [`MAX_REQUEST_BYTES`].
pub async fn read(body: Body) -> Result<Bytes, ApiError> {
    read_up_to(body, MAX_REQUEST_BYTES).await.map_err(|error| match error {
        ReadError::TooLarge(limit) => {
            ApiError::too_large(format!("Request entity too large: limit is {limit}"))
        }
        ReadError::Broken(error) => ApiError::bad_request(format!("read request body: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn segments_arrive_whole_and_in_order() {
        let pieces: Vec<Bytes> = (0..5000).map(|i| Bytes::from(format!("{i},"))).collect();
        let expected: Vec<u8> = pieces.concat();
        let body = segments(pieces);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(expected.len() as u64));
        assert_eq!(body.collect().await.expect("infallible").to_bytes(), expected);
    }

    #[tokio::test]
    async fn what_was_compressed_arrives_whole() {
        let text: Vec<u8> = (0..20_000_u32).flat_map(|i| i.to_string().into_bytes()).collect();
        let packed = gzip([Bytes::from(text.clone())]).collect().await.expect("compressed").to_bytes();
        let body = gunzip(packed, text.len() as u64);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(text.len() as u64));
        assert_eq!(body.collect().await.expect("uncompressed").to_bytes(), text);
    }

    #[tokio::test]
    async fn too_large_bodies_are_refused() {
        let error = read(full(vec![0u8; MAX_REQUEST_BYTES + 1])).await.expect_err("too large");
        assert_eq!(error.code(), 413);
        assert_eq!(error.message(), "Request entity too large: limit is 3145728");
    }
}
