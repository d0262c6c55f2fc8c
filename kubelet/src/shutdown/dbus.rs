//! As much of D-Bus as talking to a login manager takes: calls, their answers with files, and signals.
//!
//! One connection serves one purpose and its owner reads from it, so there is no task and no lock. Libraries for all of
//! D-Bus bring two dozen crates with them, for four calls.

mod wire;

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

pub(super) use wire::{Kind, Message, Value};
#[cfg(test)]
pub(super) use wire::{answer, length, read, refusal, signal};

/// Messages are short here; a longer one is not for us.
const MAX_MESSAGE: usize = 1 << 20;

/// The bus, or who is behind it, did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The connection broke.
    #[error("message bus")]
    Io(#[from] io::Error),
    /// The bus does not let us in.
    #[error("message bus refused the connection: {0}")]
    Refused(String),
    /// What came is no message.
    #[error("message bus sent nonsense: {0}")]
    Nonsense(&'static str),
    /// An error came for an answer.
    #[error("{name}: {text}")]
    Answer {
        /// Its name, for example `org.freedesktop.DBus.Error.ServiceUnknown`.
        name: String,
        /// What it says.
        text: String,
    },
}

/// Whom a call is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
}

/// A connection to a bus.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// Bytes that came and are not yet read as messages.
    input: Vec<u8>,
    /// Files that came with them.
    files: VecDeque<OwnedFd>,
    /// Signals that came while an answer was waited for.
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects to the bus on this socket, as who this process is.
    pub(super) async fn connect(socket: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(socket).await?;
        let (input, files, signals) = (Vec::new(), VecDeque::new(), VecDeque::new());
        let mut bus = Self { stream, serial: 0, input, files, signals };
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.stream.write_all(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes()).await?;
        bus.expect_line("OK").await?;
        bus.stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
        bus.expect_line("AGREE_UNIX_FD").await?;
        bus.stream.write_all(b"BEGIN\r\n").await?;
        bus.call(BUS, "Hello", &[]).await?;
        Ok(bus)
    }

    async fn expect_line(&mut self, word: &str) -> Result<(), Error> {
        loop {
            if let Some(end) = self.input.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                return if line.starts_with(word) { Ok(()) } else { Err(Error::Refused(line)) };
            }
            if self.input.len() > MAX_MESSAGE {
                return Err(Error::Nonsense("a line without end"));
            }
            self.read_more().await?;
        }
    }

    /// Asks to hear of signals.
    pub(super) async fn listen(&mut self, rule: &str) -> Result<(), Error> {
        self.call(BUS, "AddMatch", &[Value::Str(rule.to_owned())]).await.map(drop)
    }

    /// Calls a method and waits for the answer.
    pub(super) async fn call(
        &mut self,
        target: Target,
        member: &str,
        args: &[Value],
    ) -> Result<Message, Error> {
        self.serial += 1;
        let serial = self.serial;
        self.stream.write_all(&wire::call(serial, target, member, args)).await?;
        loop {
            let message = self.message().await?;
            match message.kind {
                Kind::Signal => self.signals.push_back(message),
                Kind::Return if message.reply_to == Some(serial) => return Ok(message),
                Kind::Error if message.reply_to == Some(serial) => {
                    let text = match message.body.into_iter().next() {
                        Some(Value::Str(text)) => text,
                        _ => String::new(),
                    };
                    return Err(Error::Answer { name: message.error, text });
                }
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(super) async fn signal(&mut self) -> Result<Message, Error> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            let message = self.message().await?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }

    async fn message(&mut self) -> Result<Message, Error> {
        loop {
            if let Some(length) = wire::length(&self.input)? {
                if length > MAX_MESSAGE {
                    return Err(Error::Nonsense("a message that is too long"));
                }
                if self.input.len() >= length {
                    let bytes: Vec<u8> = self.input.drain(..length).collect();
                    return wire::read(&bytes, &mut self.files);
                }
            }
            self.read_more().await?;
        }
    }

    /// Reads what there is, with the files that come with it.
    async fn read_more(&mut self) -> Result<(), Error> {
        let mut buffer = [0; 4096];
        let stream = &self.stream;
        let (count, files) = stream.async_io(Interest::READABLE, || receive(stream, &mut buffer)).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.input.extend_from_slice(&buffer[..count]);
        self.files.extend(files);
        Ok(())
    }
}

const BUS: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect(),
        _ => Vec::new(),
    });
    Ok((received.bytes, files.collect()))
}
