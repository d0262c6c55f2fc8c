//! The wire format itself: varints, tags, lengths, frames.

use super::Error;

/// How a field stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Data<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Writes a varint.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn varint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

/// Writes what stands before a value.
pub fn tag(out: &mut Vec<u8>, tag: u32, wire_type: u32) {
    varint(out, u64::from(tag << 3 | wire_type));
}

/// Writes a field that is a number.
pub fn number(out: &mut Vec<u8>, at: u32, value: i64) {
    tag(out, at, 0);
    varint(out, value as u64);
}

/// Writes a field that is bytes or text.
pub fn bytes(out: &mut Vec<u8>, at: u32, value: &[u8]) {
    tag(out, at, 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Writes a nested message: its length is known only once it is written, so room for one byte is left and the
/// message moved when that is not enough.
pub fn nested(out: &mut Vec<u8>, at: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, at, 2);
    out.push(0);
    let start = out.len();
    write(out);
    let length = out.len() - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
        return;
    }
    let more = varint_len(length as u64) - 1;
    out.resize(out.len() + more, 0);
    out.copy_within(start..start + length, start + more);
    let mut rest = length;
    for slot in &mut out[start - 1..start + more] {
        *slot = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[start + more - 1] &= 0x7f;
}

/// A message behind its length in four bytes, big-endian: one frame of a stream.
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    out.extend_from_slice(message);
    out
}

/// Reads the fields of a message one after another.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    pub(super) fn next(&mut self) -> Result<Option<(u32, Data<'a>)>, Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let at = u32::try_from(key >> 3).map_err(|_| Error::Malformed("illegal tag"))?;
        if at == 0 {
            return Err(Error::Malformed("illegal tag 0"));
        }
        let data = match key & 7 {
            0 => Data::Varint(self.varint()?),
            1 => Data::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length =
                    usize::try_from(self.varint()?).map_err(|_| Error::Malformed("negative length"))?;
                Data::Bytes(self.take(length)?)
            }
            5 => Data::Fixed32(u32::from_le_bytes(self.array()?)),
            3 | 4 => return Err(Error::Malformed("wiretype end group for non-group")),
            _ => return Err(Error::Malformed("illegal wireType")),
        };
        Ok(Some((at, data)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() < 10 { Error::Truncated } else { Error::Malformed("integer overflow") })
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        if length > self.rest.len() {
            return Err(Error::Truncated);
        }
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take(N)?.try_into().map_err(|_| Error::Truncated)
    }
}

impl<'a> Data<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Error> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Error::Malformed("wrong wireType")),
        }
    }

    pub(super) fn number(self) -> Result<u64, Error> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(Error::Malformed("wrong wireType")),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::Malformed("invalid UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_messages_of_any_length_read_back() {
        for length in [0, 1, 127, 128, 129, 16_383, 16_384, 70_000] {
            let body = vec![7u8; length];
            let mut out = Vec::new();
            nested(&mut out, 3, |out| out.extend_from_slice(&body));
            number(&mut out, 4, -1);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.next(), Ok(Some((3, Data::Bytes(&body)))));
            assert_eq!(reader.next(), Ok(Some((4, Data::Varint(u64::MAX)))));
            assert_eq!(reader.next(), Ok(None));
        }
    }

    #[test]
    fn broken_messages_are_refused() {
        for (bytes, error) in [
            (&[0x0a, 5, 1][..], Error::Truncated),
            (&[0x08, 0x80], Error::Truncated),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                Error::Malformed("integer overflow"),
            ),
            (&[0x03], Error::Malformed("illegal tag 0")),
            (&[0x0c], Error::Malformed("wiretype end group for non-group")),
        ] {
            assert_eq!(Reader::new(bytes).next(), Err(error), "{bytes:?}");
        }
    }
}
