//! Frames of SPDY/3.1.

use std::io;

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

/// Bytes before every frame's body.
pub const HEAD: usize = 8;
const VERSION: u16 = 3;
const CONTROL: u32 = 0x8000_0000;
const FLAG_FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a stream.
    Data {
        /// Stream.
        id: u32,
        /// The sender's last.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
    /// Opens a stream.
    SynStream {
        /// Stream.
        id: u32,
        /// The opener sends nothing.
        fin: bool,
        /// Compressed headers.
        block: Vec<u8>,
    },
    /// Accepts a stream.
    SynReply {
        /// Stream.
        id: u32,
        /// The accepter sends nothing.
        fin: bool,
    },
    /// Ends a stream at once.
    Reset {
        /// Stream.
        id: u32,
        /// Why.
        status: u32,
    },
    /// Asks whether the other side is there, or says so.
    Ping {
        /// Number.
        id: u32,
    },
    /// No more streams.
    GoAway {
        /// Last stream dealt with.
        last: u32,
        /// Why.
        status: u32,
    },
    /// SETTINGS, HEADERS, WINDOW_UPDATE and whatever else: nothing to do.
    Other {
        /// Type of the frame.
        kind: u16,
    },
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes
        .map(u32::from_be_bytes)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "SPDY frame is too short"))
}

/// Length of the body that follows a head.
pub fn length(head: &[u8; HEAD]) -> usize {
    usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7])
}

impl Frame {
    /// Reads a frame.
    pub fn decode(head: [u8; HEAD], body: Vec<u8>) -> io::Result<Self> {
        let first = word(&head, 0)?;
        let fin = head[4] & FLAG_FIN != 0;
        if first & CONTROL == 0 {
            return Ok(Self::Data { id: first, fin, data: Bytes::from(body) });
        }
        if (first >> 16) & 0x7fff != u32::from(VERSION) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not SPDY/3"));
        }
        let id = |at| word(&body, at).map(|id| id & !CONTROL);
        Ok(match u16::from_be_bytes([head[2], head[3]]) {
            SYN_STREAM => {
                Self::SynStream { id: id(0)?, fin, block: body.get(10..).unwrap_or_default().to_vec() }
            }
            SYN_REPLY => Self::SynReply { id: id(0)?, fin },
            RST_STREAM => Self::Reset { id: id(0)?, status: word(&body, 4)? },
            PING => Self::Ping { id: word(&body, 0)? },
            GOAWAY => Self::GoAway { last: id(0)?, status: word(&body, 4).unwrap_or_default() },
            kind => Self::Other { kind },
        })
    }

    /// Writes a frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Data { id, fin, data } => with_head(*id, *fin, data),
            Self::SynStream { id, fin, block } => {
                let mut body = words(&[*id, 0]);
                // Priority and slot.
                body.extend([0, 0]);
                body.extend(block);
                control(SYN_STREAM, *fin, &body)
            }
            // An empty header block, uncompressed and stored, is only ever written by tests' peers.
            Self::SynReply { id, fin } => control(SYN_REPLY, *fin, &words(&[*id])),
            Self::Reset { id, status } => control(RST_STREAM, false, &words(&[*id, *status])),
            Self::Ping { id } => control(PING, false, &words(&[*id])),
            Self::GoAway { last, status } => control(GOAWAY, false, &words(&[*last, *status])),
            Self::Other { kind } => control(*kind, false, &[]),
        }
    }
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn control(kind: u16, fin: bool, body: &[u8]) -> Vec<u8> {
    with_head(CONTROL | u32::from(VERSION) << 16 | u32::from(kind), fin, body)
}

fn with_head(first: u32, fin: bool, body: &[u8]) -> Vec<u8> {
    let mut frame = first.to_be_bytes().to_vec();
    frame.push(if fin { FLAG_FIN } else { 0 });
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or_default().to_be_bytes()[1..]);
    frame.extend_from_slice(body);
    frame
}

/// Compresses the header blocks of one connection, which share one zlib stream.
pub struct HeaderCompressor(Compress);

impl HeaderCompressor {
    /// For a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self(Compress::new(Compression::best(), true))
    }

    /// A block of `headers`.
    pub fn compress(&mut self, headers: &[(&str, &str)]) -> io::Result<Vec<u8>> {
        let mut plain = words(&[u32::try_from(headers.len()).unwrap_or_default()]);
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend(words(&[u32::try_from(text.len()).unwrap_or_default()]));
            plain.extend_from_slice(text.as_bytes());
        }
        // Room enough for everything in one go: what does not compress grows by a few bytes.
        let mut block = Vec::with_capacity(plain.len() + 256);
        self.0.compress_vec(&plain, &mut block, FlushCompress::Sync).map_err(io::Error::other)?;
        Ok(block)
    }
}

impl Default for HeaderCompressor {
    fn default() -> Self {
        Self::new()
    }
}
