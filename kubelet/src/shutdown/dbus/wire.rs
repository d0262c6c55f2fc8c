//! Messages as D-Bus writes them. Values only.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::{Error, Target};

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Call,
    Return,
    Error,
    Signal,
}

/// A value in a message; others than these are not needed here.
#[derive(Debug)]
pub(in super::super) enum Value {
    Str(String),
    I32(i32),
    U32(u32),
    U64(u64),
    Bool(bool),
    File(OwnedFd),
}

/// A message that came.
#[derive(Debug)]
pub(in super::super) struct Message {
    pub(in super::super) kind: Kind,
    pub(in super::super) serial: u32,
    pub(in super::super) reply_to: Option<u32>,
    pub(in super::super) interface: String,
    pub(in super::super) member: String,
    pub(in super::super) error: String,
    pub(in super::super) body: Vec<Value>,
}

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;
const UNIX_FDS: u8 = 9;

/// Writes values one after the other, each where it may stand.
#[derive(Default)]
pub(in super::super) struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.0.extend(value.to_le_bytes());
    }

    fn str(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn field(&mut self, code: u8, kind: &str, write: impl FnOnce(&mut Self)) {
        self.align(8);
        self.0.push(code);
        self.signature(kind);
        write(self);
    }

    /// A value; a file is told by its number among those that are sent along.
    fn value(&mut self, value: &Value) {
        match value {
            Value::Str(text) => self.str(text),
            Value::I32(number) => self.u32(u32::from_le_bytes(number.to_le_bytes())),
            Value::U32(number) => self.u32(*number),
            Value::Bool(yes) => self.u32(u32::from(*yes)),
            Value::File(_) => self.u32(0),
            Value::U64(number) => {
                self.align(8);
                self.0.extend(number.to_le_bytes());
            }
        }
    }
}

fn letter(value: &Value) -> char {
    match value {
        Value::Str(_) => 's',
        Value::I32(_) => 'i',
        Value::U32(_) => 'u',
        Value::U64(_) => 't',
        Value::Bool(_) => 'b',
        Value::File(_) => 'h',
    }
}

/// A message with these header fields; `wrapped` bodies are one variant.
pub(in super::super) fn message(
    kind: u8,
    serial: u32,
    fields: impl FnOnce(&mut Writer),
    args: &[Value],
    wrapped: bool,
) -> Vec<u8> {
    let mut body = Writer::default();
    for value in args {
        if wrapped {
            body.signature(&letter(value).to_string());
        }
        body.value(value);
    }
    let signature: String = if wrapped { "v".to_owned() } else { args.iter().map(letter).collect() };
    let mut header = Writer(vec![b'l', kind, 0, 1]);
    header.u32(u32::try_from(body.0.len()).unwrap_or(u32::MAX));
    header.u32(serial);
    header.u32(0);
    fields(&mut header);
    if !signature.is_empty() {
        header.field(SIGNATURE, "g", |w| w.signature(&signature));
    }
    if args.iter().any(|value| matches!(value, Value::File(_))) {
        header.field(UNIX_FDS, "u", |w| w.u32(1));
    }
    let length = u32::try_from(header.0.len() - 16).unwrap_or(u32::MAX);
    header.0[12..16].copy_from_slice(&length.to_le_bytes());
    header.align(8);
    header.0.extend(body.0);
    header.0
}

/// A call.
pub(in super::super) fn call(serial: u32, target: Target, member: &str, args: &[Value]) -> Vec<u8> {
    let fields = |w: &mut Writer| {
        w.field(PATH, "o", |w| w.str(target.path));
        w.field(INTERFACE, "s", |w| w.str(target.interface));
        w.field(MEMBER, "s", |w| w.str(member));
        w.field(DESTINATION, "s", |w| w.str(target.destination));
    };
    message(1, serial, fields, args, false)
}

/// An answer, for tests of those who ask.
#[cfg(test)]
pub(in super::super) fn answer(serial: u32, to: u32, args: &[Value], wrapped: bool) -> Vec<u8> {
    message(2, serial, |w| w.field(REPLY_SERIAL, "u", |w| w.u32(to)), args, wrapped)
}

/// A refusal, for tests of those who ask.
#[cfg(test)]
pub(in super::super) fn refusal(serial: u32, to: u32, name: &str, text: &str) -> Vec<u8> {
    let fields = |w: &mut Writer| {
        w.field(ERROR_NAME, "s", |w| w.str(name));
        w.field(REPLY_SERIAL, "u", |w| w.u32(to));
    };
    message(3, serial, fields, &[Value::Str(text.to_owned())], false)
}

/// A signal, for tests of those who listen.
#[cfg(test)]
pub(in super::super) fn signal(serial: u32, interface: &str, member: &str, args: &[Value]) -> Vec<u8> {
    let fields = |w: &mut Writer| {
        w.field(PATH, "o", |w| w.str("/org/freedesktop/login1"));
        w.field(INTERFACE, "s", |w| w.str(interface));
        w.field(MEMBER, "s", |w| w.str(member));
    };
    message(4, serial, fields, args, false)
}

/// How long the message at the start is; `None` while too little of it is there to tell.
pub(in super::super) fn length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    if bytes.len() < 16 {
        return Ok(None);
    }
    if bytes[0] != b'l' || bytes[3] != 1 {
        // Who sends in the other order of bytes runs on another machine.
        return Err(Error::Nonsense("a message of another byte order or version"));
    }
    let mut reader = Reader { bytes, at: 4 };
    let body = reader.size()?;
    reader.at = 12;
    let fields = reader.size()?;
    let header = 16usize.saturating_add(fields).next_multiple_of(8);
    Ok(Some(header.saturating_add(body)))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(count).ok_or(Error::Nonsense("a length without end"))?;
        let taken = self.bytes.get(self.at..end).ok_or(Error::Nonsense("a message that ends early"))?;
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.align(8);
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn size(&mut self) -> Result<usize, Error> {
        usize::try_from(self.u32()?).map_err(|_| Error::Nonsense("a length without end"))
    }

    fn text(&mut self, length: usize) -> Result<String, Error> {
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn str(&mut self) -> Result<String, Error> {
        let length = self.size()?;
        self.text(length)
    }

    fn signature(&mut self) -> Result<String, Error> {
        let length = usize::from(self.take(1)?[0]);
        self.text(length)
    }

    fn value(&mut self, kind: char, files: &mut Vec<Option<OwnedFd>>) -> Result<Value, Error> {
        Ok(match kind {
            's' | 'o' => Value::Str(self.str()?),
            'g' => Value::Str(self.signature()?),
            'i' => Value::I32(i32::from_le_bytes(self.u32()?.to_le_bytes())),
            'u' => Value::U32(self.u32()?),
            't' => Value::U64(self.u64()?),
            'b' => Value::Bool(self.u32()? != 0),
            'h' => {
                let file = files.get_mut(self.size()?).and_then(Option::take);
                Value::File(file.ok_or(Error::Nonsense("a file that did not come"))?)
            }
            'v' => {
                let inner = self.signature()?;
                let mut letters = inner.chars();
                match (letters.next(), letters.next()) {
                    // One inside another is not needed, and has no end.
                    (Some(kind), None) if kind != 'v' => self.value(kind, files)?,
                    _ => return Err(Error::Nonsense("a value of a kind that nobody asked for")),
                }
            }
            _ => return Err(Error::Nonsense("a value of a kind that nobody asked for")),
        })
    }
}

/// Reads one whole message; its files are the first that came.
pub(in super::super) fn read(bytes: &[u8], files: &mut VecDeque<OwnedFd>) -> Result<Message, Error> {
    let mut reader = Reader { bytes, at: 8 };
    let serial = reader.u32()?;
    let kind = match bytes.get(1) {
        Some(1) => Kind::Call,
        Some(2) => Kind::Return,
        Some(3) => Kind::Error,
        _ => Kind::Signal,
    };
    let (reply_to, body) = (None, Vec::new());
    let (interface, member, error) = (String::new(), String::new(), String::new());
    let mut message = Message { kind, serial, reply_to, interface, member, error, body };
    if message.serial == 0 {
        return Err(Error::Nonsense("a message without a number"));
    }
    let end = 16 + reader.size()?;
    let (mut signature, mut count) = (String::new(), 0);
    while reader.at < end {
        reader.align(8);
        if reader.at >= end {
            break;
        }
        let code = reader.take(1)?[0];
        let kind = reader.signature()?;
        let kind = kind.chars().next().ok_or(Error::Nonsense("a field of no kind"))?;
        match (code, reader.value(kind, &mut Vec::new())?) {
            (INTERFACE, Value::Str(text)) => message.interface = text,
            (MEMBER, Value::Str(text)) => message.member = text,
            (ERROR_NAME, Value::Str(text)) => message.error = text,
            (REPLY_SERIAL, Value::U32(number)) => message.reply_to = Some(number),
            (SIGNATURE, Value::Str(text)) => signature = text,
            (UNIX_FDS, Value::U32(number)) => count = usize::try_from(number).unwrap_or_default(),
            _ => {}
        }
    }
    let mut own: Vec<Option<OwnedFd>> = files.drain(..count.min(files.len())).map(Some).collect();
    reader.at = end.next_multiple_of(8);
    for kind in signature.chars() {
        match reader.value(kind, &mut own) {
            Ok(value) => message.body.push(value),
            // What else there is, nobody here looks at.
            Err(_) => break,
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Target = Target { destination: "a.b", path: "/a", interface: "a.B" };

    #[test]
    fn a_call_is_written_as_the_specification_says() {
        let bytes = call(1, TARGET, "M", &[Value::Str("x".into())]);
        let expected: Vec<u8> = [
            &b"l\x01\x00\x01"[..],
            &[6, 0, 0, 0, 1, 0, 0, 0, 71, 0, 0, 0],
            b"\x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00",
            b"\x02\x01s\x00\x03\x00\x00\x00a.B\x00\x00\x00\x00\x00",
            b"\x03\x01s\x00\x01\x00\x00\x00M\x00\x00\x00\x00\x00\x00\x00",
            b"\x06\x01s\x00\x03\x00\x00\x00a.b\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x01s\x00\x00",
            b"\x01\x00\x00\x00x\x00",
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(length(&bytes).expect("a header"), Some(bytes.len()));
        assert!(length(&bytes[..15]).expect("not yet").is_none());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let args =
            [Value::Str("s".into()), Value::I32(-1), Value::U64(1 << 40), Value::Bool(true), Value::U32(7)];
        let bytes = signal(9, "a.B", "Happened", &args);
        let message = read(&bytes, &mut VecDeque::new()).expect("a message");
        assert_eq!((message.kind, message.serial, message.member.as_str()), (Kind::Signal, 9, "Happened"));
        assert_eq!(format!("{:?}", message.body), format!("{args:?}"));
        let bytes = answer(2, 1, &[Value::U64(5_000_000)], true);
        let message = read(&bytes, &mut VecDeque::new()).expect("a message");
        assert_eq!((message.kind, message.reply_to), (Kind::Return, Some(1)));
        assert!(matches!(message.body[0], Value::U64(5_000_000)));
    }

    #[test]
    fn nonsense_is_refused_and_never_read_past() {
        let whole = refusal(2, 1, "a.Error", "no");
        assert_eq!(read(&whole, &mut VecDeque::new()).expect("a message").error, "a.Error");
        for end in 16..whole.len() {
            drop(read(&whole[..end], &mut VecDeque::new()));
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 0xff;
            drop(length(&broken));
            drop(read(&broken, &mut VecDeque::new()));
        }
        assert!(length(b"B\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00").is_err());
    }
}
